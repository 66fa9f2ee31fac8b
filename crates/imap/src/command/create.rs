//! CREATE (RFC 9051 6.3.4, RFC 6154 3, RFC 8474 4.1).

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, Outcome, command::CreateMailbox};

use super::list;
use crate::context::Context;
use crate::parse::Create;
use crate::work::{Ending, Next, Work, misplaced};

/// Creates a mailbox.
pub(super) struct Creating(pub(super) Create);

impl Work for Creating {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => {
                let Create { given, special_use } = self.0.clone();
                let name = given.name;
                let create = CreateMailbox { account: cx.account(), name, special_use };
                Next::Ask(Question::Command(Box::new(Command::CreateMailbox(create)), vec![]))
            }
            // Durability: the outcome comes from a command committed by a majority.
            Some(Reply::Outcome(Outcome::MailboxCreated(id))) => {
                list::write_old_name(cx, &self.0.given, "");
                Next::Done(Ending::ok("created").code(format!("MAILBOXID (M{})", id.0)))
            }
            _ => misplaced(),
        }
    }
}
