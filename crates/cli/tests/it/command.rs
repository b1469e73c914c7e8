//! Runs the command and writes down what it did, for snapshots.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    folder.expect("crates/cli is two below the workspace").to_owned()
}

/// The command, run in `folder`, without anything of this process's environment that it would read.
pub(crate) fn gatewright(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewright"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GATEWRIGHT_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// The Python with the package `gatewright`, which `make venv` makes.
pub(crate) fn python() -> PathBuf {
    let own = || workspace().join(".venv/bin/python");
    let python = std::env::var_os("GATEWRIGHT_PYTHON").map_or_else(own, PathBuf::from);
    assert!(python.exists(), "{} is missing: run `make venv`", python.display());
    python
}

/// Longer than any command here takes; one that goes on is ended.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the command to its end, or ends it.
pub(crate) fn finish(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the command starts");
    let id = child.id().to_string();
    let (ended, has_ended) = channel::<()>();
    let watch = std::thread::spawn(move || {
        if has_ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            drop(Command::new("kill").args(["-KILL", &id]).status());
        }
    });
    let output = child.wait_with_output().expect("its output can be read");
    drop(ended);
    watch.join().expect("the watch ends");
    output
}

/// Runs `line` (words apart by spaces, no quoting) in `folder`.
pub(crate) fn run(folder: &Path, line: &str) -> Output {
    finish(gatewright(folder).args(line.split_whitespace()))
}

/// Exit status, stdout and stderr as one text.
pub(crate) fn told(output: &Output) -> String {
    let code = output.status.code().map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    let mut text = format!("exit: {code}\n");
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            let said = String::from_utf8_lossy(bytes);
            text.push_str(&format!("--- {name}\n{}\n", said.trim_end()));
        }
    }
    text
}

/// Runs `line` in `folder` and tells what happened.
pub(crate) fn tell(folder: &Path, line: &str) -> String {
    told(&run(folder, line))
}
