//! What replicas of a group say to each other, as bytes. Bodies travel beside the meta, uncopied.

use bytes::{BufMut, Bytes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use crate::codec::{self, BadBytes, Reader};
use crate::raft::{LogId, Member, StoredMembership, Types, Vote};

/// Kinds of requests.
pub(crate) mod kind {
    pub const APPEND: u8 = 1;
    pub const VOTE: u8 = 2;
    pub const PRE_VOTE: u8 = 3;
    pub const TRANSFER: u8 = 4;
    pub const SNAPSHOT_BEGIN: u8 = 5;
    pub const SNAPSHOT_PIECE: u8 = 6;
    pub const SNAPSHOT_END: u8 = 7;
    pub const CHUNKS: u8 = 8;
    pub const CHUNK_LIST: u8 = 9;
    pub const SEEN: u8 = 10;
    /// An append without entries that says the leader lives.
    pub const HEARTBEAT: u8 = 11;
    /// What the sender saw of the receiver, which seems to have lost some of it.
    pub const LOST: u8 = 12;
    /// Whether the receiver can take leadership over now.
    pub const WOULD_LEAD: u8 = 13;
    /// One entry of the log, for who has the same one damaged.
    pub const ENTRY: u8 = 20;
    /// Digests at some indexes, to be compared.
    pub const COMPARE: u8 = 21;
    /// The asked replica's rows are not what those of the others are.
    pub const REBUILD: u8 = 22;
}

/// Whether requests of this kind carry much. The others are small and must not wait behind them:
/// heartbeats and votes.
pub fn is_bulk(kind: u8) -> bool {
    use kind::{COMPARE, HEARTBEAT, LOST, PRE_VOTE, REBUILD, SEEN, TRANSFER, VOTE, WOULD_LEAD};
    let is_small =
        matches!(kind, VOTE | PRE_VOTE | TRANSFER | SEEN | HEARTBEAT | LOST | WOULD_LEAD);
    !is_small && !matches!(kind, COMPARE | REBUILD)
}

/// Limit: more entries than a leader ever puts in one request.
const ENTRIES_MAX: usize = 65_536;

pub(crate) fn put_append(request: &AppendEntriesRequest<Types>) -> (Bytes, Vec<Bytes>) {
    let len: usize = request.entries.iter().map(codec::entry_meta_len).sum();
    let mut out = Vec::with_capacity(128 + len + 4 * request.entries.len());
    let mut bodies = Vec::new();
    codec::put_vote(&mut out, &request.vote);
    codec::put_optional_log_id(&mut out, request.prev_log_id.as_ref());
    codec::put_optional_log_id(&mut out, request.leader_commit.as_ref());
    out.put_u32(request.entries.len() as u32);
    for entry in &request.entries {
        let len_at = out.len();
        out.put_u32(0);
        codec::put_entry(&mut out, entry);
        let len = (out.len() - len_at - 4) as u32;
        out[len_at..len_at + 4].copy_from_slice(&len.to_be_bytes());
        bodies.extend(codec::bodies(entry).iter().map(|chunk| chunk.bytes.clone()));
    }
    (out.into(), bodies)
}

pub(crate) fn read_append(
    meta: Bytes,
    bodies: Vec<Bytes>,
) -> Result<AppendEntriesRequest<Types>, BadBytes> {
    let mut reader = Reader(meta);
    let vote = reader.vote()?;
    let prev_log_id = reader.optional_log_id()?;
    let leader_commit = reader.optional_log_id()?;
    let n_entries = reader.u32()? as usize;
    if n_entries > ENTRIES_MAX {
        return Err(BadBytes("number of entries"));
    }
    let first = prev_log_id.map_or(Some(0), |log_id| log_id.index.checked_add(1));
    let first = first.filter(|first| first.checked_add(n_entries as u64).is_some());
    let first = first.ok_or(BadBytes("index"))?;
    let mut bodies = bodies.into_iter();
    let mut entries = Vec::with_capacity(n_entries);
    for index in (first..).take(n_entries) {
        let len = reader.u32()? as usize;
        entries.push(codec::read_entry(index, reader.bytes(len)?, &mut bodies)?);
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(crate) fn put_append_response(response: &AppendEntriesResponse<Types>) -> Bytes {
    let mut out = Vec::with_capacity(32);
    match response {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(log_id) => {
            out.put_u8(1);
            codec::put_optional_log_id(&mut out, log_id.as_ref());
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            codec::put_vote(&mut out, vote);
        }
    }
    out.into()
}

pub(crate) fn read_append_response(meta: Bytes) -> Result<AppendEntriesResponse<Types>, BadBytes> {
    let mut reader = Reader(meta);
    Ok(match reader.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(reader.optional_log_id()?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(reader.vote()?),
        _ => return Err(BadBytes("append response")),
    })
}

pub(crate) fn put_vote_request(request: &VoteRequest<Types>) -> Bytes {
    let mut out = Vec::with_capacity(48);
    add_vote_request(&mut out, request);
    out.into()
}

fn add_vote_request(out: &mut Vec<u8>, request: &VoteRequest<Types>) {
    codec::put_vote(out, &request.vote);
    codec::put_optional_log_id(out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
}

pub(crate) fn read_vote_request(meta: Bytes) -> Result<VoteRequest<Types>, BadBytes> {
    next_vote_request(&mut Reader(meta))
}

fn next_vote_request(reader: &mut Reader) -> Result<VoteRequest<Types>, BadBytes> {
    let mut request = VoteRequest::new(reader.vote()?, reader.optional_log_id()?);
    request.leadership_transfer = reader.u8()? != 0;
    Ok(request)
}

/// Whether a vote would be given, and who asks: the asked one may not know the members of now.
pub(crate) fn put_pre_vote(request: &VoteRequest<Types>, asker: &Member) -> Bytes {
    let mut out = Vec::with_capacity(96);
    add_vote_request(&mut out, request);
    out.put_slice(&asker.disk_id);
    out.put_slice(asker.node.as_bytes());
    out.into()
}

/// An older build does not say who asks.
pub(crate) fn read_pre_vote(meta: Bytes) -> Result<(VoteRequest<Types>, Option<Member>), BadBytes> {
    let mut reader = Reader(meta);
    let request = next_vote_request(&mut reader)?;
    if reader.0.is_empty() {
        return Ok((request, None));
    }
    let disk_id = reader.array()?;
    let node = String::from_utf8(reader.0.into()).map_err(|_| BadBytes("name of a node"))?;
    Ok((request, Some(Member { node, disk_id })))
}

pub(crate) fn put_vote_response(response: &VoteResponse<Types>) -> Bytes {
    let mut out = Vec::with_capacity(48);
    codec::put_vote(&mut out, &response.vote);
    codec::put_optional_log_id(&mut out, response.last_log_id.as_ref());
    out.put_u8(u8::from(response.vote_granted));
    out.into()
}

pub(crate) fn read_vote_response(meta: Bytes) -> Result<VoteResponse<Types>, BadBytes> {
    let mut reader = Reader(meta);
    let vote = reader.vote()?;
    let last_log_id = reader.optional_log_id()?;
    Ok(VoteResponse::new(vote, last_log_id, reader.u8()? != 0))
}

pub(crate) fn put_transfer(request: &TransferLeaderRequest<Types>) -> Bytes {
    let mut out = Vec::with_capacity(64);
    codec::put_vote(&mut out, request.from_leader());
    out.put_u64(*request.to_node_id());
    codec::put_optional_log_id(&mut out, request.last_log_id());
    out.into()
}

pub(crate) fn read_transfer(meta: Bytes) -> Result<TransferLeaderRequest<Types>, BadBytes> {
    let mut reader = Reader(meta);
    let (vote, to) = (reader.vote()?, reader.u64()?);
    Ok(TransferLeaderRequest::new(vote, to, reader.optional_log_id()?))
}

/// What one replica saw of another: its highest vote, and how far its log was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub vote: Option<Vote>,
    pub log_id: Option<LogId>,
}

pub(crate) fn put_seen(seen: &Seen) -> Bytes {
    let mut out = Vec::with_capacity(48);
    add_seen(&mut out, seen);
    out.into()
}

fn add_seen(out: &mut Vec<u8>, seen: &Seen) {
    out.put_u8(u8::from(seen.vote.is_some()));
    if let Some(vote) = &seen.vote {
        codec::put_vote(out, vote);
    }
    codec::put_optional_log_id(out, seen.log_id.as_ref());
}

pub(crate) fn read_seen(meta: Bytes) -> Result<Seen, BadBytes> {
    next_seen(&mut Reader(meta))
}

fn next_seen(reader: &mut Reader) -> Result<Seen, BadBytes> {
    Ok(Seen { vote: reader.optional_vote()?, log_id: reader.optional_log_id()? })
}

/// The answer to [`kind::SEEN`]. Older builds end it after what was seen, or after their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenAnswer {
    /// What was seen of who asks,
    pub seen: Seen,
    /// what is to be seen of who answers,
    pub own: Seen,
    /// and who the members are, as far as that one knows.
    pub members: StoredMembership,
}

pub(crate) fn put_seen_answer(answer: &SeenAnswer) -> Bytes {
    let mut out = Vec::with_capacity(256);
    add_seen(&mut out, &answer.seen);
    add_seen(&mut out, &answer.own);
    out.put_slice(&codec::encode_stored_membership(&answer.members));
    out.into()
}

pub(crate) fn read_seen_answer(meta: Bytes) -> Result<SeenAnswer, BadBytes> {
    let mut reader = Reader(meta);
    let mut answer = SeenAnswer { seen: next_seen(&mut reader)?, ..SeenAnswer::default() };
    if !reader.0.is_empty() {
        answer.own = next_seen(&mut reader)?;
    }
    if !reader.0.is_empty() {
        answer.members = codec::read_stored_membership(reader.0)?;
    }
    Ok(answer)
}
