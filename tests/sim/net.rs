//! A network that delays, loses, and cuts, as the seed says. What one process sends to another about
//! one shard arrives in the order it was sent, as on one connection; between shards there is no order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::mail::MailError;
use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
use mailbox::{Answer, ChunkRef, Outcome, Query, Request, ShardId, StoredChunk};
use replica::{Member, Status};
use tokio::sync::{mpsc, oneshot};

use crate::dice::Dice;
use crate::world::lock;

/// What a frontend asks of a node.
#[derive(Clone, Debug)]
pub enum Ask {
    Propose(Request, Vec<StoredChunk>),
    Query(Query),
    Chunk(ChunkRef),
    Leader,
    /// How a replica is: this one, or the one that leads if it is there.
    Status(Option<u64>),
    Admin(Admin),
}

/// What a controller asks of the leader of a shard.
#[derive(Clone, Debug)]
pub enum Admin {
    /// A new member follows.
    Learn(u64, Member),
    /// Exactly these vote.
    Vote(BTreeSet<u64>),
    /// Somebody else leads.
    HandOver,
}

/// What a node answers to a frontend.
#[derive(Clone, Debug)]
pub enum Told {
    Outcome(Outcome),
    Answer(Answer),
    Chunk(StoredChunk),
    Leader { leader: Option<String>, term: u64 },
    Status(Box<Status>),
    Done,
}

/// What travels to a process.
#[derive(Clone, Debug)]
pub enum Call {
    Peer(PeerRequest),
    Mail(ShardId, Ask),
}

/// What travels back.
#[derive(Debug)]
pub enum Reply {
    Peer(Result<PeerResponse, PeerError>),
    Mail(Result<Told, MailError>),
    /// The process that was asked is not there; it never saw the call.
    NotThere,
    /// The process went away with the call.
    Broken,
}

/// A call as it arrives.
pub struct Parcel {
    pub from: String,
    pub call: Call,
    pub reply_to: u64,
}

enum Letter {
    Call { to: String, parcel: Parcel },
    Reply { reply_to: u64, from: String, to: String, reply: Reply },
}

#[derive(Default)]
struct Wires {
    now_ms: u64,
    sent: u64,
    /// By time of arrival and order of sending.
    under_way: BTreeMap<(u64, u64), Letter>,
    /// With the name of the process that was asked.
    waiting: BTreeMap<u64, (String, oneshot::Sender<Reply>)>,
    doors: BTreeMap<String, mpsc::UnboundedSender<Parcel>>,
    /// From, to: nothing passes.
    cut: BTreeSet<(String, String)>,
    /// The last arrival on each line, so that nothing overtakes.
    last: BTreeMap<(String, String, u32), u64>,
    /// In milliseconds.
    latency: (u64, u64),
    loss_per_mille: u64,
    n_delivered: u64,
}

/// Clones are the same network.
#[derive(Clone)]
pub struct Net {
    wires: Arc<Mutex<Wires>>,
    dice: Dice,
}

impl Net {
    pub fn new(dice: Dice) -> Self {
        let wires = Wires { latency: (0, 2), ..Wires::default() };
        Self { wires: Arc::new(Mutex::new(wires)), dice }
    }

    /// How long and how surely things travel from now on.
    pub fn set_quality(&self, latency: (u64, u64), loss_per_mille: u64) {
        let mut wires = lock(&self.wires);
        (wires.latency, wires.loss_per_mille) = (latency, loss_per_mille);
    }

    pub fn cut(&self, from: &str, to: &str) {
        lock(&self.wires).cut.insert((from.into(), to.into()));
    }

    pub fn heal(&self) {
        lock(&self.wires).cut.clear();
    }

    /// A process can be called from now on.
    pub fn open_door(&self, name: &str) -> mpsc::UnboundedReceiver<Parcel> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.wires).doors.insert(name.into(), sender);
        receiver
    }

    /// A process is gone: what it was asked breaks off, what it asked nobody waits for.
    pub fn close_door(&self, name: &str) {
        let mut wires = lock(&self.wires);
        wires.doors.remove(name);
        let waiting = std::mem::take(&mut wires.waiting);
        for (reply_to, (asked, sender)) in waiting {
            if sender.is_closed() {
                continue;
            }
            if asked == name {
                drop(sender.send(Reply::Broken));
            } else {
                wires.waiting.insert(reply_to, (asked, sender));
            }
        }
    }

    /// Sends a call; the reply comes, or never.
    pub fn send(&self, from: &str, to: &str, call: Call) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        let shard = match &call {
            Call::Peer(request) => request.shard,
            Call::Mail(shard, _) => *shard,
        };
        let mut wires = lock(&self.wires);
        wires.sent += 1;
        let reply_to = wires.sent;
        wires.waiting.insert(reply_to, (to.into(), sender));
        let parcel = Parcel { from: from.into(), call, reply_to };
        self.post(&mut wires, (from, to, shard.0), Letter::Call { to: to.into(), parcel });
        receiver
    }

    /// Sends a reply.
    pub fn answer(&self, from: &str, to: &str, reply_to: u64, reply: Reply) {
        let mut wires = lock(&self.wires);
        // Why its own line: replies may overtake each other.
        let line = (from, to, u32::MAX - (reply_to % 1024) as u32);
        let letter = Letter::Reply { reply_to, from: from.into(), to: to.into(), reply };
        self.post(&mut wires, line, letter);
    }

    fn post(&self, wires: &mut Wires, (from, to, shard): (&str, &str, u32), letter: Letter) {
        wires.sent += 1;
        if wires.cut.contains(&(from.into(), to.into())) || self.dice.chance(wires.loss_per_mille) {
            return;
        }
        let soonest = wires.now_ms + self.dice.range(wires.latency.0, wires.latency.1);
        let last = wires.last.entry((from.into(), to.into(), shard)).or_default();
        *last = soonest.max(*last);
        let due = (*last, wires.sent);
        wires.under_way.insert(due, letter);
    }

    /// Delivers what is due. Nothing passes a line that is cut meanwhile.
    pub fn deliver(&self, now_ms: u64, mut tell: impl FnMut(String)) {
        let mut wires = lock(&self.wires);
        wires.now_ms = now_ms;
        while let Some(entry) = wires.under_way.first_entry() {
            if entry.key().0 > now_ms {
                return;
            }
            let letter = entry.remove();
            wires.n_delivered += 1;
            match letter {
                Letter::Call { to, parcel } => {
                    if wires.cut.contains(&(parcel.from.clone(), to.clone())) {
                        continue;
                    }
                    let (from, reply_to) = (parcel.from.clone(), parcel.reply_to);
                    tell(format!("{from} > {to} #{reply_to} {}", describe(&parcel.call)));
                    let is_there =
                        wires.doors.get(&to).is_some_and(|door| door.send(parcel).is_ok());
                    if !is_there {
                        let letter =
                            Letter::Reply { reply_to, from: to, to: from, reply: Reply::NotThere };
                        let due = (now_ms + 1, wires.sent + 1);
                        wires.sent += 1;
                        wires.under_way.insert(due, letter);
                    }
                }
                Letter::Reply { reply_to, from, to, reply } => {
                    if wires.cut.contains(&(from.clone(), to.clone())) {
                        continue;
                    }
                    if let Some((_, waiting)) = wires.waiting.remove(&reply_to) {
                        tell(format!("{from} < {to} #{reply_to}"));
                        drop(waiting.send(reply));
                    }
                }
            }
        }
    }

    pub fn n_delivered(&self) -> u64 {
        lock(&self.wires).n_delivered
    }
}

fn describe(call: &Call) -> String {
    match call {
        Call::Peer(request) => {
            let n_bytes = request.bodies.iter().map(bytes::Bytes::len).sum::<usize>();
            let (shard, kind, n_meta) = (request.shard, request.kind, request.meta.len());
            format!("shard {shard} kind {kind} {n_meta} + {n_bytes} B")
        }
        Call::Mail(shard, Ask::Propose(request, _)) => {
            format!("shard {shard} propose {}", request.sequence)
        }
        Call::Mail(shard, Ask::Query(_)) => format!("shard {shard} query"),
        Call::Mail(shard, Ask::Chunk(chunk)) => format!("shard {shard} chunk {}", chunk.digest),
        Call::Mail(shard, Ask::Leader) => format!("shard {shard} leader?"),
        Call::Mail(shard, Ask::Status(replica)) => format!("shard {shard} status {replica:?}"),
        Call::Mail(shard, Ask::Admin(admin)) => format!("shard {shard} {admin:?}"),
    }
}

/// One node's way to its peers.
pub struct Wire {
    pub net: Net,
    pub node: String,
}

impl PeerTransport for Wire {
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        // Why less than what is large may take: here no size makes anything slow, and what is lost is lost
        // without a word, where a connection would have broken.
        let deadline = match request.deadline {
            installing if installing > Duration::from_secs(600) => Duration::from_secs(60),
            deadline => deadline.min(Duration::from_secs(2)),
        };
        // Why here and not in the future: requests travel in the order of the calls.
        let reply = self.net.send(&self.node, &request.node.clone(), Call::Peer(request));
        Box::pin(async move {
            match tokio::time::timeout(deadline, reply).await {
                Ok(Ok(Reply::Peer(result))) => result,
                Ok(_) => Err(PeerError::Unreachable("connection broken".into())),
                Err(_) => Err(PeerError::Deadline),
            }
        })
    }
}
