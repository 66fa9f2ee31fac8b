//! What a query reads: rows at one point of the log, and bodies as far as they are on this disk.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use journal::{Location, Pointer, ReplicaId};
use mailbox::chunk::{CHUNK_BYTES_MAX, Codec};
use mailbox::{Block, Bodies, ChunkRef, Digest, RowDigest, Source, StoredChunk};
use zstd::bulk::Decompressor;

use crate::codec;
use crate::disk::Disk;
use crate::store::{RowView, Store};

/// Rows as they were after one entry, whatever is applied later. Cheap to make; while it lives,
/// what is overwritten is kept for it, so it should not live longer than one query.
pub struct View {
    rows: RowView,
    disk: Arc<Disk>,
    owner: Option<ReplicaId>,
}

/// A view could not be read to its end: it lived too long, or the index is damaged and being built
/// anew. Asking again with a new view helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("view lost: {0}")]
pub struct ViewLost(pub String);

impl View {
    /// `owner` is whose bodies they are, if none of them should be missing here.
    pub(crate) fn new(store: &Arc<Store>, disk: Arc<Disk>, owner: Option<ReplicaId>) -> Self {
        Self { rows: store.view(), disk, owner }
    }

    /// Index of the last entry it contains, 0 if there is none.
    pub fn log_index(&self) -> u64 {
        self.rows.applied().log_id.map_or(0, |log_id| log_id.index)
    }

    /// The additive digest of its rows.
    pub fn digest(&self) -> RowDigest {
        self.rows.applied().digest
    }

    /// Has something done with it: here and now, or, if this thread serves other disks as well, on one that
    /// may wait for this disk. `None` if that panicked.
    pub async fn apart<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let apart = self.disk.apart().clone();
        if !apart.has_others() {
            return Some(work(&self));
        }
        apart.serve(move || work(&self)).await.ok()
    }

    /// Reads; every use of the view should be in here, because a read that cannot go on unwinds.
    pub fn read<T>(
        &self,
        query: impl FnOnce(&dyn Source, &dyn Bodies) -> T,
    ) -> Result<T, ViewLost> {
        catch_unwind(AssertUnwindSafe(|| query(self, self)))
            .map_err(|panic| ViewLost(crate::state::words(&*panic)))
    }

    /// The same for as long as somebody waits for it, which is asked at each row and each chunk, and where
    /// the query pauses.
    pub fn read_while<T>(
        &self,
        is_wanted: &dyn Fn() -> bool,
        query: impl FnOnce(&dyn Source, &dyn Bodies) -> T,
    ) -> Result<T, ViewLost> {
        let wanted = Wanted { view: self, is_wanted };
        catch_unwind(AssertUnwindSafe(|| query(&wanted, &wanted))).map_err(|panic| {
            match panic.is::<Unwanted>() {
                true => ViewLost("nobody waits for it".into()),
                false => ViewLost(crate::state::words(&*panic)),
            }
        })
    }
}

/// A view while somebody waits for what is read.
struct Wanted<'v> {
    view: &'v View,
    is_wanted: &'v dyn Fn() -> bool,
}

/// Carried by the unwinding that ends a read nobody waits for.
struct Unwanted;

impl Wanted<'_> {
    fn look(&self) {
        if !(self.is_wanted)() {
            std::panic::resume_unwind(Box::new(Unwanted));
        }
    }
}

impl Source for Wanted<'_> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.look();
        self.view.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.view.scan(from, to, &mut |key, value| {
            self.look();
            visit(key, value)
        });
    }

    fn pause(&self) {
        self.look();
    }

    fn briefs(&self, block: &Block) -> Option<Bytes> {
        self.look();
        self.view.briefs(block)
    }

    fn keep_briefs(&self, block: &Block, briefs: &Bytes) {
        self.view.keep_briefs(block, briefs);
    }
}

impl Bodies for Wanted<'_> {
    fn chunk(&self, chunk: &ChunkRef) -> Option<Bytes> {
        self.look();
        self.view.chunk(chunk)
    }
}

impl Source for View {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.rows.scan(from, to, visit);
    }

    fn briefs(&self, block: &Block) -> Option<Bytes> {
        self.rows.briefs(block)
    }

    fn keep_briefs(&self, block: &Block, briefs: &Bytes) {
        self.rows.keep_briefs(block, briefs);
    }
}

impl Bodies for View {
    fn chunk(&self, chunk: &ChunkRef) -> Option<Bytes> {
        let stored = read_local(&self.disk, self.owner, self.rows.store(), &chunk.digest)?;
        raw(&stored).filter(|raw| raw.len() == chunk.raw_len as usize)
    }
}

/// A chunk as it lies on this disk. Its bytes match what was written, not yet its digest. If the
/// index does not lead to it, it is looked for: on a thread that may block.
pub(crate) fn read_local(
    disk: &Disk,
    owner: Option<ReplicaId>,
    store: &Store,
    digest: &Digest,
) -> Option<StoredChunk> {
    read_located(disk, store, digest).or_else(|| look_for(disk, owner?, store, digest))
}

/// The same, if the index leads to it.
pub(crate) fn read_located(disk: &Disk, store: &Store, digest: &Digest) -> Option<StoredChunk> {
    let mut gone = None;
    while let Some(pointer) = store.locate(digest).ok()? {
        if let Some(found) = read_at(disk, digest, pointer) {
            return Some(found);
        }
        // Why again: garbage collection may have moved it in between.
        if gone.replace(pointer) == Some(pointer) {
            break;
        }
    }
    None
}

/// The same, looked for among all bodies of its owner, which reads the end of each segment: after a
/// crash the index may have lost its place, or name one it is not at any more.
pub(crate) fn look_for(
    disk: &Disk,
    owner: ReplicaId,
    store: &Store,
    digest: &Digest,
) -> Option<StoredChunk> {
    let (found, pointer) = find(disk, owner, digest)?;
    store.place(&[(*digest, pointer)]).ok()?;
    Some(found)
}

fn read_at(disk: &Disk, digest: &Digest, pointer: Pointer) -> Option<StoredChunk> {
    let blob = match disk.journal().read_blob(pointer) {
        Ok(blob) => blob,
        Err(journal::Error::Corrupt { .. }) => {
            disk.found_damage(pointer.segment, pointer.offset);
            return None;
        }
        Err(_) => return None,
    };
    let chunk = ChunkRef { digest: *digest, raw_len: blob.raw_len };
    let codec = codec::read_codec(blob.codec).ok()?;
    let bytes = blob.bytes;
    (blob.digest == digest.0).then_some(StoredChunk { chunk, codec, bytes })
}

/// Looks for a chunk in the whole journal, the youngest segments first.
fn find(disk: &Disk, owner: ReplicaId, digest: &Digest) -> Option<(StoredChunk, Pointer)> {
    let journal = disk.journal();
    journal.segments().into_iter().rev().find_map(|segment| {
        let locations = journal.blob_locations(segment).ok()?;
        let is_it = |at: &&Location| at.replica == owner && at.digest == digest.0;
        let read = |at: &Location| Some((read_at(disk, digest, at.pointer)?, at.pointer));
        locations.iter().filter(is_it).find_map(read)
    })
}

/// The raw bytes of a chunk, if they are what its digest says.
pub(crate) fn raw(stored: &StoredChunk) -> Option<Bytes> {
    let raw_len = stored.chunk.raw_len as usize;
    if raw_len == 0 || raw_len > CHUNK_BYTES_MAX {
        return None;
    }
    let raw = match stored.codec {
        Codec::Raw => stored.bytes.clone(),
        Codec::Zstd => decompress(&stored.bytes, raw_len)?.into(),
    };
    (raw.len() == raw_len && Digest::of(&raw) == stored.chunk.digest).then_some(raw)
}

/// One zstd frame of at most so many bytes. The context is kept by thread: making one costs more than
/// a small chunk.
pub(crate) fn decompress(packed: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = Decompressor::new().ok();
        }
        decompressor.as_mut()?.decompress(packed, raw_len).ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot go on says where.

    use journal::Record;
    use mailbox::ShardId;

    use super::*;
    use crate::disk::DiskOptions;
    use crate::local::Local;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_that_nobody_waits_for_ends_at_the_next_row_or_chunk_or_pause() {
        let dir = tempfile::tempdir().unwrap();
        Disk::format(dir.path()).unwrap();
        let journal = journal::Options { reserve_segments: 0, ..journal::Options::default() };
        let options = DiskOptions { journal, ..DiskOptions::default() };
        let disk = Disk::open(dir.path(), options).unwrap();
        let claim = disk.claim(0, ShardId(1)).await.unwrap();
        let local = Local { disk: disk.clone(), replica: 0 };
        let (store, _checkpoints) = local.open(&claim.log).await.unwrap();
        let view = View::new(&store, disk, None);
        let chunk = StoredChunk::raw(Bytes::from_static(b"a body")).chunk;
        let n_looks = std::cell::Cell::new(0);
        let for_a_while = || n_looks.replace(n_looks.get() + 1) < 2;
        let read = view.read_while(&for_a_while, |rows, bodies| {
            assert_eq!((rows.row(b"a"), bodies.chunk(&chunk)), (None, None));
            rows.row(b"b")
        });
        assert_eq!(read, Err(ViewLost("nobody waits for it".into())));
        assert_eq!(n_looks.get(), 3);
        let read = view.read_while(&|| false, |rows, _| rows.pause());
        assert_eq!(read, Err(ViewLost("nobody waits for it".into())));
        assert_eq!(view.read_while(&|| true, |rows, _| rows.row(b"b")), Ok(None));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_whose_place_was_forgotten_is_found_by_who_looks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        Disk::format(dir.path()).unwrap();
        let journal = journal::Options { reserve_segments: 0, ..journal::Options::default() };
        let options = DiskOptions { journal, ..DiskOptions::default() };
        let disk = Disk::open(dir.path(), options).unwrap();
        let claim = disk.claim(0, ShardId(1)).await.unwrap();
        let local = Local { disk: disk.clone(), replica: 0 };
        let (store, _checkpoints) = local.open(&claim.log).await.unwrap();
        let stored = StoredChunk::raw(Bytes::from_static(b"a body"));
        let (digest, owner) = (stored.chunk.digest, ReplicaId(0));
        let record = Record::Blobs { replica: owner, blobs: vec![crate::log::blob(&stored)] };
        disk.write(vec![record]).await.unwrap();
        assert_eq!(read_located(&disk, &store, &digest), None, "nobody looks through the journal");
        assert_eq!(read_local(&disk, None, &store, &digest), None, "it may well be missing");
        assert_eq!(read_local(&disk, Some(owner), &store, &digest), Some(stored.clone()));
        assert_eq!(read_located(&disk, &store, &digest), Some(stored), "its place is known again");
    }
}
