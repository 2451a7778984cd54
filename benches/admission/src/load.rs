//! The load: so many connections, each with one request at a time, until a fixed number has been answered.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::BenchError;
use crate::certificates::NAME;
use crate::verify::Expected;

/// What every connection sends.
#[derive(Clone)]
pub(crate) struct Call {
    /// What the server is called.
    pub(crate) server: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) expected: Expected,
    /// The measurement fails when an answer takes longer.
    pub(crate) deadline: Duration,
}

/// What became of the requests.
#[derive(Default)]
pub(crate) struct Load {
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// Of the requests that were answered, the fastest first.
    pub(crate) latencies: Vec<Duration>,
    /// Requests that the server would not take now.
    pub(crate) refused: usize,
}

/// A connection that is kept.
pub(crate) struct Connection {
    call: Call,
    sender: SendRequest<Full<Bytes>>,
    /// hyper's half: it moves when it is polled, and it is polled with the request, in one task.
    driver: Pin<Box<Driver>>,
}

type Driver = http1::Connection<TokioIo<TlsStream<TcpStream>>, Full<Bytes>>;

enum Answer {
    Good(Bytes),
    Refused,
}

impl Call {
    pub(crate) async fn connect(&self) -> Result<Connection, BenchError> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(ServerName::try_from(NAME)?, stream).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection { call: self.clone(), sender, driver: Box::pin(driver) })
    }

    /// So many connections, on which `requests` in all have been answered: whatever is made at first use is made.
    pub(crate) async fn warm(&self, connections: usize, requests: usize) -> Result<(Vec<Connection>, Load), BenchError> {
        let mut made = Vec::new();
        for _ in 0..connections {
            made.push(self.connect().await?);
        }
        drive(made, requests.max(connections)).await
    }
}

/// Sends `requests` in all, over all connections at once.
pub(crate) async fn drive(connections: Vec<Connection>, requests: usize) -> Result<(Vec<Connection>, Load), BenchError> {
    let left = Arc::new(AtomicUsize::new(requests));
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for mut connection in connections {
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            let mut load = Load::default();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let asked = Instant::now();
                match connection.ask().await? {
                    Answer::Good(_) => load.latencies.push(asked.elapsed()),
                    Answer::Refused => {
                        load.refused += 1;
                        connection = connection.call.connect().await?;
                    }
                }
            }
            Ok::<_, BenchError>((connection, load))
        });
    }
    let (mut connections, mut all) = (Vec::new(), Load::default());
    while let Some(ended) = tasks.join_next().await {
        let (connection, load) = ended??;
        connections.push(connection);
        all.latencies.extend(load.latencies);
        all.refused += load.refused;
    }
    all.took = started.elapsed();
    all.latencies.sort_unstable();
    Ok((connections, all))
}

impl Connection {
    /// The answer to one request, which must be a good one.
    pub(crate) async fn once(&mut self) -> Result<Bytes, BenchError> {
        match self.ask().await? {
            Answer::Good(body) => Ok(body),
            Answer::Refused => Err(BenchError::Refused),
        }
    }

    async fn ask(&mut self) -> Result<Answer, BenchError> {
        let request = Request::post(&self.call.path).header("host", NAME).header("content-type", "application/json");
        let request = request.body(Full::new(self.call.body.clone()))?;
        let (sender, driver) = (&mut self.sender, &mut self.driver);
        let exchange = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
        };
        let either = async {
            tokio::select! {
                answered = exchange => answered.map(Some),
                ended = driver => ended.map(|()| None),
            }
        };
        let Call { server, deadline, .. } = self.call;
        let answered = tokio::time::timeout(deadline, either).await;
        let answered = answered.map_err(|_elapsed| BenchError::NoAnswer { server, deadline })?;
        match answered {
            Ok(Some((status, body))) if status == 200 => {
                self.call.expected.check(&body)?;
                Ok(Answer::Good(body))
            }
            Ok(Some((status, body))) if status == 503 => {
                drop(body);
                Ok(Answer::Refused)
            }
            Ok(Some((status, body))) => Err(BenchError::Status(status.as_u16(), String::from_utf8_lossy(&body).into_owned())),
            // Refused before the body was read, the connection closed upon it.
            Ok(None) | Err(_) => Ok(Answer::Refused),
        }
    }
}
