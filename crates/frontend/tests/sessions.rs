//! Whole frontends on real sockets, over a store in memory.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

mod client;
mod house;
#[path = "../../mailbox/tests/memory/mod.rs"]
mod memory;
mod store;

use std::sync::Arc;
use std::time::Duration;

use client::{Client, PATIENCE};
use frontend::{Frontend, Protocol};
use house::{House, config, house_with_tls};
use mailbox::command::{AccountChange, Quota};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// An error as the binary prints it: with what caused it.
fn printed(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_frontend_from_starting_is_said_once() {
    let held = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = held.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let there = directory.path().join("no socket");
    std::fs::write(&there, b"").unwrap();
    let there = there.display();
    let _listening = std::os::unix::net::UnixListener::bind(format!("{there}.held")).unwrap();
    let tls = |tail: &str| format!("tls_certificate = '{there}{tail}'\ntls_key = '{there}{tail}'");
    let made = rcgen::generate_simple_self_signed(vec!["mail.test".into()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["mail.test".into()]).unwrap();
    std::fs::write(format!("{there}.pem"), made.cert.pem() + &other.signing_key.serialize_pem())
        .unwrap();
    let cases = [
        (tls(".pem"), "keymismatch", false),
        (String::new(), "in use", true),
        (format!("lmtp_unix = {{ path = '{there}.held' }}"), "in use", false),
        (format!("lmtp_unix = {{ path = '{there}' }}"), "there is a file that is no socket", false),
        (tls(""), "no certificate in it", false),
    ];
    for (more, why, http) in cases {
        let store: Arc<dyn frontend::Store> = Arc::new(store::Memory::default());
        let config = frontend::Config { http: http.then_some(taken), ..config(&more) };
        let started = Frontend::start_over(&config, store, CancellationToken::new()).await;
        let text = printed(&started.err().unwrap());
        assert_eq!(text.to_lowercase().matches(why).count(), 1, "{text}");
    }
    let text = printed(&frontend::Config::from_toml("name = 1").unwrap_err());
    assert_eq!(text.matches("invalid type").count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lmtp_takes_pop3_gives() {
    let house = House::new("").await;
    let small = b"Subject: small\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n".to_vec();
    let lines = (0..60_000).flat_map(|n: u32| format!("line {n} {}\r\n", n * 7919).into_bytes());
    let large = [b"Subject: large\r\n\r\n".to_vec(), lines.collect()].concat();
    for raw in [&small, &large] {
        assert_eq!(house.deliver(raw).await, "250 2.1.5 Delivered");
    }
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("+OK 2 messages"));
    for (number, raw) in [(1, &small), (2, &large)] {
        assert!(pop3.say(&format!("RETR {number}")).await.starts_with("+OK"));
        let got = pop3.until_dot().await;
        let got = got.strip_suffix(b".\r\n").unwrap();
        assert!(got.starts_with(b"Return-Path: <a@b>\r\nDelivered-To: jo@example.test\r\n"));
        assert!(got.ends_with(raw), "message {number} is not what was sent");
    }
    assert_eq!(pop3.say("DELE 1").await, "+OK Deleted at QUIT");
    assert_eq!(pop3.say("QUIT").await, "+OK Bye");
    pop3.end().await;
    let mut again = house.client(Protocol::Pop3).await;
    assert!(again.log_in("secret").await.starts_with("+OK 1 messages"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_chunks_without_a_last_line_end_has_the_size_it_is_sent_with() {
    let house = House::new("").await;
    let mut lmtp = house.client(Protocol::Lmtp).await;
    lmtp.send(b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\nBDAT 4 LAST\r\nA: 1")
        .await;
    while lmtp.line().await != "250 2.1.5 Delivered" {}
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("+OK 1 messages"));
    let told = pop3.say("RETR 1").await;
    let got = pop3.until_dot().await;
    assert!(got.ends_with(b"A: 1\r\n.\r\n"));
    assert_eq!(told, format!("+OK {} octets", got.len() - ".\r\n".len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_try_of_mail_for_a_group_doubles_nothing() {
    let house = House::new("").await;
    house.memory.create_account("al@example.test", "secret");
    house.memory.change(|state| {
        state.shard.set_group("all@example.test", &["jo@example.test", "al@example.test"]);
    });
    let small = b"Subject: small\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n".to_vec();
    // What compresses badly.
    let mixed = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 7)).wrapping_pow(3);
    let lines = (0..120_000).flat_map(|n| format!("{:016x}\r\n", mixed(n)).into_bytes());
    let large = [b"Subject: large\r\n\r\n".to_vec(), lines.collect()].concat();
    house.memory.suspend("al@example.test");
    let suspended = "450 4.2.1 Account suspended";
    assert_eq!(house.deliver_to("all@example.test", &small).await, suspended);
    // Who has the large one could not be told next time: it does not wait for who is suspended.
    assert_eq!(house.deliver_to("all@example.test", &large).await, "250 2.1.5 Delivered");
    assert_eq!(house.deliver_to("all@example.test", &small).await, suspended);
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("+OK 2 messages"));
    pop3.say("QUIT").await;
    house.memory.resume("al@example.test");
    assert_eq!(house.deliver_to("all@example.test", &small).await, "250 2.1.5 Delivered");
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("+OK 2 messages"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maildrop_is_one_sessions_and_free_when_that_is_gone() {
    let house = House::new("").await;
    let mut first = house.client(Protocol::Pop3).await;
    assert!(first.log_in("secret").await.starts_with("+OK"));
    let mut second = house.client(Protocol::Pop3).await;
    assert!(second.log_in("secret").await.contains("[IN-USE]"));
    drop(first);
    house.memory.until(|state| state.locks.is_empty()).await;
    second.say("USER jo@example.test").await;
    assert!(second.say("PASS secret").await.starts_with("+OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_maildrop_to_another_session_removes_nothing() {
    let house = House::new("").await;
    house.deliver(b"A: 1\r\n").await;
    let account = house.memory.account("jo@example.test");
    let mut first = house.client(Protocol::Pop3).await;
    assert!(first.log_in("secret").await.starts_with("+OK"));
    first.say("DELE 1").await;
    // A new leader knew of no lock, and somebody else came first.
    house.memory.change(|state| state.locks.insert(account, [7; 16]));
    assert!(first.say("QUIT").await.starts_with("-ERR [SYS/TEMP] Another session"));
    first.end().await;
    house.memory.change(|state| state.locks.remove(&account));
    let mut again = house.client(Protocol::Pop3).await;
    assert!(again.log_in("secret").await.starts_with("+OK 1 messages"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_maildrop_is_taken_again_at_once_or_ends_the_session() {
    let house = House::new("").await;
    let account = house.memory.account("jo@example.test");
    let mut first = house.client(Protocol::Pop3).await;
    assert!(first.log_in("secret").await.starts_with("+OK"));
    house.memory.until(|state| state.n_watches > 0).await;
    let soon = Duration::from_secs(5);
    house.memory.lose_locks(account, None);
    let taken = house.memory.until(|state| state.locks.contains_key(&account));
    timeout(soon, taken).await.expect("long before the next renewal");
    assert_eq!(first.say("NOOP").await, "+OK");
    house.memory.lose_locks(account, Some([7; 16]));
    let told = async {
        loop {
            let told = first.say("NOOP").await;
            if told != "+OK" {
                return told;
            }
        }
    };
    let told = timeout(soon, told).await.expect("long before the next renewal");
    assert!(told.starts_with("-ERR [SYS/TEMP] Another session"), "{told}");
    first.end().await;
    assert_eq!(house.memory.with(|state| state.locks.get(&account).copied()), Some([7; 16]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_idles_is_told_also_of_what_could_not_be_found_out_at_once() {
    let house = House::new("").await;
    let mut imap = house.client(Protocol::Imap).await;
    imap.line().await;
    imap.until_tag("a LOGIN jo@example.test secret").await;
    imap.until_tag("b SELECT INBOX").await;
    assert!(imap.say("c IDLE").await.starts_with('+'));
    house.memory.until(|state| state.n_news == 1).await;
    house.memory.change(|state| state.n_troubles = 2);
    // Nothing else comes that could remind it.
    house.deliver(b"A: 1\r\n").await;
    assert_eq!(imap.line().await, "* 1 EXISTS");
    assert_eq!(house.memory.with(|state| state.n_troubles), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_meets_the_end_of_another_session_waits_for_it() {
    let house = House::new("").await;
    let mut first = house.client(Protocol::Pop3).await;
    assert!(first.log_in("secret").await.starts_with("+OK"));
    let mut second = house.client(Protocol::Pop3).await;
    let end_of_first = async {
        house.memory.until(|state| state.n_locked_out > 0).await;
        assert_eq!(first.say("QUIT").await, "+OK Bye");
    };
    let (answer, ()) = tokio::join!(second.log_in("secret"), end_of_first);
    assert!(answer.starts_with("+OK"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_checked_and_a_changed_one_counts_at_once() {
    let house = House::new("").await;
    for _ in 0..2 {
        let mut pop3 = house.client(Protocol::Pop3).await;
        assert!(pop3.log_in("secret").await.starts_with("+OK"));
        pop3.say("QUIT").await;
    }
    house.memory.set_password("jo@example.test", "other");
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("-ERR [AUTH]"));
    pop3.say("USER jo@example.test").await;
    assert!(pop3.say("PASS other").await.starts_with("+OK"));
    pop3.say("QUIT").await;
    house.memory.suspend("jo@example.test");
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("other").await.starts_with("-ERR [AUTH] Account disabled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_another_account_has_now_is_that_one_s_at_once() {
    let house = House::new("").await;
    house.memory.replace("jo@example.test", "jo2@example.test", "fresh");
    let mut pop3 = house.client(Protocol::Pop3).await;
    let said = pop3.log_in("fresh").await;
    assert!(said.starts_with("+OK"), "{said}");
    pop3.say("QUIT").await;
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("-ERR [AUTH]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_an_account_are_counted() {
    let house = House::new("connections_per_account_max = 1").await;
    let mut first = house.client(Protocol::Pop3).await;
    assert!(first.log_in("secret").await.starts_with("+OK"));
    let mut second = house.client(Protocol::Pop3).await;
    let said = second.log_in("secret").await;
    assert_eq!(said, "-ERR [SYS/TEMP] Too many connections of this account");
    let mut third = house.client(Protocol::Imap).await;
    third.line().await;
    let said = third.until_tag("a LOGIN jo@example.test secret").await;
    assert_eq!(said.last(), "a NO [LIMIT] too many connections of this account");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_turned_away() {
    let house = House::new("connections_max = 1").await;
    let mut first = house.client(Protocol::Lmtp).await;
    assert!(first.line().await.starts_with("220"));
    let mut second = house.client(Protocol::Lmtp).await;
    assert_eq!(second.line().await, "421 4.3.2 Too many connections");
    // Who fills the places of mail clients keeps no mail out, nor the other way round.
    let mut imap = house.client(Protocol::Imap).await;
    assert!(imap.line().await.starts_with("* OK"));
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert_eq!(pop3.line().await, "-ERR [SYS/TEMP] Too many connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_refused_and_the_next_one_taken() {
    let house = House::new("message_bytes_max = 300000").await;
    let raw = [b"A: 1\r\n\r\n".to_vec(), b"01234567\r\n".repeat(100_000)].concat();
    assert_eq!(house.deliver(&raw).await, "552 5.3.4 Message too large");
    assert_eq!(house.deliver(&raw[..200_008]).await, "250 2.1.5 Delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_a_large_message_that_does_not_come_to_its_end() {
    let house = House::new("").await;
    let noise = (0..60_000u32).map(|n| format!("{}\r\n", mailbox::Digest::of(&n.to_be_bytes())));
    let raw = noise.collect::<String>();
    let mut lmtp = house.client(Protocol::Lmtp).await;
    lmtp.send(b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\nDATA\r\n").await;
    while !lmtp.line().await.starts_with("354") {}
    lmtp.send(raw.as_bytes()).await;
    let is_begun = house.memory.until(|state| !state.shard.has_no_uploads());
    timeout(PATIENCE, is_begun).await.expect("it is sent ahead");
    drop(lmtp);
    let is_gone = house.memory.until(|state| state.shard.has_no_uploads());
    timeout(PATIENCE, is_gone).await.expect("it is let go of");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_a_large_message_that_is_refused_at_its_end() {
    let house = House::new("").await;
    let noise = (0..60_000u32).map(|n| format!("{}\r\n", mailbox::Digest::of(&n.to_be_bytes())));
    let raw = noise.collect::<String>();
    let account = house.memory.account("jo@example.test");
    // Its own octets, and not the trace.
    let quota = Quota { storage_bytes: Some(raw.len() as u64 + 1), n_messages: None };
    house.memory.change(|state| {
        state.shard.change_account(account, AccountChange::Quota(quota));
    });
    let said = house.deliver(raw.as_bytes()).await;
    assert!(said.starts_with("452 4.2.2") || said.starts_with("552 5.2.2"), "{said}");
    assert!(house.memory.with(|state| state.n_uploads > 0), "it was sent ahead");
    let is_gone = house.memory.until(|state| state.shard.has_no_uploads());
    timeout(PATIENCE, is_gone).await.expect("it is let go of");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_a_large_message_that_nobody_of_a_group_takes() {
    let house = House::new("").await;
    let noise = (0..60_000u32).map(|n| format!("{}\r\n", mailbox::Digest::of(&n.to_be_bytes())));
    let raw = noise.collect::<String>();
    let full = house.memory.create_account("al@example.test", "secret");
    // Its own octets, and not the trace.
    let quota = Quota { storage_bytes: Some(raw.len() as u64 + 1), n_messages: None };
    house.memory.change(|state| {
        state.shard.change_account(full, AccountChange::Quota(quota));
        state.shard.set_group("all@example.test", &["jo@example.test", "al@example.test"]);
    });
    let mut lmtp = house.client(Protocol::Lmtp).await;
    lmtp.send(b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<all@example.test>\r\nDATA\r\n").await;
    while !lmtp.line().await.starts_with("354") {}
    lmtp.send(raw.as_bytes()).await;
    lmtp.send(b".\r\n").await;
    assert_eq!(lmtp.line().await, "452 4.2.2 Mailbox full");
    assert!(house.memory.with(|state| state.n_uploads > 0), "it was sent ahead");
    // As long as the session lives nobody else lets go of it.
    let is_gone = house.memory.until(|state| state.shard.has_no_uploads());
    timeout(PATIENCE, is_gone).await.expect("it is let go of");
    assert_eq!(lmtp.say("NOOP").await, "250 2.0.0 OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_go_ahead_in_pieces() {
    let house = House::new("").await;
    let noise = (0..60_000u32).map(|n| format!("{}\r\n", mailbox::Digest::of(&n.to_be_bytes())));
    let raw = format!("A: 1\r\n\r\n{}", noise.collect::<String>());
    assert_eq!(house.deliver(raw.as_bytes()).await, "250 2.1.5 Delivered");
    let most = house.memory.with(|state| state.most_inline_bytes);
    assert!(most <= 512 * 1024 + 1024, "{most} octets beside one command");
    assert!(house.memory.with(|state| state.n_uploads) > 2);
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.log_in("secret").await.starts_with("+OK 1 messages"));
    assert!(pop3.say("RETR 1").await.starts_with("+OK"));
    let got = pop3.until_dot().await;
    assert!(got.strip_suffix(b".\r\n").unwrap().ends_with(raw.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn going_down_is_told_and_waited_for() {
    let house = House::new("").await;
    let mut lmtp = house.client(Protocol::Lmtp).await;
    assert!(lmtp.line().await.starts_with("220"));
    house.shutdown.cancel();
    assert_eq!(lmtp.line().await, "421 4.3.2 Going down, try again");
    lmtp.end().await;
    drop(lmtp);
    timeout(PATIENCE, house.frontend.stopped()).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_tell_whether_the_cluster_is_there() {
    let house = House::new("").await;
    let probe = async |path: &str| {
        let mut http = house.client(Protocol::Http).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        http.send(request.as_bytes()).await;
        http.line().await
    };
    assert_eq!(probe("/healthz").await, "HTTP/1.1 200 OK");
    assert_eq!(probe("/readyz").await, "HTTP/1.1 200 OK");
    house.memory.change(|state| state.is_away = true);
    assert_eq!(probe("/readyz").await, "HTTP/1.1 503 Service Unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_reaches_an_imap_session_in_idle() {
    let house = House::new("").await;
    let mut imap = house.client(Protocol::Imap).await;
    assert!(imap.line().await.starts_with("* OK"));
    assert!(imap.until_tag("a LOGIN jo@example.test secret").await.last().starts_with("a OK"));
    assert!(imap.until_tag("b SELECT INBOX").await.last().starts_with("b OK"));
    assert!(imap.say("c IDLE").await.starts_with('+'));
    assert_eq!(house.deliver(b"Subject: new\r\n\r\nhello\r\n").await, "250 2.1.5 Delivered");
    assert_eq!(imap.line().await, "* 1 EXISTS");
    let said = imap.until_tag("DONE\r\nd FETCH 1 BODY.PEEK[TEXT]").await.0;
    assert!(said.iter().any(|line| line == "hello"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_append_passes_in_pieces_and_comes_back() {
    let house = House::new("").await;
    let noise = (0..40_000u32).map(|n| format!("{}\n", mailbox::Digest::of(&n.to_be_bytes())));
    let raw = format!("A: 1\n\n{}", noise.collect::<String>());
    let mut imap = house.client(Protocol::Imap).await;
    imap.line().await;
    imap.until_tag("a LOGIN jo@example.test secret").await;
    let asked = imap.say(&format!("b APPEND INBOX {{{}}}", raw.len())).await;
    assert!(asked.starts_with('+'), "{asked}");
    imap.send(raw.as_bytes()).await;
    assert!(imap.until_tag("").await.last().starts_with("b OK [APPENDUID"));
    imap.until_tag("c SELECT INBOX").await;
    let literal = imap.say("d FETCH 1 BODY.PEEK[]").await;
    assert!(literal.ends_with(&format!("{{{}}}", raw.len())), "{literal}");
    assert_eq!(imap.octets(raw.len()).await, raw.as_bytes());
}

/// Some 250 KiB of which nothing is like another.
fn noise(seed: u32) -> String {
    let lines = (0..3_800u32).map(|n| [seed, n].map(u32::to_be_bytes).concat());
    lines.map(|octets| format!("{}\n", mailbox::Digest::of(&octets))).collect()
}

/// Sends all of these in one APPEND, up to the line end behind the last.
async fn append_all(imap: &mut Client, messages: &[String]) {
    let mut before = String::from("b APPEND INBOX");
    for message in messages {
        let asked = imap.say(&format!("{before} {{{}}}", message.len())).await;
        assert!(asked.starts_with('+'), "{asked}");
        before.clone_from(message);
    }
    imap.send(before.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_what_many_messages_sent_ahead() {
    let house = House::new("").await;
    let mut imap = house.client(Protocol::Imap).await;
    imap.line().await;
    imap.until_tag("a LOGIN jo@example.test secret").await;
    let messages: Vec<String> = (0..8).map(noise).collect();
    append_all(&mut imap, &messages).await;
    assert!(imap.until_tag("").await.last().starts_with("b OK [APPENDUID"));
    assert!(house.memory.with(|state| state.n_uploads > 0), "some were sent ahead");
    let is_gone = house.memory.until(|state| state.shard.has_no_uploads());
    timeout(PATIENCE, is_gone).await.expect("it is let go of");
    imap.until_tag("c SELECT INBOX").await;
    for (at, message) in messages.iter().enumerate() {
        let literal = imap.say(&format!("d FETCH {} BODY.PEEK[]", at + 1)).await;
        assert!(literal.ends_with(&format!("{{{}}}", message.len())), "{literal}");
        assert_eq!(imap.octets(message.len()).await, message.as_bytes());
        assert_eq!(imap.line().await, ")");
        assert!(imap.line().await.starts_with("d OK"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_many_messages_of_which_one_is_refused() {
    let house = House::new("message_bytes_max = 3000000").await;
    let large: String = (0..8).map(noise).collect();
    // Behind the first message: one too large, an empty one, no message, flags that are none.
    for (behind, answer) in [
        (" {4000000}\r\n", "b NO [TOOBIG]"),
        (" {0+}\r\n\r\n", "b NO"),
        (" nonsense\r\n", "b BAD"),
        (" (\\Nonsense {4+}\r\nfour\r\n", "b BAD"),
    ] {
        let mut imap = house.client(Protocol::Imap).await;
        imap.line().await;
        imap.until_tag("a LOGIN jo@example.test secret").await;
        append_all(&mut imap, std::slice::from_ref(&large)).await;
        let is_ahead = house.memory.until(|state| !state.shard.has_no_uploads());
        timeout(PATIENCE, is_ahead).await.expect("it is sent ahead");
        imap.send(behind.as_bytes()).await;
        let said = imap.line().await;
        assert!(said.starts_with(answer), "{behind:?}: {said}");
        // As long as the session lives nobody else lets go of it.
        let is_gone = house.memory.until(|state| state.shard.has_no_uploads());
        timeout(PATIENCE, is_gone).await.expect("it is let go of");
        assert!(imap.until_tag("c NOOP").await.last().starts_with("c OK"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_from_the_start_and_begun_later() {
    let directory = tempfile::tempdir().unwrap();
    let (house, connector) = house_with_tls(directory.path()).await;
    let name = || ServerName::try_from("mail.test").unwrap();
    let address = house.frontend.address(Protocol::Pop3s).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut inside = Client::over(connector.connect(name(), stream).await.unwrap());
    assert!(inside.log_in("secret").await.starts_with("+OK"));
    assert_eq!(inside.say("QUIT").await, "+OK Bye");
    inside.end().await;

    let mut outside = house.client(Protocol::Pop3).await;
    assert!(outside.line().await.starts_with("+OK"));
    assert_eq!(outside.say("STLS").await, "+OK Begin TLS");
    let stream = connector.connect(name(), outside.into_inner()).await.unwrap();
    let mut inside = Client::over(stream);
    assert!(inside.say("USER jo@example.test").await.starts_with("+OK"));
    assert!(inside.say("PASS secret").await.starts_with("+OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let house = House::new("").await;
    let mut second = config("");
    second.lmtp = house.frontend.address(Protocol::Lmtp);
    let store: Arc<dyn frontend::Store> = house.memory.clone();
    let started = Frontend::start_over(&second, store, CancellationToken::new()).await;
    let words = started.err().expect("the port is taken").to_string();
    assert!(words.contains("lmtp") && words.contains("127.0.0.1:"), "{words}");
}
