//! A POP3 client: fetches some messages and takes away those that are its own. Now and then it goes away
//! without a word instead.

use anyhow::{Context as _, Result};

use super::hand::{ANSWER_DEADLINE, Hand};
use crate::client::pop3::Pop3;
use crate::history::{Operation, Reply, Target, Verdict, View, ViewedMessage};
use crate::message;

/// Pause between two sessions, in milliseconds.
const THINK_MS: (u64, u64) = (400, 900);
/// Messages fetched in one session.
const FETCHED_MAX: usize = 5;
/// So many of 100 sessions end without QUIT.
const LEAVES_PERCENT: u64 = 10;
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
        let leaves = hand.dice.percent(LEAVES_PERCENT);
        take_away(&hand, &mut session, found, leaves);
    }
}

/// What a look shows: where there is no message nobody told a UIDVALIDITY, so it shows nothing.
fn seen(view: View) -> Reply {
    if view.messages.is_empty() { Reply::Done } else { Reply::Viewed(view) }
}

/// Reads messages next to each other; which of them, by their numbers, are this client's.
fn fetch(hand: &mut Hand, session: &mut Option<Pop3>) -> Result<(View, Vec<(u32, Target)>)> {
    let all = hand.site.pop3.clone();
    let endpoint = hand.endpoint(&all).context("no POP3")?;
    let mut pop3 = Pop3::open(endpoint, &hand.canary.name, &hand.canary.password)?;
    pop3.set_deadline(ANSWER_DEADLINE)?;
    let pop3 = session.insert(pop3);
    let listed = pop3.lines("UIDL")?;
    let mut view = View::default();
    let mut mine = Vec::new();
    // Why not the oldest: those may be some that the sorter leaves alone for ever.
    let spare = listed.len().saturating_sub(FETCHED_MAX) as u64;
    let first = hand.dice.range(0, spare) as usize;
    for line in listed.iter().skip(first).take(FETCHED_MAX) {
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

/// DELE and QUIT; only QUIT does it (RFC 1939 6).
fn take_away(hand: &Hand, session: &mut Option<Pop3>, mine: Vec<(u32, Target)>, leaves: bool) {
    let Some(pop3) = session.as_mut() else { return };
    let start = hand.now_us();
    let marked =
        mine.iter().try_for_each(|(number, _)| pop3.ok(&format!("DELE {number}")).map(drop));
    if marked.is_ok() && leaves && !mine.is_empty() {
        // Why nothing is written down: nothing was asked for, and so nothing may be missing.
        *session = None;
        return;
    }
    let answered = match marked.map(|()| pop3.ok("QUIT")) {
        Ok(Ok(_)) => Ok(Reply::Done),
        // Why: after a failed QUIT some may be gone.
        Ok(Err(error)) => Err(match hand.failed(&error, session) {
            Verdict::Refused { why } => Verdict::Unknown { why },
            other => other,
        }),
        // Why: this session will not say QUIT any more.
        Err(error) => Err(match hand.failed(&error, session) {
            Verdict::Unknown { why } => Verdict::Refused { why },
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::check::check;
    use crate::client::script::serve;
    use crate::history::{Event, History, Record};
    use crate::work::hand::of_anna;

    /// What is written down of a message taken away from a server that answers like this, or ends the
    /// connection.
    fn taken_away(
        dele: Option<&'static str>,
        quit: Option<&'static str>,
        leaves: bool,
    ) -> Vec<Verdict> {
        let endpoint = serve("+OK\r\n", move |line| match line {
            "DELE 1" => dele.map(str::to_owned),
            "QUIT" => quit.map(str::to_owned),
            _ => Some("+OK\r\n".into()),
        });
        let hand = of_anna(Vec::new(), vec![endpoint.clone()]);
        let mut session = Some(Pop3::open(&endpoint, "anna", "secret").expect("a session"));
        let mine = vec![(1, Target { uid: 7, token: "t1".into() })];
        take_away(&hand, &mut session, mine, leaves);
        hand.recorder.take_history().events().map(|event| event.verdict.clone()).collect()
    }

    #[test]
    fn without_quit_nothing_may_be_taken_away() {
        let ok = Some("+OK\r\n");
        let none = Some("-ERR no\r\n");
        assert!(matches!(taken_away(ok, ok, false)[..], [Verdict::Acknowledged { .. }]));
        for dele in [none, None] {
            assert!(matches!(taken_away(dele, ok, false)[..], [Verdict::Refused { .. }]));
        }
        for quit in [none, None] {
            assert!(matches!(taken_away(ok, quit, false)[..], [Verdict::Unknown { .. }]));
        }
        assert!(taken_away(ok, None, true).is_empty());
    }

    #[test]
    fn every_message_is_fetched_some_time() {
        let endpoint = serve("+OK\r\n", |line| {
            let all: String = (1..=12).map(|n| format!("{n} 9.{n}\r\n")).collect();
            Some(match line.split_once(' ') {
                None if line == "UIDL" => format!("+OK\r\n{all}.\r\n"),
                Some(("RETR", n)) => format!("+OK\r\nX-Drill-Token: t{n}\r\n.\r\n"),
                _ => "+OK\r\n".into(),
            })
        });
        let mut hand = of_anna(Vec::new(), vec![endpoint]);
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            let (view, _) = fetch(&mut hand, &mut None).expect("a session");
            assert_eq!(view.messages.len(), FETCHED_MAX);
            seen.extend(view.messages.iter().map(|message| message.uid));
        }
        let all: BTreeSet<u32> = (1..=12).collect();
        assert_eq!(seen, all);
    }

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
                flags: BTreeSet::new(),
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
