//! What the server tells about itself, in a registry that the caller owns.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// A server's metrics. Servers that share a registry are told apart by the label `server`.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) requests: IntCounterVec,
    pub(super) seconds: Histogram,
    pub(super) connections: IntGauge,
    pub(super) closed: IntCounterVec,
    pub(super) bytes: IntGauge,
    pub(super) panics: IntCounter,
}

impl Metrics {
    /// Registers the metrics of `server`; fails if the registry has them already.
    pub fn new(registry: &Registry, server: &str) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("server", server);
        // 0.1 ms to 2 s, where the API server gives up: the answer of a review takes well under one millisecond.
        let buckets = vec![0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0];
        let seconds =
            HistogramOpts::from(opts("guardian_http_request_duration_seconds", "From the head of a request to its answer."));
        let metrics = Self {
            requests: IntCounterVec::new(opts("guardian_http_requests_total", "Requests answered, by HTTP status."), &["code"])?,
            seconds: Histogram::with_opts(seconds.buckets(buckets))?,
            connections: IntGauge::with_opts(opts("guardian_http_connections", "Connections open."))?,
            closed: IntCounterVec::new(
                opts(
                    "guardian_http_connections_closed_total",
                    "Connections that the server closed: handshake (failed or too slow), client (without a certificate that is served), header, request, answer (too slow), idle, room (for a new one).",
                ),
                &["reason"],
            )?,
            bytes: IntGauge::with_opts(opts("guardian_http_body_bytes", "Bytes of request bodies held."))?,
            panics: IntCounter::with_opts(opts(
                "guardian_http_panics_total",
                "Requests that ended in a panic and were answered 500.",
            ))?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.closed.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.panics.clone()))?;
        Ok(metrics)
    }
}
