//! Service mail.

use bytes::Bytes;
use mailbox::chunk::{CHUNK_BYTES_MAX, Codec, Digest};
use mailbox::{Change, ChunkRef, StoredChunk, codec};

use super::{Malformed, id, name};
use crate::mail::MailError;
use crate::proto::mail as wire;
use crate::proto::mail::error::Kind;

/// Encodes a value of crate mailbox.
pub(crate) fn encode<T: minicbor::Encode<()>>(value: &T) -> Bytes {
    Bytes::from(codec::encode(value))
}

/// Decodes a value of crate mailbox.
pub(crate) fn decode<'b, T: minicbor::Decode<'b, ()>>(
    bytes: &'b [u8],
    what: &'static str,
) -> Result<T, Malformed> {
    codec::decode(bytes).map_err(|_| Malformed(what))
}

impl From<MailError> for wire::Error {
    fn from(error: MailError) -> Self {
        let kind = match &error {
            MailError::NotLeader { .. } => Kind::NotLeader,
            MailError::Unavailable => Kind::Unavailable,
            MailError::Unknown => Kind::Unknown,
            MailError::Full => Kind::Full,
            MailError::Overloaded => Kind::Overloaded,
            MailError::NoSuchShard => Kind::NoSuchShard,
            MailError::Damaged => Kind::Damaged,
            MailError::NoSuchChunk => Kind::NoSuchChunk,
            MailError::TooLarge => Kind::TooLarge,
            MailError::Invalid => Kind::Invalid,
        };
        let leader = match error {
            MailError::NotLeader { leader } => leader.unwrap_or_default(),
            _ => String::new(),
        };
        Self { kind: kind.into(), leader }
    }
}

impl From<wire::Error> for MailError {
    fn from(error: wire::Error) -> Self {
        match error.kind() {
            Kind::NotLeader => Self::NotLeader { leader: name(error.leader) },
            Kind::Unavailable => Self::Unavailable,
            Kind::Full => Self::Full,
            Kind::Overloaded => Self::Overloaded,
            Kind::NoSuchShard => Self::NoSuchShard,
            Kind::Damaged => Self::Damaged,
            Kind::NoSuchChunk => Self::NoSuchChunk,
            Kind::TooLarge => Self::TooLarge,
            Kind::Invalid => Self::Invalid,
            // Why: of a kind of a later version nothing is known, not even that nothing was done.
            Kind::Unknown | Kind::Unspecified => Self::Unknown,
        }
    }
}

/// A chunk's name.
pub(crate) fn chunk_ref(digest: &[u8], raw_len: u32) -> Result<ChunkRef, Malformed> {
    if raw_len == 0 || raw_len as usize > CHUNK_BYTES_MAX {
        return Err(Malformed("length of a chunk"));
    }
    Ok(ChunkRef { digest: Digest(id(digest, "digest of a chunk")?), raw_len })
}

impl From<StoredChunk> for wire::Chunk {
    fn from(stored: StoredChunk) -> Self {
        Self {
            digest: Bytes::copy_from_slice(&stored.chunk.digest.0),
            raw_len: stored.chunk.raw_len,
            codec: stored.codec as u32,
            body: stored.bytes,
        }
    }
}

impl TryFrom<wire::Chunk> for StoredChunk {
    type Error = Malformed;

    fn try_from(wire: wire::Chunk) -> Result<Self, Malformed> {
        let chunk = chunk_ref(&wire.digest, wire.raw_len)?;
        let codec = match wire.codec {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            _ => return Err(Malformed("codec of a chunk")),
        };
        if wire.body.is_empty() || wire.body.len() > CHUNK_BYTES_MAX {
            return Err(Malformed("body of a chunk"));
        }
        Ok(Self { chunk, codec, bytes: wire.body })
    }
}

/// One change on its way to a frontend.
pub(crate) fn change_to_wire(log_index: u64, change: &Change) -> wire::Change {
    wire::Change { log_index, change: encode(change) }
}

/// One change as it came.
pub(crate) fn change_from_wire(wire: &wire::Change) -> Result<(u64, Change), Malformed> {
    Ok((wire.log_index, decode(&wire.change, "change")?))
}
