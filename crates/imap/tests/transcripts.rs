//! Golden transcripts: a session and its store as text. `UPDATE=1` rewrites them.
//!
//! ```text
//! # a remark
//! C: a line the client sends            S: a line it is sent
//! store? what the store is asked        store! what is done to the store, or to the session
//! ```
//!
//! `store!` knows: `deliver MAILBOX FILE [FLAGS]`, `flag MAILBOX UIDS +FLAG`,
//! `expunge MAILBOX UIDS`, `move MAILBOX UIDS TARGET`, `create MAILBOX`, `delete MAILBOX`,
//! `rename MAILBOX NAME`, `zip` (from here on the client compresses),
//! `quota OCTETS [MESSAGES]` (`-`: without limit),
//! `purge`, `suspend`, `resume`, `remove` (the account), `renumber`, `wait SECONDS`, `next TROUBLE`,
//! `chunk TROUBLE` and `forget` (who was told of arrivals first); a new session by
//! `session [notls|starttls|private]` or, logged in, `login`; `timeout`, `shutdown`, `end of input`.
//! Of what stands behind `unheard` the session does not hear.

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mailbox::command::{
    AccountChange, AccountState, ChangeAccount, Expunge, Housekeep, Move, Renumber,
};
use mailbox::dialogue::{Engine, Trouble};
use mailbox::flags::Keyword;
use mailbox::*;
use support::zip::Zip;
use support::{ACCOUNT, Client, Event, Store, config, unescaped};

/// A transcript being played.
struct Play {
    store: Store,
    client: Client,
    told: String,
    /// What was sent and is no whole line yet.
    line: Vec<u8>,
    zip: Option<Zip>,
}

impl Play {
    fn new() -> Self {
        let client = Client::new(config());
        Self { store: Store::new(), client, told: String::new(), line: Vec::new(), zip: None }
    }

    fn run(&mut self) {
        let (told, line, zip) = (&mut self.told, &mut self.line, &mut self.zip);
        self.client.run(&mut self.store, &mut |event| {
            let note = match event {
                Event::Sent(bytes) => {
                    match zip {
                        Some(zip) => line.extend(zip.unpack(&bytes)),
                        None => line.extend_from_slice(&bytes),
                    }
                    return tell_lines(line, told);
                }
                Event::Asked(question) => format!("store? {question}"),
                Event::StartTls => "(TLS handshake)".into(),
                Event::Closed => "(closed)".into(),
            };
            let _ = writeln!(told, "{note}");
        });
        if !self.line.is_empty() {
            let _ = writeln!(self.told, "S: {}(no line end)", escaped(&self.line));
            self.line.clear();
        }
    }

    /// Does what one line of a transcript says.
    fn play(&mut self, line: &str) {
        if let Some(text) = line.strip_prefix("C: ").or((line == "C:").then_some("")) {
            let mut octets = unescaped(text);
            octets.extend_from_slice(b"\r\n");
            if let Some(zip) = &mut self.zip {
                octets = zip.pack(&octets);
            }
            self.client.session.receive(&octets);
            self.run();
        } else if let Some(text) = line.strip_prefix("store! ") {
            self.act(text);
            self.run();
        }
    }

    fn begin(&mut self, client: Client) {
        self.client = client;
        self.line.clear();
        self.zip = None;
    }

    fn act(&mut self, text: &str) {
        let unheard = text.strip_prefix("unheard ");
        self.act_heard(unheard.unwrap_or(text));
        if unheard.is_some() {
            self.store.changes.clear();
        }
    }

    fn act_heard(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["login"] => {
                self.begin(Client::new(config()));
                let answer =
                    self.client.say(&mut self.store, b"l LOGIN ann@example.test secret\r\n");
                assert!(answer.windows(4).any(|four| four == b"l OK"), "the login failed");
            }
            ["zip"] => self.zip = Some(Zip::default()),
            ["session"] => self.begin(Client::new(config())),
            ["session", how] => {
                let mut config = config();
                config.plain_logins_allowed = false;
                config.tls_active = how == "private";
                config.tls_available = how != "notls";
                self.begin(Client::new(config));
            }
            ["deliver", to, file, ref flags @ ..] => {
                let raw = message(file);
                let outcome = self.store.append(to, &[raw], &parse_flags(flags));
                assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
            }
            ["flag", of, uids, flag] => {
                let flags = parse_flags(&[&flag[1..]]);
                let change = match &flag[..1] {
                    "+" => FlagChange::Add(flags),
                    _ => FlagChange::Remove(flags),
                };
                let (mailbox, uids) = (self.store.of(of).mailbox, parse_uids(uids));
                let unchanged_since = None;
                let account = ACCOUNT;
                let store = command::Store { account, mailbox, uids, change, unchanged_since };
                self.command(Command::Store(store));
            }
            ["expunge", of, uids] => {
                let (mailbox, uids) = (self.store.of(of).mailbox, parse_uids(uids));
                let expunge = Expunge { account: ACCOUNT, mailbox, uids, only_deleted: false };
                self.command(Command::Expunge(expunge));
            }
            ["move", of, uids, to] => {
                let (from, to) = (self.store.of(of).mailbox, self.store.of(to).mailbox);
                let (account, uids, to_name) = (ACCOUNT, parse_uids(uids), None);
                self.command(Command::Move(Move { account, from, to, uids, to_name }));
            }
            ["create", name] => {
                let (account, name) = (ACCOUNT, parse_name(name));
                let create = command::CreateMailbox { account, name, special_use: None };
                self.command(Command::CreateMailbox(create));
            }
            ["delete", name] => {
                let named = command::NamedMailbox { account: ACCOUNT, name: parse_name(name) };
                self.command(Command::DeleteMailbox(named));
            }
            ["purge"] => {
                let now = LogTime(self.store.now_ms + 1);
                let (sessions_before, uploads_before) = (LogTime(0), LogTime(0));
                let housekeep = Housekeep { sessions_before, uploads_before, purge_before: now };
                self.command(Command::Housekeep(housekeep));
            }
            ["next", trouble] => self.store.trouble = Some(parse_trouble(trouble)),
            ["chunk", trouble] => self.store.chunk_trouble = Some(parse_trouble(trouble)),
            ["wait", seconds] => {
                self.store.now_ms += 1000 * seconds.parse::<u64>().expect("a number");
            }
            ["forget"] => self.store.first_told = FirstTold::default(),
            ["timeout"] => self.client.session.timed_out(),
            ["shutdown"] => self.client.session.shut_down(),
            ["end", "of", "input"] => self.client.session.end_of_input(),
            _ => self.change_account(&words),
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (account, from, to) = (ACCOUNT, parse_name(from), parse_name(to));
        let rename = command::RenameMailbox { account, from, to, further: false, into: None };
        self.command(Command::RenameMailbox(rename));
    }

    fn change_account(&mut self, words: &[&str]) {
        match words {
            ["suspend"] => self.set_state(AccountState::Suspended),
            ["resume"] => self.set_state(AccountState::Active),
            ["rename", from, to] => self.rename(from, to),
            ["renumber"] => self.command(Command::Renumber(Renumber { after: None })),
            ["remove"] => self.command(Command::DeleteAccount(ACCOUNT)),
            ["quota", octets, messages @ ..] => {
                let limit = |text: &str| (text != "-").then(|| text.parse().expect("a number"));
                let n_messages = messages.first().and_then(|text| limit(text));
                self.store.set_quota(limit(octets), n_messages);
            }
            _ => panic!("store! {}", words.join(" ")),
        }
    }

    fn set_state(&mut self, state: AccountState) {
        let change = AccountChange::State(state);
        self.command(Command::ChangeAccount(ChangeAccount { account: ACCOUNT, change }));
    }

    fn command(&mut self, command: Command) {
        let outcome = self.store.apply(command, &[]);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
}

fn tell_lines(line: &mut Vec<u8>, told: &mut String) {
    while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        let whole: Vec<u8> = line.drain(..=end).collect();
        let text = whole.strip_suffix(b"\r\n").map(escaped);
        let text = text.unwrap_or_else(|| escaped(&whole));
        let _ = writeln!(told, "S: {text}");
    }
}

/// Printable, with everything else as `\xNN`.
fn escaped(octets: &[u8]) -> String {
    let mut text = String::new();
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\0'..=' ' | '\x7f' if c != ' ' => {
                    let _ = write!(text, "\\x{:02x}", c as u32);
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A message of `tests/messages`, whose lines end in CRLF in a mailbox.
fn message(file: &str) -> Vec<u8> {
    let path = here().join("messages").join(format!("{file}.eml"));
    let text = std::fs::read(&path).unwrap_or_else(|_| panic!("no message {file}"));
    let mut raw = Vec::with_capacity(text.len());
    for byte in text {
        if byte == b'\n' {
            raw.push(b'\r');
        }
        raw.push(byte);
    }
    raw
}

fn parse_name(text: &str) -> MailboxName {
    MailboxName::parse(text, '/').expect("a name")
}

fn parse_uids(text: &str) -> UidSet {
    let number = |text: &str| Uid::new(text.parse().expect("a UID")).expect("a UID");
    let range = |text: &str| match text.split_once(':') {
        Some((first, last)) => (number(first), number(last)),
        None => (number(text), number(text)),
    };
    UidSet::from_ranges(text.split(',').map(range).collect())
}

fn parse_flags(words: &[&str]) -> Flags {
    let mut flags = Flags::default();
    for word in words {
        let system = match *word {
            "\\Seen" => SystemFlags::SEEN,
            "\\Answered" => SystemFlags::ANSWERED,
            "\\Flagged" => SystemFlags::FLAGGED,
            "\\Deleted" => SystemFlags::DELETED,
            "\\Draft" => SystemFlags::DRAFT,
            keyword => {
                flags.keywords.insert(Keyword::new(keyword).expect("a keyword"));
                continue;
            }
        };
        flags.system = SystemFlags(flags.system.0 | system.0);
    }
    flags
}

fn parse_trouble(word: &str) -> Trouble {
    match word {
        "unavailable" => Trouble::Unavailable,
        "unknown" => Trouble::Unknown,
        "full" => Trouble::Full,
        "damaged" => Trouble::Damaged,
        "large" => Trouble::TooLarge,
        "overloaded" => Trouble::Overloaded,
        _ => panic!("no such trouble: {word}"),
    }
}

/// The transcript as it is now.
fn played(text: &str) -> String {
    let mut play = Play::new();
    let mut now = String::new();
    let mut has_begun = false;
    let is_input = |line: &str| {
        line.is_empty() || ["C:", "store! ", "#"].iter().any(|start| line.starts_with(start))
    };
    for line in text.lines().filter(|line| is_input(line)) {
        now.push_str(line);
        now.push('\n');
        if !has_begun && line.starts_with("C:") {
            play.run();
            let greeting = std::mem::take(&mut play.told);
            now.insert_str(now.len() - line.len() - 1, &greeting);
        }
        has_begun |= !line.starts_with('#') && !line.is_empty();
        play.play(line);
        now.push_str(&std::mem::take(&mut play.told));
    }
    now
}

#[test]
fn transcripts_are_as_they_were() {
    let wants_update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    let mut n_played = 0;
    let entries = std::fs::read_dir(here().join("transcripts")).expect("transcripts");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("transcripts").path()).collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a transcript");
        let now = played(&text);
        n_played += 1;
        if now == text {
            continue;
        }
        if wants_update {
            std::fs::write(&path, now).expect("a transcript can be written");
        } else {
            let at = now.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or(0);
            let (a, b) = (now.lines().nth(at), text.lines().nth(at));
            differing.push(format!("{}:{}: {a:?} was {b:?}", path.display(), at + 1));
        }
    }
    assert!(n_played > 20, "the transcripts were not found");
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
