#!/bin/sh
# Installs the named Debian packages where that is allowed (root, apt-get); else exit status 1.
#
# What apt-get says goes to .apt-install.log.  Services that come with a package are not started:
# the tests start their own, on free ports.
set -eu

[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || exit 1

log=.apt-install.log
policy=/usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive

install() {
    apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

# invoke-rc.d asks this script whether it may start a service; 101 says no.
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi

echo "Installing Debian packages: $*; apt-get writes to $log."
# Only lists that are missing or old make the first try fail.
install "$@" >"$log" 2>&1 || { apt-get update && install "$@"; } >>"$log" 2>&1
