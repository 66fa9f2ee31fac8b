//! Where the copies of a chunk lie, and whether they are good: for who has to know.

use journal::Pointer;
use mailbox::{Digest, LogTime};

use crate::chunks;
use crate::error::ProposeError;
use crate::replica::Replica;
use crate::view;

/// One chunk on one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where it lies on the disk; `None`: this replica has none.
    pub place: Option<Pointer>,
    /// Its bytes were read and are what its digest says.
    pub is_good: bool,
    /// When scrub last verified that place; `None`: not since it was written there.
    pub verified_at: Option<LogTime>,
}

impl Replica {
    /// How these chunks are here, each read and verified now: on a thread that may block.
    pub fn copies(&self, digests: &[Digest]) -> Result<Vec<Copy>, ProposeError> {
        let core = self.core()?;
        let store = core.applying.store();
        let (disk, owner) = (&core.claim.disk, core.owner());
        let copy = |digest: &Digest| {
            // Why first: a place that is wrong may be put right by it.
            let stored = view::read_local(disk, owner, &store, digest);
            let is_good = stored.and_then(|stored| chunks::right(disk, &store, stored)).is_some();
            let place = store.locate(digest).ok().flatten();
            let verified_at = place.and_then(|place| disk.verified_at(place));
            Copy { place, is_good, verified_at }
        };
        Ok(digests.iter().map(copy).collect())
    }
}
