//! Who this disk is, how often it was started, and whether it failed for good.
//!
//! Three small files beside the segments: `disk` is written once, `start` at each start, and
//! `poisoned` when a write or sync failed.

use std::io::{self, IoSlice};

use crc32c::crc32c;

use crate::codec::{Put, Take};
use crate::error::Error;
use crate::record::DiskId;
use crate::storage::Storage;

const DISK: &str = "disk";
const START: &str = "start";
const POISONED: &str = "poisoned";
const DISK_MAGIC: [u8; 8] = *b"RKdisk01";
const START_MAGIC: [u8; 8] = *b"RKstrt01";
/// Longest reason read back from a marker.
const REASON_MAX: usize = 400;

/// Gives an empty directory its identity.
pub(crate) fn format(storage: &dyn Storage, disk: DiskId) -> Result<(), Error> {
    let names = storage.list().map_err(Error::io("list"))?;
    if names.iter().any(|name| is_ours(name)) {
        return Err(Error::NotEmpty);
    }
    write_start(storage, 0).map_err(Error::io("write the start counter"))?;
    // Durability: the counter is on the disk before the identity, so an identity without a
    // counter is damage and never a fresh disk.
    write_small(storage, DISK, DISK_MAGIC, &disk.0).map_err(Error::io("write the disk id"))
}

fn is_ours(name: &str) -> bool {
    name == DISK || name == POISONED || name.ends_with(".seg")
}

/// Reads the identity and the start counter, whose files must both be whole.
pub(crate) fn load(storage: &dyn Storage) -> Result<(DiskId, u64), Error> {
    let names = storage.list().map_err(Error::io("list"))?;
    if !names.iter().any(|name| name == DISK) {
        return Err(Error::NotFormatted);
    }
    let bad = |reason: &str| Error::BadIdentity { reason: reason.to_owned() };
    let disk = read_small(storage, DISK, DISK_MAGIC).ok_or_else(|| bad("disk id"))?;
    let start = read_small(storage, START, START_MAGIC).ok_or_else(|| bad("start counter"))?;
    let disk = DiskId(disk.try_into().map_err(|_| bad("disk id"))?);
    let start = Take(&start).u64().ok_or_else(|| bad("start counter"))?;
    Ok((disk, start))
}

pub(crate) fn write_start(storage: &dyn Storage, count: u64) -> io::Result<()> {
    write_small(storage, START, START_MAGIC, &count.to_le_bytes())
}

/// The reason this disk must not be used, if one was left behind.
pub(crate) fn poison_reason(storage: &dyn Storage) -> Option<String> {
    let names = storage.list().ok()?;
    names.iter().find(|name| *name == POISONED)?;
    let mut reason = vec![0; REASON_MAX];
    let n = storage.open(POISONED).and_then(|file| file.read_at(0, &mut reason)).unwrap_or(0);
    reason.truncate(n);
    Some(String::from_utf8_lossy(&reason).into_owned())
}

/// Leaves the marker behind as well as a failing disk allows.
pub(crate) fn write_poison(storage: &dyn Storage, reason: &str) {
    let write = || -> io::Result<()> {
        let file = storage.create(POISONED)?;
        // Durability: the name alone is the marker, so the directory is synced even if the
        // reason could not be written.
        let written = file.write_at(0, &[IoSlice::new(reason.as_bytes())]);
        let synced = written.and_then(|()| file.sync_data());
        storage.sync_dir()?;
        synced
    };
    if let Err(error) = write() {
        tracing::error!(%error, "poison marker not written whole");
    }
}

fn write_small(
    storage: &dyn Storage,
    name: &str,
    magic: [u8; 8],
    content: &[u8],
) -> io::Result<()> {
    let mut put = Put::default();
    put.raw(&magic);
    put.string(content);
    put.u32(crc32c(&put.0));
    let temporary = format!("{name}.tmp");
    if storage.list()?.contains(&temporary) {
        storage.unlink(&temporary)?;
    }
    let file = storage.create(&temporary)?;
    file.write_at(0, &[IoSlice::new(&put.0)])?;
    // Durability: contents before the name, the name before this returns.
    file.sync_data()?;
    storage.rename(&temporary, name)?;
    storage.sync_dir()
}

fn read_small(storage: &dyn Storage, name: &str, magic: [u8; 8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 256];
    let n = storage.open(name).ok()?.read_at(0, &mut bytes).ok()?;
    bytes.truncate(n);
    let (content, crc) = bytes.split_at_checked(n.checked_sub(4)?)?;
    let mut take = Take(content);
    if crc32c(content).to_le_bytes() != crc || take.array()? != magic {
        return None;
    }
    take.string().map(|string| string.to_vec())
}
