//! What nodes said just now, found without a look at all of it: a plan asks for each shard and each of its
//! replicas, and a large cluster has some ten thousand.

use std::collections::BTreeMap;

use api::meta::{ReplicaReport, ReplicaState, Report};
use api::placement::Placement;
use mailbox::ShardId;

use super::plan::{FRESH, Heard};

/// See the module.
#[derive(Default)]
pub(super) struct Told<'a> {
    nodes: BTreeMap<&'a str, Said<'a>>,
    /// Who says that it leads, in the highest term, with its node.
    leaders: BTreeMap<ShardId, (&'a str, &'a ReplicaReport)>,
}

/// What one node said.
struct Said<'a> {
    report: &'a Report,
    replicas: BTreeMap<(ShardId, u64), &'a ReplicaReport>,
}

impl<'a> Told<'a> {
    /// What is fresh of what was heard. What a node said before it registered anew is of another life: it may
    /// have other disks now.
    pub fn of(placement: &Placement, heard: &'a BTreeMap<String, Heard>) -> Self {
        let mut told = Self::default();
        for (node, heard) in heard.iter().filter(|(_, heard)| heard.age < FRESH) {
            let run_id = placement.node(node).map(|node| node.run_id);
            if run_id == Some(heard.report.run_id) {
                told.add(node, &heard.report);
            }
        }
        told
    }

    fn add(&mut self, node: &'a str, report: &'a Report) {
        let replicas = report.replicas.iter().map(|one| ((one.shard, one.replica_id), one));
        self.nodes.insert(node, Said { report, replicas: replicas.collect() });
        for one in report.replicas.iter().filter(|one| one.state == ReplicaState::Leader) {
            let known = self.leaders.get(&one.shard).map(|(_, other)| other.term);
            if known.is_none_or(|term| one.term >= term) {
                self.leaders.insert(one.shard, (node, one));
            }
        }
    }

    /// What a node said.
    pub fn fresh(&self, node: &str) -> Option<&'a Report> {
        self.nodes.get(node).map(|said| said.report)
    }

    /// What a node said of a replica.
    pub fn replica(&self, node: &str, shard: ShardId, id: u64) -> Option<&'a ReplicaReport> {
        self.nodes.get(node)?.replicas.get(&(shard, id)).copied()
    }

    /// Who says that it leads a shard, in the highest term, with its node.
    pub fn leader(&self, shard: ShardId) -> Option<(&'a str, &'a ReplicaReport)> {
        self.leaders.get(&shard).copied()
    }
}
