//! What a replica applies: the mailbox shard, or the meta group.

use mailbox::{Change, ChunkRef, Digest, Entry, LogTime, Rows, Source};

/// A deterministic state machine over rows. Replicas that applied the same commands hold the same
/// rows, byte for byte. One that does not know a command panics: its replica stops there, and goes on when
/// a build is started that knows it.
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

/// What is said of a command that this build does not know.
pub const LATER_BUILD: &str =
    "the log has an entry of a later build: run that build on this node too";

/// The mailbox state machine; responses are encoded [`mailbox::Outcome`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct MailMachine;

impl Machine for MailMachine {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        // Why no refusal: the leader understood it before it proposed it, and did it.
        let entry = mailbox::codec::decode::<Entry>(command);
        let entry = entry.unwrap_or_else(|error| panic!("{LATER_BUILD}: {error}"));
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

    /// As a refusal it would make other rows than the leader has, who did it.
    #[test]
    #[should_panic(expected = "an entry of a later build")]
    fn a_command_of_a_later_build_is_not_passed_over() {
        let rows = std::collections::BTreeMap::new();
        let mut rows = Rows::new(&rows, mailbox::RowDigest::default());
        MailMachine.apply(&mut rows, &stamp(LogTime(9), &[0x84, 0xf6, 1, 1, 9]), &[]);
    }

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
