#!/bin/bash
# Installs the Debian packages that the tests in a browser need; does nothing when all are there.
set -euo pipefail
packages="chromium chromium-driver fonts-liberation"
die() { echo "browser/install.sh: $*" >&2; exit 1; }
missing() { local p; for p in $packages; do [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"; done; }
if ! command -v apt-get >/dev/null; then
  command -v chromedriver >/dev/null || die "this is not Debian, install Chromium and its chromedriver yourself"
  exit 0
fi
wanted=$(missing | xargs)
[ -n "$wanted" ] || exit 0
[ "$(id -u)" = 0 ] || die "must be root to install $wanted"
echo "installing $wanted"
log=$(mktemp); trap 'rm -f "$log"' EXIT
{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $wanted; } >"$log" 2>&1 || { tail -20 "$log" >&2; die "apt-get failed"; }
