//! What a provider's help page says of IMAP and POP3, sentence by sentence.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::http;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::pop3::Pop3;
use tests::wait;

const USER: &str = "u0001@example.test";
const OTHER: &str = "u0002@example.test";
const PASSWORD: &str = "secret";
const NODES: &[&str] = &["n1", "n2", "n3"];
/// A header view of any message sends less.
const HEADER_VIEW_BYTES_MAX: u64 = 4000;
/// A flag set elsewhere is seen within.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// What clients ask of each message before they list it: Thunderbird, Roundcube.
const ASKED_TO_LIST: [&str; 2] = [
    "UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority \
     X-Priority References Newsgroups In-Reply-To Content-Type Reply-To)]",
    "UID RFC822.SIZE FLAGS INTERNALDATE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT \
     CONTENT-TYPE CC REPLY-TO LIST-POST DISPOSITION-NOTIFICATION-TO X-PRIORITY)]",
];

const N_ATTACHED: usize = 20 << 20;
/// No line of the attachment begins with it.
const BOUNDARY: &str = "end-of-a-part-of-the-large-one";
const TEXT: &str = "The text that is to be read.\r\n";

/// What stands between the message's header and the attachment's octets.
fn text_and_heads() -> String {
    format!(
        "--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\n{TEXT}\r\n--{BOUNDARY}\r\n\
         Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=large\r\n\r\n"
    )
}

/// A short text and an attachment of 20 MB.
fn with_attachment() -> Vec<u8> {
    let mut message = format!(
        "From: Ann <ann@example.test>\r\nTo: bob@example.test\r\nSubject: a large one\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary={BOUNDARY}\r\n\r\n{}",
        text_and_heads()
    )
    .into_bytes();
    message.extend_from_slice(&tests::messages::large(N_ATTACHED)[40..]);
    message.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    message
}

fn n_chunks_read(demo: &Demo) -> Result<u64> {
    http::metric(demo, NODES, "rookery_node_chunks_read_total")
}

fn n_bytes_read(demo: &Demo) -> Result<u64> {
    http::metric(demo, NODES, "rookery_node_chunk_bytes_read_total")
}

fn login(demo: &Demo, frontend: &str) -> Result<Imap> {
    Imap::login(&demo.at(frontend, "imap")?, USER, PASSWORD)
}

#[test]
fn the_help_page_is_true() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    let message = with_attachment();
    let reply = Lmtp::connect(&demo.at("f1", "lmtp")?)?.deliver(&[USER], &message)?.remove(0);
    ensure!(reply.starts_with("250"), "{reply}");
    headers_are_shown_without_the_body(&demo)?;
    a_text_is_read_without_its_attachment(&demo)?;
    moving_and_deleting_reads_nothing(&demo)?;
    folders_are_the_same_everywhere(&demo)?;
    flags_are_seen_elsewhere_at_once(&demo)?;
    pop3_sees_inbox_and_deletes_at_quit(&demo)
}

/// "Only the headers are loaded until you open a message."
fn headers_are_shown_without_the_body(demo: &Demo) -> Result<()> {
    let mut imap = login(demo, "f2")?;
    imap.ok("SELECT INBOX")?;
    let (before, received) = (n_chunks_read(demo)?, imap.n_received());
    let shown =
        imap.ok("FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE PREVIEW)")?;
    ensure!(shown[0].text.contains("a large one"), "{}", shown[0].text);
    ensure!(shown[0].text.contains("\"attachment\""), "{}", shown[0].text);
    let n_octets = imap.n_received() - received;
    let n_chunks = n_chunks_read(demo)? - before;
    println!("header view: {n_octets} octets, {n_chunks} chunks");
    ensure!(n_octets < HEADER_VIEW_BYTES_MAX, "a header view sends {n_octets} octets");
    ensure!(n_chunks == 0, "a header view reads {n_chunks} chunks");
    let header = imap.ok("FETCH 1 BODY.PEEK[HEADER]")?.swap_remove(0).literals.swap_remove(0);
    for asked in ASKED_TO_LIST {
        let (before, bytes_before) = (n_chunks_read(demo)?, n_bytes_read(demo)?);
        let shown = imap.ok(&format!("UID FETCH 1:* ({asked})"))?;
        let fields = shown[0].literals.first().context("no header fields")?;
        ensure!(fields.starts_with(b"From: Ann"), "{}", String::from_utf8_lossy(fields));
        let n_chunks = n_chunks_read(demo)? - before;
        let n_bytes = n_bytes_read(demo)? - bytes_before;
        println!("header fields: {n_chunks} chunks, {n_bytes} octets");
        // The header, and in front of it what delivery put there: nothing else lies with them.
        ensure!(n_chunks == 1, "header fields read {n_chunks} chunks");
        ensure!(n_bytes == header.len() as u64, "a header of {} reads {n_bytes}", header.len());
    }
    Ok(())
}

/// "Attachments are loaded when you ask for them."
fn a_text_is_read_without_its_attachment(demo: &Demo) -> Result<()> {
    let mut imap = login(demo, "f1")?;
    imap.ok("EXAMINE INBOX")?;
    let (before, bytes_before) = (n_chunks_read(demo)?, n_bytes_read(demo)?);
    let read = imap.ok("FETCH 1 (BODY.PEEK[1])")?;
    ensure!(read[0].literals.first().is_some_and(|text| text.starts_with(TEXT.as_bytes())));
    let n_chunks = n_chunks_read(demo)? - before;
    let n_bytes = n_bytes_read(demo)? - bytes_before;
    println!("BODY[1]: {n_chunks} chunks, {n_bytes} octets");
    // The text lies with the headers of both parts.
    ensure!(n_chunks == 1, "BODY[1] reads {n_chunks} chunks");
    ensure!(n_bytes == text_and_heads().len() as u64, "BODY[1] reads {n_bytes} octets");
    // All of it, so that the count is known to count.
    let before = n_chunks_read(demo)?;
    let all = imap.ok("FETCH 1 (BODY.PEEK[2])")?;
    ensure!(all[0].literals.first().is_some_and(|octets| octets.len() > N_ATTACHED - 100));
    let n_chunks = n_chunks_read(demo)? - before;
    ensure!(n_chunks as usize >= N_ATTACHED >> 18, "the attachment has {n_chunks} chunks");
    Ok(())
}

/// "Deleting and moving happens on the server."
fn moving_and_deleting_reads_nothing(demo: &Demo) -> Result<()> {
    let mut imap = login(demo, "f1")?;
    imap.ok("SELECT INBOX")?;
    imap.ok("CREATE Shelf")?;
    let before = n_chunks_read(demo)?;
    imap.ok("COPY 1 Shelf")?;
    imap.ok("MOVE 1 Trash")?;
    imap.ok("SELECT Trash")?;
    imap.ok("STORE 1 +FLAGS (\\Deleted)")?;
    imap.ok("EXPUNGE")?;
    let n_chunks = n_chunks_read(demo)? - before;
    ensure!(n_chunks == 0, "COPY, MOVE and EXPUNGE read {n_chunks} chunks");
    imap.ok("SELECT Shelf")?;
    ensure!(imap.uids()?.len() == 1, "the copy is gone too");
    Ok(())
}

/// "Every program and device shows the same folders."
fn folders_are_the_same_everywhere(demo: &Demo) -> Result<()> {
    let (mut here, mut there) = (login(demo, "f1")?, login(demo, "f2")?);
    for step in 0..4 {
        match step {
            0 => here.ok("CREATE \"Work/2026\"").map(drop)?,
            1 => there.ok("RENAME Work Job").map(drop)?,
            2 => here.ok("SUBSCRIBE \"Job/2026\"").map(drop)?,
            _ => there.ok("DELETE \"Job/2026\"").map(drop)?,
        }
        let listed = |imap: &mut Imap| -> Result<Vec<String>> {
            let command = "LIST \"\" * RETURN (SUBSCRIBED STATUS (MESSAGES UIDNEXT UIDVALIDITY))";
            let mut lines: Vec<_> = imap.ok(command)?.into_iter().map(|line| line.text).collect();
            lines.pop();
            Ok(lines)
        };
        let (a, b) = (listed(&mut here)?, listed(&mut there)?);
        ensure!(a == b && a.len() >= 6, "step {step}: {a:?}, {b:?}");
    }
    Ok(())
}

/// "What you read on one device is read on the other."
fn flags_are_seen_elsewhere_at_once(demo: &Demo) -> Result<()> {
    let (mut here, mut there) = (login(demo, "f1")?, login(demo, "f2")?);
    here.append("INBOX", b"Subject: flags\r\n\r\nflags\r\n")?;
    here.ok("SELECT INBOX")?;
    there.ok("SELECT INBOX")?;
    let uid = here.uids()?.pop().context("no message")?;
    for flag in ["\\Seen", "\\Flagged", "$Forwarded"] {
        let idle = there.start("IDLE")?;
        while !there.response()?.text.starts_with('+') {}
        let begun = Instant::now();
        here.ok(&format!("UID STORE {uid} +FLAGS ({flag})"))?;
        while !there.response()?.text.contains(flag) {}
        let took = begun.elapsed();
        println!("{flag} seen through the other frontend after {took:?}");
        ensure!(took < SEEN_WITHIN, "{flag} was seen after {took:?}");
        there.end_idle(&idle)?;
    }
    Ok(())
}

/// "POP3 shows the inbox only, and takes messages off the server once it has ended well."
fn pop3_sees_inbox_and_deletes_at_quit(demo: &Demo) -> Result<()> {
    let mut imap = Imap::login(&demo.at("f1", "imap")?, OTHER, PASSWORD)?;
    for n in 0..3 {
        imap.append("INBOX", format!("Subject: inbox {n}\r\n\r\ntext {n}\r\n").as_bytes())?;
    }
    imap.append("Drafts", b"Subject: elsewhere\r\n\r\ntext\r\n")?;
    let pop3 = demo.at("f2", "pop3")?;
    let mut dropped = Pop3::login(&pop3, OTHER, PASSWORD)?;
    ensure!(dropped.lines("LIST")?.len() == 3, "POP3 sees something else than INBOX");
    for number in 1..=3 {
        let message = String::from_utf8(dropped.retr(number)?)?;
        ensure!(message.contains("Subject: inbox"), "{message}");
        dropped.ok(&format!("DELE {number}"))?;
    }
    // A connection that breaks off has deleted nothing.
    drop(dropped);
    let mut again = wait::until(Duration::from_secs(30), "the maildrop is free again", || {
        Pop3::login(&pop3, OTHER, PASSWORD)
    })?;
    ensure!(again.lines("LIST")?.len() == 3, "a dropped connection deleted");
    for number in [1, 3] {
        again.retr(number)?;
        again.ok(&format!("DELE {number}"))?;
    }
    imap.ok("SELECT INBOX")?;
    ensure!(imap.uids()?.len() == 3, "POP3 deleted before QUIT");
    again.ok("QUIT")?;
    imap.ok("NOOP")?;
    ensure!(imap.uids()? == [2], "QUIT did not delete what it should: {:?}", imap.uids()?);
    imap.ok("SELECT Drafts")?;
    ensure!(imap.uids()?.len() == 1, "POP3 touched another mailbox");
    Ok(())
}
