//! Everything that can change a shard. One command touches at most [`ROWS_MAX`] rows, an APPEND of many
//! messages somewhat more; those that could touch more stop early and say in their outcome where to go on.

pub(crate) mod append;
pub mod change_account;
pub(crate) mod claim_recent;
pub(crate) mod copy;
pub(crate) mod create_account;
pub(crate) mod create_mailbox;
pub(crate) mod delete_account;
pub(crate) mod delete_mailbox;
pub(crate) mod deliver;
pub mod directory;
pub(crate) mod expunge;
pub(crate) mod housekeep;
pub(crate) mod r#move;
pub(crate) mod move_account;
pub(crate) mod rename_mailbox;
pub(crate) mod renumber;
pub(crate) mod store;
pub mod subscribe;
pub mod upload;

use minicbor::{Decode, Encode};

pub use self::copy::COPY_RANGES_MAX;
pub use self::move_account::{FREEZE_MS_MAX, MOVED_ROWS_MAX};
use crate::address::Address;
use crate::chunk::{ChunkRef, Digest, NewMessage};
use crate::codec;
use crate::flags::{FlagChange, Flags};
use crate::ids::{AccountId, LogTime, MailboxId, SessionId, ShardId, Uid, UploadId};
use crate::name::MailboxName;
use crate::row::ChunkRow;
use crate::table;
use crate::uid_set::UidSet;

/// Limit: rows one command may change, so that no command holds up a shard noticeably.
pub const ROWS_MAX: usize = 2048;
/// Limit: rows that one slice of a command changes, if the command can be sliced; a row costs some 20 us on
/// each replica, and all that others ask of the shard waits for the slice.
pub const SLICE_ROWS_MAX: usize = 512;

/// One entry of a shard's log: what was asked, and when the leader put it there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The leader's clock; apply uses the maximum of all times seen.
    #[n(0)]
    pub time: LogTime,
    /// What to do.
    #[n(1)]
    pub request: Request,
}

/// A command with the identity that makes it happen at most once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// The session it belongs to; `None` only for [`Command::OpenSession`], [`Command::Housekeep`] and
    /// [`Command::Renumber`], which are idempotent by themselves.
    #[n(0)]
    pub session: Option<SessionId>,
    /// Ascends within the session.
    #[n(1)]
    pub sequence: u64,
    /// The lowest sequence whose outcome the session still waits for; outcomes below it are dropped.
    #[n(2)]
    pub lowest_unanswered: u64,
    /// Applied later than this, the command is refused with `Expired` and changes nothing.
    #[n(3)]
    pub expires: LogTime,
    /// What to do.
    #[n(4)]
    pub command: Command,
}

/// A change of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    // The shard itself.
    /// Begins a session of a frontend; doing it twice is doing it once.
    #[n(0)]
    OpenSession(#[n(0)] SessionId),
    /// Moves log time on and takes one bounded step of expiry, purge and reclaim.
    #[n(1)]
    Housekeep(#[n(0)] Housekeep),
    /// Gives every mailbox a new, greater UIDVALIDITY, in bounded steps: history may be lost.
    #[n(2)]
    Renumber(#[n(0)] Renumber),

    // The directory slots this shard keeps.
    /// Gives an address to an account, if nobody has it.
    #[n(10)]
    ClaimAddress(#[n(0)] ClaimAddress),
    /// Frees an address, if this account has it.
    #[n(11)]
    ReleaseAddress(#[n(0)] ReleaseAddress),
    /// Says where an address's account lives now; refused for an epoch that is not greater.
    #[n(12)]
    RepointAddress(#[n(0)] ClaimAddress),
    /// Makes an address a group's, changes who is in it, or frees it.
    #[n(13)]
    SetGroup(#[n(0)] SetGroup),

    // Accounts.
    /// Creates an account with INBOX and its default mailboxes.
    #[n(20)]
    CreateAccount(#[n(0)] CreateAccount),
    /// Changes one property of an account.
    #[n(21)]
    ChangeAccount(#[n(0)] ChangeAccount),
    /// Makes an account disappear at once; its rows are reclaimed by `Housekeep`.
    #[n(22)]
    DeleteAccount(#[n(0)] AccountId),
    /// One step of a move of an account to another shard.
    #[n(23)]
    MoveAccount(#[n(0)] MoveAccount),

    // Mailboxes.
    /// CREATE, with missing parents as the RFC wants.
    #[n(30)]
    CreateMailbox(#[n(0)] CreateMailbox),
    /// DELETE
    #[n(31)]
    DeleteMailbox(#[n(0)] NamedMailbox),
    /// RENAME; of INBOX it moves messages, sliced by `from_uid`.
    #[n(32)]
    RenameMailbox(#[n(0)] RenameMailbox),
    /// SUBSCRIBE and UNSUBSCRIBE
    #[n(33)]
    Subscribe(#[n(0)] Subscribe),
    /// A read-write session's claim of `\Recent`: of all messages, or of those below a UID.
    #[n(34)]
    ClaimRecent(#[n(0)] OfMailbox, #[n(1)] Option<Uid>),

    // Messages.
    /// The next piece of a message too large for one entry.
    #[n(40)]
    Upload(#[n(0)] Upload),
    /// LMTP: one message for one account.
    #[n(41)]
    Deliver(#[n(0)] Deliver),
    /// APPEND, also of several messages, all or none.
    #[n(42)]
    Append(#[n(0)] Append),
    /// STORE
    #[n(43)]
    Store(#[n(0)] Store),
    /// COPY; several slices stay hidden until the last is published.
    #[n(44)]
    Copy(#[n(0)] Copy),
    /// MOVE, atomic per message.
    #[n(45)]
    Move(#[n(0)] Move),
    /// EXPUNGE, UID EXPUNGE, CLOSE, and POP3's QUIT.
    #[n(46)]
    Expunge(#[n(0)] Expunge),
}

impl MovedRow {
    /// The chunk it is about, with its raw length unless the row is gone; `None` for all other rows.
    pub fn chunk(&self) -> Option<(Digest, Option<u32>)> {
        let digest = table::digest_of(&self.key)?;
        let raw_len = self
            .value
            .as_ref()
            .and_then(|value| codec::decode::<ChunkRow>(value).ok().map(|row| row.raw_len));
        Some((digest, raw_len))
    }

    /// Octets of key and value.
    pub fn n_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

impl Command {
    /// The account it changes; `None` for what concerns the shard, its directory, or a move.
    pub(crate) fn account(&self) -> Option<AccountId> {
        match self {
            Self::OpenSession(_)
            | Self::Housekeep(_)
            | Self::Renumber(_)
            | Self::ClaimAddress(_)
            | Self::ReleaseAddress(_)
            | Self::RepointAddress(_)
            | Self::SetGroup(_)
            | Self::MoveAccount(_) => None,
            Self::CreateAccount(cmd) => Some(cmd.account),
            Self::ChangeAccount(cmd) => Some(cmd.account),
            Self::DeleteAccount(account) => Some(*account),
            Self::CreateMailbox(cmd) => Some(cmd.account),
            Self::DeleteMailbox(cmd) => Some(cmd.account),
            Self::RenameMailbox(cmd) => Some(cmd.account),
            Self::Subscribe(cmd) => Some(cmd.account),
            Self::ClaimRecent(of, _) => Some(of.account),
            Self::Upload(cmd) => Some(cmd.account),
            Self::Deliver(cmd) => Some(cmd.account),
            Self::Append(cmd) => Some(cmd.account),
            Self::Store(cmd) => Some(cmd.account),
            Self::Copy(cmd) => Some(cmd.account),
            Self::Move(cmd) => Some(cmd.account),
            Self::Expunge(cmd) => Some(cmd.account),
        }
    }

    /// Whether all that decoding passed over can be read. Asked where commands are let in: what is in a
    /// shard's log is sound.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Deliver(cmd) => cmd.message.metadata.is_sound(),
            Self::Append(cmd) => cmd.messages.iter().all(|new| new.message.metadata.is_sound()),
            _ => true,
        }
    }
}

/// See [`Command::Housekeep`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Housekeep {
    /// Sessions not heard of since are dropped.
    #[n(0)]
    pub sessions_before: LogTime,
    /// Uploads not continued since are dropped.
    #[n(1)]
    pub uploads_before: LogTime,
    /// Messages expunged before give their bodies free.
    #[n(2)]
    pub purge_before: LogTime,
}

/// See [`Command::Renumber`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Renumber {
    /// The step before ended here; `None` for the first one.
    #[n(0)]
    pub after: Option<OfMailbox>,
}

/// See [`Command::ClaimAddress`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClaimAddress {
    /// Canonical; its slot must be kept by this shard.
    #[n(0)]
    pub address: Address,
    /// Where mail for it goes.
    #[n(1)]
    pub place: Place,
}

/// Where an account lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    /// Whose it is.
    #[n(0)]
    pub account: AccountId,
    /// The shard that keeps it.
    #[n(1)]
    pub shard: ShardId,
    /// Ascends when the account moves to another shard.
    #[n(2)]
    pub epoch: u64,
    /// Whether the address is a further name, not the login.
    #[n(3)]
    pub alias: bool,
}

/// See [`Command::ReleaseAddress`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReleaseAddress {
    /// Canonical.
    #[n(0)]
    pub address: Address,
    /// Released only if it is this account's.
    #[n(1)]
    pub account: AccountId,
}

/// See [`Command::SetGroup`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetGroup {
    /// Canonical; its slot must be kept by this shard.
    #[n(0)]
    pub address: Address,
    /// Accounts' addresses; mail goes to each that there is. None frees the group's address.
    #[n(1)]
    pub members: Vec<Address>,
    /// Who was in it when it was read, nobody if there was no such group: refused with `Taken` if others
    /// are now. `None`: whoever they are.
    #[cbor(n(2), default)]
    pub expected: Option<Vec<Address>>,
}

/// See [`Command::CreateAccount`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateAccount {
    /// Random, minted by whoever asks.
    #[n(0)]
    pub account: AccountId,
    /// Login and primary address.
    #[n(1)]
    pub name: Address,
    /// PHC string; never logged.
    #[n(2)]
    pub password_hash: String,
    /// Limits of the account.
    #[n(3)]
    pub quota: Quota,
    /// Mailboxes it begins with besides INBOX.
    #[n(4)]
    pub mailboxes: Vec<(MailboxName, Option<SpecialUse>)>,
    /// Whether it begins subscribed to INBOX and these.
    #[n(5)]
    pub subscribe: Option<bool>,
}

/// See [`Command::MoveAccount`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MoveAccount {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// What is to be done.
    #[n(1)]
    pub step: MoveStep,
}

/// A step of a move. All but `Depart` are for one of the two shards, in this order: `Begin`, `Arrive`,
/// `Receive` what [`Query::AccountRows`](crate::Query::AccountRows) and
/// [`Query::ChangedRows`](crate::Query::ChangedRows) give, `Freeze`, the last changes, `Depart`, `Settle`.
/// Before `Depart` it is called off by `Stay`, then `Forget`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MoveStep {
    /// At the shard it leaves: changes are noted from now on.
    #[n(0)]
    Begin(#[n(0)] Place),
    /// There: nobody changes it for so many milliseconds; it thaws by itself.
    #[n(1)]
    Freeze(#[n(0)] u64),
    /// There: it is gone, if exactly so many changes were noted; all of them were copied. Refused if it
    /// is on its way to another place than this, which an earlier version does not say.
    #[n(2)]
    Depart(#[n(0)] u64, #[n(1)] Option<Place>),
    /// At the shard it comes to: rows may come from who drew this number. Whoever sent some before is
    /// refused from now on, and all rows have to be sent again.
    #[n(3)]
    Arrive(#[n(0)] Place, #[n(1)] u64),
    /// There, with that number: rows as they are, with the bodies of chunks this shard does not have
    /// beside them.
    #[n(4)]
    Receive(#[n(0)] Vec<MovedRow>, #[n(1)] u64),
    /// There, once it is gone where it was: it is served, if this is the place it comes to. To be
    /// repeated while there is more.
    #[n(5)]
    Settle(#[n(0)] Place),
    /// At the shard it leaves: it does not go to this place, nor to any up to its epoch.
    #[n(6)]
    Stay(#[n(0)] Place),
    /// At the shard of this place, once the other one said that it stays: what came is dropped, no more
    /// comes, and who asks is sent to that other shard.
    #[n(7)]
    Forget(#[n(0)] Place, #[n(1)] ShardId),
}

/// A row of an account that moves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MovedRow {
    /// The same in every shard.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// `None`: it is gone.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Option<Vec<u8>>,
}

/// Limits of one account; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Quota {
    /// Raw octets of all messages.
    #[n(0)]
    pub storage_bytes: Option<u64>,
    /// Number of messages.
    #[n(1)]
    pub n_messages: Option<u64>,
}

/// See [`Command::ChangeAccount`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChangeAccount {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// What.
    #[n(1)]
    pub change: AccountChange,
}

/// One property of an account with its new value.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AccountChange {
    /// A new login; the directory is changed by commands of its own.
    #[n(0)]
    Name(#[n(0)] Address),
    /// A further address, or one less.
    #[n(1)]
    AddAlias(#[n(0)] Address),
    /// A further address, or one less.
    #[n(2)]
    RemoveAlias(#[n(0)] Address),
    /// A PHC string.
    #[n(3)]
    PasswordHash(#[n(0)] String),
    /// New limits.
    #[n(4)]
    Quota(#[n(0)] Quota),
    /// Active or suspended.
    #[n(5)]
    State(#[n(0)] AccountState),
}

/// Whether an account may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum AccountState {
    /// Everything works.
    #[n(0)]
    Active,
    /// Logins are refused; mail is refused with a temporary error.
    #[n(1)]
    Suspended,
    /// On its way out: as if it did not exist.
    #[n(2)]
    Deleting,
}

/// RFC 6154 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum SpecialUse {
    /// `\All`
    #[n(0)]
    All,
    /// `\Archive`
    #[n(1)]
    Archive,
    /// `\Drafts`
    #[n(2)]
    Drafts,
    /// `\Flagged`
    #[n(3)]
    Flagged,
    /// `\Junk`
    #[n(4)]
    Junk,
    /// `\Sent`
    #[n(5)]
    Sent,
    /// `\Trash`
    #[n(6)]
    Trash,
}

/// See [`Command::CreateMailbox`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateMailbox {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Full name.
    #[n(1)]
    pub name: MailboxName,
    /// CREATE-SPECIAL-USE
    #[n(2)]
    pub special_use: Option<SpecialUse>,
}

/// A mailbox by name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NamedMailbox {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Full name.
    #[n(1)]
    pub name: MailboxName,
}

/// A mailbox by identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OfMailbox {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Which.
    #[n(1)]
    pub mailbox: MailboxId,
}

/// See [`Command::RenameMailbox`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RenameMailbox {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Present name.
    #[n(1)]
    pub from: MailboxName,
    /// Future name.
    #[n(2)]
    pub to: MailboxName,
    /// A later slice of renaming INBOX: `to` exists already and is gone on with.
    #[n(3)]
    pub further: bool,
    /// Of a later slice: the mailbox that the first one made, whatever has its name by now.
    #[cbor(n(4), default)]
    pub into: Option<MailboxId>,
}

/// See [`Command::Subscribe`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Subscribe {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// The mailbox need not exist (RFC 9051 6.3.7).
    #[n(1)]
    pub name: MailboxName,
    /// SUBSCRIBE or UNSUBSCRIBE.
    #[n(2)]
    pub on: bool,
}

/// See [`Command::Upload`]. The chunks' bytes travel beside the command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Upload {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Which message to be.
    #[n(1)]
    pub upload: UploadId,
    /// 0, 1, 2, ...; any other than the next is refused.
    #[n(2)]
    pub sequence: u32,
    /// What travels beside.
    #[n(3)]
    pub chunks: Vec<ChunkRef>,
    /// REPLACE: the message that goes when this one has come; there is room for as much instead.
    #[cbor(n(4), default)]
    pub replaces: Option<Replaced>,
}

impl Upload {
    /// The sequence of what ends an upload whose message will not come.
    pub(crate) const GIVEN_UP: u32 = u32::MAX;

    /// The message will not come: what was uploaded is let go of.
    pub fn give_up(account: AccountId, upload: UploadId) -> Self {
        let sequence = Self::GIVEN_UP;
        Self { account, upload, sequence, chunks: Vec::new(), replaces: None }
    }
}

/// See [`Command::Deliver`]. Chunks not uploaded travel beside the command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Deliver {
    /// To whom.
    #[n(0)]
    pub account: AccountId,
    /// `user+detail`: an existing mailbox of that name (top level), else INBOX.
    #[n(1)]
    pub detail: Option<String>,
    /// What.
    #[n(2)]
    pub message: NewMessage,
    /// INTERNALDATE; the command's time if absent.
    #[cbor(n(3), default)]
    pub internal_date: Option<InternalDate>,
}

/// See [`Command::Append`]. Chunks not uploaded travel beside the command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Append {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Where to.
    #[n(1)]
    pub mailbox: MailboxId,
    /// All or none, in this order.
    #[n(2)]
    pub messages: Vec<AppendMessage>,
    /// REPLACE: expunged in the same moment; refused if it is gone.
    #[n(3)]
    pub replaces: Option<Replaced>,
    /// If given, the mailbox that has this name then, whatever `mailbox` says.
    #[cbor(n(4), default)]
    pub name: Option<MailboxName>,
}

/// The message that an [`Append`] or an [`Upload`] replaces (RFC 8508).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replaced {
    /// Where it is; not always where the new one goes.
    #[n(0)]
    pub mailbox: MailboxId,
    /// Which.
    #[n(1)]
    pub uid: Uid,
}

/// One message of an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AppendMessage {
    /// What.
    #[n(0)]
    pub message: NewMessage,
    /// Flags it begins with.
    #[n(1)]
    pub flags: Flags,
    /// INTERNALDATE; the command's time if absent.
    #[n(2)]
    pub internal_date: Option<InternalDate>,
}

/// INTERNALDATE as given: an instant and the zone it was told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InternalDate {
    /// Seconds since 1970, UTC.
    #[n(0)]
    pub unix_s: i64,
    /// Minutes east of UTC.
    #[n(1)]
    pub zone_minutes: i16,
}

/// See [`Command::Store`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Store {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Where.
    #[n(1)]
    pub mailbox: MailboxId,
    /// Which; absent ones are skipped.
    #[n(2)]
    pub uids: UidSet,
    /// What.
    #[n(3)]
    pub change: FlagChange,
    /// RFC 7162 3.1.3: messages changed later than this are left alone and reported. 0 is allowed.
    #[n(4)]
    pub unchanged_since: Option<u64>,
}

/// See [`Command::Copy`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Copy {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Where from.
    #[n(1)]
    pub from: MailboxId,
    /// Where to.
    #[n(2)]
    pub to: MailboxId,
    /// Which; absent ones are skipped. When they do not fit in one slice the outcome says where to go on.
    #[n(3)]
    pub uids: UidSet,
    /// Names the staging shared by the slices of one COPY; the last slice publishes it.
    #[n(4)]
    pub staging: UploadId,
    /// If given, the mailbox that has this name then, whatever `to` says. Later slices name the mailbox
    /// that the first one found.
    #[cbor(n(5), default)]
    pub to_name: Option<MailboxName>,
    /// None is copied when one of them is absent.
    #[cbor(n(6), default)]
    pub whole: bool,
    /// A slice before this one was staged. Refused when that is gone, else what is left would be taken for
    /// all.
    #[cbor(n(7), default)]
    pub further: bool,
}

/// See [`Command::Move`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Move {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Where from.
    #[n(1)]
    pub from: MailboxId,
    /// Where to.
    #[n(2)]
    pub to: MailboxId,
    /// Which; absent ones are skipped.
    #[n(3)]
    pub uids: UidSet,
    /// If given, the mailbox that has this name then, whatever `to` says.
    #[cbor(n(4), default)]
    pub to_name: Option<MailboxName>,
}

/// See [`Command::Expunge`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Expunge {
    /// Whose.
    #[n(0)]
    pub account: AccountId,
    /// Where.
    #[n(1)]
    pub mailbox: MailboxId,
    /// Which; absent ones are skipped.
    #[n(2)]
    pub uids: UidSet,
    /// IMAP removes only what is flagged `\Deleted`; POP3 removes what it names.
    #[n(3)]
    pub only_deleted: bool,
}
