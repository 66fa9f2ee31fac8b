//! Bodies that came beside answers and were not asked for yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mailbox::{ChunkRef, StoredChunk};

use super::chunk::raw_octets;
use crate::mail::BESIDE_BYTES_MAX;

/// Limit: stored octets kept for all sessions.
const BYTES_MAX: u64 = 16 * BESIDE_BYTES_MAX;

/// Youngest last; each is given out once.
#[derive(Default)]
pub(super) struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    chunks: VecDeque<StoredChunk>,
    n_bytes: u64,
}

impl Recent {
    pub(super) fn put(&self, chunks: Vec<StoredChunk>) {
        let mut kept = self.kept();
        for chunk in chunks {
            kept.n_bytes += chunk.bytes.len() as u64;
            kept.chunks.push_back(chunk);
        }
        while kept.n_bytes > BYTES_MAX
            && let Some(oldest) = kept.chunks.pop_front()
        {
            kept.n_bytes -= oldest.bytes.len() as u64;
        }
    }

    /// The chunk, if it is here and its octets are what its name says.
    pub(super) fn take(&self, chunk: &ChunkRef) -> Option<StoredChunk> {
        let found = {
            let mut kept = self.kept();
            // Why from behind: what came last is wanted next.
            let at = kept.chunks.iter().rposition(|kept| kept.chunk == *chunk)?;
            let found = kept.chunks.remove(at)?;
            kept.n_bytes -= found.bytes.len() as u64;
            found
        };
        let bytes = raw_octets(&found)?;
        Some(StoredChunk { codec: mailbox::chunk::Codec::Raw, bytes, ..found })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_chunk_is_given_out_once_and_only_if_it_is_right() {
        let recent = Recent::default();
        let chunk = StoredChunk::raw(Bytes::from_static(b"octets"));
        recent.put(vec![chunk.clone()]);
        assert_eq!(recent.take(&chunk.chunk), Some(chunk.clone()));
        assert_eq!(recent.take(&chunk.chunk), None);
        let damaged = StoredChunk { bytes: Bytes::from_static(b"octetz"), ..chunk.clone() };
        recent.put(vec![damaged]);
        assert_eq!(recent.take(&chunk.chunk), None);
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let recent = Recent::default();
        let chunk = |n: u8| StoredChunk::raw(Bytes::from(vec![n; 100_000]));
        (0..100).for_each(|n| recent.put(vec![chunk(n)]));
        assert_eq!(recent.take(&chunk(0).chunk), None);
        assert_eq!(recent.take(&chunk(99).chunk), Some(chunk(99)));
        assert!(recent.kept().n_bytes <= BYTES_MAX);
    }
}
