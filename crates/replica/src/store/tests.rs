//! Pending rows, the index below them, and views.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::pages::PAGE_BYTES_MAX;
use super::*;
use crate::index;
use crate::state::quiet_after;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    /// Keys and what they become.
    Commit(Vec<(u8, Option<u8>)>),
    Settle,
    /// Begins to write what is pending, and does not end yet.
    Begin,
    View,
    /// The oldest view reads nothing before this key any more.
    Pass(u8),
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..40u8, prop::option::weighted(0.7, any::<u8>()));
    prop_oneof![
        6 => prop::collection::vec(change, 1..12).prop_map(Step::Commit),
        1 => Just(Step::Settle),
        1 => Just(Step::Begin),
        2 => Just(Step::View),
        2 => (0..40u8).prop_map(Step::Pass),
        1 => Just(Step::Drop),
    ]
}

/// All keys from the first on.
fn check_source(source: &dyn Source, model: &Model, first: u8) {
    for key in first..40 {
        assert_eq!(source.row(&[key]), model.get(&vec![key]).cloned());
    }
    for (from, to, limit) in [(0, 40, usize::MAX), (7, 31, usize::MAX), (0, 40, 3)] {
        let (from, to) = (first.max(from), first.max(to));
        let mut found = Vec::new();
        source.scan(&[from], &[to], &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            found.len() < limit
        });
        let range = model.range(vec![from]..vec![to]).take(limit);
        assert_eq!(found, range.map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>());
    }
}

/// Ends what [`Step::Begin`] began.
fn finish(store: &Store, begun: &mut Option<Arc<Layer>>) {
    let Some(layer) = begun.take() else { return };
    store.index.write(batch(&layer)).unwrap();
    store.pending.write().unwrap().written();
}

/// An index of which one write fails when that is wanted.
struct FailsOnce {
    index: Box<dyn Index>,
    fails: Arc<AtomicBool>,
}

impl Index for FailsOnce {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.value(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        self.index.scan(from, to, visit)
    }

    fn write(&self, batch: Batch) -> Result<(), IndexError> {
        if self.fails.swap(false, Ordering::Relaxed) {
            return Err(IndexError("no room".into()));
        }
        self.index.write(batch)
    }

    fn load(&self, rows: Batch) -> Result<(), IndexError> {
        self.index.load(rows)
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.index.flush()
    }
}

#[test]
fn what_could_not_be_written_stays_readable_and_nothing_is_written_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let index = index::open(dir.path(), 1 << 20).unwrap();
    let index = Box::new(FailsOnce { index, fails: fails.clone() });
    let store = Store::open(index, 1, Arc::default()).unwrap();
    let commit = |key: u8| {
        let rows = RowChanges::from([(vec![key], Some(vec![key]))]);
        store.commit((rows, Vec::new()), &[], Applied::default()).unwrap();
    };
    commit(1);
    fails.store(true, Ordering::Relaxed);
    assert!(store.settle().is_err());
    commit(2);
    for _ in 0..2 {
        store.begin_settling(Blocking { is_threaded: false }, false);
        assert!(store.settle().is_err(), "the rows before it are missing");
        let rows = [1, 2].map(|key| store.row(&[key]));
        assert_eq!(rows, [Some(vec![1]), Some(vec![2])]);
    }
    assert!(store.flush().is_err());
    assert_eq!(store.index.value(APPLIED).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is pending, being written or in the index: reads see every commit at once, and
    /// a view none of the later ones.
    #[test]
    fn reads_see_pending_rows(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
        let (mut model, mut views, mut begun) = (Model::new(), Vec::new(), None);
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    let mut rows = RowChanges::new();
                    let (mut new_keys, mut before) = (Vec::new(), RowChanges::new());
                    let is_before_known = changes.len() % 2 == 0;
                    for (key, value) in changes {
                        if is_before_known && !rows.contains_key(&vec![key]) {
                            before.insert(vec![key], model.get(&vec![key]).cloned());
                        }
                        let is_known = model.contains_key(&vec![key]) || rows.contains_key(&vec![key]);
                        if value.is_some() && !is_known {
                            new_keys.push(vec![key]);
                        }
                        let value = value.map(|value| vec![value]);
                        rows.insert(vec![key], value.clone());
                        match value {
                            Some(value) => model.insert(vec![key], value),
                            None => model.remove(&vec![key]),
                        };
                    }
                    let changed = Changed { rows, new_keys, before };
                    store.commit(changed, &[], Applied::default()).unwrap();
                }
                Step::Settle => {
                    finish(&store, &mut begun);
                    store.settle().unwrap();
                }
                Step::Begin => {
                    finish(&store, &mut begun);
                    begun = store.pending.write().unwrap().take();
                }
                Step::View => views.push((store.view(), model.clone(), 0)),
                Step::Pass(key) => if let Some((view, _, first)) = views.first_mut() {
                    *first = key.max(*first);
                    view.pass(&[*first]);
                },
                Step::Drop => drop(views.pop()),
            }
            check_source(&*store, &model, 0);
            views.iter().for_each(|(view, model, first)| check_source(view, model, *first));
        }
    }
}

#[test]
fn what_was_settled_is_there_after_a_start_with_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let mut applied = Applied::default();
    {
        let store =
            Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
        for n in 0..100u8 {
            applied.digest.add(&[n], &[n, n]);
            let rows = RowChanges::from([(vec![n], Some(vec![n, n]))]);
            store.commit((rows, vec![]), &[], applied.clone()).unwrap();
        }
        store.flush().unwrap();
        // What comes later and is not settled is not there: neither its rows nor its index.
        store
            .commit((RowChanges::from([(vec![7], None)]), vec![]), &[], Applied::default())
            .unwrap();
        assert_eq!(store.row(&[7]), None);
    }
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    assert_eq!(store.applied(), applied);
    assert_eq!(store.row(&[7]), Some(vec![7, 7]));
    let mut n_seen = 0;
    assert!(store.verify(&mut |_, _| n_seen += 1).unwrap());
    assert_eq!(n_seen, 100);
}

#[test]
fn the_place_of_a_pending_body_is_changed_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let place = |offset| Pointer { segment: journal::SegmentId(1), offset, len: 9 };
    let (moved, dead, settled) = (Digest([1; 32]), Digest([2; 32]), Digest([3; 32]));
    store.place(&[(settled, place(3))]).unwrap();
    let places = [(moved, place(1)), (dead, place(2))];
    store.commit((RowChanges::new(), vec![]), &places, Applied::default()).unwrap();
    store.place(&[(moved, place(10)), (settled, place(30))]).unwrap();
    store.put_places(std::iter::once((dead, None))).unwrap();
    for _ in 0..2 {
        assert_eq!(store.locate(&moved).unwrap(), Some(place(10)));
        assert_eq!(store.locate(&settled).unwrap(), Some(place(30)));
        assert_eq!(store.locate(&dead).unwrap(), None);
        assert_eq!(store.bodies(None, 9).unwrap().len(), 2);
    }
}

#[test]
fn a_body_is_forgotten_with_the_index_in_hand_before_commits_wait() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let (digest, place) =
        (Digest([1; 32]), Pointer { segment: journal::SegmentId(1), offset: 1, len: 9 });
    store.commit((RowChanges::new(), vec![]), &[(digest, place)], Applied::default()).unwrap();
    let (n_asked, n_holding) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let is_live = |_: &dyn Source| {
        n_asked.set(n_asked.get() + 1);
        if store.turn.try_lock().is_err() {
            assert!(store.writing.try_lock().is_err(), "commits would wait for a layer");
            n_holding.set(n_holding.get() + 1);
        }
        false
    };
    assert!(store.forget_dead(&digest, place, is_live).unwrap());
    assert_eq!((n_asked.get(), n_holding.get()), (2, 1));
    assert_eq!(store.locate(&digest).unwrap(), None);
}

#[test]
fn a_body_that_lies_in_the_index_is_forgotten_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let place = |offset| Pointer { segment: journal::SegmentId(1), offset, len: 9 };
    let (dead, moved) = (Digest([1; 32]), Digest([2; 32]));
    store.place(&[(dead, place(1)), (moved, place(2))]).unwrap();
    let in_index = |digest: &Digest| store.index.value(&prefixed(LOCATOR, &digest.0)).unwrap();
    assert!(store.forget_dead(&dead, place(1), |_| false).unwrap());
    assert!(in_index(&dead).is_some(), "whoever commits waited for the index");
    assert_eq!(store.locate(&dead).unwrap(), None);
    assert!(store.forget_dead(&moved, place(1), |_| false).unwrap());
    assert_eq!(store.locate(&moved).unwrap(), Some(place(2)), "it lies elsewhere");
    store.settle().unwrap();
    assert!(in_index(&dead).is_none() && in_index(&moved).is_some());
}

#[test]
fn a_body_that_comes_again_while_it_is_forgotten_keeps_its_new_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let place = |offset| Pointer { segment: journal::SegmentId(1), offset, len: 9 };
    let digest = Digest([1; 32]);
    store.place(&[(digest, place(1))]).unwrap();
    let n_asked = std::cell::Cell::new(0);
    let is_live = |_: &dyn Source| {
        if n_asked.replace(n_asked.get() + 1) == 0 {
            let places = [(digest, place(2))];
            store.commit((RowChanges::new(), vec![]), &places, Applied::default()).unwrap();
        }
        false
    };
    assert!(store.forget_dead(&digest, place(1), is_live).unwrap());
    assert_eq!(store.locate(&digest).unwrap(), Some(place(2)));
}

#[test]
fn what_is_forgotten_never_makes_whoever_commits_wait_for_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let place = Pointer { segment: journal::SegmentId(1), offset: 1, len: 9 };
    let digest = |n: u64| Digest(*blake3::hash(&n.to_be_bytes()).as_bytes());
    // More than may wait.
    const N_BODIES: u64 = 5 * 4096;
    store.load_places((0..N_BODIES).map(|n| (digest(n), place)).collect()).unwrap();
    store.flush().unwrap();
    let n_forgotten = (0..N_BODIES).take_while(|n| {
        let is_dead = store.forget_dead(&digest(*n), place, |_| false).unwrap();
        is_dead && store.pending().lag() < Lag::Behind
    });
    assert_eq!(n_forgotten.count() as u64, N_BODIES);
    assert!((0..N_BODIES).all(|n| store.locate(&digest(n)).unwrap().is_none()));
}

#[test]
fn while_an_index_is_built_the_last_place_of_a_body_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let place = |offset| Pointer { segment: journal::SegmentId(1), offset, len: 9 };
    let digest = |n: u64| Digest(*blake3::hash(&(n % 5000).to_be_bytes()).as_bytes());
    store.load_places((0..9000).map(|n| (digest(n), place(n))).collect()).unwrap();
    store.load_places(vec![(digest(7), place(1 << 20)), (digest(7), place(2 << 20))]).unwrap();
    store.flush().unwrap();
    for n in 4000..9000 {
        let last = if n == 5007 { 2 << 20 } else { n };
        assert_eq!(store.locate(&digest(n)).unwrap(), Some(place(last)), "{n}");
    }
}

#[test]
fn a_view_of_large_rows_sees_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let commit = |keys: std::ops::Range<u8>, value: &[u8]| {
        let rows = keys.map(|key| (vec![key], Some(value.to_vec()))).collect();
        store.commit((rows, Vec::new()), &[], Applied::default()).unwrap();
    };
    let value = vec![7; PAGE_BYTES_MAX / 5];
    commit(0..100, &value);
    store.settle().unwrap();
    let view = store.view();
    commit(40..60, &[1]);
    let mut seen = Vec::new();
    view.scan(&[1], &[99], &mut |key, row| {
        assert!(row == value, "the row of {key:?} is a later one");
        seen.push(key[0]);
        true
    });
    assert_eq!(seen, (1..99).collect::<Vec<_>>());
}

/// Far more rows went than are looked through at once.
#[test]
fn a_view_sees_all_that_went_and_nobody_waits_for_it_long() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let key = |n: u32| n.to_be_bytes().to_vec();
    let commit = |keys: std::ops::Range<u32>, value: Option<Vec<u8>>| {
        let rows: RowChanges = keys.map(|n| (key(n), value.clone())).collect();
        store.commit((rows, Vec::new()), &[], Applied::default()).unwrap();
    };
    commit(0..5000, Some(vec![1]));
    let view = store.view();
    commit(1..4000, None);
    commit(4500..4600, Some(vec![2]));
    let rows: Vec<Row> = view.rows().map(Result::unwrap).collect();
    assert_eq!(rows, (0..5000).map(|n| (key(n), vec![1])).collect::<Vec<_>>());
    let some = lock(&store.undo).some_at(view.version, (Bound::Unbounded, Bound::Unbounded));
    assert!(some.0.len() < 1000 && some.1.is_some(), "looked through while commits wait");
}

#[test]
fn briefs_are_kept_of_rows_as_they_are_and_forgotten_when_these_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    // Metadata as `mailbox` names them, of one account.
    let key = |email: u64| [&[8][..], &[1; 16], &[0x0f], &email.to_be_bytes()].concat();
    let block = |email| Block::changed_by(&key(email)).unwrap()[0];
    let commit = |email: u64, value: Option<Vec<u8>>| {
        let rows = RowChanges::from([(key(email), value)]);
        store.commit((rows, Vec::new()), &[], Applied::default()).unwrap();
    };
    let briefs = Bytes::from_static(b"briefs");
    commit(1, Some(vec![1]));
    let before = store.view();
    before.keep_briefs(&block(1), &briefs);
    assert_eq!(store.view().briefs(&block(1)), Some(briefs.clone()));
    for change in [Some(vec![2]), None] {
        commit(2, change);
        let view = store.view();
        assert_eq!(view.briefs(&block(1)), None, "a neighbour changed");
        before.keep_briefs(&block(1), &briefs);
        assert_eq!(view.briefs(&block(1)), None, "made of rows that were");
        before.keep_briefs(&block(1 << 20), &briefs);
        assert_eq!(before.briefs(&block(1 << 20)), Some(briefs.clone()), "of rows that stayed");
        view.keep_briefs(&block(1), &briefs);
        assert_eq!(view.briefs(&block(1)), Some(briefs.clone()));
    }
}

/// Metadata of a message without any header field.
fn metadata() -> Vec<u8> {
    let mut row = minicbor::Encoder::new(Vec::new());
    // The envelope, the structure, and the keys of which a thread needs the base subject, whether it is
    // a reply, and references.
    row.array(3).unwrap().array(0).unwrap().null().unwrap();
    row.array(11).unwrap().null().unwrap().null().unwrap().str("").unwrap().bool(false).unwrap();
    for _ in 4..10 {
        row.null().unwrap();
    }
    row.array(0).unwrap();
    row.into_writer()
}

#[test]
fn a_mailbox_that_is_filled_is_ready_to_be_searched_where_queries_are_answered() {
    for is_asked in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let index = index::open(dir.path(), 1 << 20).unwrap();
        let store = Store::open(index, 1, Arc::default()).unwrap();
        let key = |email: u64| [&[8][..], &[1; 16], &[0x0f], &email.to_be_bytes()].concat();
        let n_kept = || {
            let view = store.view();
            let blocks = [1, 129, 257].map(|email| Block::changed_by(&key(email)).unwrap());
            blocks.map(|kinds| kinds.iter().filter(|kind| view.briefs(kind).is_some()).count())
        };
        let fill = |emails: std::ops::Range<u64>| {
            let rows = emails.map(|email| (key(email), Some(metadata()))).collect();
            store.commit((rows, Vec::new()), &[], Applied::default()).unwrap();
            // As in a simulation: it is done when this returns.
            store.begin_settling(Blocking { is_threaded: false }, is_asked);
        };
        fill(0..100);
        assert_eq!(n_kept(), [0, 0, 0], "more may come");
        fill(100..200);
        assert_eq!(n_kept(), if is_asked { [2, 0, 0] } else { [0, 0, 0] });
        fill(200..257);
        assert_eq!(n_kept(), if is_asked { [2, 2, 0] } else { [0, 0, 0] });
    }
}

/// On every replica, since any may lead after a restart.
#[test]
fn briefs_outlive_the_process_and_are_forgotten_when_rows_change() {
    for is_asked in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let index = index::open(&dir.path().join("index"), 1 << 20).unwrap();
            let store = Store::open(index, 1, Arc::default()).unwrap();
            store.keep_briefs_in(&dir.path().join("briefs"));
            store
        };
        let key = |email: u64| [&[8][..], &[1; 16], &[0x0f], &email.to_be_bytes()].concat();
        let n_kept = |view: &RowView| {
            let blocks = [1, 129, 257].map(|email| Block::changed_by(&key(email)).unwrap());
            blocks.map(|kinds| kinds.iter().filter(|kind| view.briefs(kind).is_some()).count())
        };
        let commit = |store: &Arc<Store>, emails: std::ops::Range<u64>| {
            let rows = emails.map(|email| (key(email), Some(metadata()))).collect();
            store.commit((rows, Vec::new()), &[], Applied::default()).unwrap();
            store.begin_settling(Blocking { is_threaded: false }, is_asked);
        };
        let store = open();
        commit(&store, 0..300);
        if !is_asked {
            assert_eq!(n_kept(&store.view()), [0, 0, 0], "nobody asks here");
            assert!(!briefs::is_time(&store), "it was not asked before");
            let leader_id = crate::raft::LeaderId { term: 1, node_id: 1 };
            let log_id = Some(crate::raft::LogId { leader_id, index: 7 });
            let applied = Applied { log_id, ..Applied::default() };
            store.commit((RowChanges::new(), Vec::new()), &[], applied).unwrap();
            assert!(!briefs::is_time(&store), "something was committed");
            assert!(briefs::is_time(&store), "nothing was since");
            briefs::make_some(&store);
            assert!(!briefs::is_time(&store), "all are made");
        }
        drop(store);
        let store = open();
        let before = store.view();
        assert_eq!(n_kept(&before), [2, 2, 0], "the last block may get more");
        let last = Block::changed_by(&key(257)).unwrap()[0];
        before.keep_briefs(&last, &Bytes::from_static(b"not complete"));
        let first = Block::changed_by(&key(1)).unwrap()[0];
        let briefs = before.briefs(&first).unwrap();
        commit(&store, 5..6);
        assert_eq!(n_kept(&store.view()), [0, 2, 1], "a row changed");
        before.keep_briefs(&first, &briefs);
        assert_eq!(n_kept(&store.view()), [0, 2, 1], "made of rows that were");
        drop((before, store));
        assert_eq!(n_kept(&open().view())[2], 0);
    }
}

#[tokio::test]
async fn who_waits_for_the_index_goes_on_when_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let mut keys = 0..u32::MAX;
    let mut commit = |n_rows: usize| {
        let keys: Vec<_> = keys.by_ref().take(n_rows).map(|n| n.to_be_bytes().to_vec()).collect();
        let rows = keys.iter().map(|key| (key.clone(), Some(vec![7]))).collect();
        store.commit((rows, keys), &[], Applied::default()).unwrap()
    };
    assert_eq!(commit(1), Lag::Little);
    store.written().now_or_never().expect("nobody writes");
    assert_eq!(commit(4096), Lag::Due);
    // Somebody was called, and was not there yet.
    store.pending.write().unwrap().call();
    assert_eq!(commit(1), Lag::Behind);
    let mut begun = store.pending.write().unwrap().take();
    assert_eq!(commit(1), Lag::Little, "what is being written does not count");
    assert!(quiet_after(&store, 20).is_none(), "a delivery waits for nothing");
    let mut bulk = std::pin::pin!(quiet_after(&store, 500).unwrap());
    assert_eq!(bulk.as_mut().now_or_never(), None);
    assert_eq!(commit(4096), Lag::Behind);
    assert_eq!(commit(3 * 4096), Lag::Full);
    let mut first = std::pin::pin!(store.written());
    assert_eq!(first.as_mut().now_or_never(), None);
    finish(&store, &mut begun);
    assert!(quiet_after(&store, 500).is_none(), "nobody writes");
    // Whoever writes next tells of what was written before as well.
    store.settle().unwrap();
    first.now_or_never().expect("it was written");
    bulk.now_or_never().expect("it was written");
    assert_eq!(commit(1), Lag::Little);
}

#[tokio::test]
async fn nobody_waits_for_an_index_that_takes_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    store.pending.write().unwrap().call();
    let mut waiting = std::pin::pin!(store.written());
    assert_eq!(waiting.as_mut().now_or_never(), None);
    // A writer that failed.
    store.give_up();
    drop(Told(&store.written));
    waiting.now_or_never().expect("it was told");
    store.written().now_or_never().expect("it is damaged");
}

/// Who keeps others from committing may wait for the disk meanwhile.
#[test]
fn who_looks_does_not_wait_for_who_has_the_turn_to_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
    let turn = store.turn();
    assert!(store.free_turn().is_none());
    assert_eq!(store.view().applied(), &store.applied());
    drop(turn);
    let turn = store.free_turn().unwrap();
    assert!(store.free_turn().is_none(), "who asked has it");
    drop(turn);
    assert!(store.free_turn().is_some());
}
