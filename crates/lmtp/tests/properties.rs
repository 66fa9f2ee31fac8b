//! What holds for every client.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

#[path = "../../mailbox/tests/memory/mod.rs"]
mod memory;

use lmtp::{PIECE_BYTES_MAX, Session, Settings};
use memory::play::Play;
use proptest::prelude::*;

fn session() -> Play {
    session_with(5_000)
}

/// One that takes messages of so many octets.
fn session_with(message_bytes_max: usize) -> Play {
    let engine = Session::new(Settings {
        hostname: "h".into(),
        session: "s".into(),
        peer: None,
        message_bytes_max: message_bytes_max as u64,
    });
    let mut play = Play::new(Box::new(engine));
    play.set_up("account jo@example.test pw");
    play.set_up("account al@example.test pw");
    play.run();
    play
}

/// What a client may send, whole or not, sane or not.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "LHLO c\r\n",
        "MAIL FROM:<a@b>\r\n",
        "MAIL FROM:<> SIZE=10\r\n",
        "RCPT TO:<jo@example.test>\r\n",
        "RCPT TO:<al+x@example.test>\r\n",
        "RCPT TO:<no@example.test>\r\n",
        "LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\nDATA\r\n",
        "DATA\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "A: 1\r\n\r\n",
        ".\r\n",
        "\r\n.\r\n",
        "..x\r\n",
        "\n.\n",
        "\r.\r",
        "XYZZY\r\n",
    ]);
    prop_oneof![
        8 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0usize..2000).prop_map(|n| b"x".repeat(n)),
    ]
}

fn octets_of_inboxes(play: &mut Play) -> Vec<String> {
    play.log.clear();
    play.set_up("show jo@example.test");
    play.set_up("show al@example.test");
    std::mem::take(&mut play.log)
}

/// Whichever of the two is seen first.
#[test]
fn a_message_that_is_too_large_and_badly_formed_is_refused_for_its_form() {
    let dialogue = b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\nDATA\r\n";
    let message = [b"x".repeat(6_000), b"\ny\r\n.\r\n".to_vec()].concat();
    for n_at_once in [1, 100, message.len()] {
        let mut play = session();
        play.receive(dialogue);
        message.chunks(n_at_once).for_each(|piece| play.receive(piece));
        let said = String::from_utf8_lossy(&play.sent).into_owned();
        assert!(said.ends_with("550 5.6.0 An LF stands alone in the message\r\n"), "{said}");
    }
}

/// What takes it over the limit fills a piece too, and its end is in the same read.
#[test]
fn a_message_that_is_too_large_by_little_is_refused_at_once() {
    let mut play = session_with(65_500);
    play.receive(b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\n");
    play.receive(b"RCPT TO:<al@example.test>\r\nDATA\r\n");
    let message = [b"x".repeat(66_000), b"\r\n.\r\n".to_vec()].concat();
    // Reads of 4,096 octets: the last one is from the 64,440th on.
    let (first, rest) = message.split_at(3_000);
    play.receive(first);
    play.receive(rest);
    let said = String::from_utf8_lossy(&play.sent).into_owned();
    assert!(said.ends_with(&"552 5.3.4 Message too large\r\n".repeat(2)), "{said}");
}

/// Sends a message to a group; how many copies were delivered.
fn n_delivered(play: &mut Play, message: &[u8]) -> usize {
    play.log.clear();
    play.receive(b"MAIL FROM:<a@b>\r\nRCPT TO:<all@example.test>\r\nDATA\r\n");
    play.receive(&[message, b".\r\n"].concat());
    let delivered = play.log.iter().filter_map(|line| line.strip_prefix("store? Commands "));
    delivered.map(|all| all.split(' ').count()).sum()
}

/// Its first chunk is its header at least.
#[test]
fn a_message_of_several_chunks_comes_once_to_each_of_a_group_when_it_is_sent_again() {
    let mut play = session_with(700_000);
    play.set_up("group all@example.test jo@example.test al@example.test");
    play.receive(b"LHLO c\r\n");
    let lines = format!("X: {}\r\n", "x".repeat(100)).repeat(3_000);
    let message = format!("Message-ID: <1@x>\r\n\r\n{lines}");
    play.set_up("quota al@example.test 10");
    assert_eq!(n_delivered(&mut play, message.as_bytes()), 1);
    assert_eq!(n_delivered(&mut play, message.as_bytes()), 0);
    play.set_up("quota al@example.test none");
    assert_eq!(n_delivered(&mut play, message.as_bytes()), 1);
    assert_eq!(n_delivered(&mut play, message.as_bytes()), 0);
    // The first chunk has no Message-ID, and another message may begin like it.
    let other = format!("{lines}Message-ID: <2@x>\r\n\r\nx\r\n");
    assert_eq!(n_delivered(&mut play, other.as_bytes()), 2);
    assert_eq!(n_delivered(&mut play, other.as_bytes()), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn cuts_make_no_difference(
        fragments in prop::collection::vec(fragment(), 0..40),
        cuts in prop::collection::vec(1usize..50, 1..20),
    ) {
        let input = fragments.concat();
        let mut whole = session();
        whole.receive(&input);
        let mut cut = session();
        cut.receive_in_cuts(&input, &cuts);
        prop_assert_eq!(
            String::from_utf8_lossy(&whole.sent).into_owned(),
            String::from_utf8_lossy(&cut.sent).into_owned()
        );
        prop_assert_eq!(octets_of_inboxes(&mut whole), octets_of_inboxes(&mut cut));
    }

    /// Wherever its pieces end, and whatever comes in one read with its end.
    #[test]
    fn a_message_is_measured_by_its_octets_alone(
        n_bytes_max in PIECE_BYTES_MAX - 500..PIECE_BYTES_MAX + 500,
        n_bytes_less in 0usize..400,
        n_bytes_more in 0usize..400,
        n_first in 1usize..4_096,
    ) {
        let n_bytes = n_bytes_max + n_bytes_more - n_bytes_less;
        let mut play = session_with(n_bytes_max);
        play.receive(b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\nDATA\r\n");
        let message = [b"x".repeat(n_bytes - 2), b"\r\n.\r\n".to_vec()].concat();
        let (first, rest) = message.split_at(n_first);
        play.receive(first);
        play.receive(rest);
        let said = String::from_utf8_lossy(&play.sent).into_owned();
        let want = match n_bytes > n_bytes_max {
            true => "\r\n552 5.3.4 Message too large\r\n",
            false => "\r\n250 2.1.5 Delivered\r\n",
        };
        prop_assert!(said.ends_with(want), "{}", said);
    }

    /// Whatever lines a message has, it arrives as it was, behind the trace fields.
    #[test]
    fn messages_arrive_octet_for_octet(lines in prop::collection::vec("[ -~\\r]{0,30}|\\.{0,3}", 0..30)) {
        let mut play = session();
        play.receive(b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<jo@example.test>\r\nDATA\r\n");
        let mut want = Vec::new();
        for line in &lines {
            let dot = if line.starts_with('.') { "." } else { "" };
            play.receive(format!("{dot}{line}\r\n").as_bytes());
            want.push(format!("|   {line}\r\n"));
        }
        play.receive(b".\r\n");
        let shown = octets_of_inboxes(&mut play);
        let body: Vec<&String> = shown.iter().filter(|line| line.starts_with("|   ")).collect();
        // Return-Path, Delivered-To and three lines of Received come first.
        prop_assert_eq!(body.len(), lines.len() + 5);
        for (got, want) in body[5..].iter().zip(&want) {
            let want: String = want[4..].bytes().map(|octet| octet.escape_ascii().to_string()).collect();
            prop_assert_eq!(&got[4..], &want);
        }
    }
}
