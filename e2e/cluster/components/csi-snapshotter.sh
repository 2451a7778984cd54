#!/bin/bash
# The half of VolumeSnapshots that calls the driver.
. "$(dirname "$0")/../env.sh"
S=/var/lib/kubelet/plugins/hostpath.csi.local/csi.sock
until_ok test -S $S
until_ok api_gives csi /apis/snapshot.storage.k8s.io/v1
exec csi-snapshotter --kubeconfig "$PKI/csi.kubeconfig" --csi-address $S --leader-election=false --retry-interval-start=200ms
