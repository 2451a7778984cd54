# What is left when everything is killed; sourced by test.sh, with a cluster of clone A up.
echo "--- crashes"
pids() { find "$FREEZER" -name cgroup.procs -exec cat {} +; }
kill_all() { within 20 eval 'kill -KILL $(pids) 2>/dev/null; [ -z "$(pids)" ]'; }
dead() { kill_all; refused "down: no cluster 'gtest' runs; $T/a/.cluster is what one left that died" "$A/status.sh"; }
check "every process of it killed: cluster-status says so and names the logs" dead
unset KUBECONFIG KUBECACHEDIR
export NODES=1
check "cluster-up of another clone removes the remains and goes on" eval '"$B/up.sh" && "$B/status.sh"'
check "the dead one's clone is refused, and names the other" refused "belongs to STATE=$T/b/.cluster" "$A/up.sh"
broken_off() {
  "$B/down.sh" && { "$B/up.sh" >"$T/first" 2>&1 & local up=$!; within 30 grep -q "1 nodes boot" "$T/first"; kill -KILL $up; wait $up; ! "$B/status.sh" >"$T/second"; } &&
  grep "not up" "$T/second" && "$B/up.sh" && "$B/status.sh"
}
check "cluster-up killed half-way: cluster-status says so, the next one starts afresh" broken_off
check "cluster-down with its state directory deleted" eval 'rm -rf "$T/b/.cluster"; "$B/down.sh"'
check "cluster-down of the state directory that the dead one left" eval '"$A/down.sh" && [ ! -e "$T/a/.cluster" ]'
nothing_left() { rm -f "$T/after"; traces > "$T/after"; diff "$T/before" "$T/after" && ! grep -lsF "$T" /proc/[0-9]*/environ | grep -vE "/($$|$BASHPID|self)/"; }
check "nothing is left: process, mount, interface, route, rule, cgroup, sysctl, file" nothing_left
