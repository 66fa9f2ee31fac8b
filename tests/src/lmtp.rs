//! A small LMTP client (RFC 2033).

use anyhow::{Result, ensure};

use crate::line::Line;

/// One LMTP session.
pub struct Lmtp {
    line: Line,
}

impl Lmtp {
    /// Connects and says LHLO.
    pub fn connect(address: &str) -> Result<Self> {
        let mut lmtp = Self { line: Line::connect(address)? };
        lmtp.expect("220")?;
        lmtp.command("LHLO tests.example.test", "250")?;
        Ok(lmtp)
    }

    /// Delivers; one reply per recipient that RCPT accepted, in order.
    pub fn deliver(&mut self, to: &[&str], message: &[u8]) -> Result<Vec<String>> {
        let n_replies = self.start(to, message)?;
        self.finish(n_replies)
    }

    /// Sends everything and does not wait; gives how many replies there will be.
    pub fn start(&mut self, to: &[&str], message: &[u8]) -> Result<usize> {
        self.command("MAIL FROM:<sender@example.test>", "250")?;
        for recipient in to {
            self.command(&format!("RCPT TO:<{recipient}>"), "250")?;
        }
        self.command("DATA", "354")?;
        self.line.send(&stuffed(message))?;
        Ok(to.len())
    }

    /// The replies to what was sent.
    pub fn finish(&mut self, n_replies: usize) -> Result<Vec<String>> {
        (0..n_replies).map(|_| self.reply()).collect()
    }

    /// Sends a line and wants a reply that begins so.
    pub fn command(&mut self, line: &str, want: &str) -> Result<String> {
        self.line.send(format!("{line}\r\n").as_bytes())?;
        let reply = self.reply()?;
        ensure!(reply.starts_with(want), "{line}: {reply}");
        Ok(reply)
    }

    /// The last line of the next reply.
    pub fn reply(&mut self) -> Result<String> {
        loop {
            let line = String::from_utf8_lossy(&self.line.line()?).into_owned();
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    fn expect(&mut self, want: &str) -> Result<()> {
        let reply = self.reply()?;
        ensure!(reply.starts_with(want), "expected {want}: {reply}");
        Ok(())
    }
}

/// A message that is in CRLF form already, with dots doubled and the final dot.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}
