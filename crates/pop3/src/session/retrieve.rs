//! RETR and TOP: a message leaves chunk by chunk.

use mailbox::Query;
use mailbox::answer::{Answer, Body};
use mailbox::dialogue::{Question, Reply};

use super::{Doing, Sending, Session, trouble};
use crate::maildrop::Maildrop;
use crate::refuse;
use crate::wire::Wire;

impl Session {
    pub(super) fn retrieve(&mut self, number: u32, wire: Wire, maildrop: &mut Maildrop) {
        let Some(message) = maildrop.message(number) else {
            self.say(refuse::NO_SUCH_MESSAGE);
            return;
        };
        let (uid, size) = (message.uid, message.size);
        match maildrop.take_body(uid) {
            Some(body) => self.begin(body, size, wire),
            None => {
                let wanted = Query::Bodies(maildrop.bodies_ahead(number));
                self.ask(Doing::Finding { number, wire }, Question::Query(wanted));
            }
        }
    }

    pub(super) fn found(&mut self, reply: Reply, number: u32, wire: Wire) {
        let Some(maildrop) = &mut self.maildrop else { return };
        let Reply::Answer(Answer::Messages(records, _)) = reply else {
            self.not_found(&reply);
            return;
        };
        maildrop.set_bodies(records);
        let wanted = maildrop.message(number).map(|message| (message.uid, message.size));
        let body = wanted.and_then(|(uid, size)| Some((maildrop.take_body(uid)?, size)));
        match body {
            Some((body, size)) => self.begin(body, size, wire),
            None => self.say(refuse::GONE),
        }
    }

    fn not_found(&mut self, reply: &Reply) {
        match refuse::ended(reply) {
            Some(words) => self.unlock(words, true),
            None => self.say(trouble(reply)),
        }
    }

    fn begin(&mut self, body: Body, size: u64, wire: Wire) {
        let head = Some(format!("+OK {size} octets"));
        self.doing = Doing::Sending(Sending { head, chunks: body.chunks.into(), wire });
    }

    /// Asks for the next chunk, or ends the message.
    pub(super) fn send_on(&mut self, mut sending: Sending) {
        let next = if sending.wire.is_over() { None } else { sending.chunks.pop_front() };
        match (next, &self.login) {
            (Some(chunk), Some(login)) => {
                let question = Question::Chunk(login.account, chunk);
                self.ask(Doing::Fetching(sending), question);
            }
            _ => {
                if let Some(head) = sending.head.take() {
                    self.say(&head);
                }
                sending.wire.finish(&mut self.output);
            }
        }
    }

    pub(super) fn fetched(&mut self, reply: Reply, mut sending: Sending) {
        match (reply, sending.head.take()) {
            (Reply::Chunk(octets), head) => {
                if let Some(head) = head {
                    self.say(&head);
                }
                sending.wire.push(&octets, &mut self.output);
                self.doing = Doing::Sending(sending);
            }
            (reply, Some(_)) => self.say(trouble(&reply)),
            // Half of it is sent and there is no way to say so: a message must not look whole.
            (_, None) => self.close(),
        }
    }
}
