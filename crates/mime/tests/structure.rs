//! Structure, offsets and line counts of messages written out here.

use mime::{Metadata, Part, PartKind, Range, Scanner, scan};

fn text_of(raw: &str, range: Range) -> &str {
    &raw[range.start as usize..range.end as usize]
}

fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

fn children(part: &Part) -> &[Part] {
    match &part.kind {
        PartKind::Multipart(children) => children,
        other => panic!("not a multipart: {other:?}"),
    }
}

fn scan_bytewise(raw: &str) -> Metadata {
    let mut scanner = Scanner::new();
    for byte in raw.as_bytes() {
        scanner.feed(std::slice::from_ref(byte));
    }
    scanner.finish()
}

fn scan_both_ways(raw: &str) -> Metadata {
    let metadata = scan(raw.as_bytes());
    assert_eq!(metadata, scan_bytewise(raw), "cuts change the outcome of {raw:?}");
    metadata
}

#[test]
fn plain_message() {
    let raw = crlf("From: Ann <ann@example.test>\nSubject: hello\n\nfirst\nsecond\nthird");
    let metadata = scan_both_ways(&raw);
    let root = &metadata.structure;
    assert!(text_of(&raw, root.header).ends_with("hello\r\n\r\n"));
    assert_eq!(text_of(&raw, root.body), "first\r\nsecond\r\nthird");
    assert_eq!(root.n_lines, 2, "a last line without line end is not counted");
    assert_eq!(metadata.size, raw.len() as u64);
    assert_eq!(metadata.preview.as_deref(), Some("first second third"));
    assert!(!metadata.has_attachment);
}

const NESTED: &str = "Content-Type: multipart/mixed; boundary=\"out\"\n\npreamble\n--out  \n\none\ntwo\n\
    --out\nContent-Type: multipart/alternative; boundary=out-in\n\n--out-in\n\nA\n\n--out-in\n\
    Content-Type: text/html\n\n<b>B</b>\n--out-in--\nepilogue within\n--out\n\
    Content-Type: message/rfc822\n\nSubject: inner\nContent-Type: multipart/mixed; boundary=z\n\n\
    --z\n\ninner one\n--z--\n--out\nContent-Type: message/rfc822\n\nSubject: simple\n\ntext\n\
    --out--\nepilogue\n--out\nnot a part\n";

#[test]
fn nested_multiparts_and_messages() {
    let raw = crlf(NESTED);
    let metadata = scan_both_ways(&raw);
    let root = &metadata.structure;
    let body = |path: &[u32]| text_of(&raw, root.find(path).expect("part is there").body);
    assert_eq!(children(root).len(), 4);
    assert_eq!(body(&[1]), "one\r\ntwo");
    assert_eq!(body(&[2, 1]), "A\r\n");
    assert_eq!(body(&[2, 2]), "<b>B</b>");
    assert!(body(&[2]).ends_with("--out-in--\r\nepilogue within"));
    assert!(body(&[3]).starts_with("Subject: inner"));
    assert!(body(&[3]).ends_with("--z--"));
    assert_eq!(body(&[3, 1]), "inner one");
    assert_eq!(body(&[4, 1]), "text");
    assert_eq!(body(&[4]), "Subject: simple\r\n\r\ntext");
    assert!(text_of(&raw, root.body).ends_with("not a part\r\n"));
    assert_eq!(root.find(&[1]).map(|part| part.n_lines), Some(1));
    assert_eq!(root.find(&[4]).map(|part| part.n_lines), Some(2));
    for path in [&[5][..], &[0], &[1, 1], &[4, 2], &[4, 1, 1], &[3, 2]] {
        assert!(root.find(path).is_none(), "{path:?}");
    }
    let PartKind::Message { envelope, .. } = &root.find(&[3]).expect("part 3").kind else {
        panic!("part 3 is a message")
    };
    assert_eq!(envelope.subject.as_deref(), Some(&b"inner"[..]));
    assert!(metadata.has_attachment);
}

#[test]
fn bare_line_feeds_give_the_same_tree() {
    let metadata = scan_both_ways(NESTED);
    let root = &metadata.structure;
    assert_eq!(children(root).len(), 4);
    assert_eq!(text_of(NESTED, root.find(&[2, 1]).expect("part").body), "A\n");
    assert_eq!(text_of(NESTED, root.find(&[1]).expect("part").body), "one\ntwo");
}
