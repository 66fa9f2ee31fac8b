//! A small IMAP client: tags, literals, and nothing it does not need.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::line::{Endpoint, Line};

/// One IMAP session.
pub struct Imap {
    line: Line,
    n_tags: u32,
}

/// One response: its text with literals cut out, and the literals.
#[derive(Debug, Clone)]
pub struct Response {
    /// The line; a literal stands in it as `{}`.
    pub text: String,
    /// In order.
    pub literals: Vec<Vec<u8>>,
}

impl Imap {
    /// Connects and logs in.
    pub fn login(address: &str, user: &str, password: &str) -> Result<Self> {
        Self::open(&Endpoint::plain(address), user, password)
    }

    /// The same, inside TLS or not.
    pub fn open(endpoint: &Endpoint, user: &str, password: &str) -> Result<Self> {
        let mut imap = Self { line: Line::open(endpoint)?, n_tags: 0 };
        let greeting = imap.response()?;
        ensure!(greeting.text.starts_with("* OK"), "greeting: {}", greeting.text);
        imap.ok(&format!("LOGIN {} {}", quoted(user), quoted(password)))?;
        Ok(imap)
    }

    /// Changes how long a read waits.
    pub fn set_deadline(&mut self, deadline: Duration) -> Result<()> {
        self.line.set_deadline(deadline)
    }

    /// Ends an IDLE that was begun with [`Imap::start`].
    pub fn done(&mut self, tag: &str) -> Result<Vec<Response>> {
        self.line.send(b"DONE\r\n")?;
        self.finish(tag)
    }

    /// Runs a command that must end with OK; gives the untagged responses and the tagged one last.
    pub fn ok(&mut self, command: &str) -> Result<Vec<Response>> {
        let responses = self.run(command)?;
        let last = responses.last().context("no response")?;
        ensure!(
            status(&last.text) == "OK",
            "{}: {}",
            command.get(..40).unwrap_or(command),
            last.text
        );
        Ok(responses)
    }

    /// Runs a command; gives the untagged responses and the tagged one last.
    pub fn run(&mut self, command: &str) -> Result<Vec<Response>> {
        let tag = self.start(command)?;
        self.finish(&tag)
    }

    /// Sends a command without waiting; gives its tag.
    pub fn start(&mut self, command: &str) -> Result<String> {
        self.n_tags += 1;
        let tag = format!("t{}", self.n_tags);
        self.line.send(format!("{tag} {command}\r\n").as_bytes())?;
        Ok(tag)
    }

    /// Reads up to the tagged response.
    pub fn finish(&mut self, tag: &str) -> Result<Vec<Response>> {
        let mut all = Vec::new();
        loop {
            let response = self.response()?;
            let done = response.text.starts_with(&format!("{tag} "));
            all.push(response);
            if done {
                return Ok(all);
            }
        }
    }

    /// APPEND with a literal, in exactly these octets.
    pub fn append(&mut self, mailbox: &str, message: &[u8]) -> Result<()> {
        let last = self.append_flagged(mailbox, "", message)?;
        ensure!(status(&last.text) == "OK", "APPEND: {}", last.text);
        Ok(())
    }

    /// The same with flags, separated by spaces; gives the tagged response, whatever it says.
    pub fn append_flagged(
        &mut self,
        mailbox: &str,
        flags: &str,
        message: &[u8],
    ) -> Result<Response> {
        let tag = self.start(&format!("APPEND \"{mailbox}\" ({flags}) {{{}}}", message.len()))?;
        loop {
            let response = self.response()?;
            if response.text.starts_with(&format!("{tag} ")) {
                return Ok(response);
            }
            if response.text.starts_with('+') {
                break;
            }
        }
        self.line.send(message)?;
        self.line.send(b"\r\n")?;
        self.finish(&tag)?.pop().context("no response")
    }

    /// The whole octets of a message.
    pub fn fetch_body(&mut self, uid: u32) -> Result<Vec<u8>> {
        let responses = self.ok(&format!("UID FETCH {uid} (BODY.PEEK[])"))?;
        let found = responses.into_iter().find_map(|response| response.literals.into_iter().next());
        found.with_context(|| format!("no body of UID {uid}"))
    }

    /// Octets received so far.
    pub fn n_received(&self) -> u64 {
        self.line.n_received()
    }

    /// Ends an IDLE that was begun with [`Imap::start`].
    pub fn end_idle(&mut self, tag: &str) -> Result<Vec<Response>> {
        self.line.send(b"DONE\r\n")?;
        self.finish(tag)
    }

    /// All UIDs of the selected mailbox.
    pub fn uids(&mut self) -> Result<Vec<u32>> {
        let responses = self.ok("UID SEARCH ALL")?;
        let line = responses.iter().find(|response| response.text.starts_with("* SEARCH"));
        let line = line.context("no SEARCH response")?;
        line.text["* SEARCH".len()..].split_whitespace().map(|uid| Ok(uid.parse()?)).collect()
    }

    /// IDLE until a response for which `wanted` holds; ends the IDLE.
    pub fn idle_until(&mut self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let tag = self.start("IDLE")?;
        loop {
            let response = self.response()?;
            if response.text.starts_with(&format!("{tag} ")) {
                bail!("IDLE ended: {}", response.text);
            }
            if wanted(&response.text) {
                break;
            }
        }
        self.done(&tag).map(|_| ())
    }

    /// The next response, literals included.
    pub fn response(&mut self) -> Result<Response> {
        let mut response = Response { text: String::new(), literals: Vec::new() };
        loop {
            let line = self.line.line()?;
            let text = String::from_utf8_lossy(&line).into_owned();
            let literal = text.rfind('{').and_then(|at| {
                let n = text[at..].strip_prefix('{')?.strip_suffix('}')?;
                Some((at, n.parse::<usize>().ok()?))
            });
            let Some((at, n)) = literal else {
                response.text.push_str(&text);
                return Ok(response);
            };
            response.text.push_str(&text[..at]);
            response.text.push_str("{}");
            response.literals.push(self.line.octets(n)?);
        }
    }
}

/// RFC 9051 4.3: a quoted string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// OK, NO or BAD of a tagged response.
pub fn status(tagged: &str) -> &str {
    tagged.split(' ').nth(1).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_password_may_hold_quotes() {
        assert_eq!(quoted("secret"), "\"secret\"");
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
