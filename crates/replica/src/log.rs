//! The Raft log of one replica: entries lie in the disk's journal, here is where they lie, and the
//! youngest of them once more in memory, so that followers are fed without a read.

mod read;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use journal::{Blob, Pointer, Record, ReplicaId, Written};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::Notify;

use self::read::Bodies;
use crate::appender::Appender;
use crate::codec;
use crate::donor::Donor;
use crate::raft::{Entry, LeaderId, LogId, Types, Vote};
use crate::wire::Seen;

/// Limit: bytes of entries in one request to a follower or one page of an apply.
pub(crate) const PAGE_BYTES_MAX: usize = 1 << 20;
/// Limit: bytes of recent entries kept in memory once they are on disk.
const CACHE_BYTES_MAX: usize = 4 << 20;

/// A handle on the log; clones are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    appender: Arc<Appender>,
    replica: ReplicaId,
    state: Mutex<State>,
    /// Told whenever something reached the disk or failed to.
    written: Notify,
    /// Who gives entries that rotted here.
    donor: Mutex<Option<Arc<Donor>>>,
}

#[derive(Default)]
struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// Not yet handed to the journal; it travels with the next append.
    committed_hint: Option<LogId>,
    purged: Option<LogId>,
    /// One per entry, the first being `first`.
    slots: VecDeque<Slot>,
    first: u64,
    /// The last entries of the log; the last one is the last slot's.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    sequence: u64,
    /// Truncations that are not synced yet.
    n_truncating: usize,
    failed: Option<String>,
    /// Damage took entries up to this one.
    lost_upto: Option<u64>,
}

/// One entry of the log.
struct Slot {
    leader_id: LeaderId,
    /// Tells an entry from another one that had the same index before.
    sequence: u64,
    /// Where it is; `None` until it is synced.
    pointer: Option<Pointer>,
    /// Where its bodies are, until it is applied.
    blobs: Box<[Pointer]>,
}

/// What recovery knows of a log.
#[derive(Default)]
pub(crate) struct RecoveredLog {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
    /// Damage took entries up to this one, and those kept are behind it.
    pub lost_upto: Option<u64>,
    /// Contiguous.
    pub entries: Vec<(LogId, Pointer)>,
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn cached(&self, index: u64) -> Option<&Entry> {
        let cache_first = self.next() - self.cache.len() as u64;
        self.cache.get(usize::try_from(index.checked_sub(cache_first)?).ok()?)
    }

    fn last(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(LogId { leader_id: slot.leader_id, index: self.next() - 1 }),
            None => self.purged,
        }
    }

    /// What counts as committed: the last entry here that is no later than what was told, which may name one
    /// that went when an entry was forced.
    fn committed_here(&self) -> Option<LogId> {
        let told = self.committed?;
        let of_earlier = self.slots.partition_point(|slot| slot.leader_id <= told.leader_id);
        let upto = told.index.saturating_add(1).saturating_sub(self.first);
        let n_slots = usize::try_from(upto).map_or(of_earlier, |upto| upto.min(of_earlier));
        let Some(at) = n_slots.checked_sub(1) else { return self.purged.min(Some(told)) };
        Some(LogId { leader_id: self.slots[at].leader_id, index: self.first + at as u64 })
    }

    fn push(&mut self, entry: Entry) {
        if self.slots.is_empty() {
            self.first = entry.log_id.index;
        }
        assert_eq!(self.next(), entry.log_id.index, "entries are appended without a gap");
        self.sequence += 1;
        self.slots.push_back(Slot {
            leader_id: entry.log_id.leader_id,
            sequence: self.sequence,
            pointer: None,
            blobs: Box::default(),
        });
        self.cache_bytes += size_bytes(&entry);
        self.cache.push_back(entry);
    }

    /// Lets go of cached entries that are on disk, oldest first.
    fn trim(&mut self) {
        while self.cache_bytes > CACHE_BYTES_MAX {
            let oldest = self.next() - self.cache.len() as u64;
            if self.slot(oldest).is_none_or(|slot| slot.pointer.is_none()) {
                return;
            }
            if let Some(entry) = self.cache.pop_front() {
                self.cache_bytes -= size_bytes(&entry);
            }
        }
    }

    fn truncate(&mut self, next: u64) {
        while self.next() > next && self.slots.pop_back().is_some() {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= size_bytes(&entry);
            }
        }
    }

    fn purge(&mut self, log_id: LogId) {
        while self.first <= log_id.index && self.slots.pop_front().is_some() {
            self.first += 1;
            if self.cache.len() > self.slots.len()
                && let Some(entry) = self.cache.pop_front()
            {
                self.cache_bytes -= size_bytes(&entry);
            }
        }
        if self.slots.is_empty() {
            self.first = log_id.index + 1;
        }
        self.purged = Some(log_id);
    }
}

impl Log {
    /// The log as recovery found it.
    pub fn new(appender: Arc<Appender>, replica: ReplicaId, recovered: RecoveredLog) -> Self {
        let mut state = State {
            vote: recovered.vote,
            committed: recovered.committed,
            purged: recovered.purged,
            first: recovered
                .purged
                .map(|log_id| log_id.index)
                .max(recovered.lost_upto)
                .map_or(0, |i| i + 1),
            lost_upto: recovered.lost_upto,
            ..State::default()
        };
        if let Some((log_id, _)) = recovered.entries.first() {
            state.first = log_id.index;
        }
        for (log_id, pointer) in recovered.entries {
            state.slots.push_back(Slot {
                leader_id: log_id.leader_id,
                sequence: 0,
                pointer: Some(pointer),
                blobs: Box::default(),
            });
        }
        state.committed = state.committed_here();
        let (state, written) = (Mutex::new(state), Notify::new());
        let donor = Mutex::default();
        Self { inner: Arc::new(Inner { appender, replica, state, written, donor }) }
    }

    /// Makes memory agree with the disk again, when nobody writes: what is under way is waited for, and
    /// what did not get to the disk is given up.
    pub async fn reopen(&self) -> io::Result<()> {
        let on_disk = |state: &State| {
            let written = state.slots.iter().take_while(|slot| slot.pointer.is_some()).count();
            state.first + written as u64
        };
        let end = {
            let state = self.lock();
            if state.failed.is_none() && on_disk(&state) == state.next() {
                return Ok(());
            }
            state.next()
        };
        let replica = self.inner.replica;
        // Durability: whoever begins with this log acknowledges what is in it without asking the disk. The
        // journal answers in order, so behind this nothing is under way any more.
        self.write_synced(vec![Record::Truncate { replica, from_index_inclusive: end }]).await?;
        let next = on_disk(&self.lock());
        if next < end {
            // Durability: entries behind a gap are cut on disk before the log is used again.
            let cut = Record::Truncate { replica, from_index_inclusive: next };
            self.write_synced(vec![cut]).await?;
        }
        let mut state = self.lock();
        state.truncate(next);
        state.committed = state.committed_here();
        (state.failed, state.n_truncating) = (None, 0);
        Ok(())
    }

    /// The last log id there is, and the last one purged.
    pub fn ends(&self) -> (Option<LogId>, Option<LogId>) {
        let state = self.lock();
        (state.last(), state.purged)
    }

    /// The vote as it is on disk.
    pub fn vote(&self) -> Option<Vote> {
        self.lock().vote
    }

    /// The vote on disk, and the last entry there if it is of the leader voted for.
    ///
    /// Why only then: what an earlier leader left may still be cut back under the vote for one that has
    /// not appended yet, and what is missing then was not lost.
    pub fn shown(&self) -> Seen {
        let state = self.lock();
        let synced = state.slots.iter().rposition(|slot| slot.pointer.is_some());
        let synced = synced.map(|at| (state.slots[at].leader_id, state.first + at as u64));
        let voted_for = state.vote.map(|vote| vote.leader_id);
        let (leader_id, index) = match synced {
            Some((leader_id, index)) if Some(leader_id) == voted_for => (leader_id, index),
            _ => return Seen { vote: state.vote, log_id: None },
        };
        Seen { vote: state.vote, log_id: Some(LogId { leader_id, index }) }
    }

    /// Whether an entry with this id is in the log or was purged from it.
    pub fn holds(&self, log_id: LogId) -> bool {
        let state = self.lock();
        match state.slot(log_id.index) {
            Some(slot) => slot.leader_id == log_id.leader_id,
            None => {
                state.purged.is_some_and(|purged| log_id <= purged)
                    || state.lost_upto.is_some_and(|lost| log_id.index <= lost)
            }
        }
    }

    /// Damage took entries up to this one; it is not known which of them.
    pub fn lost_upto(&self) -> Option<u64> {
        self.lock().lost_upto
    }

    /// Gives up what damage took: everything up to here is applied and in a checkpoint.
    pub async fn give_up_lost(&self, applied: LogId) -> io::Result<()> {
        let record = Record::Purge {
            replica: self.inner.replica,
            upto_index_inclusive: applied.index,
            meta: codec::encode_log_id(&applied),
        };
        // Durability: the hole is below the log's floor before the log is used.
        self.write_synced(vec![record]).await?;
        let mut state = self.lock();
        state.purge(applied);
        state.lost_upto = None;
        Ok(())
    }

    /// Nothing behind what damage took is of use, however much of it was committed.
    pub fn forget(&self) {
        let mut state = self.lock();
        let next = state.purged.map_or(0, |purged| purged.index + 1);
        state.slots.clear();
        state.cache.clear();
        (state.first, state.cache_bytes, state.lost_upto) = (next, 0, None);
        state.committed = state.committed.min(state.purged);
    }

    /// Who gives entries that rotted here, from now on.
    pub fn set_donor(&self, donor: Donor) {
        *self.inner.donor.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(donor));
    }

    /// Writes a vote and an entry behind all others, when nobody else writes.
    pub async fn force(&self, vote: Vote, entry: Entry) -> io::Result<()> {
        self.clone().save_vote(&vote).await?;
        for part in self.accept([entry]) {
            let log = self.clone();
            let (sender, receiver) = tokio::sync::oneshot::channel();
            self.submit(part.records, move |result| {
                drop(sender.send(log.appended(part.sequences, part.first_index, result)));
            })
            .await?;
            receiver.await.map_err(|_| io::Error::other("the journal is gone"))??;
        }
        Ok(())
    }

    /// Where the bodies of an entry are, so many, once it is on this disk: asked when it is applied, and
    /// again by a replica that is begun anew, whose index did not get it. Fewer only where they rotted.
    pub async fn take_blobs(&self, index: u64, n_bodies: usize) -> io::Result<Box<[Pointer]>> {
        loop {
            let written = self.inner.written.notified();
            let pointer = {
                let mut state = self.lock();
                if let Some(why) = &state.failed {
                    return Err(io::Error::other(why.clone()));
                }
                let Some(slot) = state.slot_mut(index) else {
                    return Err(io::Error::other(format!("entry {index} is not in the log")));
                };
                if slot.pointer.is_some() && slot.blobs.len() == n_bodies {
                    return Ok(std::mem::take(&mut slot.blobs));
                }
                slot.pointer
            };
            if let Some(pointer) = pointer {
                // Why: they were taken before, and the entry came from memory.
                drop(self.read_bare(index, pointer).await);
                let mut state = self.lock();
                let slot = state.slot_mut(index);
                return Ok(slot.map(|slot| std::mem::take(&mut slot.blobs)).unwrap_or_default());
            }
            written.await;
        }
    }

    /// Hands records to the journal and waits until they are synced.
    async fn write_synced(&self, records: Vec<Record>) -> io::Result<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.submit(records, move |result| drop(sender.send(result.map(drop)))).await?;
        match receiver.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the journal is gone")),
        }
    }

    async fn submit(
        &self,
        records: Vec<Record>,
        done: impl FnOnce(Result<Vec<Written>, journal::Error>) + Send + 'static,
    ) -> io::Result<()> {
        let submitted = self.inner.appender.append(records, done).await;
        submitted.map_err(|error| {
            // Why: what was accepted into memory before is not on its way to the disk, so the log
            // has to be reopened before anybody counts on it.
            self.lock().failed = Some(error.to_string());
            self.inner.written.notify_waiters();
            io::Error::other(error)
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries reached the disk, or did not.
    fn appended(
        &self,
        sequences: RangeInclusive<u64>,
        first_index: u64,
        result: Result<Vec<Written>, journal::Error>,
    ) -> Result<(), io::Error> {
        let mut state = self.lock();
        let result = match result {
            Ok(written) => {
                let n_entries = (sequences.end() - sequences.start() + 1) as usize;
                let skip = written.len() - n_entries;
                let written = written.into_iter().skip(skip);
                for ((index, sequence), written) in (first_index..).zip(sequences).zip(written) {
                    // Why: the entry may have been truncated and replaced meanwhile.
                    if let Some(slot) = state.slot_mut(index)
                        && slot.sequence == sequence
                    {
                        slot.pointer = Some(written.record);
                        slot.blobs = written.blobs.into();
                    }
                }
                state.trim();
                state.failed.clone().map_or(Ok(()), |why| Err(io::Error::other(why)))
            }
            Err(error) => {
                state.failed = Some(error.to_string());
                Err(io::Error::other(error))
            }
        };
        drop(state);
        self.inner.written.notify_waiters();
        result
    }
}

impl Log {
    /// A truncation reached the disk, or did not.
    fn truncated(&self, error: Option<journal::Error>) {
        let mut state = self.lock();
        state.n_truncating = state.n_truncating.saturating_sub(1);
        if let Some(error) = error {
            state.failed = Some(error.to_string());
        }
        drop(state);
        self.inner.written.notify_waiters();
    }

    /// Waits until nothing that was cut comes back after a power cut.
    pub async fn stays_cut(&self) -> io::Result<()> {
        loop {
            let written = self.inner.written.notified();
            match &*self.lock() {
                State { failed: Some(why), .. } => return Err(io::Error::other(why.clone())),
                State { n_truncating: 0, .. } => return Ok(()),
                _ => {}
            }
            written.await;
        }
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = self.bounds(&range);
        // Why not needed: this is asked at the start, for log ids, members and what to apply.
        self.page(start, end, (usize::MAX, Bodies::Dispensable)).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.bounds(&range);
        let log = self.clone();
        let from = (log, start, VecDeque::new());
        futures_util::stream::try_unfold(from, move |(log, mut next, mut page)| async move {
            if page.is_empty() && next < end {
                // Why not needed: apply looks at names and places of bodies only.
                let wanted = (PAGE_BYTES_MAX, Bodies::Dispensable);
                page = VecDeque::from(log.page(next, end, wanted).await?);
                next += page.len() as u64;
                if page.is_empty() {
                    return Err(io::Error::other(format!("entry {next} is not in the log")));
                }
            }
            Ok(page.pop_front().map(|entry| (entry, (log, next, page))))
        })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.page(start, end, (PAGE_BYTES_MAX, Bodies::Needed)).await
    }
}

impl Log {
    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let state = self.lock();
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        (start.max(state.first), end.min(state.next()))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let (last_log_id, last_purged_log_id) = self.ends();
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let record = Record::Vote { replica: self.inner.replica, vote: codec::encode_vote(vote) };
        // Durability: the vote is synced before openraft hears of it, and so before any peer does.
        self.write_synced(vec![record]).await?;
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut state = self.lock();
        state.committed = committed;
        state.committed_hint = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut parts = self.accept(entries);
        let last = parts.pop();
        for part in parts {
            let log = self.clone();
            let (sequences, first_index) = (part.sequences, part.first_index);
            // Why the result is dropped: a failure is kept in the state and fails the last part.
            self.submit(part.records, move |result| {
                drop(log.appended(sequences, first_index, result));
            })
            .await?;
        }
        let Some(last) = last else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let log = self.clone();
        // Durability: the callback counts this replica towards the majority; the journal calls it
        // after the sync that covers these entries.
        self.submit(last.records, move |result| {
            callback.io_completed(log.appended(last.sequences, last.first_index, result));
        })
        .await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let next = last_log_id.map_or(0, |log_id| log_id.index + 1);
        {
            let mut state = self.lock();
            state.truncate(next);
            state.n_truncating += 1;
        }
        // Why nobody waits: the journal keeps the order, and what replaces these entries follows. Only a
        // snapshot does not go through the journal.
        let (log, replica) = (self.clone(), self.inner.replica);
        let record = Record::Truncate { replica, from_index_inclusive: next };
        self.submit(vec![record], move |result| log.truncated(result.err())).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.lock().purge(log_id);
        let record = Record::Purge {
            replica: self.inner.replica,
            upto_index_inclusive: log_id.index,
            meta: codec::encode_log_id(&log_id),
        };
        self.submit(vec![record], |_| ()).await
    }
}

/// Entries for one request to the journal.
struct Part {
    records: Vec<Record>,
    first_index: u64,
    sequences: RangeInclusive<u64>,
}

impl Log {
    /// Takes entries into the log in memory, and cuts them into what the journal takes at once.
    fn accept(&self, entries: impl IntoIterator<Item = Entry>) -> Vec<Part> {
        let replica = self.inner.replica;
        let mut state = self.lock();
        let hint = state.committed_hint.take();
        let mut hint =
            hint.map(|log_id| Record::Committed { replica, meta: codec::encode_log_id(&log_id) });
        let mut parts: Vec<Part> = Vec::new();
        let mut bytes = 0;
        // Limit: bytes handed to the journal at once, half of what it takes.
        let part_bytes_max = (self.inner.appender.journal.request_bytes_max() / 2) as usize;
        for entry in entries {
            let size = size_bytes(&entry);
            let (index, sequence) = (entry.log_id.index, state.sequence + 1);
            let record = record(replica, &entry);
            state.push(entry);
            match parts.last_mut() {
                Some(part) if bytes + size <= part_bytes_max => {
                    part.records.push(record);
                    part.sequences = *part.sequences.start()..=sequence;
                    bytes += size;
                }
                _ => {
                    let records = hint.take().into_iter().chain([record]).collect();
                    parts.push(Part {
                        records,
                        first_index: index,
                        sequences: sequence..=sequence,
                    });
                    bytes = size;
                }
            }
        }
        parts
    }
}

fn record(replica: ReplicaId, entry: &Entry) -> Record {
    let mut meta = Vec::with_capacity(codec::entry_meta_len(entry));
    codec::put_entry(&mut meta, entry);
    let blobs = codec::bodies(entry).iter().map(blob).collect();
    Record::Append { replica, index: entry.log_id.index, meta: Bytes::from(meta), blobs }
}

/// A chunk as the journal keeps it.
pub(crate) fn blob(chunk: &mailbox::StoredChunk) -> Blob {
    Blob {
        digest: chunk.chunk.digest.0,
        codec: chunk.codec as u8,
        raw_len: chunk.chunk.raw_len,
        key_id: 0,
        nonce: None,
        bytes: chunk.bytes.clone(),
    }
}

fn size_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        crate::raft::Payload::Normal(proposal) => 128 + proposal.size_bytes(),
        _ => 512,
    }
}

#[cfg(test)]
mod tests;
