#!/bin/bash
# generate.sh VERSION: writes VERSION/go.mod and go.sum, to be committed, for another Kubernetes such as 1.35.4.
# k8s.io/kubernetes requires its 31 staging modules at v0.0.0 and replaces them by folders that its published module does not
# contain; here they are replaced by their published versions. etcd is the version that this Kubernetes was tested with.
set -euo pipefail; v=${1:?version} staging=v0.${1#1.}
dir=$(dirname "$0")/$v; mkdir -p "$dir"; cd "$dir"; rm -f go.mod go.sum
upstream=$(cd / && go mod download -json "k8s.io/kubernetes@v$v" | jq -r .GoMod)
{ echo "module stateful-guardian.io/cluster/kubernetes"
  grep -E '^(go|godebug) ' "$upstream"
  echo "tool ("; printf 'k8s.io/kubernetes/cmd/%s\n' kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; echo ")"
  echo "require k8s.io/kubernetes v$v"
  echo "replace ("; awk '/=> .\/staging/ { print $1 }' "$upstream" | while read -r m; do echo "$m => $m $staging"; done; echo ")"
} > go.mod
go mod tidy
go get -tool "go.etcd.io/etcd/server/v3@$(go list -m -f '{{.Version}}' go.etcd.io/etcd/server/v3)"
go mod tidy
