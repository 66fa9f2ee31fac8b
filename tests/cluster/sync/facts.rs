//! What any client was told and must be true for all: a message's flags at a mod-sequence, what a UID
//! stands for, what is gone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use super::words::Flags;

/// A mailbox: an account's number, and a UIDVALIDITY.
pub type Mailbox = (usize, u32);
/// A message in a mailbox.
pub type Message = (Mailbox, u32);

#[derive(Default)]
pub struct Facts {
    flags: BTreeMap<(Message, u64), Flags>,
    emails: BTreeMap<Message, (String, u64)>,
    gone: BTreeSet<Message>,
    /// From which clients were sent away.
    left: BTreeSet<Mailbox>,
    highest: BTreeMap<Mailbox, u64>,
    /// Which object a UIDVALIDITY belongs to.
    objects: BTreeMap<Mailbox, String>,
    /// Messages that must be the same as others.
    copies: Vec<(Message, Message)>,
    pub n_copies: usize,
}

impl Facts {
    /// A message has these flags at this mod-sequence.
    pub fn flags(&mut self, message: Message, modseq: u64, flags: &Flags) -> Result<()> {
        self.modseq(message.0, modseq);
        let known = self.flags.entry((message, modseq)).or_insert_with(|| flags.clone());
        ensure!(known == flags, "{message:?} has at {modseq} both {known:?} and {flags:?}");
        Ok(())
    }

    /// A mailbox has come so far.
    pub fn modseq(&mut self, mailbox: Mailbox, modseq: u64) {
        let highest = self.highest.entry(mailbox).or_default();
        *highest = (*highest).max(modseq);
    }

    /// How far mailboxes have come at least.
    pub fn highest(&self) -> &BTreeMap<Mailbox, u64> {
        &self.highest
    }

    /// What a message is never changes.
    pub fn email(&mut self, message: Message, email: &str, size: u64) -> Result<()> {
        let said = (email.to_owned(), size);
        let known = self.emails.entry(message).or_insert_with(|| said.clone());
        ensure!(*known == said, "{message:?} was {known:?} and is {said:?}");
        Ok(())
    }

    pub fn size(&self, message: Message) -> u64 {
        self.emails.get(&message).map_or(0, |(_, size)| *size)
    }

    /// The one is a copy of the other.
    pub fn copied(&mut self, from: Message, to: Message) {
        self.copies.push((from, to));
    }

    /// Judges what can be judged of copies.
    pub fn judge_copies(&mut self) -> Result<()> {
        let (emails, mut left) = (&self.emails, Vec::new());
        for (from, to) in std::mem::take(&mut self.copies) {
            match (emails.get(&from), emails.get(&to)) {
                (Some(one), Some(other)) => {
                    self.n_copies += 1;
                    ensure!(one == other, "{from:?} was told to be {to:?}: {one:?}, {other:?}");
                }
                _ => left.push((from, to)),
            }
        }
        self.copies = left;
        Ok(())
    }

    pub fn object(&mut self, mailbox: Mailbox, object: &str) -> Result<()> {
        let known = self.objects.entry(mailbox).or_insert_with(|| object.to_owned());
        ensure!(known == object, "{mailbox:?} is both {known} and {object}");
        Ok(())
    }

    /// A client was told that these are gone.
    pub fn gone(&mut self, mailbox: Mailbox, uids: impl IntoIterator<Item = u32>) {
        self.gone.extend(uids.into_iter().map(|uid| (mailbox, uid)));
    }

    /// A client was told that the mailbox is gone.
    pub fn left(&mut self, mailbox: Mailbox) {
        self.left.insert(mailbox);
    }

    /// These are there now, so nobody may have been told that they are not.
    pub fn there(&self, mailbox: Mailbox, uids: impl IntoIterator<Item = u32>) -> Result<()> {
        ensure!(!self.left.contains(&mailbox), "{mailbox:?} is there; a client was sent away");
        for uid in uids {
            let told = self.gone.contains(&(mailbox, uid));
            ensure!(!told, "UID {uid} of {mailbox:?} is there; a client was told that it is gone");
        }
        Ok(())
    }
}
