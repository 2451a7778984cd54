//! Reads what the agent of a pod serves.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use guardian_hook::protocol::{COLLECT_PATH, MAX_OUTCOME};
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ExecError, Heard};

/// How long it may take from the beginning to the end: an agent gives no longer either, and answers within a millisecond.
const WITHIN: Duration = Duration::from_secs(5);
/// Most bytes that are read of a page, as many as of an exec.
const MAX_PAGE: usize = 2 * MAX_OUTCOME;

/// Reads the page once, without following where it might lead, and tells its lines.
pub(super) async fn read(address: SocketAddr, heard: Heard<'_>) -> Result<(), ExecError> {
    let bytes = timeout(WITHIN, get(address))
        .await
        .unwrap_or_else(|_| Err(failed(format!("it took longer than {} s", WITHIN.as_secs()))))?;
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).for_each(heard);
    Ok(())
}

async fn get(address: SocketAddr) -> Result<Bytes, ExecError> {
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(COLLECT_PATH).header(HOST, address.to_string()).header(CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new()).map_err(failed)?;
    let exchange = pin!(async {
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(failed(format!("it answered {}", response.status())));
        }
        Limited::new(response.into_body(), MAX_PAGE).collect().await.map(http_body_util::Collected::to_bytes).map_err(failed)
    });
    // The connection carries the exchange, and may end before the last of it is taken.
    match select(exchange, pin!(connection)).await {
        Either::Left((done, _)) => done,
        Either::Right((_, exchange)) => exchange.await,
    }
}

fn failed(why: impl Into<Box<dyn Error + Send + Sync>>) -> ExecError {
    ExecError::NoAgent(why.into().to_string())
}

#[cfg(test)]
mod tests {
    use guardian_hook::protocol::Collected;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of an answer of these bytes, whose end is that of the connection, and what was asked.
    async fn answered(bytes: &[u8]) -> (Result<Vec<Collected>, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 1024];
            let n = socket.read(&mut asked).await.unwrap();
            // A reader that has enough hangs up.
            let _ = socket.write_all(bytes).await;
            String::from_utf8(asked[..n].to_vec()).unwrap()
        };
        let mut lines = Vec::new();
        let mut hear = |line| lines.push(line);
        let (read, asked) = tokio::join!(read(address, &mut hear), serve);
        (read.map(|()| lines).map_err(|error| error.to_string()), asked)
    }

    #[tokio::test]
    async fn a_page_is_read_once_and_its_lines_are_told() {
        let page = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let line = "{\"kind\":\"waits\",\"name\":\"role\",\"ageMs\":1}\nnonsense\n";
        let (lines, asked) = answered(format!("{page}{:x}\r\n{line}\r\n0\r\n\r\n", line.len()).as_bytes()).await;
        assert_eq!(lines.unwrap(), [Collected::Waits { name: "role".to_owned(), age_ms: 1 }]);
        assert!(asked.starts_with("GET /collect HTTP/1.1\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn nothing_is_followed_and_half_an_answer_is_none() {
        let rows: [&[u8]; 5] = [
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"kin",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"",
        ];
        for row in rows {
            let (lines, _) = answered(row).await;
            assert!(lines.as_ref().is_err_and(|why| why.starts_with("the pod's agent cannot be read: ")), "{lines:?}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; MAX_PAGE + 1]].concat();
        assert!(answered(&endless).await.0.is_err());
    }

    #[tokio::test]
    async fn nobody_there_is_told_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(read(address, &mut |_| {}).await.is_err());
    }
}
