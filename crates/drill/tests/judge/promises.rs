//! For each promise: a history that breaks it is caught, a legal one as close to it as can be passes.

use crate::support::{Story, ack, carried, changed, done, placed, refused, unknown, view};
use drill::{Copies, Fault, Placed, Promise, Record, ReplicaState, Reply, Verdict, View};

fn story() -> Story {
    Story::default()
}

#[test]
fn an_acknowledged_delivery_that_is_gone_is_lost() {
    let told = story().deliver((1, 2), "t1", done());
    told.finally(&[], &[]).breaks(Promise::NothingLost, &["t1", "anna", "the end"]);
    story().deliver((1, 2), "t1", done()).finally(&["1 t1"], &[]).is_legal();
    story().deliver((1, 2), "t1", unknown()).finally(&[], &[]).is_legal();
    story().deliver((1, 2), "t1", unknown()).finally(&["1 t1"], &[]).is_legal();
    story().deliver((1, 2), "t1", refused()).finally(&[], &[]).is_legal();
}

#[test]
fn what_was_seen_once_is_lost_too_when_its_delivery_is_of_unknown_outcome() {
    let told = story().deliver((1, 2), "t1", unknown()).read((3, 4), "INBOX", &["1 t1"]);
    told.finally(&[], &[]).breaks(Promise::NothingLost, &["t1", "UID 1"]);
}

#[test]
fn a_delivery_that_is_there_twice_is_caught() {
    for verdict in [done(), unknown()] {
        let told = story().deliver((1, 2), "t1", verdict);
        let told = told.finally(&["1 t1", "2 t1"], &[]);
        told.breaks(Promise::ExactlyOnce, &["t1", "INBOX UID 1", "INBOX UID 2"]);
    }
    // Twice sent, twice there: the second was another transaction.
    let told = story().deliver((1, 2), "t1", unknown()).deliver((3, 4), "t1", done());
    told.finally(&["1 t1", "2 t1"], &[]).is_legal();
}

#[test]
fn a_delivery_that_was_there_twice_is_caught_when_both_are_gone() {
    let both = |verdict: Verdict| {
        let told = story().deliver((1, 2), "t1", verdict);
        let told = told.read((3, 4), "INBOX", &["1 t1", "2 t1"]);
        told.expunge((5, 6), (1, "t1"), done())
    };
    for verdict in [done(), unknown()] {
        let told = both(verdict.clone()).expunge((7, 8), (2, "t1"), changed(&[2]));
        told.finally(&[], &[]).breaks(Promise::ExactlyOnce, &["t1", "nowhere"]);
        // Sent twice it may have been there twice.
        let told = both(verdict).deliver((1, 2), "t1", unknown());
        told.expunge((7, 8), (2, "t1"), done()).finally(&[], &[]).is_legal();
    }
}

#[test]
fn what_was_refused_must_not_be_there() {
    let told = story().deliver((1, 2), "t1", refused()).finally(&["1 t1"], &[]);
    told.breaks(Promise::RefusedIsUndone, &["t1"]);
}

#[test]
fn other_octets_than_those_delivered_are_caught() {
    let told = story().deliver((1, 2), "t1", done()).finally(&["1 t1=t9"], &[]);
    told.breaks(Promise::BytesEqual, &["t1", "UID 1", "digest of t9"]);
    let told = story().deliver((1, 2), "t1", done()).read((3, 4), "INBOX", &["1 t1", "2 t7"]);
    told.breaks(Promise::BytesEqual, &["t7", "not delivered"]);
}

#[test]
fn a_message_that_cannot_be_read_in_the_end_is_caught() {
    let mut unread = view(&["1 t1"]);
    unread.messages[0].digest = None;
    let told = || story().deliver((1, 2), "t1", done());
    told().look((3, 4), "INBOX", unread.clone()).is_legal();
    let mut told = told();
    let (account, mailbox) = ("anna".into(), "INBOX".into());
    told.history.records.push(Record::Final { account, mailbox, view: unread });
    told.breaks(Promise::BytesEqual, &["t1", "UID 1", "the end", "cannot be read"]);
}

#[test]
fn an_expunged_message_must_not_come_back() {
    let begun = || story().deliver((1, 2), "t1", placed(1)).expunge((3, 4), (1, "t1"), done());
    begun().finally(&["1 t1"], &[]).breaks(Promise::StaysExpunged, &["UID 1", "t1"]);
    // Under another UID it is back all the same.
    begun().finally(&["2 t1"], &[]).breaks(Promise::StaysExpunged, &["INBOX UID 2"]);
    begun().read((5, 6), "INBOX", &["1 t1"]).breaks(Promise::StaysExpunged, &["UID 1"]);
    begun().finally(&[], &[]).is_legal();
    // Begun before the expunge ended: either is legal.
    begun().read((3, 6), "INBOX", &["1 t1"]).finally(&[], &[]).is_legal();
    begun().read((3, 6), "INBOX", &[]).finally(&[], &[]).is_legal();
}

#[test]
fn what_one_read_showed_gone_no_later_read_shows_again() {
    let begun = story().deliver((1, 2), "t1", placed(1)).expunge((3, 99), (1, "t1"), unknown());
    let told = begun.read((5, 6), "INBOX", &[]).read((7, 8), "INBOX", &["1 t1"]);
    told.breaks(Promise::StaysExpunged, &["UID 1", "0.000006s"]);
    let begun = story().deliver((1, 2), "t1", placed(1)).expunge((3, 99), (1, "t1"), unknown());
    begun.read((5, 6), "INBOX", &["1 t1"]).read((7, 8), "INBOX", &[]).is_legal();
}

#[test]
fn an_expunge_that_was_not_done_or_is_unknown_decides_nothing() {
    let begun = story().deliver((1, 2), "t1", placed(1));
    let told = begun.expunge((3, 4), (1, "t1"), changed(&[])).finally(&[], &[]);
    told.breaks(Promise::NothingLost, &["t1"]);
    for end in [&["1 t1"][..], &[]] {
        let begun = story().deliver((1, 2), "t1", placed(1));
        begun.expunge((3, 4), (1, "t1"), unknown()).finally(end, &[]).is_legal();
    }
}

#[test]
fn the_last_acknowledged_flag_wins() {
    let begun = || {
        let begun = story().deliver((1, 2), "t1", placed(1));
        begun.store((3, 4), (1, "t1"), "+ \\Seen", changed(&[1]))
    };
    begun().finally(&["1 t1"], &[]).breaks(Promise::LastFlagWins, &["\\Seen", "UID 1", "not set"]);
    begun().finally(&["1 t1 \\Seen"], &[]).is_legal();
    begun().finally(&["1 t1 \\Seen \\Draft"], &[]).breaks(Promise::LastFlagWins, &["\\Draft"]);
    let after = || begun().store((5, 6), (1, "t1"), "- \\Seen", changed(&[1]));
    after().finally(&["1 t1 \\Seen"], &[]).breaks(Promise::LastFlagWins, &["\\Seen"]);
    after().finally(&["1 t1"], &[]).is_legal();
    // A read between both sees the first, or is wrong.
    begun().read((5, 6), "INBOX", &["1 t1"]).breaks(Promise::LastFlagWins, &["0.000005s"]);
}

#[test]
fn concurrent_and_unknown_flag_changes_may_end_either_way() {
    for end in ["1 t1 \\Seen", "1 t1"] {
        let told = story().deliver((1, 2), "t1", placed(1));
        let told = told.store((3, 6), (1, "t1"), "+ \\Seen", done());
        told.store((4, 7), (1, "t1"), "- \\Seen", done()).finally(&[end], &[]).is_legal();
        let told = story().deliver((1, 2), "t1", placed(1));
        let told = told.store((3, 4), (1, "t1"), "+ \\Seen", unknown());
        told.store((5, 6), (1, "t1"), "- \\Seen", done()).finally(&[end], &[]).is_legal();
    }
}

#[test]
fn flags_travel_with_a_moved_message() {
    let begun = || {
        let begun = story().deliver((1, 2), "t1", placed(1));
        let begun = begun.store((3, 4), (1, "t1"), "+ \\Seen", done());
        begun.move_((5, 6), (1, "t1"), carried(1, 1))
    };
    begun().finally(&[], &["1 t1 \\Seen"]).is_legal();
    begun().finally(&[], &["1 t1"]).breaks(Promise::LastFlagWins, &["Archive", "\\Seen"]);
}

#[test]
fn flags_travel_with_a_message_of_which_nobody_told_where_it_went() {
    let flagged = |change: &str| {
        let begun = story().deliver((1, 2), "t1", placed(1));
        begun.store((3, 4), (1, "t1"), change, done())
    };
    for verdict in [unknown(), done()] {
        let moved = || flagged("+ \\Seen").move_((5, 6), (1, "t1"), verdict.clone());
        moved().finally(&[], &["7 t1 \\Seen"]).is_legal();
        moved().finally(&[], &["7 t1"]).breaks(Promise::LastFlagWins, &["Archive", "\\Seen"]);
        moved().read((7, 8), "Archive", &["7 t1"]).breaks(Promise::LastFlagWins, &["\\Seen"]);
        let wrong = moved().finally(&[], &["7 t1 \\Seen \\Draft"]);
        wrong.breaks(Promise::LastFlagWins, &["\\Draft"]);
        let copied = || flagged("+ \\Seen").copy((5, 6), (1, "t1"), verdict.clone());
        copied().finally(&["1 t1 \\Seen"], &["7 t1 \\Seen"]).is_legal();
        let wrong = copied().finally(&["1 t1 \\Seen"], &["7 t1"]);
        wrong.breaks(Promise::LastFlagWins, &["Archive", "\\Seen"]);
    }
    // What nobody answered may be done long after it was given up, and take a later value along.
    for end in ["7 t1 \\Seen", "7 t1"] {
        let moved = flagged("+ \\Seen").move_((5, 6), (1, "t1"), unknown());
        let moved = moved.store((7, 8), (1, "t1"), "- \\Seen", done());
        moved.finally(&[], &[end]).is_legal();
        // It can have come in either of two ways, with either value.
        let moved = flagged("+ \\Seen").copy((5, 6), (1, "t1"), unknown());
        let moved = moved.store((7, 8), (1, "t1"), "- \\Seen", done());
        moved.copy((9, 10), (1, "t1"), unknown()).finally(&["1 t1"], &[end]).is_legal();
    }
}

#[test]
fn uids_ascend_and_are_not_reused() {
    let told = story().deliver((1, 2), "t1", placed(5)).deliver((3, 4), "t2", placed(4));
    told.breaks(Promise::NumbersAscend, &["UID 4", "UID 5"]);
    let told = story().deliver((1, 4), "t1", placed(5)).deliver((3, 4), "t2", placed(4));
    told.is_legal();
    let told = story().deliver((1, 2), "t1", placed(5)).deliver((3, 4), "t2", placed(5));
    told.breaks(Promise::NumbersAscend, &["UID 5", "t1", "t2"]);
    // Expunged in between: its UID is used up.
    let told = story().deliver((1, 2), "t1", placed(1)).expunge((3, 4), (1, "t1"), done());
    let told = told.deliver((5, 6), "t2", done()).read((7, 8), "INBOX", &["1 t2"]);
    told.breaks(Promise::NumbersAscend, &["UID 1", "t1", "t2"]);
}

#[test]
fn a_uid_below_a_uid_next_told_before_is_caught() {
    let look = |uid_next| View { uid_next: Some(uid_next), ..view(&[]) };
    let told = story().look((1, 2), "INBOX", look(5)).deliver((3, 4), "t1", placed(4));
    told.breaks(Promise::NumbersAscend, &["UIDNEXT is 5", "UID 4"]);
    let told = story().look((1, 3), "INBOX", look(5)).deliver((3, 4), "t1", placed(4));
    told.is_legal();
    let told = story().deliver((1, 2), "t1", placed(4)).expunge((2, 3), (4, "t1"), done());
    told.look((4, 5), "INBOX", look(4)).breaks(Promise::NumbersAscend, &["UIDNEXT is 4", "UID 4"]);
}

#[test]
fn a_message_that_appears_under_a_uid_used_up_before_is_caught() {
    let sent = || story().deliver((1, 9), "t1", done()).deliver((1, 9), "t2", done());
    let seen = || sent().read((2, 3), "INBOX", &["5 t1"]);
    let told = seen().read((4, 5), "INBOX", &["3 t2", "5 t1"]);
    told.breaks(Promise::NumbersAscend, &["UID 3", "t2", "less than 6"]);
    seen().read((4, 5), "INBOX", &["5 t1", "6 t2"]).is_legal();
    // Begun before the other ended: either may have looked first.
    seen().read((3, 5), "INBOX", &["3 t2", "5 t1"]).is_legal();
    // What came while a mailbox was read may be counted and not listed.
    let look = |highest_modseq| View { uid_next: Some(5), highest_modseq, ..view(&[]) };
    let told = sent().look((2, 3), "INBOX", look(Some(7))).read((4, 5), "INBOX", &["4 t1"]);
    told.breaks(Promise::NumbersAscend, &["UID 4", "less than 5"]);
    sent().look((2, 3), "INBOX", look(None)).read((4, 5), "INBOX", &["4 t1"]).is_legal();
}

#[test]
fn counters_never_go_back_and_count_every_change() {
    let look = |uid_next, modseq, messages: &[&str]| View {
        uid_next: Some(uid_next),
        highest_modseq: Some(modseq),
        ..view(messages)
    };
    let twice = |first, second| story().look((1, 2), "A", first).look((3, 4), "A", second);
    twice(look(5, 7, &[]), look(5, 8, &[])).is_legal();
    twice(look(5, 7, &[]), look(4, 8, &[])).breaks(Promise::NumbersAscend, &["UIDNEXT was 5"]);
    twice(look(5, 7, &[]), look(5, 6, &[]))
        .breaks(Promise::NumbersAscend, &["HIGHESTMODSEQ was 7", "is 6"]);
    // A look in between that was told neither changes nothing.
    let told = story().look((1, 2), "A", look(5, 7, &[])).look((3, 4), "A", view(&[]));
    let told = told.look((5, 6), "A", look(4, 6, &[]));
    told.breaks(Promise::NumbersAscend, &["UIDNEXT was 5", "is 4"]);
    told.breaks(Promise::NumbersAscend, &["HIGHESTMODSEQ was 7", "is 6"]);
    let concurrent = story().look((1, 3), "A", look(5, 8, &[])).look((2, 4), "A", look(4, 7, &[]));
    concurrent.is_legal();
    let delivered = || story().deliver((1, 2), "t1", done());
    let seen = delivered().look((3, 4), "INBOX", look(2, 7, &["1 t1"]));
    let seen = seen.store((5, 6), (1, "t1"), "+ \\Seen", unknown());
    let seen = seen.look((7, 8), "INBOX", look(2, 7, &["1 t1 \\Seen"]));
    seen.breaks(Promise::NumbersAscend, &["HIGHESTMODSEQ is 7", "changed"]);
    let low = delivered().look((3, 4), "INBOX", look(1, 7, &["1 t1"]));
    low.breaks(Promise::NumbersAscend, &["UIDNEXT is 1", "must be 2"]);
}

#[test]
fn the_modseq_of_a_message_never_goes_back_and_counts_every_change() {
    let look = |line: &str, modseq| {
        let mut look = view(&[line]);
        look.messages[0].modseq = Some(modseq);
        look
    };
    let begun = |modseq| {
        let told = story().deliver((1, 2), "t1", done());
        let told = told.look((3, 5), "INBOX", look("1 t1", modseq));
        told.store((4, 9), (1, "t1"), "+ \\Seen", unknown())
    };
    let then = |line, modseq| begun(7).look((6, 8), "INBOX", look(line, modseq));
    then("1 t1 \\Seen", 8).is_legal();
    then("1 t1", 7).is_legal();
    // A change that changes nothing may count or not.
    then("1 t1", 8).is_legal();
    then("1 t1", 6).breaks(Promise::NumbersAscend, &["MODSEQ of UID 1 was 7", "is 6"]);
    then("1 t1 \\Seen", 7).breaks(Promise::NumbersAscend, &["UID 1 has MODSEQ 7", "\\Seen"]);
    // Neither began after the other ended: either may have looked first.
    begun(8).look((4, 6), "INBOX", look("1 t1", 7)).is_legal();
    let told = begun(7).look((4, 6), "INBOX", look("1 t1 \\Seen", 7));
    told.breaks(Promise::NumbersAscend, &["UID 1 has MODSEQ 7", "\\Seen"]);
}

#[test]
fn another_uidvalidity_is_caught() {
    let other = View { uid_validity: 10, ..view(&[]) };
    let told = story().look((1, 2), "INBOX", view(&[])).look((3, 4), "INBOX", other);
    told.breaks(Promise::NumbersAscend, &["UIDVALIDITY was 9 and is 10"]);
}

#[test]
fn reads_see_what_was_acknowledged_before_they_began() {
    for verdict in [done(), placed(1)] {
        let told = story().deliver((1, 2), "t1", verdict.clone()).read((3, 4), "INBOX", &[]);
        told.breaks(Promise::ReadsAreCurrent, &["t1", "0.000003s"]);
        let told = story().deliver((1, 3), "t1", verdict).read((2, 4), "INBOX", &[]);
        told.is_legal();
    }
    // Two reads after each other: the second must not see less.
    let told = story().deliver((1, 9), "t1", unknown()).read((2, 3), "INBOX", &["1 t1"]);
    told.read((4, 5), "INBOX", &[]).breaks(Promise::ReadsAreCurrent, &["t1"]);
    let told = story().deliver((1, 9), "t1", done()).expunge((3, 9), (1, "t1"), unknown());
    told.read((4, 5), "INBOX", &[]).finally(&[], &[]).is_legal();
    let partial = View { complete: false, ..view(&[]) };
    story().deliver((1, 2), "t1", done()).look((3, 4), "INBOX", partial).is_legal();
}

#[test]
fn a_moved_message_is_in_exactly_one_mailbox() {
    for verdict in [carried(1, 7), unknown()] {
        let begun =
            || story().deliver((1, 2), "t1", placed(1)).move_((3, 4), (1, "t1"), verdict.clone());
        begun().finally(&["1 t1"], &["7 t1"]).breaks(Promise::MoveIsAtomic, &["t1", "UID 7"]);
        begun().finally(&[], &[]).breaks(Promise::MoveIsAtomic, &["t1", "nowhere"]);
        begun().finally(&[], &["7 t1"]).is_legal();
    }
    let begun = || story().deliver((1, 2), "t1", placed(1)).move_((3, 4), (1, "t1"), unknown());
    begun().finally(&["1 t1"], &[]).is_legal();
    let undone = story().deliver((1, 2), "t1", placed(1)).move_((3, 4), (1, "t1"), carried(1, 7));
    undone.finally(&["1 t1"], &[]).breaks(Promise::MoveIsAtomic, &["UID 1", "t1"]);
}

#[test]
fn a_move_that_shows_at_one_end_shows_at_the_other() {
    let begun =
        || story().deliver((1, 2), "t1", placed(1)).move_((3, 20), (1, "t1"), carried(1, 7));
    let both = begun().read((4, 5), "Archive", &["7 t1"]).read((6, 7), "INBOX", &["1 t1"]);
    both.breaks(Promise::MoveIsAtomic, &["UID 1", "t1", "0.000005s"]);
    let neither = begun().read((4, 5), "INBOX", &[]).read((6, 7), "Archive", &[]);
    neither.breaks(Promise::ReadsAreCurrent, &["t1", "moved there"]);
    let fine = begun().read((4, 5), "INBOX", &["1 t1"]).read((6, 7), "Archive", &["7 t1"]);
    fine.read((8, 9), "INBOX", &[]).finally(&[], &["7 t1"]).is_legal();
}

#[test]
fn what_may_be_in_a_mailbox_that_nobody_read_in_the_end_is_not_called_lost() {
    let begun = story().deliver((1, 2), "t1", placed(1));
    let begun = begun.deliver((1, 2), "t2", placed(2)).move_((3, 4), (1, "t1"), carried(1, 7));
    let mut told = begun.finally(&["2 t2"], &[]);
    told.breaks(Promise::MoveIsAtomic, &["t1", "nowhere"]);
    told.history.records.pop();
    told.is_legal();
    // What was read is judged all the same.
    let begun = story().deliver((1, 2), "t1", placed(1)).deliver((1, 2), "t2", placed(2));
    let mut told = begun.move_((3, 4), (1, "t1"), carried(1, 7)).finally(&[], &[]);
    told.history.records.pop();
    told.breaks(Promise::NothingLost, &["UID 2", "t2"]);
}

#[test]
fn where_messages_went_is_told_each_time() {
    let begun = || {
        let begun = story().deliver((1, 2), "t1", placed(1)).deliver((1, 2), "t2", placed(2));
        begun.move_((3, 4), (1, "t1"), carried(1, 7)).of_client(77)
    };
    let copied = || begun().copy((5, 6), (2, "t2"), done());
    let told = copied().of_client(77);
    told.breaks(Promise::NumbersAscend, &["UID 2", "t2", "not told of"]);
    // Nobody ever told that client.
    copied().is_legal();
    // It was gone, or may have been: there was nothing to tell.
    let gone = |verdict| begun().expunge((3, 4), (2, "t2"), verdict);
    for verdict in [done(), unknown()] {
        gone(verdict).copy((5, 6), (2, "t2"), changed(&[])).of_client(77).is_legal();
    }
    let kept = gone(refused()).copy((5, 6), (2, "t2"), changed(&[])).of_client(77);
    kept.breaks(Promise::NumbersAscend, &["UID 2", "t2", "not told of"]);
}

#[test]
fn what_is_there_is_not_left_out_of_a_move_or_copy() {
    let nothing = || {
        let (uid_validity, uids, sources) = (9, Vec::new(), Vec::new());
        ack(Reply::Placed(Placed { uid_validity, uids, sources }))
    };
    let sent = || story().deliver((1, 3), "t1", placed(1));
    let told = sent().move_((4, 6), (1, "t1"), nothing()).finally(&["1 t1"], &[]);
    told.breaks(Promise::NothingLost, &["UID 1", "t1", "left out"]);
    let told = sent().copy((4, 6), (1, "t1"), nothing()).finally(&["1 t1"], &[]);
    told.breaks(Promise::NothingLost, &["UID 1", "t1", "left out"]);
    // Not yet there, gone before, or gone meanwhile.
    sent().move_((2, 6), (1, "t1"), nothing()).finally(&["1 t1"], &[]).is_legal();
    for (start, end) in [(4, 5), (5, 8)] {
        let moved = sent().move_((4, 6), (1, "t1"), nothing());
        moved.expunge((start, end), (1, "t1"), done()).finally(&[], &[]).is_legal();
    }
    let moved = sent().move_((4, 6), (1, "t1"), nothing());
    let told = moved.expunge((7, 8), (1, "t1"), done()).finally(&[], &[]);
    told.breaks(Promise::NothingLost, &["left out"]);
}

#[test]
fn a_copy_is_a_second_message() {
    let begun = || story().deliver((1, 2), "t1", placed(1)).copy((3, 4), (1, "t1"), carried(1, 7));
    begun().finally(&["1 t1"], &["7 t1"]).is_legal();
    begun().finally(&["1 t1"], &[]).breaks(Promise::NothingLost, &["t1"]);
    begun().finally(&["1 t1"], &["7 t1", "8 t1"]).breaks(Promise::ExactlyOnce, &["UID 8"]);
}

#[test]
fn replicas_that_differ_are_caught() {
    let state = |replica, applied, digest: &str| {
        Record::Replica(ReplicaState { shard: 1, replica, applied, digest: digest.into() })
    };
    let told = |second| {
        let mut told = story();
        told.history.records = vec![state(1, 9, "aa"), second];
        told
    };
    told(state(2, 9, "aa")).is_legal();
    told(state(2, 9, "ab")).breaks(Promise::Convergence, &["replica 2", "ab"]);
    told(state(2, 8, "aa")).breaks(Promise::Convergence, &["index 8"]);
}

#[test]
fn a_replica_without_a_good_copy_of_a_body_is_caught() {
    let told = |missing: &[&str], damaged: &[&str]| {
        let all = |digests: &[&str]| digests.iter().map(|&digest| digest.into()).collect();
        let copies = Copies {
            account: "anna".into(),
            shard: 1,
            replica: 7,
            node: "n2".into(),
            n_chunks: 4,
            missing: all(missing),
            damaged: all(damaged),
        };
        let mut told = story();
        told.history.records = vec![Record::Copies(copies)];
        told
    };
    told(&[], &[]).is_legal();
    told(&["aa", "bb"], &[]).breaks(Promise::EveryCopyIsGood, &["replica 7", "lacks 2 of 4", "aa"]);
    told(&[], &["cc"]).breaks(Promise::EveryCopyIsGood, &["on n2", "damaged 1 of 4", "cc"]);
}

#[test]
fn an_idle_that_is_not_told_is_caught() {
    let told = |start_us, end_us| {
        let second = 1_000_000;
        let mut told = story().deliver((2 * second, 3 * second), "t1", done());
        let (account, mailbox) = ("anna".into(), "INBOX".into());
        let (client, is_told) = (77, true);
        let (start_us, end_us) = (start_us * second, end_us * second);
        let idle = Record::Idle { client, account, mailbox, start_us, end_us, is_told };
        told.history.records.push(idle);
        told
    };
    told(1, 12).is_legal();
    told(1, 14).breaks(Promise::NewsArrive, &["client 77", "11.000000s"]);
    // What began to arrive before it waited was there to be seen before.
    told(3, 40).is_legal();
}

#[test]
fn an_idle_need_not_be_told_by_a_store_that_is_away() {
    let second = 1_000_000;
    let told = || {
        let mut told = story().deliver((2 * second, 3 * second), "t1", done());
        let (account, mailbox) = ("anna".into(), "INBOX".into());
        let (client, start_us, end_us, is_told) = (77, second, 23 * second, true);
        let idle = Record::Idle { client, account, mailbox, start_us, end_us, is_told };
        told.history.records.push(idle);
        told
    };
    told().breaks(Promise::NewsArrive, &["client 77", "20.000000s"]);
    let hurt = |start_us, end_us| {
        let mut told = told();
        let (start_us, end_us) = (start_us * second, end_us * second);
        let fault = Fault { name: "n1 crashed".into(), start_us, end_us };
        told.history.records.push(Record::Fault(fault));
        told
    };
    hurt(1, 14).is_legal();
    hurt(20, 24).is_legal();
    hurt(1, 12).breaks(Promise::NewsArrive, &["client 77", "11.000000s"]);
    hurt(1, 2).breaks(Promise::NewsArrive, &["client 77", "20.000000s"]);
    hurt(24, 25).breaks(Promise::NewsArrive, &["client 77", "20.000000s"]);
    // Nobody got anything done in this account for as long.
    let silent = |until: u64| {
        let time = ((until - 1) * second, until * second);
        told().read(time, "INBOX", &["1 t1"]).read((time.1, 23 * second), "INBOX", &["1 t1"])
    };
    silent(22).is_legal();
    let busy = (4..=22).fold(told(), |told, n| {
        let half = second / 2;
        let told = told.read((n * second - second, n * second - half), "INBOX", &["1 t1"]);
        told.read((n * second - half, n * second), "INBOX", &["1 t1"])
    });
    busy.breaks(Promise::NewsArrive, &["client 77", "20.000000s"]);
}
