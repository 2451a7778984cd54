#!/bin/bash
. "$(dirname "$0")/../env.sh"
mkdir -p /var/lib/kubelet; : > /var/lib/kubelet/empty
# cgroupRoot: each node of this machine has its own subtree; cadvisor then counts only that.
# failCgroupV1, failSwapOn: this is what such machines have; since 1.35 cgroup v1 must be asked for.
# oomScoreAdj 0: cannot be lowered here. resolvConf: empty, the cluster has no other names than its own.
# nodeLeaseDurationSeconds 8: renewed every 2 s, for NODE_GRACE. evictionHard: the disk is the machine's, not the node's.
# imageGC 100: images cannot be pulled again. shutdownGracePeriod 0: there is no logind.
cat > /var/lib/kubelet.yaml <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: true, cacheTTL: 10s}, x509: {clientCAFile: "$PKI/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: "$PKI/$NODE.crt"
tlsPrivateKeyFile: "$PKI/$NODE.key"
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: true
cgroupRoot: /$CLUSTER/$NODE
enforceNodeAllocatable: [pods]
failSwapOn: false
failCgroupV1: false
oomScoreAdj: 0
clusterDomain: cluster.local
clusterDNS: [$DNS_IP]
resolvConf: /var/lib/kubelet/empty
volumePluginDir: /var/lib/kubelet/volume-plugins
maxPods: 110
nodeStatusUpdateFrequency: 5s
nodeLeaseDurationSeconds: 8
syncFrequency: 10s
serializeImagePulls: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
shutdownGracePeriod: 0s
K
until [ -e /run/images.loaded ]; do sleep 0.05; done # else the first pods wait out an image back-off
until_ok api_answers                                 # else registration backs off up to 7 s
exec kubelet --v=2 --config=/var/lib/kubelet.yaml --kubeconfig="$PKI/$NODE.kubeconfig" --node-ip="$NODE_IP" --hostname-override="$NODE" \
  --node-labels="topology.kubernetes.io/region=here,topology.kubernetes.io/zone=zone-$N"
