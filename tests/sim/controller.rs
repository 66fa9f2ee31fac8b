//! Changes members while everything else goes wrong, as the controller of a real cluster does: a new
//! replica follows, is whole, and takes the old one's place in one joint change; whoever leads
//! meanwhile is asked again until it is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mailbox::ShardId;
use replica::{Role, Status};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::frontend::Frontend;
use crate::net::{Admin, Ask, Told};
use crate::seats::{Change, Seat};
use crate::world::World;

/// How often the next step is thought about.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// How long a leader may take for one step.
const STEP_PATIENCE: Duration = Duration::from_millis(1_500);
/// A new replica so many entries behind may vote.
const BEHIND_MAX: u64 = 20;
/// So often somebody else is asked to lead before that is given up.
const HAND_OVERS_MAX: usize = 3;

/// Runs as long as the simulation does.
pub async fn run(world: Arc<World>, dice: Dice) -> turmoil::Result {
    let frontend = Arc::new(Frontend::new(world.clone(), "ctl".into(), dice.fork()));
    let mut tending = Vec::new();
    for shard in world.plan.shards() {
        let controller = Controller {
            world: world.clone(),
            frontend: frontend.clone(),
            shard,
            dice: dice.fork(),
        };
        tending.push(tokio::spawn(controller.tend()));
    }
    for shard in tending {
        shard.await?;
    }
    Ok(())
}

struct Controller {
    world: Arc<World>,
    frontend: Arc<Frontend>,
    shard: ShardId,
    dice: Dice,
}

/// What brings a change on.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done,
    Learn,
    Wait,
    Vote(BTreeSet<u64>),
}

impl Controller {
    async fn tend(self) {
        loop {
            sleep(LOOK_EVERY).await;
            match self.world.seats(|seats| seats.next_change(self.shard)) {
                None => continue,
                Some(Change::HandOver) => self.hand_over().await,
                Some(Change::Replace { leaves, to }) => self.replace(leaves, &to).await,
            }
            self.world.seats(|seats| seats.close(self.shard));
        }
    }

    async fn hand_over(&self) {
        for _ in 0..HAND_OVERS_MAX {
            if self.ask_leader(Ask::Admin(Admin::HandOver)).await.is_some() {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn replace(&self, leaves: u64, to: &str) {
        let joins = self.world.add_seat(self.shard, to);
        self.world.trace(format_args!("replica {} takes the place of {leaves}", joins.replica));
        if self.dice.chance(300) {
            self.hand_over().await;
        }
        loop {
            let step = match self.ask_leader(Ask::Status(None)).await {
                Some(Told::Status(status)) if status.role == Role::Leader => {
                    self.next_step(&status, leaves, &joins).await
                }
                _ => Step::Wait,
            };
            let admin = match step {
                Step::Done => break,
                Step::Wait => None,
                Step::Learn => Some(Admin::Learn(joins.replica, joins.member())),
                Step::Vote(voters) => Some(Admin::Vote(voters)),
            };
            if let Some(admin) = admin {
                // Why the result is dropped: what it came to shows in the next status.
                drop(self.ask_leader(Ask::Admin(admin)).await);
            }
            sleep(LOOK_EVERY).await;
        }
        self.world.seats(|seats| seats.remove(leaves));
        self.world.trace(format_args!("replica {leaves} was replaced"));
    }

    async fn next_step(&self, status: &Status, leaves: u64, joins: &Seat) -> Step {
        let mut target: BTreeSet<u64> = status.voters.keys().copied().collect();
        target.remove(&leaves);
        target.insert(joins.replica);
        let is_there = status.voters.keys().copied().collect::<BTreeSet<_>>() == target;
        if status.is_joint {
            return Step::Vote(target);
        }
        if is_there {
            return Step::Done;
        }
        if !status.learners.contains_key(&joins.replica) {
            return Step::Learn;
        }
        let has = status.matched.get(&joins.replica).copied().unwrap_or(0);
        if has == 0 || has + BEHIND_MAX < status.last_log_index {
            return Step::Wait;
        }
        // Why: a voter without its bodies would count as failed at once.
        let asked = Ask::Status(Some(joins.replica));
        match self.frontend.ask(self.shard, &joins.node, asked, STEP_PATIENCE).await {
            Some(Told::Status(joined)) if !joined.is_incomplete && !joined.is_unconfirmed => {
                Step::Vote(target)
            }
            _ => Step::Wait,
        }
    }

    async fn ask_leader(&self, ask: Ask) -> Option<Told> {
        let leader = self.frontend.ask_all(self.shard).await?;
        self.frontend.ask(self.shard, &leader, ask, STEP_PATIENCE).await
    }
}
