//! How fast one core verifies a journal at rest: every checksum, and the digest of every body as a
//! replica takes it. `cargo run --release -p journal --example scrub_rate -- DIRECTORY`; the directory
//! is a new one, and its files are in the page cache when they are verified.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use journal::{Blob, DiskId, Error, Journal, Options, RealStorage, Record, ReplicaId};
use zstd::bulk::Decompressor;

const N_BYTES: usize = 384 << 20;
const STEP_BYTES: u64 = 1 << 20;
/// One body: a small message, and a chunk of a large one.
const BODY_BYTES: [usize; 2] = [20_000, 256 << 10];
const ZSTD: u8 = 1;

fn main() -> Result<(), Error> {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("scrub_rate DIRECTORY (a new one)");
        std::process::exit(2);
    };
    for body_bytes in BODY_BYTES {
        for is_text in [false, true] {
            let dir = Path::new(&directory).join(format!("{body_bytes}-{is_text}"));
            let (crc, digest, ratio) = run(&dir, body_bytes, is_text)?;
            let kind = if is_text { "text, zstd" } else { "as they are" };
            println!(
                "bodies of {:3} kB, {kind}: {crc:.0} MB/s by checksum, {digest:.0} MB/s by digest too, \
                 which are {:.0} MB/s of mail",
                body_bytes / 1000,
                digest * ratio
            );
        }
    }
    Ok(())
}

/// MB/s of files on one core, the best of three passes: checksums alone, and digests too; and how many
/// bytes of mail are in one of a file.
fn run(dir: &Path, body_bytes: usize, is_text: bool) -> Result<(f64, f64, f64), Error> {
    let storage = match RealStorage::open(dir) {
        Ok(storage) => Arc::new(storage),
        Err(error) => {
            eprintln!("{}: {error}", dir.display());
            std::process::exit(1);
        }
    };
    Journal::format(&*storage, DiskId([1; 16]))?;
    let (journal, _) = Journal::open(storage, Options::default())?;
    let mut state = 88_172_645_463_325_252u64;
    let (mut written, mut mail) = (0, 0);
    while written < N_BYTES {
        let mut blobs: Vec<Blob> = Vec::new();
        while blobs.iter().map(|blob| blob.bytes.len()).sum::<usize>() < 1 << 20 {
            blobs.push(blob(&raw(&mut state, body_bytes, is_text), is_text));
        }
        written += blobs.iter().map(|blob| blob.bytes.len()).sum::<usize>();
        mail += blobs.len() * body_bytes;
        journal.append_wait(vec![Record::Blobs { replica: ReplicaId(1), blobs }])?;
    }
    let crc = rate(&journal, &|_| true)?;
    let decompressor = RefCell::new(Decompressor::new().unwrap_or_default());
    let digest = rate(&journal, &|blob| is_right(&mut decompressor.borrow_mut(), blob))?;
    Ok((crc, digest, mail as f64 / written as f64))
}

fn rate(journal: &Journal, is_right: &dyn Fn(&Blob) -> bool) -> Result<f64, Error> {
    let mut best: f64 = 0.0;
    for _ in 0..3 {
        let (began, mut n_bytes) = (Instant::now(), 0);
        loop {
            let step = journal.scrub_step(STEP_BYTES, is_right)?;
            assert!(step.damaged.is_empty(), "{:?}", step.damaged);
            n_bytes += step.n_bytes;
            if step.oldest_unverified.is_none() {
                break;
            }
        }
        best = best.max(n_bytes as f64 / 1e6 / began.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// As a replica does it, which keeps a context for each thread too.
fn is_right(decompressor: &mut Decompressor<'_>, blob: &Blob) -> bool {
    let raw = match blob.codec {
        ZSTD => decompressor.decompress(&blob.bytes, blob.raw_len as usize).map(Bytes::from).ok(),
        _ => Some(blob.bytes.clone()),
    };
    raw.is_some_and(|raw| *blake3::hash(&raw).as_bytes() == blob.digest)
}

fn raw(state: &mut u64, len: usize, is_text: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        match is_text {
            // Words of a large vocabulary, which zstd halves as it does with mail.
            true => bytes.extend_from_slice(format!("{:x} ", *state % 60_000).as_bytes()),
            false => bytes.extend_from_slice(&state.to_le_bytes()),
        }
    }
    bytes.truncate(len);
    bytes
}

fn blob(raw: &[u8], is_text: bool) -> Blob {
    let bytes = match is_text {
        true => zstd::bulk::compress(raw, 3).unwrap_or_default(),
        false => raw.to_vec(),
    };
    Blob {
        digest: *blake3::hash(raw).as_bytes(),
        codec: u8::from(is_text) * ZSTD,
        raw_len: raw.len() as u32,
        key_id: 0,
        nonce: None,
        bytes: Bytes::from(bytes),
    }
}
