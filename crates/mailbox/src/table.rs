//! Where every row of a shard lies. This page is the one place that knows the keys.
//!
//! A key is a table's byte and then its fields, big-endian and of fixed width (only the last may be
//! text), so that a scan sees rows in the order of their numbers. All rows of one account lie behind
//! one prefix, its account row first.
//!
//! ```text
//! 00                                  shard: log time, bytes of open uploads   ShardRow
//! 01 session                          a frontend's session                     SessionRow
//! 02 session sequence                 an outcome kept for it                   Outcome
//! 03 account upload                   an open upload                           UploadRow
//! 04 account upload sequence          the chunks of one piece of it            PieceRow
//! 05 digest account                   references to a chunk                    ChunkRow
//! 06 address                          the directory                            Place
//! 07 account                          the last UIDVALIDITY; outlives it        u32
//! 08 account TABLE ..                 the rows of an account, below
//! 09 time account mailbox modseq      what to purge: one EXPUNGE               marker
//! 0a time account mailbox             what to reclaim: a deleted mailbox; 0 is the account
//! 0b account mailbox uid              an extent still to be settled            marker
//! 0c account staging                  an unfinished COPY                       StagingRow
//! 0d address                          the directory: a group                   GroupRecord
//! 0e account                          it is on its way, or has left            Moving
//! 0f account number                   keys that one entry changed meanwhile    ChangedKeys
//! 10 account rank key                 a row that waits until all have come     as under that key
//! 11 account                          it does not come: to be forgotten        ForgetRow
//!
//! 08 account 00                       account                                  AccountRow
//! 08 account 01                       counters and usage                       UsageRow
//! 08 account 02 node                  a name in the tree                       NodeRow
//! 08 account 03 node component        the child of that name                   u64 (node)
//! 08 account 04 use                   who has this special use                 u64 (mailbox)
//! 08 account 05 components            a subscribed name, joined by 00          marker
//! 08 account 06 mailbox               mailbox                                  MailboxRow
//! 08 account 07 mailbox               keywords seen in it                      KeywordsRow
//! 08 account 08 mailbox uid           a message                                State
//! 08 account 09 mailbox modseq uid    messages by last change                  marker
//! 08 account 0a mailbox uid           an expunged message, body still there    GoneRow
//! 08 account 0b mailbox modseq uid    the expunge log                          marker
//! 08 account 0c mailbox uid           an extent: published copies from here on ExtentRow
//! 08 account 0d staging rank          a copy not yet settled under its UID     State
//! 08 account 0e email                 a content: chunks, references            ContentRow
//! 08 account 0f email                 its metadata                             Metadata
//! 08 account 10 hash                  a message-id's thread                    ThreadRow
//! 08 account 11 mailbox uid           UIDs that are gone, up to this one       u32 (the first)
//! ```
//!
//! Values are CBOR with numbered fields, but for `State`, which begins with a version byte, and
//! markers, which are nothing but that byte.

use crate::address::Address;
use crate::chunk::Digest;
use crate::command::SpecialUse;
use crate::ids::{AccountId, EmailId, LogTime, MailboxId, ModSeq, SessionId, Uid, UploadId};
use crate::name::MailboxName;

/// The version byte of rows that are not CBOR.
pub(crate) const VERSION: u8 = 1;

/// The value of a row whose key says everything.
pub(crate) fn marker() -> Vec<u8> {
    vec![VERSION]
}

const SHARD: u8 = 0x00;
const SESSION: u8 = 0x01;
const OUTCOME: u8 = 0x02;
const UPLOAD: u8 = 0x03;
const PIECE: u8 = 0x04;
const CHUNK: u8 = 0x05;
const ADDRESS: u8 = 0x06;
const UID_VALIDITY: u8 = 0x07;
const ACCOUNT: u8 = 0x08;
const PURGE: u8 = 0x09;
const RECLAIM: u8 = 0x0a;
const SETTLE: u8 = 0x0b;
const STAGING: u8 = 0x0c;
const GROUP: u8 = 0x0d;
const MOVING: u8 = 0x0e;
const CHANGED: u8 = 0x0f;
const HELD: u8 = 0x10;
const FORGET: u8 = 0x11;

/// The tables of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Table {
    Account = 0x00,
    Usage = 0x01,
    Node = 0x02,
    Name = 0x03,
    SpecialUse = 0x04,
    Subscription = 0x05,
    Mailbox = 0x06,
    Keywords = 0x07,
    State = 0x08,
    Modseq = 0x09,
    Gone = 0x0a,
    Expunged = 0x0b,
    Extent = 0x0c,
    Staged = 0x0d,
    Content = 0x0e,
    Metadata = 0x0f,
    Thread = 0x10,
    Gap = 0x11,
}

const TABLES: [Table; 18] = [
    Table::Account,
    Table::Usage,
    Table::Node,
    Table::Name,
    Table::SpecialUse,
    Table::Subscription,
    Table::Mailbox,
    Table::Keywords,
    Table::State,
    Table::Modseq,
    Table::Gone,
    Table::Expunged,
    Table::Extent,
    Table::Staged,
    Table::Content,
    Table::Metadata,
    Table::Thread,
    Table::Gap,
];

/// A key being written.
#[derive(Clone)]
struct Key(Vec<u8>);

impl Key {
    fn new(table: u8) -> Self {
        let mut key = Vec::with_capacity(48);
        key.push(table);
        Self(key)
    }

    fn of(account: AccountId, table: Table) -> Self {
        Self::new(ACCOUNT).bytes(&account.0).bytes(&[table as u8])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }
}

pub(crate) fn shard() -> Vec<u8> {
    Key::new(SHARD).0
}

pub(crate) fn session(session: SessionId) -> Vec<u8> {
    Key::new(SESSION).bytes(&session.0).0
}

pub(crate) fn sessions() -> Vec<u8> {
    Key::new(SESSION).0
}

/// Where the sequence is in the key of an outcome.
pub(crate) const OUTCOME_SEQUENCE_AT: usize = 1 + 16;

pub(crate) fn outcome(session: SessionId, sequence: u64) -> Vec<u8> {
    Key::new(OUTCOME).bytes(&session.0).u64(sequence).0
}

pub(crate) fn outcomes(session: SessionId) -> Vec<u8> {
    Key::new(OUTCOME).bytes(&session.0).0
}

pub(crate) fn all_outcomes() -> Vec<u8> {
    Key::new(OUTCOME).0
}

pub(crate) fn upload(account: AccountId, upload: UploadId) -> Vec<u8> {
    Key::new(UPLOAD).bytes(&account.0).bytes(&upload.0).0
}

pub(crate) fn uploads() -> Vec<u8> {
    Key::new(UPLOAD).0
}

pub(crate) fn uploads_of(account: AccountId) -> Vec<u8> {
    Key::new(UPLOAD).bytes(&account.0).0
}

pub(crate) fn piece(account: AccountId, upload: UploadId, sequence: u32) -> Vec<u8> {
    Key::new(PIECE).bytes(&account.0).bytes(&upload.0).u32(sequence).0
}

pub(crate) fn pieces(account: AccountId, upload: UploadId) -> Vec<u8> {
    Key::new(PIECE).bytes(&account.0).bytes(&upload.0).0
}

pub(crate) fn all_pieces() -> Vec<u8> {
    Key::new(PIECE).0
}

pub(crate) fn chunk(digest: &Digest, account: AccountId) -> Vec<u8> {
    Key::new(CHUNK).bytes(&digest.0).bytes(&account.0).0
}

pub(crate) fn chunk_everywhere(digest: &Digest) -> Vec<u8> {
    Key::new(CHUNK).bytes(&digest.0).0
}

pub(crate) fn chunks() -> Vec<u8> {
    Key::new(CHUNK).0
}

pub(crate) fn address(address: &Address) -> Vec<u8> {
    Key::new(ADDRESS).bytes(address.as_str().as_bytes()).0
}

pub(crate) fn group(address: &Address) -> Vec<u8> {
    Key::new(GROUP).bytes(address.as_str().as_bytes()).0
}

pub(crate) fn groups() -> Vec<u8> {
    Key::new(GROUP).0
}

pub(crate) fn uid_validity(account: AccountId) -> Vec<u8> {
    Key::new(UID_VALIDITY).bytes(&account.0).0
}

pub(crate) fn uid_validities() -> Vec<u8> {
    Key::new(UID_VALIDITY).0
}

pub(crate) fn accounts() -> Vec<u8> {
    Key::new(ACCOUNT).0
}

pub(crate) fn everything_of(account: AccountId) -> Vec<u8> {
    Key::new(ACCOUNT).bytes(&account.0).0
}

pub(crate) fn purge(
    time: LogTime,
    account: AccountId,
    mailbox: MailboxId,
    modseq: ModSeq,
) -> Vec<u8> {
    Key::new(PURGE).u64(time.0).bytes(&account.0).u64(mailbox.0).u64(modseq.value()).0
}

pub(crate) fn purges() -> Vec<u8> {
    Key::new(PURGE).0
}

pub(crate) fn purges_before(time: LogTime) -> Vec<u8> {
    Key::new(PURGE).u64(time.0).0
}

pub(crate) fn reclaim(time: LogTime, account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    Key::new(RECLAIM).u64(time.0).bytes(&account.0).u64(mailbox.0).0
}

pub(crate) fn reclaims() -> Vec<u8> {
    Key::new(RECLAIM).0
}

pub(crate) fn reclaims_before(time: LogTime) -> Vec<u8> {
    Key::new(RECLAIM).u64(time.0).0
}

pub(crate) fn settle(account: AccountId, mailbox: MailboxId, first: Uid) -> Vec<u8> {
    Key::new(SETTLE).bytes(&account.0).u64(mailbox.0).u32(first.value()).0
}

pub(crate) fn settles() -> Vec<u8> {
    Key::new(SETTLE).0
}

pub(crate) fn staging(account: AccountId, staging: UploadId) -> Vec<u8> {
    Key::new(STAGING).bytes(&account.0).bytes(&staging.0).0
}

pub(crate) fn stagings() -> Vec<u8> {
    Key::new(STAGING).0
}

pub(crate) fn stagings_of(account: AccountId) -> Vec<u8> {
    Key::new(STAGING).bytes(&account.0).0
}

pub(crate) fn moving(account: AccountId) -> Vec<u8> {
    Key::new(MOVING).bytes(&account.0).0
}

pub(crate) fn changed(account: AccountId, number: u64) -> Vec<u8> {
    Key::new(CHANGED).bytes(&account.0).u64(number).0
}

pub(crate) fn changes() -> Vec<u8> {
    Key::new(CHANGED).0
}

pub(crate) fn all_changed(account: AccountId) -> Vec<u8> {
    Key::new(CHANGED).bytes(&account.0).0
}

/// Held rows are put where they belong in this order: the account, so that housekeeping takes none of
/// the others for leftovers; and pieces before their upload, which would take only those along that are
/// there.
pub(crate) fn held(account: AccountId, key: &[u8]) -> Vec<u8> {
    let rank = match key.first() {
        Some(&ACCOUNT) => 0,
        Some(&PIECE) => 1,
        _ => 2,
    };
    Key::new(HELD).bytes(&account.0).bytes(&[rank]).bytes(key).0
}

pub(crate) fn all_held(account: AccountId) -> Vec<u8> {
    Key::new(HELD).bytes(&account.0).0
}

pub(crate) fn forget(account: AccountId) -> Vec<u8> {
    Key::new(FORGET).bytes(&account.0).0
}

pub(crate) fn forgets() -> Vec<u8> {
    Key::new(FORGET).0
}

/// The key that a held row is held for.
pub(crate) fn of_held(key: &[u8]) -> Vec<u8> {
    key[18..].to_vec()
}

/// Whose a row is that moves with its account; `None` for all others.
pub(crate) fn account_of(key: &[u8]) -> Option<AccountId> {
    let at = match *key.first()? {
        UPLOAD | PIECE | UID_VALIDITY | ACCOUNT | SETTLE | STAGING => 1,
        CHUNK => 33,
        PURGE | RECLAIM => 9,
        _ => return None,
    };
    let id = key.get(at..at + 16)?;
    Some(AccountId(id.try_into().expect("sixteen octets")))
}

/// The chunk, if this is the row of its references.
pub(crate) fn digest_of(key: &[u8]) -> Option<Digest> {
    let digest = key.strip_prefix(&[CHUNK])?.get(..32)?;
    Some(Digest(digest.try_into().expect("32 octets")))
}

/// Whose metadata this row is.
pub(crate) fn of_metadata(key: &[u8]) -> Option<(AccountId, EmailId)> {
    let is_metadata =
        key.first() == Some(&ACCOUNT) && key.get(17) == Some(&(Table::Metadata as u8));
    let number = key.get(18..).filter(|_| is_metadata)?.try_into().ok()?;
    Some((AccountId(Fields(key).id(1)), EmailId(u64::from_be_bytes(number))))
}

/// What a row is that moves with its account.
pub(crate) enum Kind {
    Upload,
    Piece,
    Chunk,
    UidValidity,
    Of(Table),
    Marker,
    Staging,
}

/// `None` for keys that no row of an account has.
pub(crate) fn kind(key: &[u8]) -> Option<Kind> {
    let (kind, len) = match *key.first()? {
        UPLOAD => (Kind::Upload, 33),
        PIECE => (Kind::Piece, 37),
        CHUNK => (Kind::Chunk, 49),
        UID_VALIDITY => (Kind::UidValidity, 17),
        ACCOUNT => return of_table(key).map(Kind::Of),
        PURGE => (Kind::Marker, 41),
        RECLAIM => (Kind::Marker, 33),
        SETTLE if has_uid(key) => (Kind::Marker, 29),
        STAGING => (Kind::Staging, 33),
        _ => return None,
    };
    (key.len() == len).then_some(kind)
}

fn of_table(key: &[u8]) -> Option<Table> {
    let table = TABLES.into_iter().find(|table| Some(&(*table as u8)) == key.get(17))?;
    let fields = match table {
        Table::Account | Table::Usage => 0..=0,
        Table::Node | Table::Mailbox | Table::Keywords | Table::Content | Table::Metadata => 8..=8,
        Table::Name => 9..=usize::MAX,
        Table::Subscription => 1..=usize::MAX,
        Table::SpecialUse => 1..=1,
        Table::Thread => 16..=16,
        Table::Staged => 20..=20,
        Table::State | Table::Gone | Table::Extent | Table::Gap => 12..=12,
        Table::Modseq | Table::Expunged => 20..=20,
    };
    let by_uid = [Table::State, Table::Gone, Table::Extent, Table::Gap];
    let ends_in_uid = by_uid.contains(&table) || matches!(table, Table::Modseq | Table::Expunged);
    let is_right = fields.contains(&(key.len() - 18)) && (!ends_in_uid || has_uid(key));
    is_right.then_some(table)
}

/// No row is kept for UID 0.
fn has_uid(key: &[u8]) -> bool {
    key.len() > 4 && Fields(key).last_u32() > 0
}

/// Whether housekeeping, or a list of accounts, looks for rows of this table: they are put there when
/// their account has come.
pub(crate) fn is_held(key: &[u8]) -> bool {
    let is_account = key.first() == Some(&ACCOUNT) && key.get(17) == Some(&(Table::Account as u8));
    is_account || !matches!(key.first(), Some(&(ACCOUNT | CHUNK)))
}

pub(crate) fn is_upload(key: &[u8]) -> bool {
    key.first() == Some(&UPLOAD)
}

/// Where all rows of an account lie, in the order of their keys, but for those of its chunks. In two
/// of these tables there are rows of others too.
pub(crate) fn all_of_scanned(account: AccountId) -> Vec<Vec<u8>> {
    let of = |table: u8| Key::new(table).bytes(&account.0).0;
    let whole = |table: u8| Key::new(table).0;
    vec![
        of(UPLOAD),
        of(PIECE),
        of(UID_VALIDITY),
        of(ACCOUNT),
        whole(PURGE),
        whole(RECLAIM),
        of(SETTLE),
        of(STAGING),
    ]
}

/// Where there may be rows of an account that left or did not come, until they are reclaimed.
pub(crate) fn all_of(account: AccountId) -> Vec<Vec<u8>> {
    let whole = crate::command::delete_account::WHOLE_ACCOUNT;
    let of = |table: u8| Key::new(table).bytes(&account.0).0;
    vec![
        of(UPLOAD),
        of(PIECE),
        of(ACCOUNT),
        of(SETTLE),
        of(STAGING),
        of(CHANGED),
        of(HELD),
        of(FORGET),
        reclaim(LogTime(0), account, whole),
    ]
}

/// Rows with references to chunks.
pub(crate) enum Refers {
    Content,
    Piece,
}

pub(crate) fn refers(key: &[u8]) -> Option<Refers> {
    match (key.first()?, key.get(17)) {
        (&PIECE, _) => Some(Refers::Piece),
        (&ACCOUNT, Some(table)) if *table == Table::Content as u8 => Some(Refers::Content),
        _ => None,
    }
}

/// All rows of one table of an account.
pub(crate) fn table(account: AccountId, table: Table) -> Vec<u8> {
    Key::of(account, table).0
}

pub(crate) fn account(account: AccountId) -> Vec<u8> {
    Key::of(account, Table::Account).0
}

pub(crate) fn usage(account: AccountId) -> Vec<u8> {
    Key::of(account, Table::Usage).0
}

pub(crate) fn node(account: AccountId, node: u64) -> Vec<u8> {
    Key::of(account, Table::Node).u64(node).0
}

pub(crate) fn name(account: AccountId, parent: u64, component: &str) -> Vec<u8> {
    Key::of(account, Table::Name).u64(parent).bytes(component.as_bytes()).0
}

pub(crate) fn names(account: AccountId, parent: u64) -> Vec<u8> {
    Key::of(account, Table::Name).u64(parent).0
}

pub(crate) fn special_use(account: AccountId, special_use: SpecialUse) -> Vec<u8> {
    let number = match special_use {
        SpecialUse::All => 0,
        SpecialUse::Archive => 1,
        SpecialUse::Drafts => 2,
        SpecialUse::Flagged => 3,
        SpecialUse::Junk => 4,
        SpecialUse::Sent => 5,
        SpecialUse::Trash => 6,
    };
    Key::of(account, Table::SpecialUse).bytes(&[number]).0
}

pub(crate) fn subscription(account: AccountId, name: &MailboxName) -> Vec<u8> {
    Key::of(account, Table::Subscription).bytes(name.join('\0').as_bytes()).0
}

pub(crate) fn mailbox(account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    Key::of(account, Table::Mailbox).u64(mailbox.0).0
}

pub(crate) fn keywords(account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    Key::of(account, Table::Keywords).u64(mailbox.0).0
}

/// All rows of one mailbox in a table whose keys begin with the mailbox.
pub(crate) fn of_mailbox(account: AccountId, table: Table, mailbox: MailboxId) -> Vec<u8> {
    Key::of(account, table).u64(mailbox.0).0
}

/// A row in a table whose keys are mailbox and UID: state, gone, extent, gap.
pub(crate) fn by_uid(account: AccountId, table: Table, mailbox: MailboxId, uid: Uid) -> Vec<u8> {
    Key::of(account, table).u64(mailbox.0).u32(uid.value()).0
}

/// A row in a table whose keys are mailbox, mod-sequence and UID: modseq, expunged.
pub(crate) fn by_modseq(
    account: AccountId,
    table: Table,
    mailbox: MailboxId,
    modseq: u64,
    uid: u32,
) -> Vec<u8> {
    Key::of(account, table).u64(mailbox.0).u64(modseq).u32(uid).0
}

pub(crate) fn staged(account: AccountId, staging: UploadId, rank: u32) -> Vec<u8> {
    Key::of(account, Table::Staged).bytes(&staging.0).u32(rank).0
}

pub(crate) fn all_staged(account: AccountId, staging: UploadId) -> Vec<u8> {
    Key::of(account, Table::Staged).bytes(&staging.0).0
}

pub(crate) fn content(account: AccountId, email: EmailId) -> Vec<u8> {
    Key::of(account, Table::Content).u64(email.0).0
}

pub(crate) fn metadata(account: AccountId, email: EmailId) -> Vec<u8> {
    Key::of(account, Table::Metadata).u64(email.0).0
}

pub(crate) fn thread(account: AccountId, hash: &[u8; 16]) -> Vec<u8> {
    Key::of(account, Table::Thread).bytes(hash).0
}

/// The first key after all that begin with `prefix`.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// The fields of a key, read from its end backwards or by offset.
pub(crate) struct Fields<'k>(pub &'k [u8]);

impl Fields<'_> {
    /// The 16 bytes that begin here.
    pub(crate) fn id(&self, at: usize) -> [u8; 16] {
        self.0[at..at + 16].try_into().expect("keys are written by this module")
    }

    /// The number that begins here.
    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.0[at..at + 8].try_into().expect("keys are written by this module"))
    }

    /// The number in the last four bytes.
    pub(crate) fn last_u32(&self) -> u32 {
        let at = self.0.len() - 4;
        u32::from_be_bytes(self.0[at..].try_into().expect("keys are written by this module"))
    }

    /// The UID in the last four bytes.
    pub(crate) fn uid(&self) -> Uid {
        Uid::new(self.last_u32()).expect("no row is kept for UID 0")
    }
}
