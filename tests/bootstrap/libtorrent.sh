#!/bin/sh
# Puts the other line of libtorrent (other-libtorrent.txt) into the cache, for the Python of .venv,
# and prints its folder.
#
# What is on PYTHONPATH goes before what .venv has, so no second environment is needed.  Exit status
# 1 if it cannot be had; what pip says goes to .libtorrent-install.log.
set -eu

list=tests/bootstrap/other-libtorrent.txt
version=$(sed -n 's/^libtorrent==\([0-9.]*\).*/\1/p' "$list")
tag=$(.venv/bin/python -c 'import sys; print(sys.implementation.cache_tag)')
cache=${BUCKETSYNC_TEST_CACHE:-$HOME/.cache/bucketsync}/libtorrent
folder=$cache/$version-$tag

if [ ! -d "$folder" ]; then
    mkdir -p "$cache"
    new=$(mktemp -d "$cache/new.XXXXXX")
    .venv/bin/python -m pip install --require-hashes --no-deps --disable-pip-version-check \
        --target "$new" -r "$list" >.libtorrent-install.log 2>&1 || { rm -rf "$new"; exit 1; }
    mv "$new" "$folder"
fi
echo "$folder"
