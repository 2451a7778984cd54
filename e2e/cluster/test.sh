#!/bin/bash
# Proves the scripts: bad input, two at once, crashes, another clone, and what tests rely on in a cluster. On clusters of its
# own, in copies of this directory under a temporary one, beside a cluster that may be up. One line per fact, with its time;
# fails at the end if one failed.
set -uo pipefail
for s in K8S_VERSION NODES PROXY_MODE NODE_GRACE STATE BIN ADDONS IMAGES; do [ $s = K8S_VERSION ] || unset $s; done
export CLUSTER=gtest NET=10.98.0 POD_NET=10.243 SVC_NET=10.95
NEW_CLUSTER=1 . "$(dirname "$0")/env.sh"; unset NEW_CLUSTER STATE KUBECONFIG BIN ADDONS IMAGES
need_root
here=$(cd "$(dirname "$0")" && pwd); failed=0
T=$(mktemp -d /tmp/cluster-test.XXXXXX); chmod 755 "$T"; A=$T/a/e2e/cluster B=$T/b/e2e/cluster
for c in a b; do mkdir -p "$T/$c/e2e"; cp -r "$here" "$T/$c/e2e/cluster"; cp "$CLONE/Containerfile" "$T/$c/"; done
finish() {
  ip link del gtest-x 2>/dev/null; umount "$T/small" 2>/dev/null
  s=$(living_state); [ -z "$s" ] || STATE=$s LOGS=${LOGS:-} "$A/down.sh" >/dev/null; "$A/down.sh" >/dev/null && rm -rf "$T"
}
trap finish EXIT
within() { local s=$((SECONDS + $1)); shift; until "$@"; do (( SECONDS < s )) || return 1; sleep 0.1; done; }
check() {                                            # name, command...: its output is shown only if it fails
  local name=$1 t=${EPOCHREALTIME/[.,]/} out s=ok; shift
  out=$("$@" 2>&1) || { s=FAIL; failed=1; }
  t=$(((${EPOCHREALTIME/[.,]/} - t) / 10000)); printf '%-4s %3d.%02d s  %s\n' $s $((t / 100)) $((t % 100)) "$name"
  [ $s = ok ] || tail -12 <<< "$out" | sed 's/^/       /'
}
refused() {                                          # words of the message, command...: fails with it in one line
  local words=$1 out; shift
  ! out=$("$@" 2>&1) || { echo "not refused: $out"; return 1; }
  grep -qF -- "$words" <<< "$out" && [ "$(wc -l <<< "$out")" = 1 ] || { echo "refused with: $out"; return 1; }
}
# All of the machine that a cluster could change and that others do not change meanwhile.
traces() {
  ip -o link | sed 's/^[0-9]*: //; s/ .*//' | sort | grep -v "$(cat "$T/others")"
  ip -4 route show table all | grep -E '10\.(9[58]|243)\.'
  grep -E "$T|gtest" /proc/mounts /proc/[0-9]*/cgroup 2>/dev/null
  find /sys/fs/cgroup -maxdepth 3 -type d -name "$CLUSTER*"
  sysctl -a 2>/dev/null | grep -E '^(vm.overcommit_memory|vm.panic_on_oom|kernel.panic|kernel.panic_on_oops|kernel.keys.root_max|net.ipv4.ip_forward|net.netfilter.nf_conntrack_max)'
  nft list ruleset 2>/dev/null
  find /etc /usr /var /run /opt -xdev \( -path /var/lib/containers -o -path /run/lock -o -path /var/tmp \) -prune -o -print 2>/dev/null | sort
}
# Interfaces of another cluster that is up, and of its pods, come and go.
ip -o link | sed 's/^[0-9]*: //; s/[@:].*//' | grep -E -- '-br$|-n[0-9]$' | grep -v gtest | paste -sd'|' | sed 's/|/\\|/g; s/^$/^$/' > "$T/others"
"$here/install.sh" && "$here/build.sh" && "$here/images.sh" || exit
traces > "$T/before"

echo "--- bad input"
check "no root" refused "must be root" setpriv --reuid=65534 --clear-groups -- "$A/up.sh"
no_go() {                                            # every program of the machine but Go
  mkdir "$T/path" && for d in /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do ln -sft "$T/path" "$d"/* 2>/dev/null; done; rm -f "$T/path/go"
  ! out=$(PATH=$T/path CLUSTER_CACHE=$T/cache "$A/up.sh" 2>&1) && grep "Go is missing" <<< "$out" && [ ! -e "$T/a/.cluster" ]
}
check "no Go, and nothing built yet" no_go
unknown() { ! out=$(K8S_VERSION=1.2.3 "$A/up.sh" 2>&1) && grep "no Kubernetes 1.2.3: there is " <<< "$out"; }
check "a version that has no module" unknown
check "a cluster name that is too long" refused "CLUSTER=interface" env CLUSTER=interface "$A/up.sh"
check "ten nodes" refused "NODES=10" env NODES=10 "$A/up.sh"
check "a state directory under /var" refused "/var/tmp/x: a node has its own /var" env STATE=/var/tmp/x "$A/up.sh"
mkdir "$T/mine"; echo keep > "$T/mine/file"
check "a state directory that holds something else" refused "$T/mine is not empty and not of a cluster" env STATE="$T/mine" "$A/up.sh"
check "cluster-down leaves such a directory alone" eval 'STATE=$T/mine "$A/down.sh" && grep keep "$T/mine/file"'
ip link add gtest-br type bridge
check "an interface of the bridge's name" refused "gtest-br is not of a cluster" "$A/up.sh"
check "it is still there" ip link del gtest-br
ip link add gtest-x type bridge; ip addr add 10.98.0.77/24 dev gtest-x; ip link set gtest-x up
check "a route to the nodes' network" refused "addresses 10.98.0.0/24 are in use on this machine" "$A/up.sh"
ip link del gtest-x; ip link add gtest-x type bridge; ip addr add 10.95.3.4/32 dev gtest-x
check "an address among the services" refused "addresses 10.95.0.0/16 are in use" "$A/up.sh"
ip link del gtest-x
mkdir "$T/small"; mount -t tmpfs -o size=64M tmpfs "$T/small"
check "a disk with 64 MiB" refused "MiB free, 500 MiB needed for 3 nodes" env STATE="$T/small/state" "$A/up.sh"
umount "$T/small"
check "cluster-status says that nothing is up" refused "down: no cluster 'gtest' runs" "$A/status.sh"
check "cluster-down of nothing" eval '"$A/down.sh" | grep "nothing is up"'
check "image-load.sh without a cluster" refused "no node is running" sh -c '"$0" /dev/null 2>&1 | tail -1 >&2; exit 1' "$A/image-load.sh"

echo "--- up, and others meanwhile"
at_once() {                                          # cat ends when all who write to the pipe have closed it: nodes may not be among them
  "$A/up.sh" 2>&1 | timeout 120 cat > "$T/first" & "$A/up.sh" 2>&1 | timeout 120 cat > "$T/second"; local second=$?; wait $!; local first=$?
  cat "$T/first" "$T/second"; [ $first$second = 00 ] && [ "$(cat "$T/first" "$T/second" | grep -c "waiting for it")" = 1 ] &&
  [ "$(cat "$T/first" "$T/second" | grep -c "up already")" = 1 ]
}
check "cluster-up twice at once: one brings it up, the other waits and says so" at_once
check "a third says that it is up" eval '"$A/up.sh" | grep "up already: Kubernetes"'
check "cluster-status agrees" "$A/status.sh"
check "other settings are refused while it is up" refused "a cluster with other settings (NODES=3, not 2) is up" env NODES=2 "$A/up.sh"
check "another clone's cluster-up is refused and names it" refused "belongs to STATE=$T/a/.cluster" "$B/up.sh"
check "so is its cluster-down" refused "belongs to STATE=$T/a/.cluster" "$B/down.sh"

echo "--- what tests rely on"
export KUBECONFIG=$T/a/.cluster/admin.kubeconfig KUBECACHEDIR=$T/a/.cluster/kubectl-cache
PATH="$(sed -n 's/^BIN=//p' "$T/a/.cluster/cluster.env"):$PATH"
. "$here/test-checks.sh"
. "$here/test-crashes.sh"
exit $failed
