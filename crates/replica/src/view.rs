//! What a query reads: rows at one point of the log, and bodies as far as they are on this disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use mailbox::chunk::{CHUNK_BYTES_MAX, Codec};
use mailbox::{Bodies, ChunkRef, Digest, RowDigest, Source, StoredChunk};

use crate::codec;
use crate::disk::Disk;
use crate::store::{RowView, Store};

/// Rows as they were after one entry, whatever is applied later. Cheap to make; while it lives,
/// what is overwritten is kept for it, so it should not live longer than one query.
pub struct View {
    rows: RowView,
    disk: Arc<Disk>,
}

/// A view could not be read to its end: it lived too long, or the index is damaged and being built
/// anew. Asking again with a new view helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("view lost: {0}")]
pub struct ViewLost(pub String);

impl View {
    pub(crate) fn new(store: &Arc<Store>, disk: Arc<Disk>) -> Self {
        Self { rows: store.view(), disk }
    }

    /// Index of the last entry it contains, 0 if there is none.
    pub fn log_index(&self) -> u64 {
        self.rows.applied().log_id.map_or(0, |log_id| log_id.index)
    }

    /// The additive digest of its rows.
    pub fn digest(&self) -> RowDigest {
        self.rows.applied().digest
    }

    /// Reads; every use of the view should be in here, because a read that cannot go on unwinds.
    pub fn read<T>(
        &self,
        query: impl FnOnce(&dyn Source, &dyn Bodies) -> T,
    ) -> Result<T, ViewLost> {
        catch_unwind(AssertUnwindSafe(|| query(self, self)))
            .map_err(|panic| ViewLost(crate::state::words(&*panic)))
    }
}

impl Source for View {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.rows.scan(from, to, visit);
    }
}

impl Bodies for View {
    fn chunk(&self, chunk: &ChunkRef) -> Option<Bytes> {
        let stored = read_local(&self.disk, self.rows.store(), &chunk.digest)?;
        raw(&stored).filter(|raw| raw.len() == chunk.raw_len as usize)
    }
}

/// A chunk as it lies on this disk. Its bytes match what was written, not yet its digest.
pub(crate) fn read_local(disk: &Disk, store: &Store, digest: &Digest) -> Option<StoredChunk> {
    // Why twice: garbage collection may have moved it in between.
    for _ in 0..2 {
        let pointer = store.locate(digest).ok()??;
        match disk.journal().read_blob(pointer) {
            Ok(blob) if blob.digest == digest.0 => {
                let chunk = ChunkRef { digest: *digest, raw_len: blob.raw_len };
                let codec = codec::read_codec(blob.codec).ok()?;
                return Some(StoredChunk { chunk, codec, bytes: blob.bytes });
            }
            Err(journal::Error::Missing { .. }) => {}
            Ok(_) | Err(_) => return None,
        }
    }
    None
}

/// The raw bytes of a chunk, if they are what its digest says.
pub(crate) fn raw(stored: &StoredChunk) -> Option<Bytes> {
    let raw_len = stored.chunk.raw_len as usize;
    if raw_len == 0 || raw_len > CHUNK_BYTES_MAX {
        return None;
    }
    let raw = match stored.codec {
        Codec::Raw => stored.bytes.clone(),
        Codec::Zstd => zstd::bulk::decompress(&stored.bytes, raw_len).ok()?.into(),
    };
    (raw.len() == raw_len && Digest::of(&raw) == stored.chunk.digest).then_some(raw)
}
