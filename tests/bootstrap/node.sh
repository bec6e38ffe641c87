#!/bin/sh
# Gets the npm packages that tests need (npm-packages.txt) and that are not in the cache yet.
#
# Each goes to a folder of its own, NAME-VERSION, which appears when it is complete.  Nothing of a
# package is run.  Exit status 1 if one is missing in the end; what npm says goes to
# .npm-install.log.
set -eu

cache=${BUCKETSYNC_TEST_CACHE:-$HOME/.cache/bucketsync}/npm
log=.npm-install.log
status=0

fetch() {
    mkdir -p "$cache"
    new=$(mktemp -d "$cache/new.XXXXXX")
    npm install --prefix "$new" --ignore-scripts --omit=optional --no-audit --no-fund \
        --before "$2T00:00:00Z" "$1" >>"$log" 2>&1 || { rm -rf "$new"; return 1; }
    mv "$new" "$3"
}

: >"$log"
while read -r name version day _; do
    case $name in
        '' | '#'*) continue ;;
    esac
    folder=$cache/$name-$version
    if [ ! -d "$folder" ]; then
        echo "Installing npm package: $name; npm writes to $log."
        fetch "$name@$version" "$day" "$folder" </dev/null || status=1
    fi
done <tests/bootstrap/npm-packages.txt
exit "$status"
