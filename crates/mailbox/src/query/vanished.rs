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

/// Limit: expunges that one part of News looks at, as many as a page of messages looks at states. All of a
/// mailbox of a million messages, read on a thread that others wait for, would hold them up for a second.
const PART_MAX: usize = 65_536;

/// Messages that are gone, and if there are more, up to which mod-sequence these are all.
type Part = (UidSet, Option<ModSeq>);

pub(super) fn answer(rows: &dyn Source, query: &Vanished) -> Result<Answer, Refusal> {
    Ok(Answer::Vanished(gone(rows, query, usize::MAX)?.0))
}

/// As many as one part of News has, or all.
pub(super) fn part(rows: &dyn Source, query: &Vanished, in_parts: bool) -> Result<Part, Refusal> {
    gone(rows, query, if in_parts { PART_MAX } else { usize::MAX })
}

fn gone(rows: &dyn Source, query: &Vanished, n_max: usize) -> Result<Part, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    if query.uid_validity.is_some_and(|known| known != row.uid_validity) {
        return Err(Refusal::NoSuchMailbox);
    }
    if query.since >= row.expunge_floor {
        return Ok(logged(rows, query.of, (&query.known, query.since), n_max));
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
    Ok((UidSet::from_ranges(vanished), None))
}

/// Visits those of some messages that were expunged since, as they were; none of those that are purged.
pub(super) fn visit_gone(
    rows: &dyn Source,
    of: OfMailbox,
    (uids, since): (&UidSet, Option<ModSeq>),
    visit: &mut dyn FnMut(Uid, &State) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(since) = since else { return Ok(()) };
    for uid in logged(rows, of, (uids, since.value()), usize::MAX).0.iter() {
        let key = table::by_uid(of.account, Table::Gone, of.mailbox, uid);
        if let Some(gone) = row::load::<GoneRow>(rows, &key) {
            visit(uid, &gone.state)?;
        }
    }
    Ok(())
}

fn logged(rows: &dyn Source, of: OfMailbox, (known, since): (&UidSet, u64), n_max: usize) -> Part {
    let OfMailbox { account, mailbox } = of;
    let Some(first) = since.checked_add(1) else {
        return (UidSet::new(), None);
    };
    let from = table::by_modseq(account, Table::Expunged, mailbox, first, 0);
    let end = table::end_of(&table::of_mailbox(account, Table::Expunged, mailbox));
    let (mut uids, mut n_seen) = (Vec::new(), 0);
    let (mut last, mut up_to): (Option<u64>, Option<u64>) = (None, None);
    rows.scan(&from, &end, &mut |key, _| {
        let modseq = Fields(key).u64(26);
        // Why not amid those of one mod-sequence: the next part begins behind one.
        if n_seen >= n_max && last.is_some_and(|last| last < modseq) {
            up_to = last;
            return false;
        }
        (last, n_seen) = (Some(modseq), n_seen + 1);
        let uid = Fields(key).uid();
        if known.contains(uid) {
            uids.push(uid);
        }
        true
    });
    (uids.into_iter().collect(), up_to.and_then(ModSeq::new))
}

fn gap(from: u32, to: u32) -> Option<(Uid, Uid)> {
    if from > to {
        return None;
    }
    Some((Uid::new(from)?, Uid::new(to)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::{AccountId, MailboxId};

    #[test]
    fn parts_end_between_mod_sequences_and_are_all_together() {
        let of = OfMailbox { account: AccountId([7; 16]), mailbox: MailboxId(3) };
        // Two of one mod-sequence, three of another one, and so on.
        let gone = [(5, 1), (5, 4), (6, 2), (6, 3), (6, 9), (8, 7), (9, 5), (9, 8)];
        let key = |(modseq, uid): (u64, u32)| {
            table::by_modseq(of.account, Table::Expunged, of.mailbox, modseq, uid)
        };
        let rows: BTreeMap<Vec<u8>, Vec<u8>> = gone.map(|it| (key(it), Vec::new())).into();
        let known = UidSet::range(Uid::FIRST, Uid::new(8).expect("a UID"));
        for (n_max, wanted) in
            [(1, vec![5, 6, 8]), (3, vec![6]), (5, vec![6]), (6, vec![8]), (8, vec![])]
        {
            let (mut since, mut ends, mut all) = (4, Vec::new(), Vec::new());
            loop {
                let (uids, up_to) = logged(&rows, of, (&known, since), n_max);
                all.extend(uids.iter());
                let Some(up_to) = up_to else { break };
                since = up_to.value();
                ends.push(since);
            }
            assert_eq!(ends, wanted, "{n_max} at once");
            all.sort_unstable();
            let wanted = [1, 2, 3, 4, 5, 7, 8].map(|uid| Uid::new(uid).expect("a UID"));
            assert_eq!(all, wanted, "{n_max} at once");
        }
    }
}
