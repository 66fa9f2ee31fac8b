//! Some nodes on loopback, each in a runtime of its own so that it can be killed like a process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Resolver;
use api::client::{Client, ClientConfig};
use api::placement::{
    ClusterId, DiskId, META_SHARD, Node, NodeId, Placement, Replica, ReplicaRole, Shard,
};
use api::serve::{Onward, Services, serve};
use api::tls::{Identity, Role};
use mailbox::ShardId;
use mailbox::command::Place;
use mailbox::{AccountId, Address};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::identity::Authority;
use crate::node::{FakeNode, World};

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);
pub const SHARD: ShardId = ShardId(1);
pub const ACCOUNT: AccountId = AccountId([7; 16]);
pub const PLACE: Place = Place { account: ACCOUNT, shard: SHARD, epoch: 1, alias: false };

pub struct Cluster {
    pub authority: Authority,
    pub world: Arc<World>,
    /// How often a node looked where to pass a connection on to.
    pub n_passed_on: Arc<AtomicU64>,
    nodes: BTreeMap<String, Process>,
    running: Mutex<BTreeMap<String, Running>>,
}

struct Running {
    runtime: Runtime,
    stop: watch::Sender<bool>,
}

struct Process {
    node: Arc<FakeNode>,
    address: SocketAddr,
    identity: Identity,
    /// Holds the address until the first start.
    listener: Mutex<Option<std::net::TcpListener>>,
}

impl Cluster {
    /// Nodes n1, n2, ... of which n1 leads every shard.
    pub fn start(n_nodes: usize) -> Self {
        let names: Vec<String> = (1..=n_nodes).map(|i| format!("n{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Self::start_as(&names, Role::Node)
    }

    pub fn start_as(names: &[&str], role: Role) -> Self {
        let authority = Authority::new();
        let world = Arc::new(World::default());
        let mut nodes = BTreeMap::new();
        for name in names {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let node = Arc::new(FakeNode::new(name, Arc::clone(&world)));
            let identity = authority.identity(name, role);
            let listener = Mutex::new(Some(listener));
            nodes.insert((*name).to_owned(), Process { node, address, identity, listener });
        }
        let (n_passed_on, running) = (Arc::default(), Mutex::default());
        let cluster = Self { authority, world, n_passed_on, nodes, running };
        cluster.place();
        cluster.world.lead("n1");
        names.iter().for_each(|name| cluster.run(name));
        cluster
    }

    fn place(&self) {
        let node = |(name, process): (&String, &Process)| Node {
            name: name.clone(),
            node_id: NodeId([1; 16]),
            address: process.address.to_string(),
            ..Node::default()
        };
        let replica = |(replica_id, name): (usize, &String)| Replica {
            replica_id: replica_id as u64 + 1,
            node: name.clone(),
            disk_id: DiskId([2; 16]),
            role: ReplicaRole::Voter,
            replaces: None,
        };
        let replicas: Vec<Replica> = self.nodes.keys().enumerate().map(replica).collect();
        let shard = |shard| Shard {
            shard,
            replicas: replicas.clone(),
            leader: None,
            n_wanted: 3,
            forced: None,
            outcasts: Vec::new(),
        };
        self.world.publish(Placement {
            version: 1,
            cluster: ClusterId([3; 16]),
            nodes: self.nodes.iter().map(node).collect(),
            shards: vec![shard(META_SHARD), shard(SHARD), shard(ShardId(2))],
            directory_slots: vec![SHARD; 1024],
            settings: BTreeMap::new(),
            lost_ids: Vec::new(),
        });
    }

    /// Publishes the placement without one node, of which the first node is to hear no later version; gives
    /// a later one, with all.
    pub fn place_without(&self, name: &str) -> Placement {
        let all = self.world.placement();
        let mut early = Placement { version: all.version + 1, ..(*all).clone() };
        early.nodes.retain(|node| node.name != name);
        for shard in &mut early.shards {
            shard.replicas.retain(|replica| replica.node != name);
        }
        self.node("n1").hears_up_to.store(early.version, Ordering::Relaxed);
        let later = Placement { version: early.version + 1, ..(*all).clone() };
        self.world.publish(early);
        later
    }

    /// Publishes where a node is said to be from now on; the nodes themselves find it where it is.
    pub fn place_at(&self, name: &str, address: &str) {
        let mut placement = Placement::clone(&self.world.placement());
        placement.version += 1;
        let node = placement.nodes.iter_mut().find(|node| node.name == name);
        address.clone_into(&mut node.unwrap().address);
        self.world.publish(placement);
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.nodes[name].address
    }

    fn onward(&self) -> Onward {
        let address = |(name, process): (&String, &Process)| (name.clone(), process.address);
        let addresses: BTreeMap<String, SocketAddr> = self.nodes.iter().map(address).collect();
        let n_passed_on = Arc::clone(&self.n_passed_on);
        let resolver: Resolver = Arc::new(move |name| {
            n_passed_on.fetch_add(1, Ordering::Relaxed);
            addresses.get(name).map(SocketAddr::to_string)
        });
        Onward { resolver, bind: None }
    }

    /// Starts a node, also again after it was killed.
    pub fn run(&self, name: &str) {
        let process = &self.nodes[name];
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let first = process.listener.lock().unwrap().take();
        let again = || std::net::TcpListener::bind(process.address).unwrap();
        let listener = first.unwrap_or_else(again);
        listener.set_nonblocking(true).unwrap();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let node = Arc::clone(&process.node);
        let services = Services {
            mail: node.clone(),
            peer: node.clone(),
            meta: node.clone(),
            admin: node,
            onward: self.onward(),
            drill: None,
        };
        let (stop, mut stopped) = watch::channel(false);
        let shutdown = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        runtime.spawn(serve(listener, process.identity.clone(), services, shutdown));
        self.running.lock().unwrap().insert(name.to_owned(), Running { runtime, stop });
    }

    /// Ends a node as kill -9 would.
    pub fn kill(&self, name: &str) {
        let Running { runtime, stop: _stop } = self.running.lock().unwrap().remove(name).unwrap();
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }

    /// Tells a node to end in good order.
    pub fn stop(&self, name: &str) {
        self.running.lock().unwrap()[name].stop.send_replace(true);
    }

    pub fn node(&self, name: &str) -> &FakeNode {
        &self.nodes[name].node
    }

    pub fn seeds(&self) -> Vec<String> {
        self.nodes.values().map(|process| process.address.to_string()).collect()
    }

    pub fn client(&self) -> Client {
        self.client_with_deadline(PATIENCE)
    }

    pub fn client_with_deadline(&self, deadline: Duration) -> Client {
        self.client_as("f1", Role::Frontend, deadline)
    }

    pub fn client_as(&self, name: &str, role: Role, deadline: Duration) -> Client {
        let identity = self.authority.identity(name, role);
        let config = ClientConfig { seeds: self.seeds(), identity, name: name.into(), bind: None };
        Client::with_deadline(config, deadline).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, running) in std::mem::take(&mut *self.running.lock().unwrap()) {
            running.runtime.shutdown_background();
        }
    }
}

pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap().0
}
