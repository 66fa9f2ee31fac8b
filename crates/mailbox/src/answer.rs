//! What a query found.

mod passed;

use mime::PackedEnvelope;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::address::Address;
use crate::chunk::{ChunkRef, Digest};
use crate::command::{AccountState, InternalDate, MovedRow, OfMailbox, Place, Quota, SpecialUse};
use crate::flags::{Flags, Keyword};
use crate::ids::{AccountId, EmailId, LogTime, ModSeq, ThreadId, Uid, UidValidity};
use crate::ledger;
use crate::moving::Moving;
use crate::name::MailboxName;
use crate::outcome::{Outcome, Refusal};
use crate::uid_set::UidSet;

pub use self::passed::Passed;

/// The answer to a [`crate::Query`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// It cannot be answered: no such account or mailbox, or moved.
    #[n(0)]
    Refused(#[n(0)] Refusal),
    /// Resolve: `None` if nobody has the address.
    #[n(1)]
    Place(#[n(0)] Option<Place>),
    /// Account.
    #[n(2)]
    Account(#[n(0)] Box<AccountRecord>),
    /// Accounts, and whether there are more.
    #[n(3)]
    Accounts(#[n(0)] Vec<AccountRecord>, #[n(1)] bool),
    /// Mailboxes, in order of name; and subscribed names without a mailbox.
    #[n(4)]
    Mailboxes(#[n(0)] Vec<MailboxInfo>, #[n(1)] Vec<MailboxName>),
    /// Mailbox.
    #[n(5)]
    Mailbox(#[n(0)] Box<MailboxInfo>),
    /// Uids, and where to go on.
    #[n(6)]
    Uids(#[n(0)] UidSet, #[n(1)] Option<Uid>),
    /// Messages ascending by UID, and where to go on.
    #[n(7)]
    Messages(#[n(0)] Vec<MessageRecord>, #[n(1)] Option<Uid>),
    /// Vanished.
    #[n(8)]
    Vanished(#[n(0)] UidSet),
    /// Search: what was found, the highest mod-sequence among it, and where to go on.
    #[n(9)]
    Found(#[n(0)] UidSet, #[n(1)] Option<ModSeq>, #[n(2)] Option<Uid>),
    /// Sort: in order; when there are more, how many were told, and as of when.
    #[n(10)]
    Sorted(#[n(0)] Vec<Uid>, #[n(1)] Option<u32>, #[cbor(n(2), default)] Option<ModSeq>),
    /// Thread: each thread from its root down; when there are more, how many nodes were told, and as of when.
    #[n(11)]
    Threads(#[n(0)] Vec<ThreadNode>, #[n(1)] Option<u32>, #[cbor(n(2), default)] Option<ModSeq>),
    /// Open: a mailbox, its UIDs unless it has none of its own, where to go on with them, and the first
    /// message without `\Seen` if it was wanted and lies near either end.
    #[n(12)]
    Opened(#[n(0)] Box<MailboxInfo>, #[n(1)] UidSet, #[n(2)] Option<Uid>, #[n(3)] Option<Uid>),
    /// Moving.
    #[n(13)]
    Moving(#[n(0)] Option<Moving>),
    /// AccountRows, and where to go on.
    #[n(14)]
    AccountRows(#[n(0)] Vec<MovedRow>, #[n(1)] Option<ByteVec>),
    /// ChangedRows, up to which change, and whether there are more.
    #[n(15)]
    ChangedRows(#[n(0)] Vec<MovedRow>, #[n(1)] u64, #[n(2)] bool),
    /// News: which messages are gone, messages ascending by UID, and where to go on with these. Or, in parts:
    /// some that are gone, no messages, and up to which mod-sequence these are all.
    #[n(16)]
    News(
        #[n(0)] UidSet,
        #[n(1)] Vec<MessageRecord>,
        #[n(2)] Option<Uid>,
        #[cbor(n(3), default)] Option<ModSeq>,
    ),
    /// Holds.
    #[n(17)]
    Holds(#[n(0)] bool),
    /// Resolve: the address is a group's; these are its members.
    #[n(20)]
    Group(#[n(0)] Vec<Address>),
    /// Groups, and whether there are more.
    #[n(21)]
    Groups(#[n(0)] Vec<GroupRecord>, #[n(1)] bool),
}

/// Accounts that share an address.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupRecord {
    /// Whose mail goes to all of them.
    #[n(0)]
    pub address: Address,
    /// Their addresses, ascending, nobody twice; some may not exist any more.
    #[n(1)]
    pub members: Vec<Address>,
}

/// One message in a thread; those below it follow it, one deeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ThreadNode {
    /// 0 is the root of a thread.
    #[n(0)]
    pub depth: u32,
    /// `None` for a message that is not there but holds a thread together.
    #[n(1)]
    pub uid: Option<Uid>,
}

/// What is known of an account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AccountRecord {
    /// Its identity.
    #[n(0)]
    pub account: AccountId,
    /// Login and primary address.
    #[n(1)]
    pub name: Address,
    /// Further addresses.
    #[n(2)]
    pub aliases: Vec<Address>,
    /// PHC string; never logged.
    #[n(3)]
    pub password_hash: String,
    /// Whether it may be used.
    #[n(4)]
    pub state: AccountState,
    /// Its limits.
    #[n(5)]
    pub quota: Quota,
    /// Raw octets it uses.
    #[n(6)]
    pub storage_bytes: u64,
    /// Messages it has.
    #[n(7)]
    pub n_messages: u64,
}

impl AccountRecord {
    /// Whether a message of so many octets would be taken now: done, or refused and why.
    pub fn would_take(&self, n_bytes: u64) -> Outcome {
        if self.state == AccountState::Suspended {
            return Outcome::Refused(Refusal::Suspended);
        }
        let used = (self.storage_bytes, self.n_messages);
        match ledger::has_room(self.quota, used, (n_bytes, 1)) {
            Ok(()) => Outcome::Done,
            Err(refusal) => Outcome::Refused(refusal),
        }
    }
}

/// What is known of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MailboxInfo {
    /// Its identity.
    #[n(0)]
    pub of: OfMailbox,
    /// Full name.
    #[n(1)]
    pub name: MailboxName,
    /// False for a name that only has children.
    #[n(2)]
    pub selectable: bool,
    /// Whether mailboxes lie below.
    #[n(3)]
    pub has_children: bool,
    /// Whether the name is subscribed.
    #[n(4)]
    pub subscribed: bool,
    /// RFC 6154
    #[n(5)]
    pub special_use: Option<SpecialUse>,
    /// UIDVALIDITY
    #[n(6)]
    pub uid_validity: UidValidity,
    /// UIDNEXT
    #[n(7)]
    pub uid_next: Uid,
    /// HIGHESTMODSEQ
    #[n(8)]
    pub highest_modseq: ModSeq,
    /// Messages.
    #[n(9)]
    pub n_messages: u32,
    /// Messages without `\Seen`.
    #[n(10)]
    pub n_unseen: u32,
    /// Messages with `\Deleted`.
    #[n(11)]
    pub n_deleted: u32,
    /// Messages nobody claimed as `\Recent` yet.
    #[n(12)]
    pub n_recent: u32,
    /// From here on `\Recent` is unclaimed.
    #[n(13)]
    pub first_recent: Uid,
    /// Raw octets of all messages.
    #[n(14)]
    pub size_bytes: u64,
    /// Keywords in use, for the FLAGS response; some may be used no more. None where all mailboxes are told.
    #[n(15)]
    pub keywords: Vec<Keyword>,
    /// Raw octets of messages with `\Deleted` (RFC 9208).
    #[n(16)]
    pub deleted_bytes: u64,
}

/// What is known of a message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MessageRecord {
    /// Which.
    #[n(0)]
    pub uid: Uid,
    /// Of its last change.
    #[n(1)]
    pub modseq: ModSeq,
    /// All but `\Recent`.
    #[n(2)]
    pub flags: Flags,
    /// INTERNALDATE
    #[n(3)]
    pub internal_date: InternalDate,
    /// When it came into this mailbox (RFC 8514).
    #[n(4)]
    pub save_date: LogTime,
    /// RFC822.SIZE: raw octets.
    #[n(5)]
    pub size: u64,
    /// EMAILID
    #[n(6)]
    pub email_id: EmailId,
    /// THREADID
    #[n(7)]
    pub thread_id: ThreadId,
    /// Stable name for POP3's UIDL when imported from elsewhere.
    #[n(8)]
    pub uidl: Option<String>,
    /// Whether it is expunged already.
    #[n(9)]
    pub expunged: bool,
    /// When asked for.
    #[n(10)]
    pub metadata: Option<Passed>,
    /// When asked for: chunks and the digest over all.
    #[n(11)]
    pub body: Option<Body>,
    /// Where the whole metadata is, if `metadata` is an excerpt; see [`unstow`](crate::chunk::unstow).
    #[cbor(n(12), default)]
    pub metadata_chunks: Vec<ChunkRef>,
    /// When only that was asked for, in the place of `metadata`, unless that is an excerpt.
    #[n(13)]
    pub envelope: Option<PackedEnvelope>,
    /// Whether it is `\Recent` to who asks: nobody claimed it, nor was told of it before.
    #[cbor(n(14), skip_if = "std::ops::Not::not")]
    pub recent: bool,
}

/// Where a message's octets are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Body {
    /// In order.
    #[n(0)]
    pub chunks: Vec<ChunkRef>,
    /// Over all of them.
    #[n(1)]
    pub digest: Digest,
}
