#!/bin/bash
# Builds what is missing of $BIN (Kubernetes and etcd) and $ADDONS, each from its Go module. CGO off: the binaries run
# anywhere. Two modules, because add-ons would raise versions that Kubernetes was released with.
set -euo pipefail; NEW_CLUSTER=1; . "$(dirname "$0")/env.sh"
[ ! -d "$BIN" ] || [ ! -d "$ADDONS" ] || exit 0
v=$K8S_VERSION; module=$HERE/kubernetes/$v
[ -f "$module/go.sum" ] || die "no Kubernetes $v: there is $(cd "$HERE/kubernetes" && echo [0-9]*). kubernetes/generate.sh $v makes another"
command -v go >/dev/null || die "Go is missing (command go, 1.26.4 or newer): it builds Kubernetes $v"
# 0.9 GB of binaries; besides, cold caches of Go grow by 4.6 GB of compiled packages and 1.0 GB of modules.
need_space "$CLUSTER_CACHE" 1000 "the binaries"
have=$({ du -smc "$(go env GOCACHE)" "$(go env GOMODCACHE)" 2>/dev/null || true; } | tail -1 | cut -f1)   # they may not exist yet
need_space "$(go env GOCACHE)" $((have < 5100 ? 5600 - have : 500)) "Go to build"
alone build
export CGO_ENABLED=0
build() { go build -trimpath -buildvcs=false "$@"; }

kubernetes() {                                       # directory
  local out=$1 stamp="-s -w" minor=${v#*.} p; cd "$module"
  for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do    # else every component says v0.0.0-master, and kubectl warns of skew
    stamp+=" -X $p.gitVersion=v$v -X $p.gitMajor=${v%%.*} -X $p.gitMinor=${minor%%.*} -X $p.gitTreeState=clean -X $p.gitCommit=module -X $p.buildDate=1970-01-01T00:00:00Z"
  done
  build -ldflags="$stamp" -o "$out/" k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl}
  build -ldflags="-s -w" -o "$out/etcd" go.etcd.io/etcd/server/v3            # alone: its package would be called "server"
  install -m644 "$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c" "$out/pause.c"
}
addons() {                                           # directory
  local out=$1 snapshotter=github.com/kubernetes-csi/external-snapshotter stages f; cd "$HERE/addons"; mkdir "$out"/{cni,crd}
  build -ldflags="-s -w" -o "$out/" ./coredns ./csi-hostpath $snapshotter/v8/cmd/{snapshot-controller,csi-snapshotter} \
    sigs.k8s.io/metrics-server/cmd/metrics-server sigs.k8s.io/kwok/cmd/kwok
  build -ldflags="-s -w" -o "$out/cni/" github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local,meta/portmap}
  install -m644 "$(go list -m -f '{{.Dir}}' $snapshotter/client/v8)"/config/crd/snapshot.storage.k8s.io_*.yaml "$out/crd/"
  stages=$(go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage        # how fake nodes and pods behave
  for f in "$stages"/{node/fast,node/heartbeat-with-lease,pod/fast}/*-*.yaml; do echo ---; cat "$f"; done > "$out/kwok-stages.yaml"
}
whole() {                                            # function, directory: only a whole build gets the name
  [ ! -d "$2" ] || return 0
  rm -rf "$2.partial"; mkdir -p "$2.partial"; "$1" "$2.partial"; mv "$2.partial" "$2"; say "built $2, $(du -sm "$2" | cut -f1) MB"
}
whole kubernetes "$BIN"
whole addons "$ADDONS"
