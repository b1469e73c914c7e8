use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use tempfile::TempDir;

/// How the names of such directories begin.
const PREFIX: &str = "gatewright-hub-";
/// The file that the owner of a directory holds locked for as long as it lives.
const LOCK: &str = "lock";
const SOCKET: &str = "hub.sock";

/// The directory of a hub's socket, which only this user may enter. It goes with its owner; that of an owner that was
/// killed goes when the next one is made.
#[derive(Debug)]
pub(crate) struct RuntimeDir {
    directory: TempDir,
    /// Unlocked by the system when this process ends, however it ends.
    _lock: File,
}

impl RuntimeDir {
    /// A new one in `parent`, which is rid of those that nobody owns any more.
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        remove_stale(parent);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        // Locked before it has the name by which others look for it.
        let unnamed = directory.path().join("new");
        let lock = File::create_new(&unnamed)?;
        lock.lock()?;
        std::fs::rename(unnamed, directory.path().join(LOCK))?;
        Ok(Self { directory, _lock: lock })
    }

    /// Where the socket is, or will be.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }
}

/// Removes what owners have left that were killed. What cannot be looked at is left alone.
fn remove_stale(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        match remove_if_stale(&entry.path()) {
            Ok(true) => tracing::debug!(path = %entry.path().display(), "removed what was left"),
            Ok(false) => {}
            Err(error) => {
                let path = entry.path();
                tracing::debug!(path = %path.display(), %error, "left alone");
            }
        }
    }
}

/// Whether this was the directory of an owner that is gone, and has been removed.
fn remove_if_stale(directory: &Path) -> io::Result<bool> {
    // Not the other end of a link, and nothing of another user.
    let data = std::fs::symlink_metadata(directory)?;
    if !data.is_dir() || data.uid() != geteuid().as_raw() {
        return Ok(false);
    }
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    let lock = File::options().read(true).custom_flags(nofollow).open(directory.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // What is not known is not removed, and neither is a directory that has it.
    match std::fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::remove_file(directory.join(LOCK))?;
    std::fs::remove_dir(directory)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> usize {
        std::fs::read_dir(parent).unwrap().count()
    }

    #[test]
    fn what_a_dead_owner_left_goes_and_what_a_living_one_has_stays() {
        let parent = tempfile::tempdir().unwrap();
        let living = RuntimeDir::create(parent.path()).unwrap();
        let dead = RuntimeDir::create(parent.path()).unwrap();
        std::fs::write(living.socket(), "").unwrap();
        std::fs::write(dead.socket(), "").unwrap();
        // As if it was killed: unlocked and not removed.
        let RuntimeDir { directory, _lock } = dead;
        let left = directory.keep();
        drop(_lock);
        let next = RuntimeDir::create(parent.path()).unwrap();
        assert!(!left.exists(), "its owner is dead");
        assert!(living.socket().exists() && next.directory.path().exists());
        drop((living, next));
        assert_eq!(names(parent.path()), 0);
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        std::fs::create_dir(at("gatewright-hub-without-lock")).unwrap();
        for name in ["gatewright-hub-with-more", "another"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join(LOCK), "").unwrap();
            std::fs::write(at(name).join("precious"), "").unwrap();
        }
        std::os::unix::fs::symlink(at("another"), at("gatewright-hub-link")).unwrap();
        remove_stale(parent.path());
        assert_eq!(names(parent.path()), 4);
        assert!(at("gatewright-hub-with-more").join("precious").exists());
        assert!(at("another").join(LOCK).exists(), "a link is not followed");
    }
}
