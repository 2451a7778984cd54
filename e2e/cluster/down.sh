#!/bin/bash
# Takes the cluster down, also what a crash left behind, with or without $STATE. LOGS=dir keeps the logs there.
# --remains (up.sh): silent when there is nothing.
set -uo pipefail; . "$(dirname "$0")/env.sh"
need_root; alone "$CLUSTER"; refuse_foreign
alias=$(cat "/sys/class/net/$BRIDGE/ifalias" 2>/dev/null) && case $alias in
  "stateful-guardian "*) ;;
  *) die "the interface $BRIDGE is not of a cluster: remove it (ip link del $BRIDGE), or set CLUSTER to another name";;
esac
found=; [ ! -e "$STATE/cluster.env" ] && [ -z "$alias" ] && [ ! -d "$FREEZER" ] || found=1
# The freezer cgroups list every process of every node, and nothing else. Thaw: a frozen process would not die.
for f in "$FREEZER"/*/freezer.state; do [ ! -e "$f" ] || echo THAWED > "$f"; done
for _ in $(seq 200); do
  p=$(cluster_pids); [ -n "$p" ] || break
  kill -KILL $p 2>/dev/null; sleep 0.05
done
[ -z "$(cluster_pids)" ] || die "these processes did not die: $(cluster_pids | xargs)"
# Ends of cables go with their nodes, but later; routes go with the bridge.
for i in $(ip -o link show type veth | grep -oE " $CLUSTER-n[0-9]" | sort -u) ${alias:+"$BRIDGE"}; do ip link del "$i" 2>/dev/null; done
for h in $CGROUPS; do
  d=/sys/fs/cgroup/$h/$CLUSTER
  for _ in $(seq 40); do [ -d "$d" ] || break; find "$d" -depth -type d -exec rmdir {} + 2>/dev/null; [ ! -d "$d" ] || sleep 0.05; done
  [ ! -d "$d" ] || die "cgroup $d is busy"
done
if [ -e "$STATE/cluster.env" ]; then
  if [ -n "${LOGS:-}" ]; then
    for n in "$STATE"/node-*; do mkdir -p "$LOGS/${n##*/}"; cp -r "$n"/node.log "$n"/var/log/components "$LOGS/${n##*/}/" 2>/dev/null; done
  fi
  # cluster.env last: without it nothing here would touch the rest.
  find "$STATE" -mindepth 1 -maxdepth 1 ! -name cluster.env -exec rm -rf --one-file-system {} + && rm -rf --one-file-system "$STATE"
fi
if [ "${1:-}" != --remains ]; then
  if [ -n "$found" ]; then say "down"; else echo "nothing is up"; fi
elif [ -n "$found" ]; then say "remains of an earlier cluster removed"; fi
