use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::driver::Driver;
use crate::error::StartFailure;
use crate::function::{Function, PythonClass};
use crate::output::Output;

/// A worker's process. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Its process id and that of its group.
    group: Option<Pid>,
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
        let mut child = command.spawn().map_err(|error| StartFailure::Spawn {
            program: place.python.display().to_string(),
            reason: error.to_string(),
        })?;
        let logs = Arc::clone(&function.logs);
        let output = Output::follow(child.stdout.take(), child.stderr.take(), logs, name);
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group, output })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.group
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> Option<ExitStatus> {
        self.child.wait().await.ok()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        if self.child.id().is_some()
            && let Some(pid) = self.group
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

    /// Kills whatever it has started. It leads a process group of its own; to be called before it has ended or
    /// right after, while its number means nothing else.
    pub(crate) fn kill_group(&self) {
        if let Some(group) = self.group
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::trace!(%error, "a worker left nobody behind");
        }
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
