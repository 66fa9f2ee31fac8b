//! What a client knows of a mailbox: only what it was told, by the rules of RFC 3501, 7162 and 9051.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use super::words::{Flags, Items};

/// What is kept of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub uid: Option<u32>,
    /// `None` if they have to be asked for.
    pub flags: Option<Flags>,
    /// With which those flags were told.
    pub modseq: Option<u64>,
    /// The greatest that was told.
    pub modseq_seen: u64,
}

/// What is kept of a mailbox between two visits.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub modseq: u64,
    /// Whether every message was known.
    pub is_whole: bool,
    pub slots: BTreeMap<u32, Slot>,
}

/// The selected mailbox.
#[derive(Debug, Default)]
pub struct Open {
    pub name: String,
    pub uid_validity: u32,
    pub read_only: bool,
    pub slots: Vec<Slot>,
    pub keywords: Flags,
    /// Up to where the client may believe that it was told everything (RFC 7162 6).
    pub modseq: u64,
    /// Of the last HIGHESTMODSEQ, and the greatest MODSEQ, since the last tagged response.
    pub code: Option<u64>,
    pub told_modseq: u64,
    /// Counts EXISTS that brought messages, and messages that went.
    pub n_moves: usize,
}

impl Open {
    pub fn exists(&mut self, n: usize) -> Result<()> {
        ensure!(n >= self.slots.len(), "{n} EXISTS, and {} were there", self.slots.len());
        self.n_moves += usize::from(n > self.slots.len());
        self.slots.resize(n, Slot::default());
        Ok(())
    }

    /// The UID, if it is known.
    pub fn expunge(&mut self, seqnum: usize) -> Result<Option<u32>> {
        let there = (1..=self.slots.len()).contains(&seqnum);
        ensure!(there, "{seqnum} EXPUNGE, and {} are there", self.slots.len());
        self.n_moves += 1;
        Ok(self.slots.remove(seqnum - 1).uid)
    }

    /// RFC 7162 3.2.10: messages of the mailbox as the client knows it.
    pub fn vanished(&mut self, uids: &BTreeSet<u32>) -> Result<()> {
        self.n_moves += 1;
        for uid in uids {
            let at = match self.at(*uid) {
                Some(at) => at,
                None => self.unknown_for(*uid).with_context(|| {
                    format!("VANISHED {uid}, which is not there: {:?}", self.uids())
                })?,
            };
            self.slots.remove(at);
        }
        Ok(())
    }

    /// Where a message of this UID is.
    pub fn at(&self, uid: u32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.uid == Some(uid))
    }

    /// A message without a known UID that may have this one.
    fn unknown_for(&self, uid: u32) -> Option<usize> {
        let behind = self.slots.iter().rposition(|slot| slot.uid.is_some_and(|known| known < uid));
        let at = behind.map_or(0, |at| at + 1);
        self.slots.get(at).is_some_and(|slot| slot.uid.is_none()).then_some(at)
    }

    /// Takes a FETCH; the UID of the message, if it is known.
    pub fn fetch(&mut self, seqnum: usize, items: &Items) -> Result<Option<u32>> {
        let n = self.slots.len();
        let at = seqnum.checked_sub(1).context("number 0")?;
        ensure!(at < n, "{seqnum} FETCH, and {n} are there");
        if let Some(uid) = items.uid {
            let before = self.slots[..at].iter().filter_map(|slot| slot.uid).next_back();
            let behind = self.slots[at + 1..].iter().find_map(|slot| slot.uid);
            let fits = before.is_none_or(|before| before < uid)
                && behind.is_none_or(|behind| uid < behind);
            ensure!(fits, "{seqnum} has UID {uid} between {before:?} and {behind:?}");
            let known = *self.slots[at].uid.get_or_insert(uid);
            ensure!(known == uid, "{seqnum} has UID {uid}, and had {known}");
        }
        if let Some(flags) = &items.flags {
            let new = flags.iter().find(|flag| !self.keywords.contains(*flag));
            ensure!(new.is_none(), "{new:?} was not in FLAGS: {:?}", self.keywords);
        }
        let slot = &mut self.slots[at];
        if let Some(modseq) = items.modseq {
            let seen = slot.modseq_seen;
            ensure!(modseq >= seen, "{seqnum} FETCH: MODSEQ {modseq} after {seen}");
            (slot.modseq, slot.modseq_seen) = (Some(modseq), modseq);
            self.told_modseq = self.told_modseq.max(modseq);
        }
        if let Some(flags) = &items.flags {
            slot.flags = Some(flags.clone());
            if items.modseq.is_none() {
                slot.modseq = None;
            }
        }
        Ok(slot.uid)
    }

    /// `HIGHESTMODSEQ` was told.
    pub fn highest(&mut self, modseq: u64) {
        self.code = Some(modseq);
    }

    /// RFC 7162 6: at a tagged response the client knows how far it is.
    pub fn at_tagged(&mut self) {
        let told = std::mem::take(&mut self.told_modseq);
        self.modseq = match self.code.take() {
            Some(code) => code,
            None => self.modseq.max(told),
        };
    }

    /// The flags of these have to be asked for.
    pub fn doubt<'u>(&mut self, uids: impl Iterator<Item = &'u u32>) {
        for uid in uids {
            if let Some(at) = self.at(*uid) {
                self.slots[at].flags = None;
            }
        }
    }

    pub fn uids(&self) -> Vec<u32> {
        self.slots.iter().filter_map(|slot| slot.uid).collect()
    }

    /// Whether a message has to be asked for.
    pub fn is_whole(&self) -> bool {
        self.slots.iter().all(|slot| slot.uid.is_some() && slot.flags.is_some())
    }

    /// What the client keeps when it goes: up to the first message that it does not know.
    pub fn kept(&self) -> Kept {
        let known = self.slots.iter().map_while(|slot| Some((slot.uid?, slot.clone())));
        let slots: BTreeMap<u32, Slot> = known.collect();
        Kept { modseq: self.modseq, is_whole: slots.len() == self.slots.len(), slots }
    }
}

impl Open {
    /// What a client does that was told what changed, but not what is gone: if nothing can be gone, what
    /// it knew and what it was told is all there is. Otherwise it asks for everything.
    pub fn merge(&mut self, kept: &Kept, n_moves: usize) -> Result<()> {
        let mut all = kept.slots.clone();
        for slot in &self.slots {
            if let Some(uid) = slot.uid {
                let before = all.get(&uid).map_or(0, |slot| slot.modseq_seen);
                let seen = slot.modseq_seen;
                ensure!(seen >= before, "UID {uid}: MODSEQ {seen} after {before}");
                all.insert(uid, slot.clone());
            }
        }
        let is_all = kept.is_whole && all.len() == self.slots.len();
        if !is_all || self.n_moves != n_moves {
            self.slots.iter_mut().for_each(|slot| *slot = Slot::default());
            return Ok(());
        }
        for (slot, known) in self.slots.iter_mut().zip(all.into_values()) {
            ensure!(slot.uid.is_none() || slot.uid == known.uid, "{slot:?} is not {known:?}");
            *slot = known;
        }
        Ok(())
    }
}
