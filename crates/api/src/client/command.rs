//! Commands, exactly once: the same request is sent until its outcome is known, its expiry has passed
//! in log time, or the deadline has come. One that expired will never be done, so if there is time left
//! the command is sent as another request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mailbox::dialogue::Trouble;
use mailbox::{
    Answer, Command, LogTime, Outcome, Query, Refusal, Request, SessionId, ShardId, StoredChunk,
};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::attempt::{Failed, Pause};
use super::session::{Session, Ticket};
use super::{Client, ShardLink};
use crate::convert::mail::{decode, encode};
use crate::mail::MailError;
use crate::proto::mail as wire;
use wire::propose_response::Result as Proposed;

/// How long a command waits for a place at one leader, or one that is overloaded is asked again, before the
/// caller is told.
const OVERLOAD_PATIENCE: Duration = Duration::from_secs(1);

/// A request on its way. The same octets are sent each time.
struct Proposal {
    message: wire::ProposeRequest,
    deadline: Instant,
}

/// What came of a proposal.
struct Settled {
    outcome: Outcome,
    answer: Option<Answer>,
    /// An earlier attempt's answer was lost, so `outcome` may not be the whole truth.
    after_loss: bool,
}

impl Client {
    /// Does a command exactly once; gives the answer to a query from what it left, if there is one.
    pub(super) async fn command_until(
        &self,
        shard: ShardId,
        (command, chunks, then): (Command, Vec<StoredChunk>, Option<&Query>),
        deadline: Instant,
    ) -> Result<(Outcome, Option<Answer>), Trouble> {
        let link = self.link(shard);
        let _place = link.place(deadline).await?;
        let chunks: Vec<wire::Chunk> = chunks.into_iter().map(Into::into).collect();
        let mut request = Request {
            session: None,
            sequence: 0,
            lowest_unanswered: 0,
            expires: LogTime(0),
            command,
        };
        let mut pause = Pause::new();
        let then = then.map(encode).unwrap_or_default();
        loop {
            let session = link.session(deadline).await?;
            let ticket = Ticket::new(session);
            request.session = Some(ticket.session.id);
            request.sequence = ticket.sequence;
            request.lowest_unanswered = ticket.lowest_unanswered;
            request.expires = link.time.expiry(deadline).max(ticket.session.opens_until);
            let mut proposal = Proposal::new(shard, &request, chunks.clone(), deadline);
            proposal.message.then = then.clone();
            let settled = link.propose(&proposal).await?;
            match settled.outcome {
                Outcome::Refused(Refusal::NoSuchSession) => {
                    link.sessions.forget(&ticket.session).await;
                    if settled.after_loss {
                        // Why: it may have been done before the session was forgotten.
                        return Err(Trouble::Unknown);
                    }
                }
                Outcome::Refused(Refusal::StaleSequence) => return Err(Trouble::Unknown),
                Outcome::Refused(Refusal::Expired(told)) => {
                    link.expired(told, &mut pause, deadline).await?;
                }
                outcome => return Ok((outcome, settled.answer)),
            }
        }
    }
}

impl Proposal {
    fn new(shard: ShardId, request: &Request, chunks: Vec<wire::Chunk>, deadline: Instant) -> Self {
        let request: Bytes = encode(request);
        let then = Bytes::new();
        Self { message: wire::ProposeRequest { shard: shard.0, request, chunks, then }, deadline }
    }
}

impl ShardLink {
    /// A place among the commands of this client.
    async fn place(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Trouble> {
        // Why only under one leader: while there is none, nobody's command comes to its end.
        let overloaded = async {
            loop {
                let leader = self.route.leader().await;
                if timeout(OVERLOAD_PATIENCE, self.route.replaced(&leader)).await.is_err() {
                    return Trouble::Overloaded;
                }
            }
        };
        let waiting = async {
            tokio::select! {
                biased;
                place = self.sessions.permits.acquire() => place.map_err(|_| Trouble::Unavailable),
                trouble = overloaded => Err(trouble),
            }
        };
        timeout_at(deadline, waiting).await.unwrap_or(Err(Trouble::Unavailable))
    }

    /// The session, opened if there is none.
    async fn session(&self, deadline: Instant) -> Result<Arc<Session>, Trouble> {
        let current = timeout_at(deadline, self.sessions.current.lock()).await;
        let mut current = current.map_err(|_| Trouble::Unavailable)?;
        if let Some(session) = &*current {
            return Ok(Arc::clone(session));
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Trouble::Unavailable)?;
        let id = SessionId(id);
        let mut pause = Pause::new();
        loop {
            let request = Request {
                session: None,
                sequence: 0,
                lowest_unanswered: 0,
                expires: self.time.expiry(deadline),
                command: Command::OpenSession(id),
            };
            let proposal = Proposal::new(self.route.shard, &request, Vec::new(), deadline);
            // Why: an open session that nobody knows of does no harm, so every failure is the same here.
            let settled = self.propose(&proposal).await.map_err(|trouble| match trouble {
                Trouble::Unknown => Trouble::Unavailable,
                other => other,
            })?;
            match settled.outcome {
                Outcome::Done => {
                    let session = Arc::new(Session::new(id, request.expires));
                    *current = Some(Arc::clone(&session));
                    return Ok(session);
                }
                Outcome::Refused(Refusal::Expired(told)) => {
                    self.expired(told, &mut pause, deadline).await?;
                }
                _ => return Err(Trouble::Unavailable),
            }
        }
    }

    /// A request expired before it was applied: whether the same may be asked for by another one, which
    /// is known to be so if the shard said what time it is there.
    async fn expired(
        &self,
        told: Option<LogTime>,
        pause: &mut Pause,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let shard = self.route.shard;
        if let Some(told) = told {
            self.time.learn(shard, told);
            pause.turn().await;
            if Instant::now() < deadline {
                return Ok(());
            }
        }
        warn!(%shard, "command expired before it was applied");
        Err(Trouble::Unavailable)
    }

    /// Sends a request until something is known about it.
    async fn propose(&self, proposal: &Proposal) -> Result<Settled, Trouble> {
        let mut overloaded_since = None;
        let mut after_loss = false;
        let mut pause = Pause::new();
        let trouble = loop {
            if Instant::now() >= proposal.deadline {
                break Trouble::Unavailable;
            }
            let Ok(leader) = timeout_at(proposal.deadline, self.route.leader()).await else {
                break Trouble::Unavailable;
            };
            let exchange = self.route.cluster.nodes.exchange(&leader.node);
            let call = exchange.propose(proposal.message.clone(), proposal.deadline);
            let failed = match self.route.attempt(&leader, proposal.deadline, call).await {
                Ok(response) => match response.result {
                    Some(Proposed::Outcome(outcome)) => match decode(&outcome, "outcome") {
                        Ok(outcome) => {
                            let answer = Some(response.answer).filter(|answer| !answer.is_empty());
                            // Why not told: whoever asked asks again by itself.
                            let answer = answer.and_then(|answer| decode(&answer, "answer").ok());
                            return Ok(Settled { outcome, answer, after_loss });
                        }
                        Err(_) => break Trouble::Unknown,
                    },
                    Some(Proposed::Error(error)) => self.route.told(&leader, error.into()),
                    None => break Trouble::Unknown,
                },
                Err(failed) => failed,
            };
            after_loss |= failed.may_be_done();
            let is_overloaded = matches!(failed, Failed::Told(MailError::Overloaded));
            // Why only those in a row: before them there may have been no leader.
            overloaded_since = overloaded_since.filter(|_| is_overloaded);
            match failed {
                Failed::Told(MailError::Full) if !after_loss => break Trouble::Full,
                Failed::Told(MailError::TooLarge) if !after_loss => break Trouble::TooLarge,
                Failed::Told(MailError::Damaged) if !after_loss => break Trouble::Damaged,
                Failed::Told(MailError::Invalid) if !after_loss => break Trouble::Unavailable,
                Failed::Told(MailError::Overloaded)
                    if !after_loss
                        && overloaded_since.get_or_insert_with(Instant::now).elapsed()
                            > OVERLOAD_PATIENCE =>
                {
                    break Trouble::Overloaded;
                }
                Failed::Told(MailError::NotLeader { .. }) | Failed::Lost | Failed::Broken => {
                    pause.turn().await;
                }
                _ => pause.wait().await,
            }
        };
        Err(if after_loss { Trouble::Unknown } else { trouble })
    }
}
