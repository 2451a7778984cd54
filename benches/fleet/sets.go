package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	flowcontrol "k8s.io/api/flowcontrol/v1"
	rbac "k8s.io/api/rbac/v1"
	errors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
)

const (
	installation = "stateful-guardian"
	account      = "guardian-controller"
	ledgers      = "stateful-guardian.io/ledger=true"
	// How long anything may take that is waited for.
	patience = 20 * time.Minute
	// How often is looked whether it has come about.
	look = 2 * time.Second
)

func namespaceName(n int) string { return fmt.Sprintf("fleet-%d", n) }

// set is the address of one: sets go to namespaces in turns.
func (f *fleet) set(n int) (namespace, name string) {
	return namespaceName(n % f.namespaces), fmt.Sprintf("db-%d", n/f.namespaces)
}

func (f *fleet) pod(n int) (namespace, name string) {
	namespace, set := f.set(n / f.replicas)
	return namespace, fmt.Sprintf("%s-%d", set, n%f.replicas)
}

func (f *fleet) policy() string {
	var text strings.Builder
	text.WriteString("apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {matchLabels: {app: db}}\n")
	text.WriteString("hooks:\n  rejoin: {command: [rejoin], timeout: 30s}\n")
	for n := range f.metrics {
		if n == 0 {
			text.WriteString("metrics:\n")
		}
		fmt.Fprintf(&text, "- {name: db_metric_%d, type: gauge, help: A number, command: [number], every: 15s}\n", n)
	}
	return text.String()
}

// makeSets makes them through the webhook, as their owners would.
func (f *fleet) makeSets(ctx context.Context) error {
	if err := f.countRequests(ctx); err != nil {
		return err
	}
	err := each(f.namespaces, func(n int) error {
		name := namespaceName(n)
		namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{label: "namespace"}}}
		if _, err := f.client.CoreV1().Namespaces().Create(ctx, namespace, meta.CreateOptions{}); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, f.guardian, "enable", name).CombinedOutput(); err != nil {
			return fmt.Errorf("enable %s: %w: %s", name, err, out)
		}
		policy := &core.ConfigMap{
			ObjectMeta: meta.ObjectMeta{Name: "policy", Labels: map[string]string{"stateful-guardian.io/policy": "true"}},
			Data:       map[string]string{"policy.yaml": f.policy()},
		}
		_, err := f.client.CoreV1().ConfigMaps(name).Create(ctx, policy, meta.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	f.say("%d namespaces with a policy each", f.namespaces)
	if err := each(f.sets, func(n int) error { return f.makeSet(ctx, n) }); err != nil {
		return err
	}
	f.say("%d StatefulSets of %d pods", f.sets, f.replicas)
	return nil
}

func (f *fleet) makeSet(ctx context.Context, n int) error {
	namespace, name := f.set(n)
	replicas, labels := int32(f.replicas), map[string]string{"app": "db", "set": name}
	set := &apps.StatefulSet{
		ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"app": "db"}},
		Spec: apps.StatefulSetSpec{
			Replicas: &replicas, ServiceName: name, PodManagementPolicy: apps.ParallelPodManagement,
			Selector: &meta.LabelSelector{MatchLabels: labels},
			Template: core.PodTemplateSpec{
				ObjectMeta: meta.ObjectMeta{Labels: map[string]string{"app": "db", "set": name, label: "pod"}},
				Spec: core.PodSpec{
					NodeName:    nodeName(n * f.replicas / podsPerNode),
					Tolerations: []core.Toleration{{Operator: core.TolerationOpExists}},
					Containers:  []core.Container{{Name: "db", Image: "hollow"}},
				},
			},
		},
	}
	made, err := f.client.AppsV1().StatefulSets(namespace).Create(ctx, set, meta.CreateOptions{})
	if err == nil && made.Spec.Template.Annotations["stateful-guardian.io/injected"] == "" {
		err = fmt.Errorf("%s/%s is not guarded", namespace, name)
	}
	return err
}

// countRequests gives the controller's requests a flow of their own, on the priority level that they have anyway, so that the API server
// counts them.
func (f *fleet) countRequests(ctx context.Context) error {
	flow := &flowcontrol.FlowSchema{
		ObjectMeta: meta.ObjectMeta{Name: "fleet", Labels: map[string]string{label: "flow"}},
		Spec: flowcontrol.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrol.PriorityLevelConfigurationReference{Name: "workload-low"},
			MatchingPrecedence:         500,
			DistinguisherMethod:        &flowcontrol.FlowDistinguisherMethod{Type: flowcontrol.FlowDistinguisherMethodByUserType},
			Rules: []flowcontrol.PolicyRulesWithSubjects{{
				Subjects: []flowcontrol.Subject{{
					Kind:           flowcontrol.SubjectKindServiceAccount,
					ServiceAccount: &flowcontrol.ServiceAccountSubject{Namespace: installation, Name: account},
				}},
				ResourceRules: []flowcontrol.ResourcePolicyRule{{
					Verbs: []string{rbac.VerbAll}, APIGroups: []string{rbac.APIGroupAll}, Resources: []string{rbac.ResourceAll},
					ClusterScope: true, Namespaces: []string{flowcontrol.NamespaceEvery},
				}},
			}},
		},
	}
	_, err := f.client.FlowcontrolV1().FlowSchemas().Create(ctx, flow, meta.CreateOptions{})
	return err
}

// ledger is what is read of one.
type ledger struct {
	state struct {
		Answered map[string]any `json:"answered"`
		Episodes map[string]any `json:"episodes"`
		Runs     map[string]any `json:"runs"`
	}
	records []record
}

type record struct {
	Pod     string `json:"pod"`
	Hook    string `json:"hook"`
	Verdict string `json:"verdict"`
}

func (f *fleet) ledgers(ctx context.Context) ([]ledger, error) {
	var all []ledger
	for n := range f.namespaces {
		// From the API server's cache.
		list, err := f.client.CoreV1().ConfigMaps(namespaceName(n)).List(ctx, meta.ListOptions{LabelSelector: ledgers, ResourceVersion: "0"})
		if err != nil {
			return nil, err
		}
		for _, item := range list.Items {
			var one ledger
			if err := json.Unmarshal([]byte(item.Data["state"]), &one.state); err != nil {
				return nil, err
			}
			for line := range strings.Lines(item.Data["history"]) {
				var told record
				if err := json.Unmarshal([]byte(line), &told); err != nil {
					return nil, err
				}
				one.records = append(one.records, told)
			}
			all = append(all, one)
		}
	}
	return all, nil
}

// settled waits until every pod is known and nothing is open.
func (f *fleet) settled(ctx context.Context) error {
	return f.until(ctx, "every pod is in its ledger, and nothing is open", func() (bool, string, error) {
		all, err := f.ledgers(ctx)
		answered, open := 0, 0
		for _, one := range all {
			answered += len(one.state.Answered)
			open += len(one.state.Episodes) + len(one.state.Runs)
		}
		return answered == f.sets*f.replicas && open == 0, fmt.Sprintf("%d pods, %d open", answered, open), err
	})
}

// until looks again and again, and tells now and then how far it is.
func (f *fleet) until(ctx context.Context, what string, holds func() (bool, string, error)) error {
	began, told := time.Now(), time.Now()
	for {
		ok, how, err := holds()
		if err != nil {
			return err
		}
		if ok {
			f.say("%s", what)
			return nil
		}
		if time.Since(began) > patience {
			return fmt.Errorf("not within %s: %s (%s)", patience, what, how)
		}
		if time.Since(told) > 15*time.Second {
			told = time.Now()
			f.say("  %s", how)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
	}
}

// takeAway deletes what was made. What is not there is no error; anything else is told.
func (f *fleet) takeAway() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tell := func(err error) {
		if err != nil && !errors.IsNotFound(err) {
			f.say("cannot take away: %v", err)
		}
	}
	ours := meta.ListOptions{LabelSelector: label}
	tell(f.client.FlowcontrolV1().FlowSchemas().DeleteCollection(ctx, meta.DeleteOptions{}, ours))
	tell(each(f.namespaces, func(n int) error {
		err := f.client.CoreV1().Namespaces().Delete(ctx, namespaceName(n), meta.DeleteOptions{})
		if errors.IsNotFound(err) {
			return nil
		}
		return err
	}))
	tell(f.until(ctx, "the namespaces are gone", func() (bool, string, error) {
		list, err := f.client.CoreV1().Namespaces().List(ctx, meta.ListOptions{LabelSelector: label + "=namespace"})
		return err == nil && len(list.Items) == 0, "namespaces are being deleted", err
	}))
	tell(f.client.CoreV1().Nodes().DeleteCollection(ctx, meta.DeleteOptions{}, ours))
	tell(f.client.CoordinationV1().Leases("kube-node-lease").DeleteCollection(ctx, meta.DeleteOptions{}, ours))
}
