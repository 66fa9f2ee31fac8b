//! Sets of UIDs as sorted ranges.

use minicbor::{Decode, Decoder, Encode};

use crate::ids::Uid;

/// Limit: ranges in one command that changes messages. It changes fewer than that, and is a log entry: all
/// that are to be done, in each of the commands, would be gigabytes for a large mailbox full of gaps.
const RANGES_PER_COMMAND_MAX: usize = 1024;

/// Invariant: ranges are sorted, disjoint, not adjacent; each is first..=last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode)]
pub struct UidSet {
    #[n(0)]
    ranges: Vec<(Uid, Uid)>,
}

impl UidSet {
    /// No UID at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every UID there can be.
    pub fn all() -> Self {
        Self { ranges: vec![(Uid::FIRST, Uid::LAST)] }
    }

    /// All from `first` to `last`, both included; the order of the two does not matter.
    pub fn range(first: Uid, last: Uid) -> Self {
        Self { ranges: vec![(first.min(last), first.max(last))] }
    }

    /// The union of ranges in any order.
    pub fn from_ranges(mut ranges: Vec<(Uid, Uid)>) -> Self {
        for range in &mut ranges {
            *range = (range.0.min(range.1), range.0.max(range.1));
        }
        ranges.sort_unstable();
        let mut set = Self::new();
        for (first, last) in ranges {
            match set.ranges.last_mut() {
                Some(top) if first.value() <= top.1.value().saturating_add(1) => {
                    top.1 = top.1.max(last);
                }
                _ => set.ranges.push((first, last)),
            }
        }
        set
    }

    /// Adds a UID greater than all before it.
    pub fn push(&mut self, uid: Uid) {
        match self.ranges.last_mut() {
            Some(top) if uid.value() == top.1.value().saturating_add(1) => top.1 = uid,
            Some(top) => {
                assert!(uid > top.1, "UIDs are pushed in ascending order");
                self.ranges.push((uid, uid));
            }
            None => self.ranges.push((uid, uid)),
        }
    }

    /// The sorted, disjoint ranges.
    pub fn ranges(&self) -> &[(Uid, Uid)] {
        &self.ranges
    }

    /// Whether no UID is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many UIDs are in the set.
    pub fn n_uids(&self) -> u64 {
        self.ranges.iter().map(|(a, b)| u64::from(b.value() - a.value()) + 1).sum()
    }

    /// Whether this UID is in the set.
    pub fn contains(&self, uid: Uid) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < uid);
        self.ranges.get(at).is_some_and(|range| range.0 <= uid)
    }

    /// The UIDs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Uid> + '_ {
        self.ranges.iter().flat_map(|(a, b)| (a.value()..=b.value()).filter_map(Uid::new))
    }

    /// The first so many ranges.
    pub fn head(&self, n_ranges: usize) -> Self {
        Self { ranges: self.ranges[..self.ranges.len().min(n_ranges)].to_vec() }
    }

    /// Those of the set that are above `uid`.
    pub fn above(&self, uid: Uid) -> Self {
        Uid::new(uid.value().saturating_add(1))
            .filter(|next| *next > uid)
            .map_or_else(Self::new, |next| self.starting_at(next))
    }

    /// Those of the set that are not below `uid`.
    pub fn starting_at(&self, uid: Uid) -> Self {
        let from = self.ranges.partition_point(|range| range.1 < uid);
        let mut ranges = self.ranges[from..].to_vec();
        if let Some(first) = ranges.first_mut() {
            first.0 = first.0.max(uid);
        }
        Self { ranges }
    }
}

/// UIDs that one command after the other works off.
#[derive(Clone, Debug)]
pub struct Slices {
    ranges: Vec<(Uid, Uid)>,
    /// Those before it are done.
    at: usize,
}

impl Slices {
    /// All that is to be done.
    pub fn new(uids: UidSet) -> Self {
        Self { ranges: uids.ranges, at: 0 }
    }

    fn named(&self) -> std::ops::Range<usize> {
        self.at..self.ranges.len().min(self.at + RANGES_PER_COMMAND_MAX)
    }

    /// What the next command is to name; `None` when all is done.
    pub fn next_command(&self) -> Option<UidSet> {
        let ranges = &self.ranges[self.named()];
        (!ranges.is_empty()).then(|| UidSet { ranges: ranges.to_vec() })
    }

    /// That command is done: up to before this UID, or whole.
    pub fn done(&mut self, next: Option<Uid>) {
        let named = self.named();
        self.at = named.end;
        if let Some(next) = next {
            self.at =
                named.start + self.ranges[named.clone()].partition_point(|range| range.1 < next);
        }
        if let (Some(next), Some(first)) = (next, self.ranges[..named.end].get_mut(self.at)) {
            first.0 = first.0.max(next);
        }
    }
}

/// What `Encode` writes, before the invariant is made sure of.
#[derive(Decode)]
struct Ranges {
    #[n(0)]
    ranges: Vec<(Uid, Uid)>,
}

impl<'b, C> Decode<'b, C> for UidSet {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let Ranges { ranges } = decoder.decode()?;
        let is_sorted = ranges.iter().all(|(first, last)| first <= last)
            && ranges.windows(2).all(|pair| pair[0].1.value() < pair[1].0.value() - 1);
        Ok(if is_sorted { Self { ranges } } else { Self::from_ranges(ranges) })
    }
}

impl FromIterator<Uid> for UidSet {
    /// In any order, doubles allowed.
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> Self {
        Self::from_ranges(uids.into_iter().map(|uid| (uid, uid)).collect())
    }
}

impl std::fmt::Display for UidSet {
    /// As IMAP writes it: `1:3,7`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (first, last)) in self.ranges.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}:{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_come_to_an_end_with_each_uid_named_once() {
        // Gaps, so that each UID but the first ones is a range of its own.
        let all: UidSet = (1..5).chain((6..10_000).step_by(2)).filter_map(Uid::new).collect();
        let mut slices = Slices::new(all.clone());
        let mut done = Vec::new();
        while let Some(uids) = slices.next_command() {
            assert!(uids.ranges().len() <= RANGES_PER_COMMAND_MAX);
            // Each does 300 at most, and tells the first it did not do.
            let next = uids.iter().nth(300);
            done.extend(uids.iter().take_while(|uid| Some(*uid) != next));
            slices.done(next);
        }
        assert_eq!(done, all.iter().collect::<Vec<_>>());
        assert_eq!(Slices::new(UidSet::new()).next_command(), None);
    }
}
