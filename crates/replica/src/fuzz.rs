//! The doors for hostile input: checkpoint files, log entries and messages of peers, read behind their
//! checksums. Damage by chance never comes this far; what does must still not panic or allocate what a
//! number says.

use std::cell::OnceCell;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::checkpoint::{Head, Part};
use crate::store::Applied;
use crate::{codec, wire};

thread_local! {
    static FILE: OnceCell<PathBuf> = const { OnceCell::new() };
}

const HASH_BYTES: usize = 32;
/// Magic, first index, and the length of what follows.
const HEAD_BYTES: usize = 20;

/// Reads an input as everything a checkpoint, an entry or a peer's message may be.
pub fn read(input: &Bytes) {
    // What is none of these is refused.
    let _ = Applied::decode(input.clone());
    let bodies = [Bytes::from_static(b"body"), Bytes::new()];
    let _ = codec::read_entry(1, input.clone(), &mut bodies.iter().cloned());
    let _ = wire::read_append(input.clone(), bodies.to_vec());
    let _ = wire::read_append_response(input.clone());
    let _ = wire::read_vote_request(input.clone());
    let _ = wire::read_pre_vote(input.clone());
    let _ = wire::read_vote_response(input.clone());
    let _ = wire::read_transfer(input.clone());
    let _ = wire::read_seen(input.clone());
    file(&sealed(input.to_vec()));
    if let Some(head) = head(input) {
        let rows = zstd::bulk::compress(&input[head..], 1).unwrap_or_default();
        file(&sealed([&input[..head], &rows, &[0; HASH_BYTES]].concat()));
    }
}

/// Where the rows begin.
fn head(input: &[u8]) -> Option<usize> {
    let len = input.get(16..HEAD_BYTES)?.try_into().map(u32::from_be_bytes).ok()?;
    let end = HEAD_BYTES.checked_add(len as usize)?.checked_add(4)?;
    (end <= input.len()).then_some(end)
}

/// The input with checksums that are right.
fn sealed(mut input: Vec<u8>) -> Vec<u8> {
    if let Some(end) = head(&input) {
        let crc = crc32c::crc32c(&input[..end - 4]);
        input[end - 4..end].copy_from_slice(&crc.to_be_bytes());
    }
    if let Some(hashed) = input.len().checked_sub(HASH_BYTES) {
        let hash = *blake3::hash(&input[..hashed]).as_bytes();
        input[hashed..].copy_from_slice(&hash);
    }
    input
}

/// Opens and reads it as a checkpoint file.
fn file(bytes: &[u8]) {
    FILE.with(|path| {
        let name = || {
            let thread = std::thread::current().id();
            std::env::temp_dir().join(format!("rookery-{}-{thread:?}.ckpt", std::process::id()))
        };
        let path = path.get_or_init(name);
        // A place that cannot be written shows nothing, and says so.
        let mut file = std::fs::File::create(path).expect("a file for the input");
        file.write_all(bytes).expect("the input is written");
        if let Ok(part) = Part::open(path)
            && part.verify().is_ok()
            && let Ok(rows) = part.rows()
        {
            for row in rows {
                if row.is_err() {
                    break;
                }
            }
        }
        // One that stays is written over by the next input.
        let _ = std::fs::remove_file(path);
    });
}

/// A small whole checkpoint file, and one whose rows are not compressed, for the seeds.
pub fn seeds() -> std::io::Result<Vec<Vec<u8>>> {
    // Why a number each: threads that ask at the same time would remove each other's directory.
    static N_ASKED: AtomicU64 = AtomicU64::new(0);
    let n = N_ASKED.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("rookery-seeds-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let row = |n: u8| -> std::io::Result<_> { Ok((vec![6, n], (n != 3).then(|| vec![n; 20]))) };
    let mut rows = (0..5).map(row);
    let head = Head { from: 0, applied: Applied::default() };
    let part = Part::write(&dir, &head, &mut rows)?;
    let file = std::fs::read(&part.path)?;
    let at = self::head(&file).unwrap_or(file.len());
    let raw: Vec<u8> =
        [&file[..at], &[0, 0, 0, 1, 0, 0, 0, 2, 6, 7, 8, 255, 255, 255, 255]].concat();
    std::fs::remove_dir_all(&dir)?;
    Ok(vec![file, raw])
}
