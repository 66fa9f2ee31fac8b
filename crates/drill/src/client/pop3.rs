//! A small POP3 client (RFC 1939).

use std::time::Duration;

use anyhow::{Result, ensure};

use super::line::{Endpoint, Line};

/// One POP3 session.
pub struct Pop3 {
    line: Line,
}

impl Pop3 {
    /// Connects and logs in.
    pub fn login(address: &str, user: &str, password: &str) -> Result<Self> {
        Self::open(&Endpoint::plain(address), user, password)
    }

    /// The same, inside TLS or not.
    pub fn open(endpoint: &Endpoint, user: &str, password: &str) -> Result<Self> {
        let mut pop3 = Self { line: Line::open(endpoint)? };
        pop3.status("greeting")?;
        pop3.ok(&format!("USER {user}"))?;
        pop3.ok(&format!("PASS {password}"))?;
        Ok(pop3)
    }

    /// Changes how long a read waits.
    pub fn set_deadline(&mut self, deadline: Duration) -> Result<()> {
        self.line.set_deadline(deadline)
    }

    /// A command with a one-line answer, which must be `+OK`.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        self.line.send(format!("{command}\r\n").as_bytes())?;
        self.status(command)
    }

    /// A command with a many-line answer, dots removed.
    pub fn lines(&mut self, command: &str) -> Result<Vec<Vec<u8>>> {
        self.ok(command)?;
        let mut lines = Vec::new();
        loop {
            let line = self.line.line()?;
            if line == b"." {
                return Ok(lines);
            }
            lines.push(line.strip_prefix(b".").map(<[u8]>::to_vec).unwrap_or(line));
        }
    }

    /// A whole message as RETR sends it.
    pub fn retr(&mut self, number: u32) -> Result<Vec<u8>> {
        let mut message = Vec::new();
        for line in self.lines(&format!("RETR {number}"))? {
            message.extend_from_slice(&line);
            message.extend_from_slice(b"\r\n");
        }
        Ok(message)
    }

    fn status(&mut self, what: &str) -> Result<String> {
        let line = String::from_utf8_lossy(&self.line.line()?).into_owned();
        let verb = what.split(' ').next().unwrap_or("");
        ensure!(line.starts_with("+OK"), "{verb}: {line}");
        Ok(line)
    }
}
