//! The bugs put in on purpose. None of them is in the code that ships: each wraps what the run hands
//! to it.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use journal::sim::SimStorage;
use journal::{Space, Storage, StorageFile};
use mailbox::command::OfMailbox;
use mailbox::{Bodies, ChunkRef, Command, Digest, Entry, Query, Rows, Source, Uid};
use replica::{Machine, MachineApplied, MailMachine};

use crate::plan::Bug;

/// The mailbox state machine, or one that gives a UID twice.
pub struct SimMachine {
    pub bug: Option<Bug>,
}

impl Machine for SimMachine {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        let applied = MailMachine.apply(rows, command, inline);
        if self.bug == Some(Bug::ReuseUid)
            && let Ok(Entry { request, .. }) = mailbox::codec::decode::<Entry>(command)
            && let Command::Expunge(expunge) = &request.command
        {
            let of = OfMailbox { account: expunge.account, mailbox: expunge.mailbox };
            free_last_uid(rows, of, expunge.uids.iter().last());
        }
        applied
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        MailMachine.is_chunk_live(rows, digest)
    }
}

struct NoBodies;

impl Bodies for NoBodies {
    fn chunk(&self, _chunk: &ChunkRef) -> Option<Bytes> {
        None
    }
}

fn uid_next(rows: &dyn Source, of: OfMailbox) -> Option<u32> {
    match mailbox::answer(rows, &NoBodies, &Query::Mailboxes(of.account)) {
        mailbox::Answer::Mailboxes(all, _) => {
            let found = all.iter().find(|info| info.of == of)?;
            Some(found.uid_next.value())
        }
        _ => None,
    }
}

/// If the greatest UID of a mailbox was expunged, takes UIDNEXT back by one: wherever its octets stand
/// in a row of this shard, the row that makes the answer change is the right one.
fn free_last_uid(rows: &mut Rows<'_>, of: OfMailbox, expunged: Option<Uid>) {
    let Some(next) = uid_next(rows, of) else { return };
    if expunged.is_none_or(|uid| uid.value() + 1 != next) {
        return;
    }
    let (old, new) = (mailbox::codec::encode(&next), mailbox::codec::encode(&(next - 1)));
    if old.len() != new.len() {
        return;
    }
    let mut all = Vec::new();
    rows.scan(&[], &[0xff; 64], &mut |key, value| {
        all.push((key.to_vec(), value.to_vec()));
        true
    });
    for (key, value) in all {
        for at in 0..(value.len() + 1).saturating_sub(old.len()) {
            if value[at..at + old.len()] != old[..] {
                continue;
            }
            let mut changed = value.clone();
            changed[at..at + old.len()].copy_from_slice(&new);
            rows.put(key.clone(), changed);
            if uid_next(rows, of) == Some(next - 1) {
                return;
            }
            rows.put(key.clone(), value.clone());
        }
    }
}

/// The disk as it is, or one that lies about its syncs.
pub fn storage(bug: Option<Bug>, storage: SimStorage) -> Arc<dyn Storage> {
    match bug {
        Some(Bug::AckBeforeSync) => Arc::new(Liar(storage)),
        _ => Arc::new(storage),
    }
}

/// What a process does before it opens its disk: the buggy one forgets which replicas miss bodies.
pub fn at_start(bug: Option<Bug>, dir: &Path) {
    if bug == Some(Bug::CampaignIncomplete)
        && let Ok(replicas) = std::fs::read_dir(dir.join("checkpoints"))
    {
        for replica in replicas.flatten() {
            drop(std::fs::remove_file(replica.path().join("incomplete")));
        }
    }
}

/// A chunk as it is served: by a node that verifies nothing, some of them with rot in them.
pub fn served(bug: Option<Bug>, bytes: Bytes) -> Bytes {
    if bug != Some(Bug::SkipChecksum) || !Digest::of(&bytes).0[0].is_multiple_of(16) {
        return bytes;
    }
    let mut rotten = bytes.to_vec();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    rotten.into()
}

struct Liar(SimStorage);

struct LiarFile(Arc<dyn StorageFile>);

impl Storage for Liar {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(LiarFile(self.0.create(name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(LiarFile(self.0.open(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.0.unlink(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
}

impl StorageFile for LiarFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(offset, slices)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    /// Says "done".
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
}
