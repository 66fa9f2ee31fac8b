//! `rookery ctl account move`: an account goes to another shard while it is used.
//!
//! Its rows and bodies are copied while it is served where it is; then what changed meanwhile, again and
//! again; then nobody may change it for the moment that the last changes take. Whatever happens in
//! between, one of both shards serves it, and the same command goes on where it was left.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
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
/// A shard that had the account before may need so long to forget it.
const FORGET_PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What came of a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relocated {
    /// Rows that were copied, those that changed meanwhile several times.
    pub n_rows: u64,
    /// Octets of bodies.
    pub n_bytes: u64,
    /// For how long nobody could change the account.
    pub frozen: Duration,
}

/// Moves an account. Safe to repeat: one that was begun is gone on with.
pub async fn relocate(client: &Client, name: &Address, shard: ShardId) -> Result<Relocated> {
    let accounts = Accounts::new(client);
    let place = accounts.place(name).await?;
    if !data_shards(client).contains(&shard) {
        bail!("there is no shard {shard} for accounts: see `ctl shard list`");
    }
    let to = match place.shard == shard {
        true => place,
        false => Place { shard, epoch: place.epoch + 1, ..place },
    };
    let to = Place { alias: false, ..to };
    let mut journey = Journey {
        client,
        account: place.account,
        from: place.shard,
        to,
        token: token()?,
        sent: BTreeSet::new(),
        done: Relocated::default(),
    };
    if place.shard != shard {
        journey.go().await?;
    }
    let record = accounts.record(name).await?;
    // Those that point to where it was still work: whoever follows them is sent on.
    for address in record.aliases.iter().chain([&record.name]) {
        repoint(&accounts, address, to).await?;
    }
    Ok(journey.done)
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
}

impl Journey<'_> {
    async fn go(&mut self) -> Result<()> {
        match self.moving(self.from).await? {
            Some(Moving::Left { to }) if to == self.to => return self.settle().await,
            Some(Moving::Leaving { to, .. } | Moving::Left { to }) if to != self.to => {
                bail!("it is on its way to shard {}: finish that first", to.shard);
            }
            _ => {}
        }
        self.must(self.from, MoveStep::Begin(self.to)).await.context("begin")?;
        self.arrive().await.context("arrive")?;
        self.copy_all().await.context("copy")?;
        self.copy_changes_and_depart().await?;
        self.settle().await
    }

    async fn moving(&self, shard: ShardId) -> Result<Option<Moving>> {
        match self.ask(shard, Query::Moving(self.account)).await? {
            Answer::Moving(moving) => Ok(moving),
            other => bail!("unexpected answer {other:?}"),
        }
    }

    /// Waits where old rows of the account have to go first.
    async fn arrive(&self) -> Result<()> {
        let until = Instant::now() + FORGET_PATIENCE;
        loop {
            match self
                .step(self.to.shard, MoveStep::Arrive(self.to, self.token), Vec::new())
                .await?
            {
                Outcome::Done => return Ok(()),
                Outcome::Refused(Refusal::Moving) if Instant::now() < until => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                other => bail!("shard {}: {other:?}", self.to.shard),
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
            self.must(self.from, MoveStep::Freeze(FREEZE_MS)).await.context("freeze")?;
            (_, copied) = self.copy_changes(copied).await.context("copy the last changes")?;
            let left = self.step(self.from, MoveStep::Depart(copied), Vec::new()).await;
            match left.context("depart")? {
                Outcome::Done => {
                    self.done.frozen = began.elapsed();
                    return Ok(());
                }
                // Something changed all the same: housekeeping, or it thawed.
                Outcome::Refused(Refusal::Moving) => {}
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
        let command = Command::MoveAccount(MoveAccount { account: self.account, step });
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
