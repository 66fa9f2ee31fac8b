//! The doors for hostile input: what a segment holds, read behind its checksums. Damage by chance never
//! comes this far; what does must still not panic or allocate what a number says.

use bytes::Bytes;
use crc32c::crc32c;

use crate::frame::{self, BLOB_HEAD, FRAME_HEAD, FrameHead, RECORD_HEAD, Salt};
use crate::manifest::Manifest;
use crate::record::{DiskId, SegmentId};
use crate::{footer, scan};

const SEGMENT: SegmentId = SegmentId(7);
const OFFSET: u64 = 4096;

/// Reads an input as everything a segment may hold.
pub fn read(input: &[u8]) {
    let salt = Salt::new(DiskId([7; 16]), SEGMENT);
    // What is no manifest, footer or trailer is refused.
    let _ = Manifest::decode(input).map(|manifest| manifest.encode());
    let _ = footer::decode(input, SEGMENT);
    let _ = footer::from_trailer(input);
    if let Some(head) = input.first_chunk::<FRAME_HEAD>() {
        let mut head = *head;
        salt.seal(&mut head, OFFSET);
        let _ = FrameHead::decode(&head, salt, OFFSET).map(|head| scan::frame_end(OFFSET, &head));
    }
    let payload = sealed(input, salt);
    let walk = frame::walk(&payload, SEGMENT, salt, OFFSET);
    for (pointer, stored) in walk.records {
        assert!(pointer.offset >= OFFSET && pointer.len as usize <= payload.len());
        for blob in &stored.blobs {
            let at = (blob.offset - OFFSET) as usize;
            let bytes = payload.slice(at..at + blob.len as usize);
            assert!(frame::decode_blob(&bytes, salt, blob.offset).is_some(), "it was read before");
        }
    }
}

/// The input with checksums that are right wherever a record or a blob can be made out.
fn sealed(input: &[u8], salt: Salt) -> Bytes {
    let mut payload = input.to_vec();
    let mut at = 0;
    while at + RECORD_HEAD <= payload.len() {
        let number = |payload: &[u8], at: usize| {
            payload[at..at + 4].try_into().map_or(0, u32::from_le_bytes) as usize
        };
        payload[at + 1] = 1;
        let n_blobs = u16::from_le_bytes([payload[at + 2], payload[at + 3]]);
        let mut end = at + RECORD_HEAD + number(&payload, at + 4);
        if end <= payload.len() {
            let crc = crc32c(&payload[at + RECORD_HEAD..end]);
            payload[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
        }
        for _ in 0..n_blobs {
            if end + BLOB_HEAD > payload.len() {
                break;
            }
            payload[end] = 1;
            let len = number(&payload, end + 56);
            let body = end + BLOB_HEAD;
            if body + len <= payload.len() {
                let crc = crc32c(&payload[body..body + len]);
                payload[end + 60..end + 64].copy_from_slice(&crc.to_le_bytes());
            }
            salt.seal(&mut payload[end..body], OFFSET + end as u64);
            end = body + len;
        }
        let total = number(&payload, at + 24);
        salt.seal(&mut payload[at..at + RECORD_HEAD], OFFSET + at as u64);
        if total < RECORD_HEAD {
            break;
        }
        at += total;
    }
    payload.into()
}
