//! Operations on the cache: `GET /system/cache`, `GET /system/cache/keys`, `GET /system/cache/key`, `POST
//! /system/cache/purge`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gatewright_control::cache::{KeyRules, PrimaryKey, Target};
use gatewright_determinism::Time;
use serde::{Deserialize, Serialize};

use crate::plane::Plane;
use crate::store::{self, Line, Matcher, Stats};

/// What to purge: one of the three.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    /// All variants of a URL; of a path and query, at any host.
    url: Option<String>,
    /// All that carry a tag.
    tag: Option<String>,
    /// All URLs, or all paths, that begin so.
    prefix: Option<String>,
    /// Only makes them stale: they are validated before they are next served.
    #[serde(default)]
    soft: bool,
}

/// Which keys to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    tag: Option<String>,
    prefix: Option<String>,
    limit: Option<usize>,
}

/// Which key to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    url: String,
}

/// A key in memory.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    key: String,
    bytes: usize,
    responses: Vec<Stored>,
}

/// A stored response.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    status: u16,
    /// Seconds.
    age: u64,
    /// Seconds that it is fresh; negative since it is stale.
    ttl: i64,
    /// Bytes of its body.
    length: u64,
    tags: Vec<String>,
    /// Request fields that it varies by.
    vary: Vec<String>,
    headers: Vec<(String, String)>,
}

/// What became of a wish to purge.
#[derive(Debug, Serialize)]
struct Purged {
    /// Responses in this gateway's memory.
    purged: usize,
    /// Whether the gateways that share a tier with this one were told; they will be as soon as they can, else.
    #[serde(skip_serializing_if = "Option::is_none")]
    told: Option<bool>,
}

/// The operations on the cache.
pub(crate) fn router<S>(plane: Arc<Plane>) -> Router<S> {
    Router::new()
        .route("/system/cache", get(show))
        .route("/system/cache/keys", get(list))
        .route("/system/cache/key", get(look))
        .route("/system/cache/purge", post(purge))
        .with_state(plane)
}

async fn show(State(plane): State<Arc<Plane>>) -> Json<Stats> {
    Json(plane.store.stats())
}

/// Keys that are shown unless the wish says how many, and at most.
const SHOWN: [usize; 2] = [100, 10_000];

async fn list(State(plane): State<Arc<Plane>>, Query(which): Query<Which>) -> Response {
    let most = which.limit.unwrap_or(SHOWN[0]).min(SHOWN[1]);
    let wish = match (which.tag, which.prefix) {
        (Some(tag), None) => Purge { tag: Some(tag), ..Purge::default() },
        (None, prefix) => {
            Purge { prefix: Some(prefix.unwrap_or_else(|| "/".to_owned())), ..Purge::default() }
        }
        (Some(_), Some(_)) => return wrong("give `tag` or `prefix`"),
    };
    shown(&plane, wish, most)
}

async fn look(State(plane): State<Arc<Plane>>, Query(one): Query<One>) -> Response {
    shown(&plane, Purge { url: Some(one.url), ..Purge::default() }, SHOWN[1])
}

fn shown(plane: &Plane, wish: Purge, most: usize) -> Response {
    match matcher(wish) {
        Ok(matcher) => {
            let found = plane.store.find(&matcher, most);
            let now = plane.store.moment().now;
            let keys = found.iter().map(|(key, line)| described(key, line, now));
            Json(keys.collect::<Vec<Key>>()).into_response()
        }
        Err(error) => wrong(error),
    }
}

fn described(key: &str, line: &Line, now: Time) -> Key {
    let responses = line.variants.iter().map(|variant| {
        let entry = &variant.0;
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Stored {
            status: entry.meta.status,
            age: entry.meta.age(now).as_secs(),
            ttl: entry.meta.ttl(now),
            length: entry.meta.length.unwrap_or_default(),
            tags: entry.meta.tags.clone(),
            vary: entry.meta.selecting.names().map(str::to_owned).collect(),
            headers: entry
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        }
    });
    Key { key: key.to_owned(), bytes: line.weight(key), responses: responses.collect() }
}

fn wrong(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "error": error }))).into_response()
}

async fn purge(State(plane): State<Arc<Plane>>, Json(wish): Json<Purge>) -> Response {
    let soft = wish.soft;
    match matcher(wish) {
        Ok(matcher) => {
            let purged = plane.store.purge(store::Purge { matcher, soft });
            tracing::info!(purged, soft, "purged");
            let told = plane.store.tiers().settle().await;
            Json(Purged { purged, told }).into_response()
        }
        Err(error) => wrong(error),
    }
}

fn matcher(wish: Purge) -> Result<Matcher, &'static str> {
    match (wish.url, wish.tag, wish.prefix) {
        (Some(url), None, None) => by_url(&url),
        (None, Some(tag), None) if !tag.is_empty() => Ok(Matcher::Tag(tag)),
        (None, None, Some(start)) if start.starts_with('/') || start.contains("://") => {
            Ok(Matcher::Prefix(start))
        }
        (None, None, Some(_)) => Err("a prefix begins with `/`, or with `http://` and a host"),
        _ => Err("give one of `url`, `tag` and `prefix`"),
    }
}

/// A URL is normalised as the keys of the store are.
fn by_url(url: &str) -> Result<Matcher, &'static str> {
    const WRONG: &str = "a url begins with `/`, or with `http://` and a host";
    let (scheme, rest) = match url.split_once("://") {
        Some(parts) => parts,
        None if url.starts_with('/') => ("http", url),
        None => return Err(WRONG),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let any_host = authority.is_empty();
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let authority = if any_host { "any" } else { authority };
    let none: [(&str, &str); 0] = [];
    let target = Target { scheme, authority, path, query };
    let key = PrimaryKey::of(&target, &none[..], &KeyRules::default()).ok_or("it is too long")?;
    Ok(match any_host {
        true => Matcher::Path(key.url().trim_start_matches("http://any").to_owned()),
        false => Matcher::Url(key.url().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Matcher, &'static str> {
        matcher(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn urls_are_normalised_as_keys_are() {
        let url = |url: &str| read(&format!("{{\"url\":\"{url}\"}}"));
        assert_eq!(url("/a%41?b"), Ok(Matcher::Path("/aA?b".to_owned())));
        assert_eq!(url("HTTP://Host:80"), Ok(Matcher::Url("http://host/".to_owned())));
        assert!(url("a/b").is_err());
    }

    #[test]
    fn one_thing_at_a_time() {
        assert_eq!(read(r#"{"tag":"t"}"#), Ok(Matcher::Tag("t".to_owned())));
        assert_eq!(read(r#"{"prefix":"/a"}"#), Ok(Matcher::Prefix("/a".to_owned())));
        assert!(read(r#"{"prefix":"a"}"#).is_err());
        assert!(read("{}").is_err());
        assert!(read(r#"{"url":"/a","tag":"t"}"#).is_err());
    }
}
