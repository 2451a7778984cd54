#!/bin/bash
# collect.sh [PODS] [SECONDS]: what it costs to ask pods for their role, in CPU of the whole cluster (nodes, API server, controller, pods), on our
# own cluster with the guardian installed: not at all, by a new exec each time, over connections that are kept, and by an agent in each pod.
set -euo pipefail; cd "$(dirname "$0")/.."
. e2e/cluster/env.sh
pods=${1:-30} seconds=${2:-60} ns=guardian-bench-collect-$$ guardian=${CARGO_TARGET_DIR:-target}/debug/guardian
cpu=/sys/fs/cgroup/cpuacct/$CLUSTER/cpuacct.usage
[ -r "$cpu" ] || die "our own cluster is not up: make cluster-up"
trap 'kubectl delete namespace $ns --wait=false > /dev/null' EXIT
kubectl create namespace "$ns" > /dev/null; "$guardian" enable "$ns" > /dev/null

policy() {                                           # how often the role is asked for, and by whom; not at all without
  local role='' collect=${2:-exec}; [ -z "$1" ] || role="role: {command: [echo, primary], every: $1}"
  kubectl -n "$ns" apply -f - > /dev/null <<POLICY
apiVersion: v1
kind: ConfigMap
metadata: {name: app, labels: {stateful-guardian.io/policy: "true"}}
data:
  policy.yaml: |
    apiVersion: stateful-guardian.io/v1alpha1
    kind: GuardianPolicy
    collect: $collect
    $role
POLICY
}
policy ''
kubectl -n "$ns" apply -f - > /dev/null <<SET
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: app}
spec:
  serviceName: app
  replicas: $pods
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - name: app
        image: busybox:1.35
        command: [sh, -c, "trap 'exit 0' TERM; sleep 86400 & wait"]
        resources: {requests: {cpu: 5m, memory: 16Mi}}
SET
kubectl -n "$ns" rollout status statefulset app --timeout=180s > /dev/null

# The resident memory of the cluster's own processes in MiB: API server, kubelets, containerd and the rest, and what runs in pods.
memory() { for p in $(cluster_pids); do awk '/^VmRSS/ { print $2 }' "/proc/$p/status" 2>/dev/null; done | awk '{ sum += $1 } END { printf "%d", sum / 1024 }'; }
measure() {                                          # what, seconds between two questions to a pod
  local before after; sleep 15                       # what has changed takes hold
  before=$(cat "$cpu"); sleep "$seconds"; after=$(cat "$cpu")
  awk -v what="$1" -v every="$2" -v pods="$pods" -v ns=$((after - before)) -v s="$seconds" -v idle="${idle:-0}" -v mib="$(memory)" 'BEGIN {
    ms = ns / 1e6 / s
    printf "collect/%s pods=%d cluster=%.0fms/s", what, pods, ms
    if (every) printf " asked=%.1f/s each=%.1fms", pods / every, (ms - idle) / (pods / every)
    printf " rss=%dMiB\n", mib }'
  idle=${idle:-$(((after - before) / 1000000 / seconds))}
}
labelled() { [ "$(kubectl -n "$ns" get pods -l stateful-guardian.io/role=primary -o name | wc -l)" = "$pods" ]; }
measure idle 0
policy 10s
until labelled; do sleep 1; done
measure exec 10
policy 5s
measure kept 5
policy 1s
measure kept 1
# A sidecar in each pod, which is another template: first what it takes while nobody asks.
policy '' agent
kubectl -n "$ns" rollout restart statefulset app > /dev/null
kubectl -n "$ns" rollout status statefulset app --timeout=600s > /dev/null
idle=; measure agent-idle 0
policy 10s agent
until labelled; do sleep 1; done
measure agent 10
policy 5s agent
measure agent 5
policy 1s agent
measure agent 1
