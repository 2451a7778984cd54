# What tests rely on in a running cluster; sourced by test.sh. Bash ignores set -e in functions called from a condition, so
# steps are joined with &&.
ns=test
k() { kubectl -n $ns "$@"; }
is() { [ "$(k get "$1" -o jsonpath="$2" 2>/dev/null)" = "$3" ]; }
ready='{.status.conditions[?(@.type=="Ready")].status}'
pods() { k get pods -l "app=$1" -o jsonpath='{range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}'; }
nodes_of() { pods "$1" | cut -d' ' -f2 | sort -u | wc -l; }
node_is() { [ "$(kubectl get node "$1" -o jsonpath="$ready")" = "$2" ]; }
key() { k exec "$1" -- redis-cli get key; }

apply() {
  kubectl create namespace $ns && k apply -f "$here/test/web.yaml" -f "$here/test/redis.yaml" &&
  k rollout status deployment/web --timeout=60s && k rollout status statefulset/redis --timeout=60s && [ "$(nodes_of web)$(nodes_of redis)" = 33 ]
}
image() {                                            # pod, user and group of the server
  k exec "$1" -- sh -c "[ \$PWD = /data ] && [ \$(stat -c %u:%g /proc/1) = $2 ] && redis-cli config get dir | grep -x /data && redis-cli save"
}
names() { for a in 0 1 2; do for b in 0 1 2; do within 10 sh -c "kubectl -n $ns exec redis-$a -- redis-cli -h redis-$b.redis ping | grep PONG" || return 1; done; done; }
service() {                                          # 40 requests: each of 3 pods is missed with a chance of 3 * (2/3)^40 = 3e-7
  local ip p; ip=$(k get service web -o jsonpath='{.spec.clusterIP}')
  for p in $(pods web | cut -d' ' -f1); do
    [ "$(k exec "$p" -- sh -c 'for i in $(seq 40); do timeout 3 wget -qO- http://web.test.svc.cluster.local/; done | sort -u | wc -l')" = 3 ] || return 1; done
  [ "$(for _ in $(seq 40); do curl -s -m 3 "http://$ip/"; done | sort -u | wc -l)" = 3 ]
}
same_volume() {
  local node uid; node=$(k get pod redis-0 -o jsonpath='{.spec.nodeName}') uid=$(k get pod redis-0 -o jsonpath='{.metadata.uid}')
  k exec redis-0 -- redis-cli set key old && k delete pod redis-0 && within 30 is pod/redis-0 "$ready" True &&
  ! is pod/redis-0 '{.metadata.uid}' "$uid" && is pod/redis-0 '{.spec.nodeName}' "$node" && k exec redis-0 -- cat /data/prestop && [ "$(key redis-0)" = old ]
}
killed() {
  local id; id=$(k get pod redis-1 -o jsonpath='{.status.containerStatuses[0].containerID}') node=$(k get pod redis-1 -o jsonpath='{.spec.nodeName}')
  k exec redis-1 -- redis-cli set key kept && k exec redis-1 -- redis-cli save &&
  "$A/node-exec.sh" "${node#node-}" ctr -n k8s.io tasks kill -s KILL "${id#containerd://}" &&
  within 30 is pod/redis-1 '{.status.containerStatuses[0].lastState.terminated.exitCode}' 137 && within 30 is pod/redis-1 "$ready" True && [ "$(key redis-1)" = kept ]
}
snapshot() {
  k apply -f "$here/test/snapshot.yaml" && k exec redis-0 -- redis-cli set key new && within 30 is volumesnapshot/snapshot '{.status.readyToUse}' true &&
  within 30 is pod/restored "$ready" True && [ "$(key restored)" = old ]
}
resize() {
  local id; id=$(k get pod redis-0 -o jsonpath='{.status.containerStatuses[0].containerID}')
  k patch pod redis-0 --subresource resize -p '{"spec": {"containers": [{"name": "redis", "resources": {"limits": {"memory": "192Mi"}}}]}}' &&
  within 30 is pod/redis-0 '{.status.containerStatuses[0].resources.limits.memory}' 192Mi && is pod/redis-0 '{.status.containerStatuses[0].containerID}' "$id" &&
  [ "$(k exec redis-0 -- cat /sys/fs/cgroup/memory/memory.limit_in_bytes)" = $((192 << 20)) ]
}
stand_in=$T/stand-in
own_image() {                                        # with a stand-in for our programs; two at once, as `make test` may call it
  mkdir "$T/image" "$stand_in" && echo 'int main(void) { return 0; }' | gcc -static -Os -s -xc -o "$stand_in/guardian" - &&
  cp "$stand_in/guardian" "$stand_in/guardian-hook" || return
  make_image & local other=$!
  make_image && wait $other && "$A/image-load.sh" "$T/image/stateful-guardian.tar"
}
make_image() { "$A/image.sh" "$T/image" "$stand_in/guardian" "$stand_in/guardian-hook"; }
dynamic() { cp "$(command -v setpriv)" "$stand_in/guardian" && refused "is not static" make_image; }
limits() {
  k apply -f "$here/test/limits.yaml" && within 30 is pod/oom '{.status.containerStatuses[0].state.terminated.reason}' OOMKilled &&
  within 30 is pod/loaded '{.status.containerStatuses[0].state.terminated.reason}' Completed
}
top() { within 60 sh -c "kubectl -n $ns top pod redis-0 && [ \$(kubectl top node | grep -cE 'node-[0-2].*Mi') = 3 ]"; }
fake() { "$A/kwok.sh" 2 && kubectl delete node kwok-0 kwok-1; }
lost() {
  k apply -f "$here/test/moving.yaml" && k rollout status statefulset/moving --timeout=60s && is pod/moving-0 '{.spec.nodeName}' node-2 &&
  "$A/node-kill.sh" 2 && ! "$A/status.sh" && within 30 node_is node-2 Unknown && within 10 is pod/moving-0 "$ready" False
}
moved() { ! is pod/moving-0 '{.spec.nodeName}' node-2 && is pod/moving-0 "$ready" True; }
moves() { kubectl taint node node-2 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute && within 90 moved && [ "$(k exec moving-0 -- grep -c moving-0 /data/starts)" = 2 ]; }
back() {
  "$A/up.sh" && within 60 node_is node-2 True && kubectl taint node node-2 node.kubernetes.io/out-of-service- &&
  k rollout status statefulset/redis --timeout=60s && [ "$(nodes_of redis)" = 3 ]
}
started() { k get pods --field-selector=spec.nodeName=node-1 -o jsonpath='{.items[*].status.containerStatuses[*].containerID}'; }
silent() {                                           # net or tasks
  local before; before=$(started); "$A/node-freeze.sh" 1 "$1" && within 30 node_is node-1 Unknown &&
  "$A/node-thaw.sh" 1 && within 30 node_is node-1 True && [ "$(started)" = "$before" ]
}
gone() { k delete statefulset,deployment,pod,pvc,volumesnapshot --all --now && kubectl delete namespace $ns --timeout=60s && within 30 sh -c '[ -z "$(kubectl get pv,volumesnapshotcontent -o name)" ]'; }

check "a Deployment and a StatefulSet, a pod of each per node" apply
check "redis:5-alpine as it is: the server is user redis, in /data" image redis-0 999:1000
check "and for a pod without root, rights or volume" image plain 999:1000
check "headless names: every pod from every node" names
check "a ClusterIP from pods of every node, and from the host" service
check "a deleted pod: preStop ran; same node, volume and data" same_volume
check "a killed server: the container restarts, same data" killed
check "VolumeSnapshot, restored on another node with the old data" snapshot
check "in-place resize of a running container" resize
check "our image is built, and loaded into every node" own_image
check "a program that is not static is refused" dynamic
check "the loaded image runs; memory limits are real: OOMKilled" limits
check "kubectl top" top
check "fake nodes for load" fake
check "node-kill: NotReady, its pod not ready, cluster-status fails" lost
check "out-of-service taint: the pod with a network disk moves, with its data" moves
check "cluster-up starts the killed node again: Ready, and its redis back" back
check "node-freeze net: NotReady; node-thaw: Ready, same containers" silent net
check "node-freeze tasks: the same" silent tasks
check "namespace deleted, no volume left" gone
