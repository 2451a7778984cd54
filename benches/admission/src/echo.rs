//! The least that any webhook on hyper and rustls can do: the request is read whole, the answer is there already.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::BenchError;

/// Answer each path with the bytes of the file of its name
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to serve HTTPS on
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Directory with tls.crt and tls.key
    #[arg(long)]
    pub(crate) certificates: PathBuf,
    /// Directory with the answers
    #[arg(long)]
    pub(crate) answers: PathBuf,
}

/// Serves until it is killed.
pub(crate) async fn run(args: &Args) -> Result<(), BenchError> {
    let answers = Arc::new(read(&args.answers)?);
    let acceptor = TlsAcceptor::from(tls(&args.certificates)?);
    let listener = TcpListener::bind(args.listen).await?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(request, Arc::clone(&answers)));
            // A client that goes away ends its connection, and nothing else.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, answers: Arc<BTreeMap<String, Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await;
    let found = answers.get(head.uri.path().trim_start_matches('/')).filter(|_| body.is_ok());
    let mut response = Response::new(Full::new(found.cloned().unwrap_or_default()));
    if found.is_none() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn read(directory: &Path) -> Result<BTreeMap<String, Bytes>, BenchError> {
    let mut answers = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        answers.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?.into());
    }
    Ok(answers)
}

/// As the guardian has it: TLS 1.3, HTTP/1.1, no resumption.
fn tls(directory: &Path) -> Result<Arc<ServerConfig>, BenchError> {
    let chain = CertificateDer::pem_file_iter(directory.join("tls.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key"))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
