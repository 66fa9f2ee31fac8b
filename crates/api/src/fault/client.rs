//! The drill's end of service fault: each call is for one node, by name.

use std::time::Duration;

use tokio::time::timeout;

use super::Fault;
use crate::client::{ClientConfig, Cluster, Error};
use crate::meta::MetaError;
use crate::placement::Placement;
use crate::proto::fault as wire;
use crate::proto::fault::fault_client;

/// How long a node may take to hurt itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks exactly the node that is meant. Cheap to clone.
#[derive(Clone)]
pub struct FaultClient {
    cluster: Cluster,
}

impl FaultClient {
    /// Connects to nothing yet. Must be called within a tokio runtime.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        Ok(Self { cluster: Cluster::new(config)? })
    }

    /// The placement, as soon as any node told it.
    pub async fn placement(&self) -> std::sync::Arc<Placement> {
        self.cluster.placements.formed().await
    }

    /// Hurts a node; how many bits were turned over.
    pub async fn inflict(&self, node: &str, fault: &Fault) -> Result<u32, MetaError> {
        self.placement().await;
        let message = wire::InflictRequest { node: node.to_owned(), fault: Some(fault.into()) };
        let mut client = fault_client::FaultClient::new(self.cluster.nodes.channel(node));
        let unavailable = |why: String| Err(MetaError::Unavailable(why));
        match timeout(PATIENCE, client.inflict(message)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                response.error.map_or(Ok(response.n_bits), |error| Err(error.into()))
            }
            Ok(Err(status)) => match status.code() {
                tonic::Code::Unimplemented => {
                    Err(MetaError::Refused(format!("node {node} is too old to be drilled")))
                }
                tonic::Code::PermissionDenied | tonic::Code::InvalidArgument => {
                    Err(MetaError::Refused(status.message().to_owned()))
                }
                _ => unavailable(format!("node {node}: {}", status.message())),
            },
            Err(_) => unavailable(format!("node {node} does not answer")),
        }
    }
}
