//! A cluster to live in for one test: certificates, directories, ports, nodes.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use api::admin::{AdminClient, ClusterInit, Status};
use api::client::{Client, ClientConfig, raw_octets};
use api::fault::FaultClient;
use api::tls::{Identity, Peer, Role};
use bytes::Bytes;
use mailbox::command::{ClaimAddress, CreateAccount, Deliver, NamedMailbox, Place, Quota};
use mailbox::query::Messages;
use mailbox::{
    AccountId, Address, Answer, Command, Digest, MailboxName, NewMessage, Outcome, Query, ShardId,
    StoredChunk, UidSet,
};
use node::{Config, Error, Node};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take that has to come true.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where ports are chosen: below those the system gives out by itself, beside those of the demos in
/// other tests.
const PORTS: Range<u16> = 4_000..12_000;
/// More than one test takes.
const PORTS_PER_TEST: u16 = 40;

/// A node that is being started.
pub type Begun = (String, JoinHandle<Result<Node, Error>>, CancellationToken);

/// One cluster; its files go when it goes.
pub struct House {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    configs: BTreeMap<String, Config>,
    running: BTreeMap<String, (Node, CancellationToken)>,
}

impl House {
    /// Certificates, ports and empty directories for nodes n1, n2, ...
    pub fn new(n_nodes: usize, n_disks: usize) -> Self {
        // Shown only when the test fails; RUST_LOG chooses.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer();
        let _ = logs.try_init();
        let dir = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let configs = BTreeMap::new();
        let mut house = Self { dir, issuer, ca, configs, running: BTreeMap::new() };
        let ports: Vec<(SocketAddr, SocketAddr)> =
            (0..n_nodes).map(|_| (free_port(), free_port())).collect();
        let join: Vec<String> = ports.iter().map(|(listen, _)| listen.to_string()).collect();
        for (n, (listen, http)) in ports.into_iter().enumerate() {
            let name = format!("n{}", n + 1);
            let disks: Vec<PathBuf> =
                (0..n_disks).map(|d| house.path(&format!("{name}-{d}"))).collect();
            disks.iter().for_each(|disk| std::fs::create_dir(disk).unwrap());
            let text = format!(
                "name = {name:?}\ndata_dirs = {disks:?}\nidentity_dir = {:?}\n\
                 listen = \"{listen}\"\nhttp = \"{http}\"\njoin = {join:?}",
                house.identity_dir(Role::Node, &name),
            );
            house.configs.insert(name, Config::parse(&text).unwrap());
        }
        house
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self, name: &str) -> Config {
        self.configs[name].clone()
    }

    pub fn configure(&mut self, name: &str, config: Config) {
        self.configs.insert(name.to_owned(), config);
    }

    pub async fn start_all(&mut self) {
        let names: Vec<String> = self.configs.keys().cloned().collect();
        for name in names {
            self.start(&name).await;
        }
    }

    pub async fn start(&mut self, name: &str) {
        self.try_start(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    pub async fn try_start(&mut self, name: &str) -> Result<(), Error> {
        let shutdown = CancellationToken::new();
        let node = Node::start(self.config(name), shutdown.clone()).await?;
        self.running.insert(name.to_owned(), (node, shutdown));
        Ok(())
    }

    /// Starts all nodes at once, and waits for none of them.
    pub fn begin_all(&self) -> Vec<Begun> {
        let begin = |(name, config): (&String, &Config)| {
            let shutdown = CancellationToken::new();
            let starting = tokio::spawn(Node::start(config.clone(), shutdown.clone()));
            (name.clone(), starting, shutdown)
        };
        self.configs.iter().map(begin).collect()
    }

    /// Waits for them.
    pub async fn begun(&mut self, begun: Vec<Begun>) {
        for (name, starting, shutdown) in begun {
            let node = starting.await.unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
            self.running.insert(name, (node, shutdown));
        }
    }

    /// Stops a node in order.
    pub async fn stop(&mut self, name: &str) {
        let (node, shutdown) = self.running.remove(name).unwrap();
        shutdown.cancel();
        node.stopped().await.unwrap();
    }

    pub async fn stop_all(&mut self) {
        let all = std::mem::take(&mut self.running);
        all.values().for_each(|(_, shutdown)| shutdown.cancel());
        for (name, (node, _)) in all {
            node.stopped().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    /// Waits for a node that cannot go on to say why.
    pub async fn refusal(&mut self, name: &str) -> Error {
        let (node, _) = self.running.remove(name).unwrap();
        let stopped = tokio::time::timeout(PATIENCE, node.stopped()).await;
        stopped.expect("the node stops by itself").unwrap_err()
    }

    /// Stops a node without handing anything over.
    pub async fn kill(&mut self, name: &str) {
        let (node, _) = self.running.remove(name).unwrap();
        node.kill().await;
    }

    pub fn init(&self, n_shards: u32) -> ClusterInit {
        let disks = self.configs.keys().map(|name| (name.clone(), None)).collect();
        ClusterInit { disks, n_shards, n_replicas: 3, ..ClusterInit::default() }
    }

    pub async fn form(&self, n_shards: u32) {
        self.admin().cluster_init(&self.init(n_shards)).await.unwrap();
        wait_for("every shard has a leader", PATIENCE, async || self.all_led().await).await;
    }

    pub fn admin(&self) -> AdminClient {
        AdminClient::new(self.client_config(Role::Admin, "ctl"), PATIENCE).unwrap()
    }

    pub fn faults(&self) -> FaultClient {
        FaultClient::new(self.client_config(Role::Admin, "ctl")).unwrap()
    }

    pub fn client(&self) -> Client {
        // Why not as a frontend: it creates accounts, too.
        Client::new(self.client_config(Role::Admin, "ctl")).unwrap()
    }

    pub async fn status(&self) -> Option<Status> {
        self.admin().status(false).await.ok()
    }

    async fn all_led(&self) -> bool {
        let status = self.status().await.and_then(|status| status.placement);
        status.is_some_and(|placement| placement.shards.iter().all(|s| s.leader.is_some()))
    }

    /// Whether all replicas run, applied the same and have the same digest.
    pub async fn converged(&self) -> bool {
        let Some(status) = self.status().await else { return false };
        let Some(placement) = status.placement else { return false };
        placement.shards.iter().all(|shard| {
            let reports = status.nodes.iter().filter(|node| node.reachable);
            let reports = reports.flat_map(|node| &node.replicas);
            let of_shard: Vec<_> = reports.filter(|r| r.shard == shard.shard).collect();
            of_shard.len() == shard.replicas.len()
                && of_shard.iter().all(|r| {
                    r.leader.is_some()
                        && (r.applied, r.digest) == (of_shard[0].applied, of_shard[0].digest)
                })
        })
    }

    /// Waits until the cluster has taken note of a node.
    pub async fn registered(&self, name: &str) {
        let known = async || {
            let placement = self.status().await.and_then(|status| status.placement);
            placement.is_some_and(|placement| placement.node(name).is_some())
        };
        wait_for("the node is registered", PATIENCE, known).await;
    }

    pub async fn leader_of(&self, shard: ShardId) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let placement = self.status().await.and_then(|status| status.placement);
            let shard = placement.as_ref().and_then(|placement| placement.shard(shard));
            if let Some(leader) = shard.and_then(|shard| shard.leader.clone()) {
                return leader;
            }
        }
        panic!("shard {shard} has no leader");
    }

    fn client_config(&self, role: Role, name: &str) -> ClientConfig {
        let seeds = self.configs.values().map(|config| config.listen.to_string()).collect();
        let identity = Identity::load(&self.identity_dir(role, name)).unwrap();
        ClientConfig { seeds, identity, name: name.to_owned(), bind: None }
    }

    /// Issues an identity, once.
    fn identity_dir(&self, role: Role, name: &str) -> PathBuf {
        let dir = self.path(&format!("identity-{name}"));
        if dir.exists() {
            return dir;
        }
        std::fs::create_dir(&dir).unwrap();
        let dns_name = Peer { name: name.to_owned(), role }.dns_name();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(dns_name.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |file: &str, text: &str| std::fs::write(Path::new(&dir).join(file), text);
        write("ca.pem", &self.ca).unwrap();
        write("cert.pem", &certificate.pem()).unwrap();
        write("key.pem", &key.serialize_pem()).unwrap();
        dir
    }
}

/// A port nobody listens on now, and no other test chooses meanwhile.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let n_ports = PORTS.end - PORTS.start;
    // Why: tests run at the same time, many of them in processes of their own.
    let own = (std::process::id() % u32::from(n_ports / PORTS_PER_TEST)) as u16 * PORTS_PER_TEST;
    for _ in 0..n_ports {
        let k = own.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % n_ports;
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS.start + k));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free");
}

/// Waits until something is true.
pub async fn wait_for(what: &str, patience: Duration, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !check().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An account with its address in the directory, as `ctl account add` does it.
pub async fn create_account(client: &Client, name: &str) -> Place {
    let (name, _) = Address::parse(name).unwrap();
    wait_for("the client knows the cluster", PATIENCE, async || client.ready().await).await;
    let placement = client.placement();
    let shard = placement.directory_shard(name.directory_slot()).expect("a cluster was formed");
    let account = AccountId(*Digest::of(name.as_str().as_bytes()).0.first_chunk().unwrap());
    let place = Place { account, shard, epoch: 1, alias: false };
    let create = CreateAccount {
        account,
        name: name.clone(),
        password_hash: "!".into(),
        quota: Quota::default(),
        mailboxes: Vec::new(),
        subscribe: None,
    };
    let created = client.command(place, Command::CreateAccount(create), Vec::new()).await;
    assert_eq!(created, Ok(Outcome::Done));
    let claim = Command::ClaimAddress(ClaimAddress { address: name, place });
    assert_eq!(client.command_shard(shard, claim).await, Ok(Outcome::Done));
    place
}

/// Delivers one small message.
pub async fn deliver(client: &Client, place: Place, raw: &'static [u8]) {
    let chunk = StoredChunk::raw(Bytes::from_static(raw));
    let chunks = vec![chunk.chunk];
    let message = NewMessage {
        digest: Digest::of_chunks(&chunks),
        chunks,
        size: raw.len() as u64,
        metadata: (&mime::scan(raw)).into(),
        upload: None,
        metadata_chunks: Vec::new(),
    };
    let deliver = Deliver { account: place.account, detail: None, message, internal_date: None };
    let outcome = client.command(place, Command::Deliver(deliver), vec![chunk]).await;
    assert!(matches!(outcome, Ok(Outcome::Appended(_))), "{outcome:?}");
}

/// All messages of INBOX, whole.
pub async fn bodies(client: &Client, place: Place) -> Vec<String> {
    let inbox = NamedMailbox { account: place.account, name: MailboxName::inbox() };
    let answer = client.query(place, Query::Mailbox(inbox)).await;
    let Ok(Answer::Mailbox(inbox)) = answer else { panic!("{answer:?}") };
    let messages = Messages {
        of: inbox.of,
        uids: UidSet::all(),
        changed_since: None,
        metadata: false,
        chunks: true,
        expunged: false,
        only_envelope: false,
        recent_to: None,
    };
    let answer = client.query(place, Query::Messages(messages)).await;
    let Ok(Answer::Messages(messages, None)) = answer else { panic!("{answer:?}") };
    let mut bodies = Vec::new();
    for message in messages {
        let mut raw = Vec::new();
        for chunk in message.body.expect("chunks were asked for").chunks {
            let stored = client.chunk(place, chunk).await.unwrap();
            raw.extend_from_slice(&raw_octets(&stored).unwrap());
        }
        bodies.push(String::from_utf8(raw).unwrap());
    }
    bodies
}
