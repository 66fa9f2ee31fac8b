//! What rows hold. Read and written here, decided elsewhere.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use crate::address::Address;
use crate::chunk::{ChunkRef, Digest};
use crate::codec;
use crate::command::{AccountState, Quota, SpecialUse};
use crate::flags::Keyword;
use crate::ids::{LogTime, MailboxId, ModSeq, ThreadId, Uid, UidValidity};
use crate::rows::{Rows, Source};
use crate::state::State;
use crate::table::{Kind, Table};
use crate::uid_set::UidSet;

/// One per shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ShardRow {
    /// Log time: the greatest time of all entries.
    #[n(0)]
    pub time_ms: u64,
    /// Raw octets in open uploads.
    #[n(1)]
    pub upload_bytes: u64,
}

/// A frontend's session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SessionRow {
    /// When it was last heard of.
    #[n(0)]
    pub heard: LogTime,
    /// Sequences below it are refused.
    #[n(1)]
    pub mark: u64,
    /// The latest expiry of any request it made: until then a repetition could still arrive.
    #[n(2)]
    pub latest_expiry: LogTime,
    /// It is being dropped, outcomes first, and unknown to everybody else.
    #[n(3)]
    pub dropped: bool,
    /// Outcomes kept.
    #[n(4)]
    pub n_outcomes: u32,
    /// No outcome is kept for a sequence below it.
    #[cbor(n(5), default)]
    pub lowest_kept: u64,
    /// No outcome was ever kept for a sequence above it.
    #[cbor(n(6), default)]
    pub highest_used: u64,
}

/// An open upload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct UploadRow {
    /// The only piece it takes.
    #[n(0)]
    pub next_sequence: u32,
    /// Raw octets so far.
    #[n(1)]
    pub size_bytes: u64,
    /// Chunks so far.
    #[n(2)]
    pub n_chunks: u32,
    /// When it was last continued.
    #[n(3)]
    pub touched: LogTime,
}

/// One piece of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PieceRow {
    #[n(0)]
    pub chunks: Vec<ChunkRef>,
}

/// An account whose move to here was called off: what came of it is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ForgetRow {
    /// Rows of chunks up to this key were looked at.
    #[n(0)]
    pub after: Option<minicbor::bytes::ByteVec>,
}

/// How often one account refers to a chunk, from contents and uploads.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ChunkRow {
    #[n(0)]
    pub n_references: u64,
    #[n(1)]
    pub raw_len: u32,
}

/// What seldom changes about an account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct AccountRow {
    #[n(0)]
    pub name: Address,
    #[n(1)]
    pub aliases: Vec<Address>,
    #[n(2)]
    pub password_hash: String,
    #[n(3)]
    pub state: AccountState,
    #[n(4)]
    pub quota: Quota,
    #[n(5)]
    pub created: LogTime,
}

/// What often changes about an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct UsageRow {
    /// The last mod-sequence given out.
    #[n(0)]
    pub modseq: u64,
    /// The last mailbox id given out.
    #[n(1)]
    pub mailbox: u64,
    /// The last node given out.
    #[n(2)]
    pub node: u64,
    /// The last email id given out.
    #[n(3)]
    pub email: u64,
    /// The last thread id given out.
    #[n(4)]
    pub thread: u64,
    /// Raw octets of all messages not expunged.
    #[n(5)]
    pub storage_bytes: u64,
    /// Messages not expunged.
    #[n(6)]
    pub n_messages: u64,
    /// Names in the tree.
    #[n(7)]
    pub n_nodes: u32,
    /// Subscribed names.
    #[n(8)]
    pub n_subscriptions: u32,
    /// Octets of all names in the tree, each with those above it; `None` as long as all are short.
    #[cbor(n(9), default)]
    pub names_bytes: Option<u64>,
    /// Octets of all subscribed names; `None` as long as all are short.
    #[cbor(n(10), default)]
    pub subscriptions_bytes: Option<u64>,
}

/// A name in the tree. It outlives its mailbox while names lie below it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct NodeRow {
    /// 0 is the root, which has no row.
    #[n(0)]
    pub parent: u64,
    #[n(1)]
    pub component: String,
    /// `None` is `\Noselect`.
    #[n(2)]
    pub mailbox: Option<MailboxId>,
}

/// A mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MailboxRow {
    #[n(0)]
    pub node: u64,
    #[n(1)]
    pub uid_validity: UidValidity,
    #[n(2)]
    pub uid_next: Uid,
    #[n(3)]
    pub highest_modseq: ModSeq,
    /// From here on nobody claimed `\Recent`.
    #[n(4)]
    pub first_recent: Uid,
    #[n(5)]
    pub special_use: Option<SpecialUse>,
    #[n(6)]
    pub n_messages: u32,
    #[n(7)]
    pub n_unseen: u32,
    #[n(8)]
    pub n_deleted: u32,
    /// Messages from `first_recent` on.
    #[n(9)]
    pub n_recent: u32,
    #[n(10)]
    pub size_bytes: u64,
    /// The expunge log is complete above this mod-sequence.
    #[n(11)]
    pub expunge_floor: u64,
    /// Deleted: nobody sees it, its rows wait to be reclaimed.
    #[n(12)]
    pub deleted: bool,
    /// Extents not settled.
    #[n(13)]
    pub n_extents: u32,
    /// Raw octets of messages with `\Deleted`.
    #[n(14)]
    pub deleted_bytes: u64,
}

/// Keywords used in a mailbox, as first written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct KeywordsRow {
    #[n(0)]
    pub keywords: BTreeSet<Keyword>,
}

/// An expunged message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct GoneRow {
    /// As it was.
    #[n(0)]
    pub state: State,
    /// When it was expunged.
    #[n(1)]
    pub expunged_at: LogTime,
    /// Of the expunge.
    #[n(2)]
    pub modseq: ModSeq,
}

/// Copies published at once, from the UID in the key on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ExtentRow {
    /// Where their rows still lie.
    #[n(0)]
    pub staging: crate::ids::UploadId,
    /// How many they were.
    #[n(1)]
    pub n_messages: u32,
    /// Of all of them until changed.
    #[n(2)]
    pub modseq: ModSeq,
}

/// An unfinished COPY of several slices.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct StagingRow {
    #[n(0)]
    pub from: MailboxId,
    #[n(1)]
    pub to: MailboxId,
    /// Copied so far.
    #[n(2)]
    pub source: UidSet,
    #[n(3)]
    pub n_messages: u32,
    #[n(4)]
    pub n_unseen: u32,
    #[n(5)]
    pub n_deleted: u32,
    #[n(6)]
    pub size_bytes: u64,
    /// When it was last continued, or given up.
    #[n(7)]
    pub touched: LogTime,
    /// Given up: its rows are being dropped, further slices are refused.
    #[n(8)]
    pub dropped: bool,
    #[n(9)]
    pub deleted_bytes: u64,
}

/// One immutable message content, shared by its copies.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ContentRow {
    /// Messages, expunged and staged ones included, that have it.
    #[n(0)]
    pub n_references: u32,
    #[n(1)]
    pub digest: Digest,
    /// Those of the message, then those of its metadata.
    #[n(2)]
    pub chunks: Vec<ChunkRef>,
    /// How many of them are the metadata's.
    #[cbor(n(3), default)]
    pub n_metadata_chunks: u32,
}

impl ContentRow {
    /// Chunks of the message, and chunks of its metadata.
    pub fn split(&self) -> (&[ChunkRef], &[ChunkRef]) {
        let n_metadata_chunks = self.n_metadata_chunks as usize;
        self.chunks.split_at(self.chunks.len().saturating_sub(n_metadata_chunks))
    }
}

/// The thread a message-id belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ThreadRow {
    #[n(0)]
    pub thread: ThreadId,
    /// Contents that name the message-id.
    #[n(1)]
    pub n_references: u32,
}

/// Writes a row whose key was never used before.
pub(crate) fn save_new<T: Encode<()>>(rows: &mut Rows<'_>, key: Vec<u8>, value: &T) {
    rows.put_new(key, codec::encode(value));
}

/// Whether a row that comes from another shard can be read back, if it is one of an account.
pub(crate) fn is_sound(key: &[u8], value: &[u8]) -> bool {
    fn is<T: for<'b> Decode<'b, ()>>(value: &[u8]) -> bool {
        codec::decode::<T>(value).is_ok()
    }
    let is_marker = value == crate::table::marker();
    match crate::table::kind(key) {
        None => false,
        Some(Kind::Upload) => is::<UploadRow>(value),
        Some(Kind::Piece) => is::<PieceRow>(value),
        Some(Kind::Chunk) => is::<ChunkRow>(value),
        Some(Kind::UidValidity) => is::<u32>(value),
        Some(Kind::Marker) => is_marker,
        Some(Kind::Staging) => is::<StagingRow>(value),
        Some(Kind::Of(table)) => match table {
            Table::Account => is::<AccountRow>(value),
            Table::Usage => is::<UsageRow>(value),
            Table::Node => is::<NodeRow>(value),
            Table::Name | Table::SpecialUse => is::<u64>(value),
            Table::Subscription | Table::Modseq | Table::Expunged => is_marker,
            Table::Mailbox => is::<MailboxRow>(value),
            Table::Keywords => is::<KeywordsRow>(value),
            Table::State | Table::Staged => State::is_sound(value),
            Table::Gone => is::<GoneRow>(value),
            Table::Extent => is::<ExtentRow>(value),
            Table::Content => is::<ContentRow>(value),
            Table::Metadata => is::<mime::Metadata>(value),
            Table::Thread => is::<ThreadRow>(value),
            Table::Gap => is::<u32>(value),
        },
    }
}

/// Reads a row that was verified when it was read from the disk.
pub(crate) fn load<T: for<'b> Decode<'b, ()>>(rows: &dyn Source, key: &[u8]) -> Option<T> {
    rows.row(key).map(|value| read(&value))
}

/// Reads a row, and gives its octets for [`save_over`].
pub(crate) fn load_seen<T: for<'b> Decode<'b, ()>>(
    rows: &dyn Source,
    key: &[u8],
) -> (Option<T>, Option<Vec<u8>>) {
    let seen = rows.row(key);
    (seen.as_deref().map(read), seen)
}

/// Reads the value of a row.
pub(crate) fn read<T: for<'b> Decode<'b, ()>>(value: &[u8]) -> T {
    codec::decode(value).expect("rows are written by this crate and verified when read")
}

/// Writes a row.
pub(crate) fn save<T: Encode<()>>(rows: &mut Rows<'_>, key: Vec<u8>, value: &T) {
    rows.put(key, codec::encode(value));
}

/// Writes over a row that still is as it was seen, or still is not there. Why: each command writes the same
/// few rows, and whoever writes one has just read it.
pub(crate) fn save_over<T: Encode<()>>(
    rows: &mut Rows<'_>,
    key: Vec<u8>,
    seen: Option<&[u8]>,
    value: &T,
) {
    rows.put_known(key, seen, codec::encode(value));
}

/// The first rows, at most `n_max`, whose keys begin with `prefix`.
pub(crate) fn first_keys(rows: &dyn Source, prefix: &[u8], n_max: usize) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    if n_max > 0 {
        rows.scan(prefix, &crate::table::end_of(prefix), &mut |key, _| {
            keys.push(key.to_vec());
            keys.len() < n_max
        });
    }
    keys
}

/// Whether any row's key begins with `prefix`.
pub(crate) fn has_any(rows: &dyn Source, prefix: &[u8]) -> bool {
    let mut found = false;
    rows.scan(prefix, &crate::table::end_of(prefix), &mut |_, _| {
        found = true;
        false
    });
    found
}
