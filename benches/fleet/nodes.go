package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	podsPerNode = 100
	// Ours, wherever labels are looked at.
	label = "bench.stateful-guardian.io/fleet"
	// Who renews leases, and who starts pods, at once.
	workers = 16
	// Nodes are lost after a silence of 8 s on the cluster of the tests.
	renewEvery = 3 * time.Second
)

func nodeName(n int) string { return fmt.Sprintf("hollow-%d", n) }

// makeNodes makes as many as the pods need, and runs their pods from then on.
func (f *fleet) makeNodes(ctx context.Context) error {
	certificate, err := servingCertificate(ctx, f.config, f.client, f.address)
	if err != nil {
		return fmt.Errorf("get a serving certificate: %w", err)
	}
	f.kubelet = newKubelet(f.hook)
	if err := f.kubelet.serve(fmt.Sprintf("%s:%d", f.address, f.port), certificate); err != nil {
		return err
	}
	count := (f.sets*f.replicas + podsPerNode - 1) / podsPerNode
	for n := range count {
		if err := f.makeNode(ctx, n); err != nil {
			return err
		}
	}
	go f.renew(ctx, count)
	f.say("%d hollow nodes", count)
	return f.runPods(ctx)
}

func (f *fleet) makeNode(ctx context.Context, n int) error {
	node := &core.Node{
		ObjectMeta: meta.ObjectMeta{Name: nodeName(n), Labels: map[string]string{label: "node"}},
		// Nothing else of the cluster comes here.
		Spec: core.NodeSpec{Taints: []core.Taint{{Key: label, Effect: core.TaintEffectNoSchedule}}},
	}
	if _, err := f.client.CoreV1().Nodes().Create(ctx, node, meta.CreateOptions{}); err != nil {
		return err
	}
	if err := f.lease(ctx, n, true); err != nil {
		return err
	}
	room := core.ResourceList{"cpu": resource.MustParse("1k"), "memory": resource.MustParse("1Ti"), "pods": resource.MustParse("1k")}
	status := core.NodeStatus{
		Capacity: room, Allocatable: room,
		Conditions:      []core.NodeCondition{{Type: core.NodeReady, Status: core.ConditionTrue, LastHeartbeatTime: meta.Now(), LastTransitionTime: meta.Now()}},
		Addresses:       []core.NodeAddress{{Type: core.NodeInternalIP, Address: f.address}},
		DaemonEndpoints: core.NodeDaemonEndpoints{KubeletEndpoint: core.DaemonEndpoint{Port: int32(f.port)}},
		NodeInfo:        core.NodeSystemInfo{BootID: node.Name},
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err == nil {
		_, err = f.client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status")
	}
	return err
}

// lease says that a node is alive.
func (f *fleet) lease(ctx context.Context, n int, isNew bool) error {
	name, seconds, now := nodeName(n), int32(40), meta.NowMicro()
	api := f.client.CoordinationV1().Leases("kube-node-lease")
	lease := &coordination.Lease{
		ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{label: "node"}},
		Spec:       coordination.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
	var err error
	if isNew {
		_, err = api.Create(ctx, lease, meta.CreateOptions{})
	} else {
		_, err = api.Update(ctx, lease, meta.UpdateOptions{})
	}
	return err
}

func (f *fleet) renew(ctx context.Context, count int) {
	for ctx.Err() == nil {
		began := time.Now()
		each(count, func(n int) error { return f.lease(ctx, n, false) })
		select {
		case <-ctx.Done():
		case <-time.After(renewEvery - time.Since(began)):
		}
	}
}

// runPods starts each pod of the hollow nodes as soon as it is there, and lets it go once it is deleted.
func (f *fleet) runPods(ctx context.Context) error {
	byLabel := informers.WithTweakListOptions(func(o *meta.ListOptions) { o.LabelSelector = label + "=pod" })
	factory := informers.NewSharedInformerFactoryWithOptions(f.client, 0, byLabel, informers.WithTransform(slim))
	informer := factory.Core().V1().Pods().Informer()
	queue := workqueue.NewTyped[string]()
	add := func(object any) {
		if key, err := cache.MetaNamespaceKeyFunc(object); err == nil {
			queue.Add(key)
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, object any) { add(object) }}
	if _, err := informer.AddEventHandler(handler); err != nil {
		return err
	}
	for range workers {
		go func() {
			for key, done := queue.Get(); !done; key, done = queue.Get() {
				if object, there, _ := informer.GetStore().GetByKey(key); there {
					f.runPod(ctx, object.(*core.Pod))
				}
				queue.Done(key)
			}
		}()
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return nil
}

func slim(object any) (any, error) {
	if pod, ok := object.(*core.Pod); ok {
		pod.ManagedFields, pod.Annotations, pod.Spec = nil, nil, core.PodSpec{}
	}
	return object, nil
}

// An error is mended by the next change of the pod; what does not come to be shows in the count that is waited for.
func (f *fleet) runPod(ctx context.Context, pod *core.Pod) {
	api := f.client.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		now := int64(0)
		_ = api.Delete(ctx, pod.Name, meta.DeleteOptions{GracePeriodSeconds: &now, Preconditions: meta.NewUIDPreconditions(string(pod.UID))})
	} else if pod.Status.Phase == core.PodPending {
		_ = f.patchStatus(ctx, pod.Namespace, pod.Name, 0)
	}
}

var (
	born      atomic.Int64
	addresses sync.Map
)

// patchStatus writes that a container runs, for the first time or again.
func (f *fleet) patchStatus(ctx context.Context, namespace, name string, restarts int32) error {
	id, now := born.Add(1), meta.Now()
	address, _ := addresses.LoadOrStore(namespace+"/"+name, fmt.Sprintf("10.200.%d.%d", id/250%250, id%250+1))
	yes := true
	container := core.ContainerStatus{
		Name: "db", Image: "hollow", ImageID: "hollow", Ready: true, Started: &yes, RestartCount: restarts,
		ContainerID: fmt.Sprintf("containerd://%x", sha256.Sum256(fmt.Append(nil, id))),
		State:       core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: now}},
	}
	if restarts > 0 {
		container.LastTerminationState.Terminated = &core.ContainerStateTerminated{
			ExitCode: 1, Reason: "Error", StartedAt: now, FinishedAt: now,
		}
	}
	status := core.PodStatus{
		Phase: core.PodRunning, PodIP: address.(string), PodIPs: []core.PodIP{{IP: address.(string)}}, HostIP: f.address, StartTime: &now,
		ContainerStatuses: []core.ContainerStatus{container},
	}
	for _, kind := range []core.PodConditionType{core.PodInitialized, core.ContainersReady, core.PodReady} {
		status.Conditions = append(status.Conditions, core.PodCondition{Type: kind, Status: core.ConditionTrue, LastTransitionTime: now})
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err == nil {
		_, err = f.client.CoreV1().Pods(namespace).Patch(ctx, name, types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status")
	}
	return err
}

// each calls for 0 to count-1, some at a time, and returns the first error.
func each(count int, call func(n int) error) error {
	var group sync.WaitGroup
	var first atomic.Pointer[error]
	numbers := make(chan int)
	for range workers {
		group.Go(func() {
			for n := range numbers {
				if err := call(n); err != nil {
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	for n := range count {
		numbers <- n
	}
	close(numbers)
	group.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	return nil
}
