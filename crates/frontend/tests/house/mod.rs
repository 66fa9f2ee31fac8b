//! A frontend on real sockets over a store in memory.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;
use std::sync::Arc;

use frontend::{Config, Frontend, Protocol};
use rustls::RootCertStore;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::store::Memory;

pub fn config(more: &str) -> Config {
    let text = format!(
        "name = 'f1'\nseeds = ['unused:1']\nidentity = 'unused'\nhostname = 'mail.test'\n\
         pop3 = '127.0.0.1:0'\nlmtp = '127.0.0.1:0'\nimap = '127.0.0.1:0'\nhttp = '127.0.0.1:0'\n\
         allow_plain_login = true\n{more}"
    );
    Config::from_toml(&text).unwrap()
}

pub struct House {
    pub frontend: Frontend,
    pub memory: Arc<Memory>,
    pub shutdown: CancellationToken,
}

impl House {
    pub async fn new(more: &str) -> Self {
        let memory = Arc::new(Memory::default());
        memory.create_account("jo@example.test", "secret");
        let shutdown = CancellationToken::new();
        let store: Arc<dyn frontend::Store> = memory.clone();
        let frontend = Frontend::start_over(&config(more), store, shutdown.clone()).await.unwrap();
        Self { frontend, memory, shutdown }
    }

    pub async fn client(&self, protocol: Protocol) -> Client {
        Client::connect(self.frontend.address(protocol).unwrap()).await
    }

    pub async fn deliver(&self, raw: &[u8]) -> String {
        self.deliver_to("jo@example.test", raw).await
    }

    pub async fn deliver_to(&self, to: &str, raw: &[u8]) -> String {
        let mut lmtp = self.client(Protocol::Lmtp).await;
        assert!(lmtp.line().await.starts_with("220 "));
        let head = format!("LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<{to}>\r\nDATA\r\n");
        lmtp.send(head.as_bytes()).await;
        while !lmtp.line().await.starts_with("354") {}
        lmtp.send(raw).await;
        lmtp.send(b".\r\n").await;
        lmtp.line().await
    }
}

/// A frontend with a certificate, and how a client trusts it.
pub async fn house_with_tls(directory: &Path) -> (House, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["mail.test".into()]).unwrap();
    let (certificate, key) = (directory.join("tls.pem"), directory.join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let more = format!(
        "tls_certificate = '{}'\ntls_key = '{}'\npop3s = '127.0.0.1:0'\nimaps = '127.0.0.1:0'",
        certificate.display(),
        key.display()
    );
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trusting = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (House::new(&more).await, TlsConnector::from(Arc::new(trusting)))
}
