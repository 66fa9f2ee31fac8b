//! A mail transfer agent: delivers by LMTP, sometimes to two accounts at once.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::hand::{ANSWER_DEADLINE, Hand, verdict_of};
use crate::client::lmtp::Lmtp;
use crate::history::{Event, Operation, Record, Reply, Verdict};
use crate::message;

/// Pause between two deliveries, in milliseconds.
const THINK_MS: (u64, u64) = (30, 110);
/// So many of 100 have two recipients.
const TWO_PERCENT: u64 = 15;

pub(super) fn run(mut hand: Hand) {
    let mut session: Option<Lmtp> = None;
    let mut n_sent = 0;
    while !hand.is_over() {
        hand.think(THINK_MS.0, THINK_MS.1);
        n_sent += 1;
        let token = format!("lmtp{}-{n_sent}", hand.id);
        let mut to = vec![hand.canary.name.clone()];
        if hand.dice.percent(TWO_PERCENT) {
            let at = hand.dice.range(0, hand.others.len() as u64 - 1) as usize;
            to.extend(Some(hand.others[at].clone()).filter(|other| *other != hand.canary.name));
        }
        deliver(&mut hand, &mut session, &token, &to);
    }
}

fn deliver(hand: &mut Hand, session: &mut Option<Lmtp>, token: &str, to: &[String]) {
    let (octets, digest) = message::compose(token, &mut hand.dice);
    let start = hand.now_us();
    let (replies, done) = transaction(hand, session, to, &octets);
    let failed = done.err().map(|error| {
        let verdict = hand.failed(&error, session);
        // Why: what a transaction that failed half way left of the session is not known.
        if session.take().is_some() && error.to_string().contains(": 421 ") {
            hand.disconnected();
        }
        verdict
    });
    let unanswered = failed.unwrap_or_else(|| Verdict::Unknown { why: "no reply".into() });
    // What was answered before the rest failed is answered.
    let verdicts = replies.into_iter().map(|reply| reply.map_or(unanswered.clone(), verdict));
    let end_us = hand.now_us();
    for (account, verdict) in to.iter().zip(verdicts) {
        let operation = Operation::Deliver {
            mailbox: "INBOX".into(),
            token: token.to_owned(),
            digest: digest.clone(),
            flags: BTreeSet::new(),
        };
        let (client, account, start_us) = (hand.id, account.clone(), start);
        let event = Event { client, account, start_us, end_us, operation, verdict };
        hand.recorder.record(Record::Event(event));
    }
}

fn transaction(
    hand: &mut Hand,
    session: &mut Option<Lmtp>,
    to: &[String],
    octets: &[u8],
) -> (Vec<Option<String>>, Result<()>) {
    let lmtp = match session {
        Some(lmtp) => lmtp,
        None => match open(hand) {
            Ok(lmtp) => session.insert(lmtp),
            Err(error) => return (vec![None; to.len()], Err(error)),
        },
    };
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    lmtp.answered(&to, octets)
}

fn open(hand: &mut Hand) -> Result<Lmtp> {
    let all = hand.site.lmtp.clone();
    let endpoint = hand.endpoint(&all).context("no LMTP")?;
    let mut lmtp = Lmtp::open(endpoint)?;
    lmtp.set_deadline(ANSWER_DEADLINE)?;
    Ok(lmtp)
}

fn verdict(reply: String) -> Verdict {
    match reply.as_bytes().first() {
        Some(b'2') => Verdict::Acknowledged { reply: Reply::Done },
        _ => verdict_of(reply),
    }
}
