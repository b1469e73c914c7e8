use std::fmt::Write as _;

use serde_json::{Map, Value};

const HEAD: &str = "\
# gatewright.toml

Made from the code by `gatewright generate docs/reference`; a test holds it to that. Everything has a default,
except where it says *required*. Any key can be set with `--set key=value`, or with a variable of the
environment: `GATEWRIGHT_GATEWAY__LISTEN` is `gateway.listen` (two underscores are a dot).
`gatewright config show` prints what holds, `gatewright.schema.json` beside this page is for editors.
";

const SCENARIO_HEAD: &str = "\
# Scenario files

What `gatewright simulate` runs. Made from the code by `gatewright generate docs/reference`; a test holds it to that. Paths in
it are seen from its folder; `scenario.schema.json` beside this page is for editors. What functions and machines are like is
in a [model file](model-toml.md), the system in [gatewright.toml](gatewright-toml.md).
";

const MODEL_HEAD: &str = "\
# Model files

What a simulation must know of functions and machines and cannot decide. Made from the code by
`gatewright generate docs/reference`; a test holds it to that. `gatewright calibrate` writes such files from records;
`model.schema.json` beside this page is for editors. All laws are in seconds.
";

/// A kind of file, and the page about it.
struct Page {
    head: &'static str,
    /// The definitions that have a section, each with its heading; the first may be the file itself, which has no name.
    sections: &'static [(&'static str, &'static str)],
}

const SYSTEM: Page = Page {
    head: HEAD,
    sections: &[
        ("Gateway", "[gateway]"),
        ("Hub", "[hub]"),
        ("Cache", "[cache]"),
        ("ApiKey", "[key.NAME]"),
        ("Function", "[function.NAME]"),
        ("Route", "[[route]]"),
        ("Cluster", "[cluster]"),
        ("NodeGroup", "[[cluster.nodes]]"),
        ("NetworkLink", "[[cluster.links]]"),
        ("Image", "[image.NAME]"),
    ],
};

const SCENARIO: Page = Page {
    head: SCENARIO_HEAD,
    sections: &[
        ("", "The file"),
        ("Demand", "[[demand]]"),
        ("Strategy", "Arrivals"),
        ("Gaps", "Gaps"),
        ("Think", "Thinking"),
        ("Turns", "Turns"),
        ("Replay", "Traces"),
        ("TraceFormat", "Formats of traces"),
        ("Keys", "Keys of a cache"),
        ("Step", "Steps of a rate"),
        ("TimedOperation", "[[operation]]"),
        ("Act", "Operations"),
    ],
};

const MODEL: Page = Page {
    head: MODEL_HEAD,
    sections: &[
        ("", "The file"),
        ("FunctionModel", "[function.NAME]"),
        ("Law", "Laws"),
        ("Contention", "Contention"),
        ("Variant", "[function.NAME.on.DEVICE]"),
        ("Faults", "faults"),
        ("Outage", "[[function.NAME.outage]]"),
        ("Fault", "Kinds of faults"),
        ("LlmModel", "[function.NAME.llm]"),
        ("CacheModel", "[function.NAME.cache]"),
        ("Keys", "Keys of a cache"),
        ("DeviceModel", "[device.NAME]"),
        ("Fitted", "[function.NAME.fitted]"),
    ],
};

/// Markdown with every key of the system file, from its JSON Schema.
pub(super) fn system(schema: &Value) -> String {
    SYSTEM.text(schema)
}

/// The same of scenario files.
pub(super) fn scenario(schema: &Value) -> String {
    SCENARIO.text(schema)
}

/// The same of model files.
pub(super) fn model(schema: &Value) -> String {
    MODEL.text(schema)
}

impl Page {
    fn text(&self, schema: &Value) -> String {
        let mut text = self.head.to_owned();
        for (definition, heading) in self.sections {
            let table = match *definition {
                "" => Some(schema),
                name => schema.pointer(&format!("/$defs/{name}")),
            };
            let Some(table) = table else { continue };
            let about = description(table);
            write!(text, "\n## {heading}\n\n{about}\n\n").expect("a String takes everything");
            text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
            self.keys(schema, table, "", &mut text);
            self.variants(schema, table, "", &mut text);
        }
        text
    }

    /// Where a property is explained that has a section of its own.
    fn section(&self, property: &Value) -> Option<String> {
        let lists = ["/items", "/additionalProperties", "/anyOf/0", ""];
        let reference = lists.iter().find_map(|list| property.pointer(list)?.get("$ref"));
        let name = reference?.as_str()?.strip_prefix("#/$defs/")?;
        let (_, heading) = self.sections.iter().find(|(definition, _)| *definition == name)?;
        let is_named = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor: String = heading.chars().filter(|c| is_named(*c)).collect();
        Some(format!("[{heading}](#{})", anchor.to_lowercase().replace(' ', "-")))
    }

    /// A row for each key of `table`, and for each key of the tables in it.
    fn keys(&self, schema: &Value, table: &Value, prefix: &str, text: &mut String) {
        let required: Vec<_> = strings(table.get("required")).collect();
        for (key, property) in properties(table) {
            let target = resolve(schema, property);
            let default = match property.get("default").or_else(|| target.get("default")) {
                Some(Value::Null) | None if required.contains(&key.as_str()) => {
                    "*required*".to_owned()
                }
                Some(Value::Null | Value::Object(_)) | None => String::new(),
                Some(default) => format!("`{default}`"),
            };
            let about = if property.get("description").is_some() { property } else { target };
            let section = self.section(property);
            let kind = section.clone().unwrap_or_else(|| kind(schema, property));
            let about = cell(description(about));
            writeln!(text, "| `{prefix}{key}` | {kind} | {} | {about} |", cell(&default))
                .expect("a String takes everything");
            if section.is_some() {
                continue;
            }
            if target.get("properties").is_some() {
                self.keys(schema, target, &format!("{prefix}{key}."), text);
            }
            if let Some(tags) = tags(target) {
                let chosen =
                    property.pointer("/default/policy").or_else(|| property.get("default"));
                let chosen = chosen.filter(|name| name.is_string()).map(|name| format!("`{name}`"));
                let chosen = chosen.unwrap_or_default();
                writeln!(text, "| `{prefix}{key}.policy` | {tags} | {chosen} | Which one. |")
                    .expect("a String takes everything");
            }
            for choice in choices(target) {
                let own: Map<String, Value> = properties(choice)
                    .filter(|(key, _)| *key != "policy")
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                let merged = match choice.get("$ref") {
                    Some(_) => resolve(schema, choice).clone(),
                    None => {
                        serde_json::json!({ "properties": own, "required": choice["required"] })
                    }
                };
                self.keys(schema, &merged, &format!("{prefix}{key}."), text);
            }
        }
    }

    /// A row for each variant of a choice by names, and for the keys that each has.
    fn variants(&self, schema: &Value, choice: &Value, prefix: &str, text: &mut String) {
        for variant in choices(choice).filter(|variant| tags(variant).is_none()) {
            for name in choice_names(variant) {
                let about = cell(description(variant));
                writeln!(text, "| {name} | text | | {about} |").expect("a String takes everything");
            }
            if variant.get("properties").is_some() {
                let mut named = variant.clone();
                let about = description(variant).to_owned();
                for (_, value) in named["properties"].as_object_mut().into_iter().flatten() {
                    if let Some(value) = value.as_object_mut() {
                        value.insert("description".to_owned(), Value::String(about.clone()));
                    }
                }
                named["required"] = Value::Array(Vec::new());
                self.keys(schema, &named, prefix, text);
            }
        }
    }
}

fn properties(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn choices(target: &Value) -> impl Iterator<Item = &Value> {
    target.get("oneOf").and_then(Value::as_array).into_iter().flatten()
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn description(of: &Value) -> &str {
    of.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// The definition that a property refers to, itself if it refers to none.
fn resolve<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let own = property.get("$ref").and_then(Value::as_str);
    let any = property.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    let optional = any.filter_map(|option| option.get("$ref").and_then(Value::as_str)).next();
    own.or(optional)
        .and_then(|reference| schema.pointer(reference.strip_prefix('#')?))
        .unwrap_or(property)
}

/// The type of a property in a word or two.
fn kind(schema: &Value, property: &Value) -> String {
    let target = resolve(schema, property);
    if tags(target).is_some() {
        return "table".to_owned();
    }
    let names: Vec<_> = choices(target).flat_map(choice_names).collect();
    if !names.is_empty() {
        return names.join(", ");
    }
    let simple = match target.get("type") {
        Some(Value::String(one)) => one.as_str(),
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("any")
        }
        _ => "any",
    };
    let is_named = |name: &str| {
        let reference = property.get("$ref").or_else(|| property.pointer("/anyOf/0/$ref"));
        reference.and_then(Value::as_str).is_some_and(|path| path.ends_with(name))
    };
    match simple {
        _ if is_named("/Duration") => "duration".to_owned(),
        _ if is_named("/Size") => "size".to_owned(),
        "object" => "table".to_owned(),
        "string" => "text".to_owned(),
        "array" => "list".to_owned(),
        other => other.to_owned(),
    }
}

/// The names of the policies among which `policy = "..."` chooses, if `target` is such a choice.
fn tags(target: &Value) -> Option<String> {
    let tags = choices(target).filter_map(|choice| choice.pointer("/properties/policy"));
    let names: Vec<_> = tags.flat_map(choice_names).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The values that one branch of a choice stands for.
fn choice_names(choice: &Value) -> Vec<String> {
    let one = choice.get("const").and_then(Value::as_str);
    strings(choice.get("enum")).chain(one).map(|name| format!("`\"{name}\"`")).collect()
}

/// Text that fits into a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
