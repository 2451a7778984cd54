//! Bodies that are not what their head says.

use super::{Bounds, NAME, Server, post};

fn head(length: usize) -> String {
    format!("POST /mutate HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_body_of_nine_mebibytes_is_refused_before_a_byte_of_it_is_read() {
    let server = Server::start(Bounds::default());
    let mut client = server.connect().await;
    client.send(head(9 << 20)).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("at most 8388608"), "{answer}");
    assert_eq!(server.metrics.bytes.get(), 0, "no room was held for it");
    client.closed().await;
}

#[tokio::test]
async fn the_largest_body_that_may_come_is_answered() {
    let server = Server::start(Bounds::default());
    let largest = "x".repeat(Bounds::default().max_body);
    let answer = server.connect().await.post(&largest).await;
    assert!(answer.ends_with(&format!(r#"{{"path":"/mutate","bytes":{}}}"#, largest.len())), "{answer}");
    assert_eq!(server.metrics.bytes.get(), 0);
}

/// What comes after the announced bytes is the next request, and no part of the first.
#[tokio::test]
async fn a_body_that_is_longer_than_announced_is_cut_and_the_rest_is_no_request() {
    let server = Server::start(Bounds::default());
    let mut client = server.connect().await;
    client.send(format!("{}{{}}, and so on\r\n\r\n", head(2))).await;
    let mut answers = String::new();
    loop {
        let answer = client.answer().await;
        if answer.is_empty() {
            break;
        }
        answers += &answer;
    }
    assert!(answers.starts_with("HTTP/1.1 200") && answers.contains(r#""bytes":2}"#), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert!(server.connect().await.post("{}").await.starts_with("HTTP/1.1 200"), "others are served");
}

#[tokio::test]
async fn a_client_that_goes_away_within_its_body_leaves_nothing_behind() {
    let server = Server::start(Bounds::default());
    for _ in 0..20 {
        let mut client = server.connect().await;
        client.send(format!("{}{}", head(1 << 20), "x".repeat(100 << 10))).await;
    }
    let all_gone = async {
        while server.metrics.connections.get() > 0 || server.metrics.bytes.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    super::timely(all_gone).await;
    let mut client = server.connect().await;
    client.send(post("{}")).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
}
