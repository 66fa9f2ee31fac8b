//! The drill's command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use admin::cluster_file::ClusterFile;
use admin::target::Target;
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum as _};

use crate::client::line::Endpoint;
use crate::cluster::Cluster;
use crate::run::Ground;
use crate::scenario::Scenario;
use crate::watch::WatchArgs;
use crate::work::Site;

/// Rehearse failures: hurt a cluster while clients use it, and prove that no mail was harmed
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Drill {
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
    /// Start a demo cluster of its own, and drill that
    #[arg(long, conflicts_with_all = ["cluster", "identity"])]
    pub demo: bool,
    #[command(flatten)]
    pub(crate) ground: GroundArgs,
    /// What to do
    #[command(flatten)]
    pub options: Options,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Judge a stored history again
    Check {
        /// A file, or a directory of them
        history: PathBuf,
    },
    /// Use any IMAP server as a mail client does, and judge what it did
    Watch(Box<WatchArgs>),
}

/// Nobody's (RFC 2606 2).
pub(crate) const CANARY_DOMAIN: &str = "drill.invalid";

/// Which cluster, and where its frontends are.
#[derive(Args, Clone, Default)]
pub(crate) struct GroundArgs {
    /// cluster.json of a demo; replaces everything below. Nodes that die are started again
    #[arg(long)]
    cluster: Option<PathBuf>,
    /// Directory with ca.pem, cert.pem and key.pem of role admin (see `ctl cert issue`)
    #[arg(long)]
    identity: Option<PathBuf>,
    #[command(flatten)]
    ports: Ports,
    /// Domain of the canary accounts; mail to it never leaves the drill
    #[arg(long, default_value = CANARY_DOMAIN)]
    pub(crate) domain: String,
}

/// Where the mail protocols are spoken, host:port; several separated by commas.
#[derive(Args, Clone, Default)]
pub(crate) struct Ports {
    /// IMAP inside TLS
    #[arg(long, value_delimiter = ',')]
    imaps: Vec<String>,
    /// IMAP outside TLS
    #[arg(long, value_delimiter = ',')]
    imap: Vec<String>,
    /// POP3 inside TLS
    #[arg(long, value_delimiter = ',')]
    pop3s: Vec<String>,
    /// POP3 outside TLS
    #[arg(long, value_delimiter = ',')]
    pop3: Vec<String>,
    /// LMTP
    #[arg(long, value_delimiter = ',')]
    lmtp: Vec<String>,
    /// Certificates (PEM) that the frontends' are verified with; without it none is verified
    #[arg(long)]
    ca: Option<PathBuf>,
}

/// What a drill does.
#[derive(Args, Clone)]
pub struct Options {
    /// Only these scenarios, separated by commas; all of them otherwise
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Scenario>,
    /// Rounds: how often each scenario is run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// A number: the same one makes the same choices. Or HOST:PORT of nodes to ask first
    #[arg(long, value_delimiter = ',', value_name = "NUMBER|HOST:PORT")]
    seed: Vec<Seed>,
    /// Fail when a client waits longer, for example 250ms or 1.5s
    #[arg(long, value_parser = duration)]
    pub(crate) max_outage: Option<Duration>,
    /// Canary accounts
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) canaries: u32,
    /// Write the report as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write the report as one HTML page
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// Keep the histories here; otherwise only those of a drill that failed are kept
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seed {
    Number(u64),
    Node(String),
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.parse(), text.contains(':')) {
            (Ok(number), _) => Ok(Self::Number(number)),
            (Err(_), true) => Ok(Self::Node(text.to_owned())),
            (Err(_), false) => Err("neither a number nor HOST:PORT".into()),
        }
    }
}

/// `250ms`, `1.5s`, or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1.0),
        (None, Some(number)) => (number, 1000.0),
        (None, None) => (text, 1000.0),
    };
    let number: f64 = number.parse().map_err(|_| "a duration is 250ms or 1.5s".to_owned())?;
    Duration::try_from_secs_f64(number * unit_ms / 1000.0).map_err(|error| error.to_string())
}

/// Where histories go.
pub(crate) enum Histories {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Histories {
    pub fn path(&self) -> &Path {
        match self {
            Self::Kept(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }

    pub fn keep_if(self, keep: bool) {
        if let (Self::Temporary(dir), true) = (self, keep) {
            let _ = dir.keep();
        }
    }
}

impl Options {
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut chosen = Vec::new();
        // Why each once: a history is named after its scenario and round.
        for scenario in &self.only {
            if !chosen.contains(scenario) {
                chosen.push(*scenario);
            }
        }
        if chosen.is_empty() { Scenario::value_variants().to_vec() } else { chosen }
    }

    pub(crate) fn n_runs(&self) -> u64 {
        self.scenarios().len() as u64 * u64::from(self.repeat)
    }

    pub(crate) fn random_seed(&self) -> u64 {
        let given = self.seed.iter().find_map(|seed| match seed {
            Seed::Number(number) => Some(*number),
            Seed::Node(_) => None,
        });
        given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap_or_default().as_millis() as u64 % 1_000_000
        })
    }

    pub(crate) fn histories(&self) -> Result<Histories> {
        match &self.out {
            Some(dir) => {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("create {}", dir.display()))?;
                Ok(Histories::Kept(dir.clone()))
            }
            None => {
                let dir = tempfile::Builder::new().prefix("rookery-drill-").tempdir();
                Ok(Histories::Temporary(dir.context("make a directory for histories")?))
            }
        }
    }

    fn nodes(&self) -> Vec<String> {
        let nodes = self.seed.iter().filter_map(|seed| match seed {
            Seed::Node(node) => Some(node.clone()),
            Seed::Number(_) => None,
        });
        nodes.collect()
    }
}

impl GroundArgs {
    pub(crate) fn cluster_file(&self) -> Option<&Path> {
        self.cluster.as_deref()
    }

    pub(crate) fn ground(&self, options: &Options) -> Result<Ground> {
        let Some(identity) = &self.identity else {
            bail!(
                "say which cluster: --demo, --cluster FILE, or --seed HOST:PORT --identity DIR \
                 and the frontends' --imaps, --pop3s and --lmtp"
            );
        };
        let nodes = options.nodes();
        if nodes.is_empty() {
            bail!("name nodes to ask first: --seed HOST:PORT");
        }
        let cluster = Cluster::connect(Target::new(nodes, identity)?)?;
        let site = self.ports.site()?;
        if site.imap.is_empty() {
            bail!("name the frontends: --imaps HOST:PORT, or --imap");
        }
        Ok(Ground { cluster, site, domain: self.domain.clone() })
    }
}

/// What a cluster file says.
pub(crate) fn of_file(file: &ClusterFile, domain: &str) -> Result<Ground> {
    let cluster = Cluster::connect(Target::of_cluster_file(file)?)?;
    let all = |port: &str| {
        let found = file.processes.iter().filter_map(|process| process.at(port));
        found.map(|address| Endpoint::plain(&address)).collect()
    };
    let (imap, pop3, lmtp) = (all("imap"), all("pop3"), all("lmtp"));
    let site = Site { imap, pop3, lmtp, mailboxes: usual_mailboxes() };
    Ok(Ground { cluster, site, domain: domain.to_owned() })
}

impl Ports {
    pub(crate) fn site(&self) -> Result<Site> {
        let config = crate::tls::client_config(self.ca.as_deref())?;
        let all = |inside: &[String], outside: &[String]| {
            let tls = inside.iter().map(|address| Endpoint {
                address: address.clone(),
                tls: Some(Arc::clone(&config)),
            });
            tls.chain(outside.iter().map(|address| Endpoint::plain(address))).collect()
        };
        Ok(Site {
            imap: all(&self.imaps, &self.imap),
            pop3: all(&self.pop3s, &self.pop3),
            lmtp: all(&[], &self.lmtp),
            mailboxes: usual_mailboxes(),
        })
    }
}

/// Those every account begins with.
fn usual_mailboxes() -> [String; 2] {
    ["INBOX".to_owned(), "Archive".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_number_or_a_node() {
        assert_eq!("17".parse(), Ok(Seed::Number(17)));
        assert_eq!("n1:14000".parse(), Ok(Seed::Node("n1:14000".into())));
        assert!("n1".parse::<Seed>().is_err());
    }

    #[test]
    fn a_scenario_named_twice_is_run_once() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let line = ["drill", "--only", "bit-rot,leader-crash,bit-rot"];
        let options = <Line as clap::Parser>::try_parse_from(line).expect("a command").options;
        assert_eq!(options.scenarios(), [Scenario::BitRot, Scenario::LeaderCrash]);
        assert_eq!(options.n_runs(), 2);
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert!(duration("soon").is_err() && duration("-1s").is_err());
    }
}
