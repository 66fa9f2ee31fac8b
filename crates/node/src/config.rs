//! What an operator can set. Every process of a node reads one TOML file with these keys.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// One node's settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the node, as its certificate proves it.
    pub name: String,
    /// Directories, each on a disk of its own: a disk is the unit of failure.
    pub data_dirs: Vec<PathBuf>,
    /// Whether a data directory that no file system is mounted on is one whose disk is away.
    #[serde(default)]
    pub require_mounts: bool,
    /// Directory with ca.pem, cert.pem and key.pem.
    pub identity_dir: PathBuf,
    /// Where frontends, nodes and operators connect (gRPC).
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The `host:port` others connect to; if absent `listen`, and the name with its port where that
    /// stands for any address.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Where probes and metrics are served (HTTP); nowhere if absent.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// Nodes of the cluster, `host:port`; some of them, itself allowed.
    #[serde(default)]
    pub join: Vec<String>,
    /// Replicas of a shard are kept in different zones where possible.
    #[serde(default)]
    pub zone: String,
    /// Address that outgoing connections come from.
    #[serde(default)]
    pub bind: Option<IpAddr>,
    /// Time between two signs of life of a leader, in milliseconds.
    #[serde(default = "default_heartbeat")]
    pub heartbeat_ms: u64,
    /// The shortest wait beyond the lease before a replica asks for votes, in milliseconds.
    #[serde(default = "default_election_min")]
    pub election_min_ms: u64,
    /// The lease of a leader, and the longest wait beyond it, in milliseconds.
    #[serde(default = "default_election_max")]
    pub election_max_ms: u64,
    /// How long bodies of expunged messages are kept, in seconds.
    #[serde(default = "default_retention")]
    pub retention_s: u64,
    /// Bytes of requests under way at once, in MiB; more is refused as overload.
    #[serde(default = "default_in_flight")]
    pub in_flight_mib: u32,
    /// How fast each disk is read to verify what lies on it, in MiB per second.
    #[serde(default = "default_scrub")]
    pub scrub_mib_s: u32,
    /// How fast each disk takes bodies that replicas on it lack, in MiB per second.
    #[serde(default = "default_fill")]
    pub fill_mib_s: u32,
    /// Whether `rookery drill` may hurt this node: crash it, cut it off, wipe a disk of it.
    #[serde(default)]
    pub allow_drills: bool,
}

/// What is said about one setting where settings are listed.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its unit, or what it is.
    pub unit: &'static str,
    /// What it is when absent.
    pub default: &'static str,
    /// When to change it.
    pub advice: &'static str,
}

/// All settings, in the order they are documented in.
pub const SETTINGS: &[Setting] = &[
    setting("name", "name", "required", "Set it to the name in the node's certificate."),
    setting(
        "data_dirs",
        "list of directories",
        "required",
        "Add one for each further disk; each must be a disk of its own. Replicas stay where they are until \
         `rookery ctl shard move` with the node both as `--from` and as `--to`.",
    ),
    setting(
        "require_mounts",
        "true or false",
        "false",
        "Set it where each of `data_dirs` is the mount point of a file system of its own: one whose disk \
         is away for 30 s then counts as a lost disk, not as a new one.",
    ),
    setting(
        "identity_dir",
        "directory",
        "required",
        "Set it to where ca.pem, cert.pem, key.pem are.",
    ),
    setting(
        "listen",
        "address:port",
        "[::]:7400",
        "Change it when the port is taken, and to 0.0.0.0:7400 where there is no IPv6.",
    ),
    setting(
        "advertise",
        "host:port",
        "`listen`; of `[::]` or `0.0.0.0` the name and its port",
        "Set it when others reach the node elsewhere.",
    ),
    setting("http", "address:port", "off", "Set it to have probes and metrics."),
    setting(
        "join",
        "list of host:port",
        "empty",
        "Name all nodes that the cluster begins with; later at least two that are usually up.",
    ),
    setting("zone", "text", "empty", "Set it when nodes share a rack, room or power supply."),
    setting("bind", "address", "any", "Set it when packet filters go by source address."),
    setting(
        "heartbeat_ms",
        "ms",
        "150",
        "Raise this when the network often delays more than 50 ms; keep it above the round trip between \
         nodes.",
    ),
    setting(
        "election_min_ms",
        "ms",
        "300",
        "Raise this when leaders change without cause; keep it two heartbeats or more.",
    ),
    setting(
        "election_max_ms",
        "ms",
        "450",
        "Raise this with `election_min_ms`, to about 1.5 times it.",
    ),
    setting(
        "retention_s",
        "s",
        "3600",
        "Lower this when expunged mail must free its space sooner; nothing brings it back.",
    ),
    setting(
        "in_flight_mib",
        "MiB",
        "64",
        "Raise this when overload is refused and memory is free.",
    ),
    setting(
        "scrub_mib_s",
        "MiB/s per disk",
        "20",
        "An eighth of it while the disk is written to. \
         Raise this when `rookery_scrub_oldest_unverified_seconds` exceeds two weeks.",
    ),
    setting(
        "fill_mib_s",
        "MiB/s per disk",
        "64",
        "Raise this when a lost copy takes too long to be made again; lower it when clients notice.",
    ),
    setting(
        "allow_drills",
        "true or false",
        "false",
        "Set it, or start with --allow-drills, to let `rookery drill` hurt this node.",
    ),
];

const fn setting(
    key: &'static str,
    unit: &'static str,
    default: &'static str,
    advice: &'static str,
) -> Setting {
    Setting { key, unit, default, advice }
}

/// Why a configuration is not usable; one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {}: {reason}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// Not TOML, or a value of the wrong kind.
    #[error("{0}")]
    Syntax(String),
    /// A key that means nothing.
    #[error(transparent)]
    UnknownKey(#[from] api::config::UnknownKey),
    /// Values that cannot work.
    #[error("{0}")]
    Rule(String),
}

impl Config {
    /// From a TOML file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ConfigError::Read { path: path.to_owned(), reason })?;
        Self::parse(&text)
    }

    /// From TOML text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax(one_line(text, &error));
        let table: toml::Table = text.parse().map_err(syntax)?;
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        api::config::check_keys(table.keys().map(String::as_str), &known)?;
        let config: Self = toml::from_str(text).map_err(syntax)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rule = |ok: bool, text: &str| {
            if ok { Ok(()) } else { Err(ConfigError::Rule(text.to_owned())) }
        };
        rule(api::tls::is_name(&self.name), "name: use lower-case letters, digits and hyphens")?;
        rule(!self.data_dirs.is_empty(), "data_dirs: name at least one directory")?;
        let is_endpoint = |address: &String| api::config::is_endpoint(address);
        rule(self.join.iter().all(is_endpoint), "join: write each as host:port")?;
        rule(self.advertise.as_ref().is_none_or(is_endpoint), "advertise: write it as host:port")?;
        let mut dirs = self.data_dirs.clone();
        dirs.sort();
        dirs.dedup();
        rule(dirs.len() == self.data_dirs.len(), "data_dirs: a directory is named twice")?;
        rule(self.heartbeat_ms >= 10, "heartbeat_ms: 10 is the least")?;
        let beats = self.election_min_ms / self.heartbeat_ms.max(1);
        rule(beats >= 2, "election_min_ms: use at least two times heartbeat_ms")?;
        rule(
            self.election_max_ms > self.election_min_ms,
            "election_max_ms: must be greater than election_min_ms",
        )?;
        rule((8..=4096).contains(&self.in_flight_mib), "in_flight_mib: use 8 to 4096")?;
        rule((1..=4096).contains(&self.scrub_mib_s), "scrub_mib_s: use 1 to 4096")?;
        rule((1..=4096).contains(&self.fill_mib_s), "fill_mib_s: use 1 to 4096")
    }

    /// Where others connect.
    pub fn advertised(&self) -> String {
        match &self.advertise {
            Some(address) => address.clone(),
            None if self.listen.ip().is_unspecified() => {
                format!("{}:{}", self.name, self.listen.port())
            }
            None => self.listen.to_string(),
        }
    }

    /// How long bodies of expunged messages are kept.
    pub fn retention(&self) -> Duration {
        Duration::from_secs(self.retention_s)
    }
}

/// What is wrong, and in which line.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let words = error.message().replace('\n', " ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {words}", before.matches('\n').count() + 1),
        None => words,
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 7400))
}

fn default_heartbeat() -> u64 {
    150
}

fn default_election_min() -> u64 {
    300
}

fn default_election_max() -> u64 {
    450
}

fn default_retention() -> u64 {
    3600
}

fn default_in_flight() -> u32 {
    64
}

fn default_scrub() -> u32 {
    20
}

fn default_fill() -> u32 {
    64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "name = \"n1\"\ndata_dirs = [\"a\"]\nidentity_dir = \"i\"\n";

    fn refusal(line: &str) -> String {
        Config::parse(&format!("{line}\n{LEAST}")).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_those_that_are_documented() {
        let config = Config::parse(LEAST).unwrap();
        let documented = |key: &str| SETTINGS.iter().find(|s| s.key == key).unwrap().default;
        assert_eq!(config.listen.to_string(), documented("listen"));
        assert_eq!(config.heartbeat_ms.to_string(), documented("heartbeat_ms"));
        assert_eq!(config.election_min_ms.to_string(), documented("election_min_ms"));
        assert_eq!(config.election_max_ms.to_string(), documented("election_max_ms"));
        assert_eq!(config.retention_s.to_string(), documented("retention_s"));
        assert_eq!(config.in_flight_mib.to_string(), documented("in_flight_mib"));
        assert_eq!(config.scrub_mib_s.to_string(), documented("scrub_mib_s"));
        assert_eq!(config.fill_mib_s.to_string(), documented("fill_mib_s"));
        assert_eq!(config.require_mounts.to_string(), documented("require_mounts"));
        assert_eq!(config.allow_drills.to_string(), documented("allow_drills"));
        assert!(SETTINGS.len() <= 20);
    }

    #[test]
    fn every_documented_setting_is_one() {
        for setting in SETTINGS {
            // A value of the wrong kind gives a complaint about the value, not about the key.
            let table = format!("{} = {{ x = 1 }}", setting.key);
            let error = toml::from_str::<Config>(&table).unwrap_err().to_string();
            assert!(error.contains("invalid type"), "{}: {error}", setting.key);
        }
    }

    #[test]
    fn what_cannot_work_is_refused_in_one_line() {
        assert_eq!(refusal("htpp = \"[::1]:1\""), "unknown setting `htpp`, did you mean `http`?");
        assert!(refusal("listen = \"here\"").contains("socket address"));
        assert!(refusal("\nzone = 7").starts_with("line 2: invalid type: integer"));
        assert!(refusal("zone = \"a").starts_with("line 1: "));
        assert!(refusal("election_min_ms = 200").starts_with("election_min_ms:"));
        assert!(refusal("scrub_mib_s = 0").starts_with("scrub_mib_s:"));
        assert_eq!(refusal("join = [\"n1\"]"), "join: write each as host:port");
        for wrong in ["", "n1", "n1.mail.test:", "[::]"] {
            let said = refusal(&format!("advertise = {wrong:?}"));
            assert_eq!(said, "advertise: write it as host:port");
        }
        assert!(refusal("fill_mib_s = 0").starts_with("fill_mib_s:"));
        assert!(refusal("election_max_ms = 300").starts_with("election_max_ms:"));
        assert!(refusal("fsync = false").starts_with("unknown setting `fsync`"));
        for line in ["listen = \"here\"", "[[", "join = 7"] {
            assert!(!refusal(line).contains('\n'));
        }
        // The text says all of it: who prints an error with its causes says nothing twice.
        let missing = Config::load(Path::new("/nowhere/node.toml")).unwrap_err();
        assert!(missing.to_string().contains("No such file"), "{missing}");
        assert!(std::error::Error::source(&missing).is_none());
        let twice = "name = \"n1\"\ndata_dirs = [\"a\", \"a\"]\nidentity_dir = \"i\"";
        assert!(Config::parse(twice).unwrap_err().to_string().contains("twice"));
        let name = "name = \"N 1\"\ndata_dirs = [\"a\"]\nidentity_dir = \"i\"";
        assert!(Config::parse(name).unwrap_err().to_string().starts_with("name:"));
    }
}
