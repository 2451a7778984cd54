//! `guardian shed`: Services send nothing new to a pod, for a time.

use std::time::Duration;

use guardian_core::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::cluster::{self, ClusterError, call};
use super::process;

/// How long the controller may take to follow: it needs a tenth of a second.
const FOLLOWS: Duration = Duration::from_secs(10);
/// The longest time that a pod can be shed for: whoever wants more wants fewer replicas.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Let the Services of its policy's `traffic` send nothing new to a pod, for a time
///
/// The pod goes on running, and connections that it has stay until the hook `traffic.drain` ends them. The last pod of a set that serves is never shed.
/// Nothing has to be done at the end: the controller lets the pod serve again when the time is over. What you ask for is an annotation of the pod, so
/// you need the right to patch it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian shed -n shop redis-1 --for 5m
  guardian shed -n shop redis-1 --for 1h --because 'slow disk, INC-17'
  guardian shed -n shop redis-1 --end")]
pub(super) struct Args {
    /// The pod
    pod: String,
    /// Namespace; by default the kubeconfig's
    #[arg(short, long)]
    namespace: Option<String>,
    /// How long: 30s, 5m, 1h30m; at most 24h
    #[arg(long = "for", value_name = "DURATION", value_parser = time, required_unless_present = "end")]
    time: Option<Duration>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    because: String,
    /// Let it serve again now
    #[arg(long, conflicts_with = "time")]
    end: bool,
    /// Let the API server check the change without storing it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ShedError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "pod {0} has no label {label}: its set has no `traffic` in its policy, or its template is older than that (`guardian status`)",
        label = names::SERVING
    )]
    NotServing(String),
    #[error(
        "the controller has not followed within {seconds} s: the Events of the pod's set say why (`kubectl get events`), or it does not run (`guardian check`). \
         What was asked for stands, until it is withdrawn with --end",
        seconds = FOLLOWS.as_secs()
    )]
    NotFollowed,
}

pub(super) fn run(args: &Args) -> Result<(), ShedError> {
    cluster::run(async |cluster| {
        let namespace = cluster.namespace_or_default(args.namespace.as_deref());
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
        let found = call(format!("read the pod {} of {namespace}", args.pod), pods.get_opt(&args.pod)).await?;
        let pod = found.ok_or_else(|| ClusterError::Missing(format!("pod {} in {namespace}", args.pod)))?;
        if !pod.labels().contains_key(names::SERVING) {
            return Err(ShedError::NotServing(args.pod.clone()));
        }
        // By the clock that the controller goes by: one of a laptop that is an hour late would ask for a time that is over.
        let until = match args.time {
            Some(time) => (process::now() + cluster.ahead().await).checked_add(time).ok(),
            None => None,
        };
        let request = until.map(|until| format!("{until} {}", args.because).trim_end().to_owned());
        let patch = json!({"metadata": {"uid": pod.uid(), "annotations": {(names::SHED): request}}});
        let params = PatchParams { dry_run: args.dry_run, field_manager: Some("guardian".to_owned()), ..PatchParams::default() };
        let what = format!("annotate the pod {} of {namespace}", args.pod);
        call(what, pods.patch_metadata(&args.pod, &params, &Patch::Merge(patch))).await?;
        if args.dry_run {
            anstream::println!("pod {} {} (dry run)", args.pod, told(until));
            return Ok(());
        }
        let wanted = if args.end { "true" } else { "false" };
        match tokio::time::timeout(FOLLOWS, await_condition(pods, &args.pod, labelled(wanted))).await {
            Ok(Ok(_)) => anstream::println!("pod {} {}", args.pod, told(until)),
            _ => return Err(ShedError::NotFollowed),
        }
        Ok(())
    })
}

fn told(until: Option<Timestamp>) -> String {
    until.map_or_else(
        || "serves again".to_owned(),
        |until| format!("is sent nothing new until {}", until.strftime("%Y-%m-%dT%H:%M:%SZ")),
    )
}

fn labelled(wanted: &'static str) -> impl Condition<Pod> {
    move |pod: Option<&Pod>| pod.is_some_and(|pod| pod.labels().get(names::SERVING).is_some_and(|serving| serving == wanted))
}

fn time(text: &str) -> Result<Duration, String> {
    let time = guardian_core::policy::duration(text).ok_or("write a duration such as 30s, 5m or 1h30m")?;
    if time.is_zero() || time > LONGEST { Err("at least 1 ms, and at most 24h".to_owned()) } else { Ok(time) }
}
