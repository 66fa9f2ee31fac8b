//! What the frontend needs of the cluster. `api`'s client is the real one; tests put one in memory
//! in its place.

use async_trait::async_trait;
use mailbox::command::Place;
use mailbox::dialogue::Trouble;
use mailbox::{Address, Answer, Change, ChunkRef, Command, Outcome, Query, StoredChunk};

/// Names the holder of a maildrop lock.
pub type LockToken = [u8; 16];

/// The cluster, seen from a session. Every call ends within a deadline of its own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Who has this address.
    async fn recipient(&self, address: &Address) -> Result<Option<Place>, Trouble>;

    /// Does a command exactly once.
    async fn command(
        &self,
        place: Place,
        command: Command,
        inline: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble>;

    /// Reads what every earlier acknowledged command left.
    async fn query(&self, place: Place, query: Query) -> Result<Answer, Trouble>;

    /// A chunk from any replica, as it is stored.
    async fn chunk(&self, place: Place, chunk: ChunkRef) -> Result<StoredChunk, Trouble>;

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
    /// The next one; `None` when there will be no more. Nothing is lost when the wait is given up.
    async fn recv(&mut self) -> Option<Change>;
}
