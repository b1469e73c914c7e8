//! Benchmarks that are part of the program, what goes over them, and records in every format.

use serde_json::Value;

use crate::bench::{bench, quick};
use crate::command::{finish, gatewright, run, tell, told};

#[test]
fn scenarios_of_the_program_are_listed_shown_and_run() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let listed = tell(folder.path(), "bench --list-scenarios");
    for name in ["chat", "rag", "long-context", "embeddings"] {
        assert!(listed.contains(&format!("\n{name}\n    ")), "{name}: {listed}");
    }
    let shown = run(folder.path(), "bench --scenario rag --show-scenario");
    assert!(shown.status.success(), "{}", told(&shown));
    std::fs::write(folder.path().join("mine.toml"), &shown.stdout).unwrap();
    for scenario in ["rag", "mine.toml"] {
        let flags = ["--scenario", scenario, "--rate", "200", "--requests", "12", "--seed", "3"];
        let (_, result) = bench(folder.path(), &[&[mock.url.as_str()][..], &flags].concat());
        let run = &result["steps"][0]["result"];
        assert_eq!(run["run"]["statuses"]["ok"], 11, "{scenario}, after the warm-up: {run}");
        let model = result["scenario"]["target"][0]["openai"]["model"].as_str().unwrap();
        assert!(!model.is_empty(), "the first of the server's is in the result");
    }
    let refused = tell(folder.path(), "bench --scenario chat");
    assert!(refused.starts_with("exit: 2") && refused.contains("no URL"), "{refused}");
    let missing = tell(folder.path(), "bench --scenario chatt");
    assert!(missing.contains("chatt"), "{missing}");
}

#[test]
fn the_environment_goes_over_a_scenario_and_flags_over_both() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |words: &[&str]| {
        let mut command = gatewright(folder.path());
        command.env("GATEWRIGHT_BENCH__SEED", "7").env("GATEWRIGHT_BENCH__CLIENT__THREADS", "3");
        let output =
            finish(command.args(["bench", "--scenario", "chat", "--show-scenario"]).args(words));
        assert!(output.status.success(), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = shown(&[]);
    assert!(text.contains("seed = 7\n") && text.contains("threads = 3\n"), "{text}");
    assert!(shown(&["--seed", "8"]).contains("seed = 8\n"));
    assert!(shown(&["--set", "seed=9"]).contains("seed = 9\n"));
}

#[test]
fn records_in_parquet_say_what_those_in_lines_say() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let url = format!("{}/v1/models", mock.url);
    let rates = ["--rate", "100", "--requests", "40"];
    for name in ["seen.parquet", "seen.jsonl"] {
        let words = [&[url.as_str(), "--records", name][..], &rates].concat();
        bench(folder.path(), &words);
    }
    // As data, its columns are those of a record; none of the other format.
    let words = [url.as_str(), "-H", "x-id: {{id}}", "--data", "seen.parquet", "--requests", "9"];
    let (_, result) = bench(folder.path(), &words);
    let ok: &Value = &result["steps"][0]["result"]["run"]["statuses"]["ok"];
    assert_eq!(ok, 9);
    let missing = format!("bench {url} -H x-id:{{{{prompt}}}} --data seen.parquet");
    let missing = tell(folder.path(), &missing);
    assert!(missing.contains("it has no column"), "{missing}");
}
