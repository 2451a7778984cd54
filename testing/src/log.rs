//! Logs of pods: the member `log` of a pod is what it has written so far, `previousLog` what its container wrote before its last restart.

use std::convert::Infallible;

use futures::stream;
use http::Response;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::sync::watch;

use crate::api::{Answer, Api, Asked, json_answer, status};

impl Api {
    /// What is asked for of a pod's log. One that is followed never ends, until its pod is gone.
    pub(crate) fn log(&self, asked: &Asked) -> Answer {
        let is = |flag: &str| asked.query(flag) == "true";
        if is("previous") {
            return match self.written(asked, "previousLog") {
                Some(text) => Response::new(Full::new(Bytes::from(text)).boxed_unsync()),
                None => json_answer(400, &status(400, "BadRequest", "previous terminated container not found")),
            };
        }
        if is("follow") {
            return self.followed(asked.clone());
        }
        Response::new(Full::new(Bytes::from(self.written(asked, "log").unwrap_or_default())).boxed_unsync())
    }

    fn written(&self, asked: &Asked, member: &str) -> Option<String> {
        self.world(|world| world.get(asked.key.as_ref()?).ok()?[member].as_str().map(str::to_owned))
    }

    fn followed(&self, asked: Asked) -> Answer {
        let start = (self.clone(), asked, self.versions(), 0);
        let pieces = stream::unfold(start, |(api, asked, mut versions, told): (_, _, watch::Receiver<u64>, usize)| async move {
            loop {
                versions.borrow_and_update();
                let text = Self::written(&api, &asked, "log")?;
                if let Some(more) = text.get(told..).filter(|more| !more.is_empty()) {
                    let frame = Frame::data(Bytes::from(more.to_owned()));
                    return Some((Ok::<_, Infallible>(frame), (api, asked, versions, text.len())));
                }
                versions.changed().await.ok()?;
            }
        });
        Response::new(StreamBody::new(pieces).boxed_unsync())
    }
}
