//! Validators: the client's preconditions answered from the store, and stored responses validated at the origin
//! (RFC 9110 sections 8.8 and 13, RFC 9111 section 4.3).

use super::date::{self, Moment};
use super::fields::{Fields, elements};
use super::policy::CachePolicy;
use super::stored::StoredResponse;
use super::storing::{Exchange, StoredFields, Storing, storing};

/// Most entity tags sent in one `If-None-Match`.
const TAGS_MAX: usize = 8;
/// Longest `If-None-Match` that is sent, in bytes.
const TAGS_LENGTH_MAX: usize = 2 * 1024;

/// The conditions of a request that validates stored responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Value of `If-None-Match`.
    pub if_none_match: Option<Vec<u8>>,
    /// Value of `If-Modified-Since`.
    pub if_modified_since: Option<Vec<u8>>,
    /// Indices of the stored responses that a 304 may confirm.
    pub variants: Vec<usize>,
}

/// What a response to HEAD says of the stored response to GET (RFC 9111 section 4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadEffect {
    /// It is still the same: its fields are updated, as after a 304.
    Freshen,
    /// It is another one: what is stored is stale from now on ([`StoredResponse::expire`]).
    Expire,
    /// Nothing.
    Nothing,
}

impl Conditions {
    /// Conditions that validate one stored response; `None` if it has no validator.
    pub(super) fn of<V: AsRef<StoredResponse>>(variants: &[V], one: [usize; 1]) -> Option<Self> {
        let stored = variants[one[0]].as_ref();
        stored.has_validator().then(|| Self {
            if_none_match: stored.etag.as_deref().map(<[u8]>::to_vec),
            if_modified_since: stored.last_modified.as_deref().map(<[u8]>::to_vec),
            variants: one.to_vec(),
        })
    }

    /// Conditions that ask whether one of several stored responses is what a request should have that none was
    /// stored for; `None` if none has an entity tag.
    pub(super) fn by_etag<V: AsRef<StoredResponse>>(variants: &[V]) -> Option<Self> {
        let mut tags: Vec<&[u8]> = Vec::new();
        let mut chosen = Vec::new();
        let mut length = 0;
        for (index, variant) in variants.iter().enumerate().rev() {
            let Some(etag) = variant.as_ref().etag.as_deref() else { continue };
            length += etag.len() + 2;
            if tags.len() == TAGS_MAX || length > TAGS_LENGTH_MAX {
                break;
            }
            chosen.push(index);
            if !tags.contains(&etag) {
                tags.push(etag);
            }
        }
        (!tags.is_empty()).then(|| Self {
            if_none_match: Some(tags.join(&b", "[..])),
            if_modified_since: None,
            variants: chosen,
        })
    }

    /// The stored response that a 304 confirms (RFC 9111 section 4.3.4). `None` if it confirms none that is
    /// stored: the request is then sent again without conditions.
    #[must_use]
    pub fn confirmed<V: AsRef<StoredResponse>, R: Fields + ?Sized>(
        &self,
        variants: &[V],
        response: &R,
    ) -> Option<usize> {
        let newest = |fits: &dyn Fn(&StoredResponse) -> bool| {
            let known =
                self.variants.iter().filter_map(|&index| Some((index, variants.get(index)?)));
            known
                .map(|(index, variant)| (index, variant.as_ref()))
                .filter(|(_, stored)| fits(stored))
                .max_by_key(|(_, stored)| (stored.date, stored.received))
                .map(|(index, _)| index)
        };
        if let Some(etag) = response.first("etag") {
            let strong = !is_weak(etag);
            return newest(&|stored| {
                stored.etag.as_deref().is_some_and(|known| {
                    if strong { known == etag } else { same_weakly(known, etag) }
                })
            });
        }
        match self.variants.as_slice() {
            [_] => newest(&|_| true),
            _ => response
                .first("last-modified")
                .and_then(|value| newest(&|stored| stored.last_modified.as_deref() == Some(value))),
        }
    }
}

/// The fields of a stored response, updated with those of a 304 (RFC 9111 section 3.2): all but those of the
/// connection and those that belong to the stored body. Without a `Date` in the 304, it gets the time at which it
/// came, so that its age counts from then.
#[must_use]
pub fn merged<S: Fields + ?Sized, R: Fields + ?Sized>(
    stored: &S,
    new: &R,
    received: Moment,
) -> Vec<(String, Vec<u8>)> {
    let kept = StoredFields::of(new, &[]);
    let updates = |name: &str| {
        (kept.keeps(name) || name == "age")
            && !matches!(name, "content-length" | "content-encoding" | "content-range")
    };
    let copy = |(name, value): (&str, &[u8])| (name.to_owned(), value.to_vec());
    let mut fields: Vec<_> = stored
        .pairs()
        .filter(|(name, _)| *name != "date" && *name != "age" && !(updates(name) && new.has(name)))
        .map(copy)
        .collect();
    fields.extend(new.pairs().filter(|(name, _)| updates(name)).map(copy));
    if !new.has("date") {
        fields.push(("date".to_owned(), date::format(received.unix_seconds()).into_bytes()));
    }
    fields
}

/// Updates a stored response that a 304 confirmed (or a HEAD, see [`head_effect`]): its fields, and whether it
/// stays stored with them. If its requests are other ones than before ([`Selecting::same_as`]) it is stored
/// beside the old one, with the same body.
///
/// `exchange` holds the 304's fields; its status does not count.
///
/// [`Selecting::same_as`]: super::Selecting::same_as
#[must_use]
pub fn freshen<Q: Fields + ?Sized, R: Fields + ?Sized, S: Fields + ?Sized>(
    exchange: &Exchange<'_, Q, R>,
    old: &StoredResponse,
    old_fields: &S,
    policy: &CachePolicy,
) -> (Vec<(String, Vec<u8>)>, Storing) {
    let received = Moment { now: exchange.received, anchor: exchange.anchor };
    let fields = merged(old_fields, exchange.response, received);
    let merged = Exchange {
        request: exchange.request,
        target: exchange.target,
        status: old.status,
        response: fields.as_slice(),
        sent: exchange.sent,
        received: exchange.received,
        anchor: exchange.anchor,
    };
    let mut outcome = storing(&merged, policy);
    if let Storing::Store { stored, .. } = &mut outcome {
        stored.length = old.length;
    }
    (fields, outcome)
}

/// What a response to HEAD says of the stored response to GET that it would have selected.
#[must_use]
pub fn head_effect<R: Fields + ?Sized>(
    stored: &StoredResponse,
    status: u16,
    response: &R,
) -> HeadEffect {
    if status != 200 || stored.status != 200 {
        return HeadEffect::Nothing;
    }
    let length =
        response.first("content-length").and_then(|value| super::fields::digits(value, u64::MAX));
    let same =
        |said: Option<&[u8]>, known: Option<&[u8]>| said.is_none_or(|said| known == Some(said));
    let same_length = match (length, stored.length) {
        (Some(said), Some(known)) => said == known,
        _ => true,
    };
    if same(response.first("etag"), stored.etag.as_deref())
        && same(response.first("last-modified"), stored.last_modified.as_deref())
        && same_length
    {
        HeadEffect::Freshen
    } else {
        HeadEffect::Expire
    }
}

/// Whether the fields of a 304 made from a stored response include this one (lower case): not those that describe
/// the body, which the client has (RFC 9110 section 15.4.5).
#[must_use]
pub fn in_not_modified(name: &str) -> bool {
    !matches!(
        name,
        "content-length"
            | "content-type"
            | "content-encoding"
            | "content-language"
            | "content-range"
            | "accept-ranges"
    )
}

/// Whether the client has what is stored: its `If-None-Match`, or without one its `If-Modified-Since` (RFC 9110
/// section 13.2.2, RFC 9111 section 4.3.2).
pub(super) fn is_not_modified<Q: Fields + ?Sized>(
    request: &Q,
    stored: &StoredResponse,
    moment: Moment,
) -> bool {
    let mut tags = request.values("if-none-match").flat_map(elements).peekable();
    if request.has("if-none-match") {
        return tags.any(|tag| {
            tag == b"*" || stored.etag.as_deref().is_some_and(|known| same_weakly(known, tag))
        });
    }
    let since = request.first("if-modified-since");
    let since = since.and_then(|value| date::parse(value, moment.unix_seconds()));
    since.is_some_and(|since| stored.modified.unwrap_or(stored.date) <= since)
}

fn is_weak(etag: &[u8]) -> bool {
    etag.starts_with(b"W/")
}

/// Weak comparison of entity tags (RFC 9110 section 8.8.3.2). Tags that are not well-formed are compared as they
/// are.
fn same_weakly(one: &[u8], other: &[u8]) -> bool {
    one.strip_prefix(b"W/").unwrap_or(one) == other.strip_prefix(b"W/").unwrap_or(other)
}

/// Strong comparison: equal, and neither weak.
pub(super) fn same_strongly(one: &[u8], other: &[u8]) -> bool {
    one == other && !is_weak(one)
}
