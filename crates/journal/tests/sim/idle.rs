//! Starts after which nothing is written, as of a node that is refused each time.

use journal::Storage;
use journal::sim::SimStorage;

use crate::crash::{Random, cuts};
use crate::model::{AMPLE, Model, apply, blob, entry, formatted, open, recovered_model, vote};

/// Operations of a start, and some more.
const OPERATIONS_MAX: u64 = 30;
/// Disks that are looked at for each of them.
const CUTS_MAX: usize = 64;

fn n_files(storage: &SimStorage) -> usize {
    storage.list().unwrap().iter().filter(|name| name.ends_with(".seg")).count()
}

/// A disk of some segments, all of which the log needs.
fn used() -> (SimStorage, Model) {
    let (storage, mut known) = (formatted(AMPLE), Model::new());
    let (journal, _) = open(&storage).unwrap();
    for index in 1..=8 {
        let records = vec![vote(1, "kept"), entry(1, index, vec![blob(index, 900)])];
        records.iter().for_each(|record| apply(&mut known, record));
        journal.append_wait(records).unwrap();
    }
    assert!(n_files(&storage) > 2);
    (storage, known)
}

#[test]
fn starts_after_which_nothing_is_written_leave_no_segments_behind() {
    for (storage, known) in [used(), (formatted(AMPLE), Model::new())] {
        let n_used = if known.is_empty() { 0 } else { n_files(&storage) };
        let (mut newest, mut sequence) = (None, 0);
        for _ in 0..20 {
            let (journal, recovered) = open(&storage).unwrap();
            assert_eq!(recovered.damaged, vec![]);
            assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
            assert_eq!((n_files(&storage), journal.segments().len()), (n_used + 1, n_used + 1));
            let last = journal.segments().last().copied();
            assert!(last > newest, "ids are given once");
            assert!(recovered.sequence > sequence || newest.is_none(), "it looks older");
            (newest, sequence) = (last, recovered.sequence);
        }
    }
}

#[test]
fn what_is_written_after_such_starts_is_there() {
    let (storage, mut known) = used();
    let n_used = n_files(&storage);
    for index in 9..12 {
        (0..3).for_each(|_| drop(open(&storage).unwrap()));
        let (journal, _) = open(&storage).unwrap();
        let record = entry(1, index, vec![]);
        journal.append_wait(vec![record.clone()]).unwrap();
        apply(&mut known, &record);
        drop(journal);
        let (journal, recovered) = open(&storage).unwrap();
        assert_eq!(recovered.damaged, vec![]);
        assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
        assert_eq!(n_files(&storage), n_used + 1 + (index - 8) as usize);
    }
}

#[test]
fn a_power_cut_while_such_a_segment_is_deleted_is_no_damage() {
    let mut random = Random(0x1d1e);
    // The log of the second one begins in the segment that comes after the deleted one.
    for (storage, known) in [used(), (formatted(AMPLE), Model::new())] {
        let n_used = if known.is_empty() { 0 } else { n_files(&storage) };
        drop(open(&storage).unwrap());
        let mut n_left = 0;
        for within in 0..OPERATIONS_MAX {
            let disk = storage.kill();
            disk.power_off_after(within);
            drop(open(&disk));
            for (i, cut) in cuts(&disk, &mut random).into_iter().take(CUTS_MAX).enumerate() {
                n_left += usize::from(n_files(&cut) > n_used + 1);
                for life in 0..3 {
                    let what = format!("{n_used} before, cut at {within}, subset {i}, life {life}");
                    let (journal, recovered) = open(&cut).unwrap();
                    assert_eq!(recovered.damaged, vec![], "{what}");
                    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known, "{what}");
                    assert_eq!(n_files(&cut), n_used + 1, "{what}");
                    let scrubbed = journal.scrub_step(u64::MAX, &|_| true).unwrap();
                    assert_eq!(scrubbed.damaged, vec![], "{what}");
                }
            }
        }
        assert!(n_left > 0, "it is never there beside the next one");
    }
}

/// What is damaged in it may have been more than nothing.
#[test]
fn a_segment_with_damage_is_not_taken_for_one_that_holds_nothing() {
    let (storage, known) = used();
    let (journal, _) = open(&storage).unwrap();
    let open_now = *journal.segments().last().unwrap();
    drop(journal);
    assert!(storage.flip_bit(&format!("{:016x}.seg", open_now.0), 8 * 60));
    let (journal, recovered) = open(&storage).unwrap();
    assert!(!recovered.damaged.is_empty());
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
    assert!(journal.segments().contains(&open_now));
}
