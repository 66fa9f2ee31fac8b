//! What a drill does to a cluster, by name. Each scenario returns when the fault is over; that everything
//! is whole again is waited for, and measured, by who runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use api::fault::Fault;
use api::placement::META_SHARD;
use clap::ValueEnum;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::history::{self, Record};
use crate::recorder::Recorder;

/// How long a process that ended may take to come back.
const BACK_PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to hand everything over.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);
/// How long everything may take to be whole between two steps of a scenario.
const WHOLE_PATIENCE: Duration = Duration::from_secs(60);
/// Beyond every lease and every keepalive.
const PAUSE: Duration = Duration::from_secs(5);
/// As long as a switch takes to come back.
const PARTITION: Duration = Duration::from_secs(6);
/// Long enough for the node to hand leaderships over.
const FULL: Duration = Duration::from_secs(6);
/// How long a whole disk may take to be read and healed: some TB at the speed of one core.
const SCRUB_PATIENCE: Duration = Duration::from_secs(3600);
/// Bits turned over.
const ROT_BITS: u32 = 40;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The node that leads most of the mail dies
    LeaderCrash,
    /// The node that leads most of the mail is emptied of leaderships, as before maintenance
    LeaderDrain,
    /// A node stands still for some seconds, and then goes on as if nothing had happened
    NodePause,
    /// The node that leads most of the mail is cut off from everybody
    PartitionLeader,
    /// A node dies and comes back with an empty disk
    DiskWipe,
    /// Bits turn over on a disk
    BitRot,
    /// A disk is full for some seconds
    DiskFull,
    /// Every node is restarted in turn, as for an upgrade
    RollingRestart,
    /// All nodes die at once
    PowerLossAll,
}

impl Scenario {
    /// As `--only` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeaderCrash => "leader-crash",
            Self::LeaderDrain => "leader-drain",
            Self::NodePause => "node-pause",
            Self::PartitionLeader => "partition-leader",
            Self::DiskWipe => "disk-wipe",
            Self::BitRot => "bit-rot",
            Self::DiskFull => "disk-full",
            Self::RollingRestart => "rolling-restart",
            Self::PowerLossAll => "power-loss-all",
        }
    }

    /// In a sentence for people who do not know Raft.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::LeaderCrash => "The busiest machine dies without warning.",
            Self::LeaderDrain => "The busiest machine is taken out of service in order.",
            Self::NodePause => "The busiest machine freezes for 5 s and then goes on.",
            Self::PartitionLeader => "The network cuts the busiest machine off for 6 s.",
            Self::DiskWipe => "A machine loses its disk with everything on it.",
            Self::BitRot => "A disk silently turns over some bits of stored mail.",
            Self::DiskFull => "A machine's disk is full for 6 s.",
            Self::RollingRestart => "Every machine is restarted, one after the other.",
            // Why so: what was written and not synced is lost with the power, and not with a process.
            Self::PowerLossAll => "The mail store dies on all machines at the same moment.",
        }
    }

    /// Whether mail clients must keep their connections: as long as there is a majority of nodes.
    pub fn keeps_connections(self) -> bool {
        !matches!(self, Self::PowerLossAll)
    }
}

/// What a scenario works on.
pub(crate) struct Stage<'a> {
    pub cluster: &'a Cluster,
    pub recorder: &'a Recorder,
    /// Where the canaries live: how many on each shard.
    pub shards: &'a BTreeMap<u32, usize>,
    pub dice: Dice,
    /// Counted from 0.
    pub round: u32,
}

impl Stage<'_> {
    /// Does it; what was done to whom is in the history.
    pub async fn play(&mut self, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::LeaderCrash => self.crash().await,
            Scenario::LeaderDrain => self.drain().await,
            Scenario::NodePause => self.pause().await,
            Scenario::PartitionLeader => self.partition().await,
            Scenario::DiskWipe => self.wipe().await,
            Scenario::BitRot => self.rot().await,
            Scenario::DiskFull => self.fill().await,
            Scenario::RollingRestart => self.rolling_restart().await,
            Scenario::PowerLossAll => self.power_loss().await,
        }
    }

    async fn busiest(&self) -> Result<String> {
        let snapshot = |snapshot: &crate::cluster::Snapshot| snapshot.busiest(self.shards);
        self.cluster.until(WHOLE_PATIENCE, snapshot).await
    }

    async fn crash(&mut self) -> Result<()> {
        let node = self.busiest().await?;
        let (start_us, since) = (self.recorder.now_us(), Instant::now());
        self.inflict(&node, &Fault::Crash).await?;
        self.back(&node, since).await?;
        self.record(format!("{node} crashed"), start_us);
        Ok(())
    }

    async fn drain(&mut self) -> Result<()> {
        let node = self.busiest().await?;
        let start_us = self.recorder.now_us();
        self.cluster.drain(&node, false).await?;
        // Why all at once: as long as it is drained none may come back.
        let emptied = self.cluster.until(DRAIN_PATIENCE, |snapshot| {
            snapshot.check_led_by_others(&node, None, &mut BTreeSet::new())
        });
        let emptied = emptied.await;
        self.cluster.drain(&node, true).await?;
        self.record(format!("{node} drained"), start_us);
        emptied
    }

    async fn pause(&mut self) -> Result<()> {
        let node = self.busiest().await?;
        self.lasting(&node, &Fault::Pause(PAUSE), PAUSE, "paused").await
    }

    async fn partition(&mut self) -> Result<()> {
        let node = self.busiest().await?;
        // Every second time only from its peers: frontends still reach a leader that must not serve.
        let peers_only = self.round % 2 == 1;
        let fault = Fault::Partition { duration: PARTITION, peers_only };
        let what = if peers_only { "cut off from its peers" } else { "cut off" };
        self.lasting(&node, &fault, PARTITION, what).await
    }

    async fn fill(&mut self) -> Result<()> {
        let node = self.busiest().await?;
        let disk = self.cluster.snapshot().await.disk_of(&node)?;
        let fault = Fault::FillDisk { disk, duration: FULL };
        self.lasting(&node, &fault, FULL, "disk full").await
    }

    async fn rot(&mut self) -> Result<()> {
        let node = self.busiest().await?;
        let disk = self.cluster.snapshot().await.disk_of(&node)?;
        let start_us = self.recorder.now_us();
        let known = self.cluster.snapshot().await.scrubbed(&node, disk)?.n_damaged;
        let fault = Fault::Rot { disk, n_bits: ROT_BITS, seed: self.dice.next() };
        let n_bits = self.inflict(&node, &fault).await?;
        ensure!(n_bits > 0, "no bit of {node} could be turned over");
        self.record(format!("{n_bits} bits turned over on {node}"), start_us);
        let n_passes = self.cluster.scrub(&node, disk).await?;
        let healed = self.cluster.until(SCRUB_PATIENCE, |snapshot| {
            let told = snapshot.scrubbed(&node, disk)?;
            ensure!(told.n_passes >= n_passes, "disk {disk} is not verified yet");
            let n_open = told.n_damaged - told.n_repaired.min(told.n_damaged);
            ensure!(n_open == 0, "{n_open} damages on disk {disk} are not healed");
            Ok(told.n_damaged - known.min(told.n_damaged))
        });
        match healed.await? {
            0 => bail!("{n_bits} bits turned over and scrub found nothing"),
            _ => Ok(()),
        }
    }

    async fn wipe(&mut self) -> Result<()> {
        let node = self.busiest().await?;
        let disk = self.cluster.snapshot().await.disk_of(&node)?;
        let (start_us, since) = (self.recorder.now_us(), Instant::now());
        self.inflict(&node, &Fault::WipeDisk(disk)).await?;
        self.back(&node, since).await?;
        self.record(format!("{node} lost its disk"), start_us);
        // The copies on it are not only back, they are elsewhere: on a disk with a new name.
        let replaced = self.cluster.until_filled(WHOLE_PATIENCE, |snapshot| {
            let lost = snapshot
                .placement
                .shards
                .iter()
                .find(|shard| shard.replicas.iter().any(|placed| placed.disk_id == disk));
            lost.map_or(Ok(()), |shard| {
                bail!("shard {} is still placed on the lost disk {disk}", shard.shard)
            })
        });
        replaced.await
    }

    async fn rolling_restart(&mut self) -> Result<()> {
        let snapshot = self.cluster.snapshot().await;
        let names: Vec<String> =
            snapshot.placement.nodes.iter().map(|node| node.name.clone()).collect();
        for node in names {
            self.cluster.whole(WHOLE_PATIENCE).await.context("before the next restart")?;
            let (start_us, since) = (self.recorder.now_us(), Instant::now());
            self.inflict(&node, &Fault::Restart).await?;
            self.back(&node, since).await?;
            self.record(format!("{node} restarted"), start_us);
        }
        Ok(())
    }

    async fn power_loss(&mut self) -> Result<()> {
        let snapshot = self.cluster.snapshot().await;
        let names: Vec<String> =
            snapshot.placement.nodes.iter().map(|node| node.name.clone()).collect();
        let (start_us, since) = (self.recorder.now_us(), Instant::now());
        let dying = names.iter().map(|node| self.cluster.inflict(node, &Fault::Crash));
        for died in futures_util::future::join_all(dying).await {
            died.context("crash all nodes")?;
        }
        for node in &names {
            self.back(node, since).await?;
        }
        let led = self.cluster.until(BACK_PATIENCE, |snapshot| {
            let shards = &snapshot.placement.shards;
            match shards.iter().find(|shard| snapshot.leader(shard).is_none()) {
                Some(shard) if shard.shard == META_SHARD => bail!("the meta group has no leader"),
                Some(shard) => bail!("shard {} has no leader", shard.shard),
                None => Ok(()),
            }
        });
        led.await?;
        self.record("all nodes died at once".into(), start_us);
        Ok(())
    }

    async fn inflict(&self, node: &str, fault: &Fault) -> Result<u32> {
        let inflicted = self.cluster.inflict(node, fault).await;
        inflicted.with_context(|| format!("inflict {fault:?} on {node}"))
    }

    /// A fault that ends by itself. While it lasts others have to lead, or nothing was rehearsed.
    async fn lasting(
        &self,
        node: &str,
        fault: &Fault,
        duration: Duration,
        what: &str,
    ) -> Result<()> {
        let start_us = self.recorder.now_us();
        self.inflict(node, fault).await?;
        let until = Instant::now() + duration;
        // Why: what lies on its other disks it may go on to lead.
        let disk = match fault {
            Fault::FillDisk { disk, .. } => Some(*disk),
            _ => None,
        };
        let mut seen = BTreeSet::new();
        let led = self
            .cluster
            .until(duration, |snapshot| snapshot.check_led_by_others(node, disk, &mut seen));
        let led = led.await.with_context(|| format!("{node} {what}"));
        tokio::time::sleep_until(until).await;
        self.record(format!("{node} {what}"), start_us);
        led
    }

    /// Waits until a process that ended runs again.
    async fn back(&self, node: &str, since: Instant) -> Result<()> {
        let back = self.cluster.until(BACK_PATIENCE, |snapshot| snapshot.check_back(node, since));
        back.await.context("is a supervisor there to start it again?")
    }

    fn record(&self, name: String, start_us: u64) {
        let end_us = self.recorder.now_us();
        self.recorder.record(Record::Fault(history::Fault { name, start_us, end_us }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::admin::NodeStatus;
    use api::meta::{ReplicaReport, ReplicaState};
    use api::placement::{DiskId, Placement, Replica, ReplicaRole, Shard};

    use super::*;
    use crate::cluster::Snapshot;

    /// One of three copies.
    fn report(replica_id: u64, state: ReplicaState, term: u64) -> ReplicaReport {
        ReplicaReport {
            shard: META_SHARD,
            replica_id,
            disk_id: DiskId::default(),
            state,
            term,
            leader: None,
            last_log: 0,
            committed: 0,
            applied: 0,
            digest: [0; 32],
            n_missing_chunks: 0,
            n_chunks: 0,
            chunk_bytes: 0,
            followers: Vec::new(),
            voters: Vec::new(),
            learners: Vec::new(),
            is_joint: false,
            missing_bytes: 0,
            received_bytes: 0,
            is_recovered: false,
        }
    }

    /// Of n1, n2 and n3 those that answer, with what their replicas say that they are.
    fn snapshot(answers: &[(u64, ReplicaState, u64)]) -> Snapshot {
        let replica = |replica_id| Replica {
            replica_id,
            node: format!("n{replica_id}"),
            disk_id: DiskId::default(),
            role: ReplicaRole::Voter,
            replaces: None,
        };
        let shard = Shard {
            shard: META_SHARD,
            replicas: (1..=3).map(replica).collect(),
            leader: None,
            n_wanted: 3,
            forced: None,
            outcasts: Vec::new(),
        };
        let placement = Placement { shards: vec![shard], ..Placement::default() };
        let nodes = answers.iter().map(|(id, state, term)| {
            let replicas = vec![report(*id, *state, *term)];
            (format!("n{id}"), NodeStatus { replicas, ..NodeStatus::default() })
        });
        Snapshot { nodes: nodes.collect(), placement: Arc::new(placement) }
    }

    #[test]
    fn who_cannot_be_asked_is_not_taken_for_one_that_leads_nothing() {
        use ReplicaState::{Follower, Leader};
        let mut seen = BTreeSet::new();
        let mut said = |answers: &[(u64, ReplicaState, u64)]| {
            let checked = snapshot(answers).check_led_by_others("n1", None, &mut seen);
            checked.err().map(|error| error.to_string())
        };
        let before = [(1, Leader, 4), (2, Follower, 4), (3, Follower, 4)];
        assert_eq!(said(&before).as_deref(), Some("n1 still leads shard 0"));
        let paused = [(2, Follower, 4), (3, Follower, 4)];
        assert_eq!(said(&paused).as_deref(), Some("nobody is seen to lead shard 0"));
        // Cut off from its peers alone it may take itself for the leader still.
        assert_eq!(said(&[(1, Leader, 4), (2, Leader, 5), (3, Follower, 5)]), None);
        // What was seen once is not asked for again.
        assert_eq!(said(&paused), None);
        // What lies on another disk is not hurt.
        let other = Some(DiskId([1; 16]));
        let checked = snapshot(&before).check_led_by_others("n1", other, &mut BTreeSet::new());
        assert!(checked.is_ok());
    }
}
