//! The verbs one by one.

mod support;

use mailbox::command::{CreateAccount, Quota};
use mailbox::query::Query;
use mailbox::*;
use support::*;

#[test]
fn a_new_account_has_inbox_and_its_default_mailboxes() {
    let shard = Shard::with_account();
    let Answer::Mailboxes(infos, subscribed) = shard.ask(&Query::Mailboxes(ACCOUNT)) else {
        panic!("refused");
    };
    let names: Vec<_> = infos.iter().map(|info| info.name.join('/')).collect();
    assert_eq!(names, ["INBOX", "Sent"]);
    assert!(subscribed.is_empty());
    assert_eq!(infos[1].special_use, Some(command::SpecialUse::Sent));
}

#[test]
fn a_new_account_is_subscribed_to_its_mailboxes_if_it_is_created_so() {
    let mut shard = Shard::new();
    let Command::CreateAccount(create) = create_account(ACCOUNT, Quota::default()) else {
        unreachable!("what it makes");
    };
    let n_bytes = minicbor::to_vec(&create).unwrap().len();
    let create = CreateAccount { subscribe: Some(true), ..create };
    assert_eq!(
        minicbor::to_vec(&create).unwrap().len(),
        n_bytes + 1,
        "nothing when it is not said"
    );
    assert_eq!(shard.run(Command::CreateAccount(create)), Outcome::Done);
    let Answer::Mailboxes(infos, others) = shard.ask(&Query::Mailboxes(ACCOUNT)) else {
        panic!("refused");
    };
    assert_eq!(infos.len(), 2);
    assert!(infos.iter().all(|info| info.subscribed) && others.is_empty(), "{infos:?}");
}

#[test]
fn a_delivery_arrives_in_inbox_with_the_next_uid_and_a_higher_modseq() {
    let mut shard = Shard::with_account();
    let before = shard.mailbox("INBOX");
    let Outcome::Appended(first) = shard.deliver(&mail("one")) else { panic!("refused") };
    assert_eq!(first.uids, set(&[1]));
    assert_eq!(first.uid_validity, before.uid_validity);
    shard.deliver(&mail("two"));
    let after = shard.mailbox("INBOX");
    assert!(after.highest_modseq > before.highest_modseq);
    assert_eq!((after.n_messages, after.n_unseen, after.n_recent), (2, 2, 2));
    assert_eq!(after.uid_next, uid(3));
    assert_eq!(shard.uids("INBOX"), set(&[1, 2]));
    let records = shard.everything("INBOX");
    assert_eq!(records.len(), 2);
    assert_eq!(records[1].size, mail("two").len() as u64);
}
