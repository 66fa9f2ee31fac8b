//! A POP3 client: fetches the oldest messages and takes away those that are its own.

use anyhow::{Context as _, Result};

use super::hand::{ANSWER_DEADLINE, Hand};
use crate::client::pop3::Pop3;
use crate::history::{Operation, Reply, Target, Verdict, View, ViewedMessage};
use crate::message;

/// Pause between two sessions, in milliseconds.
const THINK_MS: (u64, u64) = (400, 900);
/// Messages fetched in one session.
const FETCHED_MAX: usize = 5;
const INBOX: &str = "INBOX";

pub(super) fn run(mut hand: Hand) {
    while !hand.is_over() {
        hand.think(THINK_MS.0, THINK_MS.1);
        let start = hand.now_us();
        let mut session = None;
        let fetched = fetch(&mut hand, &mut session);
        let operation = Operation::Read { mailbox: INBOX.into() };
        let found = match fetched {
            Ok((view, found)) => {
                hand.note(start, operation, Ok(seen(view)));
                found
            }
            Err(error) => {
                let verdict = hand.failed(&error, &mut session);
                hand.note(start, operation, Err(verdict));
                continue;
            }
        };
        take_away(&hand, &mut session, found);
    }
}

/// What a look shows: where there is no message nobody told a UIDVALIDITY, so it shows nothing.
fn seen(view: View) -> Reply {
    if view.messages.is_empty() { Reply::Done } else { Reply::Viewed(view) }
}

/// Reads the oldest messages; which of them, by their numbers, are this client's.
fn fetch(hand: &mut Hand, session: &mut Option<Pop3>) -> Result<(View, Vec<(u32, Target)>)> {
    let all = hand.site.pop3.clone();
    let endpoint = hand.endpoint(&all).context("no POP3")?;
    let mut pop3 = Pop3::open(endpoint, &hand.canary.name, &hand.canary.password)?;
    pop3.set_deadline(ANSWER_DEADLINE)?;
    let pop3 = session.insert(pop3);
    let listed = pop3.lines("UIDL")?;
    let mut view = View::default();
    let mut mine = Vec::new();
    for line in listed.iter().take(FETCHED_MAX) {
        let line = String::from_utf8_lossy(line).into_owned();
        let (number, name) = line.split_once(' ').context("UIDL without a space")?;
        let (validity, uid) = name.split_once('.').context("UIDL is not UIDVALIDITY.UID")?;
        let (number, uid): (u32, u32) = (number.parse()?, uid.parse()?);
        view.uid_validity = validity.parse()?;
        let octets = match pop3.retr(number) {
            Ok(octets) => octets,
            // Another client took it away.
            Err(error) if error.to_string().contains("gone") => continue,
            Err(error) => return Err(error),
        };
        let (token, digest) =
            message::read(&octets).unwrap_or_else(|| ("damaged".into(), "damaged".into()));
        if hand.is_collectors(&token) {
            mine.push((number, Target { uid, token: token.clone() }));
        }
        let digest = Some(digest);
        view.messages.push(ViewedMessage { uid, token, digest, flags: None, modseq: None });
    }
    Ok((view, mine))
}

/// DELE and QUIT; only QUIT does it.
fn take_away(hand: &Hand, session: &mut Option<Pop3>, mine: Vec<(u32, Target)>) {
    let Some(pop3) = session.as_mut() else { return };
    let start = hand.now_us();
    let marked =
        mine.iter().try_for_each(|(number, _)| pop3.ok(&format!("DELE {number}")).map(drop));
    let done = marked.and_then(|()| pop3.ok("QUIT").map(drop));
    let answered = match done {
        Ok(()) => Ok(Reply::Done),
        // Why: after a failed QUIT some may be gone.
        Err(error) => Err(match hand.failed(&error, session) {
            Verdict::Refused { why } => Verdict::Unknown { why },
            other => other,
        }),
    };
    if !mine.is_empty() {
        let targets = mine.into_iter().map(|(_, target)| target).collect();
        hand.note(start, Operation::Expunge { mailbox: INBOX.into(), targets }, answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::history::{Event, History, Record};

    #[test]
    fn an_empty_maildrop_tells_nothing_of_uidvalidity() {
        let read = |start_us, view| {
            let operation = Operation::Read { mailbox: INBOX.into() };
            let verdict = Verdict::Acknowledged { reply: seen(view) };
            let (client, account, end_us) = (1, "anna".into(), start_us + 1);
            Record::Event(Event { client, account, start_us, end_us, operation, verdict })
        };
        let digest = "of t1".to_owned();
        let deliver = Record::Event(Event {
            client: 2,
            account: "anna".into(),
            start_us: 3,
            end_us: 4,
            operation: Operation::Deliver {
                mailbox: INBOX.into(),
                token: "t1".into(),
                digest: digest.clone(),
                flags: std::collections::BTreeSet::new(),
            },
            verdict: Verdict::Acknowledged { reply: Reply::Done },
        });
        let (token, digest) = ("t1".to_owned(), Some(digest));
        let message = ViewedMessage { uid: 1, token, digest, flags: None, modseq: None };
        let full = View { uid_validity: 9, messages: vec![message], ..View::default() };
        let records = vec![read(1, View::default()), deliver, read(5, full)];
        assert_eq!(check(&History { records }), Vec::new());
    }
}
