//! APPEND (RFC 9051 6.3.12, RFC 4315 3): the message passes through in slices.

use mailbox::chunk::{Draft, StoredChunk};
use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::{Answer, Command, MailboxId, Outcome, Refusal, command};

use super::copy::{find, found};
use crate::context::Context;
use crate::input::{Gathered, Input, Literal};
use crate::limits::{LINE_BYTES_MAX, SLICE_BYTES_MAX};
use crate::parse::AppendHead;
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

enum Step {
    Begin,
    Find,
    BeginBody,
    /// Octets still to come.
    Octets,
    Slice,
    EndBody,
    /// The line behind the message.
    Tail,
    /// The message is given up; then this is told.
    Drop(Ending),
    Commit,
}

/// Takes in a message.
pub(crate) struct Append {
    head: AppendHead,
    literal: Literal,
    left: u64,
    target: Option<MailboxId>,
    step: Step,
    draft: Option<Box<Draft>>,
}

impl Append {
    /// APPEND up to its first message.
    pub(crate) fn new(head: AppendHead, literal: Literal) -> Self {
        let left = literal.len;
        Self { head, literal, left, target: None, step: Step::Begin, draft: None }
    }

    /// Ends it before the message was asked for, or while it comes.
    fn refuse(&mut self, ending: Ending) -> Next {
        let is_coming = !matches!(self.step, Step::Begin | Step::Find | Step::BeginBody);
        let skips = match self.step {
            // The client waits for our word and sends nothing.
            Step::Begin | Step::Find | Step::BeginBody => !self.literal.is_synchronising,
            Step::Commit => false,
            _ => true,
        };
        let ending = if skips { ending.skipping(self.left) } else { ending };
        if is_coming && !matches!(self.step, Step::Drop(_) | Step::Commit) {
            self.step = Step::Drop(ending);
            return Next::Ask(Question::DropBody);
        }
        Next::Done(ending)
    }

    fn found(&mut self, cx: &mut Context, target: MailboxId) -> Next {
        self.target = Some(target);
        if self.left > cx.config.message_bytes_max {
            return self.refuse(Ending::no("the message is too large").code("TOOBIG"));
        }
        if self.left == 0 {
            return self.refuse(Ending::no("the message is empty"));
        }
        self.step = Step::BeginBody;
        Next::Ask(Question::BeginBody(vec![cx.account()]))
    }

    fn commit(&mut self, cx: &Context) -> Next {
        let (Some(draft), Some(mailbox)) = (self.draft.take(), self.target) else {
            return misplaced();
        };
        self.step = Step::Commit;
        let message = command::AppendMessage {
            message: draft.message,
            flags: self.head.message.flags.clone(),
            internal_date: self.head.message.internal_date,
        };
        let append = command::Append { account: cx.account(), mailbox, messages: vec![message] };
        let inline: Vec<StoredChunk> = draft.inline;
        Next::Ask(Question::Command(Box::new(Command::Append(append)), inline))
    }
}

impl Work for Append {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match (&self.step, reply) {
            (Step::Begin, None) => {
                self.step = Step::Find;
                find(cx, &self.head.mailbox)
            }
            (Step::Find, Some(Reply::Answer(answer @ Answer::Mailbox(_)))) => match found(answer) {
                Ok(target) => self.found(cx, target),
                Err(ending) => self.refuse(ending),
            },
            (Step::BeginBody, Some(Reply::Done)) => {
                if self.literal.is_synchronising {
                    cx.out.text("+ go on\r\n");
                }
                self.step = Step::Octets;
                Next::Input
            }
            (Step::Slice, Some(Reply::Done)) if self.left > 0 => {
                self.step = Step::Octets;
                Next::Input
            }
            (Step::Slice, Some(Reply::Done)) => {
                self.step = Step::EndBody;
                Next::Ask(Question::EndBody)
            }
            (Step::EndBody, Some(Reply::Draft(draft))) => {
                self.draft = Some(draft);
                self.step = Step::Tail;
                Next::Input
            }
            (Step::Drop(ending), Some(Reply::Done)) => Next::Done(ending.clone()),
            // Durability: the outcome comes from a command committed by a majority.
            (Step::Commit, Some(Reply::Outcome(Outcome::Appended(appended)))) => {
                cx.note_arrivals(appended.mailbox);
                let code = format!("APPENDUID {} {}", appended.uid_validity, appended.uids);
                Next::Done(Ending::ok("appended").code(code))
            }
            _ => misplaced(),
        }
    }

    fn feed(&mut self, cx: &mut Context, input: &mut Input) -> Next {
        match self.step {
            Step::Octets => {
                let max = SLICE_BYTES_MAX.min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let slice = input.octets(max);
                if slice.is_empty() {
                    return Next::Input;
                }
                self.left -= slice.len() as u64;
                // RFC 9051 9: CHAR8 has no NUL; it is for literal8 (RFC 3516).
                if !self.literal.is_binary && slice.contains(&0) {
                    return self.refuse(Ending::no("NUL in the message"));
                }
                self.step = Step::Slice;
                Next::Ask(Question::Body(slice))
            }
            Step::Tail => match input.gather(LINE_BYTES_MAX) {
                Gathered::Nothing => Next::Input,
                Gathered::Line if input.command().is_empty() => {
                    input.take_command();
                    self.commit(cx)
                }
                Gathered::Line => {
                    input.take_command();
                    self.step = Step::Drop(Ending::bad("line end expected behind the message"));
                    Next::Ask(Question::DropBody)
                }
                Gathered::Literal(literal) => {
                    input.take_command();
                    let ending = Ending::bad("line end expected behind the message");
                    let skip = (!literal.is_synchronising).then_some(literal.len);
                    self.step = Step::Drop(Ending { skip, ..ending });
                    Next::Ask(Question::DropBody)
                }
                Gathered::TooLong | Gathered::Lost | Gathered::Skipped => {
                    self.left = 0;
                    self.refuse(Ending::bad("line end expected behind the message"))
                }
            },
            _ => misplaced(),
        }
    }

    fn trouble(&mut self, _: &mut Context, trouble: Trouble) -> Next {
        match &self.step {
            Step::Drop(ending) => Next::Done(ending.clone()),
            _ => self.refuse(refuse::trouble(trouble)),
        }
    }

    fn refused(&mut self, _: &mut Context, refusal: Refusal) -> Next {
        match &self.step {
            Step::Drop(ending) => Next::Done(ending.clone()),
            _ => self.refuse(refuse::no_target(&refusal)),
        }
    }
}
