//! The parsers, each as a function of an input.

#[path = "../../../crates/mailbox/tests/memory/mod.rs"]
pub(super) mod memory;

use std::cell::RefCell;

use bytes::Bytes;
use imap::Config;
use mailbox::UidSet;
use mailbox::command::{AccountChange, Quota};
use mailbox::dialogue::Engine;
use memory::Shard;
use memory::play::Play;

use super::Target;

const MIB: usize = 1 << 20;
/// Messages an account of the targets' store may have.
const MESSAGES_MAX: u64 = 100;

/// All there are.
pub const ALL: [Target; 7] = [
    Target { name: "imap", run: imap, budget_bytes: 16 * MIB, words: IMAP_WORDS },
    Target { name: "sets", run: sets, budget_bytes: 16 * MIB, words: &[b":", b",", b"*", b"$"] },
    Target { name: "pop3", run: pop3, budget_bytes: 8 * MIB, words: POP3_WORDS },
    Target { name: "lmtp", run: lmtp, budget_bytes: 8 * MIB, words: LMTP_WORDS },
    Target { name: "mime", run: mime, budget_bytes: 16 * MIB, words: MIME_WORDS },
    Target { name: "journal", run: journal::fuzz::read, budget_bytes: 8 * MIB, words: &[] },
    Target { name: "checkpoint", run: checkpoint, budget_bytes: 48 * MIB, words: &[] },
];

const IMAP_WORDS: &[&[u8]] = &[
    b"\r\n",
    b"(",
    b")",
    b"\"",
    b"{5}\r\n",
    b"{5+}\r\n",
    b"~{5+}\r\n",
    b"[",
    b"]",
    b"<0.5>",
    b" NIL ",
    b"*",
    b"%",
    b"\\Seen",
    b"BODY.PEEK[1.MIME]",
    b"HEADER.FIELDS (A)",
    b"OR NOT ",
    b"CHARSET UTF-8 ",
    b"&-",
    b"&AGk-",
    b"RETURN (SAVE)",
    b"$",
    b"MODSEQ 1",
    b"UID ",
    b"a FETCH 1:* (BODYSTRUCTURE)\r\n",
    b"a IDLE\r\n",
    b"DONE\r\n",
    b"((((((((((",
];
const POP3_WORDS: &[&[u8]] = &[
    b"\r\n",
    b"USER jo@example.test\r\n",
    b"PASS pw\r\n",
    b"AUTH PLAIN ",
    b"AUTH PLAIN\r\n",
    b"*\r\n",
    b"STLS\r\n",
    b"TOP 1 0\r\n",
    b"RETR 1\r\n",
    b"DELE 1\r\n",
    b"LIST\r\n",
    b"UIDL\r\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"=",
];
const LMTP_WORDS: &[&[u8]] = &[
    b"\r\n",
    b"LHLO c\r\n",
    b"MAIL FROM:<a@b>\r\n",
    b"RCPT TO:<jo@example.test>\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\n",
    b"BDAT 5 LAST\r\n",
    b"RSET\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"<",
    b">",
    b"@x:",
    b" SMTPUTF8",
    b" SIZE=5",
    b"\"",
    b"\\",
];
const MIME_WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"--b\r\n",
    b"--b--\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"=?utf-8?B?",
    b"=?x?Q?=zz?=",
    b"?=",
    b"boundary*0=",
    b"name*1*=utf-8''%ff",
    b";",
    b":",
    b"<",
    b">",
    b"(",
    b"\\",
    b"\"",
    b",",
    b"group: a@b;",
    b"Date: ",
    b"References: <a@b> <c@d>\r\n",
];

thread_local! {
    /// A store with accounts and mail, made once.
    static STORE: RefCell<Option<Shard>> = const { RefCell::new(None) };
}

const MAIL: &[u8] = b"From: A <a@x.test>\r\nTo: jo@example.test\r\nSubject: =?utf-8?q?h=C3=A9?=\r\n\
    MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
    Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+\r\n--b--\r\n";

fn store() -> Shard {
    STORE.with_borrow_mut(|store| {
        let store = store.get_or_insert_with(|| {
            let mut shard = Shard::default();
            for name in ["jo@example.test", "al@example.test", "ann@example.test"] {
                let account = shard.create_account(name, "");
                // Why: a seed with six COPYs of a mailbox into itself, four times over, doubles it 24 times.
                let quota = Quota { storage_bytes: None, n_messages: Some(MESSAGES_MAX) };
                shard.change_account(account, AccountChange::Quota(quota));
                shard.deliver(account, MAIL);
                shard.deliver(account, b"Subject: two\r\n\r\n.dot\r\nlong line\n");
            }
            shard
        });
        store.clone()
    })
}

fn play(engine: Box<dyn Engine>) -> Play {
    let mut play = Play::quiet(engine, store());
    for name in ["jo@example.test", "al@example.test"] {
        play.set_password(name, "pw");
    }
    play.set_password("ann@example.test", "secret");
    play.run();
    play
}

fn imap_session() -> Play {
    play(Box::new(imap::Session::new(Config {
        hostname: "h".into(),
        tls_available: true,
        tls_active: false,
        plain_logins_allowed: true,
        message_bytes_max: 100_000,
        separator: '/',
        nonce: [1; 16],
    })))
}

/// A session that is logged in and has a mailbox selected for half of the inputs.
fn imap(input: &[u8]) {
    let mut play = imap_session();
    if input.len().is_multiple_of(2) {
        play.receive(b"L LOGIN ann@example.test secret\r\nS SELECT INBOX\r\n");
    }
    end(play, input);
}

/// Sequence sets, where clients and disks may say them.
fn sets(input: &[u8]) {
    // A set from a disk; damaged ones are refused.
    let _ = mailbox::codec::decode::<UidSet>(input);
    let set: Vec<u8> = input.iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect();
    let set = String::from_utf8_lossy(&set);
    let lines = format!(
        "L LOGIN ann@example.test secret\r\nS SELECT INBOX\r\n1 FETCH {set} UID\r\n\
         2 UID FETCH {set} FLAGS\r\n3 UID STORE {set} +FLAGS (x)\r\n4 SEARCH RETURN (ALL) {set}\r\n\
         5 UID SEARCH UID {set} OR {set} NOT {set}\r\n6 COPY {set} Sent\r\n7 UID EXPUNGE {set}\r\n\
         8 CLOSE\r\n9 ENABLE QRESYNC\r\n0 SELECT INBOX (QRESYNC (1 1 {set} ({set} {set})))\r\n"
    );
    end(imap_session(), lines.as_bytes());
}

fn pop3(input: &[u8]) {
    let is_plain = input.len().is_multiple_of(2);
    let engine = pop3::Session::new(pop3::Settings {
        hostname: "h".into(),
        is_tls: false,
        can_start_tls: !is_plain,
        allow_plain_login: is_plain,
    });
    end(play(Box::new(engine)), input);
}

fn lmtp(input: &[u8]) {
    let engine = lmtp::Session::new(lmtp::Settings {
        hostname: "h".into(),
        session: "s".into(),
        peer: None,
        message_bytes_max: 10_000,
    });
    end(play(Box::new(engine)), input);
}

/// Feeds it in two cuts, and ends it as a client would that goes away.
fn end(mut play: Play, input: &[u8]) {
    let (first, second) = input.split_at(input.len() / 3);
    play.receive(first);
    play.receive(second);
    if !play.is_closed {
        play.event("eof");
    }
}

/// A message, whole and cut; and its pieces through every decoder.
fn mime(input: &[u8]) {
    let whole = mime::scan(input);
    let mut scanner = mime::Scanner::new();
    for piece in input.chunks(7) {
        scanner.feed(piece);
    }
    assert_eq!(scanner.finish(), whole, "cuts made a difference");
    whole.structure.walk(&mut |part| {
        let range = part.whole();
        assert!(range.end <= input.len() as u64 && range.start <= range.end, "{range:?}");
        let _ = (part.content_type.charset(), part.file_name());
    });
    for field in mime::header_fields(input) {
        let _ = mime::decode_header(field.value);
        let _ = mime::base_subject(&mime::unfold(field.value));
    }
    for encoding in ["base64", "quoted-printable", "7bit"] {
        if let Some(mut decoder) = mime::TransferDecoder::new(encoding) {
            let mut decoded = Vec::new();
            decoder.feed(input, &mut decoded);
            decoder.finish(&mut decoded);
            assert!(decoded.len() <= input.len() + 4, "decoding makes nothing larger");
        }
    }
    for charset in ["utf-8", "iso-2022-jp", "utf-16", "gb18030", "unknown"] {
        let (mut decoder, mut text) = (mime::CharsetDecoder::new(charset), String::new());
        decoder.feed(input, &mut text);
        decoder.finish(&mut text);
        let _ = mime::fold(&text);
    }
}

fn checkpoint(input: &[u8]) {
    replica::fuzz::read(&Bytes::copy_from_slice(input));
}
