// Command fleet measures the controller in front of thousands of guarded pods: on a real API server, with the guardian of the cluster, and
// with nodes and kubelets that are hollow, so that no container runs. A hook is carried out by answering it.
//
// It brings about what it measures, tells each step with its time, and takes away what it made.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

type options struct {
	guardian    string
	address     string
	port        int
	namespaces  int
	sets        int
	replicas    int
	metrics     int
	idle        time.Duration
	restarts    int
	storm       int
	stormWithin time.Duration
	hook        time.Duration
}

func main() {
	log.SetFlags(0)
	var o options
	flag.StringVar(&o.guardian, "guardian", "guardian", "the command-line tool, which enables the namespaces")
	flag.StringVar(&o.address, "address", "", "address of this machine at which the API server reaches the hollow kubelet")
	flag.IntVar(&o.port, "port", 10355, "port of the hollow kubelet")
	flag.IntVar(&o.namespaces, "namespaces", 20, "namespaces")
	flag.IntVar(&o.sets, "sets", 1000, "StatefulSets in all")
	flag.IntVar(&o.replicas, "replicas", 10, "pods of each")
	flag.IntVar(&o.metrics, "metrics", 0, "metrics by command of each pod, every 15 s")
	flag.DurationVar(&o.idle, "idle", time.Minute, "how long nothing happens")
	flag.IntVar(&o.restarts, "restarts", 300, "containers that end one after the other")
	flag.IntVar(&o.storm, "storm", 2000, "containers of the other namespaces than the last that end together")
	flag.DurationVar(&o.stormWithin, "storm-within", 5*time.Second, "within which time they end")
	flag.DurationVar(&o.hook, "hook", 100*time.Millisecond, "how long a hook takes")
	flag.Parse()
	if o.address == "" || o.namespaces < 2 || o.sets < o.namespaces {
		log.Fatal("fleet: -address is needed, two namespaces at least, and a set for each: see -help")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(err, "read KUBECONFIG")
	config.QPS = -1 // The API server's own fairness is what is measured under.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := &fleet{options: o, config: config, client: kubernetes.NewForConfigOrDie(config), began: time.Now()}
	err = f.run(ctx)
	f.takeAway()
	check(err, "measure")
}

// fleet is what is made, and what is measured of it.
type fleet struct {
	options
	config  *rest.Config
	client  *kubernetes.Clientset
	kubelet *kubelet
	began   time.Time
}

func (f *fleet) run(ctx context.Context) error {
	if err := f.makeNodes(ctx); err != nil {
		return fmt.Errorf("make nodes: %w", err)
	}
	if err := f.makeSets(ctx); err != nil {
		return fmt.Errorf("make sets: %w", err)
	}
	if err := f.settled(ctx); err != nil {
		return err
	}
	controller, err := findController()
	if err != nil {
		return err
	}
	if err := f.measureIdle(ctx, controller); err != nil {
		return err
	}
	if err := f.measureRestarts(ctx, controller); err != nil {
		return err
	}
	return f.measureStorm(ctx, controller)
}

// say tells a step, and when it was reached.
func (f *fleet) say(format string, args ...any) {
	fmt.Printf("%7.1f s  %s\n", time.Since(f.began).Seconds(), fmt.Sprintf(format, args...))
}

func check(err error, what string) {
	if err != nil {
		log.Fatalf("fleet: cannot %s: %v", what, err)
	}
}
