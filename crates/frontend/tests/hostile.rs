//! Clients that mean no good, at real ports. The clock is tokio's own and leaps whenever everybody waits,
//! so that minutes of silence take no time; octets go through real sockets all the same.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

mod client;
mod house;
#[path = "../../mailbox/tests/memory/mod.rs"]
mod memory;
mod store;

use std::net::SocketAddr;
use std::time::Duration;

use client::Client;
use frontend::Protocol;
use house::{House, house_with_tls};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

/// What a slow client takes at once.
const PIECE_BYTES: usize = 64 << 10;

/// AUTH PLAIN of jo@example.test with the password `secret`.
const PLAIN: &str = "AGpvQGV4YW1wbGUudGVzdABzZWNyZXQ=";

async fn connect(house: &House, protocol: Protocol) -> TcpStream {
    TcpStream::connect(house.frontend.address(protocol).unwrap()).await.unwrap()
}

/// What is said until the server closes, however long that takes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A server that closes with octets unread resets the connection.
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(start_paused = true)]
async fn who_does_not_log_in_is_let_go_after_a_minute_however_busy() {
    let house = House::new("").await;
    for protocol in [Protocol::Imap, Protocol::Pop3] {
        let begun = Instant::now();
        let (mut reading, mut writing) = connect(&house, protocol).await.into_split();
        let drip = tokio::spawn(async move {
            // One octet of a line every five seconds, and never its end.
            while writing.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(5)).await;
            }
        });
        let mut said = Vec::new();
        let _ = reading.read_to_end(&mut said).await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(60), "{protocol:?} after {took:?}");
        assert!(took < Duration::from_secs(75), "{protocol:?} after {took:?}");
        drip.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_log_in_and_takes_little_is_let_go_after_a_minute() {
    let house = House::new("").await;
    for (protocol, command) in [(Protocol::Imap, "a CAPABILITY\r\n"), (Protocol::Pop3, "CAPA\r\n")]
    {
        let begun = Instant::now();
        // Why: with the usual buffers on both sides megabytes are sent before anything is taken.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(PIECE_BYTES as u32).unwrap();
        let address = house.frontend.address(protocol).unwrap();
        let (mut reading, mut writing) = socket.connect(address).await.unwrap().into_split();
        let asking = tokio::spawn(async move {
            while writing.write_all(command.repeat(1000).as_bytes()).await.is_ok() {}
        });
        let mut piece = vec![0; PIECE_BYTES];
        while begun.elapsed() < Duration::from_secs(55) {
            sleep(Duration::from_secs(5)).await;
            reading.read_exact(&mut piece).await.unwrap();
        }
        let let_go = asking.await;
        assert!(begun.elapsed() < Duration::from_secs(75), "{protocol:?} {:?}", begun.elapsed());
        let_go.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_after_the_login_is_told_goodbye_when_the_protocol_allows() {
    let house = House::new("").await;
    let begun = Instant::now();
    let mut imap = connect(&house, Protocol::Imap).await;
    imap.write_all(b"a LOGIN jo@example.test secret\r\nb SELECT INBOX\r\n").await.unwrap();
    let said = rest(&mut imap).await;
    assert!(said.contains("b OK") && said.contains("* BYE"), "{said}");
    // RFC 9051 5.4: at least thirty minutes.
    assert!(begun.elapsed() >= Duration::from_secs(30 * 60), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let mut imap = connect(&house, Protocol::Imap).await;
    imap.write_all(b"a LOGIN jo@example.test secret\r\nb APPEND INBOX {400000+}\r\nSubject: x")
        .await
        .unwrap();
    let said = rest(&mut imap).await;
    assert!(said.contains("* BYE"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(6 * 60), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let mut lmtp = connect(&house, Protocol::Lmtp).await;
    lmtp.write_all(b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\nDATA\r\nx")
        .await
        .unwrap();
    let said = rest(&mut lmtp).await;
    assert!(said.contains("354") && said.contains("421 4.4.2"), "{said}");
    assert!(begun.elapsed() >= Duration::from_secs(5 * 60), "{:?}", begun.elapsed());
    house.memory.with(|state| assert_eq!(state.n_uploads, 0));
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_let_go_and_leaves_nothing_locked() {
    let house = House::new("").await;
    let begun = Instant::now();
    let line = b"0123456789012345678901234567890123456789012345678901234567890123\r\n";
    let account = house.memory.account("jo@example.test");
    house.memory.change(|state| {
        state.shard.deliver(account, &[b"A: 1\r\n\r\n".to_vec(), line.repeat(300_000)].concat());
    });
    let mut pop3 = connect(&house, Protocol::Pop3).await;
    pop3.write_all(format!("AUTH PLAIN {PLAIN}\r\nRETR 1\r\n").as_bytes()).await.unwrap();
    let mut first = [0; 64];
    pop3.read_exact(&mut first).await.unwrap();
    assert!(house.memory.with(|state| !state.locks.is_empty()));
    // The client is there, but reads no more.
    while house.memory.with(|state| !state.locks.is_empty()) {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(3 * 60), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(4 * 60), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_for_minutes_and_then_all_has_its_mail_removed() {
    let house = House::new("").await;
    let line = b"0123456789012345678901234567890123456789012345678901234567890123\r\n";
    let account = house.memory.account("jo@example.test");
    house.memory.change(|state| {
        state.shard.deliver(account, &[b"A: 1\r\n\r\n".to_vec(), line.repeat(300_000)].concat());
    });
    let mut pop3 = connect(&house, Protocol::Pop3).await;
    let all = format!("AUTH PLAIN {PLAIN}\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n");
    pop3.write_all(all.as_bytes()).await.unwrap();
    // A filter looks at the message.
    sleep(Duration::from_secs(150)).await;
    let end = rest(&mut pop3).await;
    let end = &end[end.len().saturating_sub(100)..];
    assert!(end.ends_with("\r\n.\r\n+OK Deleted at QUIT\r\n+OK Bye\r\n"), "{end}");
}

#[tokio::test(start_paused = true)]
async fn who_vanished_in_a_download_keeps_its_next_session_out_for_a_lease_and_removes_nothing() {
    let house = House::new("").await;
    let line = b"0123456789012345678901234567890123456789012345678901234567890123\r\n";
    let account = house.memory.account("jo@example.test");
    house.memory.change(|state| {
        state.shard.deliver(account, &[b"A: 1\r\n\r\n".to_vec(), line.repeat(300_000)].concat());
    });
    let mut vanished = connect(&house, Protocol::Pop3).await;
    let all = format!("AUTH PLAIN {PLAIN}\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n");
    vanished.write_all(all.as_bytes()).await.unwrap();
    let mut first = [0; 64];
    vanished.read_exact(&mut first).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    // Its last lease is over.
    house.memory.change(|state| state.locks.clear());
    sleep(Duration::from_secs(20)).await;
    assert!(house.memory.with(|state| state.locks.is_empty()), "it was renewed");
    let mut second = connect(&house, Protocol::Pop3).await;
    second.write_all(format!("AUTH PLAIN {PLAIN}\r\n").as_bytes()).await.unwrap();
    while house.memory.with(|state| state.locks.is_empty()) {
        sleep(Duration::from_secs(1)).await;
    }
    let end = rest(&mut vanished).await;
    let end = &end[end.len().saturating_sub(100)..];
    assert!(!end.contains("+OK Bye"), "{end}");
    second.write_all(b"STAT\r\nQUIT\r\n").await.unwrap();
    let said = rest(&mut second).await;
    assert!(said.contains("\n+OK 1 "), "{said}");
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_maildrop_taken_is_not_logged_in() {
    let house = House::new("connections_per_account_max = 2").await;
    let log_in = format!("AUTH PLAIN {PLAIN}\r\n");
    let mut first = connect(&house, Protocol::Pop3).await;
    first.write_all(log_in.as_bytes()).await.unwrap();
    while house.memory.with(|state| state.locks.is_empty()) {
        sleep(Duration::from_secs(1)).await;
    }
    let begun = Instant::now();
    let mut second = connect(&house, Protocol::Pop3).await;
    second.write_all(log_in.as_bytes()).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    // The second one is there, but has no place among the account's sessions.
    let mut third = connect(&house, Protocol::Pop3).await;
    third.write_all(log_in.as_bytes()).await.unwrap();
    for mut late in [second, third] {
        let said = rest(&mut late).await;
        assert!(said.contains("-ERR [IN-USE]"), "{said}");
        assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(80), "{:?}", begun.elapsed());
    }
    drop(first);
}

/// RFC 1939 3: the timer counts the client's inactivity, not what it takes to send.
#[tokio::test(start_paused = true)]
async fn who_downloads_for_longer_than_it_may_be_silent_goes_on_afterwards() {
    let house = House::new("").await;
    let line = b"0123456789012345678901234567890123456789012345678901234567890123\r\n";
    let account = house.memory.account("jo@example.test");
    let raw = [b"A: 1\r\n\r\n".to_vec(), line.repeat(400_000)].concat();
    house.memory.change(|state| drop(state.shard.deliver(account, &raw)));
    let begun = Instant::now();
    // Why: with the usual buffers on both sides a few megabytes are sent before anything is taken.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(PIECE_BYTES as u32).unwrap();
    let mut pop3 = socket.connect(house.frontend.address(Protocol::Pop3).unwrap()).await.unwrap();
    pop3.write_all(format!("AUTH PLAIN {PLAIN}\r\nRETR 1\r\n").as_bytes()).await.unwrap();
    let mut piece = vec![0; PIECE_BYTES];
    for _ in 0..raw.len() / PIECE_BYTES {
        pop3.read_exact(&mut piece).await.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(11 * 60), "{:?}", begun.elapsed());
    pop3.write_all(b"DELE 1\r\nQUIT\r\n").await.unwrap();
    let end = rest(&mut pop3).await;
    let end = &end[end.len().saturating_sub(100)..];
    assert!(end.contains("\r\n.\r\n+OK"), "{end}");
    let mut again = house.client(Protocol::Pop3).await;
    again.send(format!("AUTH PLAIN {PLAIN}\r\nSTAT\r\n").as_bytes()).await;
    for expected in ["+OK", "+OK", "+OK 0 0"] {
        let line = again.line().await;
        assert!(line.starts_with(expected), "{line}");
    }
}

#[tokio::test]
async fn what_came_before_tls_is_not_taken_for_what_came_inside() {
    let directory = tempfile::tempdir().unwrap();
    let (house, connector) = house_with_tls(directory.path()).await;
    let name = || ServerName::try_from("mail.test").unwrap();

    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.line().await.starts_with("+OK"));
    assert_eq!(pop3.say("STLS\r\nUSER mallory@example.test").await, "+OK Begin TLS");
    let inside = connector.connect(name(), pop3.into_inner()).await.unwrap();
    let mut inside = Client::over(inside);
    assert_eq!(inside.say("PASS secret").await, "-ERR Say USER first");

    let mut imap = house.client(Protocol::Imap).await;
    assert!(imap.line().await.starts_with("* OK"));
    let begin = imap.say("a STARTTLS\r\nb NOOP\r\nc LOGIN mallory {4}").await;
    assert!(begin.starts_with("a OK"), "{begin}");
    let inside = connector.connect(name(), imap.into_inner()).await.unwrap();
    let mut inside = Client::over(inside);
    let first = inside.say("d NOOP").await;
    assert!(first.starts_with("d OK"), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_may_be_sent_ahead_with_what_follows() {
    let house = House::new("").await;
    let mut pop3 = house.client(Protocol::Pop3).await;
    assert!(pop3.line().await.starts_with("+OK"));
    assert_eq!(pop3.say(&format!("AUTH PLAIN\r\n{PLAIN}\r\nSTAT\r\nQUIT")).await, "+");
    assert!(pop3.line().await.starts_with("+OK 0 messages"));
    assert_eq!(pop3.line().await, "+OK 0 0");
    assert_eq!(pop3.line().await, "+OK Bye");
    let mut imap = house.client(Protocol::Imap).await;
    assert!(imap.line().await.starts_with("* OK"));
    let ahead = format!("a AUTHENTICATE PLAIN\r\n{PLAIN}\r\nb SELECT INBOX\r\nc LOGOUT\r\n");
    imap.send(ahead.as_bytes()).await;
    let (mut all, mut line) = (String::new(), imap.line().await);
    while !line.starts_with("c OK") {
        assert!(!line.is_empty(), "closed after {all}");
        all += &format!("{line}\n");
        line = imap.line().await;
    }
    assert!(all.contains("a OK") && all.contains("b OK"), "{all}");
}

#[tokio::test(start_paused = true)]
async fn wrong_passwords_wait_and_right_ones_never() {
    let house = House::new("").await;
    let mut waits = Vec::new();
    for _ in 0..3 {
        let mut imap = connect(&house, Protocol::Imap).await;
        let begun = Instant::now();
        imap.write_all(b"a LOGIN jo@example.test guess\r\nb LOGOUT\r\n").await.unwrap();
        let said = rest(&mut imap).await;
        assert!(said.contains("a NO [AUTHENTICATIONFAILED]"), "{said}");
        waits.push(begun.elapsed());
    }
    assert!(waits.iter().all(|wait| *wait >= Duration::from_secs(1)), "{waits:?}");
    let mut imap = connect(&house, Protocol::Imap).await;
    let begun = Instant::now();
    imap.write_all(b"a LOGIN jo@example.test secret\r\n").await.unwrap();
    let mut said = [0; 300];
    let mut n_octets = 0;
    while !said[..n_octets].windows(4).any(|some| some == b"a OK") {
        n_octets += imap.read(&mut said[n_octets..]).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_has_asks_as_much_as_one_that_somebody_has() {
    let house = House::new("").await;
    let asked = async |login: &str| {
        let before = house.memory.with(|state| state.n_accounts);
        let mut imap = connect(&house, Protocol::Imap).await;
        imap.write_all(format!("a LOGIN {login} guess\r\nb LOGOUT\r\n").as_bytes()).await.unwrap();
        let said = rest(&mut imap).await;
        assert!(said.contains("a NO [AUTHENTICATIONFAILED]"), "{said}");
        house.memory.with(|state| state.n_accounts) - before
    };
    assert_eq!(asked("jo@example.test").await, 1);
    assert_eq!(asked("nobody@example.test").await, 1);
    assert_eq!(asked("nobody").await, 1);
}

#[tokio::test(start_paused = true)]
async fn passwords_are_guessed_a_few_times_on_one_connection() {
    let house = House::new("").await;
    for (protocol, guess, wrong, most) in [
        (Protocol::Pop3, "USER jo@example.test\r\nPASS guess\r\n", "-ERR [AUTH]", 3),
        (Protocol::Imap, "a LOGIN jo@example.test guess\r\n", "a NO [AUTHENTICATIONFAILED]", 5),
    ] {
        let mut stream = connect(&house, protocol).await;
        stream.write_all(guess.repeat(10).as_bytes()).await.unwrap();
        let said = rest(&mut stream).await;
        assert_eq!(said.matches(wrong).count(), most, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_commands_that_are_none_are_borne_and_no_more() {
    let house = House::new("").await;
    for (protocol, bad) in
        [(Protocol::Imap, "! BAD"), (Protocol::Pop3, "-ERR Unknown"), (Protocol::Lmtp, "500 5.5.1")]
    {
        let mut stream = connect(&house, protocol).await;
        stream.write_all("! x\r\n".repeat(100).as_bytes()).await.unwrap();
        let said = rest(&mut stream).await;
        assert_eq!(said.matches(bad).count(), 20, "{protocol:?}: {said}");
    }
}

/// A PROXY header of version 2 that says where a client is from.
fn proxied(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    match client {
        SocketAddr::V4(client) => {
            header.extend([0x21, 0x11, 0, 12]);
            header.extend(client.ip().octets());
            header.extend([192, 0, 2, 1]);
        }
        SocketAddr::V6(client) => {
            header.extend([0x21, 0x21, 0, 36]);
            header.extend(client.ip().octets());
            header.extend([0; 16]);
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(143u16.to_be_bytes());
    header
}

const PROXIED: &str = "trusted_proxies = ['127.0.0.0/8']\nconnections_per_address_max = 2";

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_by_the_address_that_a_trusted_balancer_tells() {
    let house = House::new(PROXIED).await;
    let from = async |client: &str| {
        let mut imap = house.client(Protocol::Imap).await;
        imap.send(&proxied(client)).await;
        let greeting = imap.line().await;
        (greeting, imap)
    };
    let (first, _kept) = from("192.0.2.7:1000").await;
    let (second, freed) = from("192.0.2.7:1001").await;
    assert!(first.starts_with("* OK") && second.starts_with("* OK"), "{first} {second}");
    assert!(from("192.0.2.7:1002").await.0.starts_with("* BYE [UNAVAILABLE]"));
    assert!(from("192.0.2.8:1003").await.0.starts_with("* OK"));
    assert!(from("[2001:db8::7]:1004").await.0.starts_with("* OK"));
    // A password outside TLS is for who is near, and that is the client, not the balancer.
    let (_, mut far) = from("192.0.2.9:1").await;
    assert!(!far.until_tag("a LOGIN jo@example.test secret").await.last().starts_with("a OK"));
    drop(freed);
    let begun = std::time::Instant::now();
    while !from("192.0.2.7:1005").await.0.starts_with("* OK") {
        assert!(begun.elapsed() < Duration::from_secs(10), "a place becomes free again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_has_to_say_who_comes_and_nobody_else_may() {
    let house = House::new(PROXIED).await;
    let mut silent = connect(&house, Protocol::Pop3).await;
    silent.write_all(b"CAPA\r\nQUIT\r\n0123456789").await.unwrap();
    assert_eq!(rest(&mut silent).await, "", "no service without a header");
    let mut probe = connect(&house, Protocol::Pop3).await;
    probe.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").await.unwrap();
    assert_eq!(rest(&mut probe).await, "", "a balancer that looks whether we live");
    // LMTP comes from the MTA, not through a balancer.
    let mut lmtp = house.client(Protocol::Lmtp).await;
    assert!(lmtp.line().await.starts_with("220"));

    let house = House::new("trusted_proxies = ['192.0.2.0/24']").await;
    let mut stream = connect(&house, Protocol::Pop3).await;
    stream.write_all(&proxied("192.0.2.7:1000")).await.unwrap();
    stream.write_all(b"\r\nQUIT\r\n").await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("+OK mail.test") && said.contains("-ERR Unknown"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_says_nothing_is_let_go() {
    let house = House::new(PROXIED).await;
    let begun = Instant::now();
    let mut silent = connect(&house, Protocol::Imap).await;
    assert_eq!(rest(&mut silent).await, "");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_who_says_nothing_holds_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (house, _) = house_with_tls(directory.path()).await;
    let silent = connect(&house, Protocol::Imaps).await;
    let mut half = connect(&house, Protocol::Pop3).await;
    half.write_all(b"STLS\r\n").await.unwrap();
    let mut guessing = connect(&house, Protocol::Imap).await;
    guessing.write_all(b"a LOGIN jo@example.test guess\r\n").await.unwrap();
    let proxied = House::new(PROXIED).await;
    let balancer = connect(&proxied, Protocol::Imap).await;
    // By now all are where they wait, the guess for its answer.
    sleep(Duration::from_millis(500)).await;
    for House { frontend, shutdown, .. } in [house, proxied] {
        let begun = Instant::now();
        shutdown.cancel();
        frontend.stopped().await;
        // Whoever is told goodbye has two seconds to hear it.
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
    drop((silent, half, guessing, balancer));
}
