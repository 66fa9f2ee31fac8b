//! Who leads a shard. Known, it costs nothing; unknown, one caller asks all replicas at a time and the
//! others wait for what it finds.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use mailbox::ShardId;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Cluster;
use crate::proto::mail::{LeaderRequest, LeaderResponse};

/// How long a replica may take to say whom it takes for the leader. Long enough to connect first, over a
/// network with round trips of half a second.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a round waits for answers. Who has not answered by then is waited for in the next ones too, and
/// the others are asked anew: one that is silent holds up nobody for longer.
const ROUND: Duration = Duration::from_millis(300);
/// How long others are waited for once a leader was found: one of them may know a later one.
const OTHERS_TIMEOUT: Duration = Duration::from_millis(30);
/// After this long in vain a leader that others name, and that does not answer, is reached through one of
/// them. Longer than an election: before it those that are left name the one that is gone.
const DETOUR_AFTER: Duration = Duration::from_secs(2);
/// Answers nobody has looked at for so long count no more: who led then need not lead now. Longer than
/// between two looks at a silent leader.
const UNREAD_FOR: Duration = Duration::from_millis(1_500);
/// Pause after the first round without a leader.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// Longest pause; this much later than its election a leader is found at most.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// After this long in vain, longer than an election, the members may be others than is known.
const DOUBT_MEMBERS_AFTER: Duration = Duration::from_secs(2);

/// A leader as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) node: String,
    /// Told by a node that does not lead, not by the leader itself.
    hinted: bool,
    /// Ascends with each finding.
    generation: u64,
}

#[derive(Clone, Debug, Default)]
struct Known {
    leader: Option<Leader>,
    generation: u64,
}

pub(super) struct Route {
    pub(super) shard: ShardId,
    pub(super) cluster: Cluster,
    known: watch::Sender<Known>,
    finding: Mutex<Finding>,
    probing: Mutex<Asking>,
}

/// How the leader is looked for.
struct Finding {
    pause: Duration,
    in_vain_since: Option<Instant>,
    asking: Asking,
}

impl Finding {
    fn new() -> Self {
        Self { pause: PAUSE_FIRST, in_vain_since: None, asking: Asking::default() }
    }
}

/// Replicas that were asked who leads and have not answered yet.
#[derive(Default)]
struct Asking {
    answers: FuturesUnordered<BoxFuture<'static, (String, Option<LeaderResponse>)>>,
    asked: BTreeSet<String>,
    /// When answers were looked at last.
    read: Option<Instant>,
}

impl Asking {
    /// A round begins: what was asked long ago is asked anew.
    fn resume(&mut self) {
        if self.read.is_some_and(|at| at.elapsed() > UNREAD_FOR) {
            *self = Self::default();
        }
        self.read = Some(Instant::now());
    }
}

/// What a round gave.
#[derive(Default)]
struct Round {
    /// Leads, as it says itself.
    leader: Option<String>,
    /// Leads, as another one says; has not answered.
    absent: Option<Absent>,
}

struct Absent {
    leader: String,
    term: u64,
    named_by: BTreeSet<String>,
}

impl Absent {
    /// What is known when a node has named one who leads in a term.
    fn named(known: Option<Self>, leader: String, term: u64, by: String) -> Self {
        match known {
            Some(mut known) if known.term >= term => {
                if known.term == term && known.leader == leader {
                    known.named_by.insert(by);
                }
                known
            }
            _ => Self { leader, term, named_by: BTreeSet::from([by]) },
        }
    }
}

impl Route {
    pub(super) fn new(shard: ShardId, cluster: Cluster) -> Self {
        let known = watch::Sender::new(Known::default());
        let (finding, probing) = (Mutex::new(Finding::new()), Mutex::default());
        Self { shard, cluster, known, finding, probing }
    }

    /// The leader if one is known at present.
    pub(super) fn known(&self) -> Option<Leader> {
        self.known.borrow().leader.clone()
    }

    /// The leader, as soon as there is one. The caller has a deadline.
    pub(super) async fn leader(&self) -> Leader {
        let mut news = self.known.subscribe();
        loop {
            if let Some(leader) = news.borrow_and_update().leader.clone() {
                return leader;
            }
            tokio::select! {
                _ = news.changed() => {}
                () = self.find() => {}
            }
        }
    }

    /// One round, then a pause if it found nothing.
    async fn find(&self) {
        let mut finding = self.finding.lock().await;
        if self.known().is_some() {
            return;
        }
        let round = self.ask_all(&mut finding.asking).await;
        match round.leader {
            Some(node) => {
                self.set(&node, false);
                *finding = Finding::new();
            }
            None => {
                let since = *finding.in_vain_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= DOUBT_MEMBERS_AFTER {
                    self.cluster.placements.suspect();
                }
                if let Some(absent) = round.absent
                    && since.elapsed() >= DETOUR_AFTER
                {
                    self.cluster.nodes.go_through(&absent.named_by, &absent.leader);
                }
                sleep(finding.pause).await;
                finding.pause = (finding.pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// This leader did not answer as a leader.
    pub(super) fn lost(&self, lost: &Leader) {
        self.known.send_if_modified(|known| {
            let same = known.leader.as_ref() == Some(lost);
            if same {
                known.leader = None;
            }
            same
        });
    }

    /// This leader says that another one leads. Believed once: a chain of hints is looked into.
    pub(super) fn hinted(&self, by: &Leader, node: Option<String>) {
        match node {
            Some(node) if !by.hinted && node != by.node => {
                if self.known().as_ref() == Some(by) {
                    self.set(&node, true);
                }
            }
            _ => self.lost(by),
        }
    }

    fn set(&self, node: &str, hinted: bool) {
        self.known.send_modify(|known| {
            known.generation += 1;
            let generation = known.generation;
            known.leader = Some(Leader { node: node.to_owned(), hinted, generation });
        });
    }

    /// Completes when this leader is not the one that is known any more.
    pub(super) async fn replaced(&self, leader: &Leader) {
        let mut news = self.known.subscribe();
        // Why: an error is impossible while `self` holds the sender.
        let _ = news.wait_for(|known| known.leader.as_ref() != Some(leader)).await;
    }

    /// Looks whether a silent leader still leads; if another one does, that is known afterwards.
    pub(super) async fn probe(&self, leader: &Leader) {
        // Why one: thousands may wait for the same leader, and all hear of another one.
        let Ok(mut asking) = self.probing.try_lock() else { return };
        if let Some(node) = self.ask_all(&mut asking).await.leader
            && node != leader.node
            && self.known().as_ref() == Some(leader)
        {
            self.set(&node, false);
        }
    }

    /// Asks all replicas that are not being asked, and gives the one that leads in the highest term.
    async fn ask_all(&self, asking: &mut Asking) -> Round {
        let placement = self.cluster.placements.current();
        let names: Vec<String> = match placement.shard(self.shard) {
            Some(shard) => shard.replicas.iter().map(|replica| replica.node.clone()).collect(),
            None => {
                self.cluster.placements.suspect();
                return Round::default();
            }
        };
        asking.resume();
        for name in &names {
            if asking.asked.insert(name.clone()) {
                asking.answers.push(self.ask(name.clone()));
            }
        }
        let mut best: Option<(u64, String)> = None;
        let mut absent: Option<Absent> = None;
        let (mut n_strangers, mut answered) = (0, BTreeSet::new());
        let mut until = Instant::now() + ROUND;
        while let Ok(Some((name, response))) = timeout_at(until, asking.answers.next()).await {
            asking.asked.remove(&name);
            asking.read = Some(Instant::now());
            if let Some(response) = response {
                answered.insert(name.clone());
                n_strangers += u32::from(response.error.is_some());
                let leads = response.leader == name;
                // Why: a leader outside of what we know cannot be asked itself.
                let unlisted = !response.leader.is_empty() && !names.contains(&response.leader);
                let later = best.as_ref().is_none_or(|(term, _)| response.term > *term);
                if (leads || unlisted) && later {
                    best = Some((response.term, response.leader));
                } else if !response.leader.is_empty() {
                    absent = Some(Absent::named(absent, response.leader, response.term, name));
                }
            }
            if best.is_some() {
                until = Instant::now() + OTHERS_TIMEOUT;
            }
        }
        asking.read = Some(Instant::now());
        let best = best.map(|(_, node)| node);
        // Who leads and is not known to be a member has come since the placement was told.
        let is_outdated = best.as_ref().map_or(n_strangers > 0, |node| !names.contains(node));
        if is_outdated {
            self.cluster.placements.suspect();
        }
        Round { leader: best, absent: absent.filter(|absent| !answered.contains(&absent.leader)) }
    }

    fn ask(&self, node: String) -> BoxFuture<'static, (String, Option<LeaderResponse>)> {
        let (mut client, begun) = (self.cluster.nodes.mail(&node), Instant::now());
        let request = LeaderRequest { shard: self.shard.0 };
        Box::pin(async move {
            let response = match timeout(ASK_TIMEOUT, client.leader(request)).await {
                // Why not later: nobody listened when it came, and another one may lead by now.
                Ok(Ok(response)) if begun.elapsed() <= ASK_TIMEOUT => Some(response.into_inner()),
                _ => None,
            };
            (node, response)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[test]
    fn whom_the_latest_term_names_leads_and_all_who_name_it_are_known() {
        let named = [(1, "n1", "n2"), (3, "n4", "n3"), (2, "n1", "n2"), (3, "n4", "n5")];
        let absent = named.into_iter().fold(None, |absent, (term, leader, by)| {
            Some(Absent::named(absent, leader.to_owned(), term, by.to_owned()))
        });
        let absent = absent.unwrap();
        assert_eq!((absent.leader.as_str(), absent.term), ("n4", 3));
        assert!(absent.named_by.iter().eq(["n3", "n5"]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_asked_long_ago_is_asked_anew() {
        let mut asking = Asking::default();
        asking.resume();
        asking.asked.insert("n1".to_owned());
        advance(UNREAD_FOR / 2).await;
        asking.resume();
        assert!(!asking.asked.is_empty(), "a round before this one waits for it");
        advance(UNREAD_FOR * 2).await;
        asking.resume();
        assert!(asking.asked.is_empty());
    }
}
