//! What has to happen next so that every shard has all its replicas on good disks. Pure: placement,
//! reports and time in, actions out, so the same scene always gives the same plan. Nothing is
//! remembered between two plans: a change that a crash left half done looks like any other scene.
//!
//! A replica is replaced in these steps, each of which shows in the next scene: a learner is placed
//! ([`Command::PlaceReplica`]), follows ([`MemberVerb::AddLearner`]), becomes whole, votes in the place
//! of the old one ([`MemberVerb::Voters`]), and is noted as the voter ([`Command::PromoteReplica`]).
//! The old one's node then finds it placed no more, and destroys it.
//!
//! Invariants: one change per shard at a time; a learner votes only when it has every body and
//! nearly every entry; a copy that is lost is replaced before one that is to move.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::meta::{MemberChange, MemberVerb, ReplicaReport, ReplicaState, Report};
use api::placement::{Disk, DiskId, DiskState, Node, Placement, Replica, ReplicaRole, Shard};
use mailbox::ShardId;

use super::seat::Seats;
use super::told::Told;
use crate::meta::Command;

/// A report older than this says that the node is away.
pub(super) const FRESH: Duration = Duration::from_secs(4);
/// A disk that has not answered for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(2);
/// A replica that does not run on a good disk for so long cannot run there.
pub(super) const UNWELL_PATIENCE: Duration = Duration::from_secs(30);
/// Entries by which a learner may be behind when it begins to vote, a second's worth under load,
const LAG_MAX: u64 = 2_000;
/// but of what was committed no more than this share: all of a young shard may be less than a second's.
const LAG_SHARE: u64 = 10;
/// So much stays free on a disk when a replica is filled: where less is, it takes no bodies soon.
const ROOM_BYTES: u64 = 512 << 20;
/// Limit: replicas that are filled at once on one disk; more only slow each other and the mail.
const FILLS_PER_DISK_MAX: usize = 4;

/// What is known now.
pub(super) struct Scene<'a> {
    pub placement: &'a Placement,
    /// What each node said last.
    pub heard: &'a BTreeMap<String, Heard>,
    /// Since when this controller has been looking.
    pub watching: Duration,
    /// How long a node may be away before its replicas are replaced.
    pub replace_after: Duration,
    /// For how long replicas on good disks have not run.
    pub unwell: &'a BTreeMap<(ShardId, u64), Duration>,
    /// Disks on which replicas could not run lately, or did not fit: new ones go there only where nothing
    /// else is left.
    pub shunned: &'a BTreeSet<DiskId>,
    pub(super) told: Told<'a>,
}

/// What a node said last, and how long ago.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub age: Duration,
    pub report: Report,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The meta group takes note.
    Note(Command),
    /// The leader of a shard changes its members; once that is done, the meta group takes note.
    Ask(String, MemberChange, Option<Command>),
}

/// What to do now, and what cannot be done yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub actions: Vec<Action>,
    /// For operators: one line for each replica that waits for something.
    pub waiting: Vec<String>,
}

/// How the place of a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Good,
    /// Its node is silent, not yet for long.
    Away,
    /// Lost for good; why.
    Lost(&'static str),
    /// It has to leave; why.
    Leaving(&'static str),
}

/// All steps that can be taken now.
pub(super) fn plan(scene: &Scene<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut seats = Seats::of(scene);
    // Lost copies of any shard come before those that only have to move.
    for urgent in [true, false] {
        for shard in &scene.placement.shards {
            scene.shard(shard, urgent, &mut seats, &mut plan);
        }
    }
    // Order: who was given up before has a new place by now, and may fill the disk that had room.
    scene.make_room(&mut seats, &mut plan);
    scene.disks(&mut plan);
    plan
}

static NOBODY: BTreeMap<(ShardId, u64), Duration> = BTreeMap::new();
static NOWHERE: BTreeSet<DiskId> = BTreeSet::new();

impl<'a> Scene<'a> {
    /// What is known where nobody is unwell and no disk is shunned.
    pub fn new(
        placement: &'a Placement,
        heard: &'a BTreeMap<String, Heard>,
        (watching, replace_after): (Duration, Duration),
    ) -> Self {
        let told = Told::of(placement, heard);
        let (unwell, shunned) = (&NOBODY, &NOWHERE);
        Self { placement, heard, watching, replace_after, unwell, shunned, told }
    }

    /// The next step of one shard.
    fn shard(&self, shard: &Shard, urgent: bool, seats: &mut Seats<'_>, plan: &mut Plan) {
        let leader = self.leader(shard);
        if let Some(id) = shard.forced {
            let done = leader.filter(|(_, one)| one.replica_id == id && one.is_recovered);
            return match (done, urgent) {
                (Some(_), true) => plan.note(Command::RecoveredShard(shard.shard, id)),
                (None, true) => plan.waiting.push(format!("shard {}: recovers", shard.shard)),
                (_, false) => {}
            };
        }
        match leader {
            // What was begun is gone on with in the first round.
            Some(leader) if self.is_half_done(shard, leader.1) => {
                if urgent {
                    self.go_on(shard, leader, plan);
                }
            }
            _ => self.begin(shard, (leader.is_some(), urgent), seats, plan),
        }
        if urgent && leader.is_none() && shard.leader.is_some() {
            plan.waiting.push(format!("shard {}: no leader", shard.shard));
        }
    }

    /// Whether its members are not what the placement says.
    fn is_half_done(&self, shard: &Shard, leader: &ReplicaReport) -> bool {
        leader.is_joint || learner_of(shard).is_some() || has_stray(shard, leader)
    }

    /// The next step of a change that was begun.
    fn go_on(&self, shard: &Shard, (node, leader): (&str, &ReplicaReport), plan: &mut Plan) {
        let voters: BTreeSet<u64> = leader.voters.iter().copied().collect();
        let ask_and = |what, then| {
            let change = MemberChange { shard: shard.shard, from_voters: voters.clone(), what };
            Action::Ask(node.to_owned(), change, then)
        };
        let ask = |what| ask_and(what, None);
        let placed = voters_of(shard);
        let Some(learner) = learner_of(shard) else {
            let stray = leader.learners.iter().find(|id| !placed.contains(*id));
            plan.actions.push(match stray {
                Some(stray) if !leader.is_joint => ask(MemberVerb::RemoveLearner(*stray)),
                _ => ask(MemberVerb::Voters(placed)),
            });
            return;
        };
        let id = learner.replica_id;
        let votes = voters.contains(&id);
        let with_learner = |without: Option<u64>| -> BTreeSet<u64> {
            let stay = placed.iter().copied().filter(|one| Some(*one) != without);
            stay.chain([id]).collect()
        };
        let goes = self.goes(shard, learner);
        let target = with_learner(goes);
        // Whoever went is out, also when it would be another one by now.
        let outs = || [goes].into_iter().chain(placed.iter().map(|one| Some(*one)));
        let done = outs().find(|out| votes && voters == with_learner(*out));
        let action = match self.lacks(shard, learner, leader) {
            // Both sides agreed already; either is safe, and this one was wanted.
            _ if leader.is_joint => ask(MemberVerb::Voters(if votes { target } else { placed })),
            _ if done.is_some() => {
                Action::Note(Command::PromoteReplica(shard.shard, id, done.flatten()))
            }
            // The only other one, which it replaces: who goes does not lead.
            _ if votes && Some(leader.replica_id) == goes => ask(MemberVerb::Lead(id)),
            _ if votes => ask(MemberVerb::Voters(target)),
            _ if self.must_leave(shard, learner) => {
                let forget = Command::RemoveReplica(shard.shard, id);
                ask_and(MemberVerb::RemoveLearner(id), Some(forget))
            }
            _ if !leader.learners.contains(&id) => ask(MemberVerb::AddLearner(learner.clone())),
            Some(_) => return,
            None if Some(leader.replica_id) == goes && placed.len() == 1 => {
                ask(MemberVerb::Voters(with_learner(None)))
            }
            None if Some(leader.replica_id) == goes => {
                let Some(next) = self.successor(shard, leader) else {
                    let text = format!("shard {}: nobody can lead instead", shard.shard);
                    return plan.waiting.push(text);
                };
                ask(MemberVerb::Lead(next))
            }
            None => ask(MemberVerb::Voters(target)),
        };
        plan.actions.push(action);
    }

    /// Gives up learners that do not fit on their disks, but on others: of each disk one at a time, since the
    /// rest may fit then.
    fn make_room(&self, seats: &mut Seats<'_>, plan: &mut Plan) {
        let shards = || self.placement.shards.iter().filter(|shard| shard.forced.is_none());
        let led = || shards().filter_map(|shard| Some((shard, self.leader(shard)?)));
        // Why not: one was given up just now, and its next place is not known yet.
        let is_one_on_its_way = led().any(|(shard, (_, leader))| has_stray(shard, leader));
        let mut left = BTreeSet::new();
        for (shard, (node, leader)) in led() {
            let Some(learner) = learner_of(shard) else { continue };
            let (id, of_disk) = (learner.replica_id, learner.disk_id);
            let is_filled = leader.learners.contains(&id)
                && !leader.is_joint
                && !self.must_leave(shard, learner);
            let Some(needed) = self.lacks_room(shard, learner).filter(|_| is_filled) else {
                continue;
            };
            let Some(seat) = seats.roomier(self, shard, (learner, needed)) else {
                let (shard, on) = (shard.shard, &learner.node);
                let text =
                    format!("shard {shard}: replica {id} does not fit on {on}, nor elsewhere");
                plan.waiting.push(text);
                continue;
            };
            if is_one_on_its_way || !left.insert(of_disk) {
                continue;
            }
            seats.take(&seat);
            let from_voters = leader.voters.iter().copied().collect();
            let what = MemberVerb::RemoveLearner(id);
            let change = MemberChange { shard: shard.shard, from_voters, what };
            let forget = Command::RemoveReplica(shard.shard, id);
            plan.actions.push(Action::Ask(node.to_owned(), change, Some(forget)));
        }
    }

    /// How much has to be free where a replica is made anew, if its disk has no room for what it lacks.
    pub fn lacks_room(&self, shard: &Shard, replica: &Replica) -> Option<u64> {
        let told = self.told(&replica.node, replica.disk_id)?;
        let report = self.report(shard.shard, replica)?;
        // Why not one that starts: what it has and lacks is not known yet. One that runs and has nothing yet
        // is told as starting as well.
        let is_known =
            report.state != ReplicaState::Starting || (report.term > 0 && report.applied == 0);
        let lacks_bodies = report.n_missing_chunks > 0 && is_known;
        let has_room = told.free_bytes >= report.missing_bytes.saturating_add(ROOM_BYTES);
        let all_bytes = report.missing_bytes.saturating_add(report.received_bytes);
        // Why twice: where it just fits it would not as soon as a little is written.
        (lacks_bodies && !has_room).then(|| all_bytes.saturating_add(2 * ROOM_BYTES))
    }

    /// Disks on which replicas are made that do not fit there.
    pub fn cramped(&self) -> BTreeSet<DiskId> {
        let shards = self.placement.shards.iter();
        let learners = shards.filter_map(|shard| Some((shard, learner_of(shard)?)));
        let cramped = learners.filter(|(shard, one)| self.lacks_room(shard, one).is_some());
        cramped.map(|(_, one)| one.disk_id).collect()
    }

    /// In whose place a learner votes: the replica's it was made for, unless that one is still good for a
    /// copy and another one was lost meanwhile.
    fn goes(&self, shard: &Shard, learner: &Replica) -> Option<u64> {
        let is_lost = |one: &Replica| matches!(self.of(shard, one), Condition::Lost(_));
        let voters = || shard.replicas.iter().filter(|one| one.role == ReplicaRole::Voter);
        let for_whom = voters().find(|one| Some(one.replica_id) == learner.replaces)?;
        // On one node there is never a second one.
        let lost = voters().find(|one| is_lost(one));
        let lost = lost.filter(|_| !is_lost(for_whom) && for_whom.node != learner.node);
        Some(lost.unwrap_or(for_whom).replica_id)
    }

    /// Places a learner if a replica has to be replaced.
    fn begin(
        &self,
        shard: &Shard,
        (is_led, urgent): (bool, bool),
        seats: &mut Seats<'_>,
        plan: &mut Plan,
    ) {
        let bad = shard.replicas.iter().find_map(|one| match (urgent, self.of(shard, one)) {
            (true, Condition::Lost(why)) | (false, Condition::Leaving(why)) => Some((one, why)),
            _ => None,
        });
        let too_few = urgent && shard.replicas.len() < shard.n_wanted as usize;
        let (old, what) = match bad {
            Some((old, why)) => {
                (Some(old), format!("replica {} on {} ({why})", old.replica_id, old.node))
            }
            None if too_few => {
                (None, format!("{} of {} replicas", shard.replicas.len(), shard.n_wanted))
            }
            None => return,
        };
        let id = old.map(|old| old.replica_id);
        let mut wait = |why: &str| {
            plan.waiting.push(format!("shard {}: {what}: {why}", shard.shard));
        };
        if !is_led {
            return wait("no majority to replace it");
        }
        let others = shard.replicas.iter().filter(|one| Some(one.replica_id) != id);
        // One that leaves too is there: they go one after the other.
        if !urgent && others.clone().any(|one| !self.is_there(shard, one)) {
            return wait("another replica is missing, and comes first");
        }
        if !urgent && others.clone().any(|one| self.is_incomplete(shard, one)) {
            return wait("another replica is not whole yet");
        }
        // Why first: it need not be looked for the best of them.
        if seats.are_all_filled(FILLS_PER_DISK_MAX) {
            return wait("others are filled first");
        }
        let Some(seat) = seats.best(self, shard, old) else {
            return wait("no suitable disk on another node");
        };
        if seats.n_learners(seat.disk_id) >= FILLS_PER_DISK_MAX {
            return wait("others are filled first");
        }
        seats.take(&seat);
        plan.note(Command::PlaceReplica(shard.shard, seat, id));
    }

    /// What a learner still lacks before it may vote; for people.
    pub fn lacks(
        &self,
        shard: &Shard,
        learner: &Replica,
        leader: &ReplicaReport,
    ) -> Option<&'static str> {
        let Some(report) = self.report(shard.shard, learner) else { return Some("not started") };
        let matched = leader.followers.iter().find(|(id, _)| *id == learner.replica_id);
        let lag = lag_max(leader.committed);
        let is_close = matched.is_some_and(|(_, at)| at + lag >= leader.last_log);
        if !is_close || report.applied + lag < leader.committed {
            return Some("rows");
        }
        if report.n_missing_chunks > 0 {
            return Some("bodies");
        }
        let differs = report.applied == leader.applied && report.digest != leader.digest;
        differs.then_some("its rows differ from the leader's")
    }

    /// A voter that can take over from the leader.
    fn successor(&self, shard: &Shard, leader: &ReplicaReport) -> Option<u64> {
        let able = shard.replicas.iter().filter(|one| {
            let matched = leader.followers.iter().find(|(id, _)| *id == one.replica_id);
            one.role == ReplicaRole::Voter
                && one.replica_id != leader.replica_id
                && self.is_there(shard, one)
                && !self.is_incomplete(shard, one)
                && matched.is_some_and(|(_, at)| at + LAG_MAX >= leader.last_log)
        });
        // One that stays comes before one that has to leave as well.
        able.min_by_key(|one| self.must_leave(shard, one)).map(|one| one.replica_id)
    }

    /// Disks that are done with: emptied ones, and those that their node has no more.
    fn disks(&self, plan: &mut Plan) {
        let replicas = self.placement.shards.iter().flat_map(|shard| &shard.replicas);
        let used: BTreeSet<DiskId> = replicas.map(|replica| replica.disk_id).collect();
        for node in &self.placement.nodes {
            for disk in &node.disks {
                let id = disk.disk_id;
                if used.contains(&id) {
                    continue;
                }
                if self.is_gone(node, id) {
                    plan.note(Command::ForgetDisk(id));
                } else if disk.state == DiskState::Draining {
                    plan.note(Command::SetDiskState(id, DiskState::Retired));
                }
            }
        }
    }

    /// How the place of a replica is.
    pub fn of(&self, shard: &Shard, replica: &Replica) -> Condition {
        let unwell = self.unwell.get(&(shard.shard, replica.replica_id));
        match self.place(&replica.node, replica.disk_id) {
            Condition::Good if unwell.is_some_and(|since| *since > UNWELL_PATIENCE) => {
                Condition::Lost("it cannot run there")
            }
            condition => condition,
        }
    }

    fn must_leave(&self, shard: &Shard, replica: &Replica) -> bool {
        matches!(self.of(shard, replica), Condition::Lost(_) | Condition::Leaving(_))
    }

    /// Whether a replica's place is good, though it may have to leave it.
    fn is_there(&self, shard: &Shard, replica: &Replica) -> bool {
        matches!(self.of(shard, replica), Condition::Good | Condition::Leaving(_))
    }

    /// How a disk is.
    pub fn place(&self, node: &str, disk_id: DiskId) -> Condition {
        let Some(known) = self.placement.node(node) else { return Condition::Lost("node removed") };
        let state = known.disks.iter().find(|disk| disk.disk_id == disk_id).map(|disk| disk.state);
        match (state, self.fresh(node)) {
            (None, _) => Condition::Lost("disk removed"),
            (Some(DiskState::Poisoned), _) => Condition::Lost("disk failed"),
            (_, Some(report)) => match find(&report.disks, disk_id) {
                None => Condition::Lost("disk gone"),
                Some(told) if told.state == DiskState::Poisoned => Condition::Lost("disk failed"),
                Some(_) if hung_for(report, disk_id) >= Some(self.replace_after) => {
                    Condition::Lost("disk hangs")
                }
                Some(_) if state != Some(DiskState::Ok) => Condition::Leaving("disk is emptied"),
                Some(_) if known.draining => Condition::Leaving("node is emptied"),
                Some(_) => Condition::Good,
            },
            (_, None) if self.silent(node) < self.replace_after => Condition::Away,
            (_, None) => Condition::Lost("node away"),
        }
    }

    /// Whether a node says that it has a disk no more.
    fn is_gone(&self, node: &Node, disk_id: DiskId) -> bool {
        self.fresh(&node.name).is_some_and(|report| find(&report.disks, disk_id).is_none())
    }

    /// For how long a node has said nothing, as far as this controller knows: what was heard when it led last
    /// may be a week old, and others have heard of the node since.
    fn silent(&self, node: &str) -> Duration {
        self.heard.get(node).map_or(self.watching, |heard| heard.age.min(self.watching))
    }

    /// What a node said just now.
    pub fn fresh(&self, node: &str) -> Option<&'a Report> {
        self.told.fresh(node)
    }

    /// What a node says of its disk.
    pub fn told(&self, node: &str, disk_id: DiskId) -> Option<&'a Disk> {
        find(&self.fresh(node)?.disks, disk_id)
    }

    /// What is said of a replica.
    pub fn report(&self, shard: ShardId, replica: &Replica) -> Option<&'a ReplicaReport> {
        self.told.replica(&replica.node, shard, replica.replica_id)
    }

    fn is_incomplete(&self, shard: &Shard, replica: &Replica) -> bool {
        self.report(shard.shard, replica).is_none_or(|report| report.n_missing_chunks > 0)
    }

    /// Who says that it leads, in the highest term, with its node.
    pub fn leader(&self, shard: &Shard) -> Option<(&'a str, &'a ReplicaReport)> {
        self.told.leader(shard.shard)
    }
}

impl Plan {
    fn note(&mut self, command: Command) {
        self.actions.push(Action::Note(command));
    }
}

/// Entries by which a learner may be behind when it begins to vote, where so many are committed.
pub(crate) fn lag_max(committed: u64) -> u64 {
    LAG_MAX.min(committed / LAG_SHARE)
}

/// Whether a replica follows that is not placed any more.
fn has_stray(shard: &Shard, leader: &ReplicaReport) -> bool {
    let is_stray = |id: &u64| !shard.replicas.iter().any(|one| one.replica_id == *id);
    leader.learners.iter().any(is_stray)
}

fn learner_of(shard: &Shard) -> Option<&Replica> {
    shard.replicas.iter().find(|one| one.role == ReplicaRole::Learner)
}

fn voters_of(shard: &Shard) -> BTreeSet<u64> {
    let voters = shard.replicas.iter().filter(|one| one.role == ReplicaRole::Voter);
    voters.map(|one| one.replica_id).collect()
}

/// For how long a disk has not answered its node, if it hangs.
pub(super) fn hung_for(report: &Report, disk_id: DiskId) -> Option<Duration> {
    let told = report.scrubs.iter().find(|told| told.disk_id == disk_id)?;
    Some(Duration::from_millis(told.unanswered_ms)).filter(|pending| *pending > HANGS_AFTER)
}

fn find(disks: &[Disk], disk_id: DiskId) -> Option<&Disk> {
    disks.iter().find(|disk| disk.disk_id == disk_id)
}
