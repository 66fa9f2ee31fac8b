//! Message bodies: an ordered list of chunks, each named by the BLAKE3 digest of its raw bytes.

use std::fmt;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::codec;
use crate::ids::UploadId;
use mime::{Metadata, PackedMetadata};

/// Limit: raw bytes in one chunk; the unit of storage, verification, range reads and repair.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Limit: chunks of one message that end before they are full, since a part begins there: its header,
/// its text and half a dozen files. Each may cost one chunk more, and
/// [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX) leaves room for them.
pub const SEAMS_MAX: usize = 8;

/// Limit: octets of trace fields in front of a message, which do not count for how large one may be.
pub const TRACE_BYTES_MAX: usize = 8 * 1024;

/// Limit: stored bytes of chunks that may travel inside the delivering command. Above it they
/// travel ahead as uploads, so that no log entry and no buffer grows with the message.
pub const INLINE_BYTES_MAX: usize = 512 * 1024;

/// Limit: encoded metadata that is kept in a row. What is larger is kept as chunks, and an excerpt
/// of it in the row.
pub const METADATA_ROW_BYTES_MAX: usize = 32 * 1024;

/// Limit: encoded metadata of one message. What is larger is forgotten but for an excerpt: the
/// message is shown as one piece of text. 10,000 parts take about 1 MiB.
pub const METADATA_BYTES_MAX: usize = 4 * 1024 * 1024;

/// BLAKE3 of raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Digest(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl Digest {
    /// The digest of these raw bytes.
    pub fn of(raw: &[u8]) -> Self {
        Self(*blake3::hash(raw).as_bytes())
    }

    /// The digest that covers a whole message: BLAKE3 over the digests of its chunks in order.
    pub fn of_chunks(chunks: &[ChunkRef]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for chunk in chunks {
            hasher.update(&chunk.digest.0);
            hasher.update(&chunk.raw_len.to_be_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One chunk as a message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChunkRef {
    /// Name of the chunk.
    #[n(0)]
    pub digest: Digest,
    /// Raw (uncompressed) octets, 1 to [`CHUNK_BYTES_MAX`].
    #[n(1)]
    pub raw_len: u32,
}

/// How the stored bytes of a chunk are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// One chunk as it travels and lies on disk, beside (never inside) an encoded command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChunk {
    /// Name and raw length.
    pub chunk: ChunkRef,
    /// How `bytes` are coded.
    pub codec: Codec,
    /// The stored bytes.
    pub bytes: Bytes,
}

impl StoredChunk {
    /// A chunk kept uncompressed.
    pub fn raw(bytes: Bytes) -> Self {
        debug_assert!(!bytes.is_empty() && bytes.len() <= CHUNK_BYTES_MAX);
        let chunk = ChunkRef { digest: Digest::of(&bytes), raw_len: bytes.len() as u32 };
        Self { chunk, codec: Codec::Raw, bytes }
    }
}

/// A message on its way into a mailbox, as commands carry it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewMessage {
    /// The body: concatenating the chunks gives the message, octet for octet.
    #[n(0)]
    pub chunks: Vec<ChunkRef>,
    /// [`Digest::of_chunks`] of `chunks`.
    #[n(1)]
    pub digest: Digest,
    /// Raw octets of the whole message.
    #[n(2)]
    pub size: u64,
    /// What was parsed once, at the door; an excerpt of it if there are `metadata_chunks`.
    #[n(3)]
    pub metadata: PackedMetadata,
    /// Where chunks that do not travel beside the command were put before.
    #[n(4)]
    pub upload: Option<UploadId>,
    /// The whole metadata, encoded, when it is too large for a row.
    #[cbor(n(5), default)]
    pub metadata_chunks: Vec<ChunkRef>,
}

/// Metadata made ready to be stored.
pub struct Stowed {
    /// What goes into a row.
    pub metadata: Metadata,
    /// The same, encoded.
    pub packed: PackedMetadata,
    /// When that is only an excerpt, the octets to be kept as chunks.
    pub whole: Bytes,
}

/// Makes metadata ready to be stored. Nothing a message holds is too much for it.
pub fn stow(mut metadata: Metadata) -> Stowed {
    let mut packed = PackedMetadata::from(&metadata);
    let mut whole = Bytes::new();
    if packed.octets().len() > METADATA_BYTES_MAX {
        metadata.make_opaque();
        packed = PackedMetadata::from(&metadata);
    }
    if packed.octets().len() > METADATA_BYTES_MAX {
        metadata.cut();
        packed = PackedMetadata::from(&metadata);
    } else if packed.octets().len() > METADATA_ROW_BYTES_MAX {
        whole = Bytes::copy_from_slice(packed.octets());
        metadata = metadata.excerpt();
        packed = PackedMetadata::from(&metadata);
    }
    Stowed { metadata, packed, whole }
}

/// The whole metadata of which a row holds an excerpt, from its chunks' octets in order. `None` if
/// they are not what was stored.
pub fn unstow(excerpt: &Metadata, octets: &[u8]) -> Option<Metadata> {
    let whole: Metadata = codec::decode(octets).ok()?;
    Some(whole.shifted(excerpt.excerpt?))
}

/// A body received and cut, ready to become one [`NewMessage`] per recipient.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The message without any trace header fields.
    pub message: NewMessage,
    /// What is packed in it.
    pub metadata: Box<Metadata>,
    /// Chunks that must travel beside the command; the others were uploaded.
    pub inline: Vec<StoredChunk>,
}

impl Draft {
    /// The message as one recipient gets it, with trace header fields of its own in front.
    pub fn with_prefix(&self, prefix: Bytes) -> (NewMessage, Vec<StoredChunk>) {
        let metadata = PackedMetadata::from(&self.metadata.with_prefix(&prefix));
        let first = StoredChunk::raw(prefix);
        let mut chunks = Vec::with_capacity(self.message.chunks.len() + 1);
        chunks.push(first.chunk);
        chunks.extend_from_slice(&self.message.chunks);
        let message = NewMessage {
            digest: Digest::of_chunks(&chunks),
            size: self.message.size + u64::from(first.chunk.raw_len),
            chunks,
            metadata,
            upload: self.message.upload,
            metadata_chunks: self.message.metadata_chunks.clone(),
        };
        let mut inline = Vec::with_capacity(self.inline.len() + 1);
        inline.push(first);
        inline.extend_from_slice(&self.inline);
        (message, inline)
    }
}
