//! What a viewer is sent: the fragments of his page that have changed, by server-sent events.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::page::{self, Page};
use super::routes::{Site, VIEWERS};
use super::view::View;
use crate::controller::Clock;

/// A line without meaning is sent when there was nothing else for this long: whoever is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Somebody who looks at a page. Views that come while he is slow are skipped: he gets the newest.
struct Viewer {
    page: Page,
    base: String,
    views: watch::Receiver<Arc<View>>,
    clock: Clock,
    /// The version of each fragment that he has.
    has: BTreeMap<&'static str, String>,
    waiting: VecDeque<Event>,
    _place: OwnedSemaphorePermit,
}

/// Everything once, and then what changes.
pub(super) fn stream(site: &Site, page: Page, base: String) -> Response {
    let Ok(place) = Arc::clone(&site.viewers).try_acquire_owned() else {
        let said = format!("{VIEWERS} pages are kept current already: this one is when another is closed\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], said).into_response();
    };
    let mut views = site.views.clone();
    views.mark_changed();
    let (clock, waiting) = (site.clock.clone(), VecDeque::new());
    let viewer = Viewer { page, base, views, clock, has: BTreeMap::new(), waiting, _place: place };
    let events = stream::unfold(viewer, |mut viewer| async move {
        let event = viewer.next().await?;
        Some((Ok::<_, Infallible>(event), viewer))
    });
    let events = events.take_until(site.shutdown.clone().cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

impl Viewer {
    /// `None`: there will be no other view.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            self.views.changed().await.ok()?;
            let view = Arc::clone(&self.views.borrow_and_update());
            for fragment in page::fragments(&view, &self.page, &self.base, self.clock.now()) {
                if self.has.get(fragment.id) != Some(&fragment.version) {
                    self.waiting.push_back(Event::default().event("fragment").data(&fragment.html));
                    self.has.insert(fragment.id, fragment.version);
                }
            }
        }
    }
}
