//! API keys: who a request comes from, and whether it may be made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatewright_control::config::{ApiKey, SecretPlace, SystemFile};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use subtle::{Choice, ConstantTimeEq};

use crate::ServeError;
use crate::metrics::Metrics;

/// The header of an API key.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The API keys of the system file, and who asks for one.
#[derive(Debug)]
pub(crate) struct Access {
    /// As they stand in the file, without their secrets.
    pub(crate) described: BTreeMap<String, ApiKey>,
    /// Replaced when they are read anew.
    keys: RwLock<Vec<Arc<Key>>>,
    /// From where their files are looked for.
    base_dir: PathBuf,
    /// Names of those that are asked for where nothing else is said.
    gateway: Option<Vec<String>>,
    /// Whether they stay in the requests that are passed on.
    pass_on: bool,
}

/// An API key. Its secret is never shown.
pub(crate) struct Key {
    pub(crate) name: Arc<str>,
    secret: Box<[u8]>,
    requests: Counter,
}

/// Whether a request may be made, as far as keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Open,
    /// It presents no key, or none that is known.
    Unknown,
    /// Its key is for something else.
    Forbidden,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the secrets; `base_dir` is the folder of the system file.
    pub(crate) fn read(
        system: &SystemFile,
        base_dir: &Path,
        metrics: &Metrics,
    ) -> Result<Self, ServeError> {
        let count = |name: &str| metrics.key(name);
        Ok(Self {
            described: system.key.clone(),
            keys: RwLock::new(keys(&system.key, base_dir, count)?),
            base_dir: base_dir.to_owned(),
            gateway: system.gateway.keys.clone(),
            pass_on: system.gateway.pass_keys,
        })
    }

    /// Reads the files of secrets anew; if one of them cannot be used, all keys stay what they were.
    pub(crate) fn reload(&self) {
        if self.described.is_empty() {
            return;
        }
        let old = self.keys.read().clone();
        let count = |name: &str| {
            let same = old.iter().find(|key| *key.name == *name);
            same.map(|key| key.requests.clone()).unwrap_or_default()
        };
        match keys(&self.described, &self.base_dir, count) {
            Ok(keys) => {
                *self.keys.write() = keys;
                tracing::info!(keys = old.len(), "the API keys were read anew");
            }
            Err(error) => tracing::error!(%error, "the API keys are not read anew"),
        }
    }

    /// Whether there are keys at all.
    pub(crate) fn is_used(&self) -> bool {
        !self.described.is_empty()
    }

    /// The key that a request presents. Taken out of the request, unless upstreams are to see it: what remains is the
    /// upstream's, and decides alone whether a response may be stored for others (RFC 9111 section 3.5).
    pub(crate) fn identify(&self, headers: &mut HeaderMap) -> Option<Arc<Key>> {
        let keys = self.keys.read();
        let by_header = self.present(&keys, headers, &API_KEY, |value| Some(value));
        let by_token = self.present(&keys, headers, &AUTHORIZATION, bearer);
        let key = by_header.or(by_token)?;
        key.requests.inc();
        Some(Arc::clone(key))
    }

    fn present<'a>(
        &self,
        keys: &'a [Arc<Key>],
        headers: &mut HeaderMap,
        name: &HeaderName,
        read: fn(&[u8]) -> Option<&[u8]>,
    ) -> Option<&'a Arc<Key>> {
        let value = headers.get(name)?;
        let found = find(keys, read(value.as_bytes())?.trim_ascii())?;
        if !self.pass_on {
            headers.remove(name);
        }
        Some(found)
    }

    /// Whether a request with this key may be made; `own` are the keys that the nearest table asks for.
    pub(crate) fn admits(&self, key: Option<&Key>, own: Option<&[String]>) -> Entry {
        let needed = own.or(self.gateway.as_deref()).unwrap_or_default();
        match key {
            _ if needed.is_empty() => Entry::Open,
            None => Entry::Unknown,
            Some(key) if needed.iter().any(|name| name == "*" || **name == *key.name) => {
                Entry::Open
            }
            Some(_) => Entry::Forbidden,
        }
    }
}

/// The keys that are described, with their secrets; `count` has the counter of a key's requests.
fn keys(
    described: &BTreeMap<String, ApiKey>,
    base_dir: &Path,
    count: impl Fn(&str) -> Counter,
) -> Result<Vec<Arc<Key>>, ServeError> {
    let mut keys: Vec<Arc<Key>> = Vec::with_capacity(described.len());
    for (name, key) in described {
        let wrong = |what: String| ServeError::Key { key: name.clone(), what };
        let secret = secret(key, base_dir).map_err(wrong)?;
        if let Some(twin) = keys.iter().find(|other| other.secret == secret) {
            return Err(wrong(format!("it has the secret of key `{}`", twin.name)));
        }
        keys.push(Arc::new(Key { name: name.as_str().into(), secret, requests: count(name) }));
    }
    Ok(keys)
}

/// The key of this secret, in a time that does not tell how much of any of them was right.
fn find<'a>(keys: &'a [Arc<Key>], presented: &[u8]) -> Option<&'a Arc<Key>> {
    let mut found = None;
    for key in keys {
        let same: Choice = key.secret.ct_eq(presented);
        if bool::from(same) {
            found = Some(key);
        }
    }
    found
}

/// What `Authorization: Bearer` presents (RFC 6750 section 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn secret(key: &ApiKey, base_dir: &Path) -> Result<Box<[u8]>, String> {
    let text = match key.place() {
        Some(SecretPlace::Variable(name)) => {
            std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?
        }
        Some(SecretPlace::File(path)) => std::fs::read_to_string(base_dir.join(path))
            .map_err(|error| format!("its secret cannot be read from {path}: {error}"))?,
        None => return Err("`secret` does not say where the secret is".to_owned()),
    };
    let text = text.trim();
    if text.is_empty() {
        return Err("its secret is empty".to_owned());
    }
    // Else no client could ever send it.
    HeaderValue::from_str(text)
        .map_err(|_| "its secret has characters that a header cannot hold".to_owned())?;
    Ok(text.as_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(pass_on: bool) -> Access {
        let key = |name: &str, secret: &str| {
            let (name, secret) = (name.into(), secret.as_bytes().into());
            Arc::new(Key { name, secret, requests: Counter::default() })
        };
        let keys = RwLock::new(vec![key("one", "first secret"), key("two", "second secret")]);
        let (described, base_dir) = (BTreeMap::new(), PathBuf::new());
        Access { described, keys, base_dir, gateway: None, pass_on }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_found_and_taken_out() {
        for (lines, name, left) in [
            (&[("x-api-key", "first secret")][..], Some("one"), 0),
            (&[("authorization", "BEARER second secret ")], Some("two"), 0),
            (&[("authorization", "Basic second secret")], None, 1),
            (&[("x-api-key", "first secre")], None, 1),
            (&[("x-api-key", "first secret2")], None, 1),
            (&[("x-api-key", "")], None, 1),
            (&[], None, 0),
            (&[("x-api-key", "second secret"), ("authorization", "Bearer theirs")], Some("two"), 1),
            (&[("x-api-key", "theirs"), ("authorization", "Bearer first secret")], Some("one"), 1),
            (
                &[("x-api-key", "first secret"), ("authorization", "Bearer second secret")],
                Some("one"),
                0,
            ),
        ] {
            let mut kept = headers(lines);
            let access = access(false);
            let found = access.identify(&mut kept);
            let found = found.as_ref().map(|key| &*key.name);
            assert_eq!((found, kept.len()), (name, left), "{lines:?}");
            let mut all = headers(lines);
            let found = self::access(true).identify(&mut all);
            assert_eq!(found.as_ref().map(|key| &*key.name), name);
            assert_eq!(all.len(), lines.len(), "what is passed on stays");
        }
    }

    #[test]
    fn who_is_admitted_is_what_the_nearest_table_says() {
        let mut access = access(false);
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let entry = |access: &Access, key: Option<usize>, own: Option<Vec<String>>| {
            let keys = access.keys.read();
            access.admits(key.map(|index| &*keys[index]), own.as_deref())
        };
        assert_eq!(entry(&access, None, None), Entry::Open);
        assert_eq!(entry(&access, None, Some(names(&["one"]))), Entry::Unknown);
        assert_eq!(entry(&access, Some(0), Some(names(&["one"]))), Entry::Open);
        assert_eq!(entry(&access, Some(1), Some(names(&["one"]))), Entry::Forbidden);
        access.gateway = Some(names(&["*"]));
        assert_eq!(entry(&access, None, None), Entry::Unknown);
        assert_eq!(entry(&access, Some(1), None), Entry::Open);
        assert_eq!(entry(&access, None, Some(names(&[]))), Entry::Open);
    }

    #[test]
    fn secrets_come_from_files_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.key"), " s3cret\n").unwrap();
        std::fs::write(folder.path().join("b.key"), "s3cret").unwrap();
        std::fs::write(folder.path().join("empty.key"), "\n").unwrap();
        let read = |keys: &[(&str, &str)]| {
            let key = |(name, secret): &(&str, &str)| {
                ((*name).to_owned(), ApiKey { secret: (*secret).to_owned() })
            };
            let system =
                SystemFile { key: keys.iter().map(key).collect(), ..SystemFile::default() };
            Access::read(&system, folder.path(), &Metrics::new()).map_err(|error| error.to_string())
        };
        let access = read(&[("a", "file:a.key")]).unwrap();
        assert!(access.identify(&mut headers(&[("x-api-key", "s3cret")])).is_some());
        assert!(!format!("{access:?}").contains("s3cret"));
        for (keys, wrong) in [
            (&[("a", "file:nowhere.key")][..], "nowhere.key"),
            (&[("a", "env:GATEWRIGHT_NO_SUCH_VARIABLE")], "GATEWRIGHT_NO_SUCH_VARIABLE"),
            (&[("a", "file:empty.key")], "empty"),
            (&[("a", "file:a.key"), ("b", "file:b.key")], "secret of key `a`"),
        ] {
            let error = read(keys).unwrap_err();
            assert!(error.contains(wrong) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn secrets_are_read_anew_all_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, secret: &str| {
            std::fs::write(folder.path().join(name), secret).unwrap();
        };
        write("a.key", "a1");
        write("b.key", "b1");
        let key = |name: &str| (name.to_owned(), ApiKey { secret: format!("file:{name}.key") });
        let system = SystemFile { key: [key("a"), key("b")].into(), ..SystemFile::default() };
        let metrics = Metrics::new();
        let access = Access::read(&system, folder.path(), &metrics).unwrap();
        let known = |secrets: [&str; 4]| {
            secrets.map(|secret| access.identify(&mut headers(&[("x-api-key", secret)])).is_some())
        };
        let all = ["a1", "b1", "a2", "b2"];
        write("a.key", "a2");
        write("b.key", " ");
        access.reload();
        assert_eq!(known(all), [true, true, false, false], "one of them is empty");
        write("b.key", "a2");
        access.reload();
        assert_eq!(known(all), [true, true, false, false], "they are the same");
        write("b.key", "b2");
        access.reload();
        assert_eq!(known(all), [false, false, true, true]);
        assert_eq!(metrics.key("a").get(), 3, "it goes on counting");
    }
}
