//! Nodes that are known by names, and nobody who resolves them.

use api::peer::PeerTransport;
use api::tls::Role;

use crate::client::{command, done};
use crate::cluster::{Cluster, PLACE};
use crate::peers::{request, transport};

#[tokio::test]
async fn a_node_whose_name_does_not_resolve_is_found_where_it_connected_from() {
    let cluster = Cluster::start(3);
    // No resolver is asked for a name with a label longer than any may be.
    let nameless = format!("{}.invalid:{}", "x".repeat(64), cluster.address("n2").port());
    cluster.place_at("n2", &nameless);
    let node = cluster.authority.identity("n2", Role::Node);
    transport(&cluster, node).call(request("n1", 1, 1)).await.unwrap();
    cluster.world.lead("n2");
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
}
