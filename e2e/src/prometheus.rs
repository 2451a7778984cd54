//! A Prometheus on this machine that scrapes the guardian, with the configuration and the alerts that are shipped.
//!
//! It reaches the guardian's pods through the API server, by `kubectl proxy`: with the rights of whoever runs the tests, and on any
//! cluster. `e2e/monitoring/install.sh` puts the program on the machine.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::{Failure, Outcome, eventually, installation};

/// What `manifests/monitoring/scrape.yaml` has in place of [`Prometheus::start`]'s own interval.
const INTERVAL: &str = "scrape_interval: 15s";
/// From here to its end that file says how pods are found in the cluster. Here they are listed: Debian's Prometheus knows no Kubernetes.
const DISCOVERY: &str = "  kubernetes_sd_configs:\n";

/// A Prometheus, until it is ended or dropped.
pub struct Prometheus {
    server: Child,
    proxy: Child,
    address: SocketAddr,
    directory: TempDir,
}

/// A file of `manifests/monitoring`.
#[must_use]
pub fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/monitoring").join(file)
}

impl Prometheus {
    /// Starts one that scrapes every webhook and controller this often, and evaluates the alerts as often.
    ///
    /// # Errors
    /// When a program is missing, or does not become ready.
    pub async fn start(client: &Client, interval: Duration) -> Outcome<Self> {
        let (proxy, to_cluster) = proxy().await?;
        let directory = TempDir::new().map_err(|e| Failure::Run("making a directory for Prometheus".to_owned(), e))?;
        let file = directory.path().join("prometheus.yml");
        let text = configuration(client, to_cluster.trim(), interval).await?;
        fs::write(&file, text).map_err(|e| Failure::Run(format!("writing {}", file.display()), e))?;
        let address = free_port()?;
        let log = directory.path().join("log");
        let errors = fs::File::create(&log).map_err(|e| Failure::Run(format!("making {}", log.display()), e))?;
        let server = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Failure::Run("prometheus (e2e/monitoring/install.sh brings it)".to_owned(), e))?;
        let mut started = Self { server, proxy, address, directory };
        started.ready(&log).await?;
        Ok(started)
    }

    async fn ready(&mut self, log: &Path) -> Outcome {
        let ready = eventually("Prometheus is ready", async || match self.ask("/-/ready").await? {
            (200, _) => Ok(()),
            (status, body) => Err(Failure::Unexpected(format!("{status}: {body}"))),
        })
        .await;
        match self.server.try_wait() {
            Ok(Some(status)) => {
                let said = fs::read_to_string(log).unwrap_or_default();
                Err(Failure::Unexpected(format!("prometheus ended with {status}: {said}")))
            }
            _ => ready,
        }
    }

    /// The series that an expression gives now.
    ///
    /// # Errors
    /// When it cannot be evaluated: what Prometheus says of it.
    pub async fn query(&self, expression: &str) -> Outcome<Vec<Value>> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(expression))).await?;
        let result = &answer["data"]["result"];
        result.as_array().cloned().ok_or_else(|| Failure::Unexpected(format!("{expression}: {answer}")))
    }

    /// What its API answers under a path.
    ///
    /// # Errors
    /// When that is no success.
    pub async fn get(&self, path: &str) -> Outcome<Value> {
        let (status, body) = self.ask(path).await?;
        if status != 200 {
            return Err(Failure::Unexpected(format!("Prometheus answers {path} with {status}: {body}")));
        }
        Ok(serde_json::from_str(&body)?)
    }

    /// One request, by a connection of its own: HTTP/1.0 ends an answer with it.
    async fn ask(&self, path: &str) -> Outcome<(u16, String)> {
        let cannot = |e| Failure::Run(format!("asking Prometheus for {path}"), e);
        let mut stream = TcpStream::connect(self.address).await.map_err(cannot)?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.map_err(cannot)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(cannot)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        match (status, answer.split_once("\r\n\r\n")) {
            (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
            _ => Err(Failure::Unexpected(format!("Prometheus answers {path} with {answer:?}"))),
        }
    }

    /// Ends both processes, and waits until they are gone; the data goes too.
    ///
    /// # Errors
    /// When one of them cannot be ended.
    pub async fn end(mut self) -> Outcome {
        for (name, process) in [("prometheus", &mut self.server), ("kubectl proxy", &mut self.proxy)] {
            process.kill().await.map_err(|e| Failure::Run(format!("ending {name}"), e))?;
        }
        self.directory.close().map_err(|e| Failure::Run("removing the data of Prometheus".to_owned(), e))
    }
}

/// `kubectl proxy` on a port of its own choice, for the metrics of the guardian's pods and nothing else; with its address.
async fn proxy() -> Outcome<(Child, String)> {
    let only = format!("--accept-paths=^/api/v1/namespaces/{}/pods/[^/]+/proxy/metrics$", installation());
    let mut command = Command::new("kubectl");
    command.args(["proxy", "--port=0", &only]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let cannot = |e| Failure::Run("kubectl proxy".to_owned(), e);
    let mut process = command.spawn().map_err(cannot)?;
    let mut line = String::new();
    if let Some(stdout) = process.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).await.map_err(cannot)?;
    }
    let address = line.strip_prefix("Starting to serve on ").map(str::to_owned);
    Ok((process, address.ok_or_else(|| Failure::Unexpected(format!("kubectl proxy says {line:?}")))?))
}

/// The shipped configuration, with the guardian's pods as they are now in place of their discovery.
async fn configuration(client: &Client, to_cluster: &str, interval: Duration) -> Outcome<String> {
    let file = monitoring("scrape.yaml");
    let shipped = fs::read_to_string(&file).map_err(|e| Failure::Run(format!("reading {}", file.display()), e))?;
    let kept = shipped.split_once(DISCOVERY).map(|(job, _)| job).filter(|job| job.contains(INTERVAL));
    let job = kept.ok_or_else(|| Failure::Unexpected(format!("{} has no {INTERVAL:?} and {DISCOVERY:?}", file.display())))?;
    let (seconds, alerts) = (interval.as_secs(), monitoring("alerts.yaml"));
    let job = job.replace(INTERVAL, &format!("scrape_interval: {seconds}s"));
    let mut text =
        format!("global: {{evaluation_interval: {seconds}s}}\nrule_files: [{}]\n{job}  static_configs:\n", alerts.display());
    let pods = Api::<Pod>::namespaced(client.clone(), &installation());
    let parts = ListParams::default().labels("app.kubernetes.io/name in (guardian-webhook, guardian-controller)");
    for pod in pods.list(&parts).await? {
        let (namespace, name) = (installation(), pod.name_any());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/metrics");
        let labels = format!("{{__metrics_path__: '{path}', namespace: '{namespace}', pod: '{name}'}}");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  - {{targets: ['{to_cluster}'], labels: {labels}}}");
    }
    Ok(text)
}

/// A port that was free a moment ago.
fn free_port() -> Outcome<SocketAddr> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    free.map_err(|e| Failure::Run("looking for a free port".to_owned(), e))
}

/// As it stands in the query of an address.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() {
            all.push(char::from(byte));
        } else {
            let _ = write!(all, "%{byte:02X}");
        }
        all
    })
}
