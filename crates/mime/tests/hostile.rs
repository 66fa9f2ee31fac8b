//! Messages made to hurt: they are shown as text or as what they are, soon and in little memory.

mod support;

use std::time::{Duration, Instant};

use mime::limits::{DEPTH_MAX, FIELD_BYTES_MAX, HEADER_BYTES_MAX, ITEMS_MAX, PARTS_MAX};
use mime::{CharsetDecoder, Metadata, PartKind, scan};
use support::{check, scan_in_cuts};

/// Far more than the unoptimised test build needs, far less than anything quadratic takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Enough for some hundred calls within each other, far too little for one for each few octets.
const SMALL_STACK_BYTES: usize = 256 * 1024;

fn scan_soon(raw: &[u8]) -> Metadata {
    let start = Instant::now();
    let metadata = scan_in_cuts(raw, &[65_536]);
    let took = start.elapsed();
    assert!(took < PATIENCE, "{} octets took {took:?}", raw.len());
    check(raw, &metadata);
    metadata
}

fn assert_opaque(metadata: &Metadata) {
    assert_eq!(metadata.structure.kind, PartKind::Leaf);
    assert!(metadata.structure.content_type.is("text", "plain"));
    assert!(!metadata.has_attachment);
    assert_eq!(metadata.preview, None);
}

/// A multipart in a multipart in a multipart.
fn nested(depth: usize) -> Vec<u8> {
    let mut raw = String::from("Subject: deep\r\n");
    for level in 0..depth {
        raw.push_str(&format!(
            "Content-Type: multipart/mixed; boundary={level}x\r\n\r\n--{level}x\r\n"
        ));
    }
    raw.push_str("\r\ntext\r\n");
    raw.into_bytes()
}

#[test]
fn nesting_within_the_limit_is_shown_and_beyond_is_opaque() {
    let metadata = scan_soon(&nested(DEPTH_MAX - 1));
    assert!(metadata.structure.find(&[1; DEPTH_MAX - 1]).is_some());
    let stored = minicbor::to_vec(&metadata).expect("encode");
    assert_eq!(minicbor::decode::<Metadata>(&stored).expect("decode"), metadata);
    assert_eq!(metadata.with_prefix(b"X: 1\r\n").size, metadata.size + 6);
    assert!(!format!("{metadata:#?}").is_empty());
    let metadata = scan_soon(&nested(DEPTH_MAX));
    assert_opaque(&metadata);
    assert_eq!(metadata.envelope.subject.as_deref(), Some(&b"deep"[..]));
    assert_opaque(&scan_soon(&nested(20_000)));
}

#[test]
fn messages_in_messages_without_end_are_opaque() {
    assert_opaque(&scan_soon(&b"Content-Type: message/rfc822\r\n\r\n".repeat(200_000)));
}

fn with_parts(n_parts: usize) -> Vec<u8> {
    let mut raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    raw.extend(b"--b\r\n\r\nx\r\n".repeat(n_parts));
    raw.extend(b"--b--\r\n");
    raw
}

#[test]
fn parts_within_the_limit_are_shown_and_beyond_are_opaque() {
    let metadata = scan_soon(&with_parts(PARTS_MAX - 1));
    assert!(metadata.structure.find(&[PARTS_MAX as u32 - 1]).is_some());
    let stored = minicbor::to_vec(&metadata).expect("encode");
    assert!(stored.len() < 64 * PARTS_MAX, "{} octets for small parts", stored.len());
    assert_opaque(&scan_soon(&with_parts(PARTS_MAX)));
    assert_opaque(&scan_soon(&with_parts(1_000_000)));
}

/// Nothing that grows with the number of lines is done for each of them: anything quadratic in half a
/// million takes hours.
#[test]
fn many_header_lines_scan_soon() {
    let mut raw = b"Subject: many\r\n".to_vec();
    raw.extend(b"X-A: 1\r\n".repeat(500_000));
    raw.extend(b"\r\nbody");
    let metadata = scan_soon(&raw);
    assert_eq!(metadata.preview.as_deref(), Some("body"));
    assert_eq!(mime::header_fields(&raw).count(), 500_001);
}

#[test]
fn header_beyond_the_limit_is_opaque_also_when_a_prefix_makes_it_so() {
    let line = [&b"X-A: "[..], &[b'a'; 1017], b"\r\n"].concat();
    let type_line = b"Content-Type: multipart/mixed; boundary=b\r\n";
    let n_lines = (HEADER_BYTES_MAX as usize - 400) / line.len();
    let head = [&type_line[..], &line.repeat(n_lines)].concat();
    let raw = [&head[..], b"\r\n--b\r\nX: 1\r\n\r\nx\r\n--b--\r\n"].concat();
    let metadata = scan_soon(&raw);
    assert!(matches!(metadata.structure.kind, PartKind::Multipart(_)));
    for n_prefix in [HEADER_BYTES_MAX as usize - head.len() - 12, 500, 2000] {
        for n_prefix in n_prefix - 6..n_prefix + 6 {
            let prefix = [&b"Received: "[..], &vec![b'r'; n_prefix - 12], b"\r\n"].concat();
            assert_eq!(metadata.with_prefix(&prefix), scan(&[&prefix[..], &raw].concat()));
        }
    }
    let beyond = [&head[..], &line.repeat(10), b"\r\nbody"].concat();
    assert_opaque(&scan_soon(&beyond));
    let inner = [&type_line[..], b"\r\n--b\r\n", &line.repeat(n_lines + 10), b"\r\nx\r\n--b--"];
    assert_opaque(&scan_soon(&inner.concat()));
}

#[test]
fn one_endless_header_line_keeps_only_its_start() {
    let raw = [&b"Subject: "[..], &b"word ".repeat(1_000_000)].concat();
    for cuts in [&[1 << 30][..], &[65_536], &[999_999]] {
        let metadata = scan_in_cuts(&raw, cuts);
        let subject = metadata.envelope.subject.as_ref().expect("subject");
        assert!(subject.len() <= FIELD_BYTES_MAX);
        assert_eq!(metadata, scan(&raw));
    }
    let folded = [&b"Subject: a\r\n"[..], &b" word\r\n".repeat(300_000), b"\r\nbody"].concat();
    assert_eq!(scan_soon(&folded).preview.as_deref(), Some("body"));
}

#[test]
fn lines_of_any_length_do_not_see_cuts() {
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
    let long = "w".repeat(FIELD_BYTES_MAX + 70_000);
    let blank = " ".repeat(FIELD_BYTES_MAX + 70_000);
    for middle in [
        format!("Content-Id: {long}\r\nX: 1"),
        format!("Content-Id: {long}"),
        format!("X: 1\r\n--b{blank}"),
        format!("X: 1\r\n\r\nbody\r\n--b{blank}"),
        format!("X: 1\r\n\r\nbody\r\n--b{}", &blank[..1000]),
        format!("X: 1\r\n\r\nbody\r\n--b{}", &blank[..1021]),
        format!("X: 1\r\n\r\nbody\r\n--b{}", &blank[..1022]),
    ] {
        for end in ["", "\n", "\r\n", "\r\n\r\nbody\r\n--b--\r\n"] {
            let raw = format!("{head}{middle}{end}");
            let metadata = scan_soon(raw.as_bytes());
            for cuts in [&[1 << 30][..], &[977], &[1, 60_000]] {
                assert_eq!(metadata, scan_in_cuts(raw.as_bytes(), cuts), "{end:?} {cuts:?}");
            }
        }
    }
}

#[test]
fn lists_without_end_are_cut() {
    let fields = format!(
        "To: {}\r\nContent-Type: a/b{}\r\n\r\n",
        "a,".repeat(120_000),
        ";a=b".repeat(60_000)
    );
    let metadata = scan_soon(fields.as_bytes());
    let n_items = metadata.envelope.to.len() + metadata.structure.content_type.parameters.len();
    assert!(n_items <= ITEMS_MAX, "{n_items}");
    let nested = format!("To: {}\r\nFrom: {}\r\n\r\n", "(".repeat(200_000), "<\"".repeat(100_000));
    scan_soon(nested.as_bytes());
    let words =
        format!("Subject: {}\r\nFrom: {}\r\n\r\n", "=?a?q?x".repeat(30_000), "[a]".repeat(80_000));
    scan_soon(words.as_bytes());
    let blobs = format!("Subject: {}x\r\n\r\n", "[a]".repeat(80_000));
    scan_soon(blobs.as_bytes());
    mime::decode_header(words.as_bytes());
}

#[test]
fn parameters_without_end_hide_no_sender() {
    let content_type = format!("Content-Type: text/plain{}", ";a=b".repeat(60_000));
    let raw = format!("{content_type}\r\nFrom: ann@x\r\nTo: bob@x\r\n\r\n");
    let envelope = scan_soon(raw.as_bytes()).envelope;
    assert_eq!((envelope.from.len(), envelope.sender.len(), envelope.to.len()), (1, 1, 1));
}

#[test]
fn addresses_without_end_hide_no_part() {
    let many = "a@b.c, ".repeat(20_000);
    let raw = format!(
        "From: ann@x\r\nTo: {many}d@x\r\nCc: {many}d@x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n"
    );
    let metadata = scan_soon(raw.as_bytes());
    assert!(metadata.structure.find(&[2]).is_some(), "{:?}", metadata.structure);
}

#[test]
fn boundary_lookalikes_are_linear() {
    // Deep multiparts whose boundaries share a long beginning, then lines that nearly match all.
    let mut raw = Vec::new();
    let stem = "b".repeat(60);
    for level in 0..DEPTH_MAX - 1 {
        raw.extend(
            format!(
                "Content-Type: multipart/mixed; boundary={stem}{level}\r\n\r\n--{stem}{level}\r\n"
            )
            .into_bytes(),
        );
    }
    raw.extend(b"\r\n");
    raw.extend(format!("--{stem}x\r\n").repeat(10_000).into_bytes());
    let metadata = scan_soon(&raw);
    assert_eq!(metadata.structure.find(&[1; DEPTH_MAX - 1]).map(|part| part.n_lines), Some(10_000));
    let dashes =
        [&b"Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\n\r\n"[..], &[b'-'; 5_000_000]];
    scan_soon(&dashes.concat());
    let starts = [dashes[0], &b"\n--".repeat(1_000_000)];
    scan_soon(&starts.concat());
}

#[test]
fn octets_that_are_no_mail() {
    for raw in [&[0_u8; 100_000][..], &[0xff; 100_000], &[b'\n'; 100_000], &[b'\r'; 100_000]] {
        scan_soon(raw);
    }
}

#[test]
fn characters_that_are_cut_apart_need_little_stack() {
    let decode = || {
        for character in ["\u{e9}", "\u{1f600}"] {
            let text = format!("\u{1f600}{}", character.repeat(262_144 / character.len()));
            for n_held in 1..4 {
                let (head, tail) = text.as_bytes().split_at(n_held);
                let mut decoder = CharsetDecoder::new("");
                let mut decoded = String::new();
                decoder.feed(head, &mut decoded);
                decoder.feed(tail, &mut decoded);
                decoder.finish(&mut decoded);
                assert!(decoded == text, "{character} {n_held}");
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(SMALL_STACK_BYTES).spawn(decode);
    thread.expect("start a thread").join().expect("decode");
}
