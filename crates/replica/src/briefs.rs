//! Briefs of metadata that queries made and that are kept for the next ones: reading a row for each message
//! of a large mailbox costs more than all else that a search does.
//!
//! Each store has briefs of its own. They are forgotten when a row they were made of changes, and all of
//! them with the store: never is anything told of rows that were replaced.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mailbox::{Block, RowChanges};

use crate::store::Store;

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
}

impl StoreBriefs {
    /// None yet.
    pub fn new(all: Arc<Briefs>) -> Self {
        let store = {
            let mut kept = all.lock();
            kept.n_stores += 1;
            kept.n_stores
        };
        Self { all, store }
    }

    /// What was kept.
    pub fn get(&self, block: &Block) -> Option<Bytes> {
        let kept = self.all.lock();
        kept.blocks.get(&(self.store, *block)).map(|(_, briefs)| briefs.clone())
    }

    /// Keeps briefs of the rows as they are now.
    pub fn put(&self, block: &Block, briefs: &Bytes) {
        self.all.lock().put((self.store, *block), briefs);
    }

    /// These rows are something else from now on.
    pub fn change(&self, changes: &RowChanges) {
        let mut blocks = changes.keys().filter_map(|key| Block::changed_by(key)).peekable();
        if blocks.peek().is_some() {
            let mut kept = self.all.lock();
            blocks.flatten().for_each(|block| kept.forget(&(self.store, block)));
        }
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
/// such a one first would have each of them read from the disk.
pub(crate) fn prepare(store: &Arc<Store>, came: &RowChanges) {
    for block in Block::completed_by(came) {
        // Why one for each: what is overwritten while there is a view has to be kept.
        let view = store.view();
        let made = catch_unwind(AssertUnwindSafe(|| mailbox::prepare(&view, &block)));
        if made.is_err() {
            // Why nothing more: whoever asks makes them, and finds what is wrong.
            return;
        }
        std::thread::yield_now();
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
