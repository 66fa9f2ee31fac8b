//! The cluster as a whole: forming it, and how it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use api::admin::{ClusterInit, NodeStatus, Presence, Replacement, Status};
use api::meta::{DiskScrub, MetaError, ReplicaReport, ReplicaState};
use api::placement::{
    Disk, DiskId, DiskState, META_SHARD, Node, Placement, Replica, ReplicaRole, Shard,
};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use mailbox::ShardId;
use serde_json::{Value, json};

use crate::follow;
use crate::target::Target;

/// Replicas of a shard where there are enough nodes: one may be lost for good.
pub const N_REPLICAS: u32 = 3;

/// What `ctl cluster init` forms.
#[derive(Clone, Debug)]
pub struct InitRequest {
    /// Names of the nodes whose disks begin the cluster.
    pub nodes: Vec<String>,
    /// Data shards.
    pub n_shards: u32,
    /// Copies of each, an odd number.
    pub n_replicas: u32,
}

/// Forms a cluster, once.
pub async fn init(target: &Target, request: &InitRequest) -> Result<()> {
    let n_replicas = request.n_replicas;
    check_names(&request.nodes)?;
    check_copies(n_replicas, request.nodes.len())?;
    let init = ClusterInit {
        disks: request.nodes.iter().map(|name| (name.clone(), None)).collect(),
        n_shards: request.n_shards,
        n_replicas,
        settings: BTreeMap::new(),
    };
    target.admin()?.cluster_init(&init).await.context("form cluster")
}

/// Whether each is the name of another node: one that is named twice would count as two, and has one copy.
fn check_names(names: &[String]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| !api::tls::is_name(name)) {
        bail!("--nodes: {name:?} is no name of a node: write them as n1,n2,n3");
    }
    let mut seen = BTreeSet::new();
    if let Some(name) = names.iter().find(|name| !seen.insert(*name)) {
        bail!("--nodes: {name} is named twice");
    }
    Ok(())
}

/// Whether so many nodes can have so many copies; the cluster would make fewer without a word.
pub(crate) fn check_copies(n_replicas: u32, n_nodes: usize) -> Result<()> {
    if n_replicas.is_multiple_of(2) {
        bail!(
            "--replicas {n_replicas}: an even number survives no more losses than the odd one below it"
        );
    }
    if n_nodes < n_replicas as usize {
        bail!(
            "{n_replicas} copies need {n_replicas} nodes that take some, and there are {n_nodes}: add more, \
             or say --replicas 1 where a disk that dies may take mail with it"
        );
    }
    Ok(())
}

/// How the cluster is now.
pub async fn status(target: &Target) -> Result<ClusterStatus> {
    let admin = target.admin_within(STATUS_DEADLINE)?;
    let begun = Instant::now();
    loop {
        match admin.status(false).await {
            Ok(status) => {
                let mut status = ClusterStatus { status, leaderless: None };
                if status.placement().is_none() || status.leads(META_SHARD).is_some() {
                    return Ok(status);
                }
                if begun.elapsed() >= LEADERLESS_MAX {
                    let called = admin.roll_call(ROLL_CALL_DEADLINE).await;
                    status.leaderless = Some(no_leader("they have not agreed on one", &called));
                    return Ok(status);
                }
            }
            Err(MetaError::Unavailable(why)) => {
                let called = admin.roll_call(ROLL_CALL_DEADLINE).await;
                bail!("ask for status: {}", no_leader(&why, &called))
            }
            Err(error) => return Err(error).context("ask for status"),
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// A meta group with a majority has a leader long before.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);
/// How long the meta group may have no leader before that is said. Why: for a moment after each change of
/// its leader it has none that is known.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);
/// Who did not answer by then does not answer.
pub(crate) const ROLL_CALL_DEADLINE: Duration = Duration::from_secs(2);

/// Why nobody can say how the cluster is: the nodes line by line.
fn no_leader(why: &str, called: &[Presence]) -> String {
    let mut text = match called.iter().any(|node| node.absence.is_none()) {
        true => "the meta group has no leader: a majority of its nodes must run".to_owned(),
        false => "no node answers".to_owned(),
    };
    text += &presences(called);
    if called.iter().all(|node| node.absence.is_none()) {
        text += &format!("\n  {why}");
    }
    text
}

/// Who answers, and why the others do not, a line for each.
pub(crate) fn presences(called: &[Presence]) -> String {
    let line = |Presence { node, absence }: &Presence| match absence {
        None => format!("\n  {node}: answers"),
        Some(why) => format!("\n  {node}: no answer: {why}"),
    };
    called.iter().map(line).collect()
}

/// How long nodes have to say how they are, and replicas to apply what was committed when they were first
/// asked. Why: each node says so every second, at its own time, and mail may arrive all the while.
const CATCH_UP_MAX: Duration = Duration::from_secs(4);
/// How often they are looked at meanwhile.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// A disk that has not answered for so long hangs.
const HANGS_AFTER_MS: u64 = 2_000;

/// Fails with what is missing until every shard has a leader that a majority follows; with `whole`, until
/// every copy of everything there was when this was asked is present on every placed replica.
pub async fn health(target: &Target, whole: bool) -> Result<()> {
    let begun = Instant::now();
    let mut goals: BTreeMap<ShardId, u64> = BTreeMap::new();
    loop {
        let elapsed = begun.elapsed();
        let status = status(target).await?;
        let placement = status.known()?;
        let mut behind = if whole { status.check_news(elapsed) } else { Ok(()) };
        for shard in &placement.shards {
            let committed = status.check_leader(shard)?;
            if whole {
                status.check_whole(shard)?;
                let goal = *goals.entry(shard.shard).or_insert(committed);
                behind = behind.and_then(|()| status.check_applied(shard, goal));
            }
        }
        if placement.shards.len() < 2 {
            bail!("the cluster has no data shard yet");
        }
        if behind.is_ok() || elapsed >= CATCH_UP_MAX {
            return behind;
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// What the nodes said.
pub struct ClusterStatus {
    status: Status,
    /// Nobody leads the meta group, in words: what is here is what one node knows itself.
    leaderless: Option<String>,
}

impl ClusterStatus {
    /// Where everything is; `None` before a cluster was formed.
    pub fn placement(&self) -> Option<&Placement> {
        self.status.placement.as_deref().filter(|placement| placement.version > 0)
    }

    /// The same, where there has to be one.
    pub fn known(&self) -> Result<&Placement> {
        self.placement().context("no cluster was formed yet")
    }

    /// Replicas that are being made.
    pub fn replacements(&self) -> &[Replacement] {
        &self.status.replacements
    }

    /// What cannot be done yet.
    pub fn waiting(&self) -> &[String] {
        &self.status.waiting
    }

    /// What all nodes said. Fails where nobody leads the meta group, who alone is told.
    pub fn of_all(&self) -> Result<&Status> {
        match &self.leaderless {
            Some(text) => bail!("{text}"),
            None => Ok(&self.status),
        }
    }

    fn node(&self, name: &str) -> Option<&NodeStatus> {
        self.status.nodes.iter().find(|node| node.node.name == name)
    }

    /// Whether a node was heard of lately.
    pub fn is_reachable(&self, name: &str) -> bool {
        self.node(name).is_some_and(|node| node.reachable)
    }

    /// What a node itself says of a disk.
    pub fn told(&self, node: &str, disk: DiskId) -> Option<&Disk> {
        self.node(node)?.told.iter().find(|told| told.disk_id == disk)
    }

    /// How many nodes take new replicas.
    pub fn n_taking_replicas(&self) -> Result<usize> {
        let has_room = |node: &&Node| {
            !node.draining && node.disks.iter().any(|disk| disk.state == DiskState::Ok)
        };
        Ok(self.known()?.nodes.iter().filter(has_room).count())
    }

    /// How long the process of a node runs.
    pub fn uptime_ms(&self, name: &str) -> Option<u64> {
        self.node(name).filter(|node| node.reachable).map(|node| node.uptime_ms)
    }

    /// For how long a disk of a node has not answered, if it hangs.
    pub fn hung_for(&self, node: &str, disk: DiskId) -> Option<Duration> {
        let unanswered_ms = self.scrub(node, disk)?.unanswered_ms;
        (unanswered_ms > HANGS_AFTER_MS).then(|| Duration::from_millis(unanswered_ms))
    }

    /// What scrub found on a disk of a node.
    pub fn scrub(&self, node: &str, disk: DiskId) -> Option<&DiskScrub> {
        self.node(node)?.scrubs.iter().find(|one| one.disk_id == disk)
    }

    fn reports(&self, shard: ShardId) -> impl Iterator<Item = (&NodeStatus, &ReplicaReport)> {
        let nodes = self.status.nodes.iter().filter(|node| node.reachable);
        nodes.flat_map(move |node| {
            let of_shard = node.replicas.iter().filter(move |replica| replica.shard == shard);
            of_shard.map(move |replica| (node, replica))
        })
    }

    /// The node whose replica says it leads, in the highest term.
    fn leader(&self, shard: ShardId) -> Option<(&NodeStatus, &ReplicaReport)> {
        let leaders = self.reports(shard).filter(|(_, one)| one.state == ReplicaState::Leader);
        leaders.max_by_key(|(_, replica)| replica.term)
    }

    /// The node that leads a shard.
    pub fn leads(&self, shard: ShardId) -> Option<&str> {
        self.leader(shard).map(|(node, _)| node.node.name.as_str())
    }

    /// What is known of every replica of a shard, and what would be lost if the one on `keep` went on
    /// alone. For people.
    pub fn losses(&self, shard: ShardId, keep: &str) -> Result<String> {
        let placement = self.known()?;
        let placed = placement.shard(shard).with_context(|| format!("no shard {shard}"))?;
        let mut text = format!("shard {shard}:");
        let (mut kept, mut furthest) = (None, 0);
        for one in &placed.replicas {
            let node = self.node(&one.node);
            let said = node.and_then(|node| {
                node.replicas.iter().find(|told| told.replica_id == one.replica_id)
            });
            let is_reachable = self.is_reachable(&one.node);
            let state = match said.map(|told| told.state) {
                _ if !is_reachable => "away",
                Some(ReplicaState::Failed) => "FAILED",
                Some(ReplicaState::Starting) => "starting",
                _ => "here",
            };
            // Why: one that was not started yet, or stopped for good, cannot say what is in its log.
            let known = said.filter(|told| match told.state {
                ReplicaState::Starting => told.term > 0,
                state => state != ReplicaState::Failed,
            });
            let words = known.map_or("nothing is known of its log".to_owned(), |told| {
                furthest = furthest.max(told.last_log);
                let n = told.n_missing_chunks;
                format!("log up to {}, {n} bodies missing", told.last_log)
            });
            if one.node == keep {
                // One that stopped for good may be all there is left, and can be taken as it is.
                let is_failed = said.is_some_and(|told| told.state == ReplicaState::Failed);
                kept = (is_reachable && (is_failed || known.is_some())).then_some(known);
            }
            text += &format!("\n  replica {} on {} ({state}): {words}", one.replica_id, one.node);
        }
        let kept = kept.with_context(|| format!("{text}\n{keep} has no running replica of it"))?;
        let Some(kept) = kept else {
            text += "\n  nothing is known of what it has; what it lacks is lost";
            return Ok(text);
        };
        text += &match furthest.saturating_sub(kept.last_log) {
            0 => "\n  no later entry is known; what the others acknowledged unseen is lost"
                .to_owned(),
            n => format!("\n  at least {n} entries, {} to {furthest}, are lost", kept.last_log + 1),
        };
        if kept.n_missing_chunks > 0 {
            text += &format!("\n  {} bodies are lost", kept.n_missing_chunks);
        }
        Ok(text)
    }

    /// Gives the last entry its leader knows to be committed.
    fn check_leader(&self, shard: &Shard) -> Result<u64> {
        let (id, name) = (shard.shard, called(shard.shard));
        let (_, leader) = self.leader(id).with_context(|| format!("{name} has no leader"))?;
        let following = self.reports(id).filter(|(_, one)| one.term == leader.term).count();
        if following * 2 <= shard.replicas.len() {
            bail!("{name}: only {following} of {} replicas follow", shard.replicas.len());
        }
        Ok(leader.committed)
    }

    fn check_whole(&self, shard: &Shard) -> Result<()> {
        let (id, name) = (shard.shard, called(shard.shard));
        let (_, leader) = self.leader(id).with_context(|| format!("{name} has no leader"))?;
        if leader.is_joint {
            bail!("{name}: a change of its members is under way");
        }
        if shard.replicas.len() < shard.n_wanted as usize {
            bail!("{name}: only {} of {} copies", shard.replicas.len(), shard.n_wanted);
        }
        for placed in &shard.replicas {
            let found = self.reports(id).find(|(_, one)| one.replica_id == placed.replica_id);
            let (node, replica) = found.with_context(|| {
                format!("{name}: replica {} on {} is away", placed.replica_id, placed.node)
            })?;
            if matches!(replica.state, ReplicaState::Starting | ReplicaState::Failed) {
                bail!("{name}: the replica on {} does not run", node.node.name);
            }
            if replica.n_missing_chunks > 0 {
                let n = replica.n_missing_chunks;
                bail!("{name}: {} misses {n} chunks", node.node.name);
            }
            let votes = leader.voters.contains(&placed.replica_id);
            if placed.role == ReplicaRole::Learner || !votes {
                bail!("{name}: replica {} on {} does not vote yet", placed.replica_id, placed.node);
            }
            if replica.applied == leader.applied && replica.digest != leader.digest {
                bail!("{name}: {} differs from the leader", node.node.name);
            }
        }
        Ok(())
    }

    /// Whether each node that should have a replica said how it is within this time: what it said before
    /// may be of a process that is gone.
    fn check_news(&self, within: Duration) -> Result<()> {
        for replica in self.known()?.shards.iter().flat_map(|shard| &shard.replicas) {
            let age_ms = self.node(&replica.node).map_or(u64::MAX, |node| node.age_ms);
            if u128::from(age_ms) > within.as_millis() {
                bail!("{} has not said how it is since this was asked", replica.node);
            }
        }
        Ok(())
    }

    fn check_applied(&self, shard: &Shard, goal: u64) -> Result<()> {
        for (node, replica) in self.reports(shard.shard) {
            let is_placed = shard.replicas.iter().any(|one| one.replica_id == replica.replica_id);
            if is_placed && replica.applied < goal {
                let (name, lag) = (called(shard.shard), goal - replica.applied);
                bail!("{name}: {} is {lag} entries behind", node.node.name);
            }
        }
        Ok(())
    }

    /// For people.
    pub fn tables(&self) -> String {
        let Some(placement) = self.placement() else {
            return "no cluster was formed yet: `rookery ctl cluster init --nodes ...`".into();
        };
        let mut text = String::new();
        if let Some(why) = &self.leaderless {
            text += &format!("{why}\nwhat follows is only what one node knows itself:\n\n");
        }
        text += &format!("{}\n\n{}", self.node_table(), self.shard_table(placement));
        let making = self.status.replacements.iter().map(follow::line);
        let waiting = self.status.waiting.iter().map(|line| format!("waits: {line}"));
        let lines: Vec<String> = making.chain(waiting).chain(mixed(&self.status.nodes)).collect();
        if !lines.is_empty() {
            text += "\n\n";
            text += &lines.join("\n");
        }
        text
    }

    fn node_table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_header([
            "node",
            "address",
            "state",
            "disk",
            "disk state",
            "free",
            "starts",
            "scrub",
        ]);
        for node in &self.status.nodes {
            let state = match (node.reachable, node.node.draining) {
                (false, _) => "AWAY",
                (true, true) => "draining",
                (true, false) => "up",
            };
            for disk in &node.node.disks {
                let scrub = node.scrubs.iter().find(|one| one.disk_id == disk.disk_id);
                table.add_row([
                    node.node.name.clone(),
                    node.node.address.clone(),
                    state.to_owned(),
                    disk.path.clone(),
                    disk_words(node.reachable, disk, scrub),
                    format!("{:.1} GiB", disk.free_bytes as f64 / f64::from(1 << 30)),
                    if disk.is_opened() { disk.start_count.to_string() } else { "?".to_owned() },
                    scrub.map_or(String::new(), scrub_words),
                ]);
            }
        }
        table
    }

    /// Shards, for people.
    pub fn shard_table(&self, placement: &Placement) -> Table {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_header(["shard", "leader", "term", "committed", "replicas (lag)"]);
        for shard in &placement.shards {
            let id = shard.shard;
            let name = if id == META_SHARD { "meta".into() } else { id.to_string() };
            let leader = self.leader(id);
            let committed = leader.map_or(0, |(_, one)| one.committed);
            let replicas: Vec<String> = shard
                .replicas
                .iter()
                .map(|placed| self.replica_words(id, placed, committed))
                .collect();
            table.add_row([
                name,
                leader.map_or("NONE".into(), |(node, _)| node.node.name.clone()),
                leader.map_or(String::new(), |(_, one)| one.term.to_string()),
                committed.to_string(),
                replicas.join("  "),
            ]);
        }
        table
    }

    fn replica_words(&self, shard: ShardId, placed: &Replica, committed: u64) -> String {
        let node = &placed.node;
        let found = self.reports(shard).find(|(_, one)| one.replica_id == placed.replica_id);
        let Some((_, one)) = found else {
            let words = if self.is_reachable(node) { "NOT RUNNING" } else { "away" };
            return format!("{node} ({words})");
        };
        match one.state {
            ReplicaState::Failed => format!("{node} (FAILED)"),
            ReplicaState::Starting => format!("{node} (starting)"),
            _ if one.n_missing_chunks > 0 => {
                format!("{node} (incomplete: {} chunks)", one.n_missing_chunks)
            }
            _ => format!("{node} ({})", committed.saturating_sub(one.applied)),
        }
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let Some(placement) = self.placement() else { return json!({ "formed": false }) };
        let nodes: Vec<Value> = self.status.nodes.iter().map(node_json).collect();
        let shards: Vec<Value> = placement.shards.iter().map(|one| self.shard_json(one)).collect();
        json!({
            "formed": true,
            "cluster": placement.cluster.to_string(),
            "version": placement.version,
            "meta_leader": self.leads(META_SHARD),
            "nodes": nodes,
            "shards": shards,
            "replacements": self.status.replacements.iter().map(replacement_json).collect::<Vec<_>>(),
            "waiting": self.status.waiting,
        })
    }

    fn shard_json(&self, shard: &Shard) -> Value {
        let leader = self.leader(shard.shard);
        let replicas: Vec<Value> = shard
            .replicas
            .iter()
            .map(|placed| {
                let found =
                    self.reports(shard.shard).find(|(_, one)| one.replica_id == placed.replica_id);
                json!({
                    "replica": placed.replica_id,
                    "node": placed.node,
                    "disk": placed.disk_id.to_string(),
                    "role": format!("{:?}", placed.role).to_lowercase(),
                    "present": found.is_some(),
                    "state": found.map(|(_, one)| format!("{:?}", one.state).to_lowercase()),
                    "applied": found.map(|(_, one)| one.applied),
                    "last_log": found.map(|(_, one)| one.last_log),
                    "missing_chunks": found.map(|(_, one)| one.n_missing_chunks),
                    "digest": found.map(|(_, one)| hex(&one.digest)),
                })
            })
            .collect();
        json!({
            "shard": shard.shard.0,
            "leader": leader.map(|(node, _)| node.node.name.clone()),
            "term": leader.map(|(_, one)| one.term),
            "committed": leader.map(|(_, one)| one.committed),
            "replicas": replicas,
        })
    }
}

/// A disk of a node that says how it is may be full, or hang.
fn disk_words(is_told: bool, disk: &Disk, scrub: Option<&DiskScrub>) -> String {
    let unanswered_ms = scrub.map_or(0, |scrub| scrub.unanswered_ms);
    match disk.state {
        DiskState::Ok | DiskState::Draining if is_told && unanswered_ms > HANGS_AFTER_MS => {
            format!("HANGS for {} s", unanswered_ms / 1000)
        }
        DiskState::Ok if is_told && disk.is_full() => "FULL".to_owned(),
        state => format!("{state:?}").to_lowercase(),
    }
}

/// Which node runs what, while an upgrade is under way.
fn mixed(nodes: &[NodeStatus]) -> Option<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.reachable) {
        let version = if node.version.is_empty() { "an older one" } else { &node.version };
        versions.entry(version).or_default().push(&node.node.name);
    }
    let words =
        versions.iter().map(|(version, names)| format!("{version} on {}", names.join(", ")));
    (versions.len() > 1).then(|| format!("versions: {}", words.collect::<Vec<_>>().join("; ")))
}

fn replacement_json(one: &Replacement) -> Value {
    json!({
        "shard": one.shard.0,
        "replica": one.replica_id,
        "replaces": one.replaces,
        "node": one.node,
        "disk": one.disk_id.to_string(),
        "phase": format!("{:?}", one.phase).to_lowercase(),
        "done": one.done,
        "total": one.total,
        "received_bytes": one.received_bytes,
        "elapsed_ms": one.elapsed_ms,
        "eta_ms": one.eta_ms,
    })
}

fn node_json(node: &NodeStatus) -> Value {
    let disks: Vec<Value> = node
        .node
        .disks
        .iter()
        .map(|disk| {
            json!({
                "disk": disk.disk_id.to_string(),
                "path": disk.path,
                "state": format!("{:?}", disk.state).to_lowercase(),
                "start_count": disk.start_count,
                "size_bytes": disk.size_bytes,
                "free_bytes": disk.free_bytes,
            })
        })
        .collect();
    json!({
        "name": node.node.name,
        "address": node.node.address,
        "reachable": node.reachable,
        "version": node.version,
        "uptime_ms": node.uptime_ms,
        "disks": disks,
        "scrub": node.scrubs.iter().map(scrub_json).collect::<Vec<_>>(),
    })
}

/// Alarming things first.
fn scrub_words(scrub: &DiskScrub) -> String {
    let mut words = Vec::new();
    if scrub.n_unrepairable > 0 {
        words.push(format!("{} UNREPAIRABLE", scrub.n_unrepairable));
    }
    if scrub.n_differing > 0 {
        words.push(format!("{} replicas DIFFER", scrub.n_differing));
    }
    if scrub.n_damaged > 0 {
        let is_all = scrub.n_repaired >= scrub.n_damaged;
        let rest = if is_all { "" } else { ", the rest is being healed" };
        words.push(format!("{} of {} damages repaired{rest}", scrub.n_repaired, scrub.n_damaged));
    }
    words.push(format!("all verified {}", crate::message::ago(scrub.oldest_unverified_ms)));
    words.join(", ")
}

fn scrub_json(scrub: &DiskScrub) -> Value {
    json!({
        "disk": scrub.disk_id.to_string(),
        "verified_bytes": scrub.verified_bytes,
        "damaged": scrub.n_damaged,
        "repaired": scrub.n_repaired,
        "unrepairable": scrub.n_unrepairable,
        "oldest_unverified_ms": scrub.oldest_unverified_ms,
        "passes": scrub.n_passes,
        "differing_replicas": scrub.n_differing,
        "unanswered_ms": scrub.unanswered_ms,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A shard as people call it.
fn called(shard: ShardId) -> String {
    if shard == META_SHARD { "the meta group".into() } else { format!("shard {shard}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::placement::Node;

    use super::*;

    #[test]
    fn no_fewer_copies_are_made_than_were_asked_for() {
        for (n_replicas, n_nodes) in [(0, 3), (2, 2), (4, 4), (3, 2), (5, 4), (1, 0)] {
            assert!(check_copies(n_replicas, n_nodes).is_err(), "{n_replicas} on {n_nodes}");
        }
        for (n_replicas, n_nodes) in [(1, 1), (1, 2), (3, 3), (5, 7)] {
            check_copies(n_replicas, n_nodes).unwrap();
        }
    }

    #[test]
    fn a_cluster_is_formed_of_nodes_that_are_named_once() {
        let said = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            check_names(&names).err().map(|error| error.to_string())
        };
        assert_eq!(said(&["n1", "n2", "n3"]), None);
        assert_eq!(said(&["n1", "n2", "n2"]).unwrap(), "--nodes: n2 is named twice");
        for names in [["n1", ""], ["n1", " n2"], ["n1", "n2:7400"]] {
            let said = said(&names).unwrap();
            assert!(said.contains("is no name of a node"), "{said}");
        }
    }

    #[test]
    fn versions_are_told_while_they_differ() {
        let node = |name: &str, version: &str| {
            let node = Node { name: name.into(), ..Node::default() };
            let (version, reachable) = (version.to_owned(), true);
            NodeStatus { node, version, reachable, ..NodeStatus::default() }
        };
        let mut nodes = [node("n1", "0.2.0"), node("n2", ""), node("n3", "0.2.0")];
        let said = mixed(&nodes).unwrap();
        assert_eq!(said, "versions: 0.2.0 on n1, n3; an older one on n2");
        nodes[1].version = "0.2.0".into();
        assert_eq!(mixed(&nodes), None);
    }

    #[test]
    fn without_a_leader_each_node_is_told_of() {
        let node = |name: &str, absence: Option<&str>| Presence {
            node: name.into(),
            absence: absence.map(str::to_owned),
        };
        let called = [node("n1 (a:1)", None), node("n2 (b:1)", Some("refused"))];
        assert_eq!(
            no_leader("no node answers", &called),
            "the meta group has no leader: a majority of its nodes must run\n  \
             n1 (a:1): answers\n  n2 (b:1): no answer: refused"
        );
        assert_eq!(no_leader("x", &called[1..]), "no node answers\n  n2 (b:1): no answer: refused");
        assert!(no_leader("just started", &called[..1]).ends_with("answers\n  just started"));
    }

    #[test]
    fn what_one_node_knows_is_not_told_as_what_all_said() {
        let placement = Placement { version: 1, ..Placement::default() };
        let status = Status { placement: Some(Arc::new(placement)), ..Status::default() };
        let mut status = ClusterStatus { status, leaderless: None };
        assert!(status.of_all().is_ok());
        assert!(!status.tables().contains("one node"), "{}", status.tables());
        status.leaderless = Some("no leader".into());
        assert_eq!(status.of_all().unwrap_err().to_string(), "no leader");
        assert!(status.tables().starts_with("no leader\nwhat follows"), "{}", status.tables());
        assert_eq!(status.to_json().get("meta_leader"), Some(&Value::Null));
    }

    #[test]
    fn a_replica_that_failed_is_not_told_as_one_that_lags() {
        let status = crate::explain::tests::status();
        let mut status = ClusterStatus { status, leaderless: None };
        status.status.nodes[0].replicas.clear();
        status.status.nodes[1].replicas[0].state = ReplicaState::Failed;
        status.status.nodes[2].replicas[0].state = ReplicaState::Starting;
        let shown = status.tables();
        assert!(shown.contains("FULL"), "their disks have one byte: {shown}");
        let disk_id = status.status.nodes[0].node.disks[0].disk_id;
        let hangs = DiskScrub { disk_id, unanswered_ms: 3_999, ..DiskScrub::default() };
        status.status.nodes[0].scrubs = vec![hangs];
        assert!(status.tables().contains("HANGS for 3 s"), "{}", status.tables());
        let name = status.status.nodes[0].node.name.clone();
        assert!(status.hung_for(&name, disk_id).is_some());
        for words in ["n1 (NOT RUNNING)", "n2 (FAILED)", "n3 (starting)"] {
            assert!(shown.contains(words), "{shown}");
        }
        assert_eq!(status.to_json()["shards"][0]["replicas"][1]["state"], "failed");
        // It may be the last one there is.
        let lost = status.losses(ShardId(1), "n2").unwrap();
        assert!(lost.contains("n2 (FAILED): nothing is known of its log"), "{lost}");
        assert!(lost.ends_with("nothing is known of what it has; what it lacks is lost"), "{lost}");
        let lost = status.losses(ShardId(1), "n1").unwrap_err().to_string();
        assert!(lost.ends_with("n1 has no running replica of it"), "{lost}");
    }
}
