//! Chunks: immutable and verified, so any replica may serve them, also while there is no leader.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mailbox::chunk::{CHUNK_BYTES_MAX, Codec, Digest};
use mailbox::dialogue::Trouble;
use mailbox::{ChunkRef, ShardId, StoredChunk};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;
use zstd::bulk::Decompressor;

use super::Client;
use super::attempt::Pause;
use crate::mail::MailError;
use crate::proto::mail as wire;
use wire::chunk_response::Result as Told;

/// After this long without an answer the next replica is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(250);
/// For so long it is then asked behind the others: else each chunk of a message would wait for it.
const SLOW_FOR: Duration = Duration::from_secs(5);

/// Nodes that let somebody wait lately, and until when others are asked before them.
#[derive(Default)]
pub(super) struct Slow {
    until: Mutex<HashMap<String, Instant>>,
}

impl Slow {
    fn note(&self, node: &str, now: Instant) {
        let mut slow = self.nodes();
        slow.retain(|_, until| *until > now);
        slow.insert(node.to_owned(), now + SLOW_FOR);
    }

    /// `None` if it need not be behind others.
    fn until(&self, node: &str, now: Instant) -> Option<Instant> {
        self.nodes().get(node).copied().filter(|until| *until > now)
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The raw octets of a chunk, if they are the ones its name says.
pub fn raw_octets(stored: &StoredChunk) -> Option<Bytes> {
    let len = stored.chunk.raw_len as usize;
    if len > CHUNK_BYTES_MAX {
        return None;
    }
    let raw = match stored.codec {
        Codec::Raw => stored.bytes.clone(),
        Codec::Zstd => decompress(&stored.bytes, len)?.into(),
    };
    (raw.len() == len && Digest::of(&raw) == stored.chunk.digest).then_some(raw)
}

/// What was packed, if it is at most so long. The context is kept by thread: making one costs more
/// than a small chunk.
fn decompress(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = Decompressor::new().ok();
        }
        decompressor.as_mut()?.decompress(packed, len).ok()
    })
}

impl Client {
    /// A good copy from anywhere: as it is stored, and its raw octets.
    pub(super) async fn fetch_chunk(
        &self,
        shard: ShardId,
        chunk: ChunkRef,
        deadline: Instant,
    ) -> Result<(StoredChunk, Bytes), Trouble> {
        if let Some(stored) = self.shared.recent.chunk(&chunk) {
            let bytes = stored.bytes.clone();
            return Ok((stored, bytes));
        }
        let placement = timeout_at(deadline, self.shared.cluster.placements.formed()).await;
        placement.map_err(|_| Trouble::Unavailable)?;
        let mut pause = Pause::new();
        loop {
            match timeout_at(deadline, self.fetch_round(shard, chunk)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(Trouble::Damaged)) => return Err(Trouble::Damaged),
                Ok(Err(_)) => {}
                Err(_) => return Err(Trouble::Unavailable),
            }
            if timeout_at(deadline, pause.wait()).await.is_err() {
                return Err(Trouble::Unavailable);
            }
        }
    }

    /// Each replica once, the leader first, the next as soon as one fails or is slow. `Damaged` if every
    /// one of them answered and none has a good copy.
    async fn fetch_round(
        &self,
        shard: ShardId,
        chunk: ChunkRef,
    ) -> Result<(StoredChunk, Bytes), Trouble> {
        let mut nodes = self.replicas(shard, &chunk).into_iter();
        let mut asked = FuturesUnordered::new();
        let mut n_silent = 0;
        let Some(mut last) = nodes.next() else {
            self.shared.cluster.placements.suspect();
            return Err(Trouble::Unavailable);
        };
        asked.push(self.fetch_from(last.clone(), shard, chunk));
        loop {
            let result = tokio::select! {
                result = asked.next() => result,
                () = sleep(HEDGE_AFTER), if nodes.len() > 0 => {
                    self.shared.slow.note(&last, Instant::now());
                    Some(None)
                }
            };
            match result {
                Some(Some(Ok(found))) => return Ok(found),
                Some(Some(Err(Trouble::Damaged))) => {}
                Some(Some(Err(_))) => n_silent += 1,
                Some(None) => {}
                None if n_silent == 0 => return Err(Trouble::Damaged),
                None => return Err(Trouble::Unavailable),
            }
            if let Some(node) = nodes.next() {
                last.clone_from(&node);
                asked.push(self.fetch_from(node, shard, chunk));
            }
        }
    }

    /// The leader, then the others, beginning with a different one for each chunk; behind them all who
    /// was slow lately.
    fn replicas(&self, shard: ShardId, chunk: &ChunkRef) -> Vec<String> {
        let placement = self.placement();
        let replicas = placement.shard(shard).map(|shard| shard.replicas.as_slice());
        let mut names: Vec<String> =
            replicas.unwrap_or_default().iter().map(|replica| replica.node.clone()).collect();
        if !names.is_empty() {
            let first = usize::from(chunk.digest.0[0]) % names.len();
            names.rotate_left(first);
        }
        let (leader, now) = (self.link(shard).route.known(), Instant::now());
        names.sort_by_cached_key(|name| {
            let leads = leader.as_ref().is_some_and(|leader| leader.node == *name);
            (self.shared.slow.until(name, now), !leads)
        });
        names
    }

    /// Asks one replica. Always `Some`: `None` is how a slow one looks to [`Client::fetch_round`].
    async fn fetch_from(
        &self,
        node: String,
        shard: ShardId,
        chunk: ChunkRef,
    ) -> Option<Result<(StoredChunk, Bytes), Trouble>> {
        let digest = Bytes::copy_from_slice(&chunk.digest.0);
        let message = wire::ChunkRequest { shard: shard.0, digest, raw_len: chunk.raw_len };
        let response = self.shared.cluster.nodes.bulk(&node).chunk(message).await;
        Some(match response.map(|response| response.into_inner().result) {
            Ok(Some(Told::Chunk(stored))) => match StoredChunk::try_from(stored) {
                Ok(stored) if stored.chunk == chunk => match raw_octets(&stored) {
                    Some(bytes) => Ok((stored, bytes)),
                    None => {
                        warn!(node, %shard, "chunk arrived damaged");
                        Err(Trouble::Damaged)
                    }
                },
                _ => Err(Trouble::Damaged),
            },
            Ok(Some(Told::Error(error))) => match MailError::from(error) {
                MailError::Damaged | MailError::NoSuchChunk => Err(Trouble::Damaged),
                _ => Err(Trouble::Unavailable),
            },
            Ok(None) | Err(_) => Err(Trouble::Unavailable),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_slow_is_behind_the_others_for_a_while() {
        let (slow, began) = (Slow::default(), Instant::now());
        slow.note("n1", began);
        slow.note("n2", began + SLOW_FOR / 2);
        assert!(slow.until("n3", began).is_none());
        assert!(slow.until("n1", began) < slow.until("n2", began), "who was so later is behind");
        slow.note("n1", began + SLOW_FOR);
        assert!(slow.until("n1", began + SLOW_FOR) > slow.until("n2", began + SLOW_FOR));
        slow.note("n3", began + 3 * SLOW_FOR);
        assert!(slow.until("n1", began + 3 * SLOW_FOR).is_none());
        assert_eq!(slow.nodes().len(), 1, "nothing is kept of what is over");
    }
}
