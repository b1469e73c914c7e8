//! The help: it teaches the whole on one screen, and every command has examples.

use insta::assert_snapshot;

use crate::command::{run, tell, workspace};

const SCREEN_LINES: usize = 60;

fn help(line: &str) -> String {
    let output = run(&workspace(), line);
    assert!(output.status.success() && output.stderr.is_empty(), "{line}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_whole_fits_on_one_screen() {
    let text = help("--help");
    assert!(text.lines().count() <= SCREEN_LINES, "{text}");
    assert_snapshot!(text, @r#"
    Serves functions, loads them, and rehearses them. One file, gatewright.toml, describes a system of
    functions: Python classes in worker processes, and HTTP upstreams behind a cache. The same file is
    served live, and simulated in virtual time by the same decision code.

    Usage: gatewright [OPTIONS] <COMMAND>

    Commands:
      serve      Serve the functions of a system file over HTTP
      bench      Load a server over HTTP, and measure how it takes that
      report     Make a page with charts, or another format, of results of benchmarks
      calibrate  Make a model of functions from records of how they were served
      simulate   Run a system in virtual time, with the same decisions
      predict    Say what a scenario will come to, and how sure that is
      compare    Lay results of benchmarks beside one another, or a measurement beside a prediction
      mock       Stand in for a server, plain HTTP or a language model, with chosen delays and faults
      data       Prepare the data that benchmarks of language models are filled with
      config     Check or show the system file
      functions  List the functions of a running gateway
      invoke     Ask a function of a running gateway, and print its answer
      scale      Set how many replicas a function of a running gateway has
      deploy     Deploy a function of a system file to a running gateway
      reload     Replace the workers of a function by new ones, without a lost request
      suspend    Stop every replica of a function until somebody asks for it
      describe   Show everything that a running gateway tells of a function
      replicas   List the replicas of a function of a running gateway
      logs       Show what the replicas of a function of a running gateway print
      worker     Serve a Python class as a worker of a gateway elsewhere
      remove     Remove a function from a running gateway
      cache      Look at the cache of a running gateway, or purge what it has stored

    Options:
      -q, --quiet
              Show neither progress nor notes on stderr; warnings and errors stay

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    A tour, in the folder examples/square:
      gatewright serve --records served.jsonl                 serve the functions of gatewright.toml
      gatewright invoke square 3                              ask one of them, from another terminal
      gatewright bench http://127.0.0.1:8080/function/square --body 3 --rate 8 --records seen.jsonl
                                                              load it, and see how it takes that
      gatewright calibrate served.jsonl seen.jsonl --output measured.model.toml
                                                              make a model of what was measured
      gatewright simulate scenario.toml --model measured.model.toml
                                                              ask the model about another load

    `gatewright COMMAND --help` has examples of each command.

    Settings: the file, over it variables like GATEWRIGHT_GATEWAY__LISTEN (two underscores are a
    dot), over them flags like --set gateway.listen=127.0.0.1:9000.

    Output: results go to stdout, everything else to stderr; NO_COLOR is honoured.

    Exit status: 0 done; 1 failed; 2 wrong usage or settings; 3 an objective did not hold; 4 the
    measurement is not valid, because the load generator was the limit; 130 and 143 SIGINT
    and SIGTERM ended a sweep early.
    "#);
    assert_snapshot!(tell(&workspace(), "--version"), @r#"
    exit: 0
    --- stdout
    gatewright 0.1.0
    "#);
}

/// The flags that one needs most; `--help` has all of them.
#[test]
fn the_short_help_of_bench_fits_on_a_screen() {
    let text = help("bench -h");
    assert!(text.lines().count() <= SCREEN_LINES, "{text}");
    for heading in
        ["Load:", "Limits:", "Objective", "Request:", "Language model:", "Data:", "Result:"]
    {
        assert!(text.contains(heading), "{heading}");
    }
    let long = help("bench --help");
    for strategy in ["random_walk:", "sessions:", "search:"] {
        assert!(long.contains(strategy), "{strategy}");
    }
}

#[test]
fn every_command_has_examples() {
    let whole = help("--help");
    let commands = whole.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names: Vec<_> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        let text = help(&format!("{name} --help"));
        assert!(text.contains("Examples:"), "`{name}` has no examples:\n{text}");
    }
}

#[test]
fn wrong_usage_is_one_line_and_a_hint() {
    let folder = workspace();
    assert_snapshot!(tell(&folder, "bnch"), @r#"
    exit: 2
    --- stderr
    error: unrecognized subcommand 'bnch'

    hint: a similar subcommand exists: 'bench'
    "#);
    assert_snapshot!(tell(&folder, "bench"), @r#"
    exit: 2
    --- stderr
    error: the following required arguments were not provided: <URL>

    hint: `gatewright bench --help` shows how it is used
    "#);
    assert_snapshot!(tell(&folder, "bench http://localhost --rat 3"), @r#"
    exit: 2
    --- stderr
    error: unexpected argument '--rat' found

    hint: a similar argument exists: '--rate'
    "#);
    assert_snapshot!(tell(&folder, "bench http://localhost --duration 3"), @r#"
    exit: 2
    --- stderr
    error: invalid value '3' for '--duration <DURATION>': time unit needed, for example 3sec or 3ms

    hint: `gatewright bench --help` shows how it is used
    "#);
    assert_snapshot!(tell(&folder, "bench http://localhost --strategy fast"), @r#"
    exit: 2
    --- stderr
    error: invalid value 'fast' for '--strategy <NAME>'

    hint: possible values: synchronous, concurrent, throughput, constant, poisson, gamma, ramp, steps, spike, sine, random_walk, users, sessions, replay, sweep, knee, goodput, search
    "#);
    assert_snapshot!(tell(&folder, "bench http://localhost --strategy poisson"), @r#"
    exit: 2
    --- stderr
    error: --strategy poisson needs a rate

    hint: add --rate and the requests per second, such as --rate 100
    "#);
    assert_snapshot!(tell(&folder, "bench http://localhost --streams 2 --rate 3"), @r#"
    exit: 2
    --- stderr
    error: --rate and --streams ask for different strategies

    hint: give one of them, or --strategy
    "#);
    assert_snapshot!(tell(&folder, "bench ftp://localhost"), @r#"
    exit: 2
    --- stderr
    error: URL "ftp://localhost": it must begin with http:// or https://

    hint: `gatewright bench --help` has examples
    "#);
    assert_snapshot!(tell(&folder, "bench http://localhost --records seen.txt"), @r#"
    exit: 2
    --- stderr
    error: seen.txt: its name says no format of records

    hint: end it in .csv, .jsonl or .parquet
    "#);
    assert_snapshot!(tell(&folder, "config show --set nonsense"), @r#"
    exit: 2
    --- stderr
    error: invalid value 'nonsense' for '--set <KEY=VALUE>': write key=value, such as gateway.listen=127.0.0.1:9000

    hint: `gatewright config --help` shows how it is used
    "#);
    assert_snapshot!(tell(&folder, "scale square many"), @r#"
    exit: 2
    --- stderr
    error: invalid value 'many' for '<REPLICAS>': invalid digit found in string

    hint: `gatewright scale --help` shows how it is used
    "#);
}
