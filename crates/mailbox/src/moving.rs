//! Accounts on their way from one shard to another.
//!
//! ```text
//! from:  Begin -> Leaving (served; each changed row is noted) -> Freeze -> Depart -> Left
//! to:    Arrive -> Arriving (rows are received) -> Settle, when the other one says Left -> nothing
//! ```
//!
//! Invariant: an account is served where it is neither `Left` nor `Arriving`. `Depart` is refused while
//! a change is noted that was not copied, so nothing acknowledged stays behind; and nobody settles
//! before the other shard's log says `Left`, so never do two shards serve one account.
//!
//! A move is called off by two steps, in this order:
//!
//! ```text
//! from:  Stay   -> Stayed (served; what was noted is dropped), unless it is `Left`
//! to:    Forget -> Left, back to where it stays (what came is dropped)
//! ```
//!
//! Invariant: after `Stay` no move up to that epoch begins or departs there any more, whoever is still
//! about it: the next one has a later epoch, and `Depart` names its own. So what is forgotten was never
//! all there is of an account, and it is nobody's to settle.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use crate::command::Place;
use crate::ids::{AccountId, LogTime};
use crate::outcome::Refusal;
use crate::row;
use crate::rows::{Rows, Source};
use crate::table;

/// How far an account is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Moving {
    /// It is served here and copied.
    #[n(0)]
    Leaving {
        /// Where it will be.
        #[n(0)]
        to: Place,
        /// Changes noted so far.
        #[n(1)]
        n_changes: u64,
        /// Until then nobody may change it, so that the last changes can be copied.
        #[n(2)]
        frozen_until: LogTime,
    },
    /// It was served here.
    #[n(1)]
    Left {
        /// Where it is.
        #[n(0)]
        to: Place,
    },
    /// Its rows come here.
    #[n(2)]
    Arriving {
        /// Where it will be: here.
        #[n(0)]
        to: Place,
        /// Of whoever moves it: what another one still sends is not received.
        #[n(1)]
        token: u64,
        /// All have come, and some were put where they belong already: no more are received.
        #[cbor(n(2), default)]
        is_settling: bool,
    },
    /// It is served here: its move to elsewhere was called off.
    #[n(3)]
    Stayed {
        /// Where it would have been. Only moves of later epochs begin.
        #[n(0)]
        to: Place,
    },
}

/// The keys that one entry changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ChangedKeys {
    #[n(0)]
    pub keys: Vec<minicbor::bytes::ByteVec>,
}

/// On its way here, away, or neither.
pub(crate) fn of(rows: &dyn Source, account: AccountId) -> Option<Moving> {
    row::load(rows, &table::moving(account))
}

/// Whether the account may be changed here.
pub(crate) fn admit(rows: &dyn Source, now: LogTime, account: AccountId) -> Result<(), Refusal> {
    match of(rows, account) {
        Some(Moving::Leaving { frozen_until, .. }) if now < frozen_until => Err(Refusal::Moving),
        Some(Moving::Leaving { .. } | Moving::Stayed { .. }) | None => Ok(()),
        Some(Moving::Left { to }) => Err(Refusal::Moved(to)),
        Some(Moving::Arriving { .. }) => Err(Refusal::Moving),
    }
}

/// Whether the account may be read here.
pub(crate) fn readable(rows: &dyn Source, account: AccountId) -> Result<(), Refusal> {
    match of(rows, account) {
        Some(Moving::Left { to }) => Err(Refusal::Moved(to)),
        Some(Moving::Arriving { .. }) => Err(Refusal::Moving),
        Some(Moving::Leaving { .. } | Moving::Stayed { .. }) | None => Ok(()),
    }
}

/// What this entry changes is noted from here on.
pub(crate) fn begin(rows: &mut Rows<'_>) {
    drop(rows.take_touched());
}

/// Notes what this entry changed of accounts that are leaving, whoever changed it.
pub(crate) fn note(rows: &mut Rows<'_>) {
    let touched = rows.take_touched();
    let accounts: BTreeSet<AccountId> = touched.keys().filter_map(table::account_of).collect();
    for account in accounts {
        if let Some(Moving::Leaving { to, n_changes, frozen_until }) = of(rows, account) {
            let is_of_it = |key: &&[u8]| table::account_of(key) == Some(account);
            let keys: BTreeSet<&[u8]> = touched.keys().filter(is_of_it).collect();
            let keys = keys.into_iter().map(|key| key.to_vec().into()).collect();
            let n_changes = n_changes + 1;
            row::save(rows, table::changed(account, n_changes), &ChangedKeys { keys });
            let moving = Moving::Leaving { to, n_changes, frozen_until };
            row::save(rows, table::moving(account), &moving);
        }
    }
}
