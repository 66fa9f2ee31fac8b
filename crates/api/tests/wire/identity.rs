//! Certificates for tests, and who is let in.

use std::sync::Arc;
use std::time::Duration;

use api::admin::AdminClient;
use api::client::{Client, ClientConfig, Error};
use api::meta::{MetaClient, MetaError};
use api::peer::{PeerError, PeerTransport};
use api::placement::{Node, NodeId};
use api::tls::{Identity, Peer, Role, TlsError};
use mailbox::command::{
    AccountChange, ChangeAccount, ClaimAddress, Housekeep, MoveAccount, MoveStep, NamedMailbox,
    ReleaseAddress, Renumber, SetGroup,
};
use mailbox::dialogue::Trouble;
use mailbox::{Address, Command, LogTime, MailboxName, Query};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::cluster::{ACCOUNT, Cluster, PATIENCE, PLACE, SHARD};
use crate::peers::{request, transport};

/// A certificate authority of one cluster.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key for these DNS names.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        self.issue_until(names, 2054)
    }

    /// The same, valid until a year begins.
    fn issue_until(&self, names: &[&str], year: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub fn identity(&self, name: &str, role: Role) -> Identity {
        let peer = Peer { name: name.to_owned(), role };
        let (certificate, key) = self.issue(&[&peer.dns_name()]);
        let pem = self.pem.as_bytes();
        Identity::from_pem(pem, certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    /// For connections of a process that call themselves `protocol`.
    pub fn connector(&self, peer: &Peer, protocol: &str) -> TlsConnector {
        let (certificate, key) = self.issue(&[&peer.dns_name()]);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

#[test]
fn an_identity_is_loaded_from_three_files() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let error = Identity::load(directory.path()).unwrap_err();
    assert!(matches!(&error, TlsError::Read { path, .. } if path.ends_with("ca.pem")), "{error}");
    assert!(error.to_string().contains("No such file"), "{error}");
    assert!(std::error::Error::source(&error).is_none(), "it is said once");
    let (certificate, key) = authority.issue(&["n1.node.rookery.internal", "localhost"]);
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("ca.pem", &authority.pem);
    write("cert.pem", &certificate);
    write("key.pem", &key);
    let identity = Identity::load(directory.path()).unwrap();
    assert_eq!(*identity.peer(), Peer { name: "n1".into(), role: Role::Node });
    write("key.pem", "nothing");
    assert!(matches!(Identity::load(directory.path()), Err(TlsError::Pem { what: "key.pem", .. })));
}

#[test]
fn a_certificate_names_exactly_one_process() {
    let authority = Authority::new();
    let refused = [
        &["localhost"][..],
        &["n1.node.rookery.internal", "n2.node.rookery.internal"],
        &["n1.boss.rookery.internal"],
        &["a.b.node.rookery.internal"],
        &["-n1.node.rookery.internal"],
        &["node.rookery.internal"],
    ];
    for names in refused {
        let (certificate, key) = authority.issue(names);
        let pem = authority.pem.as_bytes();
        let identity = Identity::from_pem(pem, certificate.as_bytes(), key.as_bytes());
        assert!(matches!(identity, Err(TlsError::NoName)), "{names:?}");
    }
}

fn config(cluster: &Cluster, identity: Identity) -> ClientConfig {
    let name = identity.peer().name.clone();
    ClientConfig { seeds: cluster.seeds(), identity, name, bind: None }
}

#[tokio::test]
async fn only_nodes_reach_the_raft_service() {
    let cluster = Cluster::start(1);
    let frontend = cluster.authority.identity("f1", Role::Frontend);
    let answer = transport(&cluster, frontend).call(request("n1", 1, 1)).await;
    assert_eq!(answer.unwrap_err(), PeerError::Unreachable("not for this role".into()));
    let node = cluster.authority.identity("n9", Role::Node);
    transport(&cluster, node).call(request("n1", 1, 1)).await.unwrap();
    assert_eq!(cluster.node("n1").callers(), ["n9"]);
}

#[tokio::test]
async fn only_operators_reach_the_admin_service() {
    let cluster = Cluster::start(1);
    let ask = |role| {
        let identity = cluster.authority.identity("x", role);
        AdminClient::new(config(&cluster, identity), PATIENCE).unwrap()
    };
    let refused = Err(MetaError::Refused("not for this role".into()));
    assert_eq!(ask(Role::Frontend).drain("n1", false).await, refused);
    assert_eq!(ask(Role::Node).drain("n1", false).await, refused);
    assert_eq!(ask(Role::Admin).drain("n1", false).await, Ok(()));
}

#[tokio::test]
async fn only_operators_change_accounts_addresses_and_groups() {
    let cluster = Cluster::start(1);
    let address = Address::parse("jo@example.test").unwrap().0;
    let claim = || ClaimAddress { address: address.clone(), place: PLACE };
    let change = AccountChange::PasswordHash("!".into());
    let (account, release) =
        (ACCOUNT, ReleaseAddress { address: address.clone(), account: ACCOUNT });
    let group = SetGroup { address: address.clone(), members: Vec::new(), expected: None };
    let commands = [
        Command::ClaimAddress(claim()),
        Command::RepointAddress(claim()),
        Command::ReleaseAddress(release),
        Command::SetGroup(group),
        Command::ChangeAccount(ChangeAccount { account, change }),
        Command::DeleteAccount(account),
        Command::MoveAccount(MoveAccount { account, step: MoveStep::Begin(PLACE) }),
    ];
    for role in [Role::Frontend, Role::Node] {
        let client = cluster.client_as("x", role, PATIENCE);
        for command in commands.clone() {
            let refused = client.command_shard(SHARD, command.clone()).await;
            assert_eq!(refused, Err(Trouble::Unavailable), "{role:?} {command:?}");
        }
        assert_eq!(cluster.world.n_done(), 0);
    }
    let client = cluster.client_as("ctl", Role::Admin, PATIENCE);
    for command in &commands {
        client.command_shard(SHARD, command.clone()).await.unwrap();
    }
    assert_eq!(cluster.world.n_done(), commands.len() as u64);
}

#[tokio::test]
async fn only_operators_list_accounts_and_groups_and_read_rows() {
    let cluster = Cluster::start(1);
    let queries = [
        Query::Accounts(None),
        Query::Groups(None),
        Query::Moving(ACCOUNT),
        Query::AccountRows(ACCOUNT, None),
        Query::ChangedRows(ACCOUNT, 0),
    ];
    let named = NamedMailbox { account: ACCOUNT, name: MailboxName::inbox() };
    for role in [Role::Frontend, Role::Node] {
        let client = cluster.client_as("x", role, PATIENCE);
        for query in &queries {
            let refused = client.query_shard(SHARD, query.clone()).await;
            assert_eq!(refused, Err(Trouble::Unavailable), "{role:?} {query:?}");
            let (command, then) = (Command::DeleteMailbox(named.clone()), Some(query.clone()));
            let refused = client.command_and(PLACE, command, Vec::new(), then).await;
            assert_eq!(refused, Err(Trouble::Unavailable), "{role:?} {query:?}");
        }
        assert_eq!(cluster.world.n_done(), 0);
    }
    let client = cluster.client_as("ctl", Role::Admin, PATIENCE);
    for query in queries {
        assert!(client.query_shard(SHARD, query.clone()).await.is_ok(), "{query:?}");
    }
}

/// Housekeeping with another's clock would drop sessions and bodies, new numbers would empty every cache.
#[tokio::test]
async fn nobody_proposes_what_a_shard_does_by_itself() {
    let cluster = Cluster::start(1);
    let (last, after) = (LogTime(u64::MAX), None);
    let house = Housekeep { sessions_before: last, uploads_before: last, purge_before: last };
    let commands = [Command::Housekeep(house), Command::Renumber(Renumber { after })];
    for role in [Role::Frontend, Role::Node, Role::Admin] {
        let client = cluster.client_as("x", role, PATIENCE);
        for command in commands.clone() {
            let refused = client.command_shard(SHARD, command.clone()).await;
            assert_eq!(refused, Err(Trouble::Unavailable), "{role:?} {command:?}");
        }
    }
    assert_eq!(cluster.world.n_done(), 0);
}

#[tokio::test]
async fn a_node_speaks_for_itself_only() {
    let cluster = Cluster::start(1);
    let identity = cluster.authority.identity("n1", Role::Node);
    let client = MetaClient::new(config(&cluster, identity)).unwrap();
    let named =
        |name: &str| Node { name: name.into(), node_id: NodeId([1; 16]), ..Node::default() };
    assert!(client.register_node(&named("n1"), None, PATIENCE).await.is_ok());
    let refused = client.register_node(&named("n2"), None, PATIENCE).await.unwrap_err();
    assert_eq!(refused, MetaError::Refused("not the name in the certificate".into()));
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_one_expected() {
    let cluster = Cluster::start(1);
    let node = cluster.authority.identity("n9", Role::Node);
    // The resolver of this transport gives n1's address for every name.
    let transport = transport(&cluster, node);
    let error = transport.call(request("n2", 1, 1)).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Unreachable(why) if why.contains("certificate")),
        "{error}"
    );
    assert!(cluster.node("n1").callers().is_empty());
}

#[tokio::test]
async fn strangers_are_refused_on_both_sides() {
    let cluster = Cluster::start(1);
    let stranger = Authority::new().identity("n9", Role::Node);
    let error = transport(&cluster, stranger).call(request("n1", 1, 1)).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Unreachable(why) if why.contains("certificate")),
        "{error}"
    );

    // Its certificate is of our CA, but what it trusts is another one: the node refuses nothing, it does.
    let (certificate, key) = cluster.authority.issue(&["n9.node.rookery.internal"]);
    let other = Authority::new();
    let blind =
        Identity::from_pem(other.pem.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap();
    let error = transport(&cluster, blind).call(request("n1", 1, 1)).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Unreachable(why) if why.contains("certificate")),
        "{error}"
    );

    // It trusts our CA, but its own certificate is of another one.
    let (certificate, key) = other.issue(&["n9.node.rookery.internal"]);
    let pem = cluster.authority.pem.as_bytes();
    let foreign = Identity::from_pem(pem, certificate.as_bytes(), key.as_bytes()).unwrap();
    let error = transport(&cluster, foreign).call(request("n1", 1, 1)).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable(_)), "{error}");
    assert!(cluster.node("n1").callers().is_empty());
}

#[tokio::test]
async fn a_frontend_does_not_pass_for_a_node() {
    let cluster = Cluster::start_as(&["n1"], Role::Frontend);
    let operator = cluster.authority.identity("op", Role::Admin);
    let patience = Duration::from_millis(300);
    let client = AdminClient::new(config(&cluster, operator), patience).unwrap();
    assert!(matches!(client.drain("n1", false).await, Err(MetaError::Unavailable(_))));
    assert!(cluster.node("n1").callers().is_empty());
}

#[tokio::test]
async fn a_client_uses_its_own_certificate() {
    let cluster = Cluster::start(1);
    let identity = cluster.authority.identity("f1", Role::Frontend);
    let other = ClientConfig { name: "f2".into(), ..config(&cluster, identity.clone()) };
    assert!(matches!(Client::new(other), Err(Error::WrongName { .. })));
    let nowhere = ClientConfig { seeds: Vec::new(), ..config(&cluster, identity) };
    assert!(matches!(Client::new(nowhere), Err(Error::NoSeeds)));
}

/// The other side finds it out when the handshake is over for us already.
#[tokio::test]
async fn who_comes_with_an_expired_certificate_is_told_so() {
    let cluster = Cluster::start(1);
    let (certificate, key) = cluster.authority.issue_until(&["op.admin.rookery.internal"], 2020);
    let pem = cluster.authority.pem.as_bytes();
    let expired = Identity::from_pem(pem, certificate.as_bytes(), key.as_bytes()).unwrap();
    let client = AdminClient::new(config(&cluster, expired), Duration::from_millis(300)).unwrap();
    for _ in 0..3 {
        let said = client.drain("n1", false).await.unwrap_err().to_string();
        assert!(said.contains("CertificateExpired"), "{said}");
    }
}

#[tokio::test]
async fn who_proves_nothing_keeps_nobody_out() {
    let cluster = Cluster::start(1);
    let address: std::net::SocketAddr = cluster.seeds()[0].parse().unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(address).await.unwrap());
    }
    let client = cluster.client();
    let gone = client.query_shard(SHARD, Query::Account(ACCOUNT)).await;
    assert!(gone.is_ok(), "{gone:?}");
    let mut last = silent.pop().unwrap();
    let (mut some, mut more) = ([0; 1], [0; 1]);
    // The first ones are waited for.
    let is_last = tokio::select! {
        biased;
        _ = last.read(&mut some) => true,
        _ = silent[0].read(&mut more) => false,
    };
    assert!(is_last, "it has no place");
}
