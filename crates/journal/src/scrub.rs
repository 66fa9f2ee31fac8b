//! Scrub: reads what lies still and verifies it, a bounded piece at a time.
//!
//! A pass goes over all segments, oldest first, and ends with what is synced of the open one.

use crate::error::Error;
use crate::footer;
use crate::frame::{Bad, FRAME_HEAD, FrameHead, FrameKind, walk};
use crate::record::{Blob, SegmentId};
use crate::recover::{Damage, Damaged};
use crate::scan::{Next, Scan, frame_end};
use crate::shared::Shared;

/// Where the scrub stands.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    segment: SegmentId,
    offset: u64,
    n_passes: u64,
}

/// What one step found.
#[derive(Clone, Debug, Default)]
pub struct Scrubbed {
    /// Bytes read and compared.
    pub n_bytes: u64,
    /// What does not verify.
    pub damaged: Vec<Damage>,
    /// Segments that were read to this end now; all of it was looked at in this pass.
    pub read: Vec<(SegmentId, u64)>,
    /// The first byte this pass has not verified yet; everything before it was. `None` between
    /// two passes.
    pub oldest_unverified: Option<(SegmentId, u64)>,
    /// Whole passes since the start.
    pub n_passes: u64,
}

type IsRight<'a> = &'a dyn Fn(&Blob) -> bool;

/// What of a segment is to be read.
#[derive(Clone, Copy)]
struct Extent {
    size: u64,
    is_open: bool,
}

impl Scrub {
    pub fn step(
        &mut self,
        shared: &Shared,
        budget_bytes: u64,
        is_right: IsRight<'_>,
    ) -> Result<Scrubbed, Error> {
        let mut report = Scrubbed::default();
        while report.n_bytes < budget_bytes {
            let (next, open) = {
                let index = shared.index();
                let next = index.segments.range(self.segment..).next();
                (next.map(|(id, len)| (*id, *len)), index.open)
            };
            let Some((segment, len)) = next else {
                (self.segment, self.offset) = (SegmentId(0), 0);
                self.n_passes += 1;
                break;
            };
            if segment != self.segment {
                (self.segment, self.offset) = (segment, 0);
            }
            let file = match shared.files.of(segment) {
                Err(Error::Missing { .. }) => {
                    // Why a look: garbage collection may have deleted it in the meantime.
                    if shared.index().segments.contains_key(&segment) {
                        report.damaged.push(Damage { segment, offset: 0, what: Damaged::Segment });
                    }
                    self.leave();
                    continue;
                }
                other => other?,
            };
            let is_open = segment == open;
            // Why not the size of an open one: what is not synced yet may be half written.
            let size = if is_open { Ok(len) } else { file.size() };
            let size = size.map_err(Error::io("stat a segment"))?;
            let scan = Scan { file: &*file, disk: shared.disk, segment };
            let extent = Extent { size, is_open };
            self.frames(&scan, extent, (budget_bytes, is_right), &mut report)?;
        }
        report.n_passes = self.n_passes;
        report.oldest_unverified = (self.segment.0 > 0).then_some((self.segment, self.offset));
        Ok(report)
    }

    /// On to the next segment.
    fn leave(&mut self) {
        (self.segment, self.offset) = (SegmentId(self.segment.0 + 1), 0);
    }

    /// Verifies frames of one segment until the budget is used or the segment ends.
    fn frames(
        &mut self,
        scan: &Scan<'_>,
        extent: Extent,
        (budget_bytes, is_right): (u64, IsRight<'_>),
        report: &mut Scrubbed,
    ) -> Result<(), Error> {
        while report.n_bytes < budget_bytes {
            let found = scan.next_frame(self.offset, extent.size)?;
            let Some(Next { at, head, is_mended }) = found else {
                self.end(scan, extent, report);
                return Ok(());
            };
            let mut damage = |offset, what| {
                report.damaged.push(Damage { segment: scan.segment, offset, what });
            };
            if at > self.offset {
                damage(self.offset, Damaged::Records);
            }
            if is_mended {
                damage(at, Damaged::Mended);
            }
            frame(scan, (at, &head), is_right, &mut damage)?;
            let end = frame_end(at, &head);
            report.n_bytes += end - self.offset;
            self.offset = end;
            if head.kind == FrameKind::Footer {
                return self.trailer(scan, extent, report);
            }
        }
        Ok(())
    }

    /// No frame follows.
    fn end(&mut self, scan: &Scan<'_>, extent: Extent, report: &mut Scrubbed) {
        let (segment, offset) = (scan.segment, self.offset);
        let left = extent.size.saturating_sub(offset);
        if !extent.is_open {
            // A sealed segment without a footer at its end.
            report.damaged.push(Damage { segment, offset, what: Damaged::Footer });
        } else if left > 0 {
            report.damaged.push(Damage { segment, offset, what: Damaged::Records });
        }
        report.n_bytes += left;
        report.read.push((segment, extent.size));
        self.leave();
    }

    fn trailer(
        &mut self,
        scan: &Scan<'_>,
        extent: Extent,
        report: &mut Scrubbed,
    ) -> Result<(), Error> {
        let mut bytes = [0; footer::TRAILER];
        let n = scan.read(self.offset, &mut bytes)?;
        let is_whole = n == bytes.len()
            && footer::from_trailer(&bytes).is_some()
            && extent.size == self.offset + n as u64;
        if !is_whole {
            let (segment, offset) = (scan.segment, self.offset);
            report.damaged.push(Damage { segment, offset, what: Damaged::Footer });
        }
        report.read.push((scan.segment, extent.size));
        self.leave();
        Ok(())
    }
}

/// Verifies what is in one frame.
fn frame(
    scan: &Scan<'_>,
    (at, head): (u64, &FrameHead),
    is_right: IsRight<'_>,
    damage: &mut dyn FnMut(u64, Damaged),
) -> Result<(), Error> {
    let payload = match (scan.payload(at, head)?, head.kind) {
        (Some(payload), FrameKind::Records) => payload,
        (Some(_), _) => return Ok(()),
        (None, kind) => {
            damage(
                at,
                match kind {
                    FrameKind::Manifest => Damaged::Manifest,
                    FrameKind::Footer => Damaged::Footer,
                    FrameKind::Records | FrameKind::Mark => Damaged::Records,
                },
            );
            return Ok(());
        }
    };
    let inside = at + FRAME_HEAD as u64;
    let walked = walk(&payload, scan.segment, scan.salt(), inside);
    if walked.is_whole() && walked.heads_crc != head.payload_crc {
        damage(at, Damaged::Records);
    }
    walked.bad.into_iter().map(Bad::place).for_each(|(at, what)| damage(at, what));
    for (_, stored) in &walked.records {
        let bodies = stored.record.blobs().iter().zip(&stored.blobs);
        for (blob, pointer) in bodies.filter(|(blob, _)| !is_right(blob)) {
            let what = Damaged::Body(stored.record.replica(), Some(blob.digest));
            damage(pointer.offset, what);
        }
    }
    Ok(())
}
