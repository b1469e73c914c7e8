//! `serve` and its clients, over real sockets: an upstream of this test behind a gateway of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use insta::assert_snapshot;

use crate::command::{finish, gatewright, python, told, workspace};

/// Answers every request with "1" until the test ends.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(stream));
        }
    });
    port
}

fn answer_all(mut stream: TcpStream) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            return;
        }
        seen.extend_from_slice(&buffer[..count]);
        // None of this test's requests has a body that matters.
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            seen.drain(..end + 4);
            let answer =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1";
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// A gateway; it is ended with the test.
struct Serving {
    child: Child,
    folder: tempfile::TempDir,
    address: String,
    admin: String,
}

impl Serving {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = upstream();
        let system = format!("[function.one]\nhttp = \"http://127.0.0.1:{port}\"\n");
        std::fs::write(folder.path().join("gatewright.toml"), system).unwrap();
        let free = ["--set", "gateway.listen=127.0.0.1:0", "--set", "gateway.admin=127.0.0.1:0"];
        let mut child = gatewright(folder.path())
            .args(["serve", "--log-format", "json", "--records", "served.jsonl"])
            .args(free)
            .args(flags)
            .env("GATEWRIGHT_TOKEN", "secret")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let serving = lines.find(|line| line.contains("\"serving\""));
        let serving = serving.expect("it ended before it served");
        // The rest is read on, so that the gateway can write it.
        std::thread::spawn(move || lines.for_each(drop));
        let line: serde_json::Value = serde_json::from_str(&serving).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        Self { child, folder, address: text("address"), admin: text("admin") }
    }

    /// Runs a client command against it and tells what it did.
    fn tell(&self, arguments: &[&str]) -> String {
        self.tell_with("secret", arguments)
    }

    fn tell_with(&self, token: &str, arguments: &[&str]) -> String {
        let mut command = gatewright(self.folder.path());
        command.args(arguments).env("GATEWRIGHT_ADMIN", format!("http://{}", self.admin));
        command.env("GATEWRIGHT_TOKEN", token);
        told(&finish(&mut command)).replace(&self.admin, "ADMIN")
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn functions_are_listed_invoked_scaled_and_removed() {
    let gateway = Serving::start(&[]);
    assert_snapshot!(gateway.tell(&["invoke", "one", "{\"x\": 1}"]), @r#"
    exit: 0
    --- stdout
    1
    "#);
    assert_snapshot!(gateway.tell(&["functions"]), @r#"
    exit: 0
    --- stdout
    function  replicas  running  min  max  in service  waiting  invocations
    one              1        1    1    1           0        0            1
    "#);
    assert_snapshot!(gateway.tell(&["scale", "one", "7"]), @r#"
    exit: 0
    --- stderr
    one: replicas wanted: 1, not 7: the system file sets its bounds
    "#);
    assert_snapshot!(gateway.tell(&["invoke", "on"]), @r#"
    exit: 1
    --- stderr
    error: 404 Not Found: there is no function `on`

    hint: there is one
    "#);
    assert_snapshot!(gateway.tell(&["invoke", "one", "{x}"]), @r#"
    exit: 2
    --- stderr
    error: the arguments `{x}` are no JSON: key must be a string at line 1 column 2

    hint: a text needs its quotes: gatewright invoke greet '"world"'
    "#);
    assert_snapshot!(gateway.tell(&["invoke", "one/../two"]), @r#"
    exit: 2
    --- stderr
    error: `one/../two` is no name of a function

    hint: names have letters, digits, `-`, `_` and `.`; `gatewright functions` lists them
    "#);
    assert_snapshot!(gateway.tell(&["remove", "one"]), @r#"
    exit: 0
    --- stderr
    one: removed
    "#);
    assert_snapshot!(gateway.tell(&["functions"]), @r#"
    exit: 0
    --- stdout
    function  replicas  running  min  max  in service  waiting  invocations
    "#);
}

#[test]
fn a_function_is_deployed_updated_watched_and_suspended() {
    let gateway = Serving::start(&[]);
    let write = |text: &str| {
        std::fs::write(gateway.folder.path().join("next.toml"), text).unwrap();
    };
    write("[function.say]\nprocess = [\"sh\", \"-c\", \"echo $Http_Method >&2; cat\"]\n");
    assert_snapshot!(gateway.tell(&["deploy", "say", "--file", "next.toml"]), @r#"
    exit: 0
    --- stderr
    say: deployed
    "#);
    assert_snapshot!(gateway.tell(&["invoke", "say", "7"]), @r#"
    exit: 0
    --- stdout
    7
    "#);
    let update = ["deploy", "say", "--file", "next.toml", "--set", "function.say.timeout=5s"];
    assert_snapshot!(gateway.tell(&update), @r#"
    exit: 0
    --- stderr
    say: is being updated
    "#);
    let described = gateway.tell(&["describe", "say"]);
    assert!(described.contains("config.timeout: 5s\n"), "{described}");
    assert!(described.contains("runs: sh\n"), "{described}");
    assert_snapshot!(gateway.tell(&["deploy", "say", "--file", "next.toml", "--no-update"]), @r#"
    exit: 1
    --- stderr
    error: 409 Conflict: function `say` is deployed already
    "#);
    write("[function.say]\nhttp = \"http://127.0.0.1:1\"\n");
    assert_snapshot!(gateway.tell(&["deploy", "say", "--file", "next.toml"]), @r#"
    exit: 1
    --- stderr
    error: 409 Conflict: function `say` cannot be updated: its replicas would be of another kind

    hint: remove it and deploy it anew
    "#);
    assert_snapshot!(gateway.tell(&["deploy", "sayy", "--file", "next.toml"]), @r#"
    exit: 2
    --- stderr
    error: next.toml: there is no function `sayy`

    hint: did you mean `say`?
    "#);
    let lines = gateway.tell(&["logs", "say", "--tail", "1"]);
    assert!(lines.starts_with("exit: 0\n--- stdout\n20") && lines.ends_with("  POST\n"), "{lines}");
    let json = gateway.tell(&["logs", "say", "--since", "5m", "--format", "json"]);
    assert!(json.contains("\"text\":\"POST\""), "{json}");
    assert_snapshot!(gateway.tell(&["suspend", "say"]), @r#"
    exit: 0
    --- stderr
    say: stops until somebody asks for it
    "#);
    assert_snapshot!(gateway.tell(&["replicas", "say"]), @r#"
    exit: 0
    --- stdout
    replica  state  in service  started by
    "#);
}

#[test]
fn who_errs_is_taught() {
    let gateway = Serving::start(&[]);
    for command in [
        &["scale", "onne", "2"][..],
        &["suspend", "onne"],
        &["describe", "onne"],
        &["replicas", "onne"],
        &["logs", "onne"],
        &["reload", "onne"],
        &["remove", "onne"],
    ] {
        let told = gateway.tell(command);
        let expected = "exit: 1\n--- stderr\nerror: 404 Not Found: there is no function `onne`\n\n\
                        hint: did you mean `one`?\n";
        assert_eq!(told, expected, "{command:?}");
    }
    let mut nobody = gatewright(gateway.folder.path());
    nobody.args(["logs", "one", "--admin", "http://127.0.0.1:1"]);
    assert_snapshot!(told(&finish(&mut nobody)), @r#"
    exit: 1
    --- stderr
    error: http://127.0.0.1:1: connection refused

    hint: is it running? `gatewright serve` starts it; --admin or GATEWRIGHT_ADMIN says where it is
    "#);
}

#[test]
fn a_token_opens_it_and_is_not_told() {
    let gateway = Serving::start(&[]);
    assert_snapshot!(gateway.tell_with("wrong", &["functions"]), @r#"
    exit: 1
    --- stderr
    error: 401 Unauthorized: the admin API asks for a token: Authorization: Bearer ...

    hint: give the token: GATEWRIGHT_TOKEN=... or --token-file FILE
    "#);
    std::fs::write(gateway.folder.path().join("token"), "secret\n").unwrap();
    let file = gateway.tell_with("wrong", &["functions", "--token-file", "token"]);
    assert!(file.starts_with("exit: 0"), "{file}");
    std::fs::write(gateway.folder.path().join("token"), "").unwrap();
    assert_snapshot!(gateway.tell(&["functions", "--token-file", "token"]), @r#"
    exit: 2
    --- stderr
    error: token: there is no token in it
    "#);
}

#[test]
fn a_benchmark_tells_what_it_saw() {
    let gateway = Serving::start(&[]);
    let url = gateway.url("/function/one");
    let arguments = ["bench", &url, "--requests", "40", "--streams", "2", "--format", "json"];
    let files = ["--records", "seen.csv", "--output", "result.json"];
    let output = finish(gatewright(gateway.folder.path()).args(arguments).args(files));
    // On a busy machine it may say that it was itself the limit.
    assert!(matches!(output.status.code(), Some(0 | 4)), "{}", told(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["schema"], "gatewright.bench/1");
    let step = &result["steps"][0];
    assert_eq!(step["result"]["run"]["statuses"]["ok"], 40);
    assert_eq!(step["strategy"], serde_json::json!({ "concurrent": { "streams": 2 } }));
    let read = |name: &str| std::fs::read_to_string(gateway.folder.path().join(name)).unwrap();
    assert_eq!(read("result.json"), String::from_utf8(output.stdout).unwrap());
    assert_eq!(read("seen.csv").lines().count(), 41);
}

#[test]
fn errors_beyond_the_limit_end_it_with_status_3() {
    let gateway = Serving::start(&[]);
    let url = gateway.url("/function/nobody");
    let arguments = ["bench", &url, "--streams", "1", "--max-errors", "3"];
    let output = finish(gatewright(gateway.folder.path()).args(arguments));
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    let verdict = String::from_utf8(output.stdout).unwrap();
    // One more may be under way when the limit is reached.
    assert!(verdict.lines().nth(1).unwrap().starts_with("Stopped: "), "{verdict}");
}

#[test]
fn a_port_in_use_is_said_and_nothing_is_left() {
    let gateway = Serving::start(&[]);
    let set = format!("gateway.listen={}", gateway.address);
    let files =
        ["serve", "--set", &set, "--set", "gateway.admin=127.0.0.1:0", "--records", "other.jsonl"];
    let told = gateway.tell(&files).replace(&gateway.address, "ADDRESS");
    assert_snapshot!(told, @r#"
    exit: 2
    --- stderr
    error: cannot listen on ADDRESS (gateway.listen): address already in use

    hint: another program listens there; stop it or set gateway.listen to another address
    "#);
    assert!(!gateway.folder.path().join("other.jsonl").exists(), "a file was begun");
}

#[test]
fn sigterm_ends_it_well_with_its_records_written() {
    let mut gateway = Serving::start(&[]);
    gateway.tell(&["invoke", "one"]);
    let id = gateway.child.id().to_string();
    let killed = std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(killed.success());
    assert_eq!(gateway.child.wait().unwrap().code(), Some(0));
    let records = std::fs::read_to_string(gateway.folder.path().join("served.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 1, "{records}");
}

#[test]
fn wrong_settings_start_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tell = |system: &str, arguments: &[&str]| {
        std::fs::write(folder.path().join("gatewright.toml"), system).unwrap();
        let mut command = gatewright(folder.path());
        told(&finish(command.arg("serve").args(arguments)))
    };
    let one = "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n";
    assert_snapshot!(tell("[gateway]\nlistn = \"\"\n", &[]), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: line 2, column 1: unknown key `listn`

    hint: did you mean `listen`?
    "#);
    assert_snapshot!(tell("[gateway]\nlisten = \"nowhere\"\n", &[]), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: gateway.listen = "nowhere" is not an address: invalid socket address

    hint: write it as "127.0.0.1:8080"
    "#);
    assert_snapshot!(tell(one, &["--set", "gateway.admin=0.0.0.0:18081"]), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: gateway.admin = "0.0.0.0:18081" is not a loopback address and there is no token

    hint: set GATEWRIGHT_TOKEN, or let gateway.admin be on 127.0.0.1
    "#);
    assert_snapshot!(tell(one, &["--records", "served.csv"]), @r#"
    exit: 2
    --- stderr
    error: --records: a gateway writes one JSON object a line

    hint: give it a name that ends in .jsonl, or a folder
    "#);
    assert_snapshot!(tell(one, &["--records", "no/where.jsonl"]), @r#"
    exit: 2
    --- stderr
    error: no/where.jsonl: cannot be written: there is no such file or folder

    hint: give a file in a folder that exists and may be written to
    "#);
    assert_snapshot!(tell(one, &["--log", "loud"]), @r#"
    exit: 2
    --- stderr
    error: --log `loud`: `loud` is no level

    hint: write a level (error, warn, info, debug, trace), or module=level, with commas
    "#);
    assert_snapshot!(tell(one, &["--token-file", "nothing"]), @r#"
    exit: 2
    --- stderr
    error: nothing: there is no such file or folder

    hint: check the name, and the folder that the command is run in
    "#);
}

#[test]
fn a_class_that_cannot_be_served_is_said() {
    let tell = |flags: &[&str]| {
        let mut command = gatewright(&workspace().join("examples/square"));
        command.args(["serve", "--log", "off", "--set", "gateway.listen=127.0.0.1:0"]);
        command.args(["--set", "gateway.admin=127.0.0.1:0"]).env("GATEWRIGHT_PYTHON", python());
        let told = told(&finish(command.args(flags)));
        told.replace(workspace().to_str().unwrap(), "WORKSPACE")
    };
    assert_snapshot!(tell(&["--set", "function.square.python=models:Nobody"]), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: function `square` did not start: AttributeError: module `models` has no class `Nobody`; it has `MyAwesomeModel`

    hint: python = "models:Nobody" asks models.py for a class named Nobody
    "#);
    assert_snapshot!(tell(&["--set", "function.square.python=nothing:Nobody"]), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: function `square` did not start: ModuleNotFoundError: there is no module `nothing` in `WORKSPACE/examples/square` or on Python's path

    hint: python = "nothing:Nobody" looks for nothing.py beside the system file, and imports what it imports from the Python that runs it
    "#);
    assert_snapshot!(tell(&["--set", "function.square.args=[1, 2]"]), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: function `square` did not start: TypeError: MyAwesomeModel.__init__() takes 2 positional arguments but 3 were given

    hint: the exception comes from constructing models:MyAwesomeModel
    "#);
    assert_snapshot!(tell(&["--python", "no-such-python"]), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: function `square` did not start: cannot run no-such-python: No such file or directory (os error 2)

    hint: set GATEWRIGHT_PYTHON to a Python that exists
    "#);
}

#[test]
fn ctrl_c_ends_a_benchmark_early_with_what_was_measured() {
    let gateway = Serving::start(&[]);
    let url = gateway.url("/function/one");
    let arguments = ["bench", &url, "--streams", "1", "--duration", "10m", "--records", "seen.csv"];
    let child = gatewright(gateway.folder.path())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let records = gateway.folder.path().join("seen.csv");
    let draft = gateway.folder.path().join("seen.csv.partial");
    // Records are on their way: it has begun.
    while draft.metadata().map_or(0, |about| about.len()) < 1_000 {
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 4)), "{}", told(&output));
    let verdict = String::from_utf8(output.stdout).unwrap();
    assert!(verdict.lines().nth(1).unwrap().ends_with("It was ended early."), "{verdict}");
    assert!(records.exists() && !draft.exists());
}

#[test]
fn nobody_there_is_said() {
    let folder = Path::new(".");
    let tell = |arguments: &[&str]| told(&finish(gatewright(folder).args(arguments)));
    // Port 1 is nobody's.
    assert_snapshot!(tell(&["functions", "--admin", "http://127.0.0.1:1"]), @r#"
    exit: 1
    --- stderr
    error: http://127.0.0.1:1: connection refused

    hint: is it running? `gatewright serve` starts it; --admin or GATEWRIGHT_ADMIN says where it is
    "#);
    assert_snapshot!(tell(&["functions", "--admin", "localhost"]), @r#"
    exit: 2
    --- stderr
    error: --admin `localhost` is no http:// URL

    hint: write http://host:port, the address `gateway.admin` of the system file
    "#);
    assert_snapshot!(tell(&["bench", "http://127.0.0.1:1/"]), @r#"
    exit: 1
    --- stderr
    error: cannot connect to 127.0.0.1:1: connection refused

    hint: is the server running there? `gatewright serve` starts a gateway
    "#);
}

#[test]
fn a_gateway_is_loaded_by_http2() {
    let serving = Serving::start(&[]);
    let url = format!("http://{}/function/one", serving.address);
    let output = finish(gatewright(serving.folder.path()).args([
        "--quiet",
        "bench",
        &url,
        "--body",
        "1",
        "--http2",
        "--streams",
        "20",
        "--requests",
        "400",
        "--format",
        "json",
    ]));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|fault| panic!("{fault}: {}", told(&output)));
    let result = &report["steps"][0]["result"];
    assert_eq!(result["run"]["statuses"]["ok"], 400, "{}", result["run"]);
    assert_eq!(result["connections_opened"], 1);
}
