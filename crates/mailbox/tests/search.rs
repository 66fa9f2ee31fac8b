//! SEARCH, each kind of key.

mod support;

use std::cell::Cell;

use mailbox::query::{Compare, Query, Search};
use mailbox::*;
use support::*;

const BASE64: &[u8] = b"From: =?utf-8?Q?J=C3=BCrgen?= <j@example.test>\r\nTo: bob@example.test\r\n\
Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\nX-Tag: Blue Moon\r\nDate: Tue, 14 Nov 2023 23:30:00 -0800\r\n\
MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
U2Now7ZuZSBHcsO8w59lIGF1cyBCZXJsaW4=\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n\
needle\r\n--b--\r\n";

fn found(shard: &Shard, key: SearchKey) -> Vec<u32> {
    let (of, among) = (shard.of("INBOX"), UidSet::all());
    match shard.ask(&Query::Search(Search { of, among, key })) {
        Answer::Found(uids, _, None) => uids.iter().map(Uid::value).collect(),
        other => panic!("{other:?}"),
    }
}

fn shard() -> Shard {
    let mut shard = Shard::with_account();
    shard.deliver(&mail("hello world"));
    shard.deliver(BASE64);
    let keyword = Keyword::new("$Work").expect("a keyword");
    let flags = Flags { system: SystemFlags::SEEN, keywords: [keyword].into() };
    shard.append("INBOX", &[mail("third")], &flags);
    shard
}

/// A word in its capitals, and the same word as senders of old write it.
const LEGACY: &[(&str, &str, &[u8])] = &[
    ("iso-8859-1", "BJÖRN", b"bj\xf6rn"),
    ("windows-1252", "PREIS €", b"preis \x80"),
    ("iso-8859-2", "ŁÓDŹ", b"\xb3\xf3d\xbc"),
    ("iso-8859-15", "€URO", b"\xa4uro"),
    ("koi8-r", "ПРИВЕТ", b"\xd0\xd2\xc9\xd7\xc5\xd4"),
    ("windows-1251", "ПРИВЕТ", b"\xef\xf0\xe8\xe2\xe5\xf2"),
    ("iso-8859-7", "ΚΑΛΗΣ", b"\xea\xe1\xeb\xe7\xf2"),
    ("gb2312", "你好", b"\xc4\xe3\xba\xc3"),
    ("big5", "你好", b"\xa7A\xa6n"),
    ("shift_jis", "日本語", b"\x93\xfa\x96{\x8c\xea"),
    ("euc-jp", "日本語", b"\xc6\xfc\xcb\xdc\xb8\xec"),
    ("iso-2022-jp", "日本語", b"\x1b$BF|K\\8l\x1b(B"),
    ("euc-kr", "한국", b"\xc7\xd1\xb1\xb9"),
];

#[test]
fn words_in_legacy_charsets_are_found_in_any_case() {
    let mut shard = Shard::with_account();
    for (charset, _, octets) in LEGACY {
        let quoted: String = octets.iter().map(|octet| format!("={octet:02X}")).collect();
        let raw = format!(
            "From: =?{charset}?Q?{quoted}?= <x@example.test>\r\nSubject: =?{charset}?Q?{quoted}?=\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"{charset}\"\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\n{quoted}\r\n"
        );
        shard.deliver(raw.as_bytes());
    }
    for (number, (charset, word, _)) in (1u32..).zip(LEGACY) {
        for key in [
            header("subject", word),
            header("from", word),
            SearchKey::Body((*word).into()),
            SearchKey::Text(word.to_lowercase()),
        ] {
            let uids = found(&shard, key.clone());
            assert!(uids.contains(&number), "{charset}: {key:?} is in {uids:?}");
        }
    }
}

fn header(name: &str, text: &str) -> SearchKey {
    SearchKey::Header(name.into(), text.into())
}

#[test]
fn keys_of_the_state_match() {
    let shard = shard();
    assert_eq!(found(&shard, SearchKey::All), [1, 2, 3]);
    assert_eq!(found(&shard, SearchKey::Flag(SystemFlags::SEEN)), [3]);
    let keyword = Keyword::new("$work").expect("a keyword");
    assert_eq!(found(&shard, SearchKey::Keyword(keyword)), [3]);
    let not_seen = SearchKey::Not(Box::new(SearchKey::Flag(SystemFlags::SEEN)));
    assert_eq!(found(&shard, not_seen), [1, 2]);
    let size = BASE64.len() as u64;
    assert_eq!(found(&shard, SearchKey::Size(Compare::AtLeast, size)), [2]);
    assert_eq!(found(&shard, SearchKey::Size(Compare::Less, size)), [1, 3]);
    let today = i64::try_from(START_MS / 86_400_000).expect("a day");
    assert_eq!(found(&shard, SearchKey::InternalDate(Compare::Equal, today)), [1, 2, 3]);
    assert_eq!(found(&shard, SearchKey::SaveDate(Compare::Less, today)), [0; 0]);
    let or = SearchKey::Or(
        Box::new(SearchKey::Uid(set(&[1]))),
        Box::new(SearchKey::Flag(SystemFlags::SEEN)),
    );
    assert_eq!(found(&shard, or), [1, 3]);
    let and = SearchKey::And(vec![header("subject", "i"), SearchKey::Uid(set(&[1, 3]))]);
    assert_eq!(found(&shard, and), [3]);
}

/// FROM looks into the envelope, HEADER FROM into the header.
#[test]
fn header_finds_what_the_field_has() {
    let mut shard = Shard::with_account();
    shard.deliver(b"From: \"Doe, Jane\" <jane@x.test>, ann@x.test\r\n\r\n");
    let field = |text: &str| SearchKey::Field("From".into(), text.into());
    for (text, of_field, of_envelope) in [
        ("jane@x", true, true),
        ("doe, jane", true, true),
        ("\"doe", true, false),
        (">, ann", true, false),
        ("<ann@", false, true),
        ("bob", false, false),
        ("", true, true),
    ] {
        assert_eq!(found(&shard, field(text)) == [1], of_field, "{text} in the field");
        assert_eq!(found(&shard, header("from", text)) == [1], of_envelope, "{text}");
    }
    let id = SearchKey::Field("Message-Id".into(), "<1@x".into());
    assert_eq!(found(&shard, id.clone()), [0; 0]);
    shard.deliver(b"Message-Id: <1@x.test>\r\n\r\n");
    assert_eq!(found(&shard, id), [2]);
}

#[test]
fn bodies_in_utf_7_are_decoded() {
    let mut shard = Shard::with_account();
    shard.deliver(b"Content-Type: text/plain; charset=utf-7\r\n\r\ncaf+AOk +2D3eAA-!\r\n");
    for text in ["CAF\u{c9} \u{1f600}!", "caf\u{e9}"] {
        assert_eq!(found(&shard, SearchKey::Body(text.into())), [1], "{text}");
    }
    assert_eq!(found(&shard, SearchKey::Body("AOk".into())), [0; 0]);
}

#[test]
fn headers_match_decoded_and_folded() {
    let shard = shard();
    assert_eq!(found(&shard, header("Subject", "GRÜSSE")), [2]);
    assert_eq!(found(&shard, header("from", "jürgen")), [2]);
    assert_eq!(found(&shard, header("from", "ann@example.test")), [1, 3]);
    assert_eq!(found(&shard, header("to", "")), [2]);
    assert_eq!(found(&shard, header("x-tag", "blue")), [2]);
    assert_eq!(found(&shard, header("x-tag", "")), [2]);
    assert_eq!(found(&shard, header("x-tag", "red")), [0; 0]);
    let mut shard = shard;
    shard.deliver(
        b"From: a@example.test\r\nCc:\r\nBcc: (none\r\nSubject: folded\r\n\tby tab\r\n\r\n",
    );
    assert_eq!(found(&shard, header("cc", "")), [4]);
    assert_eq!(found(&shard, header("bcc", "")), [4]);
    assert_eq!(found(&shard, header("subject", "folded by tab")), [4]);
    assert_eq!(found(&shard, SearchKey::Text("folded by tab".into())), [4]);
    // What stands in the header without being a field: no empty line came before it.
    shard.deliver(b"From: a@example.test\r\n \r\nDear all, this is\r\nhow it is.\r\n");
    assert_eq!(found(&shard, SearchKey::Text("dear all".into())), [5]);
    // 14 November in its own zone, 15 November in UTC.
    let day = 1_699_920_000 / 86_400;
    let sent = SearchKey::SentDate(Compare::Equal, day);
    assert!(found(&shard, sent).contains(&2));
}

/// RFC 9051 6.4.4: the Date field counts, and no other date in its place.
#[test]
fn a_message_without_a_date_was_sent_on_no_day() {
    let mut shard = Shard::with_account();
    shard.deliver(b"Subject: no date\r\n\r\nx\r\n");
    shard.deliver(b"Date: some day\r\n\r\nx\r\n");
    shard.deliver(b"Date: Wed, 15 Nov 2023 00:30:00 +0000\r\n\r\nx\r\n");
    let day = 1_700_006_400 / 86_400;
    for (compare, than, n_found) in [
        (Compare::Less, day, 0),
        (Compare::Less, i64::MAX, 1),
        (Compare::Equal, day, 1),
        (Compare::AtLeast, i64::MIN, 1),
        (Compare::AtLeast, day + 1, 0),
    ] {
        let wanted = &[3][..n_found];
        assert_eq!(found(&shard, SearchKey::SentDate(compare, than)), wanted, "{compare:?} {than}");
    }
}

#[test]
fn bodies_match_decoded_text_and_nothing_else() {
    let shard = shard();
    assert_eq!(found(&shard, SearchKey::Body("schöne grüße AUS".into())), [2]);
    assert_eq!(found(&shard, SearchKey::Body("needle".into())), [0; 0], "no text part");
    assert_eq!(found(&shard, SearchKey::Body("body of hello".into())), [1]);
    assert_eq!(found(&shard, SearchKey::Body("blue moon".into())), [0; 0]);
    assert_eq!(found(&shard, SearchKey::Text("blue moon".into())), [2]);
}

const REPORT: &[u8] = b"From: a@example.test\r\nMIME-Version: 1.0\r\n\
Content-Type: multipart/report; boundary=b\r\n\r\nprologue\r\n--b\r\nX-Part: partfield\r\n\r\nsorry\r\n\
--b\r\nContent-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; gone@example.test\r\n\
--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\
Content-Disposition: attachment; filename*0*=utf-8''%C3%BCber; filename*1=sicht.png\r\n\r\n\
iVBORw0KGgo=\r\n--b\r\nContent-Transfer-Encoding: 8 bit\r\n\r\nmislabelled\r\n--b--\r\n";

/// RFC 9051 6.4.4: TEXT includes MIME header fields, BODY does not match any.
#[test]
fn text_is_found_in_the_headers_of_parts_too() {
    let mut shard = Shard::with_account();
    shard.deliver(REPORT);
    for (text, is_in_body) in [
        ("partfield", false),
        ("image/png", false),
        ("übersicht.png", false),
        ("sorry", true),
        ("gone@example.test", true),
        ("MISLABELLED", true),
    ] {
        assert_eq!(found(&shard, SearchKey::Text(text.into())), [1], "{text}");
        let in_body = if is_in_body { vec![1] } else { vec![] };
        assert_eq!(found(&shard, SearchKey::Body(text.into())), in_body, "{text}");
    }
    for text in ["ivborw0kggo", "prologue"] {
        assert_eq!(found(&shard, SearchKey::Text(text.into())), [0; 0], "{text}");
    }
}

#[test]
fn a_text_across_chunks_is_found() {
    let mut shard = Shard::with_account();
    let mut raw = mail("long");
    raw.resize(64 * 1024 - 3, b'x');
    raw.extend_from_slice(b"across");
    shard.deliver(&raw);
    assert_eq!(found(&shard, SearchKey::Body("XACROSS".into())), [1]);
}

#[test]
fn a_search_through_many_bodies_comes_in_pages() {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    let mut big = mail("big");
    big.resize(3 << 20, b'x');
    for _ in 0..8 {
        shard.deliver(&big);
    }
    let (of, mut among) = (shard.of("INBOX"), UidSet::all());
    let (mut n_found, mut n_pages) = (0, 0);
    loop {
        let key = SearchKey::Not(Box::new(SearchKey::Body("absent".into())));
        let search = Search { of, among: among.clone(), key };
        let Answer::Found(uids, _, next) = shard.ask(&Query::Search(search)) else {
            panic!("refused");
        };
        n_found += uids.n_uids();
        n_pages += 1;
        match next {
            Some(next) => among = among.starting_at(next),
            None => break,
        }
    }
    assert_eq!((n_found, n_pages), (8, 2));
}

/// Bodies that are counted.
struct Counted<'s>(&'s Shard, Cell<usize>);

impl Bodies for Counted<'_> {
    fn chunk(&self, chunk: &ChunkRef) -> Option<bytes::Bytes> {
        self.1.set(self.1.get() + 1);
        self.0.chunk(chunk)
    }
}

#[test]
fn a_message_is_read_once_for_all_texts() {
    let mut shard = Shard::with_account();
    let mut raw = mail("long");
    // Chunks that differ.
    raw.extend((raw.len()..5 * 64 * 1024).map(|at| b'a' + (at >> 16) as u8));
    shard.deliver(&raw);
    let (of, among) = (shard.of("INBOX"), UidSet::all());
    let not = |key| SearchKey::Not(Box::new(key));
    for make in [SearchKey::Body as fn(String) -> SearchKey, SearchKey::Text] {
        let keys = (0..32).map(|n| not(make(format!("absent {n}")))).collect();
        let counted = Counted(&shard, Cell::new(0));
        let search = Search { of, among: among.clone(), key: SearchKey::And(keys) };
        let Answer::Found(uids, ..) = answer(&shard.rows, &counted, &Query::Search(search)) else {
            panic!("refused");
        };
        assert_eq!((uids.n_uids(), counted.1.get()), (1, 5));
    }
}

#[test]
fn of_an_endless_header_only_the_beginning_is_read() {
    const N_CHUNKS: u64 = mime::limits::HEADER_BYTES_MAX / (64 * 1024);
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    let mut raw = b"X-Early: 1\r\n".to_vec();
    let mut n_lines = 0;
    while raw.len() as u64 <= mime::limits::HEADER_BYTES_MAX + 256 * 1024 {
        n_lines += 1;
        raw.extend(format!("X-{n_lines}: {}\r\n", "a".repeat(1000)).into_bytes());
    }
    raw.extend(b"X-Late: 1\r\n\r\nthe body\r\n");
    shard.deliver(&raw);
    let field = |name: &str| SearchKey::Field(name.into(), String::new());
    assert_eq!(found(&shard, field("x-early")), [1]);
    assert_eq!(found(&shard, SearchKey::Body("the body".into())), [1]);
    let counted = Counted(&shard, Cell::new(0));
    let (of, among) = (shard.of("INBOX"), UidSet::all());
    let search = Search { of, among, key: field("x-late") };
    let Answer::Found(uids, ..) = answer(&shard.rows, &counted, &Query::Search(search)) else {
        panic!("refused");
    };
    assert_eq!((uids.n_uids(), counted.1.get() as u64), (0, N_CHUNKS));
}

#[test]
fn several_texts_and_fields_are_told_apart() {
    let mut shard = Shard::with_account();
    shard.deliver(b"X-A: one\r\nX-B: two\r\nx-a: three\r\nX-Empty:\r\n\r\nfour five\r\n");
    let field = |name: &str, text: &str| SearchKey::Field(name.into(), text.into());
    let body = |text: &str| SearchKey::Body(text.into());
    let text = |text: &str| SearchKey::Text(text.into());
    for (keys, wanted) in [
        (vec![field("x-a", "one"), field("X-A", "three"), field("x-b", "two")], true),
        (vec![field("x-a", "two")], false),
        (vec![field("x-a", "onethree")], false),
        (vec![field("x-b", ""), field("x-empty", "")], true),
        (vec![field("x-c", "")], false),
        (vec![body("four"), body("FIVE"), text("four"), text("x-a: one")], true),
        (vec![body("four"), body("six")], false),
        (vec![body("one")], false),
        (vec![text("one"), text("six")], false),
        (vec![text("one"), text(""), body("")], true),
    ] {
        assert_eq!(found(&shard, SearchKey::And(keys.clone())) == [1], wanted, "{keys:?}");
    }
}

#[test]
fn a_search_of_too_many_keys_is_refused() {
    let shard = shard();
    let (of, among) = (shard.of("INBOX"), UidSet::all());
    let seen = || SearchKey::Flag(SystemFlags::SEEN);
    let text = |_| SearchKey::Text("x".into());
    let not = |key| SearchKey::Not(Box::new(key));
    let any = |n: usize| {
        (1..n).fold(seen(), |all, _| SearchKey::Or(Box::new(all), Box::new(not(seen()))))
    };
    for (key, is_taken) in [
        (SearchKey::And((0..512).map(|_| seen()).collect()), true),
        (SearchKey::And((0..513).map(|_| not(seen())).collect()), false),
        (SearchKey::And((0..513).map(|_| SearchKey::And(Vec::new())).collect()), false),
        (any(100), true),
        (any(513), false),
        (SearchKey::And((0..32).map(text).collect()), true),
        (SearchKey::And((0..33).map(text).collect()), false),
    ] {
        let search = Search { of, among: among.clone(), key };
        match shard.ask(&Query::Search(search)) {
            Answer::Found(..) => assert!(is_taken),
            Answer::Refused(Refusal::Limit(_)) => assert!(!is_taken),
            other => panic!("{other:?}"),
        }
    }
}

/// A search whose key is ALL within so many NOTs.
fn nested(n_levels: usize) -> Vec<u8> {
    let of = command::OfMailbox { account: ACCOUNT, mailbox: MailboxId(1) };
    let search = |key| codec::encode(&Query::Search(Search { of, among: UidSet::all(), key }));
    let (plain, within) =
        (search(SearchKey::All), search(SearchKey::Not(Box::new(SearchKey::All))));
    // What the two do not share is the NOT around the key, which both end with.
    let key = codec::encode(&SearchKey::All);
    let head = plain.len() - key.len();
    let not = &within[head..within.len() - key.len()];
    [&plain[..head], &not.repeat(n_levels), &key].concat()
}

#[test]
fn what_is_nested_too_deep_is_not_decoded() {
    for n_levels in [0, 1, 50, 63] {
        let query: Query = codec::decode(&nested(n_levels)).expect("as deep as clients go");
        assert_eq!(codec::encode(&query), nested(n_levels));
    }
    let ids = || SearchKey::Or(Box::new(SearchKey::All), Box::new(header("message-id", "<1@x>")));
    let key = SearchKey::And(vec![ids(), SearchKey::Not(Box::new(ids())), SearchKey::And(vec![])]);
    let of = command::OfMailbox { account: ACCOUNT, mailbox: MailboxId(1) };
    let query = Query::Search(Search { of, among: UidSet::all(), key });
    assert_eq!(codec::decode::<Query>(&codec::encode(&query)), Ok(query));
    for n_levels in [64, 5_000_000] {
        assert!(codec::decode::<Query>(&nested(n_levels)).is_err(), "{n_levels}");
    }
}

#[test]
fn replies_share_their_thread() {
    let mut shard = Shard::with_account();
    let with = |id: &str, reply: &str| {
        format!("Message-ID: <{id}@x>\r\n{reply}Subject: t\r\n\r\nx\r\n").into_bytes()
    };
    shard.deliver(&with("1", ""));
    shard.deliver(&with("2", "In-Reply-To: <1@x>\r\n"));
    shard.deliver(&with("3", "References: <1@x> <2@x>\r\n"));
    shard.deliver(&with("4", ""));
    let threads: Vec<_> =
        shard.everything("INBOX").iter().map(|record| record.thread_id.0).collect();
    assert_eq!(threads[0], threads[1]);
    assert_eq!(threads[0], threads[2]);
    assert_ne!(threads[0], threads[3]);
    assert_eq!(found(&shard, SearchKey::ThreadId(ThreadId(threads[3]))), [4]);
}
