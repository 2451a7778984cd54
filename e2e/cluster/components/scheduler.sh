#!/bin/bash
. "$(dirname "$0")/../env.sh"
until_ok api_ready
K=$PKI/kube-scheduler.kubeconfig
exec kube-scheduler --v=1 --bind-address=127.0.0.1 --leader-elect=false \
  --kubeconfig="$K" --authentication-kubeconfig="$K" --authorization-kubeconfig="$K"
