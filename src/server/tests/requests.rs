//! One request at a time: what is answered, what is refused and how.

use super::{Client, NAME, Server, post, timely};
use crate::server::Bounds;
use crate::server::tls::Oldest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_review_is_answered_and_the_connection_kept() {
    let server = Server::start(Bounds::default());
    let mut client = server.connect().await;
    for length in [1, 4_000, 100_000, 1_000_000] {
        let answer = client.post(&"x".repeat(length)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"), "{answer}");
        assert!(answer.ends_with(&format!(r#"{{"path":"/mutate","bytes":{length}}}"#)), "{answer}");
    }
}

#[tokio::test]
async fn a_media_type_with_parameters_and_an_expectation_of_100_are_taken() {
    let server = Server::start(Bounds::default());
    let mut client = server.connect().await;
    client
        .send("POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: Application/JSON; charset=utf-8\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    let mut line = [0; 25];
    timely(client.0.read_exact(&mut line)).await.expect("an interim answer");
    assert_eq!(line, *b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("{}").await;
    assert!(client.answer().await.ends_with(r#"{"path":"/validate","bytes":2}"#));
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_a_sentence_and_the_connection_closed() {
    let server = Server::start(Bounds { max_body: 1024, ..Bounds::default() });
    let json = "Content-Type: application/json\r\n";
    let cases = [
        (
            "POST /metrics HTTP/1.1",
            format!("{json}Content-Length: 2\r\n\r\n{{}}"),
            "404 Not Found",
            "no such path; there is /mutate and /validate",
        ),
        (
            "GET /mutate HTTP/1.1",
            "\r\n".into(),
            "405 Method Not Allowed\r\ncontent-type: application/json\r\nconnection: close\r\nallow: POST\r\n",
            "only POST",
        ),
        (
            "POST /mutate HTTP/1.1",
            "Content-Type: text/yaml\r\nContent-Length: 2\r\n\r\n{}".into(),
            "415 Unsupported Media Type",
            "application/json, not `text/yaml`",
        ),
        ("POST /mutate HTTP/1.1", "Content-Length: 2\r\n\r\n{}".into(), "415 Unsupported Media Type", "application/json, not ``"),
        ("POST /mutate HTTP/1.1", format!("{json}\r\n"), "400 Bad Request", "the body is empty"),
        ("POST /mutate HTTP/1.1", format!("{json}Content-Length: 0\r\n\r\n"), "400 Bad Request", "the body is empty"),
        (
            "POST /mutate HTTP/1.1",
            format!("{json}Expect: tea\r\nContent-Length: 2\r\n\r\n{{}}"),
            "417 Expectation Failed",
            "100-continue",
        ),
        // Only the head is sent: the answer does not wait for the body.
        (
            "POST /mutate HTTP/1.1",
            format!("{json}Content-Length: 1025\r\n\r\n"),
            "413 Payload Too Large",
            "1025 bytes, and at most 1024",
        ),
        ("POST /mutate HTTP/1.1", format!("{json}Content-Length: 18446744073709551614\r\n\r\n"), "", ""),
        (
            "POST /mutate HTTP/1.1",
            format!("{json}Transfer-Encoding: chunked\r\n\r\n5\r\n[1,2]\r\n"),
            "411 Length Required",
            "Content-Length",
        ),
    ];
    for (line, rest, status, sentence) in cases {
        let mut client = server.connect().await;
        client.send(format!("{line}\r\nHost: {NAME}\r\n{rest}")).await;
        let answer = client.answer().await;
        assert!(answer.strip_prefix("HTTP/1.1 ").unwrap_or_default().starts_with(status), "{line} {rest}: {answer}");
        if !status.is_empty() {
            let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
            assert!(body["error"].as_str().expect("a sentence").contains(sentence), "{answer}");
        }
        client.closed().await;
    }
}

/// Two framings of one body: whichever of them another hop believes, the second request is never served.
#[tokio::test]
async fn a_request_with_two_lengths_is_refused_with_what_follows_it() {
    let server = Server::start(Bounds::default());
    let hidden = post("hidden");
    let cases = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "HTTP/1.1 411"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "HTTP/1.1 411"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "HTTP/1.1 400"),
        ("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", "HTTP/1.1 400"),
    ];
    for (lengths, status) in cases {
        let mut client = server.connect().await;
        let head = format!("POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lengths}\r\n");
        client.send(format!("{head}0\r\n\r\n{hidden}")).await;
        let answer = client.answer().await;
        assert!(answer.starts_with(status), "{lengths}: {answer}");
        client.closed().await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::start(Bounds::default());
    let mut client = server.connect().await;
    client.send([post("1"), post("22")].concat()).await;
    let mut answers = String::new();
    while !answers.contains(r#""bytes":2"#) {
        let answer = client.answer().await;
        assert_ne!(answer, "", "{answers}");
        answers += &answer;
    }
    assert!(answers.find(r#""bytes":1"#) < answers.find(r#""bytes":2"#), "{answers}");
}

#[tokio::test]
async fn http_2_and_what_is_no_http_close_the_connection() {
    let server = Server::start(Bounds::default());
    for bytes in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\0\r\n\r\n", "POST /mutate\r\n\r\n"] {
        let mut client = server.connect().await;
        client.send(bytes).await;
        let answer = client.answer().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        client.closed().await;
    }
    assert_eq!(server.connect().await.0.get_ref().1.alpn_protocol(), None);
}

#[tokio::test]
async fn plain_http_and_tls_1_1_get_an_alert_and_are_closed() {
    let server = Server::start(Bounds::default());
    let hello = [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
    for bytes in [post("{}").into_bytes(), hello] {
        let mut tcp = TcpStream::connect(server.address).await.expect("connected");
        tcp.write_all(&bytes).await.expect("sent");
        let mut answer = Vec::new();
        // A reset is a close too.
        let _ = timely(tcp.read_to_end(&mut answer)).await;
        assert!(answer.is_empty() || answer[0] == 21, "nothing but an alert: {answer:?}");
    }
    assert!(server.connect().await.post("{}").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn tls_1_2_is_spoken_only_where_it_is_configured() {
    let tls12 = [&rustls::version::TLS12];
    assert!(Server::start(Bounds::default()).try_connect(&tls12).await.is_err());
    let server = Server::with(Bounds::default(), Oldest::Tls12);
    let mut client: Client = server.try_connect(&tls12).await.expect("TLS 1.2");
    assert!(client.post("{}").await.starts_with("HTTP/1.1 200"));
    assert!(server.connect().await.post("{}").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_panic_costs_one_request_a_500_and_nobody_else_anything() {
    let server = Server::start(Bounds::default());
    let mut other = server.connect().await;
    other.send(post("wait")).await;
    server.handler.holds(1).await;
    let mut client = server.connect().await;
    let answer = client.post("panic").await;
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("panic"), "{answer}");
    assert!(client.post("{}").await.starts_with("HTTP/1.1 200"), "the same connection goes on");
    server.handler.release(1);
    assert!(other.answer().await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.metrics.panics.get(), 1);
    assert_eq!(server.metrics.requests.with_label_values(&["500"]).get(), 1);
}
