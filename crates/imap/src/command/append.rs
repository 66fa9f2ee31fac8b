//! APPEND (RFC 9051 6.3.12, RFC 4315 3), also of several messages, all or none (RFC 3502), and
//! REPLACE (RFC 8508): each message passes through in slices.

use mailbox::chunk::{Draft, INLINE_BYTES_MAX, StoredChunk};
use mailbox::command::Replaced;
use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::outcome::Appended;
use mailbox::{Answer, Command, MailboxId, Outcome, Refusal, UidSet, command};

use super::copy::{find, found};
use super::list;
use crate::context::Context;
use crate::input::{Gathered, Input, Literal};
use crate::limits::{APPEND_MESSAGES_MAX, LINE_BYTES_MAX, SLICE_BYTES_MAX, UNASKED_BYTES_MAX};
use crate::number_set::NumberSet;
use crate::parse::{self, AppendHead, Given, MessageHead};
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
    /// Chunks of messages so far are sent ahead of the command.
    SendAhead,
    /// The line behind the message.
    Tail,
    /// The messages are given up; then this is told.
    Drop(Ending),
    Commit,
}

/// Takes in messages.
pub(crate) struct Append {
    mailbox: Given,
    replaces: Option<(bool, NumberSet)>,
    /// What `replaces` named.
    replaced: Option<Replaced>,
    step: Step,
    /// The message on its way.
    head: MessageHead,
    literal: Literal,
    left: u64,
    /// Messages taken in, and chunks that must travel beside the command.
    messages: Vec<command::AppendMessage>,
    inline: Vec<StoredChunk>,
    /// Kept when the chunks before it are sent ahead.
    further: Option<Box<Draft>>,
    /// The message before stands in `UTF8 (...)`.
    is_in_utf8: bool,
}

impl Append {
    /// APPEND up to its first message.
    pub(crate) fn new(head: AppendHead, literal: Literal) -> Self {
        Self {
            mailbox: head.mailbox,
            replaces: head.replaces,
            replaced: None,
            step: Step::Begin,
            head: head.message,
            left: literal.len,
            literal,
            messages: Vec::new(),
            inline: Vec::new(),
            further: None,
            is_in_utf8: false,
        }
    }

    /// Ends it: before a message was asked for, or while it comes, or behind it.
    fn refuse(&mut self, ending: Ending) -> Next {
        let ending = match &self.step {
            // What was to be told before it was given up.
            Step::Drop(ending) => return Next::Done(ending.clone()),
            // The client waits for our word and sends nothing.
            Step::Begin | Step::Find | Step::BeginBody if self.literal.is_synchronising => ending,
            Step::Begin | Step::Find | Step::BeginBody => ending.skipping(self.left),
            Step::Octets | Step::Slice | Step::EndBody => ending.skipping(self.left),
            Step::SendAhead => ending.skipping(0),
            Step::Tail | Step::Commit => ending,
        };
        self.give_up(ending)
    }

    /// Tells how it ended, once nothing of it is kept any more.
    fn give_up(&mut self, ending: Ending) -> Next {
        let is_begun = match self.step {
            Step::Begin | Step::Find | Step::BeginBody => !self.messages.is_empty(),
            Step::Octets | Step::Slice | Step::EndBody | Step::SendAhead | Step::Tail => true,
            Step::Drop(_) | Step::Commit => false,
        };
        if !is_begun {
            return Next::Done(ending);
        }
        self.step = Step::Drop(ending);
        Next::Ask(Question::DropBody)
    }

    /// RFC 8508 3: which message is to be replaced.
    fn find_replaced(&mut self, cx: &mut Context) -> Result<(), Ending> {
        let Some((uid, set)) = &self.replaces else { return Ok(()) };
        let Some(selected) = &cx.selected else {
            return Err(Ending::bad("no mailbox is selected"));
        };
        if selected.read_only {
            let text = "the mailbox was opened read-only";
            return Err(Ending::no(text).code("READ-ONLY"));
        }
        let uids = selected.resolve(*uid, set).map_err(Ending::bad)?;
        let Some(uid) = uids.iter().next() else { return Err(Ending::no("no such message")) };
        self.replaced = Some(Replaced { mailbox: selected.of.mailbox, uid });
        Ok(())
    }

    /// The new message is there and the old one gone.
    fn replaced(cx: &mut Context, replaced: Replaced, appended: &Appended) -> Next {
        let (out, selected, enabled) = cx.parts();
        let Appended { uid_validity, uids, .. } = appended;
        // RFC 8508 3.2: APPENDUID is told before the expunge.
        out.text(&format!("* OK [APPENDUID {uid_validity} {uids}] replacement\r\n"));
        if let Some(selected) = selected {
            selected.expunge(out, enabled, &UidSet::range(replaced.uid, replaced.uid));
            if let Some(modseq) = appended.replaced_modseq {
                selected.note_taken(Some(appended.mailbox), modseq);
            }
        }
        Next::Done(Ending::ok("replaced").telling_modseq())
    }

    /// The next message may come, if it may.
    fn begin_body(&mut self, cx: &Context) -> Next {
        if self.left > cx.config.message_bytes_max {
            return self.refuse(Ending::no("the message is too large").code("TOOBIG"));
        }
        // RFC 3502 6.3.11: a message without octets takes all back.
        if self.left == 0 {
            return self.refuse(Ending::no("the message is empty"));
        }
        if self.messages.len() == APPEND_MESSAGES_MAX {
            return self.refuse(Ending::no("too many messages at once").code("LIMIT"));
        }
        self.step = Step::BeginBody;
        Next::Ask(match self.replaced {
            Some(replaced) => Question::BeginReplacement(cx.account(), replaced),
            None => Question::BeginBody(vec![cx.account()]),
        })
    }

    /// A message is in. What travels beside the command must not grow with their number.
    fn taken_in(&mut self, cx: &mut Context, draft: Box<Draft>) -> Next {
        let n_bytes = |chunks: &[StoredChunk]| -> usize {
            chunks.iter().map(|chunk| chunk.bytes.len()).sum()
        };
        let is_too_much = n_bytes(&self.inline) + n_bytes(&draft.inline) > INLINE_BYTES_MAX;
        if is_too_much && !self.inline.is_empty() {
            self.further = Some(draft);
            self.step = Step::SendAhead;
            let inline = std::mem::take(&mut self.inline);
            let upload = command::Upload {
                account: cx.account(),
                upload: cx.new_upload(),
                sequence: 0,
                chunks: inline.iter().map(|chunk| chunk.chunk).collect(),
                replaces: self.replaced,
            };
            return Next::Ask(Question::Command(Box::new(Command::Upload(upload)), inline));
        }
        self.keep(*draft)
    }

    fn keep(&mut self, draft: Draft) -> Next {
        self.inline.extend(draft.inline);
        let head = std::mem::take(&mut self.head);
        self.is_in_utf8 = head.is_in_utf8;
        self.messages.push(command::AppendMessage {
            message: draft.message,
            flags: head.flags,
            internal_date: head.internal_date,
        });
        self.step = Step::Tail;
        Next::Input
    }

    fn octets(&mut self, input: &mut Input) -> Next {
        let max = SLICE_BYTES_MAX.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let slice = input.octets(max);
        if slice.is_empty() {
            return Next::Input;
        }
        self.left -= slice.len() as u64;
        // RFC 9051 9: CHAR8 has no NUL. RFC 3516 4.4: a literal8 may have it; BODY[] tells it as it does
        // where LMTP brought one.
        if !self.literal.is_binary && slice.contains(&0) {
            return self.refuse(Ending::no("NUL in the message"));
        }
        self.step = Step::Slice;
        Next::Ask(Question::Body(slice))
    }

    /// What stands behind a message: the end of the command, or the next message.
    fn tail(&mut self, cx: &mut Context, input: &mut Input) -> Next {
        let bad = Ending::bad("line end or a message expected behind the message");
        match input.gather(LINE_BYTES_MAX) {
            Gathered::Nothing => Next::Input,
            // Spaces at the end are forgiven, as those of other commands are.
            Gathered::Line => match (self.is_in_utf8, input.take_command().trim_ascii_end()) {
                (false, b"") | (true, b")") => self.commit(cx),
                _ => self.give_up(bad),
            },
            Gathered::Literal(literal) if self.replaced.is_some() => {
                input.take_command();
                let skip = (!literal.is_synchronising).then_some(literal.len);
                self.give_up(Ending { skip, ..bad })
            }
            Gathered::Literal(literal) => {
                let text = input.take_command();
                let head = &text[..literal.start];
                let head = parse::append_next(head, &cx.enabled, self.is_in_utf8);
                (self.literal, self.left) = (literal, literal.len);
                self.step = Step::Begin;
                match head {
                    Ok(head) => {
                        self.head = head;
                        self.begin_body(cx)
                    }
                    Err(fault) => self.refuse(refuse::fault(fault)),
                }
            }
            Gathered::TooLong | Gathered::Skipped => self.give_up(bad.skipping(0)),
            // Nothing is appended: what came so far goes with the connection.
            Gathered::Lost => Next::Bye(refuse::LOST),
        }
    }

    fn commit(&mut self, cx: &Context) -> Next {
        self.step = Step::Commit;
        let messages = std::mem::take(&mut self.messages);
        let (mailbox, name) = (MailboxId(0), Some(self.mailbox.name.clone()));
        let (account, replaces) = (cx.account(), self.replaced);
        let append = command::Append { account, mailbox, messages, replaces, name };
        let inline = std::mem::take(&mut self.inline);
        Next::Ask(Question::Command(Box::new(Command::Append(append)), inline))
    }
}

impl Work for Append {
    fn is_amid_message(&self) -> bool {
        self.left > 0
    }

    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match (&self.step, reply) {
            (Step::Begin, None) => {
                if let Err(ending) = self.find_replaced(cx) {
                    return self.refuse(ending);
                }
                // Why: the command itself tells that there is no such mailbox.
                if self.left <= UNASKED_BYTES_MAX {
                    return self.begin_body(cx);
                }
                self.step = Step::Find;
                find(cx, &self.mailbox.name)
            }
            (Step::Find, Some(Reply::Answer(answer @ Answer::Mailbox(_)))) => {
                match found(&answer) {
                    Ok(()) => self.begin_body(cx),
                    Err(ending) => self.refuse(ending),
                }
            }
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
            (Step::EndBody, Some(Reply::Draft(draft))) => self.taken_in(cx, draft),
            (Step::SendAhead, Some(Reply::Outcome(Outcome::Done))) => match self.further.take() {
                Some(draft) => self.keep(*draft),
                None => misplaced(),
            },
            (Step::Drop(ending), Some(Reply::Done)) => Next::Done(ending.clone()),
            // Durability: the outcome comes from a command committed by a majority.
            (Step::Commit, Some(Reply::Outcome(Outcome::Appended(appended)))) => {
                cx.note_arrivals(appended.mailbox);
                list::write_old_name(cx, &self.mailbox, "");
                if let Some(replaced) = self.replaced {
                    return Self::replaced(cx, replaced, &appended);
                }
                let code = format!("APPENDUID {} {}", appended.uid_validity, appended.uids);
                Next::Done(Ending::ok("appended").code(code))
            }
            _ => misplaced(),
        }
    }

    fn feed(&mut self, cx: &mut Context, input: &mut Input) -> Next {
        match self.step {
            Step::Octets => self.octets(input),
            Step::Tail => self.tail(cx, input),
            _ => misplaced(),
        }
    }

    fn trouble(&mut self, _: &mut Context, trouble: Trouble) -> Next {
        self.refuse(refuse::trouble(trouble))
    }

    fn refused(&mut self, _: &mut Context, refusal: Refusal) -> Next {
        self.refuse(refuse::no_target(&refusal))
    }
}
