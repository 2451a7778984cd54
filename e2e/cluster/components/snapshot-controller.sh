#!/bin/bash
# The driver-independent half of VolumeSnapshots. --retry-interval-start: the default of 1 s is what a test waits for.
. "$(dirname "$0")/../env.sh"
until_ok api_gives csi /apis/snapshot.storage.k8s.io/v1
exec snapshot-controller --kubeconfig "$PKI/csi.kubeconfig" --leader-election=false --retry-interval-start=200ms
