//! The controller: keeps every shard's replicas on good disks. It runs where the meta group is led.
//!
//! [`plan`] decides, from the placement and from what the nodes report; here is only what looks, and
//! what does the steps it names. A step that fails or is forgotten comes again with the next plan.

mod plan;
mod progress;
mod seat;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::admin::Replacement;
use api::meta::{MetaError, ReplicaState};
use api::placement::{DiskId, Placement, ReplicaRole};
use mailbox::ShardId;

pub(crate) use self::plan::lag_max;
use self::plan::{Action, Heard, Plan, Scene, plan};
use self::progress::Progress;
use crate::meta::Command;
use crate::shared::{Shared, lock};

/// How long a node or disk may be away before its replicas are replaced, when nobody says otherwise.
pub(crate) const REPLACE_AFTER_S: u64 = 600;
/// Limit: the least it can be. Reports come every second; with less, a node whose report is a little late
/// would lose its replicas.
const REPLACE_AFTER_S_MIN: u64 = 3;
/// The setting of the cluster that says otherwise, in seconds.
pub(crate) const REPLACE_AFTER: &str = "replace_after_s";

/// For so long a disk on which a replica could not run, or did not fit, gets another one only where no other
/// disk is left: it carries least, and would be chosen again and again.
const SHUNNED_FOR: Duration = Duration::from_secs(600);

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long one step may take; a joint change waits for two entries.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same step is not asked for again before this: reports are as old as that.
const REPEAT_AFTER: Duration = Duration::from_millis(1_500);

/// What the controller tells operators.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    /// Replicas that are being made.
    pub replacements: Vec<Replacement>,
    /// What cannot be done yet; one line each.
    pub waiting: Vec<String>,
}

/// Who leads a shard, by fresh reports.
pub(crate) fn leader(shared: &Shared, placement: &Placement, shard: ShardId) -> Option<String> {
    let heard = heard(shared);
    let scene = Scene::new(placement, &heard, (Duration::ZERO, Duration::ZERO));
    scene.leader(placement.shard(shard)?).map(|(node, _)| node.to_owned())
}

fn heard(shared: &Shared) -> BTreeMap<String, Heard> {
    let reports = lock(&shared.reports);
    let heard = reports.iter().map(|(node, (at, report))| {
        (node.clone(), Heard { age: at.elapsed(), report: report.clone() })
    });
    heard.collect()
}

/// What is remembered while this node leads the meta group; nothing depends on it but times.
struct Memory {
    since: Instant,
    unwell: BTreeMap<(ShardId, u64), Instant>,
    /// Disks on which a replica could not run or did not fit, and when that was seen last.
    shunned: BTreeMap<DiskId, Instant>,
    asked: BTreeMap<ShardId, (Action, Instant)>,
    /// The most that learners had and lacked together.
    sizes: BTreeMap<(ShardId, u64), u64>,
    progress: Progress,
}

/// Controls while this node leads the meta group, until it stops.
pub(crate) async fn control(shared: Arc<Shared>) {
    let mut memory: Option<Memory> = None;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let placement = shared.known.placement();
        if placement.version == 0 || shared.meta_leader().is_err() || shared.is_draining() {
            memory = None;
            *lock(&shared.outlook) = Outlook::default();
            continue;
        }
        let memory = memory.get_or_insert_with(Memory::new);
        let plan = memory.look(&shared, &placement);
        let steps = plan.actions.into_iter().filter(|action| memory.is_due(action));
        let steps: Vec<Action> = steps.collect();
        futures_util::future::join_all(steps.into_iter().map(|step| act(&shared, step))).await;
    }
}

impl Memory {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            unwell: BTreeMap::new(),
            shunned: BTreeMap::new(),
            asked: BTreeMap::new(),
            sizes: BTreeMap::new(),
            progress: Progress::default(),
        }
    }

    /// Makes a plan, and tells operators of it.
    fn look(&mut self, shared: &Shared, placement: &Placement) -> Plan {
        let mut heard = heard(shared);
        self.note_sizes(placement, &mut heard);
        self.note_unwell(placement, &heard);
        let scene = Scene::new(placement, &heard, (self.since.elapsed(), replace_after(placement)));
        self.note_shunned(&scene);
        let unwell = self.unwell.iter().map(|(key, since)| (*key, since.elapsed())).collect();
        let shunned = self.shunned.keys().copied().collect();
        let scene = Scene { unwell: &unwell, shunned: &shunned, ..scene };
        let plan = plan(&scene);
        let replacements = self.progress.of(&scene);
        *lock(&shared.outlook) = Outlook { replacements, waiting: plan.waiting.clone() };
        plan
    }

    /// How large learners are. One that was started anew tells only of what it got since: what it told before
    /// counts as received.
    fn note_sizes(&mut self, placement: &Placement, heard: &mut BTreeMap<String, Heard>) {
        let all = placement.shards.iter().flat_map(|shard| {
            shard.replicas.iter().map(move |one| (one.role, (shard.shard, one.replica_id)))
        });
        let learners = all.filter(|(role, _)| *role == ReplicaRole::Learner);
        let learners: BTreeSet<(ShardId, u64)> = learners.map(|(_, key)| key).collect();
        self.sizes.retain(|key, _| learners.contains(key));
        for one in heard.values_mut().flat_map(|heard| &mut heard.report.replicas) {
            let key = (one.shard, one.replica_id);
            if learners.contains(&key) && one.state != ReplicaState::Starting {
                let size = self.sizes.entry(key).or_default();
                *size = (*size).max(one.missing_bytes.saturating_add(one.received_bytes));
                one.received_bytes = size.saturating_sub(one.missing_bytes);
            }
        }
    }

    /// Since when replicas have not run although their nodes and disks are well.
    fn note_unwell(&mut self, placement: &Placement, heard: &BTreeMap<String, Heard>) {
        let mut unwell = BTreeMap::new();
        for shard in &placement.shards {
            for placed in &shard.replicas {
                let key = (shard.shard, placed.replica_id);
                let heard = heard.get(&placed.node).filter(|heard| heard.age < plan::FRESH);
                let runs = heard.is_none_or(|heard| {
                    let all = &mut heard.report.replicas.iter();
                    let told = all.find(|one| (one.shard, one.replica_id) == key);
                    // Why: what hangs is judged by how long it does.
                    told.is_some_and(|one| one.state != ReplicaState::Failed)
                        || plan::hung_for(&heard.report, placed.disk_id).is_some()
                });
                if !runs {
                    let since = self.unwell.get(&key).copied().unwrap_or_else(Instant::now);
                    unwell.insert(key, since);
                }
            }
        }
        self.unwell = unwell;
    }

    /// Which disks have been no place for a replica lately.
    fn note_shunned(&mut self, scene: &Scene<'_>) {
        self.shunned.retain(|_, seen| seen.elapsed() < SHUNNED_FOR);
        let cramped = scene.cramped();
        self.shunned.extend(cramped.into_iter().map(|disk_id| (disk_id, Instant::now())));
        for ((shard, replica_id), since) in &self.unwell {
            let shard = scene.placement.shard(*shard);
            let placed = shard
                .and_then(|shard| shard.replicas.iter().find(|one| one.replica_id == *replica_id));
            if let Some(placed) = placed.filter(|_| since.elapsed() > plan::UNWELL_PATIENCE) {
                self.shunned.insert(placed.disk_id, Instant::now());
            }
        }
    }

    /// Whether a step was not asked for a moment ago.
    fn is_due(&mut self, action: &Action) -> bool {
        let Action::Ask(_, change, _) = action else { return true };
        let asked = self.asked.get(&change.shard);
        if asked.is_some_and(|(before, at)| before == action && at.elapsed() < REPEAT_AFTER) {
            return false;
        }
        self.asked.insert(change.shard, (action.clone(), Instant::now()));
        true
    }
}

/// Whether a setting of the cluster is one, and can have this value; if not, why.
pub(crate) fn check_setting(name: &str, value: Option<&str>) -> Result<(), String> {
    match (name, value) {
        (REPLACE_AFTER, None) => Ok(()),
        (REPLACE_AFTER, Some(text)) => match text.parse::<u64>() {
            Ok(REPLACE_AFTER_S_MIN..) => Ok(()),
            _ => Err(format!(
                "{REPLACE_AFTER} is a number of seconds from {REPLACE_AFTER_S_MIN} on, not {text:?}"
            )),
        },
        _ => Err(format!("no setting {name}: there is {REPLACE_AFTER}")),
    }
}

fn replace_after(placement: &Placement) -> Duration {
    let set = placement.settings.get(REPLACE_AFTER).and_then(|text| text.parse().ok());
    Duration::from_secs(set.unwrap_or(REPLACE_AFTER_S))
}

async fn act(shared: &Arc<Shared>, action: Action) {
    let done = match &action {
        Action::Note(command) => note(shared, command).await,
        Action::Ask(node, change, then) => {
            let asked = if node == shared.name() {
                // Why in time: it goes on by itself, and other shards wait for the next plan.
                let changing = crate::members::change(shared, change.clone());
                let changed = tokio::time::timeout(PATIENCE, changing).await;
                changed.unwrap_or_else(|_| Err(MetaError::Unavailable("not done in time".into())))
            } else {
                shared.meta_client.change_members(node, change, PATIENCE).await
            };
            match (asked, then) {
                (Ok(()), Some(command)) => note(shared, command).await,
                (asked, _) => asked,
            }
        }
    };
    match done {
        Ok(()) => tracing::info!(?action, "controller"),
        Err(error) => tracing::debug!(?action, %error, "controller's step not done yet"),
    }
}

async fn note(shared: &Arc<Shared>, command: &Command) -> Result<(), MetaError> {
    shared.propose_meta(command).await.map(drop)
}
