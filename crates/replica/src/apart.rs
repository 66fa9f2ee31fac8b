//! What one disk is asked while somebody waits. A disk that hangs keeps the threads that ask it: they are
//! none of those that serve other disks as well, and there are only so many of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::blocking::Blocking;

/// Limit: threads that read one disk of several for others than its own replicas, and as many that wait for
/// who writes to an index of it. The runtime has 512 for all disks.
const PLACES_MAX: usize = 32;

/// How a disk is asked; clones are of the same disk.
#[derive(Clone)]
pub(crate) struct Apart {
    blocking: Blocking,
    /// The threads that wait here serve other disks as well.
    has_others: bool,
    places: Arc<Semaphore>,
    /// Why others: who reads does not wait behind those that wait for a writer.
    places_to_wait: Arc<Semaphore>,
    asked: Arc<Mutex<Asked>>,
    /// Where times are counted from.
    began: Instant,
}

#[derive(Default)]
struct Asked {
    n_begun: u64,
    /// What is under way, and when the disk last answered to it, in microseconds.
    since: BTreeMap<u64, Arc<AtomicU64>>,
}

/// The disk is asked as long as this lives.
pub(crate) struct Asking {
    asked: Arc<Mutex<Asked>>,
    number: u64,
    began: Instant,
    since: Arc<AtomicU64>,
}

impl Asking {
    /// What was asked for last was answered; the next thing is asked for. Why without a lock: whoever applies
    /// says so all the time.
    pub fn goes_on(&self) {
        self.since.store(micros_since(self.began), Ordering::Relaxed);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        lock(&self.asked).since.remove(&self.number);
    }
}

impl Apart {
    /// For one disk, which is or is not the only one.
    pub fn new(blocking: Blocking, has_others: bool) -> Self {
        let has_others = has_others && blocking.is_threaded;
        let places = || Arc::new(Semaphore::new(PLACES_MAX));
        let (places, places_to_wait) = (places(), places());
        let (asked, began) = (Arc::default(), Instant::now());
        Self { blocking, has_others, places, places_to_wait, asked, began }
    }

    /// Whether the threads that wait here serve other disks as well.
    pub fn has_others(&self) -> bool {
        self.has_others
    }

    /// For how long something that was looked for was not answered.
    pub fn pending(&self) -> Duration {
        let oldest = {
            let asked = lock(&self.asked);
            asked.since.values().map(|since| since.load(Ordering::Relaxed)).min()
        };
        let pending = oldest.map(|since| micros_since(self.began).saturating_sub(since));
        Duration::from_micros(pending.unwrap_or(0))
    }

    /// Looks for something that is mostly in memory, for a replica of the disk: on this thread if it serves
    /// no other disk.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Asking) -> T + Send + 'static,
    ) -> io::Result<T> {
        if !self.has_others {
            return Ok(look(&self.begin()));
        }
        let this = self.clone();
        self.blocking.run(move || look(&this.begin())).await
    }

    /// Reads what somebody else wants: on a thread that may block, of which there are so many if there are
    /// other disks.
    pub async fn serve<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.run_in(&self.places, read).await
    }

    /// The same for what waits for who writes to an index.
    pub async fn serve_after_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.run_in(&self.places_to_wait, work).await
    }

    async fn run_in<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        if !self.has_others {
            return self.blocking.run(work).await;
        }
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let work = move || {
            let _place = place;
            work()
        };
        self.blocking.run(work).await
    }

    fn begin(&self) -> Asking {
        let since = Arc::new(AtomicU64::new(micros_since(self.began)));
        let mut asked = lock(&self.asked);
        asked.n_begun += 1;
        let number = asked.n_begun;
        asked.since.insert(number, since.clone());
        Asking { asked: self.asked.clone(), number, began: self.began, since }
    }
}

fn micros_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn lock(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use futures_util::FutureExt as _;

    use super::*;

    const COMES: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn who_looks_at_the_only_disk_does_so_here_and_now() {
        let apart = Apart::new(Blocking { is_threaded: true }, false);
        let here = std::thread::current().id();
        let looked = apart.look(move |_| std::thread::current().id() == here);
        assert!(looked.now_or_never().unwrap().unwrap());
        assert_eq!(apart.pending(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_no_thread_that_serves_others_and_is_seen_to_hang() {
        let apart = Apart::new(Blocking { is_threaded: true }, true);
        let (go, may_go) = channel::<()>();
        let this = apart.clone();
        let looking = tokio::spawn(async move {
            let hang = move |asking: &Asking| {
                may_go.recv().unwrap();
                asking.goes_on();
                may_go.recv().is_err()
            };
            this.look(hang).await.unwrap()
        });
        let long = Duration::from_millis(20);
        let seen = async {
            while apart.pending() < long {
                tokio::task::yield_now().await;
            }
        };
        // This runtime has one thread: were it kept, nothing would be seen.
        tokio::time::timeout(COMES, seen).await.unwrap();
        let before = apart.pending();
        go.send(()).unwrap();
        let goes_on = async {
            while apart.pending() >= before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(COMES, goes_on).await.unwrap();
        drop(go);
        assert!(looking.await.unwrap());
        assert_eq!(apart.pending(), Duration::ZERO);
    }

    #[test]
    fn who_gets_rows_waits_for_nobody_else_who_asks_the_disk() {
        let apart = Apart::new(Blocking { is_threaded: true }, false);
        let asking = apart.begin();
        let others = lock(&apart.asked);
        let (told, hears) = channel();
        let goes_on = std::thread::spawn(move || {
            asking.goes_on();
            told.send(()).unwrap();
        });
        hears.recv_timeout(COMES).unwrap();
        drop(others);
        goes_on.join().unwrap();
        assert_eq!(apart.pending(), Duration::ZERO);
    }

    #[tokio::test]
    async fn only_so_many_threads_wait_for_one_disk_of_several() {
        let apart = Apart::new(Blocking { is_threaded: true }, true);
        let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let mut ends = Vec::new();
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..=PLACES_MAX {
            let (end, ended) = channel::<()>();
            let (this, began) = (apart.clone(), began.clone());
            ends.push(end);
            let read = move || {
                began.send(()).unwrap();
                ended.recv().unwrap_or_default();
            };
            readers.spawn(async move { this.serve(read).await.unwrap() });
        }
        for _ in 0..PLACES_MAX {
            begun.recv().await.unwrap();
        }
        assert_eq!(apart.places.available_permits(), 0);
        assert!(begun.recv().now_or_never().is_none(), "one of them waits");
        drop(ends);
        while readers.join_next().await.is_some() {}
        assert!(begun.recv().now_or_never().flatten().is_some(), "it had its turn");
    }

    #[tokio::test]
    async fn the_only_disk_is_read_by_as_many_as_want() {
        let apart = Apart::new(Blocking { is_threaded: true }, false);
        let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let mut ends = Vec::new();
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..=PLACES_MAX {
            let (end, ended) = channel::<()>();
            let (this, began) = (apart.clone(), began.clone());
            ends.push(end);
            let read = move || {
                began.send(()).unwrap();
                ended.recv().unwrap_or_default();
            };
            readers.spawn(async move { this.serve(read).await.unwrap() });
        }
        for _ in 0..=PLACES_MAX {
            tokio::time::timeout(COMES, begun.recv()).await.unwrap().unwrap();
        }
        drop(ends);
        while readers.join_next().await.is_some() {}
    }

    #[tokio::test]
    async fn who_reads_does_not_wait_behind_those_that_wait_for_a_writer() {
        let apart = Apart::new(Blocking { is_threaded: true }, true);
        let mut ends = Vec::new();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..=PLACES_MAX {
            let (end, ended) = channel::<()>();
            ends.push(end);
            let this = apart.clone();
            let wait = move || ended.recv().unwrap_or_default();
            waiting.spawn(async move { this.serve_after_writer(wait).await.unwrap() });
        }
        while apart.places_to_wait.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tokio::time::timeout(COMES, apart.serve(|| 1)).await.unwrap().unwrap(), 1);
        drop(ends);
        while waiting.join_next().await.is_some() {}
    }
}
