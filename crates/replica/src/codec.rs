//! Bytes of entries, votes and log ids, in the journal and between nodes alike. An entry is encoded
//! once: what the journal keeps as `meta` is what a follower receives, and bodies stay beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use mailbox::chunk::Codec;
use mailbox::{ChunkRef, Digest, StoredChunk};

use crate::raft::{Entry, LeaderId, LogId, Member, Membership, Payload, Proposal};
use crate::raft::{StoredMembership, Vote};

/// Leader's term and id: the part of an entry's meta that recovery gives back without a read.
pub(crate) const ENTRY_HEAD_BYTES: usize = 16;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;
const CHUNK_BYTES: usize = 32 + 4 + 1 + 4;

/// Bytes from disk or from a peer were not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {0}")]
pub(crate) struct BadBytes(pub &'static str);

/// Reads from the front, never panicking on short input.
pub(crate) struct Reader(pub Bytes);

impl Reader {
    pub fn u8(&mut self) -> Result<u8, BadBytes> {
        self.0.try_get_u8().map_err(|_| BadBytes("u8"))
    }

    pub fn u32(&mut self) -> Result<u32, BadBytes> {
        self.0.try_get_u32().map_err(|_| BadBytes("u32"))
    }

    pub fn u64(&mut self) -> Result<u64, BadBytes> {
        self.0.try_get_u64().map_err(|_| BadBytes("u64"))
    }

    pub fn bytes(&mut self, len: usize) -> Result<Bytes, BadBytes> {
        if len > self.0.len() {
            return Err(BadBytes("bytes"));
        }
        Ok(self.0.split_to(len))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], BadBytes> {
        let mut array = [0; N];
        self.0.try_copy_to_slice(&mut array).map_err(|_| BadBytes("array"))?;
        Ok(array)
    }

    pub fn leader(&mut self) -> Result<LeaderId, BadBytes> {
        Ok(LeaderId { term: self.u64()?, node_id: self.u64()? })
    }

    pub fn log_id(&mut self) -> Result<LogId, BadBytes> {
        Ok(LogId { leader_id: self.leader()?, index: self.u64()? })
    }

    pub fn optional_log_id(&mut self) -> Result<Option<LogId>, BadBytes> {
        if self.u8()? == 0 { Ok(None) } else { self.log_id().map(Some) }
    }

    pub fn vote(&mut self) -> Result<Vote, BadBytes> {
        Ok(Vote { leader_id: self.leader()?, committed: self.u8()? != 0 })
    }

    pub fn optional_vote(&mut self) -> Result<Option<Vote>, BadBytes> {
        if self.u8()? == 0 { Ok(None) } else { self.vote().map(Some) }
    }
}

pub(crate) fn put_leader(out: &mut Vec<u8>, leader: &LeaderId) {
    out.put_u64(leader.term);
    out.put_u64(leader.node_id);
}

pub(crate) fn put_log_id(out: &mut Vec<u8>, log_id: &LogId) {
    put_leader(out, &log_id.leader_id);
    out.put_u64(log_id.index);
}

pub(crate) fn put_optional_log_id(out: &mut Vec<u8>, log_id: Option<&LogId>) {
    out.put_u8(u8::from(log_id.is_some()));
    if let Some(log_id) = log_id {
        put_log_id(out, log_id);
    }
}

pub(crate) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    put_leader(out, &vote.leader_id);
    out.put_u8(u8::from(vote.committed));
}

/// An entry's meta; its index is known beside it.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_leader(out, &entry.log_id.leader_id);
    match &entry.payload {
        Payload::Blank => out.put_u8(BLANK),
        Payload::Normal(proposal) => {
            out.put_u8(NORMAL);
            put_proposal(out, proposal);
        }
        Payload::Membership(membership) => {
            out.put_u8(MEMBERSHIP);
            put_membership(out, membership);
        }
    }
}

/// About how long the meta of an entry gets, so that its buffer is allocated once.
pub(crate) fn entry_meta_len(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(proposal) => {
            ENTRY_HEAD_BYTES + 5 + proposal.inline.len() * CHUNK_BYTES + proposal.command.len()
        }
        _ => 256,
    }
}

/// The bodies of an entry, in the order its meta lists them.
pub(crate) fn bodies(entry: &Entry) -> &[StoredChunk] {
    match &entry.payload {
        Payload::Normal(proposal) => &proposal.inline,
        _ => &[],
    }
}

/// Puts an entry together again from its meta and its bodies.
pub(crate) fn read_entry(
    index: u64,
    meta: Bytes,
    bodies: &mut dyn Iterator<Item = Bytes>,
) -> Result<Entry, BadBytes> {
    let mut reader = Reader(meta);
    let leader_id = reader.leader()?;
    let payload = match reader.u8()? {
        BLANK => Payload::Blank,
        NORMAL => Payload::Normal(read_proposal(reader, bodies)?),
        MEMBERSHIP => Payload::Membership(read_membership(reader.0)?),
        _ => return Err(BadBytes("kind of entry")),
    };
    Ok(Entry { log_id: LogId { leader_id, index }, payload })
}

/// The same from its meta alone; its bodies are empty, and it must go to nobody.
pub(crate) fn read_bare_entry(index: u64, meta: Bytes) -> Result<Entry, BadBytes> {
    let mut reader = Reader(meta.clone());
    let leader_id = reader.leader()?;
    if reader.u8()? != NORMAL {
        return read_entry(index, meta, &mut std::iter::empty());
    }
    let n_chunks = reader.u32()? as usize;
    if n_chunks > reader.0.len() / CHUNK_BYTES {
        return Err(BadBytes("chunk table"));
    }
    let mut inline = Vec::with_capacity(n_chunks);
    for _ in 0..n_chunks {
        let ChunkHead { chunk, codec, .. } = read_chunk_head(&mut reader)?;
        inline.push(StoredChunk { chunk, codec, bytes: Bytes::new() });
    }
    let payload = Payload::Normal(Proposal { command: reader.0, inline: Arc::from(inline) });
    Ok(Entry { log_id: LogId { leader_id, index }, payload })
}

fn put_proposal(out: &mut Vec<u8>, proposal: &Proposal) {
    out.put_u32(proposal.inline.len() as u32);
    for chunk in proposal.inline.iter() {
        put_chunk_head(out, chunk);
    }
    out.put_slice(&proposal.command);
}

fn read_proposal(
    mut reader: Reader,
    bodies: &mut dyn Iterator<Item = Bytes>,
) -> Result<Proposal, BadBytes> {
    let n_chunks = reader.u32()? as usize;
    if n_chunks > reader.0.len() / CHUNK_BYTES {
        return Err(BadBytes("chunk table"));
    }
    let mut inline = Vec::with_capacity(n_chunks);
    for _ in 0..n_chunks {
        let head = read_chunk_head(&mut reader)?;
        let bytes = bodies.next().ok_or(BadBytes("bodies"))?;
        inline.push(head.with(bytes)?);
    }
    Ok(Proposal { command: reader.0, inline: Arc::from(inline) })
}

/// What is known of a chunk before its bytes.
pub(crate) struct ChunkHead {
    pub chunk: ChunkRef,
    pub codec: Codec,
    pub len: u32,
}

impl ChunkHead {
    /// The chunk, if these bytes have its length.
    pub fn with(self, bytes: Bytes) -> Result<StoredChunk, BadBytes> {
        if bytes.len() != self.len as usize {
            return Err(BadBytes("body of another length"));
        }
        Ok(StoredChunk { chunk: self.chunk, codec: self.codec, bytes })
    }
}

pub(crate) fn put_chunk_head(out: &mut Vec<u8>, chunk: &StoredChunk) {
    out.put_slice(&chunk.chunk.digest.0);
    out.put_u32(chunk.chunk.raw_len);
    out.put_u8(chunk.codec as u8);
    out.put_u32(chunk.bytes.len() as u32);
}

pub(crate) fn read_chunk_head(reader: &mut Reader) -> Result<ChunkHead, BadBytes> {
    let chunk = ChunkRef { digest: Digest(reader.array()?), raw_len: reader.u32()? };
    let codec = read_codec(reader.u8()?)?;
    Ok(ChunkHead { chunk, codec, len: reader.u32()? })
}

pub(crate) fn read_codec(codec: u8) -> Result<Codec, BadBytes> {
    match codec {
        0 => Ok(Codec::Raw),
        1 => Ok(Codec::Zstd),
        _ => Err(BadBytes("codec of a chunk")),
    }
}

type MembershipParts = (Vec<Vec<u64>>, BTreeMap<u64, Member>);

fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let configs: Vec<Vec<u64>> =
        membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, Member> =
        membership.nodes().map(|(id, member)| (*id, member.clone())).collect();
    let parts: MembershipParts = (configs, nodes);
    minicbor::encode(&parts, out).expect("writing to a Vec does not fail");
}

fn read_membership(bytes: Bytes) -> Result<Membership, BadBytes> {
    let (configs, nodes): MembershipParts =
        minicbor::decode(&bytes).map_err(|_| BadBytes("membership"))?;
    let configs: Vec<BTreeSet<u64>> =
        configs.into_iter().map(|ids| ids.into_iter().collect()).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| BadBytes("membership"))
}

pub(crate) fn encode_stored_membership(stored: &StoredMembership) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    put_optional_log_id(&mut out, stored.log_id().as_ref());
    put_membership(&mut out, stored.membership());
    out
}

pub(crate) fn read_stored_membership(bytes: Bytes) -> Result<StoredMembership, BadBytes> {
    let mut reader = Reader(bytes);
    let log_id = reader.optional_log_id()?;
    Ok(StoredMembership::new(log_id, read_membership(reader.0)?))
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = Vec::with_capacity(17);
    put_vote(&mut out, vote);
    out.into()
}

pub(crate) fn encode_log_id(log_id: &LogId) -> Bytes {
    let mut out = Vec::with_capacity(24);
    put_log_id(&mut out, log_id);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were() {
        let leader_id = LeaderId { term: 7, node_id: 3 };
        let member = Member { node: "n1".into(), disk_id: [9; 16] };
        let members = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, member)]));
        let inline: Vec<StoredChunk> =
            [&b"one"[..], b"two!"].map(|raw| StoredChunk::raw(Bytes::from_static(raw))).into();
        let payloads = [
            Payload::Blank,
            Payload::Membership(members.unwrap()),
            Payload::Normal(Proposal { command: Bytes::from_static(b"c"), inline: inline.into() }),
        ];
        for payload in payloads {
            let entry = Entry { log_id: LogId { leader_id, index: 5 }, payload };
            let mut meta = Vec::new();
            put_entry(&mut meta, &entry);
            let mut parts = bodies(&entry).iter().map(|chunk| chunk.bytes.clone());
            assert_eq!(read_entry(5, meta.clone().into(), &mut parts), Ok(entry));
            for len in 0..meta.len().min(ENTRY_HEAD_BYTES + 1) {
                let cut = Bytes::copy_from_slice(&meta[..len]);
                assert!(read_entry(5, cut, &mut std::iter::empty()).is_err());
            }
        }
    }

    #[test]
    fn a_huge_chunk_count_is_refused() {
        let mut meta = vec![0; ENTRY_HEAD_BYTES];
        meta.extend([NORMAL, 0xff, 0xff, 0xff, 0xff]);
        assert!(read_entry(1, meta.into(), &mut std::iter::empty()).is_err());
    }
}
