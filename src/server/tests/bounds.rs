//! Each bound, and the end.

use std::time::Duration;

use super::{Bounds, Server, post, timely};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_slow_handshake_head_or_body_ends_the_connection() {
    let server = Server::start(Bounds { handshake: SHORT, header: SHORT, body: SHORT, ..Bounds::default() });
    let mut silent = TcpStream::connect(server.address).await.expect("connected");
    assert_eq!(timely(silent.read(&mut [0; 1])).await.expect("no reset"), 0);

    server.connect().await.closed().await;

    let mut client = server.connect().await;
    client.send("POST /mutate HTTP/1.1\r\nHost").await;
    client.closed().await;

    let mut client = server.connect().await;
    client.send(&post("0123456789")[..post("0123456789").len() - 1]).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("200ms"), "{answer}");
    client.closed().await;
    assert_eq!(server.metrics.closed.with_label_values(&["handshake"]).get(), 1);
    assert_eq!(server.metrics.closed.with_label_values(&["header"]).get(), 2);
}

/// The deadline of a head starts with its first byte: a connection may be idle for longer.
#[tokio::test]
async fn an_idle_connection_outlives_the_deadline_of_a_head_and_then_ends() {
    let server = Server::start(Bounds { header: SHORT, idle: 5 * SHORT, ..Bounds::default() });
    let mut client = server.connect().await;
    assert!(client.post("{}").await.starts_with("HTTP/1.1 200"));
    tokio::time::sleep(2 * SHORT).await;
    assert!(client.post("{}").await.starts_with("HTTP/1.1 200"));
    client.closed().await;
    assert_eq!(server.metrics.closed.with_label_values(&["idle"]).get(), 1);

    let mut client = server.connect().await;
    assert!(client.post("{}").await.starts_with("HTTP/1.1 200"));
    client.send("P").await;
    client.closed().await;
    assert_eq!(server.metrics.closed.with_label_values(&["header"]).get(), 1);
}

#[tokio::test]
async fn a_handler_that_does_not_answer_gets_its_request_a_503() {
    let server = Server::start(Bounds { handle: SHORT, ..Bounds::default() });
    let mut client = server.connect().await;
    let answer = client.post("sleep").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1\r\n"), "{answer}");
    assert!(client.post("{}").await.starts_with("HTTP/1.1 200"));
}

/// 32 MiB are more than the buffers of a socket take.
#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = Server::start(Bounds { answer: SHORT, ..Bounds::default() });
    let mut client = server.connect().await;
    client.send(post("large")).await;
    let cut = async {
        while server.metrics.connections.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timely(cut).await;
    assert_eq!(server.metrics.closed.with_label_values(&["answer"]).get(), 1);
    assert!(server.connect().await.post("{}").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn bodies_over_the_bytes_in_flight_get_a_503_until_there_is_room() {
    let server = Server::start(Bounds { max_body: 16 << 10, in_flight_bytes: 16 << 10, ..Bounds::default() });
    let mut large = server.connect().await;
    large.send(post(&format!("{:12288}", "wait"))).await;
    server.handler.holds(1).await;
    assert_eq!(server.metrics.bytes.get(), 12 << 10);

    let mut refused = server.connect().await;
    let answer = refused.post(&"x".repeat(8 << 10)).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1\r\n"), "{answer}");
    refused.closed().await;
    let mut small = server.connect().await;
    assert!(small.post("{}").await.starts_with("HTTP/1.1 200"), "a small one still fits");

    server.handler.release(1);
    assert!(large.answer().await.starts_with("HTTP/1.1 200"));
    assert!(small.post(&"x".repeat(16 << 10)).await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.metrics.bytes.get(), 0);
}

#[tokio::test]
async fn bytes_that_are_announced_but_not_sent_hold_no_room() {
    let server = Server::start(Bounds { max_body: 1 << 20, in_flight_bytes: 1 << 20, ..Bounds::default() });
    let mut liars = Vec::new();
    for _ in 0..8 {
        let mut client = server.connect().await;
        let head = "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n";
        client.send(format!("{head}{}", "x".repeat(100))).await;
        liars.push(client);
    }
    assert!(server.connect().await.post(&"x".repeat(900 << 10)).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_full_server_closes_the_longest_idle_connection_for_a_new_one() {
    let server = Server::start(Bounds { connections: 3, ..Bounds::default() });
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        assert!(client.post("{}").await.starts_with("HTTP/1.1 200"));
        clients.push(client);
    }
    assert!(clients[0].post("{}").await.starts_with("HTTP/1.1 200"), "the first is now the last used");
    assert!(server.connect().await.post("{}").await.starts_with("HTTP/1.1 200"));
    clients[1].closed().await;
    assert!(clients[0].post("{}").await.starts_with("HTTP/1.1 200"));
    assert!(clients[2].post("{}").await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.metrics.closed.with_label_values(&["room"]).get(), 1);
}

#[tokio::test]
async fn a_server_full_of_requests_lets_a_new_connection_wait_for_the_first_that_ends() {
    let server = Server::start(Bounds { connections: 2, ..Bounds::default() });
    let mut busy = [server.connect().await, server.connect().await];
    for client in &mut busy {
        client.send(post("wait")).await;
    }
    server.handler.holds(2).await;
    let waits = async {
        let mut client = server.connect().await;
        client.post("{}").await
    };
    let release = async {
        // The kernel has taken the connection; the server has not.
        let mut probe = TcpStream::connect(server.address).await.expect("queued");
        probe.write_all(b"not TLS").await.expect("queued");
        server.handler.release(2);
    };
    let (answer, ()) = tokio::join!(timely(waits), release);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for client in &mut busy {
        assert!(client.answer().await.starts_with("HTTP/1.1 200"), "nothing in flight was cut");
    }
}

/// Half of them never finish the handshake, half never finish a head; each sends a byte now and then.
#[tokio::test]
async fn five_hundred_half_open_connections_do_not_hinder_the_others_and_are_closed() {
    const HALF_OPEN: usize = 500;
    let bounds = Bounds { handshake: 10 * SHORT, header: 10 * SHORT, connections: HALF_OPEN + 8, ..Bounds::default() };
    let server = Server::start(bounds);
    let mut half_open = JoinSet::new();
    for at in 0..HALF_OPEN {
        if at % 2 == 0 {
            let tcp = TcpStream::connect(server.address).await.expect("connected");
            half_open.spawn(drip(tcp, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]));
        } else {
            half_open.spawn(drip(server.connect().await.0, b"POST /mutate HTTP/1.1\r\nHost: "));
        }
    }
    let mut client = server.connect().await;
    for _ in 0..200 {
        assert!(client.post("{}").await.starts_with("HTTP/1.1 200"));
        if half_open.try_join_next().is_some() {
            break; // the first was closed: from here on there are fewer
        }
    }
    assert!(server.connect().await.post("{}").await.starts_with("HTTP/1.1 200"), "a new one too");
    timely(async { while half_open.join_next().await.is_some() {} }).await;
    let closed = |reason| server.metrics.closed.with_label_values(&[reason]).get();
    assert_eq!(closed("handshake") + closed("header"), HALF_OPEN as u64);
}

/// Sends one byte every so often until the other side has closed.
async fn drip(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, bytes: &'static [u8]) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut closed = [0; 1];
    let send = async {
        for byte in bytes.iter().chain(std::iter::repeat(&b'x')) {
            if write.write_all(&[*byte]).await.is_err() || write.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(SHORT).await;
        }
    };
    tokio::select! {
        () = send => {}
        _ = read.read(&mut closed) => {}
    }
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let server = Server::start(Bounds::default());
    let (mut busy, mut idle, mut fresh) = (server.connect().await, server.connect().await, server.connect().await);
    assert!(idle.post("{}").await.starts_with("HTTP/1.1 200"));
    busy.send(post("wait")).await;
    server.handler.holds(1).await;
    server.shutdown.cancel();
    idle.closed().await;
    fresh.closed().await;
    server.handler.release(1);
    let answer = busy.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    busy.closed().await;
    let address = server.address;
    server.ended().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_shutdown_cuts_what_does_not_finish_in_time() {
    let server = Server::start(Bounds { drain: SHORT, ..Bounds::default() });
    let mut stuck = server.connect().await;
    stuck.send(post("wait")).await;
    server.handler.holds(1).await;
    server.shutdown.cancel();
    stuck.closed().await;
    let connections = server.metrics.connections.clone();
    server.ended().await;
    assert_eq!(connections.get(), 0);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let error = crate::server::bind(address).expect_err("taken").to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
}
