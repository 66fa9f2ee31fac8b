//! What a process of the cluster shows over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};

use crate::demo::Demo;

/// The body of a page.
pub fn page(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{path}: {}", text.lines().next().unwrap_or(""));
    Ok(text)
}

/// A metric without labels, summed over these processes.
pub fn metric(demo: &Demo, processes: &[&str], name: &str) -> Result<u64> {
    let mut sum = 0;
    for process in processes {
        let text = page(&demo.at(process, "http")?, "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        sum += line.with_context(|| format!("{process} has no {name}"))?.parse::<u64>()?;
    }
    Ok(sum)
}
