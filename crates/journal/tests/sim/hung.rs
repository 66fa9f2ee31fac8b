//! A disk that hangs is seen to hang, whatever the writer asked of it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use journal::{Error, Journal, Options, Written};

use crate::door::{Door, Hanging, PATIENCE, wait_until_nothing_is_pending};
use crate::model::{AMPLE, blob, entry, formatted, options, vote};

fn hanging(options: Options) -> (Door, Journal) {
    let door = Door::default();
    let storage = Hanging(formatted(AMPLE), door.clone());
    let options = Options { threaded: true, ..options };
    (door.clone(), Journal::open(Arc::new(storage), options).unwrap().0)
}

#[test]
fn a_disk_that_hangs_while_a_segment_is_rolled_is_seen_to_hang() {
    let quiet = Options { mark_after: PATIENCE * 9, ..options() };
    let (door, journal) = hanging(quiet);
    let of_a_roll =
        ["space", "create", "allocate", "write", "set length", "sync", "rename", "list"];
    for operation in of_a_roll.into_iter().chain(["sync the directory"]) {
        let held = door.hold(operation);
        std::thread::scope(|scope| {
            let rolling = scope.spawn(|| journal.roll());
            held.wait();
            assert!(journal.last_sync().pending_since.is_some(), "{operation}");
            held.release();
            rolling.join().unwrap().unwrap();
        });
        wait_until_nothing_is_pending(&journal);
    }
}

#[test]
fn bodies_of_the_open_segment_are_told_while_it_is_rolled() {
    let (door, journal) = hanging(Options { mark_after: PATIENCE * 9, ..options() });
    journal.append_wait(vec![entry(1, 1, vec![blob(1, 9), blob(2, 9)])]).unwrap();
    let segment = *journal.segments().last().unwrap();
    let told = journal.blob_locations(segment).unwrap();
    assert_eq!(told.len(), 2);
    for operation in ["create", "write", "sync"] {
        let held = door.hold(operation);
        std::thread::scope(|scope| {
            let rolling = scope.spawn(|| journal.roll());
            held.wait();
            let open = *journal.segments().last().unwrap();
            let found = journal.blob_locations(segment).unwrap();
            assert_eq!(found, told, "{operation}");
            assert_eq!(
                journal.blob_locations(open).unwrap().len(),
                if open == segment { 2 } else { 0 }
            );
            held.release();
            rolling.join().unwrap().unwrap();
        });
        assert_eq!(journal.blob_locations(segment).unwrap(), told, "{operation}");
    }
}

#[test]
fn a_disk_that_hangs_in_a_frame_or_a_mark_is_seen_to_hang() {
    let (door, journal) = hanging(Options { mark_after: PATIENCE * 9, ..options() });
    let held = door.hold("sync");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| journal.append_wait(vec![vote(1, "late")]));
        held.wait();
        assert!(journal.last_sync().pending_since.is_some());
        held.release();
        writing.join().unwrap().unwrap();
    });
    wait_until_nothing_is_pending(&journal);
    drop(journal);

    let (door, journal) = hanging(Options { mark_after: Duration::from_millis(1), ..options() });
    let held = door.hold("sync");
    journal.append_unsynced(vec![vote(1, "lazy")]).unwrap();
    held.wait();
    assert!(journal.last_sync().pending_since.is_some());
    held.release();
    wait_until_nothing_is_pending(&journal);
}

#[test]
fn a_journal_whose_disk_hangs_is_let_go_of_and_what_was_queued_is_answered_later() {
    let (door, journal) = hanging(Options { mark_after: PATIENCE * 9, ..options() });
    let held = door.hold("sync");
    let (answer, answered) = channel();
    let done = move |result: Result<Vec<Written>, Error>| drop(answer.send(result));
    journal.append(vec![vote(1, "late")], Box::new(done)).unwrap();
    held.wait();
    let (tell, gone) = channel();
    std::thread::spawn(move || {
        drop(journal);
        tell.send(()).unwrap_or_default();
    });
    gone.recv_timeout(PATIENCE).expect("it waits for the disk");
    assert!(answered.try_recv().is_err(), "it is not synced");
    held.release();
    answered.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn nothing_is_pending_once_a_disk_is_poisoned() {
    let storage = formatted(AMPLE);
    let threaded = Options { threaded: true, ..options() };
    let (journal, _) = Journal::open(Arc::new(storage.clone()), threaded).unwrap();
    storage.fail(journal::sim::Operation::Sync, 1, io::ErrorKind::Other);
    journal.append_wait(vec![vote(1, "lost")]).unwrap_err();
    assert!(journal.is_poisoned());
    wait_until_nothing_is_pending(&journal);
}
