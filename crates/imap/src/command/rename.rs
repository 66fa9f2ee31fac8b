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
                if let Some(selected) = &mut cx.selected
                    && let Some(name) = renamed(&selected.name, &self.from, &self.to.name)
                {
                    selected.name = name;
                }
                list::write_old_name(cx, &self.to, "");
                Next::Done(Ending::ok("renamed"))
            }
            _ => misplaced(),
        }
    }
}

/// What a mailbox is called after a rename; `None` if that did not concern it.
fn renamed(name: &MailboxName, from: &MailboxName, to: &MailboxName) -> Option<MailboxName> {
    // RFC 9051 6.3.6: INBOX stays, and so does what lies below it.
    if from.is_inbox() || (name != from && !name.is_below(from)) {
        return None;
    }
    let below = &name.components()[from.components().len()..];
    MailboxName::new(to.components().iter().chain(below))
}
