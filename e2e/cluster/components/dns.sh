#!/bin/bash
# CoreDNS as a process of node 0; Service kube-dns points at it. Names outside the cluster are NXDOMAIN at once: without
# that they are SERVFAIL, and resolvers try again for seconds. The catch-all needs its own server block, because the
# template plugin comes before the kubernetes plugin whatever the order in the file.
. "$(dirname "$0")/../env.sh"
cat > /var/lib/Corefile <<K
cluster.local:53 10.in-addr.arpa:53 {
    bind $NODE_IP
    errors
    kubernetes cluster.local 10.in-addr.arpa {
        kubeconfig $PKI/coredns.kubeconfig
        pods insecure
        ttl 5
    }
    cache 5
    loadbalance
}
.:53 {
    bind $NODE_IP
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    template ANY ANY {
        rcode NXDOMAIN
    }
}
K
until_ok api_gives coredns '/api/v1/namespaces?limit=1'
exec coredns -conf /var/lib/Corefile
