//! The meta group's state machine as a replica runs it.

use mailbox::{ChunkRef, Digest, Rows, Source};
use replica::{LATER_BUILD, Machine, MachineApplied};

use crate::meta::{self, Entry};

/// Responses are encoded [`meta::Outcome`]s. It keeps no bodies and tells of no mailboxes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MetaMachine;

impl Machine for MetaMachine {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], _inline: &[ChunkRef]) -> MachineApplied {
        // Why no refusal: the leader understood it before it proposed it, and did it.
        let entry = mailbox::codec::decode::<Entry>(command);
        let entry = entry.unwrap_or_else(|error| panic!("{LATER_BUILD}: {error}"));
        let outcome = meta::apply(rows, &entry);
        MachineApplied { response: mailbox::codec::encode(&outcome), changes: Vec::new() }
    }

    fn is_chunk_live(&self, _rows: &dyn Source, _digest: &Digest) -> bool {
        false
    }
}
