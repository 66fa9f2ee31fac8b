//! Whatever an operator does to the addresses of an account, and wherever it is broken off, nobody is
//! locked out for good and no address is lost.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::client::{Client, ClientConfig};
use api::tls::Identity;
use mailbox::command::{Place, ReleaseAddress};
use mailbox::{Address, Command, Outcome, ShardId};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::wait;

const USER: &str = "u0001@example.test";
const OTHER: &str = "u0002@example.test";
const SECRET: &str = "secret";
const FRONTENDS: [&str; 2] = ["f1", "f2"];
/// A frontend remembers for two seconds where an address leads.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);
/// Times that an account is added while it is deleted.
const N_RACES: usize = 10;

#[test]
fn no_name_and_no_alias_locks_an_account_out_or_catches_more_than_it_shall() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    logs_in(&demo, USER)?;
    ctl(&demo, &["account", "rename", USER, USER])?;
    ctl(&demo, &["account", "rename", USER, "U0001@Example.test"])?;
    logs_in(&demo, USER)?;
    refused(&demo, &["account", "alias", USER, USER], "is the account's name already")?;
    refused(&demo, &["account", "rename", USER, "*@example.test"], "stands for a whole domain")?;
    refused(&demo, &["account", "alias", USER, "no@example.test", "--remove"], "has no alias no@")?;
    ctl(&demo, &["account", "alias", USER, "alias@example.test"])?;
    let rename = ["account", "rename", "alias@example.test", "new@example.test"];
    refused(&demo, &rename, &format!("is an alias of {USER}: rename {USER}"))?;
    logs_in(&demo, USER)?;
    delivered(&demo, "alias@example.test")?;
    // An alias becomes the name, and the name that was is free for another account at once.
    ctl(&demo, &["account", "rename", USER, "alias@example.test"])?;
    let shown = ctl(&demo, &["account", "show", "alias@example.test"])?;
    ensure!(shown.contains("aliases             []"), "{shown}");
    demo.ctl_with_input(&["account", "add", USER], SECRET)?;
    logs_in(&demo, USER)?;
    logs_in(&demo, "alias@example.test")?;
    what_is_for_nobody_goes_where_it_is_told(&demo)
}

/// `*@domain`, as an alias and as a group, over LMTP.
fn what_is_for_nobody_goes_where_it_is_told(demo: &Demo) -> Result<()> {
    let (nobody, everybody) = ("nobody@example.test", "*@example.test");
    nobody_is_there(demo, nobody)?;
    ctl(demo, &["account", "alias", USER, everybody])?;
    let before = [n_messages(demo, USER)?, n_messages(demo, OTHER)?];
    delivered(demo, nobody)?;
    delivered(demo, OTHER)?;
    let after = [n_messages(demo, USER)?, n_messages(demo, OTHER)?];
    ensure!(after == [before[0] + 1, before[1] + 1], "from {before:?} to {after:?} messages");
    nobody_is_there(demo, "nobody@else.test")?;
    ctl(demo, &["account", "alias", USER, everybody, "--remove"])?;
    let gone = || nobody_is_there(demo, nobody);
    wait::until(FORGOTTEN_WITHIN, "the address catches nothing any more", gone)?;
    ctl(demo, &["group", "set", everybody, USER, OTHER])?;
    delivered(demo, "nobody.else@example.test")?;
    let both = [n_messages(demo, USER)?, n_messages(demo, OTHER)?];
    ensure!(both[1] == after[1] + 1 && both[0] > after[0], "from {after:?} to {both:?} messages");
    Ok(())
}

fn nobody_is_there(demo: &Demo, to: &str) -> Result<()> {
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;
    let reply = lmtp.transaction(&[to], b"Subject: one\r\n\r\none\r\n")?.remove(0);
    ensure!(reply.starts_with("550 5.1.1"), "mail for {to}: {reply}");
    Ok(())
}

fn n_messages(demo: &Demo, user: &str) -> Result<usize> {
    let mut imap = Imap::login(&demo.at("f2", "imap")?, user, SECRET)?;
    imap.ok("EXAMINE INBOX")?;
    Ok(imap.uids()?.len())
}

#[test]
fn groups_follow_the_addresses_of_their_members() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    ctl(&demo, &["account", "alias", USER, "alias@example.test"])?;
    ctl(&demo, &["group", "set", "all@example.test", "alias@example.test", OTHER])?;
    ctl(&demo, &["group", "set", "one@example.test", USER])?;
    let said = ctl(&demo, &["account", "rename", USER, "new@example.test"])?;
    ensure!(said.contains("group one@example.test has new@example.test instead"), "{said}");
    members(&demo, "one@example.test", &["new@example.test"])?;
    members(&demo, "all@example.test", &["alias@example.test", OTHER])?;
    ctl(&demo, &["account", "alias", "new@example.test", "alias@example.test", "--remove"])?;
    members(&demo, "all@example.test", &["new@example.test", OTHER])?;
    delivered(&demo, "all@example.test")?;
    let said = ctl(&demo, &["account", "delete", "new@example.test"])?;
    ensure!(said.contains("group one@example.test has no member left and is gone"), "{said}");
    members(&demo, "all@example.test", &[OTHER])?;
    refused(&demo, &["group", "show", "one@example.test"], "no group one@example.test")?;

    let is_group = "all@example.test is a group: see `ctl group`";
    for verb in ["show", "delete", "suspend", "quota"] {
        refused(&demo, &["account", verb, "all@example.test"], is_group)?;
    }
    refused(&demo, &["group", "set", "more@example.test", "all@example.test"], is_group)?;
    Ok(())
}

#[test]
fn what_was_broken_off_is_finished_or_repaired() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // No address leads to it any more.
    let shown = ctl(&demo, &["account", "show", USER])?;
    let id = shown.lines().find_map(|line| line.strip_prefix("id")).context("no id")?.trim();
    let mut place = None;
    runtime.block_on(async {
        let client = client(&demo)?;
        place = lookup(&client, USER).await?;
        release(&client, USER, place.context("no such account")?).await
    })?;
    refused(&demo, &["account", "show", USER], "no account")?;
    ctl(&demo, &["account", "rename", id, USER])?;
    logs_in(&demo, USER)?;

    // What one account gave up, another one has; deleting the first does not stop there.
    ctl(&demo, &["account", "alias", USER, "both@example.test"])?;
    runtime.block_on(async {
        release(&client(&demo)?, "both@example.test", place.context("no such account")?).await
    })?;
    ctl(&demo, &["account", "alias", OTHER, "both@example.test"])?;
    ctl(&demo, &["group", "set", "all@example.test", "both@example.test", USER])?;
    ctl(&demo, &["account", "delete", USER])?;
    members(&demo, "all@example.test", &["both@example.test"])?;
    refused(&demo, &["account", "show", USER], "no account")?;
    delivered(&demo, "both@example.test")?;

    // The account is gone and its address is not.
    runtime.block_on(async {
        let client = client(&demo)?;
        let place = lookup(&client, OTHER).await?.context("no such account")?;
        let delete = Command::DeleteAccount(place.account);
        let deleted = client.command(place, delete, Vec::new()).await;
        ensure!(deleted == Ok(Outcome::Done), "{deleted:?}");
        Ok(())
    })?;
    refused(&demo, &["account", "show", OTHER], "half deleted")?;
    let added = demo.ctl_with_input(&["account", "add", OTHER], SECRET);
    ensure!(added.is_err(), "it was added over what is half deleted");
    ctl(&demo, &["account", "delete", OTHER])?;
    demo.ctl_with_input(&["account", "add", OTHER], SECRET)?;
    logs_in(&demo, OTHER)?;

    // Whoever shows subscribed mailboxes only shows them all.
    let mut imap = Imap::login(&demo.at("f1", "imap")?, OTHER, SECRET)?;
    let listed = imap.ok("LIST (SUBSCRIBED) \"\" *")?;
    for name in ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"] {
        let is_there = listed.iter().any(|line| line.text.ends_with(&format!(" \"{name}\"")));
        ensure!(is_there, "{name} is not among {listed:?}");
    }
    Ok(())
}

#[test]
fn an_account_added_and_deleted_at_once_is_there_with_its_name_or_not_at_all() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "1"])?;
    let name = "raced@example.test";
    for round in 0..N_RACES {
        std::thread::scope(|scope| {
            let add = || drop(demo.ctl_with_input(&["account", "add", name], SECRET));
            let adding = scope.spawn(add);
            while !adding.is_finished() {
                drop(demo.ctl(&["account", "delete", name]));
            }
        });
        let is_there = ctl(&demo, &["account", "list"])?.contains(name);
        println!("round {round}: it is {}", if is_there { "there" } else { "gone" });
        if is_there {
            wait::until(FORGOTTEN_WITHIN, "it has its name", || logs_in(&demo, name))?;
            ctl(&demo, &["account", "delete", name])?;
        }
        refused(&demo, &["account", "show", name], "no account")?;
    }
    Ok(())
}

#[test]
fn a_drain_that_cannot_go_on_says_why() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "1", "--shards", "1"])?;
    let drained = demo.ctl(&["node", "drain", "n2"])?;
    let said = said(&drained);
    ensure!(!drained.status.success() && said.contains("n2 has 2 replicas left"), "{said}");
    ensure!(said.contains("`rookery ctl node undrain n2` calls it off"), "{said}");
    ensure!(said.contains("waits: shard 1: ") && said.contains("no suitable disk"), "{said}");
    Ok(())
}

/// At every frontend, at once.
fn logs_in(demo: &Demo, user: &str) -> Result<()> {
    for frontend in FRONTENDS {
        let login = Imap::login(&demo.at(frontend, "imap")?, user, SECRET);
        login.with_context(|| format!("{user} at {frontend}"))?;
    }
    Ok(())
}

fn delivered(demo: &Demo, to: &str) -> Result<()> {
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;
    let reply = lmtp.transaction(&[to], b"Subject: one\r\n\r\none\r\n")?.remove(0);
    ensure!(reply.starts_with("250"), "mail for {to}: {reply}");
    Ok(())
}

fn members(demo: &Demo, group: &str, wanted: &[&str]) -> Result<()> {
    let shown = ctl(demo, &["group", "show", group])?;
    let mut shown: Vec<&str> = shown.lines().collect();
    shown.sort_unstable();
    ensure!(shown == wanted, "members of {group}: {shown:?}");
    Ok(())
}

/// What it says.
fn ctl(demo: &Demo, arguments: &[&str]) -> Result<String> {
    let done = demo.ctl(arguments)?;
    ensure!(done.status.success(), "{arguments:?}: {}", said(&done));
    Ok(said(&done))
}

fn refused(demo: &Demo, arguments: &[&str], words: &str) -> Result<()> {
    let done = demo.ctl(arguments)?;
    ensure!(!done.status.success(), "{arguments:?} was done: {}", said(&done));
    ensure!(said(&done).contains(words), "{arguments:?}: {}", said(&done));
    Ok(())
}

fn said(done: &Output) -> String {
    let text = [done.stdout.as_slice(), &done.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

async fn lookup(client: &Client, text: &str) -> Result<Option<Place>> {
    client.recipient(&address(text)?).await.ok().context("look up")
}

async fn release(client: &Client, text: &str, place: Place) -> Result<()> {
    let address = address(text)?;
    // Why: it learns where everything is.
    lookup(client, text).await?;
    let shard: Option<ShardId> = client.placement().directory_shard(address.directory_slot());
    let release = ReleaseAddress { address, account: place.account };
    let release = Command::ReleaseAddress(release);
    let released = client.command_shard(shard.context("no cluster")?, release).await;
    ensure!(released == Ok(Outcome::Done), "{released:?}");
    Ok(())
}

fn address(text: &str) -> Result<Address> {
    Ok(Address::parse(text).ok().context("an address")?.0)
}

/// With the operator's rights.
fn client(demo: &Demo) -> Result<Client> {
    let cluster = demo.cluster()?;
    let identity = cluster["identity"].as_str().context("no identity")?;
    let identity = Identity::load(identity.as_ref())?;
    let seeds = vec![demo.at("n1", "grpc")?];
    let name = identity.peer().name.clone();
    Ok(Client::new(ClientConfig { seeds, identity, name, bind: None })?)
}
