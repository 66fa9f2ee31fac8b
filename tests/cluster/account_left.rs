//! A move that breaks off: when its account has left one shard and is not served at the other, whoever needs
//! the account finishes it; before that the operator can call it off.

use anyhow::{Context as _, Result, bail, ensure};
use api::client::{Client, ClientConfig};
use api::tls::Identity;
use mailbox::command::{MoveAccount, MoveStep, Place};
use mailbox::{Address, Answer, ChunkRef, Command, Outcome, Query, ShardId};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
const N_SAMPLES: usize = 20;
const TOKEN: u64 = 7;

#[test]
fn a_move_that_breaks_off_after_the_departure_is_finished_by_who_needs_the_account() -> Result<()> {
    let demo = Demo::start(&["--accounts", "1", "--shards", "2"])?;
    let mut idle = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    idle.ok("SELECT INBOX")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let to = runtime.block_on(depart(&demo))?;
    drop(runtime);

    let mut lmtp = Lmtp::connect(&demo.at("f2", "lmtp")?)?;
    let reply = lmtp.transaction(&[USER], b"Subject: to where it is\r\n\r\ntext\r\n")?.remove(0);
    ensure!(reply.starts_with("250"), "{reply}");
    for frontend in ["f1", "f2"] {
        let mut imap = Imap::login(&demo.at(frontend, "imap")?, USER, PASSWORD)?;
        imap.ok("SELECT INBOX")?;
        ensure!(imap.uids()? == (1..=N_SAMPLES as u32 + 1).collect::<Vec<_>>(), "{frontend}");
        for uid in 1..=N_SAMPLES as u32 + 1 {
            imap.fetch_body(uid)?;
        }
    }
    idle.ok("NOOP")?;
    ensure!(idle.uids()?.len() == N_SAMPLES + 1, "a session that was there before");
    let shown = demo.ctl(&["account", "show", USER, "--json"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains(&format!("\"shard\": {to}")), "{shown}");
    // What is left for the operator: the addresses lead the long way round.
    let again = demo.ctl(&["account", "move", USER, &to.to_string()])?;
    ensure!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    Ok(())
}

#[test]
fn a_move_that_breaks_off_before_the_departure_is_called_off() -> Result<()> {
    let demo = Demo::start(&["--accounts", "1", "--shards", "3"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(client(&demo))?;
    let (home, to) = runtime.block_on(copy(&client, 3))?;
    let third = 6 - home.shard.0 - to.shard.0;
    let ctl = |arguments: &[&str]| -> Result<(bool, String)> {
        let done = demo.ctl(&[&["account"][..], arguments].concat())?;
        let said = [done.stdout.as_slice(), &done.stderr].concat();
        Ok((done.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (back, away) = (home.shard.to_string(), to.shard.to_string());
    let hint = format!("`ctl account move {USER} {back}` calls it off");
    for arguments in [&["move", USER, &third.to_string()][..], &["delete", USER]] {
        let (is_done, said) = ctl(arguments)?;
        ensure!(!is_done && said.contains(&hint), "{arguments:?}: {said}");
    }
    // Also when the first one was broken off.
    for _ in 0..2 {
        let (is_done, said) = ctl(&["move", USER, &back])?;
        let words = format!("stays on shard {back}: its move to shard {away} is called off");
        ensure!(is_done && said.contains(&words), "{said}");
        ensure!(!said.contains("may keep"), "{said}");
    }
    let depart = MoveStep::Depart(0, Some(to));
    let late = runtime.block_on(step(&client, home.shard, home, depart));
    ensure!(late.is_err(), "it departed by the move that was called off");
    let mut lmtp = Lmtp::connect(&demo.at("f2", "lmtp")?)?;
    let reply = lmtp.transaction(&[USER], b"Subject: it stays\r\n\r\ntext\r\n")?.remove(0);
    ensure!(reply.starts_with("250"), "{reply}");
    let (is_done, said) = ctl(&["move", USER, &away])?;
    ensure!(is_done, "{said}");
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    imap.ok("SELECT INBOX")?;
    ensure!(imap.uids()? == (1..=N_SAMPLES as u32 + 1).collect::<Vec<_>>(), "other messages");
    for uid in 1..=N_SAMPLES as u32 + 1 {
        imap.fetch_body(uid)?;
    }
    Ok(())
}

/// What `ctl account move` does up to the departure, and that; where to.
async fn depart(demo: &Demo) -> Result<ShardId> {
    let client = client(demo).await?;
    let (place, to) = copy(&client, 2).await?;
    step(&client, place.shard, place, MoveStep::Depart(0, Some(to))).await?;
    Ok(to.shard)
}

/// Copies the account to the next shard; from where, and where to.
async fn copy(client: &Client, n_shards: u32) -> Result<(Place, Place)> {
    let address = Address::parse(USER).ok().context("an address")?.0;
    let place = client.recipient(&address).await.ok().flatten().context("no such account")?;
    let (from, shard) = (place.shard, ShardId(place.shard.0 % n_shards + 1));
    let to = Place { shard, epoch: place.epoch + 1, ..place };
    step(client, from, place, MoveStep::Begin(to)).await?;
    step(client, shard, place, MoveStep::Arrive(to, TOKEN)).await?;
    let asked = client.query_shard(from, Query::AccountRows(place.account, None)).await;
    let Ok(Answer::AccountRows(rows, None)) = asked else { bail!("no page of rows: {asked:?}") };
    let mut bodies = Vec::new();
    for (digest, raw_len) in rows.iter().filter_map(|row| row.chunk()) {
        let chunk = ChunkRef { digest, raw_len: raw_len.context("a chunk that is gone")? };
        bodies.push(client.stored_chunk(from, chunk).await.ok().context("no body")?);
    }
    let receive = MoveStep::Receive(rows, TOKEN);
    let command = Command::MoveAccount(MoveAccount { account: place.account, step: receive });
    let received = client.command_shard_with(shard, command, bodies).await;
    ensure!(received == Ok(Outcome::Done), "receive: {received:?}");
    Ok((place, to))
}

async fn step(client: &Client, shard: ShardId, place: Place, step: MoveStep) -> Result<()> {
    let command = Command::MoveAccount(MoveAccount { account: place.account, step });
    let outcome = client.command_shard(shard, command).await;
    ensure!(outcome == Ok(Outcome::Done), "{outcome:?}");
    Ok(())
}

/// With the operator's rights.
async fn client(demo: &Demo) -> Result<Client> {
    let cluster = demo.cluster()?;
    let identity = cluster["identity"].as_str().context("no identity")?;
    let identity = Identity::load(identity.as_ref())?;
    let seeds = vec![demo.at("n1", "grpc")?];
    let name = identity.peer().name.clone();
    Ok(Client::new(ClientConfig { seeds, identity, name, bind: None })?)
}
