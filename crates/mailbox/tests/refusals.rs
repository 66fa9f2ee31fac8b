//! Every refusal, and that it changes nothing; the limits; uploads; the directory.

mod support;

use mailbox::command::*;
use mailbox::query::Query;
use mailbox::*;
use support::*;

fn refused(shard: &mut Shard, command: Command) -> Refusal {
    let before = shard.mailbox("INBOX");
    match shard.run(command) {
        Outcome::Refused(refusal) => {
            assert_eq!(shard.mailbox("INBOX"), before);
            refusal
        }
        other => panic!("{other:?}"),
    }
}

fn change(change: AccountChange) -> Command {
    Command::ChangeAccount(ChangeAccount { account: ACCOUNT, change })
}

#[test]
fn accounts_are_refused_when_taken_absent_or_suspended() {
    let mut shard = Shard::with_account();
    let again = create_account(ACCOUNT, Quota::default());
    assert_eq!(refused(&mut shard, again), Refusal::Taken);
    let absent = Command::DeleteAccount(AccountId([9; 16]));
    assert_eq!(refused(&mut shard, absent), Refusal::NoSuchAccount);
    shard.run(change(AccountChange::State(AccountState::Suspended)));
    assert_eq!(shard.deliver(&mail("no")), Outcome::Refused(Refusal::Suspended));
    assert_eq!(shard.ask(&Query::Mailboxes(ACCOUNT)), Answer::Refused(Refusal::Suspended));
    assert!(matches!(shard.ask(&Query::Account(ACCOUNT)), Answer::Account(_)));
    shard.run(change(AccountChange::State(AccountState::Active)));
    assert!(matches!(shard.deliver(&mail("yes")), Outcome::Appended(_)));
    assert_eq!(shard.run(Command::DeleteAccount(ACCOUNT)), Outcome::Done);
    assert_eq!(shard.deliver(&mail("no")), Outcome::Refused(Refusal::NoSuchAccount));
    assert_eq!(shard.ask(&Query::Account(ACCOUNT)), Answer::Refused(Refusal::NoSuchAccount));
}

#[test]
fn uid_validity_outlives_the_account() {
    let mut shard = Shard::with_account();
    for i in 0..50 {
        shard.create(&format!("m{i}"));
    }
    let last = shard.mailbox("m49").uid_validity;
    shard.run(Command::DeleteAccount(ACCOUNT));
    shard.clean();
    shard.run(create_account(ACCOUNT, Quota::default()));
    assert!(shard.mailbox("INBOX").uid_validity > last);
}

#[test]
fn names_are_refused_by_the_rules_of_the_tree() {
    let mut shard = Shard::with_account();
    shard.create("a/b/c");
    assert_eq!(refused(&mut shard, create("a/b")), Refusal::MailboxExists);
    assert_eq!(refused(&mut shard, create("inbox")), Refusal::Inbox);
    assert_eq!(refused(&mut shard, delete("INBOX")), Refusal::Inbox);
    assert_eq!(refused(&mut shard, delete("x")), Refusal::NoSuchMailbox);
    assert_eq!(refused(&mut shard, rename("a", "a/b/d")), Refusal::BelowItself);
    assert_eq!(refused(&mut shard, rename("a", "Sent")), Refusal::MailboxExists);
    let before = shard.mailbox("a");
    shard.run(delete("a"));
    assert!(!shard.mailbox("a").selectable);
    assert_eq!(refused(&mut shard, delete("a")), Refusal::NotSelectable);
    let new = shard.create("a");
    assert!(new != before.of.mailbox && shard.mailbox("a").uid_validity > before.uid_validity);
    assert!(shard.mailbox("a/b/c").selectable);
    let deep: Vec<String> = (0..30).map(|i| i.to_string()).collect();
    shard.create(&deep.join("/"));
    let too_deep = refused(&mut shard, rename("0", "a/b/c/d"));
    assert!(matches!(too_deep, Refusal::Limit(_)));
    let sent = Some(SpecialUse::Sent);
    let twice = CreateMailbox { account: ACCOUNT, name: name("s"), special_use: sent };
    assert_eq!(refused(&mut shard, Command::CreateMailbox(twice)), Refusal::SpecialUse);
    shard.run(delete("Sent"));
    let once = CreateMailbox { account: ACCOUNT, name: name("s"), special_use: sent };
    assert!(matches!(shard.run(Command::CreateMailbox(once)), Outcome::MailboxCreated(_)));
}

#[test]
fn a_rename_keeps_messages_uids_and_identity_of_a_whole_subtree() {
    let mut shard = Shard::with_account();
    shard.create("a/b");
    shard.append("a/b", &[mail("x")], &Flags::default());
    let before = shard.mailbox("a/b");
    assert_eq!(shard.run(rename("a", "z/y")), Outcome::Done);
    let after = shard.mailbox("z/y/b");
    assert_eq!((after.of, after.uid_validity), (before.of, before.uid_validity));
    assert_eq!(shard.everything("z/y/b").len(), 1);
    assert!(shard.mailbox("z").selectable);
}

#[test]
fn quota_is_decided_when_the_message_arrives() {
    let mut shard = Shard::with_account();
    let size = mail("1").len() as u64;
    let quota = Quota { storage_bytes: Some(2 * size), n_messages: None };
    shard.run(change(AccountChange::Quota(quota)));
    shard.deliver(&mail("1"));
    shard.deliver(&mail("2"));
    assert_eq!(shard.deliver(&mail("3")), Outcome::Refused(Refusal::OverQuota));
    let of = shard.of("INBOX");
    assert_eq!(refused(&mut shard, copy(of, of, set(&[1]), 1)), Refusal::OverQuota);
    shard.run(expunge(of, set(&[1]), false));
    assert!(matches!(shard.deliver(&mail("3")), Outcome::Appended(_)));
    shard.run(r#move(of, shard.of("Sent"), UidSet::all()));
    assert_eq!(shard.mailbox("Sent").n_messages, 2);
}

/// RFC 8508 3.4.
#[test]
fn a_replaced_message_leaves_its_room_to_the_new_one() {
    let mut shard = Shard::with_account();
    let size = mail("1").len() as u64;
    let quota = Quota { storage_bytes: Some(size + 6), n_messages: Some(1) };
    shard.run(change(AccountChange::Quota(quota)));
    shard.deliver(&mail("1"));
    let inbox = shard.of("INBOX").mailbox;
    let mut replace = |uid: u32, raw: &[u8]| {
        let (message, inline) = shard.message(raw);
        let append = Append {
            account: ACCOUNT,
            mailbox: inbox,
            messages: vec![AppendMessage { message, flags: Flags::default(), internal_date: None }],
            replaces: Some(Replaced { mailbox: inbox, uid: Uid::new(uid).unwrap() }),
            name: None,
        };
        shard.apply(Command::Append(append), &inline).outcome
    };
    // The subject is in the message twice.
    assert_eq!(replace(1, &mail("12345")), Outcome::Refused(Refusal::OverQuota));
    assert!(matches!(replace(1, &mail("1234")), Outcome::Appended(_)));
    assert!(matches!(replace(2, &mail("1")), Outcome::Appended(_)));
    assert_eq!(shard.everything("INBOX").len(), 1);
}

#[test]
fn what_comes_ahead_of_a_replacement_finds_the_room_of_what_goes() {
    let mut shard = Shard::with_account();
    let raw = mail("1234");
    let size = raw.len() as u64;
    shard.deliver(&mail("1234"));
    let quota = Quota { storage_bytes: Some(size), n_messages: Some(1) };
    shard.run(change(AccountChange::Quota(quota)));
    let (message, chunks) = shard.message(&raw);
    let inbox = shard.of("INBOX").mailbox;
    let upload = UploadId([5; 16]);
    let piece = |of: Option<(MailboxId, u32)>, sequence: u32| {
        let replaces = of.map(|(mailbox, uid)| Replaced { mailbox, uid: Uid::new(uid).unwrap() });
        let chunks = message.chunks.clone();
        Command::Upload(Upload { account: ACCOUNT, upload, sequence, chunks, replaces })
    };
    for of in [None, Some((inbox, 2)), Some((MailboxId(99), 1))] {
        let refusal = shard.apply(piece(of, 0), &chunks).outcome;
        assert_eq!(refusal, Outcome::Refused(Refusal::OverQuota), "{of:?}");
    }
    let of = Some((inbox, 1));
    assert_eq!(shard.apply(piece(of, 0), &chunks).outcome, Outcome::Done);
    // No more than went.
    let refusal = shard.apply(piece(of, 1), &chunks).outcome;
    assert_eq!(refusal, Outcome::Refused(Refusal::OverQuota));
    let message = NewMessage { upload: Some(upload), ..message.clone() };
    let append = Append {
        account: ACCOUNT,
        mailbox: inbox,
        messages: vec![AppendMessage { message, flags: Flags::default(), internal_date: None }],
        replaces: Some(Replaced { mailbox: inbox, uid: Uid::FIRST }),
        name: None,
    };
    assert!(matches!(shard.run(Command::Append(append)), Outcome::Appended(_)));
    assert_eq!(shard.everything("INBOX").len(), 1);
}

#[test]
fn a_message_needs_all_its_chunks() {
    let mut shard = Shard::with_account();
    let (message, inline) = shard.message(&mail("x"));
    let deliver = |message: &NewMessage| {
        let message = message.clone();
        Command::Deliver(Deliver { account: ACCOUNT, detail: None, message, internal_date: None })
    };
    assert_eq!(refused(&mut shard, deliver(&message)), Refusal::ChunkMissing);
    let lies = NewMessage { size: message.size + 1, ..message.clone() };
    let outcome = shard.apply(deliver(&lies), &inline).outcome;
    assert_eq!(outcome, Outcome::Refused(Refusal::ChunkMissing));
    assert!(matches!(shard.apply(deliver(&message), &inline).outcome, Outcome::Appended(_)));
    // Now the account refers to it already.
    assert!(matches!(shard.run(deliver(&message)), Outcome::Appended(_)));
    // Another account does not.
    let other = AccountId([8; 16]);
    shard.run(create_account(other, Quota::default()));
    let deliver = Deliver { account: other, detail: None, message, internal_date: None };
    assert_eq!(refused(&mut shard, Command::Deliver(deliver)), Refusal::ChunkMissing);
}

#[test]
fn uploads_take_only_the_next_piece_and_expire() {
    let mut shard = Shard::with_account();
    let raw = vec![b'x'; 300_000];
    let (mut message, chunks) = shard.message(&raw);
    let id = UploadId([5; 16]);
    let upload = |sequence: u32, chunks: &[ChunkRef]| {
        let (account, chunks) = (ACCOUNT, chunks.to_vec());
        Command::Upload(Upload { account, upload: id, sequence, chunks, replaces: None })
    };
    assert_eq!(refused(&mut shard, upload(1, &[])), Refusal::UploadGap);
    assert_eq!(refused(&mut shard, upload(0, &chunks[..2])), Refusal::ChunkMissing);
    assert_eq!(shard.apply(upload(0, &chunks[..2]), &chunks[..2]).outcome, Outcome::Done);
    assert_eq!(refused(&mut shard, upload(0, &[])), Refusal::UploadGap);
    assert_eq!(shard.apply(upload(1, &chunks[2..]), &chunks[2..]).outcome, Outcome::Done);
    assert!(is_chunk_live(&shard.rows, &chunks[0].digest));
    message.upload = Some(id);
    let deliver = Deliver { account: ACCOUNT, detail: None, message, internal_date: None };
    let deliver = Command::Deliver(deliver);
    assert!(matches!(shard.run(deliver.clone()), Outcome::Appended(_)));
    // For a second recipient that is the same account.
    assert!(matches!(shard.run(deliver), Outcome::Appended(_)));
    assert_eq!(shard.apply(upload(0, &chunks), &chunks).outcome, Outcome::Done);
    shard.run(expunge(shard.of("INBOX"), UidSet::all(), false));
    shard.clean();
    assert!(!is_chunk_live(&shard.rows, &chunks[0].digest));
}

#[test]
fn one_account_does_not_keep_all_others_large_mail_out() {
    let mut shard = Shard::with_account();
    let raw = vec![b'x'; 200_000];
    let (_, chunks) = shard.message(&raw);
    let piece = |n: u32, sequence: u32| {
        let (account, chunks) = (ACCOUNT, vec![chunks[0]; 250]);
        let upload = UploadId(id_of(n));
        Command::Upload(Upload { account, upload, sequence, chunks, replaces: None })
    };
    let mut n_taken = 0;
    let refusal = loop {
        match shard.apply(piece(n_taken, 0), &chunks).outcome {
            Outcome::Done => n_taken += 1,
            Outcome::Refused(refusal) => break refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal, Refusal::Limit("open uploads of one account".into()));
    let n_bytes = 250 * u64::from(chunks[0].raw_len);
    assert_eq!(u64::from(n_taken), (512 << 20) / n_bytes);
    // One that is given up makes room, whoever says so how often.
    for _ in 0..2 {
        shard.run(Command::Upload(Upload::give_up(ACCOUNT, UploadId(id_of(3)))));
    }
    assert_eq!(refused(&mut shard, piece(3, 1)), Refusal::UploadGap);
    assert_eq!(shard.apply(piece(n_taken, 0), &chunks).outcome, Outcome::Done);
    for n in 0..=n_taken {
        shard.run(Command::Upload(Upload::give_up(ACCOUNT, UploadId(id_of(n)))));
    }
    assert!(!is_chunk_live(&shard.rows, &chunks[0].digest));
}

/// Uploads of some 16 MB each until no more are taken; how many were.
fn fill(shard: &mut Shard, account: AccountId, chunks: &[ChunkRef]) -> u32 {
    let mut n_taken = 0;
    loop {
        let upload = UploadId(id_of(1_000 + shard.sequence as u32));
        let all = vec![chunks[0]; 250];
        let piece = Upload { account, upload, sequence: 0, chunks: all, replaces: None };
        match shard.apply(Command::Upload(piece), chunks).outcome {
            Outcome::Done => n_taken += 1,
            Outcome::Refused(Refusal::Limit(_)) => return n_taken,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn few_accounts_do_not_keep_all_others_large_mail_out_and_dead_uploads_end_soon() {
    let mut shard = Shard::with_account();
    let (_, chunks) = shard.message(&vec![b'x'; 200_000]);
    let accounts = [1, 2, 3, 4, 5, 6].map(|n| AccountId([n; 16]));
    let late = AccountId([8; 16]);
    for account in accounts.into_iter().chain([late]) {
        assert_eq!(shard.run(create_account(account, Quota::default())), Outcome::Done);
    }
    let after_minutes = |shard: &mut Shard, minutes: u64| {
        shard.now_ms += minutes * 60_000;
        let uploads_before = LogTime(shard.now_ms - 10 * 60_000);
        let never = LogTime(0);
        let step = Housekeep { sessions_before: never, uploads_before, purge_before: never };
        while shard.housekeep(step.clone()) {}
    };
    assert_eq!(fill(&mut shard, accounts[0], &chunks), 32);
    after_minutes(&mut shard, 3);
    assert_eq!(fill(&mut shard, accounts[0], &chunks), 0, "there is room for others");
    let taken = [1, 2, 3, 4, 5].map(|n| fill(&mut shard, accounts[n], &chunks));
    assert_eq!(taken, [24, 18, 14, 10, 8], "less where less is left");
    assert_eq!(fill(&mut shard, ACCOUNT, &chunks), 6, "whoever comes now");
    // The first ones may wait for the others of their APPEND.
    after_minutes(&mut shard, 1);
    assert_eq!(fill(&mut shard, late, &chunks), 4, "nothing is dropped after four minutes");
    // Nobody continues them: they go, until there is room again.
    after_minutes(&mut shard, 3);
    assert!(fill(&mut shard, accounts[0], &chunks) > 0);
}

#[test]
fn an_upload_goes_on_while_there_are_as_many_as_there_may_be() {
    let mut shard = Shard::with_account();
    let (_, chunks) = shard.message(&mail("x"));
    let piece = |n: u32, sequence: u32| {
        let (account, chunks) = (ACCOUNT, chunks.clone());
        let upload = UploadId(id_of(n));
        Command::Upload(Upload { account, upload, sequence, chunks, replaces: None })
    };
    for n in 0..256 {
        assert_eq!(shard.apply(piece(n, 0), &chunks).outcome, Outcome::Done, "upload {n}");
    }
    let too_many = Refusal::Limit("open uploads of one account".into());
    assert_eq!(refused(&mut shard, piece(256, 0)), too_many);
    for n in [0, 255] {
        assert_eq!(shard.apply(piece(n, 1), &chunks).outcome, Outcome::Done, "upload {n}");
    }
    shard.run(Command::Upload(Upload::give_up(ACCOUNT, UploadId(id_of(7)))));
    assert_eq!(shard.apply(piece(256, 0), &chunks).outcome, Outcome::Done);
}

fn id_of(n: u32) -> [u8; 16] {
    let mut id = [9; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    id
}

#[test]
fn a_detail_names_a_mailbox_or_inbox() {
    let mut shard = Shard::with_account();
    let lists = shard.create("Lists");
    for (detail, to) in [("lists", lists), ("none", shard.of("INBOX").mailbox)] {
        let (message, inline) = shard.message(&mail(detail));
        let detail = Some(detail.to_owned());
        let deliver = Deliver { account: ACCOUNT, detail, message, internal_date: None };
        let deliver = Command::Deliver(deliver);
        let Outcome::Appended(appended) = shard.apply(deliver, &inline).outcome else {
            panic!("refused");
        };
        assert_eq!(appended.mailbox, to);
    }
}

#[test]
fn an_address_is_one_account_s() {
    let mut shard = Shard::with_account();
    let place = |account: u8, epoch: u64| Place {
        account: AccountId([account; 16]),
        shard: ShardId(1),
        epoch,
        alias: false,
    };
    let ann = address("ann@example.test");
    let claim = |place: Place| {
        Command::ClaimAddress(ClaimAddress { address: address("ann@example.test"), place })
    };
    let repoint = |place: Place| {
        Command::RepointAddress(ClaimAddress { address: address("ann@example.test"), place })
    };
    assert_eq!(refused(&mut shard, repoint(place(7, 1))), Refusal::NoSuchAccount);
    assert_eq!(shard.run(claim(place(7, 1))), Outcome::Done);
    assert_eq!(shard.run(claim(place(7, 1))), Outcome::Done);
    assert_eq!(refused(&mut shard, claim(place(8, 1))), Refusal::Taken);
    assert_eq!(refused(&mut shard, repoint(place(7, 1))), Refusal::Moved(place(7, 1)));
    assert_eq!(shard.run(repoint(place(7, 2))), Outcome::Done);
    assert_eq!(shard.ask(&Query::Resolve(ann.clone())), Answer::Place(Some(place(7, 2))));
    let release = |account: u8| {
        let account = AccountId([account; 16]);
        Command::ReleaseAddress(ReleaseAddress { address: ann.clone(), account })
    };
    assert_eq!(refused(&mut shard, release(8)), Refusal::Taken);
    assert_eq!(shard.run(release(7)), Outcome::Done);
    assert_eq!(shard.ask(&Query::Resolve(ann.clone())), Answer::Place(None));
}

#[test]
fn a_login_is_not_made_an_alias_and_an_alias_can_become_a_login() {
    let mut shard = Shard::with_account();
    let place = |alias: bool| Place { account: ACCOUNT, shard: ShardId(1), epoch: 1, alias };
    let mut claimed = |text: &str, alias: bool| {
        let claim = ClaimAddress { address: address(text), place: place(alias) };
        assert_eq!(shard.run(Command::ClaimAddress(claim)), Outcome::Done);
        shard.ask(&Query::Resolve(address(text)))
    };
    assert_eq!(claimed("ann@example.test", false), Answer::Place(Some(place(false))));
    assert_eq!(claimed("ann@example.test", true), Answer::Place(Some(place(false))));
    assert_eq!(claimed("alias@example.test", true), Answer::Place(Some(place(true))));
    assert_eq!(claimed("alias@example.test", false), Answer::Place(Some(place(false))));
}

#[test]
fn an_address_is_a_group_s_or_an_account_s() {
    let mut shard = Shard::with_account();
    let place = Place { account: AccountId([7; 16]), shard: ShardId(1), epoch: 1, alias: false };
    let all = address("all@example.test");
    let set = |members: &[&str]| {
        let members = members.iter().map(|member| address(member)).collect();
        let all = address("all@example.test");
        Command::SetGroup(SetGroup { address: all, members, expected: None })
    };
    let claim = Command::ClaimAddress(ClaimAddress { address: all.clone(), place });
    assert_eq!(shard.run(set(&["bo@x.test", "al@x.test", "bo@x.test"])), Outcome::Done);
    let members = vec![address("al@x.test"), address("bo@x.test")];
    assert_eq!(shard.ask(&Query::Resolve(all.clone())), Answer::Group(members));
    assert_eq!(refused(&mut shard, claim.clone()), Refusal::Taken);
    let many: Vec<String> = (0..101).map(|n| format!("u{n}@x.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(refused(&mut shard, set(&many)), Refusal::Limit(_)));
    let Answer::Groups(groups, false) = shard.ask(&Query::Groups(None)) else { panic!("groups") };
    assert_eq!(groups.len(), 1);
    let after = Query::Groups(Some(all.clone()));
    assert_eq!(shard.ask(&after), Answer::Groups(Vec::new(), false));
    assert_eq!(shard.run(set(&[])), Outcome::Done);
    assert_eq!(shard.ask(&Query::Resolve(all)), Answer::Place(None));
    assert_eq!(shard.run(claim), Outcome::Done);
    assert_eq!(refused(&mut shard, set(&["al@x.test"])), Refusal::Taken);
}

fn set_group(shard: &mut Shard, n: usize, members: Vec<Address>) {
    let address = address(&format!("g{n:03}@example.test"));
    let set = SetGroup { address, members, expected: None };
    assert_eq!(shard.run(Command::SetGroup(set)), Outcome::Done);
}

#[test]
fn a_page_of_groups_has_as_many_as_are_not_too_large() {
    let mut shard = Shard::with_account();
    for n in 0..600 {
        set_group(&mut shard, n, vec![address("al@x.test")]);
    }
    let Answer::Groups(first, true) = shard.ask(&Query::Groups(None)) else { panic!("groups") };
    assert_eq!(first.len(), 512);
    let after = Query::Groups(first.last().map(|group| group.address.clone()));
    let Answer::Groups(second, false) = shard.ask(&after) else { panic!("groups") };
    assert_eq!(second.len(), 600 - 512);

    let large = |n: usize| address(&format!("{}{n:03}@x.test", "a".repeat(100)));
    for n in 0..100 {
        set_group(&mut shard, n, (0..100).map(large).collect());
    }
    let Answer::Groups(first, true) = shard.ask(&Query::Groups(None)) else { panic!("groups") };
    // Each takes some 11 KB.
    assert!((40..60).contains(&first.len()), "{}", first.len());
}

#[test]
fn a_group_that_changed_since_it_was_read_is_not_written_over() {
    let mut shard = Shard::with_account();
    let all = address("all@example.test");
    let addresses = |texts: &[&str]| texts.iter().map(|text| address(text)).collect::<Vec<_>>();
    let set = |expected: Option<&[&str]>, members: &[&str]| {
        let (expected, members) = (expected.map(addresses), addresses(members));
        Command::SetGroup(SetGroup { address: all.clone(), members, expected })
    };
    let (al, bo, cy) = ("al@x.test", "bo@x.test", "cy@x.test");
    assert_eq!(refused(&mut shard, set(Some(&[al]), &[al, bo])), Refusal::Taken);
    assert_eq!(shard.run(set(Some(&[]), &[bo, al])), Outcome::Done);
    assert_eq!(refused(&mut shard, set(Some(&[]), &[cy])), Refusal::Taken);
    // Two who read the same take a member away each.
    assert_eq!(shard.run(set(Some(&[al, bo]), &[bo])), Outcome::Done);
    assert_eq!(refused(&mut shard, set(Some(&[al, bo]), &[al])), Refusal::Taken);
    assert_eq!(shard.ask(&Query::Resolve(all.clone())), Answer::Group(addresses(&[bo])));
    assert_eq!(shard.run(set(Some(&[bo]), &[])), Outcome::Done);
    assert_eq!(shard.run(set(None, &[cy])), Outcome::Done);

    /// As it was before there was something to expect.
    #[derive(minicbor::Encode)]
    struct Earlier {
        #[n(0)]
        address: Address,
        #[n(1)]
        members: Vec<Address>,
    }
    let told = codec::encode(&Earlier { address: all.clone(), members: addresses(&[al]) });
    let set = SetGroup { address: all, members: addresses(&[al]), expected: None };
    assert_eq!(codec::decode::<SetGroup>(&told), Ok(set.clone()));
    assert_eq!(codec::encode(&set), told);
}

#[test]
fn keywords_are_spelled_as_first_written_and_bounded() {
    let mut shard = Shard::with_account();
    shard.deliver(&mail("x"));
    let of = shard.of("INBOX");
    let with = |text: &str| Flags {
        system: SystemFlags::default(),
        keywords: [Keyword::new(text).expect("a keyword")].into(),
    };
    shard.run(store(of, set(&[1]), FlagChange::Add(with("$Work"))));
    let before = shard.mailbox("INBOX").highest_modseq;
    shard.run(store(of, set(&[1]), FlagChange::Replace(with("$WORK"))));
    assert_eq!(shard.mailbox("INBOX").highest_modseq, before);
    assert_eq!(shard.mailbox("INBOX").keywords[0].as_str(), "$Work");
    shard.run(store(of, set(&[1]), FlagChange::Replace(Flags::default())));
    let mut refusals = 0;
    for i in 0..300 {
        let outcome = shard.run(store(of, set(&[1]), FlagChange::Replace(with(&format!("k{i}")))));
        refusals += usize::from(matches!(outcome, Outcome::Refused(Refusal::Limit(_))));
    }
    assert_eq!(refusals, 300 - 255);
    // A message that comes leaves behind what does not fit.
    let mut flags = with("k1");
    flags.keywords.insert(Keyword::new("another").expect("a keyword"));
    assert!(matches!(shard.append("INBOX", &[mail("y")], &flags), Outcome::Appended(_)));
    assert_eq!(shard.everything("INBOX")[1].flags, with("k1"));
    assert!(matches!(shard.append("Sent", &[mail("z")], &flags), Outcome::Appended(_)));
    let sent = shard.of("Sent");
    shard.run(copy(sent, of, set(&[1]), 1));
    shard.run(r#move(sent, of, set(&[1])));
    let all = shard.everything("INBOX");
    assert_eq!(all.len(), 4);
    assert!(all[2..].iter().all(|message| message.flags == with("k1")));
}

#[test]
fn recent_is_claimed_once() {
    let mut shard = Shard::with_account();
    shard.deliver(&mail("x"));
    let of = shard.of("INBOX");
    assert_eq!(shard.run(Command::ClaimRecent(of, None)), Outcome::RecentFrom(uid(1)));
    assert_eq!(shard.run(Command::ClaimRecent(of, None)), Outcome::RecentFrom(uid(2)));
    assert_eq!(shard.mailbox("INBOX").n_recent, 0);
}

#[test]
fn recent_is_claimed_up_to_what_a_session_was_told() {
    let mut shard = Shard::with_account();
    shard.fill("INBOX", 5);
    let of = shard.of("INBOX");
    let recent = |shard: &Shard| {
        let info = shard.mailbox("INBOX");
        (info.first_recent, info.n_recent)
    };
    shard.run(expunge(of, set(&[4]), false));
    shard.run(Command::ClaimRecent(of, Some(uid(3))));
    assert_eq!(recent(&shard), (uid(3), 2), "of 3 and 5, 4 being gone");
    shard.run(Command::ClaimRecent(of, Some(uid(2))));
    assert_eq!(recent(&shard), (uid(3), 2), "an older claim takes nothing back");
    shard.run(Command::ClaimRecent(of, Some(uid(99))));
    assert_eq!(recent(&shard), (uid(6), 0), "nor is one of what is to come");
    // What would have to be counted for too long stays as it is.
    shard.fill("INBOX", 600);
    shard.run(Command::ClaimRecent(of, Some(uid(7))));
    assert_eq!(recent(&shard), (uid(6), 600));
    shard.run(Command::ClaimRecent(of, Some(uid(600))));
    assert_eq!(recent(&shard), (uid(600), 6));
    shard.check();
}

#[test]
fn a_keyword_that_no_message_gets_is_not_one_of_the_mailbox() {
    let mut shard = Shard::with_account();
    shard.fill("INBOX", 2);
    let of = shard.of("INBOX");
    let flags = || Flags {
        keywords: [Keyword::new("$late").expect("a keyword")].into(),
        ..Flags::default()
    };
    let Command::Store(mut late) = store(of, set(&[1, 2]), FlagChange::Add(flags())) else {
        panic!("it is a STORE");
    };
    late.unchanged_since = Some(0);
    let outcome = shard.run(Command::Store(late));
    assert!(matches!(&outcome, Outcome::Stored(stored) if stored.modified == set(&[1, 2])));
    shard.run(store(of, set(&[9]), FlagChange::Replace(flags())));
    assert_eq!(shard.mailbox("INBOX").keywords, []);
    shard.run(store(of, set(&[2]), FlagChange::Replace(flags())));
    assert_eq!(shard.mailbox("INBOX").keywords.len(), 1);
}

#[test]
fn a_copy_that_is_to_be_whole_copies_nothing_when_one_is_gone() {
    let mut shard = Shard::with_account();
    shard.fill("INBOX", 2000);
    shard.create("to");
    let (of, to) = (shard.of("INBOX"), shard.of("to"));
    for (gone, staging) in [(1999, 1), (3, 2)] {
        shard.run(expunge(of, set(&[gone]), false));
        let all = UidSet::range(uid(1), uid(2000));
        let Command::Copy(copy) = copy(of, to, all, staging) else { panic!("it is a COPY") };
        let outcomes = shard.slices(Command::Copy(Copy { whole: true, ..copy }));
        assert_eq!(outcomes.last(), Some(&Outcome::Refused(Refusal::NoSuchMessage)), "{gone}");
        assert_eq!(shard.mailbox("to").n_messages, 0);
    }
    let outcomes = shard.slices(copy(of, to, UidSet::range(uid(1), uid(2000)), 77));
    assert!(matches!(outcomes.last(), Some(Outcome::Copied(_))), "{outcomes:?}");
    assert_eq!(shard.mailbox("to").n_messages, 1998);
}

#[test]
fn a_store_raises_only_what_it_changes() {
    let mut shard = Shard::with_account();
    shard.fill("INBOX", 3);
    let of = shard.of("INBOX");
    let seen = || FlagChange::Add(system(SystemFlags::SEEN));
    shard.run(store(of, set(&[2]), seen()));
    let before = shard.everything("INBOX");
    shard.run(store(of, UidSet::all(), seen()));
    let after = shard.everything("INBOX");
    assert_eq!(after[1].modseq, before[1].modseq);
    assert!(after[0].modseq > before[1].modseq && after[2].modseq == after[0].modseq);
    let highest = shard.mailbox("INBOX").highest_modseq;
    assert_eq!(highest, after[0].modseq);
    let applied = shard.apply(store(of, UidSet::all(), seen()), &[]);
    assert!(applied.changes.is_empty());
    assert_eq!(shard.mailbox("INBOX").highest_modseq, highest);
}

/// RFC 3502: all or none. InterIMAP brings 128 messages or 1 MiB in one APPEND.
#[test]
fn as_many_messages_arrive_together_as_clients_bring() {
    let mut shard = Shard::with_account();
    let raws = |n: usize| (0..n).map(|i| mail(&format!("{n}-{i}"))).collect::<Vec<_>>();
    let outcome = shard.append("INBOX", &raws(128), &Flags::default());
    assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
    assert_eq!(shard.mailbox("INBOX").n_messages, 128);
    let outcome = shard.append("INBOX", &raws(256), &Flags::default());
    assert!(matches!(outcome, Outcome::Refused(Refusal::Limit(_))), "{outcome:?}");
    assert_eq!(shard.mailbox("INBOX").n_messages, 128);
}
