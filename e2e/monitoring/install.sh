#!/bin/bash
# Puts prometheus and promtool of Debian's package into the directory of the tools; does nothing when they are on the PATH. The package is
# unpacked, not installed: where there is systemd its installation starts a server on all addresses, and nobody here wants one.
set -euo pipefail
tools=${XDG_CACHE_HOME:-$HOME/.cache}/stateful-guardian/tools/bin
PATH=$tools:$PATH
die() { echo "monitoring/install.sh: $*" >&2; exit 1; }
command -v prometheus > /dev/null && command -v promtool > /dev/null && exit 0
command -v apt-get > /dev/null || die "this is not Debian, put prometheus and promtool on the PATH yourself"
echo "unpacking prometheus"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
chmod 755 "$work" && cd "$work"                      # apt downloads as a user of its own, who must get in
download() { apt-get download -q prometheus > log 2>&1; }
download || { [ "$(id -u)" != 0 ] || apt-get update -q > log 2>&1; download; } || { tail -20 log >&2; die "apt-get download failed"; }
dpkg-deb --extract prometheus_*.deb .
mkdir -p "$tools"
# Under another name first: two of these may run at once, and neither must find half a program.
for program in prometheus promtool; do cp "usr/bin/$program" "$tools/.$program.$$" && mv "$tools/.$program.$$" "$tools/$program"; done
