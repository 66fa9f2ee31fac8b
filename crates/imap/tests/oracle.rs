//! imap-codec as the oracle: it understands every response of the transcripts that it covers.

mod support;

use std::path::Path;

use imap_codec::decode::{Decoder as _, GreetingDecodeError};
use imap_codec::{GreetingCodec, ResponseCodec};
use proptest::prelude::*;
use support::unescaped;

/// What imap-codec does not know: extensions, and UTF-8 outside literals. A response with one of
/// these may be beyond it.
const NOT_COVERED: &[&str] = &[
    "* ESEARCH",
    "* VANISHED",
    "\"CHILDINFO\"",
    "\"OLDNAME\"",
    "MAILBOXID",
    "APPENDLIMIT",
    "EMAILID",
    "THREADID",
    "SAVEDATE",
    "PREVIEW",
    // With its envelope: of IMAP4rev2.
    "\"message\" \"global\" NIL NIL NIL \"7bit\" 22 (",
];

/// What one session was sent.
fn sessions(transcript: &str) -> Vec<Vec<u8>> {
    let mut sessions = vec![Vec::new()];
    for line in transcript.lines() {
        let is_new = ["store! login", "store! session"].iter().any(|new| line.starts_with(new));
        if is_new {
            sessions.push(Vec::new());
        }
        let Some(text) = line.strip_prefix("S: ").or((line == "S:").then_some("")) else {
            continue;
        };
        let session = sessions.last_mut().expect("there is one");
        match text.strip_suffix("(no line end)") {
            Some(text) => session.extend(unescaped(text)),
            None => {
                session.extend(unescaped(text));
                session.extend_from_slice(if text.ends_with("\\x0a") { b"" } else { b"\r\n" });
            }
        }
    }
    sessions
}

/// Where a response ends, literals counted.
fn end(octets: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let line = octets[at..].iter().position(|byte| *byte == b'\n').map(|end| at + end + 1);
        let Some(line_end) = line else { return octets.len() };
        let line = octets[at..line_end].strip_suffix(b"}\r\n");
        let len = line.and_then(|line| {
            let open = line.iter().rposition(|byte| *byte == b'{')?;
            std::str::from_utf8(&line[open + 1..]).ok()?.parse::<usize>().ok()
        });
        match len {
            Some(len) => at = (line_end + len).min(octets.len()),
            None => return line_end,
        }
    }
}

/// Responses it understood, and those it did not though it should.
fn read(mut octets: &[u8], is_covered: impl Fn(&str) -> bool) -> (usize, Vec<String>) {
    let (mut n_read, mut refused) = (0, Vec::new());
    if let Ok((rest, _)) = GreetingCodec::default().decode(octets) {
        octets = rest;
        n_read += 1;
    }
    while !octets.is_empty() {
        let response = &octets[..end(octets)];
        let shown = String::from_utf8_lossy(response).into_owned();
        match ResponseCodec::default().decode(response) {
            Ok((&[], _)) => n_read += 1,
            Ok((left, _)) => refused.push(format!("{} left of {shown}", left.len())),
            Err(_) if !is_covered(&shown) => {}
            Err(error) => refused.push(format!("{error:?}: {shown}")),
        }
        octets = &octets[response.len()..];
    }
    (n_read, refused)
}

#[test]
fn every_response_of_the_transcripts_is_understood() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("transcripts");
    let is_covered = |response: &str| {
        // The text of RFC 3516 4.3 has an origin octet that its grammar forgot.
        let is_partial_binary = response.contains("(BINARY[") && response.contains("]<");
        let is_beyond = NOT_COVERED.iter().any(|word| response.contains(word));
        response.is_ascii() && !is_partial_binary && !is_beyond
    };
    let (mut n_read, mut refused) = (0, Vec::new());
    for entry in std::fs::read_dir(here).expect("transcripts") {
        let path = entry.expect("transcripts").path();
        let transcript = std::fs::read_to_string(&path).expect("a transcript");
        for session in sessions(&transcript) {
            let (n, more) = read(&session, is_covered);
            n_read += n;
            refused.extend(more.iter().map(|more| format!("{}: {more}", path.display())));
        }
    }
    println!("{n_read} responses were understood");
    assert!(n_read > 1000, "the transcripts were not found");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// What it cannot understand is told apart from what it can.
#[test]
fn a_wrong_response_is_refused() {
    for wrong in ["* 1 FETCH (UID 1 FLAGS \\Seen)\r\n", "* LIST \"/\" () x\r\n", "a OK\r\n"] {
        assert_eq!(read(wrong.as_bytes(), |_| true).1.len(), 1, "{wrong}");
    }
    assert!(matches!(
        GreetingCodec::default().decode(b"* OH hello\r\n"),
        Err(GreetingDecodeError::Failed)
    ));
}

/// A line of a header, or of a body, as friend and foe write them.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "From: Ann <ann@example.test>",
        "From: \"Ann \\\"A\\\" B\" <ann@example.test>, bob",
        "From: <>",
        "From: a@b@c, <@x,@y:a@b>, (c) d@e (f",
        "To: Friends: a@x, b@y;, undisclosed:;",
        "To: =?utf-8?q?J=C3=B6rg?= <j@x>, \"=?x?\" <y>",
        "Cc: \"\\\\\" <\"odd local\\\"\"@x>",
        "Reply-To: ,,;:",
        "Sender:",
        "Subject: plain",
        "Subject: \"quoted\" \\ and {5}",
        "Subject: {3}",
        "Date: Mon, 5 Jan 2026 10:00:00 +0100",
        "Date: never\ttoday",
        "Message-ID: <1@x>",
        "In-Reply-To: <\"a\"@x> <b",
        "Content-Type: text/plain; charset=\"utf-8\"; x=\"a\\\"b\"",
        "Content-Type: multipart/mixed; boundary=b",
        "Content-Type: multipart/alternative; boundary=\"c c\"",
        "Content-Type: message/rfc822",
        "Content-Type: message/global",
        "Content-Type: message/delivery-status",
        "Content-Type: image/png; name*0*=utf-8''%e2%82; name*1*=%ac",
        "Content-Type: ; x",
        "Content-Type: multipart/digest; boundary=d",
        "Content-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: \"odd\"",
        "Content-Disposition: attachment; filename=\"a\\\"b.txt\"",
        "Content-Disposition: inline; ;=",
        "Content-Language: en, de,",
        "Content-ID: <x@y>",
        "Content-Description: \"described\" {1}",
        "Content-MD5: Q2hlY2s=",
        "Content-Location: http://x.test/\"a\"",
        "MIME-Version: 1.0",
        "",
        "--b",
        "--b--",
        "--c c",
        "--d",
        " folded",
        "text",
    ]);
    let known = known.prop_map(|line| line.as_bytes().to_vec());
    // NUL only comes in by literal8, and no literal may hold it.
    prop_oneof![9 => known, 1 => prop::collection::vec(1u8.., 0..30)]
}

const ITEMS: &[&str] = &[
    "FLAGS",
    "INTERNALDATE",
    "RFC822.SIZE",
    "ENVELOPE",
    "BODYSTRUCTURE",
    "BODY",
    "MODSEQ",
    "BODY.PEEK[HEADER.FIELDS (FROM {2+}\r\nTO)]",
    "BODY.PEEK[1.MIME]",
    "BODY.PEEK[TEXT]<0.100>",
    "BINARY.SIZE[1]",
    "BODY.PEEK[]",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_is_told_of_any_message_is_understood(
        lines in prop::collection::vec(line(), 0..24),
        items in prop::sample::subsequence(ITEMS, 1..=ITEMS.len()),
        crlf: bool,
    ) {
        let mut store = support::Store::new();
        let raw = lines.join(if crlf { &b"\r\n"[..] } else { b"\n" });
        if !raw.is_empty() {
            store.append("INBOX", &[raw], &mailbox::Flags::default());
        }
        let mut client = support::Client::new(support::config());
        let input = format!(
            "a LOGIN ann@example.test secret\r\nb SELECT INBOX\r\nc UID FETCH 1 ({})\r\n",
            items.join(" ")
        );
        let said = client.say(&mut store, input.as_bytes());
        let is_covered = |response: &str| !response.contains("MAILBOXID");
        let (n_read, refused) = read(&said, is_covered);
        prop_assert!(refused.is_empty(), "{}", refused.join("\n"));
        prop_assert!(n_read >= 9);
    }
}
