#!/bin/bash
# install.sh [IMAGE.tar]: the guardian of overlays/dev into the cluster that KUBECONFIG names, running when this returns. With the image's
# file, pods of an earlier build are replaced; without changes nothing is restarted.
set -euo pipefail; cd "$(dirname "$0")/.."
kubectl apply -k manifests/overlays/dev > /dev/null
parts="guardian-certs guardian-webhook guardian-controller"
if [ $# -gt 0 ]; then                                # the tag is always `dev`: only the file tells one build from another
  build=$(sha256sum < "$1" | cut -c1-16)
  for part in $parts; do
    kubectl -n stateful-guardian patch deployment "$part" > /dev/null \
      -p "{\"spec\": {\"template\": {\"metadata\": {\"annotations\": {\"stateful-guardian.io/build\": \"$build\"}}}}}"
  done
fi
for part in $parts; do
  kubectl -n stateful-guardian rollout status deployment "$part" --timeout=120s > /dev/null || {
    echo "install.sh: $part does not become ready within 120 s. Look at:" >&2
    echo "  kubectl -n stateful-guardian describe pods -l app.kubernetes.io/name=$part" >&2
    echo "  kubectl -n stateful-guardian logs -l app.kubernetes.io/name=$part --tail=50" >&2
    exit 1
  }
done
