//! Checkpoints that cannot be written, merged or taken over, and what is known meanwhile.

use futures_util::FutureExt as _;
use mailbox::RowChanges;

use super::*;
use crate::index;
use crate::raft::{LeaderId, LogId};

fn anywhere() -> HasRoom {
    Arc::new(|_, _| true)
}

/// Entry `key` makes a row of that key.
fn commit(checkpoints: &Checkpoints, store: &Arc<Store>, key: u8) -> Applied {
    let rows = RowChanges::from([(vec![key], Some(vec![key]))]);
    let mut dirty = checkpoints.dirty();
    dirty.note(&rows, &[], 1);
    let mut applied = store.applied();
    applied.digest.add(&[key], &[key]);
    let leader_id = LeaderId { term: 1, node_id: 1 };
    applied.log_id = Some(LogId { leader_id, index: key.into() });
    store.commit((rows, vec![]), &[], applied.clone()).unwrap();
    applied
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_merged_are_a_checkpoint_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let blocking = Blocking { is_threaded: false };
    let upkeep = Upkeep { n_deltas: 2, ..Upkeep::default() };
    let (room, asked) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let is_full = Arc::new(AtomicBool::new(false));
    let (left, told, full) = (room.clone(), asked.clone(), is_full.clone());
    let has_room = Arc::new(move |bytes, want| {
        *lock(&told) = bytes;
        let is_room_for_much = want == Want::Much && !full.load(Ordering::Relaxed);
        bytes <= *lock(&left) || is_room_for_much
    });
    let files = dir.path().join("files");
    let checkpoints = Checkpoints::open(&files, blocking, &upkeep, has_room).unwrap();
    let index = index::open(&dir.path().join("index"), 1 << 20).unwrap();
    let store = Store::open(index, 1, Arc::default()).unwrap();
    let build = async |key: u8| {
        let applied = commit(&checkpoints, &store, key);
        let built = checkpoints.build(|| store.clone()).await.unwrap();
        assert_eq!(built.applied().log_id, applied.log_id);
        built.parts.len()
    };
    assert_eq!((build(1).await, build(2).await), (1, 2));
    assert_eq!(build(3).await, 3, "there is no room");
    let bytes = checkpoints.current().unwrap().parts.iter().map(|part| part.len).sum::<u64>();
    assert_eq!(*lock(&asked), bytes);
    *lock(&room) = u64::MAX;
    assert_eq!(build(4).await, 4, "that was a moment ago");
    tokio::time::advance(MERGE_AFTER).await;
    // The next base cannot be written.
    let mut applied = store.applied();
    applied.log_id.as_mut().unwrap().index = 5;
    let base = files.join(Head { from: 0, applied }.name()).with_extension("ckpt.new");
    std::fs::create_dir(&base).unwrap();
    assert_eq!(build(5).await, 5, "it is in the way");
    std::fs::remove_dir(&base).unwrap();
    tokio::time::advance(MERGE_AFTER).await;
    assert_eq!(build(6).await, 6, "it is tried less and less often");
    tokio::time::advance(MERGE_AFTER).await;
    assert_eq!(build(7).await, 1);
    *lock(&room) = 0;
    for n_parts in 2..=PARTS_MAX {
        assert_eq!(build(n_parts as u8 + 6).await, n_parts);
    }
    is_full.store(true, Ordering::Relaxed);
    let last = PARTS_MAX as u8 + 7;
    commit(&checkpoints, &store, last);
    let refused = checkpoints.build(|| store.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert_eq!(checkpoints.current().unwrap().parts.len(), PARTS_MAX);
    checkpoints.doubt();
    let refused = checkpoints.build(|| store.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "a base is as large");
    is_full.store(false, Ordering::Relaxed);
    checkpoints.is_doubted.store(false, Ordering::Relaxed);
    assert_eq!(build(last + 1).await, 2, "no more are written");
}

/// Entry `index` writes these rows, or takes them away; `model` is what there is.
fn change(
    (checkpoints, store): (&Checkpoints, &Arc<Store>),
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    index: u64,
    rows: RowChanges,
) {
    let mut dirty = checkpoints.dirty();
    dirty.note(&rows, &[], 1);
    let mut applied = store.applied();
    for (key, value) in rows.clone() {
        if let Some(before) = model.remove(&key) {
            applied.digest.subtract(&key, &before);
        }
        if let Some(value) = value {
            applied.digest.add(&key, &value);
            model.insert(key, value);
        }
    }
    applied.log_id = Some(LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index });
    store.commit((rows, vec![]), &[], applied).unwrap();
}

#[tokio::test]
async fn a_large_base_is_written_anew_for_large_deltas_only() {
    let dir = tempfile::tempdir().unwrap();
    let blocking = Blocking { is_threaded: false };
    let upkeep = Upkeep { n_deltas: 3, ..Upkeep::default() };
    let files = dir.path().join("files");
    let open = || Checkpoints::open(&files, blocking, &upkeep, anywhere()).unwrap();
    let checkpoints = open();
    let index = index::open(&dir.path().join("index"), 1 << 20).unwrap();
    let store = Store::open(index, 1, Arc::default()).unwrap();
    let mut model = BTreeMap::new();
    // What zstd does not shrink.
    let large = |seed: u8| {
        let mut value = vec![0; 4096];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut value);
        Some(value)
    };
    let rows = (0..64).map(|key| (vec![key], large(key))).collect();
    change((&checkpoints, &store), &mut model, 1, rows);
    let base = checkpoints.build(|| store.clone()).await.unwrap().parts[0].clone();
    for n in 0..20_u8 {
        let rows = RowChanges::from([(vec![n], None), (vec![n + 1], Some(vec![n]))]);
        change((&checkpoints, &store), &mut model, u64::from(n) + 2, rows);
        let built = checkpoints.build(|| store.clone()).await.unwrap();
        assert!(checkpoints.holds(&base), "written anew for little, in round {n}");
        assert!(built.parts.len() <= 1 + upkeep.n_deltas, "{} files", built.parts.len());
        assert_eq!(n_rows(&built), model.len(), "in round {n}");
        assert_eq!(std::fs::read_dir(&files).unwrap().count(), built.parts.len());
    }
    let (again, end) = (open(), checkpoints.end());
    assert_eq!((again.end(), n_rows(&again.current().unwrap())), (end, model.len()));
    let feeding = checkpoints.feeds().begin(3, 1);
    for n in 0..5_u8 {
        if n == 3 {
            assert!(checkpoints.holds(&base), "a follower is sent it");
            checkpoints.feeds().give_up();
        }
        let rows = (0..32).map(|key| (vec![64 + n * 32 + key], large(n * 32 + key))).collect();
        change((&checkpoints, &store), &mut model, u64::from(n) + 30, rows);
        let built = checkpoints.build(|| store.clone()).await.unwrap();
        assert!(built.parts.len() <= 1 + upkeep.n_deltas, "{} files", built.parts.len());
    }
    drop(feeding);
    assert!(!checkpoints.holds(&base), "the deltas are as large");
    assert_eq!(n_rows(&checkpoints.current().unwrap()), model.len());
}

#[tokio::test]
async fn a_base_stays_for_who_is_sent_it_until_its_deltas_are_much_larger() {
    let dir = tempfile::tempdir().unwrap();
    let (blocking, upkeep) = (Blocking { is_threaded: false }, Upkeep::default());
    let checkpoints = Checkpoints::open(dir.path(), blocking, &upkeep, anywhere()).unwrap();
    let part = |from: u64, n_bytes: usize| {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        let log_id = Some(LogId { leader_id, index: from });
        let head = Head { from, applied: Applied { log_id, ..Applied::default() } };
        // What zstd does not shrink.
        let mut value = vec![0; n_bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut value);
        let row = Ok((vec![1], Some(value)));
        Part::write(dir.path(), &head, &mut std::iter::once(row)).unwrap()
    };
    let with_delta_of = |n_bytes| Checkpoint { parts: vec![part(0, 10), part(1, n_bytes)] };
    let (large, much_larger) = (with_delta_of(2 << 20), with_delta_of(5 << 20));
    assert_eq!(checkpoints.to_be_merged(&large), Some(0));
    let _feeding = checkpoints.feeds().begin(3, 1);
    assert_eq!(checkpoints.to_be_merged(&large), None, "a follower is sent it");
    assert_eq!(checkpoints.to_be_merged(&much_larger), Some(0));
}

#[test]
fn deltas_are_merged_with_those_that_are_no_larger() {
    assert_eq!(merge_from(&[100, 1, 1, 1]), 1);
    assert_eq!(merge_from(&[100, 50, 20, 10]), 2, "the last two at least");
    assert_eq!(merge_from(&[100, 50, 20, 20]), 2);
    assert_eq!(merge_from(&[100, 40, 20, 20]), 1);
    assert_eq!(merge_from(&[100, 60, 30, 10]), 0, "they are as large as the base");
    assert_eq!(merge_from(&[100, 10]), 0);
}

/// How many rows a checkpoint has.
fn n_rows(checkpoint: &Checkpoint) -> usize {
    let mut n_rows = 0;
    let mut count = |_, _| {
        n_rows += 1;
        Ok(())
    };
    checkpoint.rows(&mut count).unwrap();
    n_rows
}

/// A checkpoint of row 1 was written, and row 2 came after it.
async fn written_and_one_row_more(dir: &Path) -> (Arc<Checkpoints>, Arc<Store>) {
    let blocking = Blocking { is_threaded: false };
    let files = dir.join("files");
    let checkpoints = Checkpoints::open(&files, blocking, &Upkeep::default(), anywhere()).unwrap();
    let index = index::open(&dir.join("index"), 1 << 20).unwrap();
    let store = Store::open(index, 1, Arc::default()).unwrap();
    commit(&checkpoints, &store, 1);
    checkpoints.build(|| store.clone()).await.unwrap();
    commit(&checkpoints, &store, 2);
    (checkpoints, store)
}

#[tokio::test]
async fn what_could_not_be_written_is_written_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoints, store) = written_and_one_row_more(dir.path()).await;
    let head = Head { from: checkpoints.end(), applied: store.applied() };
    let in_the_way = dir.path().join("files").join(format!("{}.new", head.name()));
    std::fs::create_dir(&in_the_way).unwrap();
    checkpoints.build(|| store.clone()).await.unwrap_err();
    assert_eq!(checkpoints.end_and_dirty_keys().unwrap().1, [vec![2]]);
    std::fs::remove_dir(&in_the_way).unwrap();
    commit(&checkpoints, &store, 3);
    let built = checkpoints.build(|| store.clone()).await.unwrap();
    assert_eq!((built.parts.len(), n_rows(&built)), (2, 3));
}

#[tokio::test]
async fn when_files_that_are_merged_miss_their_digest_all_rows_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let blocking = Blocking { is_threaded: false };
    let upkeep = Upkeep { n_deltas: 1, ..Upkeep::default() };
    let files = dir.path().join("files");
    let checkpoints = Checkpoints::open(&files, blocking, &upkeep, anywhere()).unwrap();
    let index = index::open(&dir.path().join("index"), 1 << 20).unwrap();
    let store = Store::open(index, 1, Arc::default()).unwrap();
    commit(&checkpoints, &store, 1);
    checkpoints.build(|| store.clone()).await.unwrap();
    commit(&checkpoints, &store, 2);
    // Nobody knows any more that it changed.
    checkpoints.set_dirty_keys(Vec::new());
    commit(&checkpoints, &store, 3);
    let error = checkpoints.build(|| store.clone()).await.unwrap_err();
    assert!(is_damage(&error), "{error}");
    assert!(checkpoints.is_doubted());
    let built = checkpoints.build(|| store.clone()).await.unwrap();
    assert_eq!((built.parts.len(), n_rows(&built)), (1, 3));
    assert!(!checkpoints.is_doubted());
}

#[tokio::test]
async fn rows_that_miss_their_digest_take_the_place_of_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (blocking, upkeep) = (Blocking { is_threaded: false }, Upkeep::default());
    let files = dir.path().join("files");
    let open = || Checkpoints::open(&files, blocking, &upkeep, anywhere()).unwrap();
    let checkpoints = open();
    let index = index::open(&dir.path().join("index"), 1 << 20).unwrap();
    let store = Store::open(index, 1, Arc::default()).unwrap();
    commit(&checkpoints, &store, 1);
    checkpoints.build(|| store.clone()).await.unwrap();
    // The index lost its row, and no entry came since: the base to be would have the same name.
    let lost = RowChanges::from([(vec![1], None)]);
    store.commit((lost, vec![]), &[], store.applied()).unwrap();
    checkpoints.doubt();
    let error = checkpoints.build(|| store.clone()).await.unwrap_err();
    assert!(is_damage(&error), "{error}");
    let left = open();
    assert_eq!((left.end(), n_rows(&left.current().unwrap())), (2, 1));
}

#[test]
fn rows_that_add_up_are_all_there_is_and_others_end_with_an_error() {
    let rows = || [1_u8, 2].map(|key| Ok((vec![key], vec![key]))).into_iter();
    let mut all = RowDigest::default();
    all.add(&[1], &[1]);
    let n_bad = |all| adding_up(rows(), all, "missed").filter(Result::is_err).count();
    assert_eq!(n_bad(all), 1);
    all.add(&[2], &[2]);
    assert_eq!((n_bad(all), adding_up(rows(), all, "missed").count()), (0, 2));
}

#[tokio::test]
async fn when_too_much_changed_to_be_noted_all_rows_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoints, store) = written_and_one_row_more(dir.path()).await;
    for n in 0..=64_u8 {
        checkpoints.dirty().insert(&[vec![n], vec![0; 1 << 20]].concat());
    }
    checkpoints.forget_too_many();
    assert_eq!(checkpoints.end_and_dirty_keys(), None, "nobody knows what changed");
    let built = checkpoints.build(|| store.clone()).await.unwrap();
    assert_eq!((built.parts.len(), n_rows(&built)), (1, 2));
    assert_eq!(checkpoints.end_and_dirty_keys(), Some((checkpoints.end(), vec![])));
}

#[tokio::test]
async fn what_a_base_has_passed_is_not_kept_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let blocking = Blocking { is_threaded: false };
    let files = dir.path().join("files");
    let checkpoints = Checkpoints::open(&files, blocking, &Upkeep::default(), anywhere()).unwrap();
    let index = index::open(&dir.path().join("index"), 1 << 20).unwrap();
    let store = Store::open(index, 1, Arc::default()).unwrap();
    (0..=u8::MAX).for_each(|key| drop(commit(&checkpoints, &store, key)));
    let view = store.view();
    let rows: RowChanges = (0..=u8::MAX).map(|key| (vec![key], Some(vec![0]))).collect();
    store.commit((rows, vec![]), &[], store.applied()).unwrap();
    let kept_bytes = store.kept_bytes();
    assert_eq!(n_rows(&checkpoints.base(&view).unwrap()), 256);
    assert!(store.kept_bytes() * 2 < kept_bytes);
}

#[tokio::test]
async fn a_stop_while_a_checkpoint_is_written_knows_all_that_changed() {
    let dir = tempfile::tempdir().unwrap();
    let blocking = Blocking { is_threaded: false };
    let upkeep = Upkeep::default();
    let open =
        || Checkpoints::open(&dir.path().join("files"), blocking, &upkeep, anywhere()).unwrap();
    let checkpoints = open();
    let index = index::open(&dir.path().join("index"), 1 << 20).unwrap();
    let store = Store::open(index, 1, Arc::default()).unwrap();
    let change = |key| commit(&checkpoints, &store, key);
    let told = || checkpoints.end_and_dirty_keys().unwrap();
    change(1);
    checkpoints.build(|| store.clone()).await.unwrap();
    let end = checkpoints.end();
    assert_eq!(told(), (end, vec![]));
    change(2);
    let under_way = checkpoints.take(&store);
    change(3);
    assert_eq!(told(), (end, vec![vec![2], vec![3]]));
    drop(under_way);
}

#[test]
fn a_file_that_could_not_be_looked_at_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let upkeep = Upkeep::default();
    let open =
        || Checkpoints::open(dir.path(), Blocking { is_threaded: false }, &upkeep, anywhere());
    let mut applied = Applied::default();
    let leader_id = LeaderId { term: 1, node_id: 1 };
    applied.log_id = Some(LogId { leader_id, index: 7 });
    let part = Part::write(dir.path(), &Head { from: 0, applied }, &mut std::iter::empty());
    let path = part.unwrap().path.clone();
    let aside = dir.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert!(open().is_err(), "the link leads to itself");
    std::fs::rename(&aside, &path).unwrap();
    let checkpoints = open().unwrap();
    assert_eq!((checkpoints.end(), checkpoints.is_doubted()), (8, false));
    drop(checkpoints);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..10]).unwrap();
    assert!(open().unwrap().is_doubted(), "it is damaged");
}

#[tokio::test]
async fn a_snapshot_that_is_taken_over_in_part_leaves_the_checkpoint_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let upkeep = Upkeep::default();
    let open = |name| {
        let blocking = Blocking { is_threaded: false };
        Checkpoints::open(&dir.path().join(name), blocking, &upkeep, anywhere()).unwrap()
    };
    let file = |of: &Checkpoints, from, index| {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        let applied = Applied { log_id: Some(LogId { leader_id, index }), ..Applied::default() };
        Part::write(of.dir(), &Head { from, applied }, &mut std::iter::empty()).unwrap()
    };
    let (own, theirs) = (open("own"), open("theirs"));
    file(&own, 0, 9);
    file(&own, 10, 19);
    let parts = vec![file(&theirs, 0, 14), file(&theirs, 15, 29)];
    let own = open("own");
    assert_eq!(own.end(), 20);
    // The second file is not there yet, or it breaks off after the first.
    std::fs::remove_file(&parts[1].path).unwrap();
    let turn = own.writing().await;
    own.adopt(&Checkpoint { parts }, &turn).unwrap_err();
    assert_eq!(open("own").end(), 20);
}

#[test]
fn files_are_found_that_reach_furthest_and_no_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let file = |from, end: u64| {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        let log_id = Some(LogId { leader_id, index: end - 1 });
        let head = Head { from, applied: Applied { log_id, ..Applied::default() } };
        Part::write(dir.path(), &head, &mut std::iter::empty()).unwrap();
        (from, end)
    };
    let open = || {
        let (blocking, upkeep) = (Blocking { is_threaded: false }, Upkeep::default());
        let parts = Checkpoints::open(dir.path(), blocking, &upkeep, anywhere()).unwrap();
        let parts = parts.current().unwrap().parts;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), parts.len());
        let places = parts.iter().map(|part| (part.head.from, part.head.applied.next_index()));
        places.collect::<Vec<_>>()
    };
    // Of the checkpoint there was one file more was removed already.
    let (base, _) = (file(0, 10), file(10, 20));
    let taken_over = [base, file(10, 15), file(15, 40)];
    assert_eq!(open(), taken_over);
    // Some of these are merged.
    file(10, 40);
    assert_eq!(open(), [base, (10, 40)]);
    // Behind a gap.
    file(41, 90);
    assert_eq!(open(), [base, (10, 40)]);
}

#[tokio::test]
async fn what_is_left_of_a_snapshot_that_was_installed_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoints, _store) = written_and_one_row_more(dir.path()).await;
    let files = checkpoints.dir().to_path_buf();
    let incoming = files.join(INCOMING);
    let part = checkpoints.current().unwrap().parts[0].clone();
    let leave = |names: &[String]| {
        std::fs::create_dir(&incoming).unwrap();
        for name in names {
            std::fs::hard_link(&part.path, incoming.join(name)).unwrap();
        }
    };
    let open = || {
        let blocking = Blocking { is_threaded: false };
        Checkpoints::open(&files, blocking, &Upkeep::default(), anywhere()).unwrap()
    };
    leave(&[part.head.name()]);
    assert_eq!(open().end(), checkpoints.end());
    assert!(!incoming.exists());
    let mut applied = part.head.applied.clone();
    applied.log_id.as_mut().unwrap().index = 9;
    let delta = Head { from: checkpoints.end(), applied };
    leave(&[part.head.name(), delta.name()]);
    open();
    assert_eq!(std::fs::read_dir(&incoming).unwrap().count(), 2, "the rest of it may come");
}

#[tokio::test]
async fn a_snapshot_waits_for_who_writes_a_checkpoint_and_nothing_is_written_of_old_rows() {
    let dir = tempfile::tempdir().unwrap();
    let blocking = Blocking { is_threaded: false };
    let open =
        |name| Checkpoints::open(&dir.path().join(name), blocking, &Upkeep::default(), anywhere());
    let store = |name| {
        let index = index::open(&dir.path().join(name), 1 << 20).unwrap();
        Store::open(index, 1, Arc::default()).unwrap()
    };
    let (theirs, their_store) = (open("theirs").unwrap(), store("their index"));
    (1..=9).for_each(|key| drop(commit(&theirs, &their_store, key)));
    let snapshot = theirs.build(|| their_store.clone()).await.unwrap();

    let (own, old_store) = (open("own").unwrap(), store("old index"));
    commit(&own, &old_store, 1);
    let applying = Mutex::new(old_store);
    let turn = own.writing().await;
    let mut building = Box::pin(own.build(|| lock(&applying).clone()));
    assert!(building.as_mut().now_or_never().is_none(), "it has to wait for its turn");
    let adopted = own.adopt(&snapshot, &turn).unwrap();
    *lock(&applying) = their_store.clone();
    commit(&own, &their_store, 10);
    drop(turn);
    let built = building.await.unwrap();
    assert_eq!(built.parts.len(), adopted.parts.len() + 1);
    assert_eq!(n_rows(&built), 10);
    assert_eq!(std::fs::read_dir(own.dir()).unwrap().count(), built.parts.len());
}
