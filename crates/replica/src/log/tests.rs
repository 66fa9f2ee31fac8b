use futures_util::FutureExt as _;
use journal::sim::{Fault, Operation, SimStorage};
use journal::{DiskId, Journal, Options, SegmentId};
use mailbox::StoredChunk;
use openraft::storage::RaftLogStorage as _;

use super::*;
use crate::apart::Apart;
use crate::blocking::Blocking;
use crate::raft::{Payload, Proposal};

const DISK_BYTES: u64 = 1 << 20;

fn log() -> (SimStorage, Log) {
    let storage = SimStorage::new(DISK_BYTES);
    Journal::format(&storage, DiskId([1; 16])).unwrap();
    let log = open(&storage, RecoveredLog::default());
    (storage, log)
}

fn open(storage: &SimStorage, recovered: RecoveredLog) -> Log {
    let options = Options {
        segment_bytes: 64 << 10,
        hard_free_bytes: 0,
        soft_free_bytes: 0,
        threaded: false,
        ..Options::default()
    };
    let (journal, _) = Journal::open(Arc::new(storage.clone()), options).unwrap();
    let apart = Apart::new(Blocking { is_threaded: false }, false);
    Log::new(Arc::new(Appender { journal, apart }), ReplicaId(1), recovered)
}

fn entry(index: u64) -> Entry {
    let leader_id = LeaderId { term: 1, node_id: 1 };
    Entry { log_id: LogId { leader_id, index }, payload: Payload::Blank }
}

fn last(log: &Log) -> Option<u64> {
    log.ends().0.map(|log_id| log_id.index)
}

impl Log {
    async fn put(&self, index: u64) {
        self.clone().append([entry(index)], IOFlushed::noop()).await.unwrap();
    }

    fn pump(&self) {
        self.inner.appender.journal.pump();
    }
}

#[tokio::test]
async fn a_log_that_is_opened_again_waits_for_what_is_under_way() {
    let (storage, log) = log();
    log.put(1).await;
    log.pump();
    log.put(2).await;
    let mut reopening = Box::pin(log.reopen());
    assert!(reopening.as_mut().now_or_never().is_none(), "an entry is not synced yet");
    log.pump();
    reopening.await.unwrap();
    assert_eq!(last(&log), Some(2));
    let n_syncs = storage.n_operations(Operation::Sync);
    log.reopen().await.unwrap();
    log.pump();
    assert_eq!(storage.n_operations(Operation::Sync), n_syncs, "nothing was under way");
}

#[tokio::test]
async fn a_log_that_is_opened_again_gives_up_what_never_went_to_the_disk() {
    let (_, log) = log();
    log.put(1).await;
    log.pump();
    // A core that ends between the two leaves this behind.
    drop(log.accept([entry(2)]));
    log.clone().save_committed(Some(entry(2).log_id)).await.unwrap();
    let mut reopening = Box::pin(log.reopen());
    loop {
        if let Some(reopened) = reopening.as_mut().now_or_never() {
            reopened.unwrap();
            break;
        }
        log.pump();
    }
    drop(reopening);
    assert_eq!(last(&log), Some(1));
    assert_eq!(log.clone().read_committed().await.unwrap(), Some(entry(1).log_id));
    log.put(2).await;
    log.pump();
    log.reopen().now_or_never().unwrap().unwrap();
    assert_eq!(last(&log), Some(2));
}

/// Rows of an entry went with a core that ended before its index had them: whoever applies it again has to
/// find its bodies as well.
#[tokio::test]
async fn where_bodies_are_is_found_by_whoever_applies_an_entry_again() {
    let (_, log) = log();
    let chunk = |octets: &'static [u8]| StoredChunk::raw(Bytes::from_static(octets));
    let inline = vec![chunk(b"some octets"), chunk(b"some more octets")];
    let proposal = Proposal { command: Bytes::from_static(b"deliver"), inline: inline.into() };
    let entry = Entry { payload: Payload::Normal(proposal), ..entry(1) };
    log.clone().append([entry], IOFlushed::noop()).await.unwrap();
    log.pump();
    let first = log.take_blobs(1, 2).await.unwrap();
    assert_eq!(first.len(), 2);
    log.reopen().await.unwrap();
    let again = log.page(1, 2, (1 << 20, Bodies::Needed)).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(log.take_blobs(1, 2).await.unwrap(), first);
}

#[tokio::test]
async fn an_entry_that_nobody_looked_at_for_want_of_a_descriptor_is_not_damaged() {
    let (storage, first) = log();
    first.put(1).await;
    first.pump();
    let pointer = first.lock().slot(1).unwrap().pointer.unwrap();
    drop(first);
    // Another start has another segment open.
    let entries = vec![(entry(1).log_id, pointer)];
    let log = open(&storage, RecoveredLog { entries, ..RecoveredLog::default() });
    storage.fail(Operation::Open, 1, Fault::NoDescriptor);
    let unread = |at| log.read(1, at).now_or_never().unwrap().err().unwrap();
    let is_damaged = |at| unread(at).is_damaged;
    assert!(!is_damaged(pointer));
    assert_eq!(log.read(1, pointer).await.unwrap().log_id, entry(1).log_id);
    let cut = Pointer { len: pointer.len - 1, ..pointer };
    let gone = Pointer { segment: SegmentId(99), ..pointer };
    assert!(is_damaged(cut) && is_damaged(gone));
}

#[tokio::test]
async fn whoever_relies_on_what_was_cut_waits_until_that_is_synced() {
    let (storage, log) = log();
    log.put(1).await;
    log.put(2).await;
    log.pump();
    log.stays_cut().now_or_never().expect("nothing was cut").unwrap();
    log.clone().truncate_after(Some(entry(1).log_id)).await.unwrap();
    let mut cut = Box::pin(log.stays_cut());
    assert!(cut.as_mut().now_or_never().is_none(), "a power cut brings it back");
    log.pump();
    cut.await.unwrap();
    storage.fail(Operation::Sync, 1, io::ErrorKind::Other);
    log.clone().truncate_after(None).await.unwrap();
    log.pump();
    log.stays_cut().await.unwrap_err();
}

#[tokio::test]
async fn a_log_that_lost_what_was_not_applied_ends_with_what_was() {
    let (storage, first) = log();
    first.put(6).await;
    first.pump();
    let pointer = first.lock().slot(6).unwrap().pointer.unwrap();
    drop(first);
    let recovered = RecoveredLog {
        committed: Some(entry(6).log_id),
        lost_upto: Some(5),
        entries: vec![(entry(6).log_id, pointer)],
        ..RecoveredLog::default()
    };
    let log = open(&storage, recovered);
    let mut giving = Box::pin(log.give_up_lost(entry(3).log_id));
    assert!(giving.as_mut().now_or_never().is_none());
    log.pump();
    giving.await.unwrap();
    log.forget();
    assert_eq!(log.ends(), (Some(entry(3).log_id), Some(entry(3).log_id)));
    assert!(log.holds(entry(3).log_id) && log.lost_upto().is_none());
    // Else openraft looks for entries that are not there, and does not start.
    assert_eq!(log.clone().read_committed().await.unwrap(), Some(entry(3).log_id));
    log.put(4).await;
    log.pump();
    assert_eq!(last(&log), Some(4));
}

/// An operator forced entry 4, and nothing was appended since: on the disk is what was committed before.
#[tokio::test]
async fn what_was_committed_and_went_does_not_count_behind_a_forced_entry() {
    let forced = LogId { leader_id: LeaderId { term: 2, node_id: 1 }, index: 4 };
    let (storage, first) = log();
    let entry_4 = Entry { log_id: forced, payload: Payload::Blank };
    first.clone().append([entry_4], IOFlushed::noop()).await.unwrap();
    first.pump();
    let pointer = first.lock().slot(4).unwrap().pointer.unwrap();
    drop(first);
    let recovered = RecoveredLog {
        purged: Some(entry(3).log_id),
        committed: Some(entry(42).log_id),
        entries: vec![(forced, pointer)],
        ..RecoveredLog::default()
    };
    // Else openraft looks for entries that are not there, and does not start.
    let committed = open(&storage, recovered).read_committed().await.unwrap();
    assert_eq!(committed, Some(entry(3).log_id));

    let slot = |log_id: LogId| {
        let leader_id = log_id.leader_id;
        Slot { leader_id, sequence: 0, pointer: None, blobs: Box::default() }
    };
    let committed = |told: LogId| {
        let state = State {
            purged: Some(entry(2).log_id),
            first: 3,
            slots: VecDeque::from([slot(entry(3).log_id), slot(forced)]),
            committed: Some(told),
            ..State::default()
        };
        state.committed_here()
    };
    assert_eq!(committed(entry(42).log_id), Some(entry(3).log_id));
    for told in [entry(1).log_id, entry(2).log_id, entry(3).log_id, forced] {
        assert_eq!(committed(told), Some(told));
    }
}

#[tokio::test]
async fn an_entry_that_was_cut_while_it_was_read_does_not_tell_where_bodies_of_the_next_one_are() {
    let (_, log) = log();
    let with_body = |octets: &'static [u8]| {
        let inline = vec![StoredChunk::raw(Bytes::from_static(octets))];
        let proposal = Proposal { command: Bytes::from_static(b"deliver"), inline: inline.into() };
        Entry { payload: Payload::Normal(proposal), ..entry(1) }
    };
    log.clone().append([with_body(b"some octets")], IOFlushed::noop()).await.unwrap();
    log.pump();
    let cut = log.lock().slot(1).unwrap().pointer.unwrap();
    log.clone().truncate_after(None).await.unwrap();
    log.clone().append([with_body(b"other octets")], IOFlushed::noop()).await.unwrap();
    log.pump();
    let blobs = log.lock().slot(1).unwrap().blobs.clone();
    assert!(log.read(1, cut).await.is_ok() && log.read_bare(1, cut).await.is_some());
    assert_eq!(log.take_blobs(1, 1).await.unwrap(), blobs);
    // They are told again by who reads the entry that is there.
    assert_eq!(log.take_blobs(1, 1).await.unwrap(), blobs);
}
