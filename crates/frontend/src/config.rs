//! Settings of a frontend.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mailbox::MESSAGE_BYTES_MAX;
use serde::Deserialize;

use crate::proxy::Network;
use crate::unix::UnixSocket;

/// Limit: octets of a host's name (RFC 1035 2.3.4).
const HOSTNAME_BYTES_MAX: usize = 255;

/// What `rookery frontend` reads from its file. An unknown key is refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// See [`SETTINGS`], also for the others.
    pub name: String,
    /// What this host calls itself towards clients.
    #[serde(default = "default_hostname")]
    pub hostname: String,
    /// `host:port` of nodes.
    pub seeds: Vec<String>,
    /// Source address of connections to nodes.
    #[serde(default)]
    pub bind: Option<IpAddr>,
    /// Directory of ca.pem, cert.pem and key.pem towards the cluster.
    pub identity: PathBuf,
    /// Certificate chain towards clients.
    #[serde(default)]
    pub tls_certificate: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// IMAP with STARTTLS.
    #[serde(default)]
    pub imap: Option<SocketAddr>,
    /// IMAP inside TLS.
    #[serde(default)]
    pub imaps: Option<SocketAddr>,
    /// POP3 with STLS.
    #[serde(default)]
    pub pop3: Option<SocketAddr>,
    /// POP3 inside TLS.
    #[serde(default)]
    pub pop3s: Option<SocketAddr>,
    /// LMTP.
    #[serde(default)]
    pub lmtp: Option<SocketAddr>,
    /// LMTP at a path of the file system.
    #[serde(default)]
    pub lmtp_unix: Option<UnixSocket>,
    /// Probes and metrics.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// Load balancers that say whose connections they pass on.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Passwords outside TLS, from loopback only.
    #[serde(default)]
    pub allow_plain_login: bool,
    /// In all.
    #[serde(default = "default_connections")]
    pub connections_max: u32,
    /// Of mail clients, from one address that is not loopback.
    #[serde(default = "default_connections_per_address")]
    pub connections_per_address_max: u32,
    /// For one account.
    #[serde(default = "default_connections_per_account")]
    pub connections_per_account_max: u32,
    /// Octets of a message.
    #[serde(default = "default_message_bytes")]
    pub message_bytes_max: u64,
}

fn default_hostname() -> String {
    "localhost".into()
}

/// Limit: 150 MiB when all are idle before login.
const CONNECTIONS: u32 = 10_000;
/// Limit: a household's programs and telephones behind one address, each with about five connections.
const CONNECTIONS_PER_ADDRESS: u32 = 20;
/// Limit: four programs of one account, each with about five connections.
const CONNECTIONS_PER_ACCOUNT: u32 = 20;
/// Limit: what MTAs of the world take at most, mostly.
const MESSAGE_BYTES: u64 = 50 << 20;

fn default_connections() -> u32 {
    CONNECTIONS
}

fn default_connections_per_address() -> u32 {
    CONNECTIONS_PER_ADDRESS
}

fn default_connections_per_account() -> u32 {
    CONNECTIONS_PER_ACCOUNT
}

fn default_message_bytes() -> u64 {
    MESSAGE_BYTES
}

/// One setting as the manual shows it.
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// What a value is.
    pub unit: &'static str,
    /// What it is when absent.
    pub default: &'static str,
    /// When to change it.
    pub when: &'static str,
}

const fn setting(
    key: &'static str,
    unit: &'static str,
    default: &'static str,
    when: &'static str,
) -> Setting {
    Setting { key, unit, default, when }
}

/// Every key there is, in the order of the manual.
pub const SETTINGS: [Setting; 20] = [
    setting("name", "name", "required", "Set this to the name in the process's certificate."),
    setting(
        "hostname",
        "name",
        "localhost",
        "Set this to the name clients connect to; mail for `<postmaster>` goes to `postmaster@<hostname>`.",
    ),
    setting("seeds", "list of host:port", "required", "Name some nodes; the others are found."),
    setting("bind", "address", "any", "Set this when nodes are reached from one address only."),
    setting("identity", "directory", "required", "Written by `rookery ctl cert`."),
    setting(
        "tls_certificate",
        "file, PEM",
        "no TLS",
        "Set this to offer TLS to clients; a renewed one is shown within a minute.",
    ),
    setting("tls_key", "file, PEM", "no TLS", "Set this together with tls_certificate."),
    setting("imap", "address:port", "off", "Set this to offer IMAP with STARTTLS, port 143."),
    setting("imaps", "address:port", "off", "Set this to offer IMAP inside TLS, port 993."),
    setting("pop3", "address:port", "off", "Set this to offer POP3 with STLS, port 110."),
    setting("pop3s", "address:port", "off", "Set this to offer POP3 inside TLS, port 995."),
    setting(
        "lmtp",
        "address:port",
        "off",
        "Set this where the MTA delivers; never on the internet.",
    ),
    setting(
        "lmtp_unix",
        "{ path = file, mode = \"0660\" }",
        "off",
        "Set this where the MTA delivers from the same machine; `mode` must let it write to the file.",
    ),
    setting("http", "address:port", "off", "Set this for /healthz, /readyz and /metrics."),
    setting(
        "trusted_proxies",
        "list of networks",
        "none",
        "Name load balancers in front of IMAP and POP3; each must send PROXY protocol version 2.",
    ),
    setting(
        "allow_plain_login",
        "true or false",
        "false",
        "Set this for tests: passwords outside TLS, from loopback only.",
    ),
    setting(
        "connections_max",
        "connections",
        "10000",
        "Raise this when clients are turned away and memory is left; an idle one takes 30 KiB.",
    ),
    setting(
        "connections_per_address_max",
        "connections",
        "20",
        "Raise this when many people share an address; loopback and LMTP have no limit of their own.",
    ),
    setting(
        "connections_per_account_max",
        "connections",
        "20",
        "Raise this when one account has many devices; each keeps about five open.",
    ),
    setting(
        "message_bytes_max",
        "octets",
        "52428800",
        "Raise this when the MTA takes larger messages, up to 125829120.",
    ),
];

/// Why a text is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist.
    #[error(transparent)]
    UnknownKey(#[from] api::config::UnknownKey),
    /// Anything else, with its place in the text.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// Nobody could connect there.
    #[error("seeds: `{0}` is not host:port")]
    Seed(String),
    /// A limit that lets nobody in.
    #[error("{0} = 0 would turn everybody away: it is 1 at least")]
    Zero(&'static str),
    /// A message that would be announced, taken and refused.
    #[error(
        "message_bytes_max = {given}: the store keeps messages of at most {MESSAGE_BYTES_MAX} octets"
    )]
    TooLarge {
        /// As written.
        given: u64,
    },
    /// A value that cannot be used, or settings that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
}

impl Config {
    /// Reads TOML.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text)?;
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        api::config::check_keys(table.keys().map(String::as_str), &known)?;
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Whether the settings can work, and go together.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(wrong) = self.seeds.iter().find(|seed| !api::config::is_endpoint(seed)) {
            return Err(ConfigError::Seed(wrong.clone()));
        }
        let has_tls = self.tls_certificate.is_some();
        if has_tls != self.tls_key.is_some() {
            return Err(ConfigError::Conflict("set both tls_certificate and tls_key, or neither"));
        }
        if !has_tls && (self.imaps.is_some() || self.pop3s.is_some()) {
            return Err(ConfigError::Conflict("imaps and pop3s need tls_certificate and tls_key"));
        }
        if !is_hostname(&self.hostname) {
            return Err(ConfigError::Conflict("hostname: use letters, digits, dots and hyphens"));
        }
        self.check_limits()
    }

    /// Zero is not "without limit".
    fn check_limits(&self) -> Result<(), ConfigError> {
        let limits = [
            ("connections_max", self.connections_max.into()),
            ("connections_per_address_max", self.connections_per_address_max.into()),
            ("connections_per_account_max", self.connections_per_account_max.into()),
            ("message_bytes_max", self.message_bytes_max),
        ];
        if let Some((key, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(ConfigError::Zero(key));
        }
        if self.message_bytes_max > MESSAGE_BYTES_MAX {
            return Err(ConfigError::TooLarge { given: self.message_bytes_max });
        }
        Ok(())
    }
}

/// It stands in greetings, in trace fields and in an address.
fn is_hostname(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !text.is_empty() && text.len() <= HOSTNAME_BYTES_MAX && text.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "name = 'f1'\nseeds = ['127.0.0.1:1']\nidentity = 'id'\n";

    #[test]
    fn what_is_absent_has_its_default() {
        let config = Config::from_toml(LEAST).unwrap();
        assert_eq!(config.message_bytes_max, 52_428_800);
        assert_eq!(config.connections_max, 10_000);
        assert!(!config.allow_plain_login);
        assert_eq!(config.imap, None);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_right_name() {
        let words = |text: &str| Config::from_toml(&format!("{LEAST}{text}")).unwrap_err();
        assert_eq!(
            words("conections_max = 1").to_string(),
            "unknown setting `conections_max`, did you mean `connections_max`?"
        );
        assert_eq!(words("zzzzzzzz = 1").to_string(), "unknown setting `zzzzzzzz`");
        assert!(words("imap = 'x'").to_string().contains("imap"));
        assert!(words("imaps = '127.0.0.1:1'").to_string().contains("tls_certificate"));
        assert!(words("tls_key = 'k'").to_string().contains("both"));
        for key in [
            "connections_max",
            "connections_per_address_max",
            "connections_per_account_max",
            "message_bytes_max",
        ] {
            let said = words(&format!("{key} = 0")).to_string();
            assert_eq!(said, format!("{key} = 0 would turn everybody away: it is 1 at least"));
        }
        assert_eq!(MESSAGE_BYTES_MAX, 125_829_120);
        assert!(Config::from_toml(&format!("{LEAST}message_bytes_max = 125829120")).is_ok());
        let said = words("message_bytes_max = 125829121").to_string();
        assert!(said.ends_with("at most 125829120 octets"), "{said}");
        for hostname in ["", "a b", "x\\r\\n* BYE", "ä.test"] {
            let said = words(&format!("hostname = \"{hostname}\"")).to_string();
            assert!(said.starts_with("hostname:"), "{said}");
        }
    }

    #[test]
    fn a_seed_is_host_and_port() {
        let error = Config::from_toml(&LEAST.replace("127.0.0.1:1", "n1.mail.test")).unwrap_err();
        assert_eq!(error.to_string(), "seeds: `n1.mail.test` is not host:port");
    }

    #[test]
    fn every_setting_of_the_manual_exists() {
        let all = "hostname = 'h'\nbind = '127.0.0.1'\ntls_certificate = 'c'\ntls_key = 'k'\n\
            imap = '127.0.0.1:1'\nimaps = '127.0.0.1:1'\npop3 = '127.0.0.1:1'\n\
            pop3s = '127.0.0.1:1'\nlmtp = '127.0.0.1:1'\nhttp = '127.0.0.1:1'\n\
            trusted_proxies = ['10.0.0.0/8']\nlmtp_unix = {path = 's', mode = '0600'}\n\
            allow_plain_login = true\nconnections_max = 1\nconnections_per_address_max = 1\n\
            connections_per_account_max = 1\nmessage_bytes_max = 1\n";
        let text = format!("{LEAST}{all}");
        Config::from_toml(&text).unwrap();
        let given: toml::Table = toml::from_str(&text).unwrap();
        assert!(SETTINGS.iter().all(|setting| given.contains_key(setting.key)));
    }
}
