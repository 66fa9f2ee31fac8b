//! What scrub knows of a disk: when each segment was verified, what is damaged, what was healed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use journal::{Pointer, Scrubbed, SegmentId};
use mailbox::{Digest, LogTime};
use tokio::time::Instant;

/// The file that keeps the times over a restart.
const NOTE: &str = "scrubbed";

/// The first and the longest pause before a segment is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(600);

/// What scrub did and found on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes verified since the start, several times each as time goes on.
    pub verified_bytes: u64,
    /// Damaged places found since the start.
    pub n_damaged: u64,
    /// Those of them that are healed.
    pub n_repaired: u64,
    /// Bodies that are damaged now and that no peer has.
    pub n_unrepairable: u64,
    /// For how long the byte that was not verified for longest waits, in milliseconds.
    pub oldest_unverified_ms: u64,
    /// Where scrub stands in the journal: segment and offset.
    pub place: Option<(u64, u64)>,
    /// Whole passes since the start.
    pub n_passes: u64,
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// When scrub first knew of it.
    seen: LogTime,
    /// When it was last read to `end`.
    verified: Option<LogTime>,
    end: u64,
}

/// What a damaged place is to those who know of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No news.
    Known,
    /// The first one of its segment.
    First,
    /// One more of its segment.
    More,
}

/// A segment with damage.
#[derive(Default)]
struct Condemned {
    places: BTreeSet<u64>,
    /// When to try again; `None` at once.
    due: Option<Instant>,
    waited: Duration,
}

/// See [`ScrubStatus`].
#[derive(Default)]
pub(crate) struct Ledger {
    pub verified_bytes: u64,
    pub n_damaged: u64,
    pub n_repaired: u64,
    /// Replicas whose index is to be built anew,
    pub indexes: BTreeSet<u64>,
    /// and whose checkpoint is to be written anew.
    pub checkpoints: BTreeSet<u64>,
    /// Bodies that no peer has, by replica.
    pub unrepairable: BTreeSet<(u64, Digest)>,
    /// Segments that are to be emptied and deleted.
    condemned: BTreeMap<SegmentId, Condemned>,
    times: BTreeMap<SegmentId, Times>,
    place: Option<(SegmentId, u64)>,
    n_begun: u64,
    n_passes: u64,
    /// Passes up to this one are to be as fast as it goes.
    hurried_upto: u64,
}

impl Ledger {
    /// A pass begins.
    pub fn begin_pass(&mut self) {
        self.n_begun += 1;
    }

    /// The pass that was begun did not come to its end, and counts as never begun. Nobody is in a hurry any
    /// more: what cannot be read now is tried again with the next one.
    pub fn give_up_pass(&mut self) {
        self.n_begun -= 1;
        self.hurried_upto = 0;
    }

    /// One whole pass from now on is wanted soon; gives what `n_passes` is when it is done.
    pub fn hurry_passes(&mut self) -> u64 {
        self.hurried_upto = self.n_begun + 1;
        self.hurry();
        self.hurried_upto
    }

    /// Whether a pass is wanted that is not done yet.
    pub fn is_hurried(&self) -> bool {
        self.n_passes < self.hurried_upto
    }

    /// A place is damaged.
    pub fn condemn(&mut self, segment: SegmentId, offset: u64) -> Found {
        let condemned = self.condemned.entry(segment).or_default();
        let is_first = condemned.places.is_empty();
        if !condemned.places.insert(offset) {
            return Found::Known;
        }
        self.n_damaged += 1;
        (condemned.due, condemned.waited) = (None, Duration::ZERO);
        if is_first { Found::First } else { Found::More }
    }

    /// Whether something is damaged that is to be healed now.
    pub fn is_anything_to_heal(&self) -> bool {
        !self.indexes.is_empty() || !self.checkpoints.is_empty() || !self.due().is_empty()
    }

    /// Segments to be emptied now.
    pub fn due(&self) -> Vec<SegmentId> {
        let now = Instant::now();
        let due = self.condemned.iter().filter(|(_, one)| one.due.is_none_or(|due| due <= now));
        due.map(|(segment, _)| *segment).collect()
    }

    /// All of them, whenever they were tried.
    pub fn hurry(&mut self) {
        self.condemned.values_mut().for_each(|one| one.due = None);
    }

    /// A segment could not be emptied; the next attempt comes later each time.
    pub fn put_off(&mut self, segment: SegmentId) {
        if let Some(one) = self.condemned.get_mut(&segment) {
            one.waited = (one.waited * 2).clamp(AGAIN_AFTER, AGAIN_AFTER_MAX);
            one.due = Some(Instant::now() + one.waited);
        }
    }

    /// A segment is gone, and with it what was damaged; gives how many places that were.
    pub fn healed(&mut self, segment: SegmentId) -> u64 {
        let condemned = self.condemned.remove(&segment).unwrap_or_default();
        let n_places = condemned.places.len() as u64;
        self.n_repaired += n_places;
        n_places
    }

    /// A replica left the disk: what was damaged of its own files went with it.
    pub fn forget(&mut self, replica: u64) {
        self.n_repaired += u64::from(self.indexes.remove(&replica));
        self.n_repaired += u64::from(self.checkpoints.remove(&replica));
        self.unrepairable.retain(|(of, _)| *of != replica);
    }

    /// One step of a pass was done; with all segments that there are, if they are not those of before.
    pub fn learn(&mut self, step: &Scrubbed, segments: Option<&[SegmentId]>, now: LogTime) {
        self.verified_bytes += step.n_bytes;
        self.place = step.oldest_unverified;
        if let Some(segments) = segments {
            self.times.retain(|segment, _| segments.binary_search(segment).is_ok());
            for segment in segments {
                let unknown = Times { seen: now, verified: None, end: 0 };
                self.times.entry(*segment).or_insert(unknown);
            }
        }
        for (segment, end) in &step.read {
            if let Some(times) = self.times.get_mut(segment) {
                (times.verified, times.end) = (Some(now), *end);
            }
        }
    }

    /// When a place was last verified; `None` if not since it was written.
    pub fn verified_at(&self, place: Pointer) -> Option<LogTime> {
        let times = self.times.get(&place.segment)?;
        let is_damaged = |one: &Condemned| one.places.contains(&place.offset);
        if self.condemned.get(&place.segment).is_some_and(is_damaged) {
            return None;
        }
        times.verified.filter(|_| place.offset + u64::from(place.len) <= times.end)
    }

    pub fn status(&self, segments: &[SegmentId], now: LogTime) -> ScrubStatus {
        let since = segments.iter().filter_map(|segment| self.times.get(segment));
        let oldest = since.map(|times| times.verified.unwrap_or(times.seen)).min();
        ScrubStatus {
            verified_bytes: self.verified_bytes,
            n_damaged: self.n_damaged,
            n_repaired: self.n_repaired,
            n_unrepairable: self.unrepairable.len() as u64,
            oldest_unverified_ms: oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0)),
            place: self.place.map(|(segment, offset)| (segment.0, offset)),
            n_passes: self.n_passes,
        }
    }

    /// A whole pass is done; gives what [`keep`] writes.
    pub fn end_pass(&mut self, now: LogTime) -> String {
        self.n_passes += 1;
        let mut note = format!("rookery scrub {}\n", now.0);
        for (segment, times) in &self.times {
            let verified = times.verified.map_or(0, |at| at.0);
            note += &format!("{segment} {} {verified} {}\n", times.seen.0, times.end);
        }
        let crc = crc32c::crc32c(note.as_bytes());
        note + &format!("{crc:08x}\n")
    }

    /// Takes over the times that an earlier start left, unless it knows newer ones.
    pub fn recall(&mut self, left: BTreeMap<SegmentId, Times>) {
        for (segment, times) in left {
            self.times.entry(segment).or_insert(times);
        }
    }
}

/// The times that an earlier start left, if it did.
pub(super) fn left(dir: &Path) -> BTreeMap<SegmentId, Times> {
    read(dir).unwrap_or_default()
}

/// Writes the note. It is a cache: nobody waits for it to be durable.
pub(super) fn keep(dir: &Path, note: &str) -> io::Result<()> {
    let new = dir.join(format!("{NOTE}.new"));
    std::fs::write(&new, note)?;
    // Durability: none; a note that is lost or torn is one that was never kept.
    std::fs::rename(new, dir.join(NOTE))
}

fn read(dir: &Path) -> Option<BTreeMap<SegmentId, Times>> {
    let text = std::fs::read_to_string(dir.join(NOTE)).ok()?;
    let (note, crc) = text.trim_end().rsplit_once('\n')?;
    let note = format!("{note}\n");
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(note.as_bytes()) {
        return None;
    }
    let mut found = BTreeMap::new();
    for line in note.lines().skip(1) {
        let mut numbers = line.split(' ').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let (segment, seen, verified, end) = (SegmentId(next()?), next()?, next()?, next()?);
        let verified = (verified > 0).then_some(LogTime(verified));
        found.insert(segment, Times { seen: LogTime(seen), verified, end });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a disk that reads nothing any more each body is a damaged place.
    #[test]
    fn of_a_segment_the_first_damage_is_told_from_the_others() {
        let mut ledger = Ledger::default();
        let found = [(4, 90), (4, 90), (4, 120), (5, 90)];
        let found = found.map(|(segment, offset)| ledger.condemn(SegmentId(segment), offset));
        assert_eq!(found, [Found::First, Found::Known, Found::More, Found::First]);
        assert_eq!((ledger.n_damaged, ledger.healed(SegmentId(4))), (3, 2));
        assert_eq!((ledger.n_repaired, ledger.condemn(SegmentId(4), 90)), (2, Found::First));
    }

    #[test]
    fn a_pass_that_was_given_up_is_none() {
        let mut ledger = Ledger::default();
        let goal = ledger.hurry_passes();
        ledger.begin_pass();
        ledger.give_up_pass();
        assert_eq!((ledger.n_passes, ledger.is_hurried()), (0, false));
        ledger.begin_pass();
        ledger.end_pass(LogTime(1));
        assert_eq!(ledger.n_passes, goal, "the next whole one counts");
    }

    #[test]
    fn times_live_through_a_restart_and_a_damaged_note_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        let read_to = vec![(SegmentId(4), 100)];
        let step = Scrubbed { read: read_to, n_bytes: 100, ..Scrubbed::default() };
        ledger.learn(&Scrubbed::default(), Some(&[SegmentId(4), SegmentId(5)]), LogTime(7_000));
        ledger.learn(&step, None, LogTime(7_000));
        let note = ledger.end_pass(LogTime(8_000));
        keep(dir.path(), &note).unwrap();
        let mut again = Ledger::default();
        again.recall(left(dir.path()));
        assert_eq!(again.times, ledger.times);
        let place = |offset, len| Pointer { segment: SegmentId(4), offset, len };
        assert_eq!(again.verified_at(place(90, 10)), Some(LogTime(7_000)));
        assert_eq!(again.verified_at(place(90, 11)), None, "written later");
        again.condemn(SegmentId(4), 90);
        assert_eq!(again.verified_at(place(90, 10)), None, "damaged");
        let segments = [SegmentId(4), SegmentId(5)];
        assert_eq!(again.status(&segments, LogTime(9_500)).oldest_unverified_ms, 2_500);
        std::fs::write(dir.path().join(NOTE), note.replace("100", "900")).unwrap();
        assert_eq!(read(dir.path()), None);
    }
}
