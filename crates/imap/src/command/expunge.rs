//! EXPUNGE and UID EXPUNGE (RFC 9051 6.4.3, 6.4.9).

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, Outcome, Slices, command::Expunge};

use super::must_be_writable;
use crate::context::Context;
use crate::number_set::NumberSet;
use crate::parse::{Fault, Parsed};
use crate::work::{Ending, Next, Work, misplaced};

/// Removes what is flagged `\Deleted`, slice by slice.
struct Expunging {
    left: Slices,
    has_asked: bool,
}

pub(super) fn begin(cx: &mut Context, set: Option<&NumberSet>) -> Parsed<Box<dyn Work>> {
    must_be_writable(cx)?;
    let left = match set {
        Some(set) => cx.selected().resolve(true, set).map_err(Fault::Bad)?,
        None => cx.selected().view.uids(),
    };
    Ok(Box::new(Expunging { left: Slices::new(left), has_asked: false }))
}

impl Expunging {
    fn end(&self) -> Ending {
        let end = Ending::ok("done");
        if self.has_asked { end.telling_modseq() } else { end }
    }

    fn ask(&self, cx: &mut Context) -> Next {
        // Durability: every slice was committed by a majority.
        let Some(uids) = self.left.next_command() else { return Next::Done(self.end()) };
        let (account, mailbox) = (cx.account(), cx.selected().of.mailbox);
        let expunge = Expunge { account, mailbox, uids, only_deleted: true };
        Next::Ask(Question::Command(Box::new(Command::Expunge(expunge)), vec![]))
    }
}

impl Work for Expunging {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => self.ask(cx),
            Some(Reply::Outcome(Outcome::Expunged(expunged))) => {
                let (out, selected, enabled) = cx.parts();
                if let Some(selected) = selected {
                    selected.expunge(out, enabled, &expunged.uids);
                    selected.note_expunged(&expunged);
                }
                self.left.done(expunged.next);
                self.has_asked = true;
                self.ask(cx)
            }
            _ => misplaced(),
        }
    }
}
