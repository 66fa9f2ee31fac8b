//! Sequence sets as clients write them, and sets of UIDs cut against each other.

use mailbox::{Uid, UidSet};

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    /// A number, never 0.
    Is(u32),
    /// `*`: the greatest in use.
    Last,
}

/// RFC 9051 9: `sequence-set`, not yet resolved against a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NumberSet {
    /// Ranges, ends in any order.
    Ranges(Vec<(Number, Number)>),
    /// `$`: what the last SEARCH saved (RFC 5182).
    Saved,
}

impl NumberSet {
    /// The ranges with `*` standing for `last`, ascending and apart; `None` for the saved result.
    ///
    /// Why apart: whoever walks them looks at no message twice, however often the client names it.
    pub(crate) fn ranges(&self, last: u32) -> Option<Vec<(u32, u32)>> {
        let value = |number| match number {
            Number::Is(value) => value,
            Number::Last => last,
        };
        let order = |(a, b): &(Number, Number)| {
            let (a, b) = (value(*a), value(*b));
            (a.min(b), a.max(b))
        };
        match self {
            Self::Ranges(ranges) => Some(apart(ranges.iter().map(order).collect())),
            Self::Saved => None,
        }
    }
}

/// The same numbers as ranges that ascend and do not touch.
fn apart(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let touches = next.0 <= before.1.saturating_add(1);
        if touches {
            before.1 = before.1.max(next.1);
        }
        touches
    });
    ranges
}

/// The set of these ranges; 0 is no UID and falls out.
pub(crate) fn uid_set(ranges: &[(u32, u32)]) -> UidSet {
    let pair = |&(a, b): &(u32, u32)| Some((Uid::new(a.max(1))?, Uid::new(b)?));
    UidSet::from_ranges(ranges.iter().filter_map(pair).collect())
}

/// Those in both.
pub(crate) fn intersect(a: &UidSet, b: &UidSet) -> UidSet {
    let (mut a, mut b) = (a.ranges().iter().peekable(), b.ranges().iter().peekable());
    let mut both = Vec::new();
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let (first, last) = (x.0.max(y.0), x.1.min(y.1));
        if first <= last {
            both.push((first, last));
        }
        if x.1 < y.1 {
            a.next()
        } else {
            b.next()
        };
    }
    UidSet::from_ranges(both)
}

/// Those in `a` that are not in `b`.
pub(crate) fn subtract(a: &UidSet, b: &UidSet) -> UidSet {
    let mut left = Vec::new();
    for &(first, last) in a.ranges() {
        let mut from = first.value();
        let at = b.ranges().partition_point(|range| range.1 < first);
        for &(hole_first, hole_last) in &b.ranges()[at..] {
            if hole_first > last {
                break;
            }
            if hole_first.value() > from {
                left.push((from, hole_first.value() - 1));
            }
            from = hole_last.value().saturating_add(1);
            if hole_last >= last {
                break;
            }
        }
        let covered = b.contains(last);
        if !covered && from <= last.value() {
            left.push((from, last.value()));
        }
    }
    uid_set(&left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = UidSet> {
        proptest::collection::vec((1u32..60, 0u32..8), 0..8).prop_map(|ranges| {
            uid_set(&ranges.iter().map(|&(a, n)| (a, a + n)).collect::<Vec<_>>())
        })
    }

    proptest! {
        #[test]
        fn ranges_apart_are_the_same_numbers(
            pairs in proptest::collection::vec((0u32..60, 0u32..60), 0..8),
        ) {
            let number = |n: u32| if n == 0 { Number::Last } else { Number::Is(n) };
            let set = pairs.iter().map(|&(a, b)| (number(a), number(b))).collect();
            let ranges = NumberSet::Ranges(set).ranges(30).expect("ranges");
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let value = |n: u32| if n == 0 { 30 } else { n };
            let named = |n: u32| pairs.iter().any(|&(a, b)| {
                (value(a).min(value(b))..=value(a).max(value(b))).contains(&n)
            });
            let inside = |n: u32| ranges.iter().any(|(a, b)| (*a..=*b).contains(&n));
            prop_assert!((0..70).all(|n| named(n) == inside(n)));
        }

        #[test]
        fn cutting_sets_is_cutting_their_members(a in set(), b in set()) {
            let both: Vec<_> = a.iter().filter(|uid| b.contains(*uid)).collect();
            prop_assert_eq!(intersect(&a, &b).iter().collect::<Vec<_>>(), both);
            let left: Vec<_> = a.iter().filter(|uid| !b.contains(*uid)).collect();
            prop_assert_eq!(subtract(&a, &b).iter().collect::<Vec<_>>(), left);
        }
    }
}
