//! Rows: a sorted map of bytes, the only thing `apply` sees. Reads fall through to a [`Source`];
//! writes gather in memory until whoever called takes them with [`Rows::into_changes`].

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::brief::Block;

/// Where rows are kept between commands. A source that cannot read stops its replica; it never makes
/// up an absent row.
pub trait Source {
    /// The row of exactly this key.
    fn row(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// Visits rows with `from <= key < to` in ascending order until `visit` gives false.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool);

    /// Told now and then amid work that reads no rows. Where nobody waits for what comes of it any more, a
    /// source may end the work here, by unwinding.
    fn pause(&self) {}

    /// Briefs that were kept, if none of the rows they were made of has changed.
    fn briefs(&self, _block: &Block) -> Option<Bytes> {
        None
    }

    /// Keeps briefs made of the rows as they are here; whoever has no room for them forgets them.
    fn keep_briefs(&self, _block: &Block, _briefs: &Bytes) {}
}

/// What changed: key to new value, `None` for a removed row.
pub type RowChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows as a command sees them: the source with the changes so far laid over it.
pub struct Rows<'a> {
    source: &'a dyn Source,
    changes: RowChanges,
    /// Over the rows of the source, less those that changed.
    digest: RowDigest,
    n_writes: usize,
    new_keys: Vec<Vec<u8>>,
    /// What the source holds under the keys that changed, if that is wanted.
    before: Option<RowChanges>,
    /// Keys written or removed by the entry that is applied now.
    touched: Touched,
}

/// Keys behind each other. Why not a list of them: it is kept for each write, and seldom wanted.
#[derive(Default)]
pub(crate) struct Touched {
    octets: Vec<u8>,
    ends: Vec<usize>,
}

impl Touched {
    fn push(&mut self, key: &[u8]) {
        self.octets.extend_from_slice(key);
        self.ends.push(self.octets.len());
    }

    /// Each, as often as it was written.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.octets[start..*end])
    }
}

impl<'a> Rows<'a> {
    /// No changes yet; `digest` is the one kept with the source.
    pub fn new(source: &'a dyn Source, digest: RowDigest) -> Self {
        let (new_keys, touched) = (Vec::new(), Touched::default());
        let (changes, before) = (RowChanges::new(), None);
        Self { source, changes, digest, n_writes: 0, new_keys, before, touched }
    }

    /// From here on what the source holds under each key that changes is kept for [`Rows::take_before`].
    pub fn keep_before(&mut self) {
        self.before = Some(RowChanges::new());
    }

    /// Writes a row.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let now = self.row(&key);
        self.leave(&key, now.as_deref());
        self.n_writes += 1;
        self.touched.push(&key);
        self.changes.insert(key, Some(value));
    }

    /// Writes a row whose key was never used before, without looking.
    pub(crate) fn put_new(&mut self, key: Vec<u8>, value: Vec<u8>) {
        debug_assert!(self.row(&key).is_none(), "the row is there already");
        if !self.changes.contains_key(&key) {
            self.leave(&key, None);
            self.new_keys.push(key.clone());
        }
        self.n_writes += 1;
        self.touched.push(&key);
        self.changes.insert(key, Some(value));
    }

    /// Writes over a row that is known to hold this, or known not to be there, without looking.
    pub(crate) fn put_known(&mut self, key: Vec<u8>, before: Option<&[u8]>, value: Vec<u8>) {
        debug_assert!(self.row(&key).as_deref() == before, "the row is another one");
        self.leave(&key, before);
        self.n_writes += 1;
        self.touched.push(&key);
        self.changes.insert(key, Some(value));
    }

    /// Removes a row that is known to hold this, without looking.
    pub(crate) fn remove_known(&mut self, key: Vec<u8>, value: &[u8]) {
        debug_assert!(self.row(&key).as_deref() == Some(value), "the row is another one");
        self.leave(&key, Some(value));
        self.n_writes += 1;
        self.touched.push(&key);
        self.changes.insert(key, None);
    }

    /// Removes a row; removing an absent one is nothing.
    pub fn remove(&mut self, key: &[u8]) {
        self.take(key);
    }

    /// Removes a row, and tells whether it was there.
    pub(crate) fn take(&mut self, key: &[u8]) -> bool {
        let Some(now) = self.row(key) else { return false };
        self.leave(key, Some(&now));
        self.n_writes += 1;
        self.touched.push(key);
        self.changes.insert(key.to_vec(), None);
        true
    }

    /// How many rows were written or removed; a row counts each time.
    pub fn n_writes(&self) -> usize {
        self.n_writes
    }

    /// Keys that were written or removed since this was called last. Why not the changes: several entries
    /// may lie over each other, on each replica others.
    pub(crate) fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Keys among the changes that the source has no row for.
    pub fn take_new_keys(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.new_keys)
    }

    /// What the source holds under the keys that changed, if it was to be kept.
    pub fn take_before(&mut self) -> RowChanges {
        self.before.take().unwrap_or_default()
    }

    /// What to write to the source, and the digest it has afterwards.
    pub fn into_changes(self) -> (RowChanges, RowDigest) {
        let mut digest = self.digest;
        for (key, value) in &self.changes {
            value.iter().for_each(|value| digest.add(key, value));
        }
        (self.changes, digest)
    }

    /// A row is about to change, and this is there now. Only what the source has leaves the digest, at the
    /// first change: what is there after the last one is added in the end.
    fn leave(&mut self, key: &[u8], now: Option<&[u8]>) {
        if self.changes.contains_key(key) {
            return;
        }
        if let Some(now) = now {
            self.digest.subtract(key, now);
        }
        if let Some(before) = &mut self.before {
            before.insert(key.to_vec(), now.map(<[u8]>::to_vec));
        }
    }
}

impl Source for Rows<'_> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.changes.get(key) {
            Some(change) => change.clone(),
            None => self.source.row(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        if from >= to {
            return;
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let mut changed = self.changes.range::<[u8], _>(range).peekable();
        let mut more = true;
        self.source.scan(from, to, &mut |key, value| {
            while let Some((at, change)) = changed.next_if(|(at, _)| at.as_slice() < key) {
                more = change.as_ref().is_none_or(|value| visit(at, value));
                if !more {
                    return false;
                }
            }
            more = match changed.next_if(|(at, _)| at.as_slice() == key) {
                Some((at, change)) => change.as_ref().is_none_or(|value| visit(at, value)),
                None => visit(key, value),
            };
            more
        });
        while more && let Some((at, change)) = changed.next() {
            more = change.as_ref().is_none_or(|value| visit(at, value));
        }
    }
}

/// A map in memory: for tests and for rows small enough, as the meta group's are.
impl Source for BTreeMap<Vec<u8>, Vec<u8>> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get(key).cloned()
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        if from < to {
            let range = (Bound::Included(from), Bound::Excluded(to));
            let _ = self.range::<[u8], _>(range).all(|(key, value)| visit(key, value));
        }
    }
}

/// The sum of the hashes of all rows, modulo 2^256 in four lanes. Equal rows give equal sums in
/// whatever order they were written, so replicas can be compared by one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct RowDigest(#[n(0)] [u64; 4]);

impl RowDigest {
    /// A row was added.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        for (sum, lane) in self.0.iter_mut().zip(lanes(key, value)) {
            *sum = sum.wrapping_add(lane);
        }
    }

    /// A row was removed.
    pub fn subtract(&mut self, key: &[u8], value: &[u8]) {
        for (sum, lane) in self.0.iter_mut().zip(lanes(key, value)) {
            *sum = sum.wrapping_sub(lane);
        }
    }
}

impl std::fmt::Display for RowDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|lane| write!(f, "{lane:016x}"))
    }
}

fn lanes(key: &[u8], value: &[u8]) -> [u64; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u32).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    let hash = hasher.finalize();
    let mut lanes = [0; 4];
    for (lane, bytes) in lanes.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *lane = u64::from_be_bytes(bytes.try_into().expect("chunks of eight"));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Vec<u8> {
        vec![byte; 3]
    }

    /// All that is told of some writes to a source with rows 1 and 2.
    fn told(write: fn(&mut Rows<'_>)) -> String {
        let source: BTreeMap<_, _> = [1, 2].map(|byte| (key(byte), vec![byte])).into();
        let mut digest = RowDigest::default();
        source.iter().for_each(|(key, value)| digest.add(key, value));
        let mut rows = Rows::new(&source, digest);
        rows.keep_before();
        write(&mut rows);
        let touched: Vec<_> = rows.take_touched().keys().map(<[u8]>::to_vec).collect();
        let (n_writes, new_keys, before) =
            (rows.n_writes(), rows.take_new_keys(), rows.take_before());
        let (changes, digest) = rows.into_changes();
        format!("{touched:?} {n_writes} {new_keys:?} {before:?} {changes:?} {digest}")
    }

    #[test]
    fn what_is_written_without_a_look_is_as_if_it_had_been_looked_at() {
        let looking = told(|rows| {
            rows.put(key(1), vec![10]);
            rows.put(key(1), vec![11]);
            rows.remove(&key(2));
            rows.put(key(2), vec![20]);
            rows.put(key(3), vec![30]);
            rows.put(key(3), vec![31]);
            rows.put(key(4), vec![40]);
            rows.remove(&key(4));
        });
        let knowing = told(|rows| {
            rows.put_known(key(1), Some(&[1]), vec![10]);
            rows.put_known(key(1), Some(&[10]), vec![11]);
            rows.remove_known(key(2), &[2]);
            rows.put_known(key(2), None, vec![20]);
            rows.put_known(key(3), None, vec![30]);
            rows.put_known(key(3), Some(&[30]), vec![31]);
            rows.put_known(key(4), None, vec![40]);
            rows.remove_known(key(4), &[40]);
        });
        assert_eq!(looking, knowing);
    }
}
