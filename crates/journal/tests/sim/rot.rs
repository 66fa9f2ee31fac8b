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
        let Some(replica) = replica else {
            assert!(is_noticed, "{id} vanished");
            continue;
        };
        let is_same = replica.vote == truth.vote && replica.purge_floor == truth.floor;
        assert!(is_same || is_marked, "{replica:?}");
        let same_indexes = replica.entries.keys().eq(truth.entries.keys());
        assert!(same_indexes || is_marked, "{replica:?}");
        for (index, entry) in &replica.entries {
            match journal.read_record(entry.pointer) {
                Ok(stored) => {
                    assert!(is_marked || stored.record == truth.entries[index]);
                }
                Err(Error::Corrupt { .. }) => is_noticed = true,
                Err(error) => panic!("{error}"),
            }
        }
    }
    let scrubbed = journal.scrub_step(u64::MAX).unwrap();
    is_noticed || !scrubbed.damaged.is_empty()
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

#[test]
fn a_segment_that_vanished_is_damage() {
    let (storage, known, _) = small_journal();
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
        let (_, recovered) = open(&without).unwrap();
        assert!(!recovered.damaged.is_empty(), "{name}");
        let is_marked = |id: &ReplicaId| recovered.replicas.get(id).is_none_or(|r| r.is_suspect);
        assert!(known.keys().all(is_marked), "{name}: {recovered:?}");
    }
}

#[test]
fn a_suspect_replica_stays_suspect_when_the_damage_is_gone() {
    let (storage, _, _) = small_journal();
    let (_, recovered) = open(&storage.kill()).unwrap();
    let pointer = recovered.replicas[&ReplicaId(1)].entries[&2].pointer;
    // The head of a record in the middle of the log.
    assert!(storage.flip_bit(&format!("{:016x}.seg", pointer.segment.0), pointer.offset * 8 + 70));
    let (journal, recovered) = open(&storage).unwrap();
    assert!(recovered.replicas[&ReplicaId(1)].is_suspect);
    journal.append_wait(vec![purge(1, 4), purge(2, 1)]).unwrap();
    journal.collect(&|_, _, _| false, &|_, _, _, _| {}).unwrap();
    drop(journal);
    let (_, recovered) = open(&storage).unwrap();
    assert_eq!(recovered.damaged, vec![]);
    assert!(recovered.replicas[&ReplicaId(1)].is_suspect);
}

#[test]
fn scrub_goes_round_in_bounded_steps() {
    let (storage, known, _) = small_journal();
    let (journal, recovered) = open(&storage).unwrap();
    assert_eq!(recovered_model(&journal, &recovered).unwrap(), known);
    let mut places = Vec::new();
    let mut n_bytes = 0;
    loop {
        let step = journal.scrub_step(100).unwrap();
        assert_eq!(step.damaged, vec![]);
        n_bytes += step.n_bytes;
        let Some(place) = step.oldest_unverified else { break };
        places.push(place);
        assert!(step.n_bytes >= 100 && step.n_bytes < 1024, "{step:?}");
    }
    assert!(places.len() > 10 && places.is_sorted(), "{places:?}");
    let sealed = journal.segments().len() as u64 - 1;
    assert!(n_bytes > sealed * 500, "{n_bytes}");
    assert_eq!(journal.scrub_step(u64::MAX).unwrap().n_passes, 2);
}
