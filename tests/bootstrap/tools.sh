#!/bin/sh
# Gets the programs that tests need (debian-packages.txt) and that are not there yet, then what they
# need of npm's (npm-packages.txt).
#
# Always succeeds: a test whose program is missing is skipped, and the run lists it at its end.
set -eu

PATH=$PATH:/usr/sbin:/sbin
missing=
while read -r program package _; do
    case $program in
        '' | '#'*) ;;
        *) command -v "$program" >/dev/null 2>&1 || missing="$missing $package" ;;
    esac
done <tests/bootstrap/debian-packages.txt

# shellcheck disable=SC2086  # one argument for each package
if [ -n "$missing" ] && ! sh tests/bootstrap/apt.sh $missing; then
    echo "Not installed, so some tests will be skipped:$missing."
fi

if ! command -v npm >/dev/null 2>&1 || ! sh tests/bootstrap/node.sh; then
    echo "Not installed, so some tests will be skipped: tests/bootstrap/npm-packages.txt."
fi
