//! What is installed fits together: each part finds what it names in another.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends where it fails, and a missing field reads as null"
)]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

const NAMESPACE: &str = "stateful-guardian";

/// All documents of a file, or of all files that a kustomization of `manifests/` lists beside it.
fn read(path: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(path);
    let text = std::fs::read_to_string(&file).expect("a manifest");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

fn base() -> Vec<Value> {
    let files = read("base/kustomization.yaml").remove(0)["resources"].take();
    let files = files.as_array().expect("a list").iter().map(|file| format!("base/{}", file.as_str().expect("a file")));
    files.flat_map(|file| read(&file)).collect()
}

fn of_kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn named<'o>(objects: &'o [Value], kind: &str, name: &Value) -> &'o Value {
    let mut found = of_kind(objects, kind).into_iter().filter(|object| object["metadata"]["name"] == *name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn webhooks(objects: &[Value]) -> Vec<&Value> {
    let configurations = objects.iter().filter(|o| o["kind"].as_str().is_some_and(|kind| kind.ends_with("WebhookConfiguration")));
    configurations.flat_map(|configuration| list(&configuration["webhooks"])).collect()
}

#[test]
fn every_binding_leads_from_an_account_of_ours_to_rights_of_ours() {
    let base = base();
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        for binding in of_kind(&base, kind) {
            let role = &binding["roleRef"];
            named(&base, role["kind"].as_str().expect("a kind"), &role["name"]);
            for subject in list(&binding["subjects"]) {
                assert_eq!(subject["namespace"], NAMESPACE);
                named(&base, "ServiceAccount", &subject["name"]);
            }
        }
    }
    for deployment in of_kind(&base, "Deployment") {
        named(&base, "ServiceAccount", &deployment["spec"]["template"]["spec"]["serviceAccountName"]);
    }
}

#[test]
fn every_webhook_calls_our_service_and_only_the_one_of_policies_can_hold_anything_up() {
    let base = base();
    for webhook in webhooks(&base) {
        let name = webhook["name"].as_str().expect("a name");
        let service = &webhook["clientConfig"]["service"];
        assert_eq!(service["namespace"], NAMESPACE, "{name}");
        named(&base, "Service", &service["name"]);
        let policy = if name.starts_with("policies.") { "Fail" } else { "Ignore" };
        assert_eq!(webhook["failurePolicy"], policy, "{name}");
        assert!(webhook["timeoutSeconds"].as_i64().is_some_and(|seconds| seconds <= 2), "{name}");
        let selector = if webhook["namespaceSelector"].is_null() { "objectSelector" } else { "namespaceSelector" };
        assert_eq!(webhook[selector]["matchLabels"]["stateful-guardian.io/enabled"], "true", "{name}");
        let never = json!(["kube-system", "kube-node-lease", NAMESPACE]);
        assert_eq!(webhook[selector]["matchExpressions"][0]["values"], never, "{name}");
    }
    let names: BTreeSet<&str> = webhooks(&base).into_iter().filter_map(|webhook| webhook["name"].as_str()).collect();
    assert_eq!(names.len(), webhooks(&base).len(), "one name each");
}

/// A Lease is made while an eviction is admitted, so a dry run must be told apart, and the rights must be there.
#[test]
fn an_eviction_is_asked_about_with_the_rights_to_make_its_lease() {
    let base = base();
    let webhook = webhooks(&base).into_iter().find(|webhook| webhook["name"] == "evictions.stateful-guardian.io");
    let webhook = webhook.expect("the webhook of evictions");
    assert_eq!((&webhook["sideEffects"], &webhook["rules"][0]["resources"]), (&json!("NoneOnDryRun"), &json!(["pods/eviction"])));
    let rights = |kind: &str, resource: &str| {
        let role = named(&base, kind, &json!("guardian-webhook"));
        let rules = list(&role["rules"]).iter().filter(|rule| list(&rule["resources"]).contains(&json!(resource)));
        rules.flat_map(|rule| list(&rule["verbs"])).filter_map(Value::as_str).collect::<BTreeSet<_>>()
    };
    assert_eq!(rights("Role", "leases"), BTreeSet::from(["get", "list", "create", "delete"]));
    assert_eq!(rights("ClusterRole", "pods"), BTreeSet::from(["get"]));
    assert_eq!(rights("ClusterRole", "leases"), BTreeSet::new(), "in our own namespace alone");
}

#[test]
fn the_cert_manager_overlay_makes_the_pair_that_the_webhook_reads_and_takes_our_own_maker_away() {
    let base = base();
    let own = read("overlays/cert-manager/certificates.yaml");
    let overlay = read("overlays/cert-manager/kustomization.yaml").remove(0);

    let deployment = named(&base, "Deployment", &json!("guardian-webhook"));
    let volume = &list(&deployment["spec"]["template"]["spec"]["volumes"])[0]["secret"];
    let mut certificates = of_kind(&own, "Certificate").into_iter();
    let certificate =
        certificates.find(|c| c["spec"]["secretName"] == volume["secretName"]).expect("a certificate for its Secret");
    let service = &webhooks(&base)[0]["clientConfig"]["service"]["name"];
    let dns = format!("{}.{NAMESPACE}.svc", service.as_str().expect("a name"));
    assert_eq!(certificate["spec"]["dnsNames"], json!([dns]));

    let issuer = named(&own, "Issuer", &certificate["spec"]["issuerRef"]["name"]);
    let ca = of_kind(&own, "Certificate").into_iter().find(|c| c["spec"]["secretName"] == issuer["spec"]["ca"]["secretName"]);
    assert_eq!(ca.expect("the CA of the issuer")["spec"]["isCA"], true);
    named(&own, "Issuer", &ca.expect("the CA of the issuer")["spec"]["issuerRef"]["name"]);
    assert!(own.iter().all(|object| object["metadata"]["namespace"] == NAMESPACE));

    let patch = |target: Value| {
        let found = list(&overlay["patches"]).iter().find(|patch| patch["target"] == target).expect("a patch");
        serde_saphyr::from_str::<Value>(found["patch"].as_str().expect("a text")).expect("YAML")
    };
    assert_eq!(patch(json!({"name": "guardian-certs"}))["$patch"], "delete");
    let injected = patch(json!({"group": "admissionregistration.k8s.io", "name": "stateful-guardian"}));
    let from = &injected["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
    assert_eq!(*from, format!("{NAMESPACE}/{}", certificate["metadata"]["name"].as_str().expect("a name")));

    // All of it is of that name, and nothing else is: so the patch takes away neither less nor more.
    let makers = read("base/certs.yaml");
    let is_maker = |object: &&Value| object["metadata"]["name"] == "guardian-certs";
    assert_eq!(base.iter().filter(is_maker).count(), makers.len());
    assert!(makers.iter().all(|object| is_maker(&object)));
    let configurations = base.iter().filter(|o| o["kind"].as_str().is_some_and(|kind| kind.ends_with("WebhookConfiguration")));
    assert!(configurations.into_iter().all(|configuration| configuration["metadata"]["name"] == "stateful-guardian"));
}

/// The template of a Deployment of ours, and its port of that name.
fn template_with_port<'b>(base: &'b [Value], deployment: &str, port: &str) -> (&'b Value, &'b Value) {
    let template = &named(base, "Deployment", &json!(deployment))["spec"]["template"];
    let ports = list(&list(&template["spec"]["containers"])[0]["ports"]);
    (template, ports.iter().find(|own| own["name"] == port).expect("the port"))
}

#[test]
fn the_metrics_of_webhook_and_controller_are_found_by_their_annotations() {
    let base = base();
    for deployment in ["guardian-webhook", "guardian-controller"] {
        let (template, port) = template_with_port(&base, deployment, "probe");
        let expected = json!({
            "prometheus.io/scrape": "true", "prometheus.io/port": port["containerPort"].to_string(), "prometheus.io/path": "/metrics",
        });
        assert_eq!(template["metadata"]["annotations"], expected, "{deployment}");
    }
}

#[test]
fn the_metrics_of_webhook_and_controller_are_found_by_the_prometheus_operator() {
    let base = base();
    let component = read("components/service-monitor/kustomization.yaml").remove(0);
    assert_eq!((&component["kind"], &component["resources"]), (&json!("Component"), &json!(["service-monitor.yaml"])));
    let own = read("components/service-monitor/service-monitor.yaml");
    assert!(own.iter().all(|object| object["metadata"]["namespace"] == NAMESPACE));
    assert!(own.iter().all(|object| {
        base.iter().all(|o| (&o["kind"], &o["metadata"]["name"]) != (&object["kind"], &object["metadata"]["name"]))
    }));

    let (template, port) = template_with_port(&base, "guardian-controller", "probe");
    let service = named(&own, "Service", &json!("guardian-controller"));
    let monitor = named(&own, "ServiceMonitor", &json!("guardian-controller"));
    assert_eq!(service["spec"]["selector"], template["metadata"]["labels"], "the Service selects the controller");
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    assert!(!selected.is_empty() && selected.iter().all(|(key, value)| service["metadata"]["labels"][key] == *value));
    let endpoint = &list(&monitor["spec"]["endpoints"])[0];
    let of_service =
        list(&service["spec"]["ports"]).iter().find(|p| p["name"] == endpoint["port"]).expect("the port of the monitor");
    assert_eq!(of_service["targetPort"], port["name"]);
    assert_eq!((&endpoint["path"], &endpoint["honorLabels"]), (&json!("/metrics"), &json!(true)));

    let (template, port) = template_with_port(&base, "guardian-webhook", "probe");
    let monitor = named(&own, "PodMonitor", &json!("guardian-webhook"));
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
    let endpoint = &list(&monitor["spec"]["podMetricsEndpoints"])[0];
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&port["name"], &json!("/metrics")));
}

#[test]
fn the_agents_of_pods_are_found_by_their_label_and_their_port() {
    let component = read("components/agent-monitor/kustomization.yaml").remove(0);
    assert_eq!((&component["kind"], &component["resources"]), (&json!("Component"), &json!(["agent-monitor.yaml"])));
    let own = read("components/agent-monitor/agent-monitor.yaml");
    let monitor = named(&own, "PodMonitor", &json!("guardian-agent"));
    assert_eq!(monitor["metadata"]["namespace"], NAMESPACE);
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], json!({(guardian_core::names::GUARDED): "true"}));
    let endpoint = &list(&monitor["spec"]["podMetricsEndpoints"])[0];
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&json!(guardian_core::names::AGENT), &json!("/metrics")));
    assert_eq!((&endpoint["honorLabels"], &monitor["spec"]["namespaceSelector"]), (&json!(true), &json!({"any": true})));
}
