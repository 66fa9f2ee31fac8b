//! The mailbox state machine: what a mail store *is*, as pure functions over rows.
//!
//! Enter at [`apply`] (a [`Command`] changes [`Rows`] and gives an [`Outcome`]) and at [`answer`]
//! (a [`Query`] reads them and gives an [`Answer`]). Both are synchronous, total and
//! deterministic: time and random ids arrive inside the command, so all replicas of a shard that
//! applied the same commands hold byte-identical rows.
//!
//! [`dialogue`] is how the protocol engines (imap, pop3, lmtp) talk to their surroundings.

pub mod address;
pub mod answer;
mod apply;
mod brief;
pub mod chunk;
pub mod codec;
pub mod command;
mod content;
pub mod dialogue;
mod first_told;
pub mod flags;
mod gaps;
pub mod ids;
pub mod invariant;
mod ledger;
pub mod lines;
mod message;
mod moving;
pub mod name;
pub mod outcome;
pub mod query;
mod row;
pub mod rows;
mod session;
mod state;
mod table;
mod tree;
pub mod uid_set;

pub use address::Address;
pub use answer::{Answer, MailboxInfo, MessageRecord};
pub use brief::Block;
pub use chunk::{ChunkRef, Digest, Draft, NewMessage, StoredChunk};
pub use command::{Command, Entry, Request};
pub use content::MESSAGE_BYTES_MAX;
pub use first_told::FirstTold;
pub use flags::{FlagChange, Flags, Keyword, SystemFlags};
pub use ids::{
    AccountId, EmailId, LogTime, MailboxId, ModSeq, SessionId, ShardId, ThreadId, Uid, UidValidity,
    UploadId,
};
pub use ledger::MAILBOX_KEYWORDS_MAX;
pub use moving::Moving;
pub use name::MailboxName;
pub use outcome::{Change, Outcome, Refusal};
pub use query::{Query, SearchKey};
pub use rows::{RowChanges, RowDigest, Rows, Source};
pub use uid_set::{Slices, UidSet};

/// What [`apply`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For whoever asked.
    pub outcome: Outcome,
    /// For whoever watches; each mailbox at most once.
    pub changes: Vec<Change>,
}

/// Where bodies can be read while a query is answered (SEARCH BODY, SEARCH TEXT, SEARCH HEADER).
pub trait Bodies {
    /// The raw octets of a chunk, verified; `None` if no good copy is at hand.
    fn chunk(&self, chunk: &ChunkRef) -> Option<bytes::Bytes>;
}

/// Applies one entry of the shard's log. `inline` are the chunks that travel beside it.
pub fn apply(rows: &mut Rows<'_>, entry: &Entry, inline: &[ChunkRef]) -> Applied {
    apply::apply(rows, entry, inline)
}

/// Whether an entry would change more than what the shard says of itself: log time, and how much is in open
/// uploads.
pub fn has_effect(rows: &dyn Source, digest: RowDigest, entry: &Entry) -> bool {
    let mut rows = Rows::new(rows, digest);
    apply::apply(&mut rows, entry, &[]);
    let shard = table::shard();
    rows.into_changes().0.keys().any(|key| *key != shard)
}

/// Answers a question from the rows as they are.
pub fn answer(rows: &dyn Source, bodies: &dyn Bodies, query: &Query) -> Answer {
    query::answer(rows, bodies, query).unwrap_or_else(Answer::Refused)
}

/// Makes the briefs that searches and threads will want of these contents, in one read of their rows, and
/// has the source keep those that it does not have: the first query then costs what the next ones do.
pub fn prepare(rows: &dyn Source, block: &Block) {
    query::prepare(rows, block);
}

/// What the briefs of this build are; those of a build of which this is another number are of no use to it.
pub fn briefs_format() -> u64 {
    query::briefs_format()
}

/// Whether any message or upload of this shard still refers to the chunk.
pub fn is_chunk_live(rows: &dyn Source, digest: &Digest) -> bool {
    row::has_any(rows, &table::chunk_everywhere(digest))
}
