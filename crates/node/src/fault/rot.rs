//! Bits that turn over on a disk, as they do in old age: in sealed segments of the journal, which nobody
//! writes any more.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use replica::Disk;

/// Limit: bits turned over by one fault.
const BITS_MAX: u32 = 1_000;
/// How the names of segments end; they begin with the number, so that they sort.
const SEGMENT: &str = "seg";

/// Where a data directory keeps its journal.
pub(super) fn journal_of(data_dir: &Path) -> PathBuf {
    data_dir.join("disk").join("journal")
}

/// Seals what is written so far, and turns bits over in it; how many.
pub(super) fn turn(disk: &Disk, journal: &Path, n_bits: u32, seed: u64) -> io::Result<u32> {
    disk.journal().roll().map_err(io::Error::other)?;
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(journal)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == SEGMENT) {
            segments.push(path);
        }
    }
    segments.sort();
    // The last one is open.
    segments.pop();
    let mut sealed = Vec::new();
    for path in segments {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        sealed.push((file, size));
    }
    turn_in(&sealed, n_bits, seed)
}

fn turn_in(files: &[(File, u64)], n_bits: u32, seed: u64) -> io::Result<u32> {
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    if total == 0 {
        return Ok(0);
    }
    let n_bits = n_bits.min(BITS_MAX);
    // Each in a stretch of its own, so that no two can undo each other.
    let stretch = (total / u64::from(n_bits.max(1))).max(1);
    let (mut state, mut n_turned) = (seed, 0);
    for k in 0..u64::from(n_bits) {
        let mut at = k * stretch + next(&mut state) % stretch;
        if at >= total {
            break;
        }
        let mut of = files.iter();
        let file = loop {
            match of.next() {
                Some((file, size)) if at < *size => break file,
                Some((_, size)) => at -= size,
                None => return Ok(n_turned),
            }
        };
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << (next(&mut state) % 8);
        file.write_all_at(&byte, at)?;
        n_turned += 1;
    }
    Ok(n_turned)
}

/// SplitMix64: good enough to choose places.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
