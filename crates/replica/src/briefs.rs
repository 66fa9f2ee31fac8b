//! Briefs of metadata that queries made and that are kept for the next ones: reading a row for each message
//! of a large mailbox costs more than all else that a search does.
//!
//! Each store has briefs of its own. They are forgotten when a row they were made of changes, and all of
//! them with the store: never is anything told of rows that were replaced. Those to which nothing more comes
//! are kept in a file as well, from where they come back after a start.

mod file;

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use mailbox::{Block, RowChanges, Source};

use self::file::BriefsFile;
use crate::blocking::Turns;
use crate::store::{RowView, Store};

/// Limit: octets kept for all replicas of a disk, a sixteenth of the GiB that a node with a million
/// messages may take. It holds what searches read of some 400,000 messages.
const BYTES_MAX: usize = 64 << 20;
/// What a block costs besides its octets.
const OVERHEAD_BYTES: usize = 160;
/// Limit: blocks of one store that were put off, of half a million messages. Others are made by whoever asks
/// for them.
const PUT_OFF_MAX: usize = 4096;
/// Limit: how many of them are made at once, some 0.3 s of work for which other upkeep waits.
const MADE_AT_ONCE: usize = 512;

/// Of all replicas of a disk.
#[derive(Default)]
pub(crate) struct Briefs(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// With its place in `order`.
    blocks: HashMap<(u64, Block), (usize, Bytes)>,
    order: Vec<(u64, Block)>,
    bytes: usize,
    n_stores: u64,
    n_evicted: usize,
}

/// Those of one store.
pub(crate) struct StoreBriefs {
    all: Arc<Briefs>,
    store: u64,
    file: OnceLock<BriefsFile>,
    put_off: Mutex<PutOff>,
}

/// Blocks that nobody asks for here, to be made when nothing else is to be done.
#[derive(Default)]
struct PutOff {
    blocks: BTreeSet<Block>,
    /// How far the rows were when it was last asked whether there is time.
    next_index: Option<u64>,
}

impl StoreBriefs {
    /// None yet.
    pub fn new(all: Arc<Briefs>) -> Self {
        let store = {
            let mut kept = all.lock();
            kept.n_stores += 1;
            kept.n_stores
        };
        Self { all, store, file: OnceLock::new(), put_off: Mutex::default() }
    }

    /// They are in this file as well from now on, those of the same rows that it has among them.
    pub fn keep_in(&self, path: &Path) {
        self.file.get_or_init(|| BriefsFile::open(path));
    }

    /// What was kept.
    pub fn get(&self, block: &Block) -> Option<Bytes> {
        self.in_memory(block).or_else(|| self.come_back(block))
    }

    fn in_memory(&self, block: &Block) -> Option<Bytes> {
        let kept = self.all.lock();
        kept.blocks.get(&(self.store, *block)).map(|(_, briefs)| briefs.clone())
    }

    /// Takes a block from the file.
    fn come_back(&self, block: &Block) -> Option<Bytes> {
        let file = self.file.get()?;
        let briefs = file.get(block)?;
        self.put(block, &briefs);
        // Order: whoever changes its rows forgets the one in the file first.
        if !file.has(block) {
            self.all.lock().forget(&(self.store, *block));
        }
        Some(briefs)
    }

    /// Keeps briefs of the rows as they are now.
    pub fn put(&self, block: &Block, briefs: &Bytes) {
        self.all.lock().put((self.store, *block), briefs);
    }

    /// Whether what was kept outlives the process.
    pub fn is_filed(&self, block: &Block) -> bool {
        self.file.get().is_some_and(|file| file.has(block))
    }

    /// Keeps briefs for longer than the process runs, if nothing more comes to them. If `has_changed` then
    /// says that their rows did meanwhile, they are forgotten.
    pub fn file(&self, block: &Block, briefs: &Bytes, has_changed: impl FnOnce() -> bool) {
        let Some(file) = self.file.get().filter(|_| Block::is_complete(briefs)) else { return };
        file.put(block, briefs);
        if has_changed() {
            file.forget(block);
        }
    }

    /// These are to be made later, if they can be kept.
    fn put_off(&self, blocks: Vec<Block>) {
        if self.file.get().is_none() {
            return;
        }
        let mut put_off = self.those_put_off();
        let n_more = PUT_OFF_MAX.saturating_sub(put_off.blocks.len());
        put_off.blocks.extend(blocks.into_iter().take(n_more));
    }

    fn those_put_off(&self) -> MutexGuard<'_, PutOff> {
        self.put_off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These rows are something else from now on.
    pub fn change(&self, changes: &RowChanges) {
        let blocks = || changes.keys().filter_map(|key| Block::changed_by(key)).flatten();
        if blocks().next().is_none() {
            return;
        }
        if let Some(file) = self.file.get() {
            blocks().for_each(|block| file.forget(&block));
        }
        let mut kept = self.all.lock();
        blocks().for_each(|block| kept.forget(&(self.store, block)));
    }
}

impl Drop for StoreBriefs {
    fn drop(&mut self) {
        let mut kept = self.all.lock();
        let own: Vec<_> = kept.order.iter().filter(|(store, _)| *store == self.store).collect();
        let own: Vec<_> = own.into_iter().copied().collect();
        own.iter().for_each(|block| kept.forget(block));
    }
}

/// Makes the briefs of mailboxes that are being filled, while their rows are still at hand: whoever searches
/// such a one first would have each of them read from the disk. Where queries are answered (`is_asked`) they
/// are kept in memory; elsewhere they are put off, and then kept in the file alone, for the time when this
/// replica leads.
pub(crate) fn prepare(store: &Arc<Store>, came: &RowChanges, is_asked: bool) {
    let blocks = Block::completed_by(came);
    if !is_asked {
        store.own_briefs().put_off(blocks);
        return;
    }
    let mut turns = Turns::begin();
    for block in blocks {
        if !make(store, |view| mailbox::prepare(view, &block)) {
            return;
        }
        turns.pause();
    }
}

/// Whether some were put off, and nothing was committed since this was asked last.
pub(crate) fn is_time(store: &Store) -> bool {
    let next_index = Some(store.applied().next_index());
    let mut put_off = store.own_briefs().those_put_off();
    let is_quiet = std::mem::replace(&mut put_off.next_index, next_index) == next_index;
    is_quiet && !put_off.blocks.is_empty()
}

/// Makes some of those that were put off, as long as nothing is committed.
pub(crate) fn make_some(store: &Arc<Store>) {
    let next_index = store.applied().next_index();
    let mut turns = Turns::begin();
    for _ in 0..MADE_AT_ONCE {
        if store.applied().next_index() != next_index {
            return;
        }
        let block = store.own_briefs().those_put_off().blocks.pop_first();
        let Some(block) = block else { return };
        if !make(store, |view| mailbox::prepare(&Filed(view), &block)) {
            return;
        }
        turns.pause();
    }
}

/// False if it cannot be done, and so nothing more: whoever asks makes them, and finds what is wrong.
fn make(store: &Arc<Store>, prepare: impl FnOnce(&RowView)) -> bool {
    // Why one for each block: what is overwritten while there is a view has to be kept.
    let view = store.view();
    catch_unwind(AssertUnwindSafe(|| prepare(&view))).is_ok()
}

/// A view whose briefs are those of the file alone.
struct Filed<'v>(&'v RowView);

impl Source for Filed<'_> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.0.scan(from, to, visit);
    }

    fn briefs(&self, block: &Block) -> Option<Bytes> {
        self.0.are_briefs_filed(block).then(Bytes::new)
    }

    fn keep_briefs(&self, block: &Block, briefs: &Bytes) {
        self.0.file_briefs(block, briefs);
    }
}

impl Briefs {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put(&mut self, block: (u64, Block), briefs: &Bytes) {
        self.forget(&block);
        self.bytes += briefs.len() + OVERHEAD_BYTES;
        self.blocks.insert(block, (self.order.len(), briefs.clone()));
        self.order.push(block);
        while self.bytes > BYTES_MAX && self.order.len() > 1 {
            // Why anywhere: of a mailbox that is larger than this, going through it again and again, the
            // oldest would always be the ones that are wanted next.
            self.n_evicted = self.n_evicted.wrapping_add(1);
            let place = self.n_evicted.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            self.forget(&self.order[place % (self.order.len() - 1)].clone());
        }
    }

    fn forget(&mut self, block: &(u64, Block)) {
        let Some((place, briefs)) = self.blocks.remove(block) else { return };
        self.bytes -= briefs.len() + OVERHEAD_BYTES;
        self.order.swap_remove(place);
        if let Some(moved) = self.order.get(place)
            && let Some(kept) = self.blocks.get_mut(moved)
        {
            kept.0 = place;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot go on says where.

    use super::*;

    /// A key of metadata as `mailbox` writes it.
    fn key(account: u8, email: u64) -> Vec<u8> {
        [&[8][..], &[account; 16], &[0x0f], &email.to_be_bytes()].concat()
    }

    fn block(account: u8, email: u64) -> Block {
        Block::changed_by(&key(account, email)).unwrap()[0]
    }

    #[test]
    fn no_more_is_put_off_than_may_be_and_nothing_that_cannot_be_kept() {
        let (dir, briefs) = (tempfile::tempdir().unwrap(), StoreBriefs::new(Arc::default()));
        let blocks =
            |from: u64| -> Vec<Block> { (from..from + 3000).map(|n| block(1, n << 7)).collect() };
        let n_put_off = || briefs.those_put_off().blocks.len();
        briefs.put_off(blocks(0));
        assert_eq!(n_put_off(), 0, "there is no file");
        briefs.keep_in(&dir.path().join("briefs"));
        briefs.put_off(blocks(0));
        briefs.put_off(blocks(0));
        assert_eq!(n_put_off(), 3000, "each once");
        briefs.put_off(blocks(3000));
        assert_eq!(n_put_off(), PUT_OFF_MAX);
    }

    #[test]
    fn what_is_kept_stays_within_its_limit() {
        let briefs = StoreBriefs::new(Arc::default());
        let large = Bytes::from(vec![0; 1 << 20]);
        for n in 0..200 {
            briefs.put(&block(1, n << 8), &large);
            assert_eq!(briefs.get(&block(1, n << 8)), Some(large.clone()), "the last stays");
            let kept = briefs.all.lock();
            assert!(kept.bytes <= BYTES_MAX);
            assert_eq!(kept.blocks.len(), kept.order.len());
            let are_right = |(at, block)| kept.blocks.get(block).is_some_and(|kept| kept.0 == at);
            assert!(kept.order.iter().enumerate().all(are_right));
        }
        let n_left = (0..200).filter(|n| briefs.get(&block(1, n << 8)).is_some()).count();
        assert_eq!(n_left, 63);
    }

    #[test]
    fn a_store_has_its_own_and_takes_them_along() {
        let all = Arc::<Briefs>::default();
        let (one, other) = (StoreBriefs::new(all.clone()), StoreBriefs::new(all.clone()));
        one.put(&block(1, 1), &Bytes::from_static(b"one"));
        assert_eq!(other.get(&block(1, 1)), None);
        other.put(&block(1, 1), &Bytes::from_static(b"other"));
        one.put(&block(2, 1), &Bytes::from_static(b"another account"));
        one.change(&RowChanges::from([(key(1, 2), None)]));
        assert_eq!(one.get(&block(1, 1)), None, "a neighbour of it changed");
        assert!(one.get(&block(2, 1)).is_some() && other.get(&block(1, 1)).is_some());
        drop(one);
        assert_eq!(all.lock().order.len(), 1);
        drop(other);
        let kept = all.lock();
        assert_eq!((kept.blocks.len(), kept.bytes), (0, 0));
    }
}
