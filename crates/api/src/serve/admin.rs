//! Service admin over an [`AdminHandler`].

use std::sync::Arc;

use mailbox::{Digest, ShardId};
use tonic::{Request, Response, Status};

use crate::admin::{AdminHandler, COPIES_MAX, ClusterInit, MoveReplica};
use crate::convert::id;
use crate::meta::MetaError;
use crate::placement::DiskId;
use crate::proto::admin as wire;
use crate::proto::admin::admin_server::Admin;
use crate::proto::admin::{add_shard_response, scrub_disk_response};

pub(super) struct AdminService {
    pub(super) handler: Arc<dyn AdminHandler>,
}

fn done(result: Result<(), MetaError>) -> Response<wire::DoneResponse> {
    Response::new(wire::DoneResponse { error: result.err().map(MetaError::into) })
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let response = match self.handler.status(request.into_inner().local).await {
            Ok(status) => (&status).into(),
            Err(error) => wire::StatusResponse { error: Some(error.into()), ..Default::default() },
        };
        Ok(Response::new(response))
    }

    async fn cluster_init(
        &self,
        request: Request<wire::ClusterInitRequest>,
    ) -> Result<Response<wire::DoneResponse>, Status> {
        let init = ClusterInit::try_from(request.into_inner())?;
        Ok(done(self.handler.cluster_init(init).await))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::DoneResponse>, Status> {
        let message = request.into_inner();
        Ok(done(self.handler.transfer_leader(ShardId(message.shard), &message.to).await))
    }

    async fn drain(
        &self,
        request: Request<wire::DrainRequest>,
    ) -> Result<Response<wire::DoneResponse>, Status> {
        let message = request.into_inner();
        Ok(done(self.handler.drain(&message.node, message.undo).await))
    }

    async fn add_shard(
        &self,
        request: Request<wire::AddShardRequest>,
    ) -> Result<Response<wire::AddShardResponse>, Status> {
        let result = match self.handler.add_shard(request.into_inner().n_replicas).await {
            Ok(shard) => add_shard_response::Result::Shard(shard.0),
            Err(error) => add_shard_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::AddShardResponse { result: Some(result) }))
    }

    async fn copies(
        &self,
        request: Request<wire::CopiesRequest>,
    ) -> Result<Response<wire::CopiesResponse>, Status> {
        let message = request.into_inner();
        if message.digests.len() > COPIES_MAX {
            return Err(Status::invalid_argument("too many digests"));
        }
        let digest = |bytes: &bytes::Bytes| id(bytes, "digest of a chunk").map(Digest);
        let digests: Vec<Digest> = message.digests.iter().map(digest).collect::<Result<_, _>>()?;
        let response = match self.handler.copies(ShardId(message.shard), digests).await {
            Ok(replicas) => wire::CopiesResponse {
                replicas: replicas.iter().map(Into::into).collect(),
                error: None,
            },
            Err(error) => wire::CopiesResponse { replicas: vec![], error: Some(error.into()) },
        };
        Ok(Response::new(response))
    }

    async fn remove_node(
        &self,
        request: Request<wire::RemoveNodeRequest>,
    ) -> Result<Response<wire::DoneResponse>, Status> {
        Ok(done(self.handler.remove_node(&request.into_inner().node).await))
    }

    async fn retire_disk(
        &self,
        request: Request<wire::RetireDiskRequest>,
    ) -> Result<Response<wire::DoneResponse>, Status> {
        let disk = DiskId(id(&request.into_inner().disk_id, "id of a disk")?);
        Ok(done(self.handler.retire_disk(disk).await))
    }

    async fn scrub_disk(
        &self,
        request: Request<wire::ScrubDiskRequest>,
    ) -> Result<Response<wire::ScrubDiskResponse>, Status> {
        let disk = DiskId(id(&request.into_inner().disk_id, "id of a disk")?);
        let result = match self.handler.scrub_disk(disk).await {
            Ok(n_passes) => scrub_disk_response::Result::NPasses(n_passes),
            Err(error) => scrub_disk_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::ScrubDiskResponse { result: Some(result) }))
    }

    async fn move_replica(
        &self,
        request: Request<wire::MoveReplicaRequest>,
    ) -> Result<Response<wire::DoneResponse>, Status> {
        let to_move = MoveReplica::try_from(request.into_inner())?;
        Ok(done(self.handler.move_replica(to_move).await))
    }

    async fn set(
        &self,
        request: Request<wire::SetRequest>,
    ) -> Result<Response<wire::DoneResponse>, Status> {
        let wire::SetRequest { name, value } = request.into_inner();
        let value = (!value.is_empty()).then_some(value.as_str());
        Ok(done(self.handler.set(&name, value).await))
    }

    async fn recover_shard(
        &self,
        request: Request<wire::RecoverShardRequest>,
    ) -> Result<Response<wire::DoneResponse>, Status> {
        let wire::RecoverShardRequest { shard, node } = request.into_inner();
        Ok(done(self.handler.recover_shard(ShardId(shard), &node).await))
    }
}
