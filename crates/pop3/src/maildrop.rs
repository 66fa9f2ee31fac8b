//! The maildrop: INBOX as it was at the login.

use std::collections::BTreeMap;

use mailbox::answer::Body;
use mailbox::command::{Expunge, NamedMailbox, OfMailbox};
use mailbox::query::Messages;
use mailbox::{
    AccountId, MailboxInfo, MailboxName, MessageRecord, Slices, Uid, UidSet, UidValidity,
};

use crate::BODIES_AHEAD;

/// RFC 1939 7: a unique-id has at most so many characters.
const UIDL_BYTES_MAX: usize = 70;

/// What the session knows of it.
pub(crate) struct Maildrop {
    of: OfMailbox,
    uid_validity: UidValidity,
    messages: Vec<Message>,
    /// Those that are not marked, and their octets.
    there: (usize, u64),
    /// Places of those that are. Why: a client may say DELE and RSET hundreds of times at once, and there
    /// may be a million other messages.
    deleted: Vec<u32>,
    /// Chunk lists that were asked for ahead.
    bodies: BTreeMap<Uid, Body>,
}

/// One message; its number is its place, from 1.
pub(crate) struct Message {
    pub(crate) uid: Uid,
    pub(crate) size: u64,
    uidl: Option<Box<str>>,
    pub(crate) is_deleted: bool,
}

impl Maildrop {
    /// Nothing is known yet.
    pub(crate) fn new(of: OfMailbox, uid_validity: UidValidity) -> Self {
        Self {
            of,
            uid_validity,
            messages: Vec::new(),
            there: (0, 0),
            deleted: Vec::new(),
            bodies: BTreeMap::new(),
        }
    }

    /// Asks for messages from this UID on.
    pub(crate) fn page(&self, from: Uid) -> Messages {
        self.messages_query(UidSet::range(from, Uid::LAST), false)
    }

    /// Takes a page of them.
    pub(crate) fn add(&mut self, records: Vec<MessageRecord>) {
        for record in records {
            self.there = (self.there.0 + 1, self.there.1 + record.size);
            self.messages.push(Message {
                uid: record.uid,
                size: record.size,
                uidl: record.uidl.filter(|uidl| is_legal(uidl)).map(String::into_boxed_str),
                is_deleted: false,
            });
        }
    }

    /// Asks what INBOX is now, and whether the account may be read.
    pub(crate) fn inbox(&self) -> NamedMailbox {
        NamedMailbox { account: self.of.account, name: MailboxName::inbox() }
    }

    /// Whether that is the one which was listed, and its UIDs are those of the same messages: a shard whose
    /// history was lost in part gives out UIDs again.
    pub(crate) fn is(&self, inbox: &MailboxInfo) -> bool {
        (inbox.of, inbox.uid_validity) == (self.of, self.uid_validity)
    }

    /// Asks for the bodies of this message and those after it.
    pub(crate) fn bodies_ahead(&self, number: u32) -> Messages {
        let from = self.messages.iter().skip(number as usize - 1);
        let wanted = from.filter(|message| !message.is_deleted).take(BODIES_AHEAD);
        // Why: a session may read what another one expunges meanwhile.
        self.messages_query(wanted.map(|message| message.uid).collect(), true)
    }

    /// Takes the bodies asked for; the ones before are forgotten.
    pub(crate) fn set_bodies(&mut self, records: Vec<MessageRecord>) {
        let with_body = |record: MessageRecord| record.body.map(|body| (record.uid, body));
        self.bodies = records.into_iter().filter_map(with_body).collect();
    }

    /// The body of a message if it was asked for; given out once.
    pub(crate) fn take_body(&mut self, uid: Uid) -> Option<Body> {
        self.bodies.remove(&uid)
    }

    fn messages_query(&self, uids: UidSet, is_for_bodies: bool) -> Messages {
        Messages {
            of: self.of,
            uids,
            changed_since: None,
            metadata: false,
            chunks: is_for_bodies,
            expunged: is_for_bodies,
            only_envelope: false,
            recent_to: None,
        }
    }

    /// A message that is there and not deleted.
    pub(crate) fn message(&self, number: u32) -> Option<&Message> {
        let message = self.messages.get((number as usize).checked_sub(1)?)?;
        (!message.is_deleted).then_some(message)
    }

    /// Marks it as deleted; whether it was there.
    pub(crate) fn delete(&mut self, number: u32) -> bool {
        let Some(size) = self.message(number).map(|message| message.size) else { return false };
        self.messages[number as usize - 1].is_deleted = true;
        self.deleted.push(number - 1);
        self.there = (self.there.0 - 1, self.there.1 - size);
        true
    }

    /// RSET.
    pub(crate) fn undelete(&mut self) {
        for place in std::mem::take(&mut self.deleted) {
            let message = &mut self.messages[place as usize];
            message.is_deleted = false;
            self.there = (self.there.0 + 1, self.there.1 + message.size);
        }
    }

    /// Messages with their numbers, from a number on, without deleted ones.
    pub(crate) fn listed(&self, from: u32) -> impl Iterator<Item = (u32, &Message)> {
        let numbered = (from..).zip(self.messages.iter().skip(from as usize - 1));
        numbered.filter(|(_, message)| !message.is_deleted)
    }

    /// How many messages are there, and their octets.
    pub(crate) fn stat(&self) -> (usize, u64) {
        self.there
    }

    /// Stable for ever: UIDs are never given out twice.
    pub(crate) fn uidl(&self, message: &Message) -> String {
        match &message.uidl {
            Some(uidl) => uidl.to_string(),
            None => format!("{}.{}", self.uid_validity, message.uid),
        }
    }

    /// What QUIT removes.
    pub(crate) fn marked(&self) -> Slices {
        let marked = self.messages.iter().filter(|message| message.is_deleted);
        Slices::new(marked.map(|message| message.uid).collect())
    }

    /// Removes these.
    pub(crate) fn expunge(&self, uids: UidSet) -> Expunge {
        let OfMailbox { account, mailbox } = self.of;
        Expunge { account, mailbox, uids, only_deleted: false }
    }

    /// Whose it is.
    pub(crate) fn account(&self) -> AccountId {
        self.of.account
    }

    /// Whether anything is marked.
    pub(crate) fn has_marked(&self) -> bool {
        !self.deleted.is_empty()
    }
}

/// RFC 1939 7: 1 to 70 characters from 0x21 to 0x7E.
fn is_legal(uidl: &str) -> bool {
    (1..=UIDL_BYTES_MAX).contains(&uidl.len()) && uidl.bytes().all(|c| c.is_ascii_graphic())
}
