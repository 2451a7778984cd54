#!/bin/bash
# No fsync: a killed node keeps the page cache, so nothing is lost, and the disk is not what is tested here.
. "$(dirname "$0")/../env.sh"
mkdir -p -m 700 /var/lib/etcd
exec etcd --name "$NODE" --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn --snapshot-count 10000 \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster "$NODE=http://127.0.0.1:2380"
