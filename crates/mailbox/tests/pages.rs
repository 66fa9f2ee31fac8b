//! Pages of SORT and THREAD, between which messages go.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

mod support;

use mailbox::answer::ThreadNode;
use mailbox::query::{Query, Sort, SortBy, SortField, Thread, ThreadBy};
use mailbox::*;
use support::*;

fn sorted(shard: &Shard, from: u32, as_of: Option<ModSeq>) -> Vec<Uid> {
    let order = vec![SortBy { field: SortField::Subject, reverse: true }];
    let (of, uids) = (shard.of("INBOX"), UidSet::all());
    match shard.ask(&Query::Sort(Sort { of, uids, order, from, as_of })) {
        Answer::Sorted(uids, None, None) => uids,
        other => panic!("{other:?}"),
    }
}

fn threads(shard: &Shard, by: ThreadBy, from: u32, as_of: Option<ModSeq>) -> Vec<ThreadNode> {
    let (of, uids) = (shard.of("INBOX"), UidSet::all());
    match shard.ask(&Query::Thread(Thread { of, uids, by, from, as_of })) {
        Answer::Threads(nodes, None, None) => nodes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_later_page_begins_where_the_one_before_ended_though_messages_went_meanwhile() {
    let mut shard = Shard::with_account();
    for n in 0..6 {
        shard.deliver(&mail(&format!("subject {n}")));
    }
    let of = shard.of("INBOX");
    let as_of = Some(shard.mailbox("INBOX").highest_modseq);
    let all = sorted(&shard, 0, None);
    assert_eq!(all, [6, 5, 4, 3, 2, 1].map(uid));
    let by = [ThreadBy::OrderedSubject, ThreadBy::References];
    let in_threads = by.map(|by| threads(&shard, by, 0, None));
    // What was told already goes, and what was not.
    shard.run(expunge(of, set(&[1, 2, 6]), false));
    assert_eq!(sorted(&shard, 3, as_of), all[3..]);
    for (by, nodes) in by.into_iter().zip(in_threads) {
        assert_eq!(nodes.len(), 6, "{by:?}");
        assert_eq!(threads(&shard, by, 2, as_of), nodes[2..], "{by:?}");
    }
    // Whoever asks anew hears of none of them, and of what is purged nobody does.
    assert_eq!(sorted(&shard, 0, None), [5, 4, 3].map(uid));
    shard.clean();
    assert_eq!(sorted(&shard, 0, as_of), [5, 4, 3].map(uid));
}
