//! How replicas of a shard on different nodes reach each other. The content is opaque here: crate
//! `replica` encodes openraft's RPCs, and this crate carries them over few multiplexed streams.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use mailbox::ShardId;

/// A future that can be kept and sent.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request from one replica to another. Peers refuse one whose three last ids do not match theirs.
#[derive(Clone, Debug)]
pub struct PeerRequest {
    /// Name of the node to send to; resolved to an address by the transport.
    pub node: String,
    /// Which group.
    pub shard: ShardId,
    /// Who sends.
    pub from_replica: u64,
    /// Who shall get it; replica ids are never reused.
    pub to_replica: u64,
    /// The disk that replica is said to be on; all zero when the sender does not know.
    pub to_disk: [u8; 16],
    /// What it is (append, vote, snapshot, chunk fetch, ...); chosen by crate `replica`.
    pub kind: u8,
    /// Opaque.
    pub meta: Bytes,
    /// Bodies in fields of their own, never copied into `meta`.
    pub bodies: Vec<Bytes>,
    /// After this long the sender has given up.
    pub deadline: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct PeerResponse {
    /// Opaque.
    pub meta: Bytes,
    /// Bodies in fields of their own.
    pub bodies: Vec<Bytes>,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not connected, or the connection broke.
    #[error("node unreachable: {0}")]
    Unreachable(String),
    /// Nothing came in time.
    #[error("deadline passed")]
    Deadline,
    /// The peer has no such replica, or not on that disk.
    #[error("refused: {0}")]
    Refused(String),
}

/// The sending side. Requests of one shard to one node arrive in the order they were sent.
pub trait PeerTransport: Send + Sync + 'static {
    /// Sends and waits for the response.
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>>;
}

/// The receiving side, one per node.
pub trait PeerHandler: Send + Sync + 'static {
    /// Answers one request; `from_node` is the name proven by the sender's certificate.
    fn handle(
        &self,
        from_node: String,
        request: PeerRequest,
    ) -> BoxFuture<'static, Result<PeerResponse, PeerError>>;
}
