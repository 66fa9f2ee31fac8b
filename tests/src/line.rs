//! A blocking connection for line protocols.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Longest wait for anything from the server.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// One connection.
pub struct Line {
    stream: BufReader<TcpStream>,
    n_received: u64,
}

impl Line {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Result<Self> {
        let at = address.to_socket_addrs()?.next().context("no such address")?;
        let stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))
            .with_context(|| format!("connect {address}"))?;
        stream.set_read_timeout(Some(READ_DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), n_received: 0 })
    }

    /// Sends these octets.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// The next line, without CRLF.
    pub fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        self.n_received += self.stream.read_until(b'\n', &mut line)? as u64;
        ensure!(
            line.ends_with(b"\r\n"),
            "connection closed in {:?}",
            String::from_utf8_lossy(&line)
        );
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

    /// Changes how long a read waits.
    pub fn set_deadline(&mut self, deadline: Duration) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(Some(deadline))?)
    }
}
