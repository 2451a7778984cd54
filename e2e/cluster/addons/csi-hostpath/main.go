// csi-hostpath serves two CSI drivers from one process. Volumes and snapshots are plain directories under -root, which
// every node of the cluster sees because all nodes live on one machine:
//
//	hostpath.csi.local  <root>/<node>/<pv>  a disk inside one node: the PV is pinned to that node, no attach step
//	netdisk.csi.local   <root>/net/<pv>     a disk on the network: follows the pod to any node after attach and detach
//
// Every node runs it for mounting. One of them, started with -kubeconfig, is also the controller of both drivers
// (provision, delete, snapshot, attach).
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapshots "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"google.golang.org/grpc"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"
)

const (
	hostpath = "hostpath.csi.local"
	netdisk  = "netdisk.csi.local"
)

func main() {
	root := flag.String("root", "", "directory that holds the volumes of all nodes")
	node := flag.String("node", "", "name of this node")
	kubelet := flag.String("kubelet-dir", "/var/lib/kubelet", "root directory of the kubelet")
	kubeconfig := flag.String("kubeconfig", "", "also be the controller, with this kubeconfig")
	flag.Parse()

	store := store{root: *root}
	for _, name := range []string{hostpath, netdisk} {
		plugin := filepath.Join(*kubelet, "plugins", name, "csi.sock")
		serve(plugin, func(s *grpc.Server) {
			csi.RegisterIdentityServer(s, identity{name: name})
			csi.RegisterNodeServer(s, nodeServer{store: store, node: *node})
			csi.RegisterControllerServer(s, snapshotServer{store: store})
		})
		// The kubelet watches plugins_registry, asks what is behind each socket there, then writes the CSINode object.
		serve(filepath.Join(*kubelet, "plugins_registry", name+"-reg.sock"), func(s *grpc.Server) {
			registration.RegisterRegistrationServer(s, registrar{name: name, endpoint: plugin})
		})
	}
	if *kubeconfig == "" {
		select {}
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	kube := kubernetes.NewForConfigOrDie(config)
	go attach(context.Background(), kube, netdisk)
	// A claim and the snapshot it comes from are often made together: the library's first retry after 15 s is too late.
	retry := workqueue.NewItemExponentialFailureRateLimiter(200*time.Millisecond, 5*time.Second)
	controller.NewProvisionController(klog.Background(), kube, hostpath,
		provisioner{store: store, kube: kube, snapshots: snapshots.NewForConfigOrDie(config)},
		controller.AdditionalProvisionerNames([]string{netdisk}), controller.LeaderElection(false), controller.RateLimiter(retry),
	).Run(context.Background())
}

func serve(socket string, register func(*grpc.Server)) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		log.Fatal(err)
	}
	os.Remove(socket) // left by a process that was killed
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	go func() { log.Fatal(server.Serve(listener)) }()
}
