//! What names of hosts resolve to, in a world of the test's own: `/etc/hosts` is a file of the test's, and
//! in its network there is nobody else to ask.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::inside::system;
use crate::skip::skipped;

/// The names there are.
pub struct Hosts {
    file: PathBuf,
}

impl Hosts {
    /// None yet. `None`, and says why, where they cannot be put in place of the machine's. Only in mounts of
    /// the test's own.
    pub fn none(dir: &Path) -> Result<Option<Self>> {
        let hosts = Self { file: dir.join("hosts") };
        hosts.set(&[])?;
        let file = hosts.file.to_string_lossy().into_owned();
        match system("mount", &["--bind", &file, "/etc/hosts"]) {
            Ok(_) => Ok(Some(hosts)),
            Err(error) => {
                skipped(format!("hosts cannot be named here: {error:#}"));
                Ok(None)
            }
        }
    }

    /// These, each with its address, and no other, from now on.
    pub fn set(&self, names: &[(String, String)]) -> Result<()> {
        let lines = names.iter().map(|(name, address)| format!("{address} {name}\n"));
        // Why in place: another file by this name would not be the one that is mounted.
        Ok(std::fs::write(&self.file, lines.collect::<String>())?)
    }
}
