//! What can go wrong, as far as a caller acts differently on it.

use std::io;

use crate::record::SegmentId;
use crate::storage::is_disk_dead;

/// A refusal or failure of the journal.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The queue is full: wait for room ([`Journal::when_room`](crate::Journal::when_room)).
    #[error("the journal's queue is full")]
    Overloaded,
    /// The request exceeds [`REQUEST_BYTES_MAX`](crate::REQUEST_BYTES_MAX) or half a segment.
    #[error("a request of {size_bytes} bytes is too large for the journal")]
    TooLarge {
        /// Its size on disk.
        size_bytes: u64,
    },
    /// No space for this kind of record, or no file descriptor. Nothing was written and nothing is lost.
    #[error("the disk is full, or the process has too many files open")]
    Full,
    /// The disk failed once and is never trusted again.
    #[error("the disk is poisoned: {reason}")]
    Poisoned {
        /// What failed first.
        reason: String,
    },
    /// Stored bytes do not match their checksum: repair from a peer.
    #[error("segment {segment} is damaged at {offset}")]
    Corrupt {
        /// Where.
        segment: SegmentId,
        /// Where in it.
        offset: u64,
    },
    /// No such segment (any more): look the digest up again.
    #[error("segment {segment} is not there")]
    Missing {
        /// Which.
        segment: SegmentId,
    },
    /// The directory was never formatted.
    #[error("not formatted: no disk identity here")]
    NotFormatted,
    /// The directory holds a journal already, or something else.
    #[error("not empty: refuse to format")]
    NotEmpty,
    /// The identity or its start counter cannot be read.
    #[error("the disk's identity is damaged: {reason}")]
    BadIdentity {
        /// Why.
        reason: String,
    },
    /// A read or directory operation failed; no data was at stake.
    #[error("{doing}: {reason}")]
    Io {
        /// A bare verb and its object.
        doing: &'static str,
        /// The system's words.
        reason: String,
    },
    /// The same, and the disk itself is why.
    #[error("{doing}: {reason}")]
    Device {
        /// A bare verb and its object.
        doing: &'static str,
        /// The system's words.
        reason: String,
    },
    /// The journal is shutting down.
    #[error("the journal is closed")]
    Closed,
}

impl Error {
    /// What a file operation failed of.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let reason = error.to_string();
            if is_disk_dead(&error) {
                Self::Device { doing, reason }
            } else {
                Self::Io { doing, reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_dead_disk_is_told_from_a_process_with_too_many_files_open() {
        let failed = |errno: Errno| Error::io("list")(errno.into());
        for errno in [Errno::IO, Errno::ROFS, Errno::NXIO, Errno::NODEV, Errno::UCLEAN] {
            assert!(matches!(failed(errno), Error::Device { .. }), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::ACCESS, Errno::NOENT] {
            assert!(matches!(failed(errno), Error::Io { .. }), "{errno}");
        }
    }
}
