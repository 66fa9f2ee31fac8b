//! Base and deltas read as one sorted sequence of rows.

use std::io;
use std::iter::Peekable;
use std::sync::Arc;

use super::file::{Part, PartRows, Row};

/// Rows of all parts, ascending, the newest value of each. Rows that are gone are left out.
pub(crate) struct Merged {
    /// Oldest first.
    parts: Vec<Peekable<PartRows>>,
}

impl Merged {
    /// Reads these files, oldest first.
    pub fn new(parts: &[Arc<Part>]) -> io::Result<Self> {
        let parts = parts.iter().map(|part| Ok(part.rows()?.peekable()));
        Ok(Self { parts: parts.collect::<io::Result<_>>()? })
    }

    /// The next row, removals included.
    pub fn step(&mut self) -> Option<io::Result<Row>> {
        let mut least: Option<Vec<u8>> = None;
        for part in &mut self.parts {
            match part.peek() {
                Some(Ok((key, _))) if least.as_ref().is_none_or(|least| key < least) => {
                    least = Some(key.clone());
                }
                Some(Err(_)) => return part.next(),
                Some(Ok(_)) | None => {}
            }
        }
        let least = least?;
        let mut newest = None;
        for part in &mut self.parts {
            let same = |row: &io::Result<Row>| matches!(row, Ok((key, _)) if *key == least);
            if let Some(row) = part.next_if(same) {
                newest = Some(row);
            }
        }
        newest
    }
}

impl Iterator for Merged {
    type Item = io::Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step()? {
                Ok((key, Some(value))) => return Some(Ok((key, value))),
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
