//! What a benchmark has come to so far, for Prometheus, while it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use gatewright_bench::Snapshot;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::failure::{Failure, Outcome, reason};
use crate::output;

/// Tells Prometheus.
#[derive(Debug)]
pub(super) struct Exporter {
    sent: Number,
    done: Number,
    failed: Number,
    in_flight: Number,
    rate: Number,
    step: Number,
    p50: Number,
    p90: Number,
    p99: Number,
    max: Number,
}

type Number = Gauge<f64, AtomicU64>;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Exporter {
    /// Listens at `address` until the process ends.
    pub(super) fn begin(address: SocketAddr, quiet: bool) -> Outcome<Self> {
        let mut registry = Registry::with_prefix("gatewright_bench");
        let mut gauge = |name: &str, about: &str| {
            let gauge = Number::default();
            registry.register(name, about, gauge.clone());
            gauge
        };
        let exporter = Self {
            sent: gauge("requests_sent", "Requests sent in this step"),
            done: gauge("requests_ended", "Requests that have ended in this step, well or not"),
            failed: gauge("requests_failed", "Requests that did not end well in this step"),
            in_flight: gauge("requests_in_flight", "Requests that were sent and have not ended"),
            rate: gauge("request_rate", "Requests that ended per second, of late"),
            step: gauge("step", "Number of the step, from 1"),
            p50: gauge("response_time_p50_seconds", "Median response time in this step so far"),
            p90: gauge("response_time_p90_seconds", "90 % quantile of the response time so far"),
            p99: gauge("response_time_p99_seconds", "99 % quantile of the response time so far"),
            max: gauge("response_time_max_seconds", "Longest response time so far"),
        };
        listen(address, Arc::new(registry), quiet)?;
        Ok(exporter)
    }

    /// A step begins.
    pub(super) fn step(&self, number: usize) {
        self.step.set(number as f64);
        for gauge in [&self.p50, &self.p90, &self.p99, &self.max] {
            gauge.set(f64::NAN);
        }
    }

    pub(super) fn update(&self, snapshot: &Snapshot) {
        self.sent.set(snapshot.sent as f64);
        self.done.set(snapshot.done as f64);
        self.failed.set(snapshot.errors as f64);
        self.in_flight.set(snapshot.sent.saturating_sub(snapshot.done) as f64);
        self.rate.set(snapshot.rate);
        let told = [
            (&self.p50, snapshot.p50),
            (&self.p90, snapshot.p90),
            (&self.p99, snapshot.p99),
            (&self.max, snapshot.max),
        ];
        for (gauge, nanos) in told {
            gauge.set(nanos.map_or(f64::NAN, |nanos| nanos as f64 / 1e9));
        }
    }
}

fn listen(address: SocketAddr, registry: Arc<Registry>, quiet: bool) -> Outcome<()> {
    let refused = |fault: &std::io::Error| {
        Failure::usage(format!("cannot listen on {address}: {}", reason(fault)))
            .hint("give --metrics-listen another port; 0 takes a free one")
    };
    let socket = std::net::TcpListener::bind(address).map_err(|fault| refused(&fault))?;
    socket.set_nonblocking(true).map_err(|fault| refused(&fault))?;
    let bound = socket.local_addr().map_err(|fault| refused(&fault))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|fault| refused(&fault))?;
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let registry = Arc::clone(&registry);
            let answer = service_fn(move |request| {
                let registry = Arc::clone(&registry);
                async move { Ok::<_, std::convert::Infallible>(answer(&request, &registry)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // One who asks is served at a time: it is a scraper. Its failures are its own.
            drop(connection.await);
        }
    };
    let body = move || {
        let ended: std::io::Result<()> = runtime.block_on(serve);
        if let Err(fault) = ended {
            output::warning(&format!("metrics are told no more: {}", reason(&fault)));
        }
    };
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(body)
        .map_err(|fault| refused(&fault))?;
    if !quiet {
        output::note(&format!("metrics at http://{bound}/metrics"));
    }
    Ok(())
}

fn answer<B>(request: &Request<B>, registry: &Registry) -> Response<Full<Bytes>> {
    let mut text = String::new();
    let found = request.uri().path() == "/metrics" && encode(&mut text, registry).is_ok();
    let status = if found { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(TEXT));
    response
}
