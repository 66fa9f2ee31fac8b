//! The rows of deleted mailboxes and accounts, a few at a time.

use super::{Budget, ROWS_PER_ITEM_MAX, ROWS_PER_UPLOAD_MAX, is_alive};
use crate::command::delete_account::WHOLE_ACCOUNT;
use crate::command::{OfMailbox, ROWS_MAX, SLICE_ROWS_MAX, upload};
use crate::content;
use crate::ids::{AccountId, LogTime, MailboxId, UploadId};
use crate::ledger::Ledger;
use crate::message::{self, Messages};
use crate::row::{self, ContentRow, GoneRow};
use crate::rows::{Rows, Source};
use crate::table::{self, Fields, Table};
use crate::uid_set::UidSet;

/// False if there is more to do.
pub(super) fn apply(rows: &mut Rows<'_>, now: LogTime, before: LogTime, budget: &Budget) -> bool {
    loop {
        let mut first = None;
        rows.scan(&table::reclaims(), &table::reclaims_before(before), &mut |key, _| {
            first = Some(key.to_vec());
            false
        });
        let Some(key) = first else {
            return true;
        };
        if !budget.fits(rows.n_writes(), ROWS_PER_ITEM_MAX) {
            return false;
        }
        let account = AccountId(Fields(&key).id(9));
        let mailbox = MailboxId(Fields(&key).u64(25));
        let all_gone = if mailbox == WHOLE_ACCOUNT {
            reclaim_account(rows, now, account, budget)
        } else {
            !is_alive(rows, account) || reclaim_mailbox(rows, now, (account, mailbox), budget)
        };
        if !all_gone {
            return false;
        }
        rows.remove(&key);
    }
}

fn reclaim_mailbox(
    rows: &mut Rows<'_>,
    now: LogTime,
    (account, mailbox): (AccountId, MailboxId),
    budget: &Budget,
) -> bool {
    let n_writes = rows.n_writes();
    let mut ledger = Ledger::reopen(rows, now, account);
    let all_gone = empty_mailbox(&mut ledger, mailbox, n_writes, budget);
    if all_gone {
        ledger.rows.remove(&table::keywords(account, mailbox));
        ledger.forget_mailbox(mailbox);
    }
    ledger.close();
    all_gone
}

fn empty_mailbox(
    ledger: &mut Ledger<'_, '_>,
    mailbox: MailboxId,
    n_writes: usize,
    budget: &Budget,
) -> bool {
    let account = ledger.account;
    let Some(row) = ledger.any_mailbox(mailbox).cloned() else {
        return true;
    };
    let messages = Messages::of(ledger.rows, OfMailbox { account, mailbox }, &row);
    let n_max = SLICE_ROWS_MAX / 2;
    let (slice, next) = messages.slice(ledger.rows, &UidSet::all(), n_max, &mut |_| true);
    for found in &slice {
        if !budget.fits(n_writes + ledger.n_writes(), ROWS_PER_ITEM_MAX) {
            return false;
        }
        message::reclaim(ledger, mailbox, found);
    }
    if next.is_some() {
        return false;
    }
    for table in [Table::Gone, Table::Expunged, Table::Extent, Table::Gap] {
        let prefix = table::of_mailbox(account, table, mailbox);
        for key in row::first_keys(ledger.rows, &prefix, ROWS_MAX) {
            if !budget.fits(n_writes + ledger.n_writes(), ROWS_PER_ITEM_MAX) {
                return false;
            }
            if table == Table::Gone {
                let gone: Option<GoneRow> = row::load(ledger.rows, &key);
                let email = gone.expect("it was just scanned").state.email;
                content::release(ledger, email);
            }
            if table == Table::Extent {
                ledger.rows.remove(&table::settle(account, mailbox, Fields(&key).uid()));
            }
            ledger.rows.remove(&key);
        }
        if row::has_any(ledger.rows, &prefix) {
            return false;
        }
    }
    true
}

/// Contents first, since they hold on to chunks; then uploads; then whatever is left.
fn reclaim_account(rows: &mut Rows<'_>, now: LogTime, account: AccountId, budget: &Budget) -> bool {
    let n_writes = rows.n_writes();
    let mut ledger = Ledger::reopen(rows, now, account);
    let contents = table::table(account, Table::Content);
    for key in row::first_keys(ledger.rows, &contents, ROWS_MAX) {
        if !budget.fits(n_writes + ledger.n_writes(), ROWS_PER_ITEM_MAX) {
            ledger.close();
            return false;
        }
        let content: Option<ContentRow> = row::load(ledger.rows, &key);
        for chunk in content.iter().flat_map(|content| &content.chunks) {
            ledger.refer(chunk.digest, chunk.raw_len, -1);
        }
        ledger.rows.remove(&key);
    }
    ledger.close();
    while let Some(key) = row::first_keys(rows, &table::uploads_of(account), 1).pop() {
        if !budget.fits(rows.n_writes(), ROWS_PER_UPLOAD_MAX) {
            return false;
        }
        let mut ledger = Ledger::reopen(rows, now, account);
        upload::drop_upload(&mut ledger, UploadId(Fields(&key).id(17)));
        ledger.close();
    }
    for key in row::first_keys(rows, &table::stagings_of(account), ROWS_MAX) {
        if !budget.fits(rows.n_writes(), 4) {
            return false;
        }
        rows.remove(&key);
    }
    for key in row::first_keys(rows, &table::all_changed(account), ROWS_MAX) {
        if !budget.fits(rows.n_writes(), 4) {
            return false;
        }
        rows.remove(&key);
    }
    let everything = table::everything_of(account);
    let account_row = table::account(account);
    let mut keys = Vec::new();
    rows.scan(&everything, &table::end_of(&everything), &mut |key, _| {
        if key != account_row {
            keys.push(key.to_vec());
        }
        keys.len() < ROWS_MAX
    });
    for key in &keys {
        if !budget.fits(rows.n_writes(), 4) {
            return false;
        }
        rows.remove(key);
    }
    if keys.len() == ROWS_MAX {
        return false;
    }
    rows.remove(&account_row);
    true
}
