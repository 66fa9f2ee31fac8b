//! One LMTP connection.

mod deliver;
mod receive;
mod transact;

use bytes::Bytes;
use mailbox::dialogue::{Engine, Look, Question, Reply, Step, Trouble};
use mailbox::lines::Lines;
use mailbox::outcome::Change;
use mailbox::{AccountId, Draft, LogTime};

use crate::parse::{self, Chunk, Mail, Request};
use crate::refuse::{self, Words};
use crate::{BAD_COMMANDS_MAX, IDLE_LIMIT_S, INPUT_BYTES_MAX, LINE_BYTES_MAX, OUTPUT_BYTES_MAX};
use receive::Reading;

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
    /// What BDAT brought so far, between two chunks.
    chunks: Option<Reading>,
}

struct Recipient {
    /// Who gets a copy; several when the address is a group's.
    accounts: Vec<AccountId>,
    detail: Option<String>,
    /// As the client wrote it.
    address: String,
    /// Nobody of the group gets a copy now; told instead of what came of deliveries.
    refusal: Option<&'static str>,
    /// Of a group that was asked first: who gets a copy now, and what is told of the others.
    looks: Option<Vec<Look>>,
}

/// What the session is in the middle of.
enum Doing {
    /// Reading commands.
    Commands,
    /// Asked who this is.
    Resolving { detail: Option<String>, address: String },
    /// DATA: asked for a body to begin.
    Beginning,
    /// BDAT: asked for a body to begin, whose first chunk this is.
    BeginningChunks(Chunk),
    /// Reading over so many octets of a chunk that nobody gets; then say this.
    Skipping { left: u64, words: Words },
    /// Reading the message.
    Reading(Reading),
    /// Asked the store to take the last octets read.
    Storing(Reading),
    /// Asked for the draft.
    Ending,
    /// Asked for the body to be dropped; then every recipient gets these words.
    Dropping(&'static str),
    /// Asked for the body to be dropped, since the client began anew.
    Discarding,
    /// Asked whether all of each group would take it.
    Looking(Box<Draft>),
    /// Asked for the deliveries.
    Delivering,
    /// Asked for the body to be dropped, since nobody takes it now; then each recipient is told why.
    PuttingOff,
    /// Saying goodbye.
    Closing,
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
        !matches!(
            self.doing,
            Doing::Commands | Doing::Reading(_) | Doing::Skipping { .. } | Doing::Closing
        )
    }

    /// The next question, if there is one to ask before more input or output.
    fn work(&mut self) -> Option<Question> {
        while self.output.len() < OUTPUT_BYTES_MAX {
            match std::mem::replace(&mut self.doing, Doing::Commands) {
                Doing::Commands => {
                    let line = self.input.next_line(LINE_BYTES_MAX)?;
                    let request = match line {
                        Ok(line) => parse::request(&line),
                        Err(too_long) => Err(parse::too_long(&too_long.beginning)),
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
                Doing::Skipping { left, words } => {
                    if !self.skip(left, words) {
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
                return self.begin_anew();
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
            Ok(Request::Bdat(chunk)) => return self.bdat(chunk),
            Ok(Request::Rset) => {
                self.say(Words::Ok.text());
                return self.begin_anew();
            }
            Ok(Request::Noop) => Words::Ok,
            Ok(Request::Vrfy) => Words::CannotVerify,
            Ok(Request::Help) => Words::Help,
            Ok(Request::Quit) => {
                self.close(Words::Bye);
                return None;
            }
            // Why: what follows may be the chunk, and must not be read as commands.
            Err(Words::BadChunk) => {
                self.close(Words::BadChunk);
                return None;
            }
            Ok(Request::Hello) => self.bad(Words::UseLhlo),
            Err(words) => self.bad(words),
        };
        self.tell(words);
        None
    }

    /// Says it, or goodbye when there were too many errors.
    fn tell(&mut self, words: Words) {
        if self.n_bad > BAD_COMMANDS_MAX {
            self.close(Words::TooManyErrors);
        } else {
            self.say(words.text());
        }
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
                self.doing = Doing::Reading(Reading::data(self.trace_in_front()));
            }
            (Doing::Beginning, reply) => {
                self.transaction = None;
                self.say(refuse::trouble(why(&reply)));
            }
            (Doing::BeginningChunks(chunk), reply) => self.chunks_begun(chunk, &reply),
            (Doing::Storing(mut reading), reply) => {
                if !matches!(reply, Reply::Done) {
                    reading.refusal = Some(refuse::trouble(why(&reply)));
                }
                self.doing = Doing::Reading(reading);
            }
            (Doing::Ending, Reply::Draft(draft)) => self.look_or_deliver(draft),
            (Doing::Ending, reply) => self.tell_all(refuse::trouble(why(&reply))),
            (Doing::Dropping(words), _) => self.tell_all(words),
            (Doing::Looking(draft), reply) => self.looked(&draft, reply),
            (Doing::Delivering, Reply::Outcomes(outcomes)) => self.delivered(&outcomes),
            (Doing::Delivering, reply) => self.tell_all(refuse::trouble(why(&reply))),
            (Doing::PuttingOff, _) => self.delivered(&[]),
            (Doing::Discarding, _) => {}
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
        if self.question.is_none() && !self.is_asking() {
            self.question = self.work();
        }
        // Why first: an answer may take seconds, and whose message was delivered before is to hear of it.
        if !self.output.is_empty() {
            return Step::Send(Bytes::from(std::mem::take(&mut self.output)));
        }
        if let Some(question) = self.question.take() {
            return Step::Ask(question);
        }
        let is_over = matches!(self.doing, Doing::Closing) || self.has_ended;
        if is_over && !self.is_asking() { Step::Close } else { Step::Wait }
    }
}
