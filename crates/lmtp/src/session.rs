//! One LMTP connection.

use bytes::Bytes;
use mailbox::command::Deliver;
use mailbox::dialogue::{Engine, Question, Reply, Step, Trouble};
use mailbox::lines::Lines;
use mailbox::outcome::Change;
use mailbox::{AccountId, Address, Command, Draft, LogTime};

use crate::data::DataReader;
use crate::parse::{self, Mail, Request};
use crate::refuse::{self, Words};
use crate::trace::Trace;
use crate::{
    BAD_COMMANDS_MAX, IDLE_LIMIT_S, INPUT_BYTES_MAX, LINE_BYTES_MAX, OUTPUT_BYTES_MAX,
    PIECE_BYTES_MAX, RECIPIENTS_MAX,
};

/// What a session is told when it begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What this host calls itself.
    pub hostname: String,
    /// Names the session in logs and in Received fields.
    pub session: String,
    /// The client's address, for Received fields.
    pub peer: Option<String>,
    /// Limit: octets of a message.
    pub message_bytes_max: u64,
}

/// The engine.
pub struct Session {
    settings: Settings,
    now: LogTime,
    input: Lines,
    has_ended: bool,
    output: Vec<u8>,
    /// What the client called itself.
    client: Option<String>,
    transaction: Option<Transaction>,
    n_transactions: u32,
    n_bad: u32,
    doing: Doing,
    /// To be asked next; `doing` waits for its reply already.
    question: Option<Question>,
}

/// What MAIL began.
struct Transaction {
    mail: Mail,
    recipients: Vec<Recipient>,
}

struct Recipient {
    account: AccountId,
    detail: Option<String>,
    /// As the client wrote it.
    address: String,
}

/// What the session is in the middle of.
enum Doing {
    /// Reading commands.
    Commands,
    /// Asked who this is.
    Resolving { detail: Option<String>, address: String },
    /// Asked for a body to begin.
    Beginning,
    /// Reading the message.
    Reading(Reading),
    /// Asked the store to take the last octets read.
    Storing(Reading),
    /// Asked for the draft.
    Ending,
    /// Asked for the body to be dropped; then every recipient gets these words.
    Dropping(&'static str),
    /// Asked for the deliveries.
    Delivering,
    /// Saying goodbye.
    Closing,
}

#[derive(Default)]
struct Reading {
    reader: DataReader,
    piece: Vec<u8>,
    n_bytes: u64,
    /// Words for every recipient, when the message is not wanted any more.
    refusal: Option<&'static str>,
}

impl Session {
    /// A session that greets first.
    pub fn new(settings: Settings) -> Self {
        let mut session = Self {
            settings,
            now: LogTime(0),
            input: Lines::default(),
            has_ended: false,
            output: Vec::new(),
            client: None,
            transaction: None,
            n_transactions: 0,
            n_bad: 0,
            doing: Doing::Commands,
            question: None,
        };
        let greeting = format!("220 {} LMTP", session.settings.hostname);
        session.say(&greeting);
        session
    }

    fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    fn close(&mut self, words: Words) {
        self.say(words.text());
        self.input.clear();
        self.doing = Doing::Closing;
    }

    /// Whether a reply is awaited.
    fn is_asking(&self) -> bool {
        !matches!(self.doing, Doing::Commands | Doing::Reading(_) | Doing::Closing)
    }

    /// The next question, if there is one to ask before more input or output.
    fn work(&mut self) -> Option<Question> {
        while self.output.len() < OUTPUT_BYTES_MAX {
            match std::mem::replace(&mut self.doing, Doing::Commands) {
                Doing::Commands => {
                    let line = self.input.next_line(LINE_BYTES_MAX)?;
                    let request = match line {
                        Ok(line) => parse::request(&line),
                        Err(_) => Err(Words::LineTooLong),
                    };
                    if let Some(question) = self.command(request) {
                        return Some(question);
                    }
                }
                Doing::Reading(reading) => {
                    if let Some(question) = self.read(reading) {
                        return Some(question);
                    }
                    if matches!(self.doing, Doing::Reading(_)) {
                        return None;
                    }
                }
                other => {
                    self.doing = other;
                    return None;
                }
            }
        }
        None
    }

    fn command(&mut self, request: Result<Request, Words>) -> Option<Question> {
        let words = match request {
            Ok(Request::Lhlo(name)) => {
                self.lhlo(name);
                return None;
            }
            Ok(Request::Mail(mail)) => self.mail(mail),
            Ok(Request::Rcpt(path)) => match self.rcpt(path) {
                Ok(question) => return Some(question),
                Err(words) => words,
            },
            Ok(Request::Data) => match self.data() {
                Ok(question) => return Some(question),
                Err(words) => words,
            },
            Ok(Request::Rset) => {
                self.transaction = None;
                Words::Ok
            }
            Ok(Request::Noop) => Words::Ok,
            Ok(Request::Vrfy) => Words::CannotVerify,
            Ok(Request::Help) => Words::Help,
            Ok(Request::Quit) => {
                self.close(Words::Bye);
                return None;
            }
            Ok(Request::Hello) => self.bad(Words::UseLhlo),
            Err(words) => self.bad(words),
        };
        if self.n_bad > BAD_COMMANDS_MAX {
            self.close(Words::TooManyErrors);
        } else {
            self.say(words.text());
        }
        None
    }

    fn bad(&mut self, words: Words) -> Words {
        self.n_bad += 1;
        words
    }

    fn lhlo(&mut self, name: String) {
        self.n_bad = 0;
        self.client = Some(name);
        self.transaction = None;
        let lines = format!(
            "250-{}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE {}\r\n\
             250 ENHANCEDSTATUSCODES",
            self.settings.hostname, self.settings.message_bytes_max
        );
        self.say(&lines);
    }

    fn mail(&mut self, mail: Mail) -> Words {
        if self.client.is_none() {
            return self.bad(Words::LhloFirst);
        }
        if self.transaction.is_some() {
            return self.bad(Words::NestedMail);
        }
        if mail.size.is_some_and(|size| size > self.settings.message_bytes_max) {
            return Words::TooLarge;
        }
        self.n_bad = 0;
        self.n_transactions += 1;
        self.transaction = Some(Transaction { mail, recipients: Vec::new() });
        Words::SenderOk
    }

    fn rcpt(&mut self, path: String) -> Result<Question, Words> {
        let Some(transaction) = &self.transaction else { return Err(self.bad(Words::MailFirst)) };
        if transaction.recipients.len() >= RECIPIENTS_MAX {
            return Err(Words::TooManyRecipients);
        }
        if !path.is_ascii() && !transaction.mail.is_utf8 {
            return Err(Words::NotAnnounced);
        }
        let (address, detail) = Address::parse(&path).map_err(|_| Words::BadRecipient)?;
        self.doing = Doing::Resolving { detail, address: path };
        Ok(Question::Recipient(address))
    }

    fn data(&mut self) -> Result<Question, Words> {
        let Some(transaction) = &self.transaction else { return Err(self.bad(Words::MailFirst)) };
        // RFC 2033 4.2: without a valid recipient DATA fails.
        if transaction.recipients.is_empty() {
            return Err(Words::RcptFirst);
        }
        let mut accounts: Vec<_> = transaction.recipients.iter().map(|to| to.account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        self.doing = Doing::Beginning;
        Ok(Question::BeginBody(accounts))
    }

    /// Reads more of the message; leaves the session reading when input is short.
    fn read(&mut self, mut reading: Reading) -> Option<Question> {
        while !self.input.is_empty() && !reading.reader.is_at_end() {
            let room = PIECE_BYTES_MAX - reading.piece.len();
            // A line end may come on top of the room.
            let n = reading.reader.read(self.input.octets(), &mut reading.piece, room - 1);
            self.input.consume(n);
            if reading.reader.has_bare_line_end() && reading.refusal.is_none() {
                reading.refusal = Some(Words::BareLineEnd.text());
            }
            if reading.refusal.is_some() {
                reading.piece.clear();
            } else if reading.piece.len() + 1 >= PIECE_BYTES_MAX {
                break;
            }
        }
        let is_at_end = reading.reader.is_at_end();
        let is_full = reading.piece.len() + 1 >= PIECE_BYTES_MAX;
        if !reading.piece.is_empty() && (is_at_end || is_full) {
            reading.n_bytes += reading.piece.len() as u64;
            if reading.n_bytes > self.settings.message_bytes_max {
                reading.refusal = Some(Words::TooLarge.text());
                reading.piece.clear();
            } else {
                let piece = Bytes::from(std::mem::take(&mut reading.piece));
                self.doing = Doing::Storing(reading);
                return Some(Question::Body(piece));
            }
        }
        if !is_at_end {
            self.doing = Doing::Reading(reading);
            return None;
        }
        match reading.refusal {
            Some(words) => {
                self.doing = Doing::Dropping(words);
                Some(Question::DropBody)
            }
            None => {
                self.doing = Doing::Ending;
                Some(Question::EndBody)
            }
        }
    }

    /// One command for each recipient, in order.
    fn deliveries(&self, draft: &Draft) -> Question {
        let Some(transaction) = &self.transaction else { return Question::DropBody };
        let id = format!("{}.{}", self.settings.session, self.n_transactions);
        let deliver = |to: &Recipient| {
            let trace = Trace {
                sender: &transaction.mail.sender,
                recipient: &to.address,
                client: self.client.as_deref().unwrap_or("unknown"),
                peer: self.settings.peer.as_deref(),
                hostname: &self.settings.hostname,
                protocol: if transaction.mail.is_utf8 { "UTF8LMTP" } else { "LMTP" },
                id: &id,
                time: self.now,
            };
            let (message, inline) = draft.with_prefix(trace.fields());
            let deliver = Deliver { account: to.account, detail: to.detail.clone(), message };
            (Command::Deliver(deliver), inline)
        };
        Question::Commands(transaction.recipients.iter().map(deliver).collect())
    }

    /// The same words for every recipient; RFC 2033 4.2: one reply each.
    fn tell_all(&mut self, words: &str) {
        let n_recipients = self.transaction.take().map_or(0, |all| all.recipients.len());
        for _ in 0..n_recipients {
            self.say(words);
        }
    }

    fn resolved(&mut self, reply: Reply, address: String, detail: Option<String>) {
        let words = match (reply, &mut self.transaction) {
            (Reply::Recipient(Some(account)), Some(transaction)) => {
                transaction.recipients.push(Recipient { account, detail, address });
                Words::RecipientOk.text()
            }
            (Reply::Recipient(None), _) => Words::NoSuchRecipient.text(),
            (reply, _) => refuse::trouble(why(&reply)),
        };
        self.say(words);
    }
}

/// The trouble in a reply; one that does not fit the question counts as such.
fn why(reply: &Reply) -> Trouble {
    if let Reply::Trouble(trouble) = reply { *trouble } else { Trouble::Unavailable }
}

impl Engine for Session {
    fn receive(&mut self, bytes: &[u8]) {
        if !matches!(self.doing, Doing::Closing) {
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
        match (std::mem::replace(&mut self.doing, Doing::Commands), reply) {
            (Doing::Resolving { detail, address }, reply) => self.resolved(reply, address, detail),
            (Doing::Beginning, Reply::Done) => {
                self.say("354 Send it, end with a dot alone");
                self.doing = Doing::Reading(Reading::default());
            }
            (Doing::Beginning, reply) => {
                self.transaction = None;
                self.say(refuse::trouble(why(&reply)));
            }
            (Doing::Storing(mut reading), reply) => {
                if !matches!(reply, Reply::Done) {
                    reading.refusal = Some(refuse::trouble(why(&reply)));
                }
                self.doing = Doing::Reading(reading);
            }
            (Doing::Ending, Reply::Draft(draft)) => {
                let question = self.deliveries(&draft);
                self.doing = Doing::Delivering;
                self.question = Some(question);
            }
            (Doing::Ending, reply) => self.tell_all(refuse::trouble(why(&reply))),
            (Doing::Dropping(words), _) => self.tell_all(words),
            (Doing::Delivering, Reply::Outcomes(outcomes)) => {
                let n_recipients = self.transaction.take().map_or(0, |all| all.recipients.len());
                let missing = Err(Trouble::Unknown);
                for i in 0..n_recipients {
                    self.say(refuse::delivered(outcomes.get(i).unwrap_or(&missing)));
                }
            }
            (Doing::Delivering, reply) => self.tell_all(refuse::trouble(why(&reply))),
            (other, _) => self.doing = other,
        }
    }

    fn notify(&mut self, _: Change) {}

    fn tls_started(&mut self) {
        self.input.clear();
    }

    fn tick(&mut self, now: LogTime) {
        self.now = now;
    }

    fn idle_limit_s(&self) -> u32 {
        IDLE_LIMIT_S
    }

    fn timed_out(&mut self) {
        self.close(Words::Silent);
    }

    fn shut_down(&mut self) {
        self.close(Words::ShuttingDown);
    }

    fn next_step(&mut self) -> Step {
        if let Some(question) = self.question.take() {
            return Step::Ask(question);
        }
        let question = if self.is_asking() { None } else { self.work() };
        if let Some(question) = question {
            return Step::Ask(question);
        }
        if !self.output.is_empty() {
            return Step::Send(Bytes::from(std::mem::take(&mut self.output)));
        }
        let is_over = matches!(self.doing, Doing::Closing) || self.has_ended;
        if is_over && !self.is_asking() { Step::Close } else { Step::Wait }
    }
}
