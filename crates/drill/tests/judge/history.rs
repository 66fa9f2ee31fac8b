//! A history is kept as lines of JSON and measured.

use std::collections::BTreeSet;

use crate::support::{Story, carried, placed, unknown};
use drill::{
    Event, Fault, History, Operation, Record, ReplicaState, Reply, Verdict, View, availability,
};

#[test]
fn a_stored_history_is_read_as_it_was_written() {
    let mut told = Story::default()
        .deliver((1, 2), "t1", placed(1))
        .store((3, 4), (1, "t1"), "+ \\Seen work", unknown())
        .move_((5, 6), (1, "t1"), carried(1, 1))
        .finally(&[], &["1 t1 \\Seen"])
        .history;
    let (digest, name) = ("00ff".to_owned(), "crash of node 2".to_owned());
    told.records.push(Record::Disconnect { client: 3, at_us: 7 });
    told.records.push(Record::Fault(Fault { name, start_us: 1, end_us: 2 }));
    told.records.push(Record::Replica(ReplicaState { shard: 1, replica: 2, applied: 3, digest }));
    let mut stored = Vec::new();
    told.write(&mut stored).expect("memory takes it");
    let n_lines = stored.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(n_lines, told.records.len());
    assert_eq!(History::read(&stored[..]).expect("our own lines"), told);
}

#[test]
fn a_line_that_is_no_record_is_named() {
    let error = History::read(&b"\n{\"record\":\"event\"}\n"[..]).expect_err("no event");
    assert!(error.to_string().starts_with("line 2: "), "{error}");
}

fn read(client: u32, start_us: u64, end_us: u64, acknowledged: bool) -> Record {
    let verdict = match acknowledged {
        true => Verdict::Acknowledged { reply: Reply::Viewed(View::default()) },
        false => Verdict::Refused { why: "no majority".into() },
    };
    let (account, operation) = ("anna".into(), Operation::Read { mailbox: "INBOX".into() });
    Record::Event(Event { client, account, start_us, end_us, operation, verdict })
}

#[test]
fn unavailability_is_from_the_first_try_to_the_next_success_without_idle_time() {
    let records = vec![
        read(1, 0, 10, true),
        // Idle for 990.
        read(1, 1000, 1100, false),
        read(1, 1200, 1250, true),
        read(1, 1300, 1400, true),
        // Never again.
        read(2, 50, 60, false),
        read(2, 70, 700, false),
        Record::Disconnect { client: 2, at_us: 700 },
        Record::Disconnect { client: 2, at_us: 800 },
    ];
    let found = availability(&History { records });
    let first = &found.clients[&1];
    assert_eq!((first.longest_us, first.longest_from_us), (250, 1000));
    assert_eq!((first.n_acknowledged, first.n_refused, first.n_unknown), (3, 1, 0));
    let second = &found.clients[&2];
    assert_eq!((second.longest_us, second.n_disconnects), (650, 2));
    assert_eq!((found.longest_us, found.n_disconnects), (650, 2));
    assert_eq!(found.clients.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
}
