//! Entries as they lie in the journal: those that are not in memory any more.

use std::io;
use std::sync::PoisonError;

use journal::{Pointer, Record, Stored};

use super::{Log, size_bytes};
use crate::apart::Asking;
use crate::codec;
use crate::raft::{Entry, LogId};

/// Whether an entry is of use without its bodies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bodies {
    Needed,
    Dispensable,
}

/// Why an entry cannot be read back.
#[derive(Debug)]
pub(super) struct Unread {
    error: io::Error,
    /// It is not there as it was written. Else nobody looked: the process may have too many files open.
    pub is_damaged: bool,
}

impl Unread {
    fn damaged<E: Into<Box<dyn std::error::Error + Send + Sync>>>(why: E) -> Self {
        Self { error: io::Error::other(why), is_damaged: true }
    }
}

impl From<journal::Error> for Unread {
    fn from(error: journal::Error) -> Self {
        let is_damaged =
            matches!(error, journal::Error::Corrupt { .. } | journal::Error::Missing { .. });
        Self { error: io::Error::other(error), is_damaged }
    }
}

impl Log {
    /// Exactly this entry, if it is here and whole.
    pub async fn exactly(&self, log_id: LogId) -> Option<Entry> {
        let pointer = {
            let state = self.lock();
            let slot = state.slot(log_id.index)?;
            if slot.leader_id != log_id.leader_id {
                return None;
            }
            if let Some(entry) = state.cached(log_id.index) {
                return Some(entry.clone());
            }
            slot.pointer?
        };
        self.read(log_id.index, pointer).await.ok().filter(|entry| entry.log_id == log_id)
    }

    /// A page of entries: up to so many bytes, at least one. Rotten bodies are left out only if they are not
    /// `needed`.
    pub(super) async fn page(
        &self,
        start: u64,
        end: u64,
        (bytes_max, needed): (usize, Bodies),
    ) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in start..end {
            let pointer = {
                let state = self.lock();
                let Some(slot) = state.slot(index) else { break };
                if let Some(entry) = state.cached(index) {
                    bytes += size_bytes(entry);
                    found.push(entry.clone());
                    None
                } else {
                    slot.pointer
                }
            };
            if let Some(pointer) = pointer {
                let entry = match self.read(index, pointer).await {
                    Ok(entry) => entry,
                    Err(unread) => {
                        let found = self.replace(index, (pointer, needed), &unread).await;
                        found.ok_or(unread.error)?
                    }
                };
                bytes += size_bytes(&entry);
                found.push(entry);
            }
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(found)
    }

    /// Reads an entry back, verified.
    pub(super) async fn read(&self, index: u64, pointer: Pointer) -> Result<Entry, Unread> {
        let this = self.clone();
        let read = move |_: &Asking| this.read_now(index, pointer);
        match self.inner.appender.apart.look(read).await {
            Ok(read) => read,
            Err(error) => Err(Unread { error, is_damaged: false }),
        }
    }

    fn read_now(&self, index: u64, pointer: Pointer) -> Result<Entry, Unread> {
        let Stored { record, blobs } = self.inner.appender.journal.read_record(pointer)?;
        let Record::Append { replica, index: found, meta, blobs: bodies } = record else {
            return Err(Unread::damaged("not an entry"));
        };
        if replica != self.inner.replica || found != index {
            return Err(Unread::damaged("another replica's entry"));
        }
        let mut bytes = bodies.into_iter().map(|blob| blob.bytes);
        let entry = codec::read_entry(index, meta, &mut bytes).map_err(Unread::damaged)?;
        self.note_blobs(index, pointer, blobs);
        Ok(entry)
    }

    /// Where the bodies of an entry are that was read. It may have been cut and replaced meanwhile.
    fn note_blobs(&self, index: u64, pointer: Pointer, blobs: Vec<Pointer>) {
        if let Some(slot) = self.lock().slot_mut(index)
            && slot.pointer == Some(pointer)
        {
            slot.blobs = blobs.into();
        }
    }

    /// An entry that cannot be read back: without its bodies, or from a peer.
    async fn replace(
        &self,
        index: u64,
        (pointer, needed): (Pointer, Bodies),
        unread: &Unread,
    ) -> Option<Entry> {
        let leader_id = self.lock().slot(index)?.leader_id;
        let donor = self.inner.donor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(donor) = &donor
            && unread.is_damaged
        {
            donor.found_damage(pointer);
        }
        if needed == Bodies::Dispensable
            && let Some(entry) = self.read_bare(index, pointer).await
        {
            return Some(entry);
        }
        donor?.entry(LogId { leader_id, index }).await
    }

    /// An entry whose bodies may have rotted: they are empty. Where they lie is still told.
    pub(super) async fn read_bare(&self, index: u64, pointer: Pointer) -> Option<Entry> {
        let this = self.clone();
        let read = move |_: &Asking| this.read_bare_now(index, pointer);
        self.inner.appender.apart.look(read).await.ok().flatten()
    }

    fn read_bare_now(&self, index: u64, pointer: Pointer) -> Option<Entry> {
        let found = self.inner.appender.journal.read_entry(pointer);
        let (replica, found, meta, blobs) = found.ok()?;
        if replica != self.inner.replica || found != index {
            return None;
        }
        let entry = codec::read_bare_entry(index, meta).ok()?;
        self.note_blobs(index, pointer, blobs);
        Some(entry)
    }
}
