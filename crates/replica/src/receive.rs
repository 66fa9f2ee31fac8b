//! A snapshot on its way in: files of a peer's checkpoint, piece by piece, resumed where they broke
//! off, and counted only when every hash is right and the rows add up.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::peer::PeerError;
use bytes::{BufMut, Bytes};

use crate::checkpoint::{Checkpoint, INCOMING, PARTS_MAX, Part, sync_dir};
use crate::codec::{self, BadBytes, Reader};
use crate::core::Core;
use crate::handler::{bad, refused};
use crate::raft::{SnapshotMeta, Vote};
use crate::state::Snapshot;

/// What is being received.
#[derive(Default)]
pub(crate) struct Receiving {
    parts: Vec<(PathBuf, u64)>,
    /// What is to be sent of them.
    missing_bytes: u64,
    /// There was no room for that, and it was said.
    is_refused: bool,
    /// Files that were here did not verify: all are to be sent.
    is_own_doubted: bool,
}

struct Offer {
    vote: Vote,
    /// Names and lengths.
    parts: Vec<(String, u64)>,
}

impl Offer {
    fn read(meta: Bytes) -> Result<Self, BadBytes> {
        let mut reader = Reader(meta);
        let vote = reader.vote()?;
        let n_parts = reader.u32()? as usize;
        if n_parts == 0 || n_parts > PARTS_MAX {
            return Err(BadBytes("number of files"));
        }
        let mut parts = Vec::with_capacity(n_parts);
        for _ in 0..n_parts {
            let len = usize::from(reader.u8()?);
            let name = String::from_utf8(reader.bytes(len)?.to_vec());
            let name = name.map_err(|_| BadBytes("name of a file"))?;
            let is_plain = |byte: u8| byte.is_ascii_digit() || byte == b'-';
            let stem = name.strip_suffix(".ckpt").ok_or(BadBytes("name of a file"))?;
            if stem.is_empty() || !stem.bytes().all(is_plain) {
                return Err(BadBytes("name of a file"));
            }
            parts.push((name, reader.u64()?));
        }
        Ok(Self { vote, parts })
    }
}

impl Receiving {
    /// Says how much of each file is here already, in this directory.
    pub fn begin(&mut self, dir: &Path, meta: Bytes) -> Result<Bytes, PeerError> {
        let offer = Offer::read(meta).map_err(bad)?;
        std::fs::create_dir_all(dir).map_err(refused)?;
        for item in std::fs::read_dir(dir).map_err(refused)? {
            let path = item.map_err(refused)?.path();
            if !offer.parts.iter().any(|(name, _)| dir.join(name) == path) {
                std::fs::remove_file(path).map_err(refused)?;
            }
        }
        let mut have = Vec::new();
        self.parts.clear();
        self.missing_bytes = 0;
        for (name, len) in offer.parts {
            let path = dir.join(name);
            let (mut found, n_names) =
                path.metadata().map_or((0, 0), |metadata| (metadata.len(), metadata.nlink()));
            // Why also one with another name: it is of the own checkpoint, and nothing is written to that.
            if found > len || (found < len && n_names > 1) {
                std::fs::remove_file(&path).map_err(refused)?;
                found = 0;
            }
            if found == 0 && !self.is_own_doubted {
                found = take_own(&path, len);
            }
            have.put_u64(found);
            self.missing_bytes = self.missing_bytes.saturating_add(len - found);
            self.parts.push((path, len));
        }
        Ok(have.into())
    }

    /// The next piece of a file.
    pub fn piece(&mut self, meta: Bytes, bodies: &[Bytes]) -> Result<Bytes, PeerError> {
        let mut reader = Reader(meta);
        let number = reader.u32().map_err(bad)? as usize;
        let offset = reader.u64().map_err(bad)?;
        let (path, len) = self.parts.get(number).ok_or_else(|| refused("no such file"))?;
        let [bytes] = bodies else { return Err(refused("one body expected")) };
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(refused)?;
        let found = file.metadata().map_err(refused)?.len();
        if found != offset || offset + bytes.len() as u64 > *len {
            return Err(refused("not the next piece"));
        }
        file.write_all(bytes).map_err(refused)?;
        Ok(Bytes::new())
    }

    /// All pieces are here: verifies them and gives the snapshot with the leader's vote.
    pub fn end(&mut self, meta: Bytes) -> Result<(Vote, Snapshot), PeerError> {
        let offer = Offer::read(meta).map_err(bad)?;
        let assembled = self.assemble();
        self.is_own_doubted = assembled.is_err();
        if assembled.is_err() {
            for (path, _) in &self.parts {
                // Why the result is dropped: a file that stays is refused by its hash again.
                drop(std::fs::remove_file(path));
            }
        }
        let checkpoint = assembled.map_err(refused)?;
        let applied = checkpoint.applied();
        let meta = SnapshotMeta {
            last_log_id: applied.log_id,
            last_membership: applied.membership.clone(),
        };
        Ok((offer.vote, Snapshot { meta, snapshot: checkpoint }))
    }

    fn assemble(&self) -> io::Result<Checkpoint> {
        let mut parts = Vec::new();
        for (path, _) in &self.parts {
            // Durability: the files are synced before openraft hears of the snapshot.
            std::fs::File::open(path)?.sync_all()?;
            parts.push(Part::open(path)?);
        }
        if let Some(dir) = self.parts.first().and_then(|(path, _)| path.parent()) {
            sync_dir(dir)?;
        }
        let checkpoint = Checkpoint::assemble(parts)?;
        // Invariant: what is installed takes the place of a good checkpoint, so it is known here that it
        // gives its rows; a refusal costs nothing yet.
        checkpoint.rows(&mut |_, _| Ok(()))?;
        Ok(checkpoint)
    }
}

/// Takes a file of the own checkpoint that has the name and the size of one that is offered, so that it need
/// not be sent: both tell of the same entries. Its hash, and what all rows add up to, is looked at in the
/// end. Gives how much of it is here then.
fn take_own(path: &Path, len: u64) -> u64 {
    let place = path.parent().and_then(Path::parent).zip(path.file_name());
    let own = place.map(|(dir, name)| dir.join(name));
    let is_same = |own: &PathBuf| own.metadata().is_ok_and(|metadata| metadata.len() == len);
    // Why no failure: then it is sent.
    let is_taken = own.filter(is_same).is_some_and(|own| std::fs::hard_link(own, path).is_ok());
    if is_taken { len } else { 0 }
}

/// What a leader is told; it offers the snapshot again.
const NO_ROOM: &str = "there is no room for the snapshot";

/// A snapshot is offered. Why aside: files of one that broke off are looked for.
pub(crate) async fn begin(core: &Core, meta: Bytes) -> Result<Bytes, PeerError> {
    let mut receiving = core.receiving.clone().lock_owned().await;
    if core.is_installing() {
        // Why: openraft may not have looked at its files yet.
        return Err(refused("a snapshot is being installed"));
    }
    let (dir, disk) = (incoming(core), core.claim.disk.clone());
    let (shard, replica) = (core.network.shard, core.claim.replica);
    let begin = move || {
        let have = receiving.begin(&dir, meta)?;
        let n_bytes = receiving.missing_bytes;
        let has_room = disk.has_room_for_snapshot(n_bytes);
        // Why only once: it is offered again and again.
        if !has_room && !receiving.is_refused {
            tracing::warn!(%shard, replica, n_bytes, "no room for a snapshot, it is refused");
        }
        receiving.is_refused = !has_room;
        if has_room { Ok(have) } else { Err(refused(NO_ROOM)) }
    };
    core.claim.disk.blocking().run(begin).await.map_err(refused)?
}

/// A piece comes. Why aside: a disk may take long to take it; the next one waits for its turn.
pub(crate) async fn piece(
    core: &Core,
    meta: Bytes,
    bodies: Vec<Bytes>,
) -> Result<Bytes, PeerError> {
    core.care.received(bodies.iter().map(Bytes::len).sum());
    let mut receiving = core.receiving.clone().lock_owned().await;
    let disk = core.claim.disk.clone();
    let take = move || {
        // Why again: others take room meanwhile, snapshots of other replicas among them.
        let n_bytes: usize = bodies.iter().map(Bytes::len).sum();
        if !disk.has_room_for_snapshot(n_bytes as u64) {
            return Err(refused(NO_ROOM));
        }
        receiving.piece(meta, &bodies)
    };
    core.claim.disk.blocking().run(take).await.map_err(refused)?
}

/// All of it came: it is verified and installed.
pub(crate) async fn end(core: &Arc<Core>, meta: Bytes) -> Result<Bytes, PeerError> {
    let mut receiving = core.receiving.clone().lock_owned().await;
    let end = move || (receiving.end(meta), receiving);
    let (received, receiving) = core.claim.disk.blocking().run(end).await.map_err(refused)?;
    let received = received?;
    let installing = core.installing();
    // Why only now: what is offered in between would take the files away.
    drop(receiving);
    // Why a task: openraft goes on with it when the connection it came by is gone, and this answer with
    // it; as long as it does, nobody must take the rows there are for its rows.
    let install = async move { install(&installing, received).await };
    tokio::spawn(install).await.map_err(refused)?
}

/// Installs what was received, and answers with this replica's vote.
async fn install(core: &Core, (vote, snapshot): (Vote, Snapshot)) -> Result<Bytes, PeerError> {
    let installed = core.raft.install_full_snapshot(vote, snapshot).await.map_err(refused)?;
    let dir = incoming(core);
    // Why the result is dropped: what stays is removed when the next snapshot comes.
    drop(core.claim.disk.blocking().run(move || std::fs::remove_dir_all(dir)).await);
    let mut out = Vec::new();
    codec::put_vote(&mut out, &installed.vote);
    Ok(out.into())
}

fn incoming(core: &Core) -> PathBuf {
    let dir: &Path = core.applying.checkpoints.dir();
    dir.join(INCOMING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Head;
    use crate::store::Applied;

    /// A base of these rows that says that it has one of key 1, and how it is offered.
    fn base(dir: &Path, rows: &[u8]) -> (Arc<Part>, Bytes) {
        let mut applied = Applied::default();
        applied.digest.add(&[1], &[1]);
        let head = Head { from: 0, applied };
        let row = |key: &u8| Ok((vec![*key], Some(vec![*key])));
        std::fs::create_dir_all(dir).unwrap();
        let part = Part::write(dir, &head, &mut rows.iter().map(row)).unwrap();
        let mut offer = Vec::new();
        codec::put_vote(&mut offer, &Vote::new(1, 1));
        offer.put_u32(1);
        offer.put_u8(head.name().len() as u8);
        offer.put_slice(head.name().as_bytes());
        offer.put_u64(part.len);
        (part, offer.into())
    }

    /// Receives it.
    fn receive(dir: &Path, rows: &[u8]) -> Result<(Vote, Snapshot), PeerError> {
        let (part, offer) = base(&dir.join("theirs"), rows);
        let mut receiving = Receiving::default();
        receiving.begin(&dir.join("incoming"), offer.clone())?;
        let bytes = part.bytes_at(0, part.len as usize).map_err(refused)?;
        // The first file, from its beginning.
        receiving.piece(Bytes::from_static(&[0; 12]), &[bytes])?;
        receiving.end(offer)
    }

    #[test]
    fn files_that_lack_rows_are_no_snapshot() {
        let (whole, lacking) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(receive(whole.path(), &[1]).is_ok());
        assert!(receive(lacking.path(), &[]).is_err());
        let left = std::fs::read_dir(lacking.path().join("incoming")).unwrap();
        assert_eq!(left.count(), 0, "they would only be refused again");
    }

    #[test]
    fn a_file_that_is_here_is_not_sent_unless_it_rotted() {
        let dir = tempfile::tempdir().unwrap();
        let (part, offer) = base(dir.path(), &[1]);
        let whole = Bytes::from(part.len.to_be_bytes().to_vec());
        let nothing = Bytes::from_static(&[0; 8]);
        let incoming = dir.path().join("incoming");
        let mut receiving = Receiving::default();
        assert_eq!(receiving.begin(&incoming, offer.clone()).unwrap(), whole);
        assert_eq!(receiving.missing_bytes, 0);
        assert!(receiving.end(offer.clone()).is_ok());
        std::fs::remove_dir_all(&incoming).unwrap();
        let mut bytes = std::fs::read(&part.path).unwrap();
        bytes[part.len as usize - 40] ^= 1;
        std::fs::write(&part.path, &bytes).unwrap();
        assert_eq!(receiving.begin(&incoming, offer.clone()).unwrap(), whole);
        assert!(receiving.end(offer.clone()).is_err());
        assert_eq!(receiving.begin(&incoming, offer).unwrap(), nothing);
        assert_eq!(receiving.missing_bytes, part.len);
    }

    #[test]
    fn nothing_is_written_to_a_file_of_the_own_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let (part, offer) = base(dir.path(), &[1]);
        let before = std::fs::read(&part.path).unwrap();
        let incoming = dir.path().join("incoming");
        let mut receiving = Receiving::default();
        receiving.begin(&incoming, offer.clone()).unwrap();
        // Somebody else leads, whose file of the same entries is longer.
        let mut longer = offer[..offer.len() - 8].to_vec();
        longer.put_u64(part.len + 8);
        let have = receiving.begin(&incoming, longer.into()).unwrap();
        assert_eq!(have, Bytes::from_static(&[0; 8]));
        receiving.piece(Bytes::from_static(&[0; 12]), &[Bytes::from_static(b"theirs")]).unwrap();
        assert_eq!(std::fs::read(&part.path).unwrap(), before);
    }
}
