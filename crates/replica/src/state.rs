//! The state machine openraft drives: several entries become one batch of the index.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use journal::Pointer;
use mailbox::{Change, ChunkRef, Digest, Rows, Source};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{broadcast, watch};

use crate::apart::Asking;
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::compare::Samples;
use crate::index::IndexError;
use crate::local::Local;
use crate::log::Log;
use crate::machine::{Machine, MachineApplied};
use crate::pending::Lag;
use crate::raft::{
    Entry, LeaderId, LogId, Member, Payload, Response, SnapshotMeta, StoredMembership, Types,
};
use crate::store::{Applied, Changed, Lost, Store};

/// Limit: entries and bytes applied in one batch of the index.
const BATCH_ENTRIES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Limit: row writes after which a batch ends: some 10 ms of work, for which all else that this thread does
/// waits.
const BATCH_WRITES_MAX: usize = 1024;

/// An entry that writes so many rows is a slice of some large command: its answer, and so the next slice,
/// waits while the index is written to, which takes as much of a core. A delivery writes some 20.
const BULK_WRITES_MIN: usize = 128;
/// Limit: how long it waits at most. Whoever it is for is patient for seconds.
const BULK_WAIT_MAX: Duration = Duration::from_secs(1);

/// A snapshot as openraft passes it on.
pub(crate) type Snapshot = openraft::Snapshot<LeaderId, u64, Member, Checkpoint>;

/// What apply shares with those who read.
pub(crate) struct Applying {
    pub machine: Arc<dyn Machine>,
    pub log: Log,
    pub store: RwLock<Arc<Store>>,
    pub checkpoints: Arc<Checkpoints>,
    pub local: Local,
    pub changes: broadcast::Sender<(u64, Change)>,
    /// Index of the first entry that is not applied.
    pub next_index: watch::Sender<u64>,
    /// Digests after the last entries.
    pub samples: Samples,
}

impl Applying {
    /// The rows as they are now.
    pub fn store(&self) -> Arc<Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Applying {
    /// Whether any row refers to a body; true if that cannot be told.
    pub fn is_live(&self, digest: &Digest) -> bool {
        let view = self.store().view();
        let ask = || self.machine.is_chunk_live(&view, digest);
        catch_unwind(AssertUnwindSafe(ask)).unwrap_or(true)
    }

    /// Whether a body is needed at exactly this place.
    pub fn is_body_live(&self, digest: &Digest, pointer: Pointer) -> bool {
        let store = self.store();
        if store.is_damaged() {
            // Why: its rows may not be what they should.
            return true;
        }
        let is_live = |rows: &dyn Source| self.machine.is_chunk_live(rows, digest);
        let ask = || {
            if store.is_due() && self.local.disk.takes_rows() {
                // Why: what is forgotten waits for the index beside what was committed.
                store.settle()?;
            }
            if store.forget_dead(digest, pointer, is_live)? {
                return Ok::<bool, IndexError>(false);
            }
            let at = store.locate(digest)?;
            let is_elsewhere = at.filter(|at| *at != pointer).is_some_and(|at| {
                // Why it is read: after a crash the index may name a place that is gone.
                let found = self.local.disk.journal().read_blob(at);
                found.is_ok_and(|blob| blob.digest == digest.0)
            });
            if !is_elsewhere && at != Some(pointer) {
                store.place(&[(*digest, pointer)])?;
            }
            Ok(!is_elsewhere)
        };
        // Why true: what cannot be told is kept.
        catch_unwind(AssertUnwindSafe(ask)).map_or(true, |needed| needed.unwrap_or(true))
    }

    /// A body was copied to another place.
    pub fn moved(&self, digest: &Digest, old: Pointer, new: Pointer) {
        let store = self.store();
        if matches!(store.locate(digest), Ok(Some(at)) if at == old) {
            // Why the result is dropped: a failure marks the index damaged, and it is rebuilt.
            drop(store.place(&[(*digest, new)]));
        }
    }
}

/// The handle openraft owns.
#[derive(Clone)]
pub(crate) struct Applier(pub Arc<Applying>);

/// Of rows that lie beside each other so many come with a read or two.
const NEIGHBOURS: u32 = 16;

/// The rows as apply reads them: those that come say that the disk answers.
struct Asked<'s> {
    store: &'s Store,
    asking: &'s Asking,
}

impl Source for Asked<'_> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.asking.goes_on();
        self.store.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.asking.goes_on();
        let mut n_rows = 0_u32;
        self.store.scan(from, to, &mut |key, value| {
            n_rows = n_rows.wrapping_add(1);
            if n_rows.is_multiple_of(NEIGHBOURS) {
                self.asking.goes_on();
            }
            visit(key, value)
        });
    }
}

/// What came of one batch before it was written.
struct Batch {
    changed: Changed,
    applied: Applied,
    results: Vec<Done>,
}

/// What came of one entry.
struct Done {
    index: u64,
    result: MachineApplied,
    n_writes: usize,
}

impl Applier {
    /// Applies these entries from the first on; gives how many were done, at least one.
    fn run(
        &self,
        (store, asking): (&Store, &Asking),
        entries: &[EntryResponder<Types>],
    ) -> io::Result<Batch> {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut applied = store.applied();
            let source = Asked { store, asking };
            let mut rows = Rows::new(&source, applied.digest);
            // Why also without a view: one may come before this is committed, where nobody is to wait for the
            // disk.
            if store.has_views() || self.0.local.disk.apart().has_others() {
                rows.keep_before();
            }
            let mut results = Vec::with_capacity(entries.len());
            for (entry, _) in entries {
                let log_id = entry.log_id;
                let (mut result, n_writes) = (MachineApplied::default(), rows.n_writes());
                match &entry.payload {
                    Payload::Blank => {}
                    Payload::Membership(membership) => {
                        applied.membership =
                            StoredMembership::new(Some(log_id), membership.clone());
                    }
                    Payload::Normal(proposal) => {
                        let inline: Vec<ChunkRef> =
                            proposal.inline.iter().map(|chunk| chunk.chunk).collect();
                        result = self.0.machine.apply(&mut rows, &proposal.command, &inline);
                    }
                }
                applied.log_id = Some(log_id);
                let n_writes = rows.n_writes() - n_writes;
                results.push(Done { index: log_id.index, result, n_writes });
                if rows.n_writes() >= BATCH_WRITES_MAX {
                    break;
                }
            }
            let (mut new_keys, before) = (rows.take_new_keys(), rows.take_before());
            new_keys.sort_unstable();
            let (rows, digest) = rows.into_changes();
            applied.digest = digest;
            Batch { changed: Changed { rows, new_keys, before }, applied, results }
        }));
        ran.map_err(|panic| io::Error::other(words(&*panic)))
    }

    /// The same where nobody waits for the disk who does something else as well; gives the entries back.
    async fn run_apart(
        &self,
        store: &Arc<Store>,
        entries: Vec<EntryResponder<Types>>,
    ) -> io::Result<(Batch, Vec<EntryResponder<Types>>)> {
        let (this, store) = (self.clone(), store.clone());
        let run = move |asking: &Asking| (this.run((&store, asking), &entries), entries);
        let (batch, entries) = self.0.local.disk.apart().look(run).await?;
        Ok((batch?, entries))
    }

    /// Takes what a batch of so many entries changed; `None` where the replica has ended.
    async fn commit(
        &self,
        store: &Arc<Store>,
        taken: (Changed, Applied, usize),
        places: Vec<(Digest, Pointer)>,
    ) -> io::Result<Option<Lag>> {
        // Why not asked for once more: whoever has the turn by then may wait for the disk.
        if let Some(turn) = store.free_turn() {
            return self.commit_in(&turn, store, taken, &places);
        }
        let (this, store) = (self.clone(), store.clone());
        let commit = move |_: &Asking| this.commit_in(&store.turn(), &store, taken, &places);
        self.0.local.disk.apart().look(commit).await?
    }

    /// The same for who has the turn. Order: whoever has it may wait for the disk, so the others are locked
    /// after it.
    fn commit_in(
        &self,
        turn: &MutexGuard<'_, ()>,
        store: &Arc<Store>,
        (changed, applied, n_done): (Changed, Applied, usize),
        places: &[(Digest, Pointer)],
    ) -> io::Result<Option<Lag>> {
        let mut dirty = self.0.checkpoints.dirty();
        if self.0.checkpoints.is_ended() {
            return Ok(None);
        }
        dirty.note(&changed.rows, &changed.new_keys, n_done);
        let (log_id, digest) = (applied.log_id, applied.digest);
        let lag = store.commit_in(turn, changed, places, applied).map_err(io::Error::other)?;
        self.0.samples.note(log_id, digest);
        Ok(Some(lag))
    }

    /// Tells everybody what was done. What changed much is answered when nobody writes to the index.
    fn answer(
        &self,
        store: &Arc<Store>,
        done: impl Iterator<Item = (EntryResponder<Types>, Done)>,
    ) {
        for ((_, responder), done) in done {
            for change in done.result.changes {
                // Why: nobody listening is no failure.
                drop(self.0.changes.send((done.index, change)));
            }
            self.0.next_index.send_replace(done.index + 1);
            let Some(responder) = responder else { continue };
            let response = Response(done.result.response);
            let Some(quiet) = quiet_after(store, done.n_writes) else {
                responder.send(response);
                continue;
            };
            drop(tokio::spawn(async move {
                quiet.await;
                responder.send(response);
            }));
        }
    }

    /// Has the index written when it is time, and waits when it is too far behind.
    async fn keep_up(&self, store: &Arc<Store>, lag: Lag, is_asked: bool) -> io::Result<()> {
        let disk = &self.0.local.disk;
        match lag {
            Lag::Due if disk.takes_rows() => {
                store.begin_settling(disk.blocking(), is_asked);
            }
            Lag::Little | Lag::Due | Lag::Behind => {}
            Lag::Full => {
                // Why not written here: others share this thread.
                store.written().await;
                if store.is_damaged() {
                    return Err(io::Error::other("the index could not be written"));
                }
                // Why whatever room there is: a replica that can keep no more stops.
                store.begin_settling(disk.blocking(), is_asked);
            }
        }
        Ok(())
    }

    async fn places(&self, entry: &Entry) -> io::Result<Vec<(Digest, Pointer)>> {
        let Payload::Normal(proposal) = &entry.payload else { return Ok(Vec::new()) };
        if proposal.inline.is_empty() {
            return Ok(Vec::new());
        }
        let pointers = self.0.log.take_blobs(entry.log_id.index, proposal.inline.len()).await?;
        let digests = proposal.inline.iter().map(|chunk| chunk.chunk.digest);
        Ok(digests.zip(pointers.iter().copied()).collect())
    }

    /// Applies all of them, unless the replica ended. Why that is no error: openraft goes on for a while with
    /// what it has queued, and nobody hears any more what came of it. The log has the entries.
    async fn apply_all(&self, mut entries: Vec<EntryResponder<Types>>) -> io::Result<()> {
        // Why so: the leader has somebody to answer.
        let is_asked = entries.iter().any(|(_, responder)| responder.is_some());
        while !entries.is_empty() && !self.0.checkpoints.is_ended() {
            let store = self.0.store();
            let batch;
            (batch, entries) = self.run_apart(&store, entries).await?;
            let n_done = batch.results.len();
            let mut places = Vec::new();
            for (entry, _) in &entries[..n_done] {
                places.append(&mut self.places(entry).await?);
            }
            let taken = (batch.changed, batch.applied, n_done);
            let Some(lag) = self.commit(&store, taken, places).await? else { return Ok(()) };
            self.answer(&store, entries.drain(..n_done).zip(batch.results));
            self.keep_up(&store, lag, is_asked).await?;
            if !entries.is_empty() {
                // Why: what else this thread does is not kept waiting by all there is to apply.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

/// What the answer to an entry that wrote so many rows waits for, if it does.
pub(crate) fn quiet_after(
    store: &Arc<Store>,
    n_writes: usize,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    if n_writes < BULK_WRITES_MIN || !store.is_writing() {
        return None;
    }
    let store = store.clone();
    Some(async move {
        // Why no matter: it was done, and may be answered at any time.
        drop(tokio::time::timeout(BULK_WAIT_MAX, store.written()).await);
    })
}

/// What a caught panic says.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    if let Some(lost) = panic.downcast_ref::<Lost>() {
        lost.to_string()
    } else if let Some(words) = panic.downcast_ref::<&str>() {
        format!("panicked: {words}")
    } else if let Some(words) = panic.downcast_ref::<String>() {
        format!("panicked: {words}")
    } else {
        "panicked".into()
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.0.store().applied();
        Ok((applied.log_id, applied.membership))
    }

    async fn apply<S>(&mut self, mut stream: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some(item) = stream.next().await {
            let item = item?;
            if let Payload::Normal(proposal) = &item.0.payload {
                bytes += proposal.size_bytes();
            }
            entries.push(item);
            if entries.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                self.apply_all(std::mem::take(&mut entries)).await?;
                bytes = 0;
            }
        }
        self.apply_all(entries).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        if force {
            return Some(self.get_snapshot_builder().await);
        }
        // Why one that is there: openraft takes an error for the end of the disk, so whoever asks for one
        // (`Core::checkpoint`) has written it before.
        self.0.checkpoints.current().map(Builder::Written)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder::Anew(self.0.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Checkpoint,
    ) -> Result<(), io::Error> {
        let next_index = meta.last_log_id.map_or(0, |log_id| log_id.index + 1);
        // Order: before it is looked whether the replica ended. Who comes after it waits for this.
        let place = self.0.local.disk.begin_install(self.0.local.replica);
        // Durability: what was cut is so on the disk before the rows are there: openraft does not begin
        // with a log whose last entry contradicts what is applied.
        self.0.log.stays_cut().await?;
        let applying = self.0.clone();
        let blocking = applying.local.disk.blocking();
        let turn = (applying.checkpoints.writing().await, place);
        if applying.checkpoints.is_ended() {
            // Why no error: as in `apply_all`.
            return Ok(());
        }
        // Why it goes along: the work is done to its end even if nobody waits for it any more.
        let install = move || {
            let installed = applying.local.install((&applying.checkpoints, &turn.0), &snapshot);
            installed.map(|store| (store, turn))
        };
        let (store, turn) = blocking.run(install).await??;
        let before = {
            let mut current = self.0.store.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, store)
        };
        // Why not here: to let go of an index may wait for the disk.
        blocking.begin(move || drop(before));
        drop(turn);
        self.0.next_index.send_replace(next_index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // Why not verified here: apply would wait meanwhile. Whoever sends it does.
        Ok(self.0.checkpoints.current().map(snapshot))
    }
}

/// Gives a checkpoint to openraft.
pub(crate) enum Builder {
    /// The newest one when openraft asked.
    Written(Checkpoint),
    /// One of the rows as they are.
    Anew(Arc<Applying>),
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Checkpoint;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        match self {
            Self::Written(checkpoint) => Ok(snapshot(checkpoint.clone())),
            Self::Anew(applying) => {
                applying.checkpoints.build(|| applying.store()).await.map(snapshot)
            }
        }
    }
}

fn snapshot(checkpoint: Checkpoint) -> Snapshot {
    let applied = checkpoint.applied();
    let meta =
        SnapshotMeta { last_log_id: applied.log_id, last_membership: applied.membership.clone() };
    Snapshot { meta, snapshot: checkpoint }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use futures_util::FutureExt as _;
    use journal::sim::SimStorage;
    use journal::{Record, ReplicaId, Storage};
    use mailbox::{ShardId, StoredChunk};
    use openraft::storage::RaftLogStorage as _;

    use super::*;
    use crate::disk::{Claim, Disk, DiskOptions};
    use crate::error::Error;

    struct Nothing;

    impl Machine for Nothing {
        fn apply(&self, _: &mut Rows<'_>, _: &[u8], _: &[ChunkRef]) -> MachineApplied {
            MachineApplied::default()
        }

        fn is_chunk_live(&self, _: &dyn Source, _: &Digest) -> bool {
            false
        }
    }

    /// A replica on a disk that writes when it is told to.
    async fn applier(dir: &Path) -> (Claim, Applier) {
        let storage = SimStorage::new(1 << 20);
        Disk::format_storage(&storage).unwrap();
        let journal = journal::Options {
            segment_bytes: 64 << 10,
            reserve_segments: 0,
            hard_free_bytes: 0,
            soft_free_bytes: 0,
            threaded: false,
            ..journal::Options::default()
        };
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let options = DiskOptions { journal, storage: Some(storage), ..DiskOptions::default() };
        let disk = Disk::open(dir, options).unwrap();
        let mut birth = Box::pin(disk.claim(1, ShardId(1)));
        assert!(birth.as_mut().now_or_never().is_none());
        disk.journal().pump();
        let claim = birth.await.unwrap();
        let local = Local { disk: disk.clone(), replica: 1 };
        let (store, checkpoints) = local.open(&claim.log).await.unwrap();
        let applier = Applier(Arc::new(Applying {
            machine: Arc::new(Nothing),
            log: claim.log.clone(),
            store: RwLock::new(store),
            checkpoints,
            local,
            changes: broadcast::Sender::new(1),
            next_index: watch::Sender::new(0),
            samples: Samples::default(),
        }));
        (claim, applier)
    }

    #[tokio::test]
    async fn a_snapshot_is_not_installed_before_what_was_cut_for_it_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let (claim, mut applier) = applier(dir.path()).await;
        let (store, checkpoints) = (applier.0.store(), applier.0.checkpoints.clone());
        let checkpoint = checkpoints.build(|| store).await.unwrap();
        claim.log.clone().truncate_after(None).await.unwrap();
        let meta = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        let mut installing = Box::pin(applier.install_snapshot(&meta, checkpoint));
        assert!(installing.as_mut().now_or_never().is_none(), "its rows are there already");
        claim.disk.journal().pump();
        installing.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_gets_the_place_of_a_replica_for_which_a_snapshot_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let (claim, mut applier) = applier(dir.path()).await;
        let (disk, applying) = (claim.disk.clone(), applier.0.clone());
        let store = applying.store();
        let checkpoint = applying.checkpoints.build(|| store).await.unwrap();
        let meta = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        let begun = || disk.claim(1, ShardId(1)).now_or_never().unwrap();
        let turn = applying.checkpoints.writing().await;
        let mut installing = Box::pin(applier.install_snapshot(&meta, checkpoint.clone()));
        assert!(installing.as_mut().now_or_never().is_none(), "somebody else writes");
        drop(claim);
        assert!(matches!(begun(), Err(Error::Running { .. })));
        drop(turn);
        installing.await.unwrap();
        assert!(begun().is_ok());

        // What comes to it only when its core is gone changes nothing.
        let index = || {
            let items = std::fs::read_dir(disk.index_dir(1)).unwrap();
            items.map(|item| item.unwrap().path()).collect::<BTreeSet<_>>()
        };
        let before = index();
        applying.checkpoints.end_replica();
        applier.install_snapshot(&meta, checkpoint).await.unwrap();
        assert_eq!(index(), before);
    }

    #[tokio::test]
    async fn nothing_is_dead_while_other_rows_come() {
        let dir = tempfile::tempdir().unwrap();
        let (claim, applier) = applier(dir.path()).await;
        let disk = claim.disk.clone();
        disk.attach(1, &applier.0).unwrap();
        let body = crate::log::blob(&StoredChunk::raw(bytes::Bytes::from_static(b"octets")));
        let record = Record::Blobs { replica: ReplicaId(1), blobs: vec![body] };
        disk.journal().append_wait(vec![record]).unwrap();
        disk.journal().roll().unwrap();
        let installing = disk.begin_install(1);
        assert!(disk.collect().unwrap().moved_bytes > 0, "it may be needed");
        drop(installing);
        disk.journal().roll().unwrap();
        let collected = disk.collect().unwrap();
        assert!(!collected.deleted.is_empty() && collected.moved_bytes == 0, "{collected:?}");
    }

    #[tokio::test]
    async fn after_a_clean_stop_nothing_is_applied_that_its_note_does_not_tell() {
        let dir = tempfile::tempdir().unwrap();
        let (_claim, mut applier) = applier(dir.path()).await;
        let applying = applier.0.clone();
        let mut apply = async |index: u64| {
            let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
            let entry = Entry { log_id, payload: Payload::Blank };
            applier.apply(futures_util::stream::iter([Ok((entry, None))])).await.unwrap();
            applying.store().applied().next_index()
        };
        assert_eq!(apply(1).await, 2);
        applying.local.close(&applying.store(), &applying.checkpoints).unwrap();
        // What openraft had queued comes all the same.
        assert_eq!(apply(2).await, 2);
    }
}
