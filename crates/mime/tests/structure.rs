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

const NESTED: &str = "Content-Type: multipart/mixed; boundary=\"out\"\n\npreamble\n--out  \n\n\
    one\ntwo\n\
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

#[test]
fn missing_last_delimiters_end_with_the_message() {
    for (raw, last) in [
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n", "two\n"),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo", "two"),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n--b--", "two"),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n--b", "two"),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n--b\n", "two"),
    ] {
        let metadata = scan_both_ways(raw);
        let parts = children(&metadata.structure);
        assert_eq!(parts.len(), 2, "{raw:?}");
        assert_eq!(text_of(raw, parts[1].body), last, "{raw:?}");
    }
}

#[test]
fn outer_delimiter_ends_inner_parts() {
    let raw = "Content-Type: multipart/mixed; boundary=o\n\n--o\n\
        Content-Type: multipart/mixed; boundary=i\n\n--i\nSubject: only a header\n\
            --o\n\nlast\n--o--\n";
    let metadata = scan_both_ways(raw);
    let root = &metadata.structure;
    assert_eq!(children(root).len(), 2);
    let inner = root.find(&[1, 1]).expect("part is there");
    assert_eq!(text_of(raw, inner.header), "Subject: only a header\n");
    assert!(inner.body.is_empty());
    assert_eq!(root.find(&[2]).map(|part| text_of(raw, part.body)), Some("last"));
}

#[test]
fn multiparts_without_parts_are_text() {
    for raw in [
        "Content-Type: multipart/mixed\n\n--b\n\none\n--b--\n",
        "Content-Type: multipart/mixed; boundary=b\n\nno delimiter\n--bb\n",
        "Content-Type: multipart/mixed; boundary=\"\"\n\n--\n\nx\n----\n",
        "Content-Type: multipart/mixed; boundary=b\n\n--b--\n",
        "Content-Type: multipart/mixed; boundary=b\n",
        "Content-Type: nonsense\n\nbody",
    ] {
        let root = scan_both_ways(raw).structure;
        assert_eq!(root.kind, PartKind::Leaf, "{raw:?}");
        assert!(root.content_type.is("text", "plain"), "{raw:?}");
    }
}

#[test]
fn only_starts_of_lines_delimit_and_the_innermost_part_comes_first() {
    let raw = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n-b\nx--b\n- -b\n --b\n\
        --b\t \r\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ninner\n--b--\n--b--\n";
    let metadata = scan_both_ways(raw);
    let root = &metadata.structure;
    let body = |path: &[u32]| text_of(raw, root.find(path).expect("part is there").body);
    assert_eq!(children(root).len(), 2);
    assert_eq!(body(&[1]), "-b\nx--b\n- -b\n --b");
    assert_eq!(body(&[2, 1]), "inner");
    assert_eq!(body(&[2]), "--b\n\ninner\n--b--");
}

#[test]
fn line_end_before_a_delimiter_is_the_one_that_stands_there() {
    let raw = "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\
        Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--i--\n--o\n\n\n--o--\r\n";
    let metadata = scan_both_ways(raw);
    let root = &metadata.structure;
    let body = |path: &[u32]| text_of(raw, root.find(path).expect("part is there").body);
    assert_eq!(body(&[1]), "--i\r\n\r\nx\r\n--i--");
    assert_eq!(body(&[1, 1]), "x");
    assert_eq!(body(&[2]), "");
}

#[test]
fn digest_parts_are_messages() {
    let raw = "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: one\n\nbody\n--b\n\
        Content-Type: text/plain\n\ntwo\n--b--\n";
    let metadata = scan_both_ways(raw);
    let parts = children(&metadata.structure);
    let PartKind::Message { envelope, part } = &parts[0].kind else { panic!("a message") };
    assert_eq!(envelope.subject.as_deref(), Some(&b"one"[..]));
    assert_eq!(text_of(raw, part.body), "body");
    assert_eq!(parts[1].kind, PartKind::Leaf);
}

#[test]
fn encoded_message_is_a_leaf_of_octets() {
    let raw = "Content-Type: message/rfc822\nContent-Transfer-Encoding: Base64\n\nU3ViamVjdA==\n";
    let root = scan_both_ways(raw).structure;
    assert_eq!(root.kind, PartKind::Leaf);
    assert!(root.content_type.is("application", "octet-stream"));
    assert_eq!(root.encoding.as_deref(), Some("base64"));
}

#[test]
fn a_message_is_looked_into_however_its_encoding_is_spelled_that_is_none() {
    for encoding in ["7bit", "8BIT", "binary", "7bits", "7-bit", "8bits", "8-Bit"] {
        let raw = format!(
            "Content-Type: message/rfc822\nContent-Transfer-Encoding: {encoding}\n\nSubject: inner\n\nx\n"
        );
        let root = scan_both_ways(&raw).structure;
        let PartKind::Message { envelope, .. } = &root.kind else { panic!("{encoding}: {root:?}") };
        assert_eq!(envelope.subject.as_deref(), Some(&b"inner"[..]));
    }
}

#[test]
fn odd_headers() {
    let metadata = scan_both_ways("Subject: no end of header");
    assert_eq!(metadata.envelope.subject.as_deref(), Some(&b"no end of header"[..]));
    assert!(metadata.structure.body.is_empty());

    let mbox = "From ann Mon Jan  1 00:00:00 2024\nSubject: mbox\n\nbody\n";
    let metadata = scan_both_ways(mbox);
    assert_eq!(metadata.envelope.subject.as_deref(), Some(&b"mbox"[..]));
    assert_eq!(metadata.structure.header.start, 0);

    let metadata = scan_both_ways("\r\nbody");
    assert_eq!(metadata.structure.header, Range { start: 0, end: 2 });

    let twice = scan_both_ways(
        "Content-Type: text/html\nContent-Type: image/png\nSubject: a\nSubject: b\n\n",
    );
    assert!(twice.structure.content_type.is("text", "html"));
    assert_eq!(twice.envelope.subject.as_deref(), Some(&b"a"[..]));

    let metadata = scan_both_ways("Subject: nul \0 and \u{e4}\r\n\r\nbo\0dy");
    assert_eq!(metadata.envelope.subject.as_deref(), Some("nul  and \u{e4}".as_bytes()));
    assert_eq!(metadata.preview.as_deref(), Some("bo dy"));
}

/// RFC 2046 5.1.1: it is sufficient that the boundary stands at the beginning of the line.
#[test]
fn what_stands_behind_a_boundary_does_not_hide_it() {
    for (second, end) in [("--b x", "--b-- x"), ("--bx", "--b---"), ("--b; a=b", "--b--b")] {
        let raw = format!(
            "Content-Type: multipart/mixed; boundary=b\n\n--b y\n\none\n{second}\n\ntwo\n{end}\n\
                epilogue\n"
        );
        let root = scan_both_ways(&raw).structure;
        let body = |path: &[u32]| text_of(&raw, root.find(path).expect("part is there").body);
        assert_eq!((children(&root).len(), body(&[1]), body(&[2])), (2, "one", "two"), "{raw}");
    }
}

/// A boundary that begins with another one is not that one, also when its multipart has ended.
#[test]
fn the_longest_boundary_counts() {
    let raw = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\
        Content-Type: multipart/mixed; boundary=bb\n\n--bb\n\none\n--bb x\n\ntwo\n--bb--\n\
        --bb\nepilogue\n--b\n\nthree\n--b--\n";
    let root = scan_both_ways(raw).structure;
    let body = |path: &[u32]| text_of(raw, root.find(path).expect("part is there").body);
    assert_eq!(children(&root).len(), 2);
    assert_eq!((body(&[1, 1]), body(&[1, 2]), body(&[2])), ("one", "two", "three"));
    assert_eq!(root.find(&[1, 3]).map(|_| ()), None);
}

#[test]
fn previews() {
    let long = "word ".repeat(100);
    for (raw, preview) in [
        (
            "Content-Type: text/html\n\n<html><head><title>t</title></head><p>Hi&amp;  you</p>",
            Some("Hi& you"),
        ),
        ("Content-Transfer-Encoding: base64\n\nSGVsbG8=", Some("Hello")),
        (
            "Content-Type: text/plain; charset=iso-8859-1\n\
                Content-Transfer-Encoding: quoted-printable\n\n=E4",
            Some("\u{e4}"),
        ),
        (
            "Content-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B%A\x1b(B\x1b$B%/\x1b(B",
            Some("\u{30c1}\u{30af}"),
        ),
        ("Content-Type: image/png\n\nxx", None),
        ("Content-Disposition: attachment\n\nxx", Some("xx")),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Disposition: attachment\n\n\
                file\n--b\nContent-Disposition: attachment\n\nother\n--b\n\ntext\n--b\n\nmore",
            Some("text"),
        ),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n \n--b\n\
                Content-Disposition: attachment\n\nfile\n--b\n\n \n",
            Some("file"),
        ),
        ("Subject: x\n\n \n\t\n", None),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n \n--b\n\nsecond\n--b--",
            Some("second"),
        ),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\n\
                Content-Type: message/rfc822\n\n\ninner\n--b\n\nouter",
            Some("outer"),
        ),
    ] {
        assert_eq!(scan_both_ways(raw).preview.as_deref(), preview, "{raw:?}");
    }
    let two = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nfirst\n--b\n\
        Content-Type: image/png\n\nxx\n--b\n\nthird\n--b--";
    assert_eq!(scan_both_ways(two).preview.as_deref(), Some("first"));
    let metadata = scan_both_ways(&format!("Subject: x\n\n{long}"));
    assert_eq!(metadata.preview.map(|preview| preview.len()), Some(199));
}

#[test]
fn previews_of_html() {
    for (html, preview) in [
        ("<style type=\"text/css\">p { color: red }</style><p>Hi</p>", "Hi"),
        ("<STYLE\nmedia='a>b'>p > a { x: '</p>' }</Style\n><p>Hi", "Hi"),
        ("<script src=x async>if (a < b) alert('<p>')</script >Hi", "Hi"),
        ("<html><head lang=\"en\"><meta charset=utf-8><title x>t</title></head><body>Hi", "Hi"),
        ("<head><style>x</style><meta name=a content=\"b > c\">Hi", "Hi"),
        ("<title/><p>Hi", "Hi"),
        ("<template id=x><p>no</p></template>Hi<style>no", "Hi"),
        ("<div>Hello Bob,</div><div>see you</div>", "Hello Bob, see you"),
        ("<table><tr><td>A</td><td>B</td></tr><tr><th>C<th>D</table>", "A B C D"),
        ("a<br>b<BR/>c<li>d</li><h1>e</h1>f<o:p>g</o:p>", "a b c d e fg"),
        ("<b>b</b>old <a href=\"x\">li</a>nk <span\n>s</span>pan", "bold link span"),
        ("<p title='>' class=\">\" x=y/>a</p ><p x= '>'>b<p x='", "a b"),
        ("<!doctype html><?xml version='1.0'?></ x>a</>b<!-->c<!--->d<!-- > -- --->e", "abcde"),
        ("<!--[if mso]><p>no</p><![endif]-->a<![if !mso]>b<![endif]>c<!->d<!x--", "abcd"),
        ("a<![CDATA[ <b> ]] ]]]>b<![CDATAx>c<!-- \u{12d}\u{12d}> no", "abc"),
        ("1 < 2 <3 <", "1 < 2 <3 <"),
        (
            "a&amp;&lt;b&#x41;&#66;&eacute;&#8364;&#150;&#xFFFFFF;",
            "a&<bAB\u{e9}\u{20ac}\u{2013}\u{fffd}",
        ),
        ("a&nbsp;&nbsp b&nbsp", "a b"),
        ("a & b &c; &d &#; &#x; &#65 &", "a & b &c; &d &#; &#x; A &"),
        ("&aaaaaaaaaabbbbbbbbbbccccccccccddddd;", "&aaaaaaaaaabbbbbbbbbbccccccccccddddd;"),
        ("<p>&lt;b&gt; &amp;amp; x</p>", "<b> &amp; x"),
    ] {
        let raw = format!("Content-Type: text/html; charset=utf-8\n\n{html}");
        assert_eq!(scan_both_ways(&raw).preview.as_deref(), Some(preview), "{html}");
    }
}

/// Of newsletters: 100 KiB of styles before the first word.
#[test]
fn a_preview_is_found_behind_long_styles() {
    let rule = "td.x { color: red }\r\n";
    let style = format!("<head><style>{}</style></head>", rule.repeat(100 * 1024 / rule.len()));
    let raw = format!("Content-Type: text/html\r\n\r\n{style}<p>Hi</p>");
    assert_eq!(scan(raw.as_bytes()).preview.as_deref(), Some("Hi"));
    let beyond = format!("Content-Type: text/html\r\n\r\n{}<p>Hi</p>", style.repeat(3));
    assert_eq!(scan(beyond.as_bytes()).preview, None);
}

#[test]
fn attachments() {
    for (raw, expected) in [
        ("Content-Type: text/html\n\nx", false),
        ("Content-Type: application/pdf\n\nx", true),
        ("Content-Type: text/plain\nContent-Disposition: attachment\n\nx", true),
        (
            "Content-Type: multipart/related; boundary=b\n\n--b\nContent-Type: text/html\n\n\
                --b\nContent-Type: image/png\n\nx\n--b--",
            false,
        ),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png\n\
                Content-Disposition: inline\n\nx\n--b--",
            false,
        ),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png\n\nx\n--b--",
            true,
        ),
        (
            "Content-Type: multipart/signed; boundary=b\n\n--b\n\nx\n\
                --b\nContent-Type: application/pgp-signature\n\nx\n--b--",
            false,
        ),
    ] {
        assert_eq!(scan_both_ways(raw).has_attachment, expected, "{raw:?}");
    }
}

#[test]
fn seams_are_behind_the_header_and_where_the_last_body_begins() {
    let seams = |raw: &str, is_bytewise: bool| {
        let mut scanner = Scanner::new();
        raw.as_bytes()
            .chunks(if is_bytewise { 1 } else { raw.len() })
            .for_each(|cut| scanner.feed(cut));
        scanner.seams().map(|seam| seam as usize)
    };
    let both = |raw: &str| {
        assert_eq!(seams(raw, false), seams(raw, true), "{raw:?}");
        seams(raw, false)
    };
    let head = "A: 1\nContent-Type: multipart/mixed; boundary=x\n\n";
    let first = "--x\n\n";
    let second = "first\n--x\nContent-Type: message/rfc822\n\nSubject: inner\n\n";
    assert_eq!(both("A: 1\nB"), [0, 0], "a header that has no end");
    assert_eq!(both("A: 1\n\ntext"), [0, 6]);
    assert_eq!(both(head), [0, 0]);
    let begun = format!("{head}{first}");
    assert_eq!(
        both(&format!("{begun}text")),
        [0, begun.len()],
        "its header stays with the message's"
    );
    let inside = format!("{begun}{second}");
    assert_eq!(both(&format!("{inside}text")), [head.len(), inside.len()]);
    assert_eq!(both(&format!("{inside}text\n--x--\nend")), [head.len(), inside.len()]);
}
