//! What the callers may not do, and what the API server hands on to a pod.

use guardian_core::sim::Resource;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use serde_json::Value;

use crate::api::{Answer, Api, Asked, json_answer, status};

impl Api {
    /// Nobody may do anything with this resource from now on: `pods`, or `pods/proxy`. What is watched already goes on.
    pub fn forbid(&self, resource: &str) {
        self.lock().forbidden.insert(resource.to_owned());
    }

    /// Everybody may again.
    pub fn permit(&self, resource: &str) {
        self.lock().forbidden.remove(resource);
    }

    /// The refusal, where it is forbidden.
    pub(crate) fn refusal(&self, asked: &Asked) -> Option<Answer> {
        let resource = asked.resource_and_subresource();
        let forbidden = self.lock().forbidden.contains(&resource);
        let message = format!("{resource} is forbidden: User \"somebody\" cannot get resource \"{resource}\"");
        forbidden.then(|| json_answer(403, &status(403, "Forbidden", &message)))
    }

    /// The page `metrics` of a pod, through the proxy: the member `metrics` of the pod.
    pub(crate) fn proxied(&self, asked: &Asked) -> Answer {
        let name = asked.key.as_ref().map(|key| key.name.split(':').next().unwrap_or_default().to_owned()).unwrap_or_default();
        let key = Resource::new("v1", "pods").named(asked.namespace(), &name);
        let page = self.world(|world| world.get(&key).ok()?.get("metrics").and_then(Value::as_str).map(str::to_owned));
        match page {
            Some(page) => Answer::new(Full::new(Bytes::from(page)).boxed_unsync()),
            None => json_answer(503, &status(503, "ServiceUnavailable", "the pod does not answer")),
        }
    }
}
