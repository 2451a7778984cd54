package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

const (
	// The user as which the serving certificate is asked for: the signer takes it from nodes alone.
	nodeUser = "system:node:hollow"
	// A request of the runner is a frame of at most 1 MiB.
	maxRequest = 1 << 20
	// How long a stream of an exec may be idle, and how long it may take to come.
	idleTimeout, streamTimeout = time.Minute, 30 * time.Second
)

// kubelet answers the execs of all hollow nodes as runners in their pods would.
type kubelet struct {
	takes   time.Duration
	mutex   sync.Mutex
	started map[string]start // by pod
	starts  map[string]int   // by run id
	waiting map[string]chan time.Time
	open    atomic.Int64
	most    atomic.Int64
	asked   atomic.Int64 // rounds of questions
}

// start is when a run of a hook came.
type start struct {
	at    time.Time
	runID string
}

// request is what the runner reads; of both of its commands.
type request struct {
	RunID  string `json:"runId"`
	Probes []struct {
		Name string `json:"name"`
	} `json:"probes"`
}

func newKubelet(takes time.Duration) *kubelet {
	return &kubelet{takes: takes, started: map[string]start{}, starts: map[string]int{}, waiting: map[string]chan time.Time{}}
}

// serve listens until the process ends.
func (k *kubelet) serve(address string, certificate tls.Certificate) error {
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	listener, err := tls.Listen("tcp", address, config)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", k.exec)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { check(server.Serve(listener), "serve the hollow kubelet") }()
	return nil
}

func (k *kubelet) exec(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod := r.PathValue("namespace") + "/" + r.PathValue("pod")
	executor := &conversation{kubelet: k, pod: pod, at: at}
	remotecommand.ServeExec(w, r, executor, pod, "", r.PathValue("container"), r.URL.Query()["command"], options,
		idleTimeout, streamTimeout, remotecommand.SupportedStreamingProtocols)
}

// conversation is one exec.
type conversation struct {
	kubelet *kubelet
	pod     string
	at      time.Time
}

func (c *conversation) ExecInContainer(_ context.Context, _, _, _ string, command []string, in io.Reader, out, _ io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	var length uint32
	if err := binary.Read(in, binary.BigEndian, &length); err != nil || length > maxRequest {
		return fmt.Errorf("no request: %v", err)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return err
	}
	var asked request
	if err := json.Unmarshal(body, &asked); err != nil {
		return err
	}
	switch command[len(command)-1] {
	case "run":
		c.kubelet.begun(c.pod, start{at: c.at, runID: asked.RunID})
		time.Sleep(c.kubelet.takes)
		c.kubelet.open.Add(-1)
		return answer(out, outcome(map[string]any{"version": 1, "runId": asked.RunID}, c.kubelet.takes))
	case "collect":
		c.kubelet.asked.Add(1)
		for n, probe := range asked.Probes {
			sample := outcome(map[string]any{"kind": "probe", "name": probe.Name}, time.Millisecond)
			sample["stdout"] = map[string]any{"text": fmt.Sprintln(n), "dropped": 0}
			if err := answer(out, sample); err != nil {
				return err
			}
		}
		return answer(out, map[string]any{"kind": "usage", "memoryBytes": 1 << 20, "cpuUsageUs": time.Now().UnixMicro()})
	default:
		return answer(out, map[string]any{"version": 1})
	}
}

func outcome(about map[string]any, took time.Duration) map[string]any {
	about["result"], about["durationMs"] = map[string]any{"kind": "exited", "code": 0}, took.Milliseconds()
	return about
}

func answer(out io.Writer, line any) error {
	return json.NewEncoder(out).Encode(line)
}

// begun writes a start down, and tells who waits for it.
func (k *kubelet) begun(pod string, s start) {
	if open := k.open.Add(1); open > k.most.Load() {
		k.most.Store(open)
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.started[pod], k.starts[s.runID] = s, k.starts[s.runID]+1
	if waits, ok := k.waiting[pod]; ok {
		delete(k.waiting, pod)
		waits <- s.at
	}
}

// next is told when the next run of a pod begins.
func (k *kubelet) next(pod string) <-chan time.Time {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	waits := make(chan time.Time, 1)
	k.waiting[pod] = waits
	return waits
}

// servingCertificate asks the cluster for one, as a kubelet does, and approves it.
func servingCertificate(ctx context.Context, config *rest.Config, client *kubernetes.Clientset, address string) (tls.Certificate, error) {
	none := tls.Certificate{}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return none, err
	}
	template := &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: nodeUser, Organization: []string{"system:nodes"}},
		IPAddresses: []net.IP{net.ParseIP(address)},
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return none, err
	}
	expires := int32(3600)
	asked := &certificates.CertificateSigningRequest{
		ObjectMeta: meta.ObjectMeta{GenerateName: "hollow-"},
		Spec: certificates.CertificateSigningRequestSpec{
			Request:           pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName:        certificates.KubeletServingSignerName,
			ExpirationSeconds: &expires,
			Usages:            []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageServerAuth},
		},
	}
	node := rest.CopyConfig(config)
	node.Impersonate = rest.ImpersonationConfig{UserName: nodeUser, Groups: []string{"system:nodes", "system:authenticated"}}
	request, err := kubernetes.NewForConfigOrDie(node).CertificatesV1().CertificateSigningRequests().Create(ctx, asked, meta.CreateOptions{})
	if err != nil {
		return none, err
	}
	api := client.CertificatesV1().CertificateSigningRequests()
	defer api.Delete(context.WithoutCancel(ctx), request.Name, meta.DeleteOptions{})
	request.Status.Conditions = append(request.Status.Conditions, certificates.CertificateSigningRequestCondition{
		Type: certificates.CertificateApproved, Status: core.ConditionTrue, Reason: "Hollow", Message: "asked for by the bench",
	})
	if _, err := api.UpdateApproval(ctx, request.Name, request, meta.UpdateOptions{}); err != nil {
		return none, err
	}
	watch, err := api.Watch(ctx, meta.ListOptions{FieldSelector: "metadata.name=" + request.Name})
	if err != nil {
		return none, err
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		signed, ok := event.Object.(*certificates.CertificateSigningRequest)
		if ok && len(signed.Status.Certificate) > 0 {
			block, _ := pem.Decode([]byte(strings.TrimSpace(string(signed.Status.Certificate))))
			return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}, nil
		}
	}
	return none, fmt.Errorf("certificate signing request %s was not signed", request.Name)
}
