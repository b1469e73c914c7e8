//! What `bench` asks for: data, conversations, traces; and what is asked before a run.

use std::io::Write as _;

use insta::assert_snapshot;
use serde_json::Value;

use crate::bench::{Mock, bench, quick};
use crate::command::{run, tell, told};

#[test]
fn requests_are_filled_from_data() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let rows = "{\"question\":\"one two\",\"output_tokens\":2}\n{\"question\":\"one \\\"two\\\" three\",\"output_tokens\":5}\n";
    std::fs::write(folder.path().join("ask.jsonl"), rows).unwrap();
    let of = |words: &[&str]| {
        let base = [mock.url.as_str(), "--openai", "chat", "--requests", "40"];
        let (_, report) = bench(folder.path(), &[&base, words].concat());
        report["steps"][0]["result"].clone()
    };
    let told = of(&["--data", "ask.jsonl", "--column", "prompt=question"]);
    assert_eq!(told["run"]["statuses"]["ok"], 40, "{}", told["run"]);
    let out = &told["distributions"]["tokens_out"];
    assert_eq!((&out["min"], &out["max"], &out["mean"]), (&2.into(), &5.into(), &3.5.into()));
    let made = of(&["--prompt-tokens", "{ mean = 60, deviation = 9 }", "--output-tokens", "3"]);
    assert_eq!(made["distributions"]["tokens_out"]["mean"], 3.0);
    let tokens = &made["distributions"]["tokens_in"];
    assert!(tokens["std_dev"].as_f64().unwrap() > 4.0, "{tokens}");
    assert!((50.0..90.0).contains(&tokens["mean"].as_f64().unwrap()), "{tokens}");
    let wrong = tell(folder.path(), "bench http://a/ --openai chat --data ask.jsonl --duration 1s");
    assert!(wrong.contains("it has no column \"prompt\""), "{wrong}");
}

#[test]
fn templates_fill_url_headers_and_body() {
    let mock = Mock::start(&["http.latency.fixed=0.0001"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "id,name\n1,a b\n2,\"c\"\"d\"\n").unwrap();
    let url = format!("{}/item/{{{{id}}}}?name={{{{name}}}}", mock.url);
    let words = [
        &*url,
        "--data",
        "a.csv",
        "-H",
        "x-name: {{name}}",
        "-H",
        "content-type: application/json",
        "--body",
        "{\"name\":\"{{name}}\"}",
        "--requests",
        "20",
        "--records",
        "seen.jsonl",
    ];
    let (_, report) = bench(folder.path(), &words);
    let run = &report["steps"][0]["result"]["run"];
    assert_eq!(run["statuses"]["ok"], 20, "{run}");
    // {"name":"a b"} and {"name":"c\"d"}.
    assert_eq!(run["bytes_in"], 10 * (14 + 15));
}

#[test]
fn prompts_are_brought_to_a_length() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.txt"),
        "one two three four five\nsix seven\neight nine ten\n",
    )
    .unwrap();
    let made = |words: &str| {
        let output =
            run(folder.path(), &format!("data preprocess a.txt b.jsonl --prompt-tokens 4 {words}"));
        assert!(output.status.success(), "{}", told(&output));
        let text = std::fs::read_to_string(folder.path().join("b.jsonl")).unwrap();
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        rows.iter().map(|row| row["prompt"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(made(""), ["one two three four"]);
    assert_eq!(
        made("--short pad --tokenizer cl100k_base"),
        ["one two three four", "six seven the the", "eight nine ten the"]
    );
    assert_eq!(made("--short concatenate --output-tokens 9").len(), 2);
    let refused =
        tell(folder.path(), "data preprocess a.txt b.jsonl --prompt-tokens 4 --short error");
    assert!(refused.starts_with("exit: 2") && refused.contains("row 1 has 2 tokens"), "{refused}");
}

#[test]
fn conversations_grow_on_either_side() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let base = [&*mock.url, "--prompt-tokens", "20", "--output-tokens", "10", "--requests", "30"];
    let base = [&base[..], &["--strategy", "sessions", "--rate", "30", "--turns", "3"]].concat();
    let tokens_in = |words: &[&str]| {
        let (_, report) = bench(folder.path(), &[&base, words].concat());
        let result = &report["steps"][0]["result"];
        assert_eq!(result["run"]["statuses"]["ok"], 30, "{words:?}: {}", result["run"]);
        result["distributions"]["tokens_in"].clone()
    };
    let chat = tokens_in(&["--openai", "chat"]);
    let told = tokens_in(&["--openai", "responses"]);
    let remembered = tokens_in(&["--openai", "responses", "--server-history"]);
    // What is asked grows by an answer and a prompt each turn, whoever keeps it.
    for seen in [&chat, &told, &remembered] {
        let (min, max) = (seen["min"].as_u64().unwrap(), seen["max"].as_u64().unwrap());
        assert!(min >= 20 && max >= min + 2 * (20 + 10) - 10, "{seen}");
    }
    let words = ["--openai", "chat", "--tool-turns", "1", "--tool-result-tokens", "200"];
    let seen = tokens_in(&words);
    assert!(seen["max"].as_u64() > chat["max"].as_u64().map(|max| max + 150), "{seen}");
    let stream = tokens_in(&["--openai", "responses", "--tool-turns", "1", "--no-stream"]);
    assert!(stream["max"].as_u64() > Some(60), "{stream}");
}

#[test]
fn a_trace_brings_the_lengths_of_its_prompts() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let lines = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,4\n\
                 2023-11-16 18:15:46.7005900,1000,9\n2023-11-16 18:15:46.7105900,10,2\n";
    let file = std::fs::File::create(folder.path().join("trace.csv.gz")).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    zipped.write_all(lines.as_bytes()).unwrap();
    zipped.finish().unwrap();
    for timing in ["timestamps", "idle_gaps"] {
        let words = [&*mock.url, "--openai", "chat", "--trace", "trace.csv.gz", "--timing", timing];
        let (_, report) = bench(folder.path(), &words);
        let told = &report["steps"][0]["result"]["distributions"];
        let out = &told["tokens_out"];
        assert_eq!((&out["min"], &out["max"], &out["mean"]), (&2.into(), &9.into(), &5.0.into()));
        assert!(told["tokens_in"]["max"].as_u64().unwrap() >= 1_000, "{timing}: {told}");
        assert!(told["tokens_in"]["min"].as_u64().unwrap() < 30, "{timing}: {told}");
    }
}

#[test]
fn a_run_begins_only_if_the_check_goes_well() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let of = |line: &str| {
        let text = tell(folder.path(), &format!("bench {line} --requests 3 --output out.json"));
        text.replace(&mock.url, "URL")
    };
    assert_snapshot!(of(&format!("{}/nowhere --check", mock.url)), @r#"
    exit: 1
    --- stderr
    error: URL/nowhere answers with HTTP 404: {"error":{"message":"nothing answers at /nowhere","type":"not_found_error","param":null,"code":404}}

    hint: the run was not begun; --check=60s waits for a server that starts, --follow-redirects asks where a redirect leads to
    "#);
    assert!(!folder.path().join("out.json").exists());
    let words = [&*mock.url, "--openai", "chat", "--prompt", "Hi", "--max-tokens", "2"];
    let words =
        [&words[..], &["--requests", "5", "--check=10s", "--connect-timeout", "1s"]].concat();
    let (_, report) = bench(folder.path(), &words);
    assert_eq!(report["steps"][0]["result"]["run"]["statuses"]["ok"], 5);
    let client = &report["scenario"]["client"];
    assert_eq!((&client["check"], &client["connect_timeout"]), (&"10s".into(), &"1s".into()));
    let wrong = of(&format!("{} --openai completions --prompt Hi --tool-turns 1", mock.url));
    assert!(wrong.contains("only chats and responses have tools"), "{wrong}");
}
