//! `simulate`: its table, its JSON, its errors.

use std::io::Write as _;
use std::path::Path;

use insta::assert_snapshot;

use crate::command::{run, tell, told, workspace};

fn square() -> std::path::PathBuf {
    workspace().join("examples/square")
}

/// A folder with the square example and `scenario.toml` as given.
pub(crate) fn folder(scenario: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gatewright.toml", "square.model.toml"] {
        std::fs::copy(square().join(name), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("scenario.toml"), scenario).unwrap();
    folder
}

pub(crate) fn stdout(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) const SCENARIO: &str = "\
model = \"square.model.toml\"

[[demand]]
function = \"square\"
arrival = { poisson = { rate = 12 } }
duration = \"1m\"
";

#[test]
fn the_table_of_a_scenario() {
    assert_snapshot!(tell(&square(), "simulate scenario.toml"), @r#"
    exit: 0
    --- stdout
    simulate scenario.toml (poisson, 12/s for square, seed 1)
    Every request was answered.

    requests    7,057: 7,057 ok
    offered     11.76/s
    achieved    11.76/s over 600.1 s
    replicas    square: 4.00 replicas on average, 4 at most; 2.94 requests in service, 0.67 waiting

                   unit   mean    p50    p90    p95    p99  p99.9    max
    response time  ms    307.3  250.1  434.9  502.8  657.5  854.6  944.1
    service time   ms    307.3  250.1  434.9  502.8  657.5  854.6  944.1
    queue wait     ms    57.34      0  184.8  252.7  407.1  604.5  694.1
    "#);
    assert_snapshot!(tell(&square(), "simulate scenario.toml --replications 5 --seed 7"), @r#"
    exit: 0
    --- stdout
    simulate scenario.toml (poisson, 12/s for square, seeds 7 to 11)
    Every request was answered.

    requests    35,934: 35,934 ok
    offered     11.98/s
    achieved    11.98/s over 600.4 s
    replicas    square: 4.00 replicas on average, 4 at most; 3.02 requests in service, 0.85 waiting (first seed)
    95 % sure   achieved 11.98/s +- 0.198/s
                response time mean 317.6 ms +- 7.366 ms
                response time p50 250.3 ms +- 582.3 us
                response time p95 548.8 ms +- 32.95 ms
                response time p99 728.6 ms +- 89.56 ms

                   unit   mean    p50    p90    p95    p99  p99.9    max
    response time  ms    317.6  250.1  461.4  547.9  730.3  945.8  1,121
    service time   ms    317.6  250.1  461.4  547.9  730.3  945.8  1,121
    queue wait     ms    67.57      0  211.3  298.1  480.2  695.7  871.0
    "#);
}

#[test]
fn what_if_a_queue_is_short() {
    let line = "simulate scenario.toml --set function.square.queue.capacity=1";
    assert_snapshot!(tell(&square(), line), @r#"
    exit: 0
    --- stdout
    simulate scenario.toml (poisson, 12/s for square, seed 1)
    766 of 7,057 requests failed (10.9 %).

    requests    7,057: 6,291 ok, 766 shed
    offered     11.76/s
    achieved    10.48/s over 600.1 s
    codes       6,291 200, 766 429
    reasons     766 queue full
    replicas    square: 4.00 replicas on average, 4 at most; 2.62 requests in service, 0.11 waiting

                   unit   mean    p50    p90    p95    p99  p99.9    max
    response time  ms    260.3  250.1  292.3  323.5  375.7  423.1  444.5
    service time   ms    260.3  250.1  292.3  323.5  375.7  423.1  444.5
    queue wait     ms    10.28      0  42.07  73.27  125.7  173.0  194.5
    failed after   ns        0      0      0      0      0      -      0
    "#);
}

#[test]
fn several_demands_have_a_table_each() {
    let two = "\
[[demand]]
function = \"square\"
arrival = { constant = { rate = 1 } }
requests = 5
";
    let folder = folder(&format!("{SCENARIO}{two}"));
    assert_snapshot!(tell(folder.path(), "simulate scenario.toml"), @r#"
    exit: 0
    --- stdout
    simulate scenario.toml (2 demands, seed 0)
    Every request was answered.

    requests    727: 727 ok
    offered     12.12/s
    achieved    12.08/s over 60.18 s
    replicas    square: 4.00 replicas on average, 4 at most; 3.02 requests in service, 0.83 waiting

                   unit   mean    p50    p90    p95    p99  p99.9    max
    response time  ms    318.6  252.8  493.1  540.5  624.4      -  717.0
    service time   ms    318.6  252.8  493.1  540.5  624.4      -  717.0
    queue wait     ms    68.60  2.732  243.1  290.5  374.3      -  467.0

    square (poisson, 12/s)
    Every request was answered.

    requests    722: 722 ok
    offered     12.03/s
    achieved    12.03/s over 59.84 s

                   unit   mean    p50    p90    p95    p99  p99.9    max
    response time  ms    319.0  253.1  493.1  540.5  624.4      -  717.0
    service time   ms    319.0  253.1  493.1  540.5  624.4      -  717.0
    queue wait     ms    69.04  2.974  243.1  290.5  374.3      -  467.0

    square (constant, 1/s)
    Every request was answered.

    requests    5: 5 ok
    offered     1.000/s
    achieved    1.176/s over 4.250 s

                   unit   mean    p50  p90  p95  p99  p99.9    max
    response time  ms    254.6  250.1    -    -    -      -  273.1
    service time   ms    254.6  250.1    -    -    -      -  273.1
    queue wait     ms    4.612      0    -    -    -      -  23.06
    "#);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folder = folder(SCENARIO);
    let run = |seed: u32, name: &str| {
        let line = format!("simulate scenario.toml --seed {seed} --records {name} --format json");
        let text = stdout(folder.path(), &line);
        (text, std::fs::read(folder.path().join(name)).unwrap())
    };
    let first = run(1, "a.csv");
    assert!(first == run(1, "b.csv"), "the same seed gave another result");
    assert!(first != run(2, "c.csv"), "another seed gave the same result");
    assert!(first.1.starts_with(b"world,id,"), "the records are not CSV");
}

#[test]
fn the_json_has_the_numbers_of_the_table() {
    let json = stdout(&square(), "simulate scenario.toml --format json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], "gatewright.simulation/1");
    assert_eq!(json["report"]["statuses"]["ok"], json["report"]["requests"]);
    let p99 = json["report"]["response_time"]["p99_ns"].as_u64().unwrap() as f64 / 1e6;
    let table = stdout(&square(), "simulate scenario.toml");
    let row = table.lines().find(|line| line.starts_with("response time")).unwrap();
    assert!(row.contains(&format!("{p99:.1}")), "{row} has no {p99}");
}

#[test]
fn a_result_that_is_asked_for_is_written_whole() {
    let folder = folder(SCENARIO);
    let printed =
        stdout(folder.path(), "simulate scenario.toml --format json --output result.json");
    let written = std::fs::read_to_string(folder.path().join("result.json")).unwrap();
    assert_eq!(printed, written);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 4, "something was left behind: {names:?}");
    let page = tell(folder.path(), "simulate scenario.toml --output result.html");
    assert!(page.starts_with("exit: 2") && page.contains("of one scenario is JSON"), "{page}");
    assert!(!folder.path().join("result.html").exists());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let told = |scenario: &str| tell(folder(scenario).path(), "simulate scenario.toml");
    assert_snapshot!(told(&SCENARIO.replace("duration", "durration")), @r#"
    exit: 2
    --- stderr
    error: scenario.toml: line 6, column 1: unknown key `durration`

    hint: did you mean `duration`?
    "#);
    assert_snapshot!(told(&SCENARIO.replace("function = \"square\"", "function = \"sqare\"")), @r#"
    exit: 2
    --- stderr
    error: scenario.toml: demand 1: the system file has no function `sqare`

    hint: did you mean `square`?
    "#);
    assert_snapshot!(told(&SCENARIO.replace("square.model.toml", "other.model.toml")), @r#"
    exit: 2
    --- stderr
    error: other.model.toml: there is no such file or folder

    hint: `gatewright calibrate` makes a model from records
    "#);
    assert_snapshot!(told(&SCENARIO.replace("rate = 12", "rate = \"fast\"")), @r#"
    exit: 2
    --- stderr
    error: scenario.toml: line 5, column 32: invalid type: string "fast", expected f64

    hint: `gatewright config schema scenario` says which keys there are and what they hold
    "#);
    assert_snapshot!(told(&SCENARIO.replace("duration = \"1m\"", "")), @r#"
    exit: 2
    --- stderr
    error: scenario.toml: demand 1: it never ends

    hint: give it `duration` or `requests`
    "#);
    assert_snapshot!(told(&format!("system = \"other.toml\"\n{SCENARIO}")), @r#"
    exit: 2
    --- stderr
    error: other.toml: there is no such file or folder

    hint: check the name, and the folder that the command is run in
    "#);
    let right = folder(SCENARIO);
    assert_snapshot!(tell(right.path(), "simulate scenario.toml --set function.square.timeout=5"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: --set `function.square.timeout`: invalid type: integer `5`, expected a string

    hint: `gatewright config schema` says which keys there are and what they hold
    "#);
    assert_snapshot!(tell(right.path(), "simulate scenario.toml --records no/where.csv"), @r#"
    exit: 2
    --- stderr
    error: no/where.csv: cannot be written: there is no such file or folder

    hint: give a file in a folder that exists and may be written to
    "#);
}

#[test]
fn one_long_run_says_how_sure_it_is() {
    let folder = folder(&SCENARIO.replace("1m", "20m"));
    let text = stdout(folder.path(), "simulate scenario.toml --warm-up 1m --batches 20");
    assert!(text.contains("95 % sure   response time mean"), "{text}");
    assert!(text.contains("batches of 512 requests"), "{text}");
    let json = stdout(
        folder.path(),
        "simulate scenario.toml --warm-up 1m --batches 20 --format json --records all.csv",
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let requests = json["report"]["requests"].as_u64().unwrap();
    let lines = std::fs::read_to_string(folder.path().join("all.csv")).unwrap().lines().count();
    assert!(requests < lines as u64 - 600, "{requests} of {lines}");
    let mean = json["batches"]["response_time_mean_ns"]["mean"].as_f64().unwrap();
    assert!(
        (mean / json["report"]["response_time"]["mean_ns"].as_f64().unwrap() - 1.0).abs() < 0.1
    );
}

#[test]
fn utilisation_over_time() {
    let folder = folder(SCENARIO);
    stdout(folder.path(), "simulate scenario.toml --frames frames --sample 10s");
    let frame = |name: &str| {
        std::fs::read_to_string(folder.path().join(format!("frames/{name}.csv"))).unwrap()
    };
    let function = frame("function_utilization");
    assert_eq!(function.lines().count(), 1 + 6, "{function}");
    assert!(function.lines().nth(2).unwrap().starts_with("20,"), "{function}");
    assert_eq!(frame("replica_utilization").lines().count(), 1 + 6 * 4);
}

#[test]
fn what_is_not_simulated_is_said() {
    let folder = folder(SCENARIO);
    let line = "simulate scenario.toml --set function.square.memory_limit=1GiB";
    let output = run(folder.path(), line);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("function.square.memory_limit is not simulated"), "{text}");
}

#[test]
fn language_models_have_tokens() {
    let folder = folder(SCENARIO);
    let model = "[function.square]\nservice = { fixed = 0 }\n[function.square.llm]\nprompt = { fixed = 100 }\noutput = { fixed = 10 }\nstep = { base = 0.01, per_prompt_token = 0.0001 }\n";
    std::fs::write(folder.path().join("square.model.toml"), model).unwrap();
    let text = stdout(folder.path(), "simulate scenario.toml --set function.square.concurrency=8");
    assert!(text.contains("time to first token p50"), "{text}");
    assert!(text.contains("of answers a second"), "{text}");
}

/// Every trace of the examples is replayed, as it is and compressed.
#[test]
fn traces_are_replayed() {
    let traces = workspace().join("examples/traces");
    let counts = [
        ("azure_llm_2023_code.csv", 8_819),
        ("azure_functions_2021.csv", 199),
        ("azure_functions_2019.csv", 4_525),
        ("mooncake_conversation.jsonl", 300),
        ("opendc_faas.csv", 6),
    ];
    for (name, count) in counts {
        let demand =
            "[[demand]]\nfunction = \"square\"\narrival = { replay = { trace = \"t.csv.gz\" } }\n";
        let folder = folder(&format!("model = \"square.model.toml\"\n{demand}"));
        let file = std::fs::File::create(folder.path().join("t.csv.gz")).unwrap();
        let mut zipped = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        zipped.write_all(&std::fs::read(traces.join(name)).unwrap()).unwrap();
        zipped.finish().unwrap();
        let line =
            "simulate scenario.toml --format json --set function.square.queue.capacity=1000000";
        let json: serde_json::Value = serde_json::from_str(&stdout(folder.path(), line)).unwrap();
        assert_eq!(json["report"]["requests"], count, "{name}");
    }
    let missing = folder(
        "[[demand]]\nfunction = \"square\"\narrival = { replay = { trace = \"no.csv\" } }\n",
    );
    let text = tell(missing.path(), "simulate scenario.toml");
    assert!(text.starts_with("exit: 2"), "{text}");
    assert!(text.contains("demand 1, trace `no.csv`") && text.contains("hint: its path"), "{text}");
}

#[test]
fn what_the_run_did_not_reach_is_said() {
    let later = "[[operation]]\nat = \"1h\"\ndo = { suspend = { function = \"square\" } }\n";
    let folder = folder(&format!("{SCENARIO}{later}"));
    let told = |line: &str| told(&run(folder.path(), line));
    let text = told("simulate scenario.toml");
    assert!(text.contains("operation 1, at 1h, was not reached: the run ended after 1m"), "{text}");
    std::fs::write(
        folder.path().join("scenario.toml"),
        SCENARIO.replace("duration = \"1m\"", "requests = 3") + "duration = \"2h\"\n",
    )
    .unwrap();
    let text = told("simulate scenario.toml --warm-up 1h");
    assert!(text.contains("every request was sent during the warm-up"), "{text}");
}

/// What would have no effect, or none that could be computed, is refused.
#[test]
fn odd_flags_are_refused() {
    let folder = folder(SCENARIO);
    let cases = [
        ("--batches 1000", "too few for 1000 batches"),
        ("--frames f --sample 0s", "give at least 1ms"),
        (
            "--sweep function.square.replicas.max=[4,5] --sweep function.square.replicas.max=[6]",
            "is swept twice",
        ),
    ];
    for (flags, expected) in cases {
        let output = run(folder.path(), &format!("simulate scenario.toml {flags}"));
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(told(&output).contains(expected), "{flags}: {}", told(&output));
    }
    let last = "simulate scenario.toml --seed 18446744073709551615 --replications 2";
    assert!(stdout(folder.path(), last).contains("seeds 18446744073709551615 to 0"));
}
