//! What the API server asks: `AdmissionReview` of `admission.k8s.io/v1`, read without copying the object.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One request for admission. It borrows from the body.
#[derive(Debug)]
pub struct Review<'a> {
    /// Identity of the request; the response carries it back.
    pub uid: Cow<'a, str>,
    /// `group/version/Kind`, without the group for the core group.
    pub kind: String,
    /// Group and plural name: what tells the scale of a StatefulSet from that of a Deployment.
    pub resource: Resource<'a>,
    /// `scale`, `status` and the like.
    pub subresource: Option<Cow<'a, str>>,
    /// What the user does.
    pub verb: Verb,
    /// Namespace of the object.
    pub namespace: Cow<'a, str>,
    /// Name of the object; empty when the API server is to make one.
    pub name: Cow<'a, str>,
    /// Who asks. The rest of it is in [`Review::author`].
    pub user: Cow<'a, str>,
    /// Nothing will be stored.
    pub dry_run: bool,
    user_uid: Option<Cow<'a, str>>,
    groups: Option<&'a RawValue>,
    extra: Option<&'a RawValue>,
    object: Option<&'a RawValue>,
    old_object: Option<&'a RawValue>,
    options: Option<&'a RawValue>,
}

/// Who asks, with all that an authorizer may look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// His name.
    pub user: String,
    /// What tells him from another of that name.
    pub uid: Option<String>,
    /// Groups that he is in.
    pub groups: Vec<String>,
    /// What else the authenticator knows of him.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What the request is about, in the version that the webhook's rules name. With `matchPolicy: Equivalent` the user may have asked in
/// another one; the API server has converted the objects then, so `requestKind` and `requestResource` are not read.
#[derive(Debug, Default, Deserialize)]
pub struct Resource<'a> {
    /// API group; empty for the core group.
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    /// Plural name, in lower case.
    #[serde(borrow, rename = "resource")]
    pub plural: Cow<'a, str>,
}

/// What the user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// An object is to go.
    Delete,
    /// A connection, such as `exec`.
    Connect,
}

/// Why a body is not a review.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Not JSON, or not of the shape of a review.
    #[error("the body is not an AdmissionReview: {0}")]
    Shape(#[source] serde_json::Error),
    /// Another kind or version.
    #[error("{0}/{1} is not served here: send an AdmissionReview of admission.k8s.io/v1")]
    Version(String, String),
    /// A review that asks nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// A request that cannot be answered.
    #[error("the request has no uid")]
    NoUid,
}

impl<'a> Review<'a> {
    /// Reads the body of a webhook call.
    ///
    /// # Errors
    /// Whatever keeps it from being a review of `admission.k8s.io/v1` with a uid.
    pub fn parse(body: &'a str) -> Result<Self, ReviewError> {
        let envelope: Envelope<'a> = serde_json::from_str(body).map_err(ReviewError::Shape)?;
        if envelope.kind != "AdmissionReview" || envelope.api_version != "admission.k8s.io/v1" {
            return Err(ReviewError::Version(envelope.api_version.into_owned(), envelope.kind.into_owned()));
        }
        let request = envelope.request.ok_or(ReviewError::NoRequest)?;
        if request.uid.is_empty() {
            return Err(ReviewError::NoUid);
        }
        let Kind { group, version, kind } = request.kind;
        let kind = if group.is_empty() { format!("{version}/{kind}") } else { format!("{group}/{version}/{kind}") };
        let subresource = request.sub_resource.filter(|s| !s.is_empty());
        let eviction = subresource.as_deref() == Some("eviction");
        Ok(Self {
            uid: request.uid,
            kind,
            resource: request.resource,
            subresource,
            verb: request.operation,
            namespace: request.namespace,
            name: request.name,
            user: request.user_info.username,
            user_uid: request.user_info.uid,
            groups: request.user_info.groups,
            extra: request.user_info.extra,
            dry_run: request.dry_run.unwrap_or(false) || (eviction && is_dry_eviction(request.object)),
            object: request.object,
            old_object: request.old_object,
            options: request.options,
        })
    }

    /// Who asks. Most reviews are answered without a look at more of him than his name.
    ///
    /// # Errors
    /// When his groups, or what else is known of him, are not of the type that an API server sends.
    pub fn author(&self) -> Result<Author, serde_json::Error> {
        Ok(Author {
            user: self.user.clone().into_owned(),
            uid: self.user_uid.as_ref().map(|uid| uid.clone().into_owned()),
            groups: self.groups.map(|raw| serde_json::from_str(raw.get())).transpose()?.unwrap_or_default(),
            extra: self.extra.map(|raw| serde_json::from_str(raw.get())).transpose()?.unwrap_or_default(),
        })
    }

    /// The object as it would be stored.
    ///
    /// # Errors
    /// When a field that is read is not of the type that its kind prescribes.
    pub(super) fn object<T: Deserialize<'a>>(&self) -> Result<Option<T>, serde_json::Error> {
        self.object.map(|raw| serde_json::from_str(raw.get())).transpose()
    }

    /// The object as it is stored.
    ///
    /// # Errors
    /// As for [`Self::object`].
    pub(super) fn old_object<T: Deserialize<'a>>(&self) -> Result<Option<T>, serde_json::Error> {
        self.old_object.map(|raw| serde_json::from_str(raw.get())).transpose()
    }

    /// How the object is to be deleted. Options that cannot be read are no options: they excuse nothing.
    pub(super) fn delete_options(&self) -> DeleteOptions {
        self.options.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// Is the stored object being deleted? What the request itself says is not believed: whoever could set the field on his new object
    /// would be spared the guard, and the API server clears it only afterwards.
    pub(super) fn is_terminating(&self) -> bool {
        self.old_object::<Stored>().is_ok_and(|old| old.is_some_and(|old| old.metadata.is_terminating()))
    }
}

/// The options of the deletion that follows an eviction may ask for a dry run of their own.
fn is_dry_eviction(object: Option<&RawValue>) -> bool {
    let eviction = object.and_then(|raw| serde_json::from_str::<Eviction>(raw.get()).ok());
    eviction.is_some_and(|eviction| !eviction.delete_options.dry_run.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    kind: Kind<'a>,
    #[serde(borrow, default)]
    resource: Resource<'a>,
    #[serde(borrow, default)]
    sub_resource: Option<Cow<'a, str>>,
    operation: Verb,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    user_info: UserInfo<'a>,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    options: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct UserInfo<'a> {
    #[serde(borrow, default)]
    username: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    groups: Option<&'a RawValue>,
    #[serde(borrow, default)]
    extra: Option<&'a RawValue>,
}

/// What admission reads of a StatefulSet.
#[derive(Debug, Deserialize)]
pub(super) struct StatefulSet<'a> {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) metadata: Metadata,
    #[serde(borrow, default)]
    spec: Option<SetSpec<'a>>,
}

#[derive(Debug, Deserialize)]
struct SetSpec<'a> {
    #[serde(borrow, default)]
    template: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "serviceName")]
    service_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    selector: Option<&'a RawValue>,
    #[serde(default)]
    replicas: Option<i64>,
}

impl<'a> StatefulSet<'a> {
    /// The pod template, as the API server sent it.
    pub(super) fn template(&self) -> Option<&'a RawValue> {
        self.spec.as_ref().and_then(|spec| spec.template)
    }

    /// The labels of its pods; empty where the template cannot be read, which whoever writes into it tells.
    pub(super) fn pod_labels(&self) -> BTreeMap<String, String> {
        let read = |template: &RawValue| serde_json::from_str::<Template>(template.get()).ok();
        self.template().and_then(read).map(|template| template.metadata.labels).unwrap_or_default()
    }

    /// The Service that gives the pods their names; empty for none.
    pub(super) fn service(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.service_name.as_deref()).unwrap_or_default()
    }

    /// Which pods are its own.
    pub(super) fn selector(&self) -> Option<&RawValue> {
        self.spec.as_ref().and_then(|spec| spec.selector)
    }

    /// Pods that it shall have. The API server writes 1 where the user says nothing.
    pub(super) fn replicas(&self) -> i64 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }
}

#[derive(Deserialize)]
struct Template {
    #[serde(default, deserialize_with = "or_default")]
    metadata: Metadata,
}

/// What admission reads of a `Scale` of `autoscaling/v1`. It has nothing of its set but the name.
#[derive(Debug, Deserialize)]
pub(super) struct Scale {
    #[serde(default, deserialize_with = "or_default")]
    spec: ScaleSpec,
}

#[derive(Debug, Default, Deserialize)]
struct ScaleSpec {
    #[serde(default)]
    replicas: i64,
}

impl Scale {
    /// Pods that its set shall have. The field is left out when it is 0.
    pub(super) fn replicas(&self) -> i64 {
        self.spec.replicas
    }
}

/// What admission reads of an `Eviction` of `policy/v1`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Eviction {
    #[serde(default, deserialize_with = "or_default")]
    delete_options: DeleteOptions,
}

/// What admission reads of `DeleteOptions` of `meta.k8s.io/v1`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeleteOptions {
    #[serde(default)]
    propagation_policy: Option<String>,
    #[serde(default)]
    orphan_dependents: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    dry_run: Vec<String>,
}

impl DeleteOptions {
    /// Are the object's dependents to stay? `orphanDependents` is the older word for it.
    pub(super) fn orphans(&self) -> bool {
        self.propagation_policy.as_deref() == Some("Orphan") || self.orphan_dependents == Some(true)
    }
}

/// What admission reads of a ConfigMap.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigMap {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) data: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) binary_data: BTreeMap<String, IgnoredAny>,
}

/// What admission reads of any object's metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

impl Metadata {
    /// Is the object on its way out?
    pub(super) fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// What admission reads of an object of any kind.
#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) metadata: Metadata,
}

/// `null` is as good as absent, as it is for the API server.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
