//! Bodies between replicas: whoever has a good copy gives it, and whoever lacks one asks.

mod throttle;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::peer::{PeerError, PeerResponse};
use bytes::{BufMut, Bytes};
use journal::{Pointer, Record, ReplicaId};
use mailbox::chunk::CHUNK_BYTES_MAX;
use mailbox::{ChunkRef, Digest, StoredChunk};
use openraft::ServerState;
use openraft::metrics::WaitError;
use tokio::time::{Instant, timeout};

pub(crate) use self::throttle::Throttle;
use crate::codec::{self, Reader};
use crate::core::Core;
use crate::disk::Disk;
use crate::error::ChunkError;
use crate::handler::{bad, refused};
use crate::log;
use crate::network::Peer;
use crate::replica::Replica;
use crate::store::Store;
use crate::view;
use crate::wire::kind;

/// Limit: chunks asked for in one request, and bytes in one response.
const CHUNKS_MAX: usize = 64;
const RESPONSE_BYTES_MAX: usize = 4 << 20;
/// Digests in one list.
const LIST_MAX: usize = 4096;
/// What one of them takes there, with its length.
const LISTED_BYTES: usize = 36;

const ABSENT: u8 = 0;
const HERE: u8 = 1;
const LATER: u8 = 2;

impl Replica {
    /// One chunk, verified: from this disk, or else from a peer, and then kept here again. Only when no
    /// peer has it either, it is looked for in the whole journal. A disk that hangs is waited for only where
    /// there is no peer.
    pub async fn chunk(&self, chunk: &ChunkRef) -> Result<StoredChunk, ChunkError> {
        let core = self.core().map_err(|_| ChunkError::Unavailable)?;
        let patience = self.inner.config.timing.disk_hung;
        let mut looking = pin!(core.located(&chunk.digest));
        let (located, hangs) = match timeout(patience, looking.as_mut()).await {
            Ok(located) => (located, false),
            Err(_) if core.peers().is_empty() => (looking.await, false),
            Err(_) => (None, true),
        };
        if let Some(stored) = located {
            return Ok(stored);
        }
        let mut error = ChunkError::Unavailable;
        let mut peers = core.peers();
        // Why twice: somebody waits, so the next peer is asked soon. Over a slow network none is so quick.
        for patience in [core.network.patience, core.network.patience_for(CHUNK_BYTES_MAX)] {
            let mut late = Vec::new();
            for peer in peers {
                match core.fetch_some(&peer, &[chunk.digest], patience).await {
                    Ok((_, found)) => {
                        if let Some(stored) = found.into_iter().next() {
                            if !hangs {
                                core.keep(std::slice::from_ref(&stored)).await;
                            }
                            return Ok(stored);
                        }
                        error = ChunkError::Missing;
                    }
                    Err(PeerError::Deadline) => late.push(peer),
                    Err(_) => {}
                }
            }
            peers = late;
        }
        if hangs {
            // Why whatever they answered: it may be here, where nobody has looked yet.
            return Err(ChunkError::Unavailable);
        }
        core.search(&chunk.digest).await.ok_or(error)
    }
}

impl Replica {
    /// A chunk as it lies on this disk, if it is at hand. Its stored bytes are verified, its digest is
    /// not: whoever gets it does that.
    pub fn stored_chunk(&self, digest: &Digest) -> Option<StoredChunk> {
        let core = self.core().ok()?;
        view::read_located(&core.claim.disk, &core.applying.store(), digest)
    }

    /// Those of some chunks that are at hand, in the same order, read on a thread that may block. None where
    /// the disk hangs.
    pub async fn stored_chunks(&self, digests: Vec<Digest>) -> Vec<StoredChunk> {
        let Ok(core) = self.core() else { return Vec::new() };
        let (disk, store) = (core.claim.disk.clone(), core.applying.store());
        drop(core);
        let apart = disk.apart().clone();
        let read = move || {
            let read = |digest: &Digest| view::read_located(&disk, &store, digest);
            digests.iter().filter_map(read).collect()
        };
        // Why none: whoever needs one asks for it, and is told by a peer where this disk hangs.
        let read = timeout(self.inner.config.timing.disk_hung, apart.serve(read)).await;
        read.ok().and_then(Result::ok).unwrap_or_default()
    }
}

impl Core {
    /// A chunk of this disk, if its raw bytes are right; wherever it lies.
    pub async fn good_copy(&self, digest: &Digest) -> Option<StoredChunk> {
        match self.located(digest).await {
            Some(stored) => Some(stored),
            None => self.search(digest).await,
        }
    }

    /// The same, if the index leads to it.
    pub async fn located(&self, digest: &Digest) -> Option<StoredChunk> {
        let digest = *digest;
        self.read(move |disk, store| view::read_located(disk, store, &digest)).await
    }

    /// The same, though the index does not lead to it.
    pub async fn search(&self, digest: &Digest) -> Option<StoredChunk> {
        let owner = self.owner()?;
        // Limit: one at a time, since each reads the ends of all segments.
        let _searching = self.searching.lock().await;
        if let Some(stored) = self.located(digest).await {
            return Some(stored);
        }
        let digest = *digest;
        self.read(move |disk, store| view::look_for(disk, owner, store, &digest)).await
    }

    /// What is read, if it is right. Why aside: besides what the disk takes, a chunk is unpacked and hashed.
    async fn read(
        &self,
        read: impl FnOnce(&Disk, &Store) -> Option<StoredChunk> + Send + 'static,
    ) -> Option<StoredChunk> {
        let (disk, store) = (self.claim.disk.clone(), self.applying.store());
        let apart = disk.apart().clone();
        apart.serve(move || right(&disk, &store, read(&disk, &store)?)).await.ok()?
    }

    /// Whose bodies are all here, unless some are known to be missing.
    pub fn owner(&self) -> Option<ReplicaId> {
        (!self.care.is_incomplete()).then_some(ReplicaId(self.claim.replica))
    }

    /// All other members.
    pub fn peers(&self) -> Vec<Peer> {
        let status = self.status();
        let members: BTreeMap<_, _> = status.voters.into_iter().chain(status.learners).collect();
        let me = self.claim.replica;
        let others = members.iter().filter(|(id, _)| **id != me);
        others.map(|(id, member)| self.network.peer(*id, member)).collect()
    }

    /// Whether nobody else votes.
    pub fn is_only_voter(&self) -> bool {
        let voters = self.status().voters;
        voters.len() == 1 && voters.contains_key(&self.claim.replica)
    }

    /// Whether a peer says that no body is missing there.
    pub async fn has_whole_peer(&self) -> bool {
        let mut meta = 0_u64.to_be_bytes().to_vec();
        // Why the last digest: which bodies there are is not asked.
        meta.extend([u8::MAX; 32]);
        let meta = Bytes::from(meta);
        for peer in self.peers() {
            let asked = peer.call(kind::CHUNK_LIST, meta.clone(), Vec::new(), peer.patience());
            if asked.await.is_ok_and(|list| list.meta.first() == Some(&1)) {
                return true;
            }
        }
        false
    }

    /// Chunks of a peer, verified; those it does not have are left out.
    pub async fn fetch(
        &self,
        peer: &Peer,
        digests: &[Digest],
    ) -> Result<Vec<StoredChunk>, PeerError> {
        let mut found = Vec::new();
        let mut rest: &[Digest] = digests;
        while !rest.is_empty() {
            let some = &rest[..rest.len().min(CHUNKS_MAX)];
            let n_bytes = (some.len() * CHUNK_BYTES_MAX).min(RESPONSE_BYTES_MAX + CHUNK_BYTES_MAX);
            let patience = self.network.patience_for(n_bytes);
            let (n_answered, mut chunks) = self.fetch_some(peer, some, patience).await?;
            found.append(&mut chunks);
            rest = &rest[n_answered..];
        }
        Ok(found)
    }

    /// The same by one request; and of how many it was answered, which is at least one.
    async fn fetch_some(
        &self,
        peer: &Peer,
        some: &[Digest],
        patience: Duration,
    ) -> Result<(usize, Vec<StoredChunk>), PeerError> {
        let meta: Vec<u8> = some.iter().flat_map(|digest| digest.0).collect();
        let response = peer.call(kind::CHUNKS, meta.into(), Vec::new(), patience).await?;
        let asked = some.to_vec();
        // Why aside: each is unpacked and hashed.
        let read = self.claim.disk.blocking().run(move || read_chunks(response, &asked)).await;
        let (n_answered, chunks) = read.map_err(refused)??;
        if n_answered == 0 {
            return Err(refused("no answer"));
        }
        Ok((n_answered, chunks))
    }

    /// Writes chunks to this disk. Failing is no harm: they can be fetched again.
    pub async fn keep(&self, chunks: &[StoredChunk]) -> bool {
        self.try_keep(chunks).await.is_ok()
    }

    /// The same, for who does not fetch what there is no room for.
    async fn try_keep(&self, chunks: &[StoredChunk]) -> Result<(), NotKept> {
        let replica = ReplicaId(self.claim.replica);
        // Limit: bytes handed to the journal at once, half of what it takes.
        let bytes_max = self.claim.disk.journal().request_bytes_max() / 2;
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(CHUNKS_MAX / 4).take_while(|chunk| {
                bytes += chunk.bytes.len() as u64 + 128;
                bytes <= bytes_max
            });
            let (some, later) = rest.split_at(fits.count().max(1));
            rest = later;
            let record = Record::Blobs { replica, blobs: some.iter().map(log::blob).collect() };
            let written = self.claim.disk.write(vec![record]).await?;
            let pointers = written.into_iter().flat_map(|written| written.blobs);
            let digests = some.iter().map(|chunk| chunk.chunk.digest);
            let places: Vec<_> = digests.zip(pointers).collect();
            let store = self.applying.store();
            // Why aside: it waits for whoever writes to the index.
            let place = move || store.place(&places);
            if !matches!(self.claim.disk.apart().serve_after_writer(place).await, Ok(Ok(()))) {
                return Err(NotKept::NotNow);
            }
        }
        Ok(())
    }

    /// Answers a request for chunks.
    pub async fn serve_chunks(&self, meta: Bytes) -> Result<PeerResponse, PeerError> {
        let n_chunks = meta.len() / 32;
        if n_chunks > CHUNKS_MAX {
            return Err(refused("too many chunks"));
        }
        let mut reader = Reader(meta);
        let (mut out, mut bodies, mut bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..n_chunks {
            let digest = Digest(reader.array().map_err(bad)?);
            if bytes >= RESPONSE_BYTES_MAX {
                out.put_u8(LATER);
                continue;
            }
            match self.good_copy(&digest).await {
                None => out.put_u8(ABSENT),
                Some(stored) => {
                    out.put_u8(HERE);
                    codec::put_chunk_head(&mut out, &stored);
                    bytes += stored.bytes.len();
                    bodies.push(stored.bytes);
                }
            }
        }
        Ok(PeerResponse { meta: out.into(), bodies })
    }

    /// Answers which chunks there are after a digest, and whether none is missing here of what was
    /// applied below an index.
    pub async fn serve_list(&self, meta: Bytes) -> Result<Bytes, PeerError> {
        let mut reader = Reader(meta);
        let below = reader.u64().map_err(bad)?;
        let after =
            if reader.0.is_empty() { None } else { Some(Digest(reader.array().map_err(bad)?)) };
        let store = self.applying.store();
        let is_there = store.applied().next_index() >= below;
        let list = move || store.bodies(after, LIST_MAX);
        let found = self.claim.disk.apart().serve_after_writer(list).await.map_err(refused)?;
        let found = found.map_err(refused)?;
        let mut out = Vec::with_capacity(1 + LISTED_BYTES * found.len());
        out.put_u8(u8::from(is_there && !self.care.is_incomplete()));
        for (digest, pointer) in found {
            out.put_slice(&digest.0);
            out.put_u32(pointer.len);
        }
        Ok(out.into())
    }

    /// Fetches every live chunk that a whole peer has and this replica has not. True if nothing is
    /// missing any more.
    pub async fn fill(self: &Arc<Self>) -> bool {
        for peer in self.peers() {
            match self.fill_from(&peer).await {
                Ok((true, _)) => return true,
                // Why: what the next one gives finds no room either.
                Err(Unfilled::Full) => return false,
                Ok((false, _)) | Err(Unfilled::Peer) => {}
            }
        }
        // Why: nobody else could lead, and what nobody gives it need not wait for.
        self.is_only_voter()
    }

    /// Whether nothing is missing any more that this peer could give, and how many chunks came.
    async fn fill_from(self: &Arc<Self>, peer: &Peer) -> Result<(bool, u64), Unfilled> {
        // Why: a peer that is behind the snapshot these rows came with does not know of some bodies.
        // What is applied from now on brings its own.
        let below = self.applying.store().applied().next_index();
        let mut left = (0, 0);
        let mut next = Some(None);
        while let Some(after) = next {
            let page = self.lacking(peer, below, after).await?;
            let bytes = page.missing.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
            left = (left.0 + page.missing.len() as u64, left.1 + bytes);
            next = page.last.map(Some);
        }
        self.care.set_missing(left);
        let (mut is_whole, mut n_fetched) = (true, 0);
        next = Some(None);
        while let Some(after) = next {
            let page = self.lacking(peer, below, after).await?;
            next = page.last.map(Some);
            is_whole &= page.is_peer_whole;
            let (has_all, n) = self.fetch_missing(peer, &page.missing, &mut left).await?;
            is_whole &= has_all;
            n_fetched += n;
        }
        Ok((is_whole, n_fetched))
    }

    /// The same for a replica that should have all: how many chunks came. It takes its time. Why weak: who
    /// stopped meanwhile cannot be begun anew as long as it is held.
    pub async fn mend_from(weak: &Weak<Self>, peer: &Peer) -> Result<u64, Unfilled> {
        let core = || weak.upgrade().ok_or_else(|| refused("stopped"));
        let below = core()?.applying.store().applied().next_index();
        let mut n_fetched = 0;
        let mut next = Some(None);
        while let Some(after) = next {
            let core = core()?;
            let began = Instant::now();
            let page = core.lacking(peer, below, after).await?;
            let took = began.elapsed();
            next = page.last.map(Some);
            n_fetched += core.fetch_missing(peer, &page.missing, &mut (0, 0)).await?.1;
            let disk = core.claim.disk.clone();
            drop(core);
            disk.rest(took).await;
            if disk.is_closing() {
                break;
            }
        }
        Ok(n_fetched)
    }

    /// Fetches these, of which `left` has the number and the bytes with all that follow. Whether all are
    /// here now, and how many came.
    async fn fetch_missing(
        &self,
        peer: &Peer,
        missing: &[(Digest, u32)],
        left: &mut (u64, u64),
    ) -> Result<(bool, u64), Unfilled> {
        let (mut has_all, mut n_fetched) = (true, 0);
        for some in rounds(missing) {
            if self.claim.disk.refuses_bodies() {
                // Why not asked for: they would come in vain, again and again.
                return Err(Unfilled::Full);
            }
            let digests: Vec<Digest> = some.iter().map(|(digest, _)| *digest).collect();
            let found = self.fetch(peer, &digests).await?;
            n_fetched += found.len() as u64;
            let n_bytes = found.iter().map(|chunk| chunk.bytes.len()).sum();
            self.care.received(n_bytes);
            let kept = self.try_keep(&found).await;
            if kept == Err(NotKept::Full) {
                return Err(Unfilled::Full);
            }
            let (n_missing, n_found, is_kept) = (some.len(), found.len(), kept.is_ok());
            let replica = self.claim.replica;
            tracing::debug!(replica, n_missing, n_found, is_kept, "bodies");
            has_all &= n_found == n_missing && is_kept;
            let bytes: u64 = some.iter().map(|(_, len)| u64::from(*len)).sum();
            *left = (left.0.saturating_sub(some.len() as u64), left.1.saturating_sub(bytes));
            self.care.set_missing(*left);
            self.wait_for_share(n_bytes as u64).await?;
        }
        Ok((has_all, n_fetched))
    }

    /// Waits until so many bytes are this replica's share of what its disk may take. An error if it
    /// stopped meanwhile: whoever begins it anew must not wait for what is left to fetch.
    async fn wait_for_share(&self, n_bytes: u64) -> Result<(), PeerError> {
        let pause = self.claim.disk.filling().take(n_bytes);
        let waiting = self.raft.wait(Some(pause));
        let is_over = waiting.metrics(|metrics| metrics.state == ServerState::Shutdown, "the end");
        match is_over.await {
            Err(WaitError::Timeout(..)) if !self.claim.disk.is_closing() => Ok(()),
            _ => Err(refused("stopped")),
        }
    }

    /// What of the next page of a peer's list is missing here.
    async fn lacking(
        self: &Arc<Self>,
        peer: &Peer,
        below: u64,
        after: Option<Digest>,
    ) -> Result<Page, PeerError> {
        let mut meta = below.to_be_bytes().to_vec();
        meta.extend(after.iter().flat_map(|digest| digest.0));
        let patience = self.network.patience_for(LIST_MAX * LISTED_BYTES);
        let list = peer.call(kind::CHUNK_LIST, meta.into(), Vec::new(), patience).await?;
        let mut reader = Reader(list.meta);
        let is_peer_whole = reader.u8().map_err(bad)? == 1;
        let mut listed = Vec::with_capacity(reader.0.len() / LISTED_BYTES);
        while !reader.0.is_empty() {
            let digest = Digest(reader.array().map_err(bad)?);
            listed.push((digest, reader.u32().map_err(bad)?));
        }
        let last = listed.last().map(|(digest, _)| *digest);
        // Why aside: it looks for each in the index, and who applies waits for this thread.
        let this = self.clone();
        let look = move || this.missing(listed);
        let missing = self.claim.disk.blocking().run(look).await.map_err(refused)?;
        Ok(Page { is_peer_whole, last, missing })
    }

    /// Those that rows refer to and that are not here.
    fn missing(&self, listed: Vec<(Digest, u32)>) -> Vec<(Digest, u32)> {
        let store = self.applying.store();
        let segments = self.claim.disk.journal().segments();
        // Why that: an index that was just filled may name a segment that was emptied meanwhile. A later one
        // than all of these is new.
        let is_there = |at: Pointer| {
            segments.last().is_none_or(|last| at.segment > *last)
                || segments.binary_search(&at.segment).is_ok()
        };
        let is_missing = |(digest, _): &(Digest, u32)| {
            let is_here = matches!(store.locate(digest), Ok(Some(at)) if is_there(at));
            !is_here && self.is_live(digest)
        };
        listed.into_iter().filter(is_missing).collect()
    }

    /// Whether rows refer to a chunk; true if that cannot be told.
    pub fn is_live(&self, digest: &Digest) -> bool {
        self.applying.is_live(digest)
    }
}

/// A chunk whose raw bytes are right; else its place is damaged.
pub(crate) fn right(disk: &Disk, store: &Store, stored: StoredChunk) -> Option<StoredChunk> {
    let is_right = view::raw(&stored).is_some();
    if !is_right && let Ok(Some(at)) = store.locate(&stored.chunk.digest) {
        disk.found_damage(at.segment, at.offset);
    }
    is_right.then_some(stored)
}

/// What a peer answered of these chunks: of how many, and those of them that are there and right.
fn read_chunks(
    response: PeerResponse,
    asked: &[Digest],
) -> Result<(usize, Vec<StoredChunk>), PeerError> {
    let mut reader = Reader(response.meta);
    let mut bodies = response.bodies.into_iter();
    let (mut n_answered, mut found) = (0, Vec::new());
    for digest in asked {
        match reader.u8().map_err(bad)? {
            ABSENT => {}
            HERE => {
                let head = codec::read_chunk_head(&mut reader).map_err(bad)?;
                let bytes = bodies.next().ok_or_else(|| refused("bodies"))?;
                let stored = head.with(bytes).map_err(bad)?;
                if stored.chunk.digest == *digest && view::raw(&stored).is_some() {
                    found.push(stored);
                }
            }
            _ => break,
        }
        n_answered += 1;
    }
    Ok((n_answered, found))
}

/// What is asked for in one request: at most so many chunks and so many bytes.
fn rounds(missing: &[(Digest, u32)]) -> impl Iterator<Item = &[(Digest, u32)]> {
    let mut rest = missing;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(CHUNKS_MAX).take_while(|(_, len)| {
            bytes += *len as usize;
            bytes <= RESPONSE_BYTES_MAX
        });
        let (some, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!some.is_empty()).then_some(some)
    })
}

/// Why chunks could not be written to this disk.
#[derive(PartialEq, Eq)]
enum NotKept {
    /// There is no room.
    Full,
    /// It may be done the next time.
    NotNow,
}

impl From<journal::Error> for NotKept {
    fn from(error: journal::Error) -> Self {
        if matches!(error, journal::Error::Full) { Self::Full } else { Self::NotNow }
    }
}

/// Why chunks that are missing do not come.
pub(crate) enum Unfilled {
    /// There is no room for them here.
    Full,
    /// This peer does not give them.
    Peer,
}

impl From<PeerError> for Unfilled {
    fn from(_: PeerError) -> Self {
        Self::Peer
    }
}

/// A part of a peer's list.
struct Page {
    /// The peer has every body it should have, and has applied as much as was asked for.
    is_peer_whole: bool,
    /// Where the next page begins; `None` after the last one.
    last: Option<Digest>,
    /// Digests and stored lengths.
    missing: Vec<(Digest, u32)>,
}
