//! A message on its way in: scanned, cut into chunks, compressed, and sent ahead when it is large.
//!
//! Memory: one chunk being filled, one piece being gathered and one on its way, whatever the size
//! of the message.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use mailbox::chunk::{CHUNK_BYTES_MAX, INLINE_BYTES_MAX, Stowed, stow};
use mailbox::command::{Place, Upload};
use mailbox::dialogue::Trouble;
use mailbox::{
    AccountId, ChunkRef, Command, Digest, Draft, NewMessage, Outcome, StoredChunk, UploadId,
};
use mime::Scanner;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::codec;
use crate::random;
use crate::store::Store;

/// Bodies that are large at the same time; each costs about 1.3 MiB.
pub(crate) const LARGE_BODIES_MAX: usize = 256;

/// Limit: recipients that a piece is sent to side by side; each time it is encoded anew.
const SIDE_BY_SIDE_MAX: usize = 16;

/// From here on a body counts as large.
const LARGE_BODY_BYTES: u64 = CHUNK_BYTES_MAX as u64;

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
    size: u64,
    /// Accounts that got everything sent ahead so far.
    places: Vec<Place>,
    failures: Failures,
    upload: Option<UploadId>,
    n_pieces: u32,
    on_its_way: Option<AbortOnDropHandle<Failures>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Ingest {
    /// A message for these accounts.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        large_bodies: Arc<Semaphore>,
        message_bytes_max: u64,
        places: Vec<Place>,
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
            size: 0,
            places,
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
        if self.size > self.message_bytes_max {
            return Err(Trouble::TooLarge);
        }
        if self.size > LARGE_BODY_BYTES && self.permit.is_none() {
            let permit = Arc::clone(&self.large_bodies).try_acquire_owned();
            self.permit = Some(permit.map_err(|_| Trouble::Overloaded)?);
        }
        self.scanner.feed(&octets);
        while self.raw.len() + octets.len() >= CHUNK_BYTES_MAX {
            let head = octets.split_to(CHUNK_BYTES_MAX - self.raw.len());
            self.raw.extend_from_slice(&head);
            self.cut().await?;
        }
        self.raw.extend_from_slice(&octets);
        Ok(())
    }

    /// The message is complete.
    pub(crate) async fn finish(mut self) -> Result<(Draft, Failures), Trouble> {
        if !self.raw.is_empty() {
            self.cut().await?;
        }
        let chunks = std::mem::take(&mut self.chunks);
        let scanned = std::mem::take(&mut self.scanner).finish();
        let Stowed { metadata, packed, mut whole } = stow(scanned);
        while !whole.is_empty() {
            let octets = whole.split_to(whole.len().min(CHUNK_BYTES_MAX));
            self.raw.extend_from_slice(&octets);
            self.cut().await?;
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

    /// Ends the chunk being filled.
    async fn cut(&mut self) -> Result<(), Trouble> {
        let stored = codec::encode(self.raw.split().freeze());
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
        let places = self.places.clone();
        let sending = async move {
            let one = |place: Place| {
                let account = place.account;
                let command = Upload { account, upload, sequence, chunks: chunks.clone() };
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
