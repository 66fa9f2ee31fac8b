//! The beginning of each segment: what is known of every replica, so that older segments may go.
//!
//! It is written twice, one copy after the other, because after the deletion of older segments a
//! vote may exist nowhere else.

use crate::codec::{Put, Take};
use crate::record::{DiskId, ReplicaId, SegmentId};
use crate::state::{ReplicaState, State};

/// Copies of the manifest at the beginning of a segment.
pub(crate) const COPIES: usize = 2;

const BORN: u8 = 1;
const DEAD: u8 = 2;
const SUSPECT: u8 = 4;
const VOTE: u8 = 8;
const FLOOR: u8 = 16;
const LAST: u8 = 32;
const COMMITTED: u8 = 64;

#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub disk: DiskId,
    pub start_count: u64,
    /// Log records before this segment are not needed.
    pub log_start: SegmentId,
    pub state: State,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut put = Put::default();
        put.raw(&self.disk.0);
        put.u64(self.start_count);
        put.u64(self.log_start.0);
        put.u32(self.state.replicas.len() as u32);
        for (id, replica) in &self.state.replicas {
            put.u64(id.0);
            encode_replica(replica, &mut put);
        }
        put.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut take = Take(bytes);
        let disk = DiskId(take.array()?);
        let start_count = take.u64()?;
        let log_start = SegmentId(take.u64()?);
        let mut state = State::default();
        for _ in 0..take.u32()? {
            let id = ReplicaId(take.u64()?);
            state.replicas.insert(id, decode_replica(&mut take)?);
        }
        take.0.is_empty().then_some(Self { disk, start_count, log_start, state })
    }
}

fn encode_replica(replica: &ReplicaState, put: &mut Put) {
    let flags = [
        (BORN, replica.born.is_some()),
        (DEAD, replica.dead),
        (SUSPECT, replica.suspect),
        (VOTE, replica.vote.is_some()),
        (FLOOR, replica.floor.is_some()),
        (LAST, replica.last_index.is_some()),
        (COMMITTED, replica.committed.is_some()),
    ];
    put.u8(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum());
    for string in [&replica.born, &replica.vote, &replica.committed].into_iter().flatten() {
        put.string(string);
    }
    if let Some((index, meta)) = &replica.floor {
        put.u64(*index);
        put.string(meta);
    }
    if let Some(index) = replica.last_index {
        put.u64(index);
    }
}

fn decode_replica(take: &mut Take<'_>) -> Option<ReplicaState> {
    let flags = take.u8()?;
    let has = |flag| flags & flag != 0;
    let mut replica = ReplicaState { dead: has(DEAD), suspect: has(SUSPECT), ..Default::default() };
    if has(BORN) {
        replica.born = Some(take.string()?);
    }
    if has(VOTE) {
        replica.vote = Some(take.string()?);
    }
    if has(COMMITTED) {
        replica.committed = Some(take.string()?);
    }
    if has(FLOOR) {
        replica.floor = Some((take.u64()?, take.string()?));
    }
    if has(LAST) {
        replica.last_index = Some(take.u64()?);
    }
    Some(replica)
}
