//! A mailbox of which every second message is gone: more ranges of UIDs than any command or question names.

mod support;

use mailbox::Flags;

const N: u32 = 9_000;

#[test]
fn a_mailbox_full_of_gaps_is_told_changed_and_emptied_whole() {
    let mut store = support::Store::new();
    for chunk in 0..N / 100 {
        let raws: Vec<Vec<u8>> = (0..100)
            .map(|n| format!("Subject: {}\r\n\r\n", chunk * 100 + n).into_bytes())
            .collect();
        store.append("INBOX", &raws, &Flags::default());
    }
    let mut client = support::Client::new(support::config());
    let mut say = |line: String| {
        let said = client.say(&mut store, line.as_bytes());
        String::from_utf8(said).unwrap()
    };
    say("a LOGIN ann@example.test secret\r\nb SELECT INBOX\r\n".into());
    let odd: Vec<String> = (1..=N).step_by(2).map(|n| n.to_string()).collect();
    say(format!("c STORE {} +FLAGS.SILENT (\\Deleted)\r\n", odd.join(",")));
    let said = say("d EXPUNGE\r\n".into());
    assert!(said.ends_with("d OK done\r\n"), "{}", &said[said.len() - 100..]);
    let said = say("e FETCH 1:* (UID)\r\n".into());
    let told: Vec<&str> = said.lines().filter(|line| line.contains(" FETCH ")).collect();
    let expected: Vec<String> =
        (1..=N / 2).map(|n| format!("* {n} FETCH (UID {})", n * 2)).collect();
    assert_eq!(told, expected);
    assert!(said.ends_with("e OK done\r\n"));
    let said = say("f STORE 1:* +FLAGS (\\Deleted)\r\n".into());
    assert_eq!(said.matches(" FETCH ").count(), expected.len());
    let said = say("g UID EXPUNGE 1:*\r\nh STATUS INBOX (MESSAGES)\r\n".into());
    assert_eq!(said.matches(" EXPUNGE\r\n").count(), expected.len());
    assert!(said.contains("(MESSAGES 0)"), "{}", &said[said.len() - 100..]);
}
