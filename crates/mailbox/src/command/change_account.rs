//! ChangeAccount: one property of an account.

use crate::command::{AccountChange, AccountState, ChangeAccount};
use crate::ids::LogTime;
use crate::ledger;
use crate::outcome::{Outcome, Refusal};
use crate::row;
use crate::rows::Rows;
use crate::table;

/// Limit: further addresses of one account.
pub const ALIASES_MAX: usize = 1000;

pub(crate) fn apply(
    rows: &mut Rows<'_>,
    now: LogTime,
    cmd: &ChangeAccount,
) -> Result<Outcome, Refusal> {
    let mut row = ledger::account_row(rows, cmd.account)?;
    match &cmd.change {
        AccountChange::Name(name) => row.name = name.clone(),
        AccountChange::AddAlias(alias) => {
            if !row.aliases.contains(alias) {
                row.aliases.push(alias.clone());
            }
            if row.aliases.len() > ALIASES_MAX {
                return Err(Refusal::Limit("aliases".into()));
            }
        }
        AccountChange::RemoveAlias(alias) => row.aliases.retain(|kept| kept != alias),
        AccountChange::PasswordHash(hash) => row.password_hash = hash.clone(),
        AccountChange::Quota(quota) => row.quota = *quota,
        AccountChange::State(AccountState::Deleting) => {
            return super::delete_account::apply(rows, now, cmd.account);
        }
        AccountChange::State(state) => row.state = *state,
    }
    row::save(rows, table::account(cmd.account), &row);
    Ok(Outcome::Done)
}
