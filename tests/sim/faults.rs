//! What goes wrong, and when.

use std::io::ErrorKind;
use std::sync::Arc;

use drill::{Fault, Record};
use journal::sim::Operation;
use turmoil::Sim;

use crate::dice::Dice;
use crate::plan::Bug;
use crate::seats::{Change, Seat};
use crate::shadow;
use crate::world::World;

/// Time between two faults, in milliseconds.
const PAUSE_MS: (u64, u64) = (100, 1_200);
/// How long a fault lasts.
const LASTS_MS: (u64, u64) = (50, 2_500);

/// Something that has to be taken back.
enum Undo {
    Start(String),
    NewDisk(String),
    PutBack { node: String, lagging: Vec<String> },
    Heal,
    SpeedUp(String),
    CalmNet,
}

/// Hurts the cluster as the dice fall.
pub struct Faults {
    world: Arc<World>,
    dice: Dice,
    next_ms: u64,
    undo: Vec<(u64, u64, String, Undo)>,
}

impl Faults {
    pub fn new(world: Arc<World>, dice: Dice) -> Self {
        Self { world, dice, next_ms: 800, undo: Vec::new() }
    }

    /// What is due now.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = self.world.now_ms();
        while let Some(at) = self.undo.iter().position(|(due, ..)| *due <= now) {
            let (_, since, name, undo) = self.undo.remove(at);
            self.take_back(sim, since, name, undo);
        }
        // Why: whoever forgets what it misses shows it only if it is killed before it has it.
        if self.world.plan.bug == Some(Bug::CampaignIncomplete)
            && let Some(node) = self.world.incomplete_node()
            && self.dice.chance(20)
        {
            self.crash(sim, &node, false);
        }
        if self.world.plan.bug == Some(Bug::TrustOldDisks)
            && !self.undo.iter().any(|(.., undo)| matches!(undo, Undo::PutBack { .. }))
            && self.dice.chance(2)
        {
            let node = self.dice.pick(&self.world.plan.nodes()).clone();
            self.begin_to_put_back(&node);
        }
        if now >= self.next_ms {
            self.next_ms = now + self.dice.range(PAUSE_MS.0, PAUSE_MS.1);
            self.hurt(sim);
        }
    }

    fn hurt(&mut self, sim: &mut Sim<'_>) {
        let nodes = self.world.plan.nodes();
        let mut node = self.dice.pick(&nodes).clone();
        if self.dice.chance(500)
            && let Some(leader) = self.world.leader()
        {
            node = leader;
        }
        match self.dice.range(0, 99) {
            0..=19 => self.crash(sim, &node, false),
            20..=36 => self.crash(sim, &node, true),
            37..=44 => nodes.iter().for_each(|node| self.crash(sim, node, true)),
            45..=52 => self.split(&nodes),
            53..=65 => self.isolate(&node),
            66..=69 => self.cut_line(&nodes, &node),
            70..=77 => {
                let slow_ms = self.dice.range(20, 400);
                self.world.machine(&node, |machine| machine.sync_ms = slow_ms);
                self.later(format!("slow disk of {node}, {slow_ms} ms"), Undo::SpeedUp(node));
            }
            78..=83 => {
                let (slowest, loss) = (self.dice.range(3, 120), self.dice.range(0, 60));
                self.world.net.set_quality((0, slowest), loss);
                let name = format!("bad network, {slowest} ms, {loss} of 1,000 lost");
                self.later(name, Undo::CalmNet);
            }
            _ if !self.world.plan.changes => {}
            84..=86 => nodes.iter().for_each(|node| self.world.take_image(node)),
            87..=88 => self.begin_to_put_back(&node),
            89..=92 => self.lose_disk(sim, &node),
            93..=97 => self.move_away(&node),
            _ => {
                let shard = *self.dice.pick(&self.world.plan.shards());
                self.world.seats(|seats| seats.want(shard, Change::HandOver));
            }
        }
    }

    /// The disk comes back empty, or as it was once: its replicas are lost and replaced.
    fn lose_disk(&mut self, sim: &mut Sim<'_>, node: &str) {
        let is_up = self.world.machine(node, |machine| machine.is_up);
        if self.is_failing() || !is_up || !self.world.may_lose(node) {
            return;
        }
        if self.dice.chance(300) {
            // A disk that could not sync once is not used again, whatever it says later.
            self.world.machine(node, |machine| {
                machine.storage.fail(Operation::Sync, 1, ErrorKind::Other);
            });
            self.later(format!("disk of {node} fails"), Undo::NewDisk(node.into()));
            return;
        }
        kill(sim, &self.world, node, 0);
        let how = if self.world.roll_back(node) {
            "roll-back"
        } else {
            self.world.wipe(node);
            "wipe"
        };
        self.world.replace_all(node);
        self.later(format!("{how} of the disk of {node}"), Undo::Start(node.into()));
    }

    /// A minority is cut off. In a while all processes die, and a disk comes back as it is now: with that
    /// minority it would make a majority that never heard of what is acknowledged meanwhile.
    fn begin_to_put_back(&mut self, node: &str) {
        let nodes = self.world.plan.nodes();
        let others = nodes.iter().filter(|other| *other != node);
        let lagging: Vec<String> = others.take(self.world.plan.n_may_fail()).cloned().collect();
        for (behind, other) in lagging.iter().flat_map(|one| nodes.iter().map(move |o| (one, o))) {
            if !lagging.contains(other) {
                self.world.net.cut(behind, other);
                self.world.net.cut(other, behind);
            }
        }
        self.world.take_image(node);
        let name = format!("{lagging:?} lag behind, then the disk of {node} is put back");
        let undo = Undo::PutBack { node: node.into(), lagging };
        let now = self.world.now_ms();
        self.world.trace(&name);
        self.undo.push((now + self.dice.range(1_000, 2_500), now, name, undo));
    }

    fn put_back(&mut self, sim: &mut Sim<'_>, node: &str, lagging: &[String]) {
        self.world.net.heal();
        let is_up = self.world.machine(node, |machine| machine.is_up);
        let may = self.world.may_lose(node) && self.world.may_roll_back(node);
        if self.is_failing() || !is_up || !may {
            return;
        }
        kill(sim, &self.world, node, 0);
        self.world.roll_back(node);
        let (now, soon) = (self.world.now_ms(), LASTS_MS.0);
        let name = format!("the disk of {node} is put back");
        self.world.trace(&name);
        self.undo.push((now + soon, now, name, Undo::Start(node.into())));
        for other in self.world.plan.nodes().iter().filter(|other| *other != node) {
            let n_before = self.undo.len();
            self.crash(sim, other, false);
            // Those that know come last.
            let away = if lagging.contains(other) { soon } else { self.dice.range(1_500, 2_500) };
            self.undo[n_before..].iter_mut().for_each(|(due, ..)| *due = now + away);
        }
        self.world.replace_all(node);
    }

    /// Whether some disk failed and was not replaced yet.
    fn is_failing(&self) -> bool {
        self.undo.iter().any(|(.., undo)| matches!(undo, Undo::NewDisk(_)))
    }

    /// Replicas of a node get new places elsewhere, where there are free nodes.
    pub fn move_away(&mut self, node: &str) {
        if self.is_failing() {
            return;
        }
        let nodes = self.world.plan.nodes();
        let seats: Vec<Seat> = self.world.seats(|seats| seats.of_node(node).cloned().collect());
        for seat in seats {
            let taken = self.world.nodes_of(seat.shard);
            let free: Vec<&String> = nodes.iter().filter(|node| !taken.contains(node)).collect();
            let is_up = |node: &&&String| self.world.machine(node, |machine| machine.is_up);
            let Some(to) = free.iter().find(is_up).map(|node| (**node).clone()) else { continue };
            self.world.trace(format_args!("replica {} moves to {to}", seat.replica));
            self.world.seats(|seats| {
                if !seats.is_changing(seat.shard) && seats.is_begun(seat.shard) {
                    seats.want(seat.shard, Change::Replace { leaves: seat.replica, to });
                }
            });
        }
    }

    /// One node does not hear one other.
    fn cut_line(&mut self, nodes: &[String], node: &str) {
        let other = self.dice.pick(nodes).clone();
        self.world.net.cut(node, &other);
        self.later(format!("{other} does not hear {node}"), Undo::Heal);
    }

    /// Kills a process in the middle of a write; a power cut takes what was not synced as well.
    fn crash(&mut self, sim: &mut Sim<'_>, node: &str, is_power_cut: bool) {
        if !self.world.machine(node, |machine| machine.is_up) {
            return;
        }
        let name = if is_power_cut { "power cut" } else { "kill" };
        let n_changes = self.dice.range(0, 4);
        kill(sim, &self.world, node, n_changes);
        let keep_per_mille = self.dice.range(0, 1_000);
        let index_fate = self.dice.range(0, 9);
        self.world.machine(node, |machine| {
            if is_power_cut {
                let mut keep = || self.dice.chance(keep_per_mille);
                shadow::power_cut(&machine.dir.join("checkpoints"), &mut keep);
            }
            machine.storage = match is_power_cut {
                true => machine.storage.power_cut(&mut || self.dice.chance(keep_per_mille)),
                false => machine.storage.kill(),
            };
            // The index is a cache that nobody syncs; checkpoints and journal must do without it.
            match index_fate {
                0 => drop(std::fs::remove_dir_all(machine.dir.join("index"))),
                1 | 2 => machine.roll_back_index(),
                _ => {}
            }
        });
        let index = ["lost", "put back", "put back"].get(index_fate as usize).unwrap_or(&"kept");
        self.later(format!("{name} of {node}, index {index}"), Undo::Start(node.into()));
    }

    /// Two sides, none of which hears the other.
    fn split(&mut self, nodes: &[String]) {
        let all: Vec<String> = nodes.iter().cloned().chain(self.world.plan.frontends()).collect();
        let left: Vec<bool> = all.iter().map(|_| self.dice.chance(500)).collect();
        for (a, is_left) in all.iter().zip(&left) {
            for (b, other) in all.iter().zip(&left) {
                if is_left != other {
                    self.world.net.cut(a, b);
                }
            }
        }
        self.later(format!("split {left:?}"), Undo::Heal);
    }

    /// One node is not heard, does not hear, or both.
    fn isolate(&mut self, node: &str) {
        let how = self.dice.range(0, 2);
        for other in self.world.plan.nodes().iter().filter(|other| *other != node) {
            if how != 0 {
                self.world.net.cut(node, other);
            }
            if how != 1 {
                self.world.net.cut(other, node);
            }
        }
        let name = ["does not hear", "is not heard", "is cut off"][how as usize];
        self.later(format!("{node} {name}"), Undo::Heal);
    }

    fn later(&mut self, name: String, undo: Undo) {
        let now = self.world.now_ms();
        self.world.trace(&name);
        let due = now + self.dice.range(LASTS_MS.0, LASTS_MS.1);
        self.undo.push((due, now, name, undo));
    }

    fn take_back(&mut self, sim: &mut Sim<'_>, since: u64, name: String, undo: Undo) {
        match undo {
            Undo::Start(node) => start(sim, &self.world, &node),
            Undo::NewDisk(node) if !self.world.has_failed_disk(&node) => {}
            Undo::NewDisk(node) => {
                let was_up = self.world.machine(&node, |machine| machine.is_up);
                if was_up {
                    kill(sim, &self.world, &node, 0);
                }
                self.world.wipe(&node);
                self.world.replace_all(&node);
                if was_up {
                    start(sim, &self.world, &node);
                }
            }
            Undo::PutBack { node, lagging } => self.put_back(sim, &node, &lagging),
            Undo::Heal => self.world.net.heal(),
            Undo::SpeedUp(node) => {
                let sync_ms = self.world.plan.sync_ms;
                self.world.machine(&node, |machine| machine.sync_ms = sync_ms);
            }
            Undo::CalmNet => self.world.net.set_quality((0, 2), 0),
        }
        let (start_us, end_us) = (since * 1000, self.world.now_ms() * 1000);
        self.world.record(Record::Fault(Fault { name, start_us, end_us }));
    }

    /// Takes back everything, so that all must come right again.
    pub fn end(&mut self, sim: &mut Sim<'_>) {
        // Why again: to take one back may do another thing that has to be.
        while !self.undo.is_empty() {
            for (_, since, name, undo) in std::mem::take(&mut self.undo) {
                self.take_back(sim, since, name, undo);
            }
        }
    }

    /// Takes back everything and then hurts a minority for as long as it is left so. Gives those
    /// whose replicas can be put elsewhere meanwhile.
    pub fn freeze_minority(&mut self, sim: &mut Sim<'_>) -> Vec<String> {
        self.end(sim);
        let plan = self.world.plan.clone();
        let nodes = plan.nodes();
        let first = self.dice.range(0, nodes.len() as u64 - 1) as usize;
        let mut frozen = Vec::new();
        for n in 0..plan.n_may_fail() {
            let node = &nodes[(first + n) % nodes.len()];
            frozen.push(node.clone());
            match self.dice.range(0, 2) {
                0 => self.crash(sim, node, true),
                1 => self.isolate(node),
                _ => {
                    self.world.machine(node, |machine| machine.sync_ms = 400);
                    self.later(format!("slow disk of {node}"), Undo::SpeedUp(node.clone()));
                }
            }
        }
        frozen
    }
}

/// Ends a process after a few more changes of its disk.
fn kill(sim: &mut Sim<'_>, world: &World, node: &str, n_changes: u64) {
    let (storage, disk) = world.machine(node, |machine| {
        machine.is_up = false;
        machine.replicas.clear();
        (machine.storage.clone(), machine.disk.upgrade())
    });
    storage.power_off_after(n_changes);
    if let Some(disk) = disk {
        disk.journal().pump();
    }
    storage.power_off_after(0);
    world.net.close_door(node);
    sim.crash(node);
}

fn start(sim: &mut Sim<'_>, world: &World, node: &str) {
    world.machine(node, |machine| {
        machine.is_up = true;
        machine.n_starts += 1;
    });
    sim.bounce(node);
}
