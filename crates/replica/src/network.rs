//! openraft's network over the transport the node brings.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::peer::{PeerError, PeerRequest, PeerResponse, PeerTransport};
use bytes::{BufMut, Bytes};
use futures_util::{FutureExt, Stream, StreamExt};
use mailbox::ShardId;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tokio::time::Instant;

use crate::checkpoint::{Checkpoint, Part};
use crate::codec::{self, BadBytes, Reader};
use crate::confirm::Memory;
use crate::feeds::Feeding;
use crate::pace::{Followers, Following, Paced, size_bytes};
use crate::pipeline::{AppendResult, Pipeline};
use crate::raft::{LogId, Member, Types, Vote};
use crate::state::{Applying, Snapshot};
use crate::wire::{self, kind};

/// Limit: requests with entries under way to one follower. With the bytes of one request this bounds what
/// a leader holds for a slow follower: 50 MB of mail must cost a node less than 16 MiB.
const PIPELINE_MAX: usize = 4;
/// How long the heartbeat to the last follower waits: reads meanwhile need no heartbeat of their own.
const LAST_BEAT_AFTER: Duration = Duration::from_millis(10);
/// Bytes of a checkpoint file in one request.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that a second brings at least over the slowest network that is made up for: half of a Mbit/s, since
/// several shards share it.
const BYTES_PER_SECOND: usize = 64 << 10;
/// Installing a snapshot may take this long.
pub(crate) const INSTALL: Duration = Duration::from_secs(1800);

/// How this replica reaches others.
#[derive(Clone)]
pub(crate) struct Network {
    pub shard: ShardId,
    pub replica: u64,
    /// Where it lives.
    pub member: Member,
    pub transport: Arc<dyn PeerTransport>,
    /// Given up after this.
    pub patience: Duration,
    /// What is seen of the others.
    pub memory: Arc<Memory>,
    pub followers: Arc<Followers>,
    /// What it has itself.
    pub applying: Weak<Applying>,
}

/// One other replica.
#[derive(Clone)]
pub(crate) struct Peer {
    network: Network,
    id: u64,
    member: Member,
    append_kind: u8,
    /// What counts it as a follower, if this sends heartbeats.
    _following: Option<Arc<Following>>,
}

impl Network {
    /// Another replica of the group.
    pub fn peer(&self, id: u64, member: &Member) -> Peer {
        let (network, member) = (self.clone(), member.clone());
        Peer { network, id, member, append_kind: kind::APPEND, _following: None }
    }

    /// How long a request with so many bytes may take. Why longer: what was given up is sent again, and would
    /// never arrive where it takes longer than that. Who waits is told at once when the connection breaks.
    pub fn patience_for(&self, n_bytes: usize) -> Duration {
        self.patience + Duration::from_millis((n_bytes * 1000 / BYTES_PER_SECOND) as u64)
    }

    /// How long a sync of the own disk takes.
    fn own_sync(&self) -> Duration {
        let applying = self.applying.upgrade();
        applying.map_or(Duration::ZERO, |applying| applying.local.disk.journal().sync_time())
    }

    /// Refuses files that are not as they were written or lack rows, and has them written anew: what is
    /// damaged is never replicated.
    async fn verify(&self, files: &Checkpoint) -> Result<(), PeerError> {
        let applying = self.applying.upgrade().ok_or_else(|| refused("replica stopped"))?;
        let disk = &applying.local.disk;
        let this = files.clone();
        // Why aside: it takes as much of a core as to merge them, and who gets them is patient.
        let verified = disk.blocking().run_aside(move || this.verify()).await;
        if let Err(error) = verified.and_then(|verified| verified) {
            tracing::warn!(replica = self.replica, %error, "checkpoint is written anew");
            if files.parts().iter().any(|part| applying.checkpoints.holds(part)) {
                applying.checkpoints.doubt();
                disk.found_bad_checkpoint(self.replica);
            }
            return Err(refused(error));
        }
        Ok(())
    }
}

impl Network {
    /// These files are sent to a follower as long as what is given lives.
    fn feed(&self, follower: u64, files: &Checkpoint) -> Result<Feeding, PeerError> {
        let applying = self.applying.upgrade().ok_or_else(|| refused("replica stopped"))?;
        Ok(applying.checkpoints.feeds().begin(follower, files.applied().next_index()))
    }

    /// A piece of a checkpoint file. Why aside: it comes from the disk.
    async fn piece(&self, part: &Arc<Part>, offset: u64) -> Result<Bytes, PeerError> {
        let applying = self.applying.upgrade().ok_or_else(|| refused("replica stopped"))?;
        let (part, blocking) = (part.clone(), applying.local.disk.blocking());
        drop(applying);
        let read = blocking.run(move || part.bytes_at(offset, PIECE_BYTES)).await;
        read.and_then(|read| read).map_err(refused)
    }
}

impl Peer {
    /// Which replica it is.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How long a request to it may take.
    pub fn patience(&self) -> Duration {
        self.network.patience
    }

    /// Sends; the response comes later, the order is that of the calls.
    pub fn call(
        &self,
        kind: u8,
        meta: Bytes,
        bodies: Vec<Bytes>,
        deadline: Duration,
    ) -> impl Future<Output = Result<PeerResponse, PeerError>> + Send + use<> {
        self.network.transport.call(PeerRequest {
            node: self.member.node.clone(),
            shard: self.network.shard,
            from_replica: self.network.replica,
            to_replica: self.id,
            to_disk: self.member.disk_id,
            kind,
            meta,
            bodies,
            deadline,
        })
    }

    pub fn append(
        &self,
        request: AppendEntriesRequest<Types>,
    ) -> impl Future<Output = Result<AppendEntriesResponse<Types>, RPCError<Types>>> + Send + use<>
    {
        let (meta, bodies) = wire::put_append(&request);
        // Why times so many: others lie before it.
        let patience = self.network.patience_for(PIPELINE_MAX * size_bytes(&request));
        let call = self.call(self.append_kind, meta, bodies, patience);
        let (peer, vote, prev) = (self.clone(), request.vote, request.prev_log_id);
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let (has_entries, begun) = (!request.entries.is_empty(), Instant::now());
        async move {
            let called = call.await;
            let followers = &peer.network.followers;
            followers.answered(peer.id, called.is_ok());
            if has_entries {
                followers.synced(peer.id, begun.elapsed(), peer.network.own_sync());
            }
            let meta = called.map_err(rpc_error)?.meta;
            let response = wire::read_append_response(meta).map_err(bad_bytes)?;
            match &response {
                AppendEntriesResponse::Success => peer.network.memory.note(peer.id, vote, last),
                AppendEntriesResponse::PartialSuccess(upto) => {
                    peer.network.memory.note(peer.id, vote, *upto);
                }
                AppendEntriesResponse::Conflict => peer.check_conflict(&vote, prev).await?,
                AppendEntriesResponse::HigherVote(_) => {}
            }
            Ok(response)
        }
    }

    /// A follower that does not know an entry it acknowledged was rolled back: it is told so, and
    /// openraft never hears of it, for it takes what was acknowledged once to be there for ever.
    async fn check_conflict(&self, vote: &Vote, at: Option<LogId>) -> Result<(), RPCError<Types>> {
        // Why an error: there is nothing before the first entry that could differ.
        let at = at.ok_or(BadBytes("conflict before the first entry")).map_err(bad_bytes)?;
        let seen = self.network.memory.of(self.id);
        if !seen.covers(vote, &at) {
            return Ok(());
        }
        tracing::warn!(shard = %self.network.shard, replica = self.id, node = %self.member.node,
            "replica lost what it acknowledged, it is not followed up");
        let meta = wire::put_seen(&seen);
        // Why the result is dropped: it is told each time it shows that again.
        drop(self.call(kind::LOST, meta, Vec::new(), self.network.patience).await);
        Err(rpc_error(PeerError::Refused("it lost what it acknowledged".into())))
    }

    /// A heartbeat; it may wait if the others make a majority.
    async fn beat(self, request: AppendEntriesRequest<Types>) -> AppendResult {
        if self.network.followers.may_wait(self.id) {
            tokio::time::sleep(LAST_BEAT_AFTER).await;
        }
        let prev = request.prev_log_id;
        let response = self.append(request).await;
        response.map(|response| response.into_stream_result(prev, prev))
    }

    async fn small(&self, kind: u8, meta: Bytes, ttl: Duration) -> Result<Bytes, RPCError<Types>> {
        let response = self.call(kind, meta, Vec::new(), ttl).await;
        response.map(|response| response.meta).map_err(rpc_error)
    }

    /// Sends a checkpoint file by file, from where the receiver has it already.
    async fn send_files(&self, vote: &Vote, files: &Checkpoint) -> Result<Vote, PeerError> {
        let mut meta = Vec::new();
        codec::put_vote(&mut meta, vote);
        meta.put_u32(files.parts().len() as u32);
        for part in files.parts() {
            let name = part.head.name();
            meta.put_u8(name.len() as u8);
            meta.put_slice(name.as_bytes());
            meta.put_u64(part.len);
        }
        let meta = Bytes::from(meta);
        let patience = self.network.patience;
        let begun = self.call(kind::SNAPSHOT_BEGIN, meta.clone(), Vec::new(), patience).await?;
        // Why only now: who does not answer is away, and no log is kept for it.
        let _feeding = self.network.feed(self.id, files)?;
        self.network.verify(files).await?;
        let mut reader = Reader(begun.meta);
        for (number, part) in files.parts().iter().enumerate() {
            let mut offset = reader.u64().map_err(refused)?.min(part.len);
            while offset < part.len {
                let bytes = self.network.piece(part, offset).await?;
                let mut piece = Vec::with_capacity(12);
                piece.put_u32(number as u32);
                piece.put_u64(offset);
                offset += bytes.len() as u64;
                let patience = self.network.patience_for(bytes.len());
                self.call(kind::SNAPSHOT_PIECE, piece.into(), vec![bytes], patience).await?;
            }
        }
        let ended = self.call(kind::SNAPSHOT_END, meta, Vec::new(), INSTALL).await?;
        Reader(ended.meta).vote().map_err(refused)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        self.peer(target, node)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Peer {
        let _following = Some(Arc::new(self.followers.add(target)));
        Peer { append_kind: kind::HEARTBEAT, _following, ..self.peer(target, node) }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Checkpoint;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.append(request).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendResult>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.append_kind == kind::HEARTBEAT {
            let peer = self.clone();
            let answers = input.then(move |request| peer.clone().beat(request));
            let answers: BoxStream<'s, AppendResult> = Box::pin(answers);
            return std::future::ready(Ok(answers)).boxed();
        }
        let mut pipeline = Pipeline::new(self.clone());
        let paced = Paced::new(input, self.id, self.network.followers.clone());
        let answers = paced.map(move |request| pipeline.append(request)).buffered(PIPELINE_MAX);
        let answers: BoxStream<'s, AppendResult> = Box::pin(answers);
        std::future::ready(Ok(answers)).boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let meta = wire::put_vote_request(&request);
        let meta = self.small(kind::VOTE, meta, option.hard_ttl()).await?;
        let response = wire::read_vote_response(meta).map_err(bad_bytes)?;
        if response.vote_granted {
            // Why only then: a vote is synced before it is granted.
            self.network.memory.note(self.id, response.vote, None);
        }
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let meta = wire::put_pre_vote(&request, &self.network.member);
        let meta = self.small(kind::PRE_VOTE, meta, option.hard_ttl()).await?;
        wire::read_vote_response(meta).map_err(bad_bytes)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sending = self.send_files(&vote, &snapshot.snapshot);
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = sending => match sent {
                Ok(now) => {
                    if now.leader_id == vote.leader_id {
                        self.network.memory.note(self.id, vote, snapshot.meta.last_log_id);
                    }
                    Ok(SnapshotResponse::new(now))
                }
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let meta = wire::put_transfer(&request);
        self.small(kind::TRANSFER, meta, option.hard_ttl().max(self.network.patience)).await?;
        Ok(Ok(()))
    }
}

fn rpc_error(error: PeerError) -> RPCError<Types> {
    match error {
        // Why: a refusal will not change at once, so it backs off like an absent node.
        PeerError::Unreachable(_) | PeerError::Refused(_) => {
            RPCError::Unreachable(Unreachable::new(&error))
        }
        PeerError::Deadline => RPCError::Network(NetworkError::new(&error)),
    }
}

fn bad_bytes(error: BadBytes) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&error))
}

fn refused(error: impl std::fmt::Display) -> PeerError {
    PeerError::Refused(error.to_string())
}
