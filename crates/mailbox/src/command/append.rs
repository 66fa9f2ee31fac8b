//! APPEND, also of several messages (RFC 3502), also in place of another (RFC 8508): all or none.

use super::{deliver, store, upload};
use crate::chunk::NewMessage;
use crate::command::{Append, InternalDate};
use crate::content::{self, Inline};
use crate::flags::Flags;
use crate::ids::MailboxId;
use crate::ledger::Ledger;
use crate::message;
use crate::outcome::{Appended, Outcome, Refusal};
use crate::state::State;
use crate::tree;
use crate::uid_set::UidSet;

/// Rows a message takes besides those of its chunks.
const ROWS_PER_MESSAGE: usize = 16;

/// Limit: rows that messages arriving together may take. More than [`super::ROWS_MAX`] leaves for them,
/// since all arrive or none (RFC 3502), and clients bring up to 128 small ones in one APPEND.
const ARRIVING_ROWS_MAX: usize = 2560;

/// A message, and how it is to look.
pub(super) struct Arrival<'c> {
    pub message: &'c NewMessage,
    pub flags: Flags,
    pub internal_date: InternalDate,
}

pub(crate) fn apply(
    ledger: &mut Ledger<'_, '_>,
    cmd: &Append,
    inline: &Inline,
) -> Result<Outcome, Refusal> {
    let now = deliver::now(ledger);
    let arrivals = cmd.messages.iter().map(|append| Arrival {
        message: &append.message,
        flags: append.flags.clone(),
        internal_date: append.internal_date.unwrap_or(now),
    });
    let arrivals = arrivals.collect();
    let mailbox = tree::target(ledger.rows, ledger.account, cmd.mailbox, cmd.name.as_ref())?;
    let Some(replaced) = cmd.replaces else {
        return arrive_all(ledger, mailbox, arrivals, inline);
    };
    let only = UidSet::range(replaced.uid, replaced.uid);
    let (found, _) = store::slice(ledger, replaced.mailbox, &only, 1)?;
    let found = found.first().ok_or(Refusal::NoSuchMessage)?;
    // RFC 8508 3.4: the quota is asked for the difference.
    ledger.will_go(found.state.size);
    let mut outcome = arrive_all(ledger, mailbox, arrivals, inline)?;
    let modseq = ledger.modseq()?;
    message::expunge(ledger, replaced.mailbox, found, modseq);
    message::expunged(ledger, replaced.mailbox, &only, modseq);
    if let Outcome::Appended(appended) = &mut outcome {
        appended.replaced_modseq = Some(modseq);
    }
    Ok(outcome)
}

/// The date a message says it was sent; a zone beyond all zones is none.
fn sent(keys: &mime::Relations<'_>) -> Option<InternalDate> {
    let unix_s = keys.date_unix_s.filter(|unix_s| *unix_s != i64::MIN)?;
    let zone_minutes = i16::try_from(keys.date_zone_min).unwrap_or(0);
    Some(InternalDate { unix_s, zone_minutes })
}

/// Checks everything, then lets all arrive.
pub(super) fn arrive_all(
    ledger: &mut Ledger<'_, '_>,
    mailbox: MailboxId,
    mut arrivals: Vec<Arrival<'_>>,
    inline: &Inline,
) -> Result<Outcome, Refusal> {
    ledger.mailbox(mailbox)?;
    let n_chunks = |message: &NewMessage| message.chunks.len() + message.metadata_chunks.len();
    let n_rows: usize =
        arrivals.iter().map(|new| ROWS_PER_MESSAGE + 2 * n_chunks(new.message)).sum();
    if n_rows > ARRIVING_ROWS_MAX {
        return Err(Refusal::Limit("messages of one command".into()));
    }
    let mut relations = Vec::with_capacity(arrivals.len());
    let mut n_bytes: u64 = 0;
    for new in &mut arrivals {
        content::check(ledger, new.message, inline)?;
        relations.push(content::relations(new.message)?);
        new.flags = ledger.spell_fitting(mailbox, &new.flags)?;
        n_bytes += new.message.size;
    }
    ledger.check_uids(mailbox, arrivals.len())?;
    ledger.check_quota(n_bytes, arrivals.len() as u64)?;
    let modseq = ledger.modseq()?;

    let mut uids = UidSet::new();
    for (new, relations) in arrivals.iter().zip(&relations) {
        let (email, thread) = content::create(ledger, new.message, relations);
        let state = State {
            flags: new.flags.clone(),
            modseq: modseq.value(),
            email,
            thread,
            size: new.message.size,
            internal_date: new.internal_date,
            save_date: ledger.now,
            sent: sent(relations),
            uidl: None,
        };
        uids.push(message::arrive(ledger, mailbox, &state));
    }
    for new in &arrivals {
        if let Some(upload) = new.message.upload {
            upload::drop_upload(ledger, upload);
        }
    }
    let uid_validity = ledger.mailbox(mailbox)?.uid_validity;
    Ok(Outcome::Appended(Appended { mailbox, uid_validity, uids, replaced_modseq: None }))
}
