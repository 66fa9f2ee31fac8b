//! Briefs: what SEARCH, THREAD and listings read of a message's metadata, short and ready for them. They are
//! made for many neighbours at once, and a source that has room for them keeps them.
//!
//! Metadata never changes once it is written and no [`EmailId`] is used again, so a kept block can only
//! lack contents that came later, or have some that nobody has any more.

use bytes::{BufMut, Bytes};

use crate::ids::{AccountId, EmailId};
use crate::table::{self, Fields};

/// Contents in one block: enough that its look-up costs each of them little, and few enough that all are
/// read when a query wants some of them.
pub(crate) const CONTENTS: u64 = 128;
/// A brief that is longer is left out, so that a block stays below 256 KiB.
const BRIEF_BYTES_MAX: usize = 2048;

/// Which briefs these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Header fields, as SEARCH compares them.
    Texts,
    /// Relations between messages, for THREAD.
    Relations,
    /// Envelopes as listings tell them.
    Envelopes,
}

/// Names the briefs of neighbouring contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
        Some(
            [Kind::Texts, Kind::Relations, Kind::Envelopes]
                .map(|kind| Self::of(account, email, kind)),
        )
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
