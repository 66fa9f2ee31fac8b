//! Rot in the files of a real node: `ctl` says where each copy lies, and the node heals itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::wait;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
/// Head of a body in a segment.
const BLOB_HEAD: u64 = 72;
const HEALED: Duration = Duration::from_secs(90);
/// What nodes report is known everywhere by then.
const REPORTED: Duration = Duration::from_secs(30);

#[test]
fn a_message_that_rots_on_one_node_is_told_and_healed() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "1"])?;
    let body = "what is written here is to be read as it was written\r\n".repeat(40);
    let message = format!("From: a@example.test\r\nSubject: rot\r\n\r\n{body}");
    let replies = Lmtp::connect(&demo.at("f1", "lmtp")?)?.deliver(&[USER], message.as_bytes())?;
    ensure!(replies[0].starts_with("250"), "{replies:?}");
    demo.wait_healthy(true)?;
    let before = status(&demo)?;
    ensure!(before["good"] == true && before["n_good_copies"] == 3, "{before:#}");
    let (segment, offset) = place(&before, "n2")?;

    wait::until(REPORTED, "one death is safe", || {
        let explained = demo.ctl(&["explain", "n2"])?;
        let text = String::from_utf8_lossy(&explained.stdout).into_owned();
        ensure!(explained.status.success() && text.contains("lose a copy"), "{text}");
        Ok(())
    })?;

    demo.signal("n2", "KILL")?;
    let journal = demo.dir().join("n2/disk1/disk/journal");
    let path = journal.join(format!("{segment:016x}.seg"));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let mut byte = [0];
    let at = offset + BLOB_HEAD + 5;
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 4], at)?;
    wait::until(REPORTED, "n2 is away", || {
        let told = demo.ctl(&["message", "status", USER, "INBOX", "1"])?;
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        ensure!(!told.status.success() && text.contains("NO ANSWER"), "{text}");
        Ok(())
    })?;
    wait::until(REPORTED, "a second death is not safe", || {
        let explained = demo.ctl(&["explain", "n1"])?;
        let text = String::from_utf8_lossy(&explained.stdout).into_owned();
        ensure!(!explained.status.success() && text.contains("NO MAJORITY"), "{text}");
        Ok(())
    })?;

    demo.start_again("n2")?;
    let after = wait::until(HEALED, "the copy is healed", || {
        let after = status(&demo)?;
        ensure!(after["good"] == true, "{after:#}");
        Ok(after)
    })?;
    wait::until(HEALED, "the damaged segment is gone", || {
        ensure!(!path.exists(), "{} is still there: {after:#}", path.display());
        Ok(())
    })?;
    ensure!(place(&status(&demo)?, "n2")? != (segment, offset), "it lies where it was damaged");
    let metrics = wait::until(HEALED, "the metrics tell", || {
        let metrics = metrics(&demo.at("n2", "http")?)?;
        let repaired = metrics.lines().find(|line| line.starts_with("rookery_scrub_repaired_"));
        let count = repaired.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        ensure!(count.is_some_and(|count| count > 0), "{metrics}");
        Ok(metrics)
    })?;
    ensure!(metrics.contains("rookery_scrub_unrepairable{"), "{metrics}");
    ensure!(metrics.contains("rookery_scrub_oldest_unverified_seconds{"), "{metrics}");
    wait::until(REPORTED, "the cluster's status tells", || {
        let shown = demo.ctl(&["cluster", "status"])?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        ensure!(shown.contains("damages repaired"), "{shown}");
        Ok(())
    })?;
    let mut imap = Imap::login(&demo.at("f2", "imap")?, USER, PASSWORD)?;
    imap.ok("EXAMINE INBOX")?;
    let read = imap.fetch_body(1)?;
    ensure!(read.ends_with(body.as_bytes()), "other octets");
    Ok(())
}

fn status(demo: &Demo) -> Result<Value> {
    let told = demo.ctl(&["message", "status", USER, "INBOX", "1", "--json"])?;
    serde_json::from_slice(&told.stdout)
        .with_context(|| String::from_utf8_lossy(&told.stderr).into_owned())
}

/// Where a node has the message's last chunk, which is its text.
fn place(status: &Value, node: &str) -> Result<(u64, u64)> {
    let copies = status["copies"].as_array().context("no copies")?;
    let copy = copies.iter().find(|copy| copy["node"] == node).context("no such copy")?;
    let chunk = copy["chunks"].as_array().and_then(|chunks| chunks.last()).context("no chunk")?;
    let number = |key: &str| chunk[key].as_u64().with_context(|| format!("no {key}"));
    Ok((number("segment")?, number("offset")?))
}

fn metrics(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
