//! Deliver: one message for one account, as LMTP brings it.

use super::append::{self, Arrival};
use crate::command::{Deliver, InternalDate};
use crate::content::Inline;
use crate::flags::Flags;
use crate::ids::MailboxId;
use crate::ledger::Ledger;
use crate::name::MailboxName;
use crate::outcome::{Outcome, Refusal};
use crate::tree;

pub(crate) fn apply(
    ledger: &mut Ledger<'_, '_>,
    cmd: &Deliver,
    inline: &Inline,
) -> Result<Outcome, Refusal> {
    let detail = cmd.detail.as_deref().and_then(|detail| detail_mailbox(ledger, detail));
    let mailbox = match detail {
        Some(mailbox) => mailbox,
        None => tree::find(ledger.rows, ledger.account, &MailboxName::inbox())
            .and_then(|(_, node)| node.mailbox)
            .ok_or(Refusal::NoSuchMailbox)?,
    };
    let internal_date = cmd.internal_date.unwrap_or_else(|| now(ledger));
    let arrival = Arrival { message: &cmd.message, flags: Flags::default(), internal_date };
    append::arrive_all(ledger, mailbox, vec![arrival], inline)
}

/// The command's time, in UTC.
pub(super) fn now(ledger: &Ledger<'_, '_>) -> InternalDate {
    InternalDate { unix_s: (ledger.now.0 / 1000).cast_signed(), zone_minutes: 0 }
}

/// The top-level mailbox the detail names. Details lose their case on the way (addresses have
/// none), so a name that differs in case only will do when there is no other.
fn detail_mailbox(ledger: &Ledger<'_, '_>, detail: &str) -> Option<MailboxId> {
    let name = MailboxName::new([detail])?;
    let account = ledger.account;
    let exact = tree::find(ledger.rows, account, &name).map(|(_, node)| node);
    let node = exact.or_else(|| {
        let folded = detail.to_lowercase();
        let children = tree::children(ledger.rows, account, tree::ROOT);
        let similar = children.into_iter().find(|(name, _)| name.to_lowercase() == folded)?;
        Some(tree::load(ledger.rows, account, similar.1))
    });
    node?.mailbox
}
