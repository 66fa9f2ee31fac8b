//! Contents: what is immutable of a message, shared by all its copies and counted.

use std::collections::{BTreeMap, BTreeSet};

use mime::Relations;

use crate::chunk::{self, CHUNK_BYTES_MAX, ChunkRef, Digest, NewMessage, SEAMS_MAX};
use crate::ids::{EmailId, ThreadId};
use crate::ledger::Ledger;
use crate::outcome::Refusal;
use crate::row::{self, ChunkRow, ContentRow, ThreadRow};
use crate::rows::Source;
use crate::table;

/// Limit: chunks of one message and its metadata; 128 MiB when all are full, and few enough for one
/// command.
pub const CHUNKS_MAX: usize = 512;
/// Limit: octets of a message that certainly fit in so many chunks, with its metadata and trace fields.
pub const MESSAGE_BYTES_MAX: u64 = ((CHUNKS_MAX - 32) * CHUNK_BYTES_MAX) as u64;
// One more for the trace fields, and one that the rest of the message begins.
const _: () = assert!(METADATA_CHUNKS_MAX + SEAMS_MAX + 2 <= 32);
const METADATA_CHUNKS_MAX: usize = chunk::METADATA_BYTES_MAX.div_ceil(CHUNK_BYTES_MAX);
/// Limit: encoded metadata that comes in a command. Whoever cuts at
/// [`METADATA_ROW_BYTES_MAX`](crate::chunk::METADATA_ROW_BYTES_MAX) stays far below it.
const METADATA_BYTES_MAX: usize = 512 * 1024;
/// Limit: message-ids of one message that join threads: its own, the root's, the nearest ones.
const THREAD_IDS_MAX: usize = 8;
/// Rows one content can take with it when it goes.
pub(crate) const ROWS_PER_CONTENT_MAX: usize = CHUNKS_MAX + THREAD_IDS_MAX + 2;

/// Chunks that travel beside the command.
pub(crate) type Inline = BTreeMap<Digest, u32>;

/// Whether the message is what it says it is and all its octets are at hand.
pub(crate) fn check(
    ledger: &Ledger<'_, '_>,
    message: &NewMessage,
    inline: &Inline,
) -> Result<(), Refusal> {
    if message.chunks.len() + message.metadata_chunks.len() > CHUNKS_MAX {
        return Err(Refusal::Limit("chunks of a message".into()));
    }
    check_chunks(ledger, &message.chunks, inline)?;
    check_chunks(ledger, &message.metadata_chunks, inline)?;
    let size: u64 = message.chunks.iter().map(|chunk| u64::from(chunk.raw_len)).sum();
    if size != message.size || message.digest != Digest::of_chunks(&message.chunks) {
        return Err(Refusal::ChunkMissing);
    }
    Ok(())
}

/// Whether each chunk travels beside, or this account refers to it already.
pub(crate) fn check_chunks(
    ledger: &Ledger<'_, '_>,
    chunks: &[ChunkRef],
    inline: &Inline,
) -> Result<(), Refusal> {
    for chunk in chunks {
        let is_sane = (1..=CHUNK_BYTES_MAX as u32).contains(&chunk.raw_len);
        let raw_len = match inline.get(&chunk.digest) {
            Some(raw_len) => Some(*raw_len),
            None => {
                let key = table::chunk(&chunk.digest, ledger.account);
                row::load::<ChunkRow>(ledger.rows, &key).map(|row| row.raw_len)
            }
        };
        if !is_sane || raw_len != Some(chunk.raw_len) {
            return Err(Refusal::ChunkMissing);
        }
    }
    Ok(())
}

/// Adds a content with one reference.
pub(crate) fn create(
    ledger: &mut Ledger<'_, '_>,
    message: &NewMessage,
    relations: &Relations<'_>,
) -> (EmailId, ThreadId) {
    ledger.usage.email += 1;
    let email = EmailId(ledger.usage.email);
    let thread = join_thread(ledger, relations);
    let chunks = [&message.chunks[..], &message.metadata_chunks].concat();
    for chunk in &chunks {
        ledger.refer(chunk.digest, chunk.raw_len, 1);
    }
    let n_metadata_chunks = message.metadata_chunks.len() as u32;
    let digest = message.digest;
    let content = ContentRow { n_references: 1, digest, chunks, n_metadata_chunks };
    row::save_new(ledger.rows, table::content(ledger.account, email), &content);
    let metadata = message.metadata.octets().to_vec();
    ledger.rows.put_new(table::metadata(ledger.account, email), metadata);
    (email, thread)
}

/// What the message's metadata say of it among others, if they fit into a row.
pub(crate) fn relations(message: &NewMessage) -> Result<Relations<'_>, Refusal> {
    let octets = message.metadata.octets();
    let relations = Relations::of_metadata(octets).ok();
    let fitting = relations.filter(|_| octets.len() <= METADATA_BYTES_MAX);
    fitting.ok_or_else(|| Refusal::Limit("metadata of a message".into()))
}

/// One more message has this content.
pub(crate) fn refer(ledger: &mut Ledger<'_, '_>, email: EmailId) {
    let key = table::content(ledger.account, email);
    let (content, seen) = row::load_seen::<ContentRow>(ledger.rows, &key);
    let mut content = content.expect("a message's content outlives it");
    content.n_references += 1;
    row::save_over(ledger.rows, key, seen.as_deref(), &content);
}

/// One message less has this content; the last takes it along.
pub(crate) fn release(ledger: &mut Ledger<'_, '_>, email: EmailId) {
    let key = table::content(ledger.account, email);
    let (content, seen) = row::load_seen::<ContentRow>(ledger.rows, &key);
    let mut content = content.expect("a message's content outlives it");
    content.n_references -= 1;
    if content.n_references > 0 {
        row::save_over(ledger.rows, key, seen.as_deref(), &content);
        return;
    }
    ledger.rows.remove(&key);
    for chunk in &content.chunks {
        ledger.refer(chunk.digest, chunk.raw_len, -1);
    }
    let key = table::metadata(ledger.account, email);
    if let Some(metadata) = ledger.rows.row(&key) {
        let relations = Relations::of_metadata(&metadata);
        leave_thread(ledger, &relations.expect("metadata are sound where they are let in"));
        ledger.rows.remove_known(key, &metadata);
    }
}

/// The thread of the oldest of its relatives, else a new one. THREADID is immutable, so two threads
/// that turn out to be one stay two.
fn join_thread(ledger: &mut Ledger<'_, '_>, relations: &Relations<'_>) -> ThreadId {
    let ids = thread_ids(relations);
    let rows: Vec<_> = ids
        .iter()
        .map(|id| {
            let key = table::thread(ledger.account, id);
            let (row, seen) = row::load_seen::<ThreadRow>(ledger.rows, &key);
            (key, row, seen)
        })
        .collect();
    let known = rows.iter().filter_map(|(_, row, _)| row.as_ref().map(|row| row.thread)).min();
    let thread = known.unwrap_or_else(|| {
        ledger.usage.thread += 1;
        ThreadId(ledger.usage.thread)
    });
    for (key, row, seen) in rows {
        let mut row = row.unwrap_or(ThreadRow { thread, n_references: 0 });
        row.n_references += 1;
        row::save_over(ledger.rows, key, seen.as_deref(), &row);
    }
    thread
}

fn leave_thread(ledger: &mut Ledger<'_, '_>, relations: &Relations<'_>) {
    for id in thread_ids(relations) {
        let key = table::thread(ledger.account, &id);
        let (row, seen) = row::load_seen::<ThreadRow>(ledger.rows, &key);
        if let Some(mut row) = row {
            row.n_references -= 1;
            if row.n_references == 0 {
                ledger.rows.remove(&key);
            } else {
                row::save_over(ledger.rows, key, seen.as_deref(), &row);
            }
        }
    }
}

/// What the thread index is asked for: hashes of the message's own id, the root's, and the ids of
/// the nearest ancestors.
pub(crate) fn thread_ids(relations: &Relations<'_>) -> BTreeSet<[u8; 16]> {
    let own = relations.message_id.iter();
    let root = relations.references.iter().take(1);
    let near = relations.references.iter().rev().take(THREAD_IDS_MAX - 2);
    own.chain(root).chain(near).map(|id| hash(id)).collect()
}

fn hash(id: &str) -> [u8; 16] {
    let hash = blake3::hash(id.as_bytes());
    hash.as_bytes()[..16].try_into().expect("a hash has 32 octets")
}
