//! The server for other programs: over HTTP, on the loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{Answer, Api, Call, Process, json_answer, status};
use crate::exec;
use crate::fault::Fault;

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
    let (begun, mut execs) = mpsc::unbounded_channel();
    loop {
        let stream = tokio::select! {
            Ok((stream, _)) = listener.accept() => stream,
            Some((pod, upgrade)) = execs.recv() => {
                connections.spawn(exec::play(process.api.clone(), pod, upgrade));
                continue;
            }
        };
        let (process, begun) = (process.clone(), begun.clone());
        let service = service_fn(move |request: Request<Incoming>| answer(process.clone(), begun.clone(), request));
        connections.spawn(async move {
            // A client that goes away in the middle is its own affair.
            let _: Result<(), hyper::Error> =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    process: Process,
    begun: mpsc::UnboundedSender<(String, OnUpgrade)>,
    mut request: Request<Incoming>,
) -> Result<Answer, std::io::Error> {
    if let Some(pod) = exec::asked(&request) {
        if let Some(Fault::Status(code)) =
            process.api.enter(Call { process: "http".into(), kind: "EXEC".into(), name: pod.clone() })
        {
            return Ok(json_answer(code, &status(code, "Forbidden", "as the test asked for")));
        }
        // Whoever accepts lives as long as the connections.
        let _ = begun.send((pod, hyper::upgrade::on(&mut request)));
        return Ok(exec::switching(&request));
    }
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).map_err(std::io::Error::other)?;
    process.call(Request::from_parts(head, Body::from(bytes.to_vec()))).await
}
