use std::fmt;
use std::path::Path;

use gatewright_control::config::ConfigError;

/// How a command ended; the numbers are the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It could not.
    Failed = 1,
    /// What was asked for makes no sense: arguments or files are wrong, a port is taken.
    Usage = 2,
    /// An objective or a verification did not hold.
    NotMet = 3,
    /// The measurement says nothing about the system: the generator was the limit.
    NotValid = 4,
    /// SIGINT ended it early: what a shell reports then.
    Interrupted = 130,
    /// The same of SIGTERM.
    Terminated = 143,
}

/// Why a command ended early: one line, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

pub(crate) type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    /// Wrong arguments or files.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, what: one_line(&what.to_string()), hint: None }
    }

    /// Something that did not work, through no fault of what was asked.
    pub(crate) fn failed(what: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, ..Self::usage(what) }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// A file of settings that is wrong.
    pub(crate) fn of_config(path: &Path, fault: ConfigError) -> Self {
        let hint = fault.hint.clone().unwrap_or_else(|| {
            "`gatewright config schema` says which keys there are and what they hold".to_owned()
        });
        Self::usage(format!("{}: {fault}", path.display())).hint(hint)
    }

    /// A scenario of a simulation that is wrong.
    pub(crate) fn of_scenario(path: &Path, fault: ConfigError) -> Self {
        let hint = fault.hint.clone().unwrap_or_else(|| {
            "`gatewright config schema scenario` says which keys there are and what they hold"
                .to_owned()
        });
        Self::usage(format!("{}: {fault}", path.display())).hint(hint)
    }

    /// A model file that is wrong.
    pub(crate) fn of_model(path: &Path, fault: ConfigError) -> Self {
        let hint = fault.hint.clone().unwrap_or_else(|| {
            "`gatewright config schema model` says which keys there are and what they hold"
                .to_owned()
        });
        Self::usage(format!("{}: {fault}", path.display())).hint(hint)
    }

    /// A file that cannot be read.
    pub(crate) fn of_reading(path: &Path, fault: &std::io::Error) -> Self {
        Self::usage(format!("{}: {}", path.display(), reason(fault)))
            .hint("check the name, and the folder that the command is run in")
    }

    /// A file that cannot be written.
    pub(crate) fn of_writing(path: &Path, fault: &std::io::Error) -> Self {
        Self::usage(format!("{}: cannot be written: {}", path.display(), reason(fault)))
            .hint("give a file in a folder that exists and may be written to")
    }
}

/// What an operation of the system said, without the number that Rust adds.
pub(crate) fn reason(fault: &std::io::Error) -> String {
    match fault.kind() {
        std::io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::InvalidData => "is no UTF-8 text".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => {
            let text = fault.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}

/// An error is one line, whoever wrote it.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
