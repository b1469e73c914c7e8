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
    purged: u64,
    revalidations: u64,
    fetching: u64,
}

#[derive(Debug, Deserialize)]
struct Purged {
    purged: u64,
}

impl Cache {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        match self.what {
            What::Stats(stats) => stats.run(),
            What::Purge(purge) => purge.run(quiet),
        }
    }
}

impl Stats {
    fn run(self) -> Outcome {
        let answer = self.admin.ask(Method::GET, "/system/cache", Vec::new())?;
        if self.format == Format::Json {
            output::data(&format!("{}\n", String::from_utf8_lossy(&answer.body)))?;
            return Ok(Exit::Done);
        }
        let numbers: Numbers = read(&answer.body)?;
        output::data(&format!(
            "keys           {}\nbytes          {} of {}\nstored         {}\npurged         {}\n\
             revalidations  {}\nfetching       {}\n",
            numbers.keys,
            numbers.bytes,
            numbers.memory,
            numbers.stored,
            numbers.purged,
            numbers.revalidations,
            numbers.fetching
        ))?;
        Ok(Exit::Done)
    }
}

impl Purge {
    fn run(self, quiet: bool) -> Outcome {
        let Which { url, tag, prefix } = self.which;
        let wish =
            serde_json::json!({ "url": url, "tag": tag, "prefix": prefix, "soft": self.soft });
        let body = wish.to_string().into_bytes();
        let answer = self.admin.ask(Method::POST, "/system/cache/purge", body)?;
        let Purged { purged } = read(&answer.body)?;
        if !quiet {
            output::note(&format!("responses purged: {purged}"));
        }
        Ok(Exit::Done)
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Outcome<T> {
    serde_json::from_slice(body)
        .map_err(|fault| Failure::failed(format!("the answer is not understood: {fault}")))
}
