//! What each command does. Everything is checked before anything is written.

use std::collections::BTreeSet;

use api::placement::{
    Disk, DiskId, DiskState, LOST_IDS, META_SHARD, Node, Replica, ReplicaRole, Shard,
};
use mailbox::address::DIRECTORY_SLOTS;
use mailbox::{Rows, ShardId};

use super::command::{Command, Entry, Founding, Outcome, Seat};
use super::rows::{self, Cluster};

/// Limit: shards of a cluster; the placement travels whole.
pub const SHARDS_MAX: u32 = 4096;
/// Limit: octets of a name or value kept here.
const TEXT_BYTES_MAX: usize = 1024;
/// By so much a placement is newer when its majority was lost: more than any cluster ever has of them.
const FORCED_VERSIONS: u64 = 1 << 32;

type Applied = Result<Outcome, Outcome>;

/// Applies one entry of the meta group's log. A refusal changes nothing.
pub fn apply(rows: &mut Rows<'_>, entry: &Entry) -> Outcome {
    let before = rows.n_writes();
    let outcome = match (&entry.command, rows::cluster(rows)) {
        (Command::Initialize(founding), cluster) => initialize(rows, founding, cluster),
        (_, None) => Err(Outcome::NoCluster),
        (command, Some(cluster)) => change(rows, command, cluster),
    };
    // Why: marks come all the time, and nobody has to hear of them.
    let is_shown = !matches!(entry.command, Command::NoteMarks(_));
    if is_shown && rows.n_writes() > before {
        let mut cluster = rows::cluster(rows).expect("only a formed cluster was changed");
        cluster.version += match entry.command {
            // Why: the majority that is lost may have told others of versions that this replica never had.
            Command::ForceShard(META_SHARD, _) => FORCED_VERSIONS,
            _ => 1,
        };
        rows::put_cluster(rows, &cluster);
    }
    outcome.unwrap_or_else(|refusal| refusal)
}

fn change(rows: &mut Rows<'_>, command: &Command, cluster: Cluster) -> Applied {
    match command {
        Command::Initialize(_) => Err(refused("a cluster exists already")),
        Command::RegisterNode(node) => register_node(rows, node),
        Command::SetDiskState(disk_id, state) => set_disk_state(rows, *disk_id, *state),
        Command::SetDraining(name, on) => {
            let mut node = known_node(rows, name)?;
            if node.draining != *on {
                node.draining = *on;
                rows::put_node(rows, &node);
            }
            Ok(Outcome::Done)
        }
        Command::CreateShard(seats) => create_shard(rows, seats, cluster),
        Command::PlaceReplica(shard, seat, replaces) => {
            place_replica(rows, *shard, (seat, *replaces), cluster)
        }
        Command::PromoteReplica(shard, replica_id, instead_of) => {
            promote_replica(rows, *shard, *replica_id, *instead_of)
        }
        Command::RemoveReplica(shard, replica_id) => remove_replica(rows, *shard, *replica_id),
        Command::NoteLeaders(leaders) => note_leaders(rows, leaders),
        Command::NoteSpace(disk_id, free_bytes) => note_space(rows, *disk_id, *free_bytes),
        Command::NoteMarks(marks) => note_marks(rows, marks),
        Command::RemoveNode(name) => remove_node(rows, name),
        Command::ForgetDisk(disk_id) => forget_disk(rows, *disk_id),
        Command::ForceShard(shard, replica_id) => force_shard(rows, *shard, *replica_id, cluster),
        Command::RecoveredShard(shard, replica_id) => recovered_shard(rows, *shard, *replica_id),
        Command::SetSetting(name, value) => {
            let value = value.as_deref();
            check_text([name.as_str(), value.unwrap_or_default()])?;
            if rows::setting(rows, name).as_deref() != value {
                rows::put_setting(rows, name, value);
            }
            Ok(Outcome::Done)
        }
    }
}

fn initialize(rows: &mut Rows<'_>, founding: &Founding, cluster: Option<Cluster>) -> Applied {
    if let Some(cluster) = cluster {
        let same = cluster.id == founding.cluster;
        return if same { Ok(Outcome::Done) } else { Err(refused("a cluster exists already")) };
    }
    check_founding(founding)?;
    for node in &founding.nodes {
        let mut node = node.clone();
        node.disks.iter_mut().for_each(|disk| disk.n_synced = None);
        rows::put_node(rows, &node);
    }
    let mut next_replica = 1;
    let all = std::iter::once(&founding.meta).chain(&founding.shards);
    for (shard, seats) in (META_SHARD.0..).zip(all) {
        put_new_shard(rows, ShardId(shard), seats, &mut next_replica);
    }
    let n_shards = founding.shards.len() as u32;
    let slots = (0..u32::from(DIRECTORY_SLOTS)).map(|slot| ShardId(1 + slot % n_shards)).collect();
    rows::put_slots(rows, &slots);
    for (name, value) in &founding.settings {
        rows::put_setting(rows, name, Some(value));
    }
    let (id, next_shard) = (founding.cluster, 1 + n_shards);
    let cluster = Cluster { id, version: 0, next_replica, next_shard, lost_ids: None };
    rows::put_cluster(rows, &cluster);
    Ok(Outcome::Done)
}

fn check_founding(founding: &Founding) -> Result<(), Outcome> {
    if founding.shards.is_empty() || founding.shards.len() >= SHARDS_MAX as usize {
        return Err(refused(format!("a cluster has 1 to {} data shards", SHARDS_MAX - 1)));
    }
    let mut names = BTreeSet::new();
    let mut disks = BTreeSet::new();
    for node in &founding.nodes {
        check_node(node)?;
        if !names.insert(&node.name) || !node.disks.iter().all(|disk| disks.insert(disk.disk_id)) {
            return Err(refused("a node or disk is named twice"));
        }
    }
    for (name, value) in &founding.settings {
        check_text([name.as_str(), value])?;
    }
    let mut groups = std::iter::once(&founding.meta).chain(&founding.shards);
    groups.try_for_each(|seats| check_seats(&founding.nodes, seats))
}

fn check_seats(nodes: &[Node], seats: &[Seat]) -> Result<(), Outcome> {
    let mut used = BTreeSet::new();
    if seats.is_empty() {
        return Err(refused("a shard has at least one replica"));
    }
    for seat in seats {
        let node = nodes.iter().find(|node| node.name == seat.node);
        let node = node.ok_or_else(|| refused(format!("no node {}", seat.node)))?;
        check_seat(node, seat)?;
        if !used.insert(&seat.node) {
            return Err(refused("replicas of a shard lie on different nodes"));
        }
    }
    Ok(())
}

fn check_seat(node: &Node, seat: &Seat) -> Result<(), Outcome> {
    let disk = node.disks.iter().find(|disk| disk.disk_id == seat.disk_id);
    match disk.map(|disk| disk.state) {
        Some(DiskState::Ok) if !node.draining => Ok(()),
        Some(DiskState::Ok) => Err(refused(format!("node {} is being emptied", node.name))),
        Some(_) => Err(refused(format!("disk {} takes no replicas", seat.disk_id))),
        None => Err(refused(format!("node {} has no disk {}", node.name, seat.disk_id))),
    }
}

fn check_node(node: &Node) -> Result<(), Outcome> {
    if node.name.is_empty() || node.disks.is_empty() {
        return Err(refused("a node has a name and at least one disk"));
    }
    check_text([node.name.as_str(), &node.address, &node.zone])?;
    check_text(node.disks.iter().map(|disk| disk.path.as_str()))
}

fn check_text<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<(), Outcome> {
    let fits = texts.into_iter().all(|text| text.len() <= TEXT_BYTES_MAX);
    if fits { Ok(()) } else { Err(refused(format!("a text over {TEXT_BYTES_MAX} octets"))) }
}

/// A node's own word replaces what was known, but a disk never goes back: not to fewer starts or
/// batches, not from poisoned, not to another node. Disks it no longer names stay known, since
/// replicas refer to them. A disk that left is not taken again; the others of its node are. One that
/// could not be opened may be opened at a later start: it has failed, so that its replicas are made anew
/// elsewhere and it takes no others, but it keeps no node from starting.
fn register_node(rows: &mut Rows<'_>, said: &Node) -> Applied {
    check_node(said)?;
    let mut node = said.clone();
    let known = rows::nodes(rows);
    node.disks.retain(|disk| !rows::has_left(rows, disk.disk_id));
    if let (true, Some(disk)) = (node.disks.is_empty(), said.disks.first()) {
        let (id, path) = (disk.disk_id, &disk.path);
        let text = format!("disk {id} in {path} has left this cluster: empty the directory");
        return Err(refused(text));
    }
    for disk in &mut node.disks {
        let n_synced = disk.n_synced.take();
        let mut all = known.iter().flat_map(|node| node.disks.iter().map(move |disk| (node, disk)));
        let Some((owner, old)) = all.find(|(_, old)| old.disk_id == disk.disk_id) else {
            continue;
        };
        if owner.name != said.name {
            let id = disk.disk_id;
            return Err(refused(format!("disk {id} belongs to node {}", owner.name)));
        }
        if disk.is_opened() {
            check_not_older(rows, disk, old, n_synced)?;
        } else {
            // Why: what it is told of then is judged by this, when it is opened again.
            (disk.start_count, disk.start_id) = (old.start_count, old.start_id);
            disk.previous_start_id = old.previous_start_id;
        }
        if old.state != DiskState::Ok && disk.state != DiskState::Poisoned {
            disk.state = old.state;
        }
    }
    if let Some(old) = known.iter().find(|node| node.name == said.name) {
        let gone = |id: DiskId| !said.disks.iter().any(|disk| disk.disk_id == id);
        node.disks.extend(old.disks.iter().filter(|disk| gone(disk.disk_id)).cloned());
        node.draining = old.draining;
    }
    node.disks.sort_by_key(|disk| disk.disk_id);
    node.disks.dedup_by_key(|disk| disk.disk_id);
    if rows::node(rows, &node.name).as_ref() != Some(&node) {
        rows::put_node(rows, &node);
    }
    Ok(Outcome::Done)
}

/// Refuses a disk that is an older copy of the one that is known. Of one that was never opened it is known at
/// most how much was on it.
fn check_not_older(
    rows: &Rows<'_>,
    disk: &Disk,
    old: &Disk,
    n_synced: Option<u64>,
) -> Result<(), Outcome> {
    let (id, path) = (disk.disk_id, &disk.path);
    let (now, was) = (disk.start_count, old.start_count);
    if old.is_opened() && now < was {
        let text = format!("disk {id} was rolled back: {was} starts, now {now}");
        return Err(refused(format!("{text}: empty {path}")));
    }
    if let (Some(now), Some(was)) = (n_synced, rows::mark(rows, id))
        && now < was
    {
        let text = format!("disk {id} was rolled back: {was} batches written, now {now}");
        return Err(refused(format!("{text}: empty {path}")));
    }
    let knows = [0, disk.start_id, disk.previous_start_id].contains(&old.start_id);
    if old.is_opened() && !knows && disk.state != DiskState::Poisoned {
        let text = format!("disk {id} in {path} is an older copy of itself: empty the directory");
        return Err(refused(text));
    }
    Ok(())
}

fn note_space(rows: &mut Rows<'_>, disk_id: DiskId, free_bytes: u64) -> Applied {
    for mut node in rows::nodes(rows) {
        if let Some(disk) = node.disks.iter_mut().find(|disk| disk.disk_id == disk_id) {
            if disk.free_bytes != free_bytes {
                disk.free_bytes = free_bytes;
                rows::put_node(rows, &node);
            }
            return Ok(Outcome::Done);
        }
    }
    Err(refused("no such disk"))
}

/// A mark never goes back either.
fn note_marks(rows: &mut Rows<'_>, marks: &[(DiskId, u64)]) -> Applied {
    let nodes = rows::nodes(rows);
    let is_known = |id: DiskId| nodes.iter().flat_map(|n| &n.disks).any(|disk| disk.disk_id == id);
    for (disk_id, n_synced) in marks.iter().filter(|(disk_id, _)| is_known(*disk_id)) {
        if rows::mark(rows, *disk_id).is_none_or(|was| was < *n_synced) {
            rows::put_mark(rows, *disk_id, *n_synced);
        }
    }
    Ok(Outcome::Done)
}

fn set_disk_state(rows: &mut Rows<'_>, disk_id: DiskId, state: DiskState) -> Applied {
    for mut node in rows::nodes(rows) {
        if let Some(disk) = node.disks.iter_mut().find(|disk| disk.disk_id == disk_id) {
            match (disk.state, state) {
                (DiskState::Poisoned, to) if to != DiskState::Poisoned => {
                    return Err(refused("a poisoned disk is never used again"));
                }
                (DiskState::Retired, DiskState::Ok | DiskState::Draining) => {
                    return Err(refused("a retired disk is never used again"));
                }
                _ => {}
            }
            if disk.state != state {
                disk.state = state;
                rows::put_node(rows, &node);
            }
            return Ok(Outcome::Done);
        }
    }
    Err(refused(format!("no disk {disk_id}")))
}

/// Its disks are remembered as ones that never come back.
fn remove_node(rows: &mut Rows<'_>, name: &str) -> Applied {
    let Some(node) = rows::node(rows, name) else { return Ok(Outcome::Done) };
    let shards = rows::shards(rows);
    let n_replicas = shards.iter().flat_map(|shard| &shard.replicas);
    let n_replicas = n_replicas.filter(|replica| replica.node == name).count();
    if n_replicas > 0 {
        return Err(refused(format!("node {name} has {n_replicas} replicas: drain it first")));
    }
    for disk in &node.disks {
        rows::put_left(rows, disk.disk_id);
        rows::remove_mark(rows, disk.disk_id);
    }
    rows::remove_node(rows, name);
    Ok(Outcome::Done)
}

fn forget_disk(rows: &mut Rows<'_>, disk_id: DiskId) -> Applied {
    let shards = rows::shards(rows);
    if shards.iter().flat_map(|s| &s.replicas).any(|replica| replica.disk_id == disk_id) {
        return Err(refused(format!("disk {disk_id} has replicas")));
    }
    for mut node in rows::nodes(rows) {
        if let Some(at) = node.disks.iter().position(|disk| disk.disk_id == disk_id) {
            node.disks.remove(at);
            rows::put_left(rows, disk_id);
            rows::remove_mark(rows, disk_id);
            rows::put_node(rows, &node);
        }
    }
    Ok(Outcome::Done)
}

fn create_shard(rows: &mut Rows<'_>, seats: &[Seat], mut cluster: Cluster) -> Applied {
    check_seats(&rows::nodes(rows), seats)?;
    // Why not by the id: after a loss of the majority ids are left out.
    if rows::shards(rows).len() >= SHARDS_MAX as usize {
        return Err(refused(format!("a cluster has at most {SHARDS_MAX} shards")));
    }
    let shard = ShardId(cluster.next_shard);
    cluster.next_shard += 1;
    put_new_shard(rows, shard, seats, &mut cluster.next_replica);
    rows::put_cluster(rows, &cluster);
    Ok(Outcome::Shard(shard))
}

fn put_new_shard(rows: &mut Rows<'_>, shard: ShardId, seats: &[Seat], next_replica: &mut u64) {
    let mut replicas = Vec::with_capacity(seats.len());
    for seat in seats {
        replicas.push(new_replica(*next_replica, seat, ReplicaRole::Voter));
        *next_replica += 1;
    }
    let n_wanted = replicas.len() as u32;
    let (leader, forced, outcasts) = (None, None, Vec::new());
    rows::put_shard(rows, &Shard { shard, replicas, leader, n_wanted, forced, outcasts });
}

fn new_replica(replica_id: u64, seat: &Seat, role: ReplicaRole) -> Replica {
    Replica { replica_id, node: seat.node.clone(), disk_id: seat.disk_id, role, replaces: None }
}

fn place_replica(
    rows: &mut Rows<'_>,
    shard: ShardId,
    (seat, replaces): (&Seat, Option<u64>),
    mut cluster: Cluster,
) -> Applied {
    let mut shard = known_shard(rows, shard)?;
    check_seat(&known_node(rows, &seat.node)?, seat)?;
    if shard.forced.is_some() {
        return Err(refused("the shard recovers first"));
    }
    if shard.replicas.iter().any(|replica| replica.role == ReplicaRole::Learner) {
        return Err(refused("one change per shard at a time"));
    }
    if let Some(replaces) = replaces {
        known_replica(&shard, replaces)?;
    }
    // A second replica on a node is allowed only in the place of the first.
    let stays = |replica: &&Replica| Some(replica.replica_id) != replaces;
    if shard.replicas.iter().filter(stays).any(|replica| replica.node == seat.node) {
        return Err(refused("replicas of a shard lie on different nodes"));
    }
    let replica_id = cluster.next_replica;
    cluster.next_replica += 1;
    let learner = new_replica(replica_id, seat, ReplicaRole::Learner);
    shard.replicas.push(Replica { replaces, ..learner });
    rows::put_shard(rows, &shard);
    rows::put_cluster(rows, &cluster);
    Ok(Outcome::Replica(replica_id))
}

fn promote_replica(
    rows: &mut Rows<'_>,
    shard: ShardId,
    replica_id: u64,
    instead_of: Option<u64>,
) -> Applied {
    let mut shard = known_shard(rows, shard)?;
    let at = known_replica(&shard, replica_id)?;
    if let Some(old) = instead_of
        && shard.replicas[at].role == ReplicaRole::Learner
    {
        let old_at = known_replica(&shard, old)?;
        if old_at == at {
            return Err(refused("a replica does not replace itself"));
        }
        // The new one inherits the old one's rank among the preferred leaders.
        shard.replicas.swap(at, old_at);
        shard.replicas.remove(at);
    }
    let at = known_replica(&shard, replica_id)?;
    shard.replicas[at].role = ReplicaRole::Voter;
    shard.replicas[at].replaces = None;
    let mut nodes = BTreeSet::new();
    if !shard.replicas.iter().all(|replica| nodes.insert(&replica.node)) {
        return Err(refused("replicas of a shard lie on different nodes"));
    }
    if rows::shard(rows, shard.shard).as_ref() != Some(&shard) {
        rows::put_shard(rows, &shard);
    }
    Ok(Outcome::Done)
}

fn remove_replica(rows: &mut Rows<'_>, shard: ShardId, replica_id: u64) -> Applied {
    let mut shard = known_shard(rows, shard)?;
    let at = known_replica(&shard, replica_id)?;
    shard.replicas.remove(at);
    if !shard.replicas.iter().any(|replica| replica.role == ReplicaRole::Voter) {
        return Err(refused("a shard keeps at least one voter"));
    }
    rows::put_shard(rows, &shard);
    Ok(Outcome::Done)
}

fn force_shard(rows: &mut Rows<'_>, shard: ShardId, replica_id: u64, cluster: Cluster) -> Applied {
    let mut shard = known_shard(rows, shard)?;
    let at = known_replica(&shard, replica_id)?;
    if shard.replicas[at].role == ReplicaRole::Learner {
        return Err(refused(format!("replica {replica_id} never voted")));
    }
    let kept = shard.replicas.swap_remove(at);
    shard.outcasts.extend(shard.replicas.iter().map(|one| one.replica_id));
    shard.leader = Some(kept.node.clone());
    shard.replicas = vec![kept];
    shard.forced = Some(replica_id);
    rows::put_shard(rows, &shard);
    if shard.shard == META_SHARD {
        leave_out_what_was_lost(rows, cluster);
    }
    Ok(Outcome::Done)
}

/// The majority that is lost may have given out ids, and noted starts of disks, that are not in these rows.
fn leave_out_what_was_lost(rows: &mut Rows<'_>, mut cluster: Cluster) {
    cluster.lost_ids.get_or_insert_default().push(cluster.next_replica);
    cluster.next_replica = cluster.next_replica.saturating_add(LOST_IDS);
    cluster.next_shard = cluster.next_shard.saturating_add(SHARDS_MAX);
    rows::put_cluster(rows, &cluster);
    for mut node in rows::nodes(rows) {
        // Why: a disk that was started twice since would be taken for an older copy of itself. Its count of
        // starts and its mark still tell one.
        node.disks.iter_mut().for_each(|disk| disk.start_id = 0);
        rows::put_node(rows, &node);
    }
}

fn recovered_shard(rows: &mut Rows<'_>, shard: ShardId, replica_id: u64) -> Applied {
    let mut shard = known_shard(rows, shard)?;
    if shard.forced == Some(replica_id) {
        shard.forced = None;
        rows::put_shard(rows, &shard);
    }
    Ok(Outcome::Done)
}

fn note_leaders(rows: &mut Rows<'_>, leaders: &[(ShardId, String)]) -> Applied {
    for (shard, leader) in leaders {
        let shard = known_shard(rows, *shard)?;
        if !shard.replicas.iter().any(|replica| replica.node == *leader) {
            return Err(refused(format!("node {leader} has no replica of shard {}", shard.shard)));
        }
    }
    for (shard, leader) in leaders {
        let mut shard = known_shard(rows, *shard)?;
        if shard.leader.as_ref() != Some(leader) {
            shard.leader = Some(leader.clone());
            rows::put_shard(rows, &shard);
        }
    }
    Ok(Outcome::Done)
}

fn known_node(rows: &Rows<'_>, name: &str) -> Result<Node, Outcome> {
    rows::node(rows, name).ok_or_else(|| refused(format!("no node {name}")))
}

fn known_shard(rows: &Rows<'_>, shard: ShardId) -> Result<Shard, Outcome> {
    rows::shard(rows, shard).ok_or_else(|| refused(format!("no shard {shard}")))
}

fn known_replica(shard: &Shard, replica_id: u64) -> Result<usize, Outcome> {
    let at = shard.replicas.iter().position(|replica| replica.replica_id == replica_id);
    at.ok_or_else(|| refused(format!("shard {} has no replica {replica_id}", shard.shard)))
}

fn refused(reason: impl Into<String>) -> Outcome {
    Outcome::Refused(reason.into())
}
