//! One client: its connection, commands in flight, what it has open and what it kept of other mailboxes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::cache::{Kept, Open};
use super::facts::Facts;
use super::wire::Wire;
use super::words::{self, Flags, Said, read_set};

/// For any answer, while leaders die as well.
const ANSWER: Duration = Duration::from_secs(90);
/// Lines of a client's conversation that are shown when something is wrong.
const KEPT_LINES: usize = 80;

/// Said to whom has a mailbox open that is gone.
const GONE: &str = "the selected mailbox is gone";

/// What kind of a client it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    pub condstore: bool,
    pub qresync: bool,
    pub rev2: bool,
    pub compress: bool,
    pub idles: bool,
    /// Goes without a word and comes back.
    pub offline: bool,
}

/// A command on its way.
#[derive(Debug, Default)]
pub struct Sent {
    pub tag: String,
    pub text: String,
    /// RFC 9051 7.5.1: no message may be told gone while it runs.
    pub by_seqnum: bool,
    /// The client asked for FETCH responses of its own choice.
    pub fetches: bool,
    /// Messages whose flags it changes without being told them, and how.
    pub silent: Option<(BTreeSet<u32>, Change)>,
    /// From which mailbox messages are copied.
    pub copies_from: Option<u32>,
    pub is_idle: bool,
    /// Flags were told while it ran.
    pub told: BTreeSet<u32>,
    /// Untagged responses that nobody else took.
    pub others: Vec<String>,
}

/// What a STORE does to flags.
#[derive(Clone, Debug)]
pub enum Change {
    Add(Flags),
    Remove(Flags),
    Replace(Flags),
}

impl Change {
    fn apply(&self, flags: &Flags) -> Flags {
        match self {
            Self::Add(more) => flags | more,
            Self::Remove(less) => flags - less,
            Self::Replace(all) => all.clone(),
        }
    }
}

/// A command that ended.
#[derive(Debug)]
pub struct Ended {
    pub status: String,
    pub code: String,
    /// Untagged responses that nobody else took.
    pub others: Vec<String>,
}

pub struct Session {
    pub name: String,
    pub account: usize,
    pub user: String,
    pub frontend: usize,
    pub habits: Habits,
    wire: Option<Wire>,
    pub flight: VecDeque<Sent>,
    pub open: Option<Open>,
    /// By UIDVALIDITY.
    pub kept: BTreeMap<u32, Kept>,
    /// Which UIDVALIDITY a name had last.
    pub names: BTreeMap<String, u32>,
    n_tags: usize,
    pub log: VecDeque<String>,
    /// A SELECT's first responses: what was kept is put in place when they are over.
    opening: Option<Opening>,
    pub n_resyncs: usize,
}

#[derive(Default)]
struct Opening {
    exists: usize,
    keywords: Flags,
    known: Option<Kept>,
}

impl Session {
    pub fn new(name: &str, account: usize, user: &str, frontend: usize, habits: Habits) -> Self {
        Self {
            name: name.to_owned(),
            account,
            user: user.to_owned(),
            frontend,
            habits,
            wire: None,
            flight: VecDeque::new(),
            open: None,
            kept: BTreeMap::new(),
            names: BTreeMap::new(),
            n_tags: 0,
            log: VecDeque::new(),
            opening: None,
            n_resyncs: 0,
        }
    }

    pub fn is_online(&self) -> bool {
        self.wire.is_some()
    }

    pub fn connect(&mut self, address: &str, facts: &mut Facts) -> Result<()> {
        self.note(format!("-- connects to {address}"));
        self.wire = Some(Wire::open(address)?);
        let greeting = self.line(Instant::now() + ANSWER)?.context("no greeting")?;
        ensure!(greeting.starts_with("* OK"), "{greeting}");
        self.ok(&format!("LOGIN {} secret", self.user), facts)?;
        if self.habits.compress {
            self.ok("COMPRESS DEFLATE", facts)?;
            self.wire.as_mut().context("no wire")?.compress();
        }
        let enables = [("QRESYNC", self.habits.qresync), ("IMAP4rev2", self.habits.rev2)];
        for (word, _) in enables.iter().filter(|(_, wanted)| *wanted) {
            self.ok(&format!("ENABLE {word}"), facts)?;
        }
        Ok(())
    }

    /// The connection is gone: what is known is kept.
    pub fn cut(&mut self) {
        self.note("-- is gone".to_owned());
        (self.wire, self.opening) = (None, None);
        // What came of the first command in flight is not known.
        let silent = self.flight.pop_front().and_then(|sent| Some((sent.silent?.0, sent.told)));
        self.flight.clear();
        if let (Some((uids, told)), Some(open)) = (silent, &mut self.open) {
            open.doubt(uids.difference(&told));
        }
        self.leave();
    }

    /// The mailbox is left.
    pub fn leave(&mut self) {
        if let Some(open) = self.open.take() {
            self.kept.insert(open.uid_validity, open.kept());
        }
    }

    pub fn mailbox(&self) -> Option<(usize, u32)> {
        Some((self.account, self.open.as_ref()?.uid_validity))
    }

    fn note(&mut self, line: String) {
        self.log.push_back(line);
        if self.log.len() > KEPT_LINES {
            self.log.pop_front();
        }
    }

    fn line(&mut self, until: Instant) -> Result<Option<String>> {
        let line = self.wire.as_mut().context("not connected")?.response(until)?;
        if let Some(line) = &line {
            self.note(format!("S: {line}"));
        }
        Ok(line)
    }

    /// Sends a command; `sent` says what it is.
    pub fn send(&mut self, text: &str, sent: Sent) -> Result<()> {
        self.n_tags += 1;
        let tag = format!("{}{}", self.name, self.n_tags);
        self.note(format!("C: {tag} {text}"));
        self.raw(&format!("{tag} {text}\r\n"))?;
        self.flight.push_back(Sent { tag, text: text.to_owned(), ..sent });
        if self.flight.len() == 1 {
            self.begin_first();
        }
        Ok(())
    }

    pub fn raw(&mut self, text: &str) -> Result<()> {
        // Why not an error: what was said before the connection was closed is still to be read.
        let _ = self.wire.as_mut().context("not connected")?.send(text.as_bytes());
        Ok(())
    }

    /// A command whose changes are not told is done by the client itself when its turn comes.
    fn begin_first(&mut self) {
        let (Some(sent), Some(open)) = (self.flight.front(), &mut self.open) else { return };
        let Some((uids, change)) = &sent.silent else { return };
        for slot in &mut open.slots {
            if slot.uid.is_some_and(|uid| uids.contains(&uid)) {
                slot.flags = slot.flags.as_ref().map(|flags| change.apply(flags));
                slot.modseq = None;
            }
        }
    }

    /// A command that must end with OK.
    pub fn ok(&mut self, text: &str, facts: &mut Facts) -> Result<Ended> {
        let ended = self.run(text, Sent::default(), facts)?;
        ensure!(ended.status == "OK", "{text}: {} [{}]", ended.status, ended.code);
        Ok(ended)
    }

    /// A command, and all before it, to its end.
    pub fn run(&mut self, text: &str, sent: Sent, facts: &mut Facts) -> Result<Ended> {
        self.send(text, sent)?;
        let gone = || Ended { status: "BYE".to_owned(), code: String::new(), others: Vec::new() };
        Ok(self.finish(facts)?.unwrap_or_else(gone))
    }

    /// All commands to their ends; the last one's.
    pub fn finish(&mut self, facts: &mut Facts) -> Result<Option<Ended>> {
        if self.flight.back().is_some_and(|sent| sent.is_idle) {
            self.note("C: DONE".to_owned());
            self.raw("DONE\r\n")?;
        }
        let mut last = None;
        let until = Instant::now() + ANSWER;
        while !self.flight.is_empty() {
            let line = self.line(until)?.with_context(|| format!("no answer in {ANSWER:?}"))?;
            if let Some(ended) = self.take(&line, facts).with_context(|| line.clone())? {
                last = Some(ended);
            }
        }
        Ok(last)
    }

    /// Takes in one response, if one comes until then.
    pub fn listen(&mut self, until: Instant, facts: &mut Facts) -> Result<bool> {
        let Some(line) = self.line(until)? else { return Ok(false) };
        self.take(&line, facts).with_context(|| line.clone())?;
        Ok(true)
    }

    fn take(&mut self, line: &str, facts: &mut Facts) -> Result<Option<Ended>> {
        let said = words::read(line)?;
        if let Said::Tagged(tag, status, code) = said {
            return self.tagged(&tag, status, code, facts).map(Some);
        }
        ensure!(!self.flight.is_empty() || matches!(said, Said::Bye(_)), "told while idle");
        match said {
            Said::Bye(words) => {
                ensure!(words == GONE, "BYE {words}");
                let mailbox = self.mailbox().context("nothing is open")?;
                facts.left(mailbox);
                self.cut();
                return Ok(None);
            }
            Said::Recent => ensure!(!self.habits.rev2, "RECENT is no more"),
            Said::Ok(code) => self.code(&code, facts)?,
            Said::Other => {
                let sent = self.flight.front_mut().context("no command")?;
                sent.others.push(line.to_owned());
            }
            Said::GoOn => {}
            Said::Flags(flags) => match (&mut self.opening, &mut self.open) {
                (Some(opening), _) => opening.keywords = flags,
                (None, Some(open)) => open.keywords = flags,
                (None, None) => bail!("nothing is open"),
            },
            Said::Exists(n) => match &mut self.opening {
                Some(opening) => opening.exists = n,
                None => self.open.as_mut().context("nothing is open")?.exists(n)?,
            },
            Said::Vanished { earlier: true, uids } => self.vanished_earlier(&uids, facts)?,
            Said::Vanished { earlier: false, .. } | Said::Expunge(_) => self.gone(said, facts)?,
            Said::Fetch(seqnum, items) => {
                self.settle()?;
                self.fetched(seqnum, &items, facts)?;
            }
            Said::Tagged(..) => {}
        }
        Ok(None)
    }

    fn gone(&mut self, said: Said, facts: &mut Facts) -> Result<()> {
        self.settle()?;
        let sent = self.flight.front().context("no command in progress")?;
        ensure!(!sent.by_seqnum, "told gone during {}", sent.text);
        let mailbox = self.mailbox().context("nothing is open")?;
        let open = self.open.as_mut().context("nothing is open")?;
        match said {
            Said::Vanished { uids, .. } => {
                ensure!(self.habits.qresync, "VANISHED, without QRESYNC");
                open.vanished(&uids)?;
                facts.gone(mailbox, uids);
            }
            Said::Expunge(seqnum) => {
                ensure!(!self.habits.qresync, "EXPUNGE, with QRESYNC");
                facts.gone(mailbox, open.expunge(seqnum)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn vanished_earlier(&mut self, uids: &BTreeSet<u32>, facts: &mut Facts) -> Result<()> {
        let mailbox = self.mailbox().context("nothing is open")?;
        facts.gone(mailbox, uids.iter().copied());
        match self.opening.as_mut() {
            Some(opening) => {
                let known = opening.known.as_mut().context("VANISHED (EARLIER), not asked for")?;
                known.slots.retain(|uid, _| !uids.contains(uid));
            }
            // RFC 7162 3.2.10.1: that is no news of what the client sees in the mailbox.
            None => {
                let there =
                    self.open.as_ref().and_then(|open| uids.iter().find_map(|uid| open.at(*uid)));
                ensure!(there.is_none(), "VANISHED (EARLIER) names what is there");
            }
        }
        Ok(())
    }

    fn fetched(&mut self, seqnum: usize, items: &words::Items, facts: &mut Facts) -> Result<()> {
        let sent = self.flight.front_mut().context("no command in progress")?;
        ensure!(!(items.recent && self.habits.rev2), "\\Recent is no more");
        if items.flags.is_some() && !sent.fetches {
            ensure!(items.modseq.is_some() || !self.habits.condstore, "flags without MODSEQ");
            ensure!(items.uid.is_some() || !self.habits.qresync, "flags without UID");
        }
        let open = self.open.as_mut().context("nothing is open")?;
        let mailbox = (self.account, open.uid_validity);
        let Some(uid) = open.fetch(seqnum, items)? else { return Ok(()) };
        if items.flags.is_some() {
            sent.told.insert(uid);
        }
        if let (Some(modseq), Some(flags)) = (items.modseq, &items.flags) {
            facts.flags((mailbox, uid), modseq, flags)?;
        }
        if let Some(modseq) = items.modseq {
            facts.modseq(mailbox, modseq);
        }
        match (&items.email, items.size) {
            (Some(email), Some(size)) => facts.email((mailbox, uid), email, size),
            _ => Ok(()),
        }
    }

    fn code(&mut self, code: &str, facts: &mut Facts) -> Result<()> {
        if let Some(uid_validity) = words::number_after(code, "UIDVALIDITY") {
            let open = self.open.get_or_insert_default();
            open.uid_validity = u32::try_from(uid_validity)?;
            if let Some(opening) = &mut self.opening
                && self.names.get(&open.name) != Some(&open.uid_validity)
            {
                // RFC 9051 2.3.1.1: nothing that is known counts.
                opening.known = None;
            }
        }
        if let Some(modseq) = words::number_after(code, "HIGHESTMODSEQ") {
            self.open.as_mut().context("nothing is open")?.highest(modseq);
        }
        if code == "CLOSED" && self.opening.is_none() {
            // RFC 9051 7.1: nothing is selected any more.
            self.leave();
        }
        // Why not else: CREATE says so of another one.
        if let (Some(object), Some(mailbox), Some(_)) =
            (code.strip_prefix("MAILBOXID "), self.mailbox(), &self.opening)
        {
            facts.object(mailbox, object)?;
        }
        self.copied(code, facts)
    }

    fn copied(&mut self, code: &str, facts: &mut Facts) -> Result<()> {
        let Some(rest) = code.strip_prefix("COPYUID ") else { return Ok(()) };
        let words: Vec<&str> = rest.split(' ').collect();
        let [uid_validity, from, to] = words[..] else { bail!("COPYUID of other words") };
        let (from, to) = (read_set(from)?, read_set(to)?);
        ensure!(from.len() == to.len(), "COPYUID of sets that differ");
        let source = self.flight.front().and_then(|sent| sent.copies_from);
        let source = (self.account, source.context("COPYUID, and nothing was copied")?);
        let target = (self.account, uid_validity.parse()?);
        for (from, to) in from.into_iter().zip(to) {
            facts.copied((source, from), (target, to));
        }
        Ok(())
    }

    fn tagged(
        &mut self,
        tag: &str,
        status: String,
        code: String,
        facts: &mut Facts,
    ) -> Result<Ended> {
        let sent = self.flight.front().context("no command in progress")?;
        ensure!(sent.tag == tag, "{} should end first", sent.tag);
        ensure!(status != "BAD", "BAD: {}", sent.text);
        if self.opening.is_some() && status == "OK" {
            self.settle()?;
        }
        self.code(&code, facts)?;
        let sent = self.flight.pop_front().context("no command in progress")?;
        if let Some(open) = &mut self.open {
            open.at_tagged();
            stored(open, &sent, &status, &code)?;
        }
        self.begin_first();
        Ok(Ended { status, code, others: sent.others })
    }

    /// SELECT or EXAMINE, and what a client of its kind asks for then; false if that is no mailbox.
    pub fn select(&mut self, name: &str, read_only: bool, facts: &mut Facts) -> Result<bool> {
        self.finish(facts)?;
        self.leave();
        let mut known = self.names.get(name).and_then(|known| self.kept.get(known)).cloned();
        let mut text = format!("{} {name}", if read_only { "EXAMINE" } else { "SELECT" });
        let comes_back = known.as_ref().filter(|kept| kept.modseq > 0 && !kept.slots.is_empty());
        match (self.habits.qresync, self.habits.condstore, comes_back) {
            (true, _, Some(kept)) => text += &self.resync(self.names[name], kept),
            (false, true, _) => text += " (CONDSTORE)",
            _ => {}
        }
        if !text.contains("(QRESYNC") {
            known = None;
        }
        let highest = facts.highest().clone();
        self.opening = Some(Opening { known, ..Opening::default() });
        self.open = Some(Open { name: name.to_owned(), read_only, ..Open::default() });
        let ended = self.run(&text, Sent { fetches: true, ..Sent::default() }, facts)?;
        self.opening = None;
        if ended.status != "OK" {
            self.open = None;
            return Ok(false);
        }
        let open = self.open.as_ref().context("nothing is open")?;
        let (uid_validity, modseq) = (open.uid_validity, open.modseq);
        let least = highest.get(&(self.account, uid_validity)).copied().unwrap_or(0);
        ensure!(modseq >= least, "HIGHESTMODSEQ {modseq}, and a client was told {least} before");
        // Why before the rest: whoever goes now has missed what it did not ask for yet.
        let before = self.kept.get(&uid_validity).cloned();
        self.names.insert(name.to_owned(), uid_validity);
        self.catch_up(before, facts)?;
        Ok(true)
    }

    fn resync(&mut self, uid_validity: u32, kept: &Kept) -> String {
        self.n_resyncs += 1;
        let (modseq, uids) = (kept.modseq, words::write_set(kept.slots.keys().copied()));
        let last = kept.slots.keys().last().copied().unwrap_or(1);
        match self.n_resyncs % 4 {
            0 => format!(" (QRESYNC ({uid_validity} {modseq}))"),
            1 => format!(" (QRESYNC ({uid_validity} {modseq} {uids}))"),
            2 => format!(" (QRESYNC ({uid_validity} {modseq} 1:{last}))"),
            _ => {
                let n = kept.slots.len();
                let first = kept.slots.keys().next().copied().unwrap_or(1);
                let pairs =
                    if n > 1 { format!("1,{n} {first},{last}") } else { format!("1 {first}") };
                format!(" (QRESYNC ({uid_validity} {modseq} {uids} ({pairs})))")
            }
        }
    }

    /// The first responses of a SELECT are over: what is known is put in place.
    fn settle(&mut self) -> Result<()> {
        let Some(opening) = self.opening.take() else { return Ok(()) };
        let open = self.open.as_mut().context("nothing is open")?;
        let known = opening.known.unwrap_or_default().slots;
        let n_known = known.len();
        open.slots = known.into_values().collect();
        open.keywords = opening.keywords;
        ensure!(
            n_known <= opening.exists,
            "{} EXISTS, and {n_known} were known and not told gone",
            opening.exists
        );
        open.exists(opening.exists)
    }

    fn catch_up(&mut self, before: Option<Kept>, facts: &mut Facts) -> Result<()> {
        let fetch = || Sent { fetches: true, ..Sent::default() };
        let before = before.filter(|kept| kept.modseq > 0);
        if let (false, true, Some(kept)) = (self.habits.qresync, self.habits.condstore, before) {
            let n_moves = self.open.as_ref().map_or(0, |open| open.n_moves);
            let text = format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {})", kept.modseq);
            self.run(&text, fetch(), facts)?;
            self.n_resyncs += 1;
            let Some(open) = &mut self.open else { return Ok(()) };
            open.merge(&kept, n_moves)?;
        }
        let Some(open) = &self.open else { return Ok(()) };
        if open.slots.iter().any(|slot| slot.uid.is_none()) && open.uids().is_empty() {
            let items = if self.habits.condstore { "(FLAGS MODSEQ)" } else { "(FLAGS)" };
            self.run(&format!("UID FETCH 1:* {items}"), fetch(), facts)?;
        }
        self.ask_rest(facts)
    }

    /// Asks for messages that are not known, and for flags.
    pub fn ask_rest(&mut self, facts: &mut Facts) -> Result<()> {
        for _ in 0..20 {
            let Some(open) = &self.open else { return Ok(()) };
            if open.is_whole() {
                return Ok(());
            }
            let unknown = |slot: &super::cache::Slot| slot.uid.is_none() || slot.flags.is_none();
            let wanted = (1..).zip(&open.slots).filter(|(_, slot)| unknown(slot));
            let set = words::write_set(wanted.map(|(seqnum, _)| seqnum));
            let items = if self.habits.condstore { "UID FLAGS MODSEQ" } else { "UID FLAGS" };
            let text = format!("FETCH {set} ({items})");
            self.run(&text, Sent { fetches: true, by_seqnum: true, ..Sent::default() }, facts)?;
            if self.open.as_ref().is_some_and(|open| !open.is_whole()) {
                self.run("NOOP", Sent::default(), facts)?;
            }
        }
        bail!("what is in the mailbox cannot be found out")
    }
}

/// What a STORE's end says of the messages it named.
fn stored(open: &mut Open, sent: &Sent, status: &str, code: &str) -> Result<()> {
    let mut modified = BTreeSet::new();
    if let Some(set) = code.strip_prefix("MODIFIED ") {
        for number in read_set(set)? {
            let slot = open.slots.get((number as usize).wrapping_sub(1));
            let uid = if sent.by_seqnum { slot.and_then(|slot| slot.uid) } else { Some(number) };
            modified.extend(uid);
        }
    }
    let silent = sent.silent.iter().flat_map(|(uids, _)| uids);
    open.doubt(
        silent.filter(|uid| (status != "OK" || modified.contains(uid)) && !sent.told.contains(uid)),
    );
    Ok(())
}
