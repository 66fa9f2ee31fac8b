//! Keys in their order, kept small: of each only what it does not share with the one before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Limit: octets that a key can share with the one before, since one octet tells how many.
const SHARED_MAX: usize = u8::MAX as usize;
/// In the place of a length: it is this large or larger, and told in the four octets that follow.
const IS_LONG: u8 = u8::MAX;

/// Ascending keys, each once. Of each: how many octets it shares, how many of its own follow, and those.
pub(super) struct Run(Box<[u8]>);

impl Run {
    pub fn new(mut keys: Vec<Vec<u8>>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        let (mut packed, mut before) = (Vec::new(), &[][..]);
        for key in &keys {
            let n_shared =
                before.iter().zip(key).take(SHARED_MAX).take_while(|(a, b)| a == b).count();
            let own = &key[n_shared..];
            packed.push(n_shared as u8);
            if own.len() < usize::from(IS_LONG) {
                packed.push(own.len() as u8);
            } else {
                packed.push(IS_LONG);
                packed.extend((own.len() as u32).to_le_bytes());
            }
            packed.extend(own);
            before = key;
        }
        Self(packed.into_boxed_slice())
    }

    pub fn keys(&self) -> Keys<'_> {
        Keys { rest: &self.0, key: Vec::new() }
    }

    #[cfg(test)]
    pub fn packed(&self) -> &[u8] {
        &self.0
    }
}

pub(super) struct Keys<'a> {
    rest: &'a [u8],
    /// The one that was given out last.
    key: Vec<u8>,
}

impl Iterator for Keys<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let (&[n_shared, n_own], mut rest) = self.rest.split_first_chunk()?;
        let mut n_own = u32::from(n_own);
        if n_own == u32::from(IS_LONG) {
            let (long, behind) = rest.split_first_chunk()?;
            (n_own, rest) = (u32::from_le_bytes(*long), behind);
        }
        let (own, rest) = rest.split_at_checked(n_own as usize)?;
        self.rest = rest;
        self.key.truncate(usize::from(n_shared));
        self.key.extend(own);
        Some(self.key.clone())
    }
}

/// The keys of these runs and of one that is not packed, in their order, each once.
pub(super) fn merged<'a>(
    runs: impl Iterator<Item = Keys<'a>>,
    mut other: Vec<Vec<u8>>,
) -> impl Iterator<Item = Vec<u8>> {
    type Ascending<'a> = Box<dyn Iterator<Item = Vec<u8>> + 'a>;
    other.sort_unstable();
    let mut runs: Vec<Ascending<'a>> = runs.map(|run| Box::new(run) as Ascending<'a>).collect();
    runs.push(Box::new(other.into_iter()));
    let first = |(n, run): (usize, &mut Ascending<'a>)| Some(Reverse((run.next()?, n)));
    let mut heads: BinaryHeap<Reverse<(Vec<u8>, usize)>> =
        runs.iter_mut().enumerate().filter_map(first).collect();
    let mut last: Option<Vec<u8>> = None;
    std::iter::from_fn(move || {
        loop {
            let Reverse((key, n)) = heads.pop()?;
            heads.extend(runs[n].next().map(|next| Reverse((next, n))));
            if last.as_ref() != Some(&key) {
                last = Some(key.clone());
                return Some(key);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_one_mailbox_take_little_more_than_what_differs() {
        let key = |n: u32| [&[7; 21][..], &n.to_be_bytes()].concat();
        let run = Run::new((0..2048).map(key).collect());
        assert!(run.packed().len() < 2048 * 4, "{}", run.packed().len());
        assert!(run.keys().eq((0..2048).map(key)));
    }

    #[test]
    fn keys_may_be_long_and_share_much() {
        let keys: Vec<Vec<u8>> =
            [0, 1, 254, 255, 256, 300, 70_000].map(|len| vec![b'a'; len]).to_vec();
        assert!(Run::new(keys.clone()).keys().eq(keys));
    }

    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0..3_u8, 0..6), 0..20)
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out_in_order_and_once(
            runs in prop::collection::vec(keys(), 0..5),
            other in keys(),
        ) {
            let packed: Vec<Run> = runs.iter().cloned().map(Run::new).collect();
            let mut expected = runs.concat();
            expected.extend(other.iter().cloned());
            expected.sort();
            expected.dedup();
            let found: Vec<Vec<u8>> = merged(packed.iter().map(Run::keys), other).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
