//! A batch, kept in a file of its own while it goes into the engine row by row: so readers never wait for
//! a whole batch, and a process that is killed in the middle of one finishes it at the next start.
//!
//! Never synced: a power cut that takes it leaves an index that misses its digest and is built anew.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};

use super::{Batch, IndexError};
use crate::codec::{BadBytes, Reader};

const REMOVAL: u32 = u32::MAX;
const DIGEST_BYTES: usize = 32;

/// The file of one index.
pub(super) struct Redo {
    path: PathBuf,
}

impl Redo {
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("redo") }
    }

    /// Keeps a batch until [`Redo::clear`].
    pub fn keep(&self, batch: &Batch) -> Result<(), IndexError> {
        std::fs::write(&self.path, encode(batch)).map_err(failed)
    }

    /// The batch is in the engine as a whole.
    pub fn clear(&self) -> Result<(), IndexError> {
        std::fs::remove_file(&self.path).map_err(failed)
    }

    /// What was kept and not cleared. Nothing of a batch that was not kept whole is in the engine.
    pub fn left(&self) -> Result<Option<Batch>, IndexError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(decode(bytes.into()).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

fn encode(batch: &Batch) -> Vec<u8> {
    let row_bytes = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
        key.len() + value.as_ref().map_or(0, Vec::len) + 8
    };
    let n_bytes = batch.iter().map(row_bytes).sum::<usize>();
    let mut out = Vec::with_capacity(n_bytes + DIGEST_BYTES);
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

fn decode(mut bytes: Bytes) -> Result<Batch, BadBytes> {
    let digest_at = bytes.len().checked_sub(DIGEST_BYTES).ok_or(BadBytes("a redo file"))?;
    let digest = bytes.split_off(digest_at);
    if blake3::hash(&bytes).as_bytes() != &digest[..] {
        return Err(BadBytes("a redo file"));
    }
    let mut reader = Reader(bytes);
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
