#!/bin/bash
# Installs the Debian packages that the cluster and its images need; does nothing when all are there. The programs are used
# as files. On a machine with systemd, Debian starts its own containerd service with the package; the cluster does not use it.
set -euo pipefail; NEW_CLUSTER=1; . "$(dirname "$0")/env.sh"
packages="containerd runc iptables nftables conntrack iproute2 procps jq curl ca-certificates openssl gcc libc6-dev busybox-static redis-tools buildah"
missing() { local p; for p in $packages; do [ "$(dpkg-query -W -f '${db:Status-Status}' $p 2>/dev/null)" = installed ] || echo "$p"; done; }
wanted=$(missing | xargs)
[ -n "$wanted" ] || exit 0
need_root
command -v apt-get >/dev/null || die "this is not Debian, install yourself what these packages hold: $wanted"
echo "installing $wanted"
log=$(mktemp); trap 'rm -f "$log"' EXIT
{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $wanted; } >"$log" 2>&1 || { tail -20 "$log" >&2; die "apt-get failed"; }
