//! Settings of a journal, and its limits.

use std::time::Duration;

/// Recovery gives back this much of each entry's meta. Limit: a log id (term, node, index) fits.
pub const ENTRY_HEAD_BYTES: usize = 48;
/// Largest request on disk. Limit: one upload entry with its chunks, eight times over; half a
/// segment is the other bound.
pub const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// Largest payload of one frame, which is what one sync covers.
pub const FRAME_BYTES_MAX: u64 = 16 << 20;
/// Bodies in one record. Limit: the field on disk has 16 bits.
pub const RECORD_BLOBS_MAX: usize = 60_000;
/// Open segment files kept for readers. Limit: a fraction of the usual 1,024 descriptors.
pub const OPEN_FILES_MAX: usize = 128;

/// Settings of a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of a segment. Raise this when sealing shows in the write latency.
    pub segment_bytes: u64,
    /// Bytes that may wait for the writer. Raise this when `Overloaded` is seen on a fast disk.
    pub queue_bytes: u64,
    /// Free space below which [`SpaceLevel::Soft`](crate::SpaceLevel::Soft) is told: refuse growth
    /// above the journal.
    pub soft_free_bytes: u64,
    /// Free space that bodies never use: checkpoints and garbage collection need it.
    pub hard_free_bytes: u64,
    /// Preallocated segments that only records without bodies may use on a full disk.
    pub reserve_segments: usize,
    /// A journal idle for so long appends a mark.
    pub mark_after: Duration,
    /// A journal idle for so long after its mark appends another one, to see whether the disk lives.
    pub probe_after: Duration,
    /// A segment with less than this share of a full one alive is copied forward, in percent; where less
    /// than a fifth of the disk is free, one that is more alive too.
    pub collect_below_percent: u64,
    /// Bodies asked about before a collection stops, to go on from there the next time: each costs reads of
    /// an index that is mostly not in memory.
    pub collect_looks_max: usize,
    /// A sync that takes so long does not keep the next frame waiting. Raise this when several syncs at
    /// once make each of them slower.
    pub overlap_from: Duration,
    /// Run a writer thread. Without one, the owner calls [`Journal::pump`](crate::Journal::pump):
    /// for simulations on one thread.
    pub threaded: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            soft_free_bytes: 1 << 30,
            hard_free_bytes: 256 << 20,
            reserve_segments: 2,
            mark_after: Duration::from_millis(200),
            probe_after: Duration::from_secs(10),
            collect_below_percent: 25,
            collect_looks_max: 500_000,
            overlap_from: Duration::from_millis(1),
            threaded: true,
        }
    }
}
