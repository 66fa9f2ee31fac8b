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
        let (replies, done) = self.answered(to, message);
        done.map(|()| replies.into_iter().flatten().collect())
    }

    /// The same; those that were answered before it failed have their replies (RFC 2033 4.2).
    pub fn answered(&mut self, to: &[&str], message: &[u8]) -> (Vec<Option<String>>, Result<()>) {
        let mut replies = vec![None; to.len()];
        let done = self.transact(to, message, &mut replies);
        (replies, done)
    }

    fn transact(
        &mut self,
        to: &[&str],
        message: &[u8],
        replies: &mut [Option<String>],
    ) -> Result<()> {
        self.command("MAIL FROM:<>", "250")?;
        let mut accepted = Vec::with_capacity(to.len());
        for (recipient, slot) in to.iter().zip(replies) {
            self.line.send(format!("RCPT TO:<{recipient}>\r\n").as_bytes())?;
            let reply = self.reply()?;
            match reply.starts_with('2') {
                true => accepted.push(slot),
                false => *slot = Some(reply),
            }
        }
        if accepted.is_empty() {
            return self.command("RSET", "250").map(drop);
        }
        self.command("DATA", "354")?;
        self.line.send(&stuffed(message))?;
        for slot in accepted {
            *slot = Some(self.reply()?);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::is_lost;
    use crate::client::script::serve;

    /// Two recipients, of which a second one with another name is refused; the replies to the message.
    fn server(replies: &'static str) -> Lmtp {
        let mut has_begun = false;
        let endpoint = serve("220 ready\r\n", move |line| {
            let begins = |words: &str| line.starts_with(words);
            if begins("DATA") {
                has_begun = true;
                return Some("354 go on\r\n".into());
            }
            Some(match has_begun {
                true if line == "." => replies.into(),
                true if line == "text" => String::new(),
                // Whoever says more than the message after it is sent away.
                true => return None,
                false if begins("RCPT TO:<nobody>") => "550 no\r\n".into(),
                false => "250 fine\r\n".into(),
            })
        });
        Lmtp::open(&endpoint).expect("a session")
    }

    #[test]
    fn replies_are_those_of_each_recipient_in_order() {
        let mut lmtp = server("250 first\r\n452 second\r\n");
        let replies = lmtp.transaction(&["anna", "nobody", "otto"], b"text\r\n");
        assert_eq!(replies.expect("it was answered"), ["250 first", "550 no", "452 second"]);
        let refused = server("").transaction(&["nobody"], b"text\r\n");
        assert_eq!(refused.expect("it was answered"), ["550 no"]);
    }

    #[test]
    fn a_reply_that_came_before_the_connection_broke_counts() {
        let mut lmtp = server("250 first\r\n");
        lmtp.set_deadline(Duration::from_millis(200)).expect("a socket");
        let (replies, done) = lmtp.answered(&["anna", "nobody", "otto"], b"text\r\n");
        let told = |words: &str| Some(words.to_owned());
        assert_eq!(replies, [told("250 first"), told("550 no"), None]);
        assert!(is_lost(&done.expect_err("one reply is missing")));
    }
}
