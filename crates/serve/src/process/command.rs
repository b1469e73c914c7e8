use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::function::Program;

/// A process of a program, in a process group of its own, in the folder of the system file. It gets the environment
/// of the gateway without its secrets.
pub(crate) fn command(program: &Program, args: &[String], folder: &Path) -> Command {
    // A name is looked for, a path is relative to the system file.
    let is_name = program.path.components().count() == 1 && !program.path.starts_with(".");
    let path = if is_name { program.path.clone() } else { folder.join(&program.path) };
    let mut command = Command::new(path);
    command
        .args(args)
        .current_dir(folder)
        .env_remove("GATEWRIGHT_TOKEN")
        .env_remove("GATEWRIGHT_WORKER_TOKEN")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}
