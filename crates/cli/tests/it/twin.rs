//! `calibrate`, `predict` and `compare`, on records that a simulation wrote.

use std::path::Path;

use insta::assert_snapshot;

use crate::command::{run, tell, told, workspace};

/// A folder with the square example and, in simulated.csv, ten minutes of it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gatewright.toml", "square.model.toml", "scenario.toml"] {
        let from = workspace().join("examples/square").join(name);
        std::fs::copy(from, folder.path().join(name)).unwrap();
    }
    done(folder.path(), "simulate scenario.toml --records simulated.csv");
    folder
}

fn done(folder: &Path, line: &str) {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {}", told(&output));
}

#[test]
fn a_model_predicts_what_it_was_made_from() {
    let folder = folder();
    assert_snapshot!(tell(folder.path(), "calibrate simulated.csv --output measured.model.toml"), @r#"
    exit: 0
    --- stderr
    function `square`: service time 250.0 ms on average, from 7,057 requests, fitted on 8.400/s to 16.00/s
      start: no replica was seen starting; give its time where replicas start during a run
    wrote measured.model.toml
    "#);
    let predict = "predict scenario.toml --model measured.model.toml --output prediction.json";
    assert_snapshot!(tell(folder.path(), predict), @r#"
    exit: 0
    --- stdout
                       predicted      from        to
    response time p50   250.1 ms  250.1 ms  258.3 ms
    response time p95   539.8 ms  487.7 ms  582.0 ms
    response time p99   734.5 ms  624.3 ms  839.9 ms
    throughput           12.04/s   11.76/s   12.27/s
    failed                 0.0 %     0.0 %     0.0 %
    "#);
    let compare = "compare prediction.json simulated.csv --tolerance 15";
    assert_snapshot!(tell(folder.path(), compare), @r#"
    exit: 0
    --- stdout
                predicted      from        to  measured    error  in band
    p50          250.1 ms  250.1 ms  258.3 ms  250.1 ms   +0.0 %  yes
    p95          539.8 ms  487.7 ms  582.0 ms  502.8 ms   +7.4 %  yes
    p99          734.5 ms  624.3 ms  839.9 ms  657.5 ms  +11.7 %  yes
    throughput    12.04/s   11.76/s   12.27/s   11.76/s   +2.4 %  no
    "#);
}

#[test]
fn a_prediction_that_fails_is_status_3() {
    let folder = folder();
    let what_if = "--set function.square.replicas.min=3 --set function.square.replicas.max=3";
    done(folder.path(), &format!("predict scenario.toml {what_if} --output prediction.json"));
    let output = run(folder.path(), "compare prediction.json simulated.csv --tolerance 15");
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
}

#[test]
fn a_load_outside_the_model_is_warned_of() {
    let folder = folder();
    done(folder.path(), "calibrate simulated.csv --output measured.model.toml");
    let scenario = std::fs::read_to_string(folder.path().join("scenario.toml")).unwrap();
    let more = scenario.replace("rate = 12", "rate = 3");
    std::fs::write(folder.path().join("scenario.toml"), more).unwrap();
    let output = run(folder.path(), "simulate scenario.toml --model measured.model.toml");
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"warning: function `square`: 3.000/s is beyond the loads that its model was fitted on, 8.400/s to 16.00/s");
}

#[test]
fn a_rate_limit_is_said_to_be_no_part_of_a_simulation() {
    let folder = folder();
    let limited = "simulate scenario.toml --set function.square.limit.requests=5";
    let output = run(folder.path(), limited);
    assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"warning: function `square`: its `limit` is not part of a simulation");
}

#[test]
fn broken_records_are_said_with_their_line() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("cut.jsonl", "{\"world\":\"serve\",\"id\":\n");
    write("other.csv", "a,b\n1,2\n");
    write("empty.jsonl", "");
    write("model.txt", "");
    let tell = |line: &str| tell(folder.path(), line);
    assert_snapshot!(tell("calibrate cut.jsonl"), @r#"
    exit: 2
    --- stderr
    error: cut.jsonl: line 1: EOF while parsing a value (column 0)

    hint: records are written by `serve`, `bench` and `simulate` with --records
    "#);
    assert_snapshot!(tell("calibrate other.csv"), @r#"
    exit: 2
    --- stderr
    error: other.csv: line 1: "a" is not a column of a record; the columns are world, id, function, route, class, scheduled_ns, sent_ns, received_ns, queued_out_ns, started_ns, first_byte_ns, finished_ns, replica, node, attempts, in_flight, status, code, reason, bytes_in, bytes_out, tokens_in, tokens_out, cache, cache_key, cold

    hint: records are written by `serve`, `bench` and `simulate` with --records
    "#);
    assert_snapshot!(tell("calibrate empty.jsonl"), @r#"
    exit: 2
    --- stderr
    error: there are no records

    hint: record a run: `gatewright serve --records served.jsonl` while `gatewright bench` asks
    "#);
    assert_snapshot!(tell("calibrate nothing.jsonl"), @r#"
    exit: 2
    --- stderr
    error: nothing.jsonl: there is no such file or folder

    hint: check the name, and the folder that the command is run in
    "#);
    assert_snapshot!(tell("calibrate model.txt"), @r#"
    exit: 2
    --- stderr
    error: model.txt: its name says no format of records

    hint: records are in files that end in .csv, .jsonl or .parquet
    "#);
    assert_snapshot!(tell("calibrate simulated.csv --start soon"), @r#"
    exit: 2
    --- stderr
    error: invalid value 'soon' for '--start <LAW>': write seconds, or a law such as { log_normal = { mean = 0.5, cv = 0.2 } }

    hint: `gatewright calibrate --help` shows how it is used
    "#);
    assert_snapshot!(tell("compare scenario.toml simulated.csv"), @r#"
    exit: 2
    --- stderr
    error: scenario.toml: is neither a result nor a prediction

    hint: `gatewright bench --output` and `gatewright predict --output` write them
    "#);
    assert!(!folder.path().join("model.toml").exists());
}
