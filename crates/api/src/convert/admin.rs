//! Service admin.

use std::sync::Arc;

use bytes::Bytes;
use mailbox::LogTime;

use super::meta::collect;
use super::{Malformed, id};
use crate::admin::{ChunkCopy, ClusterInit, NodeStatus, ReplicaCopies, Status};
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
            scrubs: status.scrubs.iter().map(Into::into).collect(),
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
            scrubs: collect(wire.scrubs)?,
        })
    }
}

impl From<&ReplicaCopies> for wire::ReplicaCopies {
    fn from(replica: &ReplicaCopies) -> Self {
        let copy = |copy: &Option<ChunkCopy>| match copy {
            None => wire::ChunkCopy::default(),
            Some(copy) => wire::ChunkCopy {
                present: true,
                segment: copy.place.0,
                offset: copy.place.1,
                good: copy.is_good,
                verified_at_ms: copy.verified_at.map_or(0, |at| at.0),
            },
        };
        Self {
            replica_id: replica.replica_id,
            disk_id: Bytes::copy_from_slice(&replica.disk_id.0),
            copies: replica.copies.iter().map(copy).collect(),
        }
    }
}

impl TryFrom<wire::ReplicaCopies> for ReplicaCopies {
    type Error = Malformed;

    fn try_from(wire: wire::ReplicaCopies) -> Result<Self, Malformed> {
        let copy = |copy: wire::ChunkCopy| {
            copy.present.then_some(ChunkCopy {
                place: (copy.segment, copy.offset),
                is_good: copy.good,
                verified_at: (copy.verified_at_ms > 0).then_some(LogTime(copy.verified_at_ms)),
            })
        };
        Ok(Self {
            replica_id: wire.replica_id,
            disk_id: DiskId(id(&wire.disk_id, "id of a disk")?),
            copies: wire.copies.into_iter().map(copy).collect(),
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
