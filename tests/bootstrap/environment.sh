#!/bin/sh
# Makes .venv from requirements.lock and puts the project in it, each only if it has changed.
#
# Run from the repository's root by the Makefile.  PYTHON names the interpreter (default python3).
# A failure is one sentence on stderr and exit status 1; what pip said is in .venv-install.log.
# A stamp is written last, so a run that is cut off is done anew.
set -eu

python=${PYTHON:-python3}
log=.venv-install.log

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

check_python() {
    command -v "$python" >/dev/null 2>&1 || fail "Python 3.11 or newer is needed and there is no\
 command $python: install it (Debian: apt-get install python3) or name it with make PYTHON=PATH."
    version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null) \
        || fail "Python 3.11 or newer is needed and $python does not run: name another with make\
 PYTHON=PATH."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "Python 3.11 or newer is needed and $python is $version: name another with make\
 PYTHON=PATH."
}

# A copied folder must not use the .venv of its original, so the place counts too.
packages_stamp() {
    pwd
    "$python" -c 'import sys; print(sys.base_prefix, sys.version)'
    cksum requirements.lock
}

# The commands are the only part of an installed project that does not lie in the source tree.
project_stamp() {
    cksum pyproject.toml
}

is_current() {
    [ -e ".venv/$1" ] && [ "$("$1")" = "$(cat ".venv/$1")" ]
}

has() {
    "$python" -c "import $1" 2>/dev/null
}

# Debian keeps ensurepip in a package of its own, but any pip can fill an environment from outside.
make_venv() {
    has ensurepip || has pip || sh tests/bootstrap/apt.sh python3-venv || true
    if has ensurepip; then
        option=--clear
    elif has pip; then
        option=--without-pip
    else
        fail "$python ($version) has neither venv nor pip, and .venv needs one of them: install it\
 (Debian: apt-get install python3-venv)."
    fi
    "$python" -m venv "$option" .venv >>"$log" 2>&1 \
        || fail "$python ($version) cannot make the environment .venv: what it said is in $log."
}

# pip of the environment, or that of $python as long as the environment has none.
pip() {
    if [ -e .venv/bin/pip ]; then
        .venv/bin/python -m pip "$@"
    else
        "$python" -m pip --python .venv/bin/python "$@"
    fi
}

why_pip_failed() {
    if grep -qiE 'connection (broken|refused|reset)|NewConnection|NameResolution|timed out' "$log"
    then
        echo "no connection to the package index"
    else
        sed -n 's/^ERROR: //p' "$log" | tail -n 1
    fi
}

install_packages() {
    echo "Making .venv with $python ($version) from requirements.lock; pip writes to $log."
    rm -rf .venv
    : >"$log"
    make_venv
    pip install --require-hashes --disable-pip-version-check -r requirements.lock >>"$log" 2>&1 \
        || fail "The packages could not be fetched ($(why_pip_failed)): tried pip install\
 --require-hashes -r requirements.lock, whose output is in $log."
    packages_stamp >.venv/packages_stamp
}

install_project() {
    pip install --no-index --no-deps --no-build-isolation -e . >"$log" 2>&1 \
        || fail "The project could not be installed ($(why_pip_failed)): tried pip install\
 --no-deps -e ., whose output is in $log."
    project_stamp >.venv/project_stamp
}

check_python
is_current packages_stamp || install_packages
is_current project_stamp || install_project
