//! `\Recent` where several sessions have one mailbox open: RFC 3501 2.3.2 has each message so in one of them.
#![allow(clippy::unwrap_used)]

mod support;

use imap::Config;
use mailbox::dialogue::{Engine, Question, Step, Trouble};
use mailbox::{Command, FirstTold, Flags, Outcome};
use support::{Client, Store, config};

/// A session that is logged in, another than those with other numbers.
fn client(store: &mut Store, number: u8) -> Client {
    let mut client = Client::new(Config { nonce: [number; 16], ..config() });
    let said = say(&mut client, store, "l LOGIN ann@example.test secret\r\n");
    assert!(said.contains("l OK"), "{said}");
    client
}

fn say(client: &mut Client, store: &mut Store, text: &str) -> String {
    String::from_utf8(client.say(store, text.as_bytes())).unwrap()
}

/// A message comes to INBOX, and all of these hear of it.
fn arrive(store: &mut Store, clients: &mut [&mut Client]) {
    let appended = store.append("INBOX", &[b"a: b\r\n\r\nc".to_vec()], &Flags::default());
    assert!(matches!(appended, Outcome::Appended(_)), "{appended:?}");
    for change in std::mem::take(&mut store.changes) {
        clients.iter_mut().for_each(|client| client.session.notify(change));
    }
}

/// What it says of messages that are new.
fn news(client: &mut Client, store: &mut Store) -> String {
    say(client, store, "n NOOP\r\n")
}

/// Opens INBOX while nothing can be claimed.
fn select_without_claim(client: &mut Client, store: &mut Store) -> String {
    client.session.receive(b"s SELECT INBOX\r\n");
    let mut said = Vec::new();
    loop {
        match client.session.next_step() {
            Step::Send(bytes) => said.extend_from_slice(&bytes),
            Step::Ask(question) => {
                let is_claim = matches!(
                    &question,
                    Question::Command(command, _) if matches!(**command, Command::ClaimRecent(..))
                );
                store.trouble = is_claim.then_some(Trouble::Unavailable);
                let reply = store.reply(question);
                client.session.reply(reply);
            }
            Step::Wait => return String::from_utf8(said).unwrap(),
            _ => panic!("SELECT only asks and tells"),
        }
    }
}

#[test]
fn a_message_is_recent_to_the_session_that_was_told_first() {
    let mut store = Store::new();
    let (mut one, mut two) = (client(&mut store, 1), client(&mut store, 2));
    say(&mut one, &mut store, "s SELECT INBOX\r\n");
    say(&mut two, &mut store, "s SELECT INBOX\r\n");
    arrive(&mut store, &mut [&mut one, &mut two]);
    assert_eq!(news(&mut one, &mut store), "* 1 EXISTS\r\n* 1 RECENT\r\nn OK done\r\n");
    assert_eq!(news(&mut two, &mut store), "* 1 EXISTS\r\n* 0 RECENT\r\nn OK done\r\n");
    arrive(&mut store, &mut [&mut one, &mut two]);
    assert_eq!(news(&mut two, &mut store), "* 2 EXISTS\r\n* 1 RECENT\r\nn OK done\r\n");
    assert_eq!(news(&mut one, &mut store), "* 2 EXISTS\r\n* 1 RECENT\r\nn OK done\r\n");
    let flags = say(&mut one, &mut store, "f FETCH 1:2 FLAGS\r\n");
    let wanted = "* 1 FETCH (FLAGS (\\Recent))\r\n* 2 FETCH (FLAGS ())\r\nf OK done\r\n";
    assert_eq!(flags, wanted);
    assert_eq!(say(&mut one, &mut store, "r SEARCH NEW\r\n"), "* SEARCH 1\r\nr OK done\r\n");
    assert_eq!(say(&mut two, &mut store, "r SEARCH RECENT\r\n"), "* SEARCH 2\r\nr OK done\r\n");
    assert_eq!(say(&mut two, &mut store, "o SEARCH OLD\r\n"), "* SEARCH 1\r\no OK done\r\n");
}

#[test]
fn what_an_open_session_was_told_is_recent_to_nobody_who_comes() {
    let mut store = Store::new();
    let mut one = client(&mut store, 1);
    say(&mut one, &mut store, "s SELECT INBOX\r\n");
    arrive(&mut store, &mut [&mut one]);
    let mut two = client(&mut store, 2);
    let status = "* STATUS \"INBOX\" (RECENT 1)\r\n";
    assert!(say(&mut two, &mut store, "t STATUS INBOX (RECENT)\r\n").starts_with(status));
    news(&mut one, &mut store);
    let status = "* STATUS \"INBOX\" (RECENT 0)\r\n";
    assert!(say(&mut two, &mut store, "t STATUS INBOX (RECENT)\r\n").starts_with(status));
    for command in ["e EXAMINE INBOX\r\n", "s SELECT INBOX\r\n"] {
        let said = say(&mut two, &mut store, command);
        assert!(said.contains("* 1 EXISTS\r\n* 0 RECENT\r\n"), "{said}");
    }
    // Whose connection breaks has claimed nothing; what it was told is remembered until another one leads.
    drop(one);
    let mut three = client(&mut store, 3);
    let said = say(&mut three, &mut store, "s SELECT INBOX\r\n");
    assert!(said.contains("* 0 RECENT\r\n"), "{said}");
    store.first_told = FirstTold::default();
    let said = say(&mut three, &mut store, "s SELECT INBOX\r\n");
    assert!(said.contains("* 1 RECENT\r\n"), "{said}");
}

#[test]
fn who_examines_takes_recent_from_nobody() {
    let mut store = Store::new();
    let (mut one, mut two) = (client(&mut store, 1), client(&mut store, 2));
    say(&mut one, &mut store, "s EXAMINE INBOX\r\n");
    say(&mut two, &mut store, "s SELECT INBOX\r\n");
    arrive(&mut store, &mut [&mut one, &mut two]);
    assert!(news(&mut one, &mut store).contains("* 1 RECENT\r\n"));
    assert!(news(&mut two, &mut store).contains("* 1 RECENT\r\n"));
    arrive(&mut store, &mut [&mut one, &mut two]);
    assert!(news(&mut two, &mut store).contains("* 2 RECENT\r\n"));
    assert!(news(&mut one, &mut store).contains("* 1 RECENT\r\n"), "the other one was first");
}

#[test]
fn what_another_session_claimed_is_not_told_as_recent() {
    let mut store = Store::new();
    let mut one = client(&mut store, 1);
    arrive(&mut store, &mut []);
    let said = say(&mut one, &mut store, "s SELECT INBOX\r\n");
    assert!(said.contains("* 1 EXISTS\r\n* 1 RECENT\r\n"), "{said}");
    arrive(&mut store, &mut []);
    let mut two = client(&mut store, 2);
    let said = say(&mut two, &mut store, "s SELECT INBOX\r\n");
    assert!(said.contains("* 2 EXISTS\r\n* 1 RECENT\r\n"), "{said}");
    assert_eq!(news(&mut one, &mut store), "* 2 EXISTS\r\n* 1 RECENT\r\nn OK done\r\n");
}

#[test]
fn who_cannot_claim_says_recent_and_claims_when_it_leaves() {
    for arrives in [false, true] {
        let mut store = Store::new();
        let mut one = client(&mut store, 1);
        arrive(&mut store, &mut []);
        let said = select_without_claim(&mut one, &mut store);
        assert!(said.contains("* 1 EXISTS\r\n* 1 RECENT\r\n"), "{said}");
        if arrives {
            arrive(&mut store, &mut [&mut one]);
            assert_eq!(news(&mut one, &mut store), "* 2 EXISTS\r\n* 2 RECENT\r\nn OK done\r\n");
        }
        say(&mut one, &mut store, "u UNSELECT\r\n");
        store.first_told = FirstTold::default();
        let said = say(&mut one, &mut store, "s SELECT INBOX\r\n");
        assert!(said.contains("* 0 RECENT\r\n"), "{said}");
    }
}
