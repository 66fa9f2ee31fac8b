//! MOVE: in one command a message leaves one mailbox and arrives in the other.

use super::store;
use crate::command::{self, Move};
use crate::content;
use crate::ids::MailboxId;
use crate::ledger::Ledger;
use crate::message;
use crate::outcome::{Copied, Outcome, Refusal};
use crate::state::State;
use crate::tree;
use crate::uid_set::UidSet;

/// Rows a message takes: four in its old mailbox, two in the new one, and its content's.
const ROWS_PER_MESSAGE: usize = 7;
/// Limit: rows one slice takes.
const SLICE_ROWS_MAX: usize = command::SLICE_ROWS_MAX - 96;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &Move) -> Result<Outcome, Refusal> {
    let to = tree::target(ledger.rows, ledger.account, cmd.to, cmd.to_name.as_ref())?;
    slice(ledger, cmd.from, to, &cmd.uids)
}

/// Moves the first messages of a set.
pub(super) fn slice(
    ledger: &mut Ledger<'_, '_>,
    from: MailboxId,
    to: MailboxId,
    uids: &UidSet,
) -> Result<Outcome, Refusal> {
    let uid_validity = ledger.mailbox(to)?.uid_validity;
    let slice = store::slice(ledger, from, uids, SLICE_ROWS_MAX / ROWS_PER_MESSAGE)?;
    let (slice, next) = message::fitting(slice, ROWS_PER_MESSAGE, SLICE_ROWS_MAX);
    ledger.check_uids(to, slice.len())?;
    let mut states = Vec::with_capacity(slice.len());
    for found in &slice {
        states.push(State {
            flags: ledger.spell_fitting(to, &found.state.flags)?,
            ..found.state.clone()
        });
    }
    let (mut source, mut target) = (UidSet::new(), UidSet::new());
    let mut gone_modseq = None;
    if !slice.is_empty() {
        let modseq = ledger.modseq()?;
        for (found, mut state) in slice.iter().zip(states) {
            content::refer(ledger, state.email);
            message::expunge(ledger, from, found, modseq);
            state.modseq = modseq.value();
            state.save_date = ledger.now;
            source.push(found.uid);
            target.push(message::arrive(ledger, to, &state));
        }
        message::expunged(ledger, from, &source, modseq);
        gone_modseq = Some(modseq);
    }
    let modseq = gone_modseq;
    Ok(Outcome::Copied(Copied { uid_validity, source, target, next, modseq, to: Some(to) }))
}
