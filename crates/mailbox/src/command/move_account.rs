//! MoveAccount: one step of a move to another shard, at the one or at the other.

use crate::chunk::Digest;
use crate::command::delete_account::WHOLE_ACCOUNT;
use crate::command::{AccountState, MoveAccount, MoveStep, MovedRow, OfMailbox, Place, ROWS_MAX};
use crate::content::Inline;
use crate::ids::{AccountId, LogTime, MailboxId, ModSeq, ShardId};
use crate::ledger;
use crate::moving::{self, Moving};
use crate::outcome::{Change, Outcome, Refusal};
use crate::row::{self, ForgetRow, ShardRow, UploadRow};
use crate::rows::{Rows, Source};
use crate::table;

/// Limit: how long nobody may change the account: well below what a client waits.
pub const FREEZE_MS_MAX: u64 = 5_000;
/// Limit: rows in one step.
pub const MOVED_ROWS_MAX: usize = ROWS_MAX / 2;

pub(crate) fn apply(
    rows: &mut Rows<'_>,
    now: LogTime,
    cmd: &MoveAccount,
    inline: &Inline,
) -> Result<(Outcome, Vec<Change>), Refusal> {
    let account = cmd.account;
    let moving = moving::of(rows, account);
    let mut changes = Vec::new();
    let outcome = match &cmd.step {
        MoveStep::Begin(to) => begin(rows, account, moving, *to)?,
        MoveStep::Freeze(for_ms) => freeze(rows, now, account, (moving, *for_ms))?,
        MoveStep::Depart(n_changes, to) => {
            let outcome = depart(rows, account, moving, (*n_changes, *to))?;
            let of = OfMailbox { account, mailbox: MailboxId::EVERY };
            changes.push(Change { of, highest_modseq: ModSeq::LAST });
            outcome
        }
        MoveStep::Arrive(to, token) => arrive(rows, account, moving, (*to, *token))?,
        MoveStep::Receive(received, token) => {
            is_arriving(moving, *token)?;
            receive(rows, account, received, inline)?
        }
        MoveStep::Settle(to) => settle(rows, account, (moving, *to))?,
        MoveStep::Stay(to) => stay(rows, account, moving, *to)?,
        MoveStep::Forget(to, home) => forget(rows, account, moving, (*to, *home))?,
    };
    Ok((outcome, changes))
}

/// From now on changes are noted. A repetition is nothing. Refused for a while after one that was called
/// off: what was noted for it has to go first.
fn begin(
    rows: &mut Rows<'_>,
    account: AccountId,
    moving: Option<Moving>,
    to: Place,
) -> Result<Outcome, Refusal> {
    match moving {
        Some(Moving::Leaving { to: other, .. }) if other == to => return Ok(Outcome::Done),
        Some(Moving::Left { to }) => return Err(Refusal::Moved(to)),
        Some(Moving::Leaving { .. } | Moving::Arriving { .. }) => return Err(Refusal::Moving),
        Some(Moving::Stayed { to: other }) if other.epoch >= to.epoch => {
            return Err(Refusal::NoSuchAccount);
        }
        Some(Moving::Stayed { .. }) | None => {}
    }
    ledger::account_row(rows, account)?;
    if row::has_any(rows, &table::all_changed(account)) {
        return Err(Refusal::Moving);
    }
    let moving = Moving::Leaving { to, n_changes: 0, frozen_until: LogTime(0) };
    row::save(rows, table::moving(account), &moving);
    Ok(Outcome::Done)
}

/// Nobody changes it for a while. If nothing follows it thaws by itself.
fn freeze(
    rows: &mut Rows<'_>,
    now: LogTime,
    account: AccountId,
    (moving, for_ms): (Option<Moving>, u64),
) -> Result<Outcome, Refusal> {
    let Some(Moving::Leaving { to, n_changes, .. }) = moving else {
        return Err(elsewhere(moving));
    };
    let frozen_until = LogTime(now.0.saturating_add(for_ms.min(FREEZE_MS_MAX)));
    let moving = Moving::Leaving { to, n_changes, frozen_until };
    row::save(rows, table::moving(account), &moving);
    Ok(Outcome::Done)
}

/// It is served here no more, if all that was noted was copied.
fn depart(
    rows: &mut Rows<'_>,
    account: AccountId,
    moving: Option<Moving>,
    (n_copied, named): (u64, Option<Place>),
) -> Result<Outcome, Refusal> {
    let is_other = |to: Place| named.is_some_and(|named| named != to);
    match moving {
        // Why: this one was called off, and its changes are not those that were noted since.
        Some(Moving::Leaving { to, .. }) if is_other(to) => Err(Refusal::NoSuchAccount),
        Some(Moving::Left { to }) if is_other(to) => Err(Refusal::Moved(to)),
        Some(Moving::Leaving { to, n_changes, .. }) if n_changes == n_copied => {
            let mut row = ledger::account_row(rows, account)?;
            row.state = AccountState::Deleting;
            row::save(rows, table::account(account), &row);
            // At once: what was expunged lives on where the account is now.
            rows.put(table::reclaim(LogTime(0), account, WHOLE_ACCOUNT), table::marker());
            row::save(rows, table::moving(account), &Moving::Left { to });
            Ok(Outcome::Done)
        }
        Some(Moving::Leaving { .. }) => Err(Refusal::Moving),
        Some(Moving::Left { .. }) => Ok(Outcome::Done),
        other => Err(elsewhere(other)),
    }
}

/// It stays: no move up to this epoch begins, goes on or departs here any more. A repetition is nothing.
fn stay(
    rows: &mut Rows<'_>,
    account: AccountId,
    moving: Option<Moving>,
    to: Place,
) -> Result<Outcome, Refusal> {
    match moving {
        Some(Moving::Left { to }) => return Err(Refusal::Moved(to)),
        Some(Moving::Arriving { .. }) => return Err(Refusal::Moving),
        Some(Moving::Leaving { to: other, .. }) if other != to => return Err(Refusal::Moving),
        Some(Moving::Stayed { to: other }) if other.epoch >= to.epoch => return Ok(Outcome::Done),
        Some(Moving::Leaving { .. } | Moving::Stayed { .. }) | None => {}
    }
    ledger::account_row(rows, account)?;
    row::save(rows, table::moving(account), &Moving::Stayed { to });
    Ok(Outcome::Done)
}

/// It does not come: its rows go, and who still moves it or looks for it is sent back.
fn forget(
    rows: &mut Rows<'_>,
    account: AccountId,
    moving: Option<Moving>,
    (to, home): (Place, ShardId),
) -> Result<Outcome, Refusal> {
    match moving {
        Some(Moving::Arriving { to: here, is_settling: false, .. }) if here == to => {
            row::save(rows, table::forget(account), &ForgetRow::default());
        }
        Some(Moving::Arriving { .. } | Moving::Leaving { .. }) => return Err(Refusal::Moving),
        Some(Moving::Left { to: other }) if other.epoch >= to.epoch => return Ok(Outcome::Done),
        Some(Moving::Left { .. }) => {}
        Some(Moving::Stayed { .. }) | None if rows.row(&table::account(account)).is_some() => {
            return Err(Refusal::Taken);
        }
        Some(Moving::Stayed { .. }) | None => {}
    }
    // Why this epoch: it is refused to whoever says late that the account comes.
    let to = Place { account, shard: home, epoch: to.epoch, alias: false };
    row::save(rows, table::moving(account), &Moving::Left { to });
    Ok(Outcome::Done)
}

/// Its rows may come. Refused for a while where it was before: its old rows have to go first.
fn arrive(
    rows: &mut Rows<'_>,
    account: AccountId,
    moving: Option<Moving>,
    (to, token): (Place, u64),
) -> Result<Outcome, Refusal> {
    match moving {
        Some(Moving::Arriving { to: other, is_settling: false, .. }) if other == to => {}
        Some(Moving::Arriving { .. } | Moving::Leaving { .. }) => return Err(Refusal::Moving),
        Some(Moving::Left { to: other }) if other.epoch >= to.epoch => {
            return Err(Refusal::Moved(other));
        }
        Some(Moving::Left { .. }) => {
            let leftovers = table::all_of(account);
            if leftovers.iter().any(|prefix| row::has_any(rows, prefix)) {
                return Err(Refusal::Moving);
            }
        }
        Some(Moving::Stayed { .. }) | None if rows.row(&table::account(account)).is_some() => {
            return Err(Refusal::Taken);
        }
        Some(Moving::Stayed { .. }) | None => {}
    }
    let moving = Moving::Arriving { to, token, is_settling: false };
    row::save(rows, table::moving(account), &moving);
    Ok(Outcome::Done)
}

fn receive(
    rows: &mut Rows<'_>,
    account: AccountId,
    received: &[MovedRow],
    inline: &Inline,
) -> Result<Outcome, Refusal> {
    if received.len() > MOVED_ROWS_MAX {
        return Err(Refusal::Limit("rows in one step".into()));
    }
    for MovedRow { key, value } in received {
        let is_ours = table::account_of(key) == Some(account);
        if !is_ours || value.as_ref().is_some_and(|value| !row::is_sound(key, value)) {
            return Err(Refusal::Limit("rows that are the account's".into()));
        }
        if let (Some(digest), Some(_)) = (table::digest_of(key), value)
            && !is_here(rows, &digest, inline)
        {
            return Err(Refusal::ChunkMissing);
        }
    }
    for MovedRow { key, value } in received {
        // Why: what housekeeping or a list would find of an account that is not here yet.
        let key = if table::is_held(key) { table::held(account, key) } else { key.clone() };
        match value {
            Some(value) => rows.put(key, value.clone()),
            None => rows.remove(&key),
        }
    }
    Ok(Outcome::Done)
}

/// Whether this shard keeps the body of a chunk, or gets it with this command.
fn is_here(rows: &dyn Source, digest: &Digest, inline: &Inline) -> bool {
    inline.contains_key(digest) || row::has_any(rows, &table::chunk_everywhere(digest))
}

/// Puts what was held where it belongs, and serves the account when nothing is left. Who says so late,
/// when the account has been elsewhere and comes once more, says it of another place.
fn settle(
    rows: &mut Rows<'_>,
    account: AccountId,
    (moving, to): (Option<Moving>, Place),
) -> Result<Outcome, Refusal> {
    let (token, is_begun) = match moving {
        Some(Moving::Arriving { to: here, token, is_settling }) if here == to => {
            (token, is_settling)
        }
        Some(Moving::Stayed { .. }) | None if rows.row(&table::account(account)).is_some() => {
            return Ok(Outcome::Housekept { more: false });
        }
        other => return Err(elsewhere(other)),
    };
    let key = table::account(account);
    if rows.row(&key).or_else(|| rows.row(&table::held(account, &key))).is_none() {
        return Err(Refusal::NoSuchAccount);
    }
    let prefix = table::all_held(account);
    let held = row::first_keys(rows, &prefix, MOVED_ROWS_MAX / 2);
    let is_last = held.len() < MOVED_ROWS_MAX / 2;
    let mut upload_bytes = 0;
    for at in held {
        let key = table::of_held(&at);
        let value = rows.row(&at).expect("it was just scanned");
        if table::is_upload(&key) {
            upload_bytes += row::read::<UploadRow>(&value).size_bytes;
        }
        rows.put(key, value);
        rows.remove(&at);
    }
    if upload_bytes > 0 {
        let mut shard: ShardRow = row::load(rows, &table::shard()).unwrap_or_default();
        shard.upload_bytes += upload_bytes;
        row::save(rows, table::shard(), &shard);
    }
    if is_last {
        rows.remove(&table::moving(account));
    } else if !is_begun {
        // Why: who took over late may still send what was put there, and it would be put there again.
        let moving = Moving::Arriving { to, token, is_settling: true };
        row::save(rows, table::moving(account), &moving);
    }
    Ok(Outcome::Housekept { more: !is_last })
}

/// Whether rows come here, sent by this one.
fn is_arriving(moving: Option<Moving>, by: u64) -> Result<(), Refusal> {
    match moving {
        Some(Moving::Arriving { token, is_settling: false, .. }) if token == by => Ok(()),
        other => Err(elsewhere(other)),
    }
}

fn elsewhere(moving: Option<Moving>) -> Refusal {
    match moving {
        Some(Moving::Left { to }) => Refusal::Moved(to),
        Some(Moving::Leaving { .. } | Moving::Arriving { .. }) => Refusal::Moving,
        Some(Moving::Stayed { .. }) | None => Refusal::NoSuchAccount,
    }
}
