// Command peer is a mutating webhook as most are written: controller-runtime, a typed StatefulSet, a patch by comparison. It writes what the
// guardian writes for the tutorial's policy, so that the two can be measured side by side. It does less besides: no audit trail, no
// warnings, no record of an earlier injection taken into account, one policy that never changes.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	logging "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const (
	prefix        = "stateful-guardian.io/"
	volume        = "guardian"
	runner        = "/guardian/guardian-hook"
	priorityClass = "stateful-critical"
	grace         = int64(41) // 1 s for the reason, 30 s for the hook, 10 s for the server itself
)

type injector struct {
	decoder admission.Decoder
	image   string
	hooks   map[string]hook
}

type hook struct {
	Program   map[string]any `json:"program"`
	TimeoutMs int64          `json:"timeoutMs"`
	OnFailure string         `json:"onFailure"`
}

type installed struct {
	Format       int             `json:"format"`
	Service      string          `json:"service"`
	Set          string          `json:"set"`
	Hooks        map[string]hook `json:"hooks"`
	ReasonWaitMs int64           `json:"reasonWaitMs"`
}

type scalar struct {
	Was   any `json:"was"`
	Wrote any `json:"wrote"`
}

type record struct {
	Policy   string            `json:"policy"`
	Revision string            `json:"revision"`
	Parts    map[string]string `json:"parts"`
	Scalars  map[string]scalar `json:"scalars"`
}

func main() {
	port := flag.Int("port", 9443, "port on 127.0.0.1")
	certificates := flag.String("certificates", "", "directory with tls.crt and tls.key")
	image := flag.String("image", "", "image of guardian-init")
	flag.Parse()

	scheme := runtime.NewScheme()
	must(appsv1.AddToScheme(scheme))
	logging.SetLogger(logr.Discard())
	// What an API server speaks with webhooks.
	options := func(config *tls.Config) {
		config.NextProtos, config.MinVersion = []string{"http/1.1"}, tls.VersionTLS13
	}
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: *port, CertDir: *certificates, TLSOpts: []func(*tls.Config){options}})
	handler := &injector{decoder: admission.NewDecoder(scheme), image: *image, hooks: map[string]hook{
		"init":    {Program: map[string]any{"script": map[string]string{"name": "init.sh", "text": initScript}}, TimeoutMs: 30_000, OnFailure: "block"},
		"preStop": {Program: map[string]any{"command": []string{"redis-cli", "shutdown", "save"}}, TimeoutMs: 30_000, OnFailure: "continue"},
	}}
	server.Register("/mutate", &webhook.Admission{Handler: handler})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	must(server.Start(ctx))
}

const initScript = `#!/bin/sh
# Before every start, with the data volume mounted and the server not yet running.
set -eu
echo "$GUARDIAN_POD" > /data/last-start
`

func (i *injector) Handle(_ context.Context, request admission.Request) admission.Response {
	var set appsv1.StatefulSet
	if err := i.decoder.Decode(request, &set); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if err := i.inject(&set); err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	changed, err := json.Marshal(&set)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changed)
}

// inject writes everything into the template; a container or a volume of our name is replaced.
func (i *injector) inject(set *appsv1.StatefulSet) error {
	template := &set.Spec.Template
	spec := &template.Spec
	if len(spec.Containers) == 0 {
		return nil
	}
	application := spec.Containers[0]
	setup, err := json.Marshal(installed{Format: 1, Service: set.Spec.ServiceName, Set: set.Name, Hooks: i.hooks})
	if err != nil {
		return err
	}
	scalars := map[string]scalar{
		"spec/priorityClassName":             {nilIfEmpty(spec.PriorityClassName), priorityClass},
		"spec/terminationGracePeriodSeconds": {spec.TerminationGracePeriodSeconds, grace},
	}
	inits := []corev1.Container{i.install(application, base64.StdEncoding.EncodeToString(setup)), initHook(application)}
	parts := map[string]string{}
	for _, container := range inits {
		text, err := json.Marshal(container)
		if err != nil {
			return err
		}
		digest := sha256.Sum256(text)
		parts[container.Name] = hex.EncodeToString(digest[:8])
	}
	for _, container := range spec.InitContainers {
		if container.Name != "guardian-init" && container.Name != "guardian-init-hook" {
			inits = append(inits, container)
		}
	}
	spec.InitContainers = inits
	spec.Volumes = append(without(spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume }),
		corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	for at := range spec.Containers {
		mounts := &spec.Containers[at].VolumeMounts
		*mounts = append(without(*mounts, func(m corev1.VolumeMount) bool { return m.Name == volume }), mount())
	}
	if first := &spec.Containers[0]; first.Lifecycle == nil || first.Lifecycle.PreStop == nil {
		if first.Lifecycle == nil {
			first.Lifecycle = &corev1.Lifecycle{}
		}
		first.Lifecycle.PreStop = &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{runner, "stop"}}}
		scalars["spec/containers/"+first.Name+"/lifecycle/preStop"] = scalar{nil, first.Lifecycle.PreStop}
	}
	spec.PriorityClassName = priorityClass
	seconds := grace
	spec.TerminationGracePeriodSeconds = &seconds
	written, err := json.Marshal(record{Policy: "redis-policy", Revision: "ceeb17f61b5677b9", Parts: parts, Scalars: scalars})
	if err != nil {
		return err
	}
	template.Annotations = with(template.Annotations, prefix+"injected", string(written))
	template.Labels = with(template.Labels, prefix+"guarded", "true")
	return nil
}

func (i *injector) install(application corev1.Container, setup string) corev1.Container {
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
	}
	no, yes := false, true
	return corev1.Container{
		Name:            "guardian-init",
		Image:           i.image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         []string{"/guardian-hook", "install"},
		Env: []corev1.EnvVar{
			{Name: "GUARDIAN_POD", ValueFrom: field("metadata.name")},
			{Name: "GUARDIAN_POD_UID", ValueFrom: field("metadata.uid")},
			{Name: "GUARDIAN_NAMESPACE", ValueFrom: field("metadata.namespace")},
			{Name: "GUARDIAN_SPEC", Value: setup},
		},
		Resources: application.Resources,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no,
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			ReadOnlyRootFilesystem:   &yes,
			RunAsNonRoot:             &yes,
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		VolumeMounts:             []corev1.VolumeMount{mount()},
	}
}

func initHook(application corev1.Container) corev1.Container {
	return corev1.Container{
		Name:                     "guardian-init-hook",
		Image:                    application.Image,
		ImagePullPolicy:          application.ImagePullPolicy,
		Command:                  []string{runner, "init"},
		Env:                      application.Env,
		EnvFrom:                  application.EnvFrom,
		WorkingDir:               application.WorkingDir,
		SecurityContext:          application.SecurityContext,
		VolumeDevices:            application.VolumeDevices,
		VolumeMounts:             append(append([]corev1.VolumeMount{}, application.VolumeMounts...), mount()),
		Resources:                application.Resources,
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
}

func mount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: volume, MountPath: "/guardian"}
}

func without[T any](items []T, is func(T) bool) []T {
	kept := make([]T, 0, len(items)+1)
	for _, item := range items {
		if !is(item) {
			kept = append(kept, item)
		}
	}
	return kept
}

func with(members map[string]string, key, value string) map[string]string {
	if members == nil {
		members = map[string]string{}
	}
	members[key] = value
	return members
}

func nilIfEmpty(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
