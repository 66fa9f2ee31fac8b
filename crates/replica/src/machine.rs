//! What a replica applies: the mailbox shard, or the meta group.

use mailbox::{Change, ChunkRef, Digest, Entry, LogTime, Outcome, Refusal, Rows, Source};

/// A deterministic state machine over rows. Replicas that applied the same commands hold the same
/// rows, byte for byte.
pub trait Machine: Send + Sync + 'static {
    /// Applies one command: the CBOR pair of the leader's [`LogTime`] and the bytes that were
    /// proposed, which for a mailbox shard is an encoded [`Entry`]. `inline` are the chunks that
    /// travelled beside it.
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied;

    /// Whether a row refers to the chunk. A chunk of which this is false may be removed.
    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool;
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineApplied {
    /// For the one who proposed it.
    pub response: Vec<u8>,
    /// For those who watch.
    pub changes: Vec<Change>,
}

/// The mailbox state machine; responses are encoded [`Outcome`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct MailMachine;

impl Machine for MailMachine {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        let Ok(entry) = mailbox::codec::decode::<Entry>(command) else {
            // Why an outcome: all replicas must agree that nothing was done, and go on.
            let refusal = Outcome::Refused(Refusal::Limit("undecodable command".into()));
            let response = mailbox::codec::encode(&refusal);
            return MachineApplied { response, changes: Vec::new() };
        };
        let applied = mailbox::apply(rows, &entry, inline);
        let response = mailbox::codec::encode(&applied.outcome);
        MachineApplied { response, changes: applied.changes }
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        mailbox::is_chunk_live(rows, digest)
    }
}

/// Bytes before the proposed ones in a command.
const TIME_BYTES: usize = 10;

/// Puts the leader's time before what was proposed: the CBOR array of both.
pub(crate) fn stamp(time: LogTime, proposed: &[u8]) -> Vec<u8> {
    let mut command = Vec::with_capacity(TIME_BYTES + proposed.len());
    command.extend_from_slice(&[0x82, 0x1b]);
    command.extend_from_slice(&time.0.to_be_bytes());
    command.extend_from_slice(proposed);
    command
}

#[cfg(test)]
mod tests {
    use mailbox::{Command, Request, SessionId};

    use super::*;

    #[test]
    fn a_stamped_request_is_an_encoded_entry() {
        let request = Request {
            session: None,
            sequence: 1,
            lowest_unanswered: 1,
            expires: LogTime(9),
            command: Command::OpenSession(SessionId([7; 16])),
        };
        for time in [LogTime(0), LogTime(23), LogTime(u64::MAX)] {
            let command = stamp(time, &mailbox::codec::encode(&request));
            let entry = Entry { time, request: request.clone() };
            assert_eq!(mailbox::codec::decode::<Entry>(&command), Ok(entry));
        }
    }
}
