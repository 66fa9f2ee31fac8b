//! Checkpoints of one replica: a base file and the deltas after it. They are what the index is built
//! from again, what a follower far behind receives, and what lets the log be cut.

mod comparison;
mod dirty;
mod file;
mod merge;
mod run;
mod sum;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailbox::RowDigest;
use tokio::time::Instant;

pub(crate) use self::comparison::Comparison;
use self::dirty::Dirty;
use self::file::Row;
pub(crate) use self::file::{Head, Part, is_damage, make_dir, sync_dir};
pub(crate) use self::merge::Merged;
pub(crate) use self::sum::Sum;
use crate::blocking::Blocking;
use crate::feeds::Feeds;
use crate::store::{Applied, RowView, Store};
use crate::upkeep::Upkeep;

/// Rows read from a view, some half a millisecond of work, after which others get as much of the core.
const ROWS_PER_TURN: usize = 64;
const PAUSE: Duration = Duration::from_micros(500);
/// Limit: files of one checkpoint. They are merged long before, unless there is no room for that; then
/// no more are written.
pub(crate) const PARTS_MAX: usize = 64;
/// Deltas that are larger than the base are not merged before they take so much: it is written in a moment.
const SMALL_BYTES: u64 = 1 << 20;
/// Limit: while a follower is sent a base, its deltas become at most so many times as large as it. With all
/// that is removed they would grow without end under one that never has it, and a start reads them all.
const KEPT_BASE_TIMES: u64 = 4;
/// The first and the longest wait before files that could not be merged are merged again.
const MERGE_AFTER: Duration = Duration::from_secs(10);
const MERGE_AFTER_MAX: Duration = Duration::from_secs(600);

/// In this directory beside the files are those of a snapshot on its way in.
pub(crate) const INCOMING: &str = "incoming";

/// How much a file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Nobody needs it now.
    Some,
    /// Without it no more is written, and the log is not cut.
    Much,
}

/// Whether there is room for so many bytes.
pub(crate) type HasRoom = Arc<dyn Fn(u64, Want) -> bool + Send + Sync>;

/// Base and deltas, oldest first. The files stay readable as long as this lives.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    parts: Vec<Arc<Part>>,
}

impl Checkpoint {
    /// How far it goes.
    pub(crate) fn applied(&self) -> &Applied {
        &self.parts.last().expect("a checkpoint has a base").head.applied
    }

    fn len(&self) -> u64 {
        len_of(&self.parts)
    }

    /// Its files.
    pub(crate) fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    /// These files, if they are a base and deltas without a gap, and all their hashes are right.
    pub(crate) fn assemble(parts: Vec<Arc<Part>>) -> io::Result<Self> {
        let mut next = 0;
        for part in &parts {
            if part.head.from != next {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "gap in checkpoint"));
            }
            part.verify()?;
            next = part.head.applied.next_index();
        }
        if parts.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "empty checkpoint"));
        }
        Ok(Self { parts })
    }

    /// Whether every byte of its files is as it was written, and all rows add up to the digest.
    pub(crate) fn verify(&self) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| part.verify())?;
        self.rows(&mut |_, _| Ok(()))
    }

    /// All rows, verified to add up to the digest.
    pub(crate) fn rows(
        &self,
        visit: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut digest = RowDigest::default();
        for row in Merged::new(&self.parts)? {
            let (key, value) = row?;
            digest.add(&key, &value);
            visit(key, value)?;
        }
        if digest == self.applied().digest {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "checkpoint misses its digest"))
        }
    }
}

/// The turn to write files.
pub(crate) struct Writing {
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

/// The checkpoints of one replica.
pub(crate) struct Checkpoints {
    dir: PathBuf,
    current: Mutex<Option<Checkpoint>>,
    dirty: Mutex<Dirty>,
    /// What was dirty and is being written; locked after `dirty`.
    taken: Mutex<Arc<Dirty>>,
    /// Held by whoever writes files.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// A file is damaged, or what changed since is not known any more: the next checkpoint is a base with
    /// all rows.
    is_doubted: AtomicBool,
    /// The replica ended.
    is_ended: AtomicBool,
    blocking: Blocking,
    n_deltas_max: usize,
    has_room: HasRoom,
    /// The files could not be merged: when it is tried again, and after which wait.
    merge_again: Mutex<Option<(Instant, Duration)>>,
    feeds: Arc<Feeds>,
}

impl Checkpoints {
    /// Finds the base and the deltas that reach furthest; removes what does not belong to them.
    pub fn open(
        dir: &Path,
        blocking: Blocking,
        upkeep: &Upkeep,
        has_room: HasRoom,
    ) -> io::Result<Arc<Self>> {
        make_dir(dir)?;
        let mut found: BTreeMap<u64, Vec<Arc<Part>>> = BTreeMap::new();
        let mut is_doubted = false;
        for item in std::fs::read_dir(dir)? {
            let path = item?.path();
            if path.extension().is_none_or(|extension| extension != "ckpt") {
                continue;
            }
            match Part::open(&path) {
                Ok(part) => found.entry(part.head.from).or_default().push(part),
                Err(error) if is_damage(&error) => {
                    tracing::error!(path = %path.display(), %error, "checkpoint damaged");
                    is_doubted = true;
                }
                // Why not damaged: it may be read the next time, and what does not belong to the newest
                // checkpoint is removed.
                Err(error) => return Err(error),
            }
        }
        let parts = furthest(found);
        let current = (!parts.is_empty()).then_some(Checkpoint { parts });
        let this = Self {
            dir: dir.to_path_buf(),
            current: Mutex::new(current),
            dirty: Mutex::default(),
            taken: Mutex::default(),
            writing: Arc::default(),
            is_doubted: AtomicBool::new(is_doubted),
            is_ended: AtomicBool::new(false),
            blocking,
            n_deltas_max: upkeep.n_deltas,
            has_room,
            merge_again: Mutex::default(),
            feeds: Arc::default(),
        };
        this.tidy()?;
        this.tidy_incoming();
        Ok(Arc::new(this))
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The newest checkpoint.
    pub fn current(&self) -> Option<Checkpoint> {
        lock(&self.current).clone()
    }

    /// Who is sent one.
    pub fn feeds(&self) -> &Arc<Feeds> {
        &self.feeds
    }

    /// A file of the newest checkpoint is damaged, or what changed since is not known any more.
    pub fn doubt(&self) {
        self.is_doubted.store(true, Ordering::Relaxed);
    }

    /// Whether the newest checkpoint is in doubt, and was not written anew yet.
    pub fn is_doubted(&self) -> bool {
        self.is_doubted.load(Ordering::Relaxed)
    }

    /// Whether a file is part of the newest checkpoint.
    pub fn holds(&self, part: &Arc<Part>) -> bool {
        self.current().is_some_and(|current| current.parts.iter().any(|own| Arc::ptr_eq(own, part)))
    }

    /// Where the newest checkpoint ends.
    pub fn end(&self) -> u64 {
        self.current().map_or(0, |current| current.applied().next_index())
    }

    /// What changed since then; locked while a batch is written.
    pub fn dirty(&self) -> MutexGuard<'_, Dirty> {
        lock(&self.dirty)
    }

    /// The replica ended: nothing more is committed to its rows, and no snapshot is begun with. Whoever has
    /// the lock of what changed may be about to commit for a last time.
    pub fn end_replica(&self) {
        self.is_ended.store(true, Ordering::Relaxed);
    }

    /// Whether it did; looked at with the lock of what changed by whoever commits.
    pub fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Compares rows with the newest checkpoint, after a stop that did not say which of them changed.
    pub fn comparison(&self) -> Comparison {
        Comparison::new(self.current().as_ref().map_or(&[], Checkpoint::parts))
    }

    /// Nobody else writes files here while what is given lives.
    pub async fn writing(&self) -> Writing {
        Writing { _turn: self.writing.clone().lock_owned().await }
    }

    /// Writes what changed since the newest checkpoint, and merges files when they got many, unless that
    /// cannot be: a checkpoint of many files is one, and the log may be cut below it. Rows
    /// are read from a view, so that apply goes on meanwhile. Which store it is, is asked when nobody else
    /// writes: a snapshot may have brought another one.
    pub async fn build(
        self: &Arc<Self>,
        store: impl FnOnce() -> Arc<Store>,
    ) -> io::Result<Checkpoint> {
        let mut writing = self.writing().await;
        self.forget_too_many();
        if let Some(current) = self.current() {
            let (is_full, is_doubted) = (current.parts.len() >= PARTS_MAX, self.is_doubted());
            // Why as large as what there is: it is one file of the same rows.
            if (is_full || is_doubted) && !(self.has_room)(current.len(), Want::Much) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if is_full && !is_doubted {
                let first = self.first_to_merge(&current).unwrap_or(0);
                (_, writing) = self.merge_aside((current, first), writing).await?;
            }
        }
        let (this, store) = (self.clone(), store());
        // Why it goes along: the work is done to its end even if nobody waits for it any more.
        let build = move || (this.build_now(&store), writing);
        let (built, writing) = self.blocking.run(build).await?;
        let checkpoint = built?;
        let Some(first) = self.to_be_merged(&checkpoint) else { return Ok(checkpoint) };
        match self.merge_aside((checkpoint.clone(), first), writing).await {
            Ok((merged, _)) => Ok(merged),
            Err(error) if is_damage(&error) => Err(error),
            Err(_) => Ok(self.current().unwrap_or(checkpoint)),
        }
    }

    /// Merges the files from this one on, where it disturbs nobody.
    async fn merge_aside(
        self: &Arc<Self>,
        (checkpoint, first): (Checkpoint, usize),
        writing: Writing,
    ) -> io::Result<(Checkpoint, Writing)> {
        let this = self.clone();
        let merge = move || this.merge(&checkpoint, first).map(|merged| (merged, writing));
        let merged = self.blocking.run_aside(merge).await.and_then(|merged| merged);
        match &merged {
            Ok(_) => {
                if lock(&self.merge_again).take().is_some() {
                    tracing::info!(dir = %self.dir.display(), "checkpoint files are merged again");
                }
            }
            Err(error) => {
                if is_damage(error) {
                    // Why: these files do not get better. The rows give another checkpoint.
                    self.doubt();
                }
                self.put_off_merge(&error.to_string());
            }
        }
        merged
    }

    /// Files are not merged for some time.
    fn put_off_merge(&self, why: &str) {
        let mut again = lock(&self.merge_again);
        if again.is_none() {
            tracing::warn!(dir = %self.dir.display(), why, "checkpoint files cannot be merged yet");
        }
        let wait = again.map_or(MERGE_AFTER, |(_, wait)| wait * 2).min(MERGE_AFTER_MAX);
        *again = Some((Instant::now() + wait, wait));
    }

    fn build_now(&self, store: &Arc<Store>) -> io::Result<Checkpoint> {
        let (view, taken) = self.take(store);
        let is_doubted = self.is_doubted();
        let built = if is_doubted { self.base(&view) } else { self.delta(&view, &taken) };
        match built {
            Ok(_) => *lock(&self.taken) = Arc::default(),
            Err(_) => self.give_back(taken),
        }
        let checkpoint = built?;
        if is_doubted {
            self.is_doubted.store(false, Ordering::Relaxed);
            self.tidy()?;
        }
        Ok(checkpoint)
    }

    /// The rows as they are now, and what changed before.
    fn take(&self, store: &Arc<Store>) -> (RowView, Arc<Dirty>) {
        // Invariant: the keys taken are those changed before the view, because whoever commits holds this
        // lock meanwhile.
        let mut dirty = self.dirty();
        let taken = Arc::new(std::mem::take(&mut *dirty));
        *lock(&self.taken) = taken.clone();
        (store.view(), taken)
    }

    /// What was taken could not be written.
    fn give_back(&self, taken: Arc<Dirty>) {
        let mut dirty = self.dirty();
        *lock(&self.taken) = Arc::default();
        // Invariant: who else looks at what was taken has the other lock.
        let taken = Arc::into_inner(taken).expect("nobody else has it");
        dirty.give_back(taken);
    }

    /// Keeps no more keys than may be, however long no checkpoint can be written.
    fn forget_too_many(&self) {
        let mut dirty = self.dirty();
        if dirty.take_too_many().is_some() {
            // Order: with the lock in hand, so that who finds keys gone finds the doubt.
            self.doubt();
            tracing::warn!(dir = %self.dir.display(), "changes are not noted any more");
        }
    }

    /// From which file on they are to become one, if they got many, and there is room for them and for one in
    /// their place.
    fn to_be_merged(&self, checkpoint: &Checkpoint) -> Option<usize> {
        let (base, deltas) = (&checkpoint.parts[0], &checkpoint.parts[1..]);
        let is_outgrown = len_of(deltas) > base.len.max(SMALL_BYTES);
        // Why not while the base stays: they would be merged each time.
        let is_due = deltas.len() >= self.n_deltas_max
            || (is_outgrown && !self.keeps_base(&checkpoint.parts));
        let is_put_off = lock(&self.merge_again).is_some_and(|(at, _)| Instant::now() < at);
        if !is_due || is_put_off {
            return None;
        }
        let first = self.first_to_merge(checkpoint)?;
        let has_room = (self.has_room)(len_of(&checkpoint.parts[first..]), Want::Some);
        if !has_room {
            self.put_off_merge("no room");
        }
        has_room.then_some(first)
    }

    /// Whether the base of these files stays: a follower is sent it, and where that breaks off, it goes on
    /// with the files it has.
    fn keeps_base(&self, parts: &[Arc<Part>]) -> bool {
        let base_bytes = parts[0].len.max(SMALL_BYTES);
        self.feeds.is_any() && len_of(&parts[1..]) <= KEPT_BASE_TIMES * base_bytes
    }

    /// From which file on they become one.
    fn first_to_merge(&self, checkpoint: &Checkpoint) -> Option<usize> {
        let lens: Vec<u64> = checkpoint.parts.iter().map(|part| part.len).collect();
        if !self.keeps_base(&checkpoint.parts) {
            return Some(merge_from(&lens));
        }
        let deltas = &lens[1..];
        (deltas.len() > 1).then(|| 1 + merge_from(deltas))
    }

    /// Lets others go first after some rows of a view; says when it did.
    fn give_way(&self, n_rows: &mut usize) -> bool {
        *n_rows += 1;
        let is_time = n_rows.is_multiple_of(ROWS_PER_TURN);
        if is_time && self.blocking.is_threaded {
            // Why not a low priority: whoever commits would wait for the locks of a thread that does not run.
            std::thread::sleep(PAUSE);
        }
        is_time
    }

    fn delta(&self, view: &RowView, dirty: &Dirty) -> io::Result<Checkpoint> {
        let current = self.current();
        let from = current.as_ref().map_or(0, |current| current.applied().next_index());
        let applied = view.applied().clone();
        if let Some(current) = current.clone()
            && applied.next_index() <= from
        {
            return Ok(current);
        }
        let mut parts = current.map_or(Vec::new(), |current| current.parts);
        let head = Head { from, applied };
        let mut n_rows = 0;
        let row = |key: Vec<u8>| -> io::Result<Row> {
            if self.give_way(&mut n_rows) {
                // Invariant: keys ascend, and nobody else writes a checkpoint meanwhile.
                view.pass(&key);
            }
            let value = view.try_row(&key).map_err(io::Error::other)?;
            Ok((key, value))
        };
        let keys = dirty.keys();
        let part = if parts.is_empty() {
            let present = |row: &io::Result<Row>| !matches!(row, Ok((_, None)));
            Part::write(&self.dir, &head, &mut keys.map(row).filter(present))?
        } else {
            Part::write(&self.dir, &head, &mut keys.map(row))?
        };
        parts.push(part);
        let checkpoint = Checkpoint { parts };
        *lock(&self.current) = Some(checkpoint.clone());
        Ok(checkpoint)
    }

    /// Makes a base of the rows there are, since the files there are do not tell them.
    fn base(&self, view: &RowView) -> io::Result<Checkpoint> {
        let applied = view.applied().clone();
        let mut n_rows = 0;
        let rows = view.rows().map(|row| -> io::Result<(Vec<u8>, Vec<u8>)> {
            let (key, value) = row.map_err(io::Error::other)?;
            if self.give_way(&mut n_rows) {
                // Invariant: as in a delta; what was read ahead of this row is not asked for again.
                view.pass(&key);
            }
            Ok((key, value))
        });
        let mut rows = adding_up(rows, applied.digest, "rows miss their digest");
        let part = Part::write(&self.dir, &Head { from: 0, applied }, &mut rows)?;
        let checkpoint = Checkpoint { parts: vec![part] };
        *lock(&self.current) = Some(checkpoint.clone());
        Ok(checkpoint)
    }

    /// Makes one file of those from this one on: a base of all of them, or else a delta.
    fn merge(&self, checkpoint: &Checkpoint, first: usize) -> io::Result<Checkpoint> {
        let (before, parts) = checkpoint.parts.split_at(first);
        let applied = checkpoint.applied().clone();
        let part = if before.is_empty() {
            self.merge_all(parts, applied)?
        } else {
            // Why: what rotted shows in a base's digest, and a delta has none of its own.
            parts.iter().try_for_each(|part| part.verify())?;
            let (head, mut merged) =
                (Head { from: parts[0].head.from, applied }, Merged::new(parts)?);
            // Order: it begins where the first of them does and goes further, so that after a crash it is
            // found in the place of all.
            Part::write(&self.dir, &head, &mut std::iter::from_fn(|| merged.step()))?
        };
        let merged = Checkpoint { parts: before.iter().cloned().chain([part]).collect() };
        *lock(&self.current) = Some(merged.clone());
        self.tidy()?;
        Ok(merged)
    }

    /// Makes one base of base and deltas.
    fn merge_all(&self, parts: &[Arc<Part>], applied: Applied) -> io::Result<Arc<Part>> {
        let mut rows = adding_up(Merged::new(parts)?, applied.digest, "merge misses its digest");
        Part::write(&self.dir, &Head { from: 0, applied }, &mut rows)
    }

    /// Takes over a checkpoint that came from elsewhere. Whoever does has the turn to write until the rows
    /// are those of the checkpoint.
    pub fn adopt(&self, checkpoint: &Checkpoint, _turn: &Writing) -> io::Result<Checkpoint> {
        let mut parts = VecDeque::new();
        // Why the base last: what breaks off before leaves the checkpoint there was, and files that follow
        // none.
        for part in checkpoint.parts.iter().rev() {
            let path = self.dir.join(part.head.name());
            if path != part.path {
                let beside = path.with_extension("new");
                match std::fs::remove_file(&beside) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                if std::fs::hard_link(&part.path, &beside).is_err() {
                    std::fs::copy(&part.path, &beside)?;
                }
                // Durability: contents before the name, and the names of all others before the base's; that
                // one is synced below.
                std::fs::File::open(&beside)?.sync_all()?;
                sync_dir(&self.dir)?;
                std::fs::rename(&beside, &path)?;
            }
            parts.push_front(Part::open(&path)?);
        }
        sync_dir(&self.dir)?;
        let adopted = Checkpoint::assemble(parts.into())?;
        *lock(&self.current) = Some(adopted.clone());
        self.is_doubted.store(false, Ordering::Relaxed);
        *self.dirty() = Dirty::default();
        self.tidy()?;
        Ok(adopted)
    }

    /// Removes files that are not part of the newest checkpoint.
    fn tidy(&self) -> io::Result<()> {
        let current = self.current();
        let parts = current.as_ref().map_or(&[][..], |current| &current.parts);
        let mut is_any_gone = false;
        for item in std::fs::read_dir(&self.dir)? {
            let path = item?.path();
            let is_ours = path.extension().is_some_and(|ext| ext == "ckpt" || ext == "new");
            if is_ours && !parts.iter().any(|part| part.path == path) {
                std::fs::remove_file(path)?;
                is_any_gone = true;
            }
        }
        if is_any_gone {
            // Durability: what is gone does not come back beside files that are written later.
            sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Removes what came of a snapshot that goes no further than the newest checkpoint: a process that was
    /// killed when it had installed it leaves that, and it keeps the space of files that were merged away.
    /// What came of one that goes further stays, as it is not sent again.
    fn tidy_incoming(&self) {
        let dir = self.dir.join(INCOMING);
        let Ok(items) = std::fs::read_dir(&dir) else { return };
        let own_end = self.end();
        let goes_further = |item: std::fs::DirEntry| {
            let end = item.path().file_stem()?.to_str()?.split_once('-')?.1.parse::<u64>().ok()?;
            Some(end > own_end)
        };
        if !items.flatten().any(|item| goes_further(item).unwrap_or(false)) {
            // Why the result is dropped: it goes at the next start, or when the next snapshot comes.
            drop(std::fs::remove_dir_all(&dir));
        }
    }

    /// Where a checkpoint ends, and keys that changed since then, to be found again after a clean stop.
    /// What is being written counts as changed: it may yet be written, or not. `None` if what changed is not
    /// known.
    pub fn end_and_dirty_keys(&self) -> Option<(u64, Vec<Vec<u8>>)> {
        let dirty = self.dirty();
        if self.is_doubted() {
            return None;
        }
        // Order: whoever writes says where it ends before it forgets the keys.
        let taken = lock(&self.taken).clone();
        let mut keys: Vec<Vec<u8>> = dirty.keys().chain(taken.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        Some((self.end(), keys))
    }

    /// The changed keys as a clean stop left them, or as a comparison with all rows found them.
    pub fn set_dirty_keys(&self, keys: Vec<Vec<u8>>) {
        let mut dirty = Dirty::default();
        keys.iter().for_each(|key| dirty.insert(key));
        *self.dirty() = dirty;
    }
}

/// Of files, by where they begin, a base and deltas without a gap: those that reach furthest, and where more
/// do, the longest ones. Why not the longest one of each place: a process that was killed while it took over
/// a checkpoint, or removed files, leaves some of another one, which may lead nowhere.
fn furthest(found: BTreeMap<u64, Vec<Arc<Part>>>) -> Vec<Arc<Part>> {
    let next = |part: &Arc<Part>| part.head.applied.next_index();
    // By where a file begins: how far one comes from there, and with which file.
    let mut best = BTreeMap::<u64, (u64, Arc<Part>)>::new();
    // Order: what lies behind a file is known before.
    for (from, parts) in found.into_iter().rev() {
        let reach = |next: u64| best.get(&next).map_or(next, |(reach, _)| *reach);
        let onward = parts.into_iter().filter(|part| next(part) > from);
        let chosen = onward.max_by_key(|part| (reach(next(part)), next(part)));
        if let Some(part) = chosen {
            let end = reach(next(&part));
            best.insert(from, (end, part));
        }
    }
    let (mut parts, mut from) = (Vec::new(), 0);
    while let Some((_, part)) = best.remove(&from) {
        from = next(&part);
        parts.push(part);
    }
    parts
}

/// Rows for a base, and behind them an error if they do not add up to what they should: so one that lacks
/// some never gets a name.
fn adding_up(
    mut rows: impl Iterator<Item = io::Result<(Vec<u8>, Vec<u8>)>>,
    all: RowDigest,
    misses: &'static str,
) -> impl Iterator<Item = io::Result<Row>> {
    let (mut digest, mut is_over) = (RowDigest::default(), false);
    std::iter::from_fn(move || match rows.next() {
        Some(row) => Some(row.map(|(key, value)| {
            digest.add(&key, &value);
            (key, Some(value))
        })),
        None if is_over || digest == all => None,
        None => {
            is_over = true;
            Some(Err(io::Error::new(io::ErrorKind::InvalidData, misses)))
        }
    })
}

fn len_of(parts: &[Arc<Part>]) -> u64 {
    parts.iter().map(|part| part.len).sum()
}

/// From which file on those of a checkpoint, of these sizes, become one: the first that is no larger than all
/// after it together, at least the last two. So a byte is written again only with as many others that were
/// written since, and the base only when the deltas are as large.
fn merge_from(lens: &[u64]) -> usize {
    let (mut first, mut after) = (lens.len().saturating_sub(2), 0);
    for (n, len) in lens.iter().enumerate().rev() {
        if *len <= after {
            first = first.min(n);
        }
        after += len;
    }
    first
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
