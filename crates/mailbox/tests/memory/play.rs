//! Plays a client against an engine: what the engine asks is answered from a shard in memory, and
//! all that happens is written down.

use std::collections::{BTreeMap, VecDeque};

use mailbox::answer::Body;
use mailbox::command::{AccountChange, AccountState, NamedMailbox, Quota};
use mailbox::dialogue::{Credentials, Engine, Login, Look, Question, Reply, Step, Trouble};
use mailbox::query::Messages;
use mailbox::{
    AccountId, Address, Answer, Command, LogTime, MailboxName, Outcome, Query, StoredChunk, UidSet,
};

use super::{Shard, draft};

/// A client, an engine and a store.
pub struct Play {
    engine: Box<dyn Engine>,
    pub shard: Shard,
    passwords: BTreeMap<String, String>,
    /// Questions of a kind that shall fail, in order.
    faults: VecDeque<(String, Trouble)>,
    body: Vec<u8>,
    is_in_use: bool,
    /// Another session has the maildrop now.
    is_lost: bool,
    /// Nothing is written down.
    is_quiet: bool,
    /// The engine closed the connection.
    pub is_closed: bool,
    /// How often others had their turn.
    pub n_turns: usize,
    /// What happened, line by line.
    pub log: Vec<String>,
    /// All octets sent to the client.
    pub sent: Vec<u8>,
}

impl Play {
    pub fn new(engine: Box<dyn Engine>) -> Self {
        Self {
            engine,
            shard: Shard::default(),
            passwords: BTreeMap::new(),
            faults: VecDeque::new(),
            body: Vec::new(),
            is_in_use: false,
            is_lost: false,
            is_quiet: false,
            is_closed: false,
            n_turns: 0,
            log: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Over this store, and without a word about what happens.
    pub fn quiet(engine: Box<dyn Engine>, shard: Shard) -> Self {
        Self { is_quiet: true, shard, ..Self::new(engine) }
    }

    /// The client sends these octets.
    pub fn receive(&mut self, octets: &[u8]) {
        let mut octets = octets;
        while !octets.is_empty() && !self.is_closed {
            assert!(self.engine.wants_input(), "the engine waits for nothing");
            let n = octets.len().min(4096);
            self.engine.receive(&octets[..n]);
            octets = &octets[n..];
            self.run();
        }
    }

    /// The same in pieces of these lengths, over and over.
    pub fn receive_in_cuts(&mut self, octets: &[u8], cuts: &[usize]) {
        let mut rest = octets;
        for n in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at(rest.len().min(*n));
            self.receive(piece);
            rest = behind;
        }
    }

    /// The client or the driver does something else.
    pub fn event(&mut self, what: &str) {
        match what {
            "eof" => self.engine.end_of_input(),
            "silent" => self.engine.timed_out(),
            "shutdown" => self.engine.shut_down(),
            other => panic!("there is no event {other:?}"),
        }
        self.run();
    }

    /// Goes on until the engine waits or closes.
    pub fn run(&mut self) {
        while !self.is_closed {
            self.engine.tick(LogTime(self.shard.now));
            match self.engine.next_step() {
                Step::Send(octets) => {
                    assert!(!octets.is_empty(), "nothing is sent");
                    self.log_sent(&octets);
                }
                Step::Ask(question) => {
                    if !self.is_quiet {
                        self.log.push(format!("store? {}", asked(&question)));
                    }
                    let reply = self.answer(question);
                    if !self.is_quiet {
                        self.log.push(format!("store! {}", replied(&reply)));
                    }
                    self.engine.reply(reply);
                }
                Step::Wait => return,
                Step::Yield => self.n_turns += 1,
                Step::StartTls => {
                    self.log.push("S: (TLS)".into());
                    self.engine.tls_started();
                }
                Step::Close => {
                    self.log.push("S: (closes)".into());
                    self.is_closed = true;
                }
            }
        }
    }

    fn log_sent(&mut self, octets: &[u8]) {
        if self.is_quiet {
            return;
        }
        self.sent.extend_from_slice(octets);
        for line in octets.split_inclusive(|octet| *octet == b'\n') {
            let (line, end) = match line.strip_suffix(b"\r\n") {
                Some(line) => (line, ""),
                None => (line, "(no line end)"),
            };
            self.log.push(format!("S: {}{end}", line.escape_ascii()).trim_end().to_owned());
        }
    }

    /// What a transcript says about the store.
    pub fn set_up(&mut self, words: &str) {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "account" => {
                self.shard.create_account(name, "");
                self.set_password(name, rest);
            }
            "quota" => {
                let storage_bytes = rest.parse().ok();
                let quota = Quota { storage_bytes, n_messages: None };
                self.shard.change_account(self.account(name), AccountChange::Quota(quota));
            }
            "group" => {
                let members: Vec<&str> = rest.split(' ').collect();
                self.shard.set_group(name, &members);
            }
            "alias" => self.shard.add_alias(self.account(name), rest),
            "suspend" | "resume" => {
                let state = match verb {
                    "suspend" => AccountState::Suspended,
                    _ => AccountState::Active,
                };
                let change = AccountChange::State(state);
                self.shard.change_account(self.account(name), change);
            }
            "delete" => {
                let delete = Command::DeleteAccount(self.account(name));
                assert_eq!(self.shard.command(delete, &[]), Outcome::Done);
            }
            "deliver" => {
                let outcome = self.shard.deliver(self.account(name), &unescape(rest));
                assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
            }
            "fail" => self.faults.push_back((name.to_owned(), trouble(rest))),
            "in-use" => self.is_in_use = true,
            "lost" => self.is_lost = true,
            "free" => self.is_in_use = false,
            "later" => self.shard.now += 1000 * name.parse::<u64>().expect("seconds"),
            "show" => self.show(name),
            other => panic!("the store knows no {other:?}"),
        }
    }

    /// What is right for this login from now on.
    pub fn set_password(&mut self, name: &str, password: &str) {
        self.passwords.insert(name.to_owned(), password.to_owned());
    }

    fn account(&self, name: &str) -> AccountId {
        let address = Address::parse(name).expect("an address").0;
        self.shard.resolve(&address).expect("the account exists").account
    }

    /// Every message of an INBOX, octet for octet.
    fn show(&mut self, name: &str) {
        let inbox = NamedMailbox { account: self.account(name), name: MailboxName::inbox() };
        let Answer::Mailbox(inbox) = self.shard.query(&Query::Mailbox(inbox)) else {
            panic!("there is an INBOX");
        };
        let all = Messages {
            of: inbox.of,
            uids: UidSet::all(),
            changed_since: None,
            metadata: false,
            chunks: true,
            expunged: false,
            only_envelope: false,
            recent_to: None,
        };
        let Answer::Messages(records, _) = self.shard.query(&Query::Messages(all)) else {
            panic!("INBOX has messages");
        };
        self.log.push(format!("store! {} messages", records.len()));
        for record in records {
            self.log.push(format!("| UID {}, {} octets", record.uid, record.size));
            let body = record.body.expect("chunks were asked for");
            for line in self.octets(&body).split_inclusive(|octet| *octet == b'\n') {
                self.log.push(format!("|   {}", line.escape_ascii()));
            }
        }
    }

    fn octets(&self, body: &Body) -> Vec<u8> {
        let stored = body.chunks.iter().map(|chunk| self.shard.stored_chunk(chunk));
        stored.flat_map(|stored| stored.expect("the chunk is there").bytes.to_vec()).collect()
    }

    fn answer(&mut self, question: Question) -> Reply {
        if let Some((fault, trouble)) = self.faults.front().cloned()
            && asked(&question).split(' ').next() == Some(fault.as_str())
        {
            self.faults.pop_front();
            return Reply::Trouble(trouble);
        }
        if self.is_lost && !matches!(question, Question::UnlockMaildrop) {
            return Reply::InUse;
        }
        match question {
            Question::Authenticate(credentials) => self.authenticate(&credentials),
            Question::Recipient(address) => {
                let places = self.shard.recipients(&address);
                Reply::Recipient(places.iter().map(|place| place.account).collect())
            }
            Question::Query(query) => Reply::Answer(self.shard.query(&query)),
            Question::Command(command, inline) => {
                Reply::Outcome(self.shard.command(*command, &inline))
            }
            Question::CommandAnd(command, inline, then) => {
                let outcome = self.shard.command(*command, &inline);
                Reply::OutcomeAnd(outcome, Some(self.shard.query(&then)))
            }
            Question::Commands(commands) => {
                let outcomes = commands.into_iter().map(|command| self.one_of_many(command));
                Reply::Outcomes(outcomes.collect())
            }
            Question::WouldTake(copies, first) => {
                let looks = copies.iter().map(|(account, size)| {
                    let holds = |first| self.shard.query(&Query::Holds(*account, first));
                    if first.map(holds) == Some(Answer::Holds(true)) {
                        return Look::Has;
                    }
                    match self.shard.query(&Query::Account(*account)) {
                        Answer::Account(record) => match record.would_take(*size) {
                            Outcome::Refused(refusal) => Look::Refuses(refusal),
                            _ => Look::Takes,
                        },
                        Answer::Refused(refusal) => Look::Refuses(refusal),
                        other => panic!("Account was answered with {other:?}"),
                    }
                });
                Reply::Looks(looks.collect())
            }
            Question::BeginBody(_) | Question::BeginReplacement(..) | Question::DropBody => {
                self.body.clear();
                Reply::Done
            }
            Question::Body(octets) => {
                self.body.extend_from_slice(&octets);
                Reply::Done
            }
            Question::EndBody => Reply::Draft(Box::new(draft(&std::mem::take(&mut self.body)))),
            Question::Chunk(_, chunk) => match self.shard.stored_chunk(&chunk) {
                Some(stored) => Reply::Chunk(stored.bytes),
                None => Reply::Trouble(Trouble::Damaged),
            },
            Question::LockMaildrop(_) if self.is_in_use => Reply::InUse,
            Question::Watch(_)
            | Question::Listen(_)
            | Question::Unwatch
            | Question::LockMaildrop(_)
            | Question::UnlockMaildrop => Reply::Done,
        }
    }

    fn one_of_many(
        &mut self,
        (command, inline): (Command, Vec<StoredChunk>),
    ) -> Result<Outcome, Trouble> {
        if self.faults.front().is_some_and(|(fault, _)| fault == "one") {
            return Err(self.faults.pop_front().expect("there is one").1);
        }
        Ok(self.shard.command(command, &inline))
    }

    fn authenticate(&mut self, credentials: &Credentials) -> Reply {
        let Credentials { login, password } = credentials;
        let Ok((name, _)) = Address::parse(login) else { return Reply::Denied };
        let known = self.passwords.get(login).map(String::as_bytes);
        match self.shard.resolve(&name) {
            Some(place) if known == Some(password) => {
                Reply::Authenticated(Login { account: place.account, name })
            }
            _ => Reply::Denied,
        }
    }
}

fn trouble(name: &str) -> Trouble {
    match name {
        "Unavailable" => Trouble::Unavailable,
        "Unknown" => Trouble::Unknown,
        "Full" => Trouble::Full,
        "Damaged" => Trouble::Damaged,
        "TooLarge" => Trouble::TooLarge,
        "Overloaded" => Trouble::Overloaded,
        other => panic!("there is no trouble {other:?}"),
    }
}

/// A question in few words; the first is its kind.
fn asked(question: &Question) -> String {
    match question {
        Question::Authenticate(credentials) => format!("Authenticate {}", credentials.login),
        Question::Recipient(address) => format!("Recipient {address}"),
        Question::Query(query) => format!("Query {}", head(query)),
        Question::Command(command, _) => format!("Command {}", head(command)),
        Question::Commands(commands) => {
            let all: Vec<_> = commands.iter().map(|(command, _)| head(command)).collect();
            format!("Commands {}", all.join(" "))
        }
        Question::WouldTake(copies, _) => format!("WouldTake {}", copies.len()),
        Question::BeginBody(accounts) => format!("BeginBody for {}", accounts.len()),
        Question::Body(octets) => format!("Body {} octets", octets.len()),
        Question::Chunk(_, chunk) => format!("Chunk {} octets", chunk.raw_len),
        other => head(other),
    }
}

/// A reply in few words.
fn replied(reply: &Reply) -> String {
    match reply {
        Reply::Answer(answer) => head(answer),
        Reply::Outcome(outcome) => said(outcome),
        Reply::Outcomes(outcomes) => {
            let each = |outcome: &Result<Outcome, Trouble>| match outcome {
                Ok(outcome) => said(outcome),
                Err(trouble) => format!("{trouble:?}"),
            };
            outcomes.iter().map(each).collect::<Vec<_>>().join(" ")
        }
        Reply::Looks(looks) => {
            let each = |look: &Look| match look {
                Look::Refuses(refusal) => format!("Refuses({})", head(refusal)),
                look => format!("{look:?}"),
            };
            looks.iter().map(each).collect::<Vec<_>>().join(" ")
        }
        Reply::Recipient(found) if found.is_empty() => "nobody".into(),
        Reply::Recipient(found) if found.len() > 1 => format!("found {}", found.len()),
        Reply::Recipient(_) => "found".into(),
        Reply::Trouble(trouble) => format!("Trouble {trouble:?}"),
        other => head(other),
    }
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused(refusal) => format!("Refused({})", head(refusal)),
        Outcome::Expunged(expunged) => format!("Expunged({})", expunged.uids),
        other => head(other),
    }
}

/// The name of a value's variant.
fn head(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// `\r`, `\n`, `\\`, `\0` and `\xNN` become the octets they stand for.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            out.push(octet);
            continue;
        }
        match rest.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b'0') => out.push(0),
            Some(b'x') => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = std::str::from_utf8(&digits).expect("hexadecimal");
                out.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
            }
            other => out.extend(other),
        }
    }
    out
}
