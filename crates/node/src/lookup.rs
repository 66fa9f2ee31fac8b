//! Questions for which much is looked through: so many at once, on threads that may block, and each no
//! longer than somebody waits for its answer. What else blocks has threads left. Each disk has places of its
//! own: one that hangs keeps them.

use std::sync::Arc;

use api::mail::Effort;
use mailbox::Query;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit: questions that may look through a whole mailbox, for each core: one reads while another computes.
const MAILBOXES_PER_CORE_MAX: usize = 2;
/// Limit: questions of a page, or for the names of an account, of which a frontend lets an account ask a few
/// at once. Each is over soon, so who only lists messages or mailboxes does not wait behind searches.
const PAGES_MAX: usize = 64;

/// The places there are for the replicas of a disk.
pub(crate) struct Lookups {
    mailboxes: Arc<Semaphore>,
    pages: Arc<Semaphore>,
}

/// One of them; of a question that needs none it is empty.
#[derive(Clone)]
pub(crate) struct Place(Option<Arc<OwnedSemaphorePermit>>);

impl Lookups {
    /// For one of so many disks.
    pub fn new(n_disks: usize) -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = |n_places: usize| Arc::new(Semaphore::new(n_places.div_ceil(n_disks.max(1))));
        Self { mailboxes: share(n_cores * MAILBOXES_PER_CORE_MAX), pages: share(PAGES_MAX) }
    }

    fn places(&self, query: &Query) -> Option<Arc<Semaphore>> {
        match Effort::of(query) {
            Effort::Little => None,
            Effort::Page | Effort::Names => Some(Arc::clone(&self.pages)),
            Effort::Mailbox => Some(Arc::clone(&self.mailboxes)),
        }
    }

    /// Waits for a place, as long as whoever asks does.
    pub async fn place(&self, query: &Query) -> Place {
        let Some(places) = self.places(query) else { return Place(None) };
        let place = places.acquire_owned().await.expect("it is never closed");
        Place(Some(Arc::new(place)))
    }

    /// A place if one is free.
    pub fn free_place(&self, query: &Query) -> Option<Place> {
        let Some(places) = self.places(query) else { return Some(Place(None)) };
        Some(Place(Some(Arc::new(places.try_acquire_owned().ok()?))))
    }
}

impl Place {
    /// Whether the question needs one.
    pub fn is_needed(&self) -> bool {
        self.0.is_some()
    }

    /// Reads on this thread, or on one that may block. `read` is told whether its result is still wanted:
    /// not when this future was dropped. It keeps the place to its end.
    pub async fn run<T: Send + 'static>(
        self,
        read: impl FnOnce(&dyn Fn() -> bool) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let Some(place) = self.0 else { return read(&|| true) };
        let waits = Arc::new(());
        let seen = Arc::downgrade(&waits);
        let reading = tokio::task::spawn_blocking(move || {
            let _place = place;
            read(&|| seen.strong_count() > 0)
        });
        let done = reading.await.ok().flatten();
        drop(waits);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mailbox::command::OfMailbox;
    use mailbox::query::{Search, SearchKey};
    use mailbox::{AccountId, MailboxId, UidSet};
    use tokio::time::timeout;

    use super::*;

    const COMES: Duration = Duration::from_secs(30);

    fn search() -> Query {
        let of = OfMailbox { account: AccountId([1; 16]), mailbox: MailboxId(1) };
        Query::Search(Search { of, among: UidSet::all(), key: SearchKey::All })
    }

    #[tokio::test]
    async fn so_many_look_through_mailboxes_and_those_that_are_given_up_end() {
        let lookups = Lookups::new(1);
        let n_places = lookups.mailboxes.available_permits();
        let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..n_places {
            let (place, began) = (lookups.place(&search()).await, began.clone());
            readers.spawn(place.run(move |is_wanted| {
                began.send(()).unwrap();
                while is_wanted() {
                    std::thread::yield_now();
                }
                None::<()>
            }));
        }
        for _ in 0..n_places {
            begun.recv().await.unwrap();
        }
        assert!(lookups.free_place(&search()).is_none(), "it waits");
        assert!(Lookups::new(999).free_place(&search()).is_some(), "another disk has its own");
        let little = Query::Account(AccountId([1; 16]));
        assert_eq!(lookups.place(&little).await.run(|_| Some(1)).await, Some(1));
        assert!(!lookups.place(&little).await.is_needed());
        let names = lookups.place(&Query::Mailboxes(AccountId([1; 16]))).await;
        assert!(names.is_needed(), "who lists a tree keeps no thread that others wait for");
        assert_eq!(names.run(|_| Some(1)).await, Some(1), "nor does it wait for searches");
        readers.abort_all();
        let free = timeout(COMES, lookups.mailboxes.acquire_many(n_places as u32));
        drop(free.await.expect("they end when nobody waits for them"));
    }
}
