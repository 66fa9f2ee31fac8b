//! mail-parser as the oracle: on well-formed messages both find the same parts at the same places.

mod support;

use mail_parser::{Message, MessageParser, MessagePart, MimeHeaders, PartType};
use mime::{Part, PartKind, TransferDecoder, scan};
use proptest::prelude::*;
use support::{OWN_MIN, check, config, messages};

/// A part in one line: depth, type, places. Equal lines are equal parts.
type Line = (usize, String, [u64; 3]);

fn our_lines(part: &Part, depth: usize, lines: &mut Vec<Line>) {
    let content_type = format!("{}/{}", part.content_type.kind, part.content_type.subtype);
    lines.push((depth, content_type, [part.header.start, part.body.start, part.body.end]));
    match &part.kind {
        PartKind::Leaf => {}
        PartKind::Multipart(children) => {
            children.iter().for_each(|child| our_lines(child, depth + 1, lines));
        }
        PartKind::Message { part, .. } => our_lines(part, depth + 1, lines),
    }
}

fn their_lines(message: &Message, id: u32, is_digest: bool, depth: usize, lines: &mut Vec<Line>) {
    let part: &MessagePart = &message.parts[id as usize];
    let default = if is_digest { "message/rfc822" } else { "text/plain" };
    let content_type = part
        .content_type()
        .and_then(|found| Some(format!("{}/{}", found.ctype(), found.subtype()?)))
        .unwrap_or_else(|| default.into());
    let is_digest = content_type == "multipart/digest";
    let places = [part.offset_header, part.offset_body, part.offset_end].map(u64::from);
    lines.push((depth, content_type, places));
    match &part.body {
        PartType::Multipart(children) => {
            for child in children {
                their_lines(message, *child, is_digest, depth + 1, lines);
            }
        }
        PartType::Message(inner) => {
            let start = lines.len();
            their_lines(inner, 0, false, depth + 1, lines);
            // mail-parser ends a nested message's root with the whole input: it ends with its part.
            lines[start].2[2] = u64::from(part.offset_end);
        }
        _ => {}
    }
}

fn both(raw: &[u8]) -> Option<(Vec<Line>, Vec<Line>)> {
    let parsed = MessageParser::new().parse(raw)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    our_lines(&scan(raw).structure, 0, &mut ours);
    their_lines(&parsed, 0, false, 0, &mut theirs);
    Some((ours, theirs))
}

#[test]
fn structure_mostly_agrees() {
    let (mut n_agree, mut n_all) = (0, 0);
    for (path, raw) in messages() {
        let Some((ours, theirs)) = both(&raw) else { continue };
        n_all += 1;
        n_agree += usize::from(ours == theirs);
        if ours != theirs {
            println!("{}: ours {ours:?}, theirs {theirs:?}", path.display());
        }
    }
    println!("{n_agree} of {n_all} agree");
    // The rest are malformed: no delimiter, two types, an end without dashes.
    assert!(n_all >= OWN_MIN && n_agree * 10 >= n_all * 9);
}

/// A well-formed part, before its boundaries are chosen.
#[derive(Clone, Debug)]
enum Plan {
    Text(String),
    Encoded(Vec<u8>),
    Multipart { subtype: &'static str, preamble: String, children: Vec<Plan>, epilogue: String },
    Message(Box<Plan>),
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec("[ -~]{0,40}", 0..5)
        .prop_map(|lines| lines.join("\r\n").replace("--", "__"))
}

fn plan() -> impl Strategy<Value = Plan> {
    let leaf = prop_oneof![
        text().prop_map(Plan::Text),
        prop::collection::vec(any::<u8>(), 1..200).prop_map(Plan::Encoded),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        let subtype = prop::sample::select(vec!["mixed", "alternative", "related"]);
        prop_oneof![
            3 => (subtype, text(), prop::collection::vec(inner.clone(), 1..5), text()).prop_map(
                |(subtype, preamble, children, epilogue)| {
                    Plan::Multipart { subtype, preamble, children, epilogue }
                }
            ),
            // mail-parser loses its place in a message that is nothing but a message.
            1 => inner.prop_map(|inner| match inner {
                Plan::Message(_) => inner,
                _ => Plan::Message(Box::new(inner)),
            }),
        ]
    })
}

fn render(plan: &Plan, n_boundaries: &mut usize, raw: &mut String) {
    match plan {
        Plan::Text(text) => {
            raw.push_str("Content-Type: text/plain\r\n\r\n");
            raw.push_str(text);
        }
        Plan::Encoded(octets) => {
            raw.push_str("Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\n");
            raw.push_str(&base64(octets));
        }
        Plan::Multipart { subtype, preamble, children, epilogue } => {
            *n_boundaries += 1;
            // No boundary begins with another one: mail-parser compares only their beginning.
            let boundary = format!("=_{n_boundaries:04}_=");
            raw.push_str("Content-Type: multipart/");
            raw.push_str(&format!("{subtype}; boundary=\"{boundary}\"\r\n\r\n{preamble}"));
            for child in children {
                raw.push_str(&format!("\r\n--{boundary}\r\n"));
                render(child, n_boundaries, raw);
            }
            raw.push_str(&format!("\r\n--{boundary}--\r\n{epilogue}"));
        }
        Plan::Message(inner) => {
            raw.push_str("Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n");
            render(inner, n_boundaries, raw);
        }
    }
}

fn base64(octets: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in octets.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet))
            << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = alphabet[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at > group.len() { '=' } else { char::from(digit) });
        }
        if text.len() % 78 == 76 {
            text.push_str("\r\n");
        }
    }
    text
}

/// The octets of all leaves that are not text, in order.
fn planned_octets<'a>(plan: &'a Plan, all: &mut Vec<&'a [u8]>) {
    match plan {
        Plan::Text(_) => {}
        Plan::Encoded(octets) => all.push(octets),
        Plan::Multipart { children, .. } => {
            children.iter().for_each(|child| planned_octets(child, all));
        }
        Plan::Message(inner) => planned_octets(inner, all),
    }
}

fn found_octets(raw: &[u8], root: &Part) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    root.walk(&mut |part| {
        if part.content_type.is("image", "x") {
            let encoding = part.encoding.as_deref().unwrap_or_default();
            let mut decoder = TransferDecoder::new(encoding).expect("base64 is known");
            let mut octets = Vec::new();
            for piece in raw[part.body.start as usize..part.body.end as usize].chunks(7) {
                decoder.feed(piece, &mut octets);
            }
            decoder.finish(&mut octets);
            all.push(octets);
        }
    });
    all
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn well_formed_messages_agree(plan in plan()) {
        let mut raw = String::from("Subject: outer\r\nMIME-Version: 1.0\r\n");
        render(&plan, &mut 0, &mut raw);
        let metadata = scan(raw.as_bytes());
        check(raw.as_bytes(), &metadata);
        let mut planned = Vec::new();
        planned_octets(&plan, &mut planned);
        prop_assert_eq!(found_octets(raw.as_bytes(), &metadata.structure), planned);
        let (ours, theirs) = both(raw.as_bytes()).expect("mail-parser reads it");
        prop_assert_eq!(ours, theirs, "{}", raw);
    }
}
