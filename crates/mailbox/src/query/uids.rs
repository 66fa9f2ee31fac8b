//! Uids and Open: which messages a mailbox has, without reading them.

use crate::answer::Answer;
use crate::command::{NamedMailbox, OfMailbox};
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::{Uids, mailboxes};
use crate::row::MailboxRow;
use crate::rows::Source;
use crate::uid_set::UidSet;

/// Limit: ranges in one answer, about 1 MiB of it; a mailbox without gaps is one range.
pub const UID_RANGES_MAX: usize = 100_000;

pub(super) fn answer(rows: &dyn Source, query: &Uids) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    let (uids, next) = from(rows, query.of, &row, query.from);
    Ok(Answer::Uids(uids, next))
}

pub(super) fn open(rows: &dyn Source, named: &NamedMailbox) -> Result<Answer, Refusal> {
    let Answer::Mailbox(info) = mailboxes::one(rows, named)? else {
        return Err(Refusal::NoSuchMailbox);
    };
    if !info.selectable {
        return Ok(Answer::Opened(info, UidSet::new(), None));
    }
    let row = super::mailbox(rows, info.of)?;
    let (uids, next) = from(rows, info.of, &row, Uid::FIRST);
    Ok(Answer::Opened(info, uids, next))
}

fn from(rows: &dyn Source, of: OfMailbox, row: &MailboxRow, first: Uid) -> (UidSet, Option<Uid>) {
    let last = Uid::new(row.uid_next.value() - 1);
    // Why: a mailbox that nothing left need not be looked through.
    if let Some(last) = last
        && last.value() == row.n_messages
        && first <= last
    {
        return (UidSet::range(first, last), None);
    }
    let mut uids = UidSet::new();
    let mut next = None;
    Messages::of(rows, of, row).visit(rows, (first, Uid::LAST), &mut |uid, _| {
        uids.push(uid);
        if uids.ranges().len() > UID_RANGES_MAX {
            next = uid.value().checked_add(1).and_then(Uid::new);
        }
        next.is_none()
    });
    (uids, next)
}
