//! Which rows changed since the last checkpoint.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use foldhash::fast::RandomState;
use mailbox::RowChanges;

use crate::blocking::Turns;
use crate::pending::share_percent;
use crate::upkeep::Upkeep;

/// A delta is due after so many bytes of changed keys in memory, whatever [`Upkeep`] says; of that, each
/// replica takes a share of its own, so that those of one machine do not all write at the same moment.
const KEY_BYTES_MAX: usize = 16 << 20;
/// Limit: bytes of changed keys in memory while no checkpoint can be written: what a few that were due left.
/// Above it they are forgotten, and the next checkpoint is a base, which needs none.
const KEPT_KEY_BYTES_MAX: usize = 4 * KEY_BYTES_MAX;
/// Keys among which one that changes again is recognised: whoever commits looks for each, and so few stay in
/// the processor's cache. The few rows that change with every command are kept once for so many others.
const YOUNG_KEYS: usize = 2048;
/// What a key costs besides its bytes.
const OVERHEAD_BYTES: usize = 48;

/// See the module.
#[derive(Default)]
pub(crate) struct Dirty {
    /// Why bounded: a table that grows is copied whole, and whoever commits waits for it.
    young: HashSet<Vec<u8>, RandomState>,
    /// Those before, in no order; some are there more than once.
    old: Vec<Vec<Vec<u8>>>,
    key_bytes: usize,
    bytes: usize,
    entries: u64,
}

impl Dirty {
    /// A batch is about to be written. The lock is held until it is.
    pub fn note(&mut self, changes: &RowChanges, n_entries: usize) {
        self.entries += n_entries as u64;
        for (key, value) in changes {
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            self.insert(key);
        }
    }

    pub fn insert(&mut self, key: &[u8]) {
        if self.young.contains(key) {
            return;
        }
        if self.young.len() >= YOUNG_KEYS {
            self.old.push(self.young.drain().collect());
        }
        self.key_bytes += key.len() + OVERHEAD_BYTES;
        self.young.insert(key.to_vec());
    }

    /// What was taken and could not be written changed as well. Why no look at any key: whoever commits waits
    /// for this.
    pub fn give_back(&mut self, mut taken: Self) {
        taken.old.append(&mut self.old);
        self.old = taken.old;
        if !taken.young.is_empty() {
            self.old.push(taken.young.into_iter().collect());
        }
        self.key_bytes += taken.key_bytes;
        self.bytes += taken.bytes;
        self.entries += taken.entries;
    }

    /// Everything, if it is more than is kept.
    pub fn take_too_many(&mut self) -> Option<Self> {
        (self.key_bytes > KEPT_KEY_BYTES_MAX).then(|| std::mem::take(self))
    }

    /// All keys in their order, each once.
    pub fn keys(&self) -> Vec<&[u8]> {
        let all = self.old.iter().flatten().chain(&self.young);
        let mut keys: Vec<&[u8]> = all.map(Vec::as_slice).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The same, for whoever has time: others get their turn meanwhile.
    pub fn keys_in_turns(&self, turns: &mut Turns) -> impl Iterator<Item = &[u8]> + use<'_> {
        let mut runs = Vec::with_capacity(self.old.len() + 1);
        let young: Vec<&[u8]> = self.young.iter().map(Vec::as_slice).collect();
        let old = self.old.iter().map(|keys| keys.iter().map(Vec::as_slice).collect());
        for mut keys in old.chain([young]) {
            keys.sort_unstable();
            runs.push(keys.into_iter());
            turns.pause();
        }
        let mut heads: BinaryHeap<Reverse<(&[u8], usize)>> = BinaryHeap::with_capacity(runs.len());
        heads.extend(
            runs.iter_mut().enumerate().filter_map(|(n, run)| Some(Reverse((run.next()?, n)))),
        );
        let mut last: Option<&[u8]> = None;
        std::iter::from_fn(move || {
            loop {
                let Reverse((key, n)) = heads.pop()?;
                heads.extend(runs[n].next().map(|next| Reverse((next, n))));
                if last != Some(key) {
                    last = Some(key);
                    return last;
                }
            }
        })
    }

    /// Gives back what it takes of memory; others get their turn meanwhile.
    pub fn let_go(self, turns: &mut Turns) {
        for keys in self.old {
            drop(keys);
            turns.pause();
        }
    }

    /// Whether a delta is due.
    pub fn is_due(&self, upkeep: &Upkeep, replica: u64) -> bool {
        self.bytes >= upkeep.delta_bytes
            || self.entries >= upkeep.delta_entries
            || self.key_bytes >= KEY_BYTES_MAX / 100 * share_percent(replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_order_and_once_however_many_there_are() {
        let mut dirty = Dirty::default();
        let key = |n: u32| n.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let n_keys = YOUNG_KEYS as u32 * 3 + 7;
        for n in 0..n_keys {
            dirty.insert(b"changes with every command");
            dirty.insert(&key(n));
        }
        let mut expected: Vec<Vec<u8>> = (0..n_keys).map(|n| key(n).to_vec()).collect();
        expected.push(b"changes with every command".to_vec());
        expected.sort();
        assert_eq!(dirty.keys(), expected);
        let in_turns: Vec<&[u8]> = dirty.keys_in_turns(&mut Turns::begin()).collect();
        assert_eq!(in_turns, expected);
        let mut other = Dirty::default();
        other.insert(b"another");
        other.give_back(dirty);
        assert_eq!(other.keys().len(), expected.len() + 1);
    }

    #[test]
    fn what_is_given_back_is_moved_and_not_looked_at() {
        let mut taken = Dirty::default();
        for n in 0..YOUNG_KEYS as u32 * 3 {
            taken.insert(&n.to_be_bytes());
        }
        let (n_runs, key_bytes) = (taken.old.len(), taken.key_bytes);
        let first = taken.old[0].as_ptr();
        let mut dirty = Dirty::default();
        dirty.insert(&7_u32.to_be_bytes());
        dirty.give_back(taken);
        assert_eq!((dirty.old.len(), dirty.young.len()), (n_runs + 1, 1));
        assert_eq!(dirty.old[0].as_ptr(), first);
        assert_eq!(dirty.key_bytes, key_bytes + 4 + OVERHEAD_BYTES);
    }

    #[test]
    fn many_keys_are_due_though_little_was_written() {
        let (mut dirty, upkeep) = (Dirty::default(), Upkeep::default());
        let n_keys = (KEY_BYTES_MAX / (4 + OVERHEAD_BYTES)) as u32;
        (0..n_keys / 4).for_each(|n| dirty.insert(&n.to_be_bytes()));
        assert!(!dirty.is_due(&upkeep, 1));
        (0..n_keys + 1).for_each(|n| dirty.insert(&n.to_be_bytes()));
        assert!(dirty.is_due(&upkeep, 1));
    }
}
