//! Service admin.

use std::sync::Arc;

use super::meta::collect;
use super::{Malformed, id};
use crate::admin::{
    ChunkCopy, ClusterInit, MoveReplica, NodeStatus, Phase, Replacement, ReplicaCopies, Status,
};
use crate::placement::{DiskId, Node, Placement};
use crate::proto::admin as wire;
use bytes::Bytes;
use mailbox::{LogTime, ShardId};

impl From<&Status> for wire::StatusResponse {
    fn from(status: &Status) -> Self {
        Self {
            placement: status.placement.as_deref().map(Into::into),
            nodes: status.nodes.iter().map(wire::NodeStatus::from).collect(),
            error: None,
            replacements: status.replacements.iter().map(wire::Replacement::from).collect(),
            waiting: status.waiting.clone(),
        }
    }
}

impl TryFrom<wire::StatusResponse> for Status {
    type Error = Malformed;

    fn try_from(wire: wire::StatusResponse) -> Result<Self, Malformed> {
        let placement = wire.placement.map(Placement::try_from).transpose()?.map(Arc::new);
        Ok(Self {
            placement,
            nodes: collect(wire.nodes)?,
            replacements: collect(wire.replacements)?,
            waiting: wire.waiting,
        })
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
            told: status.told.iter().map(Into::into).collect(),
            age_ms: status.age_ms,
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
            told: collect(wire.told)?,
            age_ms: wire.age_ms,
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

impl From<&Replacement> for wire::Replacement {
    fn from(one: &Replacement) -> Self {
        let phase = match one.phase {
            Phase::Placed => wire::Phase::Placed,
            Phase::Rows => wire::Phase::Rows,
            Phase::Bodies => wire::Phase::Bodies,
            Phase::Whole => wire::Phase::Whole,
        };
        Self {
            shard: one.shard.0,
            replica_id: one.replica_id,
            node: one.node.clone(),
            disk_id: Bytes::copy_from_slice(&one.disk_id.0),
            replaces: one.replaces.unwrap_or_default(),
            phase: phase.into(),
            done: one.done,
            total: one.total,
            received_bytes: one.received_bytes,
            elapsed_ms: one.elapsed_ms,
            eta_ms: one.eta_ms,
        }
    }
}

impl TryFrom<wire::Replacement> for Replacement {
    type Error = Malformed;

    fn try_from(wire: wire::Replacement) -> Result<Self, Malformed> {
        let phase = match wire.phase() {
            wire::Phase::Placed => Phase::Placed,
            wire::Phase::Rows => Phase::Rows,
            wire::Phase::Bodies => Phase::Bodies,
            wire::Phase::Whole => Phase::Whole,
            wire::Phase::Unspecified => return Err(Malformed("phase of a replica")),
        };
        Ok(Self {
            shard: ShardId(wire.shard),
            replica_id: wire.replica_id,
            disk_id: DiskId(id(&wire.disk_id, "id of a disk")?),
            replaces: (wire.replaces > 0).then_some(wire.replaces),
            node: wire.node,
            phase,
            done: wire.done,
            total: wire.total,
            received_bytes: wire.received_bytes,
            elapsed_ms: wire.elapsed_ms,
            eta_ms: wire.eta_ms,
        })
    }
}

impl From<&MoveReplica> for wire::MoveReplicaRequest {
    fn from(to_move: &MoveReplica) -> Self {
        Self {
            shard: to_move.shard.0,
            from: to_move.from.clone(),
            to: to_move.to.clone(),
            disk_id: optional(to_move.disk),
        }
    }
}

impl TryFrom<wire::MoveReplicaRequest> for MoveReplica {
    type Error = Malformed;

    fn try_from(wire: wire::MoveReplicaRequest) -> Result<Self, Malformed> {
        let disk = read_optional(&wire.disk_id)?;
        Ok(Self { shard: ShardId(wire.shard), from: wire.from, to: wire.to, disk })
    }
}

fn optional(disk: Option<DiskId>) -> Bytes {
    disk.map_or_else(Bytes::new, |disk| Bytes::copy_from_slice(&disk.0))
}

fn read_optional(wire: &[u8]) -> Result<Option<DiskId>, Malformed> {
    match wire.is_empty() {
        true => Ok(None),
        false => Ok(Some(DiskId(id(wire, "id of a disk")?))),
    }
}

impl From<&ClusterInit> for wire::ClusterInitRequest {
    fn from(init: &ClusterInit) -> Self {
        let disk = |(node, disk): &(String, Option<DiskId>)| wire::DiskName {
            node: node.clone(),
            disk_id: optional(*disk),
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
            disks.push((disk.node, read_optional(&disk.disk_id)?));
        }
        Ok(Self {
            disks,
            n_shards: wire.n_shards,
            n_replicas: wire.n_replicas,
            settings: wire.settings.into_iter().collect(),
        })
    }
}
