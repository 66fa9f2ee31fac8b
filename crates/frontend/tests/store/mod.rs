//! A store in memory that counts what it is asked.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use api::client::EVERY_MAILBOX;
use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use bytes::Bytes;
use frontend::{LockToken, Store, Watch};
use mailbox::command::{AccountChange, AccountState, OfMailbox, Place, ReleaseAddress};
use mailbox::dialogue::Trouble;
use mailbox::{
    AccountId, Address, Answer, Change, ChunkRef, Command, ModSeq, Outcome, Query, StoredChunk,
};
use tokio::sync::{Notify, broadcast};
use tokio::time::timeout;

use crate::memory::Shard;

pub struct State {
    pub shard: Shard,
    pub locks: BTreeMap<AccountId, LockToken>,
    pub n_locked_out: usize,
    pub n_watches: usize,
    pub n_uploads: usize,
    /// Questions for an account.
    pub n_accounts: usize,
    /// Questions what is new in a mailbox.
    pub n_news: usize,
    /// So many of them cannot be answered.
    pub n_troubles: usize,
    /// The most stored octets that travelled beside one command.
    pub most_inline_bytes: usize,
    pub is_away: bool,
    /// Where addresses led before.
    pub remembered: BTreeMap<Address, Place>,
}

pub struct Memory {
    state: Mutex<State>,
    changed: Notify,
    changes: broadcast::Sender<Change>,
}

impl Default for Memory {
    fn default() -> Self {
        let state = State {
            shard: Shard::default(),
            locks: BTreeMap::new(),
            n_locked_out: 0,
            n_watches: 0,
            n_uploads: 0,
            n_accounts: 0,
            n_news: 0,
            n_troubles: 0,
            most_inline_bytes: 0,
            is_away: false,
            remembered: BTreeMap::new(),
        };
        let changes = broadcast::channel(1024).0;
        Self { state: Mutex::new(state), changed: Notify::new(), changes }
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_waiters();
        changed
    }

    /// Waits until something holds.
    pub async fn until(&self, holds: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if holds(&self.lock()) {
                    return;
                }
                changed.await;
            }
        };
        timeout(Duration::from_secs(10), waiting).await.expect("in time");
    }

    pub fn create_account(&self, name: &str, password: &str) -> AccountId {
        self.lock().shard.create_account(name, &hash(password))
    }

    pub fn account(&self, name: &str) -> AccountId {
        let address = Address::parse(name).unwrap().0;
        self.lock().shard.resolve(&address).unwrap().account
    }

    /// A new leader knows of no lock, or of somebody else's.
    pub fn lose_locks(&self, account: AccountId, now: Option<LockToken>) {
        self.change(|state| {
            state.locks.clear();
            state.locks.extend(now.map(|token| (account, token)));
        });
        let of = OfMailbox { account, mailbox: EVERY_MAILBOX };
        // Nobody may be listening.
        let _ = self.changes.send(Change { of, highest_modseq: ModSeq::LAST });
    }

    pub fn set_password(&self, name: &str, password: &str) {
        self.change_account(name, AccountChange::PasswordHash(hash(password)));
    }

    pub fn suspend(&self, name: &str) {
        self.change_account(name, AccountChange::State(AccountState::Suspended));
    }

    /// Gives an account another name, and its name to a new one; the directory is remembered as it was.
    pub fn replace(&self, name: &str, other: &str, password: &str) {
        self.change_account(name, AccountChange::Name(Address::parse(other).unwrap().0));
        let mut state = self.lock();
        let address = Address::parse(name).unwrap().0;
        let place = state.shard.resolve(&address).unwrap();
        state.remembered.insert(address.clone(), place);
        let release = ReleaseAddress { address, account: place.account };
        let released = state.shard.command(Command::ReleaseAddress(release), &[]);
        assert_eq!(released, Outcome::Done);
        state.shard.create_account(name, &hash(password));
    }

    pub fn resume(&self, name: &str) {
        self.change_account(name, AccountChange::State(AccountState::Active));
    }

    fn change_account(&self, name: &str, change: AccountChange) {
        let mut state = self.lock();
        let place = state.shard.resolve(&Address::parse(name).unwrap().0).unwrap();
        state.shard.change_account(place.account, change);
    }
}

/// As cheap as it can be: tests are about the way, not about the cost.
fn hash(password: &str) -> String {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).unwrap();
    let salt = SaltString::encode_b64(b"0123456789abcdef").unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}

#[async_trait]
impl Store for Memory {
    async fn recipient(&self, address: &Address) -> Result<Option<Place>, Trouble> {
        let state = self.lock();
        let remembered = state.remembered.get(address).copied();
        Ok(remembered.or_else(|| state.shard.resolve(address)))
    }

    fn forget(&self, address: &Address) {
        self.lock().remembered.remove(address);
    }

    async fn recipients(&self, address: &Address) -> Result<Vec<Place>, Trouble> {
        Ok(self.lock().shard.recipients(address))
    }

    async fn command(
        &self,
        _: Place,
        command: Command,
        inline: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        let mut state = self.lock();
        let n_bytes = inline.iter().map(|stored| stored.bytes.len()).sum();
        state.most_inline_bytes = state.most_inline_bytes.max(n_bytes);
        state.n_uploads += usize::from(matches!(command, Command::Upload(_)));
        let outcome = state.shard.command(command, &inline);
        for change in std::mem::take(&mut state.shard.changes) {
            // Nobody may be listening.
            let _ = self.changes.send(change);
        }
        self.changed.notify_waiters();
        Ok(outcome)
    }

    async fn query(&self, _: Place, query: Query) -> Result<Answer, Trouble> {
        let is_troubled = self.change(|state| {
            let is_news = matches!(query, Query::News(..));
            state.n_news += usize::from(is_news);
            state.n_accounts += usize::from(matches!(query, Query::Account(_)));
            let is_troubled = is_news && state.n_troubles > 0;
            state.n_troubles -= usize::from(is_troubled);
            is_troubled
        });
        if is_troubled {
            return Err(Trouble::Unavailable);
        }
        Ok(self.lock().shard.query(&query))
    }

    async fn chunk(&self, _: Place, chunk: ChunkRef) -> Result<Bytes, Trouble> {
        let stored = self.lock().shard.stored_chunk(&chunk).ok_or(Trouble::Damaged)?;
        api::client::raw_octets(&stored).ok_or(Trouble::Damaged)
    }

    fn watch(&self, place: Place) -> Box<dyn Watch> {
        self.change(|state| state.n_watches += 1);
        Box::new(Listener { account: place.account, changes: self.changes.subscribe() })
    }

    async fn lock_maildrop(&self, place: Place, token: LockToken) -> Result<bool, Trouble> {
        Ok(self.change(|state| {
            let is_held = *state.locks.entry(place.account).or_insert(token) == token;
            state.n_locked_out += usize::from(!is_held);
            is_held
        }))
    }

    async fn unlock_maildrop(&self, place: Place, token: LockToken) -> Result<(), Trouble> {
        self.change(|state| {
            if state.locks.get(&place.account) == Some(&token) {
                state.locks.remove(&place.account);
            }
        });
        Ok(())
    }

    async fn ready(&self) -> bool {
        !self.lock().is_away
    }
}

struct Listener {
    account: AccountId,
    changes: broadcast::Receiver<Change>,
}

#[async_trait]
impl Watch for Listener {
    async fn recv(&mut self) -> Change {
        loop {
            match self.changes.recv().await {
                Ok(change) if change.of.account == self.account => return change,
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            }
        }
    }
}
