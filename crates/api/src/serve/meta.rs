//! Service meta over a [`MetaHandler`].

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::convert::{Malformed, id};
use crate::meta::{MemberChange, MetaError, MetaHandler, Report};
use crate::placement::{ClusterId, Node};
use crate::proto::meta as wire;
use crate::proto::meta::meta_server::Meta;
use crate::tls::{Peer, Role};
use wire::{get_placement_response, register_node_response};

pub(super) struct MetaService {
    pub(super) handler: Arc<dyn MetaHandler>,
    pub(super) stopped: watch::Receiver<bool>,
}

/// The name of the node that calls; others are refused.
fn node<T>(request: &Request<T>) -> Result<String, Status> {
    match request.extensions().get::<Peer>() {
        Some(peer) if peer.role == Role::Node => Ok(peer.name.clone()),
        _ => Err(Status::permission_denied("not for this role")),
    }
}

/// A node speaks for itself only.
fn same(proven: &str, told: &str) -> Result<(), Status> {
    match proven == told {
        true => Ok(()),
        false => Err(Status::permission_denied("not the name in the certificate")),
    }
}

#[tonic::async_trait]
impl Meta for MetaService {
    type WatchPlacementStream = Pin<Box<dyn Stream<Item = Result<wire::Placement, Status>> + Send>>;

    async fn get_placement(
        &self,
        _: Request<wire::GetPlacementRequest>,
    ) -> Result<Response<wire::GetPlacementResponse>, Status> {
        let result = match self.handler.placement().await {
            Ok(placement) => get_placement_response::Result::Placement((&*placement).into()),
            Err(error) => get_placement_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::GetPlacementResponse { result: Some(result) }))
    }

    async fn watch_placement(
        &self,
        request: Request<wire::WatchPlacementRequest>,
    ) -> Result<Response<Self::WatchPlacementStream>, Status> {
        let after = request.into_inner().after_version;
        let placements = self
            .handler
            .watch_placement(after)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let stopped = super::ended(self.stopped.clone());
        let stream =
            placements.map(|placement| Ok((&*placement).into())).take_until(Box::pin(stopped));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn register_node(
        &self,
        request: Request<wire::RegisterNodeRequest>,
    ) -> Result<Response<wire::RegisterNodeResponse>, Status> {
        let from = node(&request)?;
        let message = request.into_inner();
        let node = Node::try_from(message.node.ok_or(Malformed("registration without node"))?)?;
        same(&from, &node.name)?;
        let cluster = match message.cluster.is_empty() {
            true => None,
            false => Some(ClusterId(id(&message.cluster, "id of a cluster")?)),
        };
        let result = match self.handler.register_node(&from, node, cluster).await {
            Ok(placement) => register_node_response::Result::Placement((&*placement).into()),
            Err(error) => register_node_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::RegisterNodeResponse { result: Some(result) }))
    }

    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        let from = node(&request)?;
        let report = Report::try_from(request.into_inner())?;
        same(&from, &report.node)?;
        Ok(Response::new(match self.handler.report(&from, report).await {
            Ok(newer) => {
                let placement = newer.map(|placement| placement.as_ref().into());
                wire::ReportResponse { error: None, placement }
            }
            Err(error) => wire::ReportResponse { error: Some(error.into()), placement: None },
        }))
    }

    async fn change_members(
        &self,
        request: Request<wire::ChangeMembersRequest>,
    ) -> Result<Response<wire::ChangeMembersResponse>, Status> {
        node(&request)?;
        let change = MemberChange::try_from(request.into_inner())?;
        let error = self.handler.change_members(change).await.err();
        Ok(Response::new(wire::ChangeMembersResponse { error: error.map(MetaError::into) }))
    }
}
