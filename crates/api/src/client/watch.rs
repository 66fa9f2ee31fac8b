//! Changes: one stream per client and shard, shared by all sessions that watch an account there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mailbox::command::OfMailbox;
use mailbox::{AccountId, Change, MailboxId, ModSeq};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Response, Status, Streaming};
use tracing::debug;

use super::DEADLINE;
use super::attempt::Pause;
use super::route::{Leader, Route};
use crate::convert::mail::change_from_wire;
use crate::proto::mail::{WatchRequest, WatchResponse};

/// In a [`Change`] of [`Watch::recv`]: anything in the account may have changed, since news may have
/// been lost on the way. No mailbox has this id. Its `highest_modseq` is the greatest there can be.
pub const EVERY_MAILBOX: MailboxId = MailboxId::EVERY;

/// How long a leader is looked for before it is asked whether anybody still watches.
const FIND_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a leader may take to begin its stream, if nobody else leads. As long as for an answer: one
/// that is slow and answers all else would else never be listened to.
const BEGIN_TIMEOUT: Duration = DEADLINE;
/// How long a stream is kept when nobody watches any more: sessions come and go, and each beginning
/// costs a round of the shard's leader.
const LINGER: Duration = Duration::from_secs(2);
/// Limit: mailboxes of one account with news that a session has not taken yet; beyond it, it is told
/// that anything may have changed.
const NEWS_MAX: usize = 64;

/// Changes of one account.
pub struct Watch {
    inbox: Arc<Inbox>,
}

impl Watch {
    /// The next change; several of one mailbox come as one. Nothing is lost when the wait is given up.
    /// A change of [`EVERY_MAILBOX`] stands for all: read again from the mod-sequence known.
    pub async fn recv(&mut self) -> Change {
        loop {
            let news = self.inbox.wake.notified();
            if let Some((mailbox, highest_modseq)) = self.inbox.news().pop_first() {
                let of = OfMailbox { account: self.inbox.account, mailbox };
                return Change { of, highest_modseq };
            }
            news.await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(home) = self.inbox.home().take() {
            home.unregister(&self.inbox);
        }
    }
}

/// What one session has not taken yet.
struct Inbox {
    account: AccountId,
    /// Whose stream fills it; `None` when nobody reads it any more.
    home: Mutex<Option<Arc<ShardWatch>>>,
    news: Mutex<BTreeMap<MailboxId, ModSeq>>,
    wake: Notify,
}

impl Inbox {
    fn home(&self) -> MutexGuard<'_, Option<Arc<ShardWatch>>> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> MutexGuard<'_, BTreeMap<MailboxId, ModSeq>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, mailbox: MailboxId, modseq: ModSeq) {
        let mut news = self.news();
        if news.len() >= NEWS_MAX && !news.contains_key(&mailbox) {
            news.clear();
            news.insert(EVERY_MAILBOX, ModSeq::LAST);
        } else {
            let highest = news.entry(mailbox).or_insert(modseq);
            *highest = modseq.max(*highest);
        }
        drop(news);
        self.wake.notify_one();
    }
}

/// The stream of one shard.
pub(super) struct ShardWatch {
    route: Arc<Route>,
    inboxes: Mutex<Inboxes>,
    /// Somebody stopped watching.
    left: Notify,
}

#[derive(Default)]
struct Inboxes {
    by_account: HashMap<AccountId, Vec<Arc<Inbox>>>,
    running: bool,
}

impl ShardWatch {
    pub(super) fn new(route: Arc<Route>) -> Self {
        Self { route, inboxes: Mutex::default(), left: Notify::new() }
    }

    pub(super) fn register(this: &Arc<Self>, account: AccountId) -> Watch {
        let home = Mutex::new(Some(Arc::clone(this)));
        let inbox = Arc::new(Inbox { account, home, news: Mutex::default(), wake: Notify::new() });
        this.add(Arc::clone(&inbox));
        Watch { inbox }
    }

    fn add(self: &Arc<Self>, inbox: Arc<Inbox>) {
        let mut inboxes = self.inboxes();
        inboxes.by_account.entry(inbox.account).or_default().push(inbox);
        if !inboxes.running {
            inboxes.running = true;
            tokio::spawn(run(Arc::downgrade(self)));
        }
    }

    /// Who watches an account here watches it there from now on, and is told that it may have changed.
    pub(super) fn hand_over(this: &Arc<Self>, to: &Arc<Self>, account: AccountId) {
        let here = this.inboxes().by_account.get(&account).cloned().unwrap_or_default();
        for inbox in here {
            // Invariant: held from here until it is there, so that who stops reading meanwhile leaves.
            let mut home = inbox.home();
            if home.as_ref().is_none_or(|home| !Arc::ptr_eq(home, this)) {
                continue;
            }
            this.unregister(&inbox);
            *home = Some(Arc::clone(to));
            to.add(Arc::clone(&inbox));
            inbox.put(EVERY_MAILBOX, ModSeq::LAST);
        }
    }

    fn unregister(&self, inbox: &Arc<Inbox>) {
        let mut inboxes = self.inboxes();
        if let Some(of_account) = inboxes.by_account.get_mut(&inbox.account) {
            of_account.retain(|other| !Arc::ptr_eq(other, inbox));
            if of_account.is_empty() {
                inboxes.by_account.remove(&inbox.account);
                self.left.notify_one();
            }
        }
    }

    fn inboxes(&self) -> MutexGuard<'_, Inboxes> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        for inbox in self.inboxes().by_account.values().flatten() {
            inbox.put(EVERY_MAILBOX, ModSeq::LAST);
        }
    }

    fn deliver(&self, change: &Change) {
        if let Some(of_account) = self.inboxes().by_account.get(&change.of.account) {
            for inbox in of_account {
                inbox.put(change.of.mailbox, change.highest_modseq);
            }
        }
    }

    /// Begins a stream at the leader. What follows its first message is not lost on the way.
    async fn begin(&self, leader: &Leader) -> Option<Streaming<WatchResponse>> {
        let request = WatchRequest { shard: self.route.shard.0, from: 0 };
        let mut client = self.route.cluster.nodes.mail(&leader.node);
        let call = async {
            let mut stream = client.watch(request).await?.into_inner();
            let first = stream.message().await?;
            let first = first.ok_or_else(|| Status::unavailable("stream ended"))?;
            Ok(Response::new((stream, first)))
        };
        let deadline = Instant::now() + BEGIN_TIMEOUT;
        let (stream, first) = self.route.attempt(leader, deadline, call).await.ok()?;
        self.take(leader, first).then_some(stream)
    }

    /// Passes on what a message tells; false if it ends the stream.
    fn take(&self, leader: &Leader, message: WatchResponse) -> bool {
        for change in &message.changes {
            match change_from_wire(change) {
                Ok((_, change)) => self.deliver(&change),
                Err(_) => return false,
            }
        }
        match message.error {
            Some(error) => {
                self.route.told(leader, error.into());
                false
            }
            None => true,
        }
    }

    /// Whether nobody watches any more; then the task ends.
    fn idle(&self) -> bool {
        let mut inboxes = self.inboxes();
        inboxes.running = !inboxes.by_account.is_empty();
        !inboxes.running
    }
}

/// Keeps one stream open as long as somebody watches. It is begun anew at each new leader, and
/// everybody is told after each beginning that news may have been lost.
async fn run(shard: Weak<ShardWatch>) {
    let mut pause = Pause::new();
    while let Some(shard) = shard.upgrade() {
        if shard.idle() {
            return;
        }
        let leader = match timeout(FIND_TIMEOUT, shard.route.leader()).await {
            Ok(leader) => leader,
            Err(_) => continue,
        };
        match shard.begin(&leader).await {
            Some(stream) => {
                pause = Pause::new();
                shard.wake_all();
                follow(&shard, &leader, stream).await;
            }
            None => {
                shard.route.lost(&leader);
                pause.wait().await;
            }
        }
    }
}

async fn follow(shard: &ShardWatch, leader: &Leader, mut stream: Streaming<WatchResponse>) {
    let mut until = None;
    loop {
        let lonely = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            message = stream.message() => message,
            () = shard.route.replaced(leader) => return,
            () = shard.left.notified() => {
                let is_lonely = shard.inboxes().by_account.is_empty();
                until = is_lonely.then(|| Instant::now() + LINGER);
                continue;
            }
            () = lonely => {
                if shard.inboxes().by_account.is_empty() {
                    return;
                }
                until = None;
                continue;
            }
        };
        match message {
            Ok(Some(message)) => {
                if !shard.take(leader, message) {
                    return;
                }
            }
            ended => {
                debug!(shard = %shard.route.shard, broken = ended.is_err(), "watch ended");
                shard.route.lost(leader);
                return;
            }
        }
    }
}
