//! STORE

use crate::command::{OfMailbox, SLICE_ROWS_MAX, Store};
use crate::flags::{FlagChange, Flags, KEYWORDS_MAX};
use crate::ids::Uid;
use crate::ledger::Ledger;
use crate::message::{self, Found, Messages};
use crate::outcome::{Outcome, OwnChange, Refusal, Stored, StoredFlags};
use crate::uid_set::UidSet;

/// Limit: messages one slice looks at; a change costs four rows, one more than an arrival.
const SLICE_MAX: usize = (SLICE_ROWS_MAX - 48) / 4;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &Store) -> Result<Outcome, Refusal> {
    let (slice, next) = slice(ledger, cmd.mailbox, &cmd.uids, SLICE_MAX)?;
    let is_modified =
        |found: &Found| cmd.unchanged_since.is_some_and(|limit| found.state.modseq > limit);
    let (late, slice): (Vec<_>, Vec<_>) = slice.into_iter().partition(is_modified);
    let modified: UidSet = late.iter().map(|found| found.uid).collect();
    let change = match &cmd.change {
        // Why: a keyword that no message gets is not one of the mailbox's.
        _ if slice.is_empty() => {
            let (messages, own) = (Vec::new(), None);
            return Ok(Outcome::Stored(Stored { messages, modified, next, own }));
        }
        FlagChange::Replace(flags) => FlagChange::Replace(ledger.spell(cmd.mailbox, flags)?),
        FlagChange::Add(flags) => FlagChange::Add(ledger.spell(cmd.mailbox, flags)?),
        FlagChange::Remove(flags) => FlagChange::Remove(flags.clone()),
    };
    let mut changes: Vec<(Found, Flags)> = Vec::with_capacity(slice.len());
    for found in slice {
        let flags = found.state.flags.changed(&change);
        if flags.keywords.len() > KEYWORDS_MAX {
            return Err(Refusal::Limit("keywords of a message".into()));
        }
        changes.push((found, flags));
    }
    let modseq = match changes.iter().any(|(found, flags)| found.state.flags != *flags) {
        true => Some(ledger.modseq()?),
        false => None,
    };
    let mut messages = Vec::with_capacity(changes.len());
    let mut own: Option<OwnChange> = None;
    for (found, flags) in changes {
        let mut state = found.state.clone();
        if let Some(modseq) = modseq.filter(|_| state.flags != flags) {
            let before = own.map_or(state.modseq(), |own| own.before.max(state.modseq()));
            own = Some(OwnChange { modseq, before });
            state.flags = flags;
            state.modseq = modseq.value();
            message::change(ledger, cmd.mailbox, &found, &state);
        }
        let modseq = state.modseq();
        messages.push(StoredFlags { uid: found.uid, flags: state.flags, modseq });
    }
    Ok(Outcome::Stored(Stored { messages, modified, next, own }))
}

/// The first messages of a set, and the UID to go on from.
pub(super) fn slice(
    ledger: &mut Ledger<'_, '_>,
    mailbox: crate::ids::MailboxId,
    uids: &UidSet,
    n_max: usize,
) -> Result<(Vec<Found>, Option<Uid>), Refusal> {
    let of = OfMailbox { account: ledger.account, mailbox };
    let row = ledger.mailbox(mailbox)?.clone();
    let messages = Messages::of(ledger.rows, of, &row);
    Ok(messages.slice(ledger.rows, uids, n_max, &mut |_| true))
}
