//! A connection of one client: responses as they come, also with a look for what is there already, and
//! COMPRESS.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush};

pub struct Wire {
    stream: TcpStream,
    /// Read and not yet taken as responses.
    pending: Vec<u8>,
    zip: Option<Zip>,
}

impl Wire {
    pub fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, pending: Vec::new(), zip: None })
    }

    /// From here on both directions are compressed.
    pub fn compress(&mut self) {
        self.zip = Some(Zip::new());
    }

    pub fn send(&mut self, octets: &[u8]) -> Result<()> {
        match &mut self.zip {
            Some(zip) => self.stream.write_all(&zip.pack(octets))?,
            None => self.stream.write_all(octets)?,
        }
        Ok(())
    }

    /// The next response, `{}` for each literal; `None` if none is complete until then.
    pub fn response(&mut self, until: Instant) -> Result<Option<String>> {
        loop {
            if let Some((text, n_octets)) = first_response(&self.pending) {
                self.pending.drain(..n_octets);
                return Ok(Some(text));
            }
            let left = until.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut room = [0; 16 * 1024];
            match self.stream.read(&mut room) {
                Ok(0) => bail!("connection closed"),
                Ok(n) => match &mut self.zip {
                    Some(zip) => zip.unpack(&room[..n], &mut self.pending)?,
                    None => self.pending.extend_from_slice(&room[..n]),
                },
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A whole response at the start of these octets, and how many octets it has.
fn first_response(octets: &[u8]) -> Option<(String, usize)> {
    let (mut text, mut at) = (String::new(), 0);
    loop {
        let end = octets.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(&octets[at..at + end]).into_owned();
        at += end + 2;
        let literal = line.rfind('{').and_then(|brace| {
            let n = line[brace..].strip_prefix('{')?.strip_suffix('}')?;
            Some((brace, n.parse::<usize>().ok()?))
        });
        let Some((brace, n)) = literal else {
            text.push_str(&line);
            return Some((text, at));
        };
        text.push_str(&line[..brace]);
        text.push_str("{}");
        at += n;
    }
}

struct Zip {
    compressor: Box<CompressorOxide>,
    inflater: Box<InflateState>,
}

impl Zip {
    fn new() -> Self {
        let level = CompressionLevel::DefaultLevel;
        let compressor = CompressorOxide::with_format_and_level(DataFormat::Raw, level);
        let inflater = InflateState::new_boxed(DataFormat::Raw);
        Self { compressor: Box::new(compressor), inflater }
    }

    fn pack(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut packed = vec![0; 2 * octets.len() + 1000];
        let (_, _, n) = compress(&mut self.compressor, octets, &mut packed, TDEFLFlush::Sync);
        packed.truncate(n);
        packed
    }

    fn unpack(&mut self, mut packed: &[u8], to: &mut Vec<u8>) -> Result<()> {
        let mut room = vec![0; 1 << 16];
        loop {
            let done = inflate(&mut self.inflater, packed, &mut room, MZFlush::None);
            packed = &packed[done.bytes_consumed..];
            to.extend_from_slice(&room[..done.bytes_written]);
            if packed.is_empty() && done.bytes_written < room.len() {
                return Ok(());
            }
            if let Err(error) = done.status {
                bail!("what the server compressed cannot be read: {error:?}");
            }
        }
    }
}
