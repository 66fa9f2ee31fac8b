//! Briefs of metadata that queries made and that are kept for the next ones: reading a row for each message
//! of a large mailbox costs more than all else that a search does.
//!
//! Each store has briefs of its own. They are forgotten when a row they were made of changes, and all of
//! them with the store: never is anything told of rows that were replaced. Those to which nothing more comes
//! are kept in a file as well, from where they come back after a start.

mod file;

use std::collections::HashMap;
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
}

impl StoreBriefs {
    /// None yet.
    pub fn new(all: Arc<Briefs>) -> Self {
        let store = {
            let mut kept = all.lock();
            kept.n_stores += 1;
            kept.n_stores
        };
        Self { all, store, file: OnceLock::new() }
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
/// are kept in memory; elsewhere in the file alone, for the time when this replica leads.
pub(crate) fn prepare(store: &Arc<Store>, came: &RowChanges, is_asked: bool) {
    let mut turns = Turns::begin();
    for block in Block::completed_by(came) {
        // Why one for each: what is overwritten while there is a view has to be kept.
        let view = store.view();
        let made = catch_unwind(AssertUnwindSafe(|| match is_asked {
            true => mailbox::prepare(&view, &block),
            false => mailbox::prepare(&Filed(&view), &block),
        }));
        if made.is_err() {
            // Why nothing more: whoever asks makes them, and finds what is wrong.
            return;
        }
        turns.pause();
    }
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
