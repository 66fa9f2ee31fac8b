//! DELETE: the mailbox is gone at once, its rows wait to be reclaimed. While names lie below, its
//! own name stays as `\Noselect` (RFC 9051 6.3.5).

use crate::command::NamedMailbox;
use crate::ledger::Ledger;
use crate::outcome::{Outcome, Refusal};
use crate::row;
use crate::table;
use crate::tree;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &NamedMailbox) -> Result<Outcome, Refusal> {
    let account = ledger.account;
    if cmd.name.is_inbox() {
        return Err(Refusal::Inbox);
    }
    let (node, mut name) =
        tree::find(ledger.rows, account, &cmd.name).ok_or(Refusal::NoSuchMailbox)?;
    let has_children = tree::has_children(ledger.rows, account, node);
    match name.mailbox.take() {
        None if has_children => return Err(Refusal::NotSelectable),
        None => {}
        Some(id) => {
            let row = ledger.mailbox(id)?;
            row.deleted = true;
            let (n_messages, size_bytes) = (row.n_messages, row.size_bytes);
            if let Some(special_use) = row.special_use.take() {
                ledger.rows.remove(&table::special_use(account, special_use));
            }
            ledger.usage.n_messages -= u64::from(n_messages);
            ledger.usage.storage_bytes -= size_bytes;
            ledger.rows.put(table::reclaim(ledger.now, account, id), table::marker());
            ledger.announce(id);
        }
    }
    if has_children {
        row::save(ledger.rows, table::node(account, node), &name);
    } else {
        ledger.rows.remove(&table::node(account, node));
        ledger.rows.remove(&table::name(account, name.parent, &name.component));
        ledger.usage.n_nodes -= 1;
        tree::count_bytes(ledger, -(cmd.name.size_bytes() as i64));
    }
    Ok(Outcome::Done)
}
