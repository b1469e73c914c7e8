//! A relay in virtual time over the rules, with one URL and an origin that does what it is told; the cases follow
//! the families of the public suite of tests for HTTP caches.

mod conditional;
mod freshness;
mod reuse;
mod robustness;
mod stale;
mod update;

use std::time::Duration;

use gatewright_determinism::Time;

use super::*;

pub(super) type Lines = Vec<(String, Vec<u8>)>;

/// What the origin does with the next request that reaches it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// It answers with this status and these fields; a value "@-10" is the date ten seconds ago.
    Answers(u16, &'a [(&'a str, &'a str)]),
    /// It closes the connection.
    Closes,
}

/// What the client got.
#[derive(Debug)]
pub(super) struct Reply {
    /// It came from the store, without a request to the origin.
    pub(super) cached: bool,
    /// Status and fields.
    pub(super) status: u16,
    pub(super) fields: Lines,
    /// What was sent to the origin.
    pub(super) sent: Option<SendAs>,
    /// `Cache-Status`.
    pub(super) said: String,
}

/// One URL behind the rules.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) policy: CachePolicy,
    pub(super) now: Time,
    pub(super) store: Vec<(StoredResponse, Lines)>,
    pub(super) refreshing: Option<SendAs>,
}

/// 2026-11-21 00:00:00 UTC.
const START: WallAnchor = WallAnchor { unix_nanos_at_start: 1_795_219_200_000_000_000 };
const TARGET: Target<'_> = Target { scheme: "http", authority: "host", path: "/a", query: None };
/// Bytes of every body.
pub(super) const BODY: u64 = 11;

impl Relay {
    pub(super) fn new(policy: CachePolicy) -> Self {
        Self { policy, now: Time::ZERO, store: Vec::new(), refreshing: None }
    }

    pub(super) fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.now, anchor: START }
    }

    /// Field lines as they would come now.
    pub(super) fn lines(&self, fields: &[(&str, &str)]) -> Lines {
        let value = |value: &str| match value.strip_prefix('@').map(str::parse::<i64>) {
            Some(Ok(seconds)) => date::format(self.moment().unix_seconds() + seconds),
            _ => value.to_owned(),
        };
        let line = |(name, text): &(&str, &str)| (name.to_lowercase(), value(text).into_bytes());
        fields.iter().map(line).collect()
    }

    pub(super) fn get(&mut self, request: &[(&str, &str)], origin: Origin<'_>) -> Reply {
        self.send("GET", request, origin)
    }

    pub(super) fn send(
        &mut self,
        method: &str,
        request: &[(&str, &str)],
        origin: Origin<'_>,
    ) -> Reply {
        let policy = self.policy.clone();
        let lines = self.lines(request);
        let request = Request::read(method, &lines, &policy);
        let metas: Vec<_> = self.store.iter().map(|(meta, _)| meta.clone()).collect();
        let found = Found { variants: &metas, fetching: false, uncacheable: false };
        match decide(&request, &found, self.moment()) {
            Plan::Serve(serve) => {
                self.refreshing.clone_from(&serve.revalidate);
                self.serve(&serve)
            }
            Plan::NotCached => Reply::new(504, Lines::new(), None, String::new()),
            Plan::Collapse => panic!("nothing is under way"),
            Plan::Forward(forward) => self.forward(&request, &metas, forward, origin),
        }
    }

    fn serve(&self, serve: &Serve) -> Reply {
        let (meta, fields) = &self.store[serve.variant];
        let mut reply =
            Reply::new(meta.status, fields.clone(), None, serve.status.named("c").to_string());
        reply.cached = true;
        reply.fields.push(("age".to_owned(), serve.age.as_secs().to_string().into_bytes()));
        reply.shaped(serve.shape)
    }

    fn forward(
        &mut self,
        request: &Request<'_, Lines>,
        metas: &[StoredResponse],
        forward: Forward,
        origin: Origin<'_>,
    ) -> Reply {
        let said = forward.status().named("c").to_string();
        let failure = match origin {
            Origin::Answers(status, _) => Failure::Status(status),
            Origin::Closes => Failure::Broken,
        };
        let stale = forward
            .fallback
            .and_then(|index| on_failure(request, index, &metas[index], failure, self.moment()));
        if let Some(serve) = stale {
            return self.serve(&serve);
        }
        let Origin::Answers(status, fields) = origin else {
            return Reply::new(502, Lines::new(), Some(forward.send), said);
        };
        let lines = self.lines(fields);
        let exchange = Exchange {
            request,
            target: TARGET,
            status,
            response: &lines,
            sent: self.now,
            received: self.now,
            anchor: START,
        };
        if let (304, SendAs::Conditional(conditions)) = (status, &forward.send) {
            return match conditions.confirmed(metas, &lines) {
                Some(index) => self.confirmed(&exchange, index, forward.send),
                None => Reply::new(304, lines.clone(), Some(forward.send), said),
            };
        }
        self.changed(&exchange, metas, forward.fallback);
        let mut reply = Reply::new(status, lines.clone(), Some(forward.send), said);
        let stored = if forward.store { storing(&exchange, &self.policy) } else { return reply };
        match stored {
            Storing::Store { mut stored, fields } => {
                stored.length = Some(BODY);
                if reply.sent != Some(SendAs::AsReceived) {
                    reply = reply.shaped(request.shape_of(&stored, self.moment()));
                }
                self.put(*stored, &lines, &fields);
            }
            Storing::Refuse(refusal) => reply.said.push_str(refusal.as_str()),
        }
        reply
    }

    /// What a 304 makes of the stored response that it confirms.
    fn confirmed(
        &mut self,
        exchange: &Exchange<'_, Lines, Lines>,
        index: usize,
        sent: SendAs,
    ) -> Reply {
        let (old, old_fields) = self.store[index].clone();
        let (fields, outcome) = freshen(exchange, &old, &old_fields, &self.policy);
        let mut reply = Reply::new(old.status, fields.clone(), Some(sent), String::new());
        match outcome {
            Storing::Store { stored, fields: kept } => {
                reply = reply.shaped(exchange.request.shape_of(&stored, self.moment()));
                self.put(*stored, &fields, &kept);
            }
            Storing::Refuse(_) => drop(self.store.remove(index)),
        }
        reply
    }

    /// What unsafe methods and HEAD make of what is stored.
    fn changed(
        &mut self,
        exchange: &Exchange<'_, Lines, Lines>,
        metas: &[StoredResponse],
        selected: Option<usize>,
    ) {
        let method = exchange.request.method();
        let gone = invalidated(method, exchange.status, &TARGET, exchange.response);
        if gone.iter().any(|url| url.as_target().same_as(&TARGET)) {
            self.store.clear();
        }
        let (Method::Head, Some(index)) = (method, selected) else { return };
        match head_effect(&metas[index], exchange.status, exchange.response) {
            HeadEffect::Freshen => {
                let get = Request::read("GET", exchange.request.fields(), &self.policy.clone());
                let exchange = Exchange { request: &get, ..*exchange };
                self.confirmed(&exchange, index, SendAs::Whole);
            }
            HeadEffect::Expire => self.store[index].0.expire(self.now),
            HeadEffect::Nothing => {}
        }
    }

    fn put(&mut self, stored: StoredResponse, lines: &Lines, kept: &StoredFields) {
        self.store.retain(|(other, _)| !other.selecting.same_as(&stored.selecting));
        let lines = lines.iter().filter(|(name, _)| kept.keeps(name)).cloned().collect();
        self.store.push((stored, lines));
    }
}

impl Reply {
    fn new(status: u16, fields: Lines, sent: Option<SendAs>, said: String) -> Self {
        Self { cached: false, status, fields, sent, said }
    }

    fn shaped(mut self, shape: Shape) -> Self {
        match shape {
            Shape::Whole => {}
            Shape::NotModified => {
                self.status = 304;
                self.fields.retain(|(name, _)| in_not_modified(name));
            }
            Shape::Part(part) => {
                self.status = 206;
                let range = part.content_range().into_bytes();
                self.fields.push(("content-range".to_owned(), range));
            }
            Shape::NotSatisfiable { .. } => self.status = 416,
        }
        self
    }

    /// The value of a field, if there is one.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.first(name).map(|value| std::str::from_utf8(value).unwrap())
    }

    /// `If-None-Match` of what was sent to the origin.
    pub(super) fn asked_etag(&self) -> Option<&str> {
        let Some(SendAs::Conditional(conditions)) = &self.sent else { return None };
        conditions.if_none_match.as_deref().map(|value| std::str::from_utf8(value).unwrap())
    }
}

/// The policy that follows the responses alone.
pub(super) fn standard() -> CachePolicy {
    CachePolicy::default()
}

/// A policy from its text.
pub(super) fn policy(text: &str) -> CachePolicy {
    toml::from_str::<CachePolicy>(text).unwrap().checked().unwrap()
}

/// Whether a response that came three seconds ago answers the same request.
pub(super) fn reused(policy: &CachePolicy, status: u16, fields: &[(&str, &str)]) -> bool {
    let mut relay = Relay::new(policy.clone());
    relay.get(&[], Origin::Answers(status, fields));
    relay.wait(3.0);
    relay.get(&[], Origin::Answers(200, &[])).cached
}
