//! A small LMTP client (RFC 2033).

use std::time::Duration;

use anyhow::{Result, ensure};

use super::line::{Endpoint, Line};

/// One LMTP session.
pub struct Lmtp {
    line: Line,
}

impl Lmtp {
    /// Connects and says LHLO.
    pub fn connect(address: &str) -> Result<Self> {
        Self::open(&Endpoint::plain(address))
    }

    /// The same, inside TLS or not.
    pub fn open(endpoint: &Endpoint) -> Result<Self> {
        let mut lmtp = Self { line: Line::open(endpoint)? };
        lmtp.expect("220")?;
        lmtp.command("LHLO localhost", "250")?;
        Ok(lmtp)
    }

    /// Changes how long a read waits.
    pub fn set_deadline(&mut self, deadline: Duration) -> Result<()> {
        self.line.set_deadline(deadline)
    }

    /// One transaction; a reply for each recipient in order, that to DATA's end, or the one that
    /// refused it earlier. A transaction that ended early is reset.
    pub fn transaction(&mut self, to: &[&str], message: &[u8]) -> Result<Vec<String>> {
        self.command("MAIL FROM:<>", "250")?;
        let mut replies = Vec::with_capacity(to.len());
        for recipient in to {
            self.line.send(format!("RCPT TO:<{recipient}>\r\n").as_bytes())?;
            replies.push(self.reply()?);
        }
        if !replies.iter().any(|reply| reply.starts_with('2')) {
            self.command("RSET", "250")?;
            return Ok(replies);
        }
        self.command("DATA", "354")?;
        self.line.send(&stuffed(message))?;
        for slot in replies.iter_mut().filter(|reply| reply.starts_with('2')) {
            *slot = self.reply()?;
        }
        Ok(replies)
    }

    /// Connects to an MTA and says EHLO.
    pub fn connect_to_smtp(address: &str) -> Result<Self> {
        let mut smtp = Self { line: Line::connect(address)? };
        smtp.expect("220")?;
        smtp.command("EHLO tests.example.test", "250")?;
        Ok(smtp)
    }

    /// Hands a message to an MTA, which has one reply for all recipients.
    pub fn deliver_as_smtp(&mut self, to: &[&str], message: &[u8]) -> Result<String> {
        self.command("MAIL FROM:<sender@example.test>", "250")?;
        for recipient in to {
            self.command(&format!("RCPT TO:<{recipient}>"), "250")?;
        }
        self.command("DATA", "354")?;
        self.line.send(&stuffed(message))?;
        self.reply()
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
