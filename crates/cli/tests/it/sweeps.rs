//! `simulate --sweep`: its table, and what becomes of it when it is interrupted.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::bench::browse;
use crate::command::{gatewright, run, tell, told, workspace};
use crate::simulated::{SCENARIO, folder, stdout};

/// Everything a request does leaves rows in the frames, and a sweep is laid beside its first point.
#[test]
fn frames_and_sweeps() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "gatewright.toml",
        "[function.f]\npython = \"m:C\"\nreplicas = { min = 2 }\nimages = [\"app\"]\n[image.app]\namd64 = \"10MB\"\n[cluster]\nnodes = [{ name = \"n\" }]\n",
    );
    write("m.toml", "[function.f]\nservice = { fixed = 0.5 }\nstart = { fixed = 1 }\n");
    write(
        "s.toml",
        "model = \"m.toml\"\ncold_start = true\n[[demand]]\nfunction = \"f\"\narrival = { poisson = { rate = 3 } }\nrequests = 50\n",
    );
    stdout(folder.path(), "simulate s.toml --frames frames");
    let frame = |name: &str| {
        let path = folder.path().join("frames").join(format!("{name}.csv"));
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!(std::fs::read_dir(folder.path().join("frames")).unwrap().count(), 15);
    assert_eq!(frame("invocations").lines().count(), 51);
    assert_eq!(frame("fets").lines().count(), 51);
    let phases: Vec<_> = frame("replica_deployment")
        .lines()
        .skip(1)
        .map(|l| l.split(',').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(phases, ["deploy", "deploy", "startup", "startup", "finish", "finish"]);
    assert_eq!(frame("flow").lines().count(), 2, "one pull for both replicas");
    assert!(frame("allocation").contains(",100,209715200,n"), "{}", frame("allocation"));
    assert!(frame("node_utilization").lines().nth(1).unwrap().ends_with(",2,n"));

    let table = stdout(
        folder.path(),
        "simulate s.toml --sweep function.f.replicas.min=[2,3] --sweep cluster.nodes.0.cpu=[1,2] --replications 3",
    );
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[0][..3], ["function.f.replicas.min", "cluster.nodes.0.cpu", "replications"]);
    assert_eq!(rows[1][..4], ["2", "1", "3", "50"]);
    let cell = |name: &str| rows[1][rows[0].iter().position(|column| *column == name).unwrap()];
    assert_eq!(["response_p99_s", "joules"].map(cell), ["", ""], "too few requests; no watts said");
    assert!(cell("response_p50_s").parse::<f64>().is_ok_and(|seconds| seconds > 0.0));
    let difference = |row: usize| rows[row][14].parse::<f64>().unwrap();
    assert_eq!((difference(1), difference(2)), (0.0, 0.0), "a faster node changes nothing here");
    assert!(difference(3) < 0.0, "a third replica helps, on the same luck: {table}");
    let fault = tell(folder.path(), "simulate s.toml --sweep function.f.replicas.mn=[2]");
    assert!(fault.contains("--sweep `function.f.replicas.mn`: unknown key `mn`"), "{fault}");
}

/// A sweep that is cut off and resumed gives the bytes of one that was not.
#[test]
fn a_sweep_goes_on_where_it_was_interrupted() {
    let folder = folder(SCENARIO);
    let sweep = "simulate scenario.toml --sweep function.square.replicas.max=4..20 --sweep function.square.queue.capacity=1..50 --samples 5 --output";
    stdout(folder.path(), &format!("{sweep} whole.csv"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let whole = read("whole.csv");
    assert_eq!(whole.lines().count(), 6);
    // Two rows and a half were written when the program was killed.
    let third = whole.match_indices('\n').nth(3).unwrap().0;
    std::fs::write(folder.path().join("cut.csv.partial"), &whole[..third - 4]).unwrap();
    stdout(folder.path(), &format!("{sweep} cut.csv --resume"));
    assert_eq!(read("cut.csv"), whole);
    assert!(!folder.path().join("cut.csv.partial").exists());
    // A row of another scenario is not taken for one of this.
    let first = whole.lines().nth(1).unwrap();
    let changed = whole.replace(first, &format!("{first}1"));
    std::fs::write(folder.path().join("cut.csv.partial"), changed).unwrap();
    let line = format!("{sweep} cut.csv --resume");
    let output = run(folder.path(), &line);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("row 1 is not of this sweep"), "{}", told(&output));
    // Nor a row of another point, nor one too many, nor a table of other keys.
    let rows: Vec<&str> = whole.split_inclusive('\n').collect();
    let refused = |text: String, why: &str| {
        std::fs::write(folder.path().join("cut.csv.partial"), &text).unwrap();
        let output = run(folder.path(), &line);
        assert_eq!(output.status.code(), Some(2));
        assert!(told(&output).contains(why), "{}", told(&output));
        assert_eq!(read("cut.csv.partial"), text, "it is left as it is");
    };
    refused([rows[0], rows[1], rows[3]].concat(), "row 2 is not of this sweep");
    refused(whole.clone() + rows[5], "row 6 is not of this sweep");
    refused(whole.replacen("replicas.max", "replicas.min", 1), "it is of another sweep");
    let ranges = "simulate scenario.toml --sweep function.square.replicas.max=4..20";
    assert!(told(&run(folder.path(), ranges)).contains("--samples 20"));
}

/// A row has what runs of its point alone have, with the same flags, and its difference from the first row is that of
/// runs with equal seeds: its interval is Student's, of the differences.
#[test]
fn rows_of_a_sweep_are_those_of_single_runs() {
    let folder = folder(SCENARIO);
    let flags =
        "--warm-up 20s --set function.square.queue.capacity=3 --set function.square.replicas.max=5";
    let mean = |replicas: u32, seed: u32| {
        let line = format!(
            "simulate scenario.toml {flags} --set function.square.replicas.min={replicas} --seed {seed} --format json"
        );
        let json: serde_json::Value = serde_json::from_str(&stdout(folder.path(), &line)).unwrap();
        json["report"]["response_time"]["mean_ns"].as_f64().unwrap() / 1e9
    };
    let table = stdout(
        folder.path(),
        &format!(
            "simulate scenario.toml {flags} --seed 5 --replications 2 --sweep function.square.replicas.min=[5,4]"
        ),
    );
    let cell = |row: usize, name: &str| -> f64 {
        let column = table.lines().next().unwrap().split(',').position(|one| one == name).unwrap();
        table.lines().nth(row).unwrap().split(',').nth(column).unwrap().parse().unwrap()
    };
    let near = |found: f64, wanted: f64| {
        assert!((found - wanted).abs() <= 1e-4 * wanted.abs(), "{found}, not {wanted}: {table}");
    };
    let (five, four) = ([mean(5, 5), mean(5, 6)], [mean(4, 5), mean(4, 6)]);
    near(cell(1, "response_mean_s"), f64::midpoint(five[0], five[1]));
    near(cell(2, "response_mean_s"), f64::midpoint(four[0], four[1]));
    let differences = [four[0] - five[0], four[1] - five[1]];
    near(cell(2, "difference_mean_s"), f64::midpoint(differences[0], differences[1]));
    // Student's 97.5 % quantile with one degree of freedom.
    let half = 12.7062 * (differences[0] - differences[1]).abs() / 2.0;
    near(cell(2, "difference_plus_minus_s"), half);
    let drawn = |seed: u32| {
        let line = format!(
            "simulate scenario.toml --sweep function.square.replicas.max=4..400 --samples 3 --seed {seed}"
        );
        let table = stdout(folder.path(), &line);
        table.lines().map(|row| row.split(',').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_ne!(drawn(5), drawn(6), "the points are drawn by the seed, too");
}

/// A signal in the middle of a sweep leaves what is done, says so, and loses nothing of it.
#[test]
fn a_sweep_that_a_signal_ends_can_be_gone_on_with() {
    let folder = folder(&SCENARIO.replace("1m", "5h"));
    let sweep = "simulate scenario.toml --sweep function.square.replicas.max=4..20 --sweep function.square.queue.capacity=1..50 --samples 30 --draw random --quiet";
    stdout(folder.path(), &format!("{sweep} --output whole.csv"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let whole = read("whole.csv");
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let line = format!("{sweep} --output {signal}.csv");
        let partial = format!("{signal}.csv.partial");
        let ended = signalled(folder.path(), &line, signal, || read(&partial).lines().count() > 2);
        assert_eq!(ended.status.code(), code, "{signal}: {}", told(&ended));
        assert!(!folder.path().join(format!("{signal}.csv")).exists(), "{signal} came too late");
        let left = read(&partial);
        assert!(left.lines().count() > 2 && whole.starts_with(&left), "{signal}: {left}");
        if code.is_some() {
            let points = left.lines().count() - 1;
            let text = told(&ended);
            assert!(text.contains(&format!("interrupted after {points} of 30 points")), "{text}");
            assert!(
                text.contains(&format!(
                    "hint: they are in {partial}; the same command with --resume"
                )),
                "{text}"
            );
            assert!(ended.stdout.is_empty(), "{text}");
        }
        stdout(folder.path(), &format!("{line} --resume"));
        assert_eq!(read(&format!("{signal}.csv")), whole, "{signal}");
    }
    // Without a file, the rows that there are are shown.
    let long = sweep.replace("--samples 30", "--samples 1000");
    let start = std::time::Instant::now();
    let soon = || start.elapsed() > std::time::Duration::from_secs(1);
    let shown = signalled(folder.path(), &long, "INT", soon);
    assert_eq!(shown.status.code(), Some(130), "{}", told(&shown));
    let rows = String::from_utf8(shown.stdout.clone()).unwrap();
    assert!(rows.starts_with(whole.lines().next().unwrap()), "{rows}");
    assert!(told(&shown).contains("with a file as --output, --resume can"), "{}", told(&shown));
    let device = tell(folder.path(), &format!("{sweep} --output /dev/null --resume"));
    assert!(device.contains("/dev/null: is no file that a sweep could go on with"), "{device}");
}

/// A trace is read through once, however many points there are: from a pipe, which gives it only once.
#[test]
fn a_sweep_checks_its_trace_once() {
    let folder = folder(
        "model = \"square.model.toml\"\n[[demand]]\nfunction = \"square\"\narrival = { replay = { trace = \"t.csv\", timing = \"idle_gaps\" } }\n",
    );
    let pipe = folder.path().join("t.csv");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let trace = workspace().join("examples/traces/azure_functions_2021.csv");
    let writer = std::thread::spawn(move || std::fs::write(pipe, std::fs::read(trace).unwrap()));
    let sweep = "simulate scenario.toml --sweep function.square.replicas.max=[4,5,6]";
    let table = stdout(folder.path(), sweep);
    writer.join().unwrap().unwrap();
    let requests: Vec<_> =
        table.lines().skip(1).map(|row| row.split(',').nth(2).unwrap()).collect();
    assert_eq!(requests, ["199"; 3], "{table}");
}

/// The command with `signal` sent to it as soon as `when` holds.
fn signalled(folder: &Path, line: &str, signal: &str, when: impl Fn() -> bool) -> Output {
    let mut command = gatewright(folder);
    command.args(line.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while !when() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (flag, id) = (format!("-{signal}"), child.id().to_string());
    assert!(Command::new("kill").args([flag, id]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

/// A sweep as Parquet has the numbers of the same sweep as CSV as numbers, and goes on where it was interrupted.
#[test]
fn a_sweep_as_parquet_is_the_table_with_types() {
    let folder = folder(SCENARIO);
    let sweep = "simulate scenario.toml --sweep function.square.replicas.max=[4,8] --sweep function.square.balance=[\"least_outstanding\",\"round_robin\"] --replications 2 --output";
    stdout(folder.path(), &format!("{sweep} table.csv"));
    let csv = std::fs::read_to_string(folder.path().join("table.csv")).unwrap();
    // One row and a half were written when the program was killed.
    let second = csv.match_indices('\n').nth(2).unwrap().0;
    let partial = folder.path().join("table.parquet.partial");
    std::fs::write(&partial, &csv[..second - 4]).unwrap();
    stdout(folder.path(), &format!("{sweep} table.parquet --resume"));
    assert!(!partial.exists());
    let file = std::fs::File::open(folder.path().join("table.parquet")).unwrap();
    let rows: Vec<_> =
        gatewright_record::parquet_rows(file).unwrap().collect::<Result<_, _>>().unwrap();
    let mut lines = csv::Reader::from_reader(csv.as_bytes());
    let names: Vec<String> = lines.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(rows.len(), 4);
    for (row, line) in rows.iter().zip(lines.records()) {
        let row = serde_json::to_value(row).unwrap();
        for (name, cell) in names.iter().zip(line.unwrap().iter()) {
            let found = &row[name];
            match cell.parse::<f64>() {
                _ if cell.is_empty() => assert!(found.is_null(), "{name}: {row}"),
                Ok(number) => assert_eq!(found.as_f64(), Some(number), "{name}: {row}"),
                Err(_) => assert_eq!(found.as_str(), Some(cell), "{name}: {row}"),
            }
        }
        assert_eq!(row["response_mean_s"].as_f64().map(|mean| mean > 0.0), Some(true));
    }
    let wrong = tell(folder.path(), &format!("{sweep} table.json"));
    assert!(wrong.contains("its name says no format of tables"), "{wrong}");
}

/// A sweep as a page draws its charts in a browser: lines over a number or over words, or points that were drawn.
#[test]
fn a_sweep_as_a_page_draws_itself() {
    let folder = folder(SCENARIO);
    let max = "--sweep function.square.replicas.max=[4,6,8]";
    let balance = "--sweep function.square.balance=[\"least_outstanding\",\"round_robin\"]";
    let capacity = "--sweep function.square.queue.capacity=0..50 --samples 9";
    let cases = [
        (max.to_owned(), "p99"),
        (format!("{max} {balance} --replications 2"), "balance round_robin"),
        (balance.to_owned(), "round_robin"),
        (format!("--sweep function.square.replicas.max=4..20 {capacity}"), "all points"),
    ];
    for (sweep, part) in cases {
        stdout(folder.path(), &format!("simulate scenario.toml {sweep} --output page.html"));
        assert!(!folder.path().join("page.html.partial").exists());
        let dom = browse(&folder.path().join("page.html"), 900);
        let head = dom.split("<style>").next().unwrap();
        assert!(head.contains("data-charts=\"4\"") && !head.contains("data-fault"), "{head}");
        assert!(head.contains("<title>Sweep</title>"), "{head}");
        assert!(dom.contains("Sweep of scenario.toml") && dom.contains(part), "{sweep}: {part}");
    }
}
