//! Stored responses in content codings.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use gatewright_control::cache::{CacheStatus, Shape};
use gatewright_control::compress::Coding;
use http::Response;

use super::Plane;
use super::wanted::{Wanted, from_entry};
use crate::answer::{Body, BrokenOff, Shared};
use crate::headers::FieldsOf;
use crate::route::Route;
use crate::squeeze::{Squeezed, describe, squeezed};
use crate::store::{Content, Entry, Growing, Reader};

/// Whether a stored response is to be compressed for a client, and has not been for another.
pub(super) fn is_to_be_made(
    route: &Route,
    entry: &Entry,
    shape: Shape,
    coding: Option<Coding>,
) -> bool {
    let (Some(rules), Some(coding), Shape::Whole) = (&route.compress, coding, shape) else {
        return false;
    };
    entry.forms.get(coding).is_none()
        && rules.fits(entry.meta.status, &FieldsOf(&entry.headers), entry.meta.length)
}

impl Plane {
    /// Answers from a stored response, or one that still comes in: compressed if its client and route want that. Each
    /// coding of it is made once, for all who want it meanwhile and after.
    pub(super) fn coded(
        self: &Arc<Self>,
        wanted: &Wanted,
        key: &str,
        entry: &Arc<Entry>,
        shape: Shape,
        age: Option<u64>,
        status: CacheStatus,
    ) -> Option<Response<Body>> {
        let (coding, head) = (wanted.asked.coding(), wanted.is_head());
        let mut response = from_entry(entry, shape, age, status, head, coding)?;
        let Some(coding) = coding else { return Some(response) };
        if head || !is_to_be_made(&wanted.route, entry, shape, Some(coding)) {
            return Some(response);
        }
        let made = entry.making.get_or(coding, || self.make(key, entry, coding));
        if let Some(reader) = made.and_then(|made| Reader::new(&made)) {
            *response.body_mut() = Body::Shared(Box::new(Shared::new(reader)));
            describe(response.headers_mut(), coding, None);
        }
        Some(response)
    }

    /// Begins to make a coding of a response. `None` if its beginning is gone.
    fn make(
        self: &Arc<Self>,
        key: &str,
        entry: &Arc<Entry>,
        coding: Coding,
    ) -> Option<Arc<Growing>> {
        let made = Arc::new(Growing::default());
        let plain = match &entry.body {
            Content::Whole(bytes) => Plain::Whole(bytes.clone()),
            Content::Growing(body) => {
                let body = Body::Shared(Box::new(Shared::new(Reader::new(body)?)));
                Plain::Coming(Box::new(Squeezed::new(body, coding).ok()?))
            }
        };
        let (plane, entry, key) = (Arc::clone(self), Arc::clone(entry), Arc::<str>::from(key));
        let growing = Arc::clone(&made);
        tokio::spawn(async move {
            let kill = plane.driver.kill.clone();
            let made = tokio::select! {
                made = plain.into(coding, &growing, plane.store.max_body) => made,
                () = kill.cancelled() => Err(BrokenOff::TimedOut),
            };
            if let Ok(Some(body)) = &made {
                plane.store.keep_form(&key, &entry.making, coding, body.clone());
            }
            entry.making.done(coding);
            growing.end(made.map(|_| ()));
        });
        Some(made)
    }
}

/// What a coding is made of.
enum Plain {
    Whole(Bytes),
    Coming(Box<Squeezed>),
}

impl Plain {
    /// Makes the coding. All of it, unless it is too long to be kept.
    async fn into(
        self,
        coding: Coding,
        growing: &Growing,
        most: usize,
    ) -> Result<Option<Bytes>, BrokenOff> {
        let mut body = match self {
            Self::Coming(body) => body,
            Self::Whole(bytes) => {
                let all = tokio::task::spawn_blocking(move || squeezed(&bytes, coding)).await;
                let all = all.map_err(std::io::Error::other).flatten();
                let all = all.map_err(|_| BrokenOff::Upstream)?;
                growing.push(all.clone());
                return Ok(Some(all));
            }
        };
        let mut sliding = false;
        while let Some(frame) = poll_fn(|context| body.poll(context)).await {
            let Ok(data) = frame?.into_data() else { continue };
            sliding |= growing.push(data) > most;
            if sliding && !growing.slide(most).await {
                return Ok(None);
            }
        }
        Ok((!sliding).then(|| growing.whole()))
    }
}
