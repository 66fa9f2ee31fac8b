//! CreateAccount: an account with INBOX and its default mailboxes.

use std::collections::BTreeSet;

use crate::command::{AccountState, CreateAccount, SpecialUse, Subscribe, subscribe};
use crate::ids::LogTime;
use crate::ledger::Ledger;
use crate::name::{LEVELS_MAX, MailboxName};
use crate::outcome::{Outcome, Refusal};
use crate::row::{self, AccountRow};
use crate::rows::{Rows, Source};
use crate::table;
use crate::tree;

/// Limit: mailboxes an account begins with.
const DEFAULT_MAILBOXES_MAX: usize = 32;

pub(crate) fn apply(
    rows: &mut Rows<'_>,
    now: LogTime,
    cmd: &CreateAccount,
) -> Result<Outcome, Refusal> {
    let key = table::account(cmd.account);
    if rows.row(&key).is_some() {
        return Err(Refusal::Taken);
    }
    check(&cmd.mailboxes)?;
    let mut ledger = Ledger::reopen(rows, now, cmd.account);
    // Each name may lack all its parents.
    ledger.check_uid_validities(((cmd.mailboxes.len() + 1) * LEVELS_MAX) as u32)?;
    tree::create(&mut ledger, &MailboxName::inbox(), None)?;
    for (name, special_use) in &cmd.mailboxes {
        match tree::create(&mut ledger, name, *special_use) {
            // A parent of an earlier one, or INBOX itself.
            Ok(_) | Err(Refusal::MailboxExists | Refusal::Inbox) => {}
            Err(refusal) => unreachable!("default mailboxes were checked: {refusal:?}"),
        }
    }
    if cmd.subscribe == Some(true) {
        let names = cmd.mailboxes.iter().map(|(name, _)| name.clone());
        for name in [MailboxName::inbox()].into_iter().chain(names) {
            subscribe::apply(&mut ledger, &Subscribe { account: cmd.account, name, on: true })?;
        }
    }
    ledger.close();
    let row = AccountRow {
        name: cmd.name.clone(),
        aliases: Vec::new(),
        password_hash: cmd.password_hash.clone(),
        state: AccountState::Active,
        quota: cmd.quota,
        created: now,
    };
    row::save(rows, key, &row);
    Ok(Outcome::Done)
}

fn check(mailboxes: &[(MailboxName, Option<SpecialUse>)]) -> Result<(), Refusal> {
    // Why short: such names are never refused later.
    let are_short = mailboxes.iter().all(|(name, _)| name.size_bytes() <= tree::SHORT_NAME_BYTES);
    if mailboxes.len() > DEFAULT_MAILBOXES_MAX || !are_short {
        return Err(Refusal::Limit("default mailboxes".into()));
    }
    let mut taken = BTreeSet::new();
    for special_use in mailboxes.iter().filter_map(|(_, special_use)| *special_use) {
        let is_settable = !matches!(special_use, SpecialUse::All | SpecialUse::Flagged);
        if !is_settable || !taken.insert(special_use) {
            return Err(Refusal::SpecialUse);
        }
    }
    Ok(())
}
