use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// What the environment of every process has that a gateway has started, with the gateway's mark.
const MARK: &str = "GATEWRIGHT_RUN";

/// Reads `+ GROUP` and `- GROUP` until the gateway is gone, however it went, and then kills the groups that are
/// left, and whoever else has the gateway's mark: who left its group took it along. It looks more than once, because
/// one that is not yet killed may start another. It ignores the signals that a terminal sends to everybody.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
groups=
while read -r sign group; do
    case $sign in
    +) groups="$groups $group" ;;
    -)
        left=
        for other in $groups; do
            [ "$other" = "$group" ] || left="$left $other"
        done
        groups=$left
        ;;
    esac
done
for group in $groups; do
    kill -s KILL -- "-$group"
done 2>/dev/null
for look in 1 2 3 4 5; do
    marked=$(grep -lsF -- "$1" /proc/[0-9]*/environ)
    [ -n "$marked" ] || break
    for environ in $marked; do
        pid=${environ#/proc/}
        kill -s KILL "${pid%/environ}"
    done
done 2>/dev/null
"#;

/// Sees to it that no program outlives the gateway, not even one that is killed: a small shell at the other end of a
/// pipe knows the process groups that are at work, and kills them when the pipe is closed. The kernel's signal at the
/// death of a parent would not do, because it reaches a child and not what that has started. On Linux, a process that
/// has left its group (`setsid`) is known by the mark in its environment.
#[derive(Debug)]
pub(crate) struct Reaper {
    /// Of this gateway's processes alone.
    mark: String,
    shell: Mutex<Option<Shell>>,
}

#[derive(Debug)]
struct Shell {
    pipe: OwnedFd,
    /// Held so that it is waited for when it has ended.
    _child: Child,
}

/// The processes of a program: killed when this is dropped, or when the gateway dies.
#[derive(Debug)]
pub(crate) struct Group {
    id: Option<Pid>,
    reaper: Arc<Reaper>,
}

impl Default for Reaper {
    fn default() -> Self {
        static GATEWAYS: AtomicU64 = AtomicU64::new(0);
        let number = GATEWAYS.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // A process id is used again, but not at the same time.
        let mark = format!("{}.{number}.{};", std::process::id(), now.as_nanos());
        Self { mark, shell: Mutex::default() }
    }
}

impl Reaper {
    /// Marks a process that is about to be started, and all that it will start.
    pub(crate) fn mark(&self, command: &mut Command) {
        command.env(MARK, &self.mark);
    }

    /// Watches over the process group that a child leads.
    pub(crate) fn watch(self: &Arc<Self>, child: &Child) -> Group {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            self.tell('+', id);
        }
        Group { id, reaper: Arc::clone(self) }
    }

    /// Tells the shell, which is started for the first group. One that cannot be told is started anew for the next.
    fn tell(&self, sign: char, group: Pid) {
        let mut shell = self.shell.lock();
        let told = match &mut *shell {
            Some(shell) => shell.write(sign, group),
            None if sign == '-' => Ok(()),
            none => Shell::start(&format!("{MARK}={}", self.mark))
                .and_then(|started| none.insert(started).write(sign, group)),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "a program may outlive the gateway if that is killed");
            *shell = None;
        }
    }
}

impl Shell {
    fn start(marked: &str) -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "gatewright-reaper", marked])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take().ok_or_else(|| io::Error::other("its stdin is no pipe"))?;
        let pipe = pipe.into_owned_fd()?;
        // A shell that does not read must not hold up the gateway.
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { pipe, _child: child })
    }

    fn write(&mut self, sign: char, group: Pid) -> io::Result<()> {
        // Short enough that a pipe takes all of it or nothing.
        let line = format!("{sign} {}\n", group.as_raw_pid());
        rustix::io::write(&self.pipe, line.as_bytes())?;
        Ok(())
    }
}

impl Group {
    /// Sends a signal to all of it.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = self.id
            && let Err(error) = kill_process_group(group, signal)
        {
            tracing::trace!(%error, "a program has left nobody behind");
        }
    }

    /// The process that leads it.
    pub(crate) fn leader(&self) -> Option<Pid> {
        self.id
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(group) = self.id {
            self.reaper.tell('-', group);
        }
    }
}
