//! `cluster.json`: what `rookery demo` tells of the cluster it runs, complete enough for tools and
//! tests to find, stop and start every process of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Verifies the certificates that mail clients see.
    pub ca: PathBuf,
    /// Identity directory for `ctl`.
    pub identity: PathBuf,
    /// Demo accounts with their passwords.
    pub accounts: Vec<DemoAccount>,
    /// Every process, dead ones included.
    pub processes: Vec<Process>,
    /// Data shards that it is formed with, where that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_shards: Option<u16>,
    /// Whether it begins with sample mail, where that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_sample_mail: Option<bool>,
}

/// An account of a demo cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DemoAccount {
    /// Login and address.
    pub name: String,
    /// In clear: a demo account's.
    pub password: String,
}

/// One process and how to start it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Unique in the cluster.
    pub name: String,
    /// `node` or `frontend`.
    pub role: String,
    /// Of the last start.
    pub pid: u32,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What the environment needs beyond the caller's.
    pub env: BTreeMap<String, String>,
    /// Disks of a node.
    pub data_dirs: Vec<PathBuf>,
    /// All ports are on this address.
    pub address: String,
    /// `grpc`, `http`, `imap`, `imaps`, `pop3`, `pop3s`, `lmtp`, as the role has them.
    pub ports: BTreeMap<String, u16>,
}

impl Process {
    /// `address:port` of one of its ports.
    pub fn at(&self, port: &str) -> Option<String> {
        self.ports.get(port).map(|number| format!("{}:{number}", self.address))
    }
}

impl ClusterFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Replaces the file as a whole: readers see the old or the new one.
    pub fn write(&self, path: &Path) -> Result<()> {
        // Why a name of its own: the demo and who starts one of its processes again write at the same time.
        let beside = path.with_extension(format!("json.{}.new", std::process::id()));
        let text = serde_json::to_string_pretty(self).context("write JSON")?;
        let mut options = fs::OpenOptions::new();
        // Why for nobody else: it holds passwords.
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file =
            options.open(&beside).with_context(|| format!("create {}", beside.display()))?;
        file.write_all(text.as_bytes()).with_context(|| format!("write {}", beside.display()))?;
        // Durability: the contents before the name, and the name before anybody goes on.
        file.sync_all().with_context(|| format!("sync {}", beside.display()))?;
        fs::rename(&beside, path).with_context(|| format!("rename to {}", path.display()))?;
        let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
        let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
        synced.with_context(|| format!("sync {}", dir.display()))
    }

    /// gRPC addresses of all nodes.
    pub fn seeds(&self) -> Vec<String> {
        self.processes.iter().filter(|p| p.role == "node").filter_map(|p| p.at("grpc")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn passwords_are_for_who_runs_the_demo() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("cluster.json");
        let account = DemoAccount { name: "u0001@example.test".into(), password: "secret".into() };
        let (ca, identity) = (home.path().join("ca"), home.path().join("admin"));
        let (accounts, processes) = (vec![account], Vec::new());
        let (n_shards, has_sample_mail) = (Some(3), None);
        let cluster = ClusterFile { ca, identity, accounts, processes, n_shards, has_sample_mail };
        for _ in 0..2 {
            cluster.write(&path).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let read = ClusterFile::read(&path).unwrap();
        assert_eq!(read.accounts[0].password, "secret");
        assert_eq!((read.n_shards, read.has_sample_mail), (Some(3), None));
    }
}
