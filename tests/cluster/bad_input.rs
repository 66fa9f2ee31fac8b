//! Input that no client should send, at the real ports: what is wrong is said in the protocol's words, the
//! connection goes on, and so does everybody else's session.

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::line::Line;
use tests::lmtp::Lmtp;

use crate::large::Other;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
const OTHER: &str = "u0002@example.test";
/// More than any line may have, in any protocol.
const LONG: usize = 200_000;
/// More than a message may have: 50 MiB.
const HUGE: usize = 53_000_000;
const NEST: usize = 10_000;

/// What is wrong, the octets of it, and how the line begins that answers them.
type Case = (&'static str, Vec<u8>, &'static str);

#[test]
fn bad_input_is_refused_and_the_connection_goes_on() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    let other = Other::begin(Imap::login(&demo.at("f1", "imap")?, OTHER, PASSWORD)?)?;
    let before = pids(&demo)?;
    imap_before_login(&demo)?;
    imap_after_login(&demo)?;
    pop3(&demo)?;
    lmtp_commands(&demo)?;
    lmtp_messages(&demo)?;
    lmtp_ends(&demo)?;
    let longest = other.end()?;
    println!("another session waited {longest:?}");
    ensure!(before == pids(&demo)?, "a process ended");
    no_process_is_in_trouble(&demo)
}

/// One connection: each case, and then a command that must work.
fn play(line: &mut Line, cases: Vec<Case>, probe: &str, fine: &str) -> Result<()> {
    for (what, octets, want) in cases {
        line.send(&octets).context(what)?;
        let said = answer(line).context(what)?;
        println!("{what}: {said}");
        ensure!(said.starts_with(want), "{what}: {said}");
        line.send(format!("{probe}\r\n").as_bytes()).context(what)?;
        let said = answer(line).context(what)?;
        ensure!(said.starts_with(fine), "after {what}: {said}");
    }
    Ok(())
}

/// The next line that is no untagged one.
fn answer(line: &mut Line) -> Result<String> {
    loop {
        let said = String::from_utf8_lossy(&line.line()?).into_owned();
        if !said.starts_with("* ") || said.starts_with("* BYE") || said.starts_with("* BAD") {
            return Ok(said);
        }
    }
}

fn imap_before_login(demo: &Demo) -> Result<()> {
    let mut line = Line::connect(&demo.at("f1", "imap")?)?;
    line.line()?;
    let cases: Vec<Case> = vec![
        ("a long line", text(&["a NOOP ", &"x".repeat(50_000)]), "a BAD [TOOBIG]"),
        ("a very long line", text(&["a ", &"x".repeat(LONG)]), "a BAD [TOOBIG]"),
        ("a literal", text(&["a LOGIN {50000}"]), "a NO [TOOBIG]"),
        (
            "a literal that comes",
            text(&["a LOGIN {50000+}\r\n", &"x".repeat(50_000)]),
            "a NO [TOOBIG]",
        ),
        ("a size beyond numbers", text(&["a LOGIN {99999999999}"]), "a NO [TOOBIG]"),
        ("NUL", text(&["a LOGIN \0 x"]), "a BAD"),
        ("NUL in a literal", text(&["a LOGIN {1+}\r\n\0 x"]), "a BAD"),
        ("a bare LF ends a line", b"a NOOP\n".to_vec(), "a OK"),
        ("octets beyond ASCII", b"\xff\xfe\xfd\r\n".to_vec(), "* BAD"),
        (
            "a long AUTHENTICATE",
            text(&["a AUTHENTICATE PLAIN ", &"A".repeat(50_000)]),
            "a BAD [TOOBIG]",
        ),
    ];
    play(&mut line, cases, "p NOOP", "p OK")?;
    line.send(b"a AUTHENTICATE PLAIN\r\n")?;
    ensure!(answer(&mut line)?.starts_with('+'), "no challenge");
    let cases: Vec<Case> = vec![("a long response", text(&[&"A".repeat(LONG)]), "a BAD")];
    play(&mut line, cases, "p NOOP", "p OK")?;
    // A size that no number holds: where the command ends cannot be known.
    line.send(b"a LOGIN {99999999999999999999999}\r\n")?;
    let said = answer(&mut line)?;
    ensure!(said.starts_with("* BYE") || said.starts_with("a BAD"), "{said}");
    Ok(())
}

fn imap_after_login(demo: &Demo) -> Result<()> {
    let mut line = Line::connect(&demo.at("f1", "imap")?)?;
    line.line()?;
    line.send(format!("l LOGIN {USER} {PASSWORD}\r\ns SELECT INBOX\r\n").as_bytes())?;
    while !answer(&mut line)?.starts_with("s OK") {}
    let (open, close) = ("(".repeat(NEST), ")".repeat(NEST));
    let huge = "x".repeat(HUGE);
    let cases: Vec<Case> = vec![
        ("a long line", text(&["a SEARCH ", &"ALL ".repeat(LONG / 4)]), "a BAD [TOOBIG]"),
        ("a huge message", text(&["a APPEND INBOX {53000000}"]), "a NO [TOOBIG]"),
        (
            "a huge message that comes",
            text(&["a APPEND INBOX {53000000+}\r\n", &huge]),
            "a NO [TOOBIG]",
        ),
        ("a huge literal", text(&["a SEARCH SUBJECT {53000000}"]), "a NO [TOOBIG]"),
        (
            "a huge literal that comes",
            text(&["a SEARCH SUBJECT {53000000+}\r\n", &huge]),
            "a NO [TOOBIG]",
        ),
        ("NUL", text(&["a SEARCH SUBJECT \0"]), "a BAD"),
        ("NUL in a message", text(&["a APPEND INBOX {3+}\r\na\0b"]), "a NO"),
        ("nested parentheses", text(&["a SEARCH ", &open, "ALL", &close]), "a BAD"),
        ("parentheses without end", text(&["a SEARCH ", &open]), "a BAD"),
        ("nested NOT", text(&["a SEARCH ", &"NOT ".repeat(NEST), "ALL"]), "a BAD"),
        ("many ORs", text(&["a SEARCH ", &"OR ALL ".repeat(NEST / 2), "ALL"]), "a NO [LIMIT]"),
        ("nested sort keys", text(&["a SORT ", &open, "DATE", &close, " UTF-8 ALL"]), "a BAD"),
        ("nested fetch items", text(&["a FETCH 1 ", &open, "FLAGS", &close]), "a BAD"),
        ("nested sections", text(&["a UID FETCH 1 BODY[", &"1.".repeat(NEST), "TEXT]"]), "a OK"),
        ("nested LIST", text(&["a LIST ", &open, "\"\" *", &close]), "a BAD"),
        ("a deep mailbox", text(&["a CREATE ", &"a/".repeat(NEST)]), "a NO"),
        ("many stars", text(&["a LIST \"\" ", &"*%".repeat(NEST)]), "a OK"),
        ("a long set", text(&["a UID FETCH ", &"1,".repeat(NEST), "1 FLAGS"]), "a OK"),
        ("a bare LF ends a line", b"a NOOP\n".to_vec(), "a OK"),
    ];
    play(&mut line, cases, "p NOOP", "p OK")
}

fn pop3(demo: &Demo) -> Result<()> {
    let mut line = Line::connect(&demo.at("f2", "pop3")?)?;
    line.line()?;
    let cases: Vec<Case> = vec![
        ("a long line", text(&["NOOP ", &"x".repeat(LONG)]), "-ERR Line too long"),
        ("NUL", text(&["USER a\0b"]), "-ERR Wrong parameters"),
        ("a bare LF ends a line", b"NOOP\n".to_vec(), "-ERR Log in first"),
        ("a long response", text(&["AUTH PLAIN ", &"A".repeat(LONG)]), "-ERR Line too long"),
    ];
    play(&mut line, cases, "NOOP", "-ERR Log in first")?;
    let mut line = Line::connect(&demo.at("f2", "pop3")?)?;
    line.line()?;
    line.send(format!("USER {USER}\r\nPASS {PASSWORD}\r\n").as_bytes())?;
    for _ in 0..2 {
        let said = answer(&mut line)?;
        ensure!(said.starts_with("+OK"), "login: {said}");
    }
    let cases: Vec<Case> = vec![
        ("a long line", text(&["RETR ", &"1".repeat(LONG)]), "-ERR Line too long"),
        ("a number beyond numbers", text(&["RETR 99999999999999999999"]), "-ERR"),
        ("NUL", text(&["RETR 1\0"]), "-ERR"),
        ("a negative number", text(&["TOP -1 -1"]), "-ERR"),
        ("octets beyond ASCII", b"\xff\xfe\r\n".to_vec(), "-ERR"),
    ];
    play(&mut line, cases, "NOOP", "+OK")
}

fn lmtp_commands(demo: &Demo) -> Result<()> {
    let mut line = Line::connect(&demo.at("f1", "lmtp")?)?;
    line.line()?;
    let long = "x".repeat(LONG);
    let cases: Vec<Case> = vec![
        ("a long line", text(&["NOOP ", &long]), "500 5.5.2"),
        ("NUL", text(&["NOOP \0"]), "500 5.5.2"),
        ("a bare LF ends a line", b"NOOP\n".to_vec(), "250"),
        ("a long name", text(&["LHLO ", &long]), "500 5.5.2"),
    ];
    play(&mut line, cases, "NOOP", "250")
}

fn lmtp_messages(demo: &Demo) -> Result<()> {
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;
    let head = "Subject: bad\r\n\r\n";
    let bare = format!("{head}a\nb\r\n");
    ensure!(lmtp.transaction(&[USER], bare.as_bytes())?[0].starts_with("550 5.6.0"), "bare LF");
    let huge = format!("{head}{}", format!("{}\r\n", "x".repeat(998)).repeat(HUGE / 1000));
    let said = lmtp.transaction(&[USER], huge.as_bytes())?.remove(0);
    ensure!(said.starts_with("552 5.3.4"), "a huge message: {said}");
    lmtp.command(&format!("MAIL FROM:<> SIZE={HUGE}"), "552 5.3.4")?;
    let mut want = Vec::new();
    for body in [
        format!("{}\r\n", "x".repeat(2_000_000)),
        "a\0b\r\nc\rd\r.\r\r\n".into(),
        "\r\n.\r\n..\r\n".into(),
    ] {
        let message = format!("{head}{body}");
        let said = lmtp.transaction(&[USER], message.as_bytes())?.remove(0);
        ensure!(said.starts_with("250"), "{} octets: {said}", message.len());
        want.push(message);
    }
    let mut imap = Imap::login(&demo.at("f2", "imap")?, USER, PASSWORD)?;
    imap.ok("SELECT INBOX")?;
    let uids = imap.uids()?;
    ensure!(uids.len() == want.len(), "{uids:?} of {} messages", want.len());
    for (uid, want) in uids.into_iter().zip(want) {
        let got = imap.fetch_body(uid)?;
        let body = crate::bytes::without_trace(&got)?;
        let want = crate::bytes::as_literal(want.as_bytes());
        ensure!(body == want, "UID {uid}: {} octets differ", body.len());
    }
    Ok(())
}

/// What only looks like the end of a message ends none: no command is smuggled in behind it.
fn lmtp_ends(demo: &Demo) -> Result<()> {
    let mut line = Line::connect(&demo.at("f1", "lmtp")?)?;
    line.line()?;
    let refused = ["\n.\n", "\n.\r\n", "\r\n.\n"].map(|end| (end, "550 5.6.0"));
    // A CR alone ends no line, and is kept.
    let kept = ["\r.\r", "\r\n.\r"].map(|end| (end, "250"));
    for (end, want) in refused.into_iter().chain(kept) {
        line.send(b"RSET\r\nLHLO tests.example.test\r\nMAIL FROM:<>\r\n")?;
        line.send(format!("RCPT TO:<{USER}>\r\nDATA\r\n").as_bytes())?;
        while !answer(&mut line)?.starts_with("354") {}
        line.send(format!("Subject: one\r\n\r\none{end}NOOP\r\n.\r\n").as_bytes())?;
        let said = answer(&mut line)?;
        ensure!(said.starts_with(want), "{end:?}: {said}");
        line.send(b"VRFY\r\n")?;
        let said = answer(&mut line)?;
        ensure!(!said.starts_with("250"), "{end:?} has let a command through: {said}");
    }
    Ok(())
}

/// Pieces of a command, and the end of its line.
fn text(pieces: &[&str]) -> Vec<u8> {
    [pieces.concat().as_bytes(), b"\r\n"].concat()
}

/// The processes by name, with the number each had when it was looked at.
pub(crate) fn pids(demo: &Demo) -> Result<Vec<(String, u64)>> {
    let cluster = demo.cluster()?;
    let all = cluster["processes"].as_array().context("no processes")?;
    let one = |process: &serde_json::Value| {
        let pid = process["pid"].as_u64().context("no pid")?;
        ensure!(std::fs::exists(format!("/proc/{pid}/fd"))?, "{process} is gone");
        Ok((process["name"].to_string(), pid))
    };
    all.iter().map(one).collect()
}

/// No process said that a person must come, and none panicked.
pub(crate) fn no_process_is_in_trouble(demo: &Demo) -> Result<()> {
    for name in ["n1", "n2", "n3", "f1", "f2"] {
        let log = std::fs::read_to_string(demo.dir().join(name).join("log"))?;
        let bad = log.lines().find(|line| line.contains("ERROR") || line.contains("panicked"));
        ensure!(bad.is_none(), "{name}: {bad:?}");
    }
    Ok(())
}
