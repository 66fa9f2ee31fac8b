//! Which rows changed since the last checkpoint.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use mailbox::RowChanges;

use super::run::{Run, merged};
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
/// What a key costs besides its bytes while it is young; of the others it is less than a tenth altogether.
const OVERHEAD_BYTES: usize = 48;

/// See the module.
#[derive(Default)]
pub(crate) struct Dirty {
    /// True for a row that came while its key was here: when it goes too, the checkpoint need not know.
    ///
    /// Why bounded: a table that grows is copied whole, and whoever commits waits for it.
    young: HashMap<Vec<u8>, bool, RandomState>,
    /// Those before; some are there more than once.
    old: Vec<Run>,
    key_bytes: usize,
    bytes: usize,
    entries: u64,
}

impl Dirty {
    /// A batch is about to be written. The lock is held until it is. `new_keys`, in their order, are those
    /// that had no row before it.
    pub fn note(&mut self, changes: &RowChanges, new_keys: &[Vec<u8>], n_entries: usize) {
        self.entries += n_entries as u64;
        let mut new_keys = new_keys.iter().peekable();
        for (key, value) in changes {
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            let is_new = new_keys.next_if(|new| *new == key).is_some();
            self.note_key(key, is_new, value.is_none());
        }
    }

    pub fn insert(&mut self, key: &[u8]) {
        self.note_key(key, false, false);
    }

    fn note_key(&mut self, key: &[u8], is_new: bool, is_gone: bool) {
        match self.young.get(key).copied() {
            // Invariant: there was no row when it was noted here, and where the checkpoint has one all the
            // same, the key is among the old ones or those that were taken.
            Some(true) if is_gone => {
                self.young.remove(key);
                self.key_bytes -= key.len() + OVERHEAD_BYTES;
            }
            Some(_) => {}
            None if is_new && is_gone => {}
            None => {
                if self.young.len() >= YOUNG_KEYS {
                    self.age();
                }
                self.key_bytes += key.len() + OVERHEAD_BYTES;
                self.young.insert(key.to_vec(), is_new);
            }
        }
    }

    fn age(&mut self) {
        self.old.push(Run::new(self.young.drain().map(|(key, _)| key).collect()));
    }

    /// What was taken and could not be written changed as well. Why no look at any key but the young: whoever
    /// commits waits for this.
    pub fn give_back(&mut self, mut taken: Self) {
        taken.old.append(&mut self.old);
        self.old = taken.old;
        if !taken.young.is_empty() {
            self.old.push(Run::new(taken.young.into_keys().collect()));
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
    pub fn keys(&self) -> impl Iterator<Item = Vec<u8>> + use<'_> {
        merged(self.old.iter().map(Run::keys), self.young.keys().cloned().collect())
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

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
        assert!(dirty.keys().eq(expected.iter().cloned()));
        let mut other = Dirty::default();
        other.insert(b"another");
        other.give_back(dirty);
        assert_eq!(other.keys().count(), expected.len() + 1);
    }

    #[test]
    fn what_is_given_back_is_moved_and_not_looked_at() {
        let mut taken = Dirty::default();
        for n in 0..YOUNG_KEYS as u32 * 3 {
            taken.insert(&n.to_be_bytes());
        }
        let (n_runs, key_bytes) = (taken.old.len(), taken.key_bytes);
        let first = taken.old[0].packed().as_ptr();
        let mut dirty = Dirty::default();
        dirty.insert(&7_u32.to_be_bytes());
        dirty.give_back(taken);
        assert_eq!((dirty.old.len(), dirty.young.len()), (n_runs + 1, 1));
        assert_eq!(dirty.old[0].packed().as_ptr(), first);
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
    #[derive(Clone, Copy, Debug)]
    enum Write {
        Put,
        /// Of a key that has no row.
        PutNew,
        Remove,
    }

    #[derive(Clone, Debug)]
    enum Event {
        Commit(Vec<(u8, Write)>),
        /// Many other keys change.
        Age,
        /// A checkpoint is begun,
        Take,
        /// and is there,
        Written,
        /// or cannot be written.
        Failed,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let write = prop_oneof![Just(Write::Put), Just(Write::PutNew), Just(Write::Remove)];
        let writes = prop::collection::vec((0..6_u8, write), 1..6);
        let event = prop_oneof![
            8 => writes.prop_map(Event::Commit),
            1 => Just(Event::Age),
            2 => Just(Event::Take),
            1 => Just(Event::Written),
            1 => Just(Event::Failed),
        ];
        prop::collection::vec(event, 1..60)
    }

    type Map = BTreeMap<Vec<u8>, Vec<u8>>;

    #[derive(Default)]
    struct World {
        rows: Map,
        checkpoint: Map,
        dirty: Dirty,
        /// What was taken, and the rows as they were then.
        under_way: Option<(Dirty, Map)>,
        n_commits: u32,
    }

    impl World {
        /// As `mailbox::Rows` tells of its changes.
        fn commit(&mut self, writes: &[(u8, Write)]) {
            self.n_commits += 1;
            let value = self.n_commits.to_be_bytes().to_vec();
            let (mut changes, mut new_keys) = (RowChanges::new(), Vec::new());
            for &(key, write) in writes {
                let key = vec![key];
                let in_rows = self.rows.contains_key(&key);
                let is_there = changes.get(&key).map_or(in_rows, Option::is_some);
                match write {
                    Write::Remove if !is_there => continue,
                    Write::PutNew if is_there => continue,
                    Write::PutNew if !changes.contains_key(&key) => new_keys.push(key.clone()),
                    Write::Put | Write::PutNew | Write::Remove => {}
                }
                let is_put = !matches!(write, Write::Remove);
                changes.insert(key, is_put.then(|| value.clone()));
            }
            new_keys.sort();
            self.dirty.note(&changes, &new_keys, 1);
            for (key, value) in changes {
                match value {
                    Some(value) => drop(self.rows.insert(key, value)),
                    None => drop(self.rows.remove(&key)),
                }
            }
        }

        fn happens(&mut self, event: &Event) {
            match event {
                Event::Commit(writes) => self.commit(writes),
                Event::Age => self.dirty.age(),
                Event::Take if self.under_way.is_none() => {
                    let taken = std::mem::take(&mut self.dirty);
                    self.under_way = Some((taken, self.rows.clone()));
                }
                Event::Take => {}
                Event::Written => {
                    let Some((taken, view)) = self.under_way.take() else { return };
                    for key in taken.keys() {
                        match view.get(&key) {
                            Some(value) => {
                                self.checkpoint.insert(key, value.clone());
                            }
                            None => drop(self.checkpoint.remove(&key)),
                        }
                    }
                }
                Event::Failed => {
                    let Some((taken, _)) = self.under_way.take() else { return };
                    self.dirty.give_back(taken);
                }
            }
        }

        fn is_noted(&self, key: &[u8]) -> bool {
            let taken = self.under_way.as_ref().map(|(taken, _)| taken);
            [Some(&self.dirty), taken]
                .into_iter()
                .flatten()
                .any(|of| of.keys().any(|noted| noted == key))
        }
    }

    proptest! {
        #[test]
        fn where_rows_and_checkpoint_differ_is_noted_and_the_next_one_has_all(events in events()) {
            let mut world = World::default();
            for event in &events {
                world.happens(event);
                for key in (0..6_u8).map(|key| [key]) {
                    let is_same = world.rows.get(&key[..]) == world.checkpoint.get(&key[..]);
                    prop_assert!(is_same || world.is_noted(&key), "{key:?} after {event:?}");
                }
            }
            for event in [Event::Written, Event::Take, Event::Written] {
                world.happens(&event);
            }
            prop_assert_eq!(&world.checkpoint, &world.rows);
            prop_assert_eq!((world.dirty.keys().count(), world.dirty.key_bytes), (0, 0));
        }
    }

    #[test]
    fn what_came_and_went_since_is_not_noted() {
        let mut world = World::default();
        world.commit(&[(1, Write::PutNew)]);
        world.commit(&[(1, Write::Put), (2, Write::PutNew), (2, Write::Remove)]);
        assert!(world.dirty.keys().eq([[1_u8]]));
        world.commit(&[(1, Write::Remove)]);
        assert_eq!((world.dirty.keys().count(), world.dirty.key_bytes), (0, 0));
        // The checkpoint under way has it.
        world.commit(&[(1, Write::PutNew)]);
        world.happens(&Event::Take);
        world.commit(&[(1, Write::Remove)]);
        assert!(world.dirty.keys().eq([[1_u8]]));
    }
}
