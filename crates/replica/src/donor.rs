//! Entries of the log that rotted here, from whoever has the same ones.

use api::peer::{PeerError, PeerResponse};
use bytes::Bytes;
use journal::Pointer;

use crate::codec::{self, Reader};
use crate::core::Core;
use crate::handler::{bad, refused};
use crate::network::Network;
use crate::raft::{Entry, LogId, Payload};
use crate::view;
use crate::wire::kind;

/// Asks the members this replica knows of. It works before openraft does, which reads the log when
/// it begins.
pub(crate) struct Donor {
    pub network: Network,
}

impl Donor {
    /// Exactly this entry from a peer, all its bodies verified. Two entries with one log id are one
    /// entry, whoever has it.
    pub async fn entry(&self, log_id: LogId) -> Option<Entry> {
        let applying = self.network.applying.upgrade()?;
        let membership = applying.store().applied().membership;
        let members: Vec<_> =
            membership.membership().nodes().map(|(id, member)| (*id, member.clone())).collect();
        drop(applying);
        for (id, member) in members.iter().filter(|(id, _)| *id != self.network.replica) {
            let peer = self.network.peer(*id, member);
            let meta = codec::encode_log_id(&log_id);
            let answer = peer.call(kind::ENTRY, meta, Vec::new(), peer.patience()).await;
            let entry = answer.ok().and_then(|answer| read(log_id, answer));
            if entry.is_some() {
                tracing::warn!(
                    replica = self.network.replica,
                    index = log_id.index,
                    from = id,
                    "entry is damaged here and came from a peer"
                );
                return entry;
            }
        }
        None
    }

    /// Something in the log did not read back.
    pub fn found_damage(&self, pointer: Pointer) {
        if let Some(applying) = self.network.applying.upgrade() {
            applying.local.disk.found_damage(pointer.segment, pointer.offset);
        }
    }
}

fn read(log_id: LogId, answer: PeerResponse) -> Option<Entry> {
    let mut bodies = answer.bodies.into_iter();
    let entry = codec::read_entry(log_id.index, answer.meta, &mut bodies).ok()?;
    (entry.log_id == log_id && is_whole(&entry)).then_some(entry)
}

/// Whether its bodies are what their names say.
fn is_whole(entry: &Entry) -> bool {
    match &entry.payload {
        Payload::Normal(proposal) => proposal.inline.iter().all(|chunk| view::raw(chunk).is_some()),
        _ => true,
    }
}

impl Core {
    /// Answers a request for an entry.
    pub async fn serve_entry(&self, meta: Bytes) -> Result<PeerResponse, PeerError> {
        let log_id = Reader(meta).log_id().map_err(bad)?;
        let entry = self.applying.log.exactly(log_id).await.filter(is_whole);
        let entry = entry.ok_or_else(|| refused("no such entry here"))?;
        let mut meta = Vec::with_capacity(codec::entry_meta_len(&entry));
        codec::put_entry(&mut meta, &entry);
        let bodies = codec::bodies(&entry).iter().map(|chunk| chunk.bytes.clone()).collect();
        Ok(PeerResponse { meta: meta.into(), bodies })
    }
}
