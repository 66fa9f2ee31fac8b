//! What would happen if a node died now: said before somebody pulls the plug.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use api::admin::{NodeStatus, Status};
use api::meta::{ReplicaReport, ReplicaState};
use api::placement::{DiskState, META_SHARD, Node, Placement, Replica, ReplicaRole, Shard};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use mailbox::ShardId;
use serde_json::{Value, json};

/// Limit: entries a replica may be behind and count as whole. Why: what the nodes reported is up to a
/// second old, each at its own time.
const BEHIND_MAX: u64 = 1_000;

/// What the death of one node would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    node: String,
    reachable: bool,
    shards: Vec<ShardFate>,
}

/// What it would do to one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ShardFate {
    shard: ShardId,
    /// It leads now: its clients would wait for an election.
    loses_leader: bool,
    /// Voters that would be left, of how many.
    n_left: usize,
    n_voters: usize,
    /// Replicas with everything that would be left.
    n_whole_left: usize,
    /// Nodes that could lead then.
    successors: Vec<String>,
    /// Where the replica could be made anew.
    replacement: Option<String>,
}

impl ShardFate {
    fn loses_majority(&self) -> bool {
        self.n_left * 2 <= self.n_voters
    }

    fn words(&self) -> String {
        let mut words = Vec::new();
        if self.n_whole_left == 0 {
            words.push("LAST WHOLE COPY: mail would be lost".to_owned());
        }
        if self.loses_majority() {
            words.push("NO MAJORITY: nothing could be changed or delivered".to_owned());
        } else if self.loses_leader {
            words.push(format!("another leads: {}", self.successors.join(" or ")));
        }
        words.push(match &self.replacement {
            Some(node) => format!("replica made anew on {node}"),
            None => "NO NODE for a replacement".to_owned(),
        });
        words.join("; ")
    }
}

/// Tells it from what the nodes last reported.
pub fn explain(status: &Status, node: &str) -> Result<Explanation> {
    let Some(placement) = status.placement.as_deref().filter(|known| known.version > 0) else {
        bail!("no cluster was formed yet");
    };
    if placement.node(node).is_none() {
        let names: Vec<&str> = placement.nodes.iter().map(|node| node.name.as_str()).collect();
        bail!("no node {node}; there are {}", names.join(", "));
    }
    let told = Told { status, placement };
    let here = |shard: &&Shard| shard.replicas.iter().any(|replica| replica.node == node);
    let mut load = told.load();
    let shards = placement.shards.iter().filter(here);
    Ok(Explanation {
        node: node.to_owned(),
        reachable: told.is_reachable(node),
        shards: shards.map(|shard| told.fate(shard, node, &mut load)).collect(),
    })
}

struct Told<'a> {
    status: &'a Status,
    placement: &'a Placement,
}

impl Told<'_> {
    fn node(&self, name: &str) -> Option<&NodeStatus> {
        self.status.nodes.iter().find(|node| node.node.name == name)
    }

    fn is_reachable(&self, name: &str) -> bool {
        self.node(name).is_some_and(|node| node.reachable)
    }

    fn report(&self, shard: ShardId, replica: &Replica) -> Option<&ReplicaReport> {
        let node = self.node(&replica.node).filter(|node| node.reachable)?;
        node.replicas.iter().find(|one| one.shard == shard && one.replica_id == replica.replica_id)
    }

    /// Replicas on each node.
    fn load(&self) -> BTreeMap<String, usize> {
        let replicas = self.placement.shards.iter().flat_map(|shard| &shard.replicas);
        let mut load = BTreeMap::new();
        for replica in replicas {
            *load.entry(replica.node.clone()).or_default() += 1;
        }
        load
    }

    fn fate(&self, shard: &Shard, node: &str, load: &mut BTreeMap<String, usize>) -> ShardFate {
        let id = shard.shard;
        let reports: Vec<(&Replica, Option<&ReplicaReport>)> =
            shard.replicas.iter().map(|replica| (replica, self.report(id, replica))).collect();
        let committed = reports.iter().filter_map(|(_, one)| Some((*one)?.committed)).max();
        let runs = |one: &ReplicaReport| {
            !matches!(one.state, ReplicaState::Failed | ReplicaState::Starting)
        };
        let left = || {
            let others = reports.iter().filter(|(replica, _)| replica.node != node);
            others.filter_map(|(replica, one)| Some((*replica, (*one).filter(|one| runs(one))?)))
        };
        let is_whole = |one: &ReplicaReport| {
            one.n_missing_chunks == 0 && Some(one.last_log + BEHIND_MAX) >= committed
        };
        let votes = |replica: &Replica| replica.role == ReplicaRole::Voter;
        let leads = reports.iter().any(|(replica, one)| {
            replica.node == node && one.is_some_and(|one| one.state == ReplicaState::Leader)
        });
        let successors = left().filter(|(replica, one)| votes(replica) && is_whole(one));
        let replacement = self.replacement(shard, node, load);
        if let Some(name) = &replacement {
            *load.entry(name.clone()).or_default() += 1;
        }
        ShardFate {
            shard: id,
            loses_leader: leads,
            n_left: left().filter(|(replica, _)| votes(replica)).count(),
            n_voters: shard.replicas.iter().filter(|replica| votes(replica)).count(),
            n_whole_left: left().filter(|(_, one)| is_whole(one)).count(),
            successors: successors.map(|(replica, _)| replica.node.clone()).collect(),
            replacement,
        }
    }

    /// The node that carries least of those that have a usable disk and no replica of the shard; one
    /// of another zone first.
    fn replacement(
        &self,
        shard: &Shard,
        lost: &str,
        load: &BTreeMap<String, usize>,
    ) -> Option<String> {
        let holds = |name: &str| shard.replicas.iter().any(|replica| replica.node == name);
        let zone = |name: &str| self.placement.node(name).map(|node| node.zone.as_str());
        let is_shared = |node: &Node| {
            let mut others = shard.replicas.iter().filter(|replica| replica.node != lost);
            !node.zone.is_empty() && others.any(|one| zone(&one.node) == Some(node.zone.as_str()))
        };
        let usable = |node: &&Node| {
            node.name != lost
                && !node.draining
                && !holds(&node.name)
                && self.is_reachable(&node.name)
                && node.disks.iter().any(|disk| disk.state == DiskState::Ok)
        };
        let count = |node: &Node| load.get(&node.name).copied().unwrap_or_default();
        let nodes = self.placement.nodes.iter().filter(usable);
        nodes.min_by_key(|node| (is_shared(node), count(node))).map(|node| node.name.clone())
    }
}

impl Explanation {
    /// Whether no shard would lose its majority or its last whole copy.
    pub fn is_safe(&self) -> bool {
        self.shards.iter().all(|fate| !fate.loses_majority() && fate.n_whole_left > 0)
    }

    /// For people.
    pub fn text(&self) -> String {
        let count = |is: fn(&ShardFate) -> bool| self.shards.iter().filter(|one| is(one)).count();
        let mut text = format!(
            "if {} died now{}: {} shards lose a copy, {} of them their leader, {} their majority, {} \
             their last whole copy\n",
            self.node,
            if self.reachable { "" } else { " (it is away already)" },
            self.shards.len(),
            count(|one| one.loses_leader),
            count(ShardFate::loses_majority),
            count(|one| one.n_whole_left == 0),
        );
        let mut table = Table::new();
        table.load_preset(NOTHING).set_header(["shard", "voters left", "whole left", "then"]);
        for fate in &self.shards {
            table.add_row([
                if fate.shard == META_SHARD { "meta".into() } else { fate.shard.to_string() },
                format!("{} of {}", fate.n_left, fate.n_voters),
                fate.n_whole_left.to_string(),
                fate.words(),
            ]);
        }
        text += &table.to_string();
        text
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let fate = |fate: &ShardFate| {
            json!({
                "shard": fate.shard.0,
                "loses_leader": fate.loses_leader,
                "loses_majority": fate.loses_majority(),
                "voters_left": fate.n_left,
                "voters": fate.n_voters,
                "whole_copies_left": fate.n_whole_left,
                "successors": fate.successors,
                "replacement": fate.replacement,
            })
        };
        json!({
            "node": self.node,
            "reachable": self.reachable,
            "safe": self.is_safe(),
            "shards": self.shards.iter().map(fate).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use api::placement::{Disk, DiskId};

    use super::*;

    /// Three nodes with one shard, and a fourth without.
    pub(crate) fn status() -> Status {
        let names = ["n1", "n2", "n3", "n4"];
        let disk = |number: u8| Disk {
            disk_id: DiskId([number; 16]),
            start_count: 1,
            size_bytes: 1,
            free_bytes: 1,
            state: DiskState::Ok,
            path: String::new(),
            start_id: 0,
            previous_start_id: 0,
            n_synced: None,
        };
        let node = |at: usize| Node {
            name: names[at].into(),
            disks: vec![disk(at as u8)],
            ..Node::default()
        };
        let nodes: Vec<Node> = (0..4).map(node).collect();
        let replica = |at: usize| Replica {
            replica_id: at as u64 + 1,
            node: names[at].into(),
            disk_id: DiskId([at as u8; 16]),
            role: ReplicaRole::Voter,
            replaces: None,
        };
        let shard = Shard {
            shard: ShardId(1),
            replicas: (0..3).map(replica).collect(),
            leader: None,
            n_wanted: 3,
            forced: None,
            outcasts: Vec::new(),
        };
        let report = |at: usize| ReplicaReport {
            shard: ShardId(1),
            replica_id: at as u64 + 1,
            disk_id: DiskId([at as u8; 16]),
            state: if at == 0 { ReplicaState::Leader } else { ReplicaState::Follower },
            term: 1,
            leader: Some("n1".into()),
            last_log: 9,
            committed: 9,
            applied: 9,
            digest: [0; 32],
            n_missing_chunks: 0,
            n_chunks: 0,
            chunk_bytes: 0,
            followers: Vec::new(),
            voters: vec![1, 2, 3],
            learners: Vec::new(),
            is_joint: false,
            missing_bytes: 0,
            received_bytes: 0,
            is_recovered: false,
        };
        let status = |(at, node): (usize, &Node)| NodeStatus {
            node: node.clone(),
            reachable: true,
            replicas: if at < 3 { vec![report(at)] } else { Vec::new() },
            ..NodeStatus::default()
        };
        let told = nodes.iter().enumerate().map(status).collect();
        let placement = Placement { version: 1, nodes, shards: vec![shard], ..Default::default() };
        Status { placement: Some(Arc::new(placement)), nodes: told, ..Status::default() }
    }

    #[test]
    fn one_death_of_three_moves_a_leader_and_a_replica() {
        let told = explain(&status(), "n1").unwrap();
        assert!(told.is_safe());
        let fate = &told.shards[0];
        assert!(fate.loses_leader && !fate.loses_majority());
        assert_eq!(fate.successors, ["n2", "n3"]);
        assert_eq!(fate.replacement.as_deref(), Some("n4"));
        assert!(!explain(&status(), "n2").unwrap().shards[0].loses_leader);
        assert_eq!(explain(&status(), "n4").unwrap().shards, []);
        assert!(explain(&status(), "n5").unwrap_err().to_string().contains("n1, n2, n3, n4"));
    }

    #[test]
    fn a_second_death_costs_the_majority() {
        let mut status = status();
        status.nodes[1].reachable = false;
        let told = explain(&status, "n1").unwrap();
        assert!(!told.is_safe());
        assert!(told.shards[0].loses_majority() && told.shards[0].n_whole_left == 1);
        assert!(told.text().contains("NO MAJORITY"), "{}", told.text());
    }

    #[test]
    fn the_last_whole_copy_is_said() {
        let mut status = status();
        for node in &mut status.nodes[1..3] {
            node.replicas[0].n_missing_chunks = 5;
        }
        let told = explain(&status, "n1").unwrap();
        assert!(!told.is_safe());
        assert!(told.text().contains("LAST WHOLE COPY"), "{}", told.text());
        assert!(explain(&status, "n2").unwrap().is_safe());
        // Reports of different moments tell nothing; a replica far behind is none.
        let mut behind = self::status();
        behind.nodes[0].replicas[0].committed = 9 + BEHIND_MAX;
        assert_eq!(explain(&behind, "n1").unwrap().shards[0].n_whole_left, 2);
        behind.nodes[0].replicas[0].committed += 1;
        assert_eq!(explain(&behind, "n1").unwrap().shards[0].n_whole_left, 0);
        // One that failed is none, and one that is behind is not whole.
        status.nodes[0].replicas[0].state = ReplicaState::Failed;
        assert_eq!(explain(&status, "n2").unwrap().shards[0].n_whole_left, 0);
    }
}
