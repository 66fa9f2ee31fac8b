//! What others do, and what goes wrong, between two questions of one command.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

mod support;

use mailbox::dialogue::{Engine, Question, Reply, Step, Trouble};
use mailbox::*;
use support::{ACCOUNT, Client, Store, config};

/// Says a line; each question is answered by `reply`.
fn say(
    client: &mut Client,
    store: &mut Store,
    line: &str,
    reply: &mut dyn FnMut(&mut Client, &mut Store, Question) -> Reply,
) -> String {
    client.session.receive(line.as_bytes());
    let mut sent = Vec::new();
    loop {
        client.session.tick(LogTime(store.now_ms));
        match client.session.next_step() {
            Step::Send(octets) => sent.extend_from_slice(&octets),
            Step::Ask(question) => {
                let reply = reply(client, store, question);
                client.session.reply(reply);
            }
            Step::Wait => return String::from_utf8(sent).unwrap(),
            Step::Yield => {}
            step => panic!("{step:?}"),
        }
    }
}

/// Of a client that has the INBOX selected; of what was before it hears nothing.
fn client(store: &mut Store) -> Client {
    let mut client = Client::new(config());
    store.changes.clear();
    let said = client.say(store, b"a LOGIN ann@example.test secret\r\nb SELECT INBOX\r\n");
    assert!(String::from_utf8(said).unwrap().contains("b OK"));
    client
}

fn info(store: &Store, text: &str) -> MailboxInfo {
    let name = MailboxName::parse(text, '/').unwrap();
    match store.ask(&Query::Mailbox(command::NamedMailbox { account: ACCOUNT, name })) {
        Answer::Mailbox(info) => *info,
        other => panic!("{other:?}"),
    }
}

/// Somebody else sets a flag, and the client hears of it.
fn flag(client: &mut Client, store: &mut Store, uid: u32) {
    let change = FlagChange::Add(Flags { system: SystemFlags::FLAGGED, ..Flags::default() });
    let uids = Uid::new(uid).into_iter().collect();
    let (account, mailbox) = (ACCOUNT, store.of("INBOX").mailbox);
    let flag = command::Store { account, mailbox, uids, change, unchanged_since: None };
    store.apply(Command::Store(flag), &[]);
    for change in std::mem::take(&mut store.changes) {
        client.session.notify(change);
    }
}

#[test]
fn what_a_fetch_that_sets_seen_tells_last_is_how_it_is() {
    let mut store = Store::new();
    let raws = vec![b"a: b\r\n\r\nc".to_vec(); 50];
    for _ in 0..6 {
        store.append("INBOX", &raws, &Flags::default());
    }
    let seen = Flags { system: SystemFlags::SEEN, ..Flags::default() };
    store.append("INBOX", &raws[..1], &seen);
    let mut client = client(&mut store);
    let mut n_slices = 0;
    let fetch = "c FETCH 1:301 (FLAGS BODY[HEADER])\r\n";
    let said = say(&mut client, &mut store, fetch, &mut |client, store, question| {
        if matches!(question, Question::Command(..) | Question::CommandAnd(..)) {
            n_slices += 1;
            if n_slices == 1 {
                flag(client, store, 301);
            }
        }
        store.reply(question)
    });
    assert!(n_slices > 2, "{n_slices} slices");
    assert!(said.ends_with("c OK done\r\n"));
    let told: Vec<&str> = said.lines().filter(|line| line.starts_with("* 301 FETCH ")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(!told[0].contains("\\Flagged"), "it was read before: {told:?}");
    assert!(told[1].contains("\\Flagged"), "{told:?}");
    let said =
        say(&mut client, &mut store, "d NOOP\r\n", &mut |_, store, question| store.reply(question));
    assert_eq!(said, "d OK done\r\n", "all was told");
}

#[test]
fn how_many_messages_there_are_is_told_though_the_next_page_of_them_does_not_come() {
    let mut store = Store::new();
    let mut client = client(&mut store);
    let raws = vec![b"a: b\r\n\r\nc".to_vec(); 3];
    store.append("INBOX", &raws, &Flags::default());
    let mut n_asked = 0;
    let said = say(&mut client, &mut store, "c NOOP\r\n", &mut |_, store, question| {
        n_asked += 1;
        if n_asked > 1 {
            return Reply::Trouble(Trouble::Unavailable);
        }
        let mut reply = store.reply(question);
        // As if no more fitted into a page.
        if let Reply::Answer(Answer::News(_, records, next, _)) = &mut reply {
            *next = records.get(2).map(|record| record.uid);
            records.truncate(2);
        }
        reply
    });
    assert_eq!(n_asked, 2);
    assert_eq!(said, "* 2 EXISTS\r\n* 2 RECENT\r\nc OK done\r\n");
    let said =
        say(&mut client, &mut store, "d NOOP\r\n", &mut |_, store, question| store.reply(question));
    assert!(said.contains("* 3 EXISTS\r\n"), "{said}");
}

#[test]
fn expunges_that_come_in_parts_are_all_told() {
    let mut store = Store::new();
    let raws = vec![b"a: b\r\n\r\nc".to_vec(); 4];
    store.append("INBOX", &raws, &Flags::default());
    let mut client = client(&mut store);
    let (account, mailbox) = (ACCOUNT, store.of("INBOX").mailbox);
    let second = UidSet::range(Uid::new(2).unwrap(), Uid::new(2).unwrap());
    let third = UidSet::range(Uid::new(3).unwrap(), Uid::new(3).unwrap());
    let mut behind_second = None;
    for uids in [&second, &third] {
        let uids = uids.clone();
        let gone = command::Expunge { account, mailbox, uids, only_deleted: false };
        store.apply(Command::Expunge(gone), &[]);
        behind_second = behind_second.or(Some(info(&store, "INBOX").highest_modseq));
    }
    store.append("INBOX", &raws[..1], &Flags::default());
    let mut asked = Vec::new();
    let said = say(&mut client, &mut store, "c NOOP\r\n", &mut |_, store, question| {
        asked.push(store.summary(&question));
        let mut reply = store.reply(question);
        // As if no more fitted into a part.
        if let Reply::Answer(Answer::News(gone, records, _, up_to)) = &mut reply
            && asked.len() == 1
        {
            (*gone, *up_to) = (second.clone(), behind_second);
            records.clear();
        }
        reply
    });
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].starts_with("news: vanished INBOX since 3 of 1:4; "), "{asked:?}");
    assert!(said.starts_with("* 2 EXPUNGE\r\n* 2 EXPUNGE\r\n* 3 EXISTS\r\n"), "{said}");
    assert!(said.ends_with("c OK done\r\n"), "{said}");
}

#[test]
fn a_rename_of_inbox_goes_on_into_the_mailbox_it_made() {
    let mut store = Store::new();
    let raws = vec![b"a: b\r\n\r\nc".to_vec(); 100];
    store.append("INBOX", &raws, &Flags::default());
    let mut client = client(&mut store);
    let name = |text: &str| MailboxName::parse(text, '/').unwrap();
    let mut n_asked = 0;
    let said = say(&mut client, &mut store, "c RENAME INBOX old\r\n", &mut |_, store, question| {
        n_asked += 1;
        let reply = store.reply(question);
        if n_asked == 1 {
            // Somebody else gives it another name, and its own to another mailbox.
            let (account, from, to) = (ACCOUNT, name("old"), name("older"));
            let rename = command::RenameMailbox { account, from, to, further: false, into: None };
            assert_eq!(store.apply(Command::RenameMailbox(rename), &[]), Outcome::Done);
            let create = command::CreateMailbox { account, name: name("old"), special_use: None };
            store.apply(Command::CreateMailbox(create), &[]);
        }
        reply
    });
    assert!(n_asked > 1, "more than a slice");
    assert!(said.ends_with("c OK renamed\r\n"), "{said}");
    let n_messages = |text: &str| info(&store, text).n_messages;
    assert_eq!(["INBOX", "old", "older"].map(n_messages), [0, 0, 100]);
}

#[test]
fn a_message_that_goes_between_two_pages_makes_no_other_one_be_passed_over() {
    for (line, wanted) in [
        ("c UID SORT (SUBJECT) UTF-8 ALL\r\n", "* SORT 1 2 3 4 5\r\n"),
        ("c UID THREAD REFERENCES UTF-8 ALL\r\n", "* THREAD (1)(2)(3)(4)(5)\r\n"),
    ] {
        let mut store = Store::new();
        let raw = |n: u32| format!("Subject: {n}\r\n\r\n").into_bytes();
        store.append("INBOX", &(1..=5).map(raw).collect::<Vec<_>>(), &Flags::default());
        let mut client = client(&mut store);
        let highest = Some(info(&store, "INBOX").highest_modseq);
        let mut n_pages = 0;
        let said = say(&mut client, &mut store, line, &mut |_, store, question| {
            let mut reply = store.reply(question);
            let told = match &mut reply {
                Reply::Answer(Answer::Sorted(uids, next, as_of)) => {
                    n_pages += 1;
                    (n_pages == 1).then(|| uids.truncate(2)).map(|()| (next, as_of))
                }
                Reply::Answer(Answer::Threads(nodes, next, as_of)) => {
                    n_pages += 1;
                    (n_pages == 1).then(|| nodes.truncate(2)).map(|()| (next, as_of))
                }
                _ => None,
            };
            // As if no more fitted into a page. One of those that were told goes.
            if let Some((next, as_of)) = told {
                (*next, *as_of) = (Some(2), highest);
                let (account, mailbox) = (ACCOUNT, store.of("INBOX").mailbox);
                let uids = UidSet::range(Uid::FIRST, Uid::FIRST);
                let gone = command::Expunge { account, mailbox, uids, only_deleted: false };
                store.apply(Command::Expunge(gone), &[]);
            }
            reply
        });
        assert_eq!(n_pages, 2);
        assert!(said.starts_with(wanted), "{said}");
    }
}
