//! Account and Accounts: what is known of accounts.

use crate::answer::{AccountRecord, Answer};
use crate::command::AccountState;
use crate::ids::AccountId;
use crate::ledger;
use crate::outcome::Refusal;
use crate::row::{self, AccountRow, UsageRow};
use crate::rows::Source;
use crate::table::{self, Fields};

/// Limit: accounts in one page.
pub const ACCOUNTS_PAGE_MAX: usize = 512;

pub(super) fn answer(rows: &dyn Source, account: AccountId) -> Result<Answer, Refusal> {
    let row = ledger::account_row(rows, account)?;
    Ok(Answer::Account(Box::new(record(rows, account, row))))
}

/// Accounts on their way out are not among them.
pub(super) fn list(rows: &dyn Source, after: Option<AccountId>) -> Answer {
    let end = table::end_of(&table::accounts());
    let mut from = match after {
        Some(account) => table::end_of(&table::everything_of(account)),
        None => table::accounts(),
    };
    let mut records = Vec::new();
    loop {
        let mut next: Option<(AccountId, Option<AccountRow>)> = None;
        rows.scan(&from, &end, &mut |key, value| {
            let account = AccountId(Fields(key).id(1));
            let row = (key == table::account(account)).then(|| row::read(value));
            next = Some((account, row));
            false
        });
        let Some((account, row)) = next else {
            return Answer::Accounts(records, false);
        };
        if let Some(row) = row.filter(|row| row.state != AccountState::Deleting) {
            if records.len() == ACCOUNTS_PAGE_MAX {
                return Answer::Accounts(records, true);
            }
            records.push(record(rows, account, row));
        }
        from = table::end_of(&table::everything_of(account));
    }
}

fn record(rows: &dyn Source, account: AccountId, row: AccountRow) -> AccountRecord {
    let usage: UsageRow = row::load(rows, &table::usage(account)).unwrap_or_default();
    AccountRecord {
        account,
        name: row.name,
        aliases: row.aliases,
        password_hash: row.password_hash,
        state: row.state,
        quota: row.quota,
        storage_bytes: usage.storage_bytes,
        n_messages: usage.n_messages,
    }
}
