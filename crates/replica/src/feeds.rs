//! Followers that are sent a checkpoint. The log is kept for them from where it ends, until they have what
//! came meanwhile as well: else they would need the next checkpoint when they have this one, again and again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A follower to which nothing was sent for so long, and that got no further, is away. Longer than a node
/// takes to be started again; what it has received of a checkpoint it still has then.
const AWAY_AFTER: Duration = Duration::from_secs(120);

/// See the module. Limit: one for each member of the group.
#[derive(Default)]
pub(crate) struct Feeds(Mutex<BTreeMap<u64, Feed>>);

struct Feed {
    /// The first entry it needs of the log.
    next_index: u64,
    /// Shared by whoever sends to it.
    sending: Arc<()>,
    /// When somebody last sent to it, or it got further.
    lately: Instant,
}

/// A checkpoint is being sent as long as this lives.
pub(crate) struct Feeding {
    feeds: Arc<Feeds>,
    follower: u64,
    _sending: Arc<()>,
}

impl Drop for Feeding {
    fn drop(&mut self) {
        if let Some(feed) = self.feeds.lock().get_mut(&self.follower) {
            feed.lately = Instant::now();
        }
    }
}

impl Feed {
    fn is_sent(&self) -> bool {
        Arc::strong_count(&self.sending) > 1
    }

    fn is_away(&self) -> bool {
        !self.is_sent() && self.lately.elapsed() > AWAY_AFTER
    }
}

impl Feeds {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Feed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A follower that answers is sent a checkpoint, which ends before this entry.
    pub fn begin(self: &Arc<Self>, follower: u64, next_index: u64) -> Feeding {
        let sending = Arc::new(());
        let feed = Feed { next_index, sending: sending.clone(), lately: Instant::now() };
        self.lock().insert(follower, feed);
        Feeding { feeds: self.clone(), follower, _sending: sending }
    }

    /// Whether there is such a follower.
    pub fn is_any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// The first entry that one of them needs. `matched` is what the members have; who got its checkpoint,
    /// and has all entries up to `near`, goes on like any other.
    pub fn first_needed(&self, matched: &BTreeMap<u64, u64>, near: u64) -> Option<u64> {
        let mut feeds = self.lock();
        feeds.retain(|follower, feed| {
            // Why not at once: a new member is not told of yet in what openraft last said.
            let Some(at) = matched.get(follower) else { return feed.is_sent() };
            if *at >= feed.next_index {
                (feed.next_index, feed.lately) = (at + 1, Instant::now());
            }
            // Why the first: in a short log everybody is near, also who has nothing of the checkpoint yet.
            let lacks_much = at + 1 < feed.next_index || *at < near;
            feed.is_sent() || (lacks_much && !feed.is_away())
        });
        feeds.values().map(|feed| feed.next_index).min()
    }

    /// Nothing is kept for any of them any more.
    pub fn give_up(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(at: u64) -> BTreeMap<u64, u64> {
        BTreeMap::from([(1, 5000), (2, 5000), (3, at)])
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_kept_until_who_got_a_checkpoint_has_what_came_meanwhile() {
        let feeds = Arc::<Feeds>::default();
        assert!(!feeds.is_any());
        let feeding = feeds.begin(3, 1000);
        tokio::time::advance(AWAY_AFTER * 9).await;
        assert_eq!(feeds.first_needed(&matched(0), 4900), Some(1000), "it is being sent");
        assert_eq!(
            feeds.first_needed(&matched(0), 0),
            Some(1000),
            "and needs what comes behind it"
        );
        drop(feeding);
        assert_eq!(feeds.first_needed(&matched(999), 4900), Some(1000), "it has the checkpoint");
        tokio::time::advance(AWAY_AFTER).await;
        assert_eq!(feeds.first_needed(&matched(3000), 4900), Some(3001), "it gets further");
        tokio::time::advance(AWAY_AFTER).await;
        assert_eq!(feeds.first_needed(&matched(4000), 4900), Some(4001));
        assert_eq!(feeds.first_needed(&matched(4900), 4900), None, "it is level");
        assert!(!feeds.is_any());
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_kept_while_sending_broke_off_however_short_it_is() {
        let feeds = Arc::<Feeds>::default();
        drop(feeds.begin(3, 1000));
        assert_eq!(feeds.first_needed(&matched(0), 0), Some(1000), "it is sent the rest soon");
        assert_eq!(feeds.first_needed(&matched(998), 0), Some(1000));
        assert_eq!(feeds.first_needed(&matched(999), 0), None, "it has the checkpoint");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_for_who_is_away_or_left() {
        let feeds = Arc::<Feeds>::default();
        drop(feeds.begin(3, 1000));
        assert_eq!(feeds.first_needed(&matched(0), 4900), Some(1000), "it may come back soon");
        tokio::time::advance(AWAY_AFTER + Duration::from_millis(1)).await;
        assert_eq!(feeds.first_needed(&matched(0), 4900), None);
        let feeding = feeds.begin(4, 1000);
        assert_eq!(feeds.first_needed(&matched(0), 4900), Some(1000), "it is a member soon");
        drop(feeding);
        assert_eq!(feeds.first_needed(&matched(0), 4900), None, "it is none any more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_sent_a_later_checkpoint_needs_less_of_the_log() {
        let feeds = Arc::<Feeds>::default();
        let before = feeds.begin(3, 1000);
        let _feeding = feeds.begin(3, 2000);
        drop(before);
        tokio::time::advance(AWAY_AFTER * 2).await;
        assert_eq!(feeds.first_needed(&matched(0), 4900), Some(2000), "the later one is sent");
    }
}
