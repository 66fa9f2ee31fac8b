//! Whether the account may still be read: what the session knows of the maildrop is older than the
//! operator's last word.

use mailbox::Query;
use mailbox::answer::Answer;
use mailbox::dialogue::{Question, Reply};

use super::{Doing, Session, trouble};
use crate::parse::Request;
use crate::{ADMITTED_FOR_MS, refuse};

impl Session {
    /// Does the command, after a question to the store where the last answer is too old.
    pub(super) fn admit(&mut self, request: Request) {
        // A clock that went back makes it unknown how old the answer is.
        let age_ms = self.now.0.checked_sub(self.admitted.0);
        match &self.maildrop {
            Some(maildrop) if age_ms.is_none_or(|age_ms| age_ms > ADMITTED_FOR_MS) => {
                let question = Question::Query(Query::Messages(maildrop.none()));
                self.ask(Doing::Admitting(request), question);
            }
            _ => self.transact(request),
        }
    }

    pub(super) fn admitted(&mut self, reply: &Reply, request: Request) {
        match (reply, refuse::ended(reply)) {
            (_, Some(words)) => self.unlock(words, true),
            (Reply::Answer(Answer::Messages(..)), None) => {
                self.admitted = self.now;
                self.transact(request);
            }
            (reply, None) => self.say(trouble(reply)),
        }
    }
}
