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

/// Copies, slice by slice; the store shows the copies with the last slice.
struct Copying {
    to: MailboxName,
    target: Option<MailboxId>,
    staging: UploadId,
    left: UidSet,
}

pub(super) fn begin(
    cx: &mut Context,
    uid: bool,
    set: &NumberSet,
    to: MailboxName,
) -> Parsed<Box<dyn Work>> {
    let left = cx.selected().resolve(uid, set).map_err(Fault::Bad)?;
    Ok(Box::new(Copying { to, target: None, staging: cx.new_upload(), left }))
}

/// Asks for the mailbox that messages go to.
pub(super) fn find(cx: &Context, name: &MailboxName) -> Next {
    let name = NamedMailbox { account: cx.account(), name: name.clone() };
    Next::Ask(Question::Query(Query::Mailbox(name)))
}

/// The mailbox that messages go to, from the answer to [`find`].
pub(super) fn found(answer: Answer) -> Result<MailboxId, Ending> {
    match answer {
        Answer::Mailbox(info) if info.selectable => Ok(info.of.mailbox),
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
        let Some(to) = self.target else { return misplaced() };
        if self.left.is_empty() {
            return Next::Done(Ending::ok("nothing to copy"));
        }
        let copy = command::Copy {
            account: cx.account(),
            from: cx.selected().of.mailbox,
            to,
            uids: self.left.clone(),
            staging: self.staging,
        };
        Next::Ask(Question::Command(Box::new(Command::Copy(copy)), vec![]))
    }
}

impl Work for Copying {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => find(cx, &self.to),
            Some(Reply::Answer(answer)) => match found(answer) {
                Ok(target) => {
                    self.target = Some(target);
                    self.ask(cx)
                }
                Err(ending) => Next::Done(ending),
            },
            Some(Reply::Outcome(Outcome::Copied(copied))) => match copied.next {
                Some(next) => {
                    self.left = self.left.starting_at(next);
                    self.ask(cx)
                }
                // Durability: the last slice, committed by a majority, made all copies visible.
                None => {
                    self.target.into_iter().for_each(|target| cx.note_arrivals(target));
                    let ending = Ending::ok("copied");
                    Next::Done(match copyuid(&copied) {
                        Some(code) => ending.code(code),
                        None => ending,
                    })
                }
            },
            _ => misplaced(),
        }
    }

    fn refused(&mut self, _: &mut Context, refusal: Refusal) -> Next {
        Next::Done(refuse::no_target(&refusal))
    }
}
