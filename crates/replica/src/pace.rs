//! Which follower is told a little later, and less often for it.
//!
//! All followers but one make a majority with the leader. The last one is asked and told a moment
//! later than they: what comes meanwhile travels together, which costs both ends and its disk less.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::raft::{Payload, Types};

/// How long entries for the last follower gather. Shorter than a heartbeat by far: a leader that is
/// lost leaves it no further behind than that, and so it loses an election to the others only then.
const GATHER: Duration = Duration::from_millis(20);
/// Limit: bytes of a request after which the next one follows at once. Who is so far behind gathers
/// nothing by waiting.
const LARGE_BYTES: usize = 256 << 10;

/// Another follower that took so long to sync entries is slower than the last one that gathers: it is the
/// last one then that makes the majority. Longer than a sync on a busy machine, or that would count.
const SLOW: Duration = Duration::from_millis(50);
/// Where a sync of the leader's own disk takes so long, theirs will as well, and entries gather for nobody:
/// whichever follower syncs them first makes the majority.
const SLOW_DISK: Duration = Duration::from_millis(3);
/// Unless the others take so much longer than that sync, numerator and denominator: then it is mostly cores
/// that are short, and what gathers leaves more of them. With cores to spare, over a short way, it is 1.3.
const BUSY: (u32, u32) = (5, 3);
/// But not more than so many times as long: then it is the way to them, or their disks are slower than this
/// one, and the last follower may be who makes the majority. With full cores it is two.
const FAR: u32 = 3;
/// How much one answer counts for how long the others take.
const SMOOTHING: u64 = 8;
/// For how long nothing gathers after leadership was offered to another. As long as a node that goes
/// down tries; when nobody took it by then, this one leads on.
const HURRY: Duration = Duration::from_secs(2);

/// Who the followers are, and whether the last one may wait. A read asks all of them at once whether
/// this replica still leads, and an entry needs all but one.
#[derive(Default)]
pub(crate) struct Followers {
    known: Mutex<Known>,
    /// One that is not the last did not answer: nobody waits.
    is_short: AtomicBool,
    /// One that is not the last was slow to sync: no entries wait.
    is_slow: AtomicBool,
    /// How long those that are not the last take to sync entries, smoothed; 0 before the first.
    took_us: AtomicU64,
    /// Until then no entries wait.
    hurries_until: watch::Sender<Option<Instant>>,
}

/// Followers, and how many send to each: one that ends may be heard of after the next one began.
type Known = BTreeMap<u64, usize>;

/// One is a follower as long as this lives.
pub(crate) struct Following {
    followers: Arc<Followers>,
    follower: u64,
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut known = self.followers.known();
        if let Some(n_senders) = known.get_mut(&self.follower) {
            *n_senders -= 1;
            if *n_senders == 0 {
                known.remove(&self.follower);
            }
        }
    }
}

impl Followers {
    /// Counts one as a follower as long as what is given back lives.
    pub fn add(self: &Arc<Self>, follower: u64) -> Following {
        *self.known().entry(follower).or_default() += 1;
        Following { followers: self.clone(), follower }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this one may be asked later who leads.
    pub fn may_wait(&self, follower: u64) -> bool {
        let has_others = self.known().len() > 1 && self.is_last(follower);
        has_others && !self.is_short.load(Ordering::Relaxed)
    }

    /// Whether entries for this one may gather.
    fn may_gather(&self, follower: u64) -> bool {
        let is_slow = self.is_slow.load(Ordering::Relaxed);
        self.may_wait(follower) && !is_slow && !self.hurries()
    }

    /// Leadership is being handed over: whoever takes it needs all entries first, so what gathers goes
    /// now, and for a while nothing gathers.
    pub fn hurry(&self) {
        self.hurries_until.send_replace(Some(Instant::now() + HURRY));
    }

    fn hurries(&self) -> bool {
        self.hurries_until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Ends when entries for this one gathered long enough; None if they may not.
    fn gathering(&self, follower: u64) -> Option<BoxFuture<'static, ()>> {
        // Why first: who hurries after the look ends it.
        let mut hurries = self.hurries_until.subscribe();
        if !self.may_gather(follower) {
            return None;
        }
        Some(async move { drop(timeout(GATHER, hurries.changed()).await) }.boxed())
    }

    /// Whether one answered when it was asked.
    pub fn answered(&self, follower: u64, is_there: bool) {
        if !self.is_last(follower) {
            self.is_short.store(!is_there, Ordering::Relaxed);
        }
    }

    /// How long one took to sync entries, and how long a sync takes here.
    pub fn synced(&self, follower: u64, took: Duration, own_sync: Duration) {
        if self.is_last(follower) {
            return;
        }
        let mostly = self.smooth(took);
        let is_busy = mostly * BUSY.1 >= own_sync * BUSY.0 && mostly <= own_sync * FAR;
        let is_slow = took >= SLOW || (own_sync >= SLOW_DISK && !is_busy);
        self.is_slow.store(is_slow, Ordering::Relaxed);
    }

    fn smooth(&self, took: Duration) -> Duration {
        let took = took.as_micros() as u64;
        let before = match self.took_us.load(Ordering::Relaxed) {
            0 => took,
            before => before,
        };
        let mostly = (before * (SMOOTHING - 1) + took) / SMOOTHING;
        self.took_us.store(mostly, Ordering::Relaxed);
        Duration::from_micros(mostly)
    }

    fn is_last(&self, follower: u64) -> bool {
        self.known().keys().next_back() == Some(&follower)
    }
}

/// The requests for one follower, asked for less often while it may wait. openraft makes a request
/// when it is asked for one, of all entries there are by then.
pub(crate) struct Paced<S> {
    requests: S,
    follower: u64,
    followers: Arc<Followers>,
    gathering: Option<BoxFuture<'static, ()>>,
}

impl<S> Paced<S> {
    pub fn new(requests: S, follower: u64, followers: Arc<Followers>) -> Self {
        Self { requests, follower, followers, gathering: None }
    }
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Stream for Paced<S> {
    type Item = AppendEntriesRequest<Types>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(gathering) = &mut self.gathering {
            ready!(gathering.poll_unpin(context));
            self.gathering = None;
        }
        let request = ready!(Pin::new(&mut self.requests).poll_next(context));
        let is_small = |request: &AppendEntriesRequest<Types>| {
            !request.entries.is_empty() && size_bytes(request) < LARGE_BYTES
        };
        if request.as_ref().is_some_and(is_small) {
            self.gathering = self.followers.gathering(self.follower);
        }
        Poll::Ready(request)
    }
}

/// What the entries of a request take.
pub(crate) fn size_bytes(request: &AppendEntriesRequest<Types>) -> usize {
    let size = |payload: &Payload| match payload {
        Payload::Normal(proposal) => proposal.size_bytes(),
        Payload::Blank | Payload::Membership(_) => 0,
    };
    request.entries.iter().map(|entry| size(&entry.payload)).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;
    use crate::raft::{Entry, LeaderId, LogId, Proposal, Vote};

    /// Requests with one entry each, of so many bytes; none for 0.
    fn paced(
        followers: &Arc<Followers>,
        follower: u64,
        sizes: &[usize],
    ) -> Paced<impl Stream<Item = AppendEntriesRequest<Types>> + Unpin + use<>> {
        let log_id = |index| LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
        let request = |(index, size): (usize, &usize)| {
            let command = Bytes::from(vec![0; *size]);
            let payload = Payload::Normal(Proposal { command, inline: Arc::default() });
            let entry = Entry { log_id: log_id(index as u64 + 1), payload };
            AppendEntriesRequest {
                vote: Vote::new(1, 1),
                prev_log_id: Some(log_id(index as u64)),
                entries: (*size > 0).then_some(entry).into_iter().collect(),
                leader_commit: None,
            }
        };
        let requests: Vec<_> = sizes.iter().enumerate().map(request).collect();
        Paced::new(stream::iter(requests), follower, followers.clone())
    }

    /// Followers 2 and 3, who never leave.
    fn followers() -> Arc<Followers> {
        let followers = Arc::<Followers>::default();
        [2, 3].into_iter().for_each(|follower| std::mem::forget(followers.add(follower)));
        followers
    }

    /// How many requests are made without waiting.
    fn n_at_once(
        mut paced: Paced<impl Stream<Item = AppendEntriesRequest<Types>> + Unpin>,
    ) -> usize {
        std::iter::from_fn(|| paced.next().now_or_never().flatten()).count()
    }

    #[tokio::test]
    async fn entries_gather_for_the_last_follower_only() {
        let followers = followers();
        assert_eq!(n_at_once(paced(&followers, 2, &[100; 4])), 4);
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 1);
        let begun = Instant::now();
        assert_eq!(paced(&followers, 3, &[100; 4]).count().await, 4);
        assert!(begun.elapsed() >= GATHER * 4);
    }

    #[tokio::test]
    async fn nothing_gathers_behind_a_large_request_or_one_without_entries() {
        let followers = followers();
        assert_eq!(n_at_once(paced(&followers, 3, &[LARGE_BYTES, 0, 0, 100, 100])), 4);
    }

    #[tokio::test]
    async fn nobody_waits_while_another_follower_does_not_answer() {
        let followers = followers();
        followers.answered(2, false);
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 4);
        // The last one itself does not count.
        followers.answered(2, true);
        followers.answered(3, false);
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 1);
    }

    #[tokio::test]
    async fn no_entries_gather_while_another_follower_is_slow() {
        let followers = followers();
        followers.synced(2, SLOW, Duration::ZERO);
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 4);
        assert!(followers.may_wait(3), "it answers, only its disk is slow");
        followers.synced(2, SLOW / 2, Duration::ZERO);
        followers.synced(3, SLOW, SLOW);
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 1);
    }

    #[tokio::test]
    async fn where_all_disks_are_slow_entries_gather_only_if_cores_are_short() {
        let followers = followers();
        let synced = |took| followers.synced(2, took, SLOW_DISK);
        synced(SLOW_DISK * 4 / 3);
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 4);
        synced(SLOW_DISK * 2);
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 4, "once");
        (0..SMOOTHING * 2).for_each(|_| synced(SLOW_DISK * 2));
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 1);
        (0..SMOOTHING * 2).for_each(|_| synced(SLOW_DISK * 4 / 3));
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 4);
        (0..SMOOTHING * 4).for_each(|_| synced(SLOW_DISK * (FAR + 2)));
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 4, "its disk is slower");
    }

    #[tokio::test]
    async fn what_gathers_goes_when_leadership_is_handed_over() {
        let followers = followers();
        let mut paced = paced(&followers, 3, &[100; 4]);
        assert!(paced.next().now_or_never().flatten().is_some());
        let next = tokio::spawn(async move { (paced.next().await.is_some(), paced) });
        tokio::task::yield_now().await;
        let begun = Instant::now();
        followers.hurry();
        let (is_some, paced) = next.await.unwrap();
        assert!(is_some && begun.elapsed() < GATHER);
        assert_eq!(n_at_once(paced), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_relieved_lets_entries_gather_again() {
        let followers = followers();
        followers.hurry();
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 4);
        tokio::time::advance(HURRY).await;
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 1);
    }

    #[tokio::test]
    async fn who_left_is_not_the_last_one_any_more() {
        let followers = followers();
        let (left, again) = (followers.add(4), followers.add(4));
        assert!(!followers.may_wait(3) && followers.may_wait(4));
        drop(left);
        assert!(followers.may_wait(4), "somebody sends to it");
        drop(again);
        assert!(followers.may_wait(3) && !followers.may_wait(4));
    }

    #[tokio::test]
    async fn an_only_follower_never_waits() {
        let followers = Arc::<Followers>::default();
        let _following = followers.add(3);
        assert_eq!(n_at_once(paced(&followers, 3, &[100; 4])), 4);
    }
}
