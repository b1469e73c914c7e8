//! Requests that make their connection a tunnel.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gatewright_control::Outcome;
use http::request::Parts;
use http::{Response, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;

use super::{Asked, Failure, Plane, stopping};
use crate::answer::{Body, Refusal};
use crate::function::Function;
use crate::metrics::FunctionMetrics;
use crate::records::Trail;
use crate::route::Route;
use crate::upgrade::Switch;
use crate::upstream::Outgoing;

impl Plane {
    /// Asks the upstream to switch. If it does, bytes go both ways from then on; if not, its answer is one like any
    /// other.
    #[expect(clippy::too_many_arguments, reason = "what a request consists of at this point")]
    pub(super) async fn tunnel(
        &self,
        switch: Switch,
        function: &Arc<Function>,
        route: &Route,
        uri: Uri,
        mut parts: Parts,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(stopping());
        }
        let Some(client) = parts.extensions.remove::<OnUpgrade>() else {
            let error = "the connection cannot switch protocols";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, error).into());
        };
        let check = self.prepare(function, Some(route), &mut parts, asked);
        switch.ask(&mut parts.method, &mut parts.headers);
        let outgoing = Outgoing::new(parts.method, uri, parts.headers);
        let outgoing = Outgoing { client: asked.client.address, switches: true, ..outgoing };
        let call = self.upstream_call(function, asked, trail);
        let (mut response, mut attempt) = self.fetch(function, outgoing, Arc::clone(&call)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.passed_back(response, attempt, check, &call, false, function, trail).await;
        }
        if !switch.is_met(response.headers()) {
            attempt.finish(Outcome::Error);
            let error = "the upstream switched to another protocol than it was asked for";
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, error).into());
        }
        // The request is answered: what follows is bounded by the tunnel's own limits.
        attempt.finish(Outcome::Ok);
        self.note_answer(response.status(), trail);
        let upstream = hyper::upgrade::on(&mut response);
        let mut headers = std::mem::take(response.headers_mut());
        let status = switch.answer(&mut headers);
        let (function, kill) = (Arc::clone(function), self.driver.kill.clone());
        tokio::spawn(async move {
            let metrics = &function.metrics;
            let carried = async {
                match tokio::try_join!(client, upstream) {
                    Ok((client, upstream)) => {
                        let _open = Open::new(metrics);
                        switch.carry(client, upstream, metrics).await;
                    }
                    Err(error) => tracing::debug!(%error, "a connection did not switch"),
                }
            };
            tokio::select! {
                () = carried => {}
                () = kill.cancelled() => {}
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// A tunnel that is counted while it is open.
struct Open<'a>(&'a FunctionMetrics);

impl<'a> Open<'a> {
    fn new(metrics: &'a FunctionMetrics) -> Self {
        metrics.tunnels.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.tunnels.dec();
    }
}
