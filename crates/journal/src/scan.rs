//! What lies in a segment, told from its frames alone.
//!
//! The outline reads heads only. Where a head does not verify it looks for the next one that does;
//! the salt of the disk keeps a body from forging one. What the disk cannot read is as if it read zeros
//! there, which verify as nothing: it is damage, and what lies behind it is found.

use std::io;

use bytes::Bytes;
use crc32c::crc32c;

use crate::error::Error;
use crate::frame::{FRAME_HEAD, FRAME_MAGIC, FrameHead, FrameKind, Position, Salt};
use crate::manifest::Manifest;
use crate::mend::mended;
use crate::record::{DiskId, SegmentId};
use crate::storage::{StorageFile, is_unreadable};

/// Bytes looked through at a time.
const WINDOW: usize = 1 << 20;
/// What is read by itself where more at once cannot be read; disks lose sectors of this size.
const BLOCK: u64 = 4096;

/// The frames of one segment.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    pub frames: Vec<(u64, FrameHead)>,
    /// Of which frames one bit of the head was put right.
    pub mended: Vec<u64>,
    /// End of the last frame whose head verified.
    pub end: u64,
}

impl Outline {
    pub fn is_sealed(&self) -> bool {
        self.frames.last().is_some_and(|(_, head)| head.kind == FrameKind::Footer)
    }

    /// The highest durable place in this segment that the segment itself states.
    pub fn durable(&self, segment: SegmentId) -> u64 {
        let stated = self.frames.iter().map(|(_, head)| head.durable_up_to);
        let stated = stated.filter(|at| at.segment == segment).map(|at| at.offset).max();
        let is_manifest = |head: &FrameHead| head.kind == FrameKind::Manifest;
        let manifests = self.frames.iter().filter(|(_, head)| is_manifest(head));
        let manifests = manifests.map(|(at, head)| frame_end(*at, head)).max();
        stated.max(manifests).unwrap_or(0)
    }
}

/// A frame that was looked for.
pub(crate) struct Next {
    pub at: u64,
    pub head: FrameHead,
    /// One bit of its head was put right.
    pub is_mended: bool,
}

pub(crate) fn frame_end(offset: u64, head: &FrameHead) -> u64 {
    offset + FRAME_HEAD as u64 + u64::from(head.payload_len)
}

/// A segment being looked at.
pub(crate) struct Scan<'a> {
    pub file: &'a dyn StorageFile,
    pub disk: DiskId,
    pub segment: SegmentId,
}

impl Scan<'_> {
    pub fn salt(&self) -> Salt {
        Salt::new(self.disk, self.segment)
    }

    pub fn outline(&self) -> Result<Outline, Error> {
        let size = self.file.size().map_err(Error::io("stat a segment"))?;
        let mut outline = Outline::default();
        while let Some(Next { at, head, is_mended }) = self.next_frame(outline.end, size)? {
            if is_mended {
                outline.mended.push(at);
            }
            outline.end = frame_end(at, &head);
            outline.frames.push((at, head));
            if head.kind == FrameKind::Footer {
                break;
            }
        }
        Ok(outline)
    }

    /// Reads up to `buf.len()` bytes, fewer only at the end; zeros where the disk gives none.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let read = match self.file.read_at(offset, buf) {
            Err(error) if is_unreadable(&error) => self.read_around(offset, buf),
            other => other,
        };
        read.map_err(Error::io("read a segment"))
    }

    /// The same, block by block.
    fn read_around(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.file.size()?.saturating_sub(offset);
        let len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let end = (done + (BLOCK - at % BLOCK) as usize).min(len);
            let block = &mut buf[done..end];
            match self.file.read_at(at, block) {
                Ok(n) => block[n..].fill(0),
                Err(error) if is_unreadable(&error) => block.fill(0),
                Err(error) => return Err(error),
            }
            done = end;
        }
        Ok(len)
    }

    pub fn head_at(&self, offset: u64, size: u64) -> Result<Option<FrameHead>, Error> {
        let mut bytes = [0; FRAME_HEAD];
        let n = self.read(offset, &mut bytes)?;
        let head = FrameHead::decode(&bytes[..n], self.salt(), offset);
        Ok(head.filter(|head| frame_end(offset, head) <= size))
    }

    /// A head with one flipped bit, where a head is due.
    fn mended_at(&self, offset: u64, size: u64) -> Result<Option<FrameHead>, Error> {
        let mut bytes = [0; FRAME_HEAD];
        let n = self.read(offset, &mut bytes)?;
        let decode = |bytes: &[u8]| {
            let head = FrameHead::decode(bytes, self.salt(), offset);
            head.filter(|head| frame_end(offset, head) <= size)
        };
        let mended = mended(&bytes[..n], |bytes| decode(bytes).is_some());
        Ok(mended.and_then(|bytes| decode(&bytes)))
    }

    /// The first frame at or behind `from`.
    pub fn next_frame(&self, from: u64, size: u64) -> Result<Option<Next>, Error> {
        if let Some(head) = self.head_at(from, size)? {
            return Ok(Some(Next { at: from, head, is_mended: false }));
        }
        if let Some(head) = self.mended_at(from, size)? {
            return Ok(Some(Next { at: from, head, is_mended: true }));
        }
        let mut window = vec![0; WINDOW.min(size.saturating_sub(from) as usize)];
        let mut at = from;
        while at + FRAME_HEAD as u64 <= size {
            let n = self.read(at, &mut window)?;
            for i in magics(&window[..n]) {
                let at = at + i as u64;
                if let Some(head) = self.head_at(at, size)? {
                    return Ok(Some(Next { at, head, is_mended: false }));
                }
            }
            if n < FRAME_HEAD {
                break;
            }
            // The magic may lie across the edge of the window.
            at += n as u64 - 3;
        }
        Ok(None)
    }

    /// The payload of a frame, and whether a plain payload verifies. Records verify by
    /// [`crate::frame::walk`].
    pub fn payload(&self, offset: u64, head: &FrameHead) -> Result<Option<Bytes>, Error> {
        let mut bytes = vec![0; head.payload_len as usize];
        let at = offset + FRAME_HEAD as u64;
        let n = self.read(at, &mut bytes)?;
        let is_records = matches!(head.kind, FrameKind::Records);
        let verifies = n == bytes.len() && (is_records || crc32c(&bytes) == head.payload_crc);
        Ok(verifies.then(|| Bytes::from(bytes)))
    }

    /// The first copy of the manifest that verifies, with the end of the segment before.
    pub fn manifest(&self) -> Result<Option<(Manifest, Position)>, Error> {
        let size = self.file.size().map_err(Error::io("stat a segment"))?;
        let mut from = 0;
        while let Some(Next { at: offset, head, .. }) = self.next_frame(from, size)? {
            if head.kind != FrameKind::Manifest {
                break;
            }
            let payload = self.payload(offset, &head)?;
            if let Some(manifest) = payload.as_deref().and_then(Manifest::decode) {
                return Ok(Some((manifest, head.durable_up_to)));
            }
            from = frame_end(offset, &head);
        }
        Ok(None)
    }

    /// Bytes from `from` to the last one that is not zero.
    pub fn n_used_behind(&self, from: u64) -> Result<u64, Error> {
        let size = self.file.size().map_err(Error::io("stat a segment"))?;
        let mut window = vec![0; WINDOW.min(size.saturating_sub(from) as usize)];
        let (mut at, mut used) = (from, 0);
        while at < size {
            let n = self.read(at, &mut window)?;
            if n == 0 {
                break;
            }
            if let Some(last) = window[..n].iter().rposition(|byte| *byte != 0) {
                used = at + last as u64 + 1 - from;
            }
            at += n as u64;
        }
        Ok(used)
    }
}

/// Where frames may begin. Preallocated space is skipped fast.
fn magics(window: &[u8]) -> impl Iterator<Item = usize> {
    const STEP: usize = 4096;
    let is_used = |start: &usize| {
        let block = &window[*start..(start + STEP).min(window.len())];
        *block != [0; STEP][..block.len()]
    };
    let starts = (0..window.len()).step_by(STEP).filter(is_used);
    starts
        .flat_map(|start| start..(start + STEP).min(window.len()))
        .filter(|at| window[*at] == FRAME_MAGIC[0] && window[*at..].starts_with(&FRAME_MAGIC))
}
