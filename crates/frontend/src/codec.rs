//! Raw octets become stored chunks. Compression contexts are kept by thread, since making one costs
//! more than compressing a small message.

use std::cell::RefCell;

use bytes::Bytes;
use mailbox::StoredChunk;
use mailbox::chunk::{CHUNK_BYTES_MAX, Codec};
use tokio::runtime::{Handle, RuntimeFlavor};
use zstd::bulk::Compressor;

/// Fast enough to keep up with the network; higher levels gain little on mail.
const ZSTD_LEVEL: i32 = 1;

/// Below it a frame's overhead eats the gain.
const COMPRESS_BYTES_MIN: usize = 512;

/// From here on the work is moved off the thread that serves other connections.
const BLOCKING_BYTES_MIN: usize = 96 * 1024;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Hashes and compresses 1 to [`CHUNK_BYTES_MAX`] octets.
pub(crate) fn encode(raw: Bytes) -> StoredChunk {
    debug_assert!(!raw.is_empty() && raw.len() <= CHUNK_BYTES_MAX);
    maybe_blocking(raw.len(), || {
        let plain = StoredChunk::raw(raw);
        match compress(&plain.bytes) {
            Some(packed) => StoredChunk { codec: Codec::Zstd, bytes: packed.into(), ..plain },
            None => plain,
        }
    })
}

/// One zstd frame if it saves at least a sixteenth.
fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = Compressor::new(ZSTD_LEVEL).ok();
        }
        let packed = compressor.as_mut()?.compress(raw).ok()?;
        (packed.len() <= raw.len() - raw.len() / 16).then_some(packed)
    })
}

/// Runs `work` so that what else the thread serves does not wait for it when it takes long.
fn maybe_blocking<T>(n_bytes: usize, work: impl FnOnce() -> T) -> T {
    let is_multi_thread = Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if n_bytes >= BLOCKING_BYTES_MIN && is_multi_thread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use mailbox::Digest;

    use super::*;

    #[test]
    fn octets_come_back() {
        let text = Bytes::from("the same words again and again\r\n".repeat(8000));
        let noise: Bytes = (0..8000u32).flat_map(|i| Digest::of(&i.to_be_bytes()).0).collect();
        for raw in [text, noise, Bytes::from_static(b"x")] {
            let stored = encode(raw.clone());
            assert_eq!(stored.chunk.digest, Digest::of(&raw));
            assert_eq!(api::client::raw_octets(&stored), Some(raw));
        }
    }

    #[test]
    fn only_what_gains_is_compressed() {
        assert_eq!(encode(Bytes::from("a".repeat(10_000))).codec, Codec::Zstd);
        assert_eq!(encode(Bytes::from("a".repeat(100))).codec, Codec::Raw);
        let noise: Vec<u8> = (0..500u32).flat_map(|i| Digest::of(&i.to_be_bytes()).0).collect();
        assert_eq!(encode(noise.into()).codec, Codec::Raw);
    }
}
