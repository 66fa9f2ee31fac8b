//! Desks over a store that answers when it is told to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use mailbox::query::{Search, SearchKey};
use mailbox::{Address, ShardId, UidSet};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::limits::SEARCHES_MAX;
use crate::store::{LockToken, Store};

/// Steps of others after which whoever could go on has.
const STEPS: usize = 100;

struct Slow {
    n_under_way: AtomicUsize,
    /// Questions that may be answered.
    answers: Semaphore,
    commands: Mutex<Vec<Command>>,
}

impl Slow {
    fn new() -> Arc<Self> {
        let n_under_way = AtomicUsize::new(0);
        Arc::new(Self { n_under_way, answers: Semaphore::new(0), commands: Mutex::default() })
    }

    /// So many questions wait for their answers when nobody can go on.
    async fn n_under_way(&self) -> usize {
        for _ in 0..STEPS {
            yield_now().await;
        }
        self.n_under_way.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Store for Slow {
    async fn recipient(&self, _: &Address) -> Result<Option<Place>, Trouble> {
        Ok(None)
    }

    async fn recipients(&self, _: &Address) -> Result<Vec<Place>, Trouble> {
        Ok(Vec::new())
    }

    async fn command(
        &self,
        _: Place,
        command: Command,
        _: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        self.commands.lock().unwrap().push(command);
        Ok(Outcome::Done)
    }

    async fn query(&self, _: Place, _: Query) -> Result<Answer, Trouble> {
        self.n_under_way.fetch_add(1, Ordering::Relaxed);
        self.answers.acquire().await.unwrap().forget();
        self.n_under_way.fetch_sub(1, Ordering::Relaxed);
        Ok(Answer::Found(UidSet::new(), None, None))
    }

    async fn chunk(&self, _: Place, _: ChunkRef) -> Result<Bytes, Trouble> {
        Err(Trouble::Damaged)
    }

    fn watch(&self, _: Place) -> Box<dyn Watch> {
        unreachable!("nobody watches")
    }

    async fn lock_maildrop(&self, _: Place, _: LockToken) -> Result<bool, Trouble> {
        Ok(true)
    }

    async fn unlock_maildrop(&self, _: Place, _: LockToken) -> Result<(), Trouble> {
        Ok(())
    }

    async fn ready(&self) -> bool {
        true
    }
}

fn shared(store: &Arc<Slow>) -> Arc<Shared> {
    let text = "name = 'f1'\nseeds = ['unused:1']\nidentity = 'unused'\nlmtp = '127.0.0.1:0'";
    let config = crate::Config::from_toml(text).unwrap();
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    Arc::new(crate::shared(&config, store, None).unwrap())
}

fn place(n: u8) -> Place {
    Place { account: AccountId([n; 16]), shard: ShardId(1), epoch: 1, alias: false }
}

/// A desk that knows an account.
fn desk(shared: &Arc<Shared>, n: u8) -> Desk {
    let mut desk = Desk::new(Arc::clone(shared), None);
    desk.remember(place(n));
    desk
}

#[tokio::test]
async fn an_account_has_few_searches_under_way_at_once_and_the_others_wait() {
    let store = Slow::new();
    let shared = shared(&store);
    let search = |n: u8| {
        let of = OfMailbox { account: place(n).account, mailbox: MailboxId(1) };
        let search = Search { of, among: UidSet::all(), key: SearchKey::All };
        let mut desk = desk(&shared, n);
        async move { desk.answer(Question::Query(Query::Search(search))).await }
    };
    let mut sessions = JoinSet::new();
    for _ in 0..SEARCHES_MAX + 2 {
        sessions.spawn(search(1));
    }
    assert_eq!(store.n_under_way().await, SEARCHES_MAX);
    sessions.spawn(search(2));
    assert_eq!(store.n_under_way().await, SEARCHES_MAX + 1, "another account does not wait");
    store.answers.add_permits(SEARCHES_MAX + 3);
    while let Some(reply) = sessions.join_next().await {
        assert!(matches!(reply.unwrap(), Reply::Answer(Answer::Found(..))));
    }
}
