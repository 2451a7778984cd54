//! `guardian approve`, and what `guardian enable` does about policies that it finds.
//!
//! Nothing is approved here: an annotation is set as the caller, and the webhook judges whoever sets it. So no right in the guardian's own
//! namespace is needed, and the audit trail names the caller.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use guardian_core::names;
use guardian_core::policy::{self, Approvals, Policy, Program};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::{self, Cluster, ClusterError, call};
use super::process;

/// The webhook that judges policies: the API server names it in what it says of a denial.
const WEBHOOK: &str = "policies.stateful-guardian.io";
/// The label of a namespace reaches every API server within a second or so.
const WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(200);
/// After so long a wait is told of.
const PATIENCE: Duration = Duration::from_secs(1);
/// Characters of a command that are shown.
const SHOWN: usize = 80;

/// Approve policies that wait: those that came before their namespace was enabled
///
/// A policy is code that runs in pods, so you need the right to create pods/exec in its namespace, and to patch the ConfigMap. What you
/// approve is what is stored now; if it is changed in the meantime, nothing is approved.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian approve -n shop
  guardian approve -n shop redis-policy --dry-run
  guardian approve -n shop -o json")]
pub(super) struct Args {
    /// Names of policies; without any, all that wait
    #[arg(value_name = "POLICY")]
    policies: Vec<String>,
    /// Namespace; by default the kubeconfig's
    #[arg(short, long)]
    namespace: Option<String>,
    /// Let the webhook judge, without approving anything
    #[arg(long)]
    dry_run: bool,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    installation: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A line a policy
    Text,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ApproveError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("there is no policy {0} in namespace {1}: `kubectl -n {1} get configmaps -l {label}=true` lists them", label = names::POLICY)]
    Missing(String, String),
    #[error(
        "the API server does not ask the guardian about policies of namespace {0}: install it, and run `guardian enable {0}`"
    )]
    NotEnabled(String),
    #[error("{0} of the policies could not be approved")]
    Denied(usize),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

pub(super) fn run(args: &Args) -> Result<(), ApproveError> {
    cluster::run(async |cluster| {
        let place = Place { namespace: cluster.namespace_or_default(args.namespace.as_deref()), cluster, dry_run: args.dry_run };
        let found = place.find(&args.installation).await?;
        for name in &args.policies {
            if !found.iter().any(|found| found.name() == *name) {
                return Err(ApproveError::Missing(name.clone(), place.namespace.clone()));
            }
        }
        let is_meant =
            |found: &&Found| if args.policies.is_empty() { found.waits } else { args.policies.contains(&found.name()) };
        let meant: Vec<&Found> = found.iter().filter(is_meant).collect();
        if !meant.is_empty() && !place.is_judged().await? {
            return Err(ApproveError::NotEnabled(place.namespace.clone()));
        }
        let results = place.approve_all(&meant).await;
        match args.output {
            Output::Text if results.is_empty() => {
                anstream::println!("no policy waits for approval in namespace {}", place.namespace);
            }
            Output::Text => text(&place, &results),
            Output::Json => anstream::println!("{:#}", document(&place, &results)),
            Output::Yaml => {
                let text = serde_saphyr::to_string(&document(&place, &results)).map_err(io::Error::other)?;
                anstream::println!("{}", text.trim_end());
            }
        }
        denied(&results)
    })
}

/// What `enable` does about the policies that it finds: shows each that waits, and approves it where all are to be (`all`) or the person at
/// the terminal says so. Before, it waits until the API server goes by the namespace's label.
pub(super) async fn offer(
    cluster: Cluster,
    namespace: &str,
    installation: &str,
    all: bool,
    dry_run: bool,
) -> Result<(), ApproveError> {
    let place = Place { cluster, namespace: namespace.to_owned(), dry_run };
    let is_judged = !dry_run && place.is_judged().await?;
    if !is_judged && !dry_run {
        anstream::eprintln!(
            "guardian: the API server does not ask the guardian about namespace {namespace}: is it installed? Until it does, StatefulSets go \
             through unguarded, and policies without approval"
        );
    }
    let (mut meant, mut left) = (Vec::new(), Vec::new());
    let found = place.find(installation).await?;
    for policy in found.iter().filter(|found| found.waits) {
        anstream::print!("{}", policy.shown());
        if policy.policy.is_err() {
            continue;
        }
        let is_meant = is_judged && (all || (is_interactive() && ask(&policy.name())?));
        if is_meant { meant.push(policy) } else { left.push(policy.name()) }
    }
    let results = place.approve_all(&meant).await;
    text(&place, &results);
    if !left.is_empty() {
        let names = left.join(" ");
        anstream::println!("not approved, so they do nothing: {names}\nto approve them: guardian approve -n {namespace} {names}");
    }
    if all && !is_judged && !dry_run && !left.is_empty() {
        return Err(ApproveError::NotEnabled(place.namespace));
    }
    denied(&results)
}

fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Asks the person at the terminal; anything but a yes is a no.
fn ask(name: &str) -> io::Result<bool> {
    let mut out = anstream::stdout();
    write!(out, "Approve policy {name}? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

/// A policy as it is stored.
struct Found {
    map: ConfigMap,
    digest: String,
    policy: Result<Policy, String>,
    /// It is not approved, as far as the caller may know.
    waits: bool,
}

impl Found {
    fn new(map: ConfigMap, namespace: &str, approvals: Option<&Approvals>) -> Self {
        let data = map.data.clone().unwrap_or_default();
        let digest = policy::digest(&data);
        let policy = policy::parse(&map.name_any(), &data).map_err(|invalid| invalid.to_string());
        let waits = approvals.is_none_or(|approvals| !approvals.contains(namespace, &digest));
        Self { map, digest, policy, waits }
    }

    fn name(&self) -> String {
        self.map.name_any()
    }

    /// What it would run, for whoever decides.
    fn shown(&self) -> String {
        let name = self.name();
        match &self.policy {
            Err(invalid) => format!("policy {name} cannot be read: {invalid}\n"),
            Ok(policy) => {
                let lines = policy.programs().into_iter().map(|(path, program)| format!("  {path}: {}\n", shown(program)));
                format!("policy {name}, revision {}, runs in pods:\n{}", policy.revision, lines.collect::<String>())
            }
        }
    }
}

fn shown(program: &Program) -> String {
    match program {
        Program::Script { name, .. } => format!("script {name}"),
        Program::Command(argv) => {
            let text: String = format!("{argv:?}").chars().take(SHOWN + 1).collect();
            if text.chars().count() > SHOWN { text.chars().take(SHOWN).chain(['…']).collect() } else { text }
        }
    }
}

/// Where policies are approved.
struct Place {
    cluster: Cluster,
    namespace: String,
    dry_run: bool,
}

type Approved<'f> = (&'f Found, Result<(), ClusterError>);

impl Place {
    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// The policies of the namespace. Who may not read the approvals does not know which of them wait, and takes all for waiting.
    async fn find(&self, installation: &str) -> Result<Vec<Found>, ClusterError> {
        let labelled = ListParams::default().labels(&format!("{}=true", names::POLICY));
        let maps = call(format!("list the policies of {}", self.namespace), self.maps().list(&labelled)).await?;
        let approvals: Api<ConfigMap> = Api::namespaced(self.cluster.client.clone(), installation);
        let approvals = call("read the approvals", approvals.get(names::APPROVALS)).await.ok();
        let approvals = approvals.map(|map| map.data.as_ref().map(Approvals::read).unwrap_or_default());
        Ok(maps.items.into_iter().map(|map| Found::new(map, &self.namespace, approvals.as_ref())).collect())
    }

    /// Does the API server ask the guardian about policies of the namespace? What is asked for is a policy that is none, and a dry run.
    /// An enabled namespace's label takes effect a moment after it was set, so this waits.
    async fn is_judged(&self) -> Result<bool, ClusterError> {
        let probe = json!({
            "metadata": {"generateName": "guardian-probe-", "labels": {names::POLICY: "true"}},
            "data": {"about": "never stored: it asks whether the guardian would refuse it"},
        });
        let Ok(probe) = serde_json::from_value::<ConfigMap>(probe) else { return Ok(false) };
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let (start, mut told) = (Instant::now(), false);
        while start.elapsed() < WAIT {
            match call(format!("ask about policies of {}", self.namespace), self.maps().create(&params, &probe)).await {
                Ok(_) => {}
                // A guardian that does not answer is asked all the same.
                Err(error) if error.to_string().contains(WEBHOOK) => return Ok(true),
                Err(error) => return Err(error),
            }
            if start.elapsed() > PATIENCE && !std::mem::replace(&mut told, true) {
                anstream::eprintln!("waiting until the API server asks the guardian about namespace {} …", self.namespace);
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(false)
    }

    async fn approve_all<'f>(&self, policies: &[&'f Found]) -> Vec<Approved<'f>> {
        let mut results = Vec::new();
        for found in policies {
            results.push((*found, self.approve(found).await));
        }
        results
    }

    /// Asks the webhook to judge the caller as the author of what was found. The time makes it another value each time.
    async fn approve(&self, found: &Found) -> Result<(), ClusterError> {
        let patch = json!({"metadata": {
            "resourceVersion": found.map.metadata.resource_version,
            "annotations": {names::APPROVE: format!("{} {}", found.digest, process::now())},
        }});
        let params = PatchParams { dry_run: self.dry_run, field_manager: Some("guardian".to_owned()), ..PatchParams::default() };
        let name = found.name();
        call(format!("approve policy {name}"), self.maps().patch(&name, &params, &Patch::Merge(patch))).await.map(drop)
    }
}

fn text(place: &Place, results: &[Approved<'_>]) {
    let dry = if place.dry_run { " (dry run)" } else { "" };
    for (found, result) in results {
        match result {
            Ok(()) => {
                let revision = found.digest.get(..16).unwrap_or_default();
                anstream::println!("policy {} approved, revision {revision}{dry}", found.name());
            }
            Err(error) => anstream::eprintln!("guardian: {error}"),
        }
    }
}

fn denied(results: &[Approved<'_>]) -> Result<(), ApproveError> {
    match results.iter().filter(|(_, result)| result.is_err()).count() {
        0 => Ok(()),
        denied => Err(ApproveError::Denied(denied)),
    }
}

fn document(place: &Place, results: &[Approved<'_>]) -> Value {
    let one = |(found, result): &Approved<'_>| {
        let error = result.as_ref().err().map(ToString::to_string);
        json!({
            "namespace": place.namespace, "policy": found.name(), "digest": found.digest, "dryRun": place.dry_run,
            "approved": error.is_none(), "error": error,
        })
    };
    results.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn found(text: &str, approvals: Option<&Approvals>) -> Found {
        let data =
            [("policy.yaml", text), ("rejoin.sh", "#!/bin/sh\nsecret\n")].map(|(key, text)| (key.to_owned(), text.to_owned()));
        let mut map = ConfigMap { data: Some(data.into()), ..ConfigMap::default() };
        map.metadata.name = Some("redis".to_owned());
        Found::new(map, "shop", approvals)
    }

    const HEAD: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n";

    #[test]
    fn whoever_decides_sees_what_would_run_by_name() {
        let argument = "x".repeat(100);
        let text = format!("{HEAD}hooks: {{rejoin: {{script: rejoin.sh}}, preStop: {{command: [save, {argument}]}}}}\n");
        let shown = found(&text, None).shown();
        let (first, rest) = shown.split_once('\n').unwrap();
        assert!(first.starts_with("policy redis, revision ") && first.ends_with(", runs in pods:"), "{first}");
        let command: String = format!("[\"save\", \"{argument}").chars().take(80).collect();
        assert_eq!(rest, format!("  hooks.rejoin: script rejoin.sh\n  hooks.preStop: {command}…\n"));
        assert!(found("nonsense", None).shown().starts_with("policy redis cannot be read: "));
    }

    #[test]
    fn who_may_not_read_the_approvals_takes_every_policy_for_waiting() {
        let digest = found(HEAD, None).digest;
        let of = |namespace: &str| Approvals::read(&BTreeMap::from([(format!("{namespace}.{digest}"), String::new())]));
        let waits = [None, Some(of("bank")), Some(of("shop"))].map(|approvals| found(HEAD, approvals.as_ref()).waits);
        assert_eq!(waits, [true, true, false]);
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, yes) in
            [("y\n", true), (" YES \n", true), ("\n", false), ("", false), ("n\n", false), ("yesterday\n", false)]
        {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }
}
