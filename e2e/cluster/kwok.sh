#!/bin/bash
# kwok.sh COUNT: adds COUNT fake nodes, and KWOK to play their kubelets. Pods that tolerate the taint kwok=fake and select
# type=kwok become Ready there without running: for load on controllers, beside the real nodes. Dies with node 0.
set -euo pipefail; . "$(dirname "$0")/env.sh"
count=${1:?how many nodes}; pid=$(node_pid 0) || die "node 0 is not running"
if ! "$HERE/node-exec.sh" 0 pgrep -x kwok >/dev/null; then
  # lease 8: as the kubelets here, else NODE_GRACE is shorter than the renewal and the fake nodes flap
  ( echo $BASHPID > "$FREEZER/node-0/cgroup.procs"
    exec setsid "$HERE/node-exec.sh" 0 kwok --kubeconfig "$PKI/kwok.kubeconfig" --config "$ADDONS/kwok-stages.yaml" --node-ip 10.0.0.1 --cidr 10.0.0.0/16 \
      --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake --node-lease-duration-seconds 8 ) </dev/null >>"$STATE/node-0/var/log/components/kwok.log" 2>&1 &
fi
for ((i = 0; i < count; i++)); do
  cat <<N
---
apiVersion: v1
kind: Node
metadata: {name: kwok-$i, annotations: {kwok.x-k8s.io/node: fake}, labels: {type: kwok, kubernetes.io/hostname: kwok-$i, kubernetes.io/os: linux, topology.kubernetes.io/zone: zone-$((i % 3))}}
spec: {taints: [{key: kwok, value: fake, effect: NoSchedule}]}
status: {allocatable: {cpu: 32, memory: 256Gi, pods: 110}, capacity: {cpu: 32, memory: 256Gi, pods: 110}}
N
done | kubectl apply -f - >/dev/null
kubectl wait --for=condition=Ready node -l type=kwok --timeout=60s >/dev/null
kubectl get nodes
