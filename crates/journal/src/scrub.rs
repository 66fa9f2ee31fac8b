//! Scrub: reads what lies still and verifies it, a bounded piece at a time.

use crate::error::Error;
use crate::footer;
use crate::frame::{Bad, FRAME_HEAD, FrameKind, walk};
use crate::record::SegmentId;
use crate::recover::{Damage, Damaged};
use crate::scan::{Scan, frame_end};
use crate::shared::Shared;

/// Where the scrub stands. A pass goes over all sealed segments, oldest first.
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
    /// The first byte this pass has not verified yet; everything before it was. `None` between
    /// two passes.
    pub oldest_unverified: Option<(SegmentId, u64)>,
    /// Whole passes since the start.
    pub n_passes: u64,
}

impl Scrub {
    pub fn step(&mut self, shared: &Shared, budget_bytes: u64) -> Result<Scrubbed, Error> {
        let mut report = Scrubbed::default();
        while report.n_bytes < budget_bytes.max(1) {
            let (next, open) = {
                let index = shared.index();
                (index.segments.range(self.segment..).next().map(|(id, _)| *id), index.open)
            };
            match next.filter(|segment| *segment < open) {
                Some(segment) => {
                    if segment != self.segment {
                        (self.segment, self.offset) = (segment, 0);
                    }
                    self.segment(shared, budget_bytes, &mut report)?;
                }
                None => {
                    (self.segment, self.offset) = (SegmentId(0), 0);
                    self.n_passes += 1;
                    break;
                }
            }
        }
        report.n_passes = self.n_passes;
        report.oldest_unverified = (self.segment.0 > 0).then_some((self.segment, self.offset));
        Ok(report)
    }

    /// Verifies frames of one segment until the budget is used or the segment ends.
    fn segment(
        &mut self,
        shared: &Shared,
        budget_bytes: u64,
        report: &mut Scrubbed,
    ) -> Result<(), Error> {
        let file = match shared.files.of(self.segment) {
            // Deleted by garbage collection in the meantime.
            Err(Error::Missing { .. }) => {
                (self.segment, self.offset) = (SegmentId(self.segment.0 + 1), 0);
                return Ok(());
            }
            other => other?,
        };
        let scan = Scan { file: &*file, disk: shared.disk, segment: self.segment };
        let size = file.size().map_err(Error::io("stat a segment"))?;
        while report.n_bytes < budget_bytes.max(1) {
            let Some((at, head)) = scan.next_frame(self.offset, size)? else { break };
            let mut damage = |offset, what| {
                report.damaged.push(Damage { segment: scan.segment, offset, what });
            };
            if at > self.offset {
                damage(self.offset, Damaged::Records);
            }
            match (scan.payload(at, &head)?, head.kind) {
                (None, FrameKind::Manifest) => damage(at, Damaged::Manifest),
                (None, FrameKind::Footer) => damage(at, Damaged::Footer),
                (None, _) => damage(at, Damaged::Records),
                (Some(payload), FrameKind::Records) => {
                    let inside = at + FRAME_HEAD as u64;
                    let walked = walk(&payload, scan.segment, scan.salt(), inside);
                    if walked.bad.is_empty() && walked.heads_crc != head.payload_crc {
                        damage(at, Damaged::Records);
                    }
                    walked.bad.into_iter().map(Bad::place).for_each(|(at, what)| damage(at, what));
                }
                (Some(_), _) => {}
            }
            let end = frame_end(at, &head);
            report.n_bytes += end - self.offset;
            self.offset = end;
            if head.kind == FrameKind::Footer {
                self.trailer(&scan, size, report)?;
                return Ok(());
            }
        }
        if report.n_bytes < budget_bytes.max(1) {
            // A sealed segment without a footer at its end.
            let (segment, offset) = (self.segment, self.offset);
            report.damaged.push(Damage { segment, offset, what: Damaged::Footer });
            report.n_bytes += size.saturating_sub(offset);
            (self.segment, self.offset) = (SegmentId(segment.0 + 1), 0);
        }
        Ok(())
    }

    fn trailer(&mut self, scan: &Scan<'_>, size: u64, out: &mut Scrubbed) -> Result<(), Error> {
        let mut bytes = [0; footer::TRAILER];
        let n = scan.file.read_at(self.offset, &mut bytes).map_err(Error::io("read a segment"))?;
        let is_whole = n == bytes.len()
            && footer::from_trailer(&bytes).is_some()
            && size == self.offset + n as u64;
        if !is_whole {
            let (segment, offset) = (self.segment, self.offset);
            out.damaged.push(Damage { segment, offset, what: Damaged::Footer });
        }
        (self.segment, self.offset) = (SegmentId(self.segment.0 + 1), 0);
        Ok(())
    }
}
