use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use gatewright_determinism::{Purpose, Stream};
use gatewright_sim::Sampler;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use crate::body::{Body, Reset};
use crate::clock::Clock;
use crate::config::HttpConfig;
use crate::fate::{Fate, Fates};
use crate::slots::{Entry, Slots};
use crate::stats::{Counters, count};
use crate::visit::Visit;

/// A server that answers any request with the same body after a random time.
#[derive(Debug)]
pub(crate) struct Plain {
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
    latency: Sampler,
    slots: Option<Slots>,
    seed: u64,
    fates: Arc<Fates>,
    counters: Arc<Counters>,
}

impl Plain {
    pub(crate) fn new(
        config: &HttpConfig,
        seed: u64,
        clock: Clock,
        fates: Arc<Fates>,
        counters: Arc<Counters>,
    ) -> Self {
        let body = match &config.body {
            Some(text) => Bytes::copy_from_slice(text.as_bytes()),
            None => filling(config.body_bytes),
        };
        Self {
            status: StatusCode::from_u16(config.status).unwrap_or(StatusCode::OK),
            content_type: HeaderValue::from_str(&config.content_type)
                .unwrap_or(HeaderValue::from_static("text/plain")),
            body,
            latency: config.latency.sampler(),
            slots: config.slots.map(|limit| Slots::new(clock, Some(limit), config.queue)),
            seed,
            fates,
            counters,
        }
    }

    pub(crate) async fn answer(&self, visit: &Visit) -> Result<Response<Body>, Reset> {
        let fate = visit.fate();
        if let Fate::Error(status) = fate {
            count(&self.counters.errors);
            return Ok(error(status, "this fault was asked for\n"));
        }
        let (mut place, mut begin) = (None, visit.arrival);
        if let Some(slots) = &self.slots {
            let entry = slots.enter();
            if matches!(entry, Entry::Full) {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                return Ok(error(503, "too many requests are waiting; try again later\n"));
            }
            let (slot, at) = entry.wait(begin).await.ok_or_else(|| visit.reset.set())?;
            (place, begin) = (Some(slot), at);
        }
        let mut luck = Stream::new(self.seed, Purpose::Service, visit.number);
        let latency = self.latency.draw(&mut luck) as f64 * self.fates.slowness(begin);
        let mut due = begin.plus_nanos(latency as u64);
        if let Fate::Stall(_, nanos) = fate {
            count(&self.counters.stalls);
            due = due.plus_nanos(nanos);
        }
        if due > visit.arrival {
            visit.timer().sleep_until(due).await;
        }
        if let Some(place) = place {
            place.leave_at(due);
        }
        if let Fate::Reset(_) = fate {
            count(&self.counters.resets);
            return Err(visit.reset.set());
        }
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, self.content_type.clone());
        Ok(response)
    }
}

fn error(status: u16, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(text.as_bytes())));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if status == 503 {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Lines of text of this length in all.
fn filling(bytes: usize) -> Bytes {
    const LINE: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n";
    LINE.iter().copied().cycle().take(bytes).collect::<Vec<u8>>().into()
}
