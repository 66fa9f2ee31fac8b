//! A blocking connection for line protocols, inside TLS or not.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Longest wait for anything from the server, unless set otherwise.
pub const READ_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Where a server listens, and how to speak to it.
#[derive(Clone)]
pub struct Endpoint {
    /// `host:port`
    pub address: String,
    /// Inside TLS from the first octet on, if set.
    pub tls: Option<Arc<ClientConfig>>,
}

/// One connection.
pub struct Line {
    stream: BufReader<Stream>,
    /// What came of a line when the wait for its end was given up.
    partial: Vec<u8>,
    n_received: u64,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Endpoint {
    /// Outside TLS.
    pub fn plain(address: &str) -> Self {
        Self { address: address.to_owned(), tls: None }
    }
}

impl Line {
    /// Connects to `host:port` outside TLS.
    pub fn connect(address: &str) -> Result<Self> {
        Self::open(&Endpoint::plain(address))
    }

    /// Connects.
    pub fn open(endpoint: &Endpoint) -> Result<Self> {
        let address = endpoint.address.as_str();
        let at = address.to_socket_addrs()?.next().context("no such address")?;
        let stream = TcpStream::connect_timeout(&at, CONNECT_DEADLINE)
            .with_context(|| format!("connect {address}"))?;
        stream.set_read_timeout(Some(READ_DEADLINE))?;
        // Why: a server that takes nothing is as silent as one that says nothing.
        stream.set_write_timeout(Some(READ_DEADLINE))?;
        stream.set_nodelay(true)?;
        let stream = match &endpoint.tls {
            None => Stream::Plain(stream),
            Some(config) => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let host = host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).context("no host name for TLS")?;
                let tls = ClientConnection::new(Arc::clone(config), name).context("begin TLS")?;
                Stream::Tls(Box::new(StreamOwned::new(tls, stream)))
            }
        };
        Ok(Self { stream: BufReader::new(stream), partial: Vec::new(), n_received: 0 })
    }

    /// Sends these octets.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        Ok(stream.flush()?)
    }

    /// The next line, without CRLF. After a wait that was too long it may be asked for again.
    pub fn line(&mut self) -> Result<Vec<u8>> {
        self.n_received += self.stream.read_until(b'\n', &mut self.partial)? as u64;
        let mut line = std::mem::take(&mut self.partial);
        if !line.ends_with(b"\r\n") {
            let words = format!("connection closed in {:?}", String::from_utf8_lossy(&line));
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, words).into());
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }

    /// Exactly this many octets.
    pub fn octets(&mut self, n: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        self.stream.read_exact(&mut bytes)?;
        self.n_received += n as u64;
        Ok(bytes)
    }

    /// Octets received so far.
    pub fn n_received(&self) -> u64 {
        self.n_received
    }

    /// Changes how long a read waits; a write waits as long, and not less than usual.
    pub fn set_deadline(&mut self, deadline: Duration) -> Result<()> {
        let tcp = match self.stream.get_ref() {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref(),
        };
        tcp.set_write_timeout(Some(deadline.max(READ_DEADLINE)))?;
        Ok(tcp.set_read_timeout(Some(deadline))?)
    }
}

/// Whether a failed read only waited too long.
pub fn is_silence(error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(|e| e.kind());
    matches!(kind, Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nothing_is_not_waited_for_for_ever() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut line = Line::connect(&server.local_addr().unwrap().to_string()).unwrap();
        for (deadline_s, patience_s) in [(90, 90), (1, 30)] {
            line.set_deadline(Duration::from_secs(deadline_s)).unwrap();
            let Stream::Plain(tcp) = line.stream.get_ref() else { panic!("it is in clear") };
            assert_eq!(tcp.read_timeout().unwrap(), Some(Duration::from_secs(deadline_s)));
            assert_eq!(tcp.write_timeout().unwrap(), Some(Duration::from_secs(patience_s)));
        }
        let fresh = Line::connect(&server.local_addr().unwrap().to_string()).unwrap();
        let Stream::Plain(tcp) = fresh.stream.get_ref() else { panic!("it is in clear") };
        assert_eq!(tcp.write_timeout().unwrap(), Some(READ_DEADLINE));
    }
}
