//! What goes wrong, and when.

use std::sync::Arc;

use drill::{Fault, Record};
use turmoil::Sim;

use crate::dice::Dice;
use crate::world::World;

/// Time between two faults, in milliseconds.
const PAUSE_MS: (u64, u64) = (100, 1_200);
/// How long a fault lasts.
const LASTS_MS: (u64, u64) = (50, 2_500);

/// Something that has to be taken back.
enum Undo {
    Start(String),
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
            0..=24 => self.crash(sim, &node, false),
            25..=44 => self.crash(sim, &node, true),
            45..=54 => nodes.iter().for_each(|node| self.crash(sim, node, true)),
            55..=64 => self.split(&nodes),
            65..=79 => self.isolate(&node),
            80..=89 => {
                let slow_ms = self.dice.range(20, 400);
                self.world.machine(&node, |machine| machine.sync_ms = slow_ms);
                self.later(format!("slow disk of {node}, {slow_ms} ms"), Undo::SpeedUp(node));
            }
            _ => {
                let (slowest, loss) = (self.dice.range(3, 120), self.dice.range(0, 60));
                self.world.net.set_quality((0, slowest), loss);
                let name = format!("bad network, {slowest} ms, {loss} of 1,000 lost");
                self.later(name, Undo::CalmNet);
            }
        }
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
        let loses_index = self.dice.chance(100);
        self.world.machine(node, |machine| {
            machine.storage = match is_power_cut {
                true => machine.storage.power_cut(&mut || self.dice.chance(keep_per_mille)),
                false => machine.storage.kill(),
            };
            if loses_index {
                // The index is a cache; checkpoints and journal must do without it.
                drop(std::fs::remove_dir_all(machine.dir.join("index")));
            }
        });
        self.later(format!("{name} of {node}"), Undo::Start(node.into()));
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
        for (_, since, name, undo) in std::mem::take(&mut self.undo) {
            self.take_back(sim, since, name, undo);
        }
    }

    /// Takes back everything and then hurts a minority for as long as it is left so.
    pub fn freeze_minority(&mut self, sim: &mut Sim<'_>) {
        self.end(sim);
        let nodes = self.world.plan.nodes();
        let first = self.dice.range(0, nodes.len() as u64 - 1) as usize;
        for n in 0..(nodes.len() - 1) / 2 {
            let node = &nodes[(first + n) % nodes.len()];
            match self.dice.range(0, 2) {
                0 => self.crash(sim, node, true),
                1 => self.isolate(node),
                _ => {
                    self.world.machine(node, |machine| machine.sync_ms = 400);
                    self.later(format!("slow disk of {node}"), Undo::SpeedUp(node.clone()));
                }
            }
        }
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
    world.machine(node, |machine| machine.is_up = true);
    sim.bounce(node);
}
