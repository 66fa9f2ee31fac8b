//! CREATE

use crate::command::CreateMailbox;
use crate::ledger::Ledger;
use crate::outcome::{Outcome, Refusal};
use crate::tree;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &CreateMailbox) -> Result<Outcome, Refusal> {
    tree::create(ledger, &cmd.name, cmd.special_use).map(Outcome::MailboxCreated)
}
