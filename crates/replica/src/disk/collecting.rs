//! When the journal of a disk is collected.

use std::sync::{Arc, Weak};
use std::time::Duration;

use journal::{Collected, Pointer, ReplicaId};
use mailbox::Digest;
use tokio::time::Instant;

use super::Disk;
use crate::error::Error;

/// Where little is free, but growth is not refused, it rests so many times as long as a collection took.
const SHORT_REST: u32 = 4;
/// Where nothing came free although little is, the next one comes after this part of the usual time.
const VAIN_PART: u32 = 8;
/// Limit: it rests so long at least.
const REST_MIN: Duration = Duration::from_secs(1);

/// The journal of a disk is being collected; while this lives, nobody else begins to.
struct Turn {
    disk: Arc<Disk>,
    rest: Duration,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        state.is_collecting = false;
        state.collect_at = Some(Instant::now() + self.rest);
    }
}

impl Disk {
    /// Frees segments in which nothing is alive any more, and empties nearly dead ones. Blocks.
    pub fn collect(&self) -> Result<Collected, Error> {
        let applying =
            |replica: ReplicaId| self.lock().running.get(&replica.0).and_then(Weak::upgrade);
        let is_live = |replica: ReplicaId, digest: &journal::Digest, pointer: Pointer| {
            if self.lock().dead.contains(&replica.0) {
                return false;
            }
            // Why true: of a replica that does not run nothing is known.
            let Some(applying) = applying(replica) else { return true };
            applying.is_body_live(&Digest(*digest), pointer)
        };
        let moved = |replica: ReplicaId, digest: &journal::Digest, old: Pointer, new: Pointer| {
            if let Some(applying) = applying(replica) {
                applying.moved(&Digest(*digest), old, new);
            }
        };
        Ok(self.journal().collect(&is_live, &moved)?)
    }

    /// Collects now and then, whoever of the replicas asks, and never twice at once.
    pub(crate) async fn collect_in_turn(self: &Arc<Self>) {
        let every = self.options.upkeep.collect_every;
        {
            let mut state = self.lock();
            let is_early = state.collect_at.is_some_and(|at| Instant::now() < at);
            if is_early || state.is_collecting {
                return;
            }
            state.is_collecting = true;
        }
        // Why it goes along: it goes on when whoever asked is gone.
        let mut turn = Turn { disk: self.clone(), rest: every };
        let collect = move || {
            let began = Instant::now();
            let collected = turn.disk.collect();
            if let Ok(done) = &collected {
                turn.rest = rest(every, began.elapsed(), turn.disk.refuses_growth(), done);
            }
            collected
        };
        match self.blocking().run(collect).await {
            Ok(Ok(collected)) if collected.deleted.is_empty() => {}
            Ok(Ok(collected)) => {
                let (n_segments, n_bytes) = (collected.deleted.len(), collected.freed_bytes);
                let (n_copied, is_short) = (collected.moved_bytes, collected.is_short);
                tracing::info!(n_segments, n_bytes, n_copied, is_short, "journal segments freed");
            }
            Ok(Err(error)) => tracing::warn!(%error, "journal cannot be collected"),
            Err(error) => tracing::error!(%error, "collecting the journal panicked"),
        }
    }
}

/// How long it is until the next collection after one that took so long. Where there is little space and some
/// more may come free it hurries, and where growth is refused it hardly rests.
fn rest(every: Duration, took: Duration, is_full: bool, done: &Collected) -> Duration {
    let goes_on = done.is_cut || !done.deleted.is_empty();
    let rest = match (is_full || done.is_short, goes_on) {
        (false, _) => every,
        (true, false) => every / VAIN_PART,
        (true, true) if is_full => took,
        (true, true) => took.saturating_mul(SHORT_REST),
    };
    rest.clamp(REST_MIN.min(every), every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_hurries_where_space_is_short_and_some_may_come_free() {
        let (every, took) = (Duration::from_secs(300), Duration::from_secs(20));
        let ample = Collected { is_cut: true, ..Collected::default() };
        assert_eq!(rest(every, took, false, &ample), every);
        let short = Collected { is_short: true, ..ample };
        assert_eq!(rest(every, took, false, &short), took * SHORT_REST);
        assert_eq!(rest(every, took, true, &short), took);
        assert_eq!(rest(every, Duration::ZERO, true, &short), REST_MIN);
        assert_eq!(rest(every, every * 9, true, &short), every);
        let vain = Collected { is_cut: false, ..short };
        assert_eq!(rest(every, took, true, &vain), every / VAIN_PART);
        assert_eq!(rest(Duration::from_millis(10), took, true, &vain), Duration::from_millis(10));
    }
}
