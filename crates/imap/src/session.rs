//! The session: takes in input, replies and news, works off one command after the other, and says
//! what it wants next.

use std::fmt::Write as _;

use mailbox::dialogue::{Engine, Question, Reply, Step};
use mailbox::{Answer, Change, LogTime, Outcome};

use crate::command::{self, Begun};
use crate::context::{Config, Context};
use crate::deflate::Layer;
use crate::input::{Gathered, Input, Literal};
use crate::limits::{
    BAD_COMMANDS_MAX, COMMANDS_PER_TURN_MAX, EARLY_LINE_BYTES_MAX, EARLY_LITERAL_BYTES_MAX, IDLE_S,
    LINE_BYTES_MAX, LITERAL_BYTES_MAX, LITERAL_S, LOGIN_S, PENDING_BYTES_MAX, REFUSED_LOGINS_MAX,
    SKIPPED_BESIDE_BYTES_MAX, SKIPPED_BYTES_MAX,
};
use crate::news::{Ahead, Early, News, Tell};
use crate::parse;
use crate::refuse;
use crate::work::{Ending, Next, Status, Then, Work};

/// One IMAP session.
pub struct Session {
    cx: Context,
    input: Input,
    has_ended: bool,
    is_going_down: bool,
    phase: Phase,
    /// The reply to the open question.
    reply: Option<Reply>,
    /// News that were asked for together with a command, and those that came.
    ahead: Option<Ahead>,
    early: Option<Early>,
    /// Octets of literals accepted for the command being gathered.
    literal_bytes: u64,
    /// Since a command was done, once logged in.
    n_bad: u32,
    n_refused_logins: u32,
    /// Commands, empty lines among them, since others had their turn.
    n_this_turn: u32,
    /// Once the client asked for it: compression of both directions.
    layer: Option<Box<Layer>>,
    /// What follows compressed octets that are being sent.
    held: Option<Step>,
    /// While something is skipped: octets taken apart up to which that is done.
    skip_until: u64,
}

/// What the session is busy with.
enum Phase {
    /// Gathering a command.
    Gather,
    /// Working off a command.
    Work(Current, Wait),
    /// Telling what is new, before a command's end is told or its next slice begins.
    News(Current, Behind, Box<News>, Wait),
    /// Skipping what a refused literal still sends; then the end is told.
    Skip(Option<String>, Ending),
    /// Sent, then the handshake.
    StartTls,
    /// Until the handshake is done.
    Handshake,
    /// Sent, then both directions are compressed.
    Compress,
    /// Sent, then closed.
    Close,
}

/// A command in progress.
struct Current {
    tag: String,
    tell: Tell,
    work: Box<dyn Work>,
}

/// What comes behind news.
enum Behind {
    End(Ending),
    Slice(Box<Question>),
}

/// What a piece of work waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Nothing,
    Reply,
    Input,
}

impl Session {
    /// A connection that just began.
    pub fn new(config: Config) -> Self {
        let mut cx = Context::new(config);
        let (capabilities, hostname) = (cx.capabilities(), cx.config.hostname.clone());
        let _ = write!(cx.out, "* OK [CAPABILITY {capabilities}] {hostname} ready\r\n");
        Self {
            cx,
            input: Input::new(),
            has_ended: false,
            is_going_down: false,
            phase: Phase::Gather,
            reply: None,
            ahead: None,
            early: None,
            literal_bytes: 0,
            n_bad: 0,
            n_refused_logins: 0,
            n_this_turn: 0,
            layer: None,
            held: None,
            skip_until: 0,
        }
    }

    fn is_logged_in(&self) -> bool {
        self.cx.login.is_some()
    }

    fn line_bytes_max(&self) -> usize {
        if self.is_logged_in() { LINE_BYTES_MAX } else { EARLY_LINE_BYTES_MAX }
    }

    fn bye(&mut self, text: &str) {
        let _ = write!(self.cx.out, "* BYE {text}\r\n");
        self.phase = Phase::Close;
    }

    /// One step; `None` when it was taken inside.
    fn advance(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.phase, Phase::Gather) {
            Phase::Gather => self.gather(),
            Phase::Work(current, wait) => self.work(current, wait),
            Phase::News(current, behind, news, wait) => self.news(current, behind, news, wait),
            Phase::Skip(tag, ending) => match self.input.gather(self.line_bytes_max()) {
                Gathered::Skipped => {
                    self.tell_end(tag.as_deref(), &ending);
                    None
                }
                _ if self.skips_too_much() => {
                    self.bye("that is too much to be thrown away");
                    None
                }
                _ => {
                    self.phase = Phase::Skip(tag, ending);
                    self.wait_for_input()
                }
            },
            Phase::StartTls => {
                self.phase = Phase::StartTls;
                if let Some(bytes) = self.cx.out.pop() {
                    return Some(Step::Send(bytes));
                }
                self.phase = Phase::Handshake;
                Some(Step::StartTls)
            }
            Phase::Handshake => {
                self.phase = Phase::Handshake;
                Some(Step::Wait)
            }
            Phase::Compress => {
                self.phase = Phase::Compress;
                if let Some(bytes) = self.cx.out.pop() {
                    return Some(Step::Send(bytes));
                }
                self.layer = Some(Box::new(Layer::new(self.input.take_pending())));
                self.phase = Phase::Gather;
                None
            }
            Phase::Close => {
                self.phase = Phase::Close;
                Some(self.cx.out.pop().map_or(Step::Close, Step::Send))
            }
        }
    }

    /// Sends what there is; then waits, unless nothing will come any more.
    fn wait_for_input(&mut self) -> Option<Step> {
        if let Some(bytes) = self.cx.out.pop() {
            return Some(Step::Send(bytes));
        }
        if self.take_apart() {
            // Why not at once: what was sent may stand for a thousand times as much.
            let has_more = self.layer.as_ref().is_some_and(|layer| layer.has_more());
            return has_more.then_some(Step::Yield);
        }
        if self.has_ended {
            self.phase = Phase::Close;
            return None;
        }
        if self.is_going_down {
            self.bye("the server goes down");
            return None;
        }
        Some(Step::Wait)
    }

    /// Takes apart what the client compressed, as far as there is room; false if there is nothing.
    fn take_apart(&mut self) -> bool {
        let room = PENDING_BYTES_MAX.saturating_sub(self.input.n_pending());
        let Some(layer) = &mut self.layer else { return false };
        if !layer.has_more() || room == 0 {
            return false;
        }
        let input = &mut self.input;
        if layer.inflate(room, |octets| input.receive(octets)).is_err() {
            self.bye("what you sent is not what COMPRESS makes");
        }
        true
    }

    /// Limit: what a client that compresses has us throw away.
    fn skips_too_much(&self) -> bool {
        self.layer.as_ref().is_some_and(|layer| layer.n_inflated() > self.skip_until)
    }

    fn begin_skip(&mut self, n_octets: u64) {
        let n_inflated = self.layer.as_ref().map_or(0, |layer| layer.n_inflated());
        self.skip_until = n_inflated + n_octets + SKIPPED_BESIDE_BYTES_MAX;
        self.input.skip(n_octets);
    }

    fn gather(&mut self) -> Option<Step> {
        if self.is_going_down {
            self.bye("the server goes down");
            return None;
        }
        // Why also where nothing is asked: what a client sent at once is not to keep others waiting.
        if self.n_this_turn >= COMMANDS_PER_TURN_MAX {
            self.n_this_turn = 0;
            return Some(Step::Yield);
        }
        match self.input.gather(self.line_bytes_max()) {
            Gathered::Nothing | Gathered::Skipped => return self.wait_for_input(),
            Gathered::Line => {
                self.literal_bytes = 0;
                let command = self.input.take_command();
                self.begin(&command);
            }
            Gathered::Literal(literal) => self.literal(literal),
            Gathered::TooLong => {
                self.literal_bytes = 0;
                let tag = parse::tag(self.input.command()).map(str::to_owned);
                self.begin_skip(0);
                self.phase = Phase::Skip(tag, Ending::bad("line too long").code("TOOBIG"));
            }
            Gathered::Lost => {
                let ending = Ending::bad("literal size out of range");
                let tag = parse::tag(self.input.command()).map(str::to_owned);
                self.tell_end(tag.as_deref(), &ending);
                self.bye(refuse::LOST);
            }
        }
        self.n_this_turn += 1;
        None
    }

    /// A command announced a literal.
    fn literal(&mut self, literal: Literal) {
        let text = &self.input.command()[..literal.start];
        let tag = parse::tag(text).map(str::to_owned);
        if let (true, Some(tag)) = (self.is_logged_in(), &tag) {
            let rest = text.get(tag.len() + 1..).unwrap_or_default();
            match parse::append_head(rest, &self.cx.enabled, self.cx.config.separator) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    self.input.take_command();
                    self.literal_bytes = 0;
                    let work = command::append::Append::new(head, literal);
                    let current =
                        Current { tag: tag.clone(), tell: Tell::Heard, work: Box::new(work) };
                    self.phase = Phase::Work(current, Wait::Nothing);
                    return;
                }
                Err(fault) => {
                    let tag = Some(tag.clone());
                    return self.refuse_literal(tag, literal, refuse::fault(fault));
                }
            }
        }
        let max = if self.is_logged_in() { LITERAL_BYTES_MAX } else { EARLY_LITERAL_BYTES_MAX };
        if tag.is_none() {
            return self.refuse_literal(None, literal, Ending::bad("tag expected"));
        }
        if self.literal_bytes.saturating_add(literal.len) > max {
            let ending = Ending::no("literal too large").code("TOOBIG");
            return self.refuse_literal(tag, literal, ending);
        }
        self.literal_bytes += literal.len;
        if literal.is_synchronising {
            self.cx.out.text("+ go on\r\n");
        }
        self.input.accept(literal);
    }

    fn refuse_literal(&mut self, tag: Option<String>, literal: Literal, ending: Ending) {
        self.literal_bytes = 0;
        self.input.take_command();
        let skip = (!literal.is_synchronising).then_some(literal.len);
        self.finish(tag, Ending { skip, ..ending });
    }

    /// A whole command is there.
    fn begin(&mut self, command: &[u8]) {
        if command.is_empty() {
            return;
        }
        let Some(tag) = parse::tag(command).map(str::to_owned) else {
            return self.tell_end(None, &Ending::bad("tag expected"));
        };
        if command.contains(&0) {
            return self.tell_end(Some(&tag), &Ending::bad("NUL is not allowed"));
        }
        let text = command.get(tag.len() + 1..).unwrap_or_default();
        let parsed = parse::command(text, &self.cx.enabled, self.cx.config.separator);
        match parsed.and_then(|command| command::begin(&mut self.cx, command)) {
            Ok(Begun { tell, work }) => {
                self.cx.tag.clone_from(&tag);
                self.phase = Phase::Work(Current { tag, tell, work }, Wait::Nothing);
            }
            Err(fault) => self.tell_end(Some(&tag), &refuse::fault(fault)),
        }
    }

    fn work(&mut self, mut current: Current, wait: Wait) -> Option<Step> {
        let next = match wait {
            Wait::Input => current.work.feed(&mut self.cx, &mut self.input),
            Wait::Nothing => current.work.go_on(&mut self.cx, None),
            Wait::Reply => match self.reply.take() {
                Some(reply) => {
                    let reply = self.put_by(reply);
                    resume(current.work.as_mut(), &mut self.cx, reply)
                }
                None => {
                    self.phase = Phase::Work(current, wait);
                    return Some(Step::Wait);
                }
            },
        };
        match next {
            Next::Ask(question) => return self.ask(current, question),
            Next::More => {
                self.phase = Phase::Work(current, Wait::Nothing);
                return self.cx.out.pop().map(Step::Send);
            }
            Next::Yield => {
                self.phase = Phase::Work(current, Wait::Nothing);
                return Some(Step::Yield);
            }
            Next::Input => {
                self.phase = Phase::Work(current, Wait::Input);
                // Input may have come already.
                return if wait == Wait::Input { self.wait_for_input() } else { None };
            }
            Next::Done(ending) => match News::new(&self.cx, current.tell, self.early.take()) {
                Some(news) if ending.skip.is_none() => {
                    let behind = Behind::End(ending);
                    self.phase = Phase::News(current, behind, Box::new(news), Wait::Nothing);
                }
                _ => self.finish(Some(current.tag), ending),
            },
            Next::Bye(words) => self.bye(words),
            Next::Abort => self.phase = Phase::Close,
        }
        None
    }

    /// Asks for a command in progress, after the news that came with its slice before were told.
    ///
    /// Why not put off until its end: whoever does not know what lies between what was told and its own
    /// changes would ask with each slice for all that the slices before it did. Those that cannot be told now
    /// are dropped, and count as not told: what is asked later has them too.
    fn ask(&mut self, current: Current, question: Question) -> Option<Step> {
        let early = self.early.take().filter(|_| current.work.bears_news());
        if let (Question::Command(..), Some(early)) = (&question, early)
            && let Some(news) = News::new(&self.cx, current.tell, Some(early))
        {
            let behind = Behind::Slice(Box::new(question));
            self.phase = Phase::News(current, behind, Box::new(news), Wait::Nothing);
            return None;
        }
        // Why not where none are borne: the store would count them as told, to a session that drops them.
        let tell = if current.work.bears_news() { current.tell } else { Tell::Nothing };
        let question = self.with_news(question, tell);
        self.phase = Phase::Work(current, Wait::Reply);
        Some(Step::Ask(question))
    }

    /// News that wait to be told are asked for together with a command, so that they cost no call of
    /// their own.
    fn with_news(&mut self, question: Question, tell: Tell) -> Question {
        (self.ahead, self.early) = (None, None);
        let Question::Command(command, inline) = question else { return question };
        let Some((ahead, query)) = News::ahead(&self.cx, tell) else {
            return Question::Command(command, inline);
        };
        self.ahead = Some(ahead);
        Question::CommandAnd(command, inline, Box::new(query))
    }

    /// Puts by the news that came with a reply.
    fn put_by(&mut self, reply: Reply) -> Reply {
        let Reply::OutcomeAnd(outcome, answer) = reply else { return reply };
        // Why not a refusal: asked by itself it ends the session where it should.
        let answer = answer.filter(|answer| !matches!(answer, Answer::Refused(_)));
        self.early = self.ahead.take().zip(answer).map(|(ahead, answer)| Early { ahead, answer });
        Reply::Outcome(outcome)
    }

    fn news(
        &mut self,
        mut current: Current,
        behind: Behind,
        mut news: Box<News>,
        wait: Wait,
    ) -> Option<Step> {
        let next = match wait {
            Wait::Reply => match self.reply.take() {
                Some(reply) => resume(news.as_mut(), &mut self.cx, reply),
                None => {
                    self.phase = Phase::News(current, behind, news, wait);
                    return Some(Step::Wait);
                }
            },
            _ => news.go_on(&mut self.cx, None),
        };
        match (next, behind) {
            (Next::Ask(question), behind) => {
                self.phase = Phase::News(current, behind, news, Wait::Reply);
                return Some(Step::Ask(question));
            }
            (Next::More, behind) => {
                self.phase = Phase::News(current, behind, news, Wait::Nothing);
                return self.cx.out.pop().map(Step::Send);
            }
            // Why also when it is gone: the slice is refused, and the end is told before the farewell.
            (_, Behind::Slice(question)) => {
                current.work.was_told(news.told());
                return self.ask(current, *question);
            }
            (Next::Bye(words), Behind::End(ending)) => {
                self.finish(Some(current.tag), ending);
                self.bye(words);
            }
            (_, Behind::End(ending)) => self.finish(Some(current.tag), ending),
        }
        None
    }

    /// A command is over, but its literal may still be on its way.
    fn finish(&mut self, tag: Option<String>, ending: Ending) {
        let skipped_max = match self.layer {
            Some(_) => SKIPPED_BYTES_MAX.min(self.cx.config.message_bytes_max),
            None => SKIPPED_BYTES_MAX,
        };
        match ending.skip {
            None => self.tell_end(tag.as_deref(), &ending),
            Some(n_octets) if n_octets <= skipped_max => {
                self.begin_skip(n_octets);
                self.phase = Phase::Skip(tag, ending);
            }
            Some(_) => {
                self.tell_end(tag.as_deref(), &ending);
                self.bye("that literal is too long to wait for its end");
            }
        }
    }

    /// The tagged response, and what follows it.
    fn tell_end(&mut self, tag: Option<&str>, ending: &Ending) {
        let status = match ending.status {
            Status::Ok => "OK",
            Status::No => "NO",
            Status::Bad => "BAD",
        };
        let (out, mut selected, enabled) = self.cx.parts();
        if let Some(modseq) = selected.as_mut().and_then(|selected| selected.take_lag(enabled)) {
            let _ = write!(out, "* OK [HIGHESTMODSEQ {modseq}] so far all is told\r\n");
        }
        let _ = write!(out, "{} {status} ", tag.unwrap_or("*"));
        if let Some(code) = &ending.code {
            let _ = write!(out, "[{code}] ");
        } else if let (true, true, Some(selected)) =
            (ending.tells_modseq, enabled.qresync, selected)
        {
            let _ = write!(out, "[HIGHESTMODSEQ {}] ", selected.told_up_to());
        }
        let _ = write!(out, "{}\r\n", ending.text);
        self.phase = Phase::Gather;
        match ending.then {
            Then::Next => {}
            Then::StartTls => self.phase = Phase::StartTls,
            Then::Compress => self.phase = Phase::Compress,
            Then::Close => self.phase = Phase::Close,
            Then::CountLogin => {
                self.n_refused_logins += 1;
                if self.n_refused_logins >= REFUSED_LOGINS_MAX {
                    self.bye("too many refused logins");
                }
            }
        }
        match ending.status {
            // Why only then: before login nothing is long.
            Status::Ok if self.is_logged_in() => self.n_bad = 0,
            Status::Bad => {
                self.n_bad += 1;
                if self.n_bad >= BAD_COMMANDS_MAX {
                    self.bye("too many bad commands");
                }
            }
            _ => {}
        }
    }
}

/// Hands a reply on; refusals and troubles have doors of their own.
fn resume(work: &mut dyn Work, cx: &mut Context, reply: Reply) -> Next {
    match reply {
        Reply::Trouble(trouble) => work.trouble(cx, trouble),
        Reply::Answer(Answer::Refused(refusal)) | Reply::Outcome(Outcome::Refused(refusal)) => {
            work.refused(cx, refusal)
        }
        reply => work.go_on(cx, Some(reply)),
    }
}

impl Session {
    /// What to do now, but for compression.
    fn plain_step(&mut self) -> Step {
        loop {
            if self.cx.out.is_full()
                && let Some(bytes) = self.cx.out.pop()
            {
                return Step::Send(bytes);
            }
            if let Some(step) = self.advance() {
                return step;
            }
        }
    }
}

impl Engine for Session {
    fn receive(&mut self, bytes: &[u8]) {
        if !matches!(self.phase, Phase::Close | Phase::StartTls | Phase::Handshake) {
            match &mut self.layer {
                Some(layer) => layer.receive(bytes),
                None => self.input.receive(bytes),
            }
        }
    }

    fn end_of_input(&mut self) {
        self.has_ended = true;
    }

    fn wants_input(&self) -> bool {
        let has_room = self.layer.as_ref().is_none_or(|layer| layer.wants_input());
        !self.has_ended && has_room && self.input.n_pending() < PENDING_BYTES_MAX
    }

    fn reply(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    fn notify(&mut self, change: Change) {
        if let Some(selected) = &mut self.cx.selected
            && selected.of == change.of
        {
            selected.notified(change.highest_modseq);
        }
    }

    fn tls_started(&mut self) {
        self.input.clear();
        self.cx.tls = true;
        self.phase = Phase::Gather;
    }

    fn tick(&mut self, now: LogTime) {
        self.cx.now = now;
    }

    fn idle_limit_s(&self) -> u32 {
        match &self.phase {
            _ if !self.is_logged_in() => LOGIN_S,
            Phase::Work(current, Wait::Input) if current.work.is_amid_message() => LITERAL_S,
            Phase::Skip(..) => LITERAL_S,
            _ => IDLE_S,
        }
    }

    fn timed_out(&mut self) {
        match self.phase {
            // A client is mid-response or mid-literal: nothing it would understand can be said.
            Phase::Work(_, Wait::Reply | Wait::Nothing) | Phase::News(..) => {
                self.cx.out.clear();
                self.phase = Phase::Close;
            }
            _ => self.bye("silent for too long"),
        }
    }

    fn shut_down(&mut self) {
        self.is_going_down = true;
    }

    fn next_step(&mut self) -> Step {
        if let Some(step) = self.held.take() {
            return step;
        }
        loop {
            let step = self.plain_step();
            let is_resting = matches!(self.phase, Phase::Gather | Phase::Work(_, Wait::Input));
            let Some(layer) = &mut self.layer else { return step };
            let ready = match &step {
                Step::Send(bytes) => {
                    layer.deflate(bytes);
                    if !layer.is_full() {
                        continue;
                    }
                    return layer.take_ready().map_or(Step::Wait, Step::Send);
                }
                Step::Yield => return step,
                _ => layer.flush(),
            };
            if is_resting && matches!(step, Step::Wait) {
                layer.rest();
            }
            let Some(ready) = ready else { return step };
            self.held = Some(step);
            return Step::Send(ready);
        }
    }
}
