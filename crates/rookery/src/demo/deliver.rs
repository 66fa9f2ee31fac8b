//! A small LMTP client, enough to hand a message to the demo.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Longest wait for all replies of one delivery.
const DEADLINE: Duration = Duration::from_secs(30);

/// Delivers one message; gives the reply for each recipient in order.
pub async fn deliver(address: &str, message: &[u8], to: &[String]) -> Result<Vec<String>> {
    tokio::time::timeout(DEADLINE, transaction(address, message, to))
        .await
        .context("no reply in time")?
}

async fn transaction(address: &str, message: &[u8], to: &[String]) -> Result<Vec<String>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connect {address}"))?;
    let mut client = BufReader::new(stream);
    expect(&mut client, "greeting").await?;
    command(&mut client, "LHLO localhost").await?;
    command(&mut client, "MAIL FROM:<>").await?;
    let mut replies = Vec::with_capacity(to.len());
    for recipient in to {
        client.write_all(format!("RCPT TO:<{recipient}>\r\n").as_bytes()).await?;
        replies.push(reply(&mut client).await?);
    }
    if !replies.iter().any(|reply| reply.starts_with('2')) {
        return Ok(replies);
    }
    client.write_all(b"DATA\r\n").await?;
    expect(&mut client, "DATA").await?;
    client.write_all(&stuffed(message)).await?;
    for slot in replies.iter_mut().filter(|reply| reply.starts_with('2')) {
        *slot = reply(&mut client).await?;
    }
    client.write_all(b"QUIT\r\n").await?;
    Ok(replies)
}

async fn command(client: &mut BufReader<TcpStream>, line: &str) -> Result<()> {
    client.write_all(format!("{line}\r\n").as_bytes()).await?;
    expect(client, line).await
}

async fn expect(client: &mut BufReader<TcpStream>, what: &str) -> Result<()> {
    let reply = reply(client).await?;
    match reply.as_bytes().first() {
        Some(b'2' | b'3') => Ok(()),
        _ => bail!("{what}: {reply}"),
    }
}

/// The last line of a reply.
async fn reply(client: &mut BufReader<TcpStream>) -> Result<String> {
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            bail!("connection closed");
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line.trim_end().to_owned());
        }
    }
}

/// The message with CRLF line ends, leading dots doubled, and the final dot.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32 + 8);
    let body = message.strip_suffix(b"\n").unwrap_or(message);
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::stuffed;

    #[test]
    fn a_message_is_stuffed_and_ends_with_one_dot() {
        assert_eq!(stuffed(b"a\n.b\r\n"), b"a\r\n..b\r\n.\r\n");
        assert_eq!(stuffed(b".\n"), b"..\r\n.\r\n");
    }
}
