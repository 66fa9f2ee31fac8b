//! ClaimRecent: the session that asks first has `\Recent` for all messages that came since.

use crate::ids::MailboxId;
use crate::ledger::Ledger;
use crate::outcome::{Outcome, Refusal};

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, mailbox: MailboxId) -> Result<Outcome, Refusal> {
    let row = ledger.mailbox(mailbox)?;
    let first = std::mem::replace(&mut row.first_recent, row.uid_next);
    row.n_recent = 0;
    Ok(Outcome::RecentFrom(first))
}
