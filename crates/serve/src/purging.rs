//! Operations on the cache: `GET /system/cache`, `POST /system/cache/purge`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gatewright_control::cache::{KeyRules, PrimaryKey, Target};
use serde::Deserialize;

use crate::plane::Plane;
use crate::store::{Matcher, Stats};

/// What to purge: one of the three.
#[derive(Debug, Deserialize)]
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

/// The operations on the cache.
pub(crate) fn router<S>(plane: Arc<Plane>) -> Router<S> {
    Router::new()
        .route("/system/cache", get(show))
        .route("/system/cache/purge", post(purge))
        .with_state(plane)
}

async fn show(State(plane): State<Arc<Plane>>) -> Json<Stats> {
    Json(plane.store.stats())
}

async fn purge(State(plane): State<Arc<Plane>>, Json(wish): Json<Purge>) -> Response {
    let soft = wish.soft;
    match matcher(wish) {
        Ok(matcher) => {
            let purged = plane.store.purge(matcher, soft);
            tracing::info!(purged, soft, "purged");
            Json(serde_json::json!({ "purged": purged })).into_response()
        }
        Err(error) => {
            (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "error": error }))).into_response()
        }
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
