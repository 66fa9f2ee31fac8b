//! Housekeep: one bounded step of everything nobody asks for. Sessions and uploads that went silent,
//! bodies of messages expunged long ago, rows of what was deleted, extents still to be settled, and what is
//! left of moves that were called off.

mod called_off;
mod reclaim;

use crate::command::{AccountState, Housekeep, ROWS_MAX, SLICE_ROWS_MAX, upload};
use crate::content::{self, CHUNKS_MAX, ROWS_PER_CONTENT_MAX};
use crate::ids::{AccountId, LogTime, MailboxId, UploadId};
use crate::ledger::Ledger;
use crate::message;
use crate::outcome::Outcome;
use crate::row::{self, AccountRow, ExtentRow, GoneRow, StagingRow, UploadRow};
use crate::rows::{Rows, Source};
use crate::session;
use crate::state::State;
use crate::table::{self, Fields, Table};

/// Rows one upload takes with it.
const ROWS_PER_UPLOAD_MAX: usize = 2 * CHUNKS_MAX + 4;
/// Rows any single item takes with it.
const ROWS_PER_ITEM_MAX: usize = ROWS_PER_CONTENT_MAX + 8;
/// Rows spent on sessions, so that the rest has its share.
const SESSION_ROWS_MAX: usize = 256;
/// Rows each other kind of work may begin with before any of them gets what is left: with those of sessions
/// they are a slice.
const SHARE_ROWS_MAX: usize = SLICE_ROWS_MAX / 8;

/// One kind of work. False if there is more to do.
type Kind = fn(&mut Rows<'_>, LogTime, &Housekeep, &Budget) -> bool;

/// Why what settles first: who copied waits for it, and nobody for the rest.
const KINDS: [Kind; 5] = [
    |rows, now, _, budget| settle(rows, now, budget),
    |rows, now, cmd, budget| expire_uploads(rows, now, cmd.uploads_before, budget),
    |rows, now, cmd, budget| expire_stagings(rows, now, cmd.uploads_before, budget),
    |rows, now, cmd, budget| purge(rows, now, cmd.purge_before, budget),
    |rows, now, cmd, budget| {
        // Why last: it may go on for thousands of steps, and what it drops is in nobody's way.
        let is_done = reclaim::apply(rows, now, cmd.purge_before, budget);
        called_off::apply(rows, budget) && is_done
    },
];

/// What is left of the rows of one command.
struct Budget {
    /// Nothing more is begun beyond it,
    n_writes: usize,
    /// and nothing that might go beyond this.
    n_writes_max: usize,
}

impl Budget {
    /// Whether something that takes so many rows still fits.
    fn fits(&self, n_writes: usize, n_rows: usize) -> bool {
        n_writes < self.n_writes && n_writes + n_rows <= self.n_writes_max
    }

    /// What one kind may spend of it when so many rows are spent.
    fn share(&self, n_writes: usize) -> Self {
        Self { n_writes: n_writes + SHARE_ROWS_MAX, ..*self }
    }
}

pub(crate) fn apply(rows: &mut Rows<'_>, now: LogTime, cmd: &Housekeep) -> Outcome {
    let n_writes = rows.n_writes();
    let budget =
        Budget { n_writes: n_writes + SLICE_ROWS_MAX, n_writes_max: n_writes + ROWS_MAX - 2 };
    let is_done = session::expire(rows, cmd.sessions_before, now, SESSION_ROWS_MAX);
    let mut left = KINDS.to_vec();
    left.retain(|kind| !kind(rows, now, cmd, &budget.share(rows.n_writes())));
    // Invariant: each had its share before one of them gets the rest.
    left.retain(|kind| !kind(rows, now, cmd, &budget));
    Outcome::Housekept { more: !is_done || !left.is_empty() }
}

fn expire_uploads(rows: &mut Rows<'_>, now: LogTime, before: LogTime, budget: &Budget) -> bool {
    let mut expired = Vec::new();
    let before = upload::dropped_before(rows, before);
    let uploads = table::uploads();
    rows.scan(&uploads, &table::end_of(&uploads), &mut |key, value| {
        if row::read::<UploadRow>(value).touched < before {
            expired.push(key.to_vec());
        }
        expired.len() < ROWS_MAX
    });
    for key in expired {
        if !budget.fits(rows.n_writes(), ROWS_PER_UPLOAD_MAX) {
            return false;
        }
        let mut ledger = Ledger::reopen(rows, now, AccountId(Fields(&key).id(1)));
        upload::drop_upload(&mut ledger, UploadId(Fields(&key).id(17)));
        ledger.close();
    }
    true
}

/// COPYs nobody continued. What remains is a row that refuses late slices; it goes when as much time
/// passed again.
fn expire_stagings(rows: &mut Rows<'_>, now: LogTime, before: LogTime, budget: &Budget) -> bool {
    let mut stagings: Vec<(Vec<u8>, StagingRow)> = Vec::new();
    let prefix = table::stagings();
    rows.scan(&prefix, &table::end_of(&prefix), &mut |key, value| {
        let staging: StagingRow = row::read(value);
        if staging.dropped || staging.touched < before {
            stagings.push((key.to_vec(), staging));
        }
        stagings.len() < ROWS_MAX
    });
    for (key, mut staging) in stagings {
        if !budget.fits(rows.n_writes(), ROWS_PER_ITEM_MAX) {
            return false;
        }
        let (account, id) = (AccountId(Fields(&key).id(1)), UploadId(Fields(&key).id(17)));
        if !is_alive(rows, account) {
            rows.remove(&key);
            continue;
        }
        let is_old = staging.dropped && staging.touched < before;
        let n_writes = rows.n_writes();
        let mut ledger = Ledger::reopen(rows, now, account);
        let mut all_gone = true;
        for staged in row::first_keys(ledger.rows, &table::all_staged(account, id), ROWS_MAX) {
            if !budget.fits(n_writes + ledger.n_writes(), ROWS_PER_ITEM_MAX) {
                all_gone = false;
                break;
            }
            let state = State::read(&ledger.rows.row(&staged).expect("it was just scanned"));
            ledger.rows.remove(&staged);
            content::release(&mut ledger, state.email);
        }
        ledger.close();
        if !staging.dropped {
            staging.dropped = true;
            staging.touched = now;
            row::save(rows, key, &staging);
        } else if all_gone && is_old {
            rows.remove(&key);
        }
        if !all_gone {
            return false;
        }
    }
    true
}

/// Releases the bodies of messages expunged before a time, and their part of the expunge log.
fn purge(rows: &mut Rows<'_>, now: LogTime, before: LogTime, budget: &Budget) -> bool {
    loop {
        let mut first = None;
        rows.scan(&table::purges(), &table::purges_before(before), &mut |key, _| {
            first = Some(key.to_vec());
            false
        });
        let Some(key) = first else {
            return true;
        };
        if !budget.fits(rows.n_writes(), ROWS_PER_ITEM_MAX) {
            return false;
        }
        let fields = Fields(&key);
        let (account, mailbox) = (AccountId(fields.id(9)), MailboxId(fields.u64(25)));
        let modseq = fields.u64(33);
        if is_alive(rows, account) && !purge_one(rows, now, (account, mailbox, modseq), budget) {
            return false;
        }
        rows.remove(&key);
    }
}

/// One EXPUNGE. False if some of it is left.
fn purge_one(
    rows: &mut Rows<'_>,
    now: LogTime,
    (account, mailbox, modseq): (AccountId, MailboxId, u64),
    budget: &Budget,
) -> bool {
    let n_writes = rows.n_writes();
    let mut ledger = Ledger::reopen(rows, now, account);
    match ledger.any_mailbox(mailbox) {
        Some(row) if !row.deleted => row.expunge_floor = row.expunge_floor.max(modseq),
        _ => return true,
    }
    let log = table::by_modseq(account, Table::Expunged, mailbox, modseq, 0);
    let mut all_gone = true;
    for key in row::first_keys(ledger.rows, &log[..log.len() - 4], ROWS_MAX) {
        if !budget.fits(n_writes + ledger.n_writes(), ROWS_PER_ITEM_MAX) {
            all_gone = false;
            break;
        }
        let gone = table::by_uid(account, Table::Gone, mailbox, Fields(&key).uid());
        if let Some(row) = row::load::<GoneRow>(ledger.rows, &gone) {
            ledger.rows.remove(&gone);
            content::release(&mut ledger, row.state.email);
        }
        ledger.rows.remove(&key);
    }
    ledger.close();
    all_gone
}

/// Puts messages that came with a large COPY under their UIDs.
fn settle(rows: &mut Rows<'_>, now: LogTime, budget: &Budget) -> bool {
    while let Some(key) = row::first_keys(rows, &table::settles(), 1).pop() {
        if !budget.fits(rows.n_writes(), ROWS_PER_ITEM_MAX) {
            return false;
        }
        let account = AccountId(Fields(&key).id(1));
        let mailbox = MailboxId(Fields(&key).u64(17));
        let first = Fields(&key).uid();
        let n_writes = rows.n_writes();
        let is_alive = is_alive(rows, account);
        let mut ledger = Ledger::reopen(rows, now, account);
        let of_extent = table::by_uid(account, Table::Extent, mailbox, first);
        let extent: Option<ExtentRow> = row::load(ledger.rows, &of_extent);
        let is_there = is_alive && ledger.mailbox(mailbox).is_ok();
        if let Some(extent) = extent.filter(|_| is_there) {
            let staged = table::all_staged(account, extent.staging);
            for staged in row::first_keys(ledger.rows, &staged, SLICE_ROWS_MAX / 3) {
                if !budget.fits(n_writes + ledger.n_writes(), 8) {
                    ledger.close();
                    return false;
                }
                let rank = Fields(&staged).last_u32();
                let row = ledger.rows.row(&staged).expect("it was just scanned");
                message::settle(&mut ledger, mailbox, (first, &extent), (rank, &row));
            }
            if row::has_any(ledger.rows, &staged) {
                ledger.close();
                return false;
            }
            ledger.rows.remove(&of_extent);
            ledger.loaded(mailbox).n_extents -= 1;
        }
        ledger.close();
        rows.remove(&key);
    }
    true
}

/// Whether an account is there and not on its way out.
fn is_alive(rows: &dyn Source, account: AccountId) -> bool {
    let row: Option<AccountRow> = row::load(rows, &table::account(account));
    row.is_some_and(|row| row.state != AccountState::Deleting)
}
