use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::driver::Driver;
use crate::error::StartFailure;
use crate::function::{Function, PythonClass};
use crate::output::Output;
use crate::process::Group;

/// A worker's process. Killed with all that it has started when it is dropped, or when the gateway dies.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// It leads a process group: what it has started goes with it.
    group: Group,
    output: Output,
}

impl Process {
    /// Starts the worker `name` of a class, with its output going to the log.
    pub(crate) fn start(
        driver: &Driver,
        function: &Arc<Function>,
        class: &PythonClass,
        name: &str,
    ) -> Result<Self, StartFailure> {
        let place = &driver.workplace;
        let mut address = std::ffi::OsString::from("unix:");
        address.push(driver.hub.socket());
        let mut command = Command::new(&place.python);
        command
            .args(["-m", "gatewright.worker", "--class", &class.target, "--name", name])
            .args([
                if function.batches { "--batch" } else { "--window" },
                &function.window.to_string(),
            ])
            .args(["--parent", &std::process::id().to_string()])
            .arg("--path")
            .arg(&place.base_dir)
            .arg("--connect")
            .arg(address)
            .current_dir(&place.base_dir)
            .env("PYTHONUNBUFFERED", "1")
            .envs(&class.env)
            .env("GATEWRIGHT_WORKER_TOKEN", driver.hub.token())
            .env_remove("GATEWRIGHT_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        driver.reaper.mark(&mut command);
        let mut child = command.spawn().map_err(|error| StartFailure::Spawn {
            program: place.python.display().to_string(),
            reason: error.to_string(),
        })?;
        let logs = Arc::clone(&function.logs);
        let output = Output::follow(child.stdout.take(), child.stderr.take(), logs, name);
        let group = driver.reaper.watch(&child);
        Ok(Self { child, group, output })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.group.leader()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> Option<ExitStatus> {
        self.child.wait().await.ok()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        if self.child.id().is_some()
            && let Some(pid) = self.group.leader()
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::debug!(%error, "a worker to be stopped was gone already");
        }
    }

    /// Kills it and whatever it has started, and waits for its end.
    pub(crate) async fn kill(&mut self) {
        self.kill_group();
        if self.child.id().is_some()
            && let Err(error) = self.child.kill().await
        {
            tracing::warn!(%error, "cannot kill a worker");
        }
    }

    /// Kills whatever it has started; to be called before it has ended or right after, while its number means
    /// nothing else.
    pub(crate) fn kill_group(&self) {
        self.group.signal(Signal::KILL);
    }

    /// Why it did not start, after it has ended by itself.
    pub(crate) async fn failure(&mut self, status: Option<ExitStatus>) -> StartFailure {
        let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        StartFailure::Exited { status, words: self.output.last_words().await }
    }
}

/// Whether a process has been stopped by a signal, as `/proc/PID/stat` has it; `false` where that cannot be known.
pub(crate) fn is_stopped(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid()));
    // The name of the program, in parentheses, may have anything in it.
    let state = stat.as_ref().ok().and_then(|stat| stat.rsplit_once(") "));
    state.is_some_and(|(_, state)| state.starts_with(['T', 't']))
}
