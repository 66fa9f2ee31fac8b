//! What a command did. A refusal is an outcome like any other: all replicas must agree on it.

use minicbor::{Decode, Encode};

use crate::command::{OfMailbox, Place};
use crate::flags::Flags;
use crate::ids::{LogTime, MailboxId, ModSeq, Uid, UidValidity};
use crate::uid_set::UidSet;

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Done, nothing to tell.
    #[n(0)]
    Done,
    /// Nothing was changed.
    #[n(1)]
    Refused(#[n(0)] Refusal),
    /// Deliver and Append.
    #[n(2)]
    Appended(#[n(0)] Appended),
    /// CreateMailbox.
    #[n(3)]
    MailboxCreated(#[n(0)] MailboxId),
    /// Store.
    #[n(4)]
    Stored(#[n(0)] Stored),
    /// Copy, Move, and RenameMailbox of INBOX.
    #[n(5)]
    Copied(#[n(0)] Copied),
    /// Expunge.
    #[n(6)]
    Expunged(#[n(0)] Expunged),
    /// ClaimRecent: messages from here up to the UID it named, or the then UIDNEXT, are this session's.
    #[n(7)]
    RecentFrom(#[n(0)] Uid),
    /// Housekeep, and the last step of MoveAccount.
    #[n(8)]
    Housekept {
        /// Whether another step has something to do right now.
        #[n(0)]
        more: bool,
    },
    /// Renumber.
    #[n(9)]
    Renumbered {
        /// Not done behind this: ask again from here.
        #[n(0)]
        next: Option<OfMailbox>,
    },
}

/// Where messages were put.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Appended {
    /// In which mailbox.
    #[n(0)]
    pub mailbox: MailboxId,
    /// Of that mailbox.
    #[n(1)]
    pub uid_validity: UidValidity,
    /// In the order of the command.
    #[n(2)]
    pub uids: UidSet,
    /// Of the mailbox that a replaced message was expunged from, afterwards.
    #[n(3)]
    pub replaced_modseq: Option<ModSeq>,
}

/// What STORE did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stored {
    /// The flags after the command, also where they did not change, ascending by UID.
    #[n(0)]
    pub messages: Vec<StoredFlags>,
    /// UNCHANGEDSINCE failed for these.
    #[n(1)]
    pub modified: UidSet,
    /// Not done from this UID on: ask again from here.
    #[n(2)]
    pub next: Option<Uid>,
    /// What the command changed by itself; `None` if nothing, and when the request is repeated:
    /// it is not kept.
    #[n(3)]
    pub own: Option<OwnChange>,
}

/// The flags that one STORE changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OwnChange {
    /// Of the messages that it changed, and of no others.
    #[n(0)]
    pub modseq: ModSeq,
    /// The greatest that those had before.
    #[n(1)]
    pub before: ModSeq,
}

/// One message's flags after STORE.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoredFlags {
    /// Which.
    #[n(0)]
    pub uid: Uid,
    /// All of them.
    #[n(1)]
    pub flags: Flags,
    /// Unchanged if the flags are.
    #[n(2)]
    pub modseq: ModSeq,
}

/// What COPY and MOVE did; the n-th UID of `source` became the n-th of `target`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Copied {
    /// Of the target.
    #[n(0)]
    pub uid_validity: UidValidity,
    /// In the mailbox copied from.
    #[n(1)]
    pub source: UidSet,
    /// In the mailbox copied to. A COPY that has further slices reports all pairs with its last one.
    #[n(2)]
    pub target: UidSet,
    /// Not done from this UID on: ask again from here.
    #[n(3)]
    pub next: Option<Uid>,
    /// Move: HIGHESTMODSEQ of the mailbox moved from, afterwards.
    #[n(4)]
    pub modseq: Option<ModSeq>,
    /// The target.
    #[cbor(n(5), default)]
    pub to: Option<MailboxId>,
}

/// What EXPUNGE did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Expunged {
    /// Which are gone.
    #[n(0)]
    pub uids: UidSet,
    /// Of the mailbox afterwards.
    #[n(1)]
    pub highest_modseq: ModSeq,
    /// Not done from this UID on: ask again from here.
    #[n(2)]
    pub next: Option<Uid>,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// The session is not known (any more): its outcome cannot be told from here.
    #[n(0)]
    NoSuchSession,
    /// The sequence lies below the session's mark.
    #[n(1)]
    StaleSequence,
    /// Log time had passed the command's expiry, and is this now, which an earlier version does not say.
    #[n(2)]
    Expired(#[n(0)] Option<LogTime>),
    /// The account lives elsewhere now.
    #[n(3)]
    Moved(#[n(0)] Place),
    /// No such account here.
    #[n(4)]
    NoSuchAccount,
    /// The account is suspended.
    #[n(5)]
    Suspended,
    /// Somebody has this account id or address already, or the group was changed since it was read.
    #[n(6)]
    Taken,
    /// No such mailbox.
    #[n(7)]
    NoSuchMailbox,
    /// A mailbox of that name exists.
    #[n(8)]
    MailboxExists,
    /// INBOX cannot be deleted or created.
    #[n(9)]
    Inbox,
    /// A mailbox cannot be moved below itself.
    #[n(10)]
    BelowItself,
    /// Only a name with children, no mailbox (`\Noselect`).
    #[n(11)]
    NotSelectable,
    /// It would exceed the account's quota.
    #[n(12)]
    OverQuota,
    /// A limit of the store: which one.
    #[n(13)]
    Limit(#[n(0)] String),
    /// Not the next piece of this upload, or no such upload.
    #[n(14)]
    UploadGap,
    /// A chunk of the message neither travelled beside the command nor was uploaded.
    #[n(15)]
    ChunkMissing,
    /// The special use is taken by another mailbox, or not settable.
    #[n(16)]
    SpecialUse,
    /// REPLACE: the message is not there.
    #[n(18)]
    NoSuchMessage,
    /// The account is on its way to another shard: ask again in a moment.
    #[n(19)]
    Moving,
    /// Mod-sequences, UIDs or ids of this mailbox or account are used up.
    #[n(17)]
    Exhausted,
}

/// What others who look at a mailbox should know: it changed, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    /// Where.
    #[n(0)]
    pub of: OfMailbox,
    /// HIGHESTMODSEQ afterwards.
    #[n(1)]
    pub highest_modseq: ModSeq,
}
