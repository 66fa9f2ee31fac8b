//! Garbage collection gives back space and takes nothing that is alive.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use journal::sim::SimStorage;
use journal::{Digest, Error, Journal, Options, Pointer, Record, ReplicaId, SegmentId};

use crate::crash::{Random, cuts};
use crate::model::{AMPLE, blob, entry, formatted, open, options, purge, vote};

type Locator = RefCell<BTreeMap<Digest, Pointer>>;

fn locate(journal: &Journal, locator: &Locator) {
    for segment in journal.segments() {
        for location in journal.blob_locations(segment).unwrap() {
            locator.borrow_mut().insert(location.digest, location.pointer);
        }
    }
}

fn collect(journal: &Journal, locator: &Locator) -> Result<journal::Collected, Error> {
    journal.collect(
        &|_, digest, pointer| locator.borrow().get(digest) == Some(&pointer),
        &|_, digest, old, new| {
            assert_eq!(locator.borrow_mut().insert(*digest, new), Some(old));
        },
    )
}

#[test]
fn an_idle_replicas_vote_survives_the_deletion_of_old_segments() {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    let born = Record::Born { replica: ReplicaId(2), meta: "idle".into() };
    journal.append_wait(vec![born, vote(2, "long ago")]).unwrap();
    let first = journal.segments();
    for index in 1..40 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 900)])]).unwrap();
    }
    assert!(journal.pinned_bytes(ReplicaId(1)) > 30_000);
    journal.append_wait(vec![purge(1, 39)]).unwrap();
    assert_eq!(journal.pinned_bytes(ReplicaId(1)), 0);
    let collected = collect(&journal, &Locator::default()).unwrap();
    assert!(collected.deleted.starts_with(&first) && collected.freed_bytes > 30_000);
    let left = journal.segments();
    assert!(left.len() <= 2, "{left:?}");
    let disk = storage.power_cut(&mut || false);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.sequence, journal.synced_sequence(), "no segment of before is needed");
    let idle = &recovered.replicas[&ReplicaId(2)];
    assert_eq!(idle.vote.as_deref(), Some(&b"long ago"[..]));
    assert_eq!(idle.born.as_deref(), Some(&b"idle"[..]));
    assert_eq!(recovered.damaged, vec![]);
}

#[test]
fn segments_somebody_needs_for_the_log_are_kept() {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    for index in 1..20 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 900)])]).unwrap();
    }
    let before = journal.segments();
    let collected = collect(&journal, &Locator::default()).unwrap();
    assert_eq!(collected.deleted, vec![]);
    assert_eq!(journal.segments(), before);
}

#[test]
fn the_last_live_bodies_are_copied_forward() {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    for index in 1..40 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 900)])]).unwrap();
    }
    journal.append_wait(vec![purge(1, 39)]).unwrap();
    let locator = Locator::default();
    locate(&journal, &locator);
    let kept = blob(5, 900);
    locator.borrow_mut().retain(|digest, _| *digest == kept.digest);
    let old = locator.borrow()[&kept.digest];
    let collected = collect(&journal, &locator).unwrap();
    let new = locator.borrow()[&kept.digest];
    assert!(collected.deleted.contains(&old.segment) && new.segment > old.segment);
    assert!(matches!(journal.read_blob(old), Err(Error::Missing { .. })));
    assert_eq!(journal.read_blob(new).unwrap(), kept);
    let (journal, _) = open(&storage.power_cut(&mut || false)).unwrap();
    let locator = Locator::default();
    locate(&journal, &locator);
    let found = locator.borrow()[&kept.digest];
    assert_eq!(journal.read_blob(found).unwrap(), kept);
}

#[test]
fn a_segment_stays_when_what_was_dead_in_it_may_be_needed_by_now() {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    for index in 1..40 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 900)])]).unwrap();
    }
    journal.append_wait(vec![purge(1, 39)]).unwrap();
    let (body, epoch) = (blob(5, 900), Cell::new(0));
    let is_live = |_: ReplicaId, digest: &Digest, _: Pointer| {
        if *digest == body.digest {
            // Other rows came.
            epoch.set(epoch.get() + 1);
        }
        false
    };
    let locator = Locator::default();
    locate(&journal, &locator);
    let pointer = locator.borrow()[&body.digest];
    let collected = journal.collect_in(&is_live, &|_, _, _, _| (), &|| epoch.get()).unwrap();
    assert!(collected.deleted.len() > 2 && !collected.deleted.contains(&pointer.segment));
    assert_eq!(journal.read_blob(pointer).unwrap(), body);
    let collected = journal.collect(&|_, _, _| false, &|_, _, _, _| ()).unwrap();
    assert!(collected.deleted.contains(&pointer.segment));
}

#[test]
fn a_collection_asks_about_few_bodies_and_goes_on_where_it_stopped() {
    let storage = formatted(AMPLE);
    let options = Options { collect_looks_max: 20, ..options() };
    let (journal, _) = Journal::open(Arc::new(storage.clone()), options).unwrap();
    // Small ones, so that a quarter of a segment is some of them.
    for index in 1..400 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 90)])]).unwrap();
    }
    journal.append_wait(vec![purge(1, 399)]).unwrap();
    let before = journal.segments();
    let (mut n_rounds, mut n_deleted, mut n_looks) = (0, 0, 0);
    while n_rounds < 400 {
        n_rounds += 1;
        let asked = Cell::new(0);
        let is_live = |_, digest: &Digest, at: Pointer| {
            asked.set(asked.get() + 1);
            // Everything in every third segment is dead, and most in the others alive.
            !at.segment.0.is_multiple_of(3) && !digest[0].is_multiple_of(4)
        };
        let collected = journal.collect(&is_live, &|_, _, _, _| ()).unwrap();
        n_deleted += collected.deleted.len();
        n_looks = n_looks.max(asked.get());
    }
    let left = journal.segments();
    let is_dead =
        |segment: &&SegmentId| segment.0.is_multiple_of(3) && **segment != journal.log_start();
    let dead: Vec<_> = before.iter().filter(is_dead).collect();
    assert!(dead.len() > 2 && dead.iter().all(|segment| !left.contains(segment)), "{left:?}");
    assert!(n_deleted >= dead.len(), "{n_deleted}");
    // As many as one segment holds beyond what may be asked.
    assert!(n_looks < 20 + 40, "{n_looks}");
}

#[test]
fn a_journal_that_was_gone_over_in_vain_says_so_until_something_comes_free() {
    let storage = formatted(AMPLE);
    drop(sealed(&storage));
    let options = Options { collect_looks_max: 20, ..options() };
    let (journal, _) = Journal::open(Arc::new(storage.clone()), options).unwrap();
    let collect = |is_live: bool| journal.collect(&|_, _, _| is_live, &|_, _, _, _| ()).unwrap();
    let began = collect(true);
    assert!(began.is_cut && !began.is_vain, "{began:?}");
    let n_segments = journal.segments().len();
    assert!((0..n_segments).any(|_| collect(true).is_vain));
    let goes_on = collect(true);
    assert!(goes_on.is_cut && goes_on.is_vain, "{goes_on:?}");
    let freed = collect(false);
    assert!(!freed.deleted.is_empty() && !freed.is_vain, "{freed:?}");
    assert!(!collect(true).is_vain);
}

/// A journal of some 25 segments with ten bodies each, none of which is needed for the log.
fn sealed(storage: &SimStorage) -> Journal {
    let (journal, _) = open(storage).unwrap();
    for index in 1..=240 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 150)])]).unwrap();
    }
    journal.append_wait(vec![purge(1, 240)]).unwrap();
    journal
}

/// Others take of the disk what leaves so many percent free.
fn leave_free(storage: &SimStorage, journal: &Journal, percent: u64) {
    let usage = journal.usage().unwrap();
    let used_bytes = usage.total_bytes - usage.free_bytes;
    storage.set_total_bytes(used_bytes * 100 / (100 - percent));
}

fn free_percent(journal: &Journal) -> u64 {
    let usage = journal.usage().unwrap();
    usage.free_bytes * 100 / usage.total_bytes
}

#[test]
fn where_little_is_free_segments_that_are_half_alive_are_emptied_until_more_is() {
    let storage = formatted(AMPLE);
    let journal = sealed(&storage);
    let locator = Locator::default();
    locate(&journal, &locator);
    // Six of ten live, which is half of what a segment takes.
    locator.borrow_mut().retain(|digest, _| digest[0] % 10 < 6);
    let collected = collect(&journal, &locator).unwrap();
    assert!(collected.deleted.is_empty() && !collected.is_short, "{collected:?}");
    leave_free(&storage, &journal, 3);
    let (mut freed_bytes, mut moved_bytes) = (0, 0);
    for round in 0.. {
        let collected = collect(&journal, &locator).unwrap();
        (freed_bytes, moved_bytes) =
            (freed_bytes + collected.freed_bytes, moved_bytes + collected.moved_bytes);
        if collected.deleted.is_empty() {
            break;
        }
        assert!(round < 20, "it does not copy the same in circles");
    }
    assert!(free_percent(&journal) >= 10, "{}", free_percent(&journal));
    assert!(moved_bytes > 0 && moved_bytes < freed_bytes, "{moved_bytes} of {freed_bytes}");
    for (digest, at) in &*locator.borrow() {
        assert_eq!(journal.read_blob(*at).unwrap().digest, *digest);
    }
}

#[test]
fn the_least_alive_segments_go_first_and_the_others_stay_if_that_is_enough() {
    let storage = formatted(AMPLE);
    let journal = sealed(&storage);
    let before = journal.segments();
    leave_free(&storage, &journal, 3);
    let is_live = |_, digest: &Digest, at: Pointer| {
        let of_ten = if at.segment.0.is_multiple_of(2) { 6 } else { 8 };
        digest[0] % 10 < of_ten
    };
    let collected = journal.collect(&is_live, &|_, _, _, _| ()).unwrap();
    assert!(collected.deleted.len() > 3, "{collected:?}");
    let of_before = collected.deleted.iter().filter(|segment| before.contains(segment));
    assert!(of_before.clone().count() > 3, "{collected:?}");
    let are_even = of_before.clone().all(|segment| segment.0.is_multiple_of(2));
    assert!(are_even, "{collected:?}");
    assert!(free_percent(&journal) >= 10, "{}", free_percent(&journal));
}

#[test]
fn what_is_nearly_all_alive_stays_on_a_full_disk() {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    // Large ones, so that a segment is little else.
    for index in 1..40 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 900)])]).unwrap();
    }
    journal.append_wait(vec![purge(1, 39)]).unwrap();
    leave_free(&storage, &journal, 1);
    let before = journal.segments();
    let collected = journal.collect(&|_, _, _| true, &|_, _, _, _| ()).unwrap();
    assert!(collected.is_short && collected.moved_bytes == 0, "{collected:?}");
    assert_eq!(journal.segments(), before);
}

#[test]
fn a_live_body_that_rotted_keeps_its_segment() {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    for index in 1..20 {
        journal.append_wait(vec![entry(1, index, vec![blob(index, 900)])]).unwrap();
    }
    journal.append_wait(vec![purge(1, 19)]).unwrap();
    let locator = Locator::default();
    locate(&journal, &locator);
    locator.borrow_mut().retain(|digest, _| *digest == blob(5, 0).digest);
    let at = locator.borrow()[&blob(5, 0).digest];
    storage.flip_bit(&format!("{:016x}.seg", at.segment.0), (at.offset + 100) * 8);
    let collected = collect(&journal, &locator).unwrap();
    assert_eq!(collected.damaged.len(), 1);
    assert!(journal.segments().contains(&at.segment));
    assert!(matches!(journal.read_blob(at), Err(Error::Corrupt { .. })));
}

/// Delivers, purges and collects; every third body lives. What must be readable at the end.
fn churn(storage: &SimStorage) -> BTreeSet<u64> {
    let mut alive = BTreeSet::new();
    let Ok((journal, _)) = open(storage) else { return alive };
    let locator = Locator::default();
    for index in 1..24 {
        let record = entry(1, index, vec![blob(index, 500)]);
        let Ok(written) = journal.append_wait(vec![record]) else { return alive };
        if index % 6 == 0 {
            alive.insert(index);
            locator.borrow_mut().insert(blob(index, 0).digest, written[0].blobs[0]);
        }
        let is_time = index % 8 == 0;
        let purged = !is_time || journal.append_wait(vec![purge(1, index - 1)]).is_ok();
        if !purged || is_time && collect(&journal, &locator).is_err() {
            return alive;
        }
    }
    alive
}

#[test]
fn a_power_cut_during_collection_takes_no_live_body() {
    let whole = formatted(AMPLE);
    churn(&whole);
    let n_changes = whole.n_changes() - formatted(AMPLE).n_changes();
    let mut random = Random(0xc011ec7);
    for at in 0..=n_changes {
        let storage = formatted(AMPLE);
        storage.power_off_after(at);
        let alive = churn(&storage);
        for (i, disk) in cuts(&storage, &mut random).into_iter().take(64).enumerate() {
            let (journal, recovered) = open(&disk).unwrap();
            assert_eq!(recovered.damaged, vec![], "cut at {at}, subset {i}");
            let locator = Locator::default();
            locate(&journal, &locator);
            for index in &alive {
                let truth = blob(*index, 500);
                let found = locator.borrow().get(&truth.digest).copied();
                let found = found.unwrap_or_else(|| panic!("cut at {at}, subset {i}: {index}"));
                assert_eq!(journal.read_blob(found).unwrap(), truth);
            }
        }
    }
}
