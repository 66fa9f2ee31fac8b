//! One POP3 connection.

mod admit;
mod authorize;
mod retrieve;

use std::collections::VecDeque;

use bytes::Bytes;
use mailbox::dialogue::{Engine, Login, Question, Reply, Step, Trouble};
use mailbox::lines::Lines;
use mailbox::outcome::Change;
use mailbox::{ChunkRef, Command, LogTime, Outcome, Query, Slices};

use crate::listing::{Listing, What};
use crate::maildrop::Maildrop;
use crate::parse::{self, BadLine, Request};
use crate::refuse;
use crate::wire::Wire;
use crate::{BAD_COMMANDS_MAX, IDLE_LIMIT_S, INPUT_BYTES_MAX, LINE_BYTES_MAX, OUTPUT_BYTES_MAX};

/// What a session is told when it begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What this host calls itself.
    pub hostname: String,
    /// The connection is inside TLS from the start.
    pub is_tls: bool,
    /// STLS can be offered.
    pub can_start_tls: bool,
    /// Passwords may be sent without TLS.
    pub allow_plain_login: bool,
}

/// The engine.
pub struct Session {
    settings: Settings,
    input: Lines,
    has_ended: bool,
    output: Vec<u8>,
    user: Option<String>,
    login: Option<Login>,
    maildrop: Option<Maildrop>,
    now: LogTime,
    /// When the store last said that the account may be read.
    admitted: LogTime,
    n_auth_failures: u32,
    n_bad: u32,
    doing: Doing,
    /// To be asked next; `doing` waits for its reply already.
    question: Option<Question>,
    /// Others have their turn before more is done.
    lets_others: bool,
}

/// What the session is in the middle of.
enum Doing {
    /// Reading commands.
    Commands,
    /// Reading the response to an empty challenge.
    Responding,
    /// `+OK` to STLS was said.
    StartingTls,
    /// Asked whether the password is right.
    Authenticating,
    /// Asked for the lock.
    Locking,
    /// Asked for INBOX.
    Opening,
    /// Asked for a page of its messages.
    Loading(Maildrop),
    /// Asked whether the account may still be read.
    Admitting(Request),
    /// Asked to give the lock back; then say this, and perhaps close.
    Unlocking { words: String, is_last: bool },
    /// Writing LIST or UIDL.
    Listing(Listing),
    /// Asked for the chunks of a message.
    Finding { number: u32, wire: Wire },
    /// Sending a message.
    Sending(Sending),
    /// Asked for its next chunk.
    Fetching(Sending),
    /// QUIT: asked whether the lock is still there.
    Relocking,
    /// QUIT: asked whether INBOX is still the one that was listed.
    Confirming,
    /// Asked to remove what was deleted, from a UID on.
    Removing(Slices),
    /// Saying goodbye.
    Closing,
}

struct Sending {
    /// What is said before the first octet.
    head: Option<String>,
    chunks: VecDeque<ChunkRef>,
    wire: Wire,
}

impl Session {
    /// A session that greets first.
    pub fn new(settings: Settings) -> Self {
        let mut session = Self {
            settings,
            input: Lines::default(),
            has_ended: false,
            output: Vec::new(),
            user: None,
            login: None,
            maildrop: None,
            now: LogTime(0),
            admitted: LogTime(0),
            n_auth_failures: 0,
            n_bad: 0,
            doing: Doing::Commands,
            question: None,
            lets_others: false,
        };
        let greeting = format!("+OK {} POP3", session.settings.hostname);
        session.say(&greeting);
        session
    }

    fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    fn close(&mut self) {
        self.input.clear();
        self.doing = Doing::Closing;
    }

    fn ask(&mut self, doing: Doing, question: Question) {
        self.doing = doing;
        self.question = Some(question);
    }

    /// Whether a reply is awaited.
    fn is_asking(&self) -> bool {
        let is_free = matches!(
            self.doing,
            Doing::Commands
                | Doing::Responding
                | Doing::StartingTls
                | Doing::Listing(_)
                | Doing::Sending(_)
                | Doing::Closing
        );
        !is_free
    }

    /// Whether QUIT was said, and is not done yet.
    fn is_quitting(&self) -> bool {
        matches!(
            self.doing,
            Doing::Relocking
                | Doing::Confirming
                | Doing::Removing(_)
                | Doing::Unlocking { is_last: true, .. }
        )
    }

    /// Works until there is something to ask, enough to send, or too little input.
    fn work(&mut self) {
        while self.question.is_none() && self.output.len() < OUTPUT_BYTES_MAX {
            match std::mem::replace(&mut self.doing, Doing::Commands) {
                Doing::Commands => match self.input.next_line(LINE_BYTES_MAX) {
                    Some(Ok(line)) => self.line(&line),
                    Some(Err(_)) => self.bad(refuse::LINE_TOO_LONG),
                    None => return,
                },
                Doing::Responding => match self.input.next_line(LINE_BYTES_MAX) {
                    Some(Ok(line)) => self.sasl_response(&line),
                    Some(Err(_)) => self.bad(refuse::LINE_TOO_LONG),
                    None => {
                        self.doing = Doing::Responding;
                        return;
                    }
                },
                Doing::Listing(mut listing) => {
                    let Some(maildrop) = &self.maildrop else { return };
                    if !listing.write(maildrop, &mut self.output) {
                        self.doing = Doing::Listing(listing);
                    }
                    // Why: it looks at every message, and has nothing to say of those that are deleted.
                    self.lets_others = true;
                    return;
                }
                Doing::Sending(sending) => self.send_on(sending),
                other => {
                    self.doing = other;
                    return;
                }
            }
        }
    }

    fn bad(&mut self, words: &str) {
        self.n_bad += 1;
        if self.n_bad > BAD_COMMANDS_MAX {
            self.say(refuse::TOO_MANY_ERRORS);
            self.close();
        } else {
            self.say(words);
        }
    }

    fn line(&mut self, line: &[u8]) {
        match parse::request(line) {
            Err(BadLine::Unknown) => self.bad(refuse::UNKNOWN),
            Err(BadLine::Parameters) => self.bad(refuse::PARAMETERS),
            Ok(Request::Capa) => self.capabilities(),
            Ok(Request::Quit) => self.quit(),
            Ok(request) if self.maildrop.is_none() => self.authorize(request),
            Ok(request) => self.admit(request),
        }
    }

    /// A command in the TRANSACTION state (RFC 1939 5).
    fn transact(&mut self, request: Request) {
        let Some(mut maildrop) = self.maildrop.take() else { return };
        self.transact_in(&mut maildrop, request);
        self.maildrop = Some(maildrop);
    }

    fn transact_in(&mut self, maildrop: &mut Maildrop, request: Request) {
        match request {
            Request::Stat => {
                let (n_messages, n_bytes) = maildrop.stat();
                self.say(&format!("+OK {n_messages} {n_bytes}"));
            }
            Request::List(which) => self.list(What::Sizes, which, maildrop),
            Request::Uidl(which) => self.list(What::Names, which, maildrop),
            Request::Retr(number) => self.retrieve(number, Wire::whole(), maildrop),
            Request::Top(number, n_lines) => self.retrieve(number, Wire::top(n_lines), maildrop),
            Request::Dele(number) => {
                let is_there = maildrop.delete(number);
                self.say(if is_there { "+OK Deleted at QUIT" } else { refuse::NO_SUCH_MESSAGE });
            }
            Request::Noop => self.say("+OK"),
            Request::Rset => {
                maildrop.undelete();
                self.say("+OK");
            }
            Request::Last => self.say(refuse::NO_LAST),
            _ => self.bad(refuse::LOGGED_IN),
        }
    }

    fn list(&mut self, what: What, which: Option<u32>, maildrop: &Maildrop) {
        let Some(number) = which else {
            self.say("+OK");
            self.doing = Doing::Listing(Listing::new(what));
            return;
        };
        match maildrop.message(number) {
            Some(message) => {
                let line = what.line(maildrop, number, message);
                self.say(&format!("+OK {line}"));
            }
            None => self.say(refuse::NO_SUCH_MESSAGE),
        }
    }

    /// RFC 2449 5: what is offered before the login is told after it as well.
    fn capabilities(&mut self) {
        self.say("+OK\r\nTOP\r\nUIDL\r\nPIPELINING\r\nRESP-CODES\r\nAUTH-RESP-CODE");
        if self.takes_passwords() {
            self.say("USER\r\nSASL PLAIN");
        }
        if self.has_tls_to_start() {
            self.say("STLS");
        }
        // RFC 6856 2: names in USER are UTF-8 too.
        self.say("UTF8 USER\r\nEXPIRE NEVER\r\nLOGIN-DELAY 0\r\nIMPLEMENTATION Rookery\r\n.");
    }

    /// RFC 1939 6: only QUIT removes messages.
    fn quit(&mut self) {
        match &self.maildrop {
            Some(maildrop) if maildrop.has_marked() => {
                self.ask(Doing::Relocking, Question::LockMaildrop(maildrop.account()));
            }
            Some(_) => self.unlock("+OK Bye", true),
            None => {
                self.say("+OK Bye");
                self.close();
            }
        }
    }

    /// RFC 1939 4: who has no exclusive access any more removes nothing.
    fn relocked(&mut self, reply: &Reply) {
        match (reply, &self.maildrop) {
            (Reply::Done, Some(maildrop)) => {
                let question = Question::Query(Query::Mailbox(maildrop.inbox()));
                self.ask(Doing::Confirming, question);
            }
            (reply, _) => self.unlock(refuse::ended(reply).unwrap_or(refuse::NOT_REMOVED), true),
        }
    }

    fn remove(&mut self, left: Slices) {
        match (&self.maildrop, left.next_command()) {
            (Some(maildrop), Some(uids)) => {
                let command = Box::new(Command::Expunge(maildrop.expunge(uids)));
                self.ask(Doing::Removing(left), Question::Command(command, Vec::new()));
            }
            // Durability: every slice's outcome came, so a majority has synced what was removed.
            _ => self.unlock("+OK Bye", true),
        }
    }

    fn removed(&mut self, mut left: Slices, reply: Reply) {
        match reply {
            Reply::Outcome(Outcome::Expunged(expunged)) => {
                left.done(expunged.next);
                self.remove(left);
            }
            reply => self.unlock(refuse::ended(&reply).unwrap_or(refuse::NOT_REMOVED), true),
        }
    }

    /// Gives the maildrop back before the client hears of it, so that it can log in again at once.
    fn unlock(&mut self, words: &str, is_last: bool) {
        let words = words.to_owned();
        self.ask(Doing::Unlocking { words, is_last }, Question::UnlockMaildrop);
    }
}

/// The words for a reply that is not the one hoped for.
fn trouble(reply: &Reply) -> &'static str {
    let why = if let Reply::Trouble(why) = reply { *why } else { Trouble::Unavailable };
    refuse::trouble(why)
}

impl Engine for Session {
    fn receive(&mut self, bytes: &[u8]) {
        if !matches!(self.doing, Doing::Closing | Doing::StartingTls) {
            self.input.push(bytes);
        }
    }

    fn end_of_input(&mut self) {
        self.has_ended = true;
    }

    fn wants_input(&self) -> bool {
        self.input.len() < INPUT_BYTES_MAX && !self.has_ended
    }

    fn reply(&mut self, reply: Reply) {
        match std::mem::replace(&mut self.doing, Doing::Commands) {
            Doing::Authenticating => self.authenticated(reply),
            Doing::Locking => self.locked(reply),
            Doing::Opening => self.opened(reply),
            Doing::Loading(maildrop) => self.loaded(reply, maildrop),
            Doing::Admitting(request) => self.admitted(&reply, request),
            Doing::Unlocking { words, is_last } => {
                self.say(&words);
                self.login = None;
                if is_last {
                    self.close();
                }
            }
            Doing::Finding { number, wire } => self.found(reply, number, wire),
            Doing::Fetching(sending) => self.fetched(reply, sending),
            Doing::Relocking => self.relocked(&reply),
            Doing::Confirming => self.confirmed(&reply),
            Doing::Removing(left) => self.removed(left, reply),
            other => self.doing = other,
        }
    }

    fn notify(&mut self, _: Change) {}

    fn tls_started(&mut self) {
        // RFC 2595 4: what came before TLS may have been put there by somebody else.
        self.input.clear();
        self.user = None;
        self.settings.is_tls = true;
        self.doing = Doing::Commands;
    }

    fn tick(&mut self, now: LogTime) {
        self.now = now;
    }

    fn idle_limit_s(&self) -> u32 {
        IDLE_LIMIT_S
    }

    /// RFC 1939 3: closes without a word and removes nothing.
    fn timed_out(&mut self) {
        self.close();
    }

    fn shut_down(&mut self) {
        // Inside a message a line of ours would become part of it.
        if !matches!(self.doing, Doing::Sending(_) | Doing::Fetching(_) | Doing::Listing(_)) {
            self.say(refuse::SHUTTING_DOWN);
        }
        self.close();
    }

    fn next_step(&mut self) -> Step {
        if std::mem::take(&mut self.lets_others) {
            return Step::Yield;
        }
        if self.question.is_none() && !self.is_asking() {
            self.work();
        }
        // Why first: an answer may take seconds, and what is ready is taken by the client meanwhile. But what
        // QUIT removes is removed for a client as well that takes no more answers (RFC 1939 6).
        let asks_first = self.is_quitting() && self.question.is_some();
        if !self.output.is_empty() && !asks_first {
            return Step::Send(Bytes::from(std::mem::take(&mut self.output)));
        }
        if let Some(question) = self.question.take() {
            return Step::Ask(question);
        }
        match self.doing {
            Doing::StartingTls => Step::StartTls,
            Doing::Closing => Step::Close,
            _ if self.has_ended && !self.is_asking() => Step::Close,
            _ => Step::Wait,
        }
    }
}
