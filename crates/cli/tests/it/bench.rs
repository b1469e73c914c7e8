//! `bench`, `report` and `compare` as their users see them, against the mock server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use insta::assert_snapshot;
use serde_json::Value;

use crate::command::{finish, gatewright, run, tell, told};

/// A mock server on a free port, which ends with the test.
pub(crate) struct Mock {
    child: Child,
    pub(crate) url: String,
}

impl Mock {
    pub(crate) fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = gatewright(folder.path());
        command.args(["mock", "--listen", "127.0.0.1:0"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        Self { child, url }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn quick() -> Mock {
    Mock::start(&["openai.ttft.fixed=0.002", "openai.itl.fixed=0.0005"])
}

/// Runs `gatewright --quiet bench URL` with further words and what it wrote to `out.json`. A busy machine may make
/// the load generator the limit (4), which is no failure here.
pub(crate) fn bench(folder: &Path, words: &[&str]) -> (i32, Value) {
    let mut command = gatewright(folder);
    let output =
        finish(command.args(["--quiet", "bench"]).args(words).args(["--output", "out.json"]));
    let code = output.status.code().unwrap();
    let text = std::fs::read_to_string(folder.join("out.json")).unwrap_or_else(|fault| {
        panic!("{fault}: {}", told(&output));
    });
    (code, serde_json::from_str(&text).unwrap())
}

#[test]
fn every_strategy_is_a_flag_away() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                 2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:46.7005900,396,109\n";
    std::fs::write(folder.path().join("trace.csv"), trace).unwrap();
    let model =
        [mock.url.as_str(), "--openai", "completions", "--prompt", "Hello", "--max-tokens", "2"];
    for line in [
        "--strategy synchronous --requests 3",
        "--streams 2 --requests 6",
        "--max-concurrency 4 --requests 8",
        "--rate 100 --requests 9",
        "--strategy poisson --rate 100 --requests 9",
        "--strategy gamma --rate 100 --cv 2 --requests 9",
        "--strategy ramp --rate 10 --to-rate 200 --over 200ms --duration 200ms",
        "--steps 50:100ms,100:100ms",
        "--strategy spike --rate 20 --peak 200 --at 50ms --lasting 50ms --duration 200ms",
        "--strategy sine --rate 100 --amplitude 50 --period 100ms --duration 200ms",
        "--strategy random_walk --rate 100 --deviation 10 --every 50ms --duration 200ms",
        "--users 3 --think 10ms --requests 9",
        "--strategy sessions --rate 50 --turns 3 --think 5ms --requests 9",
        "--trace trace.csv",
    ] {
        let words: Vec<_> = model.iter().copied().chain(line.split_whitespace()).collect();
        let (code, report) = bench(folder.path(), &words);
        assert!(code == 0 || code == 4, "{line}: {code}");
        let run = &report["steps"][0]["result"]["run"];
        assert!(run["statuses"]["ok"].as_u64().unwrap() > 1, "{line}: {run}");
        assert_eq!(run["statuses"]["ok"], run["requests"], "{line}");
    }
}

#[test]
fn a_profile_makes_several_steps_and_says_what_it_found() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let model = [&*mock.url, "--openai", "chat", "--prompt", "Hello", "--max-tokens", "2"];
    let of = |line: &str| {
        let words: Vec<_> = model.iter().copied().chain(line.split_whitespace()).collect();
        bench(folder.path(), &words).1
    };
    let swept = of("--strategy sweep --size 3 --max-concurrency 4 --duration 300ms");
    assert_eq!(swept["steps"].as_array().unwrap().len(), 3);
    let found = of(
        "--strategy search --slo-response 20s --slo-attainment 0.5 --rate 40 --max-rate 80 --duration 300ms",
    );
    assert_eq!(found["conclusion"]["search"]["reason"], "max_rate_reached");
    assert_eq!(found["holds"], true);
    let knee = of("--strategy knee --streams 1,2,3,4,5 --duration 150ms");
    assert_eq!(knee["steps"].as_array().unwrap().len(), 5);
    assert!(knee["conclusion"].get("knee").is_some());
    let goodput = of(
        "--profile goodput --slo-ttft 20s --slo-attainment 0.5 --streams 2 --max-streams 4 --duration 200ms",
    );
    assert_eq!(goodput["conclusion"]["goodput"]["met"], 4);
}

#[test]
fn gates_and_objectives_decide_the_exit_status() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let of = |words: &[&str]| {
        let base = [mock.url.as_str(), "--openai", "chat", "--prompt", "Hi", "--max-tokens", "3"];
        let rest = ["--rate", "100", "--requests", "40"];
        bench(folder.path(), &[&base[..], &rest, words].concat())
    };
    let (code, report) =
        of(&["--gate", "response p50 <= 20s", "--gate", "errors <= 1%", "--slo-ttft", "20s"]);
    assert!(code == 0 || code == 4, "{code}");
    let step = &report["steps"][0];
    assert_eq!((&report["holds"], &step["slo_met"]), (&true.into(), &true.into()));
    assert_eq!(step["gates"][0]["gate"], "response p50 <= 20s");
    assert!(step["gates"][0]["measured"].as_f64().unwrap() > 0.001);
    for missed in ["response p50 <= 1us", "response p99 <= 20s", "rate >= 1000000"] {
        let (code, report) = of(&["--gate", missed]);
        assert!(code == 3 || code == 4, "{missed}: {code}");
        assert_eq!(report["holds"], false, "{missed}");
    }
    let (_, report) = of(&["--slo-response", "1us"]);
    assert_eq!(report["steps"][0]["slo_met"], false);
}

#[test]
fn tokens_are_told_with_intervals_and_missing_values_are_missing() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let base =
        [&*mock.url, "--openai", "chat", "--prompt", "Hi", "--max-tokens", "4", "--requests", "60"];
    let (_, report) = bench(folder.path(), &base);
    let result = &report["steps"][0]["result"];
    let told = &result["distributions"];
    for name in ["response_time", "service_time", "ttft", "itl", "tpot", "gap", "tokens_out"] {
        assert!(told[name]["count"].as_u64().unwrap() >= 60, "{name}: {}", told[name]);
    }
    let median =
        &told["ttft"]["quantiles"].as_array().unwrap().iter().find(|q| q["q"] == 0.5).unwrap();
    assert!(median["low"].as_u64() <= median["value"].as_u64(), "{median}");
    assert!(median["high"].as_u64() >= median["value"].as_u64(), "{median}");
    let quantiles = told["ttft"]["quantiles"].as_array().unwrap();
    assert!(quantiles.iter().all(|q| q["q"] != 0.99), "60 samples tell no p99");
    let series = result["series"]["buckets"].as_array().unwrap();
    let tokens: u64 = series.iter().map(|part| part["tokens"].as_u64().unwrap()).sum();
    assert_eq!(tokens, 240);
    let (_, report) = bench(folder.path(), &[&base[..], &["--no-stream"]].concat());
    let told = &report["steps"][0]["result"]["distributions"];
    assert!(told.get("ttft").is_none() && told.get("itl").is_none(), "nothing was streamed");
    assert_eq!(told["tokens_out"]["mean"], 4.0);
}

#[test]
fn several_targets_are_told_apart() {
    let mock = Mock::start(&["http.latency.fixed=0.001"]);
    let folder = tempfile::tempdir().unwrap();
    let target = |name: &str, weight: u32| {
        format!("{{ name = \"{name}\", weight = {weight}, url = \"{}/{name}\" }}", mock.url)
    };
    let (often, seldom) = (target("often", 3), target("seldom", 1));
    let words = ["--target", &often, "--target", &seldom, "--streams", "2", "--requests", "400"];
    let (_, report) = bench(folder.path(), &words);
    let parts = report["steps"][0]["result"]["targets"].as_array().unwrap();
    let names: Vec<_> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["often", "seldom"]);
    let count = |part: &Value| part["statuses"]["ok"].as_u64().unwrap();
    assert_eq!(count(&parts[0]) + count(&parts[1]), 400);
    assert!((250..350).contains(&count(&parts[0])), "{parts:?}");
}

#[test]
fn a_scenario_is_what_the_flags_say_and_runs_again() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let line = "--openai completions --prompt Hi --max-tokens 2 --strategy poisson --rate 50,100 --requests 20 \
                --warmup 10% --slo-response 20s -H x-api-key:secret --seed 5 --label version=1";
    let words: Vec<_> = [mock.url.as_str()].into_iter().chain(line.split_whitespace()).collect();
    let shown = finish(gatewright(folder.path()).arg("bench").args(&words).arg("--show-scenario"));
    std::fs::write(folder.path().join("bench.toml"), &shown.stdout).unwrap();
    let (_, first) = bench(folder.path(), &words);
    std::fs::rename(folder.path().join("out.json"), folder.path().join("first.json")).unwrap();
    assert_eq!(first["steps"].as_array().unwrap().len(), 2);
    assert_eq!(first["steps"][0]["result"]["warmup_requests"], 2);
    assert_eq!(first["scenario"]["target"][0]["headers"][0][1], "REDACTED");
    let (_, again) = bench(folder.path(), &["--scenario", "bench.toml"]);
    assert_eq!(again["scenario"], first["scenario"]);
    let (_, other) =
        bench(folder.path(), &["--scenario", "first.json", "--set", "seed=6", "--requests", "7"]);
    assert_eq!(
        (&other["scenario"]["seed"], &other["steps"][0]["limits"]["requests"]),
        (&6.into(), &7.into())
    );
    assert_eq!(other["steps"][0]["strategy"], first["steps"][0]["strategy"]);
}

#[test]
fn wrong_scenarios_say_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let tell_of = |text: &str| {
        std::fs::write(folder.path().join("bench.toml"), text).unwrap();
        tell(folder.path(), "bench --scenario bench.toml")
    };
    assert_snapshot!(tell_of("[[target]]\nurl = \"http://a/\"\nwieght = 2\n"), @r#"
    exit: 2
    --- stderr
    error: bench.toml: unknown key `wieght`

    hint: did you mean `weight`?
    "#);
    assert_snapshot!(tell_of("[[target]]\nurl = \"http://a/\"\n[profile.search.slo]\nattainment = 0.9\n"), @r#"
    exit: 2
    --- stderr
    error: search: give at least one of slo.response, slo.ttft, slo.itl

    hint: `gatewright bench --help` has examples
    "#);
    assert_snapshot!(tell_of("[[target]]\nurl = \"http://a/\"\napi_key_env = \"NO_SUCH_KEY\"\n"), @r#"
    exit: 2
    --- stderr
    error: bench.toml: the variable NO_SUCH_KEY, which should hold a key, is not set

    hint: set it, or leave api_key_env out
    "#);
    assert_snapshot!(tell_of("gate = [\"respnse p99 <= 2s\"]\n[[target]]\nurl = \"http://a/\"\n"), @r#"
    exit: 2
    --- stderr
    error: bench.toml: "respnse" cannot be a gate; known are response, service, lateness, ttft, itl, tpot, gap, errors, rate, output_tokens

    hint: docs/reference/bench.schema.json says which keys there are
    "#);
    assert_snapshot!(tell(folder.path(), "bench http://a/ --trace none.csv"), @r#"
    exit: 2
    --- stderr
    error: none.csv: there is no such file or folder

    hint: check the name, and the folder that the command is run in
    "#);
    assert_snapshot!(tell(folder.path(), "bench http://a/ --prompt hello"), @r#"
    exit: 2
    --- stderr
    error: these flags are for a language model

    hint: add --openai chat, completions, responses or embeddings
    "#);
    assert_snapshot!(tell(folder.path(), "bench http://a/ --output out.txt"), @r#"
    exit: 2
    --- stderr
    error: out.txt: its name says no format of results

    hint: end it in .html, .json, .yaml, .csv or .parquet
    "#);
}

#[test]
fn results_are_written_in_every_format() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let line = format!(
        "--quiet bench {} --openai chat --prompt Hi --max-tokens 2 --streams 1,2 --requests 10 --output a.json \
         --output a.yaml --output a.csv --records a.jsonl --format csv",
        mock.url
    );
    let output = run(folder.path(), &line);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), read("a.csv"));
    let lines: Vec<_> = read("a.csv").lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with("name,started,step,strategy,valid,holds,requests,ok"),
        "{}",
        lines[0]
    );
    assert!(lines[2].contains(",2,\"concurrent, 2 streams\","), "{}", lines[2]);
    assert_eq!(read("a.jsonl").lines().count(), 20);
    let made = run(folder.path(), "--quiet report a.json -o a.parquet");
    assert!(made.status.success(), "{}", told(&made));
    // The table is data as any other: a row for each step.
    let table = gatewright_bench::RowFile::open(&folder.path().join("a.parquet")).unwrap();
    assert_eq!(table.rows(), 2);
    assert!(read("a.yaml").starts_with("schema: gatewright.bench/1\n"));
    // What is read from YAML and from JSON is the same.
    for name in ["a.json", "a.yaml"] {
        let made = run(folder.path(), &format!("--quiet report {name} -o {name}.json"));
        assert!(made.status.success(), "{}", told(&made));
    }
    assert_eq!(read("a.json.json"), read("a.yaml.json"));
}

#[test]
fn the_result_fits_its_schema() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let line =
        [&*mock.url, "--openai", "chat", "--prompt", "Hi", "--max-tokens", "2", "--requests", "40"];
    let (_, report) = bench(folder.path(), &[&line[..], &["--gate", "errors <= 1%"]].concat());
    let path = crate::command::workspace().join("docs/reference/bench-result.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<_> = validator.iter_errors(&report).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn two_results_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Mock::start(&["http.latency.fixed=0.2"]);
    let fast = Mock::start(&["http.latency.fixed=0.001"]);
    let of = |mock: &Mock, name: &str| {
        let records = name.replace(".json", ".parquet");
        let words = [&*mock.url, "--streams", "6", "--requests", "60", "--records", &records];
        bench(folder.path(), &words);
        std::fs::rename(folder.path().join("out.json"), folder.path().join(name)).unwrap();
    };
    for (mock, names) in
        [(&fast, ["f1.json", "f2.json", "f3.json"]), (&slow, ["s1.json", "s2.json", "s3.json"])]
    {
        names.iter().for_each(|name| of(mock, name));
    }
    let compare = |words: &str| {
        let output = run(folder.path(), &format!("compare {words} --format json"));
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        let median = rows["rows"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["measure"] == "response p50")
            .unwrap();
        (output.status.code().unwrap(), median.clone())
    };
    let (code, row) = compare("f1.json s1.json");
    assert_eq!((code, &row["verdict"]), (3, &"worse".into()), "{row}");
    assert!(row["low"].as_f64().unwrap() > 0.5, "{row}");
    let (code, row) = compare("f1.json,f2.json,f3.json s1.json,s2.json,s3.json");
    assert_eq!((code, &row["verdict"]), (3, &"worse".into()), "{row}");
    assert!(row["effect_size"].as_f64().unwrap() > 1.0, "{row}");
    let drawn = row["bootstrap_low"].as_f64().unwrap()..row["bootstrap_high"].as_f64().unwrap();
    assert!(drawn.start > 0.5 && drawn.contains(&row["difference"].as_f64().unwrap()), "{row}");
    let (code, row) = compare("f1.parquet s1.parquet");
    assert_eq!((code, &row["verdict"]), (3, &"worse".into()), "{row}");
    assert!(row["low"].as_f64().unwrap() > 0.5, "{row}");
    let (code, row) = compare("s1.parquet,s2.parquet s1.parquet,s2.parquet");
    assert_eq!((code, &row["verdict"]), (0, &"no_difference_shown".into()), "{row}");
    let (_, row) = compare("s1.json f1.json");
    assert_eq!(row["verdict"], "better", "{row}");
    let (code, row) = compare("s1.json s1.json");
    assert_eq!((code, &row["verdict"]), (0, &"no_difference_shown".into()), "{row}");
    let (code, _) = compare("f1.json s1.json --tolerance 100000");
    assert_eq!(code, 0, "worse, but not by so much");
    let text = tell(folder.path(), "compare s1.json s1.json");
    assert!(text.contains("No difference shown.") && !text.contains("drawn"), "{text}");
}

#[test]
fn prometheus_is_told_while_it_runs() {
    let (mock, folder) = (Mock::start(&["http.latency.fixed=0.01"]), tempfile::tempdir().unwrap());
    let mut command = gatewright(folder.path());
    command.args(["bench", &mock.url, "--streams", "2", "--duration", "40s"]);
    command.args(["--metrics-listen", "127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("metrics at http://").expect(&line);
    let address = address.strip_suffix("/metrics").unwrap().to_owned();
    let ask = |path: &str| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let told = loop {
        let told = ask("/metrics");
        let median = "gatewright_bench_response_time_p50_seconds ";
        let median = told.lines().find_map(|line| line.strip_prefix(median));
        // Of the first few requests, no quantile can be told.
        if median.is_some_and(|median| median.parse::<f64>().unwrap() > 0.0) {
            break told;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.contains("gatewright_bench_step 1.0"), "{told}");
    assert!(told.ends_with("# EOF\n"), "{told}");
}

/// Draws the page in a real browser; `make` installs one.
pub(crate) fn browse(page: &Path, width: u32) -> String {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    });
    let browser = browser.expect("a browser is missing: run `make browser`");
    let profile = tempfile::tempdir().unwrap();
    let output = finish(
        Command::new(browser)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"])
            // Whatever it would fetch, it cannot.
            .arg("--host-resolver-rules=MAP * ~NOTFOUND")
            .arg(format!("--window-size={width},900"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("--dump-dom")
            .arg(format!("file://{}", page.display())),
    );
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_page_draws_itself_in_a_browser() {
    let (mock, folder) = (quick(), tempfile::tempdir().unwrap());
    let line = format!(
        "--quiet bench {} --openai chat --prompt Hi --max-tokens 3 --strategy poisson --rate 50,100,150 --requests 80 \
         --gate errors<=1% --label version=</script><b> --output a.html --output a.json",
        mock.url
    );
    run(folder.path(), &line);
    let page = std::fs::read_to_string(folder.path().join("a.html")).unwrap();
    let head = page.split("id=\"data\"").next().unwrap();
    assert!(
        !head.contains("src=") && !head.contains("href=") && !head.contains("@import"),
        "{head}"
    );
    for width in [1200, 390] {
        let dom = browse(&folder.path().join("a.html"), width);
        assert!(!dom.contains("data-fault"), "{}", dom.split("<style>").next().unwrap());
        assert!(dom.contains("data-charts=\"6\""), "{}", dom.split("<style>").next().unwrap());
        for part in [
            "Valid measurement",
            "Latency over load",
            "Distribution",
            "Over time",
            "Tokens",
            "Gates",
            "poisson 100/s",
        ] {
            let alternative = part == "Valid measurement" && dom.contains("Not valid");
            assert!(dom.contains(part) || alternative, "{part} at {width}");
        }
        assert!(dom.contains("version=&lt;/script&gt;&lt;b&gt;"), "labels are text");
    }
    let made = run(folder.path(), "--quiet report a.json a.json --output both.html");
    assert!(made.status.success(), "{}", told(&made));
    let dom = browse(&folder.path().join("both.html"), 1200);
    assert!(!dom.contains("data-fault") && dom.contains("no difference shown"));
}
