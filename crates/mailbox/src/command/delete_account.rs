//! DeleteAccount: gone at once for everybody, its rows wait to be reclaimed.

use crate::command::AccountState;
use crate::ids::{AccountId, LogTime, MailboxId};
use crate::ledger;
use crate::moving::{self, Moving};
use crate::outcome::{Outcome, Refusal};
use crate::row;
use crate::rows::Rows;
use crate::table;

/// Stands for the whole account among what is to be reclaimed; no mailbox has it.
pub(crate) const WHOLE_ACCOUNT: MailboxId = MailboxId(0);

pub(crate) fn apply(
    rows: &mut Rows<'_>,
    now: LogTime,
    account: AccountId,
) -> Result<Outcome, Refusal> {
    if !matches!(moving::of(rows, account), None | Some(Moving::Stayed { .. })) {
        return Err(Refusal::Moving);
    }
    let mut row = ledger::account_row(rows, account)?;
    row.state = AccountState::Deleting;
    row::save(rows, table::account(account), &row);
    rows.put(table::reclaim(now, account, WHOLE_ACCOUNT), table::marker());
    Ok(Outcome::Done)
}
