//! Who compares much, and has nothing to tell meanwhile, lets other sessions have their turn.
#![allow(clippy::unwrap_used)]

mod support;

use mailbox::command::{CreateMailbox, Subscribe};
use mailbox::dialogue::{Engine, Step};
use mailbox::{Command, MailboxName, Outcome};
use support::{ACCOUNT, Client, Store, config};

/// What a command brings, and how often others have their turn meanwhile.
fn say(client: &mut Client, store: &mut Store, octets: &[u8]) -> (String, usize) {
    let (mut said, mut n_turns) = (Vec::new(), 0);
    client.session.receive(octets);
    loop {
        match client.session.next_step() {
            Step::Send(bytes) => said.extend_from_slice(&bytes),
            Step::Ask(question) => {
                let reply = store.reply(question);
                client.session.reply(reply);
            }
            Step::Yield => n_turns += 1,
            Step::Wait => return (String::from_utf8(said).unwrap(), n_turns),
            Step::StartTls | Step::Close => panic!("after {said:?}"),
        }
    }
}

#[test]
fn a_list_that_finds_nothing_lets_others_have_their_turn() {
    let mut store = Store::new();
    for n in 0..70 {
        let name = MailboxName::parse(&format!("{}{n:03}", "a".repeat(250)), '/').unwrap();
        let (account, special_use) = (ACCOUNT, None);
        let subscribe = Subscribe { account, name: name.clone(), on: true };
        let create = CreateMailbox { account, name, special_use };
        let created = store.apply(Command::CreateMailbox(create), &[]);
        assert!(matches!(created, Outcome::MailboxCreated(_)), "{created:?}");
        assert_eq!(store.apply(Command::Subscribe(subscribe), &[]), Outcome::Done);
    }
    let mut client = Client::new(config());
    client.say(&mut store, b"a LOGIN ann@example.test secret\r\n");
    // As much as a pattern may have, and five letters more than there are.
    let pattern = "*a".repeat(255);
    for (list, wanted) in [("LIST", 2), ("LSUB", 2), ("LIST (SUBSCRIBED RECURSIVEMATCH)", 4)] {
        let line = format!("b {list} \"\" {pattern}\r\n");
        let (said, n_turns) = say(&mut client, &mut store, line.as_bytes());
        assert_eq!((said.as_str(), n_turns), ("b OK done\r\n", wanted), "{list}");
    }
}

#[test]
fn names_above_one_that_is_subscribed_are_not_compared_in_one_go() {
    let mut store = Store::new();
    // As many levels as there may be, and no mailbox.
    let name = MailboxName::parse(&["b".repeat(250).as_str(); 32].join("/"), '/').unwrap();
    let subscribe = Subscribe { account: ACCOUNT, name, on: true };
    assert_eq!(store.apply(Command::Subscribe(subscribe), &[]), Outcome::Done);
    let mut client = Client::new(config());
    client.say(&mut store, b"a LOGIN ann@example.test secret\r\n");
    let line = format!("b LIST (SUBSCRIBED RECURSIVEMATCH) \"\" {}\r\n", "*a".repeat(255));
    let (said, n_turns) = say(&mut client, &mut store, line.as_bytes());
    assert_eq!(said, "b OK done\r\n");
    // All of them have 132,496 characters, which are compared with 511: sixteen times as much as at once.
    assert!(n_turns >= 8, "{n_turns}");
}
