//! What the drill sees of a cluster through its admin API: leaders, copies, and whether it is at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admin::account::{Accounts, Quota, hash_password, parse_address};
use admin::survey::survey;
use admin::target::Target;
use anyhow::{Context as _, Result, bail, ensure};
use api::admin::{AdminClient, NodeStatus};
use api::client::Client;
use api::fault::{Fault, FaultClient};
use api::meta::{DiskScrub, MetaError, ReplicaReport, ReplicaState};
use api::placement::{DiskId, META_SHARD, Placement, Replica, ReplicaRole, Shard};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::history;
use crate::work::Canary;

/// How long one node may take to say how it is.
const STATUS_PATIENCE: Duration = Duration::from_millis(800);
/// Copies that a shard has at least before it is hurt.
const COPIES_MIN: usize = 3;
/// How long copies may be made, if they are: some TB, as fast as nodes bring them.
const FILLED_WITHIN: Duration = Duration::from_secs(4 * 3600);
/// Canaries removed side by side: where nobody answers each takes as long as an answer is waited for.
const REMOVALS_AT_ONCE: usize = 16;
/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A cluster that is drilled.
pub(crate) struct Cluster {
    target: Target,
    admin: AdminClient,
    faults: FaultClient,
    /// Nodes that were told to lead nothing.
    drained: Mutex<BTreeSet<String>>,
}

/// What the nodes said, each for itself, at about the same time.
pub(crate) struct Snapshot {
    pub placement: Arc<Placement>,
    pub nodes: BTreeMap<String, NodeStatus>,
}

impl Cluster {
    pub fn connect(target: Target) -> Result<Self> {
        let (admin, faults) = (target.admin()?, target.faults()?);
        Ok(Self { target, admin, faults, drained: Mutex::default() })
    }

    /// Waits until a node tells where everything is, and not for ever.
    pub async fn reach(&self) -> Result<()> {
        self.target.client().await.map(drop)
    }

    /// Asks every node how it is.
    pub async fn snapshot(&self) -> Snapshot {
        let mut placement = self.faults.placement().await;
        let names: Vec<String> = placement.nodes.iter().map(|node| node.name.clone()).collect();
        let mut asking = tokio::task::JoinSet::new();
        for name in names {
            let admin = self.admin.clone();
            asking.spawn(async move { admin.status_of(&name, STATUS_PATIENCE).await });
        }
        let mut nodes = BTreeMap::new();
        while let Some(answer) = asking.join_next().await {
            let Ok(Ok(status)) = answer else { continue };
            if let Some(newer) = status.placement.filter(|new| new.version > placement.version) {
                placement = newer;
            }
            nodes.extend(status.nodes.into_iter().map(|node| (node.node.name.clone(), node)));
        }
        Snapshot { placement, nodes }
    }

    /// Hurts a node.
    pub async fn inflict(&self, node: &str, fault: &Fault) -> Result<u32, MetaError> {
        self.faults.inflict(node, fault).await
    }

    /// Empties a node of leaderships, or calls that off.
    pub async fn drain(&self, node: &str, undo: bool) -> Result<()> {
        if !undo {
            self.drained().insert(node.to_owned());
        }
        self.admin.drain(node, undo).await.with_context(|| format!("drain {node}"))?;
        if undo {
            self.drained().remove(node);
        }
        Ok(())
    }

    /// Calls off what a scenario that was broken off left drained.
    pub async fn undrain(&self) -> Result<()> {
        // Why a copy: what could not be called off stays noted.
        let drained = self.drained().clone();
        for node in drained {
            let undone = self.drain(&node, true).await;
            undone.with_context(|| {
                format!("node {node} is left drained (rookery ctl node undrain {node})")
            })?;
        }
        Ok(())
    }

    fn drained(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes snapshots until one satisfies.
    pub async fn until<T>(
        &self,
        patience: Duration,
        satisfies: impl FnMut(&Snapshot) -> Result<T>,
    ) -> Result<T> {
        self.wait(patience, Deadline::new(patience, patience), satisfies).await
    }

    /// The same; patience begins anew whenever a replica has got more of the bodies it misses.
    pub async fn until_filled<T>(
        &self,
        patience: Duration,
        satisfies: impl FnMut(&Snapshot) -> Result<T>,
    ) -> Result<T> {
        self.wait(patience, Deadline::new(patience, FILLED_WITHIN), satisfies).await
    }

    async fn wait<T>(
        &self,
        patience: Duration,
        mut deadline: Deadline,
        mut satisfies: impl FnMut(&Snapshot) -> Result<T>,
    ) -> Result<T> {
        loop {
            let snapshot = self.snapshot().await;
            deadline.note(snapshot.missing(), Instant::now());
            match satisfies(&snapshot) {
                Ok(found) => return Ok(found),
                Err(error) if Instant::now() > deadline.at => {
                    return Err(error.context(format!("not within {} s", patience.as_secs())));
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until every copy of everything is where it belongs.
    pub async fn whole(&self, patience: Duration) -> Result<()> {
        let mut committed = BTreeMap::new();
        self.until_filled(patience, move |snapshot| snapshot.check_whole(&mut committed)).await
    }

    /// Waits until all replicas of each shard are at the same entry, and tells what they hold there.
    pub async fn rest(&self, patience: Duration) -> Result<Vec<history::ReplicaState>> {
        let mut at_rest: BTreeMap<u32, Vec<history::ReplicaState>> = BTreeMap::new();
        self.until(patience, move |snapshot| {
            for shard in &snapshot.placement.shards {
                if let Some(states) = snapshot.states_at_one_entry(shard) {
                    at_rest.insert(shard.shard.0, states);
                }
            }
            let missing =
                snapshot.placement.shards.iter().find(|s| !at_rest.contains_key(&s.shard.0));
            match missing {
                Some(shard) => bail!("the replicas of shard {} are not level", shard.shard),
                None => Ok(at_rest.values().flatten().cloned().collect()),
            }
        })
        .await
    }

    /// Begins to verify a disk as fast as it goes; gives its number of passes when that is done.
    pub async fn scrub(&self, node: &str, disk: DiskId) -> Result<u64> {
        let begun = self.admin.scrub_disk(node, disk).await;
        begun.with_context(|| format!("scrub disk {disk} on {node}"))
    }

    /// Has every replica read and verify every body in these mailboxes of the canaries.
    pub async fn copies(
        &self,
        canaries: &[Canary],
        mailboxes: &[String],
    ) -> Result<Vec<history::Copies>> {
        let mut all = Vec::new();
        for canary in canaries {
            let found = survey(&self.target, &canary.name, mailboxes).await;
            let found = found.with_context(|| format!("verify copies of {}", canary.name))?;
            let texts = |digests: &[_]| digests.iter().map(ToString::to_string).collect();
            all.extend(found.iter().map(|one| history::Copies {
                account: canary.name.clone(),
                shard: one.shard.0,
                replica: one.replica_id,
                node: one.node.clone(),
                n_chunks: one.n_chunks,
                missing: texts(&one.missing),
                damaged: texts(&one.damaged),
            }));
        }
        Ok(all)
    }

    /// The same, after every disk was verified from end to end, and healed if that does not take longer:
    /// damage may lie where nobody has read since. The shards have leaders then, too.
    pub async fn healed_copies(
        &self,
        canaries: &[Canary],
        mailboxes: &[String],
        patience: Duration,
    ) -> Result<Vec<history::Copies>> {
        self.scrub_all(patience).await?;
        // Why: a replica restarts when the end of a pass shows that its index is damaged.
        self.whole(patience).await?;
        until_good(patience, async || self.copies(canaries, mailboxes).await).await
    }

    async fn scrub_all(&self, patience: Duration) -> Result<()> {
        let placement = self.snapshot().await.placement;
        let placed = placement.shards.iter().flat_map(|shard| &shard.replicas);
        let disks: BTreeSet<(&str, DiskId)> =
            placed.map(|one| (one.node.as_str(), one.disk_id)).collect();
        let mut begun = Vec::new();
        for (node, disk) in disks {
            begun.push((node, disk, self.scrub(node, disk).await?));
        }
        let verified = self.until(patience, |snapshot| {
            for (node, disk, n_passes) in &begun {
                let told = snapshot.scrubbed(node, *disk)?;
                ensure!(told.n_passes >= *n_passes, "disk {disk} on {node} is not verified yet");
            }
            Ok(())
        });
        verified.await
    }

    /// Creates accounts for a drill; all have the same password.
    pub async fn create_canaries(&self, names: &[String], password: &str) -> Result<Vec<Canary>> {
        let client = self.target.client().await?;
        let hash = hash_password(password.as_bytes())?;
        let mut canaries = Vec::with_capacity(names.len());
        for name in names {
            let address = parse_address(name)?;
            let created =
                Accounts::new(&client).add(&address, hash.clone(), Quota::default()).await;
            created.with_context(|| format!("create canary {name}"))?;
            canaries.push(Canary { name: name.clone(), password: password.to_owned() });
        }
        Ok(canaries)
    }

    /// Where the canaries live: how many on each shard.
    pub async fn shards_of(&self, canaries: &[Canary]) -> Result<BTreeMap<u32, usize>> {
        let client = self.target.client().await?;
        let mut shards = BTreeMap::new();
        for canary in canaries {
            let place = Accounts::new(&client).place(&parse_address(&canary.name)?).await?;
            *shards.entry(place.shard.0).or_default() += 1;
        }
        Ok(shards)
    }

    /// Removes them with all their mail. One that cannot be removed keeps none of the others.
    pub async fn remove_canaries(&self, canaries: &[Canary]) -> Result<()> {
        let names = |left: &[&str]| format!("canaries are left behind: {}", left.join(", "));
        let all: Vec<&str> = canaries.iter().map(|canary| canary.name.as_str()).collect();
        let client = self.target.client().await.with_context(|| names(&all))?;
        let (mut left, mut why) = (Vec::new(), None);
        for some in canaries.chunks(REMOVALS_AT_ONCE) {
            let all = some.iter().map(|canary| remove(&client, &canary.name));
            for (canary, removed) in some.iter().zip(join_all(all).await) {
                if let Err(error) = removed {
                    left.push(canary.name.as_str());
                    why = Some(error);
                }
            }
        }
        match why {
            Some(why) => Err(why.context(names(&left))),
            None => Ok(()),
        }
    }
}

async fn remove(client: &Client, name: &str) -> Result<()> {
    Accounts::new(client).delete(&parse_address(name)?).await.map(drop)
}

/// Asks until every copy is good or time is up; what was told last. Why also after an error: a replica that
/// is being healed may not answer.
async fn until_good(
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<Vec<history::Copies>>,
) -> Result<Vec<history::Copies>> {
    let deadline = Instant::now() + patience;
    let is_good = |one: &history::Copies| one.missing.is_empty() && one.damaged.is_empty();
    loop {
        let told = ask().await;
        let all_good = told.as_ref().is_ok_and(|all| all.iter().all(is_good));
        if all_good || Instant::now() > deadline {
            return told;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A deadline that moves on while copies are made.
struct Deadline {
    patience: Duration,
    at: Instant,
    /// It moves no further.
    last: Instant,
    /// By shard and replica: how many chunks it missed when it missed fewest.
    fewest: BTreeMap<(u32, u64), u64>,
}

impl Deadline {
    fn new(patience: Duration, longest: Duration) -> Self {
        let now = Instant::now();
        let (at, last) = (now + patience, now + longest.max(patience));
        Self { patience, at, last, fewest: BTreeMap::new() }
    }

    /// Takes how many chunks each replica misses. Why fewer than ever: what a write adds for a moment and a
    /// peer brings then is no progress.
    fn note(&mut self, missing: impl Iterator<Item = ((u32, u64), u64)>, now: Instant) {
        for (replica, n) in missing {
            let fewest = self.fewest.entry(replica).or_insert(n);
            if n < *fewest {
                *fewest = n;
                self.at = (now + self.patience).min(self.last).max(self.at);
            }
        }
    }
}

impl Snapshot {
    /// How many chunks each replica misses.
    fn missing(&self) -> impl Iterator<Item = ((u32, u64), u64)> {
        let replicas = self.nodes.values().flat_map(|node| &node.replicas);
        replicas.map(|one| ((one.shard.0, one.replica_id), one.n_missing_chunks))
    }

    fn reports<'a>(
        &'a self,
        shard: &'a Shard,
    ) -> impl Iterator<Item = (&'a str, &'a ReplicaReport)> + 'a {
        shard.replicas.iter().filter_map(move |placed| {
            let node = self.nodes.get(&placed.node)?;
            let report = node.replicas.iter().find(|one| one.replica_id == placed.replica_id)?;
            Some((placed.node.as_str(), report))
        })
    }

    /// The node whose replica leads, in the highest term.
    pub fn leader<'a>(&'a self, shard: &'a Shard) -> Option<&'a str> {
        let leaders = self.reports(shard).filter(|(_, one)| one.state == ReplicaState::Leader);
        leaders.max_by_key(|(_, one)| one.term).map(|(node, _)| node)
    }

    /// Every shard that this node could lead, from this disk if one is said, was seen to be led by another;
    /// `seen` are those that were. Why not that it leads none: who cannot be asked tells of none.
    pub fn check_led_by_others(
        &self,
        node: &str,
        disk: Option<DiskId>,
        seen: &mut BTreeSet<u32>,
    ) -> Result<()> {
        let is_there =
            |one: &Replica| one.node == node && disk.is_none_or(|disk| one.disk_id == disk);
        let mut open = None;
        for shard in self.placement.shards.iter().filter(|one| one.replicas.iter().any(is_there)) {
            let leader = self.leader(shard);
            if leader.is_some_and(|leader| leader != node) {
                seen.insert(shard.shard.0);
            } else if !seen.contains(&shard.shard.0) {
                open = open.or(Some((shard.shard, leader)));
            }
        }
        match open {
            None => Ok(()),
            Some((shard, Some(_))) => bail!("{node} still leads shard {shard}"),
            Some((shard, None)) => bail!("nobody is seen to lead shard {shard}"),
        }
    }

    /// The node that leads most of these shards, each counted as often as is said.
    pub fn busiest(&self, shards: &BTreeMap<u32, usize>) -> Result<String> {
        let mut led: BTreeMap<&str, usize> = BTreeMap::new();
        for shard in self.placement.shards.iter().filter(|shard| shard.shard != META_SHARD) {
            let weight = shards.get(&shard.shard.0).copied().unwrap_or(0);
            let leader = self.leader(shard);
            let leader = leader.with_context(|| format!("shard {} has no leader", shard.shard))?;
            *led.entry(leader).or_default() += weight;
        }
        let busiest = led.into_iter().max_by_key(|(_, weight)| *weight);
        busiest.map(|(node, _)| node.to_owned()).context("no shard has a leader")
    }

    /// The disk of a node that holds most replicas.
    pub fn disk_of(&self, node: &str) -> Result<DiskId> {
        let mut held: BTreeMap<DiskId, usize> = BTreeMap::new();
        for shard in &self.placement.shards {
            for placed in shard.replicas.iter().filter(|placed| placed.node == node) {
                *held.entry(placed.disk_id).or_default() += 1;
            }
        }
        let fullest = held.into_iter().max_by_key(|(_, n)| *n);
        fullest.map(|(disk, _)| disk).with_context(|| format!("node {node} holds no replica"))
    }

    /// What scrub found on a disk.
    pub fn scrubbed(&self, node: &str, disk: DiskId) -> Result<&DiskScrub> {
        let status = self.nodes.get(node).with_context(|| format!("node {node} is away"))?;
        let found = status.scrubs.iter().find(|one| one.disk_id == disk);
        found.with_context(|| format!("node {node} does not scrub disk {disk}"))
    }

    /// Whether a node started again since this time and is a part of the cluster.
    pub fn check_back(&self, node: &str, since: Instant) -> Result<()> {
        let status = self.nodes.get(node).with_context(|| format!("node {node} is away"))?;
        let up = Duration::from_millis(status.uptime_ms);
        ensure!(up < since.elapsed(), "node {node} has not gone down yet");
        Ok(())
    }

    /// Every placed replica is here, whole, healthy, and has all that was committed at the last look.
    fn check_whole(&self, committed: &mut BTreeMap<u32, u64>) -> Result<()> {
        let before = committed.clone();
        let mut wrong = None;
        for shard in &self.placement.shards {
            let id = shard.shard.0;
            let newest = self.reports(shard).map(|(_, one)| one.committed).max().unwrap_or(0);
            committed.insert(id, newest);
            let found = self.check_whole_shard(shard, before.get(&id).copied());
            wrong = wrong.or(found.err());
        }
        wrong.map_or(Ok(()), Err)
    }

    fn check_whole_shard(&self, shard: &Shard, committed: Option<u64>) -> Result<()> {
        let id = shard.shard;
        self.leader(shard).with_context(|| format!("shard {id} has no leader"))?;
        // Why three: what a drill takes from a shard with fewer copies nobody has.
        let (n, n_wanted) = (shard.replicas.len(), (shard.n_wanted as usize).max(COPIES_MIN));
        ensure!(n >= n_wanted, "shard {id} has {n} of {n_wanted} copies");
        for placed in &shard.replicas {
            let mut found = self.reports(shard).filter(|(_, r)| r.replica_id == placed.replica_id);
            let (node, report) = found.next().with_context(|| {
                format!("replica {} of shard {id} on {} is away", placed.replica_id, placed.node)
            })?;
            let is_up = !matches!(report.state, ReplicaState::Starting | ReplicaState::Failed);
            ensure!(is_up, "the replica of shard {id} on {node} is not ready");
            let votes = placed.role == ReplicaRole::Voter;
            ensure!(votes, "the replica of shard {id} on {node} does not vote");
            let n = report.n_missing_chunks;
            ensure!(n == 0, "the replica of shard {id} on {node} misses {n} chunks");
            let committed = committed.context("first look")?;
            let lag = committed.saturating_sub(report.applied);
            ensure!(lag == 0, "the replica of shard {id} on {node} is {lag} entries behind");
        }
        Ok(())
    }

    fn states_at_one_entry(&self, shard: &Shard) -> Option<Vec<history::ReplicaState>> {
        let reports: Vec<_> = self.reports(shard).map(|(_, report)| report).collect();
        let applied = reports.first()?.applied;
        if reports.len() != shard.replicas.len() || reports.iter().any(|r| r.applied != applied) {
            return None;
        }
        let digest = |report: &ReplicaReport| {
            report.digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let state = |report: &ReplicaReport| history::ReplicaState {
            shard: shard.shard.0,
            replica: report.replica_id,
            applied,
            digest: digest(report),
        };
        Some(reports.into_iter().map(state).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(missing: &[&str]) -> Result<Vec<history::Copies>> {
        let missing = missing.iter().map(|digest| (*digest).to_owned()).collect();
        let (account, node) = ("anna".to_owned(), "n1".to_owned());
        let (shard, replica, n_chunks) = (1, 2, 3);
        let damaged = Vec::new();
        Ok(vec![history::Copies { account, shard, replica, node, n_chunks, missing, damaged }])
    }

    fn no_answer() -> Result<Vec<history::Copies>> {
        bail!("not available")
    }

    #[tokio::test(start_paused = true)]
    async fn copies_that_are_healed_are_waited_for_also_while_nobody_answers() {
        let patience = Duration::from_secs(9);
        let mut n_asked = 0;
        let healed = until_good(patience, async || {
            n_asked += 1;
            match n_asked {
                1 => copies(&["d1"]),
                2 => no_answer(),
                _ => copies(&[]),
            }
        });
        assert!(healed.await.unwrap()[0].missing.is_empty());
        let never = until_good(patience, async || copies(&["d1"])).await.unwrap();
        assert_eq!(never[0].missing, ["d1"], "the judge is told");
        let silent = until_good(patience, async || no_answer()).await;
        assert_eq!(silent.unwrap_err().to_string(), "not available");
    }

    #[test]
    fn patience_begins_anew_while_copies_are_made() {
        let patience = Duration::from_secs(60);
        let mut deadline = Deadline::new(patience, Duration::from_secs(600));
        let start = deadline.at - patience;
        let at = |seconds| start + Duration::from_secs(seconds);
        deadline.note([((1, 1), 0), ((1, 2), 500)].into_iter(), at(10));
        assert_eq!(deadline.at, at(60), "nothing was brought yet");
        deadline.note([((1, 1), 0), ((1, 2), 400)].into_iter(), at(50));
        assert_eq!(deadline.at, at(110));
        // What one that had all misses for a moment is no progress when it comes.
        deadline.note([((1, 1), 5), ((1, 2), 400)].into_iter(), at(60));
        deadline.note([((1, 1), 0), ((1, 2), 400)].into_iter(), at(70));
        assert_eq!(deadline.at, at(110));
        deadline.note([((1, 1), 0), ((1, 2), 399)].into_iter(), at(590));
        assert_eq!(deadline.at, at(600), "not for ever");
        let mut fixed = Deadline::new(patience, patience);
        let end = fixed.at;
        fixed.note([((1, 2), 500)].into_iter(), start);
        fixed.note([((1, 2), 1)].into_iter(), at(50));
        assert_eq!(fixed.at, end);
    }
}
