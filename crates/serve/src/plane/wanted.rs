use std::sync::Arc;

use gatewright_control::cache::{
    CachePolicy, CacheStatus, Part, PrimaryKey, Request, SendAs, Shape, Target, in_not_modified,
    is_own,
};
use gatewright_control::compress::Coding;
use gatewright_determinism::Time;
use http::header::{ACCEPT_ENCODING, AGE, CONTENT_LENGTH, CONTENT_RANGE, EXPECT, HOST, TRAILER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

use super::{Asked, Plane};
use crate::answer::{Body, Shared};
use crate::function::Function;
use crate::headers::{CACHE_STATUS, FieldsOf, REQUEST_ID};
use crate::route::Route;
use crate::squeeze::describe;
use crate::store::{Content, Entry, Reader};
use crate::upstream::Outgoing;

/// What this cache is called in `Cache-Status`.
const NAME: &str = "gatewright";

/// A request that the store may answer.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) route: Arc<Route>,
    pub(super) function: Arc<Function>,
    /// Where it goes if the store does not answer it.
    pub(super) upstream: Uri,
    pub(super) parts: Parts,
    pub(super) asked: Asked,
    /// When its client gets no answer any more.
    pub(super) deadline: Time,
}

impl Wanted {
    pub(super) fn policy(&self) -> &CachePolicy {
        self.route.cache.as_ref().expect("only requests of cached routes come here")
    }

    pub(super) fn fields(&self) -> FieldsOf<'_> {
        FieldsOf(&self.parts.headers)
    }

    pub(super) fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    pub(super) fn target(&self) -> Target<'_> {
        target(&self.parts)
    }

    pub(super) fn key(&self) -> Option<PrimaryKey> {
        PrimaryKey::of(&self.target(), &self.fields(), &self.policy().key)
    }

    pub(super) fn read<'a>(&self, fields: &'a FieldsOf<'a>) -> Request<'a, FieldsOf<'a>> {
        Request::read(self.parts.method.as_str(), fields, self.policy())
    }

    /// The request that goes to the upstream.
    pub(super) fn outgoing(&self, send: &SendAs, plane: &Plane) -> Outgoing {
        let mut headers = self.parts.headers.clone();
        plane.address(&mut headers, &self.asked);
        // It goes without a body.
        headers.remove(TRAILER);
        headers.remove(EXPECT);
        if *send != SendAs::AsReceived {
            let own: Vec<_> =
                headers.keys().filter(|name| is_own(name.as_str())).cloned().collect();
            own.into_iter().for_each(|name| drop(headers.remove(name)));
        }
        if let SendAs::Conditional(conditions) = send {
            for (name, value) in [
                (http::header::IF_NONE_MATCH, &conditions.if_none_match),
                (http::header::IF_MODIFIED_SINCE, &conditions.if_modified_since),
            ] {
                let value = value.as_ref().and_then(|value| HeaderValue::from_bytes(value).ok());
                value.into_iter().for_each(|value| drop(headers.insert(name.clone(), value)));
            }
        }
        if self.route.check.is_some() {
            // What is looked at must be whole and readable.
            for name in [ACCEPT_ENCODING, http::header::RANGE, http::header::IF_RANGE] {
                headers.remove(name);
            }
        }
        let outgoing = Outgoing::new(self.parts.method.clone(), self.upstream.clone(), headers);
        Outgoing { client: self.asked.client.address, ..outgoing }
    }
}

/// Where a request goes, as its client wrote it. Hosts do not share responses: an upstream may make different ones
/// for them.
pub(super) fn target(parts: &Parts) -> Target<'_> {
    let authority = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    };
    Target { scheme: "http", authority, path: parts.uri.path(), query: parts.uri.query() }
}

/// Answers from a stored response. `None` if it is one that still comes in, and its beginning is gone.
pub(super) fn from_entry(
    entry: &Entry,
    shape: Shape,
    age: Option<u64>,
    status: CacheStatus,
    head: bool,
    coding: Option<Coding>,
) -> Option<Response<Body>> {
    let mut response = match shape {
        Shape::Whole => {
            if let Some(coding) = coding
                && let Some(form) = entry.forms.get(coding)
            {
                let fields = form.rendered.fields(age, status, || {
                    let mut fields = rendered(entry, age, status);
                    describe(&mut fields, coding, Some(form.body.len()));
                    fields
                });
                let body = if head { Body::empty() } else { Body::whole(form.body.clone()) };
                let mut response = Response::new(body);
                *response.status_mut() =
                    StatusCode::from_u16(entry.meta.status).unwrap_or_default();
                *response.headers_mut() = HeaderMap::clone(&fields);
                return Some(response);
            }
            let body = match &entry.body {
                _ if head => Body::empty(),
                Content::Whole(bytes) => Body::whole(bytes.clone()),
                Content::Growing(body) => Body::Shared(Box::new(Shared::new(Reader::new(body)?))),
            };
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(entry.meta.status).unwrap_or_default();
            let fields = entry.rendered.fields(age, status, || rendered(entry, age, status));
            *response.headers_mut() = HeaderMap::clone(&fields);
            return Some(response);
        }
        Shape::NotModified => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            let kept = entry.headers.iter().filter(|(name, _)| in_not_modified(name.as_str()));
            *response.headers_mut() =
                kept.map(|(name, value)| (name.clone(), value.clone())).collect();
            response
        }
        Shape::Part(part) => partial(entry, part, head)?,
        Shape::NotSatisfiable { length } => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            set(response.headers_mut(), CONTENT_RANGE, &format!("bytes */{length}"));
            response
        }
    };
    if let Some(age) = age {
        response.headers_mut().insert(AGE, HeaderValue::from(age));
    }
    mark(response.headers_mut(), status);
    Some(response)
}

/// The fields of the answers of a second. There is a place for the request id already, so that the copy that each of
/// them gets need not grow for it.
fn rendered(entry: &Entry, age: Option<u64>, status: CacheStatus) -> HeaderMap {
    let mut fields = entry.headers.clone();
    age.into_iter().for_each(|age| drop(fields.insert(AGE, HeaderValue::from(age))));
    mark(&mut fields, status);
    fields.insert(REQUEST_ID, HeaderValue::from_static(""));
    fields
}

fn partial(entry: &Entry, part: Part, head: bool) -> Option<Response<Body>> {
    let Content::Whole(bytes) = &entry.body else { return None };
    let first = usize::try_from(part.first).ok()?;
    let behind = usize::try_from(part.last).ok()?.checked_add(1)?;
    let bytes = if first < behind && behind <= bytes.len() {
        bytes.slice(first..behind)
    } else {
        return None;
    };
    let length = bytes.len();
    let mut response = Response::new(if head { Body::empty() } else { Body::whole(bytes) });
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    *response.headers_mut() = entry.headers.clone();
    set(response.headers_mut(), CONTENT_RANGE, &part.content_range());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    Some(response)
}

fn set(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("digits and signs are a header value");
    headers.insert(name, value);
}

/// Says what the cache did.
pub(super) fn mark(headers: &mut HeaderMap, status: CacheStatus) {
    let line = HeaderValue::try_from(status.named(NAME).to_string());
    headers.append(CACHE_STATUS, line.expect("its words are a header value"));
}
