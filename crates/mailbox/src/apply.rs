//! One entry of the shard's log: log time, exactly once, then the verb.

use crate::Applied;
use crate::chunk::ChunkRef;
use crate::command::{self, Command, Entry, Request};
use crate::content::Inline;
use crate::ids::{AccountId, LogTime};
use crate::ledger::Ledger;
use crate::moving;
use crate::outcome::{Change, Outcome, Refusal};
use crate::row::{self, ShardRow};
use crate::rows::Rows;
use crate::session::{self, Admission};
use crate::table;

/// See [`crate::apply`].
pub(crate) fn apply(rows: &mut Rows<'_>, entry: &Entry, inline: &[ChunkRef]) -> Applied {
    moving::begin(rows);
    let now = advance(rows, entry.time);
    let (outcome, changes) = once(rows, now, &entry.request, inline);
    moving::note(rows);
    Applied { outcome, changes }
}

/// Log time is the greatest of all times seen.
fn advance(rows: &mut Rows<'_>, time: LogTime) -> LogTime {
    let key = table::shard();
    let (shard, seen) = row::load_seen::<ShardRow>(rows, &key);
    let mut shard = shard.unwrap_or_default();
    if time.0 > shard.time_ms {
        shard.time_ms = time.0;
        row::save_over(rows, key, seen.as_deref(), &shard);
    }
    LogTime(shard.time_ms)
}

fn once(
    rows: &mut Rows<'_>,
    now: LogTime,
    request: &Request,
    inline: &[ChunkRef],
) -> (Outcome, Vec<Change>) {
    let refused = |refusal| (Outcome::Refused(refusal), Vec::new());
    match &request.command {
        Command::OpenSession(_) | Command::Housekeep(_) | Command::Renumber(_)
            if now > request.expires =>
        {
            return refused(Refusal::Expired(Some(now)));
        }
        Command::OpenSession(id) => return (session::open(rows, *id, now), Vec::new()),
        Command::Housekeep(housekeep) => {
            return (command::housekeep::apply(rows, now, housekeep), Vec::new());
        }
        Command::Renumber(renumber) => {
            return (command::renumber::apply(rows, now, renumber), Vec::new());
        }
        _ => {}
    }
    match session::admit(rows, request, now) {
        Admission::Refused(refusal) => refused(refusal),
        Admission::Kept(outcome) => (outcome, Vec::new()),
        Admission::Execute(id) => {
            let (mut outcome, changes) = match execute(rows, now, &request.command, inline) {
                Ok(done) => done,
                Err(refusal) => refused(refusal),
            };
            session::keep(rows, id, request.sequence, &mut outcome);
            (outcome, changes)
        }
    }
}

type Done = Result<(Outcome, Vec<Change>), Refusal>;

fn execute(rows: &mut Rows<'_>, now: LogTime, command: &Command, inline: &[ChunkRef]) -> Done {
    let quiet = |outcome: Outcome| (outcome, Vec::new());
    if let Some(account) = command.account() {
        moving::admit(rows, now, account)?;
    }
    let inline: Inline = inline.iter().map(|chunk| (chunk.digest, chunk.raw_len)).collect();
    match command {
        Command::OpenSession(_) | Command::Housekeep(_) | Command::Renumber(_) => {
            Ok(quiet(Outcome::Done))
        }
        Command::ClaimAddress(cmd) => command::directory::claim(rows, cmd).map(quiet),
        Command::ReleaseAddress(cmd) => command::directory::release(rows, cmd).map(quiet),
        Command::RepointAddress(cmd) => command::directory::repoint(rows, cmd).map(quiet),
        Command::SetGroup(cmd) => command::directory::set_group(rows, cmd).map(quiet),
        Command::CreateAccount(cmd) => command::create_account::apply(rows, now, cmd).map(quiet),
        Command::ChangeAccount(cmd) => command::change_account::apply(rows, now, cmd).map(quiet),
        Command::MoveAccount(cmd) => command::move_account::apply(rows, now, cmd, &inline),
        Command::DeleteAccount(id) => command::delete_account::apply(rows, now, *id).map(quiet),
        Command::CreateMailbox(cmd) => {
            with(rows, now, cmd.account, |ledger| command::create_mailbox::apply(ledger, cmd))
        }
        Command::DeleteMailbox(cmd) => {
            with(rows, now, cmd.account, |ledger| command::delete_mailbox::apply(ledger, cmd))
        }
        Command::RenameMailbox(cmd) => {
            with(rows, now, cmd.account, |ledger| command::rename_mailbox::apply(ledger, cmd))
        }
        Command::Subscribe(cmd) => {
            with(rows, now, cmd.account, |ledger| command::subscribe::apply(ledger, cmd))
        }
        Command::ClaimRecent(of, below) => {
            let apply = command::claim_recent::apply;
            with(rows, now, of.account, |ledger| apply(ledger, of.mailbox, *below))
        }
        Command::Upload(cmd) => {
            with(rows, now, cmd.account, |ledger| command::upload::apply(ledger, cmd, &inline))
        }
        Command::Deliver(cmd) => {
            with(rows, now, cmd.account, |ledger| command::deliver::apply(ledger, cmd, &inline))
        }
        Command::Append(cmd) => {
            with(rows, now, cmd.account, |ledger| command::append::apply(ledger, cmd, &inline))
        }
        Command::Store(cmd) => {
            with(rows, now, cmd.account, |ledger| command::store::apply(ledger, cmd))
        }
        Command::Copy(cmd) => {
            with(rows, now, cmd.account, |ledger| command::copy::apply(ledger, cmd))
        }
        Command::Move(cmd) => {
            with(rows, now, cmd.account, |ledger| command::r#move::apply(ledger, cmd))
        }
        Command::Expunge(cmd) => {
            with(rows, now, cmd.account, |ledger| command::expunge::apply(ledger, cmd))
        }
    }
}

/// Opens the account's ledger, runs the verb, and closes the ledger unless it was refused.
fn with<'a>(
    rows: &mut Rows<'a>,
    now: LogTime,
    account: AccountId,
    verb: impl FnOnce(&mut Ledger<'_, 'a>) -> Result<Outcome, Refusal>,
) -> Done {
    let mut ledger = Ledger::open(rows, now, account)?;
    let outcome = verb(&mut ledger)?;
    Ok((outcome, ledger.close()))
}
