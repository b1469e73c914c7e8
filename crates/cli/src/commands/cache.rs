use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;

use super::Format;
use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;

/// Look at the cache of a running gateway, or purge what it has stored.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright cache stats
  gatewright cache list --prefix /restaurant
  gatewright cache get /restaurant/karolina
  gatewright cache purge --url /restaurant/karolina
  gatewright cache purge --tag menus --soft")]
pub(crate) struct Cache {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show how much is stored.
    Stats(Stats),
    /// List what is stored in memory, by URL.
    List(List),
    /// Show what is stored of a URL, with all its variants.
    Get(Get),
    /// Forget stored responses: those of a URL, those with a tag, or those whose URLs begin alike.
    Purge(Purge),
}

#[derive(Debug, Args)]
struct Stats {
    /// What the numbers are written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Args)]
struct List {
    /// Only what carries this tag.
    #[arg(long, conflicts_with = "prefix")]
    tag: Option<String>,

    /// Only URLs that begin so; all paths at any host, if it begins with a slash.
    #[arg(long)]
    prefix: Option<String>,

    /// Most URLs to list.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,

    /// What the list is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Args)]
struct Get {
    /// The URL; a path and query at any host, if it begins with a slash.
    url: String,

    /// What it is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Args)]
struct Purge {
    #[command(flatten)]
    which: Which,

    /// Only make them stale: they are validated before they are next served.
    #[arg(long)]
    soft: bool,

    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// All variants of this URL; of this path and query at any host, if it begins with a slash.
    #[arg(long)]
    url: Option<String>,

    /// All that carry this tag.
    #[arg(long)]
    tag: Option<String>,

    /// All URLs that begin so; all paths at any host, if it begins with a slash.
    #[arg(long)]
    prefix: Option<String>,
}

/// The numbers that a gateway gives.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Numbers {
    keys: u64,
    bytes: u64,
    memory: u64,
    stored: u64,
    evicted: u64,
    purged: u64,
    revalidations: u64,
    fetching: u64,
    disk: Option<DiskNumbers>,
    shared: Option<SharedNumbers>,
}

#[derive(Debug, Deserialize)]
struct DiskNumbers {
    keys: u64,
    bytes: u64,
    size: u64,
    hits: u64,
    misses: u64,
    written: u64,
    dropped: u64,
    failed: u64,
    torn: u64,
}

#[derive(Debug, Deserialize)]
struct SharedNumbers {
    server: String,
    up: bool,
    hits: u64,
    misses: u64,
    written: u64,
    dropped: u64,
    refused: u64,
    failed: u64,
    waited: u64,
}

/// A key in memory.
#[derive(Debug, Deserialize)]
struct Key {
    key: String,
    bytes: u64,
    responses: Vec<Stored>,
}

#[derive(Debug, Deserialize)]
struct Stored {
    status: u16,
    age: u64,
    ttl: i64,
    length: u64,
    tags: Vec<String>,
    vary: Vec<String>,
    headers: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
struct Purged {
    purged: u64,
    told: Option<bool>,
}

impl Cache {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        match self.what {
            What::Stats(stats) => stats.run(),
            What::List(list) => list.run(quiet),
            What::Get(get) => get.run(),
            What::Purge(purge) => purge.run(quiet),
        }
    }
}

impl Stats {
    fn run(self) -> Outcome {
        let answer = self.admin.ask(Method::GET, "/system/cache", Vec::new())?;
        if self.format == Format::Json {
            return as_json(&answer.body);
        }
        let numbers: Numbers = read(&answer.body)?;
        let mut rows = vec![
            ("keys", numbers.keys.to_string()),
            ("bytes", format!("{} of {}", numbers.bytes, numbers.memory)),
            ("stored", numbers.stored.to_string()),
            ("evicted", numbers.evicted.to_string()),
            ("purged", numbers.purged.to_string()),
            ("revalidations", numbers.revalidations.to_string()),
            ("fetching", numbers.fetching.to_string()),
        ];
        if let Some(disk) = numbers.disk {
            rows.extend([
                ("disk keys", disk.keys.to_string()),
                ("disk bytes", format!("{} of {}", disk.bytes, disk.size)),
                ("disk hits", format!("{} of {}", disk.hits, disk.hits + disk.misses)),
                ("disk written", disk.written.to_string()),
                ("disk faults", (disk.dropped + disk.failed + disk.torn).to_string()),
            ]);
        }
        if let Some(shared) = numbers.shared {
            let state = if shared.up { "up" } else { "down" };
            rows.extend([
                ("shared tier", format!("{} {state}", shared.server)),
                ("shared hits", format!("{} of {}", shared.hits, shared.hits + shared.misses)),
                ("shared written", shared.written.to_string()),
                ("shared waited", shared.waited.to_string()),
                ("shared faults", (shared.dropped + shared.refused + shared.failed).to_string()),
            ]);
        }
        let text: String =
            rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect();
        output::data(&text)?;
        Ok(Exit::Done)
    }
}

impl List {
    fn run(self, quiet: bool) -> Outcome {
        let limit = self.limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(self.tag.as_deref().map(|tag| ("tag", tag)));
        query.extend(self.prefix.as_deref().map(|prefix| ("prefix", prefix)));
        let answer = self.admin.ask(Method::GET, &path("keys", &query), Vec::new())?;
        if self.format == Format::Json {
            return as_json(&answer.body);
        }
        let keys: Vec<Key> = read(&answer.body)?;
        let mut text = String::new();
        for Key { key, bytes, responses } in &keys {
            let ttl = responses.iter().map(|stored| stored.ttl).max().unwrap_or_default();
            let state = match responses.len() {
                0 => "not stored".to_owned(),
                count => format!("{count} stored, ttl {ttl} s, {bytes} bytes"),
            };
            text.push_str(&format!("{}  {state}\n", key.replace('\t', " ")));
        }
        output::data(&text)?;
        if !quiet && keys.len() as u64 == u64::from(self.limit) {
            output::note("there may be more: raise --limit");
        }
        Ok(Exit::Done)
    }
}

impl Get {
    fn run(self) -> Outcome {
        let query = [("url", self.url.as_str())];
        let answer = self.admin.ask(Method::GET, &path("key", &query), Vec::new())?;
        if self.format == Format::Json {
            return as_json(&answer.body);
        }
        let keys: Vec<Key> = read(&answer.body)?;
        let mut text = String::new();
        for Key { key, responses, .. } in &keys {
            for stored in responses {
                text.push_str(&stored.text(key));
            }
        }
        if text.is_empty() {
            return Err(Failure::failed(format!("nothing is stored of {}", self.url)));
        }
        output::data(&text)?;
        Ok(Exit::Done)
    }
}

impl Stored {
    fn text(&self, key: &str) -> String {
        let mut text = format!(
            "{}\n  status {}, age {} s, ttl {} s, {} bytes\n",
            key.replace('\t', " "),
            self.status,
            self.age,
            self.ttl,
            self.length
        );
        for (what, names) in [("tags", &self.tags), ("varies by", &self.vary)] {
            if !names.is_empty() {
                text.push_str(&format!("  {what} {}\n", names.join(", ")));
            }
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("  {name}: {value}\n"));
        }
        text
    }
}

impl Purge {
    fn run(self, quiet: bool) -> Outcome {
        let Which { url, tag, prefix } = self.which;
        let wish =
            serde_json::json!({ "url": url, "tag": tag, "prefix": prefix, "soft": self.soft });
        let body = wish.to_string().into_bytes();
        let answer = self.admin.ask(Method::POST, "/system/cache/purge", body)?;
        let Purged { purged, told } = read(&answer.body)?;
        if !quiet {
            output::note(&format!("responses purged: {purged}"));
        }
        if told == Some(false) {
            output::note("the shared tier does not answer: the other gateways will be told later");
        }
        Ok(Exit::Done)
    }
}

fn as_json(body: &[u8]) -> Outcome {
    output::data(&format!("{}\n", String::from_utf8_lossy(body)))?;
    Ok(Exit::Done)
}

/// Path of an operation on the cache, with what it is asked for.
fn path(operation: &str, query: &[(&str, &str)]) -> String {
    let mut path = format!("/system/cache/{operation}");
    for (index, (name, value)) in query.iter().enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        path.push_str(name);
        path.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    path.push(char::from(byte));
                }
                _ => path.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    path
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Outcome<T> {
    serde_json::from_slice(body)
        .map_err(|fault| Failure::failed(format!("the answer is not understood: {fault}")))
}
