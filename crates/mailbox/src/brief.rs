//! Briefs: what SEARCH, THREAD and listings read of a message's metadata, short and ready for them. They are
//! made for many neighbours at once, and a source that has room for them keeps them.
//!
//! Metadata never changes once it is written and no [`EmailId`] is used again, so a kept block can only
//! lack contents that came later, or have some that nobody has any more.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};

use crate::ids::{AccountId, EmailId};
use crate::rows::RowChanges;
use crate::table::{self, Fields};

/// Contents in one block: enough that its look-up costs each of them little, and few enough that all are
/// read when a query wants some of them.
pub(crate) const CONTENTS: u64 = 128;
/// A brief that is longer is left out, so that a block stays below 256 KiB.
const BRIEF_BYTES_MAX: usize = 2048;

/// Octets of a [`Block::name`].
const NAME_BYTES: usize = 25;

/// So many contents that came to an account at once are a whole mailbox being filled, which is likely to be
/// searched. Of single messages the briefs are made when somebody asks.
const MANY: usize = 32;

/// Which briefs these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Header fields, as SEARCH compares them.
    Texts,
    /// Relations between messages, for THREAD.
    Relations,
    /// Envelopes as listings tell them.
    Envelopes,
}

const KINDS: [Kind; 3] = [Kind::Texts, Kind::Relations, Kind::Envelopes];

/// Names the briefs of neighbouring contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    account: AccountId,
    /// The number of its first content, divided by [`CONTENTS`].
    number: u64,
    kind: Kind,
}

impl Block {
    pub(crate) fn of(account: AccountId, email: EmailId, kind: Kind) -> Self {
        Self { account, number: email.0 / CONTENTS, kind }
    }

    /// The blocks that are not true any more when the row of this key changes.
    pub fn changed_by(key: &[u8]) -> Option<[Block; 3]> {
        let (account, email) = table::of_metadata(key)?;
        Some(KINDS.map(|kind| Self::of(account, email, kind)))
    }

    /// The blocks of accounts to which many contents came with these changes, as far as no more will come to
    /// them: those of which a later neighbour is there.
    pub fn completed_by(changes: &RowChanges) -> Vec<Block> {
        let mut came = BTreeMap::<AccountId, (usize, BTreeSet<u64>)>::new();
        let written = changes.iter().filter(|(_, value)| value.is_some());
        for (account, email) in written.filter_map(|(key, _)| table::of_metadata(key)) {
            let (n_contents, numbers) = came.entry(account).or_default();
            *n_contents += 1;
            numbers.insert(email.0 / CONTENTS);
        }
        let of_many = came.into_iter().filter(|(_, (n_contents, _))| *n_contents >= MANY);
        let blocks = of_many.flat_map(|(account, (_, mut numbers))| {
            numbers.pop_last();
            let first = numbers.first().copied();
            numbers.extend(first.and_then(|first| first.checked_sub(1)));
            let kind = Kind::Texts;
            numbers.into_iter().map(move |number| Block { account, number, kind })
        });
        blocks.collect()
    }

    /// Its name where briefs are kept for longer than a process runs; see [`crate::briefs_format`].
    pub fn name(&self) -> [u8; NAME_BYTES] {
        let mut name = [0; NAME_BYTES];
        name[0] = self.kind as u8;
        name[1..17].copy_from_slice(&self.account.0);
        name[17..].copy_from_slice(&self.number.to_be_bytes());
        name
    }

    /// The block of this name.
    pub fn named(name: &[u8; NAME_BYTES]) -> Option<Self> {
        let (mut number, account) = (&name[17..], AccountId(Fields(name).id(1)));
        let kind = *KINDS.get(usize::from(name[0]))?;
        Some(Self { account, number: number.get_u64(), kind })
    }

    /// Whether these briefs have that of the last content of their block, behind which none comes.
    pub fn is_complete(briefs: &[u8]) -> bool {
        find(briefs, EmailId(CONTENTS - 1)).is_some()
    }

    pub(crate) fn with(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Where the rows lie that it is made of: from this key to before that one.
    pub fn rows(&self) -> (Vec<u8>, Vec<u8>) {
        let first = self.number * CONTENTS;
        let key = |email| table::metadata(self.account, EmailId(email));
        (key(first), key(first.saturating_add(CONTENTS)))
    }

    pub(crate) fn has(&self, email: EmailId) -> bool {
        self.number == email.0 / CONTENTS
    }
}

/// Puts briefs together.
pub(crate) struct Packer {
    /// Where the brief of each content ends.
    ends: Vec<u32>,
    briefs: Vec<u8>,
}

impl Packer {
    pub(crate) fn new() -> Self {
        Self { ends: Vec::with_capacity(CONTENTS as usize), briefs: Vec::new() }
    }

    /// Adds what `make` writes for the content whose metadata lie under this key; keys ascend.
    pub(crate) fn add(&mut self, key: &[u8], make: impl FnOnce(&mut Vec<u8>)) {
        let place = (Fields(key).u64(18) % CONTENTS) as usize;
        let end = self.briefs.len();
        self.ends.resize(place, end as u32);
        make(&mut self.briefs);
        if self.briefs.len() - end > BRIEF_BYTES_MAX {
            self.briefs.truncate(end);
        }
        self.ends.push(self.briefs.len() as u32);
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.ends.resize(CONTENTS as usize, self.briefs.len() as u32);
        let mut block = Vec::with_capacity(4 * self.ends.len() + self.briefs.len());
        self.ends.iter().for_each(|end| block.put_u32(*end));
        block.extend_from_slice(&self.briefs);
        block.into()
    }
}

/// The brief of a content; `None` if the block has none.
pub(crate) fn find(block: &[u8], email: EmailId) -> Option<&[u8]> {
    let (ends, briefs) = block.split_at_checked(4 * CONTENTS as usize)?;
    let end_of = |place: usize| {
        let end = ends[4 * place..][..4].try_into().expect("four octets");
        u32::from_be_bytes(end) as usize
    };
    let place = (email.0 % CONTENTS) as usize;
    let begin = if place == 0 { 0 } else { end_of(place - 1) };
    briefs.get(begin..end_of(place)).filter(|brief| !brief.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brief_is_found_where_it_was_put() {
        let account = AccountId([1; 16]);
        let key = |email| table::metadata(account, EmailId(email));
        let mut packer = Packer::new();
        let long = [7; BRIEF_BYTES_MAX];
        packer.add(&key(CONTENTS + 1), |brief| brief.extend_from_slice(b"one"));
        packer.add(&key(CONTENTS + 2), |brief| brief.extend_from_slice(&long));
        packer.add(&key(CONTENTS + 3), |brief| brief.put_bytes(7, BRIEF_BYTES_MAX + 1));
        packer.add(&key(CONTENTS + 9), |brief| brief.extend_from_slice(b"nine"));
        let block = packer.finish();
        for n in 0..CONTENTS {
            let wanted: Option<&[u8]> = match n {
                1 => Some(b"one"),
                2 => Some(&long),
                9 => Some(b"nine"),
                _ => None,
            };
            assert_eq!(find(&block, EmailId(CONTENTS + n)), wanted, "{n}");
        }
        assert_eq!(find(b"", EmailId(1)), None);
        assert!(!Block::is_complete(&block));
    }

    #[test]
    fn a_block_is_complete_with_its_last_content() {
        let mut packer = Packer::new();
        let last = table::metadata(AccountId([1; 16]), EmailId(2 * CONTENTS - 1));
        packer.add(&last, |brief| brief.extend_from_slice(b"last"));
        assert!(Block::is_complete(&packer.finish()));
        assert!(!Block::is_complete(&Packer::new().finish()) && !Block::is_complete(b""));
    }

    #[test]
    fn a_block_has_a_name_of_its_own() {
        let account = |n| AccountId([n; 16]);
        let mut names = BTreeSet::new();
        for (kind, n, email) in KINDS.into_iter().flat_map(|kind| {
            [(1, 0), (1, CONTENTS), (2, 0), (2, u64::MAX)].map(|(n, email)| (kind, n, email))
        }) {
            let block = Block::of(account(n), EmailId(email), kind);
            assert_eq!(Block::named(&block.name()), Some(block));
            assert!(names.insert(block.name()));
        }
        assert_eq!(Block::named(&[KINDS.len() as u8; NAME_BYTES]), None);
    }

    #[test]
    fn blocks_are_complete_when_many_came_and_a_later_one_is_there() {
        let key = |account, email| table::metadata(AccountId([account; 16]), EmailId(email));
        let completed = |emails: &mut dyn Iterator<Item = (u8, u64)>| {
            let came = emails.map(|(account, email)| (key(account, email), Some(Vec::new())));
            let blocks = Block::completed_by(&came.collect());
            blocks.iter().map(|block| (block.account.0[0], block.number)).collect::<Vec<_>>()
        };
        let many = MANY as u64;
        let around = 3 * CONTENTS - many / 2..3 * CONTENTS + many / 2;
        let of = |account: u8| around.clone().map(move |email| (account, email));
        assert_eq!(completed(&mut of(1)), [(1, 1), (1, 2)], "and the one before");
        assert_eq!(completed(&mut of(1).skip(1)), []);
        assert_eq!(completed(&mut of(1).skip(1).chain(of(2))), [(2, 1), (2, 2)]);
        assert_eq!(completed(&mut (0..CONTENTS).map(|email| (1, email))), []);
        assert_eq!(completed(&mut (0..=CONTENTS).map(|email| (1, email))), [(1, 0)]);
        let far = (1..many).map(|email| (1, email)).chain([(1, u64::MAX)]);
        assert_eq!(completed(&mut far.into_iter()), [(1, 0)], "what lies between is not there");
        let gone = around.map(|email| (key(1, email), None)).collect();
        assert_eq!(Block::completed_by(&gone), []);
    }

    #[test]
    fn a_row_changes_the_blocks_that_are_made_of_it_and_no_others() {
        let account = AccountId([1; 16]);
        let blocks = |email| Block::changed_by(&table::metadata(account, EmailId(email)));
        for email in [0, 1, CONTENTS - 1, CONTENTS, u64::MAX] {
            for block in blocks(email).expect("it is a row of metadata") {
                let (from, to) = block.rows();
                let key = table::metadata(account, EmailId(email));
                assert!(block.has(EmailId(email)) && from <= key);
                assert!(key < to || email == u64::MAX);
            }
        }
        assert_ne!(blocks(CONTENTS - 1), blocks(CONTENTS));
        assert_eq!(Block::changed_by(&table::content(account, EmailId(1))), None);
        assert_eq!(Block::changed_by(&table::accounts()), None);
    }
}
