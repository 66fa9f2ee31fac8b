//! SUBSCRIBE and UNSUBSCRIBE: of names, whether or not a mailbox has them.

use crate::command::Subscribe;
use crate::ledger::Ledger;
use crate::outcome::{Outcome, Refusal};
use crate::rows::Source;
use crate::table;

/// Limit: subscribed names of one account, so that LSUB stays one answer.
pub const SUBSCRIPTIONS_MAX: u32 = 10_000;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &Subscribe) -> Result<Outcome, Refusal> {
    let key = table::subscription(ledger.account, &cmd.name);
    let is_subscribed = ledger.rows.row(&key).is_some();
    if cmd.on && !is_subscribed {
        if ledger.usage.n_subscriptions >= SUBSCRIPTIONS_MAX {
            return Err(Refusal::Limit("subscriptions".into()));
        }
        ledger.usage.n_subscriptions += 1;
        ledger.rows.put(key, table::marker());
    } else if !cmd.on && is_subscribed {
        ledger.usage.n_subscriptions -= 1;
        ledger.rows.remove(&key);
    }
    Ok(Outcome::Done)
}
