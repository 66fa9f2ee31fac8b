//! What names of hosts resolve to, in a world of the test's own: `/etc/hosts` is a file of the test's, and
//! in its network there is nobody else to ask.

use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::inside::system;
use crate::skip::skipped;

/// A name that nobody else knows, and its address.
const PROBE: (&str, &str) = ("probe.hosts.example.test", "127.0.0.77");

/// The names there are.
pub struct Hosts {
    file: PathBuf,
}

impl Hosts {
    /// None yet. `None`, and says why, where they cannot be put in place of the machine's, or where names are
    /// looked up elsewhere. Only in mounts of the test's own.
    pub fn none(dir: &Path) -> Result<Option<Self>> {
        let hosts = Self { file: dir.join("hosts") };
        let (name, address) = PROBE;
        hosts.set(&[(name.to_owned(), address.to_owned())])?;
        let file = hosts.file.to_string_lossy().into_owned();
        if let Err(error) = system("mount", &["--bind", &file, "/etc/hosts"]) {
            skipped(format!("hosts cannot be named here: {error:#}"));
            return Ok(None);
        }
        // A service of the machine's that is asked first, say, reads the machine's file.
        if !resolves(name, address) {
            skipped("hosts cannot be named here: names are not looked up in /etc/hosts");
            return Ok(None);
        }
        hosts.set(&[])?;
        match resolves(name, address) {
            false => Ok(Some(hosts)),
            true => {
                skipped("hosts cannot be named here: somebody remembers names");
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

/// Whether a name is found at this address.
fn resolves(name: &str, address: &str) -> bool {
    let found = (name, 0).to_socket_addrs();
    found.is_ok_and(|mut found| found.any(|at| at.ip().to_string() == address))
}
