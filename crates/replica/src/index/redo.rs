//! Batches, kept in a file of their own before they go into the engine row by row: so readers never wait for
//! a whole batch, and a process that is killed finishes at its next start what the engine had only begun or
//! had only in memory.
//!
//! Never synced: a power cut that takes it leaves an index that misses its digest and is built anew.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};

use super::{Batch, IndexError};
use crate::codec::{BadBytes, Reader};

const REMOVAL: u32 = u32::MAX;
const DIGEST_BYTES: usize = 32;
/// Limit: octets kept until the engine hands all it has to the operating system; a start after a kill
/// puts so many in again.
const KEPT_BYTES_MAX: u64 = 4 << 20;

/// The file of one index.
pub(super) struct Redo {
    path: PathBuf,
    /// Open while batches are kept.
    file: Option<File>,
    n_bytes: u64,
}

impl Redo {
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("redo"), file: None, n_bytes: 0 }
    }

    /// Keeps a batch until [`Redo::clear`].
    pub fn keep(&mut self, batch: &Batch) -> Result<(), IndexError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::create(&self.path).map_err(failed)?),
        };
        let frame = encode(batch);
        file.write_all(&frame).map_err(failed)?;
        self.n_bytes += frame.len() as u64;
        Ok(())
    }

    /// Whether the engine should hand over what it has, so that this may be cleared.
    pub fn is_full(&self) -> bool {
        self.n_bytes > KEPT_BYTES_MAX
    }

    /// The operating system has all batches as a whole.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        self.file = None;
        self.n_bytes = 0;
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// What was kept and not cleared, in order. Nothing of a batch that was not kept whole is in the engine.
    pub fn left(&self) -> Result<Vec<Batch>, IndexError> {
        let mut bytes = match std::fs::read(&self.path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Bytes::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            match decode(&mut bytes) {
                Ok(batch) => batches.push(batch),
                Err(BadBytes(_)) => break,
            }
        }
        Ok(batches)
    }
}

fn encode(batch: &Batch) -> Vec<u8> {
    let row_bytes = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
        key.len() + value.as_ref().map_or(0, Vec::len) + 8
    };
    let n_bytes = batch.iter().map(row_bytes).sum::<usize>();
    let mut out = Vec::with_capacity(4 + n_bytes + DIGEST_BYTES);
    out.put_u32(n_bytes as u32);
    for (key, value) in batch {
        out.put_u32(key.len() as u32);
        out.put_slice(key);
        match value {
            Some(value) => {
                out.put_u32(value.len() as u32);
                out.put_slice(value);
            }
            None => out.put_u32(REMOVAL),
        }
    }
    let digest = blake3::hash(&out);
    out.put_slice(digest.as_bytes());
    out
}

/// Takes one batch off the front.
fn decode(bytes: &mut Bytes) -> Result<Batch, BadBytes> {
    let len = bytes.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize);
    let n_bytes = len.map_or(usize::MAX, |len| 4 + len + DIGEST_BYTES);
    if n_bytes > bytes.len() {
        return Err(BadBytes("a redo file"));
    }
    let mut rows = bytes.split_to(n_bytes);
    let digest = rows.split_off(n_bytes - DIGEST_BYTES);
    if blake3::hash(&rows).as_bytes() != &digest[..] {
        return Err(BadBytes("a redo file"));
    }
    let mut reader = Reader(rows.split_off(4));
    let mut batch = Batch::new();
    while !reader.0.is_empty() {
        let key_len = reader.u32()? as usize;
        let key = reader.bytes(key_len)?.to_vec();
        let value = match reader.u32()? {
            REMOVAL => None,
            len => Some(reader.bytes(len as usize)?.to_vec()),
        };
        batch.push((key, value));
    }
    Ok(batch)
}

fn failed(error: std::io::Error) -> IndexError {
    IndexError(format!("redo: {error}"))
}
