//! Everything that can be asked of a shard. Long answers come in pages.

mod account;
mod briefs;
mod keys;
mod mailboxes;
mod messages;
mod moving;
mod prefetch;
mod resolve;
mod search;
mod sort;
mod thread;
mod uids;
mod vanished;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::Bodies;
use crate::address::Address;
use crate::answer::Answer;
use crate::chunk::Digest;
use crate::command::{AccountState, NamedMailbox, OfMailbox};
use crate::flags::{Keyword, SystemFlags};
use crate::ids::{AccountId, EmailId, ModSeq, ThreadId, Uid, UidValidity};
use crate::ledger;
use crate::outcome::Refusal;
use crate::row::{self, AccountRow, MailboxRow};
use crate::rows::Source;
use crate::table;
use crate::uid_set::UidSet;
pub(crate) use briefs::{format as briefs_format, prepare};

/// Limit: messages in one page of state (UID, flags, sizes).
pub const STATE_PAGE_MAX: u32 = 8192;
/// Limit: octets of keywords after which a page ends, which may be 4 KiB for each message.
pub const KEYWORDS_PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Limit: messages in one page with metadata (about 1 KiB each).
pub const METADATA_PAGE_MAX: u32 = 512;
/// Limit: messages in one page with envelopes (about 300 octets each).
pub const ENVELOPE_PAGE_MAX: u32 = 1024;
/// Limit: keys of one search, but for those that only put others together. Each is compared with each
/// message; clients that look for many messages by their ids name some hundred.
pub const SEARCH_KEYS_MAX: usize = 512;
/// Limit: BODY and TEXT among the keys of one search, each of which is looked for in all of a message: words
/// that a person types.
pub const SEARCH_TEXTS_MAX: usize = 32;
/// Limit: octets of metadata after which a page ends: what a full one usually has.
pub const METADATA_PAGE_BYTES_MAX: usize = 512 * 1024;

/// A question to a shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// Who has this address? Asked of the shard that keeps its directory slot.
    #[n(0)]
    Resolve(#[n(0)] Address),
    /// What is known of an account, its password hash included.
    #[n(1)]
    Account(#[n(0)] AccountId),
    /// Accounts of this shard in order of id, after this one.
    #[n(2)]
    Accounts(#[n(0)] Option<AccountId>),
    /// All mailboxes of an account, and subscriptions to names without one.
    #[n(3)]
    Mailboxes(#[n(0)] AccountId),
    /// One mailbox by name.
    #[n(4)]
    Mailbox(#[n(0)] NamedMailbox),
    /// The UIDs of a mailbox, from one on.
    #[n(5)]
    Uids(#[n(0)] Uids),
    /// Messages with what is known of them.
    #[n(6)]
    Messages(#[n(0)] Messages),
    /// What was expunged since a mod-sequence.
    #[n(7)]
    Vanished(#[n(0)] Vanished),
    /// Messages that match.
    #[n(8)]
    Search(#[n(0)] Search),
    /// Messages in another order.
    #[n(9)]
    Sort(#[n(0)] Sort),
    /// Messages as conversations.
    #[n(10)]
    Thread(#[n(0)] Thread),
    /// One mailbox by name and the UIDs it has, of the same moment: what SELECT wants. Its first message
    /// without `\Seen` too, if that is said.
    #[n(11)]
    Open(#[n(0)] NamedMailbox, #[cbor(n(1), default)] bool),
    /// As `Messages`, of which only what never changes is wanted: an answer may be a moment old.
    #[n(12)]
    Bodies(#[n(0)] Messages),
    /// How far an account is on its way from or to this shard.
    #[n(13)]
    Moving(#[n(0)] AccountId),
    /// The rows of an account, behind this key.
    #[n(14)]
    AccountRows(#[n(0)] AccountId, #[n(1)] Option<ByteVec>),
    /// The rows of an account that is leaving which changed after so many changes.
    #[n(15)]
    ChangedRows(#[n(0)] AccountId, #[n(1)] u64),
    /// What became of a mailbox since: expunges and messages, of the same moment. Whoever can goes on from
    /// part to part where there are very many expunges; who does not say so gets them all at once.
    #[n(16)]
    News(#[n(0)] Vanished, #[n(1)] Messages, #[cbor(n(2), default)] bool),
    /// Whether an account refers to a chunk, from messages that were expunged lately too.
    #[n(17)]
    Holds(#[n(0)] AccountId, #[n(1)] Digest),
    /// Groups whose addresses this shard keeps, in order, after this one.
    #[n(20)]
    Groups(#[n(0)] Option<Address>),
}

/// See [`Query::Uids`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Uids {
    /// Where.
    #[n(0)]
    pub of: OfMailbox,
    /// From here on.
    #[n(1)]
    pub from: Uid,
}

/// See [`Query::Messages`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Messages {
    /// Where.
    #[n(0)]
    pub of: OfMailbox,
    /// Which; absent ones are skipped. Expunged ones whose bodies are still there are included
    /// only when `expunged` is set.
    #[n(1)]
    pub uids: UidSet,
    /// Only those changed later than this.
    #[n(2)]
    pub changed_since: Option<u64>,
    /// Whether `metadata` is wanted (ENVELOPE, BODYSTRUCTURE, part offsets).
    #[n(3)]
    pub metadata: bool,
    /// Whether `chunks` are wanted.
    #[n(4)]
    pub chunks: bool,
    /// Whether expunged messages are wanted too (a session may fetch what it was not told is gone).
    #[n(5)]
    pub expunged: bool,
    /// Of the metadata only the envelope is wanted; a node that does not know this gives all of it.
    #[cbor(n(6), default)]
    pub only_envelope: bool,
    /// The session that is told, if arrivals are `\Recent` to no other once it was: see
    /// [`FirstTold`](crate::FirstTold).
    #[n(7)]
    pub recent_to: Option<u64>,
}

/// See [`Query::Vanished`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vanished {
    /// Where.
    #[n(0)]
    pub of: OfMailbox,
    /// Expunged later than this.
    #[n(1)]
    pub since: u64,
    /// Only these.
    #[n(2)]
    pub known: UidSet,
    /// The UIDVALIDITY under which whoever asks knows them: under another one, this mailbox is not there.
    #[n(3)]
    pub uid_validity: Option<UidValidity>,
}

/// See [`Query::Search`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Search {
    /// Where.
    #[n(0)]
    pub of: OfMailbox,
    /// Look only at these.
    #[n(1)]
    pub among: UidSet,
    /// What to look for. Sequence numbers and `\Recent` were turned into UIDs by the session.
    #[cbor(n(2), decode_with = "keys::decode")]
    pub key: SearchKey,
}

/// See [`Query::Sort`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sort {
    /// Where.
    #[n(0)]
    pub of: OfMailbox,
    /// Which; absent ones are skipped.
    #[n(1)]
    pub uids: UidSet,
    /// By what, the first counting most.
    #[n(2)]
    pub order: Vec<SortBy>,
    /// A later page: so many were told already.
    #[n(3)]
    pub from: u32,
    /// Of a later page: when the first one was made. What was expunged since counts as there, else those
    /// behind it would move to where they are not looked for.
    #[cbor(n(4), default)]
    pub as_of: Option<ModSeq>,
}

/// One criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SortBy {
    /// What is compared.
    #[n(0)]
    pub field: SortField,
    /// The greatest first.
    #[n(1)]
    pub reverse: bool,
}

/// Those of the criteria that decide anything, in their order: messages that agree in a field agree in it
/// however often it is named.
pub fn deciding(order: &[SortBy]) -> Vec<SortBy> {
    let mut deciding: Vec<SortBy> = Vec::new();
    for by in order {
        if !deciding.iter().any(|before| before.field == by.field) {
            deciding.push(*by);
        }
    }
    deciding
}

/// RFC 5256 3, RFC 5957.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SortField {
    /// INTERNALDATE
    #[n(0)]
    Arrival,
    /// Local part of the first Cc address.
    #[n(1)]
    Cc,
    /// The sent date.
    #[n(2)]
    Date,
    /// Local part of the first From address.
    #[n(3)]
    From,
    /// RFC822.SIZE
    #[n(4)]
    Size,
    /// The base subject.
    #[n(5)]
    Subject,
    /// Local part of the first To address.
    #[n(6)]
    To,
    /// The first From address as it is displayed.
    #[n(7)]
    DisplayFrom,
    /// The first To address as it is displayed.
    #[n(8)]
    DisplayTo,
}

/// See [`Query::Thread`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Thread {
    /// Where.
    #[n(0)]
    pub of: OfMailbox,
    /// Which; absent ones are skipped.
    #[n(1)]
    pub uids: UidSet,
    /// How.
    #[n(2)]
    pub by: ThreadBy,
    /// A later page: so many nodes were told already.
    #[n(3)]
    pub from: u32,
    /// As of [`Sort`].
    #[cbor(n(4), default)]
    pub as_of: Option<ModSeq>,
}

/// RFC 5256 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ThreadBy {
    /// `ORDEREDSUBJECT`
    #[n(0)]
    OrderedSubject,
    /// `REFERENCES`
    #[n(1)]
    References,
}

/// RFC 9051 6.4.4, with everything that depends on a session resolved.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SearchKey {
    /// `ALL`
    #[n(0)]
    All,
    /// All of these; none is `ALL`.
    #[n(1)]
    And(#[n(0)] Vec<SearchKey>),
    /// `OR`
    #[n(2)]
    Or(#[n(0)] Box<SearchKey>, #[n(1)] Box<SearchKey>),
    /// `NOT`
    #[n(3)]
    Not(#[n(0)] Box<SearchKey>),
    /// UID sets, and sequence sets once resolved.
    #[n(4)]
    Uid(#[n(0)] UidSet),
    /// A system flag is set.
    #[n(5)]
    Flag(#[n(0)] SystemFlags),
    /// `KEYWORD`
    #[n(6)]
    Keyword(#[n(0)] Keyword),
    /// INTERNALDATE, as the day it names in its own zone: days since 1970.
    #[n(7)]
    InternalDate(#[n(0)] Compare, #[n(1)] i64),
    /// The Date field, as the day it names in its own zone: days since 1970.
    #[n(8)]
    SentDate(#[n(0)] Compare, #[n(1)] i64),
    /// RFC822.SIZE
    #[n(9)]
    Size(#[n(0)] Compare, #[n(1)] u64),
    /// `FROM`, `SUBJECT`, ...: what the envelope has of a header field contains; else the field.
    #[n(10)]
    Header(#[n(0)] String, #[n(1)] String),
    /// `BODY`: the decoded text parts contain.
    #[n(11)]
    Body(#[n(0)] String),
    /// `TEXT`: header or body contain.
    #[n(12)]
    Text(#[n(0)] String),
    /// RFC 7162 3.1.5: mod-sequence at least.
    #[n(13)]
    ModSeq(#[n(0)] u64),
    /// RFC 8474 6
    #[n(14)]
    EmailId(#[n(0)] EmailId),
    /// RFC 8474 6
    #[n(15)]
    ThreadId(#[n(0)] ThreadId),
    /// WITHIN: INTERNALDATE in seconds since 1970.
    #[n(16)]
    Arrived(#[n(0)] Compare, #[n(1)] i64),
    /// RFC 8514: save date in days since 1970, UTC.
    #[n(17)]
    SaveDate(#[n(0)] Compare, #[n(1)] i64),
    /// `HEADER`: a header field contains; an empty text asks whether the field is there.
    #[n(18)]
    Field(#[n(0)] String, #[n(1)] String),
}

impl SearchKey {
    /// Whether it is no more than one search may look for.
    fn check(&self) -> Result<(), Refusal> {
        let (n_keys, n_texts) = self.count();
        if n_keys > SEARCH_KEYS_MAX || n_texts > SEARCH_TEXTS_MAX {
            return Err(Refusal::Limit("search keys".into()));
        }
        Ok(())
    }

    /// Keys that put no others together, and how many of them are BODY and TEXT.
    fn count(&self) -> (usize, usize) {
        match self {
            Self::And(keys) if !keys.is_empty() => {
                let counts = keys.iter().map(Self::count);
                counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
            }
            Self::Or(a, b) => {
                let (a, b) = (a.count(), b.count());
                (a.0 + b.0, a.1 + b.1)
            }
            Self::Not(key) => key.count(),
            Self::Body(_) | Self::Text(_) => (1, 1),
            _ => (1, 0),
        }
    }
}

/// How a value must stand to the one given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Compare {
    /// Smaller than the one given (BEFORE, SMALLER, OLDER).
    #[n(0)]
    Less,
    /// The same (ON).
    #[n(1)]
    Equal,
    /// The same or greater (SINCE).
    #[n(2)]
    AtLeast,
    /// Greater (LARGER).
    #[n(3)]
    Greater,
}

impl Query {
    /// The account it is about; `None` for what concerns the shard, its directory, or a move.
    fn account(&self) -> Option<AccountId> {
        match self {
            Self::Resolve(_)
            | Self::Accounts(_)
            | Self::Groups(_)
            | Self::Moving(_)
            | Self::AccountRows(..)
            | Self::ChangedRows(..) => None,
            Self::Account(account) | Self::Mailboxes(account) | Self::Holds(account, _) => {
                Some(*account)
            }
            Self::Mailbox(named) | Self::Open(named, _) => Some(named.account),
            Self::Uids(query) => Some(query.of.account),
            Self::Messages(query) | Self::Bodies(query) => Some(query.of.account),
            Self::Vanished(query) | Self::News(query, ..) => Some(query.of.account),
            Self::Search(query) => Some(query.of.account),
            Self::Sort(query) => Some(query.of.account),
            Self::Thread(query) => Some(query.of.account),
        }
    }
}

/// See [`crate::answer`].
pub(crate) fn answer(
    rows: &dyn Source,
    bodies: &dyn Bodies,
    query: &Query,
) -> Result<Answer, Refusal> {
    if let Some(account) = query.account() {
        crate::moving::readable(rows, account)?;
    }
    match query {
        Query::Moving(account) => Ok(moving::moving(rows, *account)),
        Query::AccountRows(account, after) => {
            moving::all(rows, *account, after.as_ref().map(|after| after.as_slice()))
        }
        Query::ChangedRows(account, after) => moving::changed(rows, *account, *after),
        Query::Resolve(address) => Ok(resolve::answer(rows, address)),
        Query::Groups(after) => Ok(resolve::list(rows, after.as_ref())),
        Query::Account(id) => account::answer(rows, *id),
        Query::Holds(account, digest) => {
            Ok(Answer::Holds(rows.row(&table::chunk(digest, *account)).is_some()))
        }
        Query::Accounts(after) => Ok(account::list(rows, *after)),
        Query::Mailboxes(account) => mailboxes::list(rows, *account),
        Query::Mailbox(named) => mailboxes::one(rows, named),
        Query::Uids(query) => uids::answer(rows, query),
        Query::Messages(query) | Query::Bodies(query) => messages::answer(rows, query),
        Query::Vanished(query) => vanished::answer(rows, query),
        Query::News(vanished, messages, in_parts) => news(rows, vanished, messages, *in_parts),
        Query::Search(query) => search::answer(rows, bodies, query),
        Query::Sort(query) => sort::answer(rows, query),
        Query::Thread(query) => thread::answer(rows, query),
        Query::Open(named, with_unseen) => uids::open(rows, named, *with_unseen),
    }
}

fn news(
    rows: &dyn Source,
    gone: &Vanished,
    changed: &Messages,
    in_parts: bool,
) -> Result<Answer, Refusal> {
    let (gone, up_to) = vanished::part(rows, gone, in_parts)?;
    if up_to.is_some() {
        // Why no messages: they come with the last part, for both are to be of the same moment.
        return Ok(Answer::News(gone, Vec::new(), None, up_to));
    }
    match messages::answer(rows, changed)? {
        Answer::Messages(messages, next) => Ok(Answer::News(gone, messages, next, None)),
        // Why: what is refused came back above.
        _ => Err(Refusal::NoSuchMailbox),
    }
}

/// The account, if its mail may be read.
fn readable(rows: &dyn Source, account: AccountId) -> Result<AccountRow, Refusal> {
    let row = ledger::account_row(rows, account)?;
    if row.state == AccountState::Suspended { Err(Refusal::Suspended) } else { Ok(row) }
}

/// A mailbox that can be selected, of an account that may be read.
fn mailbox(rows: &dyn Source, of: OfMailbox) -> Result<MailboxRow, Refusal> {
    readable(rows, of.account)?;
    row::load::<MailboxRow>(rows, &table::mailbox(of.account, of.mailbox))
        .filter(|row| !row.deleted)
        .ok_or(Refusal::NoSuchMailbox)
}
