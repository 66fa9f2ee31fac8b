//! A full disk refuses and loses nothing.

use std::sync::Arc;

use journal::sim::SimStorage;
use journal::{Digest, Error, Journal, Options, Record, Recovered, ReplicaId, SpaceLevel, Storage};

use crate::model::{
    Model, apply, blob, entry, formatted, options, purge, recovered_model, truncate, vote,
};

const SEGMENT: u64 = 4096;

fn open(storage: &SimStorage) -> (Journal, Recovered) {
    let options =
        Options { hard_free_bytes: 2 * SEGMENT, soft_free_bytes: 6 * SEGMENT, ..options() };
    Journal::open(Arc::new(storage.clone()), options).unwrap()
}

/// Appends entries with bodies until the disk is full. The index that was refused.
fn fill(journal: &Journal, known: &mut Model, from: u64) -> u64 {
    for index in from.. {
        let record = entry(1, index, vec![blob(index, 900)]);
        match journal.append_wait(vec![record.clone()]) {
            Ok(_) => apply(known, &record),
            Err(Error::Full) => return index,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the disk has an end")
}

#[test]
fn bodies_are_refused_and_everything_else_goes_on() {
    let storage = formatted(16 * SEGMENT);
    let (journal, _) = open(&storage);
    let mut known = Model::new();
    let refused = fill(&journal, &mut known, 1);
    assert!(refused > 20, "{refused}");
    assert_eq!(journal.usage().unwrap().space, SpaceLevel::Hard);
    // An entry behind a refused one would make a hole, also if it is small.
    let behind = journal.append_wait(vec![entry(1, refused + 1, vec![])]);
    assert!(matches!(behind, Err(Error::Full)));
    let small = [
        vec![entry(1, refused, vec![])],
        vec![vote(2, "still")],
        vec![truncate(1, refused)],
        vec![entry(1, refused, vec![]), entry(1, refused + 1, vec![])],
        vec![purge(1, 3)],
    ];
    for records in small {
        journal.append_wait(records.clone()).unwrap();
        records.iter().for_each(|record| apply(&mut known, record));
    }
    assert!(!journal.is_poisoned());
    drop(journal);
    let (journal, recovered) = open(&storage.power_cut(&mut || false));
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
}

#[test]
fn a_segment_that_was_begun_for_something_vital_takes_entries_while_there_is_room() {
    let storage = formatted(16 * SEGMENT);
    let (journal, _) = open(&storage);
    let mut known = Model::new();
    let refused = fill(&journal, &mut known, 1);
    // As garbage collection does, and whoever empties a damaged segment.
    journal.roll().unwrap();
    let n_segments = journal.usage().unwrap().n_segments;
    let grown = journal.append_wait(vec![entry(1, refused, vec![blob(1, 900)])]);
    assert!(matches!(grown, Err(Error::Full)), "bodies are refused as before");
    for index in refused..refused + 4 {
        let record = entry(1, index, vec![]);
        journal.append_wait(vec![record.clone()]).unwrap();
        apply(&mut known, &record);
    }
    assert_eq!(journal.usage().unwrap().n_segments, n_segments, "it is the same segment");
    drop(journal);
    let (journal, recovered) = open(&storage);
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
}

#[test]
fn votes_outlast_entries_on_a_disk_others_filled() {
    let storage = formatted(16 * SEGMENT);
    let (journal, _) = open(&storage);
    let mut known = Model::new();
    let mut index = fill(&journal, &mut known, 1);
    // Somebody else takes the rest, and the reserve is all there is.
    storage.set_total_bytes(0);
    loop {
        let records: Vec<_> = (0..8).map(|i| entry(1, index + i, vec![])).collect();
        match journal.append_wait(records.clone()) {
            Ok(_) => records.iter().for_each(|record| apply(&mut known, record)),
            Err(Error::Full) => break,
            Err(error) => panic!("{error}"),
        }
        index += 8;
    }
    for _ in 0..20 {
        let records = vec![vote(1, "outlasts"), vote(2, "too")];
        journal.append_wait(records.clone()).unwrap();
        records.iter().for_each(|record| apply(&mut known, record));
    }
    assert!(!journal.is_poisoned());
    // Somebody gives back what entries may use, and bodies may not.
    storage.set_total_bytes(32 * SEGMENT);
    let used = 32 * SEGMENT - journal.usage().unwrap().free_bytes;
    storage.set_total_bytes(used + SEGMENT);
    let n_segments = journal.usage().unwrap().n_segments;
    for _ in 0..8 {
        let record = entry(1, index, vec![]);
        journal.append_wait(vec![record.clone()]).unwrap();
        apply(&mut known, &record);
        index += 1;
    }
    assert_eq!(journal.usage().unwrap().n_segments, n_segments + 1);
    storage.set_total_bytes(32 * SEGMENT);
    fill(&journal, &mut known, index);
    drop(journal);
    let (journal, recovered) = open(&storage);
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
}

#[test]
fn garbage_collection_makes_room_on_a_full_disk() {
    let storage = formatted(16 * SEGMENT);
    let (journal, _) = open(&storage);
    let mut known = Model::new();
    let refused = fill(&journal, &mut known, 1);
    let record: Record = purge(1, refused - 1);
    journal.append_wait(vec![record.clone()]).unwrap();
    apply(&mut known, &record);
    let collected = journal.collect(&|_, _, _| false, &|_, _, _, _| {}).unwrap();
    assert!(collected.deleted.len() > 4, "{collected:?}");
    assert_eq!(journal.usage().unwrap().space, SpaceLevel::Ample);
    let refused = fill(&journal, &mut known, refused);
    assert!(refused > 40, "{refused}");
    drop(journal);
    let (journal, recovered) = open(&storage);
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
}

#[test]
fn dead_segments_go_though_there_is_no_room_to_empty_one_before_them() {
    let storage = formatted(16 * SEGMENT);
    let (journal, _) = open(&storage);
    let refused = fill(&journal, &mut Model::new(), 1);
    journal.append_wait(vec![purge(1, refused - 1)]).unwrap();
    let first = journal.segments()[0];
    // Others take the rest, and votes the reserve.
    storage.set_total_bytes(0);
    for len in [1000, 100, 0] {
        let vote = || Record::Vote { replica: ReplicaId(1), vote: vec![7; len].into() };
        while journal.append_wait(vec![vote()]).is_ok() {}
    }
    let kept = blob(1, 900);
    let is_live = |_, digest: &Digest, _| *digest == kept.digest;
    let collected = journal.collect(&is_live, &|_, _, _, _| {}).unwrap();
    assert!(collected.deleted.len() > 4, "{collected:?}");
    assert_eq!(journal.segments()[0], first);
    storage.set_total_bytes(16 * SEGMENT);
    let collected = journal.collect(&is_live, &|_, _, _, _| {}).unwrap();
    assert!(collected.deleted.contains(&first) && collected.moved_bytes > 0, "{collected:?}");
}

#[test]
fn a_full_disk_opens_again() {
    let storage = formatted(16 * SEGMENT);
    let (journal, _) = open(&storage);
    let mut known = Model::new();
    fill(&journal, &mut known, 1);
    drop(journal);
    storage.set_total_bytes(0);
    let (journal, recovered) = open(&storage);
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
    journal.append_wait(vec![vote(1, "here")]).unwrap();
}

/// Where space can only be taken by writing, a crash may come in the middle of that.
#[test]
fn a_reserve_that_a_crash_left_short_is_made_anew() {
    let storage = formatted(16 * SEGMENT);
    drop(open(&storage));
    let cut_short = |name: &str, len: u64| {
        storage.unlink(name).unwrap();
        let short = storage.create(name).unwrap();
        short.allocate(len).unwrap();
        short.sync_data().unwrap();
        storage.sync_dir().unwrap();
    };
    for len in [0, SEGMENT / 2] {
        cut_short("reserve-0", len);
        drop(open(&storage));
        assert_eq!(storage.open("reserve-0").unwrap().size().unwrap(), SEGMENT);
    }
    // A whole one is used, though a short one comes after it.
    cut_short("reserve-1", SEGMENT / 2);
    storage.set_total_bytes(0);
    let (journal, _) = open(&storage);
    journal.append_wait(vec![vote(1, "here")]).unwrap();
}
