//! Service meta.

use bytes::Bytes;
use mailbox::ShardId;
use mailbox::address::DIRECTORY_SLOTS;

use super::{Malformed, id, name};
use crate::meta::{
    DiskScrub, MemberChange, MemberVerb, MetaError, ReplicaReport, ReplicaState, Report,
};
use crate::placement::{
    ClusterId, Disk, DiskId, DiskState, Node, NodeId, Placement, Replica, ReplicaRole, Shard,
};
use crate::proto::meta as wire;
use crate::proto::meta::error::Kind;

fn bytes(id: &[u8]) -> Bytes {
    Bytes::copy_from_slice(id)
}

impl From<MetaError> for wire::Error {
    fn from(error: MetaError) -> Self {
        let (kind, leader, reason) = match error {
            MetaError::NotLeader { leader } => (Kind::NotLeader, leader, String::new()),
            MetaError::Unavailable(reason) => (Kind::Unavailable, None, reason),
            MetaError::Refused(reason) => (Kind::Refused, None, reason),
            MetaError::NoCluster => (Kind::NoCluster, None, String::new()),
        };
        Self { kind: kind.into(), leader: leader.unwrap_or_default(), reason }
    }
}

impl From<wire::Error> for MetaError {
    fn from(error: wire::Error) -> Self {
        match error.kind() {
            Kind::NotLeader => Self::NotLeader { leader: name(error.leader) },
            Kind::Refused => Self::Refused(error.reason),
            Kind::NoCluster => Self::NoCluster,
            Kind::Unavailable | Kind::Unspecified => Self::Unavailable(error.reason),
        }
    }
}

impl From<&Placement> for wire::Placement {
    fn from(placement: &Placement) -> Self {
        Self {
            version: placement.version,
            cluster: bytes(&placement.cluster.0),
            nodes: placement.nodes.iter().map(wire::Node::from).collect(),
            shards: placement.shards.iter().map(wire::Shard::from).collect(),
            directory_slots: placement.directory_slots.iter().map(|shard| shard.0).collect(),
            settings: placement.settings.clone().into_iter().collect(),
            lost_ids: placement.lost_ids.clone(),
        }
    }
}

impl TryFrom<wire::Placement> for Placement {
    type Error = Malformed;

    fn try_from(wire: wire::Placement) -> Result<Self, Malformed> {
        let n_slots = wire.directory_slots.len();
        if n_slots != 0 && n_slots != usize::from(DIRECTORY_SLOTS) {
            return Err(Malformed("directory slots"));
        }
        let mut nodes: Vec<Node> = collect(wire.nodes)?;
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut shards: Vec<Shard> = collect(wire.shards)?;
        shards.sort_by_key(|shard| shard.shard);
        Ok(Self {
            version: wire.version,
            cluster: ClusterId(id(&wire.cluster, "id of a cluster")?),
            nodes,
            shards,
            directory_slots: wire.directory_slots.into_iter().map(ShardId).collect(),
            settings: wire.settings.into_iter().collect(),
            lost_ids: wire.lost_ids,
        })
    }
}

/// Each message as the value it stands for.
pub(crate) fn collect<W, T: TryFrom<W, Error = Malformed>>(
    wire: Vec<W>,
) -> Result<Vec<T>, Malformed> {
    wire.into_iter().map(T::try_from).collect()
}

impl From<&Node> for wire::Node {
    fn from(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            node_id: bytes(&node.node_id.0),
            address: node.address.clone(),
            zone: node.zone.clone(),
            disks: node.disks.iter().map(wire::Disk::from).collect(),
            draining: node.draining,
            run_id: node.run_id,
        }
    }
}

impl TryFrom<wire::Node> for Node {
    type Error = Malformed;

    fn try_from(wire: wire::Node) -> Result<Self, Malformed> {
        Ok(Self {
            name: wire.name,
            node_id: NodeId(id(&wire.node_id, "id of a node")?),
            address: wire.address,
            zone: wire.zone,
            disks: collect(wire.disks)?,
            draining: wire.draining,
            run_id: wire.run_id,
        })
    }
}

impl From<&Disk> for wire::Disk {
    fn from(disk: &Disk) -> Self {
        let state = match disk.state {
            DiskState::Ok => wire::DiskState::Ok,
            DiskState::Poisoned => wire::DiskState::Poisoned,
            DiskState::Draining => wire::DiskState::Draining,
            DiskState::Retired => wire::DiskState::Retired,
        };
        Self {
            disk_id: bytes(&disk.disk_id.0),
            start_count: disk.start_count,
            size_bytes: disk.size_bytes,
            free_bytes: disk.free_bytes,
            state: state.into(),
            path: disk.path.clone(),
            start_id: disk.start_id,
            previous_start_id: disk.previous_start_id,
            n_synced: disk.n_synced,
        }
    }
}

impl TryFrom<wire::Disk> for Disk {
    type Error = Malformed;

    fn try_from(wire: wire::Disk) -> Result<Self, Malformed> {
        let state = match wire.state() {
            wire::DiskState::Ok => DiskState::Ok,
            wire::DiskState::Poisoned => DiskState::Poisoned,
            wire::DiskState::Draining => DiskState::Draining,
            wire::DiskState::Retired => DiskState::Retired,
            wire::DiskState::Unspecified => return Err(Malformed("state of a disk")),
        };
        Ok(Self {
            disk_id: DiskId(id(&wire.disk_id, "id of a disk")?),
            start_count: wire.start_count,
            size_bytes: wire.size_bytes,
            free_bytes: wire.free_bytes,
            state,
            path: wire.path,
            start_id: wire.start_id,
            previous_start_id: wire.previous_start_id,
            n_synced: wire.n_synced,
        })
    }
}

impl From<&Shard> for wire::Shard {
    fn from(shard: &Shard) -> Self {
        Self {
            shard: shard.shard.0,
            replicas: shard.replicas.iter().map(wire::Replica::from).collect(),
            leader: shard.leader.clone().unwrap_or_default(),
            n_wanted: shard.n_wanted,
            forced: shard.forced.unwrap_or_default(),
            outcasts: shard.outcasts.clone(),
        }
    }
}

impl TryFrom<wire::Shard> for Shard {
    type Error = Malformed;

    fn try_from(wire: wire::Shard) -> Result<Self, Malformed> {
        Ok(Self {
            shard: ShardId(wire.shard),
            replicas: collect(wire.replicas)?,
            leader: name(wire.leader),
            n_wanted: wire.n_wanted,
            forced: (wire.forced > 0).then_some(wire.forced),
            outcasts: wire.outcasts,
        })
    }
}

impl From<&Replica> for wire::Replica {
    fn from(replica: &Replica) -> Self {
        let role = match replica.role {
            ReplicaRole::Voter => wire::Role::Voter,
            ReplicaRole::Learner => wire::Role::Learner,
        };
        Self {
            replica_id: replica.replica_id,
            node: replica.node.clone(),
            disk_id: bytes(&replica.disk_id.0),
            role: role.into(),
            replaces: replica.replaces.unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::Replica> for Replica {
    type Error = Malformed;

    fn try_from(wire: wire::Replica) -> Result<Self, Malformed> {
        let role = match wire.role() {
            wire::Role::Voter => ReplicaRole::Voter,
            wire::Role::Learner => ReplicaRole::Learner,
            wire::Role::Unspecified => return Err(Malformed("role of a replica")),
        };
        Ok(Self {
            replica_id: wire.replica_id,
            node: wire.node,
            disk_id: DiskId(id(&wire.disk_id, "id of a disk")?),
            role,
            replaces: (wire.replaces > 0).then_some(wire.replaces),
        })
    }
}

impl From<&Report> for wire::ReportRequest {
    fn from(report: &Report) -> Self {
        Self {
            node: report.node.clone(),
            disks: report.disks.iter().map(wire::Disk::from).collect(),
            replicas: report.replicas.iter().map(wire::ReplicaReport::from).collect(),
            scrubs: report.scrubs.iter().map(wire::DiskScrub::from).collect(),
            run_id: report.run_id,
            placement_version: report.placement_version,
            is_last: report.is_last,
            version: report.version.clone(),
            uptime_ms: report.uptime_ms,
        }
    }
}

impl TryFrom<wire::ReportRequest> for Report {
    type Error = Malformed;

    fn try_from(wire: wire::ReportRequest) -> Result<Self, Malformed> {
        Ok(Self {
            node: wire.node,
            disks: collect(wire.disks)?,
            replicas: collect(wire.replicas)?,
            scrubs: collect(wire.scrubs)?,
            run_id: wire.run_id,
            placement_version: wire.placement_version,
            is_last: wire.is_last,
            version: wire.version,
            uptime_ms: wire.uptime_ms,
        })
    }
}

impl From<&DiskScrub> for wire::DiskScrub {
    fn from(scrub: &DiskScrub) -> Self {
        Self {
            disk_id: bytes(&scrub.disk_id.0),
            verified_bytes: scrub.verified_bytes,
            n_damaged: scrub.n_damaged,
            n_repaired: scrub.n_repaired,
            n_unrepairable: scrub.n_unrepairable,
            oldest_unverified_ms: scrub.oldest_unverified_ms,
            n_passes: scrub.n_passes,
            n_differing: scrub.n_differing,
            unanswered_ms: scrub.unanswered_ms,
        }
    }
}

impl TryFrom<wire::DiskScrub> for DiskScrub {
    type Error = Malformed;

    fn try_from(wire: wire::DiskScrub) -> Result<Self, Malformed> {
        Ok(Self {
            disk_id: DiskId(id(&wire.disk_id, "id of a disk")?),
            verified_bytes: wire.verified_bytes,
            n_damaged: wire.n_damaged,
            n_repaired: wire.n_repaired,
            n_unrepairable: wire.n_unrepairable,
            oldest_unverified_ms: wire.oldest_unverified_ms,
            n_passes: wire.n_passes,
            n_differing: wire.n_differing,
            unanswered_ms: wire.unanswered_ms,
        })
    }
}

impl From<&ReplicaReport> for wire::ReplicaReport {
    fn from(report: &ReplicaReport) -> Self {
        let state = match report.state {
            ReplicaState::Starting => wire::ReplicaState::Starting,
            ReplicaState::Leader => wire::ReplicaState::Leader,
            ReplicaState::Follower => wire::ReplicaState::Follower,
            ReplicaState::Candidate => wire::ReplicaState::Candidate,
            ReplicaState::Learner => wire::ReplicaState::Learner,
            ReplicaState::Failed => wire::ReplicaState::Failed,
        };
        let follower = |&(replica_id, matched): &(u64, u64)| wire::Follower { replica_id, matched };
        Self {
            shard: report.shard.0,
            replica_id: report.replica_id,
            disk_id: bytes(&report.disk_id.0),
            state: state.into(),
            term: report.term,
            leader: report.leader.clone().unwrap_or_default(),
            last_log: report.last_log,
            committed: report.committed,
            applied: report.applied,
            digest: bytes(&report.digest),
            n_missing_chunks: report.n_missing_chunks,
            n_chunks: report.n_chunks,
            chunk_bytes: report.chunk_bytes,
            followers: report.followers.iter().map(follower).collect(),
            voters: report.voters.clone(),
            learners: report.learners.clone(),
            is_joint: report.is_joint,
            missing_bytes: report.missing_bytes,
            received_bytes: report.received_bytes,
            is_recovered: report.is_recovered,
        }
    }
}

impl TryFrom<wire::ReplicaReport> for ReplicaReport {
    type Error = Malformed;

    fn try_from(wire: wire::ReplicaReport) -> Result<Self, Malformed> {
        let state = match wire.state() {
            wire::ReplicaState::Starting => ReplicaState::Starting,
            wire::ReplicaState::Leader => ReplicaState::Leader,
            wire::ReplicaState::Follower => ReplicaState::Follower,
            wire::ReplicaState::Candidate => ReplicaState::Candidate,
            wire::ReplicaState::Learner => ReplicaState::Learner,
            wire::ReplicaState::Failed => ReplicaState::Failed,
            wire::ReplicaState::Unspecified => return Err(Malformed("state of a replica")),
        };
        Ok(Self {
            shard: ShardId(wire.shard),
            replica_id: wire.replica_id,
            disk_id: DiskId(id(&wire.disk_id, "id of a disk")?),
            state,
            term: wire.term,
            leader: name(wire.leader),
            last_log: wire.last_log,
            committed: wire.committed,
            applied: wire.applied,
            digest: id(&wire.digest, "digest of a replica")?,
            n_missing_chunks: wire.n_missing_chunks,
            n_chunks: wire.n_chunks,
            chunk_bytes: wire.chunk_bytes,
            followers: wire.followers.iter().map(|f| (f.replica_id, f.matched)).collect(),
            voters: wire.voters,
            learners: wire.learners,
            is_joint: wire.is_joint,
            missing_bytes: wire.missing_bytes,
            received_bytes: wire.received_bytes,
            is_recovered: wire.is_recovered,
        })
    }
}

impl From<&MemberChange> for wire::ChangeMembersRequest {
    fn from(change: &MemberChange) -> Self {
        use wire::change_members_request::Change as Wire;
        let what = match &change.what {
            MemberVerb::AddLearner(replica) => Wire::AddLearner(replica.into()),
            MemberVerb::RemoveLearner(replica_id) => Wire::RemoveLearner(*replica_id),
            MemberVerb::Voters(ids) => {
                Wire::Voters(wire::Voters { replica_ids: ids.iter().copied().collect() })
            }
            MemberVerb::Lead(replica_id) => Wire::Lead(*replica_id),
        };
        let from_voters = change.from_voters.iter().copied().collect();
        Self { shard: change.shard.0, from_voters, change: Some(what) }
    }
}

impl TryFrom<wire::ChangeMembersRequest> for MemberChange {
    type Error = Malformed;

    fn try_from(wire: wire::ChangeMembersRequest) -> Result<Self, Malformed> {
        use wire::change_members_request::Change as Wire;
        let what = match wire.change.ok_or(Malformed("change of members"))? {
            Wire::AddLearner(replica) => MemberVerb::AddLearner(replica.try_into()?),
            Wire::RemoveLearner(replica_id) => MemberVerb::RemoveLearner(replica_id),
            Wire::Voters(voters) => MemberVerb::Voters(voters.replica_ids.into_iter().collect()),
            Wire::Lead(replica_id) => MemberVerb::Lead(replica_id),
        };
        let from_voters = wire.from_voters.into_iter().collect();
        Ok(Self { shard: ShardId(wire.shard), from_voters, what })
    }
}
