#!/bin/bash
# The story in two minutes: an unmodified StatefulSet is guarded, its server is killed, and it finds back to its data by itself. On a
# cluster of ours, which stays up; or, with KUBECONFIG set, on yours, where the guardian is installed already.
set -euo pipefail; cd "$(dirname "$0")/.."

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' off=$'\e[0m'; else bold='' dim='' red='' green='' off=''; fi
begun=${EPOCHREALTIME/[.,]/} step='' hint=''
since() { local us=$((${EPOCHREALTIME/[.,]/} - begun)); printf '%3d.%d s' $((us / 1000000)) $((us % 1000000 / 100000)); }
step() { step=$1 hint=$2; printf '\n%s%s  %s%s\n' "$bold" "$(since)" "$step" "$off"; }      # what is done, what to look at if it fails
run() { printf '%s$ %s%s\n' "$dim" "$*" "$off"; "$@"; }
cut_lines() { cut -c1-"${COLUMNS:-130}"; }
failed() { printf '\n%sfailed: %s%s\n%s\n' "$red" "$step" "$off" "look at: $hint" >&2; }
trap failed ERR

if [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$(. e2e/cluster/env.sh; echo "$KUBECONFIG")" ]; then
  ours='' installed="install it first: kubectl apply -k manifests/base, with an image that your nodes can pull"
  step "Your cluster, from KUBECONFIG=$KUBECONFIG" "$installed"
  run kubectl -n stateful-guardian rollout status deployment guardian-webhook --timeout=60s
  cargo build --quiet --bin guardian; guardian=${CARGO_TARGET_DIR:-target}/debug/guardian
else
  ours=yes
  step "A Kubernetes of three nodes, on this machine" "the messages above, and make cluster-status"
  make --no-print-directory -f e2e/cluster.mk cluster-up
  eval "$(. e2e/cluster/env.sh; printf 'export KUBECONFIG=%q KUBECACHEDIR=%q PATH=%q' "$KUBECONFIG" "$KUBECACHEDIR" "$PATH")"
  step "The guardian: built as a static image, and installed" "the messages of cargo and buildah above; kubectl -n stateful-guardian get pods"
  make --no-print-directory -f e2e/cluster.mk image-load PROFILE=quick
  built=${CARGO_TARGET_DIR:-target}/image; guardian=$built/guardian
  e2e/install.sh "$built/stateful-guardian.tar"
  run kubectl -n stateful-guardian get pods
fi

step "A namespace that asks for it" "guardian enable demo"
if kubectl get namespace demo > /dev/null 2>&1; then
  [ "$(kubectl get namespace demo -o jsonpath='{.metadata.labels.stateful-guardian\.io/demo}')" = true ] ||
    { hint="the namespace demo is not of an earlier demo: rename or delete it"; false; }
  kubectl -n demo delete statefulset,service,pvc,pod,configmap,events --all --timeout=60s > /dev/null      # what an earlier demo left
else
  run kubectl create namespace demo && kubectl label namespace demo stateful-guardian.io/demo=true > /dev/null
fi
run "$guardian" enable demo

step "The tutorial's Redis, and beside it a policy: what its team wants done, in its own words" "kubectl -n demo get events"
sed -n '/^  policy.yaml/,$p' examples/redis/policy.yaml
run kubectl -n demo apply -f examples/redis

step "What the webhook wrote into the StatefulSet" "kubectl -n stateful-guardian logs -l app.kubernetes.io/name=guardian-webhook"
template() { sed -n '/^  template:/,/^  updateStrategy:/p'; }
plain=$(kubectl -n default apply --dry-run=server -l app=redis -f examples/redis/statefulset.yaml -o yaml | template)
guarded=$(kubectl -n demo get statefulset redis-sts -o yaml | template)
diff -U 2 --label "as the API server would have it" --label "as it is" <(echo "$plain") <(echo "$guarded") | cut_lines |
  sed "s/^+.*/$green&$off/; s/^-.*/$red&$off/" || true    # 1: they differ
grep -q guardian-init-hook <<< "$guarded"
run kubectl -n demo rollout status statefulset redis-sts --timeout=90s
run kubectl -n demo exec redis-sts-0 -c redis -- cat /data/last-start                               # written by the init hook

step "A key" "kubectl -n demo describe pods"
run kubectl -n demo exec redis-sts-0 -c redis -- redis-cli set greeting "written before the kill"

step "The server of redis-sts-1 is killed: kill -9, from its node" "kubectl -n demo describe pod kill redis-sts-1"
id=$(kubectl -n demo get pod redis-sts-1 -o jsonpath='{.status.containerStatuses[0].containerID}'); id=${id#*//}
restarts=$(kubectl -n demo get pod redis-sts-1 -o jsonpath='{.status.containerStatuses[0].restartCount}')
node=$(kubectl -n demo get pod redis-sts-1 -o jsonpath='{.spec.nodeName}')
# No process can kill the first of its own pid namespace, so this one is in the node's.
kubectl -n demo apply -f - > /dev/null <<POD
apiVersion: v1
kind: Pod
metadata: {name: kill}
spec:
  nodeName: $node
  hostPID: true
  restartPolicy: Never
  containers:
  - name: kill
    image: busybox:1.35
    command: [sh, -c, 'for p in /proc/[0-9]*; do grep -qs $id \$p/cgroup && kill -9 \${p#/proc/} && echo killed process \${p#/proc/}; done']
    securityContext: {privileged: true}
POD
kubectl -n demo wait pod redis-sts-1 --timeout=60s > /dev/null --for=jsonpath='{.status.containerStatuses[0].restartCount}'=$((restarts + 1))
kubectl -n demo logs kill; kubectl -n demo delete pod kill --now > /dev/null
run kubectl -n demo get pods

step "The controller saw it, and ran the policy's rejoin hook, once" "kubectl -n stateful-guardian logs -l app.kubernetes.io/name=guardian-controller"
wanted='"hook":"rejoin".*"verdict":"Succeeded".*"pod":"redis-sts-1"'
exec {history}< <(exec kubectl -n demo get configmap guardian-ledger-redis-sts --watch -o jsonpath='{.data.history}{"\n"}'); watch=$!
timeout 60 grep -m1 "$wanted" <&$history
kill $watch || true
run kubectl -n demo get events.v1.events.k8s.io --field-selector regarding.name=redis-sts-1,reportingController=stateful-guardian.io/controller

step "The pod is a replica of redis-sts-0, and the key is there" "kubectl -n demo exec redis-sts-1 -c redis -- redis-cli info replication"
replication() { kubectl -n demo exec redis-sts-1 -c redis -- redis-cli info replication | tr -d '\r'; }
linked() { replication | grep -q master_link_status:up; }
# Redis copies after it was told to; nothing outside of it tells when it is done.
for _ in $(seq 60); do ! linked || break; sleep 0.5; done; linked
replication | grep -E 'role|master_(host|link_status)'
run kubectl -n demo exec redis-sts-1 -c redis -- redis-cli get greeting
[ "$(kubectl -n demo exec redis-sts-1 -c redis -- redis-cli get greeting)" = "written before the kill" ]

step "Every decision of the webhook is a line of its log" "kubectl -n stateful-guardian logs -l app.kubernetes.io/name=guardian-webhook"
# A webhook of before the installation may be just going, and its log with it.
kubectl -n stateful-guardian logs -l app.kubernetes.io/name=guardian-webhook --tail=-1 --ignore-errors | grep '"log":"audit"' | grep '"namespace":"demo"' | sort | tail -2

step "Done" ""
cat <<NEXT
Try next:
  ${ours:+export KUBECONFIG=$KUBECONFIG PATH=${PATH%%:*}:\$PATH
  }kubectl -n demo delete pod redis-sts-0              # a planned stop: preStop saves first
  kubectl -n demo edit configmap redis-policy         # write nonsense: it is refused, with line and column
  kubectl -n demo rollout restart statefulset redis-sts
  kubectl -n demo get configmap guardian-ledger-redis-sts -o jsonpath='{.data.history}'
  $guardian inject -f examples/redis -o diff
${ours:+The cluster stays up. make cluster-down takes it away without a trace.
}
NEXT
