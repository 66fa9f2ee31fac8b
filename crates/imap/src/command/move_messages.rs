//! MOVE and UID MOVE (RFC 6851).

use mailbox::command;
use mailbox::dialogue::{Question, Reply};
use mailbox::outcome::Copied;
use mailbox::{Command, MailboxName, Outcome, Refusal, Slices, UidSet};

use super::copy::{Target, copyuid, find, found};
use super::must_be_writable;
use crate::context::Context;
use crate::number_set::{NumberSet, subtract};
use crate::parse::{Fault, Parsed};
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

/// Moves, slice by slice; each message at once.
struct Moving {
    to: Target,
    left: Slices,
    /// Named by sequence number and not moved yet.
    missing: UidSet,
    has_asked: bool,
}

pub(super) fn begin(
    cx: &mut Context,
    uid: bool,
    set: &NumberSet,
    to: MailboxName,
) -> Parsed<Box<dyn Work>> {
    must_be_writable(cx)?;
    let left = cx.selected().resolve(uid, set).map_err(Fault::Bad)?;
    let missing = if uid { UidSet::new() } else { left.clone() };
    let left = Slices::new(left);
    Ok(Box::new(Moving { to: Target::new(to), left, missing, has_asked: false }))
}

impl Moving {
    fn ask(&self, cx: &mut Context) -> Next {
        let Some(uids) = self.left.next_command() else {
            return if self.has_asked { self.done() } else { find(cx, self.to.name()) };
        };
        let (account, from) = (cx.account(), cx.selected().of.mailbox);
        let (to, to_name) = self.to.say();
        let moving = command::Move { account, from, to, uids, to_name };
        Next::Ask(Question::Command(Box::new(Command::Move(moving)), vec![]))
    }

    fn done(&self) -> Next {
        if !self.missing.is_empty() {
            return Next::Done(refuse::some_are_gone());
        }
        // Durability: every slice was committed by a majority.
        Next::Done(Ending::ok("done").telling_modseq())
    }

    fn moved(cx: &mut Context, copied: &Copied) {
        let (out, selected, enabled) = cx.parts();
        let (Some(code), Some(selected)) = (copyuid(copied), selected) else { return };
        // RFC 6851 4.3: told before the expunges.
        out.text(&format!("* OK [{code}] moved\r\n"));
        selected.expunge(out, enabled, &copied.source);
        if let Some(modseq) = copied.modseq {
            selected.note_taken(copied.to, modseq);
        }
    }
}

impl Work for Moving {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => self.ask(cx),
            Some(Reply::Answer(answer)) => {
                let found = found(&answer);
                Next::Done(found.map_or_else(|ending| ending, |()| Ending::ok("done")))
            }
            Some(Reply::Outcome(Outcome::Copied(copied))) => {
                Self::moved(cx, &copied);
                self.missing = subtract(&self.missing, &copied.source);
                self.to.note(cx, &copied);
                self.left.done(copied.next);
                self.has_asked = true;
                self.ask(cx)
            }
            _ => misplaced(),
        }
    }

    fn refused(&mut self, _: &mut Context, refusal: Refusal) -> Next {
        Next::Done(refuse::no_target(&refusal))
    }
}
