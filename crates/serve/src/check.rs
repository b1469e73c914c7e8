use std::fmt;
use std::path::Path;

use gatewright_control::config;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use jsonschema::Validator;
use serde_json::Value;

use crate::answer::Refusal;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// What a function is asked with.
    Input,
    /// What a function answers.
    Output,
    /// What an upstream answers on a route.
    Response,
}

/// What bodies must look like.
#[derive(Debug)]
pub(crate) struct Check {
    side: Side,
    /// The file as the system file names it.
    pub(crate) file: String,
    pub(crate) schema: Value,
    validator: Validator,
    /// Status of the answer in place of one that does not fit.
    status: StatusCode,
}

impl Check {
    /// Reads the schema.
    pub(crate) fn read(check: &config::Check, base_dir: &Path, side: Side) -> Result<Self, String> {
        let (path, status) = check.parts();
        let status = status.unwrap_or(match side {
            Side::Input => 422,
            Side::Output => 500,
            Side::Response => 502,
        });
        let text = std::fs::read_to_string(base_dir.join(path))
            .map_err(|error| format!("the schema `{path}` cannot be read: {error}"))?;
        let schema: Value = serde_json::from_str(&text)
            .map_err(|error| format!("the schema `{path}` is no JSON: {error}"))?;
        let validator = jsonschema::validator_for(&schema)
            .map_err(|error| format!("`{path}` is no JSON Schema: {error}"))?;
        let status = StatusCode::from_u16(status).map_err(|error| error.to_string())?;
        Ok(Self { side, file: path.to_owned(), schema, validator, status })
    }

    /// Whether a response has to be looked at: errors speak for themselves.
    pub(crate) fn concerns(&self, status: StatusCode) -> bool {
        status.is_success()
    }

    /// Whether a response fits; if not, the answer in its place.
    pub(crate) fn fits(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(self.refusal("it is encoded, which was not asked for"));
        }
        let json: Value = serde_json::from_slice(body)
            .map_err(|error| self.refusal(&format!("it is no JSON: {error}")))?;
        self.fits_value(&json)
    }

    /// Whether a value fits; if not, the answer in its place.
    pub(crate) fn fits_value(&self, json: &Value) -> Result<(), Refusal> {
        self.validator.validate(json).map_err(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "its top" } else { &place };
            self.refusal(&format!("at {place}: {}", error.masked()))
        })
    }

    /// The answer in place of a body that is wrong in this way.
    pub(crate) fn refusal(&self, what: &str) -> Refusal {
        let subject = match self.side {
            Side::Input => "the request's body is not what the function takes",
            Side::Output => "the function's answer is not as expected",
            Side::Response => "the upstream's response is not as expected",
        };
        let hint = match self.side {
            Side::Input => format!("it must fit the JSON Schema {}", self.file),
            Side::Output => format!("the function, or its schema {}, is wrong", self.file),
            Side::Response => {
                "what was asked for may not exist, or the upstream may have changed".to_owned()
            }
        };
        Refusal::new(self.status, format!("{subject}: {what}")).hint(hint)
    }

    /// Which side it looks at.
    pub(crate) fn side(&self) -> Side {
        self.side
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Response => "response",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &str) -> Result<Check, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s.json"), schema).unwrap();
        let config = config::Check::WithStatus { schema: "s.json".to_owned(), status: 404 };
        Check::read(&config, folder.path(), Side::Response)
    }

    #[test]
    fn says_what_does_not_fit_and_where() {
        let schema = r#"{"type":"object","required":["a"],"properties":{"a":{"type":"integer"}}}"#;
        let check = check(schema).unwrap();
        let fits = |body: &str| check.fits(&HeaderMap::new(), body.as_bytes());
        fits(r#"{"a":1}"#).unwrap();
        let wrong = fits(r#"{"a":"x"}"#).unwrap_err();
        assert_eq!(wrong.status, StatusCode::NOT_FOUND);
        assert!(wrong.error.contains("at /a: "), "{}", wrong.error);
        assert!(fits("{}").unwrap_err().error.contains("at its top: "));
        assert!(fits("<html>").unwrap_err().error.contains("it is no JSON"));
    }

    #[test]
    fn a_schema_that_is_none_is_refused_at_the_start() {
        assert!(check("{").unwrap_err().contains("`s.json` is no JSON"));
        assert!(check(r#"{"type": "no such type"}"#).unwrap_err().contains("no JSON Schema"));
        let missing = config::Check::Schema("missing.json".to_owned());
        assert!(
            Check::read(&missing, Path::new("."), Side::Response)
                .unwrap_err()
                .contains("cannot be read")
        );
    }
}
