//! A mail client that changes things: appends, flags, moves, copies, expunges.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use super::hand::{Hand, verdict_of};
use super::reader::read;
use crate::client::imap::{Imap, Response, status};
use crate::history::{FlagChange, Operation, Placed, Reply, Target, Verdict};
use crate::look::{number_after, uids_of_set};
use crate::message;

/// Pause between two operations, in milliseconds.
const THINK_MS: (u64, u64) = (20, 90);
/// Messages of one operation.
const TARGETS_MAX: u64 = 4;
/// A mailbox with more messages is cleared out.
const MAILBOX_MAX: usize = 40;
/// So many at a time.
const CLEARED: usize = 15;
/// Flags that come and go. `\Deleted` is set by who expunges, and by nobody else.
const FLAGS: [&str; 4] = ["\\Seen", "\\Flagged", "\\Answered", "$Drilled"];

/// What it knows to be where.
type Known = BTreeMap<String, BTreeMap<u32, String>>;

pub(super) fn run(hand: Hand) {
    Sorter::new(hand).run();
}

struct Sorter {
    hand: Hand,
    session: Option<Imap>,
    selected: Option<String>,
    known: Known,
    /// Tokens of messages something was asked of without an answer: nobody knows where they are.
    open: BTreeSet<String>,
    n_sent: u32,
}

impl Sorter {
    fn new(hand: Hand) -> Self {
        let (known, open) = (Known::new(), BTreeSet::new());
        Self { hand, session: None, selected: None, known, open, n_sent: 0 }
    }

    fn run(mut self) {
        while !self.hand.is_over() {
            if self.session.is_none() {
                self.selected = None;
                self.session = self.hand.imap();
                continue;
            }
            self.hand.think(THINK_MS.0, THINK_MS.1);
            let mailbox = self.hand.mailbox(35);
            let mailbox = mailbox.as_str();
            let n_usable = self.usable(mailbox).len();
            match self.hand.dice.range(0, 99) {
                _ if n_usable > MAILBOX_MAX => self.expunge(mailbox, CLEARED),
                0..=24 => self.look(mailbox),
                25..=39 => self.append(),
                40..=59 => self.store(mailbox),
                60..=79 => self.carry(mailbox, true),
                80..=84 => self.carry(mailbox, false),
                _ => self.expunge(mailbox, TARGETS_MAX as usize),
            }
        }
    }

    fn look(&mut self, mailbox: &str) {
        self.selected = Some(mailbox.to_owned());
        let Some(view) = read(&mut self.hand, &mut self.session, mailbox) else {
            self.selected = None;
            return;
        };
        let mine = view.messages.into_iter().map(|message| (message.uid, message.token));
        let mine = mine.filter(|(_, token)| !self.hand.is_collectors(token));
        self.known.insert(mailbox.to_owned(), mine.collect());
    }

    /// Runs one operation on a session with this mailbox selected.
    fn ask(
        &mut self,
        mailbox: &str,
        ask: impl FnOnce(&mut Imap) -> Result<Reply>,
    ) -> Result<Reply, Verdict> {
        let nothing = || Verdict::Refused { why: "no session".into() };
        let imap = self.session.as_mut().ok_or_else(nothing)?;
        if self.selected.as_deref() != Some(mailbox) {
            self.selected = None;
            if let Err(error) = imap.ok(&format!("SELECT \"{mailbox}\"")) {
                // A SELECT that failed leaves nothing done.
                let verdict = self.hand.failed(&error, &mut self.session);
                let (Verdict::Refused { why } | Verdict::Unknown { why }) = verdict else {
                    return Err(nothing());
                };
                return Err(Verdict::Refused { why });
            }
            self.selected = Some(mailbox.to_owned());
        }
        ask(imap).map_err(|error| self.hand.failed(&error, &mut self.session))
    }

    fn append(&mut self) {
        self.n_sent += 1;
        let token = format!("append{}-{}", self.hand.id, self.n_sent);
        let (octets, digest) = message::compose(&token, &mut self.hand.dice);
        let set = self.hand.dice.percent(30).then_some("\\Seen");
        let mailbox = self.hand.site.mailboxes[0].clone();
        let start = self.hand.now_us();
        let answered = match &mut self.session {
            None => return,
            Some(imap) => imap.append_flagged(&mailbox, set.unwrap_or(""), &octets),
        };
        let answered = match answered {
            Ok(tagged) if status(&tagged.text) == "OK" => Ok(placed(&[tagged], "[APPENDUID ")),
            Ok(tagged) => Err(verdict_of(tagged.text)),
            Err(error) => Err(self.hand.failed(&error, &mut self.session)),
        };
        let flags = set.into_iter().map(str::to_owned).collect();
        let operation = Operation::Deliver { mailbox, token, digest, flags };
        self.hand.note(start, operation, answered);
    }

    /// The messages it may do something to.
    fn usable(&self, mailbox: &str) -> Vec<Target> {
        let known = self.known.get(mailbox).into_iter().flatten();
        let usable = known.filter(|(_, token)| !self.open.contains(*token));
        usable.map(|(uid, token)| Target { uid: *uid, token: token.clone() }).collect()
    }

    /// Some of them; each only once in a row.
    fn targets(&mut self, mailbox: &str, n: usize) -> Vec<Target> {
        let usable = self.usable(mailbox);
        let spare = usable.len().saturating_sub(n) as u64;
        let first = if n == CLEARED { 0 } else { self.hand.dice.range(0, spare) as usize };
        usable.into_iter().skip(first).take(n).collect()
    }

    fn some_targets(&mut self, mailbox: &str) -> Vec<Target> {
        let n = self.hand.dice.range(1, TARGETS_MAX) as usize;
        self.targets(mailbox, n)
    }

    fn store(&mut self, mailbox: &str) {
        let targets = self.some_targets(mailbox);
        if targets.is_empty() {
            return;
        }
        let flag = FLAGS[self.hand.dice.range(0, FLAGS.len() as u64 - 1) as usize];
        let change = match self.hand.dice.range(0, 3) {
            0 => FlagChange::Replace,
            1 => FlagChange::Remove,
            _ => FlagChange::Add,
        };
        self.store_flag(mailbox, targets, (change, flag));
    }

    fn store_flag(
        &mut self,
        mailbox: &str,
        targets: Vec<Target>,
        (change, flag): (FlagChange, &str),
    ) -> bool {
        let sign = match change {
            FlagChange::Replace => "",
            FlagChange::Add => "+",
            FlagChange::Remove => "-",
        };
        let command = format!("UID STORE {} {sign}FLAGS ({flag})", set_of(&targets));
        let start = self.hand.now_us();
        let answered = self.ask(mailbox, |imap| {
            // Nobody else takes these messages away, so they are there.
            imap.ok(&command).map(|_| Reply::Done)
        });
        let is_done = answered.is_ok();
        self.lose_sight(&targets, answered.as_ref().err());
        let flags = BTreeSet::from([flag.to_owned()]);
        let mailbox = mailbox.to_owned();
        self.hand.note(start, Operation::Store { mailbox, targets, change, flags }, answered);
        is_done
    }

    /// MOVE or COPY to the other mailbox.
    fn carry(&mut self, from: &str, is_move: bool) {
        let targets = self.some_targets(from);
        if targets.is_empty() {
            return;
        }
        let [first, second] = &self.hand.site.mailboxes;
        let to = if from == first { second.clone() } else { first.clone() };
        let verb = if is_move { "MOVE" } else { "COPY" };
        let command = format!("UID {verb} {} \"{to}\"", set_of(&targets));
        let start = self.hand.now_us();
        let answered = self.ask(from, |imap| Ok(placed(&imap.ok(&command)?, "[COPYUID ")));
        if is_move && answered.is_ok() {
            self.forget(from, &targets);
        }
        self.lose_sight(&targets, answered.as_ref().err());
        let from = from.to_owned();
        let operation = match is_move {
            true => Operation::Move { from, to, targets },
            false => Operation::Copy { from, to, targets },
        };
        self.hand.note(start, operation, answered);
    }

    /// `\Deleted` and UID EXPUNGE.
    fn expunge(&mut self, mailbox: &str, n: usize) {
        let targets = self.targets(mailbox, n);
        if targets.is_empty() {
            return;
        }
        if !self.store_flag(mailbox, targets.clone(), (FlagChange::Add, "\\Deleted")) {
            return;
        }
        let command = format!("UID EXPUNGE {}", set_of(&targets));
        let start = self.hand.now_us();
        let answered = self.ask(mailbox, |imap| imap.ok(&command).map(|_| Reply::Done));
        if answered.is_ok() {
            self.forget(mailbox, &targets);
        }
        self.lose_sight(&targets, answered.as_ref().err());
        let mailbox = mailbox.to_owned();
        self.hand.note(start, Operation::Expunge { mailbox, targets }, answered);
    }

    /// After an answer that leaves it open these are left alone for ever.
    fn lose_sight(&mut self, targets: &[Target], failed: Option<&Verdict>) {
        if let Some(Verdict::Unknown { .. }) = failed {
            self.open.extend(targets.iter().map(|target| target.token.clone()));
        }
    }

    fn forget(&mut self, mailbox: &str, targets: &[Target]) {
        if let Some(known) = self.known.get_mut(mailbox) {
            known.retain(|uid, _| !targets.iter().any(|target| target.uid == *uid));
        }
    }
}

fn set_of(targets: &[Target]) -> String {
    let uids: Vec<String> = targets.iter().map(|target| target.uid.to_string()).collect();
    uids.join(",")
}

/// What APPENDUID or COPYUID told; without it all was done, and nobody knows under which UIDs.
fn placed(responses: &[Response], code: &str) -> Reply {
    let told = responses.iter().find_map(|response| numbers(&response.text, code).ok());
    told.map_or(Reply::Done, Reply::Placed)
}

fn numbers(text: &str, code: &str) -> Result<Placed> {
    let validity = number_after(text, code).context("no code")?;
    let (_, inside) = text.split_once(code).context("no code")?;
    let inside = inside.split(']').next().unwrap_or_default();
    let words: Vec<&str> = inside.split(' ').skip(1).collect();
    let sets: Option<Vec<Vec<u32>>> = words.iter().map(|set| uids_of_set(set)).collect();
    let mut sets = sets.context("no set")?;
    let uids = sets.pop().context("no UIDs")?;
    let sources = sets.pop().unwrap_or_default();
    ensure!(sources.is_empty() || sources.len() == uids.len(), "sets of different size");
    Ok(Placed { uid_validity: u32::try_from(validity)?, uids, sources })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::client::script::serve_imap;
    use crate::work::hand::of_anna;

    #[test]
    fn messages_it_may_not_touch_do_not_keep_it_from_working() {
        let mut hand = of_anna(Vec::new(), Vec::new());
        let over = Arc::clone(&hand.over);
        let endpoint = serve_imap(move |command| {
            // The last that a look asks for.
            if command.starts_with("STATUS ") {
                over.store(true, Ordering::Relaxed);
            }
            let is_select = command.starts_with("SELECT ");
            Some(if is_select { "* OK [UIDVALIDITY 9]\r\nOK".into() } else { "OK".into() })
        });
        let over = Arc::clone(&hand.over);
        hand.site.imap = vec![endpoint];
        let recorder = Arc::clone(&hand.recorder);
        let seen = Arc::clone(&recorder);
        std::thread::spawn(move || {
            let deadline = Instant::now() + Duration::from_secs(10);
            while seen.done(0).n_acknowledged == 0 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut sorter = Sorter::new(hand);
        let all: BTreeMap<u32, String> =
            (1..=MAILBOX_MAX as u32 + 1).map(|uid| (uid, format!("t{uid}"))).collect();
        sorter.open = all.values().cloned().collect();
        let mailboxes = sorter.hand.site.mailboxes.clone();
        sorter.known = mailboxes.into_iter().map(|mailbox| (mailbox, all.clone())).collect();
        sorter.run();
        assert!(recorder.done(0).n_acknowledged > 0);
    }

    #[test]
    fn where_messages_were_put_is_read() {
        let told = numbers("* OK [COPYUID 9 3:4,8 20:22] Moved", "[COPYUID ").unwrap();
        assert_eq!(
            told,
            Placed { uid_validity: 9, uids: vec![20, 21, 22], sources: vec![3, 4, 8] }
        );
        let told = numbers("t4 OK [APPENDUID 9 7] done", "[APPENDUID ").unwrap();
        assert_eq!(told, Placed { uid_validity: 9, uids: vec![7], sources: vec![] });
        assert!(numbers("t4 OK done", "[COPYUID ").is_err());
    }
}
