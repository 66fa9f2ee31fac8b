//! A server that plays a part, for tests of clients.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use super::line::Endpoint;

/// Greets each connection, one after the other, and answers its lines; `None` ends the connection.
pub(crate) fn serve(
    greeting: &'static str,
    mut answer: impl FnMut(&str) -> Option<String> + Send + 'static,
) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.write_all(greeting.as_bytes()).expect("it listens");
            let lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
            for line in lines {
                let Some(words) = line.ok().and_then(|line| answer(&line)) else { break };
                if stream.write_all(words.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    Endpoint::plain(&address)
}

/// An IMAP server: what it answers to a command, of which it is given the words without the tag. Lines before
/// the last end in CRLF; the last gets the tag.
pub(crate) fn serve_imap(
    mut answer: impl FnMut(&str) -> Option<String> + Send + 'static,
) -> Endpoint {
    serve("* OK ready\r\n", move |line| {
        let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
        if command.starts_with("LOGIN ") {
            return Some(format!("{tag} OK\r\n"));
        }
        let words = answer(command)?;
        let (untagged, last) = words.rsplit_once("\r\n").unwrap_or(("", words.as_str()));
        let end = if untagged.is_empty() { "" } else { "\r\n" };
        Some(format!("{untagged}{end}{tag} {last}\r\n"))
    })
}
