//! What makes commands happen exactly once, as crate `api`'s client does it over gRPC: the way to the
//! leader, a session opened through the shard's log, and the same request until its fate is known.
//! The real client dials sockets by itself, so its rules are written down here once more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::mail::MailError;
use mailbox::{
    Answer, ChunkRef, Command, LogTime, Outcome, Query, Refusal, Request, SessionId, ShardId,
    StoredChunk,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::dice::Dice;
use crate::net::{Ask, Call, Reply, Told};
use crate::plan::Bug;
use crate::world::{World, lock};

/// After this long without an answer the other replicas are asked who leads.
const DOUBT_AFTER: Duration = Duration::from_millis(1_000);
/// How long a replica may take to say whom it takes for the leader.
const ASK_TIMEOUT: Duration = Duration::from_millis(300);
/// Pauses before the next attempt.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Why there is no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing was done.
    Unavailable,
    /// It may have been done.
    Unknown,
}

/// One frontend process.
pub struct Frontend {
    pub world: Arc<World>,
    pub name: String,
    links: BTreeMap<ShardId, Link>,
    dice: Dice,
}

#[derive(Default)]
struct Link {
    leader: Mutex<Option<String>>,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

struct Session {
    id: SessionId,
    state: Mutex<(u64, BTreeSet<u64>)>,
}

/// A command's place in its session.
struct Ticket {
    session: Arc<Session>,
    sequence: u64,
    lowest_unanswered: u64,
}

impl Ticket {
    fn new(session: Arc<Session>) -> Self {
        let mut state = lock(&session.state);
        state.0 += 1;
        let sequence = state.0;
        state.1.insert(sequence);
        let lowest_unanswered = state.1.first().copied().unwrap_or(sequence);
        drop(state);
        Self { session, sequence, lowest_unanswered }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.session.state).1.remove(&self.sequence);
    }
}

/// What one attempt came to.
enum Attempt {
    Told(Result<Told, MailError>),
    NotSent,
    Lost,
}

impl Frontend {
    pub fn new(world: Arc<World>, name: String, dice: Dice) -> Self {
        let links = world.plan.shards().into_iter().map(|shard| (shard, Link::default())).collect();
        Self { world, name, links, dice }
    }

    /// Does a command exactly once. `Unavailable` says that nothing was done.
    pub async fn command(
        &self,
        shard: ShardId,
        command: Command,
        chunks: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        let deadline = self.deadline();
        loop {
            let session = self.session(shard, deadline).await?;
            let ticket = Ticket::new(session);
            let request = Request {
                session: Some(ticket.session.id),
                sequence: ticket.sequence,
                lowest_unanswered: ticket.lowest_unanswered,
                expires: self.expiry(deadline),
                command: command.clone(),
            };
            let (outcome, after_loss) =
                self.propose((shard, deadline), request, &chunks, Some(&ticket)).await?;
            match outcome {
                Outcome::Refused(Refusal::NoSuchSession) => {
                    let mut current = self.links[&shard].session.lock().await;
                    if current.as_ref().is_some_and(|now| Arc::ptr_eq(now, &ticket.session)) {
                        *current = None;
                    }
                    if after_loss {
                        return Err(Trouble::Unknown);
                    }
                }
                Outcome::Refused(Refusal::StaleSequence) => return Err(Trouble::Unknown),
                Outcome::Refused(Refusal::Expired(_)) => return Err(Trouble::Unavailable),
                outcome => return Ok(outcome),
            }
        }
    }

    /// Reads what every acknowledged command left.
    pub async fn query(&self, shard: ShardId, query: Query) -> Result<Answer, Trouble> {
        let deadline = self.deadline();
        let mut pause = PAUSE_FIRST;
        loop {
            let leader = self.leader(shard, deadline).await?;
            let ask = Ask::Query(query.clone());
            match self.attempt(shard, &leader, ask, deadline).await {
                Attempt::Told(Ok(Told::Answer(answer))) => return Ok(answer),
                Attempt::Told(Err(error)) => self.learn(shard, &leader, &error),
                _ => self.lost(shard, &leader),
            }
            self.pause(&mut pause, deadline).await?;
        }
    }

    /// A chunk from any replica that has a good copy.
    pub async fn chunk(&self, shard: ShardId, chunk: ChunkRef) -> Result<StoredChunk, Trouble> {
        let deadline = self.deadline();
        let mut pause = PAUSE_FIRST;
        loop {
            let node = self.dice.pick(&self.world.nodes_of(shard)).clone();
            let soon = deadline.min(Instant::now() + DOUBT_AFTER);
            if let Attempt::Told(Ok(Told::Chunk(chunk))) =
                self.attempt(shard, &node, Ask::Chunk(chunk), soon).await
            {
                return Ok(chunk);
            }
            self.pause(&mut pause, deadline).await?;
        }
    }

    /// One question to one node.
    pub async fn ask(
        &self,
        shard: ShardId,
        node: &str,
        ask: Ask,
        patience: Duration,
    ) -> Option<Told> {
        match self.attempt(shard, node, ask, Instant::now() + patience).await {
            Attempt::Told(told) => told.ok(),
            Attempt::NotSent | Attempt::Lost => None,
        }
    }

    /// Until when a command or question may take.
    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.world.plan.patience_ms)
    }

    async fn session(&self, shard: ShardId, deadline: Instant) -> Result<Arc<Session>, Trouble> {
        let current = timeout_at(deadline, self.links[&shard].session.lock()).await;
        let mut current = current.map_err(|_| Trouble::Unavailable)?;
        if let Some(session) = &*current {
            return Ok(session.clone());
        }
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.dice.next().to_be_bytes());
        id[8..].copy_from_slice(&self.dice.next().to_be_bytes());
        let id = SessionId(id);
        let request = Request {
            session: None,
            sequence: 0,
            lowest_unanswered: 0,
            expires: self.expiry(deadline),
            command: Command::OpenSession(id),
        };
        let opened = self.propose((shard, deadline), request, &[], None).await;
        match opened.map_err(|_| Trouble::Unavailable)? {
            (Outcome::Done, _) => {
                let session = Arc::new(Session { id, state: Mutex::default() });
                *current = Some(session.clone());
                Ok(session)
            }
            _ => Err(Trouble::Unavailable),
        }
    }

    /// Sends a request until something is known about it, and whether an answer was lost before.
    async fn propose(
        &self,
        (shard, deadline): (ShardId, Instant),
        mut request: Request,
        chunks: &[StoredChunk],
        ticket: Option<&Ticket>,
    ) -> Result<(Outcome, bool), Trouble> {
        let mut after_loss = false;
        let mut pause = PAUSE_FIRST;
        loop {
            let trouble = if after_loss { Trouble::Unknown } else { Trouble::Unavailable };
            let leader = self.leader(shard, deadline).await.map_err(|_| trouble)?;
            let ask = Ask::Propose(request.clone(), chunks.to_vec());
            match self.attempt(shard, &leader, ask, deadline).await {
                Attempt::Told(Ok(Told::Outcome(outcome))) => return Ok((outcome, after_loss)),
                Attempt::Told(Err(error)) => {
                    after_loss |= error == MailError::Unknown;
                    self.learn(shard, &leader, &error);
                }
                Attempt::Told(Ok(_)) | Attempt::Lost => {
                    after_loss = true;
                    self.lost(shard, &leader);
                }
                Attempt::NotSent => self.lost(shard, &leader),
            }
            if self.world.plan.bug == Some(Bug::RetryWithoutId)
                && let Some(ticket) = ticket
            {
                request.sequence = Ticket::new(ticket.session.clone()).sequence;
            }
            let trouble = if after_loss { Trouble::Unknown } else { Trouble::Unavailable };
            self.pause(&mut pause, deadline).await.map_err(|_| trouble)?;
        }
    }

    async fn pause(&self, pause: &mut Duration, deadline: Instant) -> Result<(), Trouble> {
        sleep(*pause).await;
        *pause = (*pause * 2).min(PAUSE_MAX);
        if Instant::now() < deadline { Ok(()) } else { Err(Trouble::Unavailable) }
    }

    /// One call of this leader, as long as nobody else leads and the deadline has not come.
    async fn attempt(&self, shard: ShardId, node: &str, ask: Ask, deadline: Instant) -> Attempt {
        let mut reply = self.world.net.send(&self.name, node, Call::Mail(shard, ask));
        loop {
            let doubt = deadline.min(Instant::now() + DOUBT_AFTER);
            match timeout_at(doubt, &mut reply).await {
                Ok(Ok(Reply::Mail(told))) => return Attempt::Told(told),
                Ok(Ok(Reply::NotThere)) => return Attempt::NotSent,
                Ok(_) => return Attempt::Lost,
                Err(_) if Instant::now() >= deadline => return Attempt::Lost,
                Err(_) => {
                    if self.ask_all(shard).await.is_some_and(|leader| leader != node) {
                        return Attempt::Lost;
                    }
                }
            }
        }
    }

    async fn leader(&self, shard: ShardId, deadline: Instant) -> Result<String, Trouble> {
        let mut pause = PAUSE_FIRST;
        loop {
            if let Some(leader) = lock(&self.links[&shard].leader).clone() {
                return Ok(leader);
            }
            if let Some(found) = self.ask_all(shard).await {
                *lock(&self.links[&shard].leader) = Some(found);
                continue;
            }
            self.pause(&mut pause, deadline).await?;
        }
    }

    /// Asks all replicas and gives the one that says it leads, in the highest term.
    pub async fn ask_all(&self, shard: ShardId) -> Option<String> {
        let mut asked = Vec::new();
        for node in self.world.nodes_of(shard) {
            let reply = self.world.net.send(&self.name, &node, Call::Mail(shard, Ask::Leader));
            asked.push((node, reply));
        }
        let until = Instant::now() + ASK_TIMEOUT;
        let mut best: Option<(u64, String)> = None;
        for (node, reply) in asked {
            if let Ok(Ok(Reply::Mail(Ok(Told::Leader { leader, term })))) =
                timeout(until.saturating_duration_since(Instant::now()), reply).await
                && leader.as_ref() == Some(&node)
                && best.as_ref().is_none_or(|(best, _)| term > *best)
            {
                best = Some((term, node));
            }
        }
        best.map(|(_, node)| node)
    }

    fn learn(&self, shard: ShardId, asked: &str, error: &MailError) {
        match error {
            MailError::NotLeader { leader: Some(hint) } if hint != asked => {
                *lock(&self.links[&shard].leader) = Some(hint.clone());
            }
            MailError::NotLeader { .. }
            | MailError::NoSuchShard
            | MailError::Unavailable
            | MailError::Unknown => self.lost(shard, asked),
            _ => {}
        }
    }

    fn lost(&self, shard: ShardId, asked: &str) {
        let mut known = lock(&self.links[&shard].leader);
        if known.as_deref() == Some(asked) {
            *known = None;
        }
    }

    /// Before the deadline, so that what is left suffices to find out whether it was done.
    fn expiry(&self, deadline: Instant) -> LogTime {
        let left = deadline.saturating_duration_since(Instant::now());
        LogTime(self.world.wall().0 + (left * 3 / 4).as_millis() as u64)
    }
}
