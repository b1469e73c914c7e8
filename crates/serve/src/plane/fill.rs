//! Fetches from an upstream whose responses may be stored.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gatewright_control::Outcome;
use gatewright_control::cache::{
    self, CacheStatus, Exchange, Failure as Cause, HeadEffect, Refusal as NotStored, Request,
    SendAs, Shape, StoredFields, StoredResponse, Storing, freshen, head_effect, on_failure,
    storing,
};
use gatewright_record::CacheResult;
use http::header::{CONTENT_LENGTH, TRAILER, VARY};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;

use super::arriving::{Arriving, Rest};
use super::cached::broken_off;
use super::fetch::{Came, Fetch, Filled, length_of};
use super::{Failure, Plane, cause_of};
use crate::answer::{Attempt, Body, BrokenOff, Refusal, Shared, outcome_of};
use crate::call::{Call, Step};
use crate::check::Check;
use crate::headers::{self, FieldsOf};
use crate::store::{Content, Entry, Growing, Marks, Passing, Reader, Stage};
use crate::upstream::Received;

/// Longest body in bytes that is waited for where something stale could stand in for it.
const HELD_BACK: u64 = 64 * 1024;

impl Plane {
    /// Carries out a fetch in a task of its own.
    pub(super) fn spawn_fetch(self: &Arc<Self>, fetch: Fetch) {
        let plane = Arc::clone(self);
        tokio::spawn(async move {
            let kill = plane.driver.kill.clone();
            tokio::select! {
                () = plane.carry_out(fetch) => {}
                () = kill.cancelled() => {}
            }
        });
    }

    async fn carry_out(&self, fetch: Fetch) {
        let Some(mut fetch) = self.recall(fetch).await else { return };
        loop {
            let mut came = match self.head(&mut fetch).await {
                Ok(Some(came)) => came,
                // Nobody waits any more.
                Ok(None) => return,
                Err(failure) => return self.went_wrong(fetch, failure),
            };
            let code = came.parts.status.as_u16();
            if Cause::Status(code).is_one() && self.has_stale(&fetch, Cause::Status(code)) {
                if let Arriving::Coming(_, mut attempt) = came.body {
                    attempt.finish(Outcome::Unavailable);
                }
                let refusal =
                    Refusal::new(came.parts.status, "the upstream answered with an error");
                return self.went_wrong(fetch, refusal.into());
            }
            if came.parts.status != StatusCode::NOT_MODIFIED {
                let came = match self.whole_if_short(&fetch, came).await {
                    Ok(came) => came,
                    Err(failure) => return self.went_wrong(fetch, failure),
                };
                self.store.note_upstream(&fetch.key, Cause::Status(code).is_one());
                return self.take(fetch, came).await;
            }
            let SendAs::Conditional(conditions) = &fetch.forward.send else {
                return self.take(fetch, came).await;
            };
            self.store.note_upstream(&fetch.key, false);
            let fields = FieldsOf(&came.parts.headers);
            let confirmed = conditions.confirmed(&fetch.line.variants, &fields);
            if let Arriving::Coming(_, attempt) = &mut came.body {
                attempt.finish(Outcome::Ok);
            }
            match confirmed {
                Some(variant) => {
                    return self.confirm(fetch, variant, &came);
                }
                // It confirmed what is not stored: asked again without conditions.
                None => {
                    fetch.forward.send = SendAs::Whole;
                    fetch.call = Arc::new(Call::new(fetch.call.id, None, fetch.wanted.deadline));
                }
            }
        }
    }

    /// Sends the request and waits for the head of the response, and for its body if that is to be checked. `None`
    /// if its one client went away.
    async fn head(&self, fetch: &mut Fetch) -> Result<Option<Came>, Failure> {
        let Fetch { wanted, forward, call, fill, reply, .. } = fetch;
        let (sent, marks) = (self.store.moment().now, self.store.marks());
        let outgoing = wanted.outgoing(&forward.send, self);
        let answer = self.fetch(&wanted.function, outgoing, Arc::clone(call));
        let (mut response, attempt) = match reply {
            Some(reply) if fill.is_none() => tokio::select! {
                biased;
                answer = answer => answer?,
                () = reply.closed() => return Ok(None),
            },
            _ => answer.await?,
        };
        let received = self.store.moment().now;
        headers::strip_hop_by_hop(response.headers_mut());
        // What comes behind a body is not stored, nor passed on from here (RFC 9111 section 3).
        response.headers_mut().remove(TRAILER);
        let (parts, incoming) = response.into_parts();
        let body = match &wanted.route.check {
            Some(check) if check.concerns(parts.status) && !wanted.is_head() => {
                let max = self.store.max_body;
                Arriving::Whole(
                    self.checked(check, &parts, incoming, attempt, call, max, &wanted.function)
                        .await?,
                )
            }
            _ => Arriving::Coming(incoming, attempt),
        };
        Ok(Some(Came { parts, body, sent, marks, received }))
    }

    /// Reads a whole response and looks whether it is as it should be.
    #[expect(clippy::too_many_arguments, reason = "what a response consists of at this point")]
    pub(super) async fn checked(
        &self,
        check: &Check,
        parts: &Parts,
        incoming: Received,
        attempt: Attempt,
        call: &Call,
        max: usize,
        function: &crate::function::Function,
    ) -> Result<Bytes, Failure> {
        let too_long = || check.refusal(&format!("it is longer than {max} bytes"));
        let status = parts.status;
        let body = self.read(status, incoming, attempt, call, max, function, too_long).await?;
        let fits = check.fits(&parts.headers, &body);
        fits.inspect_err(|_| super::typed::count_mismatch(function, check))?;
        Ok(body)
    }

    /// Where something stale could be served in its place, a short response is answered with when it is whole: one
    /// that breaks off is a failure of the upstream, and no longer one of the client's.
    async fn whole_if_short(&self, fetch: &Fetch, came: Came) -> Result<Came, Failure> {
        let short = length_of(&came.parts).is_some_and(|length| length <= HELD_BACK);
        if !short || fetch.wanted.is_head() || !self.has_stale(fetch, Cause::Broken) {
            return Ok(came);
        }
        let Came { parts, body, sent, marks, received } = came;
        let body = match body {
            Arriving::Coming(incoming, attempt) => {
                let (call, function) = (&fetch.call, &*fetch.wanted.function);
                let status = parts.status;
                let max = self.store.max_body;
                let read = self.read(status, incoming, attempt, call, max, function, broken_off);
                Arriving::Whole(read.await?)
            }
            whole @ Arriving::Whole(_) => whole,
        };
        Ok(Came { parts, body, sent, marks, received })
    }

    /// Reads a whole body of at most `max` bytes.
    #[expect(clippy::too_many_arguments, reason = "what a response consists of at this point")]
    async fn read(
        &self,
        status: StatusCode,
        mut incoming: Received,
        mut attempt: Attempt,
        call: &Call,
        max: usize,
        function: &crate::function::Function,
        too_long: impl Fn() -> Refusal,
    ) -> Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        loop {
            let frame = tokio::select! {
                biased;
                frame = incoming.frame() => frame,
                Step::Ended(end) = call.step() => return Err(self.ended(end, function)),
            };
            match frame {
                None => break,
                Some(Err(_)) => {
                    attempt.finish(Outcome::Unavailable);
                    return Err(broken_off().into());
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    body.extend_from_slice(&data);
                    if body.len() > max {
                        return Err(too_long().into());
                    }
                }
            }
        }
        attempt.finish(outcome_of(status));
        Ok(body.freeze())
    }

    fn has_stale(&self, fetch: &Fetch, cause: Cause) -> bool {
        self.stale_serve(fetch, cause).is_some()
    }

    fn stale_serve(&self, fetch: &Fetch, cause: Cause) -> Option<cache::Serve> {
        let variant = fetch.forward.fallback?;
        let fields = fetch.wanted.fields();
        let meta = &fetch.line.variants.get(variant)?.0.meta;
        on_failure(&fetch.wanted.read(&fields), variant, meta, cause, self.store.moment())
    }

    /// Nothing useful came: something stale may do.
    fn went_wrong(&self, mut fetch: Fetch, failure: Failure) {
        self.store.note_upstream(&fetch.key, true);
        let stale = self.stale_serve(&fetch, cause_of(&failure));
        if let Some(fill) = &fetch.fill {
            fill.tell(Stage::Failed(Arc::new(failure.clone())));
        }
        fetch.land();
        fetch.answer(match stale {
            Some(serve) => Filled::Entry {
                entry: Arc::clone(&fetch.line.variants[serve.variant].0),
                shape: serve.shape,
                age: serve.age.as_secs(),
                status: serve.status,
                result: CacheResult::Stale,
            },
            None => Filled::Failed(failure),
        });
    }

    /// A stored response was found still good.
    fn confirm(&self, mut fetch: Fetch, variant: usize, came: &Came) {
        let old = &fetch.line.variants[variant].0;
        let wanted = Arc::clone(&fetch.wanted);
        let fields = wanted.fields();
        let request = wanted.read(&fields);
        let headers = FieldsOf(&came.parts.headers);
        let exchange = fetch.exchange(&request, came, &headers, self);
        let (merged, outcome) =
            freshen(&exchange, &old.meta, &FieldsOf(&old.headers), wanted.policy());
        let merged = header_map(merged);
        let mut status = fetch.forward.status();
        status.fwd_status = Some(304);
        let (entry, stage) = match outcome {
            Storing::Store { stored, fields } => {
                let headers = kept(&merged, &fields);
                let entry = Arc::new(old.renewed(*stored, headers, came.marks));
                let lease = fetch.lease.take();
                status.stored = self.store.put(&fetch.key, Arc::clone(&entry), lease);
                status.ttl = Some(entry.meta.ttl(came.received));
                (Arc::clone(&entry), Stage::Head(entry))
            }
            Storing::Refuse(refusal) => {
                status.detail = Some(refusal.as_str());
                self.store.remove(&fetch.key, old);
                (Arc::new(old.renewed(old.meta.clone(), merged, came.marks)), Stage::Own)
            }
        };
        if let Some(fill) = &fetch.fill {
            fill.tell(stage);
        }
        let shape = request.shape_of(&entry.meta, self.store.moment());
        let age = entry.meta.initial_age.as_secs();
        let result = CacheResult::Revalidated;
        fetch.answer(Filled::Entry { entry, shape, age, status, result });
    }

    /// Takes a response: to the store if it may be stored, to those who wait for it, to the client.
    async fn take(&self, mut fetch: Fetch, came: Came) {
        let wanted = Arc::clone(&fetch.wanted);
        let fields = wanted.fields();
        let request = wanted.read(&fields);
        let headers = FieldsOf(&came.parts.headers);
        let code = came.parts.status.as_u16();
        let exchange = fetch.exchange(&request, &came, &headers, self);
        if wanted.is_head() {
            self.head_says(&fetch, &exchange, came.marks);
        }
        let mut status = fetch.forward.status();
        let outcome = match fetch.forward.store {
            true => storing(&exchange, wanted.policy()),
            false => Storing::Refuse(NotStored::Method),
        };
        match outcome {
            Storing::Store { stored, fields } if !fetch.is_too_long(&came.parts, self) => {
                let shape = match fetch.forward.send {
                    SendAs::AsReceived => Shape::Whole,
                    _ => request.shape_of(&stored, self.store.moment()),
                };
                status.ttl = Some(stored.ttl(came.received));
                status.stored = true;
                self.keep(fetch, came, *stored, &fields, shape, status).await;
            }
            Storing::Store { .. } => {
                fetch.note_uncacheable(self);
                status.detail = Some("too-long");
                fetch.pass(came, status);
            }
            Storing::Refuse(refusal) => {
                status.detail = fetch.forward.store.then(|| refusal.as_str());
                let error = code >= 400;
                if refusal.is_lasting() && !error && fetch.forward.store {
                    fetch.note_uncacheable(self);
                }
                let for_all = error && refusal == NotStored::Useless;
                if for_all && fetch.fill.is_some() && !came.parts.headers.contains_key(VARY) {
                    self.pass_to_all(fetch, came, status).await;
                } else {
                    fetch.pass(came, status);
                }
            }
        }
    }

    /// What the response to a HEAD says of the stored response to GET.
    fn head_says(
        &self,
        fetch: &Fetch,
        exchange: &Exchange<'_, FieldsOf<'_>, FieldsOf<'_>>,
        marks: Marks,
    ) {
        let Some(old) = fetch.forward.fallback.and_then(|index| fetch.line.variants.get(index))
        else {
            return;
        };
        let (old, wanted) = (&old.0, &fetch.wanted);
        match head_effect(&old.meta, exchange.status, exchange.response) {
            HeadEffect::Freshen => {
                let fields = wanted.fields();
                let request = Request::read("GET", &fields, wanted.policy());
                let exchange = Exchange { request: &request, ..*exchange };
                let stored = FieldsOf(&old.headers);
                let (merged, outcome) = freshen(&exchange, &old.meta, &stored, wanted.policy());
                if let Storing::Store { stored, fields } = outcome {
                    let headers = kept(&header_map(merged), &fields);
                    let entry = old.renewed(*stored, headers, marks);
                    self.store.put(&fetch.key, Arc::new(entry), None);
                }
            }
            HeadEffect::Expire => self.store.expire(&fetch.key, old),
            HeadEffect::Nothing => {}
        }
    }

    /// Stores a response when all of it is here, and lets everyone read it meanwhile.
    async fn keep(
        &self,
        mut fetch: Fetch,
        came: Came,
        meta: StoredResponse,
        fields: &StoredFields,
        shape: Shape,
        status: CacheStatus,
    ) {
        let headers = kept(&came.parts.headers, fields);
        let making = Arc::default();
        let entry = |body| {
            let entry = Entry::new(meta.clone(), headers.clone(), body, came.marks);
            Entry { making: Arc::clone(&making), ..entry }
        };
        let (pieces, rest) = came.body.gather(came.parts.status).await;
        let body = Arc::new(Growing::default());
        let reader = Reader::new(&body).expect("nothing of it is gone");
        for piece in pieces {
            body.push(piece);
        }
        let coming = match &rest {
            Rest::None if body.kept() <= self.store.max_body => {
                // Stored before anybody is told: whoever waits reads it in one piece.
                let whole = whole(entry(Content::Whole(body.whole())));
                self.store.put(&fetch.key, Arc::clone(&whole), fetch.lease.take());
                body.end(Ok(()));
                whole
            }
            _ => Arc::new(entry(Content::Growing(Arc::clone(&body)))),
        };
        // Who waits for one that has broken off already asks anew.
        if let (Some(fill), Rest::None | Rest::Coming(..)) = (&fetch.fill, &rest) {
            let shared = coming.meta.can_be_shared() && body.kept() <= self.store.max_body;
            fill.tell(if shared { Stage::Head(Arc::clone(&coming)) } else { Stage::Own });
        }
        fetch.answer(match shape {
            Shape::Whole => {
                let body = Body::Shared(Box::new(Shared::new(reader)));
                Filled::First { parts: came.parts, body, status }
            }
            _ => {
                let (entry, result) = (Arc::clone(&coming), CacheResult::Miss);
                Filled::Entry { entry, shape, age: 0, status, result }
            }
        });
        let arrived = match rest {
            Rest::None if matches!(coming.body, Content::Whole(_)) => return,
            Rest::None => true,
            Rest::Broken => false,
            Rest::Coming(incoming, attempt) => {
                self.pump(&mut fetch, incoming, attempt, coming.meta.status, &body).await
            }
        };
        if arrived && body.kept() <= self.store.max_body {
            let whole = whole(entry(Content::Whole(body.whole())));
            self.store.put(&fetch.key, whole, fetch.lease.take());
        } else if arrived {
            fetch.note_uncacheable(self);
        }
        fetch.land();
        body.end(if arrived { Ok(()) } else { Err(BrokenOff::Upstream) });
    }

    /// Passes an error that is not stored to all who wait for it.
    async fn pass_to_all(&self, mut fetch: Fetch, came: Came, status: CacheStatus) {
        let code = came.parts.status;
        let (pieces, rest) = came.body.gather(code).await;
        let body = Arc::new(Growing::default());
        let reader = Reader::new(&body).expect("nothing of it is gone");
        for piece in pieces {
            body.push(piece);
        }
        let passing =
            Passing { status: code, headers: came.parts.headers.clone(), body: Arc::clone(&body) };
        if let Some(fill) = &fetch.fill {
            fill.tell(Stage::Error(Arc::new(passing)));
        }
        if !matches!(rest, Rest::Coming(..)) {
            fetch.land();
        }
        let first = Body::Shared(Box::new(Shared::new(reader)));
        fetch.answer(Filled::First { parts: came.parts, body: first, status });
        let arrived = match rest {
            Rest::None => true,
            Rest::Broken => false,
            Rest::Coming(incoming, attempt) => {
                self.pump(&mut fetch, incoming, attempt, code.as_u16(), &body).await
            }
        };
        fetch.land();
        body.end(if arrived { Ok(()) } else { Err(BrokenOff::Upstream) });
    }

    /// Moves a body from the upstream to its readers. Whether it came whole and none of it is gone; if not, it has
    /// ended for its readers too, or went to all of them without being kept.
    async fn pump(
        &self,
        fetch: &mut Fetch,
        mut incoming: Received,
        mut attempt: Attempt,
        status: u16,
        body: &Growing,
    ) -> bool {
        let max = self.store.max_body;
        let mut sliding = false;
        loop {
            let frame = tokio::select! {
                biased;
                frame = incoming.frame() => frame,
                Step::Ended(_) = fetch.call.step() => {
                    fetch.land();
                    body.end(Err(BrokenOff::TimedOut));
                    return false;
                }
            };
            let data = match frame {
                None => break,
                Some(Err(_)) => {
                    attempt.finish(Outcome::Unavailable);
                    return false;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_) => continue,
                },
            };
            if body.push(data) > max && !sliding {
                // Too long to keep: from here on it is passed on at the pace of its slowest reader.
                sliding = true;
                fetch.note_uncacheable(self);
                if let Some(fill) = &fetch.fill {
                    fill.tell(Stage::Own);
                }
            }
            if sliding {
                let read = tokio::select! {
                    read = body.slide(max) => read,
                    Step::Ended(_) = fetch.call.step() => {
                        fetch.land();
                    body.end(Err(BrokenOff::TimedOut));
                        return false;
                    }
                };
                if !read {
                    return false;
                }
            }
        }
        attempt.finish(outcome_of(StatusCode::from_u16(status).unwrap_or_default()));
        if sliding {
            body.end(Ok(()));
        }
        !sliding
    }
}

/// A response whose body is all here.
fn whole(mut entry: Entry) -> Arc<Entry> {
    if let Content::Whole(bytes) = &entry.body {
        entry.meta.length = Some(bytes.len() as u64);
        if !matches!(entry.meta.status, 204 | 304) {
            // One length, whichever way it came.
            entry.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
    }
    Arc::new(entry)
}

/// The fields that are stored, in memory of their own: as they came, they are parts of a buffer of the connection,
/// all of which would be kept with them.
fn kept(headers: &HeaderMap, fields: &StoredFields) -> HeaderMap {
    let kept = || headers.iter().filter(|(name, _)| fields.keeps(name.as_str()));
    let mut all = BytesMut::with_capacity(kept().map(|(_, value)| value.len()).sum());
    kept().for_each(|(_, value)| all.extend_from_slice(value.as_bytes()));
    let mut all = all.freeze();
    let mut map = HeaderMap::with_capacity(kept().count() + 1);
    for (name, value) in kept() {
        let own = HeaderValue::from_maybe_shared(all.split_to(value.len()));
        map.append(name.clone(), own.expect("it was a header value before"));
    }
    map
}

fn header_map(fields: Vec<(String, Vec<u8>)>) -> HeaderMap {
    let read = |(name, value): (String, Vec<u8>)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    };
    fields.into_iter().filter_map(read).collect()
}
