//! `config`, and how files, variables and flags come together.

use std::path::Path;

use insta::assert_snapshot;

use crate::command::{gatewright, tell, told};

const SQUARE: &str = "[function.square]\npython = \"models:MyAwesomeModel\"\nargs = [0.25]\n";

fn folder(system: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gatewright.toml"), system).unwrap();
    folder
}

fn check(system: &str) -> String {
    tell(folder(system).path(), "config check")
}

#[test]
fn a_right_file_is_said_to_be_right() {
    assert_snapshot!(check(SQUARE), @r#"
    exit: 0
    --- stdout
    gatewright.toml is right: 1 function, 0 routes
    "#);
    let empty = tempfile::tempdir().unwrap();
    assert_snapshot!(tell(empty.path(), "config check"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: there is no such file or folder

    hint: go to the folder that has it, or name it: gatewright ... FILE
    "#);
    assert_snapshot!(tell(empty.path(), "config check other.toml"), @r#"
    exit: 2
    --- stderr
    error: other.toml: there is no such file or folder

    hint: check the name, and the folder that the command is run in
    "#);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    assert_snapshot!(check("[function.square]\npyhton = \"models:Square\"\n"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: line 2, column 1: unknown key `pyhton`

    hint: did you mean `python`?
    "#);
    assert_snapshot!(check("[gateway]\nmax_connections = \"many\"\n"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: line 2, column 19: invalid type: string "many", expected u32

    hint: `gatewright config schema` says which keys there are and what they hold
    "#);
    assert_snapshot!(check("[gateway]\ndrain = \"30\"\n"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: line 2, column 9: `30` is no duration like "250ms" or "30s": time unit needed, for example 30sec or 30ms

    hint: `gatewright config schema` says which keys there are and what they hold
    "#);
    assert_snapshot!(check("[function.square]\nreplicas = { min = 2 }\n"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: function `square`: it has nothing to run: give it `python`, `http`, `process` or `remote = true`

    hint: `gatewright config schema` says which keys there are and what they hold
    "#);
    assert_snapshot!(check(&format!("{SQUARE}[[route]]\npath = \"/s\"\nto = \"sqare\"\n")), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: route `/s`: there is no function `sqare`

    hint: did you mean `square`?
    "#);
    assert_snapshot!(check("[gateway\n"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: line 1, column 9: unclosed table, expected `]`

    hint: `gatewright config schema` says which keys there are and what they hold
    "#);
}

#[test]
fn flags_are_above_variables_and_variables_above_the_file() {
    let folder = folder("[gateway]\nlisten = \"127.0.0.1:1\"\n");
    let listen = |variable: Option<&str>, flags: &[&str]| {
        let mut command = gatewright(folder.path());
        command.args(["config", "show"]).args(flags);
        command.envs(variable.map(|value| ("GATEWRIGHT_GATEWAY__LISTEN", value)));
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        text.lines().find_map(|line| line.strip_prefix("listen = ").map(str::to_owned)).unwrap()
    };
    assert_eq!(listen(None, &[]), "\"127.0.0.1:1\"");
    assert_eq!(listen(Some("127.0.0.1:2"), &[]), "\"127.0.0.1:2\"");
    assert_eq!(
        listen(Some("127.0.0.1:2"), &["--set", "gateway.listen=127.0.0.1:3"]),
        "\"127.0.0.1:3\""
    );
}

#[test]
fn a_wrong_variable_is_named() {
    let folder = folder(SQUARE);
    let told_with = |name: &str, value: &str| {
        let mut command = gatewright(folder.path());
        told(&command.args(["config", "check"]).env(name, value).output().unwrap())
    };
    assert_snapshot!(told_with("GATEWRIGHT_GATEWAY__LISTN", "127.0.0.1:2"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: GATEWRIGHT_GATEWAY__LISTN `gateway.listn`: unknown key `listn`

    hint: did you mean `listen`?
    "#);
    assert_snapshot!(told_with("GATEWRIGHT_FUNCTION__SQUARE__CONCURRENCY", "many"), @r#"
    exit: 2
    --- stderr
    error: gatewright.toml: GATEWRIGHT_FUNCTION__SQUARE__CONCURRENCY `function.square.concurrency`: invalid type: string "many", expected u32

    hint: `gatewright config schema` says which keys there are and what they hold
    "#);
}

#[test]
fn nobody_reading_on_is_no_failure() {
    use std::process::Stdio;
    let mut command = gatewright(Path::new("."));
    let mut child = command
        .args(["config", "schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(told(&child.wait_with_output().unwrap()), "exit: 0\n");
}
