//! One process trains a run: the lock on its folder.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

/// The lock on a run's folder. The operating system releases it when the process ends, in whatever way.
#[derive(Debug)]
pub struct RunLock {
    /// None on a file system without locks.
    file: Option<File>,
}

impl RunLock {
    /// Takes the lock `path`, a file in the run's folder that names the process that holds it. The file stays there.
    ///
    /// On a file system that has no locks, nothing is locked.
    ///
    /// # Errors
    /// When another process trains this run, or the file cannot be written.
    pub fn take(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(Error::io(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(path, &mut file)),
            Err(TryLockError::Error(_)) => return Ok(RunLock { file: None }),
        }
        let process = std::process::id();
        let holder = match host() {
            Some(host) => format!("process {process} on {host}\n"),
            None => format!("process {process}\n"),
        };
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()));
        written.map_err(Error::io(path))?;
        Ok(RunLock { file: Some(file) })
    }

    /// Whether the file system has locks, so that this one keeps others away.
    pub fn is_held(&self) -> bool {
        self.file.is_some()
    }
}

fn held(path: &Path, file: &mut File) -> Error {
    let holder = holder(file).unwrap_or_else(|| "another process".into());
    let message =
        format!("{holder} is training this run: wait until it ends, or choose another folder");
    Error::file(path.parent().unwrap_or(path), message)
}

/// Who holds the lock `file`. A process that has just taken it needs a moment to write its name; where a lock also keeps others
/// from reading, there is none.
fn holder(file: &mut File) -> Option<String> {
    for _ in 0..20 {
        let mut holder = String::new();
        file.rewind().ok()?;
        file.take(1000).read_to_string(&mut holder).ok()?;
        if holder.ends_with('\n') {
            return Some(holder.trim().to_string());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// The name of this machine, for runs on a file system that several machines share.
fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_string()).filter(|name| !name.is_empty())
}
