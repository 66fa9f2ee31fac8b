//! RENAME: one node gets another parent or name. INBOX stays: its messages move to a new mailbox
//! and its children stay too (RFC 9051 6.3.6).

use crate::command::{RenameMailbox, r#move};
use crate::ids::MailboxId;
use crate::ledger::Ledger;
use crate::name::MailboxName;
use crate::outcome::{Outcome, Refusal};
use crate::row;
use crate::table;
use crate::tree;
use crate::uid_set::UidSet;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &RenameMailbox) -> Result<Outcome, Refusal> {
    if cmd.from.is_inbox() {
        return rename_inbox(ledger, cmd);
    }
    let account = ledger.account;
    let (node, mut row) =
        tree::find(ledger.rows, account, &cmd.from).ok_or(Refusal::NoSuchMailbox)?;
    if cmd.to.is_below(&cmd.from) {
        return Err(Refusal::BelowItself);
    }
    if tree::find(ledger.rows, account, &cmd.to).is_some() {
        return Err(Refusal::MailboxExists);
    }
    let growth = check_fit(ledger, cmd, node)?;
    let parent = tree::create_parents(ledger, &cmd.to)?;
    tree::count_bytes(ledger, growth);
    ledger.rows.remove(&table::name(account, row.parent, &row.component));
    row.parent = parent;
    row.component = cmd.to.leaf().to_owned();
    row::save(ledger.rows, table::name(account, parent, &row.component), &node);
    row::save(ledger.rows, table::node(account, node), &row);
    Ok(Outcome::Done)
}

/// Whether the names fit where they are to lie; by how many octets all of them get longer.
fn check_fit(ledger: &mut Ledger<'_, '_>, cmd: &RenameMailbox, node: u64) -> Result<i64, Refusal> {
    let of_each = cmd.to.size_bytes() as i64 - cmd.from.size_bytes() as i64;
    let (growth, is_counted) = if tree::has_children(ledger.rows, ledger.account, node) {
        let n_levels = cmd.to.components().len();
        let is_deeper = n_levels > cmd.from.components().len();
        // Nobody counts what gets shorter before there was a long name. Where this is one, the parents that
        // the other lacks may have all be counted as they are now.
        let may_be_counted =
            ledger.usage.names_bytes.is_some() || cmd.from.size_bytes() > tree::SHORT_NAME_BYTES;
        let is_of_interest = of_each > 0 || of_each < 0 && may_be_counted;
        if !is_deeper && !is_of_interest {
            return Ok(0);
        }
        let survey = tree::survey(ledger.rows, ledger.account, node);
        survey.check_depth(n_levels - 1)?;
        (survey.growth(of_each), survey.outgrows(of_each))
    } else {
        (of_each, cmd.to.size_bytes() > tree::SHORT_NAME_BYTES)
    };
    if let (true, Ok(more @ 1..)) = (is_counted, u64::try_from(growth)) {
        tree::check_bytes(ledger, more)?;
    }
    Ok(growth)
}

fn rename_inbox(ledger: &mut Ledger<'_, '_>, cmd: &RenameMailbox) -> Result<Outcome, Refusal> {
    let inbox = selectable(ledger, &MailboxName::inbox())?;
    if cmd.to.is_inbox() {
        return Err(Refusal::MailboxExists);
    }
    let target = match cmd.into {
        Some(into) if cmd.further => into,
        // An earlier version's frontend says no more than the name.
        None if cmd.further => selectable(ledger, &cmd.to)?,
        _ => {
            if tree::find(ledger.rows, ledger.account, &cmd.to).is_some() {
                return Err(Refusal::MailboxExists);
            }
            ledger.mailbox(inbox)?;
            tree::create(ledger, &cmd.to, None)?
        }
    };
    r#move::slice(ledger, inbox, target, &UidSet::all())
}

fn selectable(ledger: &Ledger<'_, '_>, name: &MailboxName) -> Result<MailboxId, Refusal> {
    let (_, row) = tree::find(ledger.rows, ledger.account, name).ok_or(Refusal::NoSuchMailbox)?;
    row.mailbox.ok_or(Refusal::NotSelectable)
}
