//! Desks over a store that answers when it is told to.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use mailbox::answer::AccountRecord;
use mailbox::command::{AccountState, Quota, Upload};
use mailbox::query::{Messages, Search, SearchKey, Vanished};
use mailbox::{Address, MailboxInfo, MailboxName, ShardId, Uid, UidSet, UidValidity, UploadId};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use super::*;
use crate::authenticate::Authenticator;
use crate::ingest::LARGE_BODY_BYTES;
use crate::limits::{GAPS_MAX, LISTINGS_MAX, SEARCHES_MAX};
use crate::store::{LockToken, Store};

/// Steps of others after which whoever could go on has.
const STEPS: usize = 100;

struct Slow {
    n_under_way: AtomicUsize,
    /// Questions that may be answered.
    answers: Semaphore,
    commands: Mutex<Vec<Command>>,
}

impl Slow {
    fn new() -> Arc<Self> {
        let n_under_way = AtomicUsize::new(0);
        Arc::new(Self { n_under_way, answers: Semaphore::new(0), commands: Mutex::default() })
    }

    /// So many questions wait for their answers when nobody can go on.
    async fn n_under_way(&self) -> usize {
        for _ in 0..STEPS {
            yield_now().await;
        }
        self.n_under_way.load(Ordering::Relaxed)
    }
}

/// Nothing happens.
struct Quiet;

#[async_trait]
impl Watch for Quiet {
    async fn recv(&mut self) -> Change {
        std::future::pending().await
    }
}

#[async_trait]
impl Store for Slow {
    /// Who has a number is there.
    async fn recipient(&self, address: &Address) -> Result<Option<Place>, Trouble> {
        let number = address.as_str().split('@').next().unwrap();
        Ok(number.parse().ok().map(place))
    }

    /// Everybody is an account of the number its name begins with.
    async fn recipients(&self, address: &Address) -> Result<Vec<Place>, Trouble> {
        let number = address.as_str().split('@').next().unwrap();
        Ok(vec![place(number.parse().unwrap())])
    }

    async fn command(
        &self,
        _: Place,
        command: Command,
        _: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        self.commands.lock().unwrap().push(command);
        Ok(Outcome::Done)
    }

    async fn query(&self, place: Place, query: Query) -> Result<Answer, Trouble> {
        self.n_under_way.fetch_add(1, Ordering::Relaxed);
        self.answers.acquire().await.unwrap().forget();
        self.n_under_way.fetch_sub(1, Ordering::Relaxed);
        if matches!(query, Query::News(..)) {
            return Err(Trouble::Unavailable);
        }
        Ok(match query {
            Query::Mailboxes(account) => Answer::Mailboxes(vec![inbox(account)], Vec::new()),
            Query::Account(_) => Answer::Account(Box::new(record(place))),
            _ => Answer::Found(UidSet::new(), None, None),
        })
    }

    async fn chunk(&self, _: Place, _: ChunkRef) -> Result<Bytes, Trouble> {
        Err(Trouble::Damaged)
    }

    fn watch(&self, _: Place) -> Box<dyn Watch> {
        Box::new(Quiet)
    }

    async fn lock_maildrop(&self, _: Place, _: LockToken) -> Result<bool, Trouble> {
        Ok(true)
    }

    async fn unlock_maildrop(&self, _: Place, _: LockToken) -> Result<(), Trouble> {
        Ok(())
    }

    async fn ready(&self) -> bool {
        true
    }
}

fn shared(store: &Arc<Slow>) -> Arc<Shared> {
    let text = "name = 'f1'\nseeds = ['unused:1']\nidentity = 'unused'\nlmtp = '127.0.0.1:0'";
    let config = crate::Config::from_toml(text).unwrap();
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    Arc::new(crate::shared(&config, store, None).unwrap())
}

fn place(n: u8) -> Place {
    Place { account: AccountId([n; 16]), shard: ShardId(1), epoch: 1, alias: false }
}

/// An account with a password that nobody knows.
fn record(place: Place) -> AccountRecord {
    let name = format!("{}@example.test", place.account.0[0]);
    AccountRecord {
        account: place.account,
        name: Address::parse(&name).unwrap().0,
        aliases: Vec::new(),
        password_hash: String::new(),
        state: AccountState::Active,
        quota: Quota { storage_bytes: None, n_messages: None },
        storage_bytes: 0,
        n_messages: 0,
    }
}

fn inbox(account: AccountId) -> MailboxInfo {
    MailboxInfo {
        of: OfMailbox { account, mailbox: MailboxId(1) },
        name: MailboxName::inbox(),
        selectable: true,
        has_children: false,
        subscribed: false,
        special_use: None,
        uid_validity: UidValidity(NonZeroU32::MIN),
        uid_next: Uid::FIRST,
        highest_modseq: ModSeq::FIRST,
        n_messages: 0,
        n_unseen: 0,
        n_deleted: 0,
        n_recent: 0,
        first_recent: Uid::FIRST,
        size_bytes: 0,
        deleted_bytes: 0,
        keywords: Vec::new(),
    }
}

/// A desk that knows an account.
fn desk(shared: &Arc<Shared>, n: u8) -> Desk {
    let mut desk = Desk::new(Arc::clone(shared), None, CancellationToken::new());
    desk.remember(place(n));
    desk
}

#[tokio::test]
async fn an_account_has_few_searches_under_way_at_once_and_the_others_wait() {
    let store = Slow::new();
    let shared = shared(&store);
    let search = |n: u8| {
        let of = OfMailbox { account: place(n).account, mailbox: MailboxId(1) };
        let search = Search { of, among: UidSet::all(), key: SearchKey::All };
        let mut desk = desk(&shared, n);
        async move { desk.answer(Question::Query(Query::Search(search))).await }
    };
    let mut sessions = JoinSet::new();
    for _ in 0..SEARCHES_MAX + 2 {
        sessions.spawn(search(1));
    }
    assert_eq!(store.n_under_way().await, SEARCHES_MAX);
    sessions.spawn(search(2));
    assert_eq!(store.n_under_way().await, SEARCHES_MAX + 1, "another account does not wait");
    store.answers.add_permits(SEARCHES_MAX + 3);
    while let Some(reply) = sessions.join_next().await {
        assert!(matches!(reply.unwrap(), Reply::Answer(Answer::Found(..))));
    }
}

#[tokio::test]
async fn an_account_has_few_lists_of_its_mailboxes_under_way_at_once() {
    let store = Slow::new();
    let shared = shared(&store);
    let list = |n: u8| {
        let mut desk = desk(&shared, n);
        async move { desk.answer(Question::Query(Query::Mailboxes(place(n).account))).await }
    };
    let mut searches = Vec::new();
    for _ in 0..SEARCHES_MAX {
        searches.push(shared.limits.searches.turn(place(1).account).await);
    }
    let mut sessions = JoinSet::new();
    for _ in 0..LISTINGS_MAX + 2 {
        sessions.spawn(list(1));
    }
    assert_eq!(store.n_under_way().await, LISTINGS_MAX, "none waits for a search");
    sessions.spawn(list(2));
    assert_eq!(store.n_under_way().await, LISTINGS_MAX + 1, "another account does not wait");
    store.answers.add_permits(LISTINGS_MAX + 3);
    while let Some(reply) = sessions.join_next().await {
        assert!(matches!(reply.unwrap(), Reply::Answer(Answer::Mailboxes(..))));
    }
}

/// Of a mail client that logged in.
fn client(shared: &Arc<Shared>, n: u8) -> Desk {
    let mut desk = desk(shared, n);
    desk.login = shared.limits.accounts.enter(place(n).account);
    desk
}

async fn begin(desk: &mut Desk, n: u8) {
    let begun = desk.answer(Question::BeginBody(vec![place(n).account])).await;
    assert!(matches!(begun, Reply::Done));
}

async fn push(desk: &mut Desk, n_bytes: usize) -> Result<(), Trouble> {
    match desk.answer(Question::Body(vec![b'x'; n_bytes].into())).await {
        Reply::Done => Ok(()),
        Reply::Trouble(trouble) => Err(trouble),
        other => panic!("{other:?}"),
    }
}

/// Just enough to be a large message.
const LARGE_BYTES: usize = LARGE_BODY_BYTES as usize + 1;

#[tokio::test(start_paused = true)]
async fn mail_comes_in_while_clients_hold_all_places_for_large_messages() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut held = Vec::new();
    for n in 0..100 {
        let mut desk = client(&shared, n);
        begin(&mut desk, n).await;
        let mut is_full = push(&mut desk, LARGE_BYTES).await.is_err();
        held.push(desk);
        for _ in 0..2 {
            let mut desk = client(&shared, n);
            begin(&mut desk, n).await;
            is_full |= push(&mut desk, LARGE_BYTES).await.is_err();
            held.push(desk);
        }
        if is_full {
            break;
        }
    }
    let mut late = client(&shared, 200);
    begin(&mut late, 200).await;
    assert_eq!(push(&mut late, LARGE_BYTES).await, Err(Trouble::Overloaded));
    let mut mta = desk(&shared, 1);
    begin(&mut mta, 1).await;
    assert_eq!(push(&mut mta, LARGE_BYTES).await, Ok(()));
}

/// So many large messages of clients, each begun a moment ago, on accounts from 0 on.
async fn hold_large(shared: &Arc<Shared>, n: u8) -> Vec<Desk> {
    let mut held = Vec::new();
    for n in 0..n {
        let mut desk = client(shared, n / 4);
        begin(&mut desk, n / 4).await;
        assert_eq!(push(&mut desk, LARGE_BYTES).await, Ok(()));
        held.push(desk);
    }
    held
}

#[tokio::test(start_paused = true)]
async fn a_large_message_waits_for_a_place() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut held = hold_large(&shared, 128).await;
    let mut late = client(&shared, 200);
    begin(&mut late, 200).await;
    let mut pushing = Box::pin(push(&mut late, LARGE_BYTES));
    assert!(futures_util::poll!(&mut pushing).is_pending());
    let ended = held.pop().unwrap().answer(Question::EndBody).await;
    assert!(matches!(ended, Reply::Draft(_)));
    assert_eq!(pushing.await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_sessions_hold_of_small_messages_is_bounded() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut held = Vec::new();
    for n in 0..=255 {
        let mut desk = client(&shared, n);
        begin(&mut desk, n).await;
        assert_eq!(push(&mut desk, LARGE_BYTES - 1).await, Ok(()));
        held.push(desk);
    }
    let mut late = client(&shared, 7);
    begin(&mut late, 7).await;
    assert_eq!(push(&mut late, 16_000).await, Ok(()), "most have no more");
    let mut pushing = Box::pin(push(&mut late, 1_000));
    assert!(futures_util::poll!(&mut pushing).is_pending());
    let ending = &mut held[0];
    assert!(matches!(ending.answer(Question::EndBody).await, Reply::Draft(_)));
    assert!(futures_util::poll!(&mut pushing).is_pending(), "it is not stored yet");
    let stored = ending.answer(Question::Commands(Vec::new())).await;
    assert!(matches!(stored, Reply::Outcomes(_)));
    assert_eq!(pushing.await, Ok(()));
    let mut mta = desk(&shared, 1);
    begin(&mut mta, 1).await;
    assert_eq!(push(&mut mta, LARGE_BYTES - 1).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_sends_slowly_keeps_no_place_when_places_are_scarce() {
    let store = Slow::new();
    let shared = shared(&store);
    for (n_held, is_kept) in [(32, true), (100, false)] {
        let mut held = hold_large(&shared, n_held).await;
        let mut came = Ok(());
        for _ in 0..200 {
            sleep(Duration::from_secs(1)).await;
            came = came.and(push(&mut held[0], 4_000).await);
        }
        assert_eq!(came.is_ok(), is_kept, "{n_held} places are taken");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_sends_few_large_messages_at_once_and_the_next_waits() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut desk = client(&shared, 1);
        begin(&mut desk, 1).await;
        assert_eq!(push(&mut desk, LARGE_BYTES).await, Ok(()));
        held.push(desk);
    }
    let mut late = client(&shared, 1);
    begin(&mut late, 1).await;
    assert_eq!(push(&mut late, 1000).await, Ok(()), "it is not large yet");
    assert_eq!(push(&mut late, LARGE_BYTES).await, Err(Trouble::Overloaded));
    let mut other = client(&shared, 2);
    begin(&mut other, 2).await;
    assert_eq!(push(&mut other, LARGE_BYTES).await, Ok(()));
    let mut next = client(&shared, 1);
    begin(&mut next, 1).await;
    let mut pushing = Box::pin(push(&mut next, LARGE_BYTES));
    assert!(futures_util::poll!(&mut pushing).is_pending());
    let ended = held.pop().unwrap().answer(Question::EndBody).await;
    assert!(matches!(ended, Reply::Draft(_)));
    assert_eq!(pushing.await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_sends_next_to_nothing_keeps_no_place_and_a_slow_line_does() {
    let store = Slow::new();
    let shared = shared(&store);
    for n_first in [1_000, LARGE_BYTES] {
        let mut desk = client(&shared, 1);
        begin(&mut desk, 1).await;
        assert_eq!(push(&mut desk, n_first).await, Ok(()));
        let mut n_pushed = 0;
        loop {
            sleep(Duration::from_secs(4 * 60)).await;
            match push(&mut desk, 1).await {
                Ok(()) => n_pushed += 1,
                Err(trouble) => break assert_eq!(trouble, Trouble::Overloaded),
            }
            assert!(n_pushed < 3, "it keeps its place");
        }
    }
    // 32 kbit/s, a quarter of what a phone is left when all of its volume is used.
    let mut slow = client(&shared, 2);
    begin(&mut slow, 2).await;
    for _ in 0..500 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(push(&mut slow, 4_000).await, Ok(()));
    }
    // And a minute without a network.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(push(&mut slow, 4_000).await, Ok(()));
}

#[tokio::test]
async fn logins_from_one_origin_leave_others_their_places_in_the_queue() {
    let store = Slow::new();
    let mut shared = shared(&store);
    // Nobody's turn to hash comes.
    Arc::get_mut(&mut shared).unwrap().authenticator = Authenticator::new(store.clone(), 0);
    let log_in = |from: &str| {
        let origin = from.parse::<IpAddr>().unwrap().into();
        let mut desk = Desk::new(Arc::clone(&shared), Some(origin), CancellationToken::new());
        let (login, password) = ("jo@example.test".into(), b"guess".to_vec());
        let credentials = Credentials { login, password };
        async move { desk.answer(Question::Authenticate(credentials)).await }
    };
    let mut guesses = JoinSet::new();
    for _ in 0..1000 {
        guesses.spawn(log_in("192.0.2.1"));
    }
    store.n_under_way().await;
    assert!(guesses.try_join_next().is_none(), "they wait as well");
    let mut other = Box::pin(log_in("192.0.2.2"));
    assert!(futures_util::poll!(&mut other).is_pending(), "it is refused");
}

async fn log_in(shared: &Arc<Shared>, login: &str) -> Reply {
    let mut desk = Desk::new(Arc::clone(shared), None, CancellationToken::new());
    let (login, password) = (login.into(), b"guess".to_vec());
    desk.answer(Question::Authenticate(Credentials { login, password })).await
}

#[tokio::test(start_paused = true)]
async fn logins_of_thousands_wait_for_their_turn_and_not_for_ever() {
    let store = Slow::new();
    let mut shared = shared(&store);
    Arc::get_mut(&mut shared).unwrap().authenticator = Authenticator::new(store.clone(), 0);
    let mut logins = JoinSet::new();
    for _ in 0..3000 {
        let shared = Arc::clone(&shared);
        logins.spawn(async move { log_in(&shared, "jo@example.test").await });
    }
    store.n_under_way().await;
    assert!(logins.try_join_next().is_none(), "all wait");
    let begun = Instant::now();
    while let Some(reply) = logins.join_next().await {
        assert!(matches!(reply.unwrap(), Reply::Trouble(Trouble::Overloaded)));
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_has_does_not_wait_for_the_shard_of_another() {
    let store = Slow::new();
    let shared = shared(&store);
    store.answers.add_permits(1);
    assert!(matches!(log_in(&shared, "1@example.test").await, Reply::Denied));
    // From here on its shard has no leader.
    let nobody = log_in(&shared, "nobody@example.test");
    let reply = timeout(Duration::from_secs(3), nobody).await.expect("in time");
    assert!(matches!(reply, Reply::Denied));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_found_out_is_not_asked_again_at_once() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut desk = desk(&shared, 1);
    let of = inbox(place(1).account).of;
    assert!(matches!(desk.answer(Question::Watch(of)).await, Reply::Done));
    store.answers.add_permits(100);
    let vanished = Vanished { of, since: 0, known: UidSet::all(), uid_validity: None };
    let changed = Messages {
        of,
        uids: UidSet::all(),
        changed_since: Some(0),
        metadata: false,
        chunks: false,
        expunged: false,
        only_envelope: false,
        recent_to: None,
    };
    let begun = Instant::now();
    for _ in 0..4 {
        let news = Query::News(vanished.clone(), changed.clone(), true);
        assert!(matches!(desk.answer(Question::Query(news)).await, Reply::Trouble(_)));
        assert_eq!(desk.next_change().await.of, of, "as IDLE is told, which asks again");
    }
    assert!(begun.elapsed() >= ASK_AGAIN_AFTER * 4, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn at_a_new_leader_few_sessions_look_again_at_once() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut sessions = JoinSet::new();
    for n in 0..GAPS_MAX as u8 + 4 {
        let mut desk = desk(&shared, n);
        let of = inbox(place(n).account).of;
        assert!(matches!(desk.answer(Question::Watch(of)).await, Reply::Done));
        desk.watched.as_mut().unwrap().has_gap = true;
        sessions.spawn(async move { (desk.next_change().await.of, of) });
    }
    // The clock stands still while anybody can go on.
    sleep(ASK_AGAIN_AFTER).await;
    assert_eq!(store.n_under_way().await, GAPS_MAX);
    store.answers.add_permits(GAPS_MAX + 4);
    while let Some(heard) = sessions.join_next().await {
        let (heard, of) = heard.unwrap();
        assert_eq!(heard, of);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_mailbox_that_went_while_news_were_lost_the_session_hears() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut desk = desk(&shared, 1);
    // The store has an INBOX and nothing else.
    let account = place(1).account;
    let gone = OfMailbox { account, mailbox: MailboxId(2) };
    store.answers.add_permits(100);
    for (question, heard) in [(Question::Watch(gone), true), (Question::Listen(account), false)] {
        assert!(matches!(desk.answer(question).await, Reply::Done));
        desk.watched.as_mut().unwrap().has_gap = true;
        let change = timeout(Duration::from_secs(60), desk.next_change()).await;
        let expected = Change { of: gone, highest_modseq: ModSeq::FIRST };
        assert_eq!(change.ok(), heard.then_some(expected));
    }
}

#[test]
fn of_a_mailbox_that_cannot_be_looked_at_the_session_hears() {
    let of = inbox(place(1).account).of;
    let watched = Watched {
        place: place(1),
        of,
        changes: Box::new(Quiet),
        has_gap: true,
        rests_until: Instant::now(),
    };
    let change = watched.found(&Answer::Refused(Refusal::NoSuchAccount));
    assert_eq!(change, Some(Change { of, highest_modseq: ModSeq::FIRST }));
}

async fn name(desk: &mut Desk, n: u8) {
    let (address, _) = Address::parse(&format!("{n}@example.test")).unwrap();
    let found = desk.answer(Question::Recipient(address)).await;
    assert!(matches!(found, Reply::Recipient(accounts) if accounts == [place(n).account]));
}

#[tokio::test]
async fn recipients_are_forgotten_with_their_message() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut mta = Desk::new(Arc::clone(&shared), None, CancellationToken::new());
    for n in 0..100 {
        name(&mut mta, n).await;
        name(&mut mta, n + 100).await;
        assert_eq!(mta.places.len(), 2);
        match n % 3 {
            0 => {
                begin(&mut mta, n).await;
                assert!(matches!(mta.answer(Question::EndBody).await, Reply::Draft(_)));
            }
            1 => {
                begin(&mut mta, n).await;
                assert!(matches!(mta.answer(Question::DropBody).await, Reply::Done));
            }
            // RSET before there is a message.
            _ => assert!(matches!(mta.answer(Question::DropBody).await, Reply::Done)),
        }
        let known = mta.place(place(n).account);
        assert_eq!(known, Ok(place(n)), "deliveries come after the body");
    }
}

#[tokio::test]
async fn what_was_not_begun_when_the_frontend_goes_down_is_put_off() {
    let store = Slow::new();
    let shared = shared(&store);
    let shutdown = CancellationToken::new();
    let mut mta = Desk::new(Arc::clone(&shared), None, shutdown.clone());
    let copies: Vec<_> = (0..40).map(|n| (mta.remember(place(n)), 1)).collect();
    let command = |n: u8| Command::Upload(Upload::give_up(place(n).account, UploadId([n; 16])));
    let commands = (0..40).map(|n| (command(n), Vec::new())).collect();
    shutdown.cancel();
    // Nobody answers what is asked.
    let looked = mta.answer(Question::WouldTake(copies, None)).await;
    let Reply::Looks(looks) = looked else { panic!("{looked:?}") };
    assert_eq!(looks.len(), 40);
    assert!(looks.iter().all(|look| matches!(look, Look::Unknown(Trouble::Unavailable))));
    let done = mta.answer(Question::Commands(commands)).await;
    let Reply::Outcomes(outcomes) = done else { panic!("{done:?}") };
    let (begun, put_off) = outcomes.split_at(SIDE_BY_SIDE_MAX);
    assert!(begun.iter().all(|outcome| matches!(outcome, Ok(Outcome::Done))));
    assert_eq!(put_off.len(), 40 - SIDE_BY_SIDE_MAX);
    assert!(put_off.iter().all(|outcome| matches!(outcome, Err(Trouble::Unavailable))));
    assert_eq!(store.commands.lock().unwrap().len(), SIDE_BY_SIDE_MAX);
}

#[tokio::test]
async fn what_is_sent_ahead_says_which_message_it_replaces() {
    let store = Slow::new();
    let shared = shared(&store);
    let mut desk = client(&shared, 1);
    let replaced = Replaced { mailbox: MailboxId(1), uid: Uid::FIRST };
    let begun = desk.answer(Question::BeginReplacement(place(1).account, replaced)).await;
    assert!(matches!(begun, Reply::Done));
    // What cannot be compressed is sent ahead.
    let mut number = 1_u32;
    let mut octet = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 24) as u8
    };
    let octets: Vec<u8> = (0..4 * LARGE_BYTES).map(|_| octet()).collect();
    assert!(matches!(desk.answer(Question::Body(octets.into())).await, Reply::Done));
    assert!(matches!(desk.answer(Question::EndBody).await, Reply::Draft(_)));
    let commands = store.commands.lock().unwrap();
    let says_so = |command: &Command| match command {
        Command::Upload(upload) => upload.replaces == Some(replaced),
        _ => false,
    };
    assert!(!commands.is_empty() && commands.iter().all(says_so), "{} commands", commands.len());
}
