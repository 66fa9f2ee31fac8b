//! How a demo's processes know whether it still runs, whatever ended it: while it does it holds a lock, for
//! which they wait.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use admin::process::ALIVE_FILE;
use anyhow::{Context as _, Result, bail};

/// The demo runs until this is dropped or its process ends.
pub struct Alive {
    _file: File,
}

impl Alive {
    /// From now on a demo runs here.
    pub fn begin(dir: &Path) -> Result<Self> {
        let path = dir.join(ALIVE_FILE);
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        match lock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) => Ok(Self { _file: file }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                bail!("a demo runs in {} already", dir.display())
            }
            Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

/// Whether a demo runs here.
pub fn is_running(dir: &Path) -> Result<bool> {
    let path = dir.join(ALIVE_FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.with_context(|| format!("open {}", path.display()))?,
    };
    match lock(&file, libc::LOCK_SH | libc::LOCK_NB) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Returns when the demo that holds this file is gone.
pub fn wait_for_end(path: &OsStr) -> io::Result<()> {
    let file = File::open(path)?;
    loop {
        match lock(&file, libc::LOCK_SH) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn lock(file: &File, how: i32) -> io::Result<()> {
    // SAFETY: flock(2) takes two numbers; the descriptor is open.
    match unsafe { libc::flock(file.as_raw_fd(), how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_runs_from_its_beginning_to_its_end() {
        let home = tempfile::tempdir().unwrap();
        let is_running = || is_running(home.path()).unwrap();
        assert!(!is_running());
        let alive = Alive::begin(home.path()).unwrap();
        assert!(is_running() && is_running());
        assert!(Alive::begin(home.path()).is_err());
        drop(alive);
        assert!(!is_running());
        Alive::begin(home.path()).unwrap();
    }
}
