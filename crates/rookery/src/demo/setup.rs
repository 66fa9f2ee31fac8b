//! From started processes to a cluster with accounts and mail.

use std::collections::BTreeMap;
use std::time::Duration;

use admin::account::{Accounts, Quota, hash_password, parse_address};
use admin::cluster;
use admin::cluster_file::DemoAccount;
use admin::target::Target;
use anyhow::{Context as _, Result};
use drill::client::imap::Imap;
use tokio::time::Instant;

use super::children::Children;
use super::deliver::deliver;
use super::layout::Layout;
use super::{DemoOptions, sample};

/// The demo gives up when it is not ready by then.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How often something is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// Accounts created side by side.
const CREATIONS_AT_ONCE: usize = 16;

/// Forms the cluster (a new one) or waits for it (an old one), then fills it.
pub async fn make_ready(
    layout: &Layout,
    options: &DemoOptions,
    children: &mut Children,
) -> Result<()> {
    let deadline = Instant::now() + READY_DEADLINE;
    let target = Target::of_cluster_file(&layout.cluster)?;
    if layout.is_new {
        let nodes = node_names(layout);
        let is_enough = nodes.len() >= cluster::N_REPLICAS as usize;
        let n_replicas = if is_enough { cluster::N_REPLICAS } else { 1 };
        let n_shards = u32::from(layout.cluster.n_shards.unwrap_or(options.shards));
        let request = cluster::InitRequest { nodes, n_shards, n_replicas };
        until(deadline, children, async || form(&target, &request).await).await?;
    }
    until(deadline, children, async || cluster::health(&target, false).await).await?;
    let accounts = &layout.cluster.accounts;
    let n_created = if layout.is_new { create_accounts(&target, accounts).await? } else { 0 };
    until(deadline, children, async || frontends_answer(layout).await).await?;
    let has_sample_mail = layout.cluster.has_sample_mail.unwrap_or(!options.no_sample_mail);
    if layout.is_new && has_sample_mail {
        deliver_samples(layout, n_created < accounts.len()).await?;
    }
    layout.note_filled()
}

/// Forms the cluster, unless a start that was broken off did that already.
async fn form(target: &Target, request: &cluster::InitRequest) -> Result<()> {
    let Err(error) = cluster::init(target, request).await else { return Ok(()) };
    match cluster::status(target).await {
        Ok(status) if status.placement().is_some() => Ok(()),
        _ => Err(error),
    }
}

async fn until(
    deadline: Instant,
    children: &mut Children,
    mut attempt: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    loop {
        children.check()?;
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

fn node_names(layout: &Layout) -> Vec<String> {
    let nodes = layout.cluster.processes.iter().filter(|process| process.role == "node");
    nodes.map(|process| process.name.clone()).collect()
}

/// Creates those that are not there; how many. They are what the demo's file tells of, whatever the command
/// line says now.
async fn create_accounts(target: &Target, accounts: &[DemoAccount]) -> Result<usize> {
    // Why: hashing takes longer than everything else here, and all demo passwords are the same.
    let mut hashes: BTreeMap<&str, String> = BTreeMap::new();
    let client = target.client().await?;
    let mut open = tokio::task::JoinSet::new();
    let mut n_created = 0;
    for DemoAccount { name, password } in accounts {
        if open.len() >= CREATIONS_AT_ONCE {
            n_created += open.join_next().await.context("no task")???;
        }
        let hash = match hashes.get(password.as_str()) {
            Some(hash) => hash.clone(),
            None => {
                let hash = hash_password(password.as_bytes())?;
                hashes.insert(password, hash.clone());
                hash
            }
        };
        let (client, name) = (client.clone(), parse_address(name)?);
        open.spawn(async move {
            let accounts = Accounts::new(&client);
            // By a start that was broken off.
            if accounts.place(&name).await.is_ok() {
                return anyhow::Ok(0);
            }
            let created = accounts.add(&name, hash, Quota::default()).await;
            created.with_context(|| format!("create {name}")).map(|_| 1)
        });
    }
    while let Some(done) = open.join_next().await {
        n_created += done??;
    }
    Ok(n_created)
}

async fn frontends_answer(layout: &Layout) -> Result<()> {
    for process in layout.cluster.processes.iter().filter(|process| process.role == "frontend") {
        let address = process.at("lmtp").context("frontend without LMTP")?;
        tokio::net::TcpStream::connect(&address)
            .await
            .with_context(|| format!("connect {address}"))?;
    }
    Ok(())
}

/// To the first account, those that are not there yet: a start that was broken off may have brought some.
async fn deliver_samples(layout: &Layout, may_be_there: bool) -> Result<()> {
    let Some(account) = layout.cluster.accounts.first() else { return Ok(()) };
    let n_there = if may_be_there { n_messages(layout, account).await? } else { 0 };
    let frontends: Vec<String> =
        layout.cluster.processes.iter().filter_map(|process| process.at("lmtp")).collect();
    let to = [account.name.clone()];
    for n in n_there..sample::N_SAMPLES {
        let address = &frontends[n % frontends.len()];
        let replies = deliver(address, sample::message(n).as_bytes(), &to).await?;
        anyhow::ensure!(replies[0].starts_with('2'), "deliver sample mail: {}", replies[0]);
    }
    Ok(())
}

/// How many messages an account's INBOX has.
async fn n_messages(layout: &Layout, account: &DemoAccount) -> Result<usize> {
    let imap = layout.cluster.processes.iter().find_map(|process| process.at("imap"));
    let (address, account) = (imap.context("frontend without IMAP")?, account.clone());
    let counting = tokio::task::spawn_blocking(move || {
        let mut imap = Imap::login(&address, &account.name, &account.password)?;
        imap.ok("SELECT INBOX")?;
        imap.uids()
    });
    let uids = counting.await.context("count sample mail")?.context("count sample mail")?;
    Ok(uids.len())
}
