//! The plain port for the kubelet and Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Metrics, bind, timely};
use crate::server::probe::{Probe, serve};
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn readiness_is_all_checks_and_tells_which_one_fails() {
    let registry = Registry::new();
    let ready = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&ready);
    let certificate = move || state.load(Ordering::Relaxed).then_some(()).ok_or("no certificate yet".to_owned());
    let probe = Probe::new(registry.clone())
        .check("policies", || Ok(()))
        .also(|| "# of another\nkeys 1\n".to_owned())
        .check("certificate", certificate);
    let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.local_addr().expect("bound");
    let metrics = Metrics::new(&registry, "probe").expect("metrics");
    let shutdown = CancellationToken::new();
    let mut task = tokio::task::JoinSet::new();
    task.spawn(serve(listener, probe, metrics, shutdown.clone()));

    let ask = async |line: &str| {
        let mut tcp = TcpStream::connect(address).await.expect("connected");
        tcp.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("sent");
        let mut answer = String::new();
        timely(tcp.read_to_string(&mut answer)).await.expect("an answer");
        answer
    };
    assert!(ask("GET /healthz").await.ends_with("\r\n\r\nok\n"));
    let answer = ask("GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("policies: ok\ncertificate: no certificate yet\n"), "{answer}");
    ready.store(true, Ordering::Relaxed);
    let answer = ask("GET /readyz?verbose").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("policies: ok\ncertificate: ok\n"), "{answer}");
    let answer = ask("GET /metrics").await;
    assert!(answer.contains("\nguardian_http_connections{server=\"probe\"} 1\n"), "{answer}");
    assert!(answer.ends_with("\n# of another\nkeys 1\n"), "{answer}");
    assert!(ask("GET /debug").await.starts_with("HTTP/1.1 404"));
    assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405"));

    shutdown.cancel();
    timely(task.join_next()).await.expect("one task").expect("no panic");
}
