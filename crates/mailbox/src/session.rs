//! Exactly once: sessions of frontends, and the outcomes kept for them.
//!
//! A request is executed only if its session is known, its sequence does not lie below the
//! session's mark, and no outcome is kept for it. A session is dropped only when the expiry of
//! every request it ever made has passed, so a late repetition finds either the outcome or
//! `Expired`, even if somebody opened the session anew.

use crate::command::Request;
use crate::ids::{LogTime, SessionId};
use crate::outcome::{Outcome, Refusal};
use crate::row::{self, SessionRow};
use crate::rows::{Rows, Source};
use crate::table;

/// Limit: outcomes kept for one session, which is how many requests it may have under way.
pub const OUTCOMES_MAX: u32 = 8192;
/// Limit: outcomes dropped with one request; more than the one it adds, so they cannot pile up.
const DROPPED_MAX: usize = 32;

/// What to do with a request.
pub(crate) enum Admission {
    /// It was not executed and must not be.
    Refused(Refusal),
    /// It was executed before; this came of it.
    Kept(Outcome),
    /// Execute it and call [`keep`].
    Execute(SessionId),
}

/// Begins a session; doing it twice is doing it once.
pub(crate) fn open(rows: &mut Rows<'_>, id: SessionId, now: LogTime) -> Outcome {
    let key = table::session(id);
    let row = match row::load::<SessionRow>(rows, &key) {
        Some(row) if row.dropped => return Outcome::Refused(Refusal::NoSuchSession),
        Some(row) => SessionRow { heard: now, ..row },
        None => SessionRow {
            heard: now,
            mark: 0,
            latest_expiry: LogTime(0),
            dropped: false,
            n_outcomes: 0,
            lowest_kept: 0,
            highest_used: 0,
        },
    };
    row::save(rows, key, &row);
    Outcome::Done
}

/// Decides whether a request is executed.
pub(crate) fn admit(rows: &mut Rows<'_>, request: &Request, now: LogTime) -> Admission {
    let Some(id) = request.session else {
        return Admission::Refused(Refusal::NoSuchSession);
    };
    let key = table::session(id);
    let (known, seen) = row::load_seen::<SessionRow>(rows, &key);
    let Some(mut session) = known.filter(|row| !row.dropped) else {
        return Admission::Refused(Refusal::NoSuchSession);
    };
    if request.sequence < session.mark {
        return Admission::Refused(Refusal::StaleSequence);
    }
    session.heard = now;
    session.mark = session.mark.max(request.lowest_unanswered.min(request.sequence));
    drop_outcomes(rows, id, &mut session);
    // Why not always: looking for what is not there is the dearest way to read.
    let is_unused = request.sequence > session.highest_used;
    let kept = if is_unused { None } else { rows.row(&table::outcome(id, request.sequence)) };
    let admission = match kept {
        Some(outcome) => Admission::Kept(row::read(&outcome)),
        None if now > request.expires => Admission::Refused(Refusal::Expired(Some(now))),
        None if session.n_outcomes >= OUTCOMES_MAX => {
            Admission::Refused(Refusal::Limit("requests under way".into()))
        }
        None => {
            session.latest_expiry = session.latest_expiry.max(request.expires);
            session.n_outcomes += 1;
            session.highest_used = session.highest_used.max(request.sequence);
            Admission::Execute(id)
        }
    };
    row::save_over(rows, key, seen.as_deref(), &session);
    admission
}

/// Keeps the outcome of a request that was executed.
pub(crate) fn keep(rows: &mut Rows<'_>, id: SessionId, sequence: u64, outcome: &mut Outcome) {
    // Why without it: versions that know nothing of it apply the same request to the same rows.
    let own = match outcome {
        Outcome::Stored(stored) => stored.own.take(),
        _ => None,
    };
    row::save_new(rows, table::outcome(id, sequence), outcome);
    if let Outcome::Stored(stored) = outcome {
        stored.own = own;
    }
}

/// Drops sessions not heard of since `before`, as far as `n_max` rows go.
/// False if there is more to do.
pub(crate) fn expire(rows: &mut Rows<'_>, before: LogTime, now: LogTime, n_max: usize) -> bool {
    let mut expired = Vec::new();
    let sessions = table::sessions();
    rows.scan(&sessions, &table::end_of(&sessions), &mut |key, value| {
        let session: SessionRow = row::read(value);
        let is_silent = session.heard < before && session.latest_expiry < now;
        if session.dropped || is_silent {
            expired.push((key.to_vec(), session));
        }
        expired.len() < n_max
    });
    let mut n_left = n_max;
    for (key, mut session) in expired {
        if n_left == 0 {
            return false;
        }
        let id = SessionId(table::Fields(&key).id(1));
        let outcomes = row::first_keys(rows, &table::outcomes(id), n_left);
        n_left -= outcomes.len();
        session.n_outcomes = session.n_outcomes.saturating_sub(outcomes.len() as u32);
        outcomes.iter().for_each(|outcome| rows.remove(outcome));
        if session.n_outcomes == 0 && n_left > 0 {
            n_left -= 1;
            rows.remove(&key);
        } else {
            session.dropped = true;
            row::save(rows, key, &session);
        }
    }
    n_left > 0
}

/// Drops outcomes below the session's mark, at most [`DROPPED_MAX`] of them.
fn drop_outcomes(rows: &mut Rows<'_>, id: SessionId, session: &mut SessionRow) {
    let below_mark = session.lowest_kept..session.mark;
    if below_mark.is_empty() {
        return;
    }
    // Why not always a scan: it passes by every row that was removed here before.
    let is_near = below_mark.end - below_mark.start <= DROPPED_MAX as u64;
    let n_dropped = if is_near {
        session.lowest_kept = session.mark;
        below_mark.filter(|sequence| rows.take(&table::outcome(id, *sequence))).count()
    } else {
        let mut old = Vec::new();
        rows.scan(
            &table::outcome(id, below_mark.start),
            &table::outcome(id, below_mark.end),
            &mut |key, _| {
                old.push(key.to_vec());
                old.len() < DROPPED_MAX
            },
        );
        session.lowest_kept = match old.last().filter(|_| old.len() == DROPPED_MAX) {
            Some(last) => table::Fields(last).u64(table::OUTCOME_SEQUENCE_AT) + 1,
            None => session.mark,
        };
        old.iter().for_each(|key| rows.remove(key));
        old.len()
    };
    session.n_outcomes = session.n_outcomes.saturating_sub(n_dropped as u32);
}
