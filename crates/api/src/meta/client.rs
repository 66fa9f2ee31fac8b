//! What a node asks of the meta group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{MemberChange, MetaError, Newer, Report};
use crate::client::{Asker, ClientConfig, Cluster, Error};
use crate::placement::{ClusterId, Node, Placement};
use crate::proto::meta as wire;
use crate::proto::meta::meta_client;
use wire::register_node_response;

/// Finds the meta group's leader through any node. Cheap to clone.
#[derive(Clone)]
pub struct MetaClient {
    asker: Asker,
}

impl MetaClient {
    /// Connects to nothing yet. Must be called within a tokio runtime.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        // Why: all of these may be said twice.
        Ok(Self { asker: Asker { cluster: Cluster::new(config)?, idempotent: true } })
    }

    /// The placement, now and whenever it changes; version 0 before anything was heard.
    pub fn placement(&self) -> watch::Receiver<Arc<Placement>> {
        self.asker.cluster.placements.subscribe()
    }

    /// Says who this node is and which disks it has; the placement then.
    pub async fn register_node(
        &self,
        node: &Node,
        cluster: Option<ClusterId>,
        patience: Duration,
    ) -> Result<Placement, MetaError> {
        let cluster = cluster.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id.0));
        let message = wire::RegisterNodeRequest { node: Some(node.into()), cluster };
        self.asker
            .ask(Instant::now() + patience, |channel| {
                let mut client = meta_client::MetaClient::new(channel);
                let message = message.clone();
                async move {
                    Ok(match client.register_node(message).await?.into_inner().result {
                        Some(register_node_response::Result::Placement(placement)) => {
                            Ok(Placement::try_from(placement)?)
                        }
                        Some(register_node_response::Result::Error(error)) => Err(error.into()),
                        None => Err(MetaError::Unavailable("empty answer".into())),
                    })
                }
            })
            .await
    }

    /// Says how this node is.
    pub async fn report(&self, report: &Report, patience: Duration) -> Result<Newer, MetaError> {
        let message = wire::ReportRequest::from(report);
        self.asker
            .ask(Instant::now() + patience, |channel| {
                let mut client = meta_client::MetaClient::new(channel);
                let message = message.clone();
                async move {
                    let response = client.report(message).await?.into_inner();
                    if let Some(error) = response.error {
                        return Ok(Err(error.into()));
                    }
                    let newer = response.placement.map(Placement::try_from).transpose()?;
                    Ok(Ok(newer.map(Arc::new)))
                }
            })
            .await
    }

    /// Changes who keeps a shard; `node` is said to lead it. Asks nobody else.
    pub async fn change_members(
        &self,
        node: &str,
        change: &MemberChange,
        patience: Duration,
    ) -> Result<(), MetaError> {
        let unavailable = |error: &dyn std::fmt::Display| MetaError::Unavailable(error.to_string());
        let mut client = meta_client::MetaClient::new(self.asker.cluster.nodes.channel(node));
        let asking = client.change_members(wire::ChangeMembersRequest::from(change));
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(response)) => response.into_inner().error.map_or(Ok(()), |e| Err(e.into())),
            Ok(Err(status)) => Err(unavailable(&status.message())),
            Err(_) => Err(unavailable(&"no answer in time")),
        }
    }
}
