//! One run of openraft for a replica, from start to stop. A replica whose core died begins another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, ServerState};
use tokio::sync::{broadcast, watch};

use crate::checkpoint::Checkpoints;
use crate::compare::Samples;
use crate::confirm::Memory;
use crate::disk::Claim;
use crate::donor::Donor;
use crate::error::Error;
use crate::local::Local;
use crate::log::Log;
use crate::network::Network;
use crate::raft::{Member, Types};
use crate::receive::Receiving;
use crate::replica::ReplicaConfig;
use crate::state::{Applier, Applying};
use crate::status::{Role, Status};
use crate::store::Store;
use crate::supervise::Care;

pub(crate) type Raft = openraft::Raft<Types, Applier>;

/// What exists while openraft runs.
pub(crate) struct Core {
    pub raft: Raft,
    pub applying: Arc<Applying>,
    pub network: Network,
    pub claim: Claim,
    pub memory: Arc<Memory>,
    pub receiving: Arc<tokio::sync::Mutex<Receiving>>,
    /// Held by who looks for a chunk in the whole journal.
    pub searching: tokio::sync::Mutex<()>,
    pub care: Care,
    /// When another replica last led this one.
    pub led_at: Mutex<Option<tokio::time::Instant>>,
}

impl Drop for Core {
    fn drop(&mut self) {
        // Order: before the claim goes. What openraft still has queued is not for who comes next.
        self.applying.checkpoints.end_replica();
    }
}

impl Core {
    /// Opens the local state and starts openraft on it.
    pub async fn start(
        config: &ReplicaConfig,
        changes: broadcast::Sender<(u64, mailbox::Change)>,
    ) -> Result<Self, Error> {
        let mut claim = config.disk.claim(config.replica_id, config.shard).await?;
        let local = Local { disk: config.disk.clone(), replica: config.replica_id };
        let log = claim.log.clone();
        let (store, checkpoints) = local.open(&log).await?;
        if !is_made_up_for(&log, &store) {
            // Why also the disk, and first: what follows may fail when the log does not know it any more.
            config.disk.suspect(config.replica_id);
            claim.is_suspect = true;
        }
        mend(&log, &store, &checkpoints).await?;
        let next_index = store.applied().next_index();
        let applying = Arc::new(Applying {
            machine: config.machine.clone(),
            log: log.clone(),
            store: RwLock::new(store),
            checkpoints,
            local,
            changes,
            next_index: watch::Sender::new(next_index),
            samples: Samples::default(),
        });
        attach(&applying).await?;
        let network = Network {
            shard: config.shard,
            replica: config.replica_id,
            member: Member { node: config.node.clone(), disk_id: config.disk.disk_id() },
            transport: config.transport.clone(),
            patience: config.timing.peer,
            memory: Arc::default(),
            followers: Arc::default(),
            applying: Arc::downgrade(&applying),
        };
        log.set_donor(Donor { network: network.clone() });
        // Why: who never voted cannot have been rolled back.
        let is_held = config.disk.is_held(config.shard);
        let may_vote = !claim.is_suspect && !is_held && log.vote().is_none();
        let care = Care::new(may_vote, &applying.local);
        let group = format!("shard {}", config.shard);
        let raft_config = config.timing.config(group).validate().map_err(raft_error)?;
        let raft = Raft::new(
            config.replica_id,
            Arc::new(raft_config),
            network.clone(),
            log,
            Applier(applying.clone()),
        );
        let raft = raft.await.map_err(raft_error)?;
        let memory = network.memory.clone();
        let (receiving, searching, led_at) = Default::default();
        Ok(Self { raft, applying, network, claim, memory, receiving, searching, care, led_at })
    }

    /// How it is now.
    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeMap<u64, Member> = membership
            .voter_ids()
            .filter_map(|id| Some((id, membership.get_node(&id)?.clone())))
            .collect();
        let learners = membership
            .learner_ids()
            .filter_map(|id| Some((id, membership.get_node(&id)?.clone())))
            .collect();
        let leader = metrics.current_leader;
        let index = |log_id: Option<crate::raft::LogId>| log_id.map_or(0, |log_id| log_id.index);
        let applied = self.applying.store().applied();
        let matched = metrics.replication.as_ref().map_or(BTreeMap::new(), |replication| {
            replication.iter().map(|(id, log_id)| (*id, index(*log_id))).collect()
        });
        let silent_ms = metrics.heartbeat.iter().flatten().filter_map(|(id, heard)| {
            let age = heard.as_ref().map(|at| at.elapsed())?;
            Some((*id, age.as_millis() as u64))
        });
        let led_at = *self.led_at.lock().unwrap_or_else(PoisonError::into_inner);
        let quorum_age = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
        Status {
            role: match (&metrics.running_state, metrics.state) {
                (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
                (_, ServerState::Learner) => Role::Learner,
                (_, ServerState::Follower) => Role::Follower,
                (_, ServerState::Candidate) => Role::Candidate,
                (_, ServerState::Leader) => Role::Leader,
            },
            term: metrics.current_term,
            leader: leader.and_then(|id| Some((id, membership.get_node(&id)?.clone()))),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed: index(metrics.local_committed),
            applied: index(applied.log_id),
            digest: applied.digest,
            voters,
            learners,
            is_joint: membership.get_joint_config().len() > 1,
            matched,
            silent_ms: silent_ms.collect(),
            quorum_age_ms: quorum_age.map(|age| age.as_millis() as u64),
            led_age_ms: led_at.map(|at| at.elapsed().as_millis() as u64),
            is_incomplete: self.care.is_incomplete(),
            missing_chunks: self.care.missing().0,
            missing_bytes: self.care.missing().1,
            received_bytes: self.care.received_bytes(),
            is_unconfirmed: !self.care.may_vote(),
            n_differing: self.care.n_differing(),
            checkpoint: self
                .applying
                .checkpoints
                .current()
                .map_or(0, |checkpoint| index(checkpoint.applied().log_id)),
            purged: index(metrics.purged),
            is_starting: false,
            failed: metrics.running_state.err().map(|fatal| fatal.to_string()),
        }
    }
}

/// From now on garbage collection asks this replica. What it copied before is found where it is now.
async fn attach(applying: &Arc<Applying>) -> Result<(), Error> {
    let Local { disk, replica } = &applying.local;
    // Why again: meanwhile more may have been copied.
    while let Err(segments) = disk.attach(*replica, applying) {
        let (local, store, wanted) = (applying.local.clone(), applying.store(), segments.clone());
        let found = disk.blocking().run(move || local.relocate(&store, &wanted)).await;
        if let Err(error) = found.and_then(|found| found) {
            disk.not_found_in(*replica, segments);
            return Err(Error::io("find bodies again")(error));
        }
    }
    Ok(())
}

/// Whether everything that damage took from the log was applied.
fn is_made_up_for(log: &Log, store: &Store) -> bool {
    let applied = store.applied().log_id;
    log.lost_upto().is_none_or(|lost| applied.is_some_and(|at| at.index >= lost))
}

/// Puts right, before openraft looks, what damage took from log and checkpoints and the rows make up
/// for. Where entries are lost that were not applied, the log ends with what was: an operator may want this
/// replica to go on with that.
async fn mend(log: &Log, store: &Arc<Store>, checkpoints: &Arc<Checkpoints>) -> Result<(), Error> {
    let applied = store.applied().log_id;
    let lost = log.lost_upto();
    let is_made_up_for = is_made_up_for(log, store);
    if checkpoints.is_doubted() || (lost.is_some() && applied.is_some()) {
        // Invariant: the log is cut only below a checkpoint that was read back.
        let built = checkpoints.build(|| store.clone()).await;
        built.map_err(Error::io("write a checkpoint"))?;
    }
    let Some(lost) = lost else { return Ok(()) };
    if let Some(applied) = applied {
        log.give_up_lost(applied).await.map_err(Error::io("cut the log"))?;
    }
    let index = applied.map_or(0, |applied| applied.index);
    if is_made_up_for {
        tracing::warn!(lost, index, "damaged entries were applied before: log cut behind them");
    } else {
        // Order: only now, since until the log is cut on the disk it has to know what is lost.
        log.forget();
        tracing::error!(lost, index, "damage took entries that were not applied yet");
    }
    Ok(())
}

fn raft_error(error: impl std::fmt::Display) -> Error {
    Error::Raft(error.to_string())
}
