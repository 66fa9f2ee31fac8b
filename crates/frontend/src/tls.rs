//! TLS towards mail clients. The identity towards the cluster is another one.
//!
//! Promises: a certificate that was renewed is shown to new connections within [`LOOK_EVERY`]; files that
//! cannot be used, or do not belong together, leave the one before in its place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read as PEM.
    #[error("read {path}: {reason}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
    /// They do not belong together, or are of a kind that is not supported.
    #[error("use certificate and key: {0}")]
    Use(rustls::Error),
}

/// The certificate that clients see, as its files are by now.
#[derive(Debug)]
pub(crate) struct Shown {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Shown {
    /// Reads certificate chain and key from PEM files.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(Arc::new(read(certificate, key)?));
        Ok(Arc::new(Self { certificate: certificate.into(), key: key.into(), current }))
    }

    /// Shows it to whoever connects.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Use)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Looks at the files again and again, until told to stop.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut n_failed = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            match self.look() {
                Ok(is_new) => {
                    if is_new {
                        info!("a renewed certificate is shown");
                    }
                    n_failed = 0;
                }
                Err(error) => {
                    n_failed = n_failed.saturating_add(1);
                    // Why not the first time: between two files being written they do not fit.
                    if n_failed == 2 {
                        warn!(%error, "the certificate from before is shown on");
                    }
                }
            }
        }
    }

    /// Takes what the files are now; whether that is another certificate.
    fn look(&self) -> Result<bool, TlsError> {
        let found = read(&self.certificate, &self.key)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = found.cert != current.cert;
        if is_new {
            *current = Arc::new(found);
        }
        Ok(is_new)
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let fail =
        |path: &Path, reason: String| TlsError::Read { path: path.display().to_string(), reason };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fail(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(fail(certificate, "no certificate in it".into()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => fail(key, "no private key in it".into()),
        error => fail(key, error.to_string()),
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(TlsError::Use)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, host: &str, names: &[&str]) {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        for name in names {
            let text = match *name {
                "cert" => made.cert.pem(),
                _ => made.signing_key.serialize_pem(),
            };
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn a_renewed_certificate_is_shown_and_one_that_does_not_fit_is_not() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.test", &["cert", "key"]);
        let shown = Shown::load(&dir.path().join("cert"), &dir.path().join("key")).unwrap();
        let first = shown.current();
        assert!(!shown.look().unwrap(), "nothing changed");
        write(dir.path(), "a.test", &["cert", "key"]);
        assert!(shown.look().unwrap());
        let second = shown.current();
        assert_ne!(first.cert, second.cert);
        // Half of a renewal, or a file that is gone.
        write(dir.path(), "a.test", &["cert"]);
        assert!(matches!(shown.look(), Err(TlsError::Use(_))));
        std::fs::remove_file(dir.path().join("key")).unwrap();
        assert!(matches!(shown.look(), Err(TlsError::Read { .. })));
        assert_eq!(shown.current().cert, second.cert);
    }

    #[tokio::test(start_paused = true)]
    async fn the_files_are_looked_at_while_it_serves() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.test", &["cert", "key"]);
        let shown = Shown::load(&dir.path().join("cert"), &dir.path().join("key")).unwrap();
        let (first, stop) = (shown.current(), CancellationToken::new());
        let following = tokio::spawn(Arc::clone(&shown).follow(stop.clone()));
        write(dir.path(), "a.test", &["cert", "key"]);
        sleep(LOOK_EVERY + Duration::from_secs(1)).await;
        assert_ne!(shown.current().cert, first.cert);
        stop.cancel();
        following.await.unwrap();
    }
}
