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
        self.command("MAIL FROM:<sender@example.test>", "250")?;
        for recipient in to {
            self.command(&format!("RCPT TO:<{recipient}>"), "250")?;
        }
        self.command("DATA", "354")?;
        self.line.send(&stuffed(message))?;
        to.iter().map(|_| self.reply()).collect()
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
