//! What functions take and answer, held against their schemas.

use std::sync::Arc;

use gatewright_protocol::Reply;
use http::HeaderMap;
use serde_json::Value;

use super::Plane;
use crate::answer::Refusal;
use crate::check::{Check, Side};
use crate::function::Function;

impl Plane {
    /// Refuses a request's body that does not fit the function's schema. One that is not there is `null`.
    pub(super) fn check_input(
        &self,
        function: &Function,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let Some(check) = &function.input else { return Ok(()) };
        let fits = if body.is_empty() {
            check.fits_value(&Value::Null)
        } else {
            check.fits(headers, body)
        };
        counted(function, Side::Input, fits)
    }

    /// Refuses an answer that does not fit the function's schema.
    pub(super) fn check_output(&self, function: &Function, body: &[u8]) -> Result<(), Refusal> {
        let Some(check) = &function.output else { return Ok(()) };
        counted(function, Side::Output, check.fits(&HeaderMap::new(), body))
    }

    /// Refuses an answer of a worker that does not fit the function's schema: text is a string, bytes are nothing
    /// that a schema can describe.
    pub(super) fn check_reply(&self, function: &Function, reply: &Reply) -> Result<(), Refusal> {
        let Some(check) = &function.output else { return Ok(()) };
        let fits = if reply.content_type.starts_with("text/") {
            check.fits_value(&Value::String(String::from_utf8_lossy(&reply.body).into_owned()))
        } else {
            check.fits(&HeaderMap::new(), &reply.body)
        };
        counted(function, Side::Output, fits)
    }
}

/// Holds the pieces of a streamed answer against the function's schema, each as the value that it stands for.
#[derive(Clone, Debug)]
pub(crate) struct PieceCheck {
    function: Arc<Function>,
    /// Whether the pieces are text.
    text: bool,
}

impl PieceCheck {
    /// What pieces of this function's answers are held against, if it has a schema for them.
    pub(super) fn of(function: &Arc<Function>, text: bool) -> Option<Self> {
        function.output.as_ref()?;
        Some(Self { function: Arc::clone(function), text })
    }

    /// Refuses a piece that does not fit. A line of JSON is its value, other text a string; bytes are JSON or nothing
    /// that a schema can describe.
    pub(crate) fn fits(&self, piece: &[u8]) -> Result<(), Refusal> {
        let Some(check) = &self.function.output else { return Ok(()) };
        let line = piece.strip_suffix(b"\n").map(serde_json::from_slice::<Value>);
        let fits = match (self.text, line) {
            (true, Some(Ok(value))) => check.fits_value(&value),
            (true, _) => {
                check.fits_value(&Value::String(String::from_utf8_lossy(piece).into_owned()))
            }
            (false, _) => check.fits(&HeaderMap::new(), piece),
        };
        counted(&self.function, Side::Output, fits)
    }
}

/// Counts an upstream's answer that does not fit, if it is the function's own schema that it does not fit.
pub(super) fn count_mismatch(function: &Function, check: &Check) {
    if check.side() == Side::Output {
        function.metrics.mismatch(Side::Output);
    }
}

fn counted(function: &Function, side: Side, fits: Result<(), Refusal>) -> Result<(), Refusal> {
    if let Err(refusal) = &fits {
        function.metrics.mismatch(side);
        tracing::debug!(function = &*function.name, %side, error = refusal.error, "does not fit");
    }
    fits
}
