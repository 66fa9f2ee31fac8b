//! Messages of odd shapes and with large metadata: none is refused for its shape, each comes back octet for
//! octet by every protocol, its structure is told within the limits, and nobody else waits for it.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::pop3::Pop3;

use crate::bad_input::{no_process_is_in_trouble, pids};
use crate::bytes::without_trace;
use crate::large::Other;

const USER: &str = "u0001@example.test";
const OTHER: &str = "u0002@example.test";
const PASSWORD: &str = "secret";
const HEAD: &str = "From: a@example.test\r\nTo: b@example.test\r\nSubject: odd\r\n";
/// Levels and parts that are told, and such as no message may have to be told more than as a text.
const DEPTH: usize = 90;
const DEPTH_BEYOND: usize = 10_000;
const N_PARTS: usize = 9_000;
const N_PARTS_BEYOND: usize = 20_000;
/// More than two chunks, which have 256 KiB.
const N_LINE_ENDS: usize = 300_000;
/// What a message's structure takes that is one text.
const TEXT_BYTES_MAX: usize = 400;

#[test]
fn messages_of_odd_shapes_come_back_and_stop_nobody() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    let other = Other::begin(Imap::login(&demo.at("f1", "imap")?, OTHER, PASSWORD)?)?;
    let before = pids(&demo)?;
    let shapes = shapes();
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    imap.ok("CREATE Appended")?;
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;
    for Shape { what, message, .. } in &shapes {
        let begun = Instant::now();
        let reply = lmtp.transaction(&[USER], message)?.remove(0);
        ensure!(reply.starts_with("250"), "{what}: {reply}");
        imap.append("Appended", message).context(*what)?;
        println!("{what}: {} octets taken in twice in {:?}", message.len(), begun.elapsed());
    }
    told_by_imap(&demo, &shapes, "INBOX")?;
    told_by_imap(&demo, &shapes, "Appended")?;
    told_by_pop3(&demo, &shapes)?;
    println!("another session waited {:?}", other.end()?);
    ensure!(before == pids(&demo)?, "a process ended");
    no_process_is_in_trouble(&demo)
}

/// A message and how its structure is told.
struct Shape {
    what: &'static str,
    message: Vec<u8>,
    told: Told,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// As one text, as it is or because it is beyond the limits.
    Text,
    /// With [`DEPTH`] levels.
    Deep,
    /// With [`N_PARTS`] parts.
    Wide,
    /// With large metadata.
    Large,
}

fn told_by_imap(demo: &Demo, shapes: &[Shape], mailbox: &str) -> Result<()> {
    let mut imap = Imap::login(&demo.at("f2", "imap")?, USER, PASSWORD)?;
    imap.ok(&format!("SELECT {mailbox}"))?;
    for (uid, Shape { what, message, told: want }) in (1..).zip(shapes) {
        let begun = Instant::now();
        let command = format!("UID FETCH {uid} (RFC822.SIZE ENVELOPE BODYSTRUCTURE)");
        let said = imap.ok(&command).with_context(|| format!("{what} in {mailbox}"))?;
        let told = &said[0].text;
        ensure!(told.contains("BODYSTRUCTURE ("), "{what}: {}", told.get(..200).unwrap_or(told));
        let (depth, n_octets) = (depth(told), told.len());
        println!("{what} in {mailbox}: {n_octets} octets, {depth} levels, {:?}", begun.elapsed());
        let as_wanted = match want {
            Told::Text => n_octets < TEXT_BYTES_MAX && told.contains("\"plain\""),
            Told::Deep => depth > DEPTH,
            Told::Wide => told.matches("\"plain\"").count() == N_PARTS,
            Told::Large => n_octets > 100_000,
        };
        ensure!(as_wanted, "{what} is told as {}", told.get(..1000).unwrap_or(told));
        let got = imap.fetch_body(uid)?;
        let body = if mailbox == "INBOX" { without_trace(&got)? } else { &got };
        ensure!(body == message, "{what} in {mailbox} comes back as {} octets", body.len());
        ensure!(told.contains(&format!("RFC822.SIZE {}", got.len())), "{what}: a wrong size");
        let halves = imap.ok(&format!("UID FETCH {uid} (BODY.PEEK[HEADER] BODY.PEEK[TEXT])"))?;
        let halves = halves.iter().flat_map(|line| &line.literals).flatten();
        ensure!(halves.eq(&got), "{what} in {mailbox}: header and text are not the message");
        for section in ["1", "1.1.1.1.MIME", "1.HEADER"] {
            imap.ok(&format!("UID FETCH {uid} (BODY.PEEK[{section}]<0.100>)"))?;
        }
    }
    for command in [
        "UID SORT (SUBJECT FROM TO DATE) UTF-8 ALL",
        "UID THREAD REFERENCES UTF-8 ALL",
        "UID SEARCH TO nobody@example.test",
        "UID SEARCH HEADER X-None none",
        "UID SEARCH TEXT needle",
    ] {
        let begun = Instant::now();
        imap.ok(command)?;
        println!("{command} in {mailbox}: {:?}", begun.elapsed());
    }
    imap.ok("LOGOUT").map(|_| ())
}

fn told_by_pop3(demo: &Demo, shapes: &[Shape]) -> Result<()> {
    let mut pop3 = Pop3::login(&demo.at("f2", "pop3")?, USER, PASSWORD)?;
    for (number, Shape { what, message, .. }) in (1..).zip(shapes) {
        let got = pop3.retr(number)?;
        ensure!(without_trace(&got)? == message, "{what} comes back as {} octets", got.len());
        pop3.lines(&format!("TOP {number} 1")).context(*what)?;
    }
    pop3.ok("QUIT").map(|_| ())
}

/// How deep its parentheses are.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    for octet in text.bytes() {
        match octet {
            b'(' => open += 1,
            b')' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// In CRLF form, with a line end at the end.
fn shapes() -> Vec<Shape> {
    let shape = |what, message, told| Shape { what, message, told };
    let mut all = vec![
        shape("multiparts inside each other", nested_multiparts(DEPTH), Told::Deep),
        shape("more multiparts inside each other", nested_multiparts(DEPTH_BEYOND), Told::Text),
        shape("messages inside each other", nested_messages(DEPTH), Told::Deep),
        shape("more messages inside each other", nested_messages(DEPTH_BEYOND), Told::Text),
        shape("many parts", parts(N_PARTS), Told::Wide),
        shape("too many parts", parts(N_PARTS_BEYOND), Told::Text),
        shape("no header field", b"\r\nonly text\r\n".to_vec(), Told::Text),
        shape("a header without end", many(1000, |n| format!("X-{n}: {n}\r\n")).into(), Told::Text),
        // Wherever a message is cut, one of the two is cut between CR and LF.
        shape("line ends", line_ends(""), Told::Text),
        shape("line ends, one octet later", line_ends("x"), Told::Text),
    ];
    all.extend(large_fields());
    all
}

/// Messages of which one field, or the whole header, is out of proportion.
fn large_fields() -> Vec<Shape> {
    let addresses = many(20_000, |n| format!(",\r\n u{n}@example.test"));
    let references = many(50_000, |n| format!("\r\n <{n}@example.test>"));
    let parameters = many(10_000, |n| format!(";\r\n p{n}={n}"));
    let lines = many(100_000, |n| format!("X-{n}: value {n}\r\n"));
    let words = "=?utf-8?q?=C3=BC?=\r\n ".repeat(20_000);
    let (open, close) = ("(".repeat(DEPTH_BEYOND), ")".repeat(DEPTH_BEYOND));
    let (group, end) = ("g:".repeat(DEPTH_BEYOND), ";".repeat(DEPTH_BEYOND));
    let boundary = format!("Content-Type: multipart/mixed; boundary={}", "b".repeat(10_000));
    let fields = [
        ("a field of 500 kB", format!("X-Long: {}", "x".repeat(500_000)), Told::Text),
        ("a subject of 500 kB", format!("Subject: {}", "s ".repeat(250_000)), Told::Text),
        ("a field folded 50,000 times", format!("X-F: a{}", "\r\n  b".repeat(50_000)), Told::Text),
        ("100,000 header lines", lines.trim_end().to_owned(), Told::Text),
        ("20,000 addresses", format!("Cc: a@b{addresses}"), Told::Large),
        ("50,000 references", format!("References:{references}"), Told::Text),
        ("10,000 parameters", format!("Content-Type: text/plain{parameters}"), Told::Large),
        ("comments inside each other", format!("Cc: {open}a@b{close}"), Told::Text),
        ("groups inside each other", format!("Bcc: {group}a@b{end}"), Told::Text),
        ("encoded words", format!("Comments: {}", words.trim_end()), Told::Text),
        ("a boundary of 10,000 octets", boundary, Told::Text),
    ];
    let shape = |(what, field, told)| {
        let message = format!("{HEAD}{field}\r\n\r\ntext\r\n").into_bytes();
        Shape { what, message, told }
    };
    fields.into_iter().map(shape).collect()
}

fn line_ends(before: &str) -> Vec<u8> {
    format!("{HEAD}\r\n{before}{}", "\r\n".repeat(N_LINE_ENDS)).into_bytes()
}

fn many(n: usize, one: impl Fn(usize) -> String) -> String {
    (0..n).map(one).collect()
}

fn nested_multiparts(depth: usize) -> Vec<u8> {
    let mut message = HEAD.to_owned();
    for n in 0..depth {
        // Writing to a String does not fail.
        let _ = write!(message, "Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n");
    }
    message += "\r\ninnermost\r\n";
    for n in (0..depth).rev() {
        let _ = write!(message, "--b{n}--\r\n");
    }
    message.into_bytes()
}

fn nested_messages(depth: usize) -> Vec<u8> {
    let one = "From: a@example.test\r\nContent-Type: message/rfc822\r\n\r\n";
    format!("{}Subject: innermost\r\n\r\ntext\r\n", one.repeat(depth)).into_bytes()
}

fn parts(n_parts: usize) -> Vec<u8> {
    let mut message = format!("{HEAD}Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    for n in 0..n_parts {
        let _ = write!(message, "--b\r\nContent-Type: text/plain; name=p{n}\r\n\r\npart {n}\r\n");
    }
    (message + "--b--\r\n").into_bytes()
}
