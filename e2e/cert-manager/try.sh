#!/bin/bash
# try.sh: the overlay for cert-manager with a real cert-manager, on the cluster of KUBECONFIG, in which this tree's guardian is installed.
# Needs Go; the first build takes a quarter of an hour on two busy cores, so no other verb calls this. cert-manager runs here as one
# process, from its Go module; its own webhook, which only checks what people write, does not. At the end the guardian is as it was.
set -euo pipefail; cd "$(dirname "$0")/../.."
namespace=stateful-guardian secret=guardian-webhook-certificates
work=$PWD/target/cert-manager; mkdir -p "$work"
die() { echo "try.sh: $*" >&2; exit 1; }
say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
within() {                                           # seconds, what for, command
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" > "$work/last" 2>&1; do
    kill -0 "$process" 2> /dev/null || die "cert-manager ended, see $work/log"
    (( SECONDS < end )) || die "not in time: $what; last: $(tail -n 3 "$work/last")"
    sleep 0.5
  done
  say "$what"
}
in_ours() { kubectl -n "$namespace" "$@"; }

[ -x "${CERT_MANAGER:-}" ] || { CERT_MANAGER=$work/cert-manager; (cd e2e/cert-manager && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$CERT_MANAGER" .); }
crds=$(cd e2e/cert-manager && go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)/deploy/crds

process=
restore() {
  local code=$?; set +e
  [ -z "$process" ] || { kill "$process"; wait "$process"; }
  in_ours delete certificates,issuers,certificaterequests --all > /dev/null 2>&1
  in_ours delete secret "$secret" guardian-ca > /dev/null 2>&1
  kubectl annotate mutatingwebhookconfiguration,validatingwebhookconfiguration "$namespace" cert-manager.io/inject-ca-from- > /dev/null
  e2e/install.sh && kubectl delete --ignore-not-found -f "$crds" > /dev/null && say "as it was before"
  exit $code
} 2> /dev/null
trap restore EXIT

# The image as overlays/dev has it.
rm -rf "$work/overlay"; mkdir -p "$work/overlay"
sed 's|- ../../base|- ../../../manifests/overlays/cert-manager|' manifests/overlays/dev/kustomization.yaml > "$work/overlay/kustomization.yaml"

kubectl apply --server-side -f "$crds" > /dev/null
kubectl wait --for=condition=Established --timeout=60s -f "$crds" > /dev/null; say "kinds of cert-manager"
"$CERT_MANAGER" > "$work/log" 2>&1 & process=$!
in_ours delete deployment,serviceaccount,role,rolebinding guardian-certs --ignore-not-found > /dev/null
kubectl delete clusterrole,clusterrolebinding guardian-certs --ignore-not-found > /dev/null
in_ours delete secret "$secret" --ignore-not-found > /dev/null
kubectl apply -k "$work/overlay" > /dev/null; say "the overlay"
within 120 "cert-manager has made the pair" in_ours wait --for=condition=Ready certificate/guardian-webhook --timeout=5s

ca() { in_ours get secret "$secret" -o jsonpath='{.data.ca\.crt}'; }
bundles() {                                          # every webhook of both configurations trusts the CA of the Secret
  local wanted kind; wanted=$(ca | base64 -d); [ -n "$wanted" ] || return 1    # among others: the injector keeps what was trusted before
  for kind in mutating validating; do
    kubectl get "${kind}webhookconfiguration" "$namespace" -o json |
      jq -e --arg ca "$wanted" '[.webhooks[].clientConfig.caBundle] | length > 0 and all(@base64d | contains($ca))'
  done
}
leaf() { in_ours get secret "$secret" -o jsonpath='{.data.tls\.crt}'; }
lives() { in_ours get pods -l app.kubernetes.io/name=guardian-webhook -o json | jq -cS '[.items[] | {(.metadata.name): [.metadata.uid, .status.containerStatuses[0].restartCount]}] | add'; }
presented() {                                        # what each webhook presents expires when the leaf of the Secret does
  local wanted pod; wanted=$(leaf | base64 -d | openssl x509 -noout -enddate | cut -d= -f2); wanted=$(date -d "$wanted" +%s)
  for pod in $(in_ours get pods -l app.kubernetes.io/name=guardian-webhook -o name); do
    # Written by the kubelet when it looks again, which a change of the pod prompts.
    in_ours annotate --overwrite "$pod" "e2e/look=$RANDOM"
    kubectl get --raw "/api/v1/namespaces/$namespace/pods/${pod#pod/}:8080/proxy/metrics" |
      awk -v wanted="$wanted" '/^guardian_certificate_expiry_timestamp_seconds/ { found = ($2 == wanted) } END { exit !found }'
  done
}
asked() {                                            # a policy that is none is refused by us, with our words
  ! printf '%s\n' 'apiVersion: v1' 'kind: ConfigMap' "metadata: {name: broken, namespace: $try, labels: {stateful-guardian.io/policy: 'true'}}" 'data: {policy.yaml: nonsense}' |
    kubectl create --dry-run=server -f - 2> "$work/refusal" && grep -q 'policy.yaml:1:1' "$work/refusal"
}

within 60 "its CA injector has written caBundle" bundles
within 90 "both webhooks present the pair" presented
try=cert-manager-try
kubectl create namespace $try > /dev/null 2>&1 || true
kubectl label --overwrite namespace $try stateful-guardian.io/enabled=true > /dev/null
within 30 "the API server believes it" asked

before=$(leaf); were=$(lives)
in_ours patch certificate guardian-webhook --subresource=status --type=merge -p "$(in_ours get certificate guardian-webhook -o json |
  jq '{status: {conditions: ([.status.conditions[] | select(.type != "Issuing")] + [{type: "Issuing", status: "True", reason: "Renewed", message: "asked for", lastTransitionTime: (now | todate)}])}}')" > /dev/null
renewed() { [ "$(leaf)" != "$before" ]; }
within 60 "renewed" renewed
within 120 "both webhooks present the renewed pair" presented
asked || die "refused after the renewal: $(cat "$work/refusal")"
[ "$(lives)" = "$were" ] || die "a webhook restarted: $were, $(lives)"
say "answered with it, and no webhook restarted"
kubectl delete namespace $try --wait=false > /dev/null
