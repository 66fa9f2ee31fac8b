//! Syncs that take long: the next frame is written and synced beside them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use journal::sim::SimStorage;
use journal::{Error, Journal, Options, Record};

use crate::crash::{Random, cuts};
use crate::door::{Door, Hanging, Held, PATIENCE, wait_until_nothing_is_pending};
use crate::model::{
    AMPLE, Model, apply, blob, entry, formatted, open, options, recovered_model, vote,
};

/// A journal that holds every sync to be one that takes long.
struct Slow {
    storage: SimStorage,
    door: Door,
    journal: Journal,
}

impl Slow {
    fn new() -> Self {
        let (storage, door) = (formatted(AMPLE), Door::default());
        let options = Options {
            threaded: true,
            overlap_from: Duration::ZERO,
            segment_bytes: 64 << 10,
            mark_after: PATIENCE * 9,
            ..options()
        };
        let hanging = Hanging(storage.clone(), door.clone());
        let journal = Journal::open(Arc::new(hanging), options).unwrap().0;
        Self { storage, door, journal }
    }

    /// A frame whose sync hangs, the file it is synced through, and its answer.
    fn frame(&self, record: Record) -> Frame {
        let held = self.door.hold("sync");
        let (sender, answer) = channel();
        let done =
            move |result: Result<_, Error>| sender.send(result.map(drop)).unwrap_or_default();
        self.journal.append(vec![record], Box::new(done)).unwrap();
        let file = held.wait();
        assert_eq!(file, self.door.written(), "synced through the file it was written through");
        Frame { held, file, answer }
    }
}

struct Frame {
    held: Held,
    file: u64,
    answer: Receiver<Result<(), Error>>,
}

impl Frame {
    fn is_waiting(&self) -> bool {
        self.answer.try_recv().is_err()
    }
}

fn wait_for_syncs(journal: &Journal, n_syncs: u64) {
    let begun = Instant::now();
    while journal.usage().unwrap().n_syncs < n_syncs {
        assert!(begun.elapsed() < PATIENCE, "no sync for ever");
        std::thread::yield_now();
    }
}

#[test]
fn frames_are_answered_in_order_and_after_their_own_sync() {
    let slow = Slow::new();
    let before = slow.journal.synced_sequence();
    let n_syncs = slow.journal.usage().unwrap().n_syncs;
    let first = slow.frame(vote(1, "first"));
    let second = slow.frame(vote(2, "second"));
    assert_ne!(first.file, second.file, "each through a file of its own");

    second.held.release();
    wait_for_syncs(&slow.journal, n_syncs + 1);
    assert!(second.answer.recv_timeout(Duration::from_millis(50)).is_err());
    assert!(first.answer.try_recv().is_err());
    assert_eq!(slow.journal.synced_sequence(), before);
    assert!(slow.journal.last_sync().pending_since.is_some(), "the first one hangs");

    first.held.release();
    first.answer.recv_timeout(PATIENCE).unwrap().unwrap();
    second.answer.recv_timeout(PATIENCE).unwrap().unwrap();
    wait_until_nothing_is_pending(&slow.journal);
    assert_eq!(slow.journal.synced_sequence(), before + 2);
}

#[test]
fn no_more_frames_than_the_limit_are_in_flight() {
    let slow = Slow::new();
    let [first, second, last] = [1, 2, 3].map(|replica| slow.frame(vote(replica, "held")));
    let next = slow.door.hold("sync");
    slow.journal.append_unsynced(vec![vote(9, "goes with the next")]).unwrap();
    let (sender, answer) = channel();
    let done = move |result: Result<_, Error>| sender.send(result.map(drop)).unwrap_or_default();
    slow.journal.append(vec![vote(4, "waits")], Box::new(done)).unwrap();
    assert!(answer.recv_timeout(Duration::from_millis(50)).is_err());
    assert!(next.has_not_come());
    assert_eq!(slow.door.written(), last.file, "nothing was written for it either");
    first.held.release();
    next.wait();
    second.held.release();
    last.held.release();
    next.release();
    answer.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn a_frame_behind_one_whose_sync_failed_is_not_answered_as_synced() {
    let slow = Slow::new();
    let before = slow.journal.synced_sequence();
    let first = slow.frame(vote(1, "lost"));
    let second = slow.frame(vote(2, "behind it"));
    let n_syncs = slow.journal.usage().unwrap().n_syncs;
    second.held.release();
    wait_for_syncs(&slow.journal, n_syncs + 1);
    assert!(second.answer.try_recv().is_err());
    first.held.fail();
    for frame in [first.answer, second.answer] {
        let error = frame.recv_timeout(PATIENCE).unwrap().unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    }
    assert!(slow.journal.is_poisoned());
    assert_eq!(slow.journal.synced_sequence(), before);
    assert!(slow.journal.append_wait(vec![vote(3, "late")]).is_err());
    assert!(slow.journal.roll().is_err());
    wait_until_nothing_is_pending(&slow.journal);
}

#[test]
fn a_frame_that_cannot_be_written_is_answered_behind_those_before() {
    let slow = Slow::new();
    let first = slow.frame(vote(1, "first"));
    let (sender, answer) = channel();
    let done = move |result: Result<_, Error>| sender.send(result.map(drop)).unwrap_or_default();
    slow.storage.fail(journal::sim::Operation::Write, 1, std::io::ErrorKind::Other);
    slow.journal.append(vec![vote(2, "second")], Box::new(done)).unwrap();
    let begun = Instant::now();
    while !slow.journal.is_poisoned() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert!(first.is_waiting() && answer.try_recv().is_err());
    first.held.release();
    assert!(first.answer.recv_timeout(PATIENCE).unwrap().is_err());
    assert!(answer.recv_timeout(PATIENCE).unwrap().is_err());
}

#[test]
fn a_segment_is_sealed_when_nothing_is_in_flight() {
    let slow = Slow::new();
    let segments = slow.journal.segments();
    let first = slow.frame(entry(1, 1, vec![blob(7, 300)]));
    std::thread::scope(|scope| {
        let rolling = scope.spawn(|| slow.journal.roll());
        assert!(first.answer.recv_timeout(Duration::from_millis(50)).is_err());
        assert_eq!(slow.journal.segments(), segments);
        first.held.release();
        first.answer.recv_timeout(PATIENCE).unwrap().unwrap();
        rolling.join().unwrap().unwrap();
    });
    assert_eq!(slow.journal.blob_locations(segments[segments.len() - 1]).unwrap().len(), 1);
    // The next frame goes through a file of the new segment.
    let second = slow.frame(entry(1, 2, vec![blob(8, 300)]));
    second.held.release();
    second.answer.recv_timeout(PATIENCE).unwrap().unwrap();
    drop(slow.journal);
    let (journal, recovered) = open(&slow.storage).unwrap();
    assert_eq!(
        recovered_model(&journal, &recovered).unwrap().values().next().unwrap().entries.len(),
        2
    );
}

/// Every disk that a power cut may leave while one or two frames are in flight.
#[test]
fn a_power_cut_with_frames_in_flight_loses_nothing_that_was_answered() {
    let mut random = Random(0x0f11);
    for n_answered in 0..3 {
        let slow = Slow::new();
        let records = [1, 2, 3].map(|index| entry(1, index, vec![blob(index, 700)]));
        let records = &records[..(n_answered + 2).min(3)];
        let mut models = vec![Model::new()];
        for record in records {
            let mut model = models[models.len() - 1].clone();
            apply(&mut model, record);
            models.push(model);
        }
        let mut in_flight = Vec::new();
        for (i, record) in records.iter().enumerate() {
            let frame = slow.frame(record.clone());
            if i < n_answered {
                frame.held.release();
                frame.answer.recv_timeout(PATIENCE).unwrap().unwrap();
            } else {
                in_flight.push(frame);
            }
        }
        assert!(slow.storage.n_unsynced() >= 2 * in_flight.len(), "a body's sectors at least");
        let synced = slow.journal.synced_sequence();
        for (i, disk) in cuts(&slow.storage, &mut random).into_iter().enumerate() {
            let (journal, recovered) = open(&disk).unwrap();
            assert_eq!(recovered.damaged, vec![], "{n_answered} answered, subset {i}");
            assert!(recovered.sequence >= synced);
            let found = recovered_model(&journal, &recovered).unwrap();
            assert!(
                models[n_answered..].contains(&found),
                "{n_answered} answered, subset {i}: {found:#?}"
            );
        }
        for frame in in_flight {
            frame.held.release();
        }
    }
}
