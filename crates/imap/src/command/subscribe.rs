//! SUBSCRIBE and UNSUBSCRIBE (RFC 9051 6.3.7, 6.3.8).

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, MailboxName, Outcome, command::Subscribe};

use crate::context::Context;
use crate::work::{Ending, Next, Work, misplaced};

/// Changes a subscription.
pub(super) struct Subscribing {
    pub(super) name: MailboxName,
    pub(super) on: bool,
}

impl Work for Subscribing {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => {
                let name = self.name.clone();
                let subscribe = Subscribe { account: cx.account(), name, on: self.on };
                Next::Ask(Question::Command(Box::new(Command::Subscribe(subscribe)), vec![]))
            }
            // Durability: the outcome comes from a command committed by a majority.
            Some(Reply::Outcome(Outcome::Done)) => Next::Done(Ending::ok("done")),
            _ => misplaced(),
        }
    }
}
