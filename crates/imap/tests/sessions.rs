//! A few sessions on one mailbox, each doing random commands in turn, and others who change it between
//! two steps of a command. What a session was told must be what is there once it said NOOP.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use imap::Session;
use mailbox::command::{self, Expunge};
use mailbox::dialogue::{Engine, Step};
use mailbox::query::{Messages, Vanished};
use mailbox::*;
use support::{ACCOUNT, Store, config};

type Words = BTreeSet<String>;

/// The next of the numbers that a seed stands for.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Two sequence numbers of so many.
    fn range(&mut self, n: usize) -> String {
        let (a, b) = (1 + self.below(n as u64), 1 + self.below(n as u64));
        if self.below(2) == 0 { a.to_string() } else { format!("{a}:{b}") }
    }
}

/// A client: its session, and the picture it has of the mailbox.
struct Peer {
    session: Session,
    name: String,
    has_qresync: bool,
    /// Changes it will hear of.
    news: VecDeque<Change>,
    /// UIDs by sequence number; `None` until asked for.
    view: Vec<Option<u32>>,
    flags: BTreeMap<u32, Words>,
}

struct World {
    seed: u64,
    store: Store,
    dice: Dice,
    peers: Vec<Peer>,
    /// What went over the lines.
    log: VecDeque<String>,
}

fn words(text: &str) -> Words {
    let words = text.split_ascii_whitespace().filter(|word| *word != "\\Recent");
    words.map(str::to_owned).collect()
}

fn words_of(flags: &Flags) -> Words {
    let names = [
        (SystemFlags::SEEN, "\\Seen"),
        (SystemFlags::FLAGGED, "\\Flagged"),
        (SystemFlags::DELETED, "\\Deleted"),
    ];
    let system = names.iter().filter(|(flag, _)| flags.system.contains(*flag));
    let keywords = flags.keywords.iter().map(|keyword| keyword.as_str().to_owned());
    system.map(|(_, name)| (*name).to_owned()).chain(keywords).collect()
}

/// What stands between `start` and the next `end`.
fn between<'t>(text: &'t str, start: &str, end: char) -> Option<&'t str> {
    text.split_once(start)?.1.split(end).next()
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

impl Peer {
    fn uid_at(&self, seqnum: usize) -> Option<u32> {
        self.view.get(seqnum - 1).copied().flatten()
    }

    /// Takes in one line. `Err` is what no server may say.
    fn told(&mut self, line: &str) -> Result<(), String> {
        let Some(rest) = line.strip_prefix("* ") else { return Ok(()) };
        if let Some(uids) = rest.strip_prefix("VANISHED ") {
            for part in uids.split(',') {
                let (a, b) = part.split_once(':').unwrap_or((part, part));
                let uid = |text: &str| text.parse().map_err(|_| format!("VANISHED {uids}"));
                let (a, b): (u32, u32) = (uid(a)?, uid(b)?);
                (a..=b).try_for_each(|uid| self.vanished(uid))?;
            }
            return Ok(());
        }
        let mut parts = rest.splitn(3, ' ');
        let (Some(n), Some(what)) = (parts.next().and_then(number), parts.next()) else {
            return Ok(());
        };
        match what {
            "EXISTS" if n < self.view.len() => return Err("EXISTS takes away".into()),
            "EXISTS" => self.view.resize(n, None),
            "EXPUNGE" if self.has_qresync => return Err("EXPUNGE to who wants VANISHED".into()),
            "EXPUNGE" if n > self.view.len() => return Err(format!("EXPUNGE {n}")),
            "EXPUNGE" => {
                if let Some(uid) = self.view.remove(n - 1) {
                    self.flags.remove(&uid);
                }
            }
            "FETCH" if n > self.view.len() => return Err(format!("FETCH {n}")),
            "FETCH" => return self.fetched(n, parts.next().unwrap_or_default()),
            _ => {}
        }
        Ok(())
    }

    fn vanished(&mut self, uid: u32) -> Result<(), String> {
        // Who is not known by UID yet is newer than all others.
        let at = self.view.iter().position(|known| *known == Some(uid));
        let at = at.or_else(|| self.view.iter().position(Option::is_none));
        self.view.remove(at.ok_or_else(|| format!("VANISHED {uid}, which is not known"))?);
        self.flags.remove(&uid);
        Ok(())
    }

    fn fetched(&mut self, n: usize, items: &str) -> Result<(), String> {
        if let Some(uid) = between(items, "UID ", ' ') {
            let uid = uid.trim_end_matches(')').parse().map_err(|_| "no UID".to_owned())?;
            if *self.view[n - 1].get_or_insert(uid) != uid {
                return Err(format!("{n} is not UID {uid}"));
            }
        }
        if let (Some(uid), Some(flags)) = (self.uid_at(n), between(items, "FLAGS (", ')')) {
            self.flags.insert(uid, words(flags));
        }
        Ok(())
    }
}

impl World {
    fn new(seed: u64, n_messages: usize) -> Self {
        let mut store = Store::new();
        let raws: Vec<_> = (0..n_messages).map(|_| b"a: b\r\n\r\nc".to_vec()).collect();
        for some in raws.chunks(50) {
            store.append("INBOX", some, &Flags::default());
        }
        store.changes.clear();
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut world = Self { seed, store, dice, peers: Vec::new(), log: VecDeque::new() };
        for (i, enables) in ["", "QRESYNC", "", "CONDSTORE"].iter().enumerate() {
            world.peers.push(Peer {
                session: Session::new(imap::Config { nonce: [i as u8; 16], ..config() }),
                name: format!("{i}{enables}"),
                has_qresync: *enables == "QRESYNC",
                news: VecDeque::new(),
                view: Vec::new(),
                flags: BTreeMap::new(),
            });
            world.say(i, "LOGIN ann@example.test secret", false);
            if !enables.is_empty() {
                world.say(i, &format!("ENABLE {enables}"), false);
            }
            world.say(i, "SELECT INBOX", false);
            world.learn(i);
        }
        world
    }

    fn fail(&self, i: usize, what: &str) -> ! {
        let log = self.log.iter().cloned().collect::<Vec<_>>().join("\n");
        panic!("{log}\nseed {}: {} {what}", self.seed, self.peers[i].name);
    }

    fn note(&mut self, line: String) {
        self.log.push_back(line);
        if self.log.len() > 60 {
            self.log.pop_front();
        }
    }

    /// Everybody will hear of what was done.
    fn spread(&mut self) {
        for change in std::mem::take(&mut self.store.changes) {
            self.peers.iter_mut().for_each(|peer| peer.news.push_back(change));
        }
    }

    fn hand_on(&mut self, i: usize) {
        let peer = &mut self.peers[i];
        while let Some(change) = peer.news.pop_front() {
            peer.session.notify(change);
        }
    }

    /// Somebody who is no session here changes something.
    fn disturb(&mut self) {
        let inbox = self.store.of("INBOX").mailbox;
        let there: Vec<Uid> = self.truth().keys().copied().collect();
        let uids = match there.len() {
            0 => UidSet::new(),
            _ => (0..1 + self.dice.below(2)).map(|_| self.dice.one(&there)).collect(),
        };
        let flags = Flags { system: self.flag(), ..Flags::default() };
        let what = self.dice.below(6);
        self.note(format!("-- {what} {uids}"));
        match what {
            0 => drop(self.store.append("INBOX", &[b"x: y\r\n\r\n".to_vec()], &flags)),
            1 => drop(self.store.append("Trash", &[b"x: y\r\n\r\n".to_vec()], &flags)),
            2 => {
                let (account, mailbox) = (ACCOUNT, inbox);
                let expunge = Expunge { account, mailbox, uids, only_deleted: false };
                self.store.apply(Command::Expunge(expunge), &[]);
            }
            _ => {
                let change = match self.dice.below(3) {
                    0 => FlagChange::Replace(flags),
                    1 => FlagChange::Remove(flags),
                    _ => FlagChange::Add(flags),
                };
                let (account, mailbox, unchanged_since) = (ACCOUNT, inbox, None);
                let store = command::Store { account, mailbox, uids, change, unchanged_since };
                self.store.apply(Command::Store(store), &[]);
            }
        }
        self.spread();
    }

    fn flag(&mut self) -> SystemFlags {
        self.dice.one(&[SystemFlags::SEEN, SystemFlags::FLAGGED, SystemFlags::DELETED])
    }

    /// Gives a command; its tagged response.
    fn say(&mut self, i: usize, command: &str, is_disturbed: bool) -> String {
        if self.dice.below(2) == 0 {
            self.hand_on(i);
        }
        let name = self.peers[i].name.clone();
        self.note(format!("{name} C: {command}"));
        self.peers[i].session.receive(format!("t {command}\r\n").as_bytes());
        let mut sent = Vec::new();
        loop {
            self.peers[i].session.tick(LogTime(self.store.now_ms));
            match self.peers[i].session.next_step() {
                Step::Send(octets) => sent.extend_from_slice(&octets),
                Step::Ask(question) => {
                    if is_disturbed && self.dice.below(6) == 0 {
                        self.disturb();
                    }
                    let reply = self.store.reply(question);
                    self.spread();
                    self.peers[i].session.reply(reply);
                }
                Step::Wait => break,
                Step::Yield => {}
                _ => self.fail(i, "was sent away"),
            }
        }
        // Why whole: the only literal there is has one line.
        let text = String::from_utf8(sent).expect("plain octets");
        let mut tagged = String::new();
        for line in text.replace("}\r\n", "} ").split_terminator("\r\n") {
            self.note(format!("{name} S: {line}"));
            if let Err(what) = self.peers[i].told(line) {
                self.fail(i, &what);
            }
            if let Some(end) = line.strip_prefix("t ") {
                tagged = end.to_owned();
            }
        }
        tagged
    }

    /// Asks for what is new: UIDs and flags.
    fn learn(&mut self, i: usize) {
        while let Some(at) = self.peers[i].view.iter().position(Option::is_none) {
            self.say(i, &format!("FETCH {}:* (UID FLAGS)", at + 1), false);
        }
    }

    fn page(&self, uids: UidSet) -> (Vec<MessageRecord>, Option<Uid>) {
        let answer = self.store.ask(&Query::Messages(Messages {
            of: self.store.of("INBOX"),
            uids,
            changed_since: None,
            metadata: false,
            chunks: false,
            expunged: false,
            only_envelope: false,
            recent_to: None,
        }));
        match answer {
            Answer::Messages(records, next) => (records, next),
            other => panic!("{other:?}"),
        }
    }

    /// What is there: flags and mod-sequences by UID.
    fn truth(&self) -> BTreeMap<Uid, (Words, u64)> {
        let mut truth = BTreeMap::new();
        let mut from = Some(Uid::FIRST);
        while let Some(uid) = from {
            let (records, next) = self.page(UidSet::range(uid, Uid::LAST));
            let known = |record: &MessageRecord| (words_of(&record.flags), record.modseq.value());
            truth.extend(records.iter().map(|record| (record.uid, known(record))));
            from = next;
        }
        truth
    }

    /// A session that said NOOP knows everything.
    fn check(&mut self, i: usize) {
        self.say(i, "NOOP", false);
        self.learn(i);
        let truth = self.truth();
        let uids: Vec<_> = truth.keys().map(|uid| Some(uid.value())).collect();
        if self.peers[i].view != uids {
            self.fail(i, &format!("knows {:?} of {uids:?}", self.peers[i].view));
        }
        for (uid, (flags, _)) in &truth {
            let known = self.peers[i].flags.get(&uid.value());
            if known != Some(flags) {
                self.fail(i, &format!("takes {known:?} for {flags:?} of {uid}"));
            }
        }
    }

    /// HIGHESTMODSEQ promises that everything up to there was told.
    fn check_promise(&mut self, i: usize, tagged: &str) {
        let promised = between(tagged, "[HIGHESTMODSEQ ", ']').and_then(|text| text.parse().ok());
        let Some(promised) = promised else { return };
        let view: BTreeSet<u32> = self.peers[i].view.iter().flatten().copied().collect();
        let knows_all = view.len() == self.peers[i].view.len();
        let truth = self.truth();
        for (uid, (flags, _)) in truth.iter().filter(|(_, (_, modseq))| *modseq <= promised) {
            let known = self.peers[i].flags.get(&uid.value());
            if known.is_some_and(|known| known != flags) || (knows_all && known.is_none()) {
                self.fail(i, &format!("was promised {uid} up to {promised}"));
            }
        }
        let gone = view.iter().filter_map(|uid| Uid::new(*uid));
        let gone: UidSet = gone.filter(|uid| !truth.contains_key(uid)).collect();
        let vanished = Vanished {
            of: self.store.of("INBOX"),
            since: promised,
            known: gone.clone(),
            uid_validity: None,
        };
        match self.store.ask(&Query::Vanished(vanished)) {
            Answer::Vanished(later) if gone.iter().all(|uid| later.contains(uid)) => {}
            answer => self.fail(i, &format!("was promised {gone} up to {promised}: {answer:?}")),
        }
    }

    /// STORE; whoever says .SILENT knows by itself what comes of it.
    fn store(&mut self, i: usize) -> String {
        let n = self.peers[i].view.len();
        let set = self.dice.range(n);
        let how = self.dice.one(&["", "+", "-"]);
        let silent = self.dice.one(&["", ".SILENT"]);
        let all = ["\\Seen", "\\Flagged", "\\Deleted", "k"];
        let flags: Words =
            (0..1 + self.dice.below(2)).map(|_| self.dice.one(&all).to_owned()).collect();
        let list = flags.iter().cloned().collect::<Vec<_>>().join(" ");
        if !silent.is_empty() {
            let (a, b) = set.split_once(':').unwrap_or((&set, &set));
            let (a, b) = (number(a).expect("ours"), number(b).expect("ours"));
            let peer = &mut self.peers[i];
            for at in a.min(b)..=a.max(b) {
                let Some(known) = peer.uid_at(at).and_then(|uid| peer.flags.get_mut(&uid)) else {
                    continue;
                };
                match how {
                    "" => known.clone_from(&flags),
                    "+" => known.extend(flags.iter().cloned()),
                    _ => known.retain(|flag| !flags.contains(flag)),
                }
            }
        }
        format!("STORE {set} {how}FLAGS{silent} ({list})")
    }

    fn command(&mut self, i: usize) -> String {
        let n = self.peers[i].view.len();
        let append = format!("APPEND INBOX ({}) {{6+}}\r\na: b\r\n", self.dice.one(&["", "k"]));
        if n == 0 {
            return append;
        }
        let at = 1 + self.dice.below(n as u64);
        let to = self.dice.one(&["INBOX", "Trash"]);
        match self.dice.below(20) {
            0 => append,
            1..=6 => self.store(i),
            7 => format!("STORE {at} +FLAGS (\\Deleted)"),
            8 | 9 => "EXPUNGE".into(),
            10 => "UID EXPUNGE 1:*".into(),
            11 => format!("MOVE {at} {to}"),
            12 => format!("COPY {at} {to}"),
            13 => format!("REPLACE {at} {to} {{6+}}\r\na: b\r\n"),
            14 => format!("FETCH {} (BODY[TEXT])", self.dice.range(n)),
            15 => format!("FETCH {at} (FLAGS)"),
            16 => "SEARCH SEEN".into(),
            17 => "UID SEARCH DELETED".into(),
            18 if self.peers[i].name != "0" && self.peers[i].name != "2" => {
                let limit = 1 + self.dice.below(200);
                format!("STORE {at} (UNCHANGEDSINCE {limit}) +FLAGS (\\Flagged)")
            }
            18 => "STATUS Trash (MESSAGES)".into(),
            _ => "NOOP".into(),
        }
    }

    fn play(&mut self, n_commands: usize) {
        for _ in 0..n_commands {
            let i = self.dice.below(self.peers.len() as u64) as usize;
            let command = self.command(i);
            let tagged = self.say(i, &command, true);
            self.check_promise(i, &tagged);
            self.learn(i);
            match self.dice.below(8) {
                0 => (0..self.peers.len()).for_each(|i| self.check(i)),
                1 => self.check(i),
                _ => {}
            }
        }
        (0..self.peers.len()).for_each(|i| self.check(i));
    }
}

#[test]
fn whoever_said_noop_knows_all_that_others_did() {
    for seed in 1..=30 {
        World::new(seed, 8).play(120);
    }
}

#[test]
fn commands_of_many_slices_leave_nothing_untold() {
    for seed in [1, 2, 11] {
        World::new(seed, 260).play(40);
    }
}
