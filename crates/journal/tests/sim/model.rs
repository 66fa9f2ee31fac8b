//! What a journal must remember, written naively, and a workload to remember.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use journal::sim::SimStorage;
use journal::{Blob, DiskId, Error, Journal, Options, Record, Recovered, ReplicaId};

pub const DISK: DiskId = DiskId([9; 16]);
pub const AMPLE: u64 = 16 << 20;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replica {
    pub born: Option<Bytes>,
    pub dead: bool,
    pub vote: Option<Bytes>,
    pub floor: Option<(u64, Bytes)>,
    pub entries: BTreeMap<u64, Record>,
}

pub type Model = BTreeMap<ReplicaId, Replica>;

pub fn apply(model: &mut Model, record: &Record) {
    let replica = model.entry(record.replica()).or_default();
    match record {
        Record::Vote { vote, .. } => replica.vote = Some(vote.clone()),
        Record::Append { index, .. } => drop(replica.entries.insert(*index, record.clone())),
        Record::Truncate { from_index_inclusive, .. } => {
            replica.entries.retain(|index, _| index < from_index_inclusive);
        }
        Record::Purge { upto_index_inclusive, meta, .. } => {
            replica.floor = Some((*upto_index_inclusive, meta.clone()));
            replica.entries.retain(|index, _| index > upto_index_inclusive);
        }
        Record::Born { meta, .. } => replica.born = Some(meta.clone()),
        Record::Dead { .. } => *replica = Replica { dead: true, ..Replica::default() },
        Record::Committed { .. } | Record::Blobs { .. } => {}
    }
}

/// What was recovered, every entry read back.
pub fn recovered_model(journal: &Journal, recovered: &Recovered) -> Result<Model, Error> {
    let mut model = Model::new();
    for (id, replica) in &recovered.replicas {
        let mut entries = BTreeMap::new();
        for (index, entry) in &replica.entries {
            entries.insert(*index, journal.read_record(entry.pointer)?.record);
        }
        let (born, vote) = (replica.born.clone(), replica.vote.clone());
        let (floor, dead) = (replica.purge_floor.clone(), replica.is_dead);
        model.insert(*id, Replica { born, dead, vote, floor, entries });
    }
    Ok(model)
}

pub fn options() -> Options {
    Options {
        segment_bytes: 4096,
        hard_free_bytes: 0,
        soft_free_bytes: 0,
        threaded: false,
        ..Options::default()
    }
}

pub fn formatted(total_bytes: u64) -> SimStorage {
    let storage = SimStorage::new(total_bytes);
    Journal::format(&storage, DISK).unwrap();
    storage
}

pub fn open(storage: &SimStorage) -> Result<(Journal, Recovered), Error> {
    Journal::open(Arc::new(storage.clone()), options())
}

pub fn blob(seed: u64, len: usize) -> Blob {
    let bytes: Vec<u8> = (0..len).map(|i| (seed as u8).wrapping_add((i * 7) as u8)).collect();
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&seed.to_le_bytes());
    Blob { digest, codec: 1, raw_len: 1, key_id: 0, nonce: None, bytes: bytes.into() }
}

pub fn entry(replica: u64, index: u64, blobs: Vec<Blob>) -> Record {
    let meta = Bytes::from(format!("r{replica} i{index}"));
    Record::Append { replica: ReplicaId(replica), index, meta, blobs }
}

pub fn vote(replica: u64, vote: &'static str) -> Record {
    Record::Vote { replica: ReplicaId(replica), vote: vote.into() }
}

pub fn purge(replica: u64, upto: u64) -> Record {
    let meta = Bytes::from(format!("purged {upto}"));
    Record::Purge { replica: ReplicaId(replica), upto_index_inclusive: upto, meta }
}

pub fn truncate(replica: u64, from: u64) -> Record {
    Record::Truncate { replica: ReplicaId(replica), from_index_inclusive: from }
}

/// Requests that use every kind of record and several segments.
pub fn workload() -> Vec<Vec<Record>> {
    let born = |id, meta: &'static str| Record::Born { replica: ReplicaId(id), meta: meta.into() };
    let mut requests = vec![
        vec![born(1, "shard a"), vote(1, "1-first")],
        vec![born(2, "shard b"), vote(2, "2-idle")],
        vec![entry(1, 1, vec![blob(1, 700)])],
        vec![entry(1, 2, vec![]), entry(2, 1, vec![blob(2, 10)])],
        vec![entry(1, 3, vec![blob(3, 600), blob(4, 300)])],
        vec![truncate(1, 3), vote(1, "1-second")],
        vec![entry(1, 3, vec![blob(5, 400)]), entry(1, 4, vec![])],
        vec![purge(1, 2)],
        vec![born(3, "shard c"), entry(3, 7, vec![blob(6, 800)])],
        vec![Record::Dead { replica: ReplicaId(3) }],
    ];
    requests.extend((5..12).map(|index| vec![entry(1, index, vec![blob(index + 20, 900)])]));
    requests.push(vec![purge(1, 10), purge(2, 1)]);
    requests
}
