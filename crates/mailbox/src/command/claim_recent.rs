//! ClaimRecent: the session that asks first has `\Recent` for all messages that came since.

use crate::command::OfMailbox;
use crate::ids::{MailboxId, Uid};
use crate::ledger::Ledger;
use crate::message::Messages;
use crate::outcome::{Outcome, Refusal};

/// Limit: messages that came since a session was last told of arrivals; beyond it all stay `\Recent`.
const LATER_MAX: u32 = 512;

pub(crate) fn apply(
    ledger: &mut Ledger<'_, '_>,
    mailbox: MailboxId,
    below: Option<Uid>,
) -> Result<Outcome, Refusal> {
    let of = OfMailbox { account: ledger.account, mailbox };
    let row = ledger.mailbox(mailbox)?.clone();
    let first = row.first_recent;
    let next = below.unwrap_or(row.uid_next).min(row.uid_next);
    let mut n_later = 0;
    if next < row.uid_next {
        Messages::of(ledger.rows, of, &row).visit(ledger.rows, (next, Uid::LAST), &mut |_, _| {
            n_later += 1;
            n_later <= LATER_MAX
        });
    }
    if first < next && n_later <= LATER_MAX {
        let row = ledger.mailbox(mailbox)?;
        row.first_recent = next;
        row.n_recent = n_later;
    }
    Ok(Outcome::RecentFrom(first))
}
