#!/bin/bash
# PID 1 of a node's sandbox: own mount, UTS, net and PID namespaces. When it dies, everything in the sandbox dies.
. "$(dirname "$0")/../env.sh"
n=$1; export N=$n NODE=node-$n NODE_IP; NODE_IP=$(node_ip "$n")
trap 'exit 0' TERM INT
hostname "$NODE"

# The kubelet wants a shared /. Private /var and /run, because runc, CNI, the kubelet and iptables have paths there that
# no flag moves; so all else keeps its usual path too, and no socket path comes near the limit of 107 bytes.
mount --make-rshared /
mount --bind "$STATE/node-$n/var" /var
mount -t tmpfs tmpfs /run                            # empty after each boot, as on a real machine
mkdir -p /run/containerd /run/cni

# The kubelet sets these sysctls, and they are the whole machine's. It finds the wanted values in private files instead.
for s in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  f=/run/sysctl/${s%=*}; mkdir -p "${f%/*}"; echo "${s#*=}" > "$f"; mount --bind "$f" "/proc/sys/${s%=*}"
done

until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done           # node-start.sh plugs the cable in
ip link set lo up
ip addr add "$NODE_IP/24" dev eth0
ip link set eth0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables                  # services must work between pods of one bridge
for ((m = 0; m < NODES; m++)); do [ $m = "$n" ] || ip route add "$POD_NET.$m.0/24" via "$(node_ip $m)"; done
ip route add "$SVC_NET.0.0/16" via "$HOST_IP"        # never used, but OUTPUT's DNAT runs only once a route is found

# No CAP_SYS_RESOURCE is needed; TMPDIR because runc leaves files there when it is killed.
export HOME=/var/tmp TMPDIR=/var/tmp
respawn() {                                          # what systemd's Restart=always does
  ( while :; do "$HERE/components/$1.sh" >>"/var/log/components/$1.log" 2>&1; echo "--- $1 exited with $?, started again" >>"/var/log/components/$1.log"; sleep 1; done ) &
}
if [ "$n" = 0 ]; then
  for c in etcd apiserver controller-manager scheduler dns metrics snapshot-controller csi-snapshotter; do respawn $c; done
fi
for c in containerd kubelet proxy storage; do respawn $c; done
while :; do wait -n || sleep 0.2; done               # bash as PID 1 reaps orphans, such as containerd's shims
