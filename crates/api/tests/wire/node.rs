//! A node whose shards live in one place, so that leaders can move at will, and whose faults are set.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::admin::{AdminHandler, ChunkCopy, ClusterInit, MoveReplica, ReplicaCopies, Status};
use api::mail::{Changes, Leadership, MailError, MailHandler};
use api::meta::{MemberChange, MetaError, MetaHandler, Newer, Placements, Report};
use api::peer::{BoxFuture, PeerError, PeerHandler, PeerRequest, PeerResponse};
use api::placement::{ClusterId, DiskId, Node, Placement};
use async_trait::async_trait;
use mailbox::command::{InternalDate, MoveAccount, MoveStep, OfMailbox, Place};
use mailbox::{
    AccountId, Address, Answer, Change, ChunkRef, Command, Digest, EmailId, Flags, LogTime,
    MailboxId, MailboxInfo, MailboxName, MessageRecord, ModSeq, Outcome, Query, Refusal, Request,
    SessionId, ShardId, StoredChunk, ThreadId, Uid, UidSet, UidValidity,
};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{BroadcastStream, WatchStream};

use crate::cluster::PATIENCE;

/// What happens to the next proposal.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// It is done, and no answer ever comes.
    DoneAndSilent,
    /// It is not done, and no answer ever comes.
    Silent,
    /// It is done, and the answer says that nobody knows.
    DoneAndUnknown,
    /// The same, and log time is this from then on.
    DoneAndUnknownAndLeapTo(LogTime),
    /// Not done, and the node says why.
    Told(MailError),
    /// The sessions are forgotten first.
    SessionsLost,
    /// It is done, no answer comes, and the sessions are forgotten after it.
    DoneSilentAndSessionsLost,
    /// Log time is past every expiry, and an earlier version does not say what it is.
    Expired,
}

/// What all nodes share.
pub struct World {
    state: Mutex<State>,
    placement: watch::Sender<Arc<Placement>>,
    changes: broadcast::Sender<(u64, Change)>,
    /// Something happened that a test may wait for.
    pub happened: watch::Sender<u64>,
    /// Searches that came, and those under way; each goes on until somebody answers it.
    pub searches: watch::Sender<Searches>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Searches {
    pub n_came: usize,
    pub n_running: usize,
    pub are_answered: bool,
}

/// A search under way.
struct Searching<'w>(&'w World);

impl<'w> Searching<'w> {
    fn begin(world: &'w World) -> Self {
        world.searches.send_modify(|all| {
            all.n_came += 1;
            all.n_running += 1;
        });
        Self(world)
    }
}

impl Drop for Searching<'_> {
    fn drop(&mut self) {
        self.0.searches.send_modify(|all| all.n_running -= 1);
    }
}

#[derive(Default)]
struct State {
    leader: Option<String>,
    term: u64,
    sessions: BTreeSet<SessionId>,
    outcomes: BTreeMap<(SessionId, u64), Outcome>,
    n_done: u64,
    /// Requests that expire before it are refused.
    log_time: u64,
    /// How far it leaps then.
    leap_ms: u64,
    n_expired: u64,
    faults: VecDeque<Fault>,
    places: BTreeMap<Address, Place>,
    groups: BTreeMap<Address, Vec<Address>>,
    moved: Option<Place>,
    /// Steps until it is served where it moved to.
    n_to_settle: u64,
    maildrop: Option<[u8; 16]>,
    changes: Vec<MemberChange>,
    /// Of the only mailbox, if there is one.
    uid_validity: Option<UidValidity>,
    /// Questions about what never changes.
    n_lasting: u64,
    /// Questions who leads, while nobody did.
    n_in_vain: u64,
    /// How long each takes to be answered.
    leader_takes: Duration,
}

impl State {
    /// What comes of a request that is too late by log time.
    fn expired(&mut self, request: &Request) -> Option<Outcome> {
        let told = LogTime(self.log_time);
        let is_expired = told > request.expires;
        if is_expired {
            self.n_expired += 1;
            self.log_time += self.leap_ms;
        }
        is_expired.then_some(Outcome::Refused(Refusal::Expired(Some(told))))
    }
}

impl Default for World {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            placement: watch::Sender::new(Arc::default()),
            changes: broadcast::Sender::new(64),
            happened: watch::Sender::new(0),
            searches: watch::Sender::default(),
        }
    }
}

impl World {
    pub fn publish(&self, placement: Placement) {
        self.placement.send_replace(Arc::new(placement));
    }

    /// What was published last.
    pub fn placement(&self) -> Arc<Placement> {
        Arc::clone(&self.placement.borrow())
    }

    pub fn lead(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.leader = (!name.is_empty()).then(|| name.to_owned());
        state.term += 1;
    }

    /// Who leads is told only after so long.
    pub fn tell_leader_after(&self, takes: Duration) {
        self.state.lock().unwrap().leader_takes = takes;
    }

    pub fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().faults.push_back(fault);
    }

    /// How many commands were done, each counted as often as it was.
    pub fn n_done(&self) -> u64 {
        self.state.lock().unwrap().n_done
    }

    /// A leader's clock makes log time what it is, and later by so much with each refusal.
    pub fn log_time(&self, log_time: LogTime, leap_ms: u64) {
        let mut state = self.state.lock().unwrap();
        (state.log_time, state.leap_ms) = (log_time.0, leap_ms);
    }

    /// How many requests came too late by log time.
    pub fn n_expired(&self) -> u64 {
        self.state.lock().unwrap().n_expired
    }

    /// What was asked of members, in order.
    pub fn changes(&self) -> Vec<MemberChange> {
        self.state.lock().unwrap().changes.clone()
    }

    pub fn n_sessions(&self) -> usize {
        self.state.lock().unwrap().sessions.len()
    }

    /// There is one mailbox, and this is its UIDVALIDITY.
    pub fn mailbox(&self, uid_validity: u32) {
        let uid_validity = UidValidity(uid_validity.try_into().unwrap());
        self.state.lock().unwrap().uid_validity = Some(uid_validity);
    }

    /// How often nodes were asked about what never changes.
    pub fn n_lasting(&self) -> u64 {
        self.state.lock().unwrap().n_lasting
    }

    /// Waits until nodes were asked so often in all who leads, while nobody did.
    pub async fn asked_in_vain(&self, n: u64) {
        let mut happened = self.happened.subscribe();
        while self.state.lock().unwrap().n_in_vain < n {
            timeout(PATIENCE, happened.changed()).await.expect("in time").unwrap();
        }
    }

    pub fn resolve(&self, address: &Address, place: Option<Place>) {
        let mut state = self.state.lock().unwrap();
        match place {
            Some(place) => state.places.insert(address.clone(), place),
            None => state.places.remove(address),
        };
    }

    pub fn group(&self, address: &Address, members: &[&str]) {
        let member = |name: &&str| Address::parse(&format!("{name}@example.test")).unwrap().0;
        let members = members.iter().map(member).collect();
        self.state.lock().unwrap().groups.insert(address.clone(), members);
    }

    pub fn move_to(&self, place: Place) {
        self.state.lock().unwrap().moved = Some(place);
    }

    /// The same, but who moved it went away so many steps before the end.
    pub fn leave_for(&self, place: Place, n_to_settle: u64) {
        self.move_to(place);
        self.state.lock().unwrap().n_to_settle = n_to_settle;
    }

    pub fn change(&self, log_index: u64, change: Change) {
        let _ = self.changes.send((log_index, change));
    }

    pub fn n_watchers(&self) -> usize {
        self.changes.receiver_count()
    }

    fn tick(&self) {
        self.happened.send_modify(|n| *n += 1);
    }
}

pub struct FakeNode {
    name: String,
    world: Arc<World>,
    callers: Mutex<Vec<String>>,
    /// What the peer handler saw: shard, kind of request, in order.
    pub seen: Arc<Mutex<Vec<(ShardId, u64)>>>,
    /// Requests with this kind wait until it is set to something else.
    pub held: watch::Sender<Option<u8>>,
    /// Chunks this node has.
    pub chunks: Mutex<BTreeMap<Digest, StoredChunk>>,
    /// How often it was asked for one.
    pub n_chunks_asked: AtomicU64,
    /// Does not answer anything about leadership, and nothing else.
    pub deaf: watch::Sender<bool>,
    /// How long it takes to be sure that it leads.
    pub sure_after: Mutex<Duration>,
    /// It hears of no later version of the placement.
    pub hears_up_to: Arc<AtomicU64>,
}

impl FakeNode {
    pub fn new(name: &str, world: Arc<World>) -> Self {
        Self {
            name: name.to_owned(),
            world,
            callers: Mutex::default(),
            seen: Arc::default(),
            held: watch::Sender::new(None),
            chunks: Mutex::default(),
            n_chunks_asked: AtomicU64::new(0),
            deaf: watch::Sender::new(false),
            sure_after: Mutex::default(),
            hears_up_to: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// Who called a service that names its callers.
    pub fn callers(&self) -> Vec<String> {
        self.callers.lock().unwrap().clone()
    }

    async fn hear(&self) {
        let _ = self.deaf.subscribe().wait_for(|deaf| !deaf).await;
    }

    async fn make_sure(&self) -> Result<(), MailError> {
        let after = *self.sure_after.lock().unwrap();
        tokio::time::sleep(after).await;
        self.check_leader()
    }

    fn check_leader(&self) -> Result<(), MailError> {
        let leader = self.world.state.lock().unwrap().leader.clone();
        match leader.as_ref() == Some(&self.name) {
            true => Ok(()),
            false => Err(MailError::NotLeader { leader }),
        }
    }

    /// As a shard does it: once for each session and sequence.
    fn apply(&self, shard: ShardId, request: &Request) -> Outcome {
        let mut state = self.world.state.lock().unwrap();
        if let Command::OpenSession(session) = request.command {
            if let Some(refused) = state.expired(request) {
                return refused;
            }
            state.sessions.insert(session);
            return Outcome::Done;
        }
        let Some(session) = request.session.filter(|id| state.sessions.contains(id)) else {
            return Outcome::Refused(Refusal::NoSuchSession);
        };
        if let Some(outcome) = state.outcomes.get(&(session, request.sequence)) {
            return outcome.clone();
        }
        if let Some(refused) = state.expired(request) {
            return refused;
        }
        if let Some(place) = state.moved.filter(|place| place.shard != shard) {
            return Outcome::Refused(Refusal::Moved(place));
        }
        if let Command::MoveAccount(MoveAccount { step: MoveStep::Settle(to), .. }) =
            request.command
        {
            assert_eq!(Some(to), state.moved, "it was said where it went");
            state.n_to_settle = state.n_to_settle.saturating_sub(1);
            return Outcome::Housekept { more: state.n_to_settle > 0 };
        }
        if state.n_to_settle > 0 {
            return Outcome::Refused(Refusal::Moving);
        }
        state.n_done += 1;
        let outcome = Outcome::MailboxCreated(MailboxId(state.n_done));
        state.outcomes.insert((session, request.sequence), outcome.clone());
        outcome
    }
}

#[async_trait]
impl MailHandler for FakeNode {
    async fn propose(
        &self,
        shard: ShardId,
        request: Request,
        _chunks: Vec<StoredChunk>,
        then: Option<Query>,
    ) -> Result<(Outcome, Option<Answer>), MailError> {
        self.hear().await;
        self.check_leader()?;
        let open = matches!(request.command, Command::OpenSession(_));
        let fault = match open {
            true => None,
            false => self.world.state.lock().unwrap().faults.pop_front(),
        };
        let result = match &fault {
            Some(Fault::Silent) => Err(MailError::Unknown),
            Some(Fault::Told(error)) => Err(error.clone()),
            Some(Fault::Expired) => Ok(Outcome::Refused(Refusal::Expired(None))),
            Some(Fault::SessionsLost) => {
                self.world.state.lock().unwrap().sessions.clear();
                Ok(self.apply(shard, &request))
            }
            _ => Ok(self.apply(shard, &request)),
        };
        if fault == Some(Fault::DoneSilentAndSessionsLost) {
            self.world.state.lock().unwrap().sessions.clear();
        }
        if let Some(Fault::DoneAndUnknownAndLeapTo(log_time)) = fault {
            self.world.log_time(log_time, 0);
        }
        self.world.tick();
        match fault {
            Some(Fault::DoneAndUnknown | Fault::DoneAndUnknownAndLeapTo(_)) => {
                Err(MailError::Unknown)
            }
            Some(Fault::DoneAndSilent | Fault::Silent | Fault::DoneSilentAndSessionsLost) => {
                std::future::pending().await
            }
            _ => result.map(|outcome| match then {
                // Everything is gone that anybody knows.
                Some(Query::Vanished(it)) => (outcome, Some(Answer::Vanished(it.known))),
                _ => (outcome, None),
            }),
        }
    }

    async fn query(
        &self,
        shard: ShardId,
        query: Query,
        linearizable: bool,
    ) -> Result<Answer, MailError> {
        self.hear().await;
        self.make_sure().await?;
        if let Query::Search(_) = &query {
            let _searching = Searching::begin(&self.world);
            let mut searches = self.world.searches.subscribe();
            let _ = searches.wait_for(|all| all.are_answered).await;
            return Ok(Answer::Found(UidSet::new(), None, None));
        }
        let mut state = self.world.state.lock().unwrap();
        if let Query::Bodies(asked) = &query {
            state.n_lasting += 1;
            let records = asked.uids.iter().map(record).collect();
            return Ok(Answer::Messages(records, None));
        }
        assert!(linearizable);
        match query {
            Query::Open(named, _) => {
                let info = opened(named.account, state.uid_validity.unwrap());
                Ok(Answer::Opened(Box::new(info), UidSet::all(), None, None))
            }
            Query::Resolve(address) => Ok(match state.groups.get(&address) {
                Some(members) => Answer::Group(members.clone()),
                None => Answer::Place(state.places.get(&address).copied()),
            }),
            _ => match state.moved.filter(|place| place.shard != shard) {
                Some(place) => Ok(Answer::Refused(Refusal::Moved(place))),
                None if state.n_to_settle > 0 => Ok(Answer::Refused(Refusal::Moving)),
                None => Ok(Answer::Refused(Refusal::NoSuchAccount)),
            },
        }
    }

    async fn chunk(&self, _: ShardId, chunk: ChunkRef) -> Result<StoredChunk, MailError> {
        self.n_chunks_asked.fetch_add(1, Ordering::Relaxed);
        self.hear().await;
        let chunks = self.chunks.lock().unwrap();
        chunks.get(&chunk.digest).cloned().ok_or(MailError::NoSuchChunk)
    }

    async fn watch(&self, _: ShardId, _: u64) -> Result<Changes, MailError> {
        self.hear().await;
        self.make_sure().await?;
        let changes = BroadcastStream::new(self.world.changes.subscribe());
        self.world.tick();
        Ok(Box::pin(changes.map(|change| change.map_err(|_| MailError::Overloaded))))
    }

    async fn leader(&self, _: ShardId) -> Result<Leadership, MailError> {
        self.hear().await;
        let takes = self.world.state.lock().unwrap().leader_takes;
        tokio::time::sleep(takes).await;
        let told = {
            let mut state = self.world.state.lock().unwrap();
            state.n_in_vain += u64::from(state.leader.is_none());
            Leadership { leader: state.leader.clone(), term: state.term }
        };
        self.world.tick();
        Ok(told)
    }

    async fn lock_maildrop(
        &self,
        _: ShardId,
        _: AccountId,
        token: [u8; 16],
    ) -> Result<bool, MailError> {
        self.check_leader()?;
        Ok(*self.world.state.lock().unwrap().maildrop.get_or_insert(token) == token)
    }

    async fn unlock_maildrop(
        &self,
        _: ShardId,
        _: AccountId,
        token: [u8; 16],
    ) -> Result<(), MailError> {
        self.check_leader()?;
        self.world.state.lock().unwrap().maildrop.take_if(|holder| *holder == token);
        Ok(())
    }
}

fn record(uid: Uid) -> MessageRecord {
    MessageRecord {
        uid,
        modseq: ModSeq::LAST,
        flags: Flags::default(),
        internal_date: InternalDate { unix_s: 0, zone_minutes: 0 },
        save_date: LogTime(0),
        size: 1,
        email_id: EmailId(u64::from(uid.value())),
        thread_id: ThreadId(1),
        uidl: None,
        expunged: false,
        metadata: None,
        body: None,
        metadata_chunks: Vec::new(),
        envelope: None,
        recent: false,
    }
}

fn opened(account: AccountId, uid_validity: UidValidity) -> MailboxInfo {
    MailboxInfo {
        of: OfMailbox { account, mailbox: MailboxId(1) },
        name: MailboxName::inbox(),
        selectable: true,
        has_children: false,
        subscribed: false,
        special_use: None,
        uid_validity,
        uid_next: Uid::LAST,
        highest_modseq: ModSeq::LAST,
        n_messages: 0,
        n_unseen: 0,
        n_deleted: 0,
        n_recent: 0,
        first_recent: Uid::LAST,
        size_bytes: 0,
        keywords: Vec::new(),
        deleted_bytes: 0,
    }
}

impl PeerHandler for FakeNode {
    fn handle(
        &self,
        from_node: String,
        request: PeerRequest,
    ) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        let mut callers = self.callers.lock().unwrap();
        if !callers.contains(&from_node) {
            callers.push(from_node);
        }
        let seen = Arc::clone(&self.seen);
        let mut held = self.held.subscribe();
        Box::pin(async move {
            seen.lock().unwrap().push((request.shard, request.from_replica));
            let _ = held.wait_for(|held| *held != Some(request.kind)).await;
            match request.to_replica {
                0 => Err(PeerError::Refused("no such replica".into())),
                _ => Ok(PeerResponse { meta: request.meta, bodies: request.bodies }),
            }
        })
    }
}

#[async_trait]
impl MetaHandler for FakeNode {
    async fn placement(&self) -> Result<Arc<Placement>, MetaError> {
        Ok(Arc::clone(&self.world.placement.borrow()))
    }

    async fn watch_placement(&self, after_version: u64) -> Result<Placements, MetaError> {
        let placements = WatchStream::new(self.world.placement.subscribe());
        let up_to = Arc::clone(&self.hears_up_to);
        Ok(Box::pin(placements.filter(move |placement| {
            let heard = placement.version <= up_to.load(Ordering::Relaxed);
            heard && placement.version > after_version
        })))
    }

    async fn register_node(
        &self,
        from: &str,
        node: Node,
        _: Option<ClusterId>,
    ) -> Result<Arc<Placement>, MetaError> {
        assert_eq!(from, node.name);
        self.placement().await
    }

    async fn report(&self, _: &str, report: Report) -> Result<Newer, MetaError> {
        self.check_leader().map_err(|error| match error {
            MailError::NotLeader { leader } => MetaError::NotLeader { leader },
            _ => MetaError::NoCluster,
        })?;
        let newer = Placement { version: report.placement_version + 1, ..Placement::default() };
        Ok(Some(Arc::new(newer)))
    }

    async fn change_members(&self, change: MemberChange) -> Result<(), MetaError> {
        self.world.state.lock().unwrap().changes.push(change);
        Ok(())
    }
}

#[async_trait]
impl AdminHandler for FakeNode {
    async fn status(&self, local: bool) -> Result<Status, MetaError> {
        let placement = (!local).then(|| Arc::clone(&self.world.placement.borrow()));
        Ok(Status { placement, ..Status::default() })
    }

    async fn cluster_init(&self, init: ClusterInit) -> Result<(), MetaError> {
        let fault = {
            let mut state = self.world.state.lock().unwrap();
            state.n_done += 1;
            state.faults.pop_front()
        };
        match (init.n_shards, fault) {
            (_, Some(_)) => std::future::pending().await,
            (0, None) => Err(MetaError::Refused("no shards".into())),
            _ => Ok(()),
        }
    }

    async fn transfer_leader(&self, _: ShardId, to: &str) -> Result<(), MetaError> {
        self.world.lead(to);
        Ok(())
    }

    async fn drain(&self, _: &str, _: bool) -> Result<(), MetaError> {
        Ok(())
    }

    async fn add_shard(&self, n_replicas: u32) -> Result<ShardId, MetaError> {
        self.report("", Report::default()).await?;
        Ok(ShardId(n_replicas))
    }

    async fn copies(
        &self,
        _: ShardId,
        digests: Vec<Digest>,
    ) -> Result<Vec<ReplicaCopies>, MetaError> {
        let number = self.name.as_bytes()[1] - b'0';
        let good = ChunkCopy { place: (7, 8), is_good: true, verified_at: Some(LogTime(9)) };
        let copy = |digest: &Digest| (digest.0[0] == number).then_some(good);
        let copies = digests.iter().map(copy).collect();
        Ok(vec![ReplicaCopies { replica_id: 1, disk_id: DiskId([number; 16]), copies }])
    }

    async fn remove_node(&self, _: &str) -> Result<(), MetaError> {
        Ok(())
    }

    async fn retire_disk(&self, _: DiskId) -> Result<(), MetaError> {
        Ok(())
    }

    async fn scrub_disk(&self, disk: DiskId) -> Result<u64, MetaError> {
        let number = self.name.as_bytes()[1] - b'0';
        match disk == DiskId([number; 16]) {
            true => Ok(u64::from(number)),
            false => Err(MetaError::Refused("no such disk here".into())),
        }
    }

    async fn move_replica(&self, _: MoveReplica) -> Result<(), MetaError> {
        Ok(())
    }

    async fn set(&self, name: &str, value: Option<&str>) -> Result<(), MetaError> {
        Err(MetaError::Refused(format!("no setting {name}, not even {value:?}")))
    }

    async fn recover_shard(&self, _: ShardId, _: &str) -> Result<(), MetaError> {
        Ok(())
    }
}
