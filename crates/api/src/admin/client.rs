//! The operator's end of service admin.

use std::time::Duration;

use super::{ClusterInit, MoveReplica, ReplicaCopies, Status};
use crate::client::{Asker, ClientConfig, Cluster, Error};
use crate::convert::meta::collect;
use crate::dial::reason;
use crate::meta::MetaError;
use crate::placement::{DiskId, META_SHARD};
use crate::proto::admin as wire;
use crate::proto::admin::admin_client;
use crate::proto::admin::{add_shard_response, scrub_disk_response};
use bytes::Bytes;
use futures_util::future::join_all;
use mailbox::{Digest, ShardId};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status as RpcStatus};

/// One node that did not answer by then is away,
const ONE_NODE_MAX: Duration = Duration::from_secs(3);
/// after so long a pause between two attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Asks any node, and goes on to the one that can do it. Cheap to clone.
#[derive(Clone)]
pub struct AdminClient {
    cluster: Cluster,
    patience: Duration,
}

/// Whether a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Its name and address, or what was configured.
    pub node: String,
    /// Why it does not answer, if it does not.
    pub absence: Option<String>,
}

type Rpc = admin_client::AdminClient<Channel>;

impl AdminClient {
    /// Connects to nothing yet. Must be called within a tokio runtime. Each call ends within `patience`.
    pub fn new(config: ClientConfig, patience: Duration) -> Result<Self, Error> {
        Ok(Self { cluster: Cluster::new(config)?, patience })
    }

    /// How the cluster is, or the one node that is asked.
    pub async fn status(&self, local: bool) -> Result<Status, MetaError> {
        self.ask(true, move |mut client| async move {
            let mut response = client.status(wire::StatusRequest { local }).await?.into_inner();
            Ok(match response.error.take() {
                None => Ok(Status::try_from(response)?),
                Some(error) => Err(error.into()),
            })
        })
        .await
    }

    /// How this very node is; `patience` is for it alone.
    pub async fn status_of(&self, node: &str, patience: Duration) -> Result<Status, MetaError> {
        let unavailable = |why: &str| MetaError::Unavailable(format!("node {node}: {why}"));
        let asking = async {
            self.cluster.placements.formed().await;
            let mut client = Rpc::new(self.cluster.nodes.channel(node));
            client.status(wire::StatusRequest { local: true }).await
        };
        let answer = tokio::time::timeout(patience, asking).await;
        let answer = answer.map_err(|_| unavailable("no answer in time"))?;
        let mut response = answer.map_err(|status| unavailable(status.message()))?.into_inner();
        match response.error.take() {
            None => Status::try_from(response).map_err(|error| unavailable(&error.to_string())),
            Some(error) => Err(error.into()),
        }
    }

    /// Asks every node by itself whether it answers at all; `patience` is for each, and all are asked at
    /// once.
    pub async fn roll_call(&self, patience: Duration) -> Vec<Presence> {
        let asking = self.cluster.nodes.each().into_iter().map(|(node, channel)| async move {
            let mut client = Rpc::new(channel);
            let call = client.status(wire::StatusRequest { local: true });
            let absence = match tokio::time::timeout(patience, call).await {
                Ok(Ok(_)) => None,
                Ok(Err(status)) => Some(reason(&status)),
                Err(_) => Some("no answer in time".into()),
            };
            Presence { node, absence }
        });
        join_all(asking).await
    }

    /// Forms a cluster, once.
    pub async fn cluster_init(&self, init: &ClusterInit) -> Result<(), MetaError> {
        let message = wire::ClusterInitRequest::from(init);
        self.ask(false, move |mut client| {
            let message = message.clone();
            async move { Ok(done(client.cluster_init(message).await?.into_inner())) }
        })
        .await
    }

    /// Hands a shard's leadership to the replica on the node `to`; done when that leads.
    pub async fn transfer_leader(&self, shard: ShardId, to: &str) -> Result<(), MetaError> {
        let message = wire::TransferLeaderRequest { shard: shard.0, to: to.to_owned() };
        self.ask(true, move |mut client| {
            let message = message.clone();
            async move { Ok(done(client.transfer_leader(message).await?.into_inner())) }
        })
        .await
    }

    /// Begins to empty a node, or calls that off.
    pub async fn drain(&self, node: &str, undo: bool) -> Result<(), MetaError> {
        let message = wire::DrainRequest { node: node.to_owned(), undo };
        self.ask(true, move |mut client| {
            let message = message.clone();
            async move { Ok(done(client.drain(message).await?.into_inner())) }
        })
        .await
    }

    /// Adds a shard with replicas where there is room.
    pub async fn add_shard(&self, n_replicas: u32) -> Result<ShardId, MetaError> {
        self.ask(false, move |mut client| async move {
            let message = wire::AddShardRequest { n_replicas };
            Ok(match client.add_shard(message).await?.into_inner().result {
                Some(add_shard_response::Result::Shard(shard)) => Ok(ShardId(shard)),
                Some(add_shard_response::Result::Error(error)) => Err(error.into()),
                None => Err(MetaError::Unavailable("empty answer".into())),
            })
        })
        .await
    }

    /// Where this very node has copies of chunks of a shard, each read and verified now.
    pub async fn copies(
        &self,
        node: &str,
        shard: ShardId,
        digests: &[Digest],
    ) -> Result<Vec<ReplicaCopies>, MetaError> {
        let digests = digests.iter().map(|digest| Bytes::copy_from_slice(&digest.0)).collect();
        let message = wire::CopiesRequest { shard: shard.0, digests };
        let asking = self.ask_this(node, move |mut client| {
            let message = message.clone();
            async move { client.copies(message).await }
        });
        let answer: wire::CopiesResponse = asking.await?;
        match answer.error {
            Some(error) => Err(error.into()),
            None => {
                collect(answer.replicas).map_err(|error| MetaError::Unavailable(error.to_string()))
            }
        }
    }

    /// Begins to verify everything on a disk of this very node, as fast as it goes. It is done when the
    /// disk's number of passes has come to the number given.
    pub async fn scrub_disk(&self, node: &str, disk: DiskId) -> Result<u64, MetaError> {
        let message = wire::ScrubDiskRequest { disk_id: Bytes::copy_from_slice(&disk.0) };
        let asking = self.ask_this(node, move |mut client| {
            let message = message.clone();
            async move { client.scrub_disk(message).await }
        });
        let answer: wire::ScrubDiskResponse = asking.await?;
        match answer.result {
            Some(scrub_disk_response::Result::NPasses(n_passes)) => Ok(n_passes),
            Some(scrub_disk_response::Result::Error(error)) => Err(error.into()),
            None => Err(MetaError::Unavailable("empty answer".into())),
        }
    }

    /// Lets a node leave for good; refused while it has replicas.
    pub async fn remove_node(&self, node: &str) -> Result<(), MetaError> {
        let message = wire::RemoveNodeRequest { node: node.to_owned() };
        self.ask(true, move |mut client| {
            let message = message.clone();
            async move { Ok(done(client.remove_node(message).await?.into_inner())) }
        })
        .await
    }

    /// Begins to empty a disk, which is never used again.
    pub async fn retire_disk(&self, disk: DiskId) -> Result<(), MetaError> {
        let message = wire::RetireDiskRequest { disk_id: Bytes::copy_from_slice(&disk.0) };
        self.ask(true, move |mut client| {
            let message = message.clone();
            async move { Ok(done(client.retire_disk(message).await?.into_inner())) }
        })
        .await
    }

    /// Begins to move a replica.
    pub async fn move_replica(&self, to_move: &MoveReplica) -> Result<(), MetaError> {
        let message = wire::MoveReplicaRequest::from(to_move);
        self.ask(true, move |mut client| {
            let message = message.clone();
            async move { Ok(done(client.move_replica(message).await?.into_inner())) }
        })
        .await
    }

    /// Changes a setting of the cluster; `None` undoes that.
    pub async fn set(&self, name: &str, value: Option<&str>) -> Result<(), MetaError> {
        let value = value.unwrap_or_default().to_owned();
        let message = wire::SetRequest { name: name.to_owned(), value };
        self.ask(true, move |mut client| {
            let message = message.clone();
            async move { Ok(done(client.set(message).await?.into_inner())) }
        })
        .await
    }

    /// Gives up a shard's lost majority: the replica on this node goes on alone with what it has. For the
    /// meta group that node is asked itself.
    pub async fn recover_shard(&self, shard: ShardId, node: &str) -> Result<(), MetaError> {
        let message = wire::RecoverShardRequest { shard: shard.0, node: node.to_owned() };
        if shard != META_SHARD {
            return self
                .ask(true, move |mut client| {
                    let message = message.clone();
                    async move { Ok(done(client.recover_shard(message).await?.into_inner())) }
                })
                .await;
        }
        let unavailable = |error: &dyn std::fmt::Display| MetaError::Unavailable(error.to_string());
        let formed = tokio::time::timeout(self.patience, self.cluster.placements.formed()).await;
        formed.map_err(|_| unavailable(&"no node told where the others are"))?;
        let mut client = Rpc::new(self.cluster.nodes.channel(node));
        match tokio::time::timeout(self.patience, client.recover_shard(message)).await {
            Ok(Ok(response)) => done(response.into_inner()),
            Ok(Err(status)) => Err(unavailable(&status.message())),
            Err(_) => Err(unavailable(&"no answer in time")),
        }
    }

    /// Asks this node and no other.
    async fn ask_this<T, F>(
        &self,
        node: &str,
        mut call: impl FnMut(Rpc) -> F,
    ) -> Result<T, MetaError>
    where
        F: Future<Output = Result<Response<T>, RpcStatus>>,
    {
        let deadline = Instant::now() + self.patience.min(ONE_NODE_MAX);
        let mut last = MetaError::Unavailable("no answer".into());
        // Why again: where the node listens may not be known yet.
        while Instant::now() < deadline {
            let client = Rpc::new(self.cluster.nodes.channel(node));
            match timeout_at(deadline, call(client)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => last = MetaError::Unavailable(reason(&status)),
                Err(_) => break,
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        Err(last)
    }

    async fn ask<T, F>(
        &self,
        idempotent: bool,
        mut call: impl FnMut(Rpc) -> F,
    ) -> Result<T, MetaError>
    where
        F: Future<Output = Result<Result<T, MetaError>, RpcStatus>>,
    {
        let asker = Asker { cluster: self.cluster.clone(), idempotent };
        let deadline = Instant::now() + self.patience;
        asker.ask(deadline, |channel| call(Rpc::new(channel))).await
    }
}

fn done(response: wire::DoneResponse) -> Result<(), MetaError> {
    response.error.map_or(Ok(()), |error| Err(error.into()))
}
