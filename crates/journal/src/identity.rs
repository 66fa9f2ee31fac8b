//! Who this disk is, how often it was started, and whether it failed for good.
//!
//! Three small files beside the segments: `disk` is written once, `start` at each start, and
//! `poisoned` when a write or sync failed. `start` has two slots written in turn, in place: a
//! start must succeed on a full disk, and a torn slot leaves the other.

use std::io::{self, IoSlice};

use crc32c::crc32c;

use crate::codec::{Put, Take};
use crate::error::Error;
use crate::record::DiskId;
use crate::storage::{Storage, StorageFile, is_unreadable};

const DISK: &str = "disk";
const START: &str = "start";
const POISONED: &str = "poisoned";
const DISK_MAGIC: [u8; 8] = *b"RKdisk01";
const START_MAGIC: [u8; 8] = *b"RKstrt01";
/// Distance of the start counter's slots: they never share a sector.
const SLOT: u64 = 512;
/// Longest reason read back from a marker.
const REASON_MAX: usize = 400;

/// Gives an empty directory its identity.
pub(crate) fn format(storage: &dyn Storage, disk: DiskId) -> Result<(), Error> {
    let names = storage.list().map_err(Error::io("list"))?;
    if names.iter().any(|name| is_ours(name)) {
        return Err(Error::NotEmpty);
    }
    create_start(storage).map_err(Error::io("write the start counter"))?;
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
    let disk = match read_small(storage, DISK, DISK_MAGIC) {
        Err(error) if is_unreadable(&error) => None,
        disk => disk.map_err(Error::io("read the disk id"))?,
    };
    let disk = disk.ok_or_else(|| bad("disk id"))?;
    let slots = read_slots(storage).map_err(Error::io("read the start counter"))?;
    let start = slots.into_iter().flatten().max().ok_or_else(|| bad("start counter"))?;
    let disk = DiskId(disk.try_into().map_err(|_| bad("disk id"))?);
    Ok((disk, start))
}

fn create_start(storage: &dyn Storage) -> io::Result<()> {
    if storage.list()?.iter().any(|name| name == START) {
        storage.unlink(START)?;
    }
    let file = storage.create(START)?;
    file.write_at(0, &[IoSlice::new(&[0; 2 * SLOT as usize])])?;
    file.write_at(0, &[IoSlice::new(&slot(0))])?;
    // Durability: slot and name, before the identity that makes them count.
    file.sync_data()?;
    storage.sync_dir()
}

/// Makes this start the disk's `count`-th.
pub(crate) fn write_start(storage: &dyn Storage, count: u64) -> io::Result<()> {
    let file = storage.open(START)?;
    file.write_at(count % 2 * SLOT, &[IoSlice::new(&slot(count))])?;
    // Durability: the slot of the start before is untouched until this one is synced.
    file.sync_data()
}

fn slot(count: u64) -> Vec<u8> {
    let mut put = Put::default();
    put.raw(&START_MAGIC);
    put.u64(count);
    put.u32(crc32c(&put.0));
    put.0
}

/// What both slots say; an error only if the file cannot be opened.
fn read_slots(storage: &dyn Storage) -> io::Result<[Option<u64>; 2]> {
    let file = match storage.open(START) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok([None; 2]),
        file => file?,
    };
    Ok([0, SLOT].map(|at| read_slot(&*file, at)))
}

fn read_slot(file: &dyn StorageFile, at: u64) -> Option<u64> {
    let mut bytes = [0; 20];
    let n = file.read_at(at, &mut bytes).ok()?;
    let mut take = Take(&bytes[..n]);
    let (magic, count, crc) = (take.array::<8>()?, take.u64()?, take.u32()?);
    (magic == START_MAGIC && crc == crc32c(&bytes[..16])).then_some(count)
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

fn read_small(storage: &dyn Storage, name: &str, magic: [u8; 8]) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; 256];
    let n = storage.open(name)?.read_at(0, &mut bytes)?;
    bytes.truncate(n);
    Ok(content_of(&bytes, magic))
}

fn content_of(bytes: &[u8], magic: [u8; 8]) -> Option<Vec<u8>> {
    let (content, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let mut take = Take(content);
    if crc32c(content).to_le_bytes() != crc || take.array()? != magic {
        return None;
    }
    take.string().map(|string| string.to_vec())
}
