//! Who is who: every process of a cluster has a certificate of the cluster's CA whose only
//! `rookery.internal` name says its role and name, and every connection is mutual TLS 1.3.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;

/// What all names in certificates end in.
pub const DOMAIN: &str = "rookery.internal";
/// What HTTP/2 calls itself in a handshake.
const HTTP2: &[u8] = b"h2";
/// What a connection calls itself that is to be passed on to another node.
const PASSED_ON: &[u8] = b"rookery-passed-on";
/// Limit: letters of a process's name, which is one DNS label.
pub const NAME_LEN_MAX: usize = 63;

/// What a process is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Keeps mail.
    Node,
    /// Speaks to mail clients.
    Frontend,
    /// An operator.
    Admin,
}

/// A process, as its certificate proves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// One DNS label.
    pub name: String,
    /// What it is.
    pub role: Role,
}

/// Why there is no identity, or no connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("read {}: {reason}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// Not PEM, or not what it should hold.
    #[error("{what} is not usable: {reason}")]
    Pem {
        /// ca.pem, cert.pem or key.pem.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The certificate has not exactly one name of the form `<name>.<role>.rookery.internal`.
    #[error("the certificate names no process of a cluster")]
    NoName,
}

/// Who this process is and whom it trusts. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    peer: Peer,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    client_any_node: Arc<ClientConfig>,
    client_passed_on: Arc<ClientConfig>,
}

impl Role {
    /// As it stands in names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Frontend => "frontend",
            Self::Admin => "admin",
        }
    }
}

impl Peer {
    /// The DNS name its certificate must carry.
    pub fn dns_name(&self) -> String {
        format!("{}.{}.{DOMAIN}", self.name, self.role.as_str())
    }

    /// Reads what [`Peer::dns_name`] writes.
    pub fn from_dns_name(dns_name: &str) -> Option<Self> {
        let (name, role) = dns_name.strip_suffix(DOMAIN)?.strip_suffix('.')?.rsplit_once('.')?;
        let role = match role {
            "node" => Role::Node,
            "frontend" => Role::Frontend,
            "admin" => Role::Admin,
            _ => return None,
        };
        is_name(name).then(|| Self { name: name.to_owned(), role })
    }

    /// Who a certificate says it is; whether that is true is the verifier's business.
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        let mut found = None;
        for name in &names.value.general_names {
            if let GeneralName::DNSName(name) = name
                && name.ends_with(DOMAIN)
            {
                if found.is_some() {
                    return None;
                }
                found = Some(Self::from_dns_name(name)?);
            }
        }
        found
    }
}

/// Whether a text can be the name of a process: a DNS label in lower case.
pub fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|&b| b != b'-');
    let bytes = name.as_bytes();
    bytes.len() <= NAME_LEN_MAX
        && bytes.iter().all(|&b| legal(b))
        && edge(bytes.first())
        && edge(bytes.last())
}

impl Identity {
    /// From the files ca.pem, cert.pem and key.pem of a directory.
    pub fn load(directory: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).map_err(|reason| TlsError::Read { path, reason })
        };
        Self::from_pem(&read("ca.pem")?, &read("cert.pem")?, &read("key.pem")?)
    }

    /// From PEM texts: the CA's certificate, this process's certificate (with intermediates if any)
    /// and its private key.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates("ca.pem", ca)? {
            roots.add(root).map_err(|error| bad("ca.pem", &error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("cert.pem", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad("key.pem", &error))?;
        let peer = chain.first().and_then(Peer::of).ok_or(TlsError::NoName)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());

        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| bad("ca.pem", &error))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| bad("key.pem", &error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| bad("cert.pem", &error))?;
        server.alpn_protocols = vec![HTTP2.to_vec(), PASSED_ON.to_vec()];

        let nodes = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| bad("ca.pem", &error))?;
        let named: Arc<dyn ServerCertVerifier> = nodes.clone();
        let any: Arc<dyn ServerCertVerifier> = Arc::new(AnyNode(nodes));
        let client = client_config(&provider, named, (chain.clone(), key.clone_key()))?;
        let client_any_node = client_config(&provider, any, (chain, key))?;
        let mut passed_on = ClientConfig::clone(&client);
        passed_on.alpn_protocols = vec![PASSED_ON.to_vec()];
        let (server, client_passed_on) = (Arc::new(server), Arc::new(passed_on));
        Ok(Self { peer, server, client, client_any_node, client_passed_on })
    }

    /// Who this process is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// For incoming connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    /// For outgoing connections: the other side must prove to be that node, or any node.
    pub(crate) fn connector(
        &self,
        node: Option<&str>,
    ) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
        let config = if node.is_some() { &self.client } else { &self.client_any_node };
        let name = server_name(node.unwrap_or("any"))?;
        Ok((TlsConnector::from(Arc::clone(config)), name))
    }

    /// For connections that this node is to pass on to another one.
    pub(crate) fn connector_through(
        &self,
        node: &str,
    ) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
        Ok((TlsConnector::from(Arc::clone(&self.client_passed_on)), server_name(node)?))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer.dns_name())
    }
}

fn server_name(node: &str) -> Result<ServerName<'static>, TlsError> {
    let expected = Peer { name: node.to_owned(), role: Role::Node };
    ServerName::try_from(expected.dns_name()).map_err(|_| TlsError::NoName)
}

/// Whether an accepted connection is to be passed on to another node.
pub(crate) fn is_to_be_passed_on(connection: &rustls::ServerConnection) -> bool {
    connection.alpn_protocol() == Some(PASSED_ON)
}

/// Who is at the other end of an accepted connection whose certificate was verified.
pub(crate) fn proven(certificates: Option<&[CertificateDer<'_>]>) -> Option<Peer> {
    certificates?.first().and_then(Peer::of)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| bad(what, &error))?;
    if all.is_empty() {
        return Err(TlsError::Pem { what, reason: "no certificate in it".into() });
    }
    Ok(all)
}

fn bad(what: &'static str, error: &dyn fmt::Display) -> TlsError {
    TlsError::Pem { what, reason: error.to_string() }
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad("key.pem", &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(|error| bad("cert.pem", &error))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config))
}

/// Accepts any node of the cluster: the name that is checked is the one the certificate carries, if
/// that is a node's.
#[derive(Debug)]
struct AnyNode(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let wrong = || rustls::Error::InvalidCertificate(CertificateError::NotValidForName);
        let peer = Peer::of(end_entity).filter(|peer| peer.role == Role::Node).ok_or_else(wrong)?;
        let name = ServerName::try_from(peer.dns_name()).map_err(|_| wrong())?;
        self.0.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.root_hint_subjects()
    }
}
