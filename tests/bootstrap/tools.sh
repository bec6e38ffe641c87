#!/bin/sh
# Gets the programs that a list names (default: debian-packages.txt, what tests need) and that are
# not there yet; with that default also what tests need of npm's (npm-packages.txt), and the other
# line of libtorrent (other-libtorrent.txt).
#
# Always succeeds: a test whose program is missing is skipped, and the run lists it at its end; a
# benchmark goes without it, and says so.
set -eu

PATH=$PATH:/usr/sbin:/sbin
list=${1:-tests/bootstrap/debian-packages.txt}
missing=
while read -r program package _; do
    case $program in
        '' | '#'*) ;;
        *) command -v "$program" >/dev/null 2>&1 || missing="$missing $package" ;;
    esac
done <"$list"

# shellcheck disable=SC2086  # one argument for each package
if [ -n "$missing" ] && ! sh tests/bootstrap/apt.sh $missing; then
    echo "Not installed, so what needs them is left out:$missing."
fi

[ "$#" = 0 ] || exit 0
if ! command -v npm >/dev/null 2>&1 || ! sh tests/bootstrap/node.sh; then
    echo "Not installed, so some tests will be skipped: tests/bootstrap/npm-packages.txt."
fi

if ! sh tests/bootstrap/libtorrent.sh >/dev/null; then
    echo "Not installed, so some tests will be skipped: tests/bootstrap/other-libtorrent.txt."
fi
