//! Renumber: every mailbox gets a new, greater UIDVALIDITY, because its later history may be lost. For a
//! shard that was forced back to what one replica had.

use crate::command::{OfMailbox, ROWS_MAX, Renumber};
use crate::gaps;
use crate::ids::{AccountId, LogTime, MailboxId, Uid, UidValidity};
use crate::outcome::Outcome;
use crate::row::{self, MailboxRow, UsageRow};
use crate::rows::{Rows, Source};
use crate::table::{self, Fields, Table};

/// What was lost may have given out UIDVALIDITYs ahead of the clock: one more for each mailbox created
/// within the same second. Limit: nobody creates so many.
const AHEAD_S: u32 = 86_400;
/// Ids that what was lost may have given out.
const IDS_AHEAD: u64 = 1 << 32;
/// UIDs that what was lost may have given out in a mailbox. Why not again under the new UIDVALIDITY: a
/// session that knew the old one may name them once more before it hears of the new one, and would move or
/// delete what came since.
const UIDS_AHEAD: u32 = 1 << 20;
/// Beyond it none are passed over, or they would come to their end.
const UIDS_PASSED_MAX: u32 = 1 << 31;
/// Limit: mailboxes in one step; each takes four rows, and each account two more.
const MAILBOXES_MAX: usize = (ROWS_MAX - 8) / 5;

pub(crate) fn apply(rows: &mut Rows<'_>, now: LogTime, cmd: &Renumber) -> Outcome {
    let mut n_left = MAILBOXES_MAX;
    let mut after = cmd.after;
    while let Some(account) = next_account(rows, after) {
        let from = after.filter(|of| of.account == account).map(|of| of.mailbox);
        let keys = mailboxes(rows, account, from, n_left);
        n_left -= keys.len();
        let last = keys.last().map(|key| MailboxId(Fields(key).u64(18)));
        renumber(rows, now, account, keys);
        // Why the greatest number: all of the account are done, and the next one is looked for.
        let mailbox = if n_left == 0 { last } else { None };
        let of = OfMailbox { account, mailbox: mailbox.unwrap_or(MailboxId(u64::MAX)) };
        if n_left == 0 {
            return Outcome::Renumbered { next: Some(of) };
        }
        after = Some(of);
    }
    Outcome::Renumbered { next: None }
}

/// The account a step goes on with. Each has a row with its last UIDVALIDITY.
fn next_account(rows: &Rows<'_>, after: Option<OfMailbox>) -> Option<AccountId> {
    let from = match after {
        Some(of) if of.mailbox == MailboxId(u64::MAX) => {
            table::end_of(&table::uid_validity(of.account))
        }
        Some(of) => table::uid_validity(of.account),
        None => table::uid_validities(),
    };
    let mut found = None;
    rows.scan(&from, &table::end_of(&table::uid_validities()), &mut |key, _| {
        found = Some(AccountId(Fields(key).id(1)));
        false
    });
    found
}

/// Keys of up to so many mailboxes.
fn mailboxes(
    rows: &Rows<'_>,
    account: AccountId,
    after: Option<MailboxId>,
    n_max: usize,
) -> Vec<Vec<u8>> {
    let all = table::table(account, Table::Mailbox);
    let from = match after {
        Some(mailbox) => table::end_of(&table::mailbox(account, mailbox)),
        None => all.clone(),
    };
    let mut keys = Vec::new();
    rows.scan(&from, &table::end_of(&all), &mut |key, _| {
        keys.push(key.to_vec());
        keys.len() < n_max
    });
    keys
}

fn renumber(rows: &mut Rows<'_>, now: LogTime, account: AccountId, keys: Vec<Vec<u8>>) {
    let of_account = table::uid_validity(account);
    let mut last: u32 = row::load(rows, &of_account).unwrap_or(0);
    // Where the clock leapt beyond 2106, what was lost counted on from the last.
    let seconds = u32::try_from(now.0 / 1000).unwrap_or(last).saturating_add(AHEAD_S);
    let usage_key = table::usage(account);
    if let Some(mut usage) = row::load::<UsageRow>(rows, &usage_key) {
        // RFC 8474 4: what was lost had ids as well, and clients keep bodies by them.
        for last in [&mut usage.email, &mut usage.thread, &mut usage.mailbox] {
            *last = last.saturating_add(IDS_AHEAD);
        }
        row::save(rows, usage_key, &usage);
    }
    for key in keys {
        let Some(mut mailbox) = row::load::<MailboxRow>(rows, &key) else { continue };
        let Some(next) = last.checked_add(1).map(|next| next.max(seconds)) else { return };
        last = next;
        let next = next.try_into().expect("one more than another");
        mailbox.uid_validity = UidValidity(next);
        let passed = mailbox.uid_next.value().saturating_add(UIDS_AHEAD - 1);
        let passed = Uid::new(passed).filter(|last| last.value() < UIDS_PASSED_MAX);
        if let Some(passed) = passed.filter(|_| !mailbox.deleted) {
            let of = OfMailbox { account, mailbox: MailboxId(Fields(&key).u64(18)) };
            gaps::pass(rows, of, &mut mailbox, passed);
        }
        row::save(rows, key, &mailbox);
        row::save(rows, of_account.clone(), &last);
    }
}
