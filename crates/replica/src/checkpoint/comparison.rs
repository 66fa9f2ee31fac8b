//! Which rows are other than a checkpoint has them.

use std::io;
use std::iter::Peekable;
use std::sync::Arc;

use super::file::Part;
use super::merge::Merged;

/// Reads a checkpoint beside rows that somebody else reads, once for both.
pub(crate) struct Comparison {
    then: io::Result<Peekable<Merged>>,
    differing: Vec<Vec<u8>>,
}

impl Comparison {
    /// With a checkpoint of these files, oldest first.
    pub fn new(parts: &[Arc<Part>]) -> Self {
        let then = Merged::new(parts).map(Iterator::peekable);
        Self { then, differing: Vec::new() }
    }

    /// The next row; they come in ascending order.
    pub fn row(&mut self, key: &[u8], value: &[u8]) {
        let Ok(then) = &mut self.then else { return };
        loop {
            match then.peek() {
                Some(Ok((old, _))) if old.as_slice() < key => self.differing.extend(next_key(then)),
                Some(Ok((old, old_value))) if old.as_slice() == key => {
                    if old_value != value {
                        self.differing.push(key.to_vec());
                    }
                    then.next();
                    return;
                }
                Some(Err(_)) => {
                    if let Some(Err(error)) = then.next() {
                        self.then = Err(error);
                    }
                    return;
                }
                Some(Ok(_)) | None => {
                    self.differing.push(key.to_vec());
                    return;
                }
            }
        }
    }

    /// Keys of the rows that differ, ascending, those that are gone among them, once all rows were there.
    pub fn finish(mut self) -> io::Result<Vec<Vec<u8>>> {
        for row in self.then? {
            self.differing.push(row?.0);
        }
        Ok(self.differing)
    }
}

fn next_key(rows: &mut Peekable<Merged>) -> Option<Vec<u8>> {
    rows.next()?.ok().map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::file::Head;
    use super::*;
    use crate::store::Applied;

    type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

    fn part(dir: &std::path::Path, from: u64, rows: &[(u8, Option<u8>)]) -> Arc<Part> {
        let row =
            |(key, value): &(u8, Option<u8>)| Ok((vec![*key], value.map(|value| vec![value])));
        let head = Head { from, applied: Applied::default() };
        Part::write(dir, &head, &mut rows.iter().map(row)).unwrap()
    }

    fn differing(parts: &[Arc<Part>], rows: &Rows) -> io::Result<Vec<Vec<u8>>> {
        let mut comparison = Comparison::new(parts);
        rows.iter().for_each(|(key, value)| comparison.row(key, value));
        comparison.finish()
    }

    /// Every set of rows of four keys against the same checkpoint.
    #[test]
    fn rows_that_came_changed_and_went_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let base = part(dir.path(), 0, &[(0, Some(1)), (1, Some(1)), (2, Some(1))]);
        let delta = part(dir.path(), 1, &[(1, Some(2)), (2, None)]);
        let then = Rows::from([(vec![0], vec![1]), (vec![1], vec![2])]);
        let parts = [base, delta];
        for case in 0..81_u32 {
            let value = |key: u8| case / 3_u32.pow(key.into()) % 3;
            let keys = (0..4_u8).filter(|key| value(*key) > 0);
            let rows: Rows = keys.map(|key| (vec![key], vec![value(key) as u8])).collect();
            let differs = |key: &u8| rows.get(&vec![*key]) != then.get(&vec![*key]);
            let expected: Vec<Vec<u8>> = (0..4).filter(differs).map(|key| vec![key]).collect();
            assert_eq!(differing(&parts, &rows).unwrap(), expected, "{rows:?}");
        }
        assert_eq!(differing(&[], &then).unwrap(), [vec![0], vec![1]]);
    }

    #[test]
    fn a_checkpoint_that_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let noise = |n: u8| (n, Some(n.wrapping_mul(n).wrapping_mul(167)));
        let part = part(dir.path(), 0, &(0..=255).map(noise).collect::<Vec<_>>());
        let mut bytes = std::fs::read(&part.path).unwrap();
        let end = bytes.len() - 40;
        bytes[end - 60..end].fill(0xaa);
        std::fs::write(&part.path, &bytes).unwrap();
        let rows = Rows::from([(vec![0], vec![0]), (vec![255], vec![0])]);
        assert!(differing(&[part], &rows).is_err());
    }
}
