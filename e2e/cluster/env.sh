# Settings and helpers, sourced by every script here. up.sh takes settings from the environment and writes them to
# $STATE/cluster.env; from then on every script uses those.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CLONE=$(cd "$HERE/../.." && pwd)
SETTINGS="K8S_VERSION NODES CLUSTER NET POD_NET SVC_NET PROXY_MODE NODE_GRACE BIN ADDONS IMAGES"
STATE=$(realpath -m "${STATE:-$CLONE/.cluster}")     # all that a running cluster leaves on disk
CLUSTER_CACHE=$(realpath -m "${CLUSTER_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/stateful-guardian/cluster}")
[ -n "${NEW_CLUSTER:-}" ] || [ ! -f "$STATE/cluster.env" ] || . "$STATE/cluster.env"

K8S_VERSION=${K8S_VERSION:-1.36.3}                   # a directory of kubernetes/
NODES=${NODES:-3}                                    # 1 to 9
CLUSTER=${CLUSTER:-guard}                            # prefix of interfaces, name of the cgroup: 8 letters at most
NET=${NET:-10.99.0}                                  # host .1, node N .(10+N), all on one bridge
POD_NET=${POD_NET:-10.244}                           # node N owns $POD_NET.N.0/24
SVC_NET=${SVC_NET:-10.96}                            # services: /16
PROXY_MODE=${PROXY_MODE:-iptables}                   # or nftables
NODE_GRACE=${NODE_GRACE:-8s}                         # silence after which a node is NotReady (Kubernetes: 50s)

# The directory of what is built is named by what it is built from, how included, so a stale one is never used.
digest() { sha256sum | cut -c1-12; }
inputs() { { sed -n "/^build() /p; /^$1() /,/^}/p" "$HERE/build.sh"; shift; cat "$@" || true; } 2>/dev/null | digest; }
BIN=${BIN:-$CLUSTER_CACHE/$K8S_VERSION-$(inputs kubernetes "$HERE/kubernetes/$K8S_VERSION"/go.*)}
ADDONS=${ADDONS:-$CLUSTER_CACHE/addons-$(inputs addons "$HERE"/addons/go.* "$HERE"/addons/*/*.go)}
IMAGES=${IMAGES:-$CLUSTER_CACHE/images-$({ cat "$HERE/images.sh"; dpkg-query -W busybox-static redis-tools gcc libc6-dev || true; } 2>/dev/null | digest)}

PKI=$STATE/pki
BRIDGE=$CLUSTER-br
HOST_IP=$NET.1
DNS_IP=$SVC_NET.0.10
API=https://$NET.10:6443
CGROUPS="cpu cpuacct cpuset memory devices freezer blkio pids systemd unified"    # cgroup v1 hierarchies, if mounted
FREEZER=/sys/fs/cgroup/freezer/$CLUSTER
export STATE CLUSTER_CACHE PATH="$BIN:$ADDONS:$PATH:/usr/sbin:/sbin" KUBECONFIG=$STATE/admin.kubeconfig
export KUBECACHEDIR=$STATE/kubectl-cache             # else kubectl believes what it read from an earlier cluster at this address

[[ $- != *e* ]] || trap 'echo "${0##*/}: line $LINENO failed: $BASH_COMMAND" >&2' ERR    # set -e alone would end without a word
die() { echo "${0##*/}: $*" >&2; exit 1; }
need_root() { [ "$(id -u)" = 0 ] || die "must be root: it makes namespaces, mounts, cgroups and network interfaces"; }
node_ip() { echo "$NET.$((10 + $1))"; }
started=${EPOCHREALTIME/[.,]/}
say() { local us=$((${EPOCHREALTIME/[.,]/} - started)); printf '%4d.%02d s  %s\n' $((us / 1000000)) $((us % 1000000 / 10000)) "$*"; }

# Is there room for MiB at the place where DIRECTORY is or will be?
need_space() {                                       # directory, MiB, what for
  local d=$1 free; until [ -d "$d" ]; do d=$(dirname "$d"); done
  free=$(($(stat -f -c '%a * %S' "$d") / 1048576))
  (( free >= $2 )) || die "the disk of $d is nearly full: $free MiB free, $2 MiB needed for $3"
}

# Waits until nobody else on this machine, of those who share the cache, does WHAT. The kernel drops a lock with its holder;
# node-start.sh closes it, or a node would hold it. Scripts that the holder calls need not wait.
alone() {                                            # what
  local name=holds_${1//[^a-z]/_} fd
  [ -z "${!name:-}" ] || return 0
  mkdir -p "$CLUSTER_CACHE" && exec {fd}>>"$CLUSTER_CACHE/$1.lock" || die "cannot write to $CLUSTER_CACHE: set CLUSTER_CACHE"
  flock -n $fd || { echo "${0##*/}: another script is at work on '$1', waiting for it"; flock $fd; }
  export "$name=1"
}

# Every process of the cluster, pods too, is in the freezer cgroup of its node. So these lists never hold a stranger.
cluster_pids() { find "$FREEZER" -name cgroup.procs -exec cat {} + 2>/dev/null; }
node_pids() { find "$FREEZER/node-$1" -name cgroup.procs -exec cat {} + 2>/dev/null; }
# PID 1 of node N as the host sees it; fails when the node is not running or the number was given to another process.
node_pid() {
  local p; p=$(cat "$STATE/node-$1/pid" 2>/dev/null) && grep -q "freezer:/$CLUSTER/node-$1\$" "/proc/$p/cgroup" 2>/dev/null && echo "$p"
}
# STATE of the cluster of this name that is alive on this machine, whoever started it: its nodes carry it in their environment.
living_state() {
  local p s; for p in $(cat "$FREEZER"/node-*/cgroup.procs 2>/dev/null); do
    s=$(tr '\0' '\n' < "/proc/$p/environ" 2>/dev/null | sed -n 's/^STATE=//p') && [ -n "$s" ] && { echo "$s"; return; }
  done
}
refuse_foreign() {
  local s; s=$(living_state)
  [ -z "$s" ] || [ "$s" = "$STATE" ] || die "a living cluster '$CLUSTER' belongs to STATE=$s. Take it down with STATE=$s $HERE/down.sh, or bring another up beside it with STATE, CLUSTER, NET, POD_NET and SVC_NET of its own"
}
# Any HTTP answer will do for a kubelet; controllers need ready, or RBAC refuses them and they exit.
api_answers() { curl -s -o /dev/null --cacert "$PKI/ca.crt" "$API/version"; }
api_ready() { curl -sf -o /dev/null --cacert "$PKI/ca.crt" "$API/readyz"; }
# Does the API server give PATH to the owner of certificate NAME? So a component waits for its CRDs and RBAC, and need not crash.
api_gives() { curl -sf -o /dev/null --cacert "$PKI/ca.crt" --cert "$PKI/$1.crt" --key "$PKI/$1.key" "$API$2"; }
until_ok() { until "$@"; do sleep 0.1; done; }
