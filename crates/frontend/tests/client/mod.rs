//! A client that reads lines, inside TLS or not.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Client<S = TcpStream> {
    stream: BufReader<S>,
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
