//! How long it takes to look at a cluster with many shards.

use std::time::Instant;

use super::*;

/// The shortest of some plans for so many shards that are well.
fn takes(n_shards: u32) -> Duration {
    let world = World::new(3, 1, 1);
    let (mut placement, mut heard) = (world.placement(), world.reports());
    let ids = 1..=n_shards;
    let like = placement.shards.pop().unwrap();
    let shard = |id| api::placement::Shard { shard: ShardId(id), ..like.clone() };
    placement.shards.extend(ids.clone().map(shard));
    for heard in heard.values_mut() {
        let one = heard.report.replicas.pop().unwrap();
        assert_eq!(one.shard, like.shard);
        let all = ids.clone().map(|id| ReplicaReport { shard: ShardId(id), ..one.clone() });
        heard.report.replicas.extend(all);
    }
    let plan_once = || {
        let began = Instant::now();
        let scene = Scene::new(&placement, &heard, (REPLACE_AFTER, REPLACE_AFTER));
        assert_eq!(plan(&scene), Plan::default());
        began.elapsed()
    };
    (0..5).map(|_| plan_once()).min().unwrap()
}

#[test]
fn a_plan_takes_as_long_for_each_shard_however_many_there_are() {
    let (few, many) = (takes(500), takes(4000));
    // Eight times as many, and somewhat more for what does not fit a processor's cache any more.
    assert!(many < few * 8 * 4, "{few:?} for 500, {many:?} for 4000");
}
