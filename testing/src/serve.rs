//! The server for other programs: over HTTP, on the loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Process};

/// An [`Api`] that is served until this is dropped.
pub struct Served {
    address: SocketAddr,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves on a free port, from a thread of its own: the caller waits for programs.
    #[must_use]
    pub fn start(api: &Api) -> Self {
        let process = api.process("http");
        let end = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let until = end.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, process) => {}
                    () = until.cancelled() => {}
                }
            });
        });
        Self { address, end, thread: Some(thread) }
    }

    /// Writes a kubeconfig for it whose namespace is `namespace`.
    pub fn write_kubeconfig(&self, file: &Path, namespace: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u, namespace: {namespace}}}}}]\n\
             users: [{{name: u, user: {{}}}}]\n",
            self.address
        );
        std::fs::write(file, text).expect("a file");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end.cancel();
        // What went wrong there has been printed there.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: TcpListener, process: Process) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let process = process.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let process = process.clone();
            async move {
                let (head, body) = request.into_parts();
                let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).map_err(std::io::Error::other)?;
                process.call(Request::from_parts(head, Body::from(bytes.to_vec()))).await
            }
        });
        connections.spawn(async move {
            // A client that goes away in the middle is its own affair.
            let _: Result<(), hyper::Error> =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
