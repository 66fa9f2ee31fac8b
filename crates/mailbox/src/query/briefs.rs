//! Briefs of many messages one after the other.

use bytes::Bytes;

use crate::brief::{self, Block, Kind, Packer};
use crate::ids::{AccountId, EmailId};
use crate::query::prefetch::NEAR;
use crate::query::{search, thread};
use crate::rows::Source;

/// Neighbours that were wanted one after the other before a block is made: whoever looks at a few messages
/// that lie far apart would read a hundred others for each.
const NEIGHBOURS_MIN: u32 = 16;

/// What briefs are now. Raised with whatever is put into them, and with what texts are folded to.
const FORMAT: &str = "briefs 3";

/// Makes a brief of encoded metadata.
pub(super) type Make = fn(&[u8], &mut Vec<u8>);

/// Reads briefs of one account.
pub(super) struct Briefs<'s> {
    rows: &'s dyn Source,
    account: AccountId,
    kind: Kind,
    make: Make,
    /// The one looked for last, and its briefs if there are any.
    block: Option<(Block, Option<Bytes>)>,
    last: Option<EmailId>,
    n_neighbours: u32,
}

impl<'s> Briefs<'s> {
    pub(super) fn new(
        rows: &'s dyn Source,
        account: AccountId,
        (kind, make): (Kind, Make),
    ) -> Self {
        Self { rows, account, kind, make, block: None, last: None, n_neighbours: 0 }
    }

    /// The brief of a content that is there; `None`: its row has to be read.
    pub(super) fn find(&mut self, email: EmailId) -> Option<&[u8]> {
        let is_near = self.last.is_some_and(|last| last < email && email.0 - last.0 <= NEAR);
        self.n_neighbours = if is_near { self.n_neighbours.saturating_add(1) } else { 0 };
        self.last = Some(email);
        if !self.block.as_ref().is_some_and(|(block, _)| block.has(email)) {
            let block = Block::of(self.account, email, self.kind);
            self.block = Some((block, self.rows.briefs(&block)));
        }
        let (block, briefs) = self.block.as_mut()?;
        if briefs.is_none() && self.n_neighbours >= NEIGHBOURS_MIN {
            *briefs = Some(made(self.rows, block, self.make));
        }
        brief::find(briefs.as_ref()?, email)
    }
}

/// See [`crate::briefs_format`].
pub(crate) fn format() -> u64 {
    // Why so: how ids are hashed is the standard library's, which may have another way some day.
    thread::hash(FORMAT)
}

/// See [`crate::prepare`].
pub(crate) fn prepare(rows: &dyn Source, block: &Block) {
    let wanted = [search::BRIEFS, thread::BRIEFS].map(|(kind, make)| (block.with(kind), make));
    let mut lacking: Vec<_> = wanted
        .into_iter()
        .filter(|(block, _)| rows.briefs(block).is_none())
        .map(|(block, make)| (block, make, Packer::new()))
        .collect();
    if lacking.is_empty() {
        return;
    }
    let (from, to) = block.rows();
    rows.scan(&from, &to, &mut |key, row| {
        for (_, make, packer) in &mut lacking {
            packer.add(key, |brief| make(row, brief));
        }
        true
    });
    for (block, _, packer) in lacking {
        rows.keep_briefs(&block, &packer.finish());
    }
}

fn made(rows: &dyn Source, block: &Block, make: Make) -> Bytes {
    let mut packer = Packer::new();
    let (from, to) = block.rows();
    rows.scan(&from, &to, &mut |key, row| {
        packer.add(key, |brief| make(row, brief));
        true
    });
    let briefs = packer.finish();
    rows.keep_briefs(block, &briefs);
    briefs
}
