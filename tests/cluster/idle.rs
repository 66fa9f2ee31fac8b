//! Many connections that do nothing yet.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::demo::{free_ports, rookery};
use tests::frontend::FrontendProcess;
use tests::skip::skipped;

const CONNECTIONS: u64 = 10_000;
/// What so many may cost.
const BYTES_MAX: u64 = 150 << 20;
/// With fewer the frontend itself, which takes some MiB at first, is all that is measured.
const CONNECTIONS_MIN: u64 = 1000;
/// Connections from one loopback address; ports of the client run out beyond some 28,000.
const PER_ADDRESS: u64 = 1000;

#[test]
fn ten_thousand_connections_before_login_cost_less_than_150_mib() -> Result<()> {
    let n_connections = room_for(CONNECTIONS)?;
    if n_connections < CONNECTIONS_MIN {
        skipped("the hard limit of files allows too few connections");
        return Ok(());
    }
    if n_connections < CONNECTIONS {
        skipped(format!("all but {n_connections} connections: the hard limit of files"));
    }
    let home = tempfile::tempdir()?;
    let port = free_ports()?;
    let frontend = FrontendProcess::start(home.path(), &alone(home.path(), port)?)?;
    let before = frontend.resident_bytes()?;
    let mut held = Vec::new();
    for n in 0..n_connections {
        let from = [127, 7, (n / PER_ADDRESS) as u8, 1];
        let mut stream = connect(from, SocketAddr::from(([127, 0, 0, 1], port)))?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).with_context(|| format!("connection {n}"))?;
        ensure!(&greeting == b"* OK", "connection {n}: {greeting:?}");
        held.push(stream);
    }
    let grown = frontend.resident_bytes()?.saturating_sub(before);
    println!(
        "{n_connections} idle connections: {} KiB, {} octets each",
        grown >> 10,
        grown / n_connections
    );
    let n_bytes_max = BYTES_MAX / CONNECTIONS * n_connections;
    ensure!(grown < n_bytes_max, "{grown} octets for {n_connections} connections");
    Ok(())
}

/// A frontend of a cluster that is not there: who has not logged in needs none.
fn alone(home: &std::path::Path, port: u16) -> Result<toml::Table> {
    let ctl = |arguments: &[&str]| -> Result<()> {
        let done = Command::new(rookery()).args(["ctl", "cert"]).args(arguments).output()?;
        ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let (authority, identity) = (text(&home.join("ca")), text(&home.join("identity")));
    ctl(&["authority", "--dir", &authority])?;
    let issue = ["issue", "--role", "frontend", "--name", "f1", "--authority", &authority];
    ctl(&[&issue[..], &["--out", &identity]].concat())?;
    let config = format!(
        "name = 'f1'\nseeds = ['127.0.0.1:9']\nidentity = '{identity}'\n\
         imap = '127.0.0.1:{port}'\nconnections_max = {}\n",
        CONNECTIONS + 100
    );
    Ok(config.parse()?)
}

/// Raises this process's limit of open files; how many connections there can be.
fn room_for(wanted: u64) -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit, setrlimit(2) reads one; both are ours.
    let told = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    ensure!(told, "the limit of files: {}", std::io::Error::last_os_error());
    Ok(wanted.min(limit.rlim_max.saturating_sub(1500)))
}

/// From an address of one's own, so that ports do not run out.
fn connect(from: [u8; 4], to: SocketAddr) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}
