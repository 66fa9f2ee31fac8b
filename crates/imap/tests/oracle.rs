//! imap-codec as the oracle: it understands every response of the transcripts that it covers.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use imap_codec::decode::{Decoder as _, GreetingDecodeError};
use imap_codec::{GreetingCodec, ResponseCodec};
use proptest::prelude::*;
use support::unescaped;

/// What imap-codec does not know: extensions. A response of this kind with these words in it, literals
/// aside, may be beyond it.
const NOT_COVERED: &[(&str, &str)] = &[
    ("ESEARCH", "* ESEARCH "),
    ("LIST", " (\"CHILDINFO\" ("),
    ("LIST", " (\"OLDNAME\" ("),
    ("STATUS", "MAILBOXID ("),
    ("FETCH", "EMAILID ("),
    ("FETCH", "PREVIEW "),
    // With its envelope: of IMAP4rev2.
    ("FETCH", "(\"message\" \"global\" NIL NIL NIL \"7bit\" 22 ("),
    // RFC 3516 4.3: the origin octet that its grammar forgot.
    ("FETCH", "(BINARY[1]<"),
    ("FETCH", "(BINARY[2]<"),
    ("FETCH", "(BINARY[5]<"),
    // What COMPRESS made of it, where the client cannot take it apart any more.
    ("packed", ""),
];

/// So many of a kind are understood at least: what is not looked at is not found wrong.
const UNDERSTOOD_MIN: &[(&str, usize)] = &[
    ("+", 20),
    ("tagged", 500),
    ("OK", 100),
    ("BAD", 5),
    ("BYE", 10),
    ("CAPABILITY", 5),
    ("ENABLED", 5),
    ("EXISTS", 50),
    ("EXPUNGE", 10),
    ("FETCH", 150),
    ("FLAGS", 50),
    ("ID", 1),
    ("LIST", 50),
    ("LSUB", 5),
    ("NAMESPACE", 1),
    ("QUOTA", 3),
    ("QUOTAROOT", 3),
    ("RECENT", 50),
    ("SEARCH", 20),
    ("SORT", 5),
    ("STATUS", 20),
    ("THREAD", 5),
    ("VANISHED", 10),
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

/// Octets of the first line, and of the literal that it announces.
fn first_line(octets: &[u8]) -> (usize, Option<usize>) {
    let line_end = octets.iter().position(|byte| *byte == b'\n').map_or(octets.len(), |at| at + 1);
    let n_literal = octets[..line_end].strip_suffix(b"}\r\n").and_then(|line| {
        let open = line.iter().rposition(|byte| *byte == b'{')?;
        std::str::from_utf8(&line[open + 1..]).ok()?.parse().ok()
    });
    (line_end, n_literal)
}

/// Where a response ends, literals counted.
fn end(octets: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let (n_line, n_literal) = first_line(&octets[at..]);
        at += n_line;
        match n_literal {
            Some(n_literal) if at < octets.len() => at = (at + n_literal).min(octets.len()),
            _ => return at,
        }
    }
}

/// A response without what its literals hold.
fn without_literals(mut response: &[u8]) -> String {
    let mut text = Vec::new();
    while !response.is_empty() {
        let (n_line, n_literal) = first_line(response);
        text.extend_from_slice(&response[..n_line]);
        let behind = n_line + n_literal.unwrap_or(0);
        response = &response[behind.min(response.len())..];
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Of which kind a response is: its name, `+`, `tagged` or `packed`.
fn kind(response: &str) -> &str {
    if response.contains(char::REPLACEMENT_CHARACTER) && !response.starts_with("* ") {
        return "packed";
    }
    let mut words = response.trim_end().split(' ');
    match words.next() {
        Some("*") => {
            let word = words.next().unwrap_or_default();
            let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { words.next().unwrap_or_default() } else { word }
        }
        Some("+") => "+",
        _ => "tagged",
    }
}

/// What became of responses.
#[derive(Default)]
struct Tally {
    understood: BTreeMap<String, usize>,
    /// By what is said to be beyond it.
    beyond: BTreeMap<(&'static str, &'static str), usize>,
    /// It should have been.
    refused: Vec<String>,
}

impl Tally {
    fn read(&mut self, mut octets: &[u8]) {
        if let Ok((rest, _)) = GreetingCodec::default().decode(octets) {
            octets = rest;
        }
        while !octets.is_empty() {
            let response = &octets[..end(octets)];
            let shown = String::from_utf8_lossy(response).into_owned();
            let text = without_literals(response);
            let beyond = NOT_COVERED
                .iter()
                .find(|(of_kind, words)| kind(&text) == *of_kind && text.contains(words));
            match (ResponseCodec::default().decode(response), beyond) {
                (Ok((&[], _)), _) => {
                    *self.understood.entry(kind(&text).to_owned()).or_default() += 1;
                }
                (Ok((left, _)), _) => self.refused.push(format!("{} left of {shown}", left.len())),
                (Err(_), Some(words)) => *self.beyond.entry(*words).or_default() += 1,
                (Err(error), None) => self.refused.push(format!("{error:?}: {shown}")),
            }
            octets = &octets[response.len()..];
        }
    }

    fn n_understood(&self) -> usize {
        self.understood.values().sum()
    }
}

#[test]
fn every_response_of_the_transcripts_is_understood() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("transcripts");
    let mut tally = Tally::default();
    for entry in std::fs::read_dir(here).expect("transcripts") {
        let path = entry.expect("transcripts").path();
        let transcript = std::fs::read_to_string(&path).expect("a transcript");
        let n_refused = tally.refused.len();
        sessions(&transcript).iter().for_each(|session| tally.read(session));
        for refused in &mut tally.refused[n_refused..] {
            *refused = format!("{}: {refused}", path.display());
        }
    }
    println!("understood {:?}, beyond it {:?}", tally.understood, tally.beyond);
    assert!(tally.refused.is_empty(), "{}", tally.refused.join("\n"));
    let is_needless = |words: &&(_, _)| !tally.beyond.contains_key(words);
    let needless: Vec<_> = NOT_COVERED.iter().filter(is_needless).collect();
    assert!(needless.is_empty(), "not beyond it: {needless:?}");
    let understood = |kind: &str| tally.understood.get(kind).copied().unwrap_or(0);
    let too_few: Vec<_> =
        UNDERSTOOD_MIN.iter().filter(|(kind, least)| understood(kind) < *least).collect();
    assert!(too_few.is_empty(), "fewer were understood than {too_few:?}: {:?}", tally.understood);
}

/// What it cannot understand is told apart from what it can, whatever stands in its strings.
#[test]
fn a_wrong_response_is_refused() {
    for wrong in [
        "* 1 FETCH (UID 1 FLAGS \\Seen)\r\n",
        "* LIST \"/\" () x\r\n",
        "a OK\r\n",
        "* 1 FETCH (BODY[] {10}\r\nPREVIEW \r\n FLAGS \\Seen)\r\n",
        "* 1 VANISHED\r\n",
        "* SEARCH 1 EMAILID (M1)\r\n",
    ] {
        let mut tally = Tally::default();
        tally.read(wrong.as_bytes());
        assert_eq!(tally.refused.len(), 1, "{wrong}");
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
    prop_oneof![9 => known, 1 => prop::collection::vec(any::<u8>(), 0..30)]
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
        let mut tally = Tally::default();
        tally.read(&said);
        prop_assert!(tally.refused.is_empty(), "{}", tally.refused.join("\n"));
        prop_assert!(tally.beyond.is_empty(), "{:?}", tally.beyond);
        prop_assert!(tally.n_understood() >= 8);
    }
}
