//! What a node offers to frontends: the shards it keeps.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;
use mailbox::{AccountId, Answer, Change, ChunkRef, Outcome, Query, Request, ShardId, StoredChunk};

/// Why a node did not answer. What is said to be not done was not and will not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// Not done: another node leads the shard.
    #[error("not the leader")]
    NotLeader {
        /// Name of the node that leads, if known.
        leader: Option<String>,
    },
    /// Not done: no majority, or the replica is not ready.
    #[error("not available")]
    Unavailable,
    /// It may or may not have been done: leadership was lost or time ran out after it was proposed.
    #[error("outcome not known")]
    Unknown,
    /// Not done: the store refuses growth.
    #[error("store full")]
    Full,
    /// Not done: too much at once.
    #[error("overloaded")]
    Overloaded,
    /// Not done: this node keeps no replica of the shard.
    #[error("no such shard here")]
    NoSuchShard,
    /// No good copy at hand.
    #[error("damaged")]
    Damaged,
    /// The chunk is not here.
    #[error("no such chunk here")]
    NoSuchChunk,
    /// Not done: larger than the store takes.
    #[error("too large")]
    TooLarge,
    /// Not done: the request was not understood.
    #[error("request not understood")]
    Invalid,
}

/// Who leads a shard, as far as a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Name of the node; it may be the one that is asked.
    pub leader: Option<String>,
    /// The term this is known of.
    pub term: u64,
}

/// Changes of a shard with their log indexes, ascending.
pub type Changes = Pin<Box<dyn Stream<Item = Result<(u64, Change), MailError>> + Send>>;

/// The shards of a node. A future may be dropped at any await, when the caller went away.
#[async_trait]
pub trait MailHandler: Send + Sync + 'static {
    /// Puts a request into the shard's log and waits until it is applied; then answers a query, if there
    /// is one, from the rows as they are then.
    /// Chunks are as they came: the handler verifies their digests before it proposes.
    async fn propose(
        &self,
        shard: ShardId,
        request: Request,
        chunks: Vec<StoredChunk>,
        then: Option<Query>,
    ) -> Result<(Outcome, Option<Answer>), MailError>;

    /// Answers from the rows; if `linearizable`, after every change acknowledged before.
    async fn query(
        &self,
        shard: ShardId,
        query: Query,
        linearizable: bool,
    ) -> Result<Answer, MailError>;

    /// Bodies that an answer speaks of and that are at hand, in its order, as far as
    /// [`BESIDE_BYTES_MAX`] goes; whoever gets them verifies them.
    async fn beside(&self, _shard: ShardId, _answer: &Answer) -> Vec<StoredChunk> {
        Vec::new()
    }

    /// One chunk, verified; any replica may have it.
    async fn chunk(&self, shard: ShardId, chunk: ChunkRef) -> Result<StoredChunk, MailError>;

    /// What is applied after this function returned; also what was applied after log index `from`, if
    /// that is not 0 and still known. Only the leader answers. The stream ends with `NotLeader` as soon
    /// as this node cannot be sure any more to lead; with `Overloaded` when the reader is too slow.
    async fn watch(&self, shard: ShardId, from: u64) -> Result<Changes, MailError>;

    /// Who leads the shard; known without asking anybody.
    async fn leader(&self, shard: ShardId) -> Result<Leadership, MailError>;

    /// Takes or prolongs the lease of a maildrop for the holder of `token`; whether it has it now.
    /// A lease ends [`MAILDROP_LEASE_MS`] after it was taken or prolonged. Only the leader answers.
    async fn lock_maildrop(
        &self,
        shard: ShardId,
        account: AccountId,
        token: [u8; 16],
    ) -> Result<bool, MailError>;

    /// Gives the lease back, if `token` has it.
    async fn unlock_maildrop(
        &self,
        shard: ShardId,
        account: AccountId,
        token: [u8; 16],
    ) -> Result<(), MailError>;
}

/// What a node looks through for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A few rows.
    Little,
    /// The rows of a page of messages.
    Page,
    /// All names of an account: a few, or tens of thousands.
    Names,
    /// Maybe all messages of a mailbox, and their bodies.
    Mailbox,
}

/// Messages from which on a question about them is a page.
const PAGE_MESSAGES_MIN: u64 = 512;

impl Effort {
    /// The most that a query may take.
    pub fn of(query: &Query) -> Self {
        match query {
            Query::Search(_) | Query::Sort(_) | Query::Thread(_) => Self::Mailbox,
            Query::Mailboxes(_) => Self::Names,
            // Of who was away for longer than expunges are remembered it looks at each message there is.
            Query::Vanished(_) => Self::Page,
            // What changed since is found by its mod-sequence.
            Query::Messages(messages) if messages.changed_since.is_none() => {
                match messages.uids.n_uids() {
                    PAGE_MESSAGES_MIN.. => Self::Page,
                    _ => Self::Little,
                }
            }
            _ => Self::Little,
        }
    }
}

/// Limit: raw octets of bodies that travel beside an answer.
pub const BESIDE_BYTES_MAX: u64 = 512 * 1024;

/// How long a maildrop stays locked without a word from its session.
pub const MAILDROP_LEASE_MS: u64 = 30_000;
