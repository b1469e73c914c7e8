//! Stored responses as bytes, for the tiers that outlive a gateway or are read by others.
//!
//! ```text
//! "GWR" version(1)  checksum(4)  length of head(4)  length of body(8)  head (msgpack)  body
//! ```
//!
//! Numbers are little-endian. The checksum (CRC-32) is of everything behind it. What has another version is not
//! read, and what was torn has another checksum; both are as good as not stored.

use bytes::{BufMut, Bytes, BytesMut};
use gatewright_control::cache::{Moment, StoredResponse, WallAnchor};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::{Content, Entry, Marks};

const MAGIC: [u8; 3] = *b"GWR";
/// Raised with every change of what follows, [`StoredResponse`] included.
const VERSION: u8 = 1;
/// Bytes before the head.
const PREFIX: usize = 20;
/// Bytes before what the checksum is of.
const UNCHECKED: usize = 8;

/// A response that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) key: String,
    pub(super) entry: Entry,
    /// Bytes that it took.
    pub(super) length: usize,
}

/// Why bytes are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is not one of ours")]
    Foreign,
    #[error("it was written by another version")]
    Version,
    #[error("it is torn")]
    Torn,
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    anchor: WallAnchor,
    meta: StoredResponse,
    fields: Vec<(String, Vec<u8>)>,
    marks: Marks,
}

/// Writes a whole response; `None` if it is still coming in.
pub(super) fn write(key: &str, entry: &Entry, anchor: WallAnchor) -> Option<Bytes> {
    let Content::Whole(body) = &entry.body else { return None };
    let field =
        |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    let head = Head {
        key: key.into(),
        anchor,
        meta: entry.meta.clone(),
        fields: entry.headers.iter().map(field).collect(),
        marks: entry.marks,
    };
    let head = rmp_serde::to_vec(&head).expect("plain data is always msgpack");
    let mut bytes = BytesMut::with_capacity(PREFIX + head.len() + body.len());
    bytes.put_slice(&MAGIC);
    bytes.put_u8(VERSION);
    bytes.put_u32_le(0);
    bytes.put_u32_le(u32::try_from(head.len()).ok()?);
    bytes.put_u64_le(body.len() as u64);
    bytes.put_slice(&head);
    bytes.put_slice(body);
    let checksum = crc32fast::hash(&bytes[UNCHECKED..]);
    bytes[4..UNCHECKED].copy_from_slice(&checksum.to_le_bytes());
    Some(bytes.freeze())
}

/// Reads the response at the beginning of `bytes`, for a run that is at `moment`.
pub(super) fn read(bytes: &Bytes, moment: Moment) -> Result<Read, Unreadable> {
    let prefix: &[u8; PREFIX] = bytes.first_chunk().ok_or(Unreadable::Torn)?;
    if prefix[..3] != MAGIC {
        return Err(Unreadable::Foreign);
    }
    if prefix[3] != VERSION {
        return Err(Unreadable::Version);
    }
    let number = |from: usize| u32::from_le_bytes([0, 1, 2, 3].map(|at| prefix[from + at]));
    let body = u64::from(number(12)) | u64::from(number(16)) << 32;
    let head_end = PREFIX.checked_add(number(8) as usize).ok_or(Unreadable::Torn)?;
    let length = usize::try_from(body).ok().and_then(|body| head_end.checked_add(body));
    let length = length.filter(|length| *length <= bytes.len()).ok_or(Unreadable::Torn)?;
    if crc32fast::hash(&bytes[UNCHECKED..length]) != number(4) {
        return Err(Unreadable::Torn);
    }
    let head: Head<'_> =
        rmp_serde::from_slice(&bytes[PREFIX..head_end]).map_err(|_| Unreadable::Torn)?;
    let mut headers = HeaderMap::with_capacity(head.fields.len());
    for (name, value) in &head.fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unreadable::Torn)?;
        headers.append(name, HeaderValue::from_bytes(value).map_err(|_| Unreadable::Torn)?);
    }
    let meta = head.meta.rebase(head.anchor, moment.anchor, moment.now);
    let body = Content::Whole(bytes.slice(head_end..length));
    let entry = Entry::new(meta, headers, body, head.marks);
    Ok(Read { key: head.key.into_owned(), entry, length })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatewright_control::cache::{CachePolicy, Exchange, Request, Storing, Target, storing};
    use gatewright_determinism::Time;

    use super::*;

    fn entry() -> Entry {
        let policy = CachePolicy::default();
        let fields = [("accept-language", "de")];
        let request = Request::read("GET", &fields[..], &policy);
        let response = [
            ("cache-control", "max-age=60, stale-if-error=5"),
            ("etag", "\"a\""),
            ("vary", "accept-language"),
            ("cache-tag", "menus"),
        ];
        let exchange = Exchange {
            request: &request,
            target: Target { scheme: "http", authority: "h", path: "/", query: None },
            status: 200,
            response: &response[..],
            sent: Time::ZERO,
            received: Time::from_secs_f64(1.0),
            anchor: anchor(0),
        };
        let Storing::Store { stored, .. } = storing(&exchange, &policy) else { panic!() };
        let headers = [("etag", "\"a\""), ("set-cookie", "a"), ("set-cookie", "b")];
        let headers = headers
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let body = Content::Whole(Bytes::from_static(b"hello"));
        Entry::new(*stored, headers.collect(), body, Marks { local: 3, shared: (7, 1) })
    }

    fn anchor(seconds: u64) -> WallAnchor {
        WallAnchor { unix_nanos_at_start: 1_795_219_200_000_000_000 + seconds * 1_000_000_000 }
    }

    #[test]
    fn comes_back_as_it_was_but_older() {
        let bytes = write("http://h/", &entry(), anchor(0)).unwrap();
        let later = Moment { now: Time::from_secs_f64(2.0), anchor: anchor(10) };
        let read = read(&bytes, later).unwrap();
        assert_eq!((read.key.as_str(), read.length), ("http://h/", bytes.len()));
        assert_eq!(read.entry.meta.age(later.now), Duration::from_secs(12));
        assert_eq!(read.entry.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(read.entry.marks, Marks { local: 3, shared: (7, 1) });
        assert_eq!(read.entry.meta.selecting, entry().meta.selecting);
        let Content::Whole(body) = read.entry.body else { panic!() };
        assert_eq!(body, "hello");
    }

    #[test]
    fn what_is_torn_or_foreign_is_not_read() {
        let whole = write("http://h/", &entry(), anchor(0)).unwrap();
        let moment = Moment { now: Time::ZERO, anchor: anchor(0) };
        for length in 0..whole.len() {
            assert!(read(&whole.slice(..length), moment).is_err(), "{length}");
        }
        for place in 0..whole.len() {
            let mut torn = whole.to_vec();
            torn[place] ^= 0x10;
            assert!(read(&torn.into(), moment).is_err(), "{place}");
        }
        let mut newer = whole.to_vec();
        newer[3] += 1;
        assert_eq!(read(&newer.into(), moment).unwrap_err(), Unreadable::Version);
        assert_eq!(
            read(&Bytes::from_static(&[b'x'; 64]), moment).unwrap_err(),
            Unreadable::Foreign
        );
    }

    /// It fails when what is written changes: then raise `VERSION`, and change the number here.
    #[test]
    fn what_is_written_changes_with_the_version() {
        let bytes = write("http://h/", &entry(), anchor(0)).unwrap();
        assert_eq!((VERSION, crc32fast::hash(&bytes)), (1, 1_518_069_743));
    }
}
