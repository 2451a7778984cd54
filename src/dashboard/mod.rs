//! `guardian dashboard`, top to bottom: watches keep what is known current; of that a view is made, at most once a second; each viewer is
//! sent the fragments of his page that differ from those he has.
//!
//! | module | what |
//! |---|---|
//! | `watch` | what is known, kept current by watches under the caller's own rights |
//! | `samples`, `exposition` | what the controller's `/metrics` shows, the last quarter of an hour of it |
//! | `view` | all of that as one value, from which every page is made |
//! | `page` | the pages: pure functions from a view to HTML |
//! | `serve`, `routes` | connections, and who may have which page |
//! | `live` | what a viewer is sent as it changes |

mod exposition;
mod live;
mod page;
mod routes;
mod samples;
mod serve;
mod view;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::controller::Clock;
use samples::Samples;
use view::Builder;
use watch::Watched;

pub(crate) use routes::{Secret, SecretError};
pub(crate) use view::Scope;

/// Between two views, and so between two updates of a page.
const PAUSE: Duration = Duration::from_secs(1);

/// What the dashboard is told.
pub(crate) struct Config {
    /// What is shown.
    pub(crate) scope: Scope,
    /// Namespace that the guardian itself runs in.
    pub(crate) installation: String,
    /// How often the controller's metrics are read.
    pub(crate) every: Duration,
    /// What time it is.
    pub(crate) clock: Clock,
}

/// Serves the pages on `listener`, to whoever knows `secret`, until `shutdown`.
pub(crate) async fn run(client: Client, config: Config, listener: TcpListener, secret: Secret, shutdown: CancellationToken) {
    let (watched, mut changes) = Watched::start(&client, &config);
    let samples = Arc::new(Samples::new(client, &config));
    let (sender, views) = tokio::sync::watch::channel(Arc::new(view::View::empty(&config.scope)));
    let watching = async {
        while changes.next().await.is_some() {
            watched.changed.notify_one();
        }
    };
    let sampling = async {
        loop {
            samples.take(config.clock.now()).await;
            watched.changed.notify_one();
            tokio::time::sleep(config.every).await;
        }
    };
    let viewing = async {
        let mut builder = Builder::default();
        loop {
            // Asked for before it is built: what changes meanwhile is in the next one.
            let changed = watched.changed.notified();
            sender.send_replace(Arc::new(builder.build(&config.scope, &watched, &samples, config.clock.now())));
            tokio::join!(changed, tokio::time::sleep(PAUSE));
        }
    };
    tokio::select! {
        () = serve::until(listener, routes::Site::new(secret, views, config.clock.clone(), shutdown.clone()), shutdown) => {}
        () = async { tokio::join!(watching, sampling, viewing); } => {}
    }
}
