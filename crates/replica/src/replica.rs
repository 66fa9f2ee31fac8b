//! The handle on one replica.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::peer::{BoxFuture, PeerTransport};
use bytes::Bytes;
use mailbox::{Change, LogTime, ShardId, StoredChunk};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::{ChangeMembers, Instant};
use tokio::sync::{Semaphore, broadcast, watch};

use crate::core::{Core, Raft};
use crate::disk::Disk;
use crate::error::{Error, ProposeError};
use crate::machine::{self, Machine};
use crate::raft::{Member, Proposal, Types};
use crate::reads::Reads;
use crate::status::{Role, Status};
use crate::supervise;
use crate::timing::Timing;
use crate::view::{self, View};
use crate::wire::kind;

/// Limit: proposals under way in one group.
const PROPOSALS_MAX: usize = 4096;
/// Limit: their bytes, in KiB.
const PROPOSAL_KIB_MAX: usize = 64 << 10;
/// Changes a slow watcher may be behind before it has to look for itself.
const CHANGES_MAX: usize = 8192;

/// What a replica is made of.
#[derive(Clone)]
pub struct ReplicaConfig {
    /// Of which group.
    pub shard: ShardId,
    /// Which; minted once and never used again.
    pub replica_id: u64,
    /// Name of this node.
    pub node: String,
    /// Where it lives.
    pub disk: Arc<Disk>,
    /// What it applies.
    pub machine: Arc<dyn Machine>,
    /// How it reaches the others.
    pub transport: Arc<dyn PeerTransport>,
    /// How long things may take.
    pub timing: Timing,
}

/// One replica of one group; clones are the same replica.
#[derive(Clone)]
pub struct Replica {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub config: ReplicaConfig,
    pub core: RwLock<Option<Arc<Core>>>,
    pub status: watch::Sender<Status>,
    pub is_stopping: AtomicBool,
    changes: broadcast::Sender<(u64, Change)>,
    reads: Arc<Reads>,
    proposals: Semaphore,
    proposal_kib: Semaphore,
    /// The last log time given out; it never goes back.
    log_time: AtomicU64,
}

impl Inner {
    /// Begins a core and looks after it. Boxed, because that may begin another one.
    pub fn begin(self: &Arc<Self>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let core = Arc::new(Core::start(&self.config, self.changes.clone()).await?);
            self.config.disk.attach_core(&core);
            self.status.send_replace(core.status());
            *self.core.write().unwrap_or_else(PoisonError::into_inner) = Some(core.clone());
            let watch = supervise::watch(Arc::downgrade(self), Arc::downgrade(&core));
            drop(tokio::spawn(watch));
            Ok(())
        })
    }

    /// Ends the core, if there is one, as the next start likes it best.
    pub async fn end(&self) -> Result<(), Error> {
        let core = self.core.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(core) = core else { return Ok(()) };
        core.raft.shutdown().await.map_err(Error::io("stop raft"))?;
        let (local, store) = (core.applying.local.clone(), core.applying.store());
        let checkpoints = core.applying.checkpoints.clone();
        let blocking = self.config.disk.blocking();
        let closed = blocking.run(move || local.close(&store, &checkpoints)).await;
        closed.map_err(Error::io("close"))?.map_err(Error::io("close"))
    }
}

impl Replica {
    /// Opens the replica's state on its disk, making it if it is new there, and runs it.
    pub async fn start(config: ReplicaConfig) -> Result<Self, Error> {
        let changes = broadcast::Sender::new(CHANGES_MAX);
        let inner = Arc::new(Inner {
            config,
            status: watch::Sender::new(Status::default()),
            core: RwLock::default(),
            is_stopping: AtomicBool::new(false),
            changes,
            reads: Arc::default(),
            proposals: Semaphore::new(PROPOSALS_MAX),
            proposal_kib: Semaphore::new(PROPOSAL_KIB_MAX),
            log_time: AtomicU64::new(0),
        });
        inner.begin().await?;
        Ok(Self { inner })
    }

    /// Gives a new group its members. Once, on one of them.
    pub async fn initialize(&self, members: BTreeMap<u64, Member>) -> Result<(), ProposeError> {
        let initialized = self.raft()?.initialize(members).await;
        initialized.map_err(|error| match error {
            RaftError::APIError(_) => ProposeError::NotLeader { leader: None },
            RaftError::Fatal(_) => ProposeError::Stopped,
        })
    }

    /// Puts a command into the log, waits until it is synced on a majority and applied here, and
    /// gives what the machine answered. The leader's time is put before it.
    pub async fn propose(
        &self,
        command: Vec<u8>,
        inline: Vec<StoredChunk>,
    ) -> Result<Vec<u8>, ProposeError> {
        self.propose_in(&*self.core()?, command, inline).await
    }

    /// The same, with a view of what was applied up to this command or later.
    pub async fn propose_and_view(
        &self,
        command: Vec<u8>,
        inline: Vec<StoredChunk>,
    ) -> Result<(Vec<u8>, View), ProposeError> {
        // Why one core: another one, begun meanwhile, may not have applied it yet.
        let core = self.core()?;
        let response = self.propose_in(&core, command, inline).await?;
        Ok((response, self.view_of(&core)))
    }

    async fn propose_in(
        &self,
        core: &Core,
        command: Vec<u8>,
        inline: Vec<StoredChunk>,
    ) -> Result<Vec<u8>, ProposeError> {
        let inner = &self.inner;
        self.check_leads(core)?;
        if !inline.is_empty() && inner.config.disk.refuses_growth() {
            return Err(ProposeError::Full);
        }
        let size: usize = command.len() + inline.iter().map(|c| c.bytes.len()).sum::<usize>();
        let kib = u32::try_from(size / 1024 + 1).map_err(|_| ProposeError::Overloaded)?;
        let overloaded = |_| ProposeError::Overloaded;
        let _proposal = inner.proposals.try_acquire().map_err(overloaded)?;
        let _bytes = inner.proposal_kib.try_acquire_many(kib).map_err(overloaded)?;
        if inline.iter().any(|chunk| view::raw(chunk).is_none()) {
            return Err(ProposeError::Damaged);
        }
        let command = Bytes::from(machine::stamp(self.log_time(), &command));
        let proposal = Proposal { command, inline: inline.into() };
        let (responder, answer) = ProgressResponder::complete_only();
        core.raft
            .client_write_ff(proposal, Some(responder))
            .await
            .map_err(|_| ProposeError::Stopped)?;
        // Durability: the answer comes after the entry was synced on a majority and applied.
        match tokio::time::timeout(inner.config.timing.propose, answer).await {
            Ok(Ok(Ok(written))) => Ok(written.data.0),
            Ok(Ok(Err(error))) => Err(refusal(error)),
            Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// A view that contains everything acknowledged before this call, from the leader.
    pub async fn read(&self) -> Result<View, ProposeError> {
        let core = self.core()?;
        // Why: a round would keep its followers waiting for a leader that hears none of them.
        self.check_leads(&core)?;
        self.inner.reads.round(&core.raft).await?;
        Ok(self.view_of(&core))
    }

    /// A view of what is applied here, which may be behind.
    pub fn local_view(&self) -> Result<View, ProposeError> {
        Ok(self.view_of(&*self.core()?))
    }

    /// Whether its index is so far behind that what can wait should.
    pub fn is_index_behind(&self) -> bool {
        self.core().is_ok_and(|core| core.applying.store().is_behind())
    }

    /// What changes from now on, with the log index that did it.
    pub fn changes(&self) -> broadcast::Receiver<(u64, Change)> {
        self.inner.changes.subscribe()
    }

    /// How it is now.
    pub fn status(&self) -> Status {
        match self.core() {
            Ok(core) => core.status(),
            Err(_) => Status { role: Role::Stopped, ..self.inner.status.borrow().clone() },
        }
    }

    /// Which term it is in: costs little, unlike its whole status.
    pub fn term(&self) -> u64 {
        let Ok(core) = self.core() else { return self.inner.status.borrow().term };
        let metrics = core.raft.metrics();
        metrics.borrow_watched().current_term
    }

    /// How it is, each time that changes; figures may be some 50 ms old.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.subscribe()
    }

    /// Which group it is of.
    pub fn shard(&self) -> ShardId {
        self.inner.config.shard
    }

    /// Which replica it is.
    pub fn replica_id(&self) -> u64 {
        self.inner.config.replica_id
    }

    /// Lets a new member follow without a vote.
    pub async fn add_learner(&self, id: u64, member: Member) -> Result<(), ProposeError> {
        changed(self.raft()?.add_learner(id, member, false).await)
    }

    /// Lets a member that only follows follow no more.
    pub async fn remove_learner(&self, id: u64) -> Result<(), ProposeError> {
        let gone = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        changed(self.raft()?.change_membership(gone, false).await)
    }

    /// Makes exactly these members vote, in one joint change. Others leave; each has to be a
    /// member already.
    pub async fn change_members(&self, voters: BTreeSet<u64>) -> Result<(), ProposeError> {
        changed(self.raft()?.change_membership(voters, false).await)
    }

    /// Writes a checkpoint of what is applied, and cuts the log below it except for so many
    /// entries. Happens by itself; this is for backups and for those in a hurry.
    pub async fn checkpoint(&self, keep_entries: u64) -> Result<(), ProposeError> {
        let core = self.core()?;
        if !core.checkpoint().await {
            return Err(ProposeError::Unavailable);
        }
        core.purge(keep_entries).await;
        Ok(())
    }

    /// Compares the rows of all members, if this one leads. Happens by itself; this is for tests.
    pub async fn compare(&self) -> Result<(), ProposeError> {
        self.core()?.compare().await;
        Ok(())
    }

    /// Writes a checkpoint, and cuts the log below it as far as all voters but `except` have it, so
    /// that a new member begins with the rows there are instead of with all that ever happened.
    pub async fn make_way(&self, except: Option<u64>) -> Result<(), ProposeError> {
        let core = self.core()?;
        self.check_leads(&core)?;
        if !core.checkpoint().await {
            return Err(ProposeError::Unavailable);
        }
        core.purge_for_newcomer(except).await;
        Ok(())
    }

    /// Hands leadership to a member, or to the voter with the longest log of those that would lead.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<(), ProposeError> {
        self.hand_over(to, self.inner.config.timing.peer).await
    }

    /// Hands leadership to a member that should have it, from one that could go on as well: only if it
    /// answers as soon as followers answer a leader's heartbeat, or it would not be heard in time.
    pub async fn prefer_leader(&self, to: u64) -> Result<(), ProposeError> {
        self.hand_over(Some(to), self.inner.config.timing.heartbeat).await
    }

    async fn hand_over(&self, to: Option<u64>, patience: Duration) -> Result<(), ProposeError> {
        let core = self.core()?;
        self.check_leads(&core)?;
        let status = core.status();
        let candidates = to.map_or_else(|| self.successors(&core, &status), |to| vec![to]);
        for to in candidates {
            let Some(member) = status.voters.get(&to) else { continue };
            // Why asked first: from here on nothing is taken and no follower hears anything until somebody
            // else leads, and openraft never takes that back.
            let peer = core.network.peer(to, member);
            let asked = peer.call(kind::WOULD_LEAD, Bytes::new(), Vec::new(), patience);
            if let Err(error) = asked.await {
                tracing::debug!(shard = %self.inner.config.shard, to, %error, "would not lead");
                continue;
            }
            core.network.followers.hurry();
            core.care.hands_over(status.term);
            return core
                .raft
                .trigger()
                .transfer_leader(to)
                .await
                .map_err(|_| ProposeError::Stopped);
        }
        Err(ProposeError::Unavailable)
    }

    /// The other voters, who should lead next before those who would do.
    pub(crate) fn successors(&self, core: &Core, status: &Status) -> Vec<u64> {
        let me = self.inner.config.replica_id;
        let voters = status.matched.iter().filter(|(id, _)| status.voters.contains_key(*id));
        // Why the silent ones last: the log of one that is down may be as long as any. Of equals
        // one that hears at once: it gets the next entry sooner.
        let hears = |id: &u64| !core.network.followers.may_wait(*id);
        let rank = |(id, at): &(&u64, &u64)| (status.answers(**id), **at, hears(id));
        let mut others: Vec<_> = voters.filter(|(id, _)| **id != me).collect();
        others.sort_by_key(|other| std::cmp::Reverse(rank(other)));
        others.into_iter().map(|(id, _)| *id).collect()
    }

    /// Stops it; its state stays on the disk and the next start is a quick one.
    pub async fn shutdown(&self) -> Result<(), Error> {
        // Order: before it is looked whether one runs; whoever begins another one looks at this behind that.
        self.inner.is_stopping.store(true, Ordering::Relaxed);
        self.inner.end().await
    }

    pub(crate) fn core(&self) -> Result<Arc<Core>, ProposeError> {
        let core = self.inner.core.read().unwrap_or_else(PoisonError::into_inner);
        core.clone().ok_or(ProposeError::Stopped)
    }

    fn raft(&self) -> Result<Raft, ProposeError> {
        Ok(self.core()?.raft.clone())
    }

    fn view_of(&self, core: &Core) -> View {
        View::new(&core.applying.store(), self.inner.config.disk.clone(), core.owner())
    }

    fn check_leads(&self, core: &Core) -> Result<(), ProposeError> {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state.is_leader() {
            let patience = self.inner.config.timing.election_max * 2;
            let has_peers = metrics.membership_config.voter_ids().count() > 1;
            let acked = metrics.last_quorum_acked.as_ref();
            let age = acked.map_or_else(|| core.care.alone(), |at| at.elapsed());
            let is_alone = has_peers && age > patience;
            // Why also for a disk that hangs: followers wait for who feeds them, and each request that is
            // taken here feeds them.
            let is_hung = self.inner.config.disk.unanswered() > self.inner.config.timing.disk_hung;
            // Why at once: a majority that was silent for so long may follow somebody else.
            let is_unfit = is_alone || is_hung;
            return if is_unfit { Err(ProposeError::Unavailable) } else { Ok(()) };
        }
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.and_then(|id| membership.get_node(&id).cloned());
        Err(ProposeError::NotLeader { leader })
    }

    fn log_time(&self) -> LogTime {
        let now = self.inner.config.disk.now().0;
        let before = self.inner.log_time.fetch_max(now, Ordering::Relaxed);
        LogTime(before.max(now))
    }
}

fn refusal(error: ClientWriteError<Types>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => {
            ProposeError::NotLeader { leader: forward.leader_node }
        }
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unknown,
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            ProposeError::Unavailable
        }
    }
}

fn changed<T>(
    result: Result<T, RaftError<Types, ClientWriteError<Types>>>,
) -> Result<(), ProposeError> {
    result.map(drop).map_err(|error| match error {
        RaftError::APIError(error) => refusal(error),
        RaftError::Fatal(_) => ProposeError::Stopped,
    })
}
