//! Rows on their way to whoever scans: laid over older ones, and gathered in pages.

use std::iter::Peekable;

use super::undo::Was;

/// Octets after which a page ends: more would come from the system for each scan, and go back.
pub const PAGE_BYTES_MAX: usize = 64 << 10;

/// Rows laid over others that are visited in ascending order.
pub(super) struct Laid<I: Iterator<Item = Was>> {
    over: Peekable<I>,
    more: bool,
}

impl<I: Iterator<Item = Was>> Laid<I> {
    pub fn over(rows: impl IntoIterator<IntoIter = I>) -> Self {
        Self { over: rows.into_iter().peekable(), more: true }
    }

    /// Visits a row, or what lies over it, after what comes before.
    pub fn visit(
        &mut self,
        key: &[u8],
        value: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> bool {
        while self.more
            && let Some((at, row)) = self.over.next_if(|(at, _)| at.as_slice() < key)
        {
            self.more = row.is_none_or(|row| visit(&at, &row));
        }
        self.more = self.more
            && match self.over.next_if(|(at, _)| at.as_slice() == key) {
                Some((at, row)) => row.is_none_or(|row| visit(&at, &row)),
                None => visit(key, value),
            };
        self.more
    }

    /// Visits what comes after all others.
    pub fn finish(mut self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        self.more && self.over.all(|(at, row)| row.is_none_or(|row| visit(&at, &row)))
    }
}

/// Rows read at once, in two allocations whatever their number.
#[derive(Default)]
pub(super) struct Page {
    bytes: Vec<u8>,
    /// Where each key and each value ends.
    ends: Vec<(usize, usize)>,
}

impl Page {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    pub fn is_full(&self, n_rows: usize) -> bool {
        self.ends.len() == n_rows || self.bytes.len() >= PAGE_BYTES_MAX
    }

    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        begins.zip(&self.ends).map(|(begin, &(key_end, end))| {
            (&self.bytes[begin..key_end], &self.bytes[key_end..end])
        })
    }
}
