//! The meta group's state machine as a replica runs it.

use mailbox::{ChunkRef, Digest, Rows, Source};
use replica::{Machine, MachineApplied};

use crate::meta::{self, Entry, Outcome};

/// Responses are encoded [`Outcome`]s. It keeps no bodies and tells of no mailboxes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MetaMachine;

impl Machine for MetaMachine {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], _inline: &[ChunkRef]) -> MachineApplied {
        let outcome = match mailbox::codec::decode::<Entry>(command) {
            Ok(entry) => meta::apply(rows, &entry),
            // Why an outcome: all replicas must agree that nothing was done, and go on.
            Err(_) => Outcome::Refused("undecodable command".into()),
        };
        MachineApplied { response: mailbox::codec::encode(&outcome), changes: Vec::new() }
    }

    fn is_chunk_live(&self, _rows: &dyn Source, _digest: &Digest) -> bool {
        false
    }
}
