//! Moving, AccountRows, ChangedRows: what whoever moves an account has to know.

use std::collections::{BTreeMap, BTreeSet};

use crate::answer::Answer;
use crate::command::MovedRow;
use crate::ids::AccountId;
use crate::moving::{self, ChangedKeys};
use crate::outcome::Refusal;
use crate::row::{self, ContentRow, PieceRow};
use crate::rows::Source;
use crate::table;

/// Limit: rows in one page, those of chunks not counted,
const ROWS_PAGE_MAX: usize = 256;
/// their bytes,
const BYTES_PAGE_MAX: usize = 512 << 10;
/// and rows looked at for it.
const EXAMINED_MAX: usize = 8192;

pub(super) fn moving(rows: &dyn Source, account: AccountId) -> Answer {
    Answer::Moving(moving::of(rows, account))
}

/// Rows of an account in order of their keys; those of its chunks come with what refers to them.
pub(super) fn all(
    rows: &dyn Source,
    account: AccountId,
    after: Option<&[u8]>,
) -> Result<Answer, Refusal> {
    // Why: once it left, rows are being reclaimed, and are not what they were.
    moving::readable(rows, account)?;
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let (mut n_bytes, mut n_seen) = (0, 0);
    let mut next = None;
    for prefix in table::all_of_scanned(account) {
        let end = table::end_of(&prefix);
        let from = match after {
            Some(after) if after >= end.as_slice() => continue,
            Some(after) if after >= prefix.as_slice() => [after, &[0]].concat(),
            _ => prefix,
        };
        rows.scan(&from, &end, &mut |key, value| {
            n_seen += 1;
            if table::account_of(key) == Some(account) {
                n_bytes += key.len() + value.len();
                found.push((key.to_vec(), value.to_vec()));
            }
            let is_full =
                found.len() >= ROWS_PAGE_MAX || n_bytes >= BYTES_PAGE_MAX || n_seen >= EXAMINED_MAX;
            next = is_full.then(|| key.to_vec());
            !is_full
        });
        if next.is_some() {
            break;
        }
    }
    let mut page = BTreeMap::new();
    for (key, value) in found {
        let chunks = match table::refers(&key) {
            Some(table::Refers::Content) => row::read::<ContentRow>(&value).chunks,
            Some(table::Refers::Piece) => row::read::<PieceRow>(&value).chunks,
            None => Vec::new(),
        };
        for chunk in chunks {
            let key = table::chunk(&chunk.digest, account);
            if let Some(value) = rows.row(&key) {
                page.insert(key, value);
            }
        }
        page.insert(key, value);
    }
    let row = |(key, value)| MovedRow { key, value: Some(value) };
    Ok(Answer::AccountRows(page.into_iter().map(row).collect(), next.map(Into::into)))
}

/// What changed after so many changes, as it is now; and up to which change that is.
pub(super) fn changed(
    rows: &dyn Source,
    account: AccountId,
    after: u64,
) -> Result<Answer, Refusal> {
    moving::readable(rows, account)?;
    let mut keys: BTreeSet<Vec<u8>> = BTreeSet::new();
    let (mut upto, mut more) = (after, false);
    let from = table::changed(account, after.saturating_add(1));
    rows.scan(&from, &table::end_of(&table::all_changed(account)), &mut |_, value| {
        if keys.len() >= ROWS_PAGE_MAX {
            more = true;
            return false;
        }
        keys.extend(row::read::<ChangedKeys>(value).keys.into_iter().map(Vec::from));
        upto += 1;
        true
    });
    let row = |key: Vec<u8>| MovedRow { value: rows.row(&key), key };
    Ok(Answer::ChangedRows(keys.into_iter().map(row).collect(), upto, more))
}
