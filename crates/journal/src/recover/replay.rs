//! Frames below the last known sync, applied in their order.

use bytes::Bytes;

use super::{Damage, Damaged, Recovered, RecoveredEntry, RecoveredReplica};
use crate::error::Error;
use crate::footer;
use crate::frame::{FRAME_HEAD, FrameHead, FrameKind, walk};
use crate::manifest::Manifest;
use crate::options::ENTRY_HEAD_BYTES;
use crate::record::{DiskId, Location, Pointer, Record, ReplicaId, SegmentId, Written};
use crate::scan::{Outline, Scan, frame_end};
use crate::state::{ReplicaState, State};

pub(super) struct Replay {
    pub disk: DiskId,
    pub state: State,
    pub recovered: Recovered,
    /// Damage came before any replica was known, so whoever appears may have lost something.
    is_blind: bool,
}

impl Replay {
    pub fn new(disk: DiskId) -> Self {
        Self { disk, state: State::default(), recovered: Recovered::default(), is_blind: false }
    }

    pub fn damage(&mut self, segment: SegmentId, offset: u64, what: Damaged) {
        match &what {
            Damaged::Segment | Damaged::Records => {
                self.is_blind = true;
                let known: Vec<_> = self.state.replicas.keys().copied().collect();
                known.into_iter().for_each(|replica| self.suspect(replica));
            }
            Damaged::Record(replica) => self.suspect(*replica),
            Damaged::Manifest | Damaged::Footer | Damaged::Body(..) => {}
        }
        tracing::warn!(%segment, offset, ?what, "damage in the journal");
        self.recovered.damaged.push(Damage { segment, offset, what });
    }

    fn suspect(&mut self, replica: ReplicaId) {
        self.state.replicas.entry(replica).or_default().suspect = true;
        self.recovered.replicas.entry(replica).or_default().is_suspect = true;
    }

    /// Replays what lies below `durable` and returns the bodies found.
    pub fn segment(
        &mut self,
        scan: &Scan<'_>,
        outline: &Outline,
        durable: u64,
    ) -> Result<Vec<Location>, Error> {
        let mut bodies = Vec::new();
        let mut has_manifest = false;
        let mut expected = 0;
        for (offset, head) in outline.frames.iter().filter(|(offset, _)| *offset < durable) {
            if *offset > expected {
                self.damage(scan.segment, expected, Damaged::Records);
            }
            expected = frame_end(*offset, head);
            match head.kind {
                FrameKind::Records => self.records(scan, (*offset, head), &mut bodies)?,
                FrameKind::Manifest => {
                    let payload = scan.payload(*offset, head)?;
                    match payload.as_deref().and_then(Manifest::decode) {
                        Some(manifest) if !has_manifest => {
                            has_manifest = true;
                            self.adopt(&manifest);
                        }
                        Some(_) => {}
                        None => self.damage(scan.segment, *offset, Damaged::Manifest),
                    }
                }
                FrameKind::Footer => {
                    let payload = scan.payload(*offset, head)?;
                    if payload.and_then(|bytes| footer::decode(&bytes, scan.segment)).is_none() {
                        self.damage(scan.segment, *offset, Damaged::Footer);
                    }
                }
                FrameKind::Mark => {}
            }
        }
        let trailer = if outline.is_sealed() { footer::TRAILER as u64 } else { 0 };
        if expected + trailer < durable {
            self.damage(scan.segment, expected, Damaged::Records);
        }
        if !has_manifest {
            self.damage(scan.segment, 0, Damaged::Records);
        }
        Ok(bodies)
    }

    fn records(
        &mut self,
        scan: &Scan<'_>,
        (offset, head): (u64, &FrameHead),
        bodies: &mut Vec<Location>,
    ) -> Result<(), Error> {
        let Some(payload) = scan.payload(offset, head)? else {
            self.damage(scan.segment, offset, Damaged::Records);
            return Ok(());
        };
        let walked = walk(&payload, scan.segment, scan.salt(), offset + FRAME_HEAD as u64);
        for (pointer, stored) in walked.records {
            let written = Written { record: pointer, blobs: stored.blobs };
            self.learn(&stored.record, &written, bodies);
        }
        if walked.bad.is_empty() && walked.heads_crc != head.payload_crc {
            self.damage(scan.segment, offset, Damaged::Records);
        }
        for bad in walked.bad {
            let (offset, what) = bad.place();
            self.damage(scan.segment, offset, what);
        }
        Ok(())
    }

    /// Takes over one record and where it lies.
    pub fn learn(&mut self, record: &Record, written: &Written, bodies: &mut Vec<Location>) {
        let replica = record.replica();
        for (blob, pointer) in record.blobs().iter().zip(&written.blobs) {
            bodies.push(Location { replica, digest: blob.digest, pointer: *pointer });
        }
        let is_new = !self.state.replicas.contains_key(&replica);
        self.state.apply(record, written.record.segment);
        let known = self.recovered.replicas.entry(replica).or_default();
        known.apply(record, written.record);
        if is_new && self.is_blind && known.born.is_none() {
            self.suspect(replica);
        }
    }

    /// A manifest restates everything but entries, so it also heals what damage before it took.
    fn adopt(&mut self, manifest: &Manifest) {
        for (id, told) in &manifest.state.replicas {
            let is_new = !self.state.replicas.contains_key(id);
            let state = self.state.replicas.entry(*id).or_default();
            let spans = std::mem::take(&mut state.spans);
            let suspect = state.suspect || told.suspect || (is_new && self.is_blind);
            *state = ReplicaState { spans, suspect, ..told.clone() };
            if let Some(last) = told.last_index {
                state.truncate(last.saturating_add(1));
            }
            if let Some((floor, meta)) = &told.floor {
                state.purge(*floor, meta);
            }
            state.last_index = told.last_index;
            let known = self.recovered.replicas.entry(*id).or_default();
            known.adopt(told, suspect);
        }
    }
}

impl RecoveredReplica {
    fn apply(&mut self, record: &Record, pointer: Pointer) {
        match record {
            Record::Vote { vote, .. } => self.vote = Some(own(vote)),
            Record::Append { index, meta, .. } => {
                let head = own(&meta[..meta.len().min(ENTRY_HEAD_BYTES)]);
                self.entries.insert(*index, RecoveredEntry { pointer, head });
            }
            Record::Truncate { from_index_inclusive, .. } => {
                self.entries.split_off(from_index_inclusive);
            }
            Record::Purge { upto_index_inclusive, meta, .. } => {
                self.purge(*upto_index_inclusive, meta);
            }
            Record::Committed { meta, .. } => self.committed = Some(own(meta)),
            Record::Born { meta, .. } => self.born = Some(own(meta)),
            Record::Dead { .. } => *self = Self { is_dead: true, ..Self::default() },
            Record::Blobs { .. } => {}
        }
    }

    fn purge(&mut self, upto: u64, meta: &Bytes) {
        if self.purge_floor.as_ref().is_none_or(|(floor, _)| *floor <= upto) {
            self.purge_floor = Some((upto, own(meta)));
            self.entries = self.entries.split_off(&upto.saturating_add(1));
        }
    }

    fn adopt(&mut self, told: &ReplicaState, suspect: bool) {
        self.born.clone_from(&told.born);
        self.is_dead = told.dead;
        self.is_suspect = suspect;
        self.vote.clone_from(&told.vote);
        self.committed.clone_from(&told.committed);
        if let Some((floor, meta)) = &told.floor {
            self.purge(*floor, meta);
        }
        match told.last_index {
            Some(last) => drop(self.entries.split_off(&last.saturating_add(1))),
            None => self.entries.clear(),
        }
    }
}

/// A copy that does not keep the whole frame in memory.
fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
