//! What is refused, in one line that says what to do.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use api::admin::ClusterInit;
use api::client::ClientConfig;
use api::meta::MetaClient;
use api::placement::{DiskId, DiskState, META_SHARD, Node};
use api::tls::Identity;
use mailbox::dialogue::Trouble;
use mailbox::{AccountId, Command, Query};

use crate::house::{House, wait_for};

/// How long a registration is tried.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the cluster may take to know it.
const COMES: Duration = Duration::from_secs(30);

async fn line(house: &mut House, name: &str) -> String {
    let line = house.try_start(name).await.expect_err("is refused").to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[tokio::test]
async fn directories_that_are_not_ours_are_refused_and_left_alone() {
    let mut house = House::new(2, 1);
    let dir = house.config("n1").data_dirs[0].clone();
    std::fs::write(dir.join("letter.txt"), "mine").unwrap();
    assert!(line(&mut house, "n1").await.contains("letter.txt, which is not ours"));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(line(&mut house, "n1").await.contains("create it first"));

    std::fs::create_dir(&dir).unwrap();
    house.start("n1").await;
    let mut second = house.config("n2");
    second.data_dirs.clone_from(&house.config("n1").data_dirs);
    house.configure("n2", second.clone());
    assert!(line(&mut house, "n2").await.contains("belongs to node n1, not to n2"));
    house.stop("n1").await;
    std::fs::remove_file(dir.join("rookery-disk.toml")).unwrap();
    assert!(line(&mut house, "n1").await.contains("rookery-disk.toml is gone"));
    assert!(dir.join("disk").exists(), "a disk without a label is never formatted");
}

#[tokio::test(start_paused = true)]
async fn the_directory_below_a_mount_point_is_no_new_disk() {
    let mut house = House::new(1, 1);
    let mut config = house.config("n1");
    config.require_mounts = true;
    let dir = config.data_dirs[0].clone();
    house.configure("n1", config);
    assert!(line(&mut house, "n1").await.contains("no file system is mounted there"));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[tokio::test]
async fn a_disk_that_cannot_be_opened_is_told_for_what_it_is() {
    let mut house = House::new(1, 2);
    house.start("n1").await;
    let mut again = house.config("n1");
    again.listen.set_port(0);
    again.http = None;
    let second = node::Node::start(again, Default::default()).await.err().unwrap().to_string();
    assert!(second.contains("another process has it open"), "{second}");
    house.stop("n1").await;
    // One disk that does not tell who it is any more counts as failed, and the other one goes on.
    let [first, other] = &house.config("n1").data_dirs[..] else { panic!("two disks") };
    std::fs::write(first.join("disk/journal/disk"), "of no use").unwrap();
    house.start("n1").await;
    house.stop("n1").await;
    std::fs::write(other.join("disk/journal/disk"), "nor that").unwrap();
    assert!(line(&mut house, "n1").await.contains("name an empty directory in data_dirs"));
}

/// An entry that its replicas cannot apply would stop them for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_meant_for_mail_does_not_come_to_the_meta_group() {
    let mut house = House::new(1, 1);
    house.start("n1").await;
    house.form(1).await;
    let client = house.client();
    wait_for("the client knows the cluster", COMES, async || client.ready().await).await;
    let command = Command::DeleteAccount(AccountId([1; 16]));
    assert_eq!(client.command_shard(META_SHARD, command).await, Err(Trouble::Unavailable));
    let asked = client.query_shard(META_SHARD, Query::Accounts(None)).await;
    assert_eq!(asked, Err(Trouble::Unavailable));
    assert_eq!(house.admin().set("replace_after_s", None).await, Ok(()));
}

/// What is read from this file, and what is written at its begin, fails as on a disk that died.
const DEAD: &str = "/proc/self/mem";
const LABEL: &str = "rookery-disk.toml";
const LABEL_NEW: &str = "rookery-disk.toml.new";

/// How the disks of a node are, as the cluster knows it.
async fn states(house: &House, name: &str) -> BTreeMap<PathBuf, DiskState> {
    let placement = house.status().await.and_then(|status| status.placement);
    let node = placement.as_ref().and_then(|placement| placement.node(name));
    let disks = node.into_iter().flat_map(|node| &node.disks);
    disks.map(|disk| (PathBuf::from(&disk.path), disk.state)).collect()
}

/// One node with a disk that the meta group is on, and one that it is not on.
async fn two_disks() -> (House, PathBuf, PathBuf) {
    let mut house = House::new(1, 2);
    house.start("n1").await;
    house.form(1).await;
    let placement = house.status().await.unwrap().placement.unwrap();
    let meta = placement.shard(META_SHARD).unwrap().replicas[0].disk_id;
    let disks = &placement.node("n1").unwrap().disks;
    let path = |is_meta| disks.iter().find(|disk| (disk.disk_id == meta) == is_meta).unwrap();
    let [good, bad] = [true, false].map(|is_meta| PathBuf::from(&path(is_meta).path));
    house.stop("n1").await;
    (house, good, bad)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_disk_does_not_keep_the_others_from_being_started() {
    let (mut house, good, bad) = two_disks().await;
    let is_told = async |house: &House| {
        let states = states(house, "n1").await;
        let is_bad = states.get(&bad) != Some(&DiskState::Ok);
        is_bad && states.get(&good) == Some(&DiskState::Ok)
    };
    // It takes no new label,
    let label = bad.join(LABEL_NEW);
    symlink(DEAD, &label).unwrap();
    house.start("n1").await;
    wait_for("it is told", COMES, async || is_told(&house).await).await;
    house.stop("n1").await;
    // nor when it is known as poisoned, whatever writing to it comes to,
    std::fs::remove_file(&label).unwrap();
    std::fs::create_dir(&label).unwrap();
    std::fs::write(bad.join("disk/journal/poisoned"), "by the test").unwrap();
    house.start("n1").await;
    wait_for("it is told", COMES, async || is_told(&house).await).await;
    house.stop("n1").await;
    // and in the end its label cannot be read.
    std::fs::remove_file(bad.join(LABEL)).unwrap();
    symlink(DEAD, bad.join(LABEL)).unwrap();
    house.start("n1").await;
    wait_for("it is told", COMES, async || is_told(&house).await).await;
    house.stop("n1").await;
    // Without any other it is told why.
    std::fs::remove_file(good.join(LABEL)).unwrap();
    symlink(DEAD, good.join(LABEL)).unwrap();
    assert!(line(&mut house, "n1").await.contains("Input/output error"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_dies_before_it_is_admitted_counts_as_failed_alone() {
    let mut house = House::new(2, 2);
    house.start_all().await;
    let dead = house.config("n2").data_dirs[0].clone();
    symlink(DEAD, dead.join(LABEL_NEW)).unwrap();
    let alone = ClusterInit { disks: vec![("n1".into(), None)], ..house.init(1) };
    house.admin().cluster_init(&alone).await.unwrap();
    let is_told = async || {
        let states = states(&house, "n2").await;
        let n_failed = states.values().filter(|state| **state == DiskState::Poisoned).count();
        n_failed == 1 && states.get(&dead) == Some(&DiskState::Poisoned)
    };
    wait_for("it is told", COMES, is_told).await;
    house.stop_all().await;
}

#[tokio::test]
async fn a_taken_port_and_a_wrong_certificate_are_named() {
    let mut house = House::new(2, 1);
    let taken = TcpListener::bind(house.config("n1").listen).unwrap();
    assert!(line(&mut house, "n1").await.contains("free the port or choose another with `listen`"));
    drop(taken);
    let mut wrong = house.config("n1");
    wrong.identity_dir = house.config("n2").identity_dir;
    house.configure("n1", wrong);
    assert!(line(&mut house, "n1").await.contains("not for node n1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_another_cluster_is_refused() {
    let mut house = House::new(2, 1);
    house.start("n1").await;
    let alone = ClusterInit { disks: vec![("n1".into(), None)], ..house.init(1) };
    house.admin().cluster_init(&alone).await.unwrap();
    house.start("n2").await;
    house.registered("n2").await;
    house.stop("n2").await;
    let label = house.config("n2").data_dirs[0].join("rookery-disk.toml");
    let text = std::fs::read_to_string(&label).unwrap();
    let (rest, _) = text.split_once("cluster = ").unwrap();
    std::fs::write(&label, format!("{rest}cluster = \"{}\"\n", "5".repeat(32))).unwrap();
    house.start("n2").await;
    let refusal = house.refusal("n2").await.to_string();
    assert!(refusal.contains("its disks belong to cluster 5555"), "{refusal}");
    house.stop_all().await;
}

/// Were it taken, the disks of the node that runs would count as lost, and be emptied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_of_a_running_node_is_not_taken() {
    let mut house = House::new(1, 1);
    house.start("n1").await;
    house.form(1).await;
    let client = client_of(&house, "n1");
    let known = wait_for_node(&client, "n1").await;
    let mut second = known.clone();
    second.run_id += 1;
    second.disks[0].disk_id = DiskId([7; 16]);
    let register = async |node: &Node| client.register_node(node, None, PATIENCE).await;
    let said = register(&second).await.unwrap_err().to_string();
    assert!(said.contains("another process is node n1"), "{said}");
    assert_eq!(wait_for_node(&client, "n1").await, known, "nothing changed");
    // What was started again has its disk; it need not wait until it is forgotten that it ran.
    let mut again = known.clone();
    again.run_id += 1;
    register(&again).await.unwrap();
    house.stop_all().await;
}

/// Two processes would vote under the same ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_stops_when_another_one_was_started_on_copies_of_its_disks() {
    let mut house = House::new(1, 1);
    house.start("n1").await;
    house.form(1).await;
    let client = client_of(&house, "n1");
    let mut second = wait_for_node(&client, "n1").await;
    second.run_id += 1;
    let disk = &mut second.disks[0];
    (disk.start_count, disk.previous_start_id) = (disk.start_count + 1, disk.start_id);
    disk.start_id = disk.start_id.wrapping_add(1);
    client.register_node(&second, None, PATIENCE).await.unwrap();
    let refusal = house.refusal("n1").await.to_string();
    assert!(refusal.contains("was rolled back: "), "{refusal}");
}

/// What the node itself asks the meta group with.
fn client_of(house: &House, name: &str) -> MetaClient {
    let config = house.config(name);
    let client = MetaClient::new(ClientConfig {
        seeds: config.join.clone(),
        identity: Identity::load(&config.identity_dir).unwrap(),
        name: config.name.clone(),
        bind: None,
    });
    client.unwrap()
}

async fn wait_for_node(client: &MetaClient, name: &str) -> Node {
    let mut placement = client.placement();
    let known = placement.wait_for(|placement| placement.node(name).is_some());
    known.await.unwrap().node(name).unwrap().clone()
}
