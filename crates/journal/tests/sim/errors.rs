//! A write or sync error ends the disk.

use std::io::ErrorKind;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use journal::sim::{Fault, Operation, SimStorage};
use journal::{Error, Journal, Options};

use crate::model::{AMPLE, Model, apply, entry, formatted, open, options, recovered_model, vote};

const PROBE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

fn journal_with_a_vote() -> (SimStorage, Journal) {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    journal.append_wait(vec![vote(1, "kept")]).unwrap();
    (storage, journal)
}

fn is_poisoned<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Poisoned { .. }))
}

#[test]
fn the_first_failed_write_or_sync_poisons_for_good() {
    let kinds = [ErrorKind::Other, ErrorKind::StorageFull];
    for operation in [Operation::Write, Operation::Sync] {
        for kind in kinds {
            let (storage, journal) = journal_with_a_vote();
            storage.fail(operation, 1, kind);
            assert!(is_poisoned(journal.append_wait(vec![vote(1, "lost")])));
            assert!(journal.is_poisoned());
            // The disk would work again. It is not asked.
            let n_changes = storage.n_changes();
            assert!(is_poisoned(journal.append_wait(vec![vote(1, "late")])));
            assert!(is_poisoned(journal.roll()));
            drop(journal);
            assert_eq!(storage.n_changes(), n_changes);
            assert!(is_poisoned(open(&storage)));
            assert!(is_poisoned(open(&storage.kill())));
            assert!(is_poisoned(open(&storage.power_cut(&mut || false))));
        }
    }
}

#[test]
fn a_disk_that_dies_while_nobody_writes_is_found_out() {
    let storage = formatted(AMPLE);
    let idle = Options { threaded: true, probe_after: PROBE, ..options() };
    let (journal, _) = Journal::open(Arc::new(storage.clone()), idle).unwrap();
    journal.append_wait(vec![vote(1, "kept")]).unwrap();
    let until_marked = storage.n_operations(Operation::Sync) + 1;
    let begun = Instant::now();
    while storage.n_operations(Operation::Sync) < until_marked {
        assert!(begun.elapsed() < PATIENCE, "no mark");
        std::thread::yield_now();
    }
    storage.fail(Operation::Sync, 1, ErrorKind::Other);
    while !journal.is_poisoned() {
        assert!(begun.elapsed() < PATIENCE, "nobody asked the disk");
        std::thread::yield_now();
    }
}

#[test]
fn everything_queued_fails_with_the_disk() {
    let (storage, journal) = journal_with_a_vote();
    let (sender, receiver) = mpsc::channel();
    for index in 1..=20 {
        let sender = sender.clone();
        let done = move |result| sender.send((index, is_poisoned(result))).unwrap();
        let blobs = vec![crate::model::blob(index, 1000)];
        journal.append(vec![entry(1, index, blobs)], Box::new(done)).unwrap();
    }
    storage.fail(Operation::Sync, 1, ErrorKind::Other);
    journal.pump();
    let answers: Vec<_> = receiver.try_iter().collect();
    assert_eq!(answers, (1..=20).map(|index| (index, true)).collect::<Vec<_>>());
}

#[test]
fn a_failed_sync_that_left_no_marker_is_not_believed_either() {
    let (storage, journal) = journal_with_a_vote();
    let mut known = Model::new();
    apply(&mut known, &vote(1, "kept"));
    storage.fail(Operation::Sync, 1, ErrorKind::Other);
    storage.fail(Operation::Create, 1, ErrorKind::Other);
    assert!(is_poisoned(journal.append_wait(vec![vote(1, "page cache only")])));
    // After kill -9 the bytes that are not on the disk can be read. Whatever open makes of them,
    // a power cut must not take away what it handed over.
    let killed = storage.kill();
    let (journal, recovered) = open(&killed).unwrap();
    let found = recovered_model(&journal, &recovered).unwrap();
    let cut = killed.power_cut(&mut || false);
    let (journal, recovered) = open(&cut).unwrap();
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), found);
    // After a power cut they are gone.
    let (journal, recovered) = open(&storage.power_cut(&mut || true)).unwrap();
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
}

#[test]
fn errors_of_a_roll_poison_too() {
    let operations = [Operation::Create, Operation::Rename, Operation::SyncDir, Operation::Sync];
    for operation in operations {
        let (storage, journal) = journal_with_a_vote();
        storage.fail(operation, 1, ErrorKind::Other);
        assert!(is_poisoned(journal.roll()), "{operation:?}");
        assert!(is_poisoned(journal.append_wait(vec![vote(1, "late")])), "{operation:?}");
    }
}

#[test]
fn an_error_while_opening_poisons() {
    let (storage, journal) = journal_with_a_vote();
    drop(journal);
    storage.fail(Operation::Sync, 1, ErrorKind::Other);
    assert!(is_poisoned(open(&storage)));
    assert!(is_poisoned(open(&storage)));
}

/// The disk was not asked; what it did not refuse must not be held against it, also not after a restart.
#[test]
fn too_many_open_files_are_no_failure_of_the_disk() {
    for operations in [[Operation::Create, Operation::Open], [Operation::Create; 2]] {
        let (storage, journal) = journal_with_a_vote();
        let fail = |n| operations.iter().for_each(|one| storage.fail(*one, n, Fault::NoDescriptor));
        fail(1000);
        let rolled: Vec<_> = (0..4).map(|_| journal.roll()).collect();
        assert!(rolled.iter().any(|rolled| matches!(rolled, Err(Error::Full))), "{rolled:?}");
        assert!(!rolled.iter().any(|rolled| matches!(rolled, Err(Error::Poisoned { .. }))));
        fail(0);
        journal.roll().unwrap();
        journal.append_wait(vec![vote(1, "later")]).unwrap();
        drop(journal);
        assert!(open(&storage).is_ok());
    }
}

#[test]
fn too_many_open_files_at_a_start_are_no_failure_of_the_disk() {
    let (storage, journal) = journal_with_a_vote();
    (0..5).for_each(|_| journal.roll().unwrap());
    drop(journal);
    let mut n_refused = 0;
    for operation in [Operation::Open, Operation::Create] {
        for n_good in 0..40 {
            let storage = storage.kill();
            storage.fail_after(operation, (n_good, 1000), Fault::NoDescriptor);
            match open(&storage) {
                Err(Error::Poisoned { reason }) => panic!("{operation:?} {n_good}: {reason}"),
                Err(Error::BadIdentity { reason }) => panic!("{operation:?} {n_good}: {reason}"),
                Err(_) => n_refused += 1,
                Ok(_) => {}
            }
            storage.fail(operation, 0, Fault::NoDescriptor);
            assert!(open(&storage).is_ok(), "{operation:?} {n_good}");
        }
    }
    assert!(n_refused > 5, "{n_refused}");
}

#[test]
fn a_start_has_few_files_open_however_many_segments_there_are() {
    let (storage, journal) = journal_with_a_vote();
    (0..50).for_each(|_| journal.roll().unwrap());
    assert!(journal.segments().len() > 50);
    drop(journal);
    let storage = storage.kill();
    let (_journal, recovered) = open(&storage).unwrap();
    assert_eq!(recovered.damaged, vec![]);
    assert!(storage.n_open_max() < 20, "{}", storage.n_open_max());
}

#[test]
fn a_read_error_is_damage_of_one_place_and_not_of_the_disk() {
    let (storage, journal) = journal_with_a_vote();
    let written = journal.append_wait(vec![entry(1, 1, vec![])]).unwrap();
    storage.fail(Operation::Read, 1, ErrorKind::Other);
    assert!(matches!(journal.read_record(written[0].record), Err(Error::Corrupt { .. })));
    assert!(!journal.is_poisoned());
    journal.read_record(written[0].record).unwrap();
}
