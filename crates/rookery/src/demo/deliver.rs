//! Hands a message to the demo by LMTP.

use anyhow::{Context as _, Result};
use drill::client::lmtp::Lmtp;

/// Delivers one message; gives the reply for each recipient in order.
pub async fn deliver(address: &str, message: &[u8], to: &[String]) -> Result<Vec<String>> {
    let (address, message, to) = (address.to_owned(), crlf(message), to.to_vec());
    let delivering = tokio::task::spawn_blocking(move || {
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let replies = Lmtp::connect(&address)?.transaction(&to, &message);
        replies.with_context(|| format!("deliver at {address}"))
    });
    delivering.await.context("deliver")?
}

/// The message with CRLF line ends, as LMTP carries it.
fn crlf(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32 + 2);
    let body = message.strip_suffix(b"\n").unwrap_or(message);
    for line in body.split(|byte| *byte == b'\n') {
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::crlf;

    #[test]
    fn every_line_ends_with_crlf() {
        assert_eq!(crlf(b"a\n.b\r\n"), b"a\r\n.b\r\n");
        assert_eq!(crlf(b".\n"), b".\r\n");
        assert_eq!(crlf(b"a"), b"a\r\n");
    }
}
