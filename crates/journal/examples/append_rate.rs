//! How many 20 kB appends a second a disk takes, with one writer and with sixteen, and how long a
//! start takes afterwards: `cargo run --release -p journal --example append_rate -- DIRECTORY`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Blob, DiskId, Error, Journal, Options, RealStorage, Record, ReplicaId};

const BODY_BYTES: usize = 20_000;
const TIME: Duration = Duration::from_secs(3);

fn main() -> Result<(), Error> {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("append_rate DIRECTORY (a new one)");
        std::process::exit(2);
    };
    let path = Path::new(&directory);
    Journal::format(&storage(path), DiskId([1; 16]))?;
    for n_writers in [1, 16] {
        let (journal, _) = Journal::open(Arc::new(storage(path)), Options::default())?;
        let began = Instant::now();
        let n_appends: u64 = std::thread::scope(|scope| {
            let write = |replica| {
                scope.spawn({
                    let journal = &journal;
                    move || write(journal, replica)
                })
            };
            let threads: Vec<_> = (0..n_writers).map(write).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
        });
        let usage = journal.usage()?;
        let rate = n_appends as f64 / began.elapsed().as_secs_f64();
        let per_sync = n_appends as f64 / usage.n_syncs as f64;
        println!("{n_writers:2} writers: {rate:.0} appends/s, {per_sync:.1} to a sync");
        drop(journal);
        let began = Instant::now();
        let (journal, _) = Journal::open(Arc::new(storage(path)), Options::default())?;
        let (open_ms, usage) = (began.elapsed().as_millis(), journal.usage()?);
        println!("            start over {} MB: {open_ms} ms", usage.n_bytes / 1_000_000);
    }
    Ok(())
}

fn storage(path: &Path) -> RealStorage {
    match RealStorage::open(path) {
        Ok(storage) => storage,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            std::process::exit(1);
        }
    }
}

fn write(journal: &Journal, replica: u64) -> u64 {
    let bytes = Bytes::from(vec![replica as u8; BODY_BYTES]);
    let began = Instant::now();
    let mut n_appends = 0;
    while began.elapsed() < TIME {
        let digest = [replica as u8; 32];
        let nonce = None;
        let blob = Blob { digest, codec: 0, raw_len: 0, key_id: 0, nonce, bytes: bytes.clone() };
        let record = Record::Append {
            replica: ReplicaId(replica),
            index: n_appends,
            meta: Bytes::from_static(&[0; 300]),
            blobs: vec![blob],
        };
        if journal.append_wait(vec![record]).is_err() {
            break;
        }
        n_appends += 1;
    }
    n_appends
}
