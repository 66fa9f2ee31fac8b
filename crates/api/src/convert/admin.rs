//! Service admin.

use std::sync::Arc;

use bytes::Bytes;

use super::meta::collect;
use super::{Malformed, id};
use crate::admin::{ClusterInit, NodeStatus, Status};
use crate::placement::{DiskId, Node, Placement};
use crate::proto::admin as wire;

impl From<&Status> for wire::StatusResponse {
    fn from(status: &Status) -> Self {
        Self {
            placement: status.placement.as_deref().map(Into::into),
            nodes: status.nodes.iter().map(wire::NodeStatus::from).collect(),
            error: None,
        }
    }
}

impl TryFrom<wire::StatusResponse> for Status {
    type Error = Malformed;

    fn try_from(wire: wire::StatusResponse) -> Result<Self, Malformed> {
        let placement = wire.placement.map(Placement::try_from).transpose()?.map(Arc::new);
        Ok(Self { placement, nodes: collect(wire.nodes)? })
    }
}

impl From<&NodeStatus> for wire::NodeStatus {
    fn from(status: &NodeStatus) -> Self {
        Self {
            node: Some((&status.node).into()),
            reachable: status.reachable,
            version: status.version.clone(),
            uptime_ms: status.uptime_ms,
            replicas: status.replicas.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::NodeStatus> for NodeStatus {
    type Error = Malformed;

    fn try_from(wire: wire::NodeStatus) -> Result<Self, Malformed> {
        Ok(Self {
            node: Node::try_from(wire.node.ok_or(Malformed("status without node"))?)?,
            reachable: wire.reachable,
            version: wire.version,
            uptime_ms: wire.uptime_ms,
            replicas: collect(wire.replicas)?,
        })
    }
}

impl From<&ClusterInit> for wire::ClusterInitRequest {
    fn from(init: &ClusterInit) -> Self {
        let disk = |(node, disk): &(String, Option<DiskId>)| wire::DiskName {
            node: node.clone(),
            disk_id: disk.map_or_else(Bytes::new, |disk| Bytes::copy_from_slice(&disk.0)),
        };
        Self {
            disks: init.disks.iter().map(disk).collect(),
            n_shards: init.n_shards,
            n_replicas: init.n_replicas,
            settings: init.settings.clone().into_iter().collect(),
        }
    }
}

impl TryFrom<wire::ClusterInitRequest> for ClusterInit {
    type Error = Malformed;

    fn try_from(wire: wire::ClusterInitRequest) -> Result<Self, Malformed> {
        let mut disks = Vec::with_capacity(wire.disks.len());
        for disk in wire.disks {
            let disk_id = match disk.disk_id.is_empty() {
                true => None,
                false => Some(DiskId(id(&disk.disk_id, "id of a disk")?)),
            };
            disks.push((disk.node, disk_id));
        }
        Ok(Self {
            disks,
            n_shards: wire.n_shards,
            n_replicas: wire.n_replicas,
            settings: wire.settings.into_iter().collect(),
        })
    }
}
