//! What holds for every client.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

#[path = "../../mailbox/tests/memory/mod.rs"]
mod memory;

use mailbox::command::Renumber;
use mailbox::dialogue::{Engine, Reply, Step};
use mailbox::{Command, Outcome};
use memory::play::Play;
use pop3::{AUTH_FAILURES_MAX, Session, Settings};
use proptest::prelude::*;

fn engine() -> Session {
    Session::new(Settings {
        hostname: "h".into(),
        is_tls: true,
        can_start_tls: false,
        allow_plain_login: false,
    })
}

fn session() -> Play {
    let mut play = Play::new(Box::new(engine()));
    play.set_up("account jo@example.test pw");
    for text in ["A: 1\\r\\n\\r\\none\\r\\n", "A: 2\\n\\n.\\n..two", "B: 3\\r\\n\\r\\n"] {
        play.set_up(&format!("deliver jo@example.test {text}"));
    }
    play.run();
    play
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "USER jo@example.test\r\nPASS pw\r\n",
        "USER jo@example.test\r\n",
        "PASS pw\r\n",
        "PASS no\r\n",
        "AUTH PLAIN\r\n",
        "AGpvQGV4YW1wbGUudGVzdABwdw==\r\n",
        "CAPA\r\n",
        "STAT\r\n",
        "LIST\r\n",
        "LIST 2\r\n",
        "UIDL\r\n",
        "RETR 1\r\n",
        "RETR 2\r\n",
        "TOP 2 1\r\n",
        "DELE 1\r\n",
        "DELE 3\r\n",
        "RSET\r\n",
        "NOOP\n",
        "QUIT\r\n",
        "XYZZY\r\n",
    ]);
    prop_oneof![
        10 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0usize..5000).prop_map(|n| b"x".repeat(n)),
    ]
}

#[test]
fn logins_of_an_account_that_has_all_its_connections_are_counted() {
    let (mut engine, mut sent) = (engine(), Vec::new());
    engine.receive("USER jo@example.test\r\nPASS pw\r\n".repeat(20).as_bytes());
    loop {
        match engine.next_step() {
            Step::Send(octets) => sent.extend_from_slice(&octets),
            Step::Ask(_) => engine.reply(Reply::TooMany),
            Step::Close => break,
            step => panic!("{step:?}"),
        }
    }
    let said = String::from_utf8_lossy(&sent);
    let n_refused = said.matches("-ERR [SYS/TEMP] Too many connections").count();
    assert_eq!(n_refused, AUTH_FAILURES_MAX as usize, "{said}");
}

/// As when a shard is forced back to what one replica has: its UIDs may be given out again.
#[test]
fn a_session_whose_inbox_was_numbered_anew_ends_and_removes_nothing() {
    for command in ["STAT\r\n", "QUIT\r\n"] {
        let mut play = session();
        play.receive(b"USER jo@example.test\r\nPASS pw\r\nDELE 1\r\n");
        let renumber = Command::Renumber(Renumber { after: None });
        let outcome = play.shard.command(renumber, &[]);
        assert!(matches!(outcome, Outcome::Renumbered { .. }), "{outcome:?}");
        play.set_up("later 1");
        play.receive(command.as_bytes());
        assert!(play.is_closed);
        let said = String::from_utf8_lossy(&play.sent).into_owned();
        let end = "-ERR [SYS/TEMP] INBOX was numbered anew, log in again\r\n";
        assert!(said.ends_with(end), "{said}");
        play.log.clear();
        play.set_up("show jo@example.test");
        assert_eq!(play.log[0], "store! 3 messages");
    }
}

/// Each looks at all of the maildrop, and may have next to nothing to tell.
#[test]
fn after_each_listing_others_have_their_turn() {
    let mut play = session();
    play.receive(b"USER jo@example.test\r\nPASS pw\r\nDELE 1\r\nDELE 2\r\nDELE 3\r\n");
    let (n_before, n_sent) = (play.n_turns, play.sent.len());
    play.receive(b"LIST\r\nUIDL\r\nLIST\r\nNOOP\r\n");
    let said = String::from_utf8_lossy(&play.sent[n_sent..]);
    assert_eq!(said, "+OK\r\n.\r\n+OK\r\n.\r\n+OK\r\n.\r\n+OK\r\n");
    assert_eq!(play.n_turns - n_before, 3);
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
    }

    /// Whatever was done before it, only QUIT removes, and exactly what was marked then.
    #[test]
    fn only_quit_removes(
        marks in prop::collection::vec(prop_oneof![Just(0u32), 1u32..5], 0..8),
        does_quit in any::<bool>(),
    ) {
        let mut play = session();
        play.receive(b"USER jo@example.test\r\nPASS pw\r\n");
        let mut marked = std::collections::BTreeSet::new();
        for mark in marks {
            if mark == 0 {
                play.receive(b"RSET\r\n");
                marked.clear();
            } else {
                play.receive(format!("DELE {mark}\r\n").as_bytes());
                marked.extend((mark <= 3).then_some(mark));
            }
        }
        if does_quit {
            play.receive(b"QUIT\r\n");
            prop_assert!(play.is_closed);
        } else {
            play.event("eof");
        }
        play.log.clear();
        play.set_up("show jo@example.test");
        let left: Vec<u32> = (1..=3).filter(|n| !does_quit || !marked.contains(n)).collect();
        let shown = play.log.iter().filter(|line| line.starts_with("| UID"));
        let uids = shown.map(|line| line[6..].split(',').next().unwrap().parse::<u32>().unwrap());
        prop_assert_eq!(uids.collect::<Vec<_>>(), left);
    }
}
