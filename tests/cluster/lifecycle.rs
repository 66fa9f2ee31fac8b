//! A demo as an operator meets it: accounts, restarts, and clear words for what goes wrong.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::demo::{Demo, rookery};
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::wait;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";

#[test]
fn a_second_start_brings_the_same_cluster_back() -> Result<()> {
    let keep = tempfile::tempdir()?;
    let mut demo = Demo::start_in(&keep.path().join("demo"), &["--accounts", "2"])?;
    let before = state(&demo)?;
    ensure!(before.contains("EXISTS"), "no sample mail: {before}");
    let made_by = demo.process("n1")?["argv"][0].as_str().context("no program")?.to_owned();
    demo.end()?;
    // The build that made it is gone.
    let file = demo.dir().join("cluster.json");
    let text = std::fs::read_to_string(&file)?.replace(&made_by, "/nonexistent/rookery");
    std::fs::write(&file, text)?;
    demo.begin()?;
    let after = state(&demo)?;
    ensure!(before == after, "before {before}, after {after}");
    Ok(())
}

#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() -> Result<()> {
    let keep = tempfile::tempdir()?;
    let options = ["--nodes", "1", "--frontends", "1", "--accounts", "0"];
    let mut demo = Demo::start_in(&keep.path().join("demo"), &options)?;
    demo.signal("f1", "KILL")?;
    demo.start_again("f1")?;
    let pids = ["n1", "f1"].map(|name| demo.process(name).map(|it| it["pid"].as_u64()));
    demo.kill()?;
    for pid in pids {
        let status = format!("/proc/{}/cmdline", pid?.context("no pid")?);
        wait::until(Duration::from_secs(30), "process ended", || {
            // One that has ended and is nobody's child yet has an empty command line.
            let left = std::fs::read(&status).unwrap_or_default();
            ensure!(left.is_empty(), "{status} is there");
            Ok(())
        })?;
    }
    demo.begin()
}

#[test]
fn the_loss_of_every_index_loses_nothing() -> Result<()> {
    let keep = tempfile::tempdir()?;
    let mut demo = Demo::start_in(&keep.path().join("demo"), &["--accounts", "2"])?;
    let before = state(&demo)?;
    let bodies = bodies(&demo)?;
    demo.end()?;
    for node in ["n1", "n2", "n3"] {
        std::fs::remove_dir_all(demo.dir().join(node).join("disk1/disk/index"))?;
    }
    demo.begin()?;
    ensure!(before == state(&demo)?, "SELECT tells something else");
    ensure!(bodies == self::bodies(&demo)?, "bodies differ");
    demo.wait_healthy(true)
}

/// All bodies of INBOX.
fn bodies(demo: &Demo) -> Result<Vec<Vec<u8>>> {
    let mut imap = Imap::login(&demo.at("f2", "imap")?, USER, PASSWORD)?;
    imap.ok("EXAMINE INBOX")?;
    imap.uids()?.into_iter().map(|uid| imap.fetch_body(uid)).collect()
}

#[test]
fn without_a_majority_nothing_is_acknowledged() -> Result<()> {
    let demo = Demo::start(&["--accounts", "1"])?;
    let lmtp = demo.at("f1", "lmtp")?;
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    imap.ok("SELECT INBOX")?;
    let whole = imap.uids()?;
    demo.signal("n2", "KILL")?;
    demo.signal("n3", "KILL")?;
    let refused = deliver(&lmtp, USER, "no majority").expect_err("delivered without a majority");
    ensure!(refused.to_string().starts_with("451 4.3"), "no majority: {refused}");
    let stored = imap.run("UID STORE 1 +FLAGS (\\Flagged)")?;
    let last = &stored.last().expect("a tagged response").text;
    ensure!(last.contains("NO [UNAVAILABLE]"), "no majority: {last}");
    demo.start_again("n2")?;
    wait::until(Duration::from_secs(60), "delivery with a majority", || {
        deliver(&lmtp, USER, "a majority again")
    })?;
    imap.ok("NOOP")?;
    ensure!(imap.uids()?.len() > whole.len(), "what was delivered is not seen");
    Ok(())
}

/// What SELECT tells of INBOX.
fn state(demo: &Demo) -> Result<String> {
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    let said = imap.ok("EXAMINE INBOX")?;
    let wanted = |text: &&str| {
        ["EXISTS", "UIDVALIDITY", "UIDNEXT", "HIGHESTMODSEQ"].iter().any(|word| text.contains(word))
    };
    let lines: Vec<&str> =
        said.iter().map(|response| response.text.as_str()).filter(wanted).collect();
    Ok(lines.join("\n"))
}

#[test]
fn an_account_lives_through_every_verb_of_ctl() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "1"])?;
    let ctl = |arguments: &[&str]| demo.ctl_with_input(arguments, "pass-one");
    let (imap, lmtp) = (demo.at("f1", "imap")?, demo.at("f2", "lmtp")?);
    ctl(&["account", "add", "new@example.test"])?;
    ensure!(ctl(&["account", "add", "new@example.test"]).is_err(), "an account was added twice");
    deliver(&lmtp, "new@example.test", "one")?;
    ctl(&["account", "alias", "new@example.test", "other@example.test"])?;
    deliver(&lmtp, "other@example.test", "two")?;
    ctl(&["account", "rename", "new@example.test", "renamed@example.test"])?;
    deliver(&lmtp, "renamed+detail@example.test", "three")?;
    let mut session = Imap::login(&imap, "renamed@example.test", "pass-one")?;
    session.ok("SELECT INBOX")?;
    ensure!(session.uids()? == [1, 2, 3], "renaming changed UIDs");
    // A frontend remembers for a moment where an address led.
    wait::until(Duration::from_secs(10), "old name refused", || {
        ensure!(deliver(&lmtp, "new@example.test", "four").is_err(), "the old name gets mail");
        Ok(())
    })?;

    demo.ctl_with_input(&["account", "passwd", "renamed@example.test"], "pass-two")?;
    ensure!(Imap::login(&imap, "renamed@example.test", "pass-one").is_err(), "old password works");
    Imap::login(&imap, "renamed@example.test", "pass-two")?;
    let limits = ctl(&["account", "quota", "renamed@example.test", "--messages", "1"])?;
    ensure!(limits.contains("any number of octets and 1 messages"), "limits: {limits}");
    let refused = deliver(&lmtp, "renamed@example.test", "five").expect_err("over quota");
    ensure!(refused.to_string().contains("452 4.2.2"), "over quota: {refused}");
    ctl(&["account", "suspend", "renamed@example.test"])?;
    ensure!(Imap::login(&imap, "renamed@example.test", "pass-two").is_err(), "suspended");
    ctl(&["account", "suspend", "renamed@example.test", "--resume"])?;
    Imap::login(&imap, "renamed@example.test", "pass-two")?;
    ensure!(ctl(&["account", "list"])?.contains("renamed@example.test"), "not listed");
    unread(&demo, &["account", "list"])?;
    ensure!(ctl(&["account", "show", "other@example.test"])?.contains("renamed@"), "alias unknown");
    ctl(&["account", "delete", "renamed@example.test"])?;
    ensure!(deliver(&lmtp, "other@example.test", "six").is_err(), "the alias outlived the account");
    ctl(&["account", "add", "renamed@example.test"])?;
    let mut fresh = Imap::login(&imap, "renamed@example.test", "pass-one")?;
    fresh.ok("SELECT INBOX")?;
    ensure!(fresh.uids()?.is_empty(), "a new account has old mail");
    Ok(())
}

/// What nobody reads to its end, as with `| head`, is no failure.
fn unread(demo: &Demo, arguments: &[&str]) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut ctl = std::process::Command::new(rookery());
    ctl.args(["ctl", "--cluster"]).arg(demo.cluster_file()).args(arguments);
    let done = ctl.stdin(std::process::Stdio::null()).stdout(writer).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success() && said.is_empty(), "{arguments:?}: {said}");
    Ok(())
}

fn deliver(address: &str, to: &str, subject: &str) -> Result<()> {
    let message = format!("From: a@example.test\r\nSubject: {subject}\r\n\r\nbody\r\n");
    let reply = Lmtp::connect(address)?.deliver(&[to], message.as_bytes())?.remove(0);
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}

#[test]
fn what_goes_wrong_at_the_start_is_said_in_one_line() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("config.toml");
    let says = |verb: &str, text: &str, want: &str| -> Result<()> {
        std::fs::write(&config, text)?;
        let done = std::process::Command::new(rookery())
            .args([verb, "--config"])
            .arg(&config)
            .stdin(std::process::Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(!done.status.success(), "{verb} started with {text:?}");
        ensure!(said.contains(want), "{verb} says {said:?} for {text:?}");
        ensure!(said.trim_end().lines().count() == 1, "{verb} says more than one line: {said}");
        Ok(())
    };
    says("node", "nam = \"n1\"\n", "name")?;
    says("frontend", "sedes = []\n", "seeds")?;
    let missing = std::process::Command::new(rookery())
        .args(["node", "--config"])
        .arg(dir.path().join("none.toml"))
        .output()?;
    ensure!(String::from_utf8_lossy(&missing.stderr).contains("none.toml"), "no file named");
    Ok(())
}
