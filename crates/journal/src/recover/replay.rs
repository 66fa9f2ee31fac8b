//! Frames below the last known sync, applied in their order.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Damage, Damaged, Recovered, RecoveredEntry, RecoveredReplica};
use crate::error::Error;
use crate::footer;
use crate::frame::{Bad, FRAME_HEAD, FrameHead, FrameKind, walk};
use crate::manifest::Manifest;
use crate::options::ENTRY_HEAD_BYTES;
use crate::record::{DiskId, Location, Pointer, Record, ReplicaId, SegmentId, Written};
use crate::scan::{Outline, Scan, frame_end};
use crate::state::{ReplicaState, State};

pub(super) struct Replay {
    pub disk: DiskId,
    pub state: State,
    pub recovered: Recovered,
    /// Damage since the last manifest may have taken votes and purges of these,
    doubted: BTreeSet<ReplicaId>,
    /// and, since it is not known whose records it took, of whoever is not known yet.
    is_blind: bool,
    /// Damage took whole records.
    has_holes: bool,
}

impl Replay {
    pub fn new(disk: DiskId) -> Self {
        Self {
            disk,
            state: State::default(),
            recovered: Recovered::default(),
            doubted: BTreeSet::new(),
            is_blind: false,
            has_holes: false,
        }
    }

    pub fn damage(&mut self, segment: SegmentId, offset: u64, what: Damaged) {
        match &what {
            Damaged::Segment | Damaged::Records => {
                self.is_blind = true;
                self.has_holes = true;
                let known: Vec<_> = self.state.replicas.keys().copied().collect();
                known.into_iter().for_each(|replica| self.doubt(replica));
            }
            Damaged::Record(replica) => self.doubt(*replica),
            Damaged::Entry(replica, index) => self.lose(*replica, *index, segment),
            Damaged::Manifest | Damaged::Footer | Damaged::Mended | Damaged::Body(..) => {}
        }
        tracing::warn!(%segment, offset, ?what, "damage in the journal");
        self.recovered.damaged.push(Damage { segment, offset, what });
    }

    /// Its vote may be an old one, and its entries may have been replaced.
    fn doubt(&mut self, replica: ReplicaId) {
        self.doubted.insert(replica);
        let known = self.recovered.replicas.entry(replica).or_default();
        known.lost_upto = known.lost_upto.max(known.entries.keys().next_back().copied());
    }

    /// An entry was here. It was the last of its log then.
    fn lose(&mut self, replica: ReplicaId, index: u64, segment: SegmentId) {
        self.has_holes = true;
        let state = self.state.replicas.entry(replica).or_default();
        state.truncate(index);
        state.append(index, segment);
        let known = self.recovered.replicas.entry(replica).or_default();
        known.entries.split_off(&index);
        known.lost_upto = known.lost_upto.max(Some(index));
    }

    /// After the last record: what is missing for good, and what a log has holes for.
    pub fn judge(&mut self) {
        for replica in std::mem::take(&mut self.doubted) {
            self.suspect(replica);
        }
        if !self.has_holes {
            return;
        }
        for (id, known) in &mut self.recovered.replicas {
            let floor = known.purge_floor.as_ref().map(|(floor, _)| *floor);
            let mut lost = known.lost_upto;
            // Why zero: where a log without a floor begins is not known here.
            let mut next = floor.map_or(0, |floor| floor + 1);
            for index in known.entries.keys() {
                if next != *index {
                    lost = lost.max(index.checked_sub(1));
                }
                next = index + 1;
            }
            let last = self.state.replicas.get(id).and_then(|state| state.last_index);
            lost = lost.max(last.filter(|last| next <= *last));
            known.lost_upto = lost.filter(|lost| floor.is_none_or(|floor| *lost > floor));
        }
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
            if outline.mended.contains(offset) {
                self.damage(scan.segment, *offset, Damaged::Mended);
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
        let is_changed = walked.is_whole() && walked.heads_crc != head.payload_crc;
        let mut bad = walked.bad.into_iter().map(Bad::place).peekable();
        for (pointer, stored) in walked.records {
            // Why in between: what is lost came before or after what is left.
            while let Some((offset, what)) = bad.next_if(|(at, _)| *at < pointer.offset) {
                self.damage(scan.segment, offset, what);
            }
            let written = Written { record: pointer, blobs: stored.blobs };
            self.learn(&stored.record, &written, bodies);
        }
        bad.for_each(|(offset, what)| self.damage(scan.segment, offset, what));
        if is_changed {
            self.damage(scan.segment, offset, Damaged::Records);
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
            self.doubted.insert(replica);
        }
    }

    /// A manifest restates everything but entries, so it also heals what damage before it took.
    fn adopt(&mut self, manifest: &Manifest) {
        self.doubted.clear();
        self.is_blind = false;
        for (id, told) in &manifest.state.replicas {
            let state = self.state.replicas.entry(*id).or_default();
            let spans = std::mem::take(&mut state.spans);
            let suspect = told.suspect;
            *state = ReplicaState { spans, ..told.clone() };
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
                // Why: an entry is appended at the end, so what lies behind it was cut before.
                self.cut(*index);
                self.entries.insert(*index, RecoveredEntry { pointer, head });
            }
            Record::Truncate { from_index_inclusive, .. } => self.cut(*from_index_inclusive),
            Record::Purge { upto_index_inclusive, meta, .. } => {
                self.purge(*upto_index_inclusive, meta);
            }
            Record::Committed { meta, .. } => self.committed = Some(own(meta)),
            Record::Born { meta, .. } => self.born = Some(own(meta)),
            Record::Dead { .. } => *self = Self { is_dead: true, ..Self::default() },
            Record::Blobs { .. } => {}
        }
    }

    /// Entries from here on are gone, and with them what damage did to them before.
    fn cut(&mut self, from: u64) {
        // Why it is asked: mostly nothing is there, and to split that off took a sixth of the time in which a
        // journal is read.
        if self.entries.last_key_value().is_some_and(|(last, _)| *last >= from) {
            self.entries.split_off(&from);
        }
        self.lost_upto = self.lost_upto.min(from.checked_sub(1));
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
