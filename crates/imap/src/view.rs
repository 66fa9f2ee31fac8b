//! What the client believes the selected mailbox holds: sequence numbers and their UIDs, in runs of
//! UIDs that follow each other, so that a mailbox of a million messages costs a few octets.

use mailbox::{Uid, UidSet};

/// UIDs from `first` to `last`, with `before` messages in front of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
    before: u32,
}

impl Run {
    fn len(&self) -> u32 {
        self.last - self.first + 1
    }
}

/// The map between sequence numbers and UIDs.
/// Invariant: runs ascend, do not touch, and `before` counts what lies in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    runs: Vec<Run>,
}

impl View {
    /// How many messages the client knows.
    pub(crate) fn len(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.before + run.len())
    }

    /// The greatest UID the client knows; 0 if none.
    pub(crate) fn last_uid(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.last)
    }

    /// All UIDs.
    pub(crate) fn uids(&self) -> UidSet {
        set(self.runs.iter().map(|run| (run.first, run.last)))
    }

    /// Those of these UIDs that the client knows. Why not all cut against them: commands name a few, and a
    /// mailbox full of gaps has hundreds of thousands of runs.
    pub(crate) fn known(&self, uids: &UidSet) -> UidSet {
        let mut known = Vec::new();
        for (first, last) in uids.ranges().iter().map(|range| (range.0.value(), range.1.value())) {
            let start = self.runs.partition_point(|run| run.last < first);
            for run in self.runs[start..].iter().take_while(|run| run.first <= last) {
                known.push((run.first.max(first), run.last.min(last)));
            }
        }
        set(known.into_iter())
    }

    /// The range in which all of them lie.
    pub(crate) fn span(&self) -> UidSet {
        let ends = self.runs.first().zip(self.runs.last());
        set(ends.map(|(first, last)| (first.first, last.last)).into_iter())
    }

    /// The sequence number of a message.
    pub(crate) fn seqnum(&self, uid: Uid) -> Option<u32> {
        let uid = uid.value();
        let run = self.runs.get(self.runs.partition_point(|run| run.last < uid))?;
        (run.first <= uid).then(|| run.before + (uid - run.first) + 1)
    }

    /// The UIDs of messages with these sequence numbers; numbers beyond the last fall out.
    pub(crate) fn at(&self, seqnums: &[(u32, u32)]) -> UidSet {
        let mut found = Vec::new();
        for &(first, last) in seqnums {
            let start = self.runs.partition_point(|run| run.before + run.len() < first);
            for run in self.runs[start..].iter().take_while(|run| run.before < last) {
                let from = run.first + first.saturating_sub(run.before + 1);
                let to = run.first + (last - run.before).min(run.len()) - 1;
                found.push((from, to));
            }
        }
        set(found.into_iter())
    }

    /// Ranges of UIDs in which of all known messages lie those with these sequence numbers: as many ranges
    /// as are given, however many gaps the mailbox has.
    pub(crate) fn spans(&self, seqnums: &[(u32, u32)]) -> UidSet {
        let last = self.len();
        set(seqnums.iter().filter_map(|range| {
            Some((self.uid_at(range.0.max(1))?, self.uid_at(range.1.min(last))?))
        }))
    }

    fn uid_at(&self, seqnum: u32) -> Option<u32> {
        let at = self.runs.partition_point(|run| run.before + run.len() < seqnum);
        self.runs.get(at).map(|run| run.first + (seqnum - run.before) - 1)
    }

    /// The sequence numbers of these messages, as ranges.
    pub(crate) fn seqnums(&self, uids: &UidSet) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &(first, last) in uids.ranges() {
            let start = self.runs.partition_point(|run| run.last < first.value());
            for run in self.runs[start..].iter().take_while(|run| run.first <= last.value()) {
                let from = run.before + (first.value().max(run.first) - run.first) + 1;
                let to = run.before + (last.value().min(run.last) - run.first) + 1;
                match ranges.last_mut() {
                    Some(top) if top.1 + 1 == from => top.1 = to,
                    _ => ranges.push((from, to)),
                }
            }
        }
        ranges
    }

    /// Takes in messages with UIDs above all known; others fall out.
    pub(crate) fn append(&mut self, uids: &UidSet) {
        for &(first, last) in uids.ranges() {
            let (first, last) = (first.value().max(self.last_uid() + 1), last.value());
            if first > last {
                continue;
            }
            match self.runs.last_mut() {
                Some(run) if run.last + 1 == first => run.last = last,
                _ => {
                    let before = self.len();
                    self.runs.push(Run { first, last, before });
                }
            }
        }
    }

    /// Forgets these messages.
    pub(crate) fn remove(&mut self, uids: &UidSet) {
        *self = Self::from(&crate::number_set::subtract(&self.uids(), uids));
    }
}

impl From<&UidSet> for View {
    fn from(uids: &UidSet) -> Self {
        let mut view = Self::default();
        view.append(uids);
        view
    }
}

fn set(ranges: impl Iterator<Item = (u32, u32)>) -> UidSet {
    crate::number_set::uid_set(&ranges.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uids(values: &[u32]) -> UidSet {
        values.iter().filter_map(|uid| Uid::new(*uid)).collect()
    }

    proptest! {
        /// A list of UIDs is the plain way to have the same map.
        #[test]
        fn the_view_is_a_list(
            known in proptest::collection::btree_set(1u32..80, 0..30),
            gone in proptest::collection::btree_set(1u32..80, 0..30),
            ranges in proptest::collection::vec((1u32..40, 1u32..40), 0..4),
        ) {
            let mut list: Vec<u32> = known.into_iter().collect();
            let mut view = View::from(&uids(&list));
            view.remove(&uids(&gone.iter().copied().collect::<Vec<_>>()));
            list.retain(|uid| !gone.contains(uid));
            prop_assert_eq!(view.len() as usize, list.len());
            let ends = list.first().zip(list.last());
            let ends = ends.map(|(first, last)| (*first, *last));
            prop_assert_eq!(view.span(), set(ends.into_iter()));
            for uid in 1..90 {
                let at = list.iter().position(|known| *known == uid).map(|at| at as u32 + 1);
                prop_assert_eq!(view.seqnum(Uid::new(uid).unwrap()), at);
            }
            let ranges: Vec<_> = ranges.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
            let inside = |n: u32| ranges.iter().any(|(a, b)| (*a..=*b).contains(&n));
            let numbered = (1u32..).zip(&list).filter(|(n, _)| inside(*n));
            let picked: Vec<u32> = numbered.map(|(_, uid)| *uid).collect();
            prop_assert_eq!(view.at(&ranges), uids(&picked));
            let spans = view.spans(&ranges);
            prop_assert!(spans.ranges().len() <= ranges.len());
            let inside_spans: Vec<u32> =
                list.iter().copied().filter(|uid| spans.contains(Uid::new(*uid).unwrap())).collect();
            prop_assert_eq!(inside_spans, picked.clone());
            let named: Vec<u32> = list.iter().copied().filter(|uid| inside(*uid)).collect();
            prop_assert_eq!(view.known(&set(ranges.iter().copied())), uids(&named));
            let seqnums = view.seqnums(&uids(&picked));
            let numbers: Vec<u32> = seqnums.iter().flat_map(|(a, b)| *a..=*b).collect();
            let wanted: Vec<u32> = (1..=list.len() as u32).filter(|n| inside(*n)).collect();
            prop_assert_eq!(numbers, wanted);
        }
    }
}
