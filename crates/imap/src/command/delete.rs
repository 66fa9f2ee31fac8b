//! DELETE (RFC 9051 6.3.5).

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, Outcome, Refusal, command::NamedMailbox};

use super::list;
use crate::context::Context;
use crate::parse::Given;
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

/// Deletes a mailbox.
pub(super) struct Deleting(pub(super) Given);

impl Work for Deleting {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => {
                let named = NamedMailbox { account: cx.account(), name: self.0.name.clone() };
                Next::Ask(Question::Command(Box::new(Command::DeleteMailbox(named)), vec![]))
            }
            // Durability: the outcome comes from a command committed by a majority.
            Some(Reply::Outcome(Outcome::Done)) => {
                // What this session deleted itself it need not be sent away from.
                if cx.selected.as_ref().is_some_and(|selected| selected.name == self.0.name) {
                    cx.selected = None;
                    cx.out.text("* OK [CLOSED] the selected mailbox is deleted\r\n");
                }
                list::write_old_name(cx, &self.0, "\\NonExistent");
                Next::Done(Ending::ok("deleted"))
            }
            _ => misplaced(),
        }
    }
    fn refused(&mut self, _: &mut Context, refusal: Refusal) -> Next {
        Next::Done(match refusal {
            // RFC 9051 7.1: the name is there, and goes when what lies below it is gone.
            Refusal::NotSelectable => {
                Ending::no("there are mailboxes below it").code("HASCHILDREN")
            }
            refusal => refuse::refusal(&refusal),
        })
    }
}
