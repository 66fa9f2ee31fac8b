//! RENAME (RFC 9051 6.3.6). Renaming INBOX moves its messages, slice by slice.

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, MailboxName, Outcome, command::RenameMailbox};

use super::list;
use crate::context::Context;
use crate::parse::Given;
use crate::work::{Ending, Next, Work, misplaced};

/// Renames a mailbox.
pub(super) struct Renaming {
    from: MailboxName,
    to: Given,
}

impl Renaming {
    pub(super) fn new(from: MailboxName, to: Given) -> Self {
        Self { from, to }
    }

    fn ask(&self, cx: &Context, further: bool) -> Next {
        let (from, to) = (self.from.clone(), self.to.name.clone());
        let rename = RenameMailbox { account: cx.account(), from, to, further };
        Next::Ask(Question::Command(Box::new(Command::RenameMailbox(rename)), vec![]))
    }
}

impl Work for Renaming {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => self.ask(cx, false),
            Some(Reply::Outcome(Outcome::Copied(copied))) if copied.next.is_some() => {
                self.ask(cx, true)
            }
            // Durability: the outcome comes from a command committed by a majority.
            Some(Reply::Outcome(Outcome::Done | Outcome::Copied(_))) => {
                list::write_old_name(cx, &self.to, "");
                Next::Done(Ending::ok("renamed"))
            }
            _ => misplaced(),
        }
    }
}
