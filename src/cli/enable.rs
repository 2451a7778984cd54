//! `guardian enable` and `guardian disable`: opt a namespace in or out.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_core::names;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::approve::{self, ApproveError};
use super::cluster::{self, Cluster, ClusterError, call};
use super::eject::{EjectError, Ejection};

/// ClusterRole with the controller's rights in an enabled namespace, part of the installation.
const ROLE: &str = "guardian-namespace";
/// Name of the RoleBinding, and of the controller's ServiceAccount in the installation.
const CONTROLLER: &str = "guardian-controller";
/// Between two tries at what the webhook undoes while an API server still asks it, and how many: an API server knows a label of a namespace after some
/// milliseconds, so this is 10 s for one that is far behind.
const MOMENT: Duration = Duration::from_millis(200);
const PATIENCE: u32 = 50;

/// Opt a namespace in: its StatefulSets are guarded from their next change on
///
/// Gives the controller its rights there (a RoleBinding, for which you need `bind` on the ClusterRole guardian-namespace), then sets the
/// label that the webhooks select by, and waits until the API server goes by it. Pods that run are not touched.
///
/// Policies that are there already do nothing until somebody approves them who may run commands in the namespace's pods: each is shown,
/// and on a terminal you are asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  guardian enable shop\n  guardian enable shop --approve\n  guardian enable shop --dry-run")]
pub(super) struct EnableArgs {
    #[command(flatten)]
    target: Target,
    /// Approve the policies that are there, without asking
    #[arg(long)]
    approve: bool,
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
    #[error(
        "the RoleBinding {CONTROLLER} of {namespace} gives its rights to {others}, not to {CONTROLLER} of {installation}: name that installation \
         (--installation), or, where it is gone, run `kubectl -n {namespace} delete rolebinding {CONTROLLER}` first"
    )]
    OfAnother {
        /// The namespace.
        namespace: String,
        /// Whom it is for.
        others: String,
        /// Whom it would be for.
        installation: String,
    },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Approve(#[from] ApproveError),
    #[error(transparent)]
    Eject(#[from] EjectError),
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
    cluster::run(async |cluster| {
        let post = PostParams { dry_run: target.dry_run, field_manager: Some("guardian".to_owned()) };
        let bindings: Api<RoleBinding> = Api::namespaced(cluster.client.clone(), &target.namespace);
        let what = format!("make the RoleBinding {CONTROLLER} in {}", target.namespace);
        match call(what, bindings.create(&post, &target.binding())).await {
            Err(error) if error.code() == Some(409) => {
                let what = format!("read the RoleBinding {CONTROLLER} of {}", target.namespace);
                // One that was deleted since then is no reason to go on without.
                let there = call(what, bindings.get_opt(CONTROLLER)).await?.ok_or(error)?;
                target.belongs(&there)?;
            }
            other => drop(other?),
        }
        target.label(&cluster, json!("true")).await?;
        target.say("enabled");
        Ok(approve::offer(cluster, &target.namespace, &target.installation, args.approve, target.dry_run).await?)
    })
}

pub(super) fn disable(args: &DisableArgs) -> Result<(), EnableError> {
    let target = &args.target;
    cluster::run(async |cluster| {
        // What restarts pods is asked about before anything is done.
        let ejection = match args.eject {
            true => Some(Ejection::confirmed(&cluster, &target.namespace, args.yes, target.dry_run).await?),
            false => None,
        };
        // The label first: from then on nothing of ours acts there, whatever becomes of the rights.
        target.label(&cluster, json!(null)).await?;
        let delete = DeleteParams { dry_run: target.dry_run, ..DeleteParams::default() };
        let bindings: Api<RoleBinding> = Api::namespaced(cluster.client.clone(), &target.namespace);
        let what = format!("delete the RoleBinding {CONTROLLER} in {}", target.namespace);
        match call(what, bindings.delete(CONTROLLER, &delete)).await {
            Err(error) if error.code() == Some(404) => {}
            other => drop(other?),
        }
        // Without the rights it makes none anew.
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(cluster.client.clone(), &target.namespace);
        let ours = ListParams::default().labels(names::BUDGET);
        let what = format!("delete the PodDisruptionBudgets of the guardian in {}", target.namespace);
        call(what, budgets.delete_collection(&delete, &ours)).await?;
        target.restore_selectors(&cluster).await?;
        target.say("disabled");
        match ejection {
            Some(ejection) => Ok(ejection.carry_out(&cluster, target.dry_run).await?),
            None => Ok(()),
        }
    })
}

/// Does a RoleBinding give the controller of an installation its rights?
pub(super) fn is_for(binding: &RoleBinding, installation: &str) -> bool {
    let is_ours = |subject: &Subject| subject.name == CONTROLLER && subject.namespace.as_deref() == Some(installation);
    binding.role_ref.name == ROLE && binding.subjects.iter().flatten().any(is_ours)
}

impl Target {
    fn belongs(&self, binding: &RoleBinding) -> Result<(), EnableError> {
        if is_for(binding, &self.installation) {
            return Ok(());
        }
        let subject = |subject: &Subject| match &subject.namespace {
            Some(namespace) => format!("{} of {namespace}", subject.name),
            None => subject.name.clone(),
        };
        let others: Vec<String> = binding.subjects.iter().flatten().map(subject).collect();
        let others = if others.is_empty() { "nobody".to_owned() } else { others.join(", ") };
        let others =
            if binding.role_ref.name == ROLE { others } else { format!("{others} (those of {})", binding.role_ref.name) };
        Err(EnableError::OfAnother { namespace: self.namespace.clone(), others, installation: self.installation.clone() })
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

    async fn label(&self, cluster: &Cluster, value: serde_json::Value) -> Result<(), ClusterError> {
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let patch = json!({"metadata": {"labels": {names::ENABLED: value}}});
        let params = PatchParams { dry_run: self.dry_run, field_manager: Some("guardian".to_owned()), ..PatchParams::default() };
        call(format!("label the namespace {}", self.namespace), namespaces.patch(&self.namespace, &params, &Patch::Merge(patch)))
            .await
            .map(drop)
    }

    /// Services send to every pod again: nobody would end a shed any more.
    async fn restore_selectors(&self, cluster: &Cluster) -> Result<(), ClusterError> {
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let all = call(format!("list the Services of {}", self.namespace), services.list(&ListParams::default())).await?;
        let asks = |service: &&Service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| selector.contains_key(names::SERVING))
        };
        for service in all.items.iter().filter(asks) {
            let name = service.name_any();
            let patch = json!({"metadata": {"uid": service.uid()}, "spec": {"selector": {(names::SERVING): null}}});
            let params =
                PatchParams { dry_run: self.dry_run, field_manager: Some("guardian".to_owned()), ..PatchParams::default() };
            let patch = Patch::Merge(patch);
            // The webhook puts the label back until every API server knows that the namespace is out.
            for _ in 0..PATIENCE {
                let what = format!("change the selector of the Service {name} of {}", self.namespace);
                let stored = call(what, services.patch(&name, &params, &patch)).await?;
                if self.dry_run || !asks(&&stored) {
                    break;
                }
                tokio::time::sleep(MOMENT).await;
            }
        }
        Ok(())
    }

    fn say(&self, done: &str) {
        let dry = if self.dry_run { " (dry run)" } else { "" };
        anstream::println!("namespace {} {done}{dry}", self.namespace);
    }
}
