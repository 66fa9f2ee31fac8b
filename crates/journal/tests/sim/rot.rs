//! Every single bit of a small journal turns over once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use journal::sim::SimStorage;
use journal::{Blob, Digest, Error, Journal, Options, Record, Recovered, ReplicaId, Storage};

use crate::model::{
    AMPLE, Model, apply, blob, entry, formatted, options, purge, recovered_model, truncate, vote,
};

fn open(storage: &SimStorage) -> Result<(Journal, Recovered), Error> {
    let options = Options { segment_bytes: 768, reserve_segments: 0, ..options() };
    Journal::open(Arc::new(storage.clone()), options)
}

/// A journal of a few segments, closed in order, and what is in it.
fn small_journal() -> (SimStorage, Model, BTreeMap<Digest, Blob>) {
    let storage = formatted(AMPLE);
    let (journal, _) = open(&storage).unwrap();
    let mut known = Model::new();
    let mut blobs = BTreeMap::new();
    let requests: Vec<Vec<Record>> = vec![
        vec![vote(1, "first"), vote(2, "idle")],
        vec![entry(1, 1, vec![blob(1, 30)]), entry(1, 2, vec![blob(2, 10), blob(3, 5)])],
        vec![truncate(1, 2), entry(1, 2, vec![blob(4, 40)])],
        vec![entry(2, 1, vec![]), vote(1, "second")],
        vec![entry(1, 3, vec![blob(5, 90)])],
        vec![purge(1, 1), entry(1, 4, vec![blob(6, 20)])],
    ];
    for records in requests {
        for record in &records {
            apply(&mut known, record);
            blobs.extend(record.blobs().iter().map(|blob| (blob.digest, blob.clone())));
        }
        journal.append_wait(records).unwrap();
    }
    assert!(journal.segments().len() > 2, "{:?}", journal.segments());
    (storage, known, blobs)
}

/// True if anything told of the flip. Panics if anything wrong was served.
fn is_noticed(storage: &SimStorage, known: &Model, blobs: &BTreeMap<Digest, Blob>) -> bool {
    let Ok((journal, recovered)) = open(storage) else { return true };
    let cut = recovered.torn_bytes > 0;
    let mut is_noticed = cut || !recovered.damaged.is_empty();
    for segment in journal.segments() {
        for location in journal.blob_locations(segment).unwrap() {
            match journal.read_blob(location.pointer) {
                Ok(blob) => assert_eq!(blob, blobs[&location.digest]),
                Err(Error::Corrupt { .. }) => is_noticed = true,
                Err(error) => panic!("{error}"),
            }
        }
    }
    for (id, truth) in known {
        let replica = recovered.replicas.get(id);
        let is_marked = cut || replica.is_none_or(|replica| replica.is_suspect);
        // Entries are told apart from the rest: who applied them does not need them.
        let may_lack = replica.and_then(|replica| replica.lost_upto);
        let Some(replica) = replica else {
            assert!(is_noticed, "{id} vanished");
            continue;
        };
        let is_same = replica.vote == truth.vote && replica.purge_floor == truth.floor;
        assert!(is_same || is_marked, "{replica:?}");
        let trusted = |index: &u64| may_lack.is_none_or(|lost| *index > lost);
        let indexes = replica.entries.keys().filter(|index| trusted(index));
        let same_indexes = indexes.eq(truth.entries.keys().filter(|index| trusted(index)));
        assert!(same_indexes || is_marked, "{replica:?}");
        for (index, entry) in replica.entries.iter().filter(|(index, _)| trusted(index)) {
            match journal.read_record(entry.pointer) {
                Ok(stored) => {
                    assert!(is_marked || stored.record == truth.entries[index]);
                }
                Err(Error::Corrupt { .. }) => is_noticed = true,
                Err(error) => panic!("{error}"),
            }
        }
    }
    let scrubbed = journal.scrub_step(u64::MAX, &|_| true).unwrap();
    is_noticed || !scrubbed.damaged.is_empty()
}

/// Zeroes some bytes: more than one bit, which nothing puts right.
fn wipe(storage: &SimStorage, name: &str, offset: u64, len: u64) {
    let file = storage.open(name).unwrap();
    let mut bytes = vec![0; len as usize];
    assert_eq!(file.read_at(offset, &mut bytes).unwrap(), bytes.len());
    let zeroes = vec![0; bytes.len()];
    file.write_at(offset, &[std::io::IoSlice::new(&zeroes)]).unwrap();
    file.sync_data().unwrap();
}

/// Opens it and says whether what is not marked is as it was.
fn check_marks(storage: &SimStorage, known: &Model, blobs: &BTreeMap<Digest, Blob>, what: &str) {
    assert!(is_noticed(storage, known, blobs), "{what}");
}

#[test]
fn every_single_bit_flip_is_noticed_and_never_served() {
    let (storage, known, blobs) = small_journal();
    assert!(!is_noticed(&storage.kill(), &known, &blobs), "nothing is wrong yet");
    let mut n_bits = 0;
    for name in storage.list().unwrap() {
        for bit in 0..storage.written_len(&name) * 8 {
            n_bits += 1;
            let rotten = storage.kill();
            assert!(rotten.flip_bit(&name, bit));
            if name == "start" {
                // Manifests tell the count too.
                assert_eq!(open(&rotten).unwrap().0.start_count(), 2, "start bit {bit}");
                continue;
            }
            assert!(is_noticed(&rotten, &known, &blobs), "{name} bit {bit}");
        }
    }
    assert!(n_bits > 15_000, "{n_bits}");
}

/// A disk that rots is healed; it must not be taken for an older copy of itself.
#[test]
fn no_single_bit_flip_makes_a_journal_look_older() {
    let (storage, ..) = small_journal();
    let synced = open(&storage.kill()).unwrap().1.sequence;
    assert!(synced > 10, "{synced}");
    for name in storage.list().unwrap() {
        for bit in 0..storage.written_len(&name) * 8 {
            let rotten = storage.kill();
            assert!(rotten.flip_bit(&name, bit));
            let Ok((_, recovered)) = open(&rotten) else { continue };
            assert!(recovered.sequence >= synced, "{name} bit {bit}: {}", recovered.sequence);
        }
    }
}

#[test]
fn a_segment_that_vanished_is_damage() {
    let (storage, known, blobs) = small_journal();
    let mut names = storage.list().unwrap();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    let (_, recovered) = open(&storage.kill()).unwrap();
    let logs = recovered.replicas.values().flat_map(|replica| replica.entries.values());
    let needed: BTreeSet<_> = logs.map(|entry| entry.pointer.segment.0).collect();
    names.retain(|name| needed.iter().any(|segment| *name == format!("{segment:016x}.seg")));
    assert!(names.len() > 1, "{names:?}");
    for name in &names[..names.len() - 1] {
        let without = storage.kill();
        without.unlink(name).unwrap();
        let (_, recovered) = open(&without.kill()).unwrap();
        assert!(!recovered.damaged.is_empty(), "{name}");
        let of = |id: u64| &recovered.replicas[&ReplicaId(id)];
        assert!(of(1).is_suspect || of(1).lost_upto.is_some(), "{name}: {recovered:?}");
        check_marks(&without, &known, &blobs, name);
    }
}

/// A journal in which damage took a vote, and no manifest follows that would tell whether there was one.
fn without_a_vote() -> SimStorage {
    let (storage, _, _) = small_journal();
    let (journal, _) = Journal::open(Arc::new(storage.clone()), options()).unwrap();
    let third = journal.append_wait(vec![vote(1, "third")]).unwrap()[0].record;
    journal.append_wait(vec![entry(2, 2, vec![])]).unwrap();
    drop(journal);
    let name = format!("{:016x}.seg", third.segment.0);
    wipe(&storage, &name, third.offset - 48, 48 + u64::from(third.len));
    storage
}

#[test]
fn a_suspect_replica_that_is_trusted_stays_so_and_no_other_is() {
    let storage = without_a_vote();
    let (journal, recovered) = open(&storage).unwrap();
    assert!(recovered.replicas[&ReplicaId(1)].is_suspect, "{recovered:?}");
    journal.trust(ReplicaId(1)).unwrap();
    drop(journal);
    for _ in 0..2 {
        let (_, recovered) = open(&storage).unwrap();
        let of = |id: u64| &recovered.replicas[&ReplicaId(id)];
        assert!(!recovered.damaged.is_empty(), "the damage is still there");
        assert!(!of(1).is_suspect && of(2).is_suspect, "{recovered:?}");
    }
}

#[test]
fn entries_written_in_the_place_of_what_damage_took_are_not_lost() {
    let (storage, ..) = small_journal();
    let (_, recovered) = open(&storage.kill()).unwrap();
    let at = recovered.replicas[&ReplicaId(1)].entries[&3].pointer;
    let name = format!("{:016x}.seg", at.segment.0);
    wipe(&storage, &name, at.offset - 48, 48 + u64::from(at.len));
    let (journal, recovered) = open(&storage).unwrap();
    assert_eq!(recovered.replicas[&ReplicaId(1)].lost_upto, Some(3), "{recovered:?}");
    journal.append_wait(vec![purge(1, 2), entry(1, 3, vec![])]).unwrap();
    drop(journal);
    let (journal, recovered) = open(&storage).unwrap();
    let replica = &recovered.replicas[&ReplicaId(1)];
    assert!(!recovered.damaged.is_empty(), "the damage is still there");
    assert_eq!(replica.lost_upto, None, "{recovered:?}");
    assert_eq!(replica.entries.keys().copied().collect::<Vec<_>>(), [3]);
    let found = journal.read_record(replica.entries[&3].pointer).unwrap();
    assert_eq!(found.record, entry(1, 3, vec![]));
}

#[test]
fn a_suspect_replica_stays_suspect_when_the_damage_is_gone() {
    let storage = without_a_vote();
    let (journal, recovered) = open(&storage).unwrap();
    assert!(recovered.replicas[&ReplicaId(1)].is_suspect, "{recovered:?}");
    journal.append_wait(vec![purge(1, 4), purge(2, 2)]).unwrap();
    journal.collect(&|_, _, _| false, &|_, _, _, _| {}).unwrap();
    drop(journal);
    let (_, recovered) = open(&storage).unwrap();
    assert_eq!(recovered.damaged, vec![]);
    assert!(recovered.replicas[&ReplicaId(1)].is_suspect);
}

#[test]
fn a_later_manifest_saves_the_vote_and_tells_which_entries_are_missing() {
    let (storage, known, blobs) = small_journal();
    let (_, recovered) = open(&storage.kill()).unwrap();
    let replica = &recovered.replicas[&ReplicaId(1)];
    assert_eq!(replica.entries.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    for index in [2, 3] {
        let at = replica.entries[&index].pointer;
        let rotten = storage.kill();
        let name = format!("{:016x}.seg", at.segment.0);
        wipe(&rotten, &name, at.offset - 48, 48 + u64::from(at.len));
        let (_, recovered) = open(&rotten.kill()).unwrap();
        let of = |id: u64| &recovered.replicas[&ReplicaId(id)];
        assert!(!of(1).is_suspect && !of(2).is_suspect, "{recovered:?}");
        assert_eq!(of(1).vote, known[&ReplicaId(1)].vote);
        assert!(of(1).lost_upto >= Some(index) && of(1).lost_upto < Some(4), "{recovered:?}");
        assert!(of(1).entries.contains_key(&4));
        check_marks(&rotten, &known, &blobs, "wiped");
    }
}

#[test]
fn scrub_goes_round_in_bounded_steps() {
    let (storage, known, _) = small_journal();
    let (journal, recovered) = open(&storage).unwrap();
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
    let mut places = Vec::new();
    let mut n_bytes = 0;
    loop {
        let step = journal.scrub_step(100, &|_| true).unwrap();
        assert_eq!(step.damaged, vec![]);
        n_bytes += step.n_bytes;
        let Some(place) = step.oldest_unverified else { break };
        places.push(place);
        assert!(step.n_bytes >= 100 && step.n_bytes < 1024, "{step:?}");
    }
    assert!(places.len() > 10 && places.is_sorted(), "{places:?}");
    let sealed = journal.segments().len() as u64 - 1;
    assert!(n_bytes > sealed * 500, "{n_bytes}");
    assert_eq!(journal.scrub_step(u64::MAX, &|_| true).unwrap().n_passes, 2);
}
