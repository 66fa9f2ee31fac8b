//! Reads by pointer. Nothing leaves here that did not verify.

use bytes::Bytes;

use crate::error::Error;
use crate::footer;
use crate::frame::{Bare, FRAME_HEAD, FrameKind, decode_bare, decode_blob, walk};
use crate::record::{Blob, Location, Pointer, SegmentId, Stored};
use crate::scan::Scan;
use crate::shared::Shared;

impl Shared {
    fn bytes_at(&self, pointer: Pointer) -> Result<Bytes, Error> {
        let file = self.files.of(pointer.segment)?;
        let mut bytes = vec![0; pointer.len as usize];
        let read = file.read_at(pointer.offset, &mut bytes);
        // A sector that cannot be read is repaired like one that reads wrong.
        match read {
            Ok(n) if n == bytes.len() => Ok(Bytes::from(bytes)),
            _ => Err(corrupt(pointer)),
        }
    }

    pub fn read_record(&self, pointer: Pointer) -> Result<Stored, Error> {
        let bytes = self.bytes_at(pointer)?;
        let salt = self.salt(pointer.segment);
        let mut walked = walk(&bytes, pointer.segment, salt, pointer.offset);
        match walked.records.pop() {
            Some((found, stored)) if found == pointer && walked.bad.is_empty() => Ok(stored),
            _ => Err(corrupt(pointer)),
        }
    }

    pub fn read_bare(&self, pointer: Pointer) -> Result<Bare, Error> {
        let bytes = self.bytes_at(pointer)?;
        let salt = self.salt(pointer.segment);
        decode_bare(&bytes, pointer, salt).ok_or_else(|| corrupt(pointer))
    }

    pub fn read_blob(&self, pointer: Pointer) -> Result<Blob, Error> {
        let bytes = self.bytes_at(pointer)?;
        let salt = self.salt(pointer.segment);
        decode_blob(&bytes, salt, pointer.offset).ok_or_else(|| corrupt(pointer))
    }

    /// The bodies in a segment: from memory, from its footer, or from its frames.
    pub fn blob_locations(&self, segment: SegmentId) -> Result<Vec<Location>, Error> {
        {
            let index = self.index();
            if index.open == segment {
                return Ok(index.open_blobs.clone());
            }
        }
        let file = self.files.of(segment)?;
        let scan = Scan { file: &*file, disk: self.disk, segment };
        if let Some(listed) = footer_of(&scan)? {
            return Ok(listed);
        }
        let mut found = Vec::new();
        for (offset, head) in &scan.outline()?.frames {
            if head.kind != FrameKind::Records {
                continue;
            }
            let Some(payload) = scan.payload(*offset, head)? else { continue };
            let walked = walk(&payload, segment, scan.salt(), offset + FRAME_HEAD as u64);
            for (_, stored) in &walked.records {
                let replica = stored.record.replica();
                let blobs = stored.record.blobs().iter().zip(&stored.blobs);
                found.extend(blobs.map(|(blob, pointer)| Location {
                    replica,
                    digest: blob.digest,
                    pointer: *pointer,
                }));
            }
        }
        Ok(found)
    }
}

fn footer_of(scan: &Scan<'_>) -> Result<Option<Vec<Location>>, Error> {
    let size = scan.file.size().map_err(Error::io("stat a segment"))?;
    let mut trailer = [0; footer::TRAILER];
    let at = size.saturating_sub(trailer.len() as u64);
    let n = scan.read(at, &mut trailer)?;
    if n < trailer.len() {
        return Ok(None);
    }
    let Some(offset) = footer::from_trailer(&trailer) else { return Ok(None) };
    let Some(head) = scan.head_at(offset, size)? else { return Ok(None) };
    if head.kind != FrameKind::Footer {
        return Ok(None);
    }
    let payload = scan.payload(offset, &head)?;
    Ok(payload.and_then(|bytes| footer::decode(&bytes, scan.segment)))
}

fn corrupt(pointer: Pointer) -> Error {
    Error::Corrupt { segment: pointer.segment, offset: pointer.offset }
}
