//! Vanished: which messages were expunged since, for QRESYNC and for catching up after a gap.

use crate::answer::Answer;
use crate::command::OfMailbox;
use crate::ids::{ModSeq, Uid};
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::Vanished;
use crate::row::{self, GoneRow};
use crate::rows::Source;
use crate::state::State;
use crate::table::{self, Fields, Table};
use crate::uid_set::UidSet;

pub(super) fn answer(rows: &dyn Source, query: &Vanished) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    if query.uid_validity.is_some_and(|known| known != row.uid_validity) {
        return Err(Refusal::NoSuchMailbox);
    }
    if query.since >= row.expunge_floor {
        return Ok(Answer::Vanished(logged(rows, query.of, (&query.known, query.since))));
    }
    // RFC 7162 3.2.5.2: below the log's floor every known UID that is absent is told.
    let mut vanished = Vec::new();
    if let Some(last) = Uid::new(row.uid_next.value() - 1) {
        let messages = Messages::of(rows, query.of, &row);
        for (from, to) in query.known.ranges() {
            let to = (*to).min(last);
            let mut absent_from = from.value();
            messages.visit(rows, (*from, to), &mut |uid, _| {
                vanished.extend(gap(absent_from, uid.value() - 1));
                absent_from = uid.value() + 1;
                true
            });
            vanished.extend(gap(absent_from, to.value()));
        }
    }
    Ok(Answer::Vanished(UidSet::from_ranges(vanished)))
}

/// Visits those of some messages that were expunged since, as they were; none of those that are purged.
pub(super) fn visit_gone(
    rows: &dyn Source,
    of: OfMailbox,
    (uids, since): (&UidSet, Option<ModSeq>),
    visit: &mut dyn FnMut(Uid, &State) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(since) = since else { return Ok(()) };
    for uid in logged(rows, of, (uids, since.value())).iter() {
        let key = table::by_uid(of.account, Table::Gone, of.mailbox, uid);
        if let Some(gone) = row::load::<GoneRow>(rows, &key) {
            visit(uid, &gone.state)?;
        }
    }
    Ok(())
}

fn logged(rows: &dyn Source, of: OfMailbox, (known, since): (&UidSet, u64)) -> UidSet {
    let OfMailbox { account, mailbox } = of;
    let Some(first) = since.checked_add(1) else {
        return UidSet::new();
    };
    let from = table::by_modseq(account, Table::Expunged, mailbox, first, 0);
    let end = table::end_of(&table::of_mailbox(account, Table::Expunged, mailbox));
    let mut uids = Vec::new();
    rows.scan(&from, &end, &mut |key, _| {
        let uid = Fields(key).uid();
        if known.contains(uid) {
            uids.push(uid);
        }
        true
    });
    uids.into_iter().collect()
}

fn gap(from: u32, to: u32) -> Option<(Uid, Uid)> {
    if from > to {
        return None;
    }
    Some((Uid::new(from)?, Uid::new(to)?))
}
