#!/bin/bash
# image-load.sh FILE.tar...: puts docker-archive or OCI images into every running node.
set -euo pipefail; . "$(dirname "$0")/env.sh"
need_root
[ $# -gt 0 ] || die "usage: image-load.sh FILE.tar..."
loaded=0
for ((n = 0; n < NODES; n++)); do
  node_pid $n >/dev/null || { echo "node $n is not running, skipped" >&2; continue; }
  for f in "$@"; do "$HERE/node-exec.sh" $n ctr -n k8s.io images import - < "$f" >/dev/null || die "$f was not imported into node $n"; done
  loaded=$((loaded + 1))
done
(( loaded )) || die "no node is running in STATE=$STATE: run make cluster-up"
