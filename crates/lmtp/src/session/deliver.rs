//! The deliveries, and one reply for each recipient.

use mailbox::command::Deliver;
use mailbox::dialogue::{Look, Question, Reply, Trouble};
use mailbox::{AccountId, Command, Digest, Draft, Outcome, StoredChunk};

use super::{Doing, Recipient, Session, Transaction, why};
use crate::refuse;
use crate::trace::Trace;

impl Transaction {
    /// The only account that the message is for, if it is one.
    fn lone_recipient(&self) -> Option<&Recipient> {
        let [to] = &self.recipients[..] else { return None };
        (!to.is_group()).then_some(to)
    }
}

impl Session {
    /// The draft is there. A group has one reply for all, and a client that is told to wait sends to
    /// all of it again: so it is asked first who has it already, and who would take it now.
    pub(super) fn look_or_deliver(&mut self, draft: Box<Draft>) {
        let copies = self.copies_for_groups(draft.message.size);
        if copies.is_empty() {
            self.deliver(&draft);
            return;
        }
        let first = known_by(&draft);
        self.doing = Doing::Looking(draft);
        self.question = Some(Question::WouldTake(copies, first));
    }

    /// Who gets how many octets for groups, in the order of the recipients.
    fn copies_for_groups(&self, n_bytes: u64) -> Vec<(AccountId, u64)> {
        let Some(transaction) = &self.transaction else { return Vec::new() };
        let id = self.id();
        let copies = |to: &Recipient| {
            let prefix = self.trace(transaction, to, &id).fields();
            let n_bytes = n_bytes + prefix.len() as u64;
            to.accounts.iter().map(|account| (*account, n_bytes)).collect::<Vec<_>>()
        };
        transaction.recipients.iter().filter(|to| to.is_group()).flat_map(copies).collect()
    }

    pub(super) fn looked(&mut self, draft: &Draft, reply: Reply) {
        let (found, missing) = match reply {
            Reply::Looks(found) => (found, Look::Unknown(Trouble::Unavailable)),
            reply => (Vec::new(), Look::Unknown(why(&reply))),
        };
        let mut found = found.into_iter().chain(std::iter::repeat(missing));
        let is_known = known_by(draft).is_some();
        let recipients = self.transaction.iter_mut().flat_map(|all| &mut all.recipients);
        for to in recipients.filter(|to| to.is_group()) {
            let mut members: Vec<_> = found.by_ref().take(to.n_members()).collect();
            if !is_known {
                refuse::leave_suspended_out(&mut members);
                // Why nobody: who has it could not be told at the next try.
                to.refusal = refuse::not_now(&members);
            }
            to.looks = Some(members);
        }
        self.deliver(draft);
    }

    fn deliver(&mut self, draft: &Draft) {
        let commands = self.deliveries(draft);
        if commands.is_empty() {
            self.doing = Doing::PuttingOff;
            self.question = Some(Question::DropBody);
            return;
        }
        self.doing = Doing::Delivering;
        self.question = Some(Question::Commands(commands));
    }

    /// Names the transaction. RFC 5321 4.4: an atom, so without dots.
    fn id(&self) -> String {
        format!("{}-{}", self.settings.session, self.n_transactions)
    }

    /// Trace fields that go in front while the message is received, when it is for one account alone: there
    /// they are no chunk of their own to sync, to find and to keep. What has several takers is received as
    /// it is, and shared by all of them.
    pub(super) fn trace_in_front(&self) -> Vec<u8> {
        let Some(transaction) = &self.transaction else { return Vec::new() };
        let Some(to) = transaction.lone_recipient() else { return Vec::new() };
        self.trace(transaction, to, &self.id()).fields().into()
    }

    /// One command for each copy, in the order of the recipients.
    fn deliveries(&self, draft: &Draft) -> Vec<(Command, Vec<StoredChunk>)> {
        let Some(transaction) = &self.transaction else { return Vec::new() };
        let id = self.id();
        let has_trace = transaction.lone_recipient().is_some();
        let deliver = |to: &Recipient| {
            let (message, inline) = match has_trace {
                true => (draft.message.clone(), draft.inline.clone()),
                false => draft.with_prefix(self.trace(transaction, to, &id).fields()),
            };
            let detail = to.detail.clone();
            let copy = move |account: &AccountId| {
                let (detail, message) = (detail.clone(), message.clone());
                let deliver = Deliver { account: *account, detail, message, internal_date: None };
                (Command::Deliver(deliver), inline.clone())
            };
            to.takers().map(copy).collect::<Vec<_>>()
        };
        let to = transaction.recipients.iter().filter(|to| to.refusal.is_none());
        to.flat_map(deliver).collect()
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
            if let Some(words) = to.refusal {
                self.say(words);
                continue;
            }
            let Some(looks) = &to.looks else {
                let copies: Vec<_> = outcomes.by_ref().take(to.n_members()).cloned().collect();
                self.say(refuse::delivered(&copies));
                continue;
            };
            let mut copy = |look: &Look| match look {
                Look::Takes => outcomes.next().cloned().unwrap_or(Err(Trouble::Unknown)),
                Look::Has => Ok(Outcome::Done),
                Look::Refuses(refusal) => Ok(Outcome::Refused(refusal.clone())),
                Look::Unknown(trouble) => Err(*trouble),
            };
            let copies: Vec<_> = looks.iter().map(&mut copy).collect();
            self.say(refuse::delivered(&copies));
        }
    }
}

/// By which chunk it is known who has a message: the first one, where its header is. One that was uploaded
/// is known by none: its chunks are at each member before it is delivered. Nor is one without a Message-ID:
/// the same octets may well be another message, as from a script that says every night that all went well.
fn known_by(draft: &Draft) -> Option<Digest> {
    let first = draft.message.chunks.first()?;
    let header_bytes = draft.metadata.structure.header.end;
    let is_told = draft.message.upload.is_none()
        && draft.metadata.envelope.message_id.is_some()
        && header_bytes <= u64::from(first.raw_len);
    is_told.then_some(first.digest)
}
