//! Where settings come from: the file, over it variables of the environment, over them flags.

use std::path::{Path, PathBuf};

use gatewright_control::config::{Override, SystemFile};

use crate::failure::{Failure, Outcome};

/// The file that a system is described in unless another is named.
pub(crate) const SYSTEM_FILE: &str = "gatewright.toml";

const PREFIX: &str = "GATEWRIGHT_";
const BENCH_PREFIX: &str = "GATEWRIGHT_BENCH__";

/// A system file and where it lies; relative paths in it start there.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) path: PathBuf,
    pub(crate) system: SystemFile,
}

/// Reads a system file with the environment's and the flags' overrides applied.
pub(crate) fn load(path: &Path, set: &[Override]) -> Outcome<Loaded> {
    let text = read(path)?;
    let overrides: Vec<_> =
        from_environment(std::env::vars()).into_iter().chain(set.to_vec()).collect();
    let system =
        SystemFile::parse(&text, &overrides).map_err(|fault| Failure::of_config(path, fault))?;
    Ok(Loaded { path: path.to_owned(), system })
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|fault| {
        let failure = Failure::of_reading(path, &fault);
        if fault.kind() == std::io::ErrorKind::NotFound && path == Path::new(SYSTEM_FILE) {
            return failure.hint("go to the folder that has it, or name it: gatewright ... FILE");
        }
        failure
    })
}

/// `GATEWRIGHT_GATEWAY__LISTEN=...` is the key `gateway.listen`. Variables without a double underscore are other
/// things' (`GATEWRIGHT_TOKEN`, what Kubernetes sets for a service called gatewright), and those of benchmarks too.
fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Vec<Override> {
    named(variables.filter(|(name, _)| !name.starts_with(BENCH_PREFIX)), PREFIX)
}

/// `GATEWRIGHT_BENCH__CLIENT__THREADS=2` is the key `client.threads` of a benchmark.
pub(crate) fn of_benchmarks(variables: impl Iterator<Item = (String, String)>) -> Vec<Override> {
    let all = variables.filter(|(name, _)| name.starts_with(BENCH_PREFIX));
    // What comes after the first two words is the key.
    named(all, "GATEWRIGHT_")
        .into_iter()
        .map(|mut change| {
            change.key.replace_range(.."bench.".len(), "");
            change
        })
        .collect()
}

fn named(variables: impl Iterator<Item = (String, String)>, prefix: &str) -> Vec<Override> {
    let mut overrides: Vec<_> = variables
        .filter_map(|(name, value)| {
            let key = name.strip_prefix(prefix)?;
            key.contains("__").then(|| {
                Override::new(key.to_ascii_lowercase().replace("__", "."), &value, name.clone())
            })
        })
        .collect();
    // The environment has no order of its own.
    overrides.sort_by(|a, b| a.key.cmp(&b.key));
    overrides
}

/// Reads `key=value` of a `--set` flag.
pub(crate) fn parse_set(text: &str) -> Result<Override, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok(Override::new(key.trim(), value.trim(), "--set"))
        }
        _ => Err("write key=value, such as gateway.listen=127.0.0.1:9000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn double_underscores_are_dots_and_other_variables_are_left_alone() {
        let variables = [
            ("GATEWRIGHT_GATEWAY__LISTEN", "127.0.0.1:1"),
            ("GATEWRIGHT_FUNCTION__SQUARE__REPLICAS__MAX", "16"),
            ("GATEWRIGHT_TOKEN", "secret"),
            ("GATEWRIGHT_SERVICE_HOST", "10.0.0.1"),
            ("GATEWRIGHT_BENCH__CLIENT__THREADS", "2"),
            ("HOME", "/root"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let of_bench = of_benchmarks(variables.clone().into_iter());
        assert_eq!(of_bench.len(), 1);
        assert_eq!(
            (of_bench[0].key.as_str(), of_bench[0].value.as_integer()),
            ("client.threads", Some(2))
        );
        let overrides = from_environment(variables.into_iter());
        let keys: Vec<_> = overrides.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["function.square.replicas.max", "gateway.listen"]);
        assert_eq!(overrides[0].value.as_integer(), Some(16));
        assert_eq!(overrides[0].source, "GATEWRIGHT_FUNCTION__SQUARE__REPLICAS__MAX");
    }

    #[test]
    fn set_needs_a_key_and_a_value() {
        assert_eq!(parse_set("a.b = 3").unwrap().value.as_integer(), Some(3));
        assert_eq!(parse_set("a.b=").unwrap().value.as_str(), Some(""));
        assert!(parse_set("a.b").is_err());
        assert!(parse_set("=3").is_err());
    }
}
