use std::fmt;

/// What is wrong with a file of settings: where, what, and what to do about it. Its display is one line; the hint
/// is beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Line from 1 and column from 1, where the text is at fault.
    pub position: Option<(usize, usize)>,
    /// The part that is at fault, like "function `square`".
    pub at: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl ConfigError {
    /// A fault of the part `at`.
    #[must_use]
    pub fn new(at: impl Into<String>, what: &str, hint: Option<String>) -> Self {
        Self { position: None, at: Some(at.into()), what: what.to_owned(), hint }
    }

    /// The fault that reading `text` as TOML ended with.
    #[must_use]
    pub fn from_toml(text: &str, fault: &toml::de::Error) -> Self {
        let (what, hint) = explain(fault.message());
        Self { position: fault.span().map(|span| position(text, span.start)), at: None, what, hint }
    }
}

/// Line and column, both from 1, of a byte of `text`.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Turns serde's words for an unknown key or variant into ours, with the nearest known one.
fn explain(message: &str) -> (String, Option<String>) {
    let message = message.trim();
    for kind in ["field", "variant"] {
        let Some(rest) = message.strip_prefix(&format!("unknown {kind} `")) else { continue };
        let Some((unknown, expected)) = rest.split_once('`') else { continue };
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let word = if kind == "field" { "key" } else { "value" };
        return (format!("unknown {word} `{unknown}`"), nearest(unknown, known.into_iter()));
    }
    let line = message.lines().collect::<Vec<_>>().join("; ");
    (line, None)
}

/// A hint for a name that is not known: "did you mean ...?" if one of `known` is near, else all of them.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let best = known
        .clone()
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let names: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    match best {
        Some((_, name)) => Some(format!("did you mean `{name}`?")),
        None if names.is_empty() => None,
        None => Some(format!("known are {}", names.join(", "))),
    }
}
