//! The client side: finds the directory, the shard and its leader, makes commands happen exactly once
//! through retries and failovers, and tells of changes. Cheap to clone; every clone shares the
//! connections, sessions and streams.

mod ask;
mod attempt;
mod chunk;
mod command;
mod directory;
mod exchange;
mod log_time;
mod moved;
mod nodes;
mod placement;
mod recent;
mod route;
mod session;
mod watch;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use mailbox::chunk::Codec;
use mailbox::command::Place;
use mailbox::dialogue::Trouble;
use mailbox::{Address, Answer, ChunkRef, Command, Outcome, Query, Refusal, ShardId, StoredChunk};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::ask::Asker;
use self::attempt::Pause;
use self::chunk::Slow;
pub use self::chunk::raw_octets;
use self::directory::Directory;
use self::log_time::ShardTime;
use self::moved::Moved;
pub(crate) use self::nodes::Nodes;
pub(crate) use self::placement::Placements;
use self::recent::Recent;
use self::route::Route;
use self::session::Sessions;
use self::watch::ShardWatch;
pub use self::watch::{EVERY_MAILBOX, Watch};
use crate::placement::Placement;
use crate::tls::Identity;

/// How long a question or command may take until its caller is told that it failed: ten failovers long, and
/// short enough that a mail client is told of a lost majority before it gives up the connection.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Limit: times an account is followed to another shard within one call.
const MOVES_MAX: u32 = 4;

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of some nodes; the others are learned from them.
    pub seeds: Vec<String>,
    /// Who this process is.
    pub identity: Identity,
    /// Its name, for the logs of others; must be the one in the certificate.
    pub name: String,
    /// The address to come from.
    pub bind: Option<IpAddr>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to begin with.
    #[error("no seed nodes given")]
    NoSeeds,
    /// The certificate is another process's.
    #[error("the certificate is for {certificate}, not for {name}")]
    WrongName {
        /// What the certificate says.
        certificate: String,
        /// What the configuration says.
        name: String,
    },
}

/// See the module.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Cluster,
    directory: Directory,
    shards: Mutex<HashMap<ShardId, Arc<ShardLink>>>,
    recent: Recent,
    slow: Slow,
    moved: Moved,
    deadline: Duration,
}

/// Nodes, and where everything is.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) placements: Arc<Placements>,
}

/// What the client keeps for one shard.
struct ShardLink {
    route: Arc<Route>,
    sessions: Sessions,
    time: ShardTime,
    watch: Arc<ShardWatch>,
}

/// What a directory slot says of an address.
enum Resolved {
    Place(Option<Place>),
    Group(Vec<Address>),
}

impl Cluster {
    /// Connects to nothing yet. Must be called within a tokio runtime.
    pub(crate) fn new(config: ClientConfig) -> Result<Self, Error> {
        let certificate = &config.identity.peer().name;
        if *certificate != config.name {
            let certificate = certificate.clone();
            return Err(Error::WrongName { certificate, name: config.name });
        }
        if config.seeds.is_empty() {
            return Err(Error::NoSeeds);
        }
        let (publish, placement) = tokio::sync::watch::channel(Arc::new(Placement::default()));
        let nodes = Arc::new(Nodes::new(config, placement.clone()));
        let placements = Arc::new(Placements::start(Arc::clone(&nodes), publish));
        Ok(Self { nodes, placements })
    }
}

impl Client {
    /// A client that connects when it is first used. Must be called within a tokio runtime.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        Self::with_deadline(config, DEADLINE)
    }

    /// The same with another deadline than [`DEADLINE`].
    pub fn with_deadline(config: ClientConfig, deadline: Duration) -> Result<Self, Error> {
        let shared = Shared {
            cluster: Cluster::new(config)?,
            directory: Directory::default(),
            shards: Mutex::new(HashMap::new()),
            recent: Recent::default(),
            slow: Slow::default(),
            moved: Moved::default(),
            deadline,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Which account has this address.
    pub async fn recipient(&self, address: &Address) -> Result<Option<Place>, Trouble> {
        match self.resolve(address).await? {
            Resolved::Place(place) => Ok(place),
            Resolved::Group(_) => Ok(None),
        }
    }

    /// What is remembered of this address may be wrong: it is looked up anew when it is asked for next.
    pub fn forget(&self, address: &Address) {
        self.shared.directory.forget_address(address);
    }

    async fn resolve(&self, address: &Address) -> Result<Resolved, Trouble> {
        if let Some(place) = self.shared.directory.known(address) {
            return Ok(Resolved::Place(Some(place)));
        }
        let deadline = Instant::now() + self.shared.deadline;
        let placement = self.shared.cluster.placements.formed();
        let placement = timeout_at(deadline, placement).await.map_err(|_| Trouble::Unavailable)?;
        let shard =
            placement.directory_shard(address.directory_slot()).ok_or(Trouble::Unavailable)?;
        match self.ask_until(shard, &Query::Resolve(address.clone()), deadline).await? {
            Answer::Place(Some(place)) => {
                self.shared.directory.learn(address, place);
                Ok(Resolved::Place(Some(place)))
            }
            Answer::Place(None) => Ok(Resolved::Place(None)),
            Answer::Group(members) => Ok(Resolved::Group(members)),
            _ => Err(Trouble::Unavailable),
        }
    }

    /// Who gets mail for this address: its account; those of a group's members that exist; else who
    /// has the domain's `*@domain`. Nobody comes twice.
    pub async fn recipients(&self, address: &Address) -> Result<Vec<Place>, Trouble> {
        let mut places = self.share(address).await?;
        if places.is_empty() {
            places = self.share(&address.catch_all()).await?;
        }
        places.sort_unstable_by_key(|place| place.account);
        places.dedup_by_key(|place| place.account);
        Ok(places)
    }

    async fn share(&self, address: &Address) -> Result<Vec<Place>, Trouble> {
        match self.resolve(address).await? {
            Resolved::Place(place) => Ok(place.into_iter().collect()),
            // Why: groups are flat, so one that is a member of another is nobody.
            Resolved::Group(members) => {
                let looking = members.iter().map(|member| self.recipient(member));
                let found = try_join_all(looking).await?;
                Ok(found.into_iter().flatten().collect())
            }
        }
    }

    /// Does a command exactly once, at the account's shard wherever it moved to. `Unavailable` says
    /// that nothing was done, `Unknown` that it could not be found out.
    pub async fn command(
        &self,
        place: Place,
        command: Command,
        chunks: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        self.command_and(place, command, chunks, None).await.map(|(outcome, _)| outcome)
    }

    /// The same, with the answer to a query about the account as the command left it. No answer: it has
    /// to be asked by itself.
    pub async fn command_and(
        &self,
        mut place: Place,
        command: Command,
        chunks: Vec<StoredChunk>,
        then: Option<Query>,
    ) -> Result<(Outcome, Option<Answer>), Trouble> {
        let deadline = Instant::now() + self.shared.deadline;
        place = self.shared.moved.latest(place);
        let (mut moves, mut pause) = (0, Pause::new());
        loop {
            let asked = (command.clone(), chunks.clone(), then.as_ref());
            let (outcome, answer) = self.command_until(place.shard, asked, deadline).await?;
            match &outcome {
                Outcome::Refused(Refusal::Moved(to)) if moves < MOVES_MAX => {
                    place = self.follow(place, *to);
                    moves += 1;
                }
                Outcome::Refused(Refusal::Moving) => {
                    self.wait_for_arrival(place, &mut pause, deadline).await?;
                }
                Outcome::Refused(Refusal::NoSuchAccount) => {
                    self.shared.directory.forget(place.account);
                    return Ok((outcome, None));
                }
                _ => return Ok((outcome, answer)),
            }
        }
    }

    /// Does a command that concerns a shard, not an account in it, exactly once.
    pub async fn command_shard(
        &self,
        shard: ShardId,
        command: Command,
    ) -> Result<Outcome, Trouble> {
        self.command_shard_with(shard, command, Vec::new()).await
    }

    /// The same with chunks beside it.
    pub async fn command_shard_with(
        &self,
        shard: ShardId,
        command: Command,
        chunks: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        let deadline = Instant::now() + self.shared.deadline;
        let done = self.command_until(shard, (command, chunks, None), deadline).await;
        done.map(|(outcome, _)| outcome)
    }

    /// Reads what every earlier acknowledged command left; what never changes, from whoever takes
    /// itself for the leader if that one has all of it.
    pub async fn query(&self, mut place: Place, query: Query) -> Result<Answer, Trouble> {
        let deadline = Instant::now() + self.shared.deadline;
        place = self.shared.moved.latest(place);
        if let Query::Bodies(messages) = &query
            && let Some(answer) = self.ask_lasting(place.shard, messages).await
        {
            return Ok(answer);
        }
        let (mut moves, mut pause) = (0, Pause::new());
        loop {
            let answer = self.ask_until(place.shard, &query, deadline).await?;
            match &answer {
                Answer::Refused(Refusal::Moved(to)) if moves < MOVES_MAX => {
                    place = self.follow(place, *to);
                    moves += 1;
                }
                Answer::Refused(Refusal::Moving) => {
                    self.wait_for_arrival(place, &mut pause, deadline).await?;
                }
                Answer::Refused(Refusal::NoSuchAccount) => {
                    self.shared.directory.forget(place.account);
                    return Ok(answer);
                }
                Answer::Opened(info, ..) | Answer::Mailbox(info) => {
                    self.shared.recent.opened(info.of, info.uid_validity);
                    return Ok(answer);
                }
                _ => return Ok(answer),
            }
        }
    }

    /// The same of a shard.
    pub async fn query_shard(&self, shard: ShardId, query: Query) -> Result<Answer, Trouble> {
        let deadline = Instant::now() + self.shared.deadline;
        self.ask_until(shard, &query, deadline).await
    }

    /// A chunk, verified and uncompressed, from the leader or any other replica that has a good copy.
    pub async fn chunk(&self, place: Place, chunk: ChunkRef) -> Result<StoredChunk, Trouble> {
        let deadline = Instant::now() + self.shared.deadline;
        let place = self.shared.moved.latest(place);
        let (stored, bytes) = self.fetch_chunk(place.shard, chunk, deadline).await?;
        Ok(StoredChunk { codec: Codec::Raw, bytes, ..stored })
    }

    /// The same as it is stored: verified, and still compressed if it was.
    pub async fn stored_chunk(
        &self,
        shard: ShardId,
        chunk: ChunkRef,
    ) -> Result<StoredChunk, Trouble> {
        let deadline = Instant::now() + self.shared.deadline;
        Ok(self.fetch_chunk(shard, chunk, deadline).await?.0)
    }

    /// Changes of an account from now on: read what there is after this call, not before it.
    pub fn watch(&self, place: Place) -> Watch {
        let place = self.shared.moved.latest(place);
        ShardWatch::register(&self.link(place.shard).watch, place.account)
    }

    /// POP3: takes the maildrop for the holder of `token`, or prolongs that; whether it has it. Prolong
    /// it well within [`crate::mail::MAILDROP_LEASE_MS`].
    pub async fn lock_maildrop(&self, place: Place, token: [u8; 16]) -> Result<bool, Trouble> {
        self.maildrop(self.shared.moved.latest(place), token, false).await
    }

    /// Gives it back.
    pub async fn unlock_maildrop(&self, place: Place, token: [u8; 16]) -> Result<(), Trouble> {
        let latest = self.shared.moved.latest(place);
        if latest.shard != place.shard {
            // Why the result is dropped: where it was locked before, the lease ends by itself as well.
            let _ = self.maildrop(place, token, true).await;
        }
        self.maildrop(latest, token, true).await.map(|_| ())
    }

    /// Whether a cluster has been formed and one of its nodes was heard of in the last seconds.
    pub async fn ready(&self) -> bool {
        self.shared.cluster.placements.reached() && !self.placement().directory_slots.is_empty()
    }

    /// Where everything is, as last heard; version 0 before anything was.
    pub fn placement(&self) -> Arc<Placement> {
        self.shared.cluster.placements.current()
    }

    fn link(&self, shard: ShardId) -> Arc<ShardLink> {
        let mut shards = self.shared.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let link = shards.entry(shard).or_insert_with(|| {
            let route = Arc::new(Route::new(shard, self.shared.cluster.clone()));
            let watch = Arc::new(ShardWatch::new(Arc::clone(&route)));
            let (sessions, time) = (Sessions::default(), ShardTime::default());
            Arc::new(ShardLink { route, sessions, time, watch })
        });
        Arc::clone(link)
    }
}
