//! What the controller's `/metrics` shows of the sets, the last quarter of an hour of it, read through the API server with the caller's rights.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::client::Body;
use kube::{Api, Client, ResourceExt as _};

use super::Config;
use super::exposition::{self, Family, Sample};
use super::view::{Key, Scope};

/// Samples of a series that are kept: 15 minutes of one every 15 s.
pub(super) const POINTS: usize = 60;
/// Series that are kept. One takes 60 samples of 16 bytes and about 300 bytes of names: 5,000 take 6.5 MB.
const SERIES: usize = 5_000;
/// Most bytes of one page of metrics: 100,000 lines of 160.
const PAGE: usize = 16 * 1024 * 1024;
/// One call.
const CALL: Duration = Duration::from_secs(10);
/// Controllers that are asked: two are installed, and one shows something.
const CONTROLLERS: u32 = 4;
/// Where the controller shows its metrics, unless its pod says otherwise.
const PORT: i32 = 8080;

/// What was read so far.
pub(super) struct Samples {
    client: Client,
    installation: String,
    scope: Scope,
    readings: Mutex<Readings>,
}

/// What is shown.
#[derive(Clone, Default)]
pub(super) struct Taken {
    /// By set.
    pub(super) sets: BTreeMap<Key, Arc<Vec<Plot>>>,
    /// Why there is none, or less than there could be.
    pub(super) notice: Option<String>,
}

/// What is kept, and what is shown of it.
#[derive(Default)]
struct Readings {
    kept: BTreeMap<Series, VecDeque<(Timestamp, f64)>>,
    taken: Taken,
}

/// One family of a set.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plot {
    pub(super) name: String,
    pub(super) family: Family,
    /// Pod and further labels, and its samples, the oldest first.
    pub(super) lines: Vec<(String, Vec<(Timestamp, f64)>)>,
}

/// What a series is kept under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    set: Key,
    name: String,
    /// Pod and further labels, as they are shown.
    line: String,
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("{message} ({code}): see docs/dashboard.md for the rights that this needs")]
    Refused { code: u16, message: String },
    #[error("{0}")]
    Call(#[from] kube::Error),
    #[error("no answer within {} s", CALL.as_secs())]
    Silence,
    #[error("the page cannot be read, or has more than {PAGE} bytes: {0}")]
    Page(Box<dyn std::error::Error + Send + Sync>),
    #[error("there is no pod of the controller in the namespace {0}")]
    Nobody(String),
}

impl Samples {
    pub(super) fn new(client: Client, config: &Config) -> Self {
        let (installation, scope) = (config.installation.clone(), config.scope.clone());
        Self { client, installation, scope, readings: Mutex::default() }
    }

    /// What is kept now.
    pub(super) fn taken(&self) -> Taken {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).taken.clone()
    }

    /// Reads the metrics of each controller once.
    pub(super) async fn take(&self, now: Timestamp) {
        let read = self.read().await;
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(pages) => readings.add(&pages, &self.scope, now),
            Err(error) => readings.taken.notice = Some(format!("the controller's metrics cannot be read: {error}")),
        }
    }

    async fn read(&self) -> Result<Vec<String>, Unread> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.installation);
        let labelled = ListParams::default().labels("app.kubernetes.io/name=guardian-controller").limit(CONTROLLERS);
        let found = tokio::time::timeout(CALL, pods.list(&labelled)).await.map_err(|_| Unread::Silence)?;
        let found = found.map_err(|error| match error {
            kube::Error::Api(status) => Unread::Refused { code: status.code, message: status.message.clone() },
            other => Unread::Call(other),
        })?;
        let (mut pages, mut failed) = (Vec::new(), None);
        for pod in &found.items {
            match tokio::time::timeout(CALL, self.page(pod)).await {
                Ok(Ok(page)) => pages.push(page),
                Ok(Err(error)) => failed = Some(error),
                Err(_) => failed = Some(Unread::Silence),
            }
        }
        // One that starts or is gone says nothing about the other.
        if pages.is_empty() { Err(failed.unwrap_or_else(|| Unread::Nobody(self.installation.clone()))) } else { Ok(pages) }
    }

    /// Through the API server's proxy.
    async fn page(&self, pod: &Pod) -> Result<String, Unread> {
        let (namespace, name, port) = (&self.installation, pod.name_any(), port(pod));
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
        let request = Request::get(path).body(Body::empty()).map_err(|error| Unread::Page(error.into()))?;
        let answer = self.client.send(request).await?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), PAGE).collect().await.map_err(Unread::Page)?.to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        if status == StatusCode::OK {
            return Ok(text.into_owned());
        }
        let said = serde_json::from_str::<serde_json::Value>(&text).ok();
        let said = said.as_ref().and_then(|said| said.get("message")?.as_str()).unwrap_or("the API server's proxy refused");
        Err(Unread::Refused { code: status.as_u16(), message: said.to_owned() })
    }
}

fn port(pod: &Pod) -> i32 {
    let containers = pod.spec.iter().flat_map(|spec| spec.containers.iter());
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.find(|port| port.name.as_deref() == Some("probe")).map_or(PORT, |port| port.container_port)
}

impl Readings {
    /// Adds what was read at one time, and drops what is older than [`POINTS`] readings.
    fn add(&mut self, pages: &[String], scope: &Scope, now: Timestamp) {
        let (mut families, mut left_out) = (BTreeMap::new(), 0);
        let mut fresh: BTreeMap<Series, f64> = BTreeMap::new();
        let mut room = SERIES.saturating_sub(self.kept.len());
        for page in pages {
            let (told, samples) = exposition::read(page);
            for sample in samples.iter().filter(|sample| sample.value.is_finite()) {
                let Some(series) = Series::of(sample).filter(|series| scope.shows(&series.set.0)) else { continue };
                let known = self.kept.contains_key(&series) || fresh.contains_key(&series);
                if !known && room == 0 {
                    left_out += 1;
                    continue;
                }
                room -= usize::from(!known);
                fresh.insert(series, sample.value);
            }
            families.extend(told);
        }
        for (series, value) in fresh {
            self.kept.entry(series).or_default().push_back((now, value));
        }
        // The times at which anything was read are those of every series together: the oldest that stays is the POINTS-th last.
        let mut times: Vec<Timestamp> = self.kept.values().flatten().map(|(at, _)| *at).collect();
        times.sort_unstable();
        times.dedup();
        let oldest = times.iter().rev().nth(POINTS - 1).or(times.first()).copied().unwrap_or(now);
        self.kept.values_mut().for_each(|points| points.retain(|(at, _)| *at >= oldest));
        self.kept.retain(|_, points| !points.is_empty());
        self.taken.notice =
            (left_out > 0).then(|| format!("{left_out} series of metrics are not shown: {SERIES} are kept at most"));
        self.taken.sets = plots(&self.kept, &families);
    }
}

impl Scope {
    fn shows(&self, namespace: &str) -> bool {
        matches!(self, Self::Enabled) || matches!(self, Self::Namespace(name) if name == namespace)
    }
}

impl Series {
    /// `None`: it is about no set, or a part of a histogram.
    fn of(sample: &Sample) -> Option<Self> {
        let label = |name: &str| sample.labels.get(name).cloned();
        if sample.labels.contains_key("le") || sample.labels.contains_key("quantile") {
            return None;
        }
        let set = (label("namespace")?, label("set")?);
        let mut line = label("pod").unwrap_or_default();
        for (name, value) in sample.labels.iter().filter(|(name, _)| !["namespace", "set", "pod"].contains(&name.as_str())) {
            let _ = write!(line, "{}{name}={value}", if line.is_empty() { "" } else { " " });
        }
        Some(Self { set, name: sample.name.clone(), line })
    }
}

/// What is kept, by set and family; a counter as its rate.
fn plots(
    kept: &BTreeMap<Series, VecDeque<(Timestamp, f64)>>,
    families: &BTreeMap<String, Family>,
) -> BTreeMap<Key, Arc<Vec<Plot>>> {
    let mut sets: BTreeMap<Key, Vec<Plot>> = BTreeMap::new();
    for (series, points) in kept {
        let plots = sets.entry(series.set.clone()).or_default();
        if plots.last().is_none_or(|plot| plot.name != series.name) {
            let family = families.get(&series.name).cloned().unwrap_or_default();
            plots.push(Plot { name: series.name.clone(), family, lines: Vec::new() });
        }
        if let Some(plot) = plots.last_mut() {
            let points: Vec<_> = points.iter().copied().collect();
            let points = if plot.family.kind == "counter" { rates(&points) } else { points };
            plot.lines.push((series.line.clone(), points));
        }
    }
    sets.into_iter().map(|(key, plots)| (key, Arc::new(plots))).collect()
}

/// How much more a second; a counter that has fallen began anew.
fn rates(points: &[(Timestamp, f64)]) -> Vec<(Timestamp, f64)> {
    let pairs = points.iter().zip(points.iter().skip(1));
    pairs
        .filter_map(|((before, from), (at, to))| {
            let seconds = at.duration_since(*before).as_secs_f64();
            let more = if to >= from { to - from } else { *to };
            (seconds > 0.0).then(|| (*at, more / seconds))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn add(readings: &mut Readings, page: &str, second: i64) {
        readings.add(&[page.to_owned()], &Scope::Namespace("shop".to_owned()), at(second));
    }

    #[test]
    fn every_family_that_names_a_set_is_kept_a_counter_as_its_rate() {
        let mut readings = Readings::default();
        let page = |commands: u32| {
            format!(
                "# TYPE commands_total counter\ncommands_total{{namespace=\"shop\",set=\"db\",pod=\"db-0\",db=\"1\"}} {commands}\n\
                 # TYPE lag gauge\nlag{{namespace=\"shop\",set=\"db\",pod=\"db-0\"}} 2\nlag{{namespace=\"other\",set=\"db\",pod=\"db-0\"}} 2\n\
                 guardian_leader 1\nh_bucket{{namespace=\"shop\",set=\"db\",le=\"1\"}} 3\n"
            )
        };
        add(&mut readings, &page(10), 0);
        add(&mut readings, &page(40), 15);
        add(&mut readings, &page(5), 25);
        let plots = readings.taken.sets.get(&("shop".to_owned(), "db".to_owned())).expect("the set");
        let told: Vec<String> = plots.iter().map(|plot| format!("{} {:?}", plot.name, plot.lines)).collect();
        let expected = [
            r#"commands_total [("db-0 db=1", [(1970-01-01T00:00:15Z, 2.0), (1970-01-01T00:00:25Z, 0.5)])]"#,
            r#"lag [("db-0", [(1970-01-01T00:00:00Z, 2.0), (1970-01-01T00:00:15Z, 2.0), (1970-01-01T00:00:25Z, 2.0)])]"#,
        ];
        assert_eq!(told, expected);
        assert_eq!(readings.taken.sets.len(), 1, "a set of another namespace is not asked for");
    }

    #[test]
    fn no_more_samples_and_no_more_series_than_the_bounds_are_kept() {
        let mut readings = Readings::default();
        for n in 0..200 {
            let pod = if n < 10 { "gone" } else { "db-0" };
            add(&mut readings, &format!("lag{{namespace=\"shop\",set=\"db\",pod=\"{pod}\"}} {n}"), n * 15);
        }
        let kept: Vec<(&str, usize)> =
            readings.kept.iter().map(|(series, points)| (series.line.as_str(), points.len())).collect();
        assert_eq!(kept, [("db-0", POINTS)], "a pod that is gone is forgotten");
        let many: String = (0..SERIES + 7).map(|n| format!("lag{{namespace=\"shop\",set=\"db\",pod=\"db-{n}\"}} 1\n")).collect();
        add(&mut readings, &many, 3000);
        assert_eq!(readings.kept.len(), SERIES);
        let notice = readings.taken.notice.expect("a notice");
        assert!(notice.starts_with("7 series of metrics are not shown"), "{notice}");
    }
}
