//! Whatever is decoded as an entry is applied without a panic and keeps the invariants.

mod support;

use mailbox::command::*;
use mailbox::*;
use proptest::prelude::*;
use support::*;

/// Commands that are all but legal: ids that are or are not there, numbers at their ends.
fn seeds(shard: &mut Shard) -> Vec<(Command, Vec<ChunkRef>)> {
    let (message, inline) = shard.message(&mail("seed"));
    let of = shard.of("INBOX");
    let (account, mailbox) = (ACCOUNT, of.mailbox);
    let append = AppendMessage {
        message: message.clone(),
        flags: system(SystemFlags(255)),
        internal_date: Some(InternalDate { unix_s: i64::MIN, zone_minutes: i16::MIN }),
    };
    let upload = UploadId([3; 16]);
    let place = Place { account, shard: ShardId(1), epoch: 1, alias: true };
    let commands = vec![
        Command::Deliver(Deliver {
            account,
            detail: Some("Sent".into()),
            message,
            internal_date: None,
        }),
        Command::Append(Append {
            account,
            mailbox,
            messages: vec![append.clone(), append],
            replaces: None,
            name: Some(name("a/b")),
        }),
        Command::Upload(Upload {
            account,
            upload,
            sequence: 0,
            chunks: inline.clone(),
            replaces: Some(Replaced { mailbox, uid: Uid::FIRST }),
        }),
        store(of, UidSet::all(), FlagChange::Add(system(SystemFlags(255)))),
        copy(of, of, UidSet::all(), 3),
        r#move(of, of, UidSet::all()),
        expunge(of, UidSet::all(), true),
        create("a/b"),
        delete("a"),
        rename("INBOX", "x"),
        rename("a", "b"),
        Command::Subscribe(Subscribe { account, name: name("a"), on: true }),
        Command::ClaimRecent(of, None),
        Command::ClaimAddress(ClaimAddress { address: address("a@b.c"), place }),
        Command::SetGroup(SetGroup {
            address: address("g@b.c"),
            members: vec![address("b@b.c"), address("a@b.c")],
            expected: Some(Vec::new()),
        }),
        create_account(AccountId([8; 16]), Quota::default()),
        Command::DeleteAccount(AccountId([8; 16])),
        Command::Housekeep(Housekeep {
            sessions_before: LogTime(0),
            uploads_before: LogTime(u64::MAX),
            purge_before: LogTime(u64::MAX),
        }),
        Command::Renumber(Renumber { after: Some(of) }),
        moving(MoveStep::Begin(place)),
        moving(MoveStep::Freeze(1)),
        moving(MoveStep::Depart(0, None)),
        moving(MoveStep::Depart(0, Some(place))),
        moving(MoveStep::Stay(place)),
        moving(MoveStep::Forget(place, ShardId(2))),
        moving(MoveStep::Arrive(place, 1)),
        moving(MoveStep::Settle(place)),
    ];
    commands.into_iter().map(|command| (command, inline.clone())).collect()
}

fn moving(step: MoveStep) -> Command {
    Command::MoveAccount(MoveAccount { account: ACCOUNT, step })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_entry_that_can_be_decoded_is_applied(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..25),
    ) {
        let mut shard = Shard::with_account();
        shard.deliver(&mail("first"));
        let seeds = seeds(&mut shard);
        for index in order {
            let (command, inline) = index.get(&seeds).clone();
            let request = shard.request(command);
            let time = LogTime(shard.now_ms);
            let mut bytes = codec::encode(&Entry { time, request });
            for (at, byte) in &cuts {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            // Why sound: nothing else is let into a log.
            let entry = codec::decode::<Entry>(&bytes);
            if let Some(entry) = entry.ok().filter(|entry| entry.request.command.is_sound()) {
                shard.entry(&entry, &inline);
            }
        }
    }
}

#[test]
fn uidvalidity_counts_on_after_a_clock_leapt_to_its_end() {
    let mut shard = Shard::with_account();
    let inbox = shard.mailbox("INBOX").uid_validity.0.get();
    assert_eq!(u64::from(inbox), START_MS / 1000);
    shard.now_ms = u64::MAX - 60_000;
    let other = create_account(AccountId([8; 16]), Quota::default());
    assert_eq!(shard.run(other), Outcome::Done);
    for name in ["a", "b", "c"] {
        shard.create(name);
    }
    let told = ["INBOX", "a", "b", "c"].map(|name| shard.mailbox(name).uid_validity.0.get());
    assert!(told.is_sorted_by(|a, b| a < b) && told[3] < inbox + 100, "{told:?}");
    assert!(matches!(shard.deliver(&mail("x")), Outcome::Appended(_)));
}
