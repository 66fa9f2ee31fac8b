//! The first unseen message, as SELECT tells it.

mod support;

use mailbox::query::Query;
use mailbox::*;
use support::*;

fn first_unseen(shard: &Shard) -> Option<u32> {
    match shard.ask(&Query::Open(named("INBOX"), true)) {
        Answer::Opened(_, _, _, unseen) => unseen.map(Uid::value),
        other => panic!("{other:?}"),
    }
}

fn range(first: u32, last: u32) -> UidSet {
    UidSet::range(uid(first), uid(last))
}

#[test]
fn the_first_unseen_message_is_told_where_it_lies_near_an_end() {
    let mut shard = Shard::with_account();
    shard.fill("INBOX", 100);
    let of = shard.of("INBOX");
    for staging in 0..7 {
        let all = shard.uids("INBOX");
        shard.slices(copy(of, of, all, staging));
    }
    assert_eq!(shard.mailbox("INBOX").n_messages, 12_800);
    assert_eq!(first_unseen(&shard), Some(1));
    let see = |shard: &mut Shard, uids: UidSet| {
        let seen = FlagChange::Add(system(SystemFlags::SEEN));
        shard.slices(store(of, uids, seen));
    };
    see(&mut shard, range(1, 4095));
    assert_eq!(first_unseen(&shard), Some(4096));
    // Between the ends, none that is looked at says which is the first.
    see(&mut shard, range(4096, 8703));
    assert_eq!(first_unseen(&shard), None);
    see(&mut shard, set(&[8704]));
    assert_eq!(first_unseen(&shard), Some(8705));
    // What is gone is neither counted nor found.
    shard.slices(expunge(of, range(8705, 12_000), false));
    assert_eq!(first_unseen(&shard), Some(12_001));
    see(&mut shard, range(12_001, 12_799));
    assert_eq!(first_unseen(&shard), Some(12_800));
    match shard.ask(&Query::Open(named("INBOX"), false)) {
        Answer::Opened(_, _, _, None) => {}
        other => panic!("it was not asked for: {other:?}"),
    }
    see(&mut shard, set(&[12_800]));
    assert_eq!(first_unseen(&shard), None);
}
