#!/bin/bash
# What runs, what it costs (PSS in MiB: shared pages are divided among their users; CPU time since the boot), what is wrong.
# Exit code 0 only if the cluster is up and whole. --quiet: only the exit code.
set -uo pipefail; . "$(dirname "$0")/env.sh"
need_root
[ "${1:-}" != --quiet ] || exec >/dev/null 2>&1
whole=0
if [ -z "$(cluster_pids)" ]; then
  echo "down: no cluster '$CLUSTER' runs$([ ! -e "$STATE/cluster.env" ] || echo "; $STATE is what one left that died, its logs are in $STATE/node-*/var/log/components")"; exit 1
fi
refuse_foreign
[ -e "$STATE/up" ] || { echo "not up: cluster-up is at work, or failed. Logs: $STATE/manifests.log, $STATE/node-*/node.log, $STATE/node-*/var/log/components"; whole=1; }
total=0
for ((n = 0; n < NODES; n++)); do
  state=running
  if ! node_pid $n >/dev/null; then state="dead (log: $STATE/node-$n/node.log; back with node-start.sh $n)"
  elif ! grep -q THAWED "$FREEZER/node-$n/freezer.state"; then state="frozen (node-thaw.sh $n)"
  elif ! ip link show "$CLUSTER-n$n" | grep -q 'state UP'; then state="partitioned (node-thaw.sh $n)"; fi
  [ "$state" = running ] || whole=1
  echo "node-$n $state, $(awk '{ printf "%.1f", $1 / 1e9 }' "/sys/fs/cgroup/cpuacct/$CLUSTER/node-$n/cpuacct.usage") s CPU, MiB:"
  for p in $(node_pids $n); do
    printf '%s %s\n' "$(cat "/proc/$p/comm" 2>/dev/null)" "$(awk '/^Pss:/ { print $2 }' "/proc/$p/smaps_rollup" 2>/dev/null)"
  done | awk 'NF == 2 { m[$1] += $2; c[$1]++; t += $2 } END { printf "  %7.1f total\n", t / 1024; for (i in m) printf "  %7.1f %s (%d)\n", m[i] / 1024, i, c[i] }' | sort -rn
done
nodes=$(kubectl get nodes -o wide --request-timeout=5s) || { echo "the API server does not answer, see $STATE/node-0/var/log/components/apiserver.log"; exit 1; }
echo "$nodes"; [ "$(grep -cw Ready <<< "$nodes")" = "$NODES" ] || whole=1
pods=$(kubectl get pods -A -o wide --field-selector=status.phase!=Running,status.phase!=Succeeded 2>/dev/null); [ -z "$pods" ] || echo "$pods"
grep -H 'exited with' "$STATE"/node-*/var/log/components/*.log | sort | uniq -c
exit $whole
