//! A message on its way in: scanned, cut into chunks, compressed, and sent ahead when it is large.
//!
//! A message that fits into one chunk is one. A larger one is cut where its parts begin as well, so that
//! whoever reads its header or its text reads nothing of what is attached, and the same file in two
//! messages is the same chunks but for the last.
//!
//! Memory: one chunk being filled, one piece being gathered and one on its way, whatever the size
//! of the message.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use mailbox::chunk::{CHUNK_BYTES_MAX, INLINE_BYTES_MAX, SEAMS_MAX, Stowed, TRACE_BYTES_MAX, stow};
use mailbox::command::{Place, Replaced, Upload};
use mailbox::dialogue::Trouble;
use mailbox::{
    AccountId, ChunkRef, Command, Digest, Draft, NewMessage, Outcome, StoredChunk, UploadId,
};
use mime::Scanner;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::codec;
use crate::large;
use crate::random;
use crate::store::Store;

/// Limit: recipients that a piece is sent to side by side; each time it is encoded anew.
const SIDE_BY_SIDE_MAX: usize = 16;

/// From here on a body counts as large.
pub(crate) const LARGE_BODY_BYTES: u64 = CHUNK_BYTES_MAX as u64;

/// What came of the pieces sent ahead for accounts that did not get all of them.
pub(crate) type Failures = BTreeMap<AccountId, Result<Outcome, Trouble>>;

/// One message being received.
pub(crate) struct Ingest {
    store: Arc<dyn Store>,
    large_bodies: Arc<Semaphore>,
    message_bytes_max: u64,
    scanner: Scanner,
    /// The chunk being filled.
    raw: BytesMut,
    /// Finished chunks that were not sent ahead yet, at most [`INLINE_BYTES_MAX`] stored octets.
    pending: Vec<StoredChunk>,
    n_pending_bytes: usize,
    chunks: Vec<ChunkRef>,
    /// Octets in `chunks`.
    n_cut: u64,
    /// Chunks that ended where a part begins.
    n_seams: usize,
    size: u64,
    /// Accounts that got everything sent ahead so far.
    places: Vec<Place>,
    /// The message that goes when this one has come.
    replaces: Option<Replaced>,
    failures: Failures,
    upload: Option<UploadId>,
    n_pieces: u32,
    on_its_way: Option<AbortOnDropHandle<Failures>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Ingest {
    /// A message for these accounts, or in the place of one of the account's.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        large_bodies: Arc<Semaphore>,
        message_bytes_max: u64,
        places: Vec<Place>,
        replaces: Option<Replaced>,
    ) -> Self {
        Self {
            store,
            large_bodies,
            message_bytes_max,
            scanner: Scanner::new(),
            raw: BytesMut::new(),
            pending: Vec::new(),
            n_pending_bytes: 0,
            chunks: Vec::new(),
            n_cut: 0,
            n_seams: 0,
            size: 0,
            places,
            replaces,
            failures: Failures::new(),
            upload: None,
            n_pieces: 0,
            on_its_way: None,
            permit: None,
        }
    }

    /// Takes the next octets; returns when more can be taken.
    pub(crate) async fn push(&mut self, mut octets: Bytes) -> Result<(), Trouble> {
        self.size += octets.len() as u64;
        if self.size > self.message_bytes_max + TRACE_BYTES_MAX as u64 {
            return Err(Trouble::TooLarge);
        }
        if self.size > LARGE_BODY_BYTES && self.permit.is_none() {
            self.permit = Some(large::place(&self.large_bodies).await?);
        }
        while !octets.is_empty() {
            if self.raw.len() == CHUNK_BYTES_MAX && !self.cut_at_seams().await? {
                let full = self.raw.split();
                self.cut(full.freeze()).await?;
            }
            let n_room = CHUNK_BYTES_MAX - self.raw.len();
            let head = octets.split_to(octets.len().min(n_room));
            self.scanner.feed(&head);
            self.raw.extend_from_slice(&head);
        }
        Ok(())
    }

    /// The message is complete.
    pub(crate) async fn finish(mut self) -> Result<(Draft, Failures), Trouble> {
        if !self.chunks.is_empty() {
            self.cut_at_seams().await?;
        }
        let rest = self.raw.split();
        if !rest.is_empty() {
            self.cut(rest.freeze()).await?;
        }
        let chunks = std::mem::take(&mut self.chunks);
        let scanned = std::mem::take(&mut self.scanner).finish();
        let Stowed { metadata, packed, mut whole } = stow(scanned);
        while !whole.is_empty() {
            let octets = whole.split_to(whole.len().min(CHUNK_BYTES_MAX));
            self.cut(Bytes::copy_from_slice(&octets)).await?;
        }
        self.arrived().await?;
        let message = NewMessage {
            digest: Digest::of_chunks(&chunks),
            chunks,
            size: self.size,
            metadata: packed,
            // The command that completes the message ends it.
            upload: self.upload.take(),
            metadata_chunks: std::mem::take(&mut self.chunks),
        };
        let (metadata, inline) = (Box::new(metadata), std::mem::take(&mut self.pending));
        Ok((Draft { message, metadata, inline }, std::mem::take(&mut self.failures)))
    }

    /// Ends chunks where parts begin in what was gathered; false if none does, or too many did before.
    async fn cut_at_seams(&mut self) -> Result<bool, Trouble> {
        let n_before = self.n_seams;
        for seam in self.scanner.seams() {
            let n_bytes = seam.saturating_sub(self.n_cut) as usize;
            if (1..self.raw.len()).contains(&n_bytes) && self.n_seams < SEAMS_MAX {
                self.n_seams += 1;
                let head = Bytes::copy_from_slice(&self.raw.split_to(n_bytes));
                self.cut(head).await?;
            }
        }
        if self.n_seams == n_before {
            return Ok(false);
        }
        // Why copies: a short slice would keep the whole buffer, and what is behind one outgrow it.
        let mut rest = BytesMut::with_capacity(CHUNK_BYTES_MAX);
        rest.extend_from_slice(&self.raw);
        self.raw = rest;
        Ok(true)
    }

    /// These octets are the next chunk.
    async fn cut(&mut self, raw: Bytes) -> Result<(), Trouble> {
        self.n_cut += raw.len() as u64;
        let stored = codec::encode(raw);
        self.chunks.push(stored.chunk);
        let n_bytes = stored.bytes.len();
        if self.n_pending_bytes + n_bytes > INLINE_BYTES_MAX {
            self.send_ahead().await?;
        }
        self.n_pending_bytes += n_bytes;
        self.pending.push(stored);
        Ok(())
    }

    /// Sends what is pending ahead of the message, after what was sent before has arrived: apply
    /// takes only the next piece.
    async fn send_ahead(&mut self) -> Result<(), Trouble> {
        self.arrived().await?;
        let upload = *self.upload.get_or_insert_with(|| UploadId(random::bytes()));
        let sequence = self.n_pieces;
        self.n_pieces += 1;
        self.n_pending_bytes = 0;
        let inline = std::mem::take(&mut self.pending);
        let chunks: Vec<_> = inline.iter().map(|stored| stored.chunk).collect();
        let store = Arc::clone(&self.store);
        let (places, replaces) = (self.places.clone(), self.replaces);
        let sending = async move {
            let one = |place: Place| {
                let account = place.account;
                let chunks = chunks.clone();
                let command = Upload { account, upload, sequence, chunks, replaces };
                let (store, inline) = (Arc::clone(&store), inline.clone());
                async move { (account, store.command(place, Command::Upload(command), inline).await) }
            };
            let mut came_of_it = stream::iter(places).map(one).buffer_unordered(SIDE_BY_SIDE_MAX);
            let mut failures = Failures::new();
            while let Some((account, it)) = came_of_it.next().await {
                if !matches!(it, Ok(Outcome::Done)) {
                    failures.insert(account, it);
                }
            }
            failures
        };
        self.on_its_way = Some(AbortOnDropHandle::new(tokio::spawn(sending)));
        Ok(())
    }

    /// Waits for the piece on its way; fails when no account is left that got everything.
    async fn arrived(&mut self) -> Result<(), Trouble> {
        let Some(on_its_way) = self.on_its_way.take() else { return Ok(()) };
        let failures = on_its_way.await.map_err(|_| Trouble::Unavailable)?;
        self.places.retain(|place| !failures.contains_key(&place.account));
        self.failures.extend(failures);
        if self.places.is_empty() {
            let troubles = self.failures.values().filter_map(|it| it.as_ref().err());
            // A refusal is told by the command that completes the message.
            return troubles.copied().next().map_or(Ok(()), Err);
        }
        Ok(())
    }
}

/// The message will not come: what was sent ahead is let go of, else it would count for ten minutes.
impl Drop for Ingest {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        let (store, permit) = (Arc::clone(&self.store), self.permit.take());
        let (places, on_its_way) = (std::mem::take(&mut self.places), self.on_its_way.take());
        let giving_up = async move {
            // Why: a piece that came after the end would begin another upload.
            let _ = match on_its_way {
                Some(on_its_way) => on_its_way.await.map(drop),
                None => Ok(()),
            };
            for place in places {
                let command = Command::Upload(Upload::give_up(place.account, upload));
                // Best effort: what stays is dropped by the shard, later.
                let _ = store.command(place, command, Vec::new()).await;
            }
            drop(permit);
        };
        // Without a runtime the process ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(giving_up);
        }
    }
}
