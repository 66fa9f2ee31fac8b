//! Connections to nodes: two for each, so that bodies being read hold up nothing else.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;
use tracing::info;

use super::ClientConfig;
use super::exchange::Exchange;
use crate::dial::detour::{Detours, Next};
use crate::dial::{Dialer, MESSAGE_BYTES_MAX, Resolver, Target};
use crate::placement::Placement;
use crate::proto::mail::mail_client::MailClient;

/// All nodes this client knows.
pub(crate) struct Nodes {
    dialer: Dialer,
    seeds: Vec<String>,
    resolver: Resolver,
    placement: watch::Receiver<Arc<Placement>>,
    channels: Mutex<HashMap<Key, Channel>>,
    exchanges: Mutex<HashMap<String, Arc<Exchange>>>,
    n_turns: AtomicUsize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Seed(String),
    Prompt(String),
    Bulk(String),
}

impl Nodes {
    pub(super) fn new(config: ClientConfig, placement: watch::Receiver<Arc<Placement>>) -> Self {
        let (identity, bind, detours) = (config.identity, config.bind, Detours::default());
        let dialer = Dialer { identity, bind, detours };
        let known = placement.clone();
        let resolver: Resolver =
            Arc::new(move |name| known.borrow().node(name).map(|node| node.address.clone()));
        let channels = Mutex::new(HashMap::new());
        let exchanges = Mutex::new(HashMap::new());
        let (seeds, n_turns) = (config.seeds, AtomicUsize::new(0));
        Self { dialer, seeds, resolver, placement, channels, exchanges, n_turns }
    }

    /// The connection to a node, by name.
    pub(crate) fn channel(&self, node: &str) -> Channel {
        self.get(Key::Prompt(node.to_owned()))
    }

    /// Each node that can be asked, the named ones first.
    pub(crate) fn all(&self) -> Vec<Channel> {
        let names: Vec<String> =
            self.placement.borrow().nodes.iter().map(|node| node.name.clone()).collect();
        let named = names.into_iter().map(Key::Prompt);
        named.chain(self.seeds.iter().cloned().map(Key::Seed)).map(|key| self.get(key)).collect()
    }

    /// Which of them is asked first. Why another one each time: the first ones may all be where no node is
    /// any more, and to find that out may take all the time there is.
    pub(crate) fn turn(&self) -> usize {
        self.n_turns.fetch_add(1, Ordering::Relaxed)
    }

    /// What was configured.
    pub(super) fn seeds(&self) -> &[String] {
        &self.seeds
    }

    /// Each node that is known or was configured, once, with what it is called and where it is.
    pub(crate) fn each(&self) -> Vec<(String, Channel)> {
        let placement = Arc::clone(&self.placement.borrow());
        let is_known = |seed: &&String| placement.nodes.iter().any(|node| node.address == **seed);
        let unknown = self.seeds.iter().filter(|seed| !is_known(seed));
        let named = placement.nodes.iter().map(|node| {
            let called = format!("{} ({})", node.name, node.address);
            (called, self.get(Key::Prompt(node.name.clone())))
        });
        named.chain(unknown.map(|seed| (seed.clone(), self.get(Key::Seed(seed.clone()))))).collect()
    }

    /// A node that cannot be connected to is reached through one of these from now on.
    pub(super) fn go_through(&self, through: &BTreeSet<String>, node: &str) {
        self.dialer.detours.begin(node, through);
    }

    /// Goes back to the straight way once that is there again; what is under way ends where it is.
    fn straighten(&self, node: &str) {
        // Why first: each command and question comes by here.
        if self.dialer.detours.is_empty() {
            return;
        }
        match self.dialer.detours.next(node, Instant::now()) {
            Next::Call => {}
            Next::Look => {
                let (dialer, node) = (self.dialer.clone(), node.to_owned());
                let target = Target::Node(node.clone(), Arc::clone(&self.resolver));
                tokio::spawn(async move {
                    if dialer.connect_straight(&target).await.is_ok() {
                        dialer.detours.is_over(&node);
                    }
                });
            }
            Next::Leave => {
                info!(node, "node is reached without another one again");
                let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
                channels.remove(&Key::Prompt(node.to_owned()));
                channels.remove(&Key::Bulk(node.to_owned()));
                drop(channels);
                let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
                exchanges.remove(node);
            }
        }
    }

    /// For commands and questions.
    pub(super) fn exchange(&self, node: &str) -> Arc<Exchange> {
        self.straighten(node);
        let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exchange) = exchanges.get(node) {
            return Arc::clone(exchange);
        }
        let client = mail_client(self.entry(Key::Prompt(node.to_owned())));
        let exchange = Arc::new(Exchange::new(client));
        exchanges.insert(node.to_owned(), Arc::clone(&exchange));
        exchange
    }

    /// For everything else but bodies that are read.
    pub(super) fn mail(&self, node: &str) -> MailClient<Channel> {
        mail_client(self.channel(node))
    }

    /// For bodies that are read.
    pub(super) fn bulk(&self, node: &str) -> MailClient<Channel> {
        mail_client(self.get(Key::Bulk(node.to_owned())))
    }

    fn get(&self, key: Key) -> Channel {
        if let Key::Prompt(node) | Key::Bulk(node) = &key {
            self.straighten(node);
        }
        self.entry(key)
    }

    fn entry(&self, key: Key) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry(key.clone()).or_insert_with(|| {
            self.dialer.channel(match key {
                Key::Seed(address) => Target::Seed(address),
                Key::Prompt(node) | Key::Bulk(node) => {
                    Target::Node(node, Arc::clone(&self.resolver))
                }
            })
        });
        channel.clone()
    }
}

fn mail_client(channel: Channel) -> MailClient<Channel> {
    MailClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::dial::detour::LOOK_EVERY;
    use crate::placement::Node;
    use crate::tls::{Identity, Peer, Role};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Two processes of one cluster.
    fn identities(of: [(&str, Role); 2]) -> [Identity; 2] {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        of.map(|(name, role)| {
            let peer = Peer { name: name.to_owned(), role };
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![peer.dns_name()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap().pem();
            let key = key.serialize_pem();
            Identity::from_pem(ca.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
        })
    }

    /// A node that says a word to whoever comes; where it is.
    async fn listen(identity: Identity) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut streams = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = identity.acceptor().accept(stream).await.unwrap();
                stream.write_all(b"well").await.unwrap();
                stream.flush().await.unwrap();
                streams.push(stream);
            }
        });
        address
    }

    #[tokio::test]
    async fn the_straight_way_is_looked_for_and_taken_by_who_calls_next() {
        let [ours, theirs] = identities([("f1", Role::Frontend), ("n1", Role::Node)]);
        let node = Node { name: "n1".to_owned(), address: listen(theirs).await, ..Node::default() };
        let placement = Placement { nodes: vec![node], ..Placement::default() };
        let (_publish, placement) = watch::channel(Arc::new(placement));
        for was_taken in [true, false] {
            let (seeds, identity, name) = (Vec::new(), ours.clone(), "f1".to_owned());
            let config = ClientConfig { seeds, identity, name, bind: None };
            let nodes = Nodes::new(config, placement.clone());
            nodes.go_through(&BTreeSet::from(["n2".to_owned()]), "n1");
            if was_taken {
                nodes.dialer.detours.was_taken("n1", "n2");
            }
            let before = nodes.exchange("n1");
            assert!(Arc::ptr_eq(&before, &nodes.exchange("n1")), "nobody has looked yet");
            tokio::time::pause();
            tokio::time::advance(LOOK_EVERY).await;
            tokio::time::resume();
            let is_over = async {
                while !nodes.dialer.detours.is_empty() {
                    drop(nodes.exchange("n1"));
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, is_over).await.expect("somebody looks");
            let is_same = Arc::ptr_eq(&before, &nodes.exchange("n1"));
            assert_eq!(is_same, !was_taken, "who went straight stays");
        }
    }
}
