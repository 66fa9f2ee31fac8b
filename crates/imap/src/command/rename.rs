//! RENAME (RFC 9051 6.3.6). Renaming INBOX moves its messages, slice by slice.

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, MailboxId, Outcome, command::RenameMailbox};

use super::list;
use crate::context::Context;
use crate::parse::Given;
use crate::work::{Ending, Next, Work, misplaced};

/// Renames a mailbox.
pub(super) struct Renaming {
    from: Given,
    to: Given,
}

impl Renaming {
    pub(super) fn new(from: Given, to: Given) -> Self {
        Self { from, to }
    }

    /// RFC 9051 6.3.6: told if either name was given in another form than its own.
    fn write_old_name(&self, cx: &mut Context) {
        let is_told = self.from.old_name.is_some() || self.to.old_name.is_some();
        let from = || self.from.name.join(cx.config.separator);
        let old_name = is_told.then(|| self.from.old_name.clone().unwrap_or_else(from));
        list::write_old_name(cx, &Given { name: self.to.name.clone(), old_name }, "");
    }

    fn ask(&self, cx: &Context, further: bool, into: Option<MailboxId>) -> Next {
        let (from, to) = (self.from.name.clone(), self.to.name.clone());
        let rename = RenameMailbox { account: cx.account(), from, to, further, into };
        Next::Ask(Question::Command(Box::new(Command::RenameMailbox(rename)), vec![]))
    }
}

impl Work for Renaming {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => self.ask(cx, false, None),
            Some(Reply::Outcome(Outcome::Copied(copied))) if copied.next.is_some() => {
                self.ask(cx, true, copied.to)
            }
            // Durability: the outcome comes from a command committed by a majority.
            Some(Reply::Outcome(Outcome::Done | Outcome::Copied(_))) => {
                self.write_old_name(cx);
                Next::Done(Ending::ok("renamed"))
            }
            _ => misplaced(),
        }
    }
}
