//! Rows and places that were committed but not handed to the index yet. The truth is the journal, so
//! the index may be behind; many commits become one batch of it, in which a row that changed a
//! hundred times is written once.

use std::collections::btree_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::RandomState;
use journal::Pointer;
use mailbox::{Digest, RowChanges};
use tokio::time::Instant;

use crate::store::Applied;

/// A layer goes to the index when it has so many rows, so that a start after a kill has little to replay,
const ROWS_MAX: usize = 4096;
/// or so many bytes: what one replica holds is at most a few times that.
const BYTES_MAX: usize = 1 << 20;
/// Of both, the share that makes a layer due: another one for each replica, so that those on one machine
/// which apply the same entries do not all write at the same moment.
const SHARE_MIN_PERCENT: usize = 50;
const SHARES: usize = 51;
/// Limit: times that a layer may grow beyond it while the one before is still being written: 4 MiB, and as
/// much of the one before, for each replica.
const OVERSIZE_MAX: usize = 4;
/// What a row costs besides its key and value.
const ROW_BYTES: usize = 96;

/// The share of a limit at which a replica does what is due.
pub(crate) fn share_percent(replica: u64) -> usize {
    // The golden ratio puts neighbours far apart.
    let place = replica.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    SHARE_MIN_PERCENT + place as usize % SHARES
}

/// What some commits left.
#[derive(Default)]
pub(crate) struct Layer {
    pub rows: RowChanges,
    /// `None`: no longer known.
    pub places: HashMap<Digest, Option<Pointer>, RandomState>,
    /// How far the last commit went; `None` if there were only places.
    pub applied: Option<Applied>,
    /// Rows that did not exist when this layer got them first: when they go while it is young, nothing is
    /// left.
    new_keys: HashSet<Vec<u8>, RandomState>,
    bytes: usize,
    begun: Option<Instant>,
}

impl Layer {
    fn is_empty(&self) -> bool {
        self.begun.is_none()
    }

    fn put_rows(&mut self, changes: RowChanges, mut new_keys: Vec<Vec<u8>>) {
        new_keys.sort_unstable();
        let mut new_keys = new_keys.into_iter().peekable();
        let size = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        for (key, value) in changes {
            let key_bytes = key.len() + ROW_BYTES;
            let new_key = new_keys.next_if(|new| *new == key);
            match self.rows.entry(key) {
                Entry::Vacant(entry) => {
                    match new_key {
                        Some(_) if value.is_none() => continue,
                        Some(new_key) => drop(self.new_keys.insert(new_key)),
                        None => {}
                    }
                    self.bytes += key_bytes + size(&value);
                    entry.insert(value);
                }
                // Why not new now, if it went in this layer: it may still be in the index, and has to go
                // there too.
                Entry::Occupied(entry) if value.is_none() && self.new_keys.remove(entry.key()) => {
                    self.bytes -= key_bytes + size(&entry.remove());
                }
                Entry::Occupied(mut entry) => {
                    self.bytes += size(&value);
                    self.bytes -= size(&entry.insert(value));
                }
            }
        }
    }

    fn exceeds(&self, percent: usize) -> bool {
        let n_rows = self.rows.len() + self.places.len();
        self.bytes > percent * BYTES_MAX / 100 || n_rows > percent * ROWS_MAX / 100
    }
}

/// How far the index is behind what was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lag {
    /// Little waits.
    Little,
    /// It is time to write to the index.
    Due,
    /// That is being done, and the next layer is large enough already.
    Behind,
    /// As much waits as may.
    Full,
}

/// What is ahead of the index.
pub(crate) struct Pending {
    due_percent: usize,
    young: Layer,
    /// Somebody is about to take `young`.
    is_called: bool,
    /// Being written at this moment; older than all of `young`.
    old: Option<Arc<Layer>>,
}

impl Pending {
    pub fn new(replica: u64) -> Self {
        Self {
            due_percent: share_percent(replica),
            young: Layer::default(),
            is_called: false,
            old: None,
        }
    }

    /// What a commit changed.
    pub fn commit(
        &mut self,
        (changes, new_keys): (RowChanges, Vec<Vec<u8>>),
        places: &[(Digest, Pointer)],
        applied: &Applied,
    ) {
        self.young.put_rows(changes, new_keys);
        for (digest, pointer) in places {
            self.young.places.insert(*digest, Some(*pointer));
        }
        self.young.applied = Some(applied.clone());
        self.young.begun.get_or_insert_with(Instant::now);
    }

    /// Changes the place of a body that is pending; false if it is not.
    pub fn replace(&mut self, digest: &Digest, place: Option<Pointer>) -> bool {
        let is_here = self.place(digest).is_some();
        if is_here {
            self.young.places.insert(*digest, place);
            self.young.begun.get_or_insert_with(Instant::now);
        }
        is_here
    }

    /// A body is no longer known, whether its place is pending or in the index.
    pub fn forget(&mut self, digest: &Digest) {
        self.young.places.insert(*digest, None);
        self.young.begun.get_or_insert_with(Instant::now);
    }

    /// A row, if it is pending.
    pub fn row(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        let old = || self.old.as_ref().and_then(|old| old.rows.get(key));
        self.young.rows.get(key).or_else(old)
    }

    /// Where a body is, if that is pending.
    pub fn place(&self, digest: &Digest) -> Option<Option<Pointer>> {
        let old = || self.old.as_ref().and_then(|old| old.places.get(digest));
        self.young.places.get(digest).or_else(old).copied()
    }

    /// The first `limit` pending rows of a range, and where the rest begins.
    pub fn page(&self, from: &[u8], to: &[u8], limit: usize) -> (RowChanges, Option<Vec<u8>>) {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let old = self.old.as_ref().map(|old| old.rows.range::<[u8], _>(range));
        let mut page = RowChanges::new();
        // Why one more: its key is where the rest begins.
        for (key, value) in old.into_iter().flatten().take(limit + 1) {
            page.insert(key.clone(), value.clone());
        }
        for (key, value) in self.young.rows.range::<[u8], _>(range).take(limit + 1) {
            page.insert(key.clone(), value.clone());
        }
        let rest = page.keys().nth(limit).cloned();
        if let Some(rest) = &rest {
            page.split_off(rest);
        }
        (page, rest)
    }

    /// How far the index is behind.
    pub fn lag(&self) -> Lag {
        if self.young.exceeds(OVERSIZE_MAX * 100) {
            return Lag::Full;
        }
        match (self.young.exceeds(self.due_percent), self.is_writing()) {
            (false, _) => Lag::Little,
            (true, false) => Lag::Due,
            (true, true) => Lag::Behind,
        }
    }

    /// Whether the index is being written to, or about to be.
    pub fn is_writing(&self) -> bool {
        self.is_called || self.old.is_some()
    }

    /// Somebody will [`Pending::take`] what there is.
    pub fn call(&mut self) {
        self.is_called = true;
    }

    /// Since when the oldest commit waits.
    pub fn begun(&self) -> Option<Instant> {
        self.young.begun
    }

    /// What to write next. It stays readable until [`Pending::written`].
    pub fn take(&mut self) -> Option<Arc<Layer>> {
        self.is_called = false;
        if self.young.is_empty() {
            return None;
        }
        let layer = Arc::new(std::mem::take(&mut self.young));
        self.old = Some(layer.clone());
        Some(layer)
    }

    /// What was taken is in the index.
    pub fn written(&mut self) {
        self.old = None;
    }
}
