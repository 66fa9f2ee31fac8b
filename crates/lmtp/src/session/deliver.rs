//! The deliveries, and one reply for each recipient.

use mailbox::command::Deliver;
use mailbox::dialogue::{Question, Trouble};
use mailbox::{AccountId, Command, Draft, Outcome};

use super::{Recipient, Session, Transaction};
use crate::refuse;
use crate::trace::Trace;

impl Session {
    /// One command for each copy, in the order of the recipients.
    pub(super) fn deliveries(&self, draft: &Draft) -> Question {
        let Some(transaction) = &self.transaction else { return Question::DropBody };
        let id = format!("{}.{}", self.settings.session, self.n_transactions);
        let deliver = |to: &Recipient| {
            let (message, inline) = draft.with_prefix(self.trace(transaction, to, &id).fields());
            let detail = to.detail.clone();
            let copy = move |account: &AccountId| {
                let (detail, message) = (detail.clone(), message.clone());
                (Command::Deliver(Deliver { account: *account, detail, message }), inline.clone())
            };
            to.accounts.iter().map(copy).collect::<Vec<_>>()
        };
        Question::Commands(transaction.recipients.iter().flat_map(deliver).collect())
    }

    fn trace<'a>(
        &'a self,
        transaction: &'a Transaction,
        to: &'a Recipient,
        id: &'a str,
    ) -> Trace<'a> {
        Trace {
            sender: &transaction.mail.sender,
            recipient: &to.address,
            client: self.client.as_deref().unwrap_or("unknown"),
            peer: self.settings.peer.as_deref(),
            hostname: &self.settings.hostname,
            protocol: if transaction.mail.is_utf8 { "UTF8LMTP" } else { "LMTP" },
            id,
            time: self.now,
        }
    }

    /// RFC 2033 4.2: one reply for each recipient, in order.
    pub(super) fn delivered(&mut self, outcomes: &[Result<Outcome, Trouble>]) {
        let Some(transaction) = self.transaction.take() else { return };
        let missing = Err(Trouble::Unknown);
        let mut outcomes = outcomes.iter().chain(std::iter::repeat(&missing));
        for to in &transaction.recipients {
            let copies: Vec<_> = outcomes.by_ref().take(to.n_copies()).collect();
            self.say(refuse::delivered(&copies));
        }
    }
}
