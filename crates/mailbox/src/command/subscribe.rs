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
        count_bytes(ledger, cmd.name.size_bytes() as i64);
        ledger.usage.n_subscriptions += 1;
        ledger.rows.put(key, table::marker());
    } else if !cmd.on && is_subscribed {
        count_bytes(ledger, -(cmd.name.size_bytes() as i64));
        ledger.usage.n_subscriptions -= 1;
        ledger.rows.remove(&key);
    }
    Ok(Outcome::Done)
}

/// Whether a name may be subscribed: as many octets as of mailboxes. Short names always fit.
fn check_bytes(ledger: &mut Ledger<'_, '_>, name: &MailboxName) -> Result<(), Refusal> {
    if name.size_bytes() <= SHORT_NAME_BYTES {
        return Ok(());
    }
    let bytes = match ledger.usage.subscriptions_bytes {
        Some(bytes) => bytes,
        // Only until a long name was let in: what is refused keeps nothing of what it found out.
        None => all_bytes(ledger),
    };
    ledger.usage.subscriptions_bytes = Some(bytes);
    if bytes + name.size_bytes() as u64 > NAMES_BYTES_MAX as u64 {
        return Err(Refusal::Limit("octets of subscriptions".into()));
    }
    Ok(())
}

fn all_bytes(ledger: &Ledger<'_, '_>) -> u64 {
    let prefix = table::table(ledger.account, Table::Subscription);
    let mut bytes = 0;
    ledger.rows.scan(&prefix, &table::end_of(&prefix), &mut |key, _| {
        bytes += key.len() - prefix.len();
        true
    });
    bytes as u64
}

fn count_bytes(ledger: &mut Ledger<'_, '_>, change: i64) {
    if let Some(bytes) = &mut ledger.usage.subscriptions_bytes {
        *bytes = bytes.saturating_add_signed(change);
    }
}
