//! Whether the replicas of a shard hold the same rows: the leader compares the additive digests of its
//! followers with its own, at the same entry of the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use api::peer::PeerError;
use bytes::{BufMut, Bytes};
use mailbox::RowDigest;

use crate::codec::{BadBytes, Reader};
use crate::core::Core;
use crate::handler::{bad, refused};
use crate::local::Mark;
use crate::raft::LogId;
use crate::status::Role;
use crate::wire::kind;

/// Limit: digests kept. Replicas end their batches at different entries, so that one digest each
/// would seldom be one of the same entry.
const SAMPLES_MAX: usize = 1024;
/// Limit: digests in one request.
const ASKED_MAX: usize = 256;

/// The digests after the last batches that were applied, oldest first.
#[derive(Default)]
pub(crate) struct Samples(Mutex<VecDeque<(u64, RowDigest)>>);

impl Samples {
    /// Rows after this entry add up to this.
    pub fn note(&self, log_id: Option<LogId>, digest: RowDigest) {
        let Some(log_id) = log_id else { return };
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back((log_id.index, digest));
    }

    fn newest(&self, limit: usize) -> BTreeMap<u64, RowDigest> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().rev().take(limit).copied().collect()
    }
}

/// What a follower holds after one entry.
struct Held {
    member: u64,
    index: u64,
    digest: RowDigest,
}

impl Core {
    /// Compares all members with this replica, if it leads, and has those built anew of which a
    /// majority says otherwise.
    pub async fn compare(&self) {
        let status = self.status();
        self.note_now();
        if status.role != Role::Leader {
            self.care.found_differing(0);
            return;
        }
        let ours = self.applying.samples.newest(ASKED_MAX);
        let mut asked = Vec::with_capacity(16 * ours.len());
        ours.iter().rev().for_each(|(index, digest)| put(&mut asked, *index, digest));
        let asked = Bytes::from(asked);
        let mut held = Vec::new();
        for peer in self.peers() {
            let answer = peer.call(kind::COMPARE, asked.clone(), Vec::new(), peer.patience()).await;
            let Ok(answer) = answer else { continue };
            if let Ok(Some((index, digest))) = take(&mut Reader(answer.meta)) {
                held.push(Held { member: peer.id(), index, digest });
            }
        }
        let differs = |one: &&Held| ours.get(&one.index).is_some_and(|ours| *ours != one.digest);
        let differing: Vec<&Held> = held.iter().filter(differs).collect();
        self.care.found_differing(differing.len() as u64);
        for one in &differing {
            let (member, index) = (one.member, one.index);
            tracing::error!(shard = %self.network.shard, member, index,
                "rows of this member differ from the leader's");
        }
        let n_members = status.voters.len() + status.learners.len();
        self.judge(&held, &differing, n_members).await;
    }

    /// Why: on a shard where nothing happens a restart would leave nothing to compare.
    fn note_now(&self) {
        let applied = self.applying.store().applied();
        let is_known = self.applying.samples.newest(1).keys().next_back().copied();
        if applied.log_id.map(|log_id| log_id.index) > is_known {
            self.applying.samples.note(applied.log_id, applied.digest);
        }
    }

    /// Who is wrong, if a majority says so.
    async fn judge(&self, held: &[Held], differing: &[&Held], n_members: usize) {
        let n_agreeing = 1 + held.len() - differing.len();
        if n_agreeing * 2 > n_members {
            for peer in self.peers() {
                let Some(one) = differing.iter().find(|one| one.member == peer.id()) else {
                    continue;
                };
                let mut meta = Vec::new();
                put(&mut meta, one.index, &one.digest);
                // Why the result is dropped: the next comparison asks again.
                let asked = peer.call(kind::REBUILD, meta.into(), Vec::new(), peer.patience());
                drop(asked.await);
            }
            return;
        }
        let same = |one: &Held| {
            let is_same = |other: &&&Held| other.index == one.index && other.digest == one.digest;
            differing.iter().filter(is_same).count()
        };
        if differing.iter().any(|one| same(one) * 2 > n_members) {
            self.doubt_own_rows().await;
        }
    }

    /// The rows of this replica, which leads, are wrong.
    pub async fn doubt_own_rows(&self) {
        // Why asked: who may lack bodies does not lead, and gets them only from one that lacks none. If all
        // waited for each other, nobody would ever lead again.
        let has_whole_peer = self.has_whole_peer().await;
        self.doubt_rows(has_whole_peer);
    }

    /// Answers with this replica's digest after the newest entry both know one of.
    pub fn serve_compare(&self, meta: Bytes) -> Result<Bytes, PeerError> {
        self.note_now();
        let ours = self.applying.samples.newest(SAMPLES_MAX);
        let mut asked = Reader(meta);
        let mut out = Vec::new();
        while let Some((index, _)) = take(&mut asked).map_err(bad)? {
            if let Some(digest) = ours.get(&index) {
                put(&mut out, index, digest);
                break;
            }
        }
        Ok(out.into())
    }

    /// A majority holds other rows than this replica after an entry.
    pub fn serve_rebuild(&self, meta: Bytes) -> Result<Bytes, PeerError> {
        let told = take(&mut Reader(meta)).map_err(bad)?.ok_or_else(|| refused("no digest"))?;
        // Why: it may have been built anew since it told that digest.
        let ours = self.applying.samples.newest(SAMPLES_MAX);
        if ours.get(&told.0) != Some(&told.1) {
            return Err(refused("not the rows that are here now"));
        }
        // Why: who asks leads, and so lacks none.
        self.doubt_rows(true);
        Ok(Bytes::new())
    }

    /// These rows are wrong: they are built anew from checkpoint and log, and if that did not help,
    /// nothing here is trusted.
    fn doubt_rows(&self, has_whole_peer: bool) {
        let (shard, replica) = (self.network.shard, self.claim.replica);
        let disk = &self.claim.disk;
        if disk.count_doubt(replica) > 1 {
            tracing::error!(%shard, replica, "rows differ from a majority's after a rebuild");
            self.care.has_diverged();
            return;
        }
        tracing::error!(%shard, replica, "rows differ from a majority's: index is built anew");
        disk.found_bad_index(replica);
        // Order: before the mark, or whoever fills up these rows may take it away.
        self.rows_go();
        // Why: garbage collection asked these rows which bodies are needed. Why not the only voter: who may
        // lack some does not lead, and nobody else could.
        if has_whole_peer
            && !self.is_only_voter()
            && let Err(error) = self.applying.local.mark(Mark::Incomplete)
        {
            tracing::error!(%shard, replica, %error, "cannot be marked as incomplete");
        }
        if let Err(error) = self.applying.local.doubt_index() {
            tracing::error!(%shard, replica, %error, "index cannot be marked as doubted");
        }
        self.applying.store().give_up();
    }
}

fn put(out: &mut Vec<u8>, index: u64, digest: &RowDigest) {
    let digest = mailbox::codec::encode(digest);
    out.put_u64(index);
    out.put_u8(digest.len() as u8);
    out.put_slice(&digest);
}

fn take(reader: &mut Reader) -> Result<Option<(u64, RowDigest)>, BadBytes> {
    if reader.0.is_empty() {
        return Ok(None);
    }
    let index = reader.u64()?;
    let len = usize::from(reader.u8()?);
    let digest = mailbox::codec::decode(&reader.bytes(len)?).map_err(|_| BadBytes("digest"))?;
    Ok(Some((index, digest)))
}
