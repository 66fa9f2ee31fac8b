//! Vanished: which messages were expunged since, for QRESYNC and for catching up after a gap.

use crate::answer::Answer;
use crate::command::OfMailbox;
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::Vanished;
use crate::rows::Source;
use crate::table::{self, Fields, Table};
use crate::uid_set::UidSet;

pub(super) fn answer(rows: &dyn Source, query: &Vanished) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    if query.uid_validity.is_some_and(|known| known != row.uid_validity) {
        return Err(Refusal::NoSuchMailbox);
    }
    if query.since >= row.expunge_floor {
        return Ok(Answer::Vanished(logged(rows, query)));
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

fn logged(rows: &dyn Source, query: &Vanished) -> UidSet {
    let OfMailbox { account, mailbox } = query.of;
    let Some(first) = query.since.checked_add(1) else {
        return UidSet::new();
    };
    let from = table::by_modseq(account, Table::Expunged, mailbox, first, 0);
    let end = table::end_of(&table::of_mailbox(account, Table::Expunged, mailbox));
    let mut uids = Vec::new();
    rows.scan(&from, &end, &mut |key, _| {
        let uid = Fields(key).uid();
        if query.known.contains(uid) {
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
