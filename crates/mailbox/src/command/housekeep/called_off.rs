//! What is left of moves that were called off: changes noted where the account stays, and rows that came to
//! where it does not go. A few at a time.

use super::Budget;
use crate::command::ROWS_MAX;
use crate::ids::AccountId;
use crate::moving::{self, Moving};
use crate::row::{self, ForgetRow};
use crate::rows::{Rows, Source};
use crate::table::{self, Fields};

/// Limit: rows of chunks, whosever they are, that one step looks at for those of one account.
const EXAMINED_MAX: usize = 4096;

/// False if there is more to do.
pub(super) fn apply(rows: &mut Rows<'_>, budget: &Budget) -> bool {
    drop_notes(rows, budget) && forget(rows, budget)
}

/// Notes are of use to a move that is under way, and to no other.
fn drop_notes(rows: &mut Rows<'_>, budget: &Budget) -> bool {
    let (mut from, end) = (table::changes(), table::end_of(&table::changes()));
    loop {
        let mut first = None;
        rows.scan(&from, &end, &mut |key, _| {
            first = Some(key.to_vec());
            false
        });
        let Some(key) = first else {
            return true;
        };
        let account = AccountId(Fields(&key).id(1));
        if matches!(moving::of(rows, account), Some(Moving::Leaving { .. })) {
            from = table::end_of(&table::all_changed(account));
            continue;
        }
        if !budget.fits(rows.n_writes(), 4) {
            return false;
        }
        rows.remove(&key);
        from = [&key[..], &[0]].concat();
    }
}

fn forget(rows: &mut Rows<'_>, budget: &Budget) -> bool {
    while let Some(key) = row::first_keys(rows, &table::forgets(), 1).pop() {
        if !forget_account(rows, AccountId(Fields(&key).id(1)), budget) {
            return false;
        }
        rows.remove(&key);
    }
    true
}

/// Why not as a deleted account is reclaimed: its rows came in no order, and what they count may be
/// elsewhere or nowhere.
fn forget_account(rows: &mut Rows<'_>, account: AccountId, budget: &Budget) -> bool {
    for prefix in [table::everything_of(account), table::all_held(account)] {
        for key in row::first_keys(rows, &prefix, ROWS_MAX) {
            if !budget.fits(rows.n_writes(), 4) {
                return false;
            }
            rows.remove(&key);
        }
        if row::has_any(rows, &prefix) {
            return false;
        }
    }
    forget_chunks(rows, account, budget)
}

/// Rows of chunks lie by digest, so those of all accounts are looked at, once.
fn forget_chunks(rows: &mut Rows<'_>, account: AccountId, budget: &Budget) -> bool {
    let n_max = budget.n_writes.saturating_sub(rows.n_writes());
    if n_max == 0 {
        return false;
    }
    let at = table::forget(account);
    let ForgetRow { after } = row::load(rows, &at).unwrap_or_default();
    let chunks = table::chunks();
    let from = match &after {
        Some(after) => [after.as_slice(), &[0]].concat(),
        None => chunks.clone(),
    };
    let (mut found, mut n_seen, mut last) = (Vec::new(), 0, None);
    rows.scan(&from, &table::end_of(&chunks), &mut |key, _| {
        if table::account_of(key) == Some(account) {
            found.push(key.to_vec());
        }
        n_seen += 1;
        let is_enough = n_seen >= EXAMINED_MAX || found.len() >= n_max;
        last = is_enough.then(|| key.to_vec());
        !is_enough
    });
    for key in &found {
        rows.remove(key);
    }
    match last {
        Some(last) => {
            row::save(rows, at, &ForgetRow { after: Some(last.into()) });
            false
        }
        None => true,
    }
}
