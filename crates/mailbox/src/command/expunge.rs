//! EXPUNGE, UID EXPUNGE, CLOSE, and POP3's QUIT.

use crate::command::{self, Expunge, OfMailbox};
use crate::flags::SystemFlags;
use crate::ledger::Ledger;
use crate::message::{self, Messages};
use crate::outcome::{Expunged, Outcome, Refusal};
use crate::state::State;
use crate::uid_set::UidSet;

/// Rows a message takes.
const ROWS_PER_MESSAGE: usize = 4;
/// Limit: rows one slice takes.
const SLICE_ROWS_MAX: usize = command::SLICE_ROWS_MAX - 48;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &Expunge) -> Result<Outcome, Refusal> {
    let of = OfMailbox { account: ledger.account, mailbox: cmd.mailbox };
    let row = ledger.mailbox(cmd.mailbox)?.clone();
    let is_wanted =
        |raw: &[u8]| !cmd.only_deleted || State::system_flags(raw).contains(SystemFlags::DELETED);
    let (slice, next) = if cmd.only_deleted && row.n_deleted == 0 {
        (Vec::new(), None)
    } else {
        let messages = Messages::of(ledger.rows, of, &row);
        let n_max = SLICE_ROWS_MAX / ROWS_PER_MESSAGE;
        let slice = messages.slice(ledger.rows, &cmd.uids, n_max, &mut |raw| is_wanted(raw.row));
        message::fitting(slice, ROWS_PER_MESSAGE, SLICE_ROWS_MAX)
    };
    let mut uids = UidSet::new();
    if !slice.is_empty() {
        let modseq = ledger.modseq()?;
        for found in &slice {
            message::expunge(ledger, cmd.mailbox, found, modseq);
            uids.push(found.uid);
        }
        message::expunged(ledger, cmd.mailbox, &uids, modseq);
    }
    let highest_modseq = ledger.mailbox(cmd.mailbox)?.highest_modseq;
    Ok(Outcome::Expunged(Expunged { uids, highest_modseq, next }))
}
