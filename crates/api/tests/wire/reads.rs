//! Questions, the directory, chunks, the maildrop.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use mailbox::chunk::Codec;
use mailbox::command::{NamedMailbox, OfMailbox, Place};
use mailbox::dialogue::Trouble;
use mailbox::query::{Messages, Search, SearchKey};
use mailbox::{
    AccountId, Answer, MailboxId, MailboxName, Query, Refusal, ShardId, StoredChunk, Uid, UidSet,
};
use tokio::runtime::Builder;

use crate::cluster::{ACCOUNT, Cluster, PATIENCE, PLACE, address};

#[tokio::test]
async fn an_address_is_resolved_once_and_again_when_it_proves_wrong() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let anna = address("anna@example.test");
    assert_eq!(client.recipient(&anna).await, Ok(None));
    cluster.world.resolve(&anna, Some(PLACE));
    assert_eq!(client.recipient(&anna).await, Ok(Some(PLACE)));
    cluster.world.resolve(&anna, None);
    assert_eq!(client.recipient(&anna).await, Ok(Some(PLACE)));
    let answer = client.query(PLACE, Query::Account(ACCOUNT)).await;
    assert_eq!(answer, Ok(Answer::Refused(Refusal::NoSuchAccount)));
    assert_eq!(client.recipient(&anna).await, Ok(None));
}

#[tokio::test]
async fn mail_goes_to_an_account_to_a_group_or_to_who_takes_all() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let anna = address("anna@example.test");
    let all = address("all@example.test");
    let other = Place { account: AccountId([2; 16]), ..PLACE };
    cluster.world.resolve(&anna, Some(PLACE));
    cluster.world.resolve(&address("ann@example.test"), Some(PLACE));
    cluster.world.resolve(&address("bo@example.test"), Some(other));
    cluster.world.group(&all, &["anna", "ann", "bo", "gone", "all"]);
    assert_eq!(client.recipients(&anna).await, Ok(vec![PLACE]));
    let mut both = vec![PLACE, other];
    both.sort_by_key(|place| place.account);
    assert_eq!(client.recipients(&all).await, Ok(both));
    assert_eq!(client.recipient(&all).await, Ok(None), "nobody logs in as a group");
    let nobody = address("nobody@example.test");
    assert_eq!(client.recipients(&nobody).await, Ok(Vec::new()));
    cluster.world.resolve(&address("*@example.test"), Some(other));
    assert_eq!(client.recipients(&nobody).await, Ok(vec![other]));
    assert_eq!(client.recipients(&address("nobody@other.test")).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_question_follows_the_leader_and_the_account() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let moved = Place { shard: ShardId(2), epoch: 2, ..PLACE };
    cluster.world.move_to(moved);
    cluster.world.lead("n3");
    let gone = Ok(Answer::Refused(Refusal::NoSuchAccount));
    assert_eq!(client.query(PLACE, Query::Account(ACCOUNT)).await, gone);
    cluster.kill("n3");
    cluster.world.lead("n2");
    assert_eq!(client.query(PLACE, Query::Account(ACCOUNT)).await, gone);
    cluster.world.lead("");
    let hasty = cluster.client_with_deadline(Duration::from_millis(200));
    let asked = hasty.query_shard(ShardId(2), Query::Account(ACCOUNT)).await;
    assert_eq!(asked, Err(Trouble::Unavailable));
}

fn chunk(text: &[u8]) -> StoredChunk {
    StoredChunk::raw(Bytes::copy_from_slice(text))
}

fn compressed(raw: &StoredChunk) -> StoredChunk {
    let bytes = zstd::encode_all(&*raw.bytes, 1).unwrap().into();
    StoredChunk { codec: Codec::Zstd, bytes, ..raw.clone() }
}

fn keep(cluster: &Cluster, node: &str, stored: StoredChunk) {
    cluster.node(node).chunks.lock().unwrap().insert(stored.chunk.digest, stored);
}

#[tokio::test]
async fn a_chunk_comes_from_whoever_has_a_good_copy() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let good = chunk(&[b'a'; 5_000]);
    let rotten = StoredChunk { bytes: Bytes::from(vec![b'b'; 5_000]), ..good.clone() };
    let bomb = StoredChunk { chunk: good.chunk, ..compressed(&chunk(&vec![0; 200_000])) };
    keep(&cluster, "n1", rotten);
    keep(&cluster, "n2", bomb);
    assert_eq!(client.chunk(PLACE, good.chunk).await, Err(Trouble::Damaged));
    keep(&cluster, "n3", compressed(&good));
    assert_eq!(client.chunk(PLACE, good.chunk).await, Ok(good.clone()));
    // Also without a leader, and past a node that does not answer.
    cluster.world.lead("");
    cluster.node("n1").deaf.send_replace(true);
    cluster.kill("n2");
    assert_eq!(client.chunk(PLACE, good.chunk).await, Ok(good));
}

#[tokio::test]
async fn a_silent_leader_is_waited_for_once_and_not_for_each_chunk() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    // Who leads is found out by asking in earnest.
    assert_eq!(client.recipient(&address("nobody@example.test")).await, Ok(None));
    cluster.node("n1").deaf.send_replace(true);
    for n in 0..20 {
        let each = chunk(&[n; 5_000]);
        keep(&cluster, "n2", each.clone());
        keep(&cluster, "n3", each.clone());
        assert_eq!(client.chunk(PLACE, each.chunk).await, Ok(each));
    }
    let n_asked = cluster.node("n1").n_chunks_asked.load(Ordering::Relaxed);
    assert!((1..10).contains(&n_asked), "{n_asked} of 20");
}

#[tokio::test]
async fn a_chunk_is_not_called_damaged_while_a_replica_is_away() {
    let cluster = Cluster::start(2);
    let client = cluster.client_with_deadline(Duration::from_millis(400));
    let missing = chunk(b"x");
    assert_eq!(client.chunk(PLACE, missing.chunk).await, Err(Trouble::Damaged));
    cluster.kill("n2");
    assert_eq!(client.chunk(PLACE, missing.chunk).await, Err(Trouble::Unavailable));
}

#[tokio::test]
async fn a_maildrop_has_one_holder() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let place = Place { account: AccountId([9; 16]), ..PLACE };
    assert_eq!(client.lock_maildrop(place, [1; 16]).await, Ok(true));
    cluster.world.lead("n2");
    assert_eq!(client.lock_maildrop(place, [1; 16]).await, Ok(true));
    assert_eq!(client.lock_maildrop(place, [2; 16]).await, Ok(false));
    assert_eq!(client.unlock_maildrop(place, [2; 16]).await, Ok(()));
    assert_eq!(client.lock_maildrop(place, [2; 16]).await, Ok(false));
    assert_eq!(client.unlock_maildrop(place, [1; 16]).await, Ok(()));
    assert_eq!(client.lock_maildrop(place, [2; 16]).await, Ok(true));
}

#[tokio::test]
async fn what_is_known_of_a_message_is_asked_for_once_while_its_uid_means_the_same() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let open = || Query::Open(NamedMailbox { account: ACCOUNT, name: MailboxName::inbox() }, true);
    let about = |first: u32, last: u32| {
        let uids = UidSet::range(Uid::new(first).unwrap(), Uid::new(last).unwrap());
        let of = OfMailbox { account: ACCOUNT, mailbox: MailboxId(1) };
        Query::Bodies(Messages {
            of,
            uids,
            changed_since: None,
            metadata: false,
            chunks: true,
            expunged: true,
            only_envelope: false,
            recent_to: None,
        })
    };
    let ask = async |query: Query| match client.query(PLACE, query).await {
        Ok(Answer::Messages(records, None)) => records.len(),
        other => panic!("{other:?}"),
    };
    // Who leads is found out by asking in earnest.
    assert_eq!(client.recipient(&address("nobody@example.test")).await, Ok(None));
    for n_asked in 1..3 {
        assert_eq!(ask(about(1, 1)).await, 1);
        assert_eq!(cluster.world.n_lasting(), n_asked, "nobody knows what the UID means");
    }
    for (uid_validity, n_asked) in [(7, 3), (8, 5)] {
        cluster.world.mailbox(uid_validity);
        client.query(PLACE, open()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(ask(about(1, 1)).await, 1);
            assert_eq!(cluster.world.n_lasting(), n_asked);
        }
        assert_eq!(ask(about(1, 2)).await, 2);
        assert_eq!(cluster.world.n_lasting(), n_asked + 1, "only single messages are kept");
    }
}

fn search() -> Query {
    let of = OfMailbox { account: ACCOUNT, mailbox: MailboxId(1) };
    Query::Search(Search { of, among: UidSet::all(), key: SearchKey::All })
}

/// Waits until so many searches came in all.
async fn came(cluster: &Cluster, n: usize) {
    let mut searches = cluster.world.searches.subscribe();
    let came = searches.wait_for(|all| all.n_came == n);
    drop(tokio::time::timeout(PATIENCE, came).await.expect("in time"));
}

#[tokio::test]
async fn a_search_outlives_one_leader_and_does_not_come_to_a_third() {
    for lethal in [false, true] {
        let cluster = Cluster::start(3);
        let client = cluster.client();
        let call = tokio::spawn(async move { client.query(PLACE, search()).await });
        came(&cluster, 1).await;
        cluster.world.lead("n2");
        cluster.kill("n1");
        came(&cluster, 2).await;
        if !lethal {
            cluster.world.searches.send_modify(|all| all.are_answered = true);
            assert_eq!(call.await.unwrap(), Ok(Answer::Found(UidSet::new(), None, None)));
            continue;
        }
        cluster.world.lead("n3");
        cluster.kill("n2");
        assert_eq!(call.await.unwrap(), Err(Trouble::Unavailable));
        assert_eq!(cluster.world.searches.borrow().n_came, 2, "the third node lives");
    }
}

#[tokio::test]
async fn a_search_outlives_any_number_of_leaders_that_were_only_replaced() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let call = tokio::spawn(async move { client.query(PLACE, search()).await });
    for (n, next) in ["n2", "n3", "n1"].into_iter().enumerate() {
        came(&cluster, n + 1).await;
        cluster.world.lead(next);
    }
    came(&cluster, 4).await;
    cluster.world.searches.send_modify(|all| all.are_answered = true);
    assert_eq!(call.await.unwrap(), Ok(Answer::Found(UidSet::new(), None, None)));
}

#[tokio::test]
async fn nobody_looks_any_more_when_the_connection_of_who_asked_is_gone() {
    let cluster = Cluster::start(1);
    // A process that asks, and is killed.
    let process = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = {
        let _inside = process.enter();
        cluster.client_with_deadline(PATIENCE * 60)
    };
    process.spawn(async move { client.query(PLACE, search()).await });
    came(&cluster, 1).await;
    process.shutdown_background();
    let mut searches = cluster.world.searches.subscribe();
    let ended = searches.wait_for(|all| all.n_running == 0);
    drop(tokio::time::timeout(PATIENCE, ended).await.expect("in time"));
}
