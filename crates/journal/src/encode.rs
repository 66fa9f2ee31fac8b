//! Records into the pieces of one vectored write. Bodies are never copied.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;
use crc32c::crc32c;

use crate::codec::Put;
use crate::frame::{
    BLOB_HEAD, BlobHead, FRAME_HEAD, FrameHead, FrameKind, Position, RECORD_HEAD, RecordHead, Salt,
};
use crate::record::{Pointer, Record, SegmentId, Written};

/// A record with the checksums of its bytes, taken by the thread that appends it.
pub(crate) struct Prepared {
    pub record: Record,
    meta_crc: u32,
    blob_crcs: Vec<u32>,
}

impl Prepared {
    pub fn new(record: Record) -> Self {
        let meta_crc = crc32c(record.meta());
        let blob_crcs = record.blobs().iter().map(|blob| crc32c(&blob.bytes)).collect();
        Self { record, meta_crc, blob_crcs }
    }

    /// What it takes on the disk.
    pub fn disk_len(&self) -> u64 {
        let blobs = self.record.blobs().iter().map(|blob| (BLOB_HEAD + blob.bytes.len()) as u64);
        (RECORD_HEAD + self.record.meta().len()) as u64 + blobs.sum::<u64>()
    }
}

enum Piece {
    Heads(Range<usize>),
    Bytes(Bytes),
}

/// One frame ready to be written.
pub(crate) struct Encoder {
    salt: Salt,
    segment: SegmentId,
    offset: u64,
    heads: Put,
    pieces: Vec<Piece>,
    len: u64,
    n_records: u32,
}

impl Encoder {
    pub fn new(salt: Salt, segment: SegmentId, offset: u64) -> Self {
        let heads = Put(vec![0; FRAME_HEAD]);
        let pieces = vec![Piece::Heads(0..FRAME_HEAD)];
        Self { salt, segment, offset, heads, pieces, len: FRAME_HEAD as u64, n_records: 0 }
    }

    /// Where the frame ends so far.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    pub fn push(&mut self, prepared: &Prepared) -> Written {
        let record = &prepared.record;
        let (at, total_len) = (self.end(), prepared.disk_len() as u32);
        let start = self.heads.0.len();
        let head = RecordHead {
            kind: record.kind(),
            n_blobs: record.blobs().len() as u16,
            meta_len: record.meta().len() as u32,
            replica: record.replica(),
            index: record.index(),
            total_len,
            meta_crc: prepared.meta_crc,
        };
        head.encode(self.salt, at, &mut self.heads);
        self.pieces.push(Piece::Heads(start..start + RECORD_HEAD));
        self.bytes(record.meta_bytes());
        self.len += RECORD_HEAD as u64;
        let mut blobs = Vec::with_capacity(record.blobs().len());
        for (blob, crc) in record.blobs().iter().zip(&prepared.blob_crcs) {
            let (offset, len) = (self.end(), blob.bytes.len() as u32);
            let start = self.heads.0.len();
            let head = BlobHead {
                codec: blob.codec,
                nonce: blob.nonce,
                raw_len: blob.raw_len,
                key_id: blob.key_id,
                digest: blob.digest,
                len,
                crc: *crc,
            };
            head.encode(self.salt, offset, &mut self.heads);
            self.pieces.push(Piece::Heads(start..start + BLOB_HEAD));
            self.len += BLOB_HEAD as u64;
            self.bytes(blob.bytes.clone());
            blobs.push(Pointer { segment: self.segment, offset, len: BLOB_HEAD as u32 + len });
        }
        self.n_records += 1;
        let record = Pointer { segment: self.segment, offset: at, len: total_len };
        Written { record, blobs }
    }

    fn bytes(&mut self, bytes: Bytes) {
        self.len += bytes.len() as u64;
        if !bytes.is_empty() {
            self.pieces.push(Piece::Bytes(bytes));
        }
    }

    /// Fills in the frame's head. The slices of [`Self::slices`] are the frame afterwards.
    pub fn finish(&mut self, sequence: u64, durable_up_to: Position) {
        let head = FrameHead {
            kind: if self.n_records == 0 { FrameKind::Mark } else { FrameKind::Records },
            sequence,
            durable_up_to,
            payload_len: (self.len - FRAME_HEAD as u64) as u32,
            n_records: self.n_records,
            payload_crc: crc32c(&self.heads.0[FRAME_HEAD..]),
        };
        self.heads.0[..FRAME_HEAD].copy_from_slice(&head.encode(self.salt, self.offset));
    }

    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            slices.push(match piece {
                Piece::Heads(range) => IoSlice::new(&self.heads.0[range.clone()]),
                Piece::Bytes(bytes) => IoSlice::new(bytes),
            });
        }
        slices
    }
}

/// A frame with a payload that is not records: a manifest or a footer.
pub(crate) fn plain_frame(
    kind: FrameKind,
    (sequence, durable_up_to): (u64, Position),
    salt: Salt,
    offset: u64,
    payload: &[u8],
) -> Vec<u8> {
    let head = FrameHead {
        kind,
        sequence,
        durable_up_to,
        payload_len: payload.len() as u32,
        n_records: 0,
        payload_crc: crc32c(payload),
    };
    let mut frame = head.encode(salt, offset).to_vec();
    frame.extend_from_slice(payload);
    frame
}
