//! As much of an API server as the webhook's store needs: what it lists, watches in which nothing happens, and 404 for the rest.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream;
use guardian_bench_core::{INSTALLATION, PRIORITY_CLASSES, approvals, policies};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::BenchError;

/// The cluster: it answers as long as it is held.
pub(crate) struct Cluster {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

type Lists = BTreeMap<String, Value>;
type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Cluster {
    /// With a policy in every namespace, and all of them approved.
    pub(crate) async fn start() -> Result<Self, BenchError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let lists = Arc::new(lists()?);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let lists = Arc::clone(&lists);
                connections.spawn(async move {
                    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &lists))));
                    // A client that was killed ends its connection, and nothing else.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, _serving: serving })
    }

    /// Writes a kubeconfig for it into `directory`.
    pub(crate) fn kubeconfig(&self, directory: &Path) -> Result<PathBuf, BenchError> {
        let path = directory.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "bench", "user": {}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }
}

/// What there is, by the path that lists it. Selectors are not looked at: each list is what its one reader selects, the policies by their
/// label, the approvals by their name.
fn lists() -> Result<Lists, BenchError> {
    let class = |name| {
        let metadata = json!({"name": name, "uid": name, "resourceVersion": "1"});
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
    };
    let list = |api_version, kind, items: Vec<Value>| json!({"apiVersion": api_version, "kind": kind, "metadata": {"resourceVersion": "1"}, "items": items});
    Ok(Lists::from([
        ("/api/v1/configmaps".to_owned(), list("v1", "ConfigMapList", policies()?)),
        (format!("/api/v1/namespaces/{INSTALLATION}/configmaps"), list("v1", "ConfigMapList", vec![approvals()?])),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses".to_owned(),
            list("meta.k8s.io/v1", "PartialObjectMetadataList", PRIORITY_CLASSES.into_iter().map(class).collect()),
        ),
    ]))
}

fn answer(request: &Request<Incoming>, lists: &Lists) -> Answer {
    let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let (status, body) = match lists.get(request.uri().path()) {
        Some(_) if watches => {
            let nothing = stream::pending::<Result<Frame<Bytes>, Infallible>>();
            (StatusCode::OK, StreamBody::new(nothing).boxed_unsync())
        }
        Some(list) => (StatusCode::OK, whole(list)),
        None => {
            let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
                "message": format!("{} is not here", request.uri()), "metadata": {}});
            (StatusCode::NOT_FOUND, whole(&status))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn whole(value: &Value) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use guardian_bench_core::NAMESPACES;
    use guardian_core::names;
    use guardian_core::policy::{Approvals, digest, parse};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ListParams;
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kube::{Api, Client, Config, ResourceExt as _};

    use super::*;

    /// As the webhook asks: without them it would rewrite nothing, and the measurement would be of that.
    #[tokio::test]
    async fn every_policy_that_is_served_is_approved_in_its_namespace() {
        let cluster = Cluster::start().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = Kubeconfig::read_from(cluster.kubeconfig(directory.path()).unwrap()).unwrap();
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();

        let only = ListParams::default().fields(&format!("metadata.name={}", names::APPROVALS));
        let found = Api::<ConfigMap>::namespaced(client.clone(), INSTALLATION).list(&only).await.unwrap().items;
        let [map] = found.as_slice() else { panic!("one ConfigMap of approvals: {found:?}") };
        assert_eq!(map.name_any(), names::APPROVALS);
        let approvals = Approvals::read(map.data.as_ref().unwrap());

        let labelled = ListParams::default().labels(&format!("{}=true", names::POLICY));
        let policies = Api::<ConfigMap>::all(client).list(&labelled).await.unwrap().items;
        assert_eq!(policies.len(), NAMESPACES);
        for policy in policies {
            let (namespace, mut data) = (policy.namespace().unwrap(), policy.data.clone().unwrap());
            assert_eq!(policy.labels()[names::POLICY], "true");
            assert_eq!(parse(&policy.name_any(), &data).unwrap().digest, digest(&data));
            assert!(approvals.contains(&namespace, &digest(&data)), "{namespace}");
            data.insert("another".to_owned(), String::new());
            assert!(!approvals.contains(&namespace, &digest(&data)), "{namespace}: of this content alone");
        }
    }
}
