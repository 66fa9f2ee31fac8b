//! `rookery ctl account move`: an account goes to another shard while it is used.
//!
//! Its rows and bodies are copied while it is served where it is; then what changed meanwhile, again and
//! again; then nobody may change it for the moment that the last changes take. Whatever happens in
//! between, one of both shards serves it, and the same command goes on where it was left. Until the last
//! moment it can be called off: `account move` to the shard where it is.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, bail};
use api::client::Client;
use mailbox::command::{ClaimAddress, MoveAccount, MoveStep, MovedRow, Place};
use mailbox::{
    AccountId, Address, Answer, ChunkRef, Command, Digest, Moving, Outcome, Query, Refusal,
    ShardId, StoredChunk,
};
use tokio::time::Instant;

use crate::account::{Accounts, data_shards, trouble};

/// Rows in one step,
const ROWS_MAX: usize = 512;
/// and their octets, as far as one row alone does not exceed them.
const BYTES_MAX: usize = 256 << 10;
/// Octets of bodies in one step.
const BODIES_MAX: usize = 512 << 10;
/// Nobody may change the account for so long at most, which clients wait.
const FREEZE_MS: u64 = 3_000;
/// As long as more changes than these are left, nobody is kept waiting for them.
const FEW_ROWS: usize = 64;
/// Rounds of changes after which clients are kept waiting all the same.
const ROUNDS_MAX: u32 = 50;
/// Attempts to copy the last changes in time.
const ATTEMPTS_MAX: u32 = 20;
/// Chunks remembered as sent, some 48 MiB of them: beyond it all are forgotten, and a body that several
/// messages have may be sent again.
const SENT_MAX: usize = 1 << 20;
/// A shard may need so long to forget what it had of the account before, or noted for an earlier move.
const FORGET_PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often progress is printed.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What came of a move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relocated {
    /// Rows that were copied, those that changed meanwhile several times.
    pub n_rows: u64,
    /// Octets of bodies.
    pub n_bytes: u64,
    /// For how long nobody could change the account.
    pub frozen: Duration,
    /// It stays where it is: the move that was begun went to this shard.
    pub called_off: Option<ShardId>,
    /// Shards that may keep what came to them of moves that were called off, since they did not answer.
    pub unreached: Vec<ShardId>,
}

/// Moves an account. Safe to repeat: one that was begun is gone on with. To where it is: one that was begun
/// is called off.
pub async fn relocate(client: &Client, name: &Address, shard: ShardId) -> Result<Relocated> {
    let accounts = Accounts::new(client);
    let place = accounts.place(name).await?;
    if !data_shards(client).contains(&shard) {
        bail!("there is no shard {shard} for accounts: see `ctl shard list`");
    }
    let moving = accounts.moving(place.shard, place.account).await?;
    let (to, done) = match place.shard == shard {
        true => (place, call_off(&accounts, name, place, moving).await?),
        false => {
            let to = destination(name, place, shard, moving.as_ref())?;
            let mut journey = Journey {
                client,
                account: place.account,
                from: place.shard,
                to,
                token: token()?,
                sent: BTreeSet::new(),
                done: Relocated::default(),
                told: Instant::now(),
            };
            let gone = match moving {
                Some(Moving::Left { .. }) => journey.settle().await,
                _ => journey.go().await,
            };
            gone.with_context(|| ways_on(name, place.shard, shard))?;
            (to, journey.done)
        }
    };
    let record = accounts.record(name).await?;
    // Those that point to where it was still work: whoever follows them is sent on.
    for address in record.aliases.iter().chain([&record.name]) {
        repoint(&accounts, address, to).await?;
    }
    Ok(done)
}

/// Where it goes: on with what was begun, or with an epoch that nothing had which was called off.
fn destination(
    name: &Address,
    place: Place,
    shard: ShardId,
    moving: Option<&Moving>,
) -> Result<Place> {
    let epoch = match moving {
        Some(Moving::Leaving { to, .. } | Moving::Left { to }) if to.shard == shard => {
            return Ok(*to);
        }
        Some(Moving::Leaving { to, .. }) => return Err(is_leaving(name, place.shard, *to)),
        Some(Moving::Left { to }) => return Err(has_left(name, *to)),
        Some(Moving::Stayed { to }) => place.epoch.max(to.epoch),
        Some(Moving::Arriving { .. }) | None => place.epoch,
    };
    Ok(Place { shard, epoch: epoch + 1, alias: false, ..place })
}

/// Why nothing else is done with an account.
pub(crate) fn is_leaving(name: &Address, from: ShardId, to: Place) -> Error {
    anyhow!(
        "{name} is on its way to shard {0}: `ctl account move {name} {0}` finishes that, \
         `ctl account move {name} {from}` calls it off",
        to.shard
    )
}

/// What can be done about a move that broke off.
fn ways_on(name: &Address, from: ShardId, to: ShardId) -> String {
    format!(
        "`ctl account move {name} {to}` goes on, `ctl account move {name} {from}` calls it off if it has \
         not left"
    )
}

fn has_left(name: &Address, to: Place) -> Error {
    anyhow!("{name} left for shard {0}: `ctl account move {name} {0}` finishes that", to.shard)
}

/// The account stays where it is; what came elsewhere is dropped.
async fn call_off(
    accounts: &Accounts<'_>,
    name: &Address,
    home: Place,
    moving: Option<Moving>,
) -> Result<Relocated> {
    let mut done = Relocated::default();
    let to = match moving {
        // Why once more: a shard may not have answered.
        Some(Moving::Leaving { to, .. } | Moving::Stayed { to }) => to,
        Some(Moving::Left { to }) => return Err(has_left(name, to)),
        Some(Moving::Arriving { .. }) | None => return Ok(done),
    };
    // Why first: from here on it does not depart, so that nothing but a copy is forgotten.
    match accounts.tell(home.shard, step_of(home.account, MoveStep::Stay(to))).await? {
        Outcome::Done => {}
        Outcome::Refused(Refusal::Moved(to)) => return Err(has_left(name, to)),
        other => bail!("stay: {other:?}"),
    }
    done.called_off = Some(to.shard);
    for shard in data_shards(accounts.client) {
        if shard != home.shard && forget(accounts, shard, home, to).await.is_err() {
            done.unreached.push(shard);
        }
    }
    Ok(done)
}

/// Drops what came to a shard by this move, which was called off, or by an earlier one.
async fn forget(
    accounts: &Accounts<'_>,
    shard: ShardId,
    home: Place,
    called_off: Place,
) -> Result<()> {
    let to = match accounts.moving(shard, home.account).await? {
        Some(Moving::Arriving { to, .. }) if to.epoch <= called_off.epoch => to,
        Some(Moving::Arriving { .. }) => return Ok(()),
        // Why though nothing came: whoever moves it may still be about to say that it comes.
        _ if shard == called_off.shard => called_off,
        _ => return Ok(()),
    };
    let forget = step_of(home.account, MoveStep::Forget(to, home.shard));
    accounts.done(shard, forget, "forget").await
}

fn step_of(account: AccountId, step: MoveStep) -> Command {
    Command::MoveAccount(MoveAccount { account, step })
}

async fn repoint(accounts: &Accounts<'_>, address: &Address, to: Place) -> Result<()> {
    let Some(place) = accounts.find(address).await? else { return Ok(()) };
    if place.account != to.account || place.shard == to.shard {
        return Ok(());
    }
    let place = Place { alias: place.alias, ..to };
    let repoint = Command::RepointAddress(ClaimAddress { address: address.clone(), place });
    accounts.done(accounts.directory_shard(address)?, repoint, "repoint address").await
}

fn token() -> Result<u64> {
    let mut token = [0; 8];
    getrandom::fill(&mut token).ok().context("no randomness")?;
    Ok(u64::from_be_bytes(token))
}

struct Journey<'c> {
    client: &'c Client,
    account: AccountId,
    from: ShardId,
    to: Place,
    /// Who this is, for the other shard.
    token: u64,
    /// Chunks whose bodies the other shard has, as far as they are remembered.
    sent: BTreeSet<Digest>,
    done: Relocated,
    /// When somebody was last told how far it is.
    told: Instant,
}

impl Journey<'_> {
    async fn go(&mut self) -> Result<()> {
        let (begin, arrive) = (MoveStep::Begin(self.to), MoveStep::Arrive(self.to, self.token));
        self.patiently(self.from, begin).await.context("begin")?;
        self.clear_away().await.context("forget")?;
        self.patiently(self.to.shard, arrive).await.context("arrive")?;
        self.copy_all().await.context("copy")?;
        self.copy_changes_and_depart().await?;
        self.settle().await
    }

    /// What came by an earlier move that was called off while the shard did not answer.
    async fn clear_away(&self) -> Result<()> {
        let (shard, home) = (self.to.shard, self.from);
        match Accounts::new(self.client).moving(shard, self.account).await? {
            Some(Moving::Arriving { to, .. }) if to.epoch < self.to.epoch => {
                self.must(shard, MoveStep::Forget(to, home)).await
            }
            _ => Ok(()),
        }
    }

    /// Waits where old rows of the account have to go first.
    async fn patiently(&self, shard: ShardId, step: MoveStep) -> Result<()> {
        let until = Instant::now() + FORGET_PATIENCE;
        loop {
            match self.step(shard, step.clone(), Vec::new()).await? {
                Outcome::Done => return Ok(()),
                Outcome::Refused(Refusal::Moving) if Instant::now() < until => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                other => bail!("shard {shard}: {other:?}"),
            }
        }
    }

    async fn copy_all(&mut self) -> Result<()> {
        let mut after = None;
        loop {
            let answer = self.ask(self.from, Query::AccountRows(self.account, after)).await?;
            let Answer::AccountRows(rows, next) = answer else { bail!("unexpected answer") };
            self.send(rows).await?;
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn copy_changes_and_depart(&mut self) -> Result<()> {
        let mut copied = 0;
        for _ in 0..ROUNDS_MAX {
            let (n_rows, upto) = self.copy_changes(copied).await.context("copy changes")?;
            copied = upto;
            if n_rows < FEW_ROWS {
                break;
            }
        }
        for _ in 0..ATTEMPTS_MAX {
            let began = Instant::now();
            match self.step(self.from, MoveStep::Freeze(FREEZE_MS), Vec::new()).await? {
                Outcome::Done => {}
                Outcome::Refused(Refusal::NoSuchAccount) => bail!("it was called off"),
                other => bail!("freeze: {other:?}"),
            }
            (_, copied) = self.copy_changes(copied).await.context("copy the last changes")?;
            let depart = MoveStep::Depart(copied, Some(self.to));
            let left = self.step(self.from, depart, Vec::new()).await;
            match left.context("depart")? {
                Outcome::Done => {
                    self.done.frozen = began.elapsed();
                    return Ok(());
                }
                // Something changed all the same: housekeeping, or it thawed.
                Outcome::Refused(Refusal::Moving) => {}
                Outcome::Refused(Refusal::NoSuchAccount) => bail!("it was called off"),
                other => bail!("depart: {other:?}"),
            }
        }
        bail!("it changes faster than it can be copied: try again when there is less to do")
    }

    /// Copies what changed after this change; how many rows, and up to which change.
    async fn copy_changes(&mut self, mut after: u64) -> Result<(usize, u64)> {
        let mut n_rows = 0;
        loop {
            let answer = self.ask(self.from, Query::ChangedRows(self.account, after)).await?;
            let Answer::ChangedRows(rows, upto, more) = answer else { bail!("unexpected answer") };
            n_rows += rows.len();
            self.send(rows).await?;
            after = upto;
            if !more {
                return Ok((n_rows, after));
            }
        }
    }

    /// Sends rows, those of chunks first and with their bodies.
    async fn send(&mut self, rows: Vec<MovedRow>) -> Result<()> {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            eprintln!("{} rows and {} MiB copied", self.done.n_rows, self.done.n_bytes >> 20);
        }
        let (chunks, rest): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.chunk().is_some());
        let mut step = Step::default();
        for row in chunks {
            let body = self.body(&row).await?;
            let n_bytes = body.as_ref().map_or(0, |body| body.bytes.len());
            if step.is_full(&row, n_bytes) {
                self.receive(std::mem::take(&mut step)).await?;
            }
            step.add(row, body);
        }
        for row in rest {
            if step.is_full(&row, 0) {
                self.receive(std::mem::take(&mut step)).await?;
            }
            step.add(row, None);
        }
        if step.rows.is_empty() { Ok(()) } else { self.receive(step).await }
    }

    /// The body of the chunk this row is about, if the other shard may not have it.
    async fn body(&mut self, row: &MovedRow) -> Result<Option<StoredChunk>> {
        let Some((digest, raw_len)) = row.chunk() else { return Ok(None) };
        let Some(raw_len) = raw_len else {
            self.sent.remove(&digest);
            return Ok(None);
        };
        if self.sent.contains(&digest) {
            return Ok(None);
        }
        let chunk = ChunkRef { digest, raw_len };
        let body = self.client.stored_chunk(self.from, chunk).await.map_err(trouble)?;
        if self.sent.len() >= SENT_MAX {
            self.sent.clear();
        }
        self.sent.insert(digest);
        self.done.n_bytes += body.bytes.len() as u64;
        Ok(Some(body))
    }

    async fn receive(&mut self, step: Step) -> Result<()> {
        self.done.n_rows += step.rows.len() as u64;
        let received = MoveStep::Receive(step.rows, self.token);
        match self.step(self.to.shard, received, step.bodies).await? {
            Outcome::Done => Ok(()),
            Outcome::Refused(Refusal::Moving) => bail!("somebody else moves it now"),
            Outcome::Refused(Refusal::Moved(_)) => bail!("it was called off"),
            other => bail!("shard {}: {other:?}", self.to.shard),
        }
    }

    async fn settle(&self) -> Result<()> {
        loop {
            match self.step(self.to.shard, MoveStep::Settle(self.to), Vec::new()).await? {
                Outcome::Housekept { more: true } => {}
                Outcome::Housekept { more: false } => return Ok(()),
                other => bail!("settle: {other:?}"),
            }
        }
    }

    async fn must(&self, shard: ShardId, step: MoveStep) -> Result<()> {
        match self.step(shard, step, Vec::new()).await? {
            Outcome::Done => Ok(()),
            other => bail!("shard {shard}: {other:?}"),
        }
    }

    async fn step(
        &self,
        shard: ShardId,
        step: MoveStep,
        bodies: Vec<StoredChunk>,
    ) -> Result<Outcome> {
        let command = step_of(self.account, step);
        self.client.command_shard_with(shard, command, bodies).await.map_err(trouble)
    }

    async fn ask(&self, shard: ShardId, query: Query) -> Result<Answer> {
        self.client.query_shard(shard, query).await.map_err(trouble)
    }
}

/// What one command takes along.
#[derive(Default)]
struct Step {
    rows: Vec<MovedRow>,
    bodies: Vec<StoredChunk>,
    n_bytes: usize,
    n_body_bytes: usize,
}

impl Step {
    fn is_full(&self, row: &MovedRow, body_bytes: usize) -> bool {
        !self.rows.is_empty()
            && (self.rows.len() >= ROWS_MAX
                || self.n_bytes + row.n_bytes() > BYTES_MAX
                || self.n_body_bytes + body_bytes > BODIES_MAX)
    }

    fn add(&mut self, row: MovedRow, body: Option<StoredChunk>) {
        self.n_bytes += row.n_bytes();
        self.n_body_bytes += body.as_ref().map_or(0, |body| body.bytes.len());
        self.rows.push(row);
        self.bodies.extend(body);
    }
}

#[cfg(test)]
mod tests {
    use mailbox::LogTime;

    use super::*;

    #[test]
    fn a_move_goes_on_or_has_an_epoch_of_its_own() {
        let name = crate::account::parse_address("ann@example.test").unwrap();
        let place = |shard, epoch| Place {
            account: AccountId([7; 16]),
            shard: ShardId(shard),
            epoch,
            alias: false,
        };
        let to = |shard, moving: Option<Moving>| {
            let home = Place { alias: true, ..place(1, 4) };
            destination(&name, home, ShardId(shard), moving.as_ref())
        };
        let leaving = || {
            let (to, frozen_until) = (place(2, 9), LogTime(0));
            Some(Moving::Leaving { to, n_changes: 3, frozen_until })
        };
        assert_eq!(to(2, None).unwrap(), place(2, 5));
        assert_eq!(to(2, leaving()).unwrap(), place(2, 9));
        assert_eq!(to(2, Some(Moving::Left { to: place(2, 9) })).unwrap(), place(2, 9));
        assert_eq!(to(3, Some(Moving::Stayed { to: place(2, 9) })).unwrap(), place(3, 10));
        assert_eq!(to(3, Some(Moving::Stayed { to: place(2, 2) })).unwrap(), place(3, 5));
        let said = to(3, leaving()).unwrap_err().to_string();
        assert!(said.contains("`ctl account move ann@example.test 2` finishes that"), "{said}");
        assert!(said.contains("`ctl account move ann@example.test 1` calls it off"), "{said}");
        let said = ways_on(&name, ShardId(1), ShardId(2));
        assert!(said.starts_with("`ctl account move ann@example.test 2` goes on, "), "{said}");
        assert!(said.contains("`ctl account move ann@example.test 1` calls it off"), "{said}");
        let said = to(3, Some(Moving::Left { to: place(2, 9) })).unwrap_err().to_string();
        assert!(said.contains("move ann@example.test 2` finishes"), "{said}");
    }
}
