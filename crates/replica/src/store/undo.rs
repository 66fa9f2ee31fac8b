//! What rows were before they were overwritten, kept while there are views of that time.
//!
//! A view may live for seconds, and some hundred thousand rows change meanwhile. To let go of them takes a
//! tenth of a second, so others do it than those who commit and read. A view of a checkpoint lives longest;
//! it reads in ascending order, and what it has passed is not kept for it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use super::{Store, lock};
use crate::blocking::{self, BETWEEN_TURNS};

/// Limit: bytes of overwritten rows kept for views. Above it the oldest view expires, and the next one if
/// what is kept for the others is still too much.
const BYTES_MAX: usize = 64 << 20;
/// Limit: the same, while it is swept out what the views that expired wanted. Above it all of them expire.
const UNSWEPT_BYTES_MAX: usize = 2 * BYTES_MAX;
/// What a row costs besides its key and value.
const ROW_BYTES: usize = 96;
/// So many rows are not let go of by whoever happens to be the last who wanted them.
const MANY: usize = 4096;
/// Rows looked through while nobody can commit: a tenth of a millisecond, whoever looks.
const SWEPT_AT_ONCE: usize = 256;

/// By key, what each row was; ascending versions.
pub(super) type Chain = BTreeMap<Vec<u8>, Vec<Before>>;

/// See the module.
#[derive(Default)]
pub(super) struct Undo {
    pub version: u64,
    /// Views below it expired.
    pub floor: u64,
    views: BTreeMap<u64, usize>,
    chain: Chain,
    bytes: usize,
    is_swept: bool,
    /// It is swept once more from the beginning.
    is_swept_again: bool,
    /// A view expired, and what it left is not swept out yet.
    is_expiring: bool,
    /// Version of a view that is read in ascending order, and the key it has come to.
    passed: Option<(u64, Vec<u8>)>,
}

/// What a row was before a version.
pub(super) struct Before {
    pub version: u64,
    pub value: Option<Vec<u8>>,
}

/// A key, and what its row was; `None` if there was none.
pub(super) type Was = (Vec<u8>, Option<Vec<u8>>);

/// What a view that ends or expires leaves.
pub(super) enum Left {
    /// What others want, and little else.
    Little,
    /// Much that nobody wants among what others want.
    Litter,
    /// Nobody wants any of it.
    All(Chain),
}

impl Undo {
    /// A view of the rows as they are begins; gives its version.
    pub fn open(&mut self) -> u64 {
        *self.views.entry(self.version).or_default() += 1;
        self.version
    }

    /// It ends; `ascends` if it ever told what it had passed.
    pub fn close(&mut self, version: u64, ascends: bool) -> Left {
        if ascends {
            self.passed = None;
        }
        if let Some(count) = self.views.get_mut(&version) {
            *count -= 1;
            if *count > 0 {
                return Left::Little;
            }
            self.views.remove(&version);
        }
        match self.views.first_key_value() {
            None => self.let_go(),
            Some((oldest, _)) if *oldest > version && self.chain.len() >= MANY => {
                if std::mem::replace(&mut self.is_swept, true) {
                    Left::Little
                } else {
                    Left::Litter
                }
            }
            Some(_) => Left::Little,
        }
    }

    fn let_go(&mut self) -> Left {
        self.bytes = 0;
        Left::All(std::mem::take(&mut self.chain))
    }

    /// Whether there is a view.
    pub fn has_views(&self) -> bool {
        !self.views.is_empty()
    }

    /// A view, one at a time, asks for no key before this one any more. Gives what nobody wants therefore.
    pub fn pass(&mut self, version: u64, key: &[u8]) -> Vec<(Vec<u8>, Vec<Before>)> {
        self.passed = Some((version, key.to_vec()));
        let mut unwanted = Vec::new();
        while unwanted.len() < SWEPT_AT_ONCE
            && let Some(entry) = self.chain.first_entry()
            && entry.key().as_slice() < key
            && is_alone(&self.views, version)
        {
            let (key, befores) = entry.remove_entry();
            self.bytes -= befores.iter().map(|before| size_bytes(&key, before)).sum::<usize>();
            unwanted.push((key, befores));
        }
        unwanted
    }

    /// Whether a view may still ask for what a row is now.
    pub fn is_wanted(&self, key: &[u8]) -> bool {
        let has_passed = |(version, passed): &(u64, Vec<u8>)| {
            key < passed.as_slice() && is_alone(&self.views, *version)
        };
        self.has_views() && !self.passed.as_ref().is_some_and(has_passed)
    }

    /// What a row was before this version.
    pub fn keep(&mut self, key: &[u8], before: Before) {
        self.bytes += size_bytes(key, &before);
        self.chain.entry(key.to_vec()).or_default().push(before);
    }

    /// If more is kept than may be, the oldest view expires, or all there are; `version` is the one to come.
    /// Why the oldest: it has been there for longest, and most is kept for it.
    pub fn expire(&mut self, version: u64) -> Left {
        if self.bytes <= BYTES_MAX {
            return Left::Little;
        }
        if self.bytes > UNSWEPT_BYTES_MAX {
            self.views.clear();
        } else if self.is_expiring {
            // Why not the next one: how much is kept for the others is not known yet.
            return Left::Little;
        } else {
            self.views.pop_first();
        }
        let Some((oldest, _)) = self.views.first_key_value() else {
            self.floor = version;
            return self.let_go();
        };
        self.floor = *oldest;
        self.is_expiring = true;
        self.is_swept_again = std::mem::replace(&mut self.is_swept, true);
        if self.is_swept_again { Left::Little } else { Left::Litter }
    }

    /// Bytes of rows kept for views.
    pub fn kept_bytes(&self) -> usize {
        self.bytes
    }

    /// What a row was at a version, if it has changed since.
    pub fn at(&self, version: u64, key: &[u8]) -> Option<&Before> {
        self.chain.get(key).and_then(|befores| first_after(version, befores))
    }

    /// What rows of a range were at a version, those that have changed since: some of them, and where to go
    /// on. Why not all: of rows that are gone there may be any number between two that are there.
    pub fn some_at(
        &self,
        version: u64,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> (Vec<Was>, Option<Vec<u8>>) {
        let mut changed = Vec::new();
        for (n_seen, (key, befores)) in self.chain.range::<[u8], _>((from, to)).enumerate() {
            if n_seen == SWEPT_AT_ONCE {
                return (changed, Some(key.clone()));
            }
            changed.extend(
                first_after(version, befores).map(|before| (key.clone(), before.value.clone())),
            );
        }
        (changed, None)
    }

    /// Whether a row of a range has changed since a version.
    pub fn has_changed(&self, version: u64, range: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
        let mut kept = self.chain.range::<[u8], _>(range);
        version < self.floor || kept.any(|(_, befores)| first_after(version, befores).is_some())
    }

    /// Takes away what no view wants among some rows from a key on; gives it, and where to go on.
    fn sweep(&mut self, from: &[u8]) -> (Vec<Vec<Before>>, Option<Vec<u8>>) {
        let Some((&oldest, _)) = self.views.first_key_value() else {
            self.is_swept_again = false;
            self.end_sweep();
            return (Vec::new(), None);
        };
        let (mut n_seen, mut next, mut unwanted) = (0, None, Vec::new());
        let range = (Bound::Included(from), Bound::Unbounded);
        for (key, befores) in self.chain.range_mut::<[u8], _>(range) {
            if n_seen == SWEPT_AT_ONCE {
                next = Some(key.clone());
                break;
            }
            n_seen += 1;
            let n_old = befores.partition_point(|before| before.version <= oldest);
            self.bytes -= befores[..n_old].iter().map(|b| size_bytes(key, b)).sum::<usize>();
            if n_old == befores.len() {
                unwanted.push(key.clone());
            } else {
                befores.drain(..n_old);
            }
        }
        let taken = unwanted.iter().filter_map(|key| self.chain.remove(key)).collect();
        if next.is_none() && std::mem::take(&mut self.is_swept_again) {
            next = Some(Vec::new());
        } else if next.is_none() {
            self.end_sweep();
        }
        (taken, next)
    }

    fn end_sweep(&mut self) {
        self.is_swept = false;
        self.is_expiring = false;
    }
}

/// Whether there is one view, and of this version.
fn is_alone(views: &BTreeMap<u64, usize>, version: u64) -> bool {
    views.len() == 1 && views.get(&version) == Some(&1)
}

fn first_after(version: u64, befores: &[Before]) -> Option<&Before> {
    befores.get(befores.partition_point(|before| before.version <= version))
}

fn size_bytes(key: &[u8], before: &Before) -> usize {
    key.len() + before.value.as_ref().map_or(0, Vec::len) + ROW_BYTES
}

/// Lets go of what a view left.
pub(super) fn let_go(store: &Arc<Store>, left: Left) {
    match left {
        Left::Litter => begin_sweeping(store),
        // Why not here: to free each of many takes long.
        Left::All(chain) if chain.len() >= MANY => {
            // Why the result is dropped: what cannot be given to another thread is freed by this one.
            drop(blocking::aside(move || drop(chain)));
        }
        Left::Little | Left::All(_) => {}
    }
}

/// Sweeps out what no view wants any more, while others commit and read.
fn begin_sweeping(store: &Arc<Store>) {
    let weak = Arc::downgrade(store);
    // Why not a low priority: whoever commits would wait for the lock of a thread that does not run.
    let sweeping = std::thread::Builder::new().name("sweep".into()).spawn(move || sweep(&weak));
    if sweeping.is_err() {
        lock(&store.undo).end_sweep();
    }
}

fn sweep(store: &Weak<Store>) {
    let mut from = Some(Vec::new());
    while let Some(key) = from
        && let Some(store) = store.upgrade()
    {
        let (unwanted, next) = lock(&store.undo).sweep(&key);
        drop(unwanted);
        from = next;
        // Why sleep: who yields has the lock again before who waits for it is awake, some thousand times.
        std::thread::sleep(BETWEEN_TURNS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(version: u64, value: u8) -> Before {
        Before { version, value: Some(vec![value]) }
    }

    /// Views at versions 0 and 5; each of many rows changed before and after the second.
    fn much() -> Undo {
        let mut undo = Undo::default();
        undo.open();
        for n in 0..MANY as u32 {
            undo.keep(&n.to_be_bytes(), before(1 + u64::from(n % 4), 1));
            if n % 3 == 0 {
                undo.keep(&n.to_be_bytes(), before(6, 2));
            }
        }
        undo.version = 5;
        undo.open();
        undo
    }

    #[test]
    fn what_is_swept_out_is_what_nobody_wants() {
        let mut undo = much();
        assert!(matches!(undo.close(0, false), Left::Litter));
        let (mut from, mut n_turns) = (Some(Vec::new()), 0);
        while let Some(key) = from {
            assert!(undo.is_swept, "so that nobody else begins");
            from = undo.sweep(&key).1;
            n_turns += 1;
        }
        assert_eq!(n_turns, MANY / SWEPT_AT_ONCE);
        assert!(!undo.is_swept);
        let kept: usize =
            undo.chain.iter().flat_map(|(k, b)| b.iter().map(|b| size_bytes(k, b))).sum();
        assert_eq!(undo.bytes, kept);
        assert_eq!(undo.chain.len(), MANY.div_ceil(3));
        assert!((0..MANY as u32).all(|n| {
            let at = undo.at(5, &n.to_be_bytes()).and_then(|before| before.value.clone());
            at == (n % 3 == 0).then(|| vec![2])
        }));
    }

    #[test]
    fn who_ends_first_or_last_leaves_nothing_to_sweep() {
        let mut undo = much();
        assert!(matches!(undo.close(5, false), Left::Little), "the older one wants all");
        assert!(undo.at(0, &0_u32.to_be_bytes()).is_some());
        let Left::All(chain) = undo.close(0, false) else { panic!("nobody is left") };
        assert_eq!((chain.len(), undo.bytes, undo.has_views()), (MANY, 0, false));
    }

    #[test]
    fn what_the_only_view_has_passed_is_not_kept() {
        let mut undo = Undo::default();
        let key = |n: u8| vec![n];
        let first = undo.open();
        (0..10).for_each(|n| undo.keep(&key(n), before(1, n)));
        undo.version = 1;
        assert_eq!(undo.pass(first, &key(5)).len(), 5);
        assert!(!undo.is_wanted(&key(4)) && undo.is_wanted(&key(5)));
        assert!(undo.at(first, &key(4)).is_none() && undo.at(first, &key(5)).is_some());

        let second = undo.open();
        assert!(undo.is_wanted(&key(4)), "by the other one");
        undo.keep(&key(4), before(2, 40));
        assert!(undo.pass(first, &key(8)).is_empty(), "the other one reads anything");
        assert!(undo.at(second, &key(4)).is_some());
        assert!(matches!(undo.close(second, false), Left::Little));
        assert_eq!(undo.pass(first, &key(8)).len(), 4);
        let left = undo.chain.values().flatten().map(|b| size_bytes(&key(9), b)).sum::<usize>();
        assert_eq!((undo.chain.len(), undo.bytes), (2, left));

        undo.version = 2;
        undo.open();
        assert!(matches!(undo.close(first, true), Left::Little));
        assert!(undo.is_wanted(&key(0)), "who is left has passed nothing");
    }

    #[test]
    fn a_view_of_the_same_version_has_passed_nothing() {
        let mut undo = Undo::default();
        let version = undo.open();
        undo.open();
        undo.keep(b"a", before(1, 1));
        assert!(undo.pass(version, b"b").is_empty() && undo.is_wanted(b"a"));
        assert!(matches!(undo.close(version, true), Left::Little));
        assert!(undo.is_wanted(b"a") && undo.at(version, b"a").is_some());
    }

    fn large(version: u64) -> Before {
        Before { version, value: Some(vec![0; BYTES_MAX]) }
    }

    fn sweep_all(undo: &mut Undo) {
        let mut from = Some(Vec::new());
        while let Some(key) = from {
            from = undo.sweep(&key).1;
        }
    }

    const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

    #[test]
    fn the_only_view_expires_when_too_much_is_kept_for_it() {
        let mut undo = Undo::default();
        undo.open();
        undo.keep(b"small", before(1, 1));
        assert!(matches!(undo.expire(2), Left::Little));
        undo.keep(b"large", large(2));
        let Left::All(chain) = undo.expire(2) else { panic!("nobody is left") };
        assert_eq!((chain.len(), undo.floor, undo.bytes), (2, 2, 0));
        assert!(undo.has_changed(0, ALL) && !undo.has_changed(2, ALL) && !undo.has_views());
        undo.version = 2;
        assert_eq!(undo.open(), 2);
        assert!(matches!(undo.close(0, false), Left::Little), "of a view that expired");
        assert!(undo.has_views());
    }

    #[test]
    fn the_oldest_view_expires_first_and_the_next_one_only_if_that_was_not_enough() {
        let mut undo = much();
        undo.keep(b"large", large(3));
        assert!(matches!(undo.expire(7), Left::Litter));
        assert_eq!(undo.floor, 5);
        assert!(matches!(undo.expire(7), Left::Little), "it is being swept out");
        sweep_all(&mut undo);
        assert!(undo.bytes <= BYTES_MAX && undo.at(5, &0_u32.to_be_bytes()).is_some());
        assert!(undo.has_changed(0, ALL) && !undo.has_changed(6, ALL));

        undo.version = 6;
        undo.open();
        undo.keep(b"large", large(7));
        assert!(matches!(undo.expire(8), Left::Litter));
        sweep_all(&mut undo);
        assert!(undo.bytes > BYTES_MAX, "the last view wants it");
        assert!(matches!(undo.expire(8), Left::All(_)));
        assert_eq!((undo.floor, undo.bytes, undo.has_views()), (8, 0, false));
    }

    #[test]
    fn what_an_expired_view_left_behind_a_sweep_is_swept_out_as_well() {
        let mut undo = much();
        undo.version = 6;
        undo.open();
        assert!(matches!(undo.close(0, false), Left::Litter));
        let (_, next) = undo.sweep(&[]);
        undo.keep(&[], large(6));
        assert!(matches!(undo.expire(7), Left::Little), "whoever sweeps goes on");
        let mut from = next;
        while let Some(key) = from {
            from = undo.sweep(&key).1;
        }
        assert_eq!(
            (undo.chain.len(), undo.bytes, undo.is_swept, undo.is_expiring),
            (0, 0, false, false)
        );
    }

    #[test]
    fn all_views_expire_when_more_comes_than_is_swept_out() {
        let mut undo = much();
        undo.keep(b"large", large(6));
        assert!(matches!(undo.expire(7), Left::Litter));
        undo.keep(b"larger", large(6));
        assert!(matches!(undo.expire(7), Left::All(_)));
        assert_eq!((undo.floor, undo.has_views()), (7, false));
        undo.sweep(&[]);
        assert!(!undo.is_swept && !undo.is_expiring);
    }
}
