//! Nodes that are known by names, and nobody who resolves them.

use crate::client::{command, done};
use crate::cluster::{Cluster, PLACE};

#[tokio::test]
async fn a_process_finds_itself_though_its_name_does_not_resolve() {
    let cluster = Cluster::start(3);
    // No resolver is asked for a name with a label longer than any may be.
    let nameless = format!("{}.invalid:{}", "x".repeat(64), cluster.address("n2").port());
    cluster.place_at("n2", &nameless);
    cluster.world.lead("n2");
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
}
