#!/bin/bash
# --kube-api-qps: at the default of 20 the controllers start one by one and "default" service account comes 4 s later.
# --leader-elect=false: there is one; with election, 15 s pass after each restart.
# --node-monitor-*: a lost node shows as NotReady after NODE_GRACE; must exceed the kubelet's lease renewal (2 s) several times.
# --flex-volume-plugin-dir: the default is under /usr/libexec, which is the host's.
. "$(dirname "$0")/../env.sh"
until_ok api_ready
K=$PKI/kube-controller-manager.kubeconfig
exec kube-controller-manager --v=1 --bind-address=127.0.0.1 \
  --kubeconfig="$K" --authentication-kubeconfig="$K" --authorization-kubeconfig="$K" \
  --root-ca-file="$PKI/ca.crt" --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
  --service-account-private-key-file="$PKI/sa.key" --use-service-account-credentials=true \
  --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" \
  --kube-api-qps=200 --kube-api-burst=400 --leader-elect=false --allocate-node-cidrs=false \
  --node-monitor-grace-period="$NODE_GRACE" --node-monitor-period=1s \
  --flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins
