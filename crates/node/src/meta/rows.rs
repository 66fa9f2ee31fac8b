//! The rows of the meta group: one for the cluster, one for each node, shard and setting, one for each
//! disk that left, and one for how much each disk is known to have.

use api::placement::{ClusterId, DiskId, Node, Placement, Shard};
use mailbox::{Rows, ShardId, Source, codec};
use minicbor::{Decode, Encode};

const CLUSTER: &[u8] = b"cluster";
const SLOTS: &[u8] = b"slots";
const NODE: &[u8] = b"node/";
const SHARD: &[u8] = b"shard/";
const SETTING: &[u8] = b"setting/";
const LEFT: &[u8] = b"left/";
const MARK: &[u8] = b"mark/";

/// The cluster itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Cluster {
    #[n(0)]
    pub id: ClusterId,
    /// Raised by every change.
    #[n(1)]
    pub version: u64,
    /// The next replica's id; everything below was given out.
    #[n(2)]
    pub next_replica: u64,
    /// The next shard's id; everything below was given out.
    #[n(3)]
    pub next_shard: u32,
    /// What `next_replica` was whenever the majority was lost. `None` before, so that the row is as ever.
    #[n(4)]
    pub lost_ids: Option<Vec<u64>>,
}

/// The whole placement; `None` before the cluster was formed.
pub fn placement(rows: &dyn Source) -> Option<Placement> {
    let cluster = cluster(rows)?;
    let mut settings = std::collections::BTreeMap::new();
    scan(rows, SETTING, &mut |key, value| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("settings are text");
        settings.insert(text(key), text(value));
    });
    Some(Placement {
        version: cluster.version,
        cluster: cluster.id,
        nodes: nodes(rows),
        shards: shards(rows),
        directory_slots: rows.row(SLOTS).map(|row| read(&row)).unwrap_or_default(),
        settings,
        lost_ids: cluster.lost_ids.unwrap_or_default(),
    })
}

pub(super) fn cluster(rows: &dyn Source) -> Option<Cluster> {
    rows.row(CLUSTER).map(|row| read(&row))
}

pub(super) fn put_cluster(rows: &mut Rows<'_>, cluster: &Cluster) {
    rows.put(CLUSTER.to_vec(), codec::encode(cluster));
}

pub(super) fn node(rows: &dyn Source, name: &str) -> Option<Node> {
    rows.row(&key(NODE, name.as_bytes())).map(|row| read(&row))
}

pub(super) fn nodes(rows: &dyn Source) -> Vec<Node> {
    let mut found = Vec::new();
    scan(rows, NODE, &mut |_, value| found.push(read(value)));
    found
}

pub(super) fn put_node(rows: &mut Rows<'_>, node: &Node) {
    rows.put(key(NODE, node.name.as_bytes()), codec::encode(node));
}

pub(super) fn remove_node(rows: &mut Rows<'_>, name: &str) {
    rows.remove(&key(NODE, name.as_bytes()));
}

/// Whether a disk left the cluster for good.
pub(super) fn has_left(rows: &dyn Source, disk_id: DiskId) -> bool {
    rows.row(&key(LEFT, &disk_id.0)).is_some()
}

pub(super) fn put_left(rows: &mut Rows<'_>, disk_id: DiskId) {
    rows.put(key(LEFT, &disk_id.0), Vec::new());
}

/// How many batches a disk is known to have synced.
pub fn mark(rows: &dyn Source, disk_id: DiskId) -> Option<u64> {
    rows.row(&key(MARK, &disk_id.0)).map(|row| read(&row))
}

pub(super) fn put_mark(rows: &mut Rows<'_>, disk_id: DiskId, n_synced: u64) {
    rows.put(key(MARK, &disk_id.0), codec::encode(&n_synced));
}

pub(super) fn remove_mark(rows: &mut Rows<'_>, disk_id: DiskId) {
    rows.remove(&key(MARK, &disk_id.0));
}

pub(super) fn shard(rows: &dyn Source, shard: ShardId) -> Option<Shard> {
    rows.row(&key(SHARD, &shard.0.to_be_bytes())).map(|row| read(&row))
}

pub(super) fn shards(rows: &dyn Source) -> Vec<Shard> {
    let mut found = Vec::new();
    scan(rows, SHARD, &mut |_, value| found.push(read(value)));
    found
}

pub(super) fn put_shard(rows: &mut Rows<'_>, shard: &Shard) {
    rows.put(key(SHARD, &shard.shard.0.to_be_bytes()), codec::encode(shard));
}

pub(super) fn put_slots(rows: &mut Rows<'_>, slots: &Vec<ShardId>) {
    rows.put(SLOTS.to_vec(), codec::encode(slots));
}

pub(super) fn setting(rows: &dyn Source, name: &str) -> Option<String> {
    let row = rows.row(&key(SETTING, name.as_bytes()))?;
    Some(String::from_utf8(row).expect("settings are text"))
}

pub(super) fn put_setting(rows: &mut Rows<'_>, name: &str, value: Option<&str>) {
    let key = key(SETTING, name.as_bytes());
    match value {
        Some(value) => rows.put(key, value.as_bytes().to_vec()),
        None => rows.remove(&key),
    }
}

fn key(kind: &[u8], name: &[u8]) -> Vec<u8> {
    [kind, name].concat()
}

fn scan(rows: &dyn Source, kind: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
    let mut end = kind.to_vec();
    // Every kind ends in '/', and '0' follows it.
    end.pop();
    end.push(b'0');
    rows.scan(kind, &end, &mut |key, value| {
        visit(&key[kind.len()..], value);
        true
    });
}

/// Why no error: rows were written by this module and carry a checksum, so one that does not decode
/// is a broken promise of our own, and the replica must stop.
fn read<T: for<'b> Decode<'b, ()>>(row: &[u8]) -> T {
    codec::decode(row).unwrap_or_else(|error| panic!("a row of the meta group: {error}"))
}
