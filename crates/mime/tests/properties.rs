//! What holds of every message: of real ones, of the project's own, of random ones, of random octets.

mod support;

use mime::{Metadata, Scanner, scan};
use proptest::prelude::*;
use support::{check, config, messages, scan_in_cuts};

const TRACE: &[u8] = b"Return-Path: <ann@example.test>\r\nDelivered-To: bob@example.test\r\n\
    Received: from a.test by b.test (LMTP)\r\n\tid 1; Mon, 1 Jan 2024 00:00:00 +0000\r\n";

fn starts_with_field(raw: &[u8]) -> bool {
    let line = raw.split(|byte| *byte == b'\n').next().unwrap_or_default();
    mime::header_fields(line).next().is_some()
}

fn with_prefix_equals_scan(raw: &[u8], prefix: &[u8], metadata: &Metadata) {
    let whole = [prefix, raw].concat();
    assert_eq!(metadata.with_prefix(prefix), scan(&whole), "{:?}", String::from_utf8_lossy(raw));
}

fn survives_storage(metadata: &Metadata) {
    let stored = minicbor::to_vec(metadata).expect("encode");
    let read: Metadata = minicbor::decode(&stored).expect("decode");
    assert_eq!(&read, metadata);
}

#[test]
fn messages_scan_alike_in_all_cuts_and_survive_storage() {
    for (path, raw) in messages() {
        println!("{}", path.display());
        for raw in [raw.clone(), to_crlf(&raw)] {
            let metadata = scan(&raw);
            check(&raw, &metadata);
            survives_storage(&metadata);
            for cuts in [&[1][..], &[7, 1, 64], &[4096]] {
                assert_eq!(metadata, scan_in_cuts(&raw, cuts), "cuts {cuts:?}");
            }
            if starts_with_field(&raw) {
                with_prefix_equals_scan(&raw, TRACE, &metadata);
            }
        }
    }
}

fn to_crlf(raw: &[u8]) -> Vec<u8> {
    let mut crlf = Vec::with_capacity(raw.len() + raw.len() / 40);
    let mut previous = 0;
    for &byte in raw {
        if byte == b'\n' && previous != b'\r' {
            crlf.push(b'\r');
        }
        crlf.push(byte);
        previous = byte;
    }
    crlf
}

/// Pieces that messages are made of, thrown together: most results are broken, which is the point.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed = prop::sample::select(vec![
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "-",
        "--",
        "--a",
        "--b",
        "--a--",
        "--b--",
        "--a-b",
        "--ab--",
        "\r\n--a\r\n",
        "\r\n--b\r\n",
        "\n--a--\n",
        "\r\n\r\n",
        "--a \t\r\n",
        "text",
        "=?utf-8?q?",
        "?=",
        "Content-Type: multipart/mixed; boundary=a\r\n",
        "Content-Type: multipart/digest; boundary=\"b\"\n",
        "Content-Type: multipart/mixed; boundary=a-b\r\n\r\n",
        "Content-Type: message/rfc822\r\n\r\n",
        "Content-Type: text/html; charset=utf-8\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "Content-Transfer-Encoding: quoted-printable\n",
        "Content-Disposition: attachment; filename*0*=x\r\n",
        "Subject: Re: [x] hello (fwd)\r\n",
        "From: a <b@c>, g: d@e;\r\n",
        "To: \"x\" <@r:y@z>\r\n",
        "Date: Mon, 1 Jan 2024 10:00:00 +0100\r\n",
        "Message-Id: <1@x>\r\n",
        "References: <1@x> <2@x>\n",
        "From x Mon Jan  1 00:00:00 2024\n",
        "\0",
        "\u{e9}",
        "<b>bold</b>",
        "SGVsbG8=",
        "=E9=\r\n",
    ]);
    prop_oneof![
        8 => fixed.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

fn soup() -> impl Strategy<Value = Vec<u8>> {
    let heads = prop::sample::select(vec![
        "",
        "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n",
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: message/rfc822\n\n",
        "Content-Type: multipart/digest; boundary=a\n\n--a\n\
         Content-Type: multipart/x; boundary=b\n",
    ]);
    (heads, prop::collection::vec(piece(), 0..60))
        .prop_map(|(head, pieces)| [head.as_bytes(), &pieces.concat()].concat())
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn soup_scans_alike_in_all_cuts(
        raw in soup(),
        cuts in prop::collection::vec(1..40_usize, 1..8),
    ) {
        let metadata = scan(&raw);
        check(&raw, &metadata);
        survives_storage(&metadata);
        prop_assert_eq!(&metadata, &scan_in_cuts(&raw, &cuts));
        prop_assert_eq!(&metadata, &scan_in_cuts(&raw, &[1]));
    }

    #[test]
    fn prefix_shifts_everything(raw in soup()) {
        let raw = [b"X-First: 1\r\n", raw.as_slice()].concat();
        with_prefix_equals_scan(&raw, TRACE, &scan(&raw));
    }

    #[test]
    fn header_fields_cover_what_they_say(raw in soup()) {
        let mut at = 0;
        for field in mime::header_fields(&raw) {
            let start = field.raw.as_ptr() as usize - raw.as_ptr() as usize;
            prop_assert!(start >= at, "fields come in order");
            at = start + field.raw.len();
            prop_assert!(field.raw.starts_with(field.name));
        }
        prop_assert!(at as u64 <= scan(&raw).size);
    }

    #[test]
    fn octets_never_panic(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&raw, &scan(&raw));
        mime::decode_header(&raw);
        mime::base_subject(&raw);
        let date = [b"Date: ", raw.as_slice()].concat();
        scan(&date);
    }

    #[test]
    fn dates_never_panic(date in "[0-9+:, A-Za-z()-]{0,60}") {
        let raw = format!("Date: {date}\r\n\r\n");
        check(raw.as_bytes(), &scan(raw.as_bytes()));
    }

    #[test]
    fn html_reads_alike_in_all_cuts(
        html in "(</?(style|head|p|title)|<!--|-->|<!\\[CDATA\\[|]]>|&#x?|[<>!&;#xa-z/='\" é-]){0,60}",
        cuts in prop::collection::vec(1..20_usize, 1..8),
    ) {
        let raw = format!("Content-Type: text/html; charset=utf-8\r\n\r\n{html}");
        let metadata = scan(raw.as_bytes());
        check(raw.as_bytes(), &metadata);
        prop_assert_eq!(&metadata, &scan_in_cuts(raw.as_bytes(), &cuts));
    }
}

#[test]
fn empty_message() {
    let metadata = Scanner::new().finish();
    check(b"", &metadata);
    assert_eq!(metadata.sort.date_unix_s, None);
    assert_eq!(metadata.preview, None);
}

#[test]
fn metadata_of_plain_mail_is_small() {
    let body = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do.\r\n".repeat(300);
    let raw = format!(
        "Return-Path: <ann@example.test>\r\nFrom: Ann Example <ann@example.test>\r\n\
         To: Bob <bob@example.test>\r\nSubject: Minutes of the meeting\r\n\
         Date: Mon, 1 Jan 2024 10:00:00 +0100\r\nMessage-Id: <20240101.1@example.test>\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{body}"
    );
    let stored = minicbor::to_vec(scan(raw.as_bytes())).expect("encode");
    assert!(stored.len() < 700, "{} octets", stored.len());
    println!("{} octets", stored.len());
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn damaged_metadata_is_refused_or_read(
        raw in soup(),
        at in any::<prop::sample::Index>(),
        octet: u8,
    ) {
        let mut stored = minicbor::to_vec(scan(&raw)).expect("encode");
        let at = at.index(stored.len());
        stored[at] = octet;
        let read: Result<Metadata, _> = minicbor::decode(&stored);
        if let Ok(metadata) = read {
            survives_storage(&metadata);
        }
    }
}
