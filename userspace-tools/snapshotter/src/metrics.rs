// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metrics in the text format of Prometheus.

use anyhow::{Context, Result};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{exponential_buckets, Histogram};
use prometheus_client::registry::{Registry, Unit};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{http, Service};
use tonic::transport::Server;

/// The media type of the format.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A kind of calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// The method, in small letters.
    pub call: &'static str,
}

/// A place that an image's data is from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Origin {
    /// `store`, `containerd` or `registry`; `lazy` if most data has not arrived from the registry.
    pub origin: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Images that were made available.
    pub pulls: Family<Origin, Counter>,
    /// Images that could not be made available without containerd's download.
    pub pull_failures: Counter,
    /// The time to make an image available.
    pub pull_seconds: Histogram,
    /// Bytes of blobs and manifests from registries.
    pub fetched: Counter,
    /// Bytes of layers that nobody downloaded.
    pub saved: Counter,
    /// Mounts of images.
    pub mounts: Counter,
    /// Mounts of images that failed.
    pub mount_failures: Counter,
    /// The time of a mount.
    pub mount_seconds: Histogram,
    /// Images that are mounted.
    pub mounted: Gauge,
    /// Images that are not complete, whose chunks are fetched.
    pub fetching: Gauge,
    /// Snapshots.
    pub snapshots: Gauge,
    calls: Family<Call, Histogram>,
    failures: Family<Call, Counter>,
}

/// The time of a call: 1 ms to 16 s.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 8))
}

/// The time of a pull: 10 ms to 10 min.
fn long() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 4.0, 9))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("puzzlefs_snapshotter"),
            pulls: Family::default(),
            pull_failures: Counter::default(),
            pull_seconds: long(),
            fetched: Counter::default(),
            saved: Counter::default(),
            mounts: Counter::default(),
            mount_failures: Counter::default(),
            mount_seconds: short(),
            mounted: Gauge::default(),
            fetching: Gauge::default(),
            snapshots: Gauge::default(),
            calls: Family::new_with_constructor(short),
            failures: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("pulls", "Images made available", metrics.pulls.clone());
        registry.register(
            "pull_failures",
            "Images that containerd had to download, or that failed",
            metrics.pull_failures.clone(),
        );
        let name = "Time to make an image available";
        registry.register_with_unit("pull", name, Unit::Seconds, metrics.pull_seconds.clone());
        let name = "Bytes from registries";
        registry.register_with_unit("fetched", name, Unit::Bytes, metrics.fetched.clone());
        let name = "Bytes of layers that were not downloaded";
        registry.register_with_unit("saved", name, Unit::Bytes, metrics.saved.clone());
        registry.register("mounts", "Mounts of images", metrics.mounts.clone());
        registry.register(
            "mount_failures",
            "Mounts of images that failed",
            metrics.mount_failures.clone(),
        );
        let name = "Time of a mount of an image";
        registry.register_with_unit("mount", name, Unit::Seconds, metrics.mount_seconds.clone());
        registry.register("mounted_images", "Mounted images", metrics.mounted.clone());
        registry.register(
            "fetching_images",
            "Images whose missing chunks are fetched",
            metrics.fetching.clone(),
        );
        registry.register("snapshots", "Snapshots", metrics.snapshots.clone());
        let name = "Time of containerd's calls";
        registry.register_with_unit("call", name, Unit::Seconds, metrics.calls.clone());
        registry.register(
            "call_failures",
            "Calls that failed because the system did",
            metrics.failures.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Counts a call that began at some time.
    pub fn called(&self, call: &'static str, began: Instant, has_failed: bool) {
        let name = Call { call };
        let seconds = began.elapsed().as_secs_f64();
        self.calls.get_or_create(&name).observe(seconds);
        if has_failed {
            self.failures.get_or_create(&name).inc();
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Listens on an address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address} for requests of metrics"))
}

/// Answers requests for `/metrics` until the program ends. Each answer calls `refresh` first.
pub async fn serve(
    metrics: Arc<Metrics>,
    refresh: impl Fn(&Metrics) + Send + Sync + 'static,
    listener: TcpListener,
) {
    let incoming = TcpListenerStream::new(listener);
    let refresh = Arc::new(refresh);
    let served = Server::builder()
        .accept_http1(true)
        .serve_with_incoming(Page { metrics, refresh }, incoming);
    if let Err(error) = served.await {
        crate::say(format_args!("metrics: {error}"));
    }
}

#[derive(Clone)]
struct Page {
    metrics: Arc<Metrics>,
    refresh: Arc<dyn Fn(&Metrics) + Send + Sync>,
}

impl Service<http::Request<Body>> for Page {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_known = request.uri().path() == "/metrics";
        let text = if is_known {
            (self.refresh)(&self.metrics);
            self.metrics.text()
        } else {
            "see /metrics\n".to_owned()
        };
        let mut response = http::Response::new(Body::new(text));
        if is_known {
            let kind = http::HeaderValue::from_static(TEXT);
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, kind);
        } else {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
        }
        std::future::ready(Ok(response))
    }
}
