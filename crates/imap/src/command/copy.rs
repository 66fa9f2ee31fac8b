//! COPY and UID COPY (RFC 9051 6.4.7, RFC 4315 3): all or nothing.

use mailbox::command::{self, NamedMailbox};
use mailbox::dialogue::{Question, Reply};
use mailbox::outcome::Copied;
use mailbox::{Answer, Command, MailboxId, MailboxName, Outcome, Query, Refusal, UidSet, UploadId};

use crate::context::Context;
use crate::number_set::NumberSet;
use crate::parse::{Fault, Parsed};
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

/// Where messages go: named with the first slice, and what that found with those after it, so that a
/// mailbox which is renamed meanwhile gets all of them.
pub(super) struct Target {
    name: MailboxName,
    found: Option<MailboxId>,
}

impl Target {
    pub(super) fn new(name: MailboxName) -> Self {
        Self { name, found: None }
    }

    pub(super) fn name(&self) -> &MailboxName {
        &self.name
    }

    /// For the next slice: an id that is looked at when there is no name.
    pub(super) fn say(&self) -> (MailboxId, Option<MailboxName>) {
        match self.found {
            Some(found) => (found, None),
            None => (MailboxId(0), Some(self.name.clone())),
        }
    }

    /// What a slice found; tells this session of arrivals.
    pub(super) fn note(&mut self, cx: &mut Context, copied: &Copied) {
        self.found = copied.to.or(self.found);
        self.found.into_iter().for_each(|found| cx.note_arrivals(found));
    }
}

/// Copies, slice by slice; the store shows the copies with the last slice.
struct Copying {
    to: Target,
    staging: UploadId,
    left: UidSet,
    /// Named by sequence numbers, which are of messages the client knows; a UID may be of none.
    by_seqnum: bool,
    is_staged: bool,
}

pub(super) fn begin(
    cx: &mut Context,
    uid: bool,
    set: &NumberSet,
    to: MailboxName,
) -> Parsed<Box<dyn Work>> {
    let left = cx.selected().resolve(uid, set).map_err(Fault::Bad)?;
    let (to, staging) = (Target::new(to), cx.new_upload());
    Ok(Box::new(Copying { to, staging, left, by_seqnum: !uid, is_staged: false }))
}

/// Asks for the mailbox that messages would go to, where none are sent.
pub(super) fn find(cx: &Context, name: &MailboxName) -> Next {
    let name = NamedMailbox { account: cx.account(), name: name.clone() };
    Next::Ask(Question::Query(Query::Mailbox(name)))
}

/// Whether messages could go there, from the answer to [`find`].
pub(super) fn found(answer: &Answer) -> Result<(), Ending> {
    match answer {
        Answer::Mailbox(info) if info.selectable => Ok(()),
        Answer::Mailbox(_) => Err(refuse::no_target(&Refusal::NoSuchMailbox)),
        _ => Err(Ending::no("internal error").code("SERVERBUG")),
    }
}

/// RFC 4315 3: `None` when nothing was copied.
pub(super) fn copyuid(copied: &Copied) -> Option<String> {
    if copied.source.is_empty() {
        return None;
    }
    Some(format!("COPYUID {} {} {}", copied.uid_validity, copied.source, copied.target))
}

impl Copying {
    fn ask(&self, cx: &mut Context) -> Next {
        if self.left.is_empty() {
            return find(cx, self.to.name());
        }
        let (to, to_name) = self.to.say();
        let copy = command::Copy {
            account: cx.account(),
            from: cx.selected().of.mailbox,
            to,
            uids: self.left.clone(),
            staging: self.staging,
            to_name,
            whole: self.by_seqnum,
            further: self.is_staged,
        };
        Next::Ask(Question::Command(Box::new(Command::Copy(copy)), vec![]))
    }
}

impl Work for Copying {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => self.ask(cx),
            Some(Reply::Answer(answer)) => {
                let found = found(&answer);
                Next::Done(found.map_or_else(|ending| ending, |()| Ending::ok("nothing to copy")))
            }
            Some(Reply::Outcome(Outcome::Copied(copied))) => {
                self.to.note(cx, &copied);
                match copied.next {
                    Some(next) => {
                        self.is_staged = true;
                        self.left = self.left.starting_at(next);
                        self.ask(cx)
                    }
                    // Durability: the last slice, committed by a majority, made all copies visible.
                    None => {
                        let ending = Ending::ok("copied");
                        Next::Done(match copyuid(&copied) {
                            Some(code) => ending.code(code),
                            None => ending,
                        })
                    }
                }
            }
            _ => misplaced(),
        }
    }

    fn refused(&mut self, _: &mut Context, refusal: Refusal) -> Next {
        Next::Done(match refusal {
            // RFC 2180 4.4.1; those named by UID are passed over (RFC 9051 6.4.9).
            Refusal::NoSuchMessage => refuse::some_are_gone(),
            refusal => refuse::no_target(&refusal),
        })
    }
}
