#!/bin/bash
# run.sh: the cluster tests. On the cluster that KUBECONFIG names, in which this tree's guardian must be installed already; else on our own,
# which is brought up, and taken down again if it was not up before; and beside that, on the oldest Kubernetes that is supported, the thin path
# and the rotation, which waits for most of its time. RUN=oldest or RUN=newest runs one half only, RUN=rotation the rotation.
set -euo pipefail; cd "$(dirname "$0")/.."
oldest=1.34.4 target=${CARGO_TARGET_DIR:-$PWD/target}
# The whole workspace, of which one package's tests are run: the features, and so what is compiled, are those of `make unit`.
test_run() { cargo nextest run --locked --workspace --profile cluster -E "package(guardian-e2e) and ($1)" "${@:2}"; }
alone="binary(alone)" rotation="test(alone_certificates_are_rotated)"
all() { test_run "not binary(alone)" && test_run "$alone" --test-threads 1; }
rotation() { test_run "$rotation"; }
thin_path() { test_run "test(tutorial::) or $rotation"; }

# Runs TESTS on our own cluster, in a subshell: what it puts into the environment ends with it. Never behind `||` or `if`: bash does not
# end at a failure there, whatever `set -e` says, and the tests would run without a guardian.
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

# Beside the other one, which a developer may have up: everything of its own. What it must compile first yields to the tests of the other.
on_the_oldest() (
  set -euo pipefail
  export K8S_VERSION=$oldest STATE=$PWD/.cluster-$oldest CLUSTER=oldest NET=10.98.0 POD_NET=10.243 SVC_NET=10.95
  nice -n 19 e2e/cluster/install.sh && nice -n 19 e2e/cluster/build.sh
  on_our_cluster thin_path
)

both() {
  local log=$target/oldest.log failed=''
  set -m                                             # a process group of its own, which can be ended as one
  on_the_oldest > "$log" 2>&1 & local beside=$!
  set +m
  trap 'kill -- -'$beside' 2> /dev/null && wait '$beside EXIT
  alone="$alone - $rotation"
  set +e; on_our_cluster all; local status=$?; set -e
  [ $status = 0 ] || failed="on the newest Kubernetes"
  wait $beside || failed="$failed on Kubernetes $oldest"
  trap - EXIT
  printf '\nBeside it, on Kubernetes %s:\n' $oldest; cat "$log"
  [ -z "$failed" ] || { echo "run.sh: failed $failed" >&2; return 1; }
}

e2e/monitoring/install.sh
cargo test --locked --workspace --no-run --quiet
export GUARDIAN_BIN=$target/debug/guardian GUARDIAN_NODES=$PWD/e2e/cluster
if [ -n "${KUBECONFIG:-}" ]; then
  # Whether another cluster's API servers present a certificate to webhooks, and of what name, nobody here knows; nor how its nodes are cut off.
  alone="$alone - test(alone_client_certificates) - test(alone_node)"
  all
  exit
fi
make --no-print-directory image PROFILE=quick
# What the released runner may take on disk and in memory; an ordinary build is not held to it.
GUARDIAN_HOOK_BINARY=$target/image/guardian-hook cargo nextest run --locked --workspace -E 'package(guardian-hook) and binary(size)'
case ${RUN:-both} in
  newest) on_our_cluster all;;
  rotation) on_our_cluster rotation;;
  oldest) on_the_oldest;;
  both) both;;
  *) echo "run.sh: RUN=$RUN: newest, oldest or rotation" >&2; exit 2;;
esac
