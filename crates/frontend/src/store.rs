//! What the frontend needs of the cluster. `api`'s client is the real one; tests put one in memory
//! in its place.

use api::client::Client;
use async_trait::async_trait;
use bytes::Bytes;
use mailbox::command::Place;
use mailbox::dialogue::Trouble;
use mailbox::{Address, Answer, Change, ChunkRef, Command, Outcome, Query, StoredChunk};

/// Names the holder of a maildrop lock.
pub type LockToken = [u8; 16];

/// The cluster, seen from a session. Every call ends within a deadline of its own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Which account has this address.
    async fn recipient(&self, address: &Address) -> Result<Option<Place>, Trouble>;

    /// Where this address leads may be remembered wrongly: look again.
    fn forget(&self, _address: &Address) {}

    /// Who gets mail for it, groups and catch-all addresses included; nobody twice.
    async fn recipients(&self, address: &Address) -> Result<Vec<Place>, Trouble>;

    /// Does a command exactly once.
    async fn command(
        &self,
        place: Place,
        command: Command,
        inline: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble>;

    /// The same, and what a query about the account finds right after it, as far as that comes without
    /// another call.
    async fn command_and(
        &self,
        place: Place,
        command: Command,
        inline: Vec<StoredChunk>,
        _then: Query,
    ) -> Result<(Outcome, Option<Answer>), Trouble> {
        Ok((self.command(place, command, inline).await?, None))
    }

    /// Reads what every earlier acknowledged command left.
    async fn query(&self, place: Place, query: Query) -> Result<Answer, Trouble>;

    /// The raw octets of a chunk from any replica, verified against its digest.
    async fn chunk(&self, place: Place, chunk: ChunkRef) -> Result<Bytes, Trouble>;

    /// Changes of an account from now on.
    fn watch(&self, place: Place) -> Box<dyn Watch>;

    /// Takes or renews the lock of a maildrop; false if another session has it.
    async fn lock_maildrop(&self, place: Place, token: LockToken) -> Result<bool, Trouble>;

    /// Gives it back.
    async fn unlock_maildrop(&self, place: Place, token: LockToken) -> Result<(), Trouble>;

    /// Whether the cluster can be reached.
    async fn ready(&self) -> bool;
}

/// A stream of changes.
#[async_trait]
pub trait Watch: Send + Sync {
    /// The next one; a change of [`api::client::EVERY_MAILBOX`] stands for all. Nothing is lost when
    /// the wait is given up.
    async fn recv(&mut self) -> Change;
}

#[async_trait]
impl Store for Client {
    async fn recipient(&self, address: &Address) -> Result<Option<Place>, Trouble> {
        Client::recipient(self, address).await
    }

    fn forget(&self, address: &Address) {
        Client::forget(self, address);
    }

    async fn recipients(&self, address: &Address) -> Result<Vec<Place>, Trouble> {
        Client::recipients(self, address).await
    }

    async fn command(
        &self,
        place: Place,
        command: Command,
        inline: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        Client::command(self, place, command, inline).await
    }

    async fn command_and(
        &self,
        place: Place,
        command: Command,
        inline: Vec<StoredChunk>,
        then: Query,
    ) -> Result<(Outcome, Option<Answer>), Trouble> {
        Client::command_and(self, place, command, inline, Some(then)).await
    }

    async fn query(&self, place: Place, query: Query) -> Result<Answer, Trouble> {
        Client::query(self, place, query).await
    }

    async fn chunk(&self, place: Place, chunk: ChunkRef) -> Result<Bytes, Trouble> {
        // The client has verified and uncompressed it.
        Client::chunk(self, place, chunk).await.map(|stored| stored.bytes)
    }

    fn watch(&self, place: Place) -> Box<dyn Watch> {
        Box::new(Client::watch(self, place))
    }

    async fn lock_maildrop(&self, place: Place, token: LockToken) -> Result<bool, Trouble> {
        Client::lock_maildrop(self, place, token).await
    }

    async fn unlock_maildrop(&self, place: Place, token: LockToken) -> Result<(), Trouble> {
        Client::unlock_maildrop(self, place, token).await
    }

    async fn ready(&self) -> bool {
        Client::ready(self).await
    }
}

#[async_trait]
impl Watch for api::client::Watch {
    async fn recv(&mut self) -> Change {
        api::client::Watch::recv(self).await
    }
}
