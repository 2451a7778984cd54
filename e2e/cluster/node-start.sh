#!/bin/bash
# node-start.sh N: boots node N. Also brings a killed node back: its disk ($STATE/node-N/var) is what it was.
set -euo pipefail; . "$(dirname "$0")/env.sh"
n=${1:?node number}; dir=$STATE/node-$n; cable=$CLUSTER-n$n
[ -e "$STATE/cluster.env" ] || die "no cluster in $STATE"
! node_pid "$n" >/dev/null || die "node $n is running"
mkdir -p "$dir"/var/{lib,log/components,tmp,cache}; ln -sfn /run "$dir/var/run"

# The cgroups of this node, in each hierarchy. Those of an earlier life are removed first, as a reboot would.
for h in $CGROUPS; do
  c=/sys/fs/cgroup/$h; [ -d $c ] || continue
  [ ! -d "$c/$CLUSTER/node-$n" ] || find "$c/$CLUSTER/node-$n" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true
  mkdir -p "$c/$CLUSTER/node-$n"
  [ $h != cpuset ] || for d in "$CLUSTER" "$CLUSTER/node-$n"; do        # a new cpuset is empty and would take no process
    cat $c/cpuset.cpus > "$c/$d/cpuset.cpus"; cat $c/cpuset.mems > "$c/$d/cpuset.mems"; done
done

# freezer: every process of the node can be listed, frozen and killed; cpuacct: its CPU time is one number.
# Inherited files are closed: whoever reads our output or waits for our lock must not wait for the node.
# --kill-child: if unshare dies, so does PID 1, and with PID 1 the kernel kills everything in the PID namespace.
( for h in freezer cpuacct; do echo $BASHPID > "/sys/fs/cgroup/$h/$CLUSTER/node-$n/cgroup.procs"; done
  exec </dev/null >>"$dir/node.log" 2>&1
  for fd in /proc/$BASHPID/fd/*; do fd=${fd##*/}; (( fd < 3 )) || eval "exec $fd>&-"; done
  unset "holds_$CLUSTER" MAKEFLAGS MAKELEVEL
  exec setsid unshare --mount --uts --net --pid --fork --mount-proc --kill-child=KILL --propagation private \
    "$HERE/components/node.sh" "$n" ) &
outer=$!
until pid=$(cat /proc/$outer/task/$outer/children 2>/dev/null) && pid=${pid%% *} && [ -n "$pid" ] &&
      [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do kill -0 $outer; sleep 0.02; done
echo "$pid" > "$dir/pid"
ip link add "$cable" type veth peer name eth0 netns "$pid"
ip link set "$cable" master "$BRIDGE" up
ip route replace "$POD_NET.$n.0/24" via "$(node_ip "$n")"              # the host reaches pods directly
