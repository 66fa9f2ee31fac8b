//! Which cluster an operator means, and how to reach it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::admin::{AdminClient, Presence, Status};
use api::client::{Client, ClientConfig};
use api::fault::FaultClient;
use api::tls::{Identity, Role};
use clap::Args;
use tokio::time::Instant;

use crate::cluster::{ROLL_CALL_DEADLINE, presences};
use crate::cluster_file::ClusterFile;

/// A cluster that did not answer by then needs an operator's eye, not patience.
const FIRST_ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How often the placement is looked for until then.
const FIRST_ANSWER_POLL: Duration = Duration::from_millis(10);

/// An operator's request is answered within this time or fails; forming a cluster takes longest.
const ADMIN_DEADLINE: Duration = Duration::from_secs(30);

/// The options that name a cluster.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// cluster.json of a demo; replaces --seed and --identity
    #[arg(long, global = true)]
    cluster: Option<PathBuf>,
    /// Nodes to ask first, host:port, separated by commas
    #[arg(long, global = true, value_delimiter = ',')]
    seed: Vec<String>,
    /// Directory with ca.pem, cert.pem and key.pem of role admin (see `ctl cert issue`)
    #[arg(long, global = true)]
    identity: Option<PathBuf>,
}

/// A cluster and the right to operate it.
#[derive(Clone)]
pub struct Target {
    seeds: Vec<String>,
    identity: Identity,
}

impl Target {
    /// From the command line.
    pub fn of_args(args: &TargetArgs) -> Result<Self> {
        match (&args.cluster, &args.identity) {
            (Some(file), _) => Self::of_cluster_file(&ClusterFile::read(file)?),
            (None, Some(identity)) if !args.seed.is_empty() => {
                Self::new(args.seed.clone(), identity)
            }
            _ => bail!("say which cluster: --cluster FILE, or --seed HOST:PORT --identity DIR"),
        }
    }

    /// From a demo's file.
    pub fn of_cluster_file(file: &ClusterFile) -> Result<Self> {
        Self::new(file.seeds(), &file.identity)
    }

    /// From addresses of nodes, and a directory with an identity of role admin.
    pub fn new(seeds: Vec<String>, identity: &Path) -> Result<Self> {
        if let Some(seed) = seeds.iter().find(|seed| !api::config::is_endpoint(seed)) {
            bail!("--seed {seed}: write it as host:port");
        }
        let directory = identity.display();
        let identity =
            Identity::load(identity).with_context(|| format!("read identity {directory}"))?;
        if identity.peer().role != Role::Admin {
            bail!("{directory} is of another role than admin: see `rookery ctl cert issue`");
        }
        Ok(Self { seeds, identity })
    }

    /// For accounts and mail; waits until a node told where everything is.
    pub async fn client(&self) -> Result<Client> {
        let client = Client::new(self.client_config()).context("make client")?;
        let deadline = Instant::now() + FIRST_ANSWER_DEADLINE;
        while !client.ready().await {
            if Instant::now() > deadline {
                let admin = self.admin_within(ROLL_CALL_DEADLINE)?;
                let status = admin.status(false).await.ok();
                let called = admin.roll_call(ROLL_CALL_DEADLINE).await;
                bail!(no_placement(status, &called));
            }
            tokio::time::sleep(FIRST_ANSWER_POLL).await;
        }
        Ok(client)
    }

    /// For nodes, disks and shards.
    pub fn admin(&self) -> Result<AdminClient> {
        self.admin_within(ADMIN_DEADLINE)
    }

    /// The same for what should be answered sooner.
    pub fn admin_within(&self, patience: Duration) -> Result<AdminClient> {
        AdminClient::new(self.client_config(), patience).context("make client")
    }

    /// For faults of nodes that may be drilled.
    pub fn faults(&self) -> Result<FaultClient> {
        FaultClient::new(self.client_config()).context("make client")
    }

    fn client_config(&self) -> ClientConfig {
        ClientConfig {
            seeds: self.seeds.clone(),
            identity: self.identity.clone(),
            name: self.identity.peer().name.clone(),
            bind: None,
        }
    }
}

/// Why no node told where everything is.
fn no_placement(status: Option<Status>, called: &[Presence]) -> String {
    // Why: a node of a cluster that does not know its placement yet gives no status.
    if status.is_some_and(|status| status.placement.is_none()) {
        return "no cluster was formed yet: `rookery ctl cluster init --nodes ...`".into();
    }
    format!("no node of a formed cluster answered:{}", presences(called))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_forgot_to_form_a_cluster_is_told_so() {
        let called = [Presence { node: "n1:7400".into(), absence: None }];
        let said = no_placement(Some(Status::default()), &called);
        assert_eq!(said, "no cluster was formed yet: `rookery ctl cluster init --nodes ...`");
        // One that was just started and has lost its peers answers as well.
        let said = no_placement(None, &called);
        assert_eq!(said, "no node of a formed cluster answered:\n  n1:7400: answers");
    }

    #[test]
    fn a_seed_that_is_no_endpoint_is_refused_before_anybody_waits() {
        let refused = |seed: &str| Target::new(vec![seed.into()], Path::new("none")).err().unwrap();
        assert_eq!(refused("n1").to_string(), "--seed n1: write it as host:port");
        assert!(refused("n1:7400").to_string().starts_with("read identity"));
    }
}
