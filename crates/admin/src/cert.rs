//! The cluster's own certificate authority and what it issues. Every process of a cluster proves with
//! a certificate which role and name it has; mail clients see a certificate of their own.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The authority's certificate, copied into every identity.
pub const CA_FILE: &str = "ca.pem";
/// The authority's key; only the operator needs it, and only to issue.
pub const CA_KEY_FILE: &str = "ca-key.pem";
/// An identity's certificate.
pub const CERT_FILE: &str = "cert.pem";
/// An identity's key.
pub const KEY_FILE: &str = "key.pem";

/// First and last year of the authority and of identities. Renewal is a new `ctl cert issue`; the far end
/// keeps a forgotten one from stopping a mail store.
const VALID_YEARS: (i32, i32) = (2024, 2054);

/// Limit: of what mail clients see. Those of Apple refuse a certificate that is valid for longer, also one of
/// a private authority.
const SERVER_DAYS_MAX: u64 = 825;
const DAY_S: u64 = 86_400;

/// What a process is in the cluster; part of the name its certificate proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Keeps mail.
    Node,
    /// Speaks to mail clients.
    Frontend,
    /// An operator's `ctl`.
    Admin,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Frontend => "frontend",
            Self::Admin => "admin",
        }
    }
}

/// Creates an authority in `dir`; refuses where there is one.
pub fn create_authority(dir: &Path) -> Result<()> {
    // Why either: the key may be kept elsewhere.
    if [CA_FILE, CA_KEY_FILE].iter().any(|file| dir.join(file).exists()) {
        bail!("{} has an authority already", dir.display());
    }
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let key = KeyPair::generate().context("make key")?;
    let mut params = params("rookery cluster authority", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context("sign authority")?;
    write(&dir.join(CA_FILE), certificate.pem().as_bytes(), 0o644)?;
    write(&dir.join(CA_KEY_FILE), key.serialize_pem().as_bytes(), 0o600)
}

/// Issues an identity into `out` that proves to be `name` in `role`.
pub fn issue_identity(authority: &Path, role: Role, name: &str, out: &Path) -> Result<()> {
    if !api::tls::is_name(name) {
        bail!("{name:?} is no name: 1 to 63 of a-z, 0-9 and -, which neither begins nor ends it");
    }
    let proven = format!("{name}.{}.rookery.internal", role.word());
    let mut params = params(&proven, vec![dns(&proven)?])?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    issue(authority, params, out)
}

/// Issues a certificate for mail clients to see, for tests and demos; a provider uses a public one. It is
/// valid for two years and a quarter.
pub fn issue_server(authority: &Path, hosts: &[String], out: &Path) -> Result<()> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
    issue(authority, server_params(hosts, since_1970)?, out)
}

fn server_params(hosts: &[String], since_1970: Duration) -> Result<CertificateParams> {
    let first = hosts.first().context("no host name given")?;
    let names = hosts.iter().map(|host| match host.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => dns(host),
    });
    let mut params = params(first, names.collect::<Result<_>>()?)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Why from yesterday: clocks of clients may be behind. The last second counts.
    let yesterday = (since_1970.as_secs() / DAY_S).saturating_sub(1);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(yesterday * DAY_S);
    params.not_after = params.not_before + Duration::from_secs(SERVER_DAYS_MAX * DAY_S - 1);
    Ok(params)
}

fn issue(authority: &Path, params: CertificateParams, out: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = authority.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let ca = read(CA_FILE)?;
    let ca_key = KeyPair::from_pem(&read(CA_KEY_FILE)?).context("read authority's key")?;
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).context("read authority")?;
    let key = KeyPair::generate().context("make key")?;
    let certificate = params.signed_by(&key, &issuer).context("sign certificate")?;
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    write(&out.join(CA_FILE), ca.as_bytes(), 0o644)?;
    write(&out.join(CERT_FILE), certificate.pem().as_bytes(), 0o644)?;
    write(&out.join(KEY_FILE), key.serialize_pem().as_bytes(), 0o600)
}

fn params(common_name: &str, names: Vec<SanType>) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = names;
    params.not_before = rcgen::date_time_ymd(VALID_YEARS.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(VALID_YEARS.1, 1, 1);
    Ok(params)
}

fn dns(name: &str) -> Result<SanType> {
    Ok(SanType::DnsName(name.try_into().with_context(|| format!("{name} is no host name"))?))
}

/// Replaces a file as a whole, with these rights whatever the old one had: readers see either of them.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let beside = path.with_extension("new");
    // Why the result is dropped: mostly none was left behind; if one cannot be removed, that is told next.
    drop(fs::remove_file(&beside));
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .with_context(|| format!("create {}", beside.display()))?;
    // Durability: a key that is gone after a power cut would lock a process out of its cluster. File and
    // directory are synced, and the old file is there until the new one is.
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("rename to {}", path.display()))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("sync {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_authority_is_not_written_over_where_its_key_is_kept_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        create_authority(dir.path()).unwrap();
        fs::remove_file(dir.path().join(CA_KEY_FILE)).unwrap();
        let said = create_authority(dir.path()).unwrap_err().to_string();
        assert!(said.ends_with("has an authority already"), "{said}");
    }

    #[test]
    fn a_name_that_no_process_may_have_is_not_issued() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
        create_authority(&ca).unwrap();
        for name in ["", "N1", "n1-", "-n1", "n.1"] {
            let said = issue_identity(&ca, Role::Node, name, &out).unwrap_err().to_string();
            assert!(said.contains("is no name"), "{name}: {said}");
            assert!(!out.exists(), "{name}");
        }
        issue_identity(&ca, Role::Node, "n-1", &out).unwrap();
    }

    #[test]
    fn what_mail_clients_see_is_valid_from_yesterday_and_for_825_days() {
        // 29 February 2028, at noon.
        let now = Duration::from_secs(1_835_438_400);
        let params = server_params(&["imap.example.test".to_owned()], now).unwrap();
        assert_eq!(params.not_before, rcgen::date_time_ymd(2028, 2, 28));
        let end = rcgen::date_time_ymd(2030, 6, 2);
        assert_eq!(params.not_after + Duration::from_secs(1), end);
        // Identities are nobody's business but the cluster's.
        let identity = super::params("n1.node.rookery.internal", Vec::new()).unwrap();
        assert_eq!(identity.not_after, rcgen::date_time_ymd(2054, 1, 1));
    }

    #[test]
    fn a_key_that_is_replaced_is_nobody_elses_whatever_its_rights_were() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
        create_authority(&ca).unwrap();
        issue_identity(&ca, Role::Node, "n1", &out).unwrap();
        let key = out.join(KEY_FILE);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        // Whoever opened it before sees nothing of the new one.
        let (old, mut opened) = (fs::read(&key).unwrap(), fs::File::open(&key).unwrap());
        issue_identity(&ca, Role::Node, "n1", &out).unwrap();
        assert_ne!(fs::read(&key).unwrap(), old);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let mut seen = Vec::new();
        opened.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, old);
        let mut left: Vec<_> =
            fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [CA_FILE, CERT_FILE, KEY_FILE]);
    }
}
