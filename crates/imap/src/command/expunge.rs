//! EXPUNGE and UID EXPUNGE (RFC 9051 6.4.3, 6.4.9).

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, Outcome, UidSet, command::Expunge};

use super::must_be_writable;
use crate::context::Context;
use crate::number_set::NumberSet;
use crate::parse::{Fault, Parsed};
use crate::work::{Ending, Next, Work, misplaced};

/// Removes what is flagged `\Deleted`, slice by slice.
struct Expunging {
    left: UidSet,
}

pub(super) fn begin(cx: &mut Context, set: Option<&NumberSet>) -> Parsed<Box<dyn Work>> {
    must_be_writable(cx)?;
    let left = match set {
        Some(set) => cx.selected().resolve(true, set).map_err(Fault::Bad)?,
        None => cx.selected().view.uids(),
    };
    Ok(Box::new(Expunging { left }))
}

impl Expunging {
    fn ask(&self, cx: &mut Context) -> Next {
        if self.left.is_empty() {
            return Next::Done(Ending::ok("done"));
        }
        let expunge = Expunge {
            account: cx.account(),
            mailbox: cx.selected().of.mailbox,
            uids: self.left.clone(),
            only_deleted: true,
        };
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
                match expunged.next {
                    Some(next) => {
                        self.left = self.left.starting_at(next);
                        self.ask(cx)
                    }
                    // Durability: every slice was committed by a majority.
                    None => Next::Done(Ending::ok("done").telling_modseq()),
                }
            }
            _ => misplaced(),
        }
    }
}
