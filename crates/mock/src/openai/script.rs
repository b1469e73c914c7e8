use gatewright_determinism::{Purpose, Stream};
use gatewright_protocol::openai::FinishReason;
use serde_json::{Map, Value};

use crate::text;

/// What the model will say, token by token.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// How many tokens.
    pub(crate) tokens: u64,
    /// Why it ends there.
    pub(crate) finish: FinishReason,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Words drawn by luck.
    Text { luck: Stream, begun: bool },
    /// The name of a function is the first token; its arguments are the others.
    Call { name: String, arguments: String, place: Option<usize> },
}

impl Script {
    /// `tokens` words by the luck of (seed, key).
    pub(crate) fn text(tokens: u64, finish: FinishReason, seed: u64, key: u64) -> Self {
        let luck = Stream::new(seed, Purpose::Content, key);
        Self { tokens, finish, kind: Kind::Text { luck, begun: false } }
    }

    /// A call of the function `name` with arguments that fit `schema`, cut off after `longest` tokens.
    pub(crate) fn call(
        name: String,
        schema: Option<&Value>,
        longest: u64,
        seed: u64,
        key: u64,
    ) -> Self {
        let mut luck = Stream::new(seed, Purpose::Content, key);
        let arguments =
            schema.map_or_else(|| Value::Object(Map::new()), |s| fitting(s, 0, &mut luck));
        let arguments = arguments.to_string();
        let whole = 1 + text::count(&arguments);
        let finish = if whole <= longest { FinishReason::ToolCalls } else { FinishReason::Length };
        let kind = Kind::Call { name, arguments, place: None };
        Self { tokens: whole.min(longest), finish, kind }
    }

    /// Name of the function, if it is a call.
    pub(crate) fn function(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text { .. } => None,
            Kind::Call { name, .. } => Some(name),
        }
    }

    /// The next token's text; of a call, the first is its name and adds nothing to the arguments.
    pub(crate) fn advance(&mut self) -> &str {
        match &mut self.kind {
            Kind::Text { luck, begun } => {
                let word = text::word(luck);
                if std::mem::replace(begun, true) { word } else { &word[1..] }
            }
            Kind::Call { arguments, place, .. } => {
                let Some(start) = *place else {
                    *place = Some(0);
                    return "";
                };
                let token = text::tokens(&arguments[start..]).next().unwrap_or("");
                *place = Some(start + token.len());
                token
            }
        }
    }

    /// All of its text, or all of the arguments.
    pub(crate) fn whole(mut self) -> String {
        let mut all = String::new();
        for _ in 0..self.tokens {
            all.push_str(self.advance());
        }
        all
    }
}

/// Schemas within schemas end somewhere.
const DEEPEST: u32 = 8;

/// A value that fits the usual parts of a JSON schema: `enum`, `const`, `type`, `properties`, `items`, bounds.
fn fitting(schema: &Value, depth: u32, luck: &mut Stream) -> Value {
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(Value::Array(values)) = schema.get("enum")
        && !values.is_empty()
    {
        let place = luck.below(values.len() as u64);
        return usize::try_from(place).map_or(Value::Null, |place| values[place].clone());
    }
    // Of several types the first will do.
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        kind => kind.and_then(Value::as_str),
    };
    let bound = |key| schema.get(key).and_then(Value::as_f64);
    match kind {
        Some("integer") => {
            let low = bound("minimum").unwrap_or(0.0).ceil();
            let high = bound("maximum").unwrap_or(low + 100.0).max(low);
            let span = (high - low) as u64;
            Value::from(low as i64 + luck.below(span.saturating_add(1)).cast_signed())
        }
        Some("number") => {
            let low = bound("minimum").unwrap_or(0.0);
            let high = bound("maximum").unwrap_or(low + 1.0).max(low);
            // Three digits: a number of many digits would be many tokens.
            Value::from(((low + (high - low) * luck.unit()) * 1000.0).trunc() / 1000.0)
        }
        Some("boolean") => Value::Bool(luck.bits() & 1 == 1),
        Some("null") => Value::Null,
        Some("array") if depth < DEEPEST => {
            let item = schema.get("items").map(|items| fitting(items, depth + 1, luck));
            Value::Array(item.into_iter().collect())
        }
        Some("array") => Value::Array(Vec::new()),
        Some("object") | None => object(schema, depth, luck),
        Some(_) => Value::from(text::word(luck).trim_start()),
    }
}

fn object(schema: &Value, depth: u32, luck: &mut Stream) -> Value {
    let properties = schema.get("properties").and_then(Value::as_object);
    let properties = properties.filter(|_| depth < DEEPEST).into_iter().flatten();
    let fields = properties.map(|(name, schema)| (name.clone(), fitting(schema, depth + 1, luck)));
    Value::Object(fields.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_has_as_many_tokens_as_it_says() {
        let script = || Script::text(50, FinishReason::Stop, 1, 7);
        let whole = script().whole();
        assert_eq!(text::count(&whole), 50);
        assert!(!whole.starts_with(' '), "{whole}");
        assert_eq!(whole, script().whole());
        assert_ne!(whole, Script::text(50, FinishReason::Stop, 1, 8).whole());
    }

    #[test]
    fn arguments_fit_their_schema() {
        let schema = json!({"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer", "minimum": 3, "maximum": 4},
            "unit": {"enum": ["c", "f"]}, "tags": {"type": "array", "items": {"type": "boolean"}},
            "at": {"type": "object", "properties": {"x": {"type": ["number", "null"]}}},
        }});
        for key in 0..50 {
            let script = Script::call("f".to_owned(), Some(&schema), 1000, 1, key);
            assert_eq!(script.finish, FinishReason::ToolCalls);
            let (tokens, whole) = (script.tokens, script.whole());
            assert_eq!(tokens, 1 + text::count(&whole));
            let value: Value = serde_json::from_str(&whole).unwrap();
            assert!(value["city"].is_string() && value["at"]["x"].is_number(), "{value}");
            assert!(matches!(value["days"].as_i64(), Some(3 | 4)), "{value}");
            assert!(matches!(value["unit"].as_str(), Some("c" | "f")), "{value}");
            assert!(value["tags"][0].is_boolean(), "{value}");
        }
        let cut = Script::call("f".to_owned(), Some(&schema), 3, 1, 0);
        assert_eq!((cut.tokens, &cut.finish), (3, &FinishReason::Length));
    }

    #[test]
    fn a_schema_that_is_endless_or_odd_does_no_harm() {
        let mut schema = json!({"type": "string"});
        for _ in 0..40 {
            schema = json!({"type": "array", "items": schema});
        }
        for schema in [
            schema,
            json!({"enum": []}),
            json!({"type": "integer", "minimum": 9e18, "maximum": 1}),
            json!({"type": "integer", "minimum": -1e300, "maximum": 1e300}),
            json!([]),
            json!({"type": 7}),
        ] {
            let script = Script::call("f".to_owned(), Some(&schema), 1000, 1, 0);
            assert!(serde_json::from_str::<Value>(&script.whole()).is_ok(), "{schema}");
        }
    }
}
