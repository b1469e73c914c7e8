use std::sync::Arc;

use serde_json::{Value, json};

use crate::check::Check;
use crate::function::Function;

/// The description of the admin API, with a path for each function and the schemas of what it takes and answers.
pub(crate) fn with_functions(functions: &[Arc<Function>]) -> Value {
    let mut api: Value = serde_json::from_str(include_str!("../docs/openapi.json"))
        .expect("the description that is built in is JSON");
    for function in functions {
        let name = &function.name;
        let content = |check: &Option<Check>, side: &str| {
            let schema = check.as_ref().map_or_else(
                || json!({}),
                |check| {
                    let mut schema = check.schema.clone();
                    // References within the schema are to itself, not to the whole description.
                    if let Value::Object(keys) = &mut schema {
                        let id = format!("urn:gatewright:function:{name}:{side}");
                        keys.entry("$id").or_insert(id.into());
                    }
                    schema
                },
            );
            json!({ "application/json": { "schema": schema } })
        };
        let operation = json!({
            "summary": format!("Ask {name}"),
            "tags": ["functions"],
            "requestBody": { "content": content(&function.input, "input") },
            "responses": {
                "200": { "description": "Its answer.", "content": content(&function.output, "output") },
            },
        });
        api["paths"][format!("/function/{name}")] = json!({ "post": operation });
    }
    api
}
