//! COPY: as a whole or not at all. What fits into one slice arrives at once. What does not is
//! staged: slice after slice is copied where nobody looks, and the last slice publishes all of it
//! as one extent of the mailbox, whatever its size, by writing one row.

use super::store;
use crate::command::{Copy, SLICE_ROWS_MAX};
use crate::content;
use crate::ids::{ModSeq, Uid};
use crate::ledger::Ledger;
use crate::message::{self, Found};
use crate::outcome::{Copied, Outcome, Refusal};
use crate::row::{self, ExtentRow, StagingRow};
use crate::state::State;
use crate::table::{self, Table};
use crate::tree;
use crate::uid_set::UidSet;

/// Limit: messages one slice copies; each costs two rows and its content's.
const SLICE_MAX: usize = (SLICE_ROWS_MAX - 96) / 3;
/// Limit: ranges of UIDs in one staged COPY, since they are kept with it.
pub const COPY_RANGES_MAX: usize = 16_384;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &Copy) -> Result<Outcome, Refusal> {
    let to = tree::target(ledger.rows, ledger.account, cmd.to, cmd.to_name.as_ref())?;
    let cmd = &Copy { to, to_name: None, uids: cmd.uids.clone(), ..*cmd };
    let key = table::staging(ledger.account, cmd.staging);
    let staging: Option<StagingRow> = row::load(ledger.rows, &key);
    if staging.as_ref().is_some_and(|row| row.dropped || row.from != cmd.from || row.to != cmd.to) {
        return Err(Refusal::UploadGap);
    }
    if cmd.further && staging.is_none() {
        return Err(Refusal::UploadGap);
    }
    ledger.mailbox(cmd.to)?;
    let (slice, next) = store::slice(ledger, cmd.from, &cmd.uids, SLICE_MAX)?;
    let n_later = next.map_or(0, |next| cmd.uids.starting_at(next).n_uids());
    if cmd.whole && (slice.len() as u64) < cmd.uids.n_uids() - n_later {
        return Err(Refusal::NoSuchMessage);
    }
    let mut states = Vec::with_capacity(slice.len());
    for found in &slice {
        let flags = ledger.spell_fitting(cmd.to, &found.state.flags)?;
        let save_date = ledger.now;
        states.push(State { flags, save_date, modseq: 0, ..found.state.clone() });
    }
    match (staging, next) {
        (None, None) => copy_at_once(ledger, cmd, &slice, states),
        (staging, Some(next)) => {
            let staging = stage(ledger, cmd, staging, (&slice, states))?;
            row::save(ledger.rows, key, &staging);
            let uid_validity = ledger.mailbox(cmd.to)?.uid_validity;
            let (source, target) = (UidSet::new(), UidSet::new());
            Ok(Outcome::Copied(Copied {
                uid_validity,
                source,
                target,
                next: Some(next),
                modseq: None,
                to: Some(cmd.to),
            }))
        }
        (Some(staging), None) => {
            let staging = stage(ledger, cmd, Some(staging), (&slice, states))?;
            let outcome = publish(ledger, cmd, staging)?;
            ledger.rows.remove(&key);
            Ok(outcome)
        }
    }
}

fn copy_at_once(
    ledger: &mut Ledger<'_, '_>,
    cmd: &Copy,
    slice: &[Found],
    states: Vec<State>,
) -> Result<Outcome, Refusal> {
    let n_bytes = slice.iter().map(|found| found.state.size).sum();
    ledger.check_uids(cmd.to, slice.len())?;
    ledger.check_quota(n_bytes, slice.len() as u64)?;
    let (mut source, mut target) = (UidSet::new(), UidSet::new());
    if !slice.is_empty() {
        let modseq = ledger.modseq()?;
        for (found, mut state) in slice.iter().zip(states) {
            content::refer(ledger, state.email);
            state.modseq = modseq.value();
            source.push(found.uid);
            target.push(message::arrive(ledger, cmd.to, &state));
        }
    }
    let uid_validity = ledger.mailbox(cmd.to)?.uid_validity;
    Ok(Outcome::Copied(Copied {
        uid_validity,
        source,
        target,
        next: None,
        modseq: None,
        to: Some(cmd.to),
    }))
}

/// Copies a slice where nobody looks.
fn stage(
    ledger: &mut Ledger<'_, '_>,
    cmd: &Copy,
    staging: Option<StagingRow>,
    (slice, states): (&[Found], Vec<State>),
) -> Result<StagingRow, Refusal> {
    let staged = table::all_staged(ledger.account, cmd.staging);
    if staging.is_none() && row::has_any(ledger.rows, &staged) {
        return Err(Refusal::UploadGap);
    }
    let mut staging = staging.unwrap_or(StagingRow {
        from: cmd.from,
        to: cmd.to,
        source: UidSet::new(),
        n_messages: 0,
        n_unseen: 0,
        n_deleted: 0,
        size_bytes: 0,
        deleted_bytes: 0,
        touched: ledger.now,
        dropped: false,
    });
    staging.touched = ledger.now;
    let last = staging.source.ranges().last().map(|range| range.1);
    if slice.first().is_some_and(|first| last.is_some_and(|last| first.uid <= last)) {
        return Err(Refusal::UploadGap);
    }
    let first_rank = staging.n_messages;
    for (found, state) in slice.iter().zip(&states) {
        staging.source.push(found.uid);
        staging.n_messages += 1;
        staging.n_unseen += u32::from(!state.is_seen());
        staging.n_deleted += u32::from(state.is_deleted());
        staging.size_bytes += state.size;
        staging.deleted_bytes += if state.is_deleted() { state.size } else { 0 };
    }
    if staging.source.ranges().len() > COPY_RANGES_MAX {
        return Err(Refusal::Limit("ranges of one COPY".into()));
    }
    ledger.check_uids(cmd.to, staging.n_messages as usize)?;
    ledger.check_quota(staging.size_bytes, u64::from(staging.n_messages))?;
    ledger.modseq()?;
    for (rank, state) in (first_rank..).zip(states) {
        content::refer(ledger, state.email);
        // Invariant: none was staged under this rank, see above.
        ledger.rows.put_new(table::staged(ledger.account, cmd.staging, rank), state.write());
    }
    Ok(staging)
}

/// All copies are there: one row makes them messages of the mailbox.
fn publish(
    ledger: &mut Ledger<'_, '_>,
    cmd: &Copy,
    staging: StagingRow,
) -> Result<Outcome, Refusal> {
    let account = ledger.account;
    let modseq: ModSeq = ledger.modseq()?;
    let n_messages = staging.n_messages;
    let row = ledger.loaded(cmd.to);
    let uid_validity = row.uid_validity;
    let first = row.uid_next;
    let last = Uid::new(first.value() + (n_messages - 1)).expect("the slices checked UIDs");
    row.uid_next = Uid::new(last.value() + 1).expect("the slices checked UIDs");
    row.n_messages += n_messages;
    row.n_unseen += staging.n_unseen;
    row.n_deleted += staging.n_deleted;
    row.n_recent += n_messages;
    row.size_bytes += staging.size_bytes;
    row.deleted_bytes += staging.deleted_bytes;
    row.n_extents += 1;
    ledger.usage.n_messages += u64::from(n_messages);
    ledger.usage.storage_bytes += staging.size_bytes;
    let extent = ExtentRow { staging: cmd.staging, n_messages, modseq };
    row::save(ledger.rows, table::by_uid(account, Table::Extent, cmd.to, first), &extent);
    ledger.rows.put(table::settle(account, cmd.to, first), table::marker());
    ledger.touch(cmd.to, modseq);
    let target = UidSet::range(first, last);
    Ok(Outcome::Copied(Copied {
        uid_validity,
        source: staging.source,
        target,
        next: None,
        modseq: None,
        to: Some(cmd.to),
    }))
}
