//! Octets out equal octets in, through LMTP, APPEND, IMAP and POP3.

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::messages;
use tests::pop3::Pop3;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";

/// Header fields that delivery puts in front of a message.
const TRACE_FIELDS: &[&str] = &["Return-Path:", "Delivered-To:", "Received:"];

#[test]
fn every_message_comes_back_octet_for_octet() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    let mut all = messages::made();
    all.extend(messages::corpus());
    let delivered = deliver_all(&demo, &all)?;
    let appended = append_all(&demo, &all)?;
    println!("{} delivered, {} appended of {}", delivered.len(), appended.len(), all.len());
    ensure!(delivered.len() * 10 > all.len() * 9, "too many messages were refused by LMTP");
    ensure!(appended.len() * 10 > all.len() * 9, "too many messages were refused by APPEND");
    check_imap(&demo, "INBOX", &delivered, true)?;
    check_imap(&demo, "Appended", &appended, false)?;
    check_pop3(&demo, &delivered)
}

/// Gives those that were accepted, in CRLF form.
fn deliver_all(demo: &Demo, all: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;
    let mut accepted = Vec::new();
    for message in all {
        let message = messages::crlf(message);
        let reply = lmtp.deliver(&[USER], &message)?.remove(0);
        if reply.starts_with("250") {
            accepted.push(message);
        } else {
            ensure!(reply.starts_with('5') && message.contains(&0), "refused: {reply}");
        }
    }
    Ok(accepted)
}

fn append_all(demo: &Demo, all: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    imap.ok("CREATE Appended")?;
    // A literal must not hold NUL (RFC 3501 9: CHAR8).
    let legal: Vec<Vec<u8>> = all.iter().filter(|message| !message.contains(&0)).cloned().collect();
    for message in &legal {
        imap.append("Appended", message)?;
    }
    Ok(legal)
}

fn check_imap(demo: &Demo, mailbox: &str, want: &[Vec<u8>], traced: bool) -> Result<()> {
    // The other frontend: what one acknowledged, every other shows.
    let mut imap = Imap::login(&demo.at("f2", "imap")?, USER, PASSWORD)?;
    imap.ok(&format!("SELECT {mailbox}"))?;
    let uids = imap.uids()?;
    ensure!(uids.len() == want.len(), "{mailbox}: {} of {}", uids.len(), want.len());
    for (uid, want) in uids.iter().zip(want) {
        let want = &as_literal(want);
        let got = imap.fetch_body(*uid)?;
        let body = if traced { without_trace(&got)? } else { &got };
        ensure!(body == want.as_slice(), "{mailbox} UID {uid} differs: {}", difference(body, want));
    }
    Ok(())
}

/// RFC 9051 4.3.1: no literal holds NUL, which LMTP may bring.
pub(crate) fn as_literal(message: &[u8]) -> Vec<u8> {
    message.iter().map(|byte| if *byte == 0 { 0x80 } else { *byte }).collect()
}

fn check_pop3(demo: &Demo, want: &[Vec<u8>]) -> Result<()> {
    let mut pop3 = Pop3::login(&demo.at("f2", "pop3")?, USER, PASSWORD)?;
    let listed = pop3.lines("LIST")?;
    ensure!(listed.len() == want.len(), "POP3 lists {} of {}", listed.len(), want.len());
    for (number, want) in (1..).zip(want) {
        let got = pop3.retr(number)?;
        let listed = String::from_utf8_lossy(&listed[number as usize - 1]).into_owned();
        ensure!(listed.ends_with(&format!(" {}", got.len())), "{listed} but {} came", got.len());
        let body = without_trace(&got)?;
        ensure!(body == want.as_slice(), "POP3 {number} differs: {}", difference(body, want));
    }
    pop3.ok("QUIT").map(|_| ())
}

/// What follows the trace header fields, each of which must be there exactly once.
pub(crate) fn without_trace(message: &[u8]) -> Result<&[u8]> {
    let mut rest = message;
    for field in TRACE_FIELDS {
        ensure!(rest.starts_with(field.as_bytes()), "no {field} in front");
        loop {
            let end = rest.iter().position(|byte| *byte == b'\n').context("no line end")? + 1;
            rest = &rest[end..];
            if !matches!(rest.first(), Some(b' ' | b'\t')) {
                break;
            }
        }
    }
    Ok(rest)
}

fn difference(got: &[u8], want: &[u8]) -> String {
    let at = got.iter().zip(want).take_while(|(a, b)| a == b).count();
    let near = |bytes: &[u8]| {
        let end = bytes.len().min(at + 30);
        String::from_utf8_lossy(&bytes[at.min(end)..end]).into_owned()
    };
    format!("{} octets for {}; at {at} {:?} for {:?}", got.len(), want.len(), near(got), near(want))
}
