#!/bin/bash
# metrics-server as a process of node 0. Its request timeout must be below its resolution, or it refuses to start.
. "$(dirname "$0")/../env.sh"
until_ok api_gives metrics-server /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication
K=$PKI/metrics-server.kubeconfig
exec metrics-server --secure-port=10443 --bind-address="$NODE_IP" --metric-resolution=10s --kubelet-request-timeout=5s \
  --kubeconfig="$K" --authentication-kubeconfig="$K" --authorization-kubeconfig="$K" \
  --tls-cert-file="$PKI/metrics-server-serving.crt" --tls-private-key-file="$PKI/metrics-server-serving.key" \
  --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$PKI/ca.crt"
