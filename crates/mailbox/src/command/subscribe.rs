//! SUBSCRIBE and UNSUBSCRIBE: of names, whether or not a mailbox has them.

use crate::command::Subscribe;
use crate::ledger::Ledger;
use crate::name::MailboxName;
use crate::outcome::{Outcome, Refusal};
use crate::rows::Source;
use crate::table::{self, Table};
use crate::tree::{NAMES_BYTES_MAX, SHORT_NAME_BYTES};

/// Limit: subscribed names of one account, so that LSUB stays one answer.
pub const SUBSCRIPTIONS_MAX: u32 = 10_000;

pub(crate) fn apply(ledger: &mut Ledger<'_, '_>, cmd: &Subscribe) -> Result<Outcome, Refusal> {
    let key = table::subscription(ledger.account, &cmd.name);
    let is_subscribed = ledger.rows.row(&key).is_some();
    if cmd.on && !is_subscribed {
        if ledger.usage.n_subscriptions >= SUBSCRIPTIONS_MAX {
            return Err(Refusal::Limit("subscriptions".into()));
        }
        check_bytes(ledger, &cmd.name)?;
        ledger.usage.n_subscriptions += 1;
        ledger.rows.put(key, table::marker());
    } else if !cmd.on && is_subscribed {
        ledger.usage.n_subscriptions -= 1;
        ledger.rows.remove(&key);
    }
    Ok(Outcome::Done)
}

/// Whether a name may be subscribed: as many octets as of mailboxes. Short names always fit.
fn check_bytes(ledger: &Ledger<'_, '_>, name: &MailboxName) -> Result<(), Refusal> {
    if name.size_bytes() <= SHORT_NAME_BYTES {
        return Ok(());
    }
    let prefix = table::table(ledger.account, Table::Subscription);
    let mut bytes = name.size_bytes();
    ledger.rows.scan(&prefix, &table::end_of(&prefix), &mut |key, _| {
        bytes += key.len() - prefix.len();
        true
    });
    if bytes > NAMES_BYTES_MAX {
        return Err(Refusal::Limit("octets of subscriptions".into()));
    }
    Ok(())
}
