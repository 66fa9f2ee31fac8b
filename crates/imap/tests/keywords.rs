//! A mailbox that gets as many keywords as it can have.

mod support;

use mailbox::flags::KEYWORDS_MAX;
use mailbox::{Flags, MAILBOX_KEYWORDS_MAX};

/// RFC 9051 7.1: `\*` says that there is room for more.
#[test]
fn a_client_is_told_when_there_is_room_for_no_more_keywords() {
    let n_messages = MAILBOX_KEYWORDS_MAX / KEYWORDS_MAX;
    let mut store = support::Store::new();
    let raw = b"Subject: x\r\n\r\n".to_vec();
    store.append("INBOX", &vec![raw; n_messages + 1], &Flags::default());
    let mut client = support::Client::new(support::config());
    let mut say = |line: &str| {
        let said = client.say(&mut store, line.as_bytes());
        String::from_utf8(said).unwrap()
    };
    say("a LOGIN ann@example.test secret\r\nb SELECT INBOX\r\n");
    for n in 1..=n_messages {
        let keywords: Vec<String> = (0..KEYWORDS_MAX).map(|k| format!("k{n}x{k}")).collect();
        let said = say(&format!("c STORE {n} +FLAGS.SILENT ({})\r\n", keywords.join(" ")));
        let told = said.lines().find(|line| line.contains("[PERMANENTFLAGS (")).unwrap();
        assert_eq!(told.contains("\\*"), n < n_messages, "{told}");
        assert!(!said.contains(" FETCH "), "{said}");
    }
    let said = say(&format!("d STORE {} +FLAGS.SILENT (other)\r\n", n_messages + 1));
    assert!(said.contains("d NO [LIMIT]"), "{said}");
}
