//! Questions to the leader, and the lease of a maildrop: what may be asked twice without harm. And the
//! same for the meta group's leader.

use std::time::Duration;

use bytes::Bytes;
use mailbox::command::Place;
use mailbox::dialogue::Trouble;
use mailbox::query::Messages;
use mailbox::{Answer, Query, ShardId, StoredChunk};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::attempt::{Failed, Pause};
use super::{Client, Cluster};
use crate::convert::mail::{decode, encode};
use crate::dial::{never_sent, reason};
use crate::mail::{Effort, MailError};
use crate::meta::MetaError;
use crate::placement::META_SHARD;
use crate::proto::mail as wire;
use wire::maildrop_response::Result as Held;
use wire::query_response::Result as Told;

/// How long one that need not be sure to lead may take to answer before it is asked in earnest.
const ONCE_TIMEOUT: Duration = Duration::from_millis(500);
/// Limit: leaders that may be lost under one question for which much is looked through. The first may have
/// died of anything; a question that kills whoever looks must not come to each node in turn.
const LEADERS_LOST_MAX: u32 = 2;
/// How much later than others a call hears that its connection broke.
const BREAKS_WITHIN: Duration = Duration::from_millis(100);
/// What is said when nodes answer and none leads.
const LEADERLESS: &str = "nobody leads who could do this: a majority of the nodes must run";
/// How long a node may take to answer for the meta group.
const META_TIMEOUT: Duration = Duration::from_secs(5);

impl Client {
    /// Asks the leader until there is an answer or the deadline has come.
    pub(super) async fn ask_until(
        &self,
        shard: ShardId,
        query: &Query,
        deadline: Instant,
    ) -> Result<Answer, Trouble> {
        let route = &self.link(shard).route;
        let message =
            wire::QueryRequest { shard: shard.0, query: encode(query), linearizable: true };
        let mut pause = Pause::new();
        let mut n_lost = 0;
        loop {
            let leader = timeout_at(deadline, route.leader()).await;
            let leader = leader.map_err(|_| Trouble::Unavailable)?;
            let exchange = route.cluster.nodes.exchange(&leader.node);
            let mut call = Box::pin(exchange.query(message.clone(), deadline));
            let failed = match route.attempt(&leader, deadline, &mut call).await {
                Ok(wire::QueryResponse { result: Some(Told::Answer(answer)), chunks }) => {
                    self.keep_beside(chunks);
                    return decode(&answer, "answer").map_err(|_| Trouble::Unavailable);
                }
                Ok(wire::QueryResponse { result: Some(Told::Error(error)), .. }) => {
                    route.told(&leader, error.into())
                }
                Ok(wire::QueryResponse { result: None, .. }) => return Err(Trouble::Unavailable),
                Err(failed) => failed,
            };
            // Why only these: what costs a node less does not end it, and a leader that was only replaced, as
            // all are while nodes are upgraded, did not die of it.
            if Effort::of(query) == Effort::Mailbox && has_broken(&failed, call).await {
                n_lost += 1;
                if n_lost >= LEADERS_LOST_MAX {
                    return Err(Trouble::Unavailable);
                }
            }
            again(failed, &mut pause, deadline).await?;
        }
    }

    /// Asks whoever leads as far as is known, who need not be sure of it, for what never changes. `None`
    /// if that gives not all of it. What is about one message is kept.
    pub(super) async fn ask_lasting(&self, shard: ShardId, asked: &Messages) -> Option<Answer> {
        let message = self.shared.recent.message(asked);
        if let Some(kept) = message.and_then(|message| self.shared.recent.answer(&message)) {
            return decode(&kept, "answer").ok();
        }
        let octets = self.ask_once(shard, &Query::Bodies(asked.clone())).await?;
        let answer = decode(&octets, "answer").ok().filter(|answer| is_complete(asked, answer))?;
        if let Some(message) = message {
            self.shared.recent.answered(message, &octets);
        }
        Some(answer)
    }

    /// The encoded answer of whoever leads as far as is known.
    async fn ask_once(&self, shard: ShardId, query: &Query) -> Option<Bytes> {
        let route = &self.link(shard).route;
        let leader = route.known()?;
        let message =
            wire::QueryRequest { shard: shard.0, query: encode(query), linearizable: false };
        let exchange = route.cluster.nodes.exchange(&leader.node);
        let deadline = Instant::now() + ONCE_TIMEOUT;
        let call = exchange.query(message, deadline);
        let response = timeout_at(deadline, call).await.ok()?.ok()?.into_inner();
        let Told::Answer(answer) = response.result? else { return None };
        self.keep_beside(response.chunks);
        Some(answer)
    }

    fn keep_beside(&self, chunks: Vec<wire::Chunk>) {
        if !chunks.is_empty() {
            let chunks = chunks.into_iter().map(StoredChunk::try_from);
            self.shared.recent.put(chunks.filter_map(Result::ok).collect());
        }
    }

    pub(super) async fn maildrop(
        &self,
        place: Place,
        token: [u8; 16],
        release: bool,
    ) -> Result<bool, Trouble> {
        let deadline = Instant::now() + self.shared.deadline;
        let route = &self.link(place.shard).route;
        let message = wire::MaildropRequest {
            shard: place.shard.0,
            account: Bytes::copy_from_slice(&place.account.0),
            token: Bytes::copy_from_slice(&token),
            release,
        };
        let mut pause = Pause::new();
        loop {
            let leader = timeout_at(deadline, route.leader()).await;
            let leader = leader.map_err(|_| Trouble::Unavailable)?;
            let mut client = route.cluster.nodes.mail(&leader.node);
            let call = client.maildrop(message.clone());
            let failed = match route.attempt(&leader, deadline, call).await {
                Ok(wire::MaildropResponse { result: Some(Held::Held(held)) }) => return Ok(held),
                Ok(wire::MaildropResponse { result: Some(Held::Error(error)) }) => {
                    route.told(&leader, error.into())
                }
                Ok(wire::MaildropResponse { result: None }) => return Err(Trouble::Unavailable),
                Err(failed) => failed,
            };
            again(failed, &mut pause, deadline).await?;
        }
    }
}

/// Whether the connection broke under a call.
async fn has_broken<T>(failed: &Failed, call: impl Future<Output = Result<T, Status>>) -> bool {
    match failed {
        Failed::Broken => true,
        // Why: that the leader is gone may have been noticed by another call, and this one hear of it later.
        Failed::Lost => match timeout(BREAKS_WITHIN, call).await {
            Ok(Err(status)) => !never_sent(&status),
            _ => false,
        },
        _ => false,
    }
}

/// Whether an answer has every message asked for, as far as it goes.
fn is_complete(asked: &Messages, answer: &Answer) -> bool {
    let Answer::Messages(records, next) = answer else { return false };
    let n_later = next.map_or(0, |next| asked.uids.starting_at(next).n_uids());
    records.len() as u64 == asked.uids.n_uids() - n_later
}

/// Whether to ask again, after a pause where that is due.
async fn again(failed: Failed, pause: &mut Pause, deadline: Instant) -> Result<(), Trouble> {
    match failed {
        Failed::Told(MailError::Damaged) => return Err(Trouble::Damaged),
        Failed::Told(MailError::Invalid | MailError::TooLarge) => return Err(Trouble::Unavailable),
        Failed::Told(MailError::NotLeader { .. }) | Failed::Lost | Failed::Broken => {
            pause.turn().await;
        }
        _ => pause.wait().await,
    }
    if Instant::now() >= deadline { Err(Trouble::Unavailable) } else { Ok(()) }
}

/// Asks nodes for what only the meta group's leader can do.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) cluster: Cluster,
    /// Whether to go on after an answer was lost.
    pub(crate) idempotent: bool,
}

impl Asker {
    /// Tries nodes in turn, following hints, until one answers or the deadline has come.
    pub(crate) async fn ask<T, F>(
        &self,
        deadline: Instant,
        mut call: impl FnMut(Channel) -> F,
    ) -> Result<T, MetaError>
    where
        F: Future<Output = Result<Result<T, MetaError>, Status>>,
    {
        let mut pause = Pause::new();
        let mut last = MetaError::Unavailable("no node answers".into());
        let known = self.cluster.placements.current();
        let mut hint = known.shard(META_SHARD).and_then(|shard| shard.leader.clone());
        let mut turn = self.cluster.nodes.turn();
        while Instant::now() < deadline {
            let channel = match hint.take() {
                Some(node) if self.cluster.placements.current().node(&node).is_some() => {
                    self.cluster.nodes.channel(&node)
                }
                _ => {
                    let all = self.cluster.nodes.all();
                    turn = turn.wrapping_add(1);
                    all[turn % all.len()].clone()
                }
            };
            let patience = deadline.min(Instant::now() + META_TIMEOUT);
            match timeout_at(patience, call(channel)).await {
                Ok(Ok(Ok(answer))) => return Ok(answer),
                Ok(Ok(Err(MetaError::NotLeader { leader }))) => {
                    let known = self.cluster.placements.current();
                    let text = match &leader {
                        None => Some(LEADERLESS.to_owned()),
                        Some(leader) if known.node(leader).is_some() => None,
                        Some(leader) => {
                            Some(format!("node {leader} has to be asked: name its address too"))
                        }
                    };
                    last = text.map_or(last, MetaError::Unavailable);
                    hint = leader;
                }
                Ok(Ok(Err(error @ (MetaError::Refused(_) | MetaError::NoCluster)))) => {
                    return Err(error);
                }
                Ok(Ok(Err(error))) => last = error,
                Ok(Err(status)) if refused(&status) => {
                    return Err(MetaError::Refused(status.message().to_owned()));
                }
                Ok(Err(status)) if !self.idempotent && !never_sent(&status) => {
                    return Err(MetaError::Unavailable(format!("outcome not known: {status}")));
                }
                Ok(Err(status)) => last = MetaError::Unavailable(reason(&status)),
                Err(_) if !self.idempotent => {
                    return Err(MetaError::Unavailable("outcome not known: no answer".into()));
                }
                Err(_) => {}
            }
            let _ = timeout(deadline.saturating_duration_since(Instant::now()), pause.wait()).await;
        }
        Err(last)
    }
}

fn refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented | Code::OutOfRange
    )
}
