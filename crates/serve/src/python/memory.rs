use std::time::Duration;

use rustix::process::Pid;

/// How often the memory of a worker is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Returns when a process has more than `limit` bytes of resident memory; never where that cannot be known.
pub(crate) async fn outgrows(process: Option<Pid>, limit: Option<u64>) {
    let (Some(process), Some(limit)) = (process, limit) else {
        return std::future::pending().await;
    };
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if resident(process).is_some_and(|bytes| bytes > limit) {
            return;
        }
    }
}

/// Resident memory in bytes: the second field of `/proc/PID/statm`, in pages.
fn resident(process: Pid) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", process.as_raw_pid())).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}
