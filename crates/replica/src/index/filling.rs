//! The order in which ascending rows are put into sled, so that its leaves get full.
//!
//! A leaf of 17 rows is split into one of nine and one of eight. Rows that come in ascending order leave
//! all leaves with nine: twice as many splits, each of which writes the whole parent, and twice as many
//! pages to keep and to read. So of each sixteen rows nine come first, the last among them; the other seven
//! come when the leaf of those has been split from the next one.

use super::Batch;

/// Rows of a full leaf.
const LEAF_ROWS: usize = 16;
/// Whether a row of sixteen comes first. What is between the last of a leaf and the first of the next one
/// would belong to either.
const COMES_FIRST: [bool; LEAF_ROWS] = [
    true, false, true, false, true, false, true, false, true, false, true, false, true, false,
    true, true,
];

/// Rows that came and are not to be put in yet.
#[derive(Default)]
pub(super) struct Filling {
    n_rows: usize,
    last_key: Vec<u8>,
    /// Of the leaf that is at the end,
    held: Batch,
    /// and of the one before.
    due: Batch,
}

impl Filling {
    /// Takes the next rows; gives those to be put in now, in that order.
    pub fn next(&mut self, rows: Batch) -> Batch {
        let mut now = Batch::with_capacity(rows.len() + LEAF_ROWS);
        for row in rows {
            if row.0 <= self.last_key {
                // Why: what came first under the same key must not be put in last.
                now.append(&mut self.rest());
            }
            self.last_key.clone_from(&row.0);
            let place = self.n_rows % LEAF_ROWS;
            self.n_rows += 1;
            if COMES_FIRST[place] {
                now.push(row);
            } else {
                self.held.push(row);
            }
            if place == LEAF_ROWS - 1 {
                now.append(&mut self.due);
                std::mem::swap(&mut self.due, &mut self.held);
            }
        }
        now
    }

    /// Gives the rest.
    pub fn rest(&mut self) -> Batch {
        let mut rest = std::mem::take(&mut self.due);
        rest.append(&mut self.held);
        rest
    }
}
