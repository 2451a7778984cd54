#!/bin/bash
# Containers, pod network, and the images of $IMAGES. One config for containerd 1.6/1.7, one for 2.x: the plugin ids differ.
. "$(dirname "$0")/../env.sh"
mkdir -p /var/lib/cni/net.d
# host-local remembers addresses in /run, so a killed node does not come back with its old pods' addresses taken.
cat > /var/lib/cni/net.d/10-pods.conflist <<K
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": {
    "type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "$POD_NET.$N.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
K
if containerd --version | grep -qE ' v?1\.'; then
  version=2 cri='plugins."io.containerd.grpc.v1.cri"' cni=$'bin_dir = "'$ADDONS/cni'"'
  images='sandbox_image = "pause:3.10"'
else
  version=3 cri="plugins.'io.containerd.cri.v1.runtime'" cni=$'bin_dirs = ["'$ADDONS/cni'"]'
  images=$'[plugins.\'io.containerd.cri.v1.images\'.pinned_images]\n  sandbox = "pause:3.10"'
fi
# restrict_oom_score_adj: without CAP_SYS_RESOURCE a score cannot be lowered, and runc dies of it with
# "can't get final child's PID from pipe: EOF". disable_apparmor: no AppArmor here, and detection is by /sys of the host.
# netns_mounts_under_state_dir: pods' network namespaces go with containerd's own state, and not among those of "ip netns".
cat > /var/lib/containerd.toml <<K
version = $version
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[$cri]
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  $([ $version = 3 ] || echo "$images")
  [$cri.cni]
    $cni
    conf_dir = "/var/lib/cni/net.d"
  [$cri.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [$cri.containerd.runtimes.runc.options]
      SystemdCgroup = false
$([ $version = 2 ] || echo "$images")
K
mkdir -p /var/lib/containerd
( until ctr version >/dev/null 2>&1; do sleep 0.05; done
  for i in "$IMAGES"/*.tar; do                       # only what is newer than the last time
    [ /var/lib/containerd/.images -nt "$i" ] || ctr -n k8s.io images import "$i"
  done; touch /var/lib/containerd/.images /run/images.loaded ) &
exec containerd --config /var/lib/containerd.toml --log-level warn
