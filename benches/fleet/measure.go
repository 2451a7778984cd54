package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kernel counts CPU time in these (`sysconf(_SC_CLK_TCK)`; 100 on all that Go runs on).
const ticksPerSecond = 100

var dispatched = regexp.MustCompile(`(?m)^apiserver_flowcontrol_dispatched_requests_total\{.*flow_schema="fleet".*\} (\S+)$`)

// process is the controller that leads, on this machine.
type process struct{ pid int }

// findController finds it: the only `guardian controller`.
func findController() (process, error) {
	var found []process
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return process{}, err
	}
	for _, path := range lines {
		words := bytes.Split(must(os.ReadFile(path)), []byte{0})
		if len(words) > 1 && strings.HasSuffix(string(words[0]), "guardian") && string(words[1]) == "controller" {
			pid, err := strconv.Atoi(strings.Split(path, "/")[2])
			if err != nil {
				return process{}, err
			}
			found = append(found, process{pid})
		}
	}
	if len(found) != 1 {
		return process{}, fmt.Errorf("%d processes are a controller, where one is wanted: kubectl -n %s scale deployment guardian-controller --replicas 1", len(found), installation)
	}
	return found[0], nil
}

// must gives what there is: a process may end while one looks.
func must(text []byte, _ error) []byte { return text }

// use is what a process has used so far.
type use struct {
	cpu      time.Duration
	resident int64 // bytes, now
	most     int64 // bytes, at most so far
}

func (p process) use() (use, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return use{}, fmt.Errorf("the controller is gone: %w", err)
	}
	// Fields 14 and 15, counted from behind the name in parentheses.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return use{}, err
		}
		ticks += n
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return use{}, err
	}
	kilobytes := func(name string) int64 {
		_, rest, _ := strings.Cut(string(status), name+":")
		n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		return n * 1024
	}
	return use{cpu: time.Duration(ticks) * time.Second / ticksPerSecond, resident: kilobytes("VmRSS"), most: kilobytes("VmHWM")}, nil
}

// requests is how many of the controller's requests the API server has let through.
func (f *fleet) requests(ctx context.Context) (float64, error) {
	text, err := f.client.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, found := range dispatched.FindAllSubmatch(text, -1) {
		n, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func (f *fleet) measureIdle(ctx context.Context, controller process) error {
	before, err := controller.use()
	if err != nil {
		return err
	}
	requests, err := f.requests(ctx)
	if err != nil {
		return err
	}
	began, asked := time.Now(), f.kubelet.asked.Load()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(f.idle):
	}
	after, err := controller.use()
	if err != nil {
		return err
	}
	requestsAfter, err := f.requests(ctx)
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	f.say("fleet/idle pods=%d sets=%d rss=%.1fMB rss_most=%.1fMB cpu=%.2f%% requests=%.2f/s rounds=%.1f/s", f.sets*f.replicas, f.sets,
		megabytes(after.resident), megabytes(after.most), 100*(after.cpu-before.cpu).Seconds()/seconds, (requestsAfter-requests)/seconds,
		float64(f.kubelet.asked.Load()-asked)/seconds)
	if f.metrics > 0 {
		return f.tellLateness(ctx)
	}
	return nil
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }

// tellLateness prints what the controller counts of its own questions.
func (f *fleet) tellLateness(ctx context.Context) error {
	pods, err := f.client.CoreV1().Pods(installation).List(ctx, meta.ListOptions{LabelSelector: "app.kubernetes.io/name=" + account})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		text, err := f.client.CoreV1().Pods(installation).ProxyGet("http", pod.Name, "8080", "metrics", nil).DoRaw(ctx)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "guardian_collect_") {
				f.say("  %s", strings.TrimSpace(line))
			}
		}
	}
	return nil
}

// restart ends a container and says how long it took until its hook was asked for.
func (f *fleet) restart(ctx context.Context, pod int, count int32) (time.Duration, error) {
	namespace, name := f.pod(pod)
	next := f.kubelet.next(namespace + "/" + name)
	began := time.Now()
	if err := f.patchStatus(ctx, namespace, name, count); err != nil {
		return 0, err
	}
	select {
	case at := <-next:
		return at.Sub(began), nil
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("nothing was done about %s/%s within a minute", namespace, name)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (f *fleet) measureRestarts(ctx context.Context, controller process) error {
	before, err := controller.use()
	if err != nil {
		return err
	}
	all := f.sets * f.replicas
	var took []time.Duration
	for n := range f.restarts {
		// One of each set in turn, so that each has time to come to rest.
		one, err := f.restart(ctx, n*f.replicas%all+n*f.replicas/all, 1)
		if err != nil {
			return err
		}
		took = append(took, one)
	}
	after, err := controller.use()
	if err != nil {
		return err
	}
	f.say("fleet/restart pods=%d one_by_one=%d to_exec %s cpu=%.1fms", all, f.restarts, spread(took),
		float64((after.cpu-before.cpu).Microseconds())/1000/float64(f.restarts))
	return f.settled(ctx)
}

// spread is the median, the 99th percentile and the longest.
func spread(took []time.Duration) string {
	if len(took) == 0 {
		return "none"
	}
	slices.Sort(took)
	at := func(part float64) float64 { return float64(took[int(part*float64(len(took)-1))].Microseconds()) / 1000 }
	return fmt.Sprintf("p50=%.1fms p99=%.1fms most=%.1fms", at(0.5), at(0.99), at(1))
}

// measureStorm ends many containers together, and meanwhile one after the other in a namespace that has no part in it.
func (f *fleet) measureStorm(ctx context.Context, controller process) error {
	var stormy, quiet []int
	for pod := range f.sets * f.replicas {
		// The first pod of a set may have been restarted already.
		if namespace, _ := f.pod(pod); namespace == namespaceName(f.namespaces-1) {
			quiet = append(quiet, pod)
		} else if pod%f.replicas > 1 && len(stormy) < f.storm {
			stormy = append(stormy, pod)
		}
	}
	recorded, err := f.recorded(ctx)
	if err != nil {
		return err
	}
	f.kubelet.most.Store(0)
	before, err := controller.use()
	if err != nil {
		return err
	}
	began := time.Now()
	ended := make(chan error, 1)
	go func() {
		ended <- f.paced(stormy, func(pod int) error { n, s := f.pod(pod); return f.patchStatus(ctx, n, s, 1) })
	}()

	var mutex sync.Mutex
	var aside []time.Duration
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for n, pod := range quiet {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			one, err := f.restart(ctx, pod, 2)
			if err != nil {
				stopped <- fmt.Errorf("beside the storm, after %d: %w", n, err)
				return
			}
			mutex.Lock()
			aside = append(aside, one)
			mutex.Unlock()
		}
		stopped <- nil
	}()
	if err := <-ended; err != nil {
		return err
	}
	made := time.Since(began)
	err = f.until(ctx, "each start of the storm has come", func() (bool, string, error) {
		n := 0
		f.kubelet.mutex.Lock()
		for _, pod := range stormy {
			namespace, name := f.pod(pod)
			if s, ok := f.kubelet.started[namespace+"/"+name]; ok && s.at.After(began) {
				n++
			}
		}
		f.kubelet.mutex.Unlock()
		return n == len(stormy), fmt.Sprintf("%d of %d", n, len(stormy)), nil
	})
	all := time.Since(began)
	close(stop)
	if err := <-stopped; err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if err := f.settled(ctx); err != nil {
		return err
	}
	after, err := controller.use()
	if err != nil {
		return err
	}
	recordedAfter, err := f.recorded(ctx)
	if err != nil {
		return err
	}
	twice := 0
	f.kubelet.mutex.Lock()
	defer f.kubelet.mutex.Unlock()
	for _, starts := range f.kubelet.starts {
		if starts > 1 {
			twice++
		}
	}
	f.say("fleet/storm pods=%d ended_in=%.1fs started_in=%.1fs most_at_once=%d recorded=%d of %d started_twice=%d cpu=%.1fms rss_most=%.1fMB",
		len(stormy), made.Seconds(), all.Seconds(), f.kubelet.most.Load(), recordedAfter-recorded, len(stormy)+len(aside), twice,
		float64((after.cpu-before.cpu).Microseconds())/1000/float64(len(stormy)+len(aside)), megabytes(after.most))
	f.say("fleet/aside one_by_one=%d to_exec %s", len(aside), spread(aside))
	return nil
}

// recorded is how many runs are in the ledgers' histories as succeeded.
func (f *fleet) recorded(ctx context.Context) (int, error) {
	all, err := f.ledgers(ctx)
	count := 0
	for _, one := range all {
		for _, told := range one.records {
			if told.Hook == "rejoin" && told.Verdict == "Succeeded" {
				count++
			}
		}
	}
	return count, err
}

// paced calls for each within the time of the storm, in even steps, some at a time.
func (f *fleet) paced(pods []int, call func(pod int) error) error {
	began, step := time.Now(), f.stormWithin/time.Duration(max(1, len(pods)))
	return each(len(pods), func(n int) error {
		time.Sleep(time.Until(began.Add(time.Duration(n) * step)))
		return call(pods[n])
	})
}
