//! `guardian enable` and `guardian disable`: opt a namespace in or out.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_core::names;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::cluster::Cluster;
use super::eject::{EjectError, Ejection};

/// ClusterRole with the controller's rights in an enabled namespace, part of the installation.
const ROLE: &str = "guardian-namespace";
/// Name of the RoleBinding, and of the controller's ServiceAccount in the installation.
const CONTROLLER: &str = "guardian-controller";
/// One call to the API server.
const CALL: Duration = Duration::from_secs(10);

/// Opt a namespace in: its StatefulSets are guarded from their next change on
///
/// Gives the controller its rights there (a RoleBinding, for which you need `bind` on the ClusterRole guardian-namespace), then sets the
/// label that the webhooks select by. Pods that run are not touched.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  guardian enable shop\n  guardian enable shop --dry-run")]
pub(super) struct EnableArgs {
    #[command(flatten)]
    target: Target,
}

/// Opt a namespace out: no hook runs, nothing is rewritten
///
/// What was written into templates stays there and works alone. With --eject it is taken out, which restarts the pods of every guarded set.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  guardian disable shop\n  guardian disable shop --eject --dry-run\n  guardian disable shop --eject --yes"
)]
pub(super) struct DisableArgs {
    #[command(flatten)]
    target: Target,
    /// Take what was written out of the templates too: a rolling restart of each guarded set, which is asked about
    #[arg(long)]
    eject: bool,
    /// Do not ask
    #[arg(long, requires = "eject")]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// The namespace
    namespace: String,
    /// Let the API server check the changes without storing them
    #[arg(long)]
    dry_run: bool,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    installation: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum EnableError {
    #[error("{0} cannot be enabled: the webhooks leave it alone, so that the cluster can always be repaired")]
    Excluded(String),
    #[error("no way to the API server: {0}")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no runtime: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("{what}: {error}")]
    Call { what: String, error: Box<kube::Error> },
    #[error(transparent)]
    Eject(#[from] EjectError),
    #[error("{0}: no answer within {seconds} s", seconds = CALL.as_secs())]
    Silence(String),
}

impl EnableError {
    /// Was it called wrongly?
    pub(super) fn is_usage(&self) -> bool {
        matches!(self, Self::Eject(EjectError::Unconfirmed))
    }
}

pub(super) fn enable(args: &EnableArgs) -> Result<(), EnableError> {
    let target = &args.target;
    if ["kube-system", "kube-node-lease", target.installation.as_str()].contains(&target.namespace.as_str()) {
        return Err(EnableError::Excluded(target.namespace.clone()));
    }
    target.run(async |client| {
        let post = PostParams { dry_run: target.dry_run, field_manager: Some("guardian".to_owned()) };
        let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), &target.namespace);
        let what = format!("cannot make the RoleBinding {CONTROLLER} in {}", target.namespace);
        match call(what, bindings.create(&post, &target.binding())).await {
            Err(EnableError::Call { error, .. }) if is_status(&error, 409) => {}
            other => drop(other?),
        }
        target.label(&client, json!("true")).await
    })?;
    target.say("enabled");
    Ok(())
}

pub(super) fn disable(args: &DisableArgs) -> Result<(), EnableError> {
    let target = &args.target;
    target.run(async |client| {
        let cluster = Cluster { client: client.clone() };
        // What restarts pods is asked about before anything is done.
        let ejection = match args.eject {
            true => Some(Ejection::confirmed(&cluster, &target.namespace, args.yes, target.dry_run).await?),
            false => None,
        };
        // The label first: from then on nothing of ours acts there, whatever becomes of the rights.
        target.label(&client, json!(null)).await?;
        let bindings: Api<RoleBinding> = Api::namespaced(client, &target.namespace);
        let what = format!("cannot delete the RoleBinding {CONTROLLER} in {}", target.namespace);
        let delete = DeleteParams { dry_run: target.dry_run, ..DeleteParams::default() };
        match call(what, bindings.delete(CONTROLLER, &delete)).await {
            Err(EnableError::Call { error, .. }) if is_status(&error, 404) => {}
            other => drop(other?),
        }
        target.say("disabled");
        match ejection {
            Some(ejection) => Ok(ejection.carry_out(&cluster, target.dry_run).await?),
            None => Ok(()),
        }
    })
}

impl Target {
    fn run(&self, body: impl AsyncFnOnce(Client) -> Result<(), EnableError>) -> Result<(), EnableError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EnableError::Runtime)?;
        runtime.block_on(async {
            let client = Client::try_default().await.map_err(|e| EnableError::Client(Box::new(e)))?;
            body(client).await
        })
    }

    fn binding(&self) -> RoleBinding {
        RoleBinding {
            metadata: ObjectMeta {
                name: Some(CONTROLLER.to_owned()),
                labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "stateful-guardian".to_owned())])),
                ..ObjectMeta::default()
            },
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "ClusterRole".to_owned(),
                name: ROLE.to_owned(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: CONTROLLER.to_owned(),
                namespace: Some(self.installation.clone()),
                ..Subject::default()
            }]),
        }
    }

    async fn label(&self, client: &Client, value: serde_json::Value) -> Result<(), EnableError> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let patch = json!({"metadata": {"labels": {names::ENABLED: value}}});
        let params = PatchParams { dry_run: self.dry_run, field_manager: Some("guardian".to_owned()), ..PatchParams::default() };
        call(
            format!("cannot label the namespace {}", self.namespace),
            namespaces.patch(&self.namespace, &params, &Patch::Merge(patch)),
        )
        .await
        .map(drop)
    }

    fn say(&self, done: &str) {
        let dry = if self.dry_run { " (dry run)" } else { "" };
        anstream::println!("namespace {} {done}{dry}", self.namespace);
    }
}

async fn call<T>(what: String, request: impl Future<Output = kube::Result<T>>) -> Result<T, EnableError> {
    match tokio::time::timeout(CALL, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(EnableError::Call { what, error: Box::new(error) }),
        Err(_) => Err(EnableError::Silence(what)),
    }
}

fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
