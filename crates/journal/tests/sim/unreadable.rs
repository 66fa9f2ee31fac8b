//! Sectors that the disk cannot read, and files that are gone: damage of a place, not the end of all that
//! looks after the rest.

use std::sync::Arc;

use journal::sim::{SECTOR, SimStorage};
use journal::{Collected, Damaged, Journal, Options, ReplicaId, Scrubbed, SegmentId, Storage};

use crate::model::{AMPLE, blob, entry, formatted, open, options, purge, vote};

/// A journal of some segments with one body each of them at least, all of them dead by now.
fn with_dead_segments() -> (SimStorage, Journal) {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    for index in 1..30 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 900)])]).unwrap();
    }
    journal.append_wait(vec![purge(1, 29)]).unwrap();
    assert!(journal.segments().len() > 5);
    (storage, journal)
}

fn name(segment: SegmentId) -> String {
    format!("{:016x}.seg", segment.0)
}

fn sectors(storage: &SimStorage, name: &str) -> u64 {
    storage.open(name).unwrap().size().unwrap().div_ceil(SECTOR)
}

fn scrub(journal: &Journal) -> Scrubbed {
    journal.scrub_step(u64::MAX, &|_| true).unwrap()
}

fn collect(journal: &Journal) -> Collected {
    journal.collect(&|_, _, _| false, &|_, _, _, _| {}).unwrap()
}

#[test]
fn scrub_tells_each_sector_that_cannot_be_read_and_goes_on() {
    let (storage, journal) = with_dead_segments();
    let (bad, open) = (journal.segments()[2], *journal.segments().last().unwrap());
    let n_passes = scrub(&journal).n_passes;
    for sector in 0..sectors(&storage, &name(bad)) {
        let storage = storage.kill();
        let (journal, _) = crate::model::open(&storage).unwrap();
        storage.spoil(&name(bad), sector);
        let scrubbed = scrub(&journal);
        assert!(scrubbed.damaged.iter().all(|damage| damage.segment == bad), "{scrubbed:?}");
        assert!(!scrubbed.damaged.is_empty(), "sector {sector}");
        let was_read = |segment| scrubbed.read.iter().any(|(read, _)| *read == segment);
        assert!(was_read(bad) && was_read(open), "sector {sector}: {scrubbed:?}");
        assert_eq!(scrubbed.n_passes, n_passes);
    }
}

#[test]
fn a_sector_that_cannot_be_read_keeps_no_other_segment_from_being_freed() {
    let (storage, journal) = with_dead_segments();
    let segments = journal.segments();
    let bad = segments[1];
    (0..sectors(&storage, &name(bad))).for_each(|sector| storage.spoil(&name(bad), sector));
    let collected = collect(&journal);
    assert!(segments[..5].iter().all(|one| collected.deleted.contains(one)), "{collected:?}");
}

/// What a flipped bit costs there, and no more.
#[test]
fn a_journal_opens_with_a_sector_that_cannot_be_read() {
    let storage = formatted(AMPLE);
    let open = || {
        let options = Options { segment_bytes: 64 << 10, ..options() };
        Journal::open(Arc::new(storage.clone()), options).unwrap()
    };
    let (journal, _) = open();
    journal.append_wait(vec![vote(1, "first")]).unwrap();
    let written = journal.append_wait(vec![entry(1, 1, vec![blob(1, 20_000)])]).unwrap();
    journal.append_wait(vec![entry(1, 2, vec![]), vote(2, "later")]).unwrap();
    drop(journal);
    let body = written[0].blobs[0];
    storage.spoil(&name(body.segment), (body.offset + 10_000) / SECTOR);
    let (journal, recovered) = open();
    let what: Vec<_> = recovered.damaged.iter().map(|damage| damage.what.clone()).collect();
    assert!(matches!(what[..], [Damaged::Body(ReplicaId(1), _)]), "{what:?}");
    assert_eq!(recovered.replicas[&ReplicaId(1)].entries.len(), 2);
    assert!(!recovered.replicas[&ReplicaId(2)].is_suspect);
    assert!(!journal.is_poisoned());
}

#[test]
fn a_file_that_is_gone_is_told_and_forgotten() {
    let (storage, journal) = with_dead_segments();
    let (gone, live) = (journal.segments()[1], journal.segments()[4]);
    // Why opened anew: no handle is left that could still read it.
    drop(journal);
    let (journal, _) = open(&storage).unwrap();
    storage.unlink(&name(gone)).unwrap();
    let damaged = scrub(&journal).damaged;
    assert!(damaged.len() == 1 && damaged[0].segment == gone, "{damaged:?}");
    assert_eq!(damaged[0].what, Damaged::Segment);
    let collected = collect(&journal);
    assert!(collected.deleted.contains(&gone) && collected.deleted.contains(&live));
    assert!(!journal.segments().contains(&gone) && !journal.is_poisoned());
    assert!(scrub(&journal).damaged.is_empty());
}
