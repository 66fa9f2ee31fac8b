//! A client that reads lines, inside TLS or not.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Client<S = TcpStream> {
    stream: BufReader<S>,
}

/// What was said up to a tagged line.
pub struct Lines(pub Vec<String>);

impl Lines {
    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("in time").unwrap();
        line.trim_end().to_owned()
    }

    pub async fn send(&mut self, octets: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(octets)).await.expect("in time").unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.line().await
    }

    /// IMAP: all lines up to the one with the tag of the last command sent.
    pub async fn until_tag(&mut self, command: &str) -> Lines {
        self.send(format!("{command}\r\n").as_bytes()).await;
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            assert!(!line.is_empty() || lines.len() < 1000, "closed");
            let is_tagged = line.as_bytes().get(1) == Some(&b' ') && line.as_bytes()[0] >= b'a';
            let is_idle_over = command.starts_with("DONE") && line.starts_with("c ");
            lines.push(line);
            if is_tagged && !is_idle_over {
                return Lines(lines);
            }
        }
    }

    pub async fn octets(&mut self, n: usize) -> Vec<u8> {
        let mut octets = vec![0; n];
        let reading = self.stream.read_exact(&mut octets);
        timeout(PATIENCE, reading).await.expect("in time").unwrap();
        octets
    }

    /// A multi-line response up to its dot.
    pub async fn until_dot(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while !all.ends_with(b"\r\n.\r\n") && all != b".\r\n" {
            let reading = self.stream.read_until(b'\n', &mut all);
            assert!(timeout(PATIENCE, reading).await.expect("in time").unwrap() > 0, "closed");
        }
        all
    }

    /// The server closes and says nothing more.
    pub async fn end(&mut self) {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("in time").unwrap();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }

    /// POP3 from the greeting on.
    pub async fn log_in(&mut self, password: &str) -> String {
        assert!(self.line().await.starts_with("+OK"));
        assert!(self.say("USER jo@example.test").await.starts_with("+OK"));
        self.say(&format!("PASS {password}")).await
    }

    /// The connection itself, when nothing of it was read ahead.
    pub fn into_inner(self) -> S {
        assert!(self.stream.buffer().is_empty(), "octets were read ahead");
        self.stream.into_inner()
    }
}
