//! The journal on a real directory.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use journal::{Blob, DiskId, Error, Journal, Options, RealStorage, Record, Recovered, ReplicaId};

const DISK: DiskId = DiskId([7; 16]);

fn blob(seed: u8, len: usize) -> Blob {
    let bytes = Bytes::from(vec![seed; len]);
    Blob { digest: [seed; 32], codec: 1, raw_len: 9, key_id: 3, nonce: Some([4; 12]), bytes }
}

fn append(replica: u64, index: u64, blobs: Vec<Blob>) -> Record {
    let meta = Bytes::from(format!("entry {index}"));
    Record::Append { replica: ReplicaId(replica), index, meta, blobs }
}

fn open(path: &Path, options: Options) -> (Journal, Recovered) {
    let storage = RealStorage::open(path).unwrap();
    Journal::open(Arc::new(storage), options).unwrap()
}

fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        hard_free_bytes: 0,
        soft_free_bytes: 0,
        ..Options::default()
    }
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    Journal::format(&RealStorage::open(&path).unwrap(), DISK).unwrap();
    let (journal, recovered) = open(&path, small());
    assert!(recovered.replicas.is_empty());
    let replica = ReplicaId(5);
    journal.append_wait(vec![Record::Vote { replica, vote: "v1".into() }]).unwrap();
    let mut pointers = Vec::new();
    for index in 1..=40 {
        let record = append(5, index, vec![blob(index as u8, 5000)]);
        let written = journal.append_wait(vec![record.clone()]).unwrap();
        assert_eq!(journal.read_record(written[0].record).unwrap().record, record);
        pointers.push(written[0].blobs[0]);
    }
    assert!(journal.segments().len() > 3, "{:?}", journal.segments());
    drop(journal);
    let (journal, recovered) = open(&path, small());
    assert_eq!((recovered.torn_bytes, recovered.damaged), (0, vec![]));
    assert_eq!(journal.start_count(), 2);
    let replica = &recovered.replicas[&replica];
    assert_eq!(replica.vote.as_deref(), Some(&b"v1"[..]));
    assert_eq!(replica.entries.len(), 40);
    for (index, entry) in &replica.entries {
        assert_eq!(entry.head, format!("entry {index}"));
        let stored = journal.read_record(entry.pointer).unwrap();
        assert_eq!(stored.record, append(5, *index, vec![blob(*index as u8, 5000)]));
    }
    for (i, pointer) in pointers.iter().enumerate() {
        assert_eq!(journal.read_blob(*pointer).unwrap(), blob(i as u8 + 1, 5000));
    }
    let listed = journal.segments().into_iter().flat_map(|id| journal.blob_locations(id).unwrap());
    let listed: BTreeSet<_> = listed.map(|location| location.pointer).collect();
    assert_eq!(listed, pointers.into_iter().collect());
}

#[test]
fn a_second_process_is_locked_out_and_a_format_refused() {
    let directory = tempfile::tempdir().unwrap();
    let storage = RealStorage::open(directory.path()).unwrap();
    assert!(RealStorage::open(directory.path()).is_err());
    Journal::format(&storage, DISK).unwrap();
    assert!(matches!(Journal::format(&storage, DISK), Err(Error::NotEmpty)));
}

#[test]
fn an_unformatted_directory_is_never_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    let storage = RealStorage::open(directory.path()).unwrap();
    let opened = Journal::open(Arc::new(storage), small());
    assert!(matches!(opened, Err(Error::NotFormatted)));
}

#[test]
fn concurrent_writers_share_syncs_and_are_answered_in_order() {
    let directory = tempfile::tempdir().unwrap();
    Journal::format(&RealStorage::open(directory.path()).unwrap(), DISK).unwrap();
    let (journal, _) = open(directory.path(), Options { segment_bytes: 8 << 20, ..small() });
    let before = journal.usage().unwrap().n_syncs;
    let (sender, receiver) = std::sync::mpsc::channel();
    for index in 0..500 {
        let sender = sender.clone();
        let done = move |result: Result<_, Error>| sender.send((index, result.is_ok())).unwrap();
        journal.append(vec![append(1, index, vec![])], Box::new(done)).unwrap();
    }
    let answers: Vec<_> = (0..500).map(|_| receiver.recv().unwrap()).collect();
    assert_eq!(answers, (0..500).map(|index| (index, true)).collect::<Vec<_>>());
    let n_syncs = journal.usage().unwrap().n_syncs - before;
    assert!(n_syncs < 250, "{n_syncs} syncs for 500 appends");
}
