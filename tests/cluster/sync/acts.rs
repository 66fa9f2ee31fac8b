//! What clients do: one random command or some at once, sent and not waited for.

use std::collections::BTreeSet;

use anyhow::Result;

use super::cache::Open;
use super::dice::Dice;
use super::session::{Change, Sent, Session};
use super::words::{Flags, write_set};

/// Names that mailboxes have in the course of time.
pub const NAMES: [&str; 5] = ["INBOX", "Work", "Lists", "Passing", "Renamed"];
/// Those that are deleted, made and renamed.
pub const FLEETING: [&str; 2] = ["Passing", "Renamed"];
const FLAGS: [&str; 7] =
    ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "\\Deleted", "$Work", "$Forwarded"];

/// One of a list.
pub fn one_of<'a, T>(dice: &mut Dice, list: &'a [T]) -> Option<&'a T> {
    let last = (list.len() as u64).checked_sub(1)?;
    list.get(dice.range(0, last) as usize)
}

/// A small message like no other.
pub fn message(n: usize) -> String {
    let lines = "mail that is told of\r\n".repeat(n % 7);
    format!("From: a@example.test\r\nSubject: message {n}\r\n\r\n{lines}the end of {n}\r\n")
}

fn flags(dice: &mut Dice) -> Flags {
    let n = dice.range(1, 2);
    (0..n).filter_map(|_| one_of(dice, &FLAGS)).map(|flag| (*flag).to_owned()).collect()
}

fn list(flags: &Flags) -> String {
    flags.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Some messages: sequence numbers and, where they are known, UIDs.
fn some(dice: &mut Dice, open: &Open, by_seqnum: bool) -> Option<(String, BTreeSet<u32>)> {
    let n = open.slots.len() as u64;
    if n == 0 {
        return None;
    }
    let picked: BTreeSet<u64> = if dice.percent(40) {
        let first = dice.range(1, n);
        (first..=(first + dice.range(0, 6)).min(n)).collect()
    } else {
        (0..dice.range(1, 3)).map(|_| dice.range(1, n)).collect()
    };
    let known = picked.iter().filter_map(|k| open.slots[*k as usize - 1].uid);
    let uids: BTreeSet<u32> = known.collect();
    if uids.len() < picked.len() {
        return None;
    }
    let numbers: Vec<u32> = match by_seqnum {
        true => picked.into_iter().map(|k| k as u32).collect(),
        false => uids.iter().copied().collect(),
    };
    let is_run = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let set = match (is_run && numbers.len() > 1, numbers.first(), numbers.last()) {
        (true, Some(first), Some(last)) => format!("{first}:{last}"),
        _ => write_set(numbers),
    };
    Some((set, uids))
}

/// A command that may stand beside others of its kind without waiting for their ends: by sequence
/// number no message may go meanwhile, and by UID it does not matter.
fn together(dice: &mut Dice, session: &Session, by_seqnum: bool) -> Option<(String, Sent)> {
    let open = session.open.as_ref()?;
    let (uid, condstore) = (if by_seqnum { "" } else { "UID " }, session.habits.condstore);
    let sent = Sent { by_seqnum, ..Sent::default() };
    let fetch = Sent { by_seqnum, fetches: true, ..Sent::default() };
    let (set, uids) = some(dice, open, by_seqnum)?;
    Some(match dice.range(0, 9) {
        0 => (format!("{uid}FETCH {set} (FLAGS)"), fetch),
        1 if condstore => (format!("{uid}FETCH {set} (UID FLAGS MODSEQ)"), fetch),
        1 => (format!("{uid}FETCH {set} (UID FLAGS)"), fetch),
        2 => (format!("{uid}FETCH {set} (UID BODY[TEXT]<0.9>)"), sent),
        3 if condstore => {
            let since = open.modseq.saturating_sub(dice.range(0, 5));
            let vanished = session.habits.qresync && !by_seqnum && dice.percent(50);
            let vanished = if vanished { " VANISHED" } else { "" };
            let set = if by_seqnum { set } else { "1:*".to_owned() };
            (format!("{uid}FETCH {set} (FLAGS) (CHANGEDSINCE {since}{vanished})"), fetch)
        }
        3 => (format!("{uid}SEARCH UNSEEN"), sent),
        4 => (format!("{uid}SEARCH RETURN (ALL COUNT) KEYWORD $Work"), sent),
        _ if open.read_only => (format!("{uid}SEARCH NOT DELETED"), sent),
        _ => store(dice, session, open, (uid, &set, uids)),
    })
}

fn store(
    dice: &mut Dice,
    session: &Session,
    open: &Open,
    (uid, set, uids): (&str, &str, BTreeSet<u32>),
) -> (String, Sent) {
    let flags = flags(dice);
    let (sign, change) = match dice.range(0, 4) {
        0 | 1 => ("+", Change::Add(flags.clone())),
        2 | 3 => ("-", Change::Remove(flags.clone())),
        _ => ("", Change::Replace(flags.clone())),
    };
    let is_silent = dice.percent(40);
    let since = match session.habits.condstore && dice.percent(30) {
        true => format!(" (UNCHANGEDSINCE {})", open.modseq.saturating_sub(dice.range(0, 2))),
        false => String::new(),
    };
    let silent = if is_silent { ".SILENT" } else { "" };
    let text = format!("{uid}STORE {set}{since} {sign}FLAGS{silent} ({})", list(&flags));
    let sent = Sent { by_seqnum: uid.is_empty(), ..Sent::default() };
    (text, Sent { silent: is_silent.then_some((uids, change)), ..sent })
}

/// Sends something that changes or asks for something.
pub fn act(dice: &mut Dice, session: &mut Session, n_messages: &mut usize) -> Result<()> {
    let Some(open) = &session.open else { return Ok(()) };
    let (read_only, of) = (open.read_only, open.uid_validity);
    let copies = || Sent { copies_from: Some(of), ..Sent::default() };
    let by_seqnum = dice.percent(40);
    let uid = if by_seqnum { "" } else { "UID " };
    let to = one_of(dice, &NAMES).copied().unwrap_or("INBOX");
    let (text, sent) = match dice.range(0, 99) {
        0..45 => {
            for _ in 0..dice.range(1, 4) {
                if let Some((text, sent)) = together(dice, session, by_seqnum) {
                    session.send(&text, sent)?;
                }
            }
            return Ok(());
        }
        45..55 => ("NOOP".to_owned(), Sent::default()),
        55..63 => (append(dice, to, n_messages), Sent::default()),
        63..70 => match some(dice, open, by_seqnum) {
            Some((set, _)) => (format!("{uid}COPY {set} {to}"), copies()),
            None => return Ok(()),
        },
        70..76 if !read_only => match some(dice, open, by_seqnum) {
            Some((set, _)) => (format!("{uid}MOVE {set} {to}"), copies()),
            None => return Ok(()),
        },
        76..81 if !read_only => ("EXPUNGE".to_owned(), Sent::default()),
        81..86 if !read_only => match some(dice, open, false) {
            Some((set, _)) => (format!("UID EXPUNGE {set}"), Sent::default()),
            None => return Ok(()),
        },
        86..89 if !read_only => match one_of(dice, &open.uids()) {
            Some(old) => {
                *n_messages += 1;
                let body = message(*n_messages);
                let text = format!("UID REPLACE {old} {to} {{{}+}}\r\n{body}", body.len());
                (text, Sent::default())
            }
            None => return Ok(()),
        },
        89..92 => (format!("STATUS {to} (MESSAGES UIDNEXT UNSEEN)"), Sent::default()),
        92..96 => (fleeting(dice), Sent::default()),
        96..98 if session.habits.condstore => {
            (format!("STATUS {to} (HIGHESTMODSEQ)"), Sent::default())
        }
        _ => ("UID SEARCH ALL".to_owned(), Sent::default()),
    };
    session.send(&text, sent)
}

/// APPEND of one message or of some.
pub fn append(dice: &mut Dice, to: &str, n_messages: &mut usize) -> String {
    let mut text = format!("APPEND {to}");
    for _ in 0..if dice.percent(25) { dice.range(2, 5) } else { 1 } {
        *n_messages += 1;
        let (body, flags) = (message(*n_messages), flags(dice));
        text += &format!(" ({}) {{{}+}}\r\n{body}", list(&flags), body.len());
    }
    text
}

/// Mailboxes come, go and change their names.
fn fleeting(dice: &mut Dice) -> String {
    match dice.range(0, 5) {
        0 => format!("DELETE {}", FLEETING[dice.range(0, 1) as usize]),
        1 | 2 => format!("CREATE {}", FLEETING[dice.range(0, 1) as usize]),
        3 => format!("RENAME {} {}", FLEETING[0], FLEETING[1]),
        4 => format!("RENAME {} {}", FLEETING[1], FLEETING[0]),
        _ => "RENAME INBOX Renamed".to_owned(),
    }
}
