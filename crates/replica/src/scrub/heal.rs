//! Healing. A segment with any damage is emptied and deleted, whatever the damage is: good bodies are
//! copied forward, bad ones come from a peer by their digest, and log entries give way to a
//! checkpoint. So nothing is ever written over, and a sector that rots is not used again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use journal::{ReplicaId, SegmentId};
use mailbox::Digest;

use crate::core::Core;
use crate::disk::Disk;
use crate::index::IndexError;
use crate::scrub::Pace;
use crate::state::Applying;
use crate::status::Role;

/// Bodies looked at at a time.
const PAGE: usize = 2048;
/// Bodies copied or fetched at a time.
const BATCH: usize = 16;
/// The journal heard of a purge by then.
const PURGE_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why something is not healed yet. It is tried again.
type NotYet = String;

impl Disk {
    /// Heals what can be healed now, and copies what is good at this pace.
    pub(super) async fn heal(self: &Arc<Self>, pace: &Pace) {
        let _healing = self.healing().await;
        let due = self.ledger().due();
        for segment in due {
            if self.is_closing() {
                return;
            }
            let emptied = self.empty(segment, pace).await;
            if emptied == Ok(true) {
                let n_places = self.ledger().healed(segment);
                tracing::info!(%segment, n_places, "damaged segment was emptied and deleted");
                continue;
            }
            self.ledger().put_off(segment);
            let why = emptied.err().unwrap_or_else(|| "it is needed here".into());
            tracing::debug!(%segment, why, "damaged segment is not emptied yet");
        }
        for core in self.cores() {
            let Some(core) = core.upgrade() else { continue };
            let replica = core.claim.replica;
            if !core.applying.store().is_damaged() && self.ledger().indexes.remove(&replica) {
                self.ledger().n_repaired += 1;
                tracing::info!(replica, "index was built anew");
            }
            let checkpoints = &core.applying.checkpoints;
            if checkpoints.is_doubted() {
                // Why the result is dropped: it is tried again.
                drop(core.write_checkpoint().await);
            }
            if !checkpoints.is_doubted() && self.ledger().checkpoints.remove(&replica) {
                self.ledger().n_repaired += 1;
                tracing::info!(replica, "checkpoint was written anew");
            }
        }
    }

    /// Empties a segment and deletes it. True if it is gone.
    async fn empty(self: &Arc<Self>, segment: SegmentId, pace: &Pace) -> Result<bool, NotYet> {
        let is_there = |this: &Self| this.journal().segments().binary_search(&segment).is_ok();
        if !is_there(self) {
            return Ok(true);
        }
        if self.journal().segments().last() == Some(&segment) {
            let this = self.clone();
            let rolled = self.blocking().run(move || this.journal().roll()).await;
            rolled.map_err(words)?.map_err(words)?;
        }
        let mut is_empty = true;
        for weak in self.cores() {
            let Some(core) = weak.upgrade() else { continue };
            core.release_log(segment).await?;
            drop(core);
            is_empty &= self.leave(&weak, segment, pace).await?;
        }
        if is_empty {
            let this = self.clone();
            let collected = self.blocking().run(move || this.collect()).await;
            collected.map_err(words)?.map_err(words)?;
        }
        Ok(!is_there(self))
    }

    /// Gives all live bodies of a replica in this segment another place. True if none is left.
    async fn leave(
        &self,
        weak: &Weak<Core>,
        segment: SegmentId,
        pace: &Pace,
    ) -> Result<bool, NotYet> {
        let mut after: Option<Digest> = None;
        let mut lost = Vec::new();
        loop {
            let applying = running(weak)?.applying.clone();
            // Why aside: rows are looked for as well.
            let page = self.blocking().run(move || live_in(&applying, segment, after)).await;
            let Some((last, here)) = page.map_err(words)?.map_err(words)? else { break };
            after = Some(last);
            for some in here.chunks(BATCH) {
                let (n_bytes, bad) = running(weak)?.copy_on(some).await?;
                lost.extend(bad);
                // Why nothing is held meanwhile: who stopped cannot be begun anew before it is let go of.
                pace.spend(self, n_bytes).await;
                if self.is_closing() {
                    return Err("scrub ends".into());
                }
            }
        }
        Ok(lost.is_empty() || self.restore(running(weak)?.as_ref(), lost).await)
    }

    /// Fetches bodies from any peer. True if all came.
    pub(super) async fn restore(&self, core: &Core, mut lost: Vec<Digest>) -> bool {
        let replica = core.claim.replica;
        let (mut n_silent, asked) = (0, lost.clone());
        for peer in core.peers() {
            if lost.is_empty() {
                break;
            }
            let Ok(found) = core.fetch(&peer, &lost).await else {
                n_silent += 1;
                continue;
            };
            if core.keep(&found).await {
                lost.retain(|digest| !found.iter().any(|one| one.chunk.digest == *digest));
            }
        }
        let n_restored = asked.len() - lost.len();
        if n_restored > 0 {
            tracing::info!(replica, n_restored, "damaged bodies came from peers");
        }
        let mut ledger = self.ledger();
        let is_healed = |digest: &Digest| asked.contains(digest) && !lost.contains(digest);
        ledger.unrepairable.retain(|(of, digest)| *of != replica || !is_healed(digest));
        if n_silent == 0 {
            for digest in &lost {
                if ledger.unrepairable.insert((replica, *digest)) {
                    tracing::error!(replica, shard = %core.network.shard, %digest,
                        "body is damaged here and no peer has it");
                }
            }
        }
        lost.is_empty()
    }
}

impl Core {
    /// Gives those of these bodies that are good another place. Their bytes, and which are not good.
    async fn copy_on(&self, bodies: &[Digest]) -> Result<(u64, Vec<Digest>), NotYet> {
        let (mut good, mut bad) = (Vec::with_capacity(bodies.len()), Vec::new());
        for digest in bodies {
            match self.good_copy(digest).await {
                Some(stored) => good.push(stored),
                None => bad.push(*digest),
            }
        }
        if !self.keep(&good).await {
            return Err("bodies cannot be copied".into());
        }
        Ok((good.iter().map(|stored| stored.bytes.len() as u64).sum(), bad))
    }

    /// Needs no log entry of this segment or one before it any more.
    async fn release_log(&self, segment: SegmentId) -> Result<(), NotYet> {
        let replica = ReplicaId(self.claim.replica);
        let disk = &self.claim.disk;
        let Some(last) = disk.journal().last_index_upto(replica, segment) else { return Ok(()) };
        let applied = self.applying.store().applied().log_id;
        if applied.is_none_or(|applied| applied.index < last) {
            return Err(format!("entry {last} is not applied yet"));
        }
        if !self.checkpoint().await {
            return Err("no checkpoint yet".into());
        }
        self.raft.trigger().purge_log(last).await.map_err(words)?;
        let began = tokio::time::Instant::now();
        while disk.journal().last_index_upto(replica, segment).is_some() {
            if began.elapsed() > PURGE_MAX {
                return Err("the log is not cut yet".into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// A replica, as long as it runs.
fn running(weak: &Weak<Core>) -> Result<Arc<Core>, NotYet> {
    let core = weak.upgrade().filter(|core| core.status().role != Role::Stopped);
    core.ok_or_else(|| "the replica stopped".into())
}

/// Bodies that are needed and lie in a segment, of a page of all of them, and where the next page begins;
/// `None` after the last one.
fn live_in(
    applying: &Applying,
    segment: SegmentId,
    after: Option<Digest>,
) -> Result<Option<(Digest, Vec<Digest>)>, IndexError> {
    let page = applying.store().bodies(after, PAGE)?;
    let Some((last, _)) = page.last() else { return Ok(None) };
    let here = page.iter().filter(|(_, at)| at.segment == segment).map(|(digest, _)| *digest);
    Ok(Some((*last, here.filter(|digest| applying.is_live(digest)).collect())))
}

fn words(error: impl std::fmt::Display) -> NotYet {
    error.to_string()
}
