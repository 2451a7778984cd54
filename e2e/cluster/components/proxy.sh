#!/bin/bash
# conntrack 0: those sysctls belong to the host. clusterCIDR: what comes from elsewhere (the host) is masqueraded, else the
# answer of a pod on another node would go straight to the host, from the pod's address.
. "$(dirname "$0")/../env.sh"
cat > /var/lib/kube-proxy.yaml <<K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: $PROXY_MODE
clientConnection: {kubeconfig: "$PKI/kube-proxy.kubeconfig"}
hostnameOverride: $NODE
bindAddress: $NODE_IP
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clusterCIDR: $POD_NET.0.0/16
detectLocalMode: ClusterCIDR
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
K
until_ok api_ready
exec kube-proxy --v=1 --config=/var/lib/kube-proxy.yaml
