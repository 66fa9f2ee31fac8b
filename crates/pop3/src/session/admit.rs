//! Whether the account may still be read, and INBOX is the one that was listed: what the session knows of
//! the maildrop is older than the operator's last word.

use mailbox::answer::Answer;
use mailbox::dialogue::{Question, Reply};
use mailbox::{Query, Slices, UidSet};

use super::{Doing, Session, trouble};
use crate::maildrop::Maildrop;
use crate::parse::Request;
use crate::{ADMITTED_FOR_MS, refuse};

impl Session {
    /// Does the command, after a question to the store where the last answer is too old.
    pub(super) fn admit(&mut self, request: Request) {
        // A clock that went back makes it unknown how old the answer is.
        let age_ms = self.now.0.checked_sub(self.admitted.0);
        match &self.maildrop {
            Some(maildrop) if age_ms.is_none_or(|age_ms| age_ms > ADMITTED_FOR_MS) => {
                let question = Question::Query(Query::Mailbox(maildrop.inbox()));
                self.ask(Doing::Admitting(request), question);
            }
            _ => self.transact(request),
        }
    }

    pub(super) fn admitted(&mut self, reply: &Reply, request: Request) {
        match (reply, self.ended(reply)) {
            (_, Some(words)) => self.unlock(words, true),
            (Reply::Answer(Answer::Mailbox(_)), None) => {
                self.admitted = self.now;
                self.transact(request);
            }
            (reply, None) => self.say(trouble(reply)),
        }
    }

    /// QUIT: removes what is marked, where the UIDs still mean what they did.
    pub(super) fn confirmed(&mut self, reply: &Reply) {
        match (reply, self.ended(reply)) {
            (Reply::Answer(Answer::Mailbox(_)), None) => {
                let marked = self.maildrop.as_ref().map(Maildrop::marked);
                self.remove(marked.unwrap_or_else(|| Slices::new(UidSet::new())));
            }
            (_, words) => self.unlock(words.unwrap_or(refuse::NOT_REMOVED), true),
        }
    }

    /// What to say when the maildrop may not be used any more.
    fn ended(&self, reply: &Reply) -> Option<&'static str> {
        match (reply, &self.maildrop) {
            (Reply::Answer(Answer::Mailbox(inbox)), Some(maildrop)) if !maildrop.is(inbox) => {
                Some(refuse::RENUMBERED)
            }
            (reply, _) => refuse::ended(reply),
        }
    }
}
