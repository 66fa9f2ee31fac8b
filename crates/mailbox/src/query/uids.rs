//! Uids and Open: which messages a mailbox has, without reading them.

use crate::answer::Answer;
use crate::command::{NamedMailbox, OfMailbox};
use crate::gaps;
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::{Uids, mailboxes};
use crate::row::MailboxRow;
use crate::rows::Source;
use crate::uid_set::UidSet;

/// Limit: ranges in one answer, about 1 MiB of it; a mailbox without gaps is one range.
pub const UID_RANGES_MAX: usize = 100_000;

/// Limit: messages looked at for the first unseen one, at either end of the mailbox; some milliseconds. Where
/// it lies between, it is not told: RFC 3501 6.3.1 has clients search then.
const UNSEEN_LOOKED_AT_MAX: u32 = 4096;

pub(super) fn answer(rows: &dyn Source, query: &Uids) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    let (uids, next) = from(rows, query.of, &row, query.from);
    Ok(Answer::Uids(uids, next))
}

pub(super) fn open(
    rows: &dyn Source,
    named: &NamedMailbox,
    with_unseen: bool,
) -> Result<Answer, Refusal> {
    let Answer::Mailbox(info) = mailboxes::one(rows, named)? else {
        return Err(Refusal::NoSuchMailbox);
    };
    if !info.selectable {
        return Ok(Answer::Opened(info, UidSet::new(), None, None));
    }
    let row = super::mailbox(rows, info.of)?;
    let (uids, next) = from(rows, info.of, &row, Uid::FIRST);
    let unseen = (with_unseen && row.n_unseen > 0)
        .then(|| first_unseen(rows, info.of, &row, last_of(&uids).filter(|_| next.is_none())));
    Ok(Answer::Opened(info, uids, next, unseen.flatten()))
}

/// Where the last messages of a mailbox begin that are looked at for its first unseen one.
fn last_of(uids: &UidSet) -> Option<Uid> {
    let mut left = UNSEEN_LOOKED_AT_MAX;
    let mut from = None;
    for (first, last) in uids.ranges().iter().rev() {
        let n_uids = last.value() - first.value() + 1;
        from = Uid::new(last.value() - (n_uids.min(left) - 1));
        left = left.saturating_sub(n_uids);
        if left == 0 {
            break;
        }
    }
    from
}

/// The first message without `\Seen`, if it is among the first messages, or if all that there are lie
/// behind `last_from`.
fn first_unseen(
    rows: &dyn Source,
    of: OfMailbox,
    row: &MailboxRow,
    last_from: Option<Uid>,
) -> Option<Uid> {
    let messages = Messages::of(rows, of, row);
    let mut first = None;
    let mut n_left = UNSEEN_LOOKED_AT_MAX;
    messages.visit(rows, (Uid::FIRST, Uid::LAST), &mut |uid, raw| {
        first = raw.is_unseen().then_some(uid);
        n_left -= 1;
        first.is_none() && n_left > 0
    });
    let (None, Some(last_from)) = (first, last_from) else { return first };
    let mut n_unseen = 0;
    messages.visit(rows, (last_from, Uid::LAST), &mut |uid, raw| {
        if raw.is_unseen() {
            first = first.or(Some(uid));
            n_unseen += 1;
        }
        true
    });
    first.filter(|_| n_unseen == row.n_unseen)
}

fn from(rows: &dyn Source, of: OfMailbox, row: &MailboxRow, first: Uid) -> (UidSet, Option<Uid>) {
    // Why: a mailbox that knows which UIDs left it need not be looked through.
    if let Some(present) = gaps::present(rows, (of, row), first, UID_RANGES_MAX) {
        return present;
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
