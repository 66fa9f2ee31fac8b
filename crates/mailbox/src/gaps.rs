//! Which UIDs of a mailbox were given out and are gone: one row for each run of them. So the UIDs a
//! mailbox has are known without reading its messages; SELECT begins with them.

use crate::command::OfMailbox;
use crate::ids::Uid;
use crate::ledger::Ledger;
use crate::row::{self, MailboxRow};
use crate::rows::{Rows, Source};
use crate::table::{self, Fields, Table};
use crate::uid_set::UidSet;

/// Rows one run of expunged UIDs writes: the gap that ended in front of it goes, another comes.
pub(crate) const ROWS_PER_RUN: usize = 2;

/// These messages, which were there, are gone.
pub(crate) fn widen(ledger: &mut Ledger<'_, '_>, of: OfMailbox, gone: &UidSet) {
    let key = |last: Uid| table::by_uid(of.account, Table::Gap, of.mailbox, last);
    for &(mut first, mut last) in gone.ranges() {
        if let Some(before) = Uid::new(first.value() - 1)
            && let Some(begin) = row::load::<Uid>(ledger.rows, &key(before))
        {
            ledger.rows.remove(&key(before));
            first = begin;
        }
        if let Some(behind) = Uid::new(last.value().wrapping_add(1))
            && let Some((end, begin)) = at_or_behind(ledger.rows, of, behind)
            && begin == behind
        {
            last = end;
        }
        row::save(ledger.rows, key(last), &first);
    }
}

/// The UIDs that come next, up to this one, are given to no message.
pub(crate) fn pass(rows: &mut Rows<'_>, of: OfMailbox, row: &mut MailboxRow, last: Uid) {
    let Some(next) = Uid::new(last.value().wrapping_add(1)) else { return };
    let key = |last: Uid| table::by_uid(of.account, Table::Gap, of.mailbox, last);
    let mut first = row.uid_next;
    if let Some(before) = Uid::new(first.value() - 1)
        && let Some(begin) = row::load::<Uid>(rows, &key(before))
    {
        rows.remove(&key(before));
        first = begin;
    }
    row::save(rows, key(last), &first);
    row.uid_next = next;
}

/// The first gap that ends at a UID or behind it: its last and its first UID.
fn at_or_behind(rows: &dyn Source, of: OfMailbox, uid: Uid) -> Option<(Uid, Uid)> {
    let from = table::by_uid(of.account, Table::Gap, of.mailbox, uid);
    let end = table::end_of(&table::of_mailbox(of.account, Table::Gap, of.mailbox));
    let mut found = None;
    rows.scan(&from, &end, &mut |key, value| {
        found = Some((Fields(key).uid(), row::read(value)));
        false
    });
    found
}

/// The UIDs of the messages that are there, from one on, at most so many ranges, and where to go on.
/// `None` for a mailbox whose gaps were not noted from its beginning.
pub(crate) fn present(
    rows: &dyn Source,
    (of, row): (OfMailbox, &MailboxRow),
    from: Uid,
    n_ranges_max: usize,
) -> Option<(UidSet, Option<Uid>)> {
    let prefix = table::of_mailbox(of.account, Table::Gap, of.mailbox);
    let mut n_gone = 0;
    let mut next_uid = 1;
    let mut ranges = Vec::new();
    let mut add = |first: u32, last: u32| {
        let first = Uid::new(first.max(from.value()));
        let range = first.zip(Uid::new(last)).filter(|(first, last)| first <= last);
        ranges.extend(range);
    };
    rows.scan(&prefix, &table::end_of(&prefix), &mut |key, value| {
        let (first, last) = (row::read::<Uid>(value).value(), Fields(key).uid().value());
        add(next_uid, first - 1);
        n_gone += last - first + 1;
        next_uid = last.saturating_add(1);
        true
    });
    add(next_uid, row.uid_next.value() - 1);
    let n_given = row.uid_next.value() - 1;
    if n_given.checked_sub(n_gone) != Some(row.n_messages) {
        return None;
    }
    let next = ranges.get(n_ranges_max).map(|range| range.0);
    ranges.truncate(n_ranges_max);
    Some((UidSet::from_ranges(ranges), next))
}
