//! What a node passes on and what not, octet by octet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use api::admin::{AdminClient, ClusterInit};
use api::client::ClientConfig;
use api::peer::PeerTransport;
use api::tls::{Peer, Role};
use futures_util::future::join_all;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::{Cluster, PATIENCE};
use crate::detours::NOWHERE;
use crate::node::Fault;
use crate::peers::{request, transport};

/// What a node passes on at once from one address.
const OF_ORIGIN_MAX: u8 = 16;
/// What it passes on at once to one node, of what may not have proved anything there yet.
const UNPROVEN_OF_NODE_MAX: u8 = 32;

/// A frontend that has n2 pass connections on.
struct Caller {
    connector: TlsConnector,
    n2: SocketAddr,
}

type Connection = TlsStream<TcpStream>;

fn frontend() -> Peer {
    Peer { name: "f1".to_owned(), role: Role::Frontend }
}

impl Caller {
    fn new(cluster: &Cluster) -> Self {
        let connector = cluster.authority.connector(&frontend(), "rookery-passed-on");
        Self { connector, n2: cluster.address("n2") }
    }

    /// From 127.0.0.`k`; nothing is asked for yet.
    async fn connect(&self, k: u8) -> Connection {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from([127, 0, 0, k]), 0).into()).unwrap();
        let stream = socket.connect(self.n2).await.unwrap();
        let name = ServerName::try_from("n2.node.rookery.internal").unwrap();
        self.connector.connect(name, stream).await.unwrap()
    }

    /// A connection that leads to a node, if n2 says so.
    async fn ask(&self, k: u8, node: &str) -> Option<Connection> {
        let mut stream = self.connect(k).await;
        let name = [&[u8::try_from(node.len()).unwrap()][..], node.as_bytes()].concat();
        // Whoever is refused may find the connection reset.
        let _ = stream.write_all(&name).await;
        let _ = stream.flush().await;
        let told = timeout(PATIENCE, stream.read_u8()).await.unwrap();
        told.is_ok_and(|told| told == b'+').then_some(stream)
    }

    /// The same as soon as there is a place.
    async fn ask_until(&self, k: u8, node: &str) -> Connection {
        let asking = async {
            loop {
                if let Some(stream) = self.ask(k, node).await {
                    return stream;
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("a place is given back")
    }
}

#[tokio::test]
async fn connections_lead_to_other_nodes_of_the_cluster_only() {
    let cluster = Cluster::start(3);
    let caller = Caller::new(&cluster);
    for (node, what) in [("n2", "itself"), ("n9", "unknown"), ("N1", "no name"), ("", "none")] {
        assert!(caller.ask(2, node).await.is_none(), "{what}");
    }
    assert!(caller.ask(2, "n1").await.is_some());
}

#[tokio::test]
async fn who_proves_nothing_where_it_is_passed_on_to_keeps_no_node_from_there() {
    let cluster = Cluster::start(3);
    let caller = Caller::new(&cluster);
    // From three addresses: of one a node takes fewer.
    let asking = (0..=UNPROVEN_OF_NODE_MAX).map(|k| caller.ask(2 + k % 3, "n1"));
    let mut silent: Vec<_> = join_all(asking).await.into_iter().flatten().collect();
    assert_eq!(silent.len(), usize::from(UNPROVEN_OF_NODE_MAX));
    assert!(caller.ask(5, "n3").await.is_some(), "there is room at another node");
    // By the address that n2 has too.
    let node = cluster.authority.identity("n2", Role::Node);
    transport(&cluster, node).call(request("n1", 1, 1)).await.unwrap();
    let told = timeout(PATIENCE, silent[0].read_u8()).await.expect("it is sent away");
    assert!(told.is_err());
    caller.ask_until(5, "n1").await;
}

#[tokio::test]
async fn who_has_many_passed_on_keeps_no_other_out() {
    let cluster = Cluster::start(3);
    let caller = Caller::new(&cluster);
    let asking = (0..OF_ORIGIN_MAX).map(|_| caller.ask(2, "n1"));
    let mut first: Vec<_> = join_all(asking).await.into_iter().flatten().collect();
    assert_eq!(first.len(), usize::from(OF_ORIGIN_MAX));
    assert!(caller.ask(2, "n3").await.is_none());
    assert!(caller.ask(3, "n1").await.is_some(), "from another address");
    first.pop();
    caller.ask_until(2, "n3").await;
}

#[tokio::test]
async fn who_asks_for_no_node_gives_its_place_back() {
    let cluster = Cluster::start(3);
    let caller = Caller::new(&cluster);
    let mut silent = join_all((0..OF_ORIGIN_MAX).map(|_| caller.connect(2))).await;
    let refused = async { while caller.ask(2, "n1").await.is_some() {} };
    timeout(PATIENCE, refused).await.expect("all places are taken");
    let told = timeout(PATIENCE, silent[0].read_u8()).await.expect("it is sent away");
    assert!(told.is_err());
    caller.ask_until(2, "n1").await;
}

#[tokio::test]
async fn what_is_passed_on_lasts_as_long_as_calls_when_a_node_ends() {
    let cluster = Cluster::start(3);
    let caller = Caller::new(&cluster);
    let outer = caller.ask(2, "n1").await.unwrap();
    // A call that is never answered, of a client that can connect to no other node.
    cluster.place_at("n1", NOWHERE);
    cluster.place_at("n3", NOWHERE);
    cluster.world.fault(Fault::Silent);
    let identity = cluster.authority.identity("op", Role::Admin);
    let seeds = vec![caller.n2.to_string()];
    let config = ClientConfig { seeds, identity, name: "op".to_owned(), bind: None };
    let operator = AdminClient::new(config, PATIENCE).unwrap();
    let (disks, settings) = (Vec::new(), BTreeMap::new());
    let init = ClusterInit { disks, n_shards: 1, n_replicas: 3, settings };
    let _calling = tokio::spawn(async move { operator.cluster_init(&init).await });
    let ends = async {
        while cluster.world.n_done() == 0 {
            tokio::task::yield_now().await;
        }
        cluster.stop("n2");
        while TcpStream::connect(caller.n2).await.is_ok() {}
    };
    timeout(PATIENCE, ends).await.expect("nobody is let in any more");
    let inner = cluster.authority.connector(&frontend(), "h2");
    let name = ServerName::try_from("n1.node.rookery.internal").unwrap();
    let mut inner = inner.connect(name, outer).await.expect("what is said is carried");
    // In the end it ends too.
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, inner.read_to_end(&mut said)).await.expect("it is closed");
}
