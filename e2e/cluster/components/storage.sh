#!/bin/bash
# The CSI drivers: mounting on every node; provisioning, snapshots and attaching on node 0.
. "$(dirname "$0")/../env.sh"
if [ "$N" != 0 ]; then exec csi-hostpath --root "$STATE/volumes" --node "$NODE"; fi
until_ok api_ready
exec csi-hostpath --root "$STATE/volumes" --node "$NODE" --kubeconfig "$PKI/csi.kubeconfig"
