//! When nobody does anything: what every client knows is what there is, however it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::cache::Open;
use super::facts::{Facts, Mailbox};
use super::field::Field;
use super::session::{Sent, Session};
use super::words::{Flags, number_after, read_set};

/// For news to reach a client in IDLE. The product's figure is a second, on a machine that does nothing
/// else.
const IDLE: Duration = Duration::from_secs(30);

/// What a mailbox holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    messages: BTreeMap<u32, (Flags, u64)>,
    size: u64,
}

type Truth = BTreeMap<Mailbox, Held>;

/// Every client is judged, and the ways to ask against each other.
pub fn judge(field: &mut Field<'_>) -> Result<()> {
    let (mut truth, mut first) = (Truth::new(), Truth::new());
    for k in 0..field.observers.len() {
        let (observer, facts) = (&mut field.observers[k], &mut field.facts);
        let seen = look(observer, facts).with_context(|| observer.name.clone())?;
        if k % 2 == 0 {
            first = seen;
        } else {
            ensure!(first == seen, "two looks into one account: {first:?} and {seen:?}");
            truth.append(&mut first);
        }
    }
    field.facts.judge_copies()?;
    for session in &mut field.sessions {
        agrees(session, &mut field.facts, &truth).with_context(|| session.name.clone())?;
    }
    Ok(())
}

/// All mailboxes of an account, anew.
fn look(observer: &mut Session, facts: &mut Facts) -> Result<Truth> {
    let listed = observer.ok("LIST \"\" \"*\"", facts)?;
    let names = listed.others.iter().filter(|line| !line.contains("\\Noselect"));
    let names: Vec<String> =
        names.filter_map(|line| Some(line.rsplit_once(' ')?.1.replace('"', ""))).collect();
    let mut truth = Truth::new();
    for name in names {
        // Nothing is known of before.
        observer.open = None;
        observer.kept.clear();
        let status = observer.ok(
            &format!(
                "STATUS {name} (MESSAGES UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE HIGHESTMODSEQ)"
            ),
            facts,
        )?;
        ensure!(observer.select(&name, true, facts)?, "{name} is listed and cannot be opened");
        let mailbox = observer.mailbox().context("nothing is open")?;
        let fetch = Sent { fetches: true, ..Sent::default() };
        let open = observer.open.as_ref().context("nothing is open")?;
        if !open.slots.is_empty() {
            observer.run("UID FETCH 1:* (FLAGS MODSEQ EMAILID RFC822.SIZE)", fetch, facts)?;
        }
        let open = observer.open.as_ref().context("nothing is open")?;
        let mut held = held(open)?;
        held.size = open.uids().iter().map(|uid| facts.size((mailbox, *uid))).sum();
        facts.there(mailbox, held.messages.keys().copied())?;
        let line = status.others.first().context("no STATUS")?;
        status_agrees(line, mailbox.1, &held, open.modseq)?;
        searches_agree(observer, facts, &held).with_context(|| name.clone())?;
        truth.insert(mailbox, held);
    }
    Ok(truth)
}

/// What a client knows, if it knows everything.
fn held(open: &Open) -> Result<Held> {
    let message = |slot: &super::cache::Slot| {
        let modseq = slot.modseq.unwrap_or(0);
        Some((slot.uid?, (slot.flags.clone()?, modseq)))
    };
    let messages: Option<BTreeMap<_, _>> = open.slots.iter().map(message).collect();
    Ok(Held { messages: messages.context("not all is known")?, size: 0 })
}

fn status_agrees(line: &str, uid_validity: u32, held: &Held, modseq: u64) -> Result<()> {
    let n = |wanted: &dyn Fn(&Flags) -> bool| {
        held.messages.values().filter(|(flags, _)| wanted(flags)).count() as u64
    };
    let last = held.messages.keys().last().copied().unwrap_or(0);
    let greatest = held.messages.values().map(|(_, modseq)| *modseq).max().unwrap_or(0);
    let wanted = [
        ("MESSAGES", n(&|_| true)),
        ("UNSEEN", n(&|flags| !flags.contains("\\Seen"))),
        ("DELETED", n(&|flags| flags.contains("\\Deleted"))),
        ("SIZE", held.size),
        ("UIDVALIDITY", u64::from(uid_validity)),
        ("HIGHESTMODSEQ", modseq),
    ];
    for (word, number) in wanted {
        ensure!(number_after(line, word) == Some(number), "{line}, and {word} is {number}");
    }
    ensure!(number_after(line, "UIDNEXT") > Some(u64::from(last)), "{line}, and {last} is there");
    ensure!(modseq >= greatest, "{line}, and {greatest} is there");
    Ok(())
}

/// SEARCH, ESEARCH, SORT and THREAD find the same as the listing shows.
fn searches_agree(observer: &mut Session, facts: &mut Facts, held: &Held) -> Result<()> {
    let with = |wanted: &dyn Fn(&Flags, u64) -> bool| -> BTreeSet<u32> {
        let found = held.messages.iter().filter(|(_, (flags, modseq))| wanted(flags, *modseq));
        found.map(|(uid, _)| *uid).collect()
    };
    let all = with(&|_, _| true);
    let middle = held.messages.values().map(|(_, modseq)| *modseq).max().unwrap_or(1) / 2 + 1;
    let searches = [
        ("UID SEARCH UNSEEN".to_owned(), with(&|flags, _| !flags.contains("\\Seen"))),
        ("UID SEARCH KEYWORD $Work".to_owned(), with(&|flags, _| flags.contains("$Work"))),
        (format!("UID SEARCH MODSEQ {middle}"), with(&|_, modseq| modseq >= middle)),
        ("UID SEARCH NOT DELETED".to_owned(), with(&|flags, _| !flags.contains("\\Deleted"))),
        ("UID SORT (REVERSE ARRIVAL) UTF-8 ALL".to_owned(), all.clone()),
        ("UID THREAD REFERENCES UTF-8 ALL".to_owned(), all),
    ];
    for (search, wanted) in searches {
        let ended = observer.ok(&search, facts)?;
        let line = ended.others.first().context("no answer")?;
        let (numbers, modseq) = line.split_once(" (MODSEQ ").unwrap_or((line, ""));
        let found = numbers.split([' ', '(', ')']).filter_map(|word| word.parse().ok());
        let found: BTreeSet<u32> = found.collect();
        ensure!(found == wanted, "{search}: {found:?}, and it is {wanted:?}");
        if let Some(told) = modseq.strip_suffix(')') {
            let greatest = wanted.iter().map(|uid| held.messages[uid].1).max().unwrap_or(0);
            ensure!(told == greatest.to_string(), "{search}: MODSEQ {told} of {greatest}");
        }
    }
    let flagged = with(&|flags, _| flags.contains("\\Flagged"));
    let ended = observer.ok("UID SEARCH RETURN (MIN MAX COUNT ALL) FLAGGED", facts)?;
    let line = ended.others.first().context("no ESEARCH")?;
    let ends = (flagged.first().copied().map(u64::from), flagged.last().copied().map(u64::from));
    let told = (number_after(line, "MIN"), number_after(line, "MAX"));
    let listed = line.split_once(" ALL ").map_or("", |(_, set)| set);
    let agrees = told == ends
        && number_after(line, "COUNT") == Some(flagged.len() as u64)
        && read_set(listed)? == flagged;
    ensure!(agrees, "{line}, and it is {flagged:?}");
    Ok(())
}

/// A client is told what it does not know yet, and then knows what there is.
fn agrees(session: &mut Session, facts: &mut Facts, truth: &Truth) -> Result<()> {
    if session.flight.back().is_some_and(|sent| sent.is_idle) {
        idle_agrees(session, facts, truth)?;
        session.finish(facts)?;
    } else if session.open.is_some() {
        session.run("NOOP", Sent::default(), facts)?;
    }
    if session.mailbox().is_some_and(|mailbox| !truth.contains_key(&mailbox)) {
        session.listen(Instant::now() + IDLE, facts)?;
        ensure!(!session.is_online(), "the mailbox is gone, and the client is still there");
        return Ok(());
    }
    session.ask_rest(facts)?;
    let (Some(mailbox), Some(open)) = (session.mailbox(), &session.open) else { return Ok(()) };
    let there = truth.get(&mailbox).context("the mailbox is gone")?;
    let known = held(open)?;
    for (uid, (flags, modseq)) in &known.messages {
        let (wanted, at) = there.messages.get(uid).with_context(|| format!("{uid} is gone"))?;
        let agrees = flags == wanted && (*modseq == 0 || modseq == at);
        ensure!(agrees, "UID {uid} is known as {flags:?} {modseq}, and is {wanted:?} {at}");
    }
    let missing = there.messages.keys().find(|uid| !known.messages.contains_key(uid));
    ensure!(missing.is_none(), "{missing:?} is not known");
    Ok(())
}

/// In IDLE all has to be told without a question.
fn idle_agrees(session: &mut Session, facts: &mut Facts, truth: &Truth) -> Result<()> {
    let until = Instant::now() + IDLE;
    loop {
        let Some(mailbox) = session.mailbox() else { return Ok(()) };
        let agrees = match (truth.get(&mailbox), &session.open) {
            (Some(there), Some(open)) => {
                let as_there = |slot: &super::cache::Slot| match (slot.uid, &slot.flags) {
                    (Some(uid), Some(flags)) => {
                        there.messages.get(&uid).is_some_and(|(wanted, _)| flags == wanted)
                    }
                    _ => true,
                };
                open.slots.len() == there.messages.len() && open.slots.iter().all(as_there)
            }
            _ => false,
        };
        if agrees {
            return Ok(());
        }
        let heard = session.listen(until, facts)?;
        ensure!(heard, "was not told in IDLE: {:?}, {:?}", truth.get(&mailbox), session.open);
    }
}
