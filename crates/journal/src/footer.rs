//! The end of a sealed segment: the list of the bodies in it, and a trailer that finds the list
//! from the end of the file.

use crc32c::crc32c;

use crate::codec::{Put, Take};
use crate::record::{Location, Pointer, ReplicaId, SegmentId};

/// Length of the trailer.
pub(crate) const TRAILER: usize = 16;
const TRAILER_MAGIC: [u8; 4] = *b"RKft";
/// Bytes per body in a footer.
pub(crate) const ENTRY: u64 = 52;

/// What a footer of `n` bodies takes, frame head and trailer included.
pub(crate) fn disk_len(n: usize) -> u64 {
    (crate::frame::FRAME_HEAD + 4 + TRAILER) as u64 + n as u64 * ENTRY
}

pub(crate) fn encode(locations: &[Location]) -> Vec<u8> {
    let mut put = Put::default();
    put.u32(locations.len() as u32);
    for location in locations {
        put.u64(location.replica.0);
        put.raw(&location.digest);
        put.u64(location.pointer.offset);
        put.u32(location.pointer.len);
    }
    put.0
}

pub(crate) fn decode(bytes: &[u8], segment: SegmentId) -> Option<Vec<Location>> {
    let mut take = Take(bytes);
    let n = take.u32()?;
    let mut locations = Vec::new();
    for _ in 0..n {
        locations.push(Location {
            replica: ReplicaId(take.u64()?),
            digest: take.array()?,
            pointer: Pointer { segment, offset: take.u64()?, len: take.u32()? },
        });
    }
    take.0.is_empty().then_some(locations)
}

/// The last bytes of a sealed segment.
pub(crate) fn trailer(footer_offset: u64) -> [u8; TRAILER] {
    let mut put = Put::default();
    put.raw(&TRAILER_MAGIC);
    put.u64(footer_offset);
    put.u32(crc32c(&put.0));
    put.0.try_into().expect("the fields above are 16 bytes")
}

/// Where the footer begins, if these are the last bytes of a sealed segment.
pub(crate) fn from_trailer(bytes: &[u8]) -> Option<u64> {
    let mut take = Take(bytes);
    let is_whole = take.array()? == TRAILER_MAGIC;
    let offset = take.u64()?;
    (is_whole && take.u32()? == crc32c(&bytes[..TRAILER - 4])).then_some(offset)
}
