//! Envelopes, sort keys and decoders.

mod support;

use mime::{
    Address, CharsetDecoder, Metadata, TransferDecoder, base_subject, decode_header, fold,
    header_fields, scan,
};
use proptest::prelude::*;
use support::{check, config};

fn head(fields: &str) -> Metadata {
    scan(format!("{}\r\n\r\nbody", fields.replace('\n', "\r\n")).as_bytes())
}

/// `name|adl|mailbox|host`, `-` for what is not there.
fn show(list: &[Address]) -> String {
    let part = |part: &Option<Vec<u8>>| match part {
        Some(part) => String::from_utf8_lossy(part).into_owned(),
        None => "-".into(),
    };
    let show_one = |a: &Address| {
        format!("{}|{}|{}|{}", part(&a.name), part(&a.adl), part(&a.mailbox), part(&a.host))
    };
    list.iter().map(show_one).collect::<Vec<_>>().join(" ")
}

#[test]
fn addresses() {
    for (written, read) in [
        ("ann@example.test", "-|-|ann|example.test"),
        ("Ann Example <ann@example.test>", "Ann Example|-|ann|example.test"),
        ("\"Example, \\\"Ann\\\"\" <ann@x>", "Example, \"Ann\"|-|ann|x"),
        ("=?utf-8?q?=C3=84?= <a@x>, b@y", "=?utf-8?q?=C3=84?=|-|a|x -|-|b|y"),
        ("ann@example.test (Ann (the) Example)", "Ann (the) Example|-|ann|example.test"),
        ("(c) a . b @ (d) x . y", "c|-|a.b|x.y"),
        ("<@r,@s:a@x>", "-|@r,@s|a|x"),
        ("\"a b\"@x", "-|-|a b|x"),
        ("a@[IPv6:::1], b@y", "-|-|a|[IPv6:::1] -|-|b|y"),
        ("team: a@x, b@y;, c@z", "-|-|team|- -|-|a|x -|-|b|y -|-|-|- -|-|c|z"),
        ("undisclosed-recipients:;", "-|-|undisclosed-recipients|- -|-|-|-"),
        ("team: a@x", "-|-|team|- -|-|a|x -|-|-|-"),
        ("My Team: \"B\" <b@y>;", "-|-|My Team|- B|-|b|y -|-|-|-"),
        ("ann@example.test <ann@example.test>", "ann@example.test|-|ann|example.test"),
        ("postmaster", "-|-|postmaster|"),
        ("Mail Delivery Subsystem", "Mail Delivery Subsystem|-||"),
        ("\"Ann\", =?utf-8?q?B=C3=B6?=", "Ann|-|| =?utf-8?q?B=C3=B6?=|-||"),
        ("Ann Example ann@x, b@y", "Ann Example|-|ann|x -|-|b|y"),
        ("Ann ann@x>", "Ann|-|ann|x"),
        ("ann@x Ann Example", "-|-|ann|x"),
        ("ann@x Ann <b@y>", "ann@x Ann|-|b|y"),
        ("a@b@c", "-|-|a|b"),
        ("\"a\".\"b c\" @x (Ann)", "Ann|-|a.b c|x"),
        ("<>", "-|-||"),
        ("Ann <ann@example.test", "Ann|-|ann|example.test"),
        ("a@x; b@y", "-|-|a|x -|-|b|y"),
        ("Ann <a@x>; Bob <b@y>;c@z; <d@w", "Ann|-|a|x Bob|-|b|y -|-|c|z -|-|d|w"),
        (
            "<a@x> (c; d) e; b@y, g: <c@z>; D <d@w>",
            "-|-|a|x -|-|b|y -|-|g|- -|-|c|z -|-|-|- D|-|d|w",
        ),
        ("<a; <b@y>", "-|-|a| -|-|b|y"),
        (",,a@x,,", "-|-|a|x"),
        ("", ""),
        ("J. R. \"Bob\" Dobbs <bob@x>", "J. R. Bob Dobbs|-|bob|x"),
        ("Ann\n Example\n <ann@x>", "Ann Example|-|ann|x"),
    ] {
        let metadata = head(&format!("To: {written}"));
        assert_eq!(show(&metadata.envelope.to), read, "{written}");
    }
}

/// RFC 5322 4.5.3: destinations add up. Of all others the first counts.
#[test]
fn destinations_that_occur_twice_are_one_list() {
    let envelope = head(
        "To: a@x,\n b@x\nFrom: f@x\nCc:\nSubject: one\nTO: g: c@x;\n d@x\nFrom: h@x\nCc: e@x\n\
         Subject: two\nTo: i@x",
    )
    .envelope;
    let to = "-|-|a|x -|-|b|x -|-|g|- -|-|c|x -|-|-|- -|-|d|x -|-|i|x";
    assert_eq!(show(&envelope.to), to);
    assert_eq!(show(&envelope.cc), "-|-|e|x");
    assert_eq!(show(&envelope.from), "-|-|f|x");
    assert_eq!(envelope.subject.as_deref(), Some(&b"one"[..]));
}

#[test]
fn sender_and_reply_to_default_to_from() {
    let envelope = head("From: a@x\nSender: b@y").envelope;
    assert_eq!(show(&envelope.sender), "-|-|b|y");
    assert_eq!(show(&envelope.reply_to), "-|-|a|x");
    assert!(head("Subject: no one").envelope.sender.is_empty());
}

#[test]
fn envelope_values_stay_encoded_and_are_unfolded() {
    let envelope =
        head("Subject:  =?utf-8?q?=C3=84?=\n\tb  \nDate: Mon, 1 Jan 2024\n 10:00:00 +0100")
            .envelope;
    assert_eq!(envelope.subject.as_deref(), Some(&b"=?utf-8?q?=C3=84?=\tb"[..]));
    assert_eq!(envelope.date.as_deref(), Some(&b"Mon, 1 Jan 2024 10:00:00 +0100"[..]));
}

#[test]
fn sort_keys() {
    let sort = head(
        "Date: Mon, 1 Jan 2024 10:00:00 +0130\nSubject: Re: [list] =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\
         From: =?utf-8?b?w4RubmE=?= <anna@x>\nTo: g: bob@y;\nCc: c@z\nMessage-Id: <\"m 1\"@x>\n\
         References: <1@x> junk <2@x>\n <3@x>\nIn-Reply-To: <9@x>",
    )
    .sort;
    assert_eq!(sort.date_unix_s, Some(1_704_097_800));
    assert_eq!(sort.date_zone_min, 90);
    assert_eq!((sort.subject_base.as_str(), sort.has_re), ("Grüße", true));
    assert_eq!((sort.from_addr.as_str(), sort.display_from.as_str()), ("anna", "Änna"));
    assert_eq!((sort.to_addr.as_str(), sort.display_to.as_str()), ("g", "g"));
    assert_eq!(sort.cc_addr, "c");
    let other = head("From: \"\" <ann@x>\nTo: undisclosed-recipients:;").sort;
    assert_eq!(
        (other.display_from.as_str(), other.display_to.as_str()),
        ("ann@x", "undisclosed-recipients")
    );
    assert_eq!(sort.message_id.as_deref(), Some("m1@x"));
    assert_eq!(sort.references, ["1@x", "2@x", "3@x"]);
    assert_eq!(head("In-Reply-To: Your <9@x> of <8@x>").sort.references, ["9@x"]);
    let unzoned = head("Date: Wed, 11 Feb 98 11:51").sort;
    assert_eq!((unzoned.date_unix_s, unzoned.date_zone_min), (Some(887_197_860), 0));
    for invalid in ["yesterday", "Mon, 45 Jan 2024 10:00:00 +0000", ""] {
        assert_eq!(head(&format!("Date: {invalid}")).sort.date_unix_s, None, "{invalid}");
    }
}

#[test]
fn references_keep_root_and_nearest() {
    let ids: Vec<String> = (0..500).map(|number| format!("<{number}@x>")).collect();
    let sort = head(&format!("References: {}", ids.join("\n "))).sort;
    assert_eq!(sort.references.len(), mime::limits::REFERENCES_MAX);
    assert_eq!(sort.references[0], "0@x");
    assert_eq!(sort.references[1], "401@x");
    assert_eq!(sort.references.last().map(String::as_str), Some("499@x"));
}

#[test]
fn base_subjects() {
    for (raw, base, is_reply) in [
        ("hello", "hello", false),
        ("Re: hello", "hello", true),
        ("RE : Fwd: [list] re[2]: hello (fwd) (FWD)", "hello", true),
        ("[a][b] Re: [c] hello", "hello", true),
        ("[list]", "[list]", false),
        ("[a] [b]", "[b]", false),
        ("[fwd: Re: hello]", "hello", true),
        ("hello\t  there", "hello there", false),
        ("Reply: no", "Reply: no", false),
        ("re", "re", false),
        ("Re:", "", true),
        ("=?iso-8859-1?q?Re=3A_caf=E9?=", "café", true),
        ("", "", false),
    ] {
        assert_eq!(base_subject(raw.as_bytes()), (base.to_owned(), is_reply), "{raw}");
    }
}

#[test]
fn tabs_of_folds_read_as_spaces() {
    assert_eq!(decode_header(b" a\r\n\tb\tc =?utf-8?q?d?=\r\n\t=?utf-8?q?e?="), "a b c de");
}

#[test]
fn encoded_words() {
    for (raw, text) in [
        (&b"plain"[..], "plain"),
        (b"=?utf-8?q?a_b?= c", "a b c"),
        (b"=?UTF-8?B?w6Q=?=", "\u{e4}"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "\u{e4}"),
        (b"=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"),
        (b"=?iso-8859-1*de?q?=E4_?=", "\u{e4} "),
        (b"=?utf-8?q?a?==?utf-8?q?b?=", "ab"),
        (b"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "\u{65e5}\u{672c}"),
        (
            b"=?ISO-2022-JP?B?GyRCRnxLXDhsJEhGfEtcOGwkSEZ8S1w4bCROJUElJyVDGyhC?=\r\n \
                =?ISO-2022-JP?B?GyRCJS8bKEI=?=",
            "\u{65e5}\u{672c}\u{8a9e}\u{3068}\u{65e5}\u{672c}\u{8a9e}\u{3068}\
                \u{65e5}\u{672c}\u{8a9e}\u{306e}\u{30c1}\u{30a7}\u{30c3}\u{30af}",
        ),
        (b"=?iso-2022-jp?q?=1B$B%A=1B(B?= =?iso-2022-jp?q?=1B(J\\?=", "\u{30c1}\u{a5}"),
        (b"=?iso-2022-jp?q?=1B$B%A=1B(B=1B=1B$B%A=FF?=", "\u{30c1}\u{fffd}\u{30c1}\u{fffd}"),
        (b"=?utf-7?q?+AOQ-?=", "\u{e4}"),
        (b"=?cp932?q?=83=60?= =?cp850?q?=84?=", "\u{30c1}\u{e4}"),
        (b"=?iso-2022-kr?q?a?=", "a"),
        (b"=?nonsense?q?=C3=A4?=", "\u{e4}"),
        (b"=?broken", "=?broken"),
        (b"=?utf-8?x?a?=", "=?utf-8?x?a?="),
        (b"=??q?a?=", "=??q?a?="),
        (b"raw \xc3\xa4", "raw \u{e4}"),
        (b"raw \xe4", "raw \u{e4}"),
        (b"fold\r\n ed", "fold ed"),
        (b"", ""),
    ] {
        assert_eq!(decode_header(raw), text, "{}", String::from_utf8_lossy(raw));
    }
}

#[test]
fn parameters_are_joined_and_decoded() {
    for (field, name) in [
        ("attachment; filename=a.txt", "a.txt"),
        ("attachment; filename=\"a \\\"b\\\".txt\"", "a \"b\".txt"),
        ("attachment; FileName = my file.txt ; x=y", "my file.txt"),
        ("attachment; filename*=utf-8'de'%C3%A4.txt", "\u{e4}.txt"),
        ("attachment; filename*0*=utf-8''%C3; filename*1*=%A4; filename*2=.txt", "\u{e4}.txt"),
        (
            "attachment; filename*0*=iso-2022-jp''%1B$B%25A%1B(B; filename*1*=%1B$B%25/%1B(B.txt",
            "\u{30c1}\u{30af}.txt",
        ),
        ("attachment; filename*=utf-16''%FE%FF%00%E4", "\u{e4}"),
        ("attachment; filename*0*=utf-16''%FE%FF%00a; filename*1*=%00%E4", "a\u{e4}"),
        ("attachment; filename*0*=UTF-16''%FF%FEa%00; filename*1*=%E4%00", "a\u{e4}"),
        ("attachment; filename=plain; filename*=utf-8''better", "better"),
        ("attachment; filename=\"=?utf-8?q?=C3=A4?=.txt\"", "\u{e4}.txt"),
        ("attachment; filename=a.txt (a comment)", "a.txt"),
        ("attachment\n ;filename=\"a\n b.txt\"", "a b.txt"),
    ] {
        let part = head(&format!("Content-Disposition: {field}")).structure;
        assert_eq!(part.file_name().as_deref(), Some(name), "{field}");
        let kind = part.disposition.map(|disposition| disposition.kind);
        assert_eq!(kind.as_deref(), Some("attachment"));
    }
    let part = head("Content-Type: IMAGE / (x) Png; NAME=a.png").structure;
    assert!(part.content_type.is("image", "png"));
    assert_eq!(part.file_name().as_deref(), Some("a.png"));
}

/// RFC 9051 7.5.2.
#[test]
fn continuations_are_shown_as_one_parameter() {
    for (written, shown) in [
        ("a=b; c=d", "a=b c=d"),
        ("name*0=\"long \"; x=y; name*1=name.txt", "name=long name.txt x=y"),
        ("name*1=b; name*0=a", "name=ab"),
        ("name*=utf-8''%C3%A4", "name*=utf-8''%C3%A4"),
        ("name*0*=utf-8'de'%C3; name*1*=%A4%20b; name*2=\"c d\"", "name*=utf-8''%C3%A4%20bc%20d"),
        ("name*0*=iso-8859-1''%E4; name*1=.txt", "name*=utf-8''%C3%A4.txt"),
        ("name*0*=x-none''%E4; name*1=.txt", "name*=x-none''%E4.txt"),
        (
            "name*0*=iso-2022-jp''%1B$B%25A%1B(B; name*1*=%1B$B%25/%1B(B",
            "name*=utf-8''%E3%83%81%E3%82%AF",
        ),
        ("name*0*=cp850''%84; name*1=.txt", "name*=utf-8''%C3%A4.txt"),
        ("name*0*=utf-16''%FE%FF%00; name*1*=%E4", "name*=utf-8''%C3%A4"),
        ("name*0*=shift_jis''%83`%83; name*1=.txt", "name*=shift_jis''%83%60%83.txt"),
        ("name*0*=UTF-8'de'%C3; name*1=.txt", "name*=UTF-8''%C3.txt"),
        ("name=short; name*0=lo; name*1=ng", "name=long"),
        ("name*1=a; name*2=b", "name*1=a name*2=b"),
        ("name*0=a; name*2=c", "name=a name*2=c"),
        ("name*0=a; other*0=x; name*1=b; other*1*=%41", "name=ab other*=utf-8''xA"),
        ("*0=a; name*x=b; name*1234=c", "*0=a name*x=b name*1234=c"),
    ] {
        let part = head(&format!("Content-Type: image/png; {written}")).structure;
        let parameters = mime::join_continuations(&part.content_type.parameters);
        let show =
            |p: &mime::Parameter| format!("{}={}", p.name, String::from_utf8_lossy(&p.value));
        assert_eq!(parameters.iter().map(show).collect::<Vec<_>>().join(" "), shown, "{written}");
    }
}

fn decode(encoding: &str, raw: &[u8], cut: usize) -> String {
    let mut decoder = TransferDecoder::new(encoding).expect("known encoding");
    let mut decoded = Vec::new();
    raw.chunks(cut).for_each(|piece| decoder.feed(piece, &mut decoded));
    decoder.finish(&mut decoded);
    String::from_utf8(decoded).expect("test texts are UTF-8")
}

#[test]
fn transfer_encodings() {
    for (encoding, raw, text) in [
        ("7bit", "a=\r\n", "a=\r\n"),
        ("BASE64", "SGVs\r\nbG8=\r\n", "Hello"),
        ("base64", "SGVsbG8", "Hello"),
        ("base64", "SGk=SGk=", "HiHi"),
        ("base64", "S!G k=", "Hi"),
        ("base64", "S", ""),
        ("quoted-printable", "a=3Db=\r\nc=\nd", "a=bcd"),
        ("quoted-printable", "a  \r\nb\t\n", "a\r\nb\n"),
        ("quoted-printable", "a = \r\nb", "a b"),
        ("quoted-printable", "a=3db", "a=b"),
        ("quoted-printable", "a=zz=4", "a=zz=4"),
        ("quoted-printable", "a\rb \rc", "a\rb \rc"),
        ("quoted-printable", "end  ", "end"),
        ("quoted-printable", "end=", "end"),
    ] {
        for cut in [1, 2, 3, 100] {
            assert_eq!(decode(encoding, raw.as_bytes(), cut), text, "{encoding} {raw:?} {cut}");
        }
    }
    assert!(TransferDecoder::new("x-uuencode").is_none());
}

#[test]
fn misspelt_names_of_no_encoding_are_understood() {
    for encoding in ["7bits", "7-bit", "8bits", "8-Bit"] {
        assert_eq!(decode(encoding, b"a=3Db\r\n", 2), "a=3Db\r\n", "{encoding}");
    }
    for unknown in ["utf-8", "none", "16bit"] {
        assert!(TransferDecoder::new(unknown).is_none(), "{unknown}");
    }
}

/// RFC 2152, its examples among them.
#[test]
fn utf_7_in_any_cuts() {
    for (raw, text) in [
        ("A+ImIDkQ.", "A\u{2262}\u{391}."),
        ("Hi Mom -+Jjo--!", "Hi Mom -\u{263a}-!"),
        ("+ZeVnLIqe-", "\u{65e5}\u{672c}\u{8a9e}"),
        ("Item 3 is +AKM-1.", "Item 3 is \u{a3}1."),
        ("1 +- 1 +-- 2", "1 + 1 +- 2"),
        ("+2D3eAA-", "\u{1f600}"),
        ("caf+AOk x+AOk", "caf\u{e9} x\u{e9}"),
        ("+2D0-x+3gA-+2D0A6Q", "\u{fffd}x\u{fffd}\u{fffd}\u{e9}"),
        ("a+ b+", "a+ b+"),
    ] {
        for cut in [1, 2, 3, 100] {
            let mut decoder = CharsetDecoder::new("UTF-7");
            let mut decoded = String::new();
            raw.as_bytes().chunks(cut).for_each(|piece| decoder.feed(piece, &mut decoded));
            decoder.finish(&mut decoded);
            assert_eq!(decoded, text, "{raw} {cut}");
        }
    }
    assert!(CharsetDecoder::is_known("utf-7"));
}

/// Names that mail has and browsers do not, in any case and between spaces.
#[test]
fn charsets_by_their_other_names_in_any_cuts() {
    for (names, raw, text) in [
        (
            "cp932 CP932 windows-31j x-sjis shift_jis",
            &b"a\x83\x60\x93\xfa"[..],
            "a\u{30c1}\u{65e5}",
        ),
        ("cp936 MS936 gb2312 gb_2312_80 windows_936 csGBK", b"\xb0\xa1", "\u{554a}"),
        ("cp949 ms949 ks_c_5601-1987 ks_c_5601_1987 euc_kr", b"\xb0\xa1", "\u{ac00}"),
        ("cp950 ms950 windows-950 big5", b"\xa4\x40", "\u{4e00}"),
        (
            "iso-2022-jp ISO-2022-JP-MS iso_2022_jp_2 cp50220 CP50221",
            b"\x1b$B%A\x1b(Ba",
            "\u{30c1}a",
        ),
        ("cp850 IBM850 850 cspc850multilingual", b"\x84b\x94", "\u{e4}b\u{f6}"),
        ("iso_8859_5:1988 iso_8859_5", b"\xb0", "\u{410}"),
        ("latin8", b"\xa1", "\u{1e02}"),
        ("utf_7 csUTF7", b"+AOQ-", "\u{e4}"),
        ("csUTF16BE utf_16be", b"\x00\xe4", "\u{e4}"),
        ("utf-16 UTF_16 utf16 csUTF16", b"\xfe\xff\x00\xe4\x00b", "\u{e4}b"),
        ("utf-16 UTF_16 utf16 csUTF16", b"\xff\xfe\xe4\x00b\x00", "\u{e4}b"),
        ("utf-16 UTF_16 utf16 csUTF16 utf-16le", b"\xe4\x00b\x00", "\u{e4}b"),
        ("utf-16le", b"\xfe\xff\xe4\x00", "\u{fffe}\u{e4}"),
        ("us_ascii", b"\xe4", "\u{e4}"),
    ] {
        for name in names.split(' ') {
            assert!(CharsetDecoder::is_known(name), "{name}");
            for cut in [1, 2, 100] {
                let mut decoder = CharsetDecoder::new(&format!(" {name}"));
                let mut decoded = String::new();
                raw.chunks(cut).for_each(|piece| decoder.feed(piece, &mut decoded));
                decoder.finish(&mut decoded);
                assert_eq!(decoded, text, "{name} {cut}");
            }
        }
    }
    assert!(!CharsetDecoder::is_known("iso-2022-kr") && !CharsetDecoder::is_known("nonsense"));
}

#[test]
fn escape_sequences_of_iso_2022_jp_that_say_nothing_in_any_cuts() {
    let raw = b"\x1b(B\x1b$B%A\x1b(B\x1b(J\x1b$B%/\x1b(B\x1b$B\x1b(B.\x1b$x\x1b(B";
    for cut in [1, 2, 3, 4, 5, 7, 100] {
        let mut decoder = CharsetDecoder::new("ISO-2022-JP");
        let mut decoded = String::new();
        raw.chunks(cut).for_each(|piece| decoder.feed(piece, &mut decoded));
        decoder.finish(&mut decoded);
        assert_eq!(decoded, "\u{30c1}\u{30af}.\u{fffd}$x", "{cut}");
    }
}

#[test]
fn folding_for_search() {
    assert_eq!(fold("Grüße"), fold("GRÜSSE"));
    assert_eq!(fold("ΟΔΟΣ"), fold("οδος"));
    assert_eq!(fold("ASCII"), "ascii");
    assert_eq!(fold("\u{212a}"), "k");
    assert_eq!(fold("E\u{301}te\u{301} \u{1112}\u{1161}\u{11ab}"), fold("\u{e9}t\u{e9} \u{d55c}"));
    assert_eq!(fold("\u{304b}\u{3099}"), fold("\u{304c}"));
    assert!(!fold("\u{e9}").contains('e'));
}

#[test]
fn order_for_sort() {
    let sorted = ["", "123", "Alpha", "\u{c4}pfel", "beta", "Zoo", "[x", "_y", "\u{3b1}"];
    let mut keys: Vec<_> = sorted.iter().map(|text| (mime::collation_key(text), text)).collect();
    keys.sort();
    assert_eq!(keys.iter().map(|(_, text)| **text).collect::<Vec<_>>(), sorted);
    assert_eq!(mime::collation_key("\u{c4}PFEL"), mime::collation_key("a\u{308}pfel"));
}

#[test]
fn keys_for_sort_are_short() {
    // Greek, whose small letter is three in capitals, and those have marks of their own.
    for text in ["x", "\u{e9}", "\u{390}", "\u{1fb7}", "\u{d55c}", "\u{1f600}"] {
        let (many, more) = (text.repeat(128), text.repeat(1000));
        assert_eq!(mime::collation_key(&more), mime::collation_key(&many), "{text}");
        assert!(mime::collation_key(&more).len() <= 128 * 16, "{text}");
        let less = text.repeat(127);
        assert!(mime::collation_key(&less) < mime::collation_key(&many), "{text}");
    }
}

#[test]
fn header_fields_as_written() {
    let block = b"From mbox line\nA: 1\r\n\t2\r\nno field\n folded\nB :x\nEmpty:\r\n\r\nC: body";
    let fields: Vec<_> =
        header_fields(block).map(|field| (field.name, field.value, field.raw)).collect();
    assert_eq!(
        fields,
        [
            (&b"A"[..], &b" 1\r\n\t2"[..], &b"A: 1\r\n\t2\r\n"[..]),
            (b"B", b"x", b"B :x\n"),
            (b"Empty", b"", b"Empty:\r\n"),
        ]
    );
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn decoders_do_not_see_cuts(raw in "[ -~=\\r\\n\\t]{0,60}", cut in 1..9_usize) {
        for encoding in ["base64", "quoted-printable"] {
            let decode = |cut| {
                let mut decoder = TransferDecoder::new(encoding).expect("known");
                let mut octets = Vec::new();
                raw.as_bytes().chunks(cut).for_each(|piece| decoder.feed(piece, &mut octets));
                decoder.finish(&mut octets);
                octets
            };
            prop_assert_eq!(decode(cut), decode(1000));
        }
    }

    #[test]
    fn charsets_do_not_see_cuts(
        raw in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(0xc3), Just(0xa4), Just(0x41)],
            0..60,
        ),
        cut in 1..9_usize,
    ) {
        let single = ["", "?", "utf-8", "iso-8859-1"];
        let double = ["shift_jis", "utf-16le", "utf-16", "iso-2022-jp", "gb18030"];
        for charset in single.into_iter().chain(double) {
            let decode = |cut| {
                let mut decoder = CharsetDecoder::new(charset);
                let mut text = String::new();
                raw.chunks(cut).for_each(|piece| decoder.feed(piece, &mut text));
                decoder.finish(&mut text);
                text
            };
            prop_assert_eq!(decode(cut), decode(1000), "{}", charset);
        }
    }

    #[test]
    fn text_of_no_charset_does_not_see_cuts(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                &b"a"[..],
                b"\xc3\xa9",
                b"\xe2\x82\xac",
                b"\xf0\x9f\x98\x80",
                b"\xe9",
                b"\xf0\x9f",
            ]),
            0..60,
        ),
        cuts in prop::collection::vec(1..20_usize, 1..8),
    ) {
        let raw = pieces.concat();
        let decode = |cuts: &[usize]| {
            let mut decoder = CharsetDecoder::new("");
            let mut text = String::new();
            let (mut rest, mut lengths) = (&raw[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let length = lengths.next().copied().unwrap_or(rest.len());
                let (piece, behind) = rest.split_at(length.min(rest.len()));
                decoder.feed(piece, &mut text);
                rest = behind;
            }
            decoder.finish(&mut text);
            text
        };
        prop_assert_eq!(decode(&cuts), decode(&[1000]));
    }

    #[test]
    fn addresses_never_panic(list in "([a-c@<>,;:\"\\\\()\\[\\]. \\r\\n\\t]|\\n ){0,40}") {
        let raw = format!("To: {list}\r\nFrom: {list}\r\nSubject: {list}\r\n\r\n");
        let metadata = scan(raw.as_bytes());
        check(raw.as_bytes(), &metadata);
        for address in &metadata.envelope.to {
            prop_assert!(address.host.is_none() || address.mailbox.is_some());
        }
    }

    #[test]
    fn parameters_never_panic(field in "[a-c*0-2'%\";= /()\\\\\\r\\n]{0,60}") {
        let raw = format!("Content-Type: a/b;{field}\r\nContent-Disposition: {field}\r\n\r\n");
        let metadata = scan(raw.as_bytes());
        check(raw.as_bytes(), &metadata);
        let part = metadata.structure;
        part.file_name();
        mime::join_continuations(&part.content_type.parameters);
        for parameter in &part.content_type.parameters {
            part.content_type.parameter(&parameter.name);
        }
    }
}
