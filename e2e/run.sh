#!/bin/bash
# run.sh: the cluster tests. On the cluster that KUBECONFIG names, in which this tree's guardian must be installed already; else on our own,
# which is brought up, and taken down again if it was not up before; then the thin path on the oldest Kubernetes that is supported.
# RUN=oldest or RUN=newest runs one half only.
set -euo pipefail; cd "$(dirname "$0")/.."
oldest=1.34.4 target=${CARGO_TARGET_DIR:-$PWD/target}
test_run() { cargo nextest run --locked --package guardian-e2e --profile cluster "$@"; }
alone="binary(alone)"
all() { test_run -E 'not binary(alone)' && test_run -E "$alone" --test-threads 1; }
thin_path() { test_run -E 'test(tutorial::)'; }

# Runs TESTS on our own cluster, in a subshell: what it puts into the environment ends with it.
on_our_cluster() (                                   # tests
  set -euo pipefail
  if ! e2e/cluster/status.sh --quiet > /dev/null 2>&1; then
    trap 'e2e/cluster/down.sh' EXIT
  fi
  e2e/cluster/up.sh
  eval "$(. e2e/cluster/env.sh; printf 'export KUBECONFIG=%q KUBECACHEDIR=%q PATH=%q' "$KUBECONFIG" "$KUBECACHEDIR" "$PATH")"
  e2e/cluster/image-load.sh "$target/image/stateful-guardian.tar"
  e2e/install.sh "$target/image/stateful-guardian.tar"
  "$1"
)

cargo build --locked --bin guardian
export GUARDIAN_BIN=$target/debug/guardian
if [ -n "${KUBECONFIG:-}" ]; then
  # Whether another cluster's API servers present a certificate to webhooks, and of what name, nobody here knows.
  alone="$alone - test(alone_client_certificates)"
  all
  exit
fi
make --no-print-directory image
[ "${RUN:-newest}" != newest ] || on_our_cluster all
# Beside the other one, which a developer may have up: everything of its own.
if [ "${RUN:-oldest}" = oldest ]; then
  export K8S_VERSION=$oldest STATE=$PWD/.cluster-$oldest CLUSTER=oldest NET=10.98.0 POD_NET=10.243 SVC_NET=10.95
  on_our_cluster thin_path
fi
