//! Messages of a mailbox: finding them, and the three things that happen to them. A message's
//! state lies under its UID, or, when it came with a large COPY, still in an extent.

use std::collections::BTreeMap;

use crate::command::OfMailbox;
use crate::content;
use crate::flags::SystemFlags;
use crate::gaps;
use crate::ids::{AccountId, MailboxId, ModSeq, Uid, UploadId};
use crate::ledger::Ledger;
use crate::row::{self, ExtentRow, GoneRow, MailboxRow};
use crate::rows::Source;
use crate::state::State;
use crate::table::{self, Fields, Table};
use crate::uid_set::UidSet;

/// UIDs of an extent that are merged with settled ones at a time: few at first, since most slices end soon.
const MERGED_MIN: u32 = 128;
const MERGED_MAX: u32 = 4096;
/// Limit: messages one slice looks at, so that no EXPUNGE of a few among a million stops a shard.
const EXAMINED_MAX: usize = 4096;

/// Where a mailbox's messages are looked up.
#[derive(Clone)]
pub(crate) struct Messages {
    account: AccountId,
    mailbox: MailboxId,
    /// Ascending, disjoint; empty but after a large COPY.
    extents: Vec<(Uid, ExtentRow)>,
}

/// A message's state as it lies in its row.
#[derive(Clone, Copy)]
pub(crate) struct RawState<'v> {
    /// See [`State`].
    pub row: &'v [u8],
    /// The extent it lies in, and that extent's first UID.
    extent: Option<(Uid, &'v ExtentRow)>,
}

impl RawState<'_> {
    pub(crate) fn read(&self) -> State {
        let mut state = State::read(self.row);
        state.modseq = self.modseq();
        state
    }

    pub(crate) fn is_unseen(&self) -> bool {
        !State::system_flags(self.row).contains(SystemFlags::SEEN)
    }

    pub(crate) fn modseq(&self) -> u64 {
        match self.extent {
            Some((_, extent)) => extent.modseq.value(),
            None => State::modseq_of(self.row),
        }
    }

    /// Whether it still lies in an extent.
    pub(crate) fn is_staged(&self) -> bool {
        self.extent.is_some()
    }

    fn found(&self, uid: Uid) -> Found {
        let staged =
            self.extent.map(|(first, extent)| (extent.staging, uid.value() - first.value()));
        Found { uid, state: self.read(), row: self.row.into(), staged }
    }
}

/// A message that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub uid: Uid,
    pub state: State,
    /// As it lies there: whoever writes over it need not look again.
    row: Box<[u8]>,
    /// Its row in an extent.
    staged: Option<(UploadId, u32)>,
}

impl Messages {
    /// Of a mailbox whose row is at hand.
    pub(crate) fn of(rows: &dyn Source, of: OfMailbox, row: &MailboxRow) -> Self {
        let OfMailbox { account, mailbox } = of;
        let mut extents = Vec::new();
        if row.n_extents > 0 {
            let prefix = table::of_mailbox(account, Table::Extent, mailbox);
            rows.scan(&prefix, &table::end_of(&prefix), &mut |key, value| {
                extents.push((Fields(key).uid(), row::read(value)));
                true
            });
        }
        Self { account, mailbox, extents }
    }

    /// The first messages of a set that are wanted, and the UID to go on from when there are more
    /// or when too many were looked at.
    pub(crate) fn slice(
        &self,
        rows: &dyn Source,
        uids: &UidSet,
        n_max: usize,
        is_wanted: &mut dyn FnMut(RawState<'_>) -> bool,
    ) -> (Vec<Found>, Option<Uid>) {
        let mut slice = Vec::new();
        let mut next = None;
        let mut n_seen = 0;
        for range in uids.ranges() {
            let went_on = self.visit(rows, *range, &mut |uid, raw| {
                let is_full = slice.len() == n_max || n_seen == EXAMINED_MAX;
                if is_full {
                    next = Some(uid);
                    return false;
                }
                n_seen += 1;
                if is_wanted(raw) {
                    slice.push(raw.found(uid));
                }
                true
            });
            if !went_on {
                break;
            }
        }
        (slice, next)
    }

    /// Visits messages with `first <= uid <= last` in ascending order until `visit` gives false;
    /// tells whether it never did.
    pub(crate) fn visit(
        &self,
        rows: &dyn Source,
        (first, last): (Uid, Uid),
        visit: &mut dyn FnMut(Uid, RawState<'_>) -> bool,
    ) -> bool {
        let mut from = first;
        for (begin, extent) in &self.extents {
            let n_messages = extent.n_messages.max(1);
            let end = Uid::new(begin.value().saturating_add(n_messages - 1)).unwrap_or(*begin);
            if end < from || *begin > last {
                continue;
            }
            if let Some(before) = Uid::new(begin.value() - 1)
                && !self.visit_settled(rows, (from, before.min(last)), visit)
            {
                return false;
            }
            let within = (from.max(*begin), end.min(last));
            if !self.visit_extent(rows, (*begin, extent), within, visit) {
                return false;
            }
            match Uid::new(end.value().wrapping_add(1)) {
                Some(next) => from = next,
                None => return true,
            }
        }
        self.visit_settled(rows, (from, last), visit)
    }

    fn visit_settled(
        &self,
        rows: &dyn Source,
        (first, last): (Uid, Uid),
        visit: &mut dyn FnMut(Uid, RawState<'_>) -> bool,
    ) -> bool {
        let mut more = true;
        if first == last {
            // Why apart: most commands are for one message, and a scan costs several reads.
            let row = rows.row(&table::by_uid(self.account, Table::State, self.mailbox, first));
            if let Some(row) = row {
                more = visit(first, RawState { row: &row, extent: None });
            }
        } else if first < last {
            let from = table::by_uid(self.account, Table::State, self.mailbox, first);
            let mut to = table::by_uid(self.account, Table::State, self.mailbox, last);
            to.push(0);
            rows.scan(&from, &to, &mut |key, row| {
                more = visit(Fields(key).uid(), RawState { row, extent: None });
                more
            });
        }
        more
    }

    /// Merges what was settled or changed within an extent with what was not.
    fn visit_extent(
        &self,
        rows: &dyn Source,
        (begin, extent): (Uid, &ExtentRow),
        (first, last): (Uid, Uid),
        visit: &mut dyn FnMut(Uid, RawState<'_>) -> bool,
    ) -> bool {
        let mut from = first.value();
        let mut n_merged = MERGED_MIN;
        while from <= last.value() {
            let to = last.value().min(from.saturating_add(n_merged - 1));
            n_merged = MERGED_MAX.min(2 * n_merged);
            let mut merged: BTreeMap<Uid, (Vec<u8>, bool)> = BTreeMap::new();
            let range = (Uid::new(from).unwrap_or(first), Uid::new(to).unwrap_or(last));
            self.visit_settled(rows, range, &mut |uid, raw| {
                merged.insert(uid, (raw.row.to_vec(), false));
                true
            });
            let key = |uid: u32| table::staged(self.account, extent.staging, uid - begin.value());
            let mut end = key(to);
            end.push(0);
            rows.scan(&key(from), &end, &mut |key, row| {
                let uid = Uid::new(begin.value() + Fields(key).last_u32()).unwrap_or(begin);
                merged.insert(uid, (row.to_vec(), true));
                true
            });
            for (uid, (row, is_staged)) in &merged {
                let extent = is_staged.then_some((begin, extent));
                if !visit(*uid, RawState { row, extent }) {
                    return false;
                }
            }
            match to.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        true
    }

    /// Extents changed later than this, as ranges of UIDs.
    pub(crate) fn extents_since(&self, since: u64) -> impl Iterator<Item = (Uid, Uid)> + '_ {
        let changed = self.extents.iter().filter(move |(_, extent)| extent.modseq.value() > since);
        changed.filter_map(|(first, extent)| {
            let last = first.value().saturating_add(extent.n_messages.saturating_sub(1));
            Some((*first, Uid::new(last)?))
        })
    }
}

/// Puts a message into a mailbox under its next UID, with the command's mod-sequence in `state`.
/// UIDs, quota and mod-sequence were checked by the verb.
pub(crate) fn arrive(ledger: &mut Ledger<'_, '_>, mailbox: MailboxId, state: &State) -> Uid {
    let account = ledger.account;
    let row = ledger.loaded(mailbox);
    let uid = row.uid_next;
    row.uid_next = Uid::new(uid.value() + 1).expect("the verb checked that UIDs are left");
    count(row, uid, state);
    ledger.usage.storage_bytes += state.size;
    ledger.usage.n_messages += 1;
    ledger.rows.put_new(table::by_uid(account, Table::State, mailbox, uid), state.write());
    let index = table::by_modseq(account, Table::Modseq, mailbox, state.modseq, uid.value());
    ledger.rows.put_new(index, table::marker());
    ledger.touch(mailbox, state.modseq());
    uid
}

/// Gives a message new flags and the mod-sequence.
pub(crate) fn change(ledger: &mut Ledger<'_, '_>, mailbox: MailboxId, found: &Found, new: &State) {
    let account = ledger.account;
    let row = ledger.loaded(mailbox);
    uncount(row, found.uid, &found.state);
    count(row, found.uid, new);
    take(ledger, mailbox, found);
    let key = table::by_uid(account, Table::State, mailbox, found.uid);
    match found.staged {
        Some(_) => ledger.rows.put_new(key, new.write()),
        None => ledger.rows.put_known(key, Some(&found.row), new.write()),
    }
    let index = table::by_modseq(account, Table::Modseq, mailbox, new.modseq, found.uid.value());
    ledger.rows.put_new(index, table::marker());
    ledger.touch(mailbox, new.modseq());
}

/// Hides a message and notes it in the expunge log; its content stays until it is purged. The verb
/// calls [`expunged`] once.
pub(crate) fn expunge(
    ledger: &mut Ledger<'_, '_>,
    mailbox: MailboxId,
    found: &Found,
    modseq: ModSeq,
) {
    let account = ledger.account;
    uncount(ledger.loaded(mailbox), found.uid, &found.state);
    ledger.usage.storage_bytes -= found.state.size;
    ledger.usage.n_messages -= 1;
    take_whole(ledger, mailbox, found);
    let gone = GoneRow { state: found.state.clone(), expunged_at: ledger.now, modseq };
    row::save_new(ledger.rows, table::by_uid(account, Table::Gone, mailbox, found.uid), &gone);
    let log =
        table::by_modseq(account, Table::Expunged, mailbox, modseq.value(), found.uid.value());
    ledger.rows.put_new(log, table::marker());
    ledger.touch(mailbox, modseq);
}

/// These were all that this command expunged: their UIDs are free of messages, and what they were is
/// to be purged some day.
pub(crate) fn expunged(
    ledger: &mut Ledger<'_, '_>,
    mailbox: MailboxId,
    uids: &UidSet,
    modseq: ModSeq,
) {
    gaps::widen(ledger, OfMailbox { account: ledger.account, mailbox }, uids);
    let key = table::purge(ledger.now, ledger.account, mailbox, modseq);
    ledger.rows.put(key, table::marker());
}

/// As much of a slice as can be expunged when each message takes so many rows out of so many, and
/// where to go on.
pub(crate) fn fitting(
    (mut slice, mut next): (Vec<Found>, Option<Uid>),
    rows_per_message: usize,
    n_rows: usize,
) -> (Vec<Found>, Option<Uid>) {
    let mut left = n_rows;
    let mut before = None;
    let cut = slice.iter().position(|found| {
        let is_new_run = before != Some(found.uid.value().wrapping_sub(1));
        before = Some(found.uid.value());
        let n = rows_per_message + if is_new_run { gaps::ROWS_PER_RUN } else { 0 };
        let fits = n <= left;
        left = left.saturating_sub(n);
        !fits
    });
    if let Some(cut) = cut {
        next = Some(slice[cut].uid);
        slice.truncate(cut);
    }
    (slice, next)
}

/// A state that lay in an extent moves under its UID, unchanged.
pub(crate) fn settle(
    ledger: &mut Ledger<'_, '_>,
    mailbox: MailboxId,
    (first, extent): (Uid, &ExtentRow),
    (rank, row): (u32, &[u8]),
) {
    let account = ledger.account;
    let uid = Uid::new(first.value() + rank).expect("an extent begins with a UID");
    let state = RawState { row, extent: Some((first, extent)) }.read();
    ledger.rows.remove_known(table::staged(account, extent.staging, rank), row);
    ledger.rows.put_new(table::by_uid(account, Table::State, mailbox, uid), state.write());
    let index = table::by_modseq(account, Table::Modseq, mailbox, state.modseq, uid.value());
    ledger.rows.put_new(index, table::marker());
}

/// Removes a message of a deleted mailbox for good.
pub(crate) fn reclaim(ledger: &mut Ledger<'_, '_>, mailbox: MailboxId, found: &Found) {
    take_whole(ledger, mailbox, found);
    content::release(ledger, found.state.email);
}

/// Removes the rows of a state.
fn take_whole(ledger: &mut Ledger<'_, '_>, mailbox: MailboxId, found: &Found) {
    take(ledger, mailbox, found);
    if found.staged.is_none() {
        let key = table::by_uid(ledger.account, Table::State, mailbox, found.uid);
        ledger.rows.remove_known(key, &found.row);
    }
}

/// The same, but for the one a change writes over.
fn take(ledger: &mut Ledger<'_, '_>, mailbox: MailboxId, found: &Found) {
    let account = ledger.account;
    if let Some((staging, rank)) = found.staged {
        ledger.rows.remove_known(table::staged(account, staging, rank), &found.row);
        return;
    }
    let (modseq, uid) = (found.state.modseq, found.uid);
    let index = table::by_modseq(account, Table::Modseq, mailbox, modseq, uid.value());
    ledger.rows.remove_known(index, &table::marker());
}

fn count(row: &mut MailboxRow, uid: Uid, state: &State) {
    row.n_messages += 1;
    row.n_unseen += u32::from(!state.is_seen());
    row.n_deleted += u32::from(state.is_deleted());
    row.n_recent += u32::from(uid >= row.first_recent);
    row.size_bytes += state.size;
    row.deleted_bytes += if state.is_deleted() { state.size } else { 0 };
}

fn uncount(row: &mut MailboxRow, uid: Uid, state: &State) {
    row.n_messages -= 1;
    row.n_unseen -= u32::from(!state.is_seen());
    row.n_deleted -= u32::from(state.is_deleted());
    row.n_recent -= u32::from(uid >= row.first_recent);
    row.size_bytes -= state.size;
    row.deleted_bytes -= if state.is_deleted() { state.size } else { 0 };
}
