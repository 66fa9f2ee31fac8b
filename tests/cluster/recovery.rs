//! Two of three nodes are lost for good: nothing is acknowledged, nothing is guessed, and an operator can
//! go on with what the third one has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::wait;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
/// A debug build on two cores that also run the tests.
const WHOLE: Duration = Duration::from_secs(120);
/// A client without a majority knows by then; the product's own bound is ten seconds.
const REFUSED: Duration = Duration::from_secs(20);

#[test]
fn a_lost_majority_is_given_up_only_by_an_operator_and_costs_every_uidvalidity() -> Result<()> {
    let demo = Demo::start(&["--accounts", "1", "--shards", "2"])?;
    let before = mailboxes(&demo)?;
    let early = recover(&demo, &["1"], "n1", true)?;
    ensure!(early.contains("nothing is lost"), "a shard that is led was given up: {early}");
    for node in ["n2", "n3"] {
        demo.signal(node, "KILL")?;
        let disk = demo.dir().join(node).join("disk1");
        std::fs::remove_dir_all(&disk)?;
        std::fs::create_dir(&disk)?;
    }
    refused_in_time(&demo)?;
    let shown = recover(&demo, &["0"], "n1", false)?;
    ensure!(shown.contains("nothing was done"), "{shown}");
    ensure!(shown.contains("on n2 (away)"), "{shown}");
    let done =
        demo.ctl(&["shard", "recover", "0", "1", "2", "--node", "n1", "--i-accept-data-loss"])?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    let alone = wait::until(WHOLE, "the shards are served again", || mailboxes(&demo))?;
    check(&before, &alone)?;
    wait::until(WHOLE, "delivery", || deliver(&demo, "alone"))?;
    for node in ["n2", "n3"] {
        demo.start_again(node)?;
    }
    wait::until(WHOLE, "full redundancy", || {
        let done = demo.ctl(&["cluster", "health", "--whole"])?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let list = demo.ctl(&["shard", "list"])?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        ensure!(done.status.success() && list.matches("n3 (").count() == 3, "{said}{list}");
        Ok(())
    })?;
    let after = mailboxes(&demo)?;
    for (name, (validity, _)) in &alone {
        ensure!(after[name].0 == *validity, "UIDVALIDITY of {name} changed once more");
    }
    // The one that stood alone is not needed any more.
    demo.signal("n1", "KILL")?;
    wait::until(WHOLE, "delivery without n1", || deliver(&demo, "without"))?;
    check(&before, &mailboxes(&demo)?)
}

/// Every mailbox has a greater UIDVALIDITY and all its messages.
fn check(before: &Mailboxes, after: &Mailboxes) -> Result<()> {
    ensure!(before.keys().eq(after.keys()), "{:?} became {:?}", before.keys(), after.keys());
    for (name, (validity, bodies)) in before {
        let (now, found) = &after[name];
        ensure!(now > validity, "UIDVALIDITY of {name} was {validity} and is {now}");
        ensure!(found.starts_with(bodies), "mail in {name} changed");
    }
    Ok(())
}

fn refused_in_time(demo: &Demo) -> Result<()> {
    let began = Instant::now();
    let refused = deliver(demo, "no majority").expect_err("delivered without a majority");
    ensure!(refused.to_string().contains("451 4.3"), "{refused}");
    println!("LMTP said so after {:?}", began.elapsed());
    ensure!(began.elapsed() < REFUSED, "LMTP took {:?}", began.elapsed());
    Ok(())
}

/// Output of `ctl shard recover`.
fn recover(demo: &Demo, shards: &[&str], node: &str, accept: bool) -> Result<String> {
    let mut arguments = vec!["shard", "recover"];
    arguments.extend(shards);
    arguments.extend(["--node", node]);
    if accept {
        arguments.push("--i-accept-data-loss");
    }
    let done = demo.ctl(&arguments)?;
    ensure!(!done.status.success(), "done: {}", String::from_utf8_lossy(&done.stdout));
    let said = [done.stdout, done.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}

type Mailboxes = BTreeMap<String, (u32, Vec<Vec<u8>>)>;

/// UIDVALIDITY and bodies in the order of UIDs.
fn mailboxes(demo: &Demo) -> Result<Mailboxes> {
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    let mut found = BTreeMap::new();
    for name in ["INBOX", "Sent"] {
        let said = imap.ok(&format!("EXAMINE {name}"))?;
        let validity = said.iter().find_map(|line| line.text.split("[UIDVALIDITY ").nth(1));
        let validity = validity.and_then(|rest| rest.split(']').next()?.parse().ok());
        let uids = imap.uids()?;
        let bodies = uids.into_iter().map(|uid| imap.fetch_body(uid)).collect::<Result<_>>()?;
        found.insert(name.to_owned(), (validity.context("no UIDVALIDITY")?, bodies));
    }
    Ok(found)
}

fn deliver(demo: &Demo, subject: &str) -> Result<()> {
    let message = format!("From: a@example.test\r\nSubject: {subject}\r\n\r\nbody\r\n");
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;
    let reply = lmtp.deliver(&[USER], message.as_bytes())?.remove(0);
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}
