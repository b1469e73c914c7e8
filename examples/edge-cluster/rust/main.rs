//! The examples of faas-sim: `cargo run --release -p gatewright-sim --example edge-cluster -- basic`.
#![expect(clippy::print_stdout, reason = "examples that report to who runs them")]

mod analysis;
mod arrivals;
mod basic;
mod city;
mod function_model;
mod scheduler;
mod watchdogs;

/// What runs an example: the text that it comes to, or what is wrong.
type Example = fn() -> Result<String, Box<dyn std::error::Error>>;

const EXAMPLES: [(&str, Example); 6] = [
    ("analysis", analysis::run),
    ("arrivals", arrivals::run),
    ("basic", basic::run),
    ("function_model", function_model::run),
    ("scheduler", scheduler::run),
    ("watchdogs", watchdogs::run),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let found = EXAMPLES.iter().find(|(name, _)| *name == wanted);
    let Some((_, example)) = found else {
        let names: Vec<_> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        return Err(format!("name one of the examples: {}", names.join(", ")).into());
    };
    print!("{}", example()?);
    Ok(())
}
