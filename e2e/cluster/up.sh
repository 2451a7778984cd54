#!/bin/bash
# Brings the cluster up and waits until it is usable: packages, binaries, images and nodes, each only where it is missing.
set -euo pipefail; NEW_CLUSTER=1 asked=()
for s in K8S_VERSION NODES NET POD_NET SVC_NET PROXY_MODE NODE_GRACE; do [ -z "${!s:-}" ] || asked+=("$s=${!s}"); done
. "$(dirname "$0")/env.sh"
unset NEW_CLUSTER
need_root
[ -d /sys/fs/cgroup/freezer ] && [ -d /sys/fs/cgroup/memory ] || die "cgroup v1 is needed, and /sys/fs/cgroup/freezer is not mounted (boot with systemd.unified_cgroup_hierarchy=0). The tests run on any other cluster too: set KUBECONFIG"
[[ $CLUSTER =~ ^[a-z]{1,8}$ ]] || die "CLUSTER=$CLUSTER: one word of 1 to 8 small letters, for interface names have 15"
[[ $NODES =~ ^[1-9]$ ]] || die "NODES=$NODES: a number from 1 to 9"
for d in "$STATE" "$HERE" "$BIN" "$ADDONS" "$IMAGES"; do
  case $d/ in /var/*|/run/*) die "$d: a node has its own /var and /run, so nothing it needs may live there: move the clone, or set STATE and CLUSTER_CACHE";; esac
done
alone "$CLUSTER"
refuse_foreign
holds=$(sed -n 's/^CLUSTER=//p' "$STATE/cluster.env" 2>/dev/null) || true
[ -z "$holds" ] || [ "$holds" = "$CLUSTER" ] || die "$STATE is of the cluster '$holds', not '$CLUSTER': set STATE too, or make cluster-down first"
use_it() { echo "export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH"; }
repair() {                                           # nodes that a test killed or froze
  for ((n = 0; n < NODES; n++)); do
    if node_pid $n >/dev/null; then "$HERE/node-thaw.sh" $n; else "$HERE/node-start.sh" $n; say "node $n started again"; fi
  done
  for _ in $(seq 60); do "$HERE/status.sh" --quiet && return; sleep 1; done
  die "the cluster in $STATE is not whole: make cluster-status says more, make cluster-down ends it"
}
if [ -e "$STATE/up" ] && [ -n "$(living_state)" ]; then
  for a in "${asked[@]}"; do
    grep -qxF "$a" "$STATE/cluster.env" || die "a cluster with other settings ($(grep "^${a%%=*}=" "$STATE/cluster.env"), not ${a#*=}) is up in $STATE: make cluster-down first"
  done
  . "$STATE/cluster.env"; "$HERE/status.sh" --quiet || repair
  echo "up already: Kubernetes $K8S_VERSION in $STATE"; use_it; exit 0
fi
[ ! -e "$STATE" ] || [ -e "$STATE/cluster.env" ] || [ -z "$(ls -A "$STATE")" ] || die "$STATE is not empty and not of a cluster: set STATE to another directory"
"$HERE/down.sh" --remains || exit                    # of a cluster that died, or whose cluster-up was broken off
for n in "$NET.0/24" "$POD_NET.0.0/16" "$SVC_NET.0.0/16"; do
  used=$({ ip -4 route show table all match "$n"; ip -4 route show table all root "$n"; } | grep -v '^default' | sort -u | head -1) || true
  [ -z "$used" ] || die "addresses $n are in use on this machine ($used): set NET, POD_NET or SVC_NET"
done
# Three idle nodes were seen to take 263 MiB (images, etcd's preallocated log), so 90 each; the rest is for logs and volumes of tests.
need_space "$STATE" $((NODES * 100 + 200)) "$NODES nodes"
"$HERE/install.sh" || exit; say "Debian packages"
"$HERE/build.sh" || exit; say "binaries"
"$HERE/images.sh" || exit; say "images"

started=${EPOCHREALTIME/[.,]/}; mkdir -p "$STATE"
for s in $SETTINGS; do printf '%s=%q\n' $s "${!s}"; done > "$STATE/cluster.env"
"$HERE/pki.sh"; say "certificates"
ip link add "$BRIDGE" type bridge
ip link set "$BRIDGE" alias "stateful-guardian $STATE"     # down.sh removes no bridge without it
ip addr add "$HOST_IP/24" dev "$BRIDGE"
ip link set "$BRIDGE" up
for ((n = 0; n < NODES; n++)); do "$HERE/node-start.sh" $n & done; wait
ip route add "$SVC_NET.0.0/16" via "$(node_ip 0)"    # services as seen from the host: node 0's kube-proxy
say "$NODES nodes boot"
alive() {                                            # called in every wait: a wait ends
  for ((i = 0; i < NODES; i++)); do node_pid $i >/dev/null || die "node $i died, see $STATE/node-$i/node.log"; done
  (( SECONDS < limit )) || die "not up after 240 s: see make cluster-status, $STATE/manifests.log and $STATE/node-*/var/log/components"
}
limit=$((SECONDS + 240))                             # 11 s is usual on two cores; 50 s were seen where seven others shared each of them
until api_ready; do alive; sleep 0.1; done; say "API server ready"

# The control plane is a set of plain processes, so DNS, metrics and storage are only objects that point at node 0.
manifests() {
  for m in dns metrics storage; do
    echo ---; sed -e "s|@NODE0_IP@|$(node_ip 0)|g" -e "s|@DNS_IP@|$DNS_IP|g" -e "s|@CA@|$(base64 -w0 "$PKI/ca.crt")|g" "$HERE/manifests/$m.yaml"
  done
}
kubectl apply -f "$ADDONS/crd" >/dev/null               # VolumeSnapshot. The first request to a new CRD takes 2 s: not waited for here
( until kubectl apply -f "$HERE/manifests/snapshots.yaml"; do alive; sleep 0.2; done ) >"$STATE/snapshots.log" 2>&1 & class=$!
until manifests | kubectl apply -f - >"$STATE/manifests.log" 2>&1; do alive; sleep 0.1; done
say "DNS, metrics and storage described"
for ((n = 0; n < NODES; n++)); do
  until kubectl get node "node-$n" >/dev/null 2>&1; do alive; sleep 0.1; done
  # What a cloud or CNI controller does; nothing here reads it, but programs under test may.
  kubectl patch node "node-$n" -p "{\"spec\":{\"podCIDR\":\"$POD_NET.$n.0/24\",\"podCIDRs\":[\"$POD_NET.$n.0/24\"]}}" >/dev/null
done
kubectl label node node-0 node-role.kubernetes.io/control-plane= >/dev/null    # a kubelet may not give itself this label
until kubectl wait --for=condition=Ready node --all --timeout=5s >/dev/null 2>&1; do alive; done; say "all nodes Ready"
until kubectl get serviceaccount default >/dev/null 2>&1; do alive; sleep 0.1; done
for ((n = 0; n < NODES; n++)); do
  until [ "$(kubectl get csinode "node-$n" -o jsonpath='{.spec.drivers[*].name}' 2>/dev/null | wc -w)" = 2 ]; do alive; sleep 0.1; done
done; wait $class
touch "$STATE/up"; say "up: Kubernetes $K8S_VERSION"
use_it
