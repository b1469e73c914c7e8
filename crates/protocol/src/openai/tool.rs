use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A function that the model may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its kind: "function".
    #[serde(rename = "type")]
    pub kind: String,
    /// The function.
    pub function: FunctionSpec,
}

/// A function as it is described to the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FunctionSpec {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

/// Whether the model may, must or must not ask for a function, or for which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ToolChoice {
    /// "none", "auto" or "required".
    Mode(String),
    /// This one; chat names it in `function.name`, responses in `name`.
    Named(Value),
}

impl ToolChoice {
    /// The name of the function that must be called, if it is given.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Mode(_) => None,
            Self::Named(named) => {
                named.pointer("/function/name").or_else(|| named.get("name"))?.as_str()
            }
        }
    }

    /// Whether no function may be called.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Mode(mode) if mode == "none")
    }
}

/// A call that the model asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Names the call in the message that brings its result.
    #[serde(default)]
    pub id: String,
    /// Its kind: "function".
    #[serde(rename = "type", default)]
    pub kind: String,
    /// What to call.
    pub function: FunctionCall,
}

/// Part of [`ToolCall`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// Name of the function.
    pub name: String,
    /// Its arguments, as a text that should be JSON.
    #[serde(default)]
    pub arguments: String,
}
