//! What one replica has beside the journal, and how it is opened: an index that is trusted only
//! after a clean stop or a full count, and is built again from checkpoint and journal otherwise.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use journal::{Pointer, ReplicaId, SegmentId};
use mailbox::Digest;
use tokio::sync::oneshot;

use crate::checkpoint::{
    Checkpoint, Checkpoints, HasRoom, Want, Writing, is_damage, make_dir, sync_dir,
};
use crate::codec::Reader;
use crate::disk::Disk;
use crate::error::Error;
use crate::index::{self, Index, IndexError, Leaving};
use crate::log::Log;
use crate::store::{Applied, Changed, Store};

/// An index that is not open by then, or of which no further row could be read for so long, is given up.
const STUCK_MAX: Duration = Duration::from_secs(60);
/// Rows written at once while an index is built.
const LOAD_ROWS: usize = 2048;
/// Places of bodies sorted at once while an index is built, which is the faster the more they are: 14 MiB.
const LOAD_PLACES: usize = 256 << 10;

/// What a replica has to remember of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// Bodies may be missing here.
    Incomplete,
    /// Its peers saw more of it than is here: it never runs again.
    RolledBack,
}

/// The files of one replica.
#[derive(Clone)]
pub(crate) struct Local {
    pub disk: Arc<Disk>,
    pub replica: u64,
}

impl Local {
    /// Opens what there is, or builds it.
    pub async fn open(&self, log: &Log) -> Result<(Arc<Store>, Arc<Checkpoints>), Error> {
        let dir = self.disk.checkpoint_dir(self.replica);
        let blocking = self.disk.blocking();
        let disk = self.disk.clone();
        let has_room: HasRoom = Arc::new(move |bytes, want| match want {
            Want::Some => disk.has_room_to_spare(bytes),
            Want::Much => disk.has_room_for(bytes),
        });
        let upkeep = self.disk.options().upkeep.clone();
        let open = move || Checkpoints::open(&dir, blocking, &upkeep, has_room);
        let opened = blocking.run(open).await.and_then(|opened| opened);
        let checkpoints = opened.map_err(Error::io("open checkpoints"))?;
        if checkpoints.is_doubted() {
            self.disk.found_bad_checkpoint(self.replica);
        }
        match self.try_trusted(&checkpoints, log).await? {
            Some(Ok(Trusted { store, changed })) => {
                // Why not by who opened it: a thread that was given up may end while another index is
                // in use.
                match changed {
                    Some(keys) => checkpoints.set_dirty_keys(keys),
                    None => checkpoints.doubt(),
                }
                // Why: the bodies of the last entries were copied to where they are synced for sure,
                // and what the index says of them is overwritten.
                let (this, to) = (self.clone(), store.clone());
                let moved: BTreeSet<_> = self.disk.resynced().into_iter().collect();
                let relocated = blocking.run(move || this.relocate(&to, &moved)).await;
                relocated.and_then(|done| done).map_err(Error::io("find bodies again"))?;
                return Ok((store, checkpoints));
            }
            Some(Err(Distrust::Stale(why))) => {
                tracing::info!(replica = self.replica, why, "index is built anew");
            }
            Some(Err(Distrust::Damaged(why))) => {
                tracing::warn!(replica = self.replica, why, "index is damaged and built anew");
                self.disk.found_bad_index(self.replica);
            }
            None => {
                tracing::warn!(replica = self.replica, "index cannot be opened and is built anew");
                self.disk.found_bad_index(self.replica);
            }
        }
        let floor = log.ends().1.map_or(0, |purged| purged.index + 1);
        if checkpoints.current().map_or(0, |found| found.applied().next_index()) < floor {
            let reason = "the log is cut above the newest checkpoint".into();
            return Err(Error::Lost { replica: self.replica, reason });
        }
        let (this, theirs) = (self.clone(), checkpoints.clone());
        let built = blocking.run(move || this.build(&theirs)).await;
        let store = built.map_err(Error::io("build the index"))??;
        Ok((store, checkpoints))
    }

    /// The newest index or why it is not trusted; `None` if opening it panicked or took too long.
    async fn try_trusted(
        &self,
        checkpoints: &Arc<Checkpoints>,
        log: &Log,
    ) -> Result<Option<Result<Trusted, Distrust>>, Error> {
        let (this, theirs, log) = (self.clone(), checkpoints.clone(), log.clone());
        let seen = Arc::new(AtomicU64::new(0));
        let n_seen = seen.clone();
        let open = move || this.open_trusted(&theirs, &log, &n_seen);
        let blocking = self.disk.blocking();
        if !blocking.is_threaded {
            return Ok(blocking.run(open).await.ok());
        }
        let (sender, receiver) = oneshot::channel();
        // Why a thread of its own: a damaged sled can panic, or never return.
        let opening = std::thread::Builder::new().name("open index".into());
        opening.spawn(move || drop(sender.send(open()))).map_err(Error::io("start a thread"))?;
        Ok(unless_stuck(receiver, &seen).await)
    }

    /// The newest index, if everything speaks for it; counts the rows it had to read. What is known of the
    /// replica stays as it is.
    fn open_trusted(
        &self,
        checkpoints: &Checkpoints,
        log: &Log,
        seen: &AtomicU64,
    ) -> Result<Trusted, Distrust> {
        let dir = self.disk.index_dir(self.replica);
        let Some(newest) = generations(&dir).pop() else {
            return Err(Distrust::Stale("there is none".into()));
        };
        let path = dir.join(newest.to_string());
        let note = take_clean_note(&path);
        if doubt_path(&path).exists() {
            return Err(Distrust::Damaged("its rows are not those of its peers".into()));
        }
        let bad = |error: IndexError| Distrust::Damaged(error.to_string());
        let index = self.open_index(&path).map_err(bad)?;
        let store = Store::open(index, self.replica, self.disk.briefs()).map_err(bad)?;
        let applied = store.applied();
        if note.as_ref().is_some_and(|note| note.applied != applied) {
            return Err(Distrust::Damaged("it is not as a clean stop left it".into()));
        }
        let is_known = applied.log_id.is_none_or(|log_id| log.holds(log_id));
        let has_checkpoint = checkpoints.current();
        let floor = log.ends().1.map_or(0, |purged| purged.index + 1);
        let is_behind = has_checkpoint
            .is_some_and(|checkpoint| checkpoint.applied().next_index() > applied.next_index());
        if !is_known || applied.next_index() < floor || is_behind {
            return Err(Distrust::Stale("it does not fit the log".into()));
        }
        // Why a later one too: it was being written when the replica stopped, and fewer keys changed since.
        let of_here = |note: &CleanNote| note.checkpoint <= checkpoints.end();
        let changed = match note.filter(of_here) {
            Some(note) => Some(note.keys),
            None => {
                let mut comparison = checkpoints.comparison();
                let mut visit = |key: &[u8], value: &[u8]| {
                    seen.fetch_add(1, Ordering::Relaxed);
                    comparison.row(key, value);
                };
                if !store.verify(&mut visit).map_err(bad)? {
                    return Err(Distrust::Damaged("it misses its digest".into()));
                }
                if self.disk.has_index_failed(self.replica) {
                    // Why only then: it is as much again to read, and what is damaged there is found when it
                    // is wanted. Trusted once more, it would fail at the same place again and again.
                    let mut visit = || {
                        seen.fetch_add(1, Ordering::Relaxed);
                    };
                    store.verify_places(&mut visit).map_err(bad)?;
                    self.disk.index_is_whole(self.replica);
                }
                comparison.finish().ok()
            }
        };
        store.keep_briefs_in(&briefs_path(&path));
        Ok(Trusted { store, changed })
    }

    fn open_index(&self, path: &Path) -> Result<Box<dyn Index>, IndexError> {
        let index = index::open(path, self.disk.options().index_cache_bytes)?;
        if !self.disk.apart().has_others() {
            return Ok(index);
        }
        Ok(Box::new(Leaving::new(index)))
    }

    /// The index there is must not be trusted again: its rows are not those of its peers.
    pub fn doubt_index(&self) -> io::Result<()> {
        let dir = self.disk.index_dir(self.replica);
        let Some(newest) = generations(&dir).pop() else { return Ok(()) };
        // Durability: the doubt and its name, before the index is left and made anew.
        std::fs::File::create(doubt_path(&dir.join(newest.to_string())))?.sync_all()?;
        sync_dir(&dir)
    }

    /// Builds the index from the newest checkpoint; the log does the rest.
    fn build(&self, checkpoints: &Checkpoints) -> Result<Arc<Store>, Error> {
        if !self.disk.has_room_for_index() {
            // Why not lost: once there is space again, everything it is built from is here.
            return Err(journal::Error::Full.into());
        }
        let checkpoint = checkpoints.current();
        let store = self.load(checkpoint.as_ref()).map_err(|error| {
            let verified = checkpoint.as_ref().map_or(Ok(()), Checkpoint::verify);
            if is_damage(&error) || verified.is_err_and(|error| is_damage(&error)) {
                let reason = format!("checkpoint: {error}");
                return Error::Lost { replica: self.replica, reason };
            }
            // Why not lost: all it is built from is here, and may be built the next time.
            Error::io("build the index")(error)
        })?;
        checkpoints.set_dirty_keys(Vec::new());
        Ok(store)
    }

    /// Puts a snapshot of a peer in the place of everything there is.
    pub fn install(
        &self,
        (own, turn): (&Checkpoints, &Writing),
        snapshot: &Checkpoint,
    ) -> io::Result<Arc<Store>> {
        // Durability: the mark is there before the rows, so that a crash between rows and bodies
        // leaves a replica that knows it is incomplete.
        self.mark(Mark::Incomplete)?;
        let adopted = own.adopt(snapshot, turn)?;
        self.load(Some(&adopted))
    }

    /// Fills a new index with a checkpoint's rows and with the places of bodies on this disk.
    fn load(&self, checkpoint: Option<&Checkpoint>) -> io::Result<Arc<Store>> {
        let dir = self.disk.index_dir(self.replica);
        let old = generations(&dir);
        let path = dir.join(old.last().map_or(1, |newest| newest + 1).to_string());
        std::fs::create_dir_all(&dir)?;
        let store = self.load_into(&path, checkpoint).inspect_err(|_| {
            // Why: where the disk is full it would keep the room that the next one needs. Why the result is
            // dropped: what stays is not trusted, and goes when one is there.
            drop(std::fs::remove_dir_all(&path));
        })?;
        self.disk.index_is_whole(self.replica);
        for generation in old {
            // Why the result is dropped: a directory that stays only takes space, and goes at the
            // next start.
            drop(std::fs::remove_dir_all(dir.join(generation.to_string())));
            let index = dir.join(generation.to_string());
            drop(std::fs::remove_file(clean_path(&index)));
            drop(std::fs::remove_file(doubt_path(&index)));
            drop(std::fs::remove_file(briefs_path(&index)));
        }
        Ok(store)
    }

    fn load_into(&self, path: &Path, checkpoint: Option<&Checkpoint>) -> io::Result<Arc<Store>> {
        let index = self.open_index(path).map_err(io::Error::other)?;
        let store = Store::open(index, self.replica, self.disk.briefs());
        let store = store.map_err(io::Error::other)?;
        if let Some(checkpoint) = checkpoint {
            let mut rows = Vec::with_capacity(LOAD_ROWS);
            checkpoint.rows(&mut |key, value| {
                rows.push((key, value));
                if rows.len() == LOAD_ROWS {
                    store.load(std::mem::take(&mut rows)).map_err(io::Error::other)?;
                }
                Ok(())
            })?;
            store.load(rows).map_err(io::Error::other)?;
        }
        self.locate_all(&store)?;
        // Invariant: all of it is with the operating system before the index says how far it goes, so that a
        // kill leaves no index that is trusted and lacks some.
        store.flush().map_err(io::Error::other)?;
        let applied = checkpoint.map_or(Applied::default(), |found| found.applied().clone());
        store.commit(Changed::default(), &[], applied).map_err(io::Error::other)?;
        store.settle().map_err(io::Error::other)?;
        drop(std::fs::remove_file(briefs_path(path)));
        store.keep_briefs_in(&briefs_path(path));
        Ok(store)
    }

    /// Finds the bodies of this replica in these segments again.
    pub fn relocate(&self, store: &Store, segments: &BTreeSet<SegmentId>) -> io::Result<()> {
        for segment in segments.iter().copied() {
            for some in self.bodies_in(segment)?.chunks(LOAD_ROWS) {
                store.place(some).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Finds all bodies of this replica, for an index that is built.
    fn locate_all(&self, store: &Store) -> io::Result<()> {
        let mut found = Vec::new();
        for segment in self.disk.journal().segments() {
            found.append(&mut self.bodies_in(segment)?);
            if found.len() >= LOAD_PLACES {
                store.load_places(std::mem::take(&mut found)).map_err(io::Error::other)?;
            }
        }
        store.load_places(found).map_err(io::Error::other)
    }

    /// The bodies of this replica in a segment, in the order in which they came.
    fn bodies_in(&self, segment: SegmentId) -> io::Result<Vec<(Digest, Pointer)>> {
        let found = match self.disk.journal().blob_locations(segment) {
            Ok(found) => found,
            Err(journal::Error::Missing { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(io::Error::other(error)),
        };
        let ours = found.iter().filter(|location| location.replica == ReplicaId(self.replica));
        Ok(ours.map(|location| (Digest(location.digest), location.pointer)).collect())
    }

    /// After a clean stop: what is on disk, so that the next start need not count. Nothing more is applied.
    pub fn close(&self, store: &Store, checkpoints: &Checkpoints) -> io::Result<()> {
        // Invariant: the index, how far it is, and what changed are of one moment. openraft ended, but not
        // yet who applies for it.
        checkpoints.end_replica();
        // Order: whoever commits in this moment has this lock, whoever does later sees that it ended.
        drop(checkpoints.dirty());
        if store.is_damaged() {
            // Why no failure: the next start counts its rows, or builds it anew.
            return Ok(());
        }
        let dir = self.disk.index_dir(self.replica);
        let Some(newest) = generations(&dir).pop() else { return Ok(()) };
        store.flush().map_err(io::Error::other)?;
        sync_tree(&dir.join(newest.to_string()))?;
        // Why: what changed since a checkpoint that cannot be read is not known.
        let Some((end, keys)) = checkpoints.end_and_dirty_keys() else { return Ok(()) };
        let applied = store.applied().encode();
        let mut note = Vec::new();
        note.put_u32(applied.len() as u32);
        note.put_slice(&applied);
        note.put_u64(end);
        for key in keys {
            note.put_u32(key.len() as u32);
            note.put_slice(&key);
        }
        note.put_slice(blake3::hash(&note).as_bytes());
        let beside = dir.join(format!("{newest}.new"));
        std::fs::write(&beside, &note)?;
        // Durability: the index is on disk before the note that says so.
        std::fs::File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, clean_path(&dir.join(newest.to_string())))?;
        sync_dir(&dir)
    }

    /// Whether this is so of the replica.
    pub fn is_marked(&self, mark: Mark) -> bool {
        // Why: who may lack bodies must not lead and not count as a copy, and one that lacks none is soon
        // known to be whole again. Of one that was rolled back its peers tell once more.
        let cannot_be_told = matches!(mark, Mark::Incomplete);
        self.mark_path(mark).try_exists().unwrap_or(cannot_be_told)
    }

    /// It is so from now on, also after a restart.
    pub fn mark(&self, mark: Mark) -> io::Result<()> {
        make_dir(&self.disk.checkpoint_dir(self.replica))?;
        // Durability: the mark and its name are on the disk when this returns.
        std::fs::File::create(self.mark_path(mark))?.sync_all()?;
        sync_dir(&self.disk.checkpoint_dir(self.replica))
    }

    /// It is not so any more.
    pub fn unmark(&self, mark: Mark) -> io::Result<()> {
        match std::fs::remove_file(self.mark_path(mark)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_dir(&self.disk.checkpoint_dir(self.replica)),
        }
    }

    fn mark_path(&self, mark: Mark) -> PathBuf {
        let name = match mark {
            Mark::Incomplete => "incomplete",
            Mark::RolledBack => "rolled-back",
        };
        self.disk.checkpoint_dir(self.replica).join(name)
    }
}

/// What somebody sends who counts meanwhile; `None` if nothing comes and the count stands still.
async fn unless_stuck<T>(mut sent: oneshot::Receiver<T>, count: &AtomicU64) -> Option<T> {
    let mut last = 0;
    loop {
        match tokio::time::timeout(STUCK_MAX, &mut sent).await {
            Ok(came) => return came.ok(),
            Err(_) if count.load(Ordering::Relaxed) > last => {
                last = count.load(Ordering::Relaxed);
            }
            Err(_) => return None,
        }
    }
}

/// Numbers of the index directories there are, ascending.
fn generations(dir: &Path) -> Vec<u64> {
    let Ok(items) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<u64> =
        items.filter_map(|item| item.ok()?.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found
}

fn clean_path(index: &Path) -> PathBuf {
    index.with_extension("clean")
}

fn doubt_path(index: &Path) -> PathBuf {
    index.with_extension("doubted")
}

fn briefs_path(index: &Path) -> PathBuf {
    index.with_extension("briefs")
}

/// An index that is used.
struct Trusted {
    store: Arc<Store>,
    /// Rows that changed since the newest checkpoint, at least; `None` if that cannot be read.
    changed: Option<Vec<Vec<u8>>>,
}

/// Why an index is not used.
enum Distrust {
    /// It is not there or not the one that belongs here.
    Stale(String),
    /// It does not verify.
    Damaged(String),
}

/// What a clean stop left to know.
struct CleanNote {
    applied: Applied,
    /// Where a checkpoint ended,
    checkpoint: u64,
    /// and which rows changed since, at least.
    keys: Vec<Vec<u8>>,
}

/// Reads the note of a clean stop and removes it: from now on the stop would not be clean.
fn take_clean_note(index: &Path) -> Option<CleanNote> {
    let path = clean_path(index);
    let note = std::fs::read(&path).ok()?;
    std::fs::remove_file(&path).ok()?;
    sync_dir(path.parent()?).ok()?;
    let (note, hash) = note.split_at(note.len().checked_sub(32)?);
    if *blake3::hash(note).as_bytes() != *hash {
        return None;
    }
    let mut reader = Reader(Bytes::copy_from_slice(note));
    let len = reader.u32().ok()? as usize;
    let applied = Applied::decode(reader.bytes(len).ok()?)?;
    let checkpoint = reader.u64().ok()?;
    let mut keys = Vec::new();
    while !reader.0.is_empty() {
        let len = reader.u32().ok()? as usize;
        keys.push(reader.bytes(len).ok()?.to_vec());
    }
    Some(CleanNote { applied, checkpoint, keys })
}

/// Syncs every file below a directory, which sled's own flush does not do.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for item in std::fs::read_dir(dir)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            sync_tree(&item.path())?;
        } else {
            // Durability: each file before the directory that names it, all before the note about them.
            std::fs::File::open(item.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use mailbox::{Block, RowChanges, ShardId, Source};

    use super::*;
    use crate::disk::{Claim, DiskOptions};

    /// A disk with replica 0.
    async fn local(dir: &Path) -> (Local, Claim) {
        Disk::format(dir).unwrap();
        let journal = journal::Options { reserve_segments: 0, ..journal::Options::default() };
        let options = DiskOptions { journal, ..DiskOptions::default() };
        let disk = Disk::open(dir, options).unwrap();
        let claim = disk.claim(0, ShardId(1)).await.unwrap();
        (Local { disk, replica: 0 }, claim)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_was_given_up_is_not_trusted_after_a_clean_stop() {
        let dir = tempfile::tempdir().unwrap();
        let (local, claim) = local(dir.path()).await;
        let is_clean = || clean_path(&local.disk.index_dir(0).join("1")).exists();
        for gives_up in [false, true] {
            let (store, checkpoints) = local.open(&claim.log).await.unwrap();
            assert!(!is_clean(), "it is opened");
            if gives_up {
                store.give_up();
            }
            local.close(&store, &checkpoints).unwrap();
            assert_eq!(is_clean(), !gives_up);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_may_be_incomplete_counts_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let (local, _claim) = local(dir.path()).await;
        assert!(!local.is_marked(Mark::Incomplete));
        let path = local.mark_path(Mark::Incomplete);
        make_dir(path.parent().unwrap()).unwrap();
        // It leads to itself, so nobody can look at it.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(local.is_marked(Mark::Incomplete));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn briefs_stay_with_their_index_and_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (local, claim) = local(dir.path()).await;
        // Of an account, as `mailbox` names and makes them: a row of metadata, and briefs of 128 of which the
        // last alone is not empty.
        let key = [&[8][..], &[1; 16], &[0x0f], &1_u64.to_be_bytes()].concat();
        let block = Block::changed_by(&key).unwrap()[0];
        let briefs = Bytes::from([&[0; 4 * 127 + 3][..], &[1], b"x"].concat());
        let (store, checkpoints) = local.open(&claim.log).await.unwrap();
        let rows = RowChanges::from([(key, Some(vec![1]))]);
        store.commit((rows, Vec::new()), &[], Applied::default()).unwrap();
        store.view().keep_briefs(&block, &briefs);
        local.close(&store, &checkpoints).unwrap();
        drop((store, checkpoints));
        let (store, checkpoints) = local.open(&claim.log).await.unwrap();
        assert_eq!(store.view().briefs(&block), Some(briefs));
        drop((store, checkpoints));
        local.doubt_index().unwrap();
        let (store, _checkpoints) = local.open(&claim.log).await.unwrap();
        assert_eq!(store.view().briefs(&block), None, "the index is another one");
        let left = std::fs::read_dir(local.disk.index_dir(0)).unwrap();
        let left: Vec<_> = left.map(|item| item.unwrap().file_name()).collect();
        assert_eq!(left, ["2"], "nothing is left of the one before");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_is_opened_in_vain_changes_nothing_of_what_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let (local, claim) = local(dir.path()).await;
        let (store, checkpoints) = local.open(&claim.log).await.unwrap();
        let rows = RowChanges::from([(vec![1], Some(vec![1]))]);
        checkpoints.dirty().note(&rows, &[], 1);
        let mut applied = Applied::default();
        applied.digest.add(&[1], &[1]);
        store.commit((rows, Vec::new()), &[], applied).unwrap();
        local.close(&store, &checkpoints).unwrap();
        drop((store, checkpoints));
        for stopped in ["cleanly", "without a note"] {
            let (files, blocking) = (local.disk.checkpoint_dir(0), local.disk.blocking());
            let upkeep = &local.disk.options().upkeep;
            let anywhere = Arc::new(|_: u64, _: Want| true);
            let checkpoints = Checkpoints::open(&files, blocking, upkeep, anywhere).unwrap();
            // As if the thread that does this had been given up, and the replica had gone on.
            checkpoints.set_dirty_keys(vec![vec![9]]);
            let trusted = local.open_trusted(&checkpoints, &claim.log, &AtomicU64::new(0));
            let Ok(trusted) = trusted else { panic!("not trusted, stopped {stopped}") };
            assert_eq!(trusted.changed, Some(vec![vec![1]]), "{stopped}");
            assert_eq!(checkpoints.end_and_dirty_keys(), Some((0, vec![vec![9]])), "{stopped}");
        }
        let (_store, checkpoints) = local.open(&claim.log).await.unwrap();
        assert_eq!(checkpoints.end_and_dirty_keys(), Some((0, vec![vec![1]])), "it is used");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_failed_is_read_whole_before_it_is_trusted_again() {
        let dir = tempfile::tempdir().unwrap();
        let (local, claim) = local(dir.path()).await;
        let newest = || generations(&local.disk.index_dir(0)).pop();
        drop(local.open(&claim.log).await.unwrap());
        assert_eq!(newest(), Some(1));
        // The place of a body, without a checksum that fits.
        let index = index::open(&local.disk.index_dir(0).join("1"), 1 << 20).unwrap();
        let place = [&b"l"[..], &[7; 32]].concat();
        index.write(vec![(place, Some(b"rotten".to_vec()))]).unwrap();
        index.flush().unwrap();
        drop(index);
        drop(local.open(&claim.log).await.unwrap());
        assert_eq!(newest(), Some(1), "nobody looked there");
        local.disk.index_failed(0);
        drop(local.open(&claim.log).await.unwrap());
        assert_eq!(newest(), Some(2), "it is built anew");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_could_not_be_built_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let (local, claim) = local(dir.path()).await;
        let (store, checkpoints) = local.open(&claim.log).await.unwrap();
        let checkpoint = checkpoints.build(|| store.clone()).await.unwrap();
        for file in std::fs::read_dir(local.disk.checkpoint_dir(0)).unwrap() {
            std::fs::write(file.unwrap().path(), b"rotten").unwrap();
        }
        local.disk.index_failed(0);
        assert!(local.load(Some(&checkpoint)).is_err());
        assert_eq!(generations(&local.disk.index_dir(0)), [1]);
        assert!(local.disk.has_index_failed(0), "the one before is looked at as closely again");
        local.load(None).unwrap();
        assert!(!local.disk.has_index_failed(0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_stands_still_is_given_up() {
        let (sender, receiver) = oneshot::channel();
        let count = Arc::new(AtomicU64::new(0));
        let counting = count.clone();
        drop(tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(STUCK_MAX * 9 / 10).await;
                counting.fetch_add(1, Ordering::Relaxed);
            }
            sender.send("done").unwrap();
        }));
        assert_eq!(unless_stuck(receiver, &count).await, Some("done"));

        let (sender, receiver) = oneshot::channel::<()>();
        let begin = tokio::time::Instant::now();
        count.store(0, Ordering::Relaxed);
        assert_eq!(unless_stuck(receiver, &count).await, None);
        assert_eq!(begin.elapsed(), STUCK_MAX);
        drop(sender);
    }
}
