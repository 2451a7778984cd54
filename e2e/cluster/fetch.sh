#!/bin/bash
# fetch.sh: downloads the Go modules of what build.sh builds, for each version of Kubernetes that there is here. On a new machine that is 6 minutes of network alone: begun
# early, beside something that computes, it costs nothing. What it forgets, build.sh downloads.
set -euo pipefail; NEW_CLUSTER=1; . "$(dirname "$0")/env.sh"
command -v go >/dev/null || exit 0                   # build.sh says so, when it is its turn
export CGO_ENABLED=0
fetch() { (cd "$HERE/$1" && shift && go list -deps "$@" >/dev/null); }    # reads the sources of all that is imported, and compiles nothing
for v in $(cd "$HERE/kubernetes" && echo [0-9]*); do
  ls -d "$CLUSTER_CACHE/$v"-* >/dev/null 2>&1 || fetch "kubernetes/$v" k8s.io/kubernetes/cmd/{kube-apiserver,kubelet,kubectl,kube-proxy,kube-scheduler,kube-controller-manager} go.etcd.io/etcd/server/v3
done
[ -d "$ADDONS" ] || fetch addons ./... sigs.k8s.io/metrics-server/cmd/metrics-server sigs.k8s.io/kwok/cmd/kwok
