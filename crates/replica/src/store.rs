//! The applied rows of one replica, as they were after some entry: reads at a fixed point of the log
//! beside an apply that goes on.
//!
//! A commit is done when its rows are in memory ([`Pending`]); the index gets them later, in large
//! batches, and whoever reads sees both as one.
//!
//! The index has no snapshots, so a [`RowView`] brings its own: while views exist, a commit keeps what
//! it is about to overwrite. A view that lives so long that this grows beyond a limit is given up.

mod aside;
mod commit;
mod forget;
mod pages;
mod undo;

use std::collections::VecDeque;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use journal::Pointer;
use mailbox::{Block, Digest, RowChanges, RowDigest, Source};
use tokio::sync::watch;

use self::pages::{Laid, Page};
use self::undo::{Undo, Was};
use crate::blocking::Blocking;
use crate::briefs::{self, Briefs, StoreBriefs};
use crate::codec::{self, Reader};
use crate::index::{Batch, Index, IndexError};
use crate::pending::{Lag, Layer, Pending};
use crate::raft::{LogId, StoredMembership};
use crate::recent::Recent;

/// Rows read at once by a scan of a view, which reads more each time.
const PAGE_ROWS_MIN: usize = 16;
const PAGE_ROWS_MAX: usize = 1024;
/// Pending rows laid over the index at once by a scan.
const PENDING_PAGE_ROWS: usize = 128;
/// What was committed so long ago goes to the index though it is little.
const PENDING_AGE_MAX: Duration = Duration::from_secs(10);

/// Places that are made rows of the index at once while it is built.
const LOAD_PLACES: usize = 2048;

const ROW: u8 = b'r';
const LOCATOR: u8 = b'l';
const APPLIED: &[u8] = b"m/applied";
const CRC_BYTES: usize = 4;

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// How far the rows are, and what covers them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
    pub digest: RowDigest,
}

impl Applied {
    /// Index of the first entry that is not applied.
    pub fn next_index(&self) -> u64 {
        self.log_id.map_or(0, |log_id| log_id.index + 1)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        codec::put_optional_log_id(&mut out, self.log_id.as_ref());
        out.put_slice(&mailbox::codec::encode(&self.digest));
        let digest_end = out.len() as u32;
        out.put_slice(&codec::encode_stored_membership(&self.membership));
        out.put_u32(digest_end);
        out
    }

    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        let digest_end = bytes.split_off(bytes.len().checked_sub(4)?).get_u32() as usize;
        let mut reader = Reader(bytes.split_to(digest_end.min(bytes.len())));
        let log_id = reader.optional_log_id().ok()?;
        let digest = mailbox::codec::decode(&reader.0).ok()?;
        Some(Self { log_id, membership: codec::read_stored_membership(bytes).ok()?, digest })
    }
}

/// What some entries changed.
#[derive(Default)]
pub(crate) struct Changed {
    pub rows: RowChanges,
    /// Keys that had no row before, in their order.
    pub new_keys: Vec<Vec<u8>>,
    /// What rows were before, as far as that is known.
    pub before: RowChanges,
}

impl From<(RowChanges, Vec<Vec<u8>>)> for Changed {
    fn from((rows, new_keys): (RowChanges, Vec<Vec<u8>>)) -> Self {
        Self { rows, new_keys, before: RowChanges::new() }
    }
}

/// Why a view cannot go on; carried by an unwinding that whoever reads catches.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// The index is damaged and has to be rebuilt.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The view was too old.
    #[error("view expired")]
    Expired,
}

/// The rows of one replica in their index.
pub(crate) struct Store {
    index: Box<dyn Index>,
    /// Held by whoever commits, and by who keeps others from it. It may wait for the disk, so nobody locks
    /// this who is not to; it is locked before all but `writing`.
    turn: Mutex<()>,
    /// Held while a view is opened, and for what is changed at once by a commit.
    commit: Mutex<Applied>,
    /// What the index does not have yet.
    pending: RwLock<Pending>,
    /// Held by whoever writes to the index what was pending.
    writing: Mutex<()>,
    /// Told whenever somebody has written, or could not.
    written: watch::Sender<()>,
    undo: Mutex<Undo>,
    /// What the one who commits looked at lately.
    recent: Mutex<Recent>,
    briefs: StoreBriefs,
    n_forgotten: AtomicU32,
    damaged: AtomicBool,
}

/// Tells those who wait that a writer is done, however it ended.
struct Told<'s>(&'s watch::Sender<()>);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.send_replace(());
    }
}

impl Store {
    /// Rows as the index has them; `briefs` are where those of all replicas of the disk are kept.
    pub fn open(
        index: Box<dyn Index>,
        replica: u64,
        briefs: Arc<Briefs>,
    ) -> Result<Arc<Self>, IndexError> {
        let applied = match index.value(APPLIED)? {
            None => Applied::default(),
            Some(value) => {
                let value = unseal(APPLIED, value)?;
                Applied::decode(value.into()).ok_or_else(|| damaged(APPLIED))?
            }
        };
        Ok(Arc::new(Self {
            index,
            turn: Mutex::default(),
            commit: Mutex::new(applied),
            pending: RwLock::new(Pending::new(replica)),
            writing: Mutex::default(),
            written: watch::Sender::default(),
            undo: Mutex::default(),
            recent: Mutex::default(),
            briefs: StoreBriefs::new(briefs),
            n_forgotten: AtomicU32::new(0),
            damaged: AtomicBool::new(false),
        }))
    }

    /// Briefs of its rows are kept in this file as well from now on.
    pub fn keep_briefs_in(&self, path: &Path) {
        self.briefs.keep_in(path);
    }

    /// Its briefs.
    pub fn own_briefs(&self) -> &StoreBriefs {
        &self.briefs
    }

    /// How far the rows are.
    pub fn applied(&self) -> Applied {
        lock(&self.commit).clone()
    }

    /// Whether a read or write failed: the index has to be rebuilt.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Has what was committed so far written to the index, and does not wait for it. Queries are prepared for
    /// what came, at once where they are answered (`is_asked`).
    ///
    /// Why aside: a layer is some 10 ms of a core's work, and replicas have one to write at any time while a
    /// large mailbox is changed. Whoever is to be answered meanwhile would wait for its turn among them.
    pub fn begin_settling(self: &Arc<Self>, blocking: Blocking, is_asked: bool) {
        self.pending.write().unwrap_or_else(PoisonError::into_inner).call();
        let store = self.clone();
        // Why the result is dropped: a failure marks the index damaged, and it is rebuilt.
        blocking.begin_aside(move || {
            if let Ok(Some(layer)) = store.write_pending() {
                briefs::prepare(&store, &layer.rows, is_asked);
            }
        });
    }

    /// Whether the index is being written to, or about to be.
    pub fn is_writing(&self) -> bool {
        self.pending().is_writing()
    }

    /// Until the index has what is being written to it, or can take nothing any more.
    pub async fn written(&self) {
        let mut written = self.written.subscribe();
        // Order: whoever ends after this was looked at is heard of.
        if self.is_writing() && !self.is_damaged() {
            drop(written.changed().await);
        }
    }

    /// Writes to the index what was committed so far.
    pub fn settle(&self) -> Result<(), IndexError> {
        self.write_pending().map(drop)
    }

    fn write_pending(&self) -> Result<Option<Arc<Layer>>, IndexError> {
        let _told = Told(&self.written);
        let _one_at_a_time = lock(&self.writing);
        if self.is_damaged() {
            // Invariant: no layer is in the index without those before it, and one that could not be written
            // stays readable.
            return Err(IndexError("it was given up".into()));
        }
        let layer = self.pending.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(layer) = layer else { return Ok(None) };
        self.checked(self.index.write(batch(&layer)))?;
        self.pending.write().unwrap_or_else(PoisonError::into_inner).written();
        Ok(Some(layer))
    }

    /// Whether something was committed long ago and is still not in the index.
    pub fn is_stale(&self) -> bool {
        let begun = self.pending().begun();
        begun.is_some_and(|begun| begun.elapsed() > PENDING_AGE_MAX)
    }

    /// Writes rows as they are, while the index is built and nobody reads it.
    pub fn load(&self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), IndexError> {
        let sealed = rows.into_iter().map(|(key, value)| {
            let key = prefixed(ROW, &key);
            let value = seal(&key, &value);
            (key, Some(value))
        });
        self.checked(self.index.load(sealed.collect()))
    }

    /// Writes where bodies are while the index is built and nobody reads it; the last place of a body is
    /// what stays.
    pub fn load_places(&self, mut places: Vec<(Digest, Pointer)>) -> Result<(), IndexError> {
        // Why: neighbours of the index lie in one page of it. Places of one body stay in their order.
        places.sort_by_key(|(digest, _)| *digest);
        for some in places.chunks(LOAD_PLACES) {
            let rows = some.iter().map(|(digest, pointer)| place_row(digest, Some(*pointer)));
            self.checked(self.index.load(rows.collect()))?;
        }
        Ok(())
    }

    /// Writes where bodies are, without any entry.
    pub fn place(&self, places: &[(Digest, Pointer)]) -> Result<(), IndexError> {
        self.put_places(places.iter().map(|(digest, pointer)| (*digest, Some(*pointer))))
    }

    fn put_places(
        &self,
        places: impl Iterator<Item = (Digest, Option<Pointer>)>,
    ) -> Result<(), IndexError> {
        self.write_places(&lock(&self.writing), places)
    }

    /// The same, for who has the lock `writing`.
    fn write_places(
        &self,
        _one_at_a_time: &MutexGuard<'_, ()>,
        places: impl Iterator<Item = (Digest, Option<Pointer>)>,
    ) -> Result<(), IndexError> {
        let batch: Batch = {
            let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
            let settled = places.filter(|(digest, place)| !pending.replace(digest, *place));
            settled.map(|(digest, place)| place_row(&digest, place)).collect()
        };
        if batch.is_empty() { Ok(()) } else { self.checked(self.index.write(batch)) }
    }

    /// Whether the index is being written to, and as much waits already.
    pub fn is_behind(&self) -> bool {
        self.pending().lag() >= Lag::Behind
    }

    /// Whether what waits for the index is to be written to it.
    pub fn is_due(&self) -> bool {
        self.pending().lag() > Lag::Little
    }

    /// Where a body is.
    pub fn locate(&self, digest: &Digest) -> Result<Option<Pointer>, IndexError> {
        if let Some(place) = self.pending().place(digest) {
            return Ok(place);
        }
        let key = prefixed(LOCATOR, &digest.0);
        let Some(value) = self.checked(self.index.value(&key))? else { return Ok(None) };
        let value = self.checked(unseal(&key, value))?;
        self.checked(decode_pointer(&value).map(Some).ok_or_else(|| damaged(&key)))
    }

    /// Up to `limit` bodies this replica has, in the order of their digests, after `after`.
    pub fn bodies(
        &self,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<Vec<(Digest, Pointer)>, IndexError> {
        self.settle()?;
        let from = after.map_or(vec![LOCATOR], |digest| {
            let mut key = prefixed(LOCATOR, &digest.0);
            key.push(0);
            key
        });
        let (mut found, mut bad) = (Vec::new(), None);
        let scanned = self.index.scan(&from, &[LOCATOR + 1], &mut |key, value| {
            let digest = key[1..].try_into().map(Digest).map_err(|_| damaged(key));
            let place = digest.and_then(|digest| {
                let pointer = decode_pointer(check(key, value)?).ok_or_else(|| damaged(key))?;
                Ok((digest, pointer))
            });
            match place {
                Ok(place) => found.push(place),
                Err(error) => bad = Some(error),
            }
            bad.is_none() && found.len() < limit
        });
        self.checked(bad.map_or(scanned, Err))?;
        Ok(found)
    }

    /// The index is not to be used any more.
    pub fn give_up(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// The rows as they are now, whatever is applied later.
    pub fn view(self: &Arc<Self>) -> RowView {
        let at = lock(&self.commit);
        let version = lock(&self.undo).open();
        let (applied, ascends) = (at.clone(), AtomicBool::new(false));
        RowView { store: self.clone(), version, applied, ascends }
    }

    /// Reads every row of the index, ascending, and says whether they add up to the digest they should
    /// have; `visit` sees each before that is known.
    pub fn verify(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<bool, IndexError> {
        let mut digest = RowDigest::default();
        let mut bad = None;
        self.index.scan(&[ROW], &[ROW + 1], &mut |key, value| match check(key, value) {
            Ok(value) => {
                digest.add(&key[1..], value);
                visit(&key[1..], value);
                true
            }
            Err(error) => {
                bad = Some(error);
                false
            }
        })?;
        match bad {
            Some(error) => Err(error),
            None => Ok(digest == lock(&self.commit).digest),
        }
    }

    /// Reads where every body is; an error if that of one is damaged.
    pub fn verify_places(&self, visit: &mut dyn FnMut()) -> Result<(), IndexError> {
        let mut bad = None;
        let scanned = self.index.scan(&[LOCATOR], &[LOCATOR + 1], &mut |key, value| {
            visit();
            bad = check(key, value).err();
            bad.is_none()
        });
        bad.map_or(scanned, Err)
    }

    /// Hands everything to the operating system.
    pub fn flush(&self) -> Result<(), IndexError> {
        self.settle()?;
        self.index.flush()
    }

    /// Whether there is a view, so that what rows were is wanted with the next commit.
    pub fn has_views(&self) -> bool {
        lock(&self.undo).has_views()
    }

    /// Bytes of rows kept for views.
    pub fn kept_bytes(&self) -> usize {
        lock(&self.undo).kept_bytes()
    }

    fn pending(&self) -> RwLockReadGuard<'_, Pending> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value a row has now.
    fn now(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        // Invariant: pending rows are looked at first: what leaves them meanwhile is in the index.
        if let Some(value) = self.pending().row(key) {
            return Ok(value.clone());
        }
        let key = prefixed(ROW, key);
        let value = self.checked(self.index.value(&key))?;
        self.checked(value.map(|value| unseal(&key, value)).transpose())
    }

    /// The same, kept for the next time. Only for the one who commits: what others read at the same
    /// time may be old when it is noted.
    fn known(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        // Invariant: each commit changes these as well, so they are what is pending says.
        if let Some(value) = lock(&self.recent).get(key) {
            return Ok(value.clone());
        }
        let value = self.now(key)?;
        lock(&self.recent).note(key, &value);
        Ok(value)
    }

    fn checked<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if result.is_err() {
            self.damaged.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// What `apply` reads: the rows as they are, without the cost of a view. Only the one who commits
/// may use it.
impl Source for Store {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.known(key).unwrap_or_else(|error| give_up(error.into()))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let mut from = from.to_vec();
        while from.as_slice() < to {
            let (page, rest) = self.pending().page(&from, to, PENDING_PAGE_ROWS);
            let end = rest.as_deref().unwrap_or(to);
            if !self.scan_over(&from, end, page, visit) {
                return;
            }
            let Some(rest) = rest else { return };
            from = rest;
        }
    }
}

impl Store {
    /// Visits the rows of the index with these laid over them; false if `visit` gave false.
    fn scan_over(
        &self,
        from: &[u8],
        to: &[u8],
        over: RowChanges,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> bool {
        let mut laid = Laid::over(over);
        let mut bad = None;
        let (begin, end) = (prefixed(ROW, from), prefixed(ROW, to));
        let scanned = self.index.scan(&begin, &end, &mut |key, value| match check(key, value) {
            Ok(value) => laid.visit(&key[1..], value, visit),
            Err(error) => {
                bad = Some(error);
                false
            }
        });
        let result = bad.map_or(scanned, Err);
        self.checked(result).unwrap_or_else(|error| give_up(error.into()));
        laid.finish(visit)
    }
}

/// The rows as they were at one point of the log.
pub(crate) struct RowView {
    store: Arc<Store>,
    version: u64,
    applied: Applied,
    /// It has told what it has passed.
    ascends: AtomicBool,
}

impl RowView {
    /// Where in the log this is.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Nobody asks this view, the only one of its store that tells it, for a row before this one any more.
    pub fn pass(&self, key: &[u8]) {
        self.ascends.store(true, Ordering::Relaxed);
        let unwanted = lock(&self.store.undo).pass(self.version, key);
        // Why not before: whoever commits waits for the lock.
        drop(unwanted);
    }

    /// A row, or why it cannot be told.
    pub fn try_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let read = std::panic::AssertUnwindSafe(|| self.row(key));
        std::panic::catch_unwind(read).map_err(|panic| crate::state::words(&*panic))
    }

    /// All rows, ascending; an error if the view cannot be read to its end.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row, Lost>> {
        let (mut from, mut page) = (Vec::new(), VecDeque::new());
        let mut is_done = false;
        std::iter::from_fn(move || {
            if page.is_empty() && !is_done {
                match self.page(&from, PAGE_ROWS_MAX) {
                    Ok(rows) => page = rows.into(),
                    Err(lost) => {
                        is_done = true;
                        return Some(Err(lost));
                    }
                }
                is_done = page.len() < PAGE_ROWS_MAX;
                if let Some((last, _)) = page.back() {
                    from.clone_from(last);
                    from.push(0);
                }
            }
            page.pop_front().map(Ok)
        })
    }

    /// Up to so many rows from a key on.
    pub fn page(&self, from: &[u8], limit: usize) -> Result<Vec<Row>, Lost> {
        let mut rows = Vec::new();
        let scan = std::panic::AssertUnwindSafe(|| {
            self.scan(from, &[u8::MAX; 64], &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                rows.len() < limit
            });
        });
        match std::panic::catch_unwind(scan) {
            Ok(()) => Ok(rows),
            Err(panic) => Err(match panic.downcast::<Lost>() {
                Ok(lost) => *lost,
                // Why: an engine that panics is damaged as well.
                Err(panic) => IndexError(crate::state::words(&*panic)).into(),
            }),
        }
    }

    /// Whether briefs are kept for longer than the process runs.
    pub fn are_briefs_filed(&self, block: &Block) -> bool {
        self.store.briefs.is_filed(block)
    }

    /// Has briefs made of its rows kept so, if these have not changed since.
    pub fn file_briefs(&self, block: &Block, briefs: &Bytes) {
        self.store.briefs.file(block, briefs, || self.has_changed(block));
    }

    /// Whether any of the rows of a block is not what it was.
    fn has_changed(&self, block: &Block) -> bool {
        let (from, to) = block.rows();
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        lock(&self.store.undo).has_changed(self.version, range)
    }

    /// The rows it is a view of.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What rows of a range were that have changed since, ascending.
    fn before(&self, from: &[u8], to: Bound<&[u8]>) -> impl Iterator<Item = Was> {
        let (mut next, mut some) = (Some(from.to_vec()), Vec::new().into_iter());
        std::iter::from_fn(move || {
            loop {
                if let Some(row) = some.next() {
                    return Some(row);
                }
                let from = next.take()?;
                let undo = lock(&self.store.undo);
                if self.version < undo.floor {
                    drop(undo);
                    give_up(Lost::Expired);
                }
                let found;
                (found, next) = undo.some_at(self.version, (Bound::Included(&from), to));
                some = found.into_iter();
            }
        })
    }
}

impl Source for RowView {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        // Invariant: the index is read first. Had a commit overwritten the row before that, what
        // it was would be in the chain by now.
        let now = self.store.now(key).unwrap_or_else(|error| give_up(error.into()));
        let undo = lock(&self.store.undo);
        if self.version < undo.floor {
            drop(undo);
            give_up(Lost::Expired);
        }
        undo.at(self.version, key).map_or(now, |before| before.value.clone())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let mut from = from.to_vec();
        let mut page = Page::default();
        let mut n_rows = PAGE_ROWS_MIN;
        while from.as_slice() < to {
            page.clear();
            self.store.scan(&from, to, &mut |key, value| {
                page.push(key, value);
                !page.is_full(n_rows)
            });
            let last = page.rows().last().filter(|_| page.is_full(n_rows));
            let end = last.map_or(Bound::Excluded(to), |(key, _)| Bound::Included(key));
            // Invariant: current rows are read first, see `row`.
            let mut laid = Laid::over(self.before(&from, end));
            let more = page.rows().all(|(key, value)| laid.visit(key, value, visit));
            if !more || !laid.finish(visit) {
                return;
            }
            let Some((last, _)) = last else { return };
            from = last.to_vec();
            from.push(0);
            n_rows = (n_rows * 2).min(PAGE_ROWS_MAX);
        }
    }

    fn briefs(&self, block: &Block) -> Option<Bytes> {
        self.store.briefs.get(block)
    }

    fn keep_briefs(&self, block: &Block, briefs: &Bytes) {
        let (from, to) = block.rows();
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let undo = lock(&self.store.undo);
        if !undo.has_changed(self.version, range) {
            self.store.briefs.put(block, briefs);
        }
        drop(undo);
        self.file_briefs(block, briefs);
    }
}

impl Drop for RowView {
    fn drop(&mut self) {
        let ascends = self.ascends.load(Ordering::Relaxed);
        let left = lock(&self.store.undo).close(self.version, ascends);
        undo::let_go(&self.store, left);
    }
}

/// Ends the current read or apply; whoever began it catches this and tells the replica.
fn give_up(why: Lost) -> ! {
    std::panic::resume_unwind(Box::new(why))
}

/// A layer as the index gets it.
fn batch(layer: &Layer) -> Batch {
    let mut batch = Batch::with_capacity(layer.rows.len() + layer.places.len() + 1);
    for (key, value) in &layer.rows {
        let key = prefixed(ROW, key);
        let value = value.as_ref().map(|value| seal(&key, value));
        batch.push((key, value));
    }
    let mut places: Vec<_> = layer.places.iter().collect();
    // Why: neighbours of the index lie in one page of it.
    places.sort_unstable_by_key(|(digest, _)| **digest);
    batch.extend(places.into_iter().map(|(digest, place)| place_row(digest, *place)));
    if let Some(applied) = &layer.applied {
        batch.push((APPLIED.to_vec(), Some(seal(APPLIED, &applied.encode()))));
    }
    batch
}

fn place_row(digest: &Digest, place: Option<Pointer>) -> (Vec<u8>, Option<Vec<u8>>) {
    let key = prefixed(LOCATOR, &digest.0);
    let value = place.map(|pointer| seal(&key, &encode_pointer(&pointer)));
    (key, value)
}

fn prefixed(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    out.push(prefix);
    out.extend_from_slice(key);
    out
}

/// A value with the checksum over it and its key behind it.
fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + CRC_BYTES);
    sealed.extend_from_slice(value);
    sealed.put_u32(crc32c::crc32c_append(crc32c::crc32c(key), value));
    sealed
}

fn unseal(key: &[u8], mut value: Vec<u8>) -> Result<Vec<u8>, IndexError> {
    let len = check(key, &value)?.len();
    value.truncate(len);
    Ok(value)
}

fn check<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], IndexError> {
    let Some(len) = value.len().checked_sub(CRC_BYTES) else { return Err(damaged(key)) };
    let (value, mut crc) = value.split_at(len);
    if crc.get_u32() == crc32c::crc32c_append(crc32c::crc32c(key), value) {
        Ok(value)
    } else {
        Err(damaged(key))
    }
}

fn damaged(key: &[u8]) -> IndexError {
    IndexError(format!("row of {} key bytes is damaged", key.len()))
}

fn encode_pointer(pointer: &Pointer) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    out.put_u64(pointer.segment.0);
    out.put_u64(pointer.offset);
    out.put_u32(pointer.len);
    out
}

fn decode_pointer(mut bytes: &[u8]) -> Option<Pointer> {
    Some(Pointer {
        segment: journal::SegmentId(bytes.try_get_u64().ok()?),
        offset: bytes.try_get_u64().ok()?,
        len: bytes.try_get_u32().ok()?,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Why: a panic while the lock was held is a caught read; the data is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
