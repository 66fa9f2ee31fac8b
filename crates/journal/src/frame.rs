//! How a batch lies in a segment.
//!
//! A segment is a row of frames. A frame is a 48 byte head and a payload: records, a manifest, a
//! footer, or nothing (a mark). Each head carries a sequence number, a checksum and
//! `durable_up_to`, the end of the last completed sync when it was written. A record is a head,
//! its meta, and for each blob a head and its bytes; heads, metas and blob bytes have a checksum
//! each, so that any of them is verified without the others.
//!
//! Invariant: every head's checksum is salted with disk, segment and its own offset. Bytes that
//! ended up in a wrong place, or came from another disk, never verify.

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use crate::codec::{Put, Take};
use crate::mend::mended;
use crate::record::{APPEND, Blob, DiskId, Parts, Pointer, Record, ReplicaId, SegmentId, Stored};
use crate::recover::Damaged;

/// Length of a frame's head.
pub(crate) const FRAME_HEAD: usize = 48;
/// Length of a record's head.
pub(crate) const RECORD_HEAD: usize = 40;
/// Length of a blob's head.
pub(crate) const BLOB_HEAD: usize = 72;
/// First four bytes of a frame.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"RKfr";
/// Version of everything in a frame. Another version is refused, never guessed.
const VERSION: u8 = 1;

/// A place in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub segment: SegmentId,
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Manifest = 1,
    Records = 2,
    Mark = 3,
    Footer = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub kind: FrameKind,
    pub sequence: u64,
    /// Everything before this place was synced when the frame was written.
    pub durable_up_to: Position,
    pub payload_len: u32,
    pub n_records: u32,
    pub payload_crc: u32,
}

/// What makes a checksum belong to one place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Salt(u32);

impl Salt {
    pub fn new(disk: DiskId, segment: SegmentId) -> Self {
        Self(crc32c_append(crc32c(&disk.0), &segment.0.to_le_bytes()))
    }

    /// Writes the checksum of a head that begins at `offset` into its last four bytes.
    pub fn seal(self, head: &mut [u8], offset: u64) {
        let (fields, crc) = head.split_at_mut(head.len() - 4);
        crc.copy_from_slice(&self.crc(offset, fields).to_le_bytes());
    }

    fn crc(self, offset: u64, bytes: &[u8]) -> u32 {
        crc32c_append(crc32c_append(self.0, &offset.to_le_bytes()), bytes)
    }
}

impl FrameHead {
    pub fn encode(&self, salt: Salt, offset: u64) -> [u8; FRAME_HEAD] {
        let mut put = Put(Vec::with_capacity(FRAME_HEAD));
        put.raw(&FRAME_MAGIC);
        put.u8(self.kind as u8);
        put.u8(VERSION);
        put.u16(0);
        put.u64(self.sequence);
        put.u64(self.durable_up_to.segment.0);
        put.u64(self.durable_up_to.offset);
        put.u32(self.payload_len);
        put.u32(self.n_records);
        put.u32(self.payload_crc);
        put.u32(salt.crc(offset, &put.0));
        put.0.try_into().expect("the fields above are 48 bytes")
    }

    pub fn decode(bytes: &[u8], salt: Salt, offset: u64) -> Option<Self> {
        let bytes = verified_head::<FRAME_HEAD>(bytes, salt, offset)?;
        let mut take = Take(bytes);
        if take.array()? != FRAME_MAGIC {
            return None;
        }
        let kind = match take.u8()? {
            1 => FrameKind::Manifest,
            2 => FrameKind::Records,
            3 => FrameKind::Mark,
            4 => FrameKind::Footer,
            _ => return None,
        };
        if take.u8()? != VERSION || take.u16()? != 0 {
            return None;
        }
        Some(Self {
            kind,
            sequence: take.u64()?,
            durable_up_to: Position { segment: SegmentId(take.u64()?), offset: take.u64()? },
            payload_len: take.u32()?,
            n_records: take.u32()?,
            payload_crc: take.u32()?,
        })
    }
}

fn verified_head<const N: usize>(bytes: &[u8], salt: Salt, offset: u64) -> Option<&[u8]> {
    let (fields, crc) = bytes.get(..N)?.split_at(N - 4);
    (salt.crc(offset, fields).to_le_bytes() == crc).then_some(fields)
}

/// The head of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHead {
    pub kind: u8,
    pub n_blobs: u16,
    pub meta_len: u32,
    pub replica: ReplicaId,
    pub index: u64,
    /// Head, meta and all blobs.
    pub total_len: u32,
    pub meta_crc: u32,
}

impl RecordHead {
    pub fn encode(&self, salt: Salt, offset: u64, put: &mut Put) {
        let start = put.0.len();
        put.u8(self.kind);
        put.u8(VERSION);
        put.u16(self.n_blobs);
        put.u32(self.meta_len);
        put.u64(self.replica.0);
        put.u64(self.index);
        put.u32(self.total_len);
        put.u32(self.meta_crc);
        put.u32(0);
        put.u32(salt.crc(offset, &put.0[start..]));
    }

    pub fn decode(bytes: &[u8], salt: Salt, offset: u64) -> Option<Self> {
        let mut take = Take(verified_head::<RECORD_HEAD>(bytes, salt, offset)?);
        let kind = take.u8()?;
        if take.u8()? != VERSION {
            return None;
        }
        Some(Self {
            kind,
            n_blobs: take.u16()?,
            meta_len: take.u32()?,
            replica: ReplicaId(take.u64()?),
            index: take.u64()?,
            total_len: take.u32()?,
            meta_crc: take.u32()?,
        })
    }
}

/// The head of a blob.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobHead {
    pub codec: u8,
    pub nonce: Option<[u8; 12]>,
    pub raw_len: u32,
    pub key_id: u32,
    pub digest: [u8; 32],
    pub len: u32,
    pub crc: u32,
}

impl BlobHead {
    pub fn encode(&self, salt: Salt, offset: u64, put: &mut Put) {
        let start = put.0.len();
        put.u8(VERSION);
        put.u8(self.codec);
        put.u8(u8::from(self.nonce.is_some()));
        put.u8(0);
        put.raw(&self.nonce.unwrap_or_default());
        put.u32(self.raw_len);
        put.u32(self.key_id);
        put.raw(&self.digest);
        put.u32(self.len);
        put.u32(self.crc);
        put.u32(0);
        put.u32(salt.crc(offset, &put.0[start..]));
    }

    pub fn decode(bytes: &[u8], salt: Salt, offset: u64) -> Option<Self> {
        let mut take = Take(verified_head::<BLOB_HEAD>(bytes, salt, offset)?);
        if take.u8()? != VERSION {
            return None;
        }
        let codec = take.u8()?;
        let has_nonce = take.u16()? != 0;
        let nonce = take.array::<12>()?;
        Some(Self {
            codec,
            nonce: has_nonce.then_some(nonce),
            raw_len: take.u32()?,
            key_id: take.u32()?,
            digest: take.array()?,
            len: take.u32()?,
            crc: take.u32()?,
        })
    }

    pub fn with_bytes(&self, bytes: Bytes) -> Option<Blob> {
        (bytes.len() == self.len as usize && crc32c(&bytes) == self.crc).then(|| Blob {
            digest: self.digest,
            codec: self.codec,
            raw_len: self.raw_len,
            key_id: self.key_id,
            nonce: self.nonce,
            bytes,
        })
    }
}

/// A blob by pointer: its head and bytes, verified.
pub(crate) fn decode_blob(bytes: &Bytes, salt: Salt, offset: u64) -> Option<Blob> {
    let head = BlobHead::decode(bytes, salt, offset)?;
    head.with_bytes(bytes.slice(BLOB_HEAD..))
}

/// A record without its bodies.
pub(crate) struct Bare {
    pub replica: ReplicaId,
    pub index: u64,
    pub meta: Bytes,
    pub blobs: Vec<Pointer>,
}

/// A record of which only head, meta and the heads of its bodies have to verify.
pub(crate) fn decode_bare(bytes: &Bytes, pointer: Pointer, salt: Salt) -> Option<Bare> {
    let mut walk = Walk::default();
    let decode = |bytes: &[u8]| RecordHead::decode(bytes, salt, pointer.offset);
    let head = walk.head::<RECORD_HEAD, _>(bytes, pointer.offset, decode)?;
    let meta_end = RECORD_HEAD + head.meta_len as usize;
    let meta = (meta_end <= bytes.len()).then(|| bytes.slice(RECORD_HEAD..meta_end));
    let meta = walk.meta(meta, &head, pointer.offset)?;
    let (mut blobs, mut at) = (Vec::new(), meta_end);
    for _ in 0..head.n_blobs {
        let offset = pointer.offset + at as u64;
        let decode = |bytes: &[u8]| BlobHead::decode(bytes, salt, offset);
        let blob = walk.head::<BLOB_HEAD, _>(bytes.get(at..)?, offset, decode)?;
        let len = BLOB_HEAD as u32 + blob.len;
        blobs.push(Pointer { segment: pointer.segment, offset, len });
        at += len as usize;
    }
    Some(Bare { replica: head.replica, index: head.index, meta, blobs })
}

/// A piece of a record that did not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The head: from here on nothing in the frame can be found.
    Rest { offset: u64 },
    /// One bit of a head or of a short meta. It was put right, so nothing is missing.
    Mended { offset: u64 },
    /// The meta of a record: a vote, a purge.
    Meta { offset: u64, replica: ReplicaId },
    /// The meta of a log entry.
    Entry { offset: u64, replica: ReplicaId, index: u64 },
    /// One body.
    Body { offset: u64, replica: ReplicaId, digest: [u8; 32] },
    /// The head of one body.
    BodyHead { offset: u64, replica: ReplicaId },
}

impl Bad {
    /// Where it is and what was there.
    pub fn place(self) -> (u64, Damaged) {
        match self {
            Self::Rest { offset } => (offset, Damaged::Records),
            Self::Mended { offset } => (offset, Damaged::Mended),
            Self::Meta { offset, replica } => (offset, Damaged::Record(replica)),
            Self::Entry { offset, replica, index } => (offset, Damaged::Entry(replica, index)),
            Self::Body { offset, replica, digest } => {
                (offset, Damaged::Body(replica, Some(digest)))
            }
            Self::BodyHead { offset, replica } => (offset, Damaged::Body(replica, None)),
        }
    }
}

/// The records of one payload, read leniently: what verifies is kept, the rest is named.
#[derive(Default)]
pub(crate) struct Walk {
    pub records: Vec<(Pointer, Stored)>,
    pub bad: Vec<Bad>,
    /// Checksum over all heads, to be compared with the frame's.
    pub heads_crc: u32,
}

/// Reads all records of `payload`, which lies at `offset` of `segment`.
pub(crate) fn walk(payload: &Bytes, segment: SegmentId, salt: Salt, offset: u64) -> Walk {
    let mut walk = Walk::default();
    let mut at = 0;
    while at < payload.len() {
        let here = offset + at as u64;
        let decode = |bytes: &[u8]| {
            RecordHead::decode(bytes, salt, here).filter(|head| {
                (RECORD_HEAD..=payload.len() - at).contains(&(head.total_len as usize))
            })
        };
        let Some(head) = walk.head::<RECORD_HEAD, _>(&payload[at..], here, decode) else {
            walk.bad.push(Bad::Rest { offset: here });
            return walk;
        };
        let len = head.total_len as usize;
        let body = payload.slice(at..at + len);
        walk.record(&head, &body, Pointer { segment, offset: here, len: head.total_len }, salt);
        at += len;
    }
    walk
}

impl Walk {
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.bad.iter().all(|bad| matches!(bad, Bad::Mended { .. }))
    }

    /// A head, with one flipped bit put right.
    fn head<const N: usize, H>(
        &mut self,
        bytes: &[u8],
        offset: u64,
        decode: impl Fn(&[u8]) -> Option<H>,
    ) -> Option<H> {
        let bytes = bytes.get(..N)?;
        if let Some(head) = decode(bytes) {
            self.heads_crc = crc32c_append(self.heads_crc, bytes);
            return Some(head);
        }
        let bytes = mended(bytes, |bytes| decode(bytes).is_some())?;
        self.heads_crc = crc32c_append(self.heads_crc, &bytes);
        self.bad.push(Bad::Mended { offset });
        decode(&bytes)
    }

    fn meta(&mut self, bytes: Option<Bytes>, head: &RecordHead, offset: u64) -> Option<Bytes> {
        let verifies = |bytes: &[u8]| crc32c(bytes) == head.meta_crc;
        let bytes = bytes?;
        if verifies(&bytes) {
            return Some(bytes);
        }
        let mended = mended(&bytes, verifies)?;
        self.bad.push(Bad::Mended { offset });
        Some(mended.into())
    }

    fn record(&mut self, head: &RecordHead, body: &Bytes, pointer: Pointer, salt: Salt) {
        let (replica, offset) = (head.replica, pointer.offset);
        let meta_end = RECORD_HEAD + head.meta_len as usize;
        let meta = (meta_end <= body.len()).then(|| body.slice(RECORD_HEAD..meta_end));
        let meta = self.meta(meta, head, offset);
        if meta.is_none() {
            let index = head.index;
            self.bad.push(match head.kind {
                APPEND => Bad::Entry { offset, replica, index },
                _ => Bad::Meta { offset, replica },
            });
        }
        let (mut blobs, mut pointers) = (Vec::new(), Vec::new());
        let mut at = meta_end;
        for _ in 0..head.n_blobs {
            let here = offset + at as u64;
            let decode = |bytes: &[u8]| {
                BlobHead::decode(bytes, salt, here)
                    .filter(|blob| at + BLOB_HEAD + blob.len as usize <= body.len())
            };
            let bytes = body.get(at..).unwrap_or_default();
            let Some(blob_head) = self.head::<BLOB_HEAD, _>(bytes, here, decode) else {
                self.bad.push(Bad::BodyHead { offset: here, replica });
                break;
            };
            let len = BLOB_HEAD + blob_head.len as usize;
            let Some(blob) = blob_head.with_bytes(body.slice(at + BLOB_HEAD..at + len)) else {
                let digest = blob_head.digest;
                self.bad.push(Bad::Body { offset: here, replica, digest });
                at += len;
                continue;
            };
            blobs.push(blob);
            pointers.push(Pointer { segment: pointer.segment, offset: here, len: len as u32 });
            at += len;
        }
        let Some(meta) = meta else { return };
        let parts = Parts { kind: head.kind, replica, index: head.index, meta, blobs };
        match Record::from_parts(parts) {
            Some(record) => self.records.push((pointer, Stored { record, blobs: pointers })),
            None => self.bad.push(Bad::Meta { offset, replica }),
        }
    }
}
