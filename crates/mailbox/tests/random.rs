//! Random commands, on the shard and on a naive model of it.

mod support;

use std::collections::BTreeMap;

use mailbox::command::{Housekeep, Store};
use mailbox::*;
use proptest::prelude::*;
use support::*;

const NAMES: [&str; 4] = ["INBOX", "a", "a/b", "c"];

#[derive(Clone, Debug)]
enum Act {
    Append { to: usize, n: usize },
    Store { of: usize, uids: Vec<u32>, bits: u8, how: u8, unchanged_since: Option<u64> },
    Copy { from: usize, to: usize, uids: Vec<u32> },
    Move { from: usize, to: usize, uids: Vec<u32> },
    Expunge { of: usize, uids: Vec<u32>, only_deleted: bool },
    Create(usize),
    Delete(usize),
    Rename(usize, usize),
    Clean,
}

fn act() -> impl Strategy<Value = Act> {
    // INBOX more often: the others are not always there.
    let of = || prop_oneof![2 => Just(0), 3 => 1..NAMES.len()];
    // Few values, so that a STORE often changes some of its messages and not others.
    let bits = || prop::sample::select(vec![0, 1, 8, 9, 31]);
    let uids = || proptest::collection::vec(1..8u32, 1..8);
    prop_oneof![
        4 => (of(), 1..4usize).prop_map(|(to, n)| Act::Append { to, n }),
        4 => (of(), uids(), bits(), 0..3u8, proptest::option::weighted(0.2, 0..40u64)).prop_map(
            |(of, uids, bits, how, unchanged_since)| {
                Act::Store { of, uids, bits, how, unchanged_since }
            }
        ),
        2 => (of(), of(), uids()).prop_map(|(from, to, uids)| Act::Copy { from, to, uids }),
        2 => (of(), of(), uids()).prop_map(|(from, to, uids)| Act::Move { from, to, uids }),
        2 => (of(), uids(), any::<bool>())
            .prop_map(|(of, uids, only_deleted)| Act::Expunge { of, uids, only_deleted }),
        2 => of().prop_map(Act::Create),
        1 => of().prop_map(Act::Delete),
        1 => (of(), of()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => Just(Act::Clean),
    ]
}

/// A mailbox as a child would write it.
#[derive(Clone, Debug, Default)]
struct Naive {
    uid_next: u32,
    uid_validity: u32,
    highest_modseq: u64,
    /// UID, flags, mod-sequence, text.
    messages: Vec<(u32, u8, u64, String)>,
}

/// Names to mailboxes; `None` is a name without one.
#[derive(Debug, Default)]
struct Model {
    names: BTreeMap<String, Option<Naive>>,
    /// The greatest UIDVALIDITY and mod-sequence seen.
    uid_validity: u32,
    modseq: u64,
    n_texts: usize,
}

impl Model {
    fn mailbox(&self, name: usize) -> Option<&Naive> {
        self.names.get(NAMES[name]).and_then(Option::as_ref)
    }

    fn mailbox_mut(&mut self, name: usize) -> Option<&mut Naive> {
        self.names.get_mut(NAMES[name]).and_then(Option::as_mut)
    }

    /// What must be so whatever happened: the counters went up, and both sides look the same.
    fn compare(&mut self, shard: &Shard) {
        for (name, naive) in &self.names {
            let info = shard.mailbox(name);
            assert_eq!(info.selectable, naive.is_some(), "{name}");
            let Some(naive) = naive else { continue };
            assert_eq!(info.uid_next.value(), naive.uid_next, "UIDNEXT of {name}");
            assert_eq!(info.uid_validity.0.get(), naive.uid_validity, "UIDVALIDITY of {name}");
            assert_eq!(info.highest_modseq.value(), naive.highest_modseq, "MODSEQ of {name}");
            let records = shard.messages(query::Messages { chunks: true, ..list(info.of) });
            let has: Vec<_> = records
                .iter()
                .map(|record| {
                    let body = record.body.as_ref().expect("asked for");
                    let raw: Vec<u8> =
                        body.chunks.iter().flat_map(|c| shard.chunks[&c.digest].to_vec()).collect();
                    let text = String::from_utf8(raw).expect("text");
                    let flags = record.flags.system.0;
                    (record.uid.value(), flags, record.modseq.value(), text)
                })
                .collect();
            assert_eq!(has, naive.messages, "messages of {name}");
            assert_eq!(shard.uids(name), records.iter().map(|record| record.uid).collect());
        }
        let Answer::Mailboxes(infos, _) = shard.ask(&query::Query::Mailboxes(ACCOUNT)) else {
            panic!("refused");
        };
        let listed: Vec<_> = infos.iter().map(|info| info.name.join('/')).collect();
        let named: Vec<_> = self.names.keys().cloned().collect();
        assert_eq!(listed, named, "names");
    }

    fn put(&mut self, to: usize, (flags, text): (u8, String), modseq: u64) -> u32 {
        let mailbox = self.mailbox_mut(to).expect("checked");
        let uid = mailbox.uid_next;
        mailbox.uid_next += 1;
        mailbox.highest_modseq = modseq;
        mailbox.messages.push((uid, flags, modseq, text));
        uid
    }

    fn create(&mut self, shard: &Shard, name: &str) {
        let mut path = String::new();
        for part in name.split('/') {
            path = if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
            let is_last = path == name;
            if self.names.contains_key(&path) && !is_last {
                continue;
            }
            let info = shard.mailbox(&path);
            assert!(info.uid_validity.0.get() > self.uid_validity, "UIDVALIDITY ascends");
            assert!(info.highest_modseq.value() > self.modseq, "MODSEQ of a new mailbox");
            self.uid_validity = info.uid_validity.0.get();
            let naive = Naive {
                uid_next: 1,
                uid_validity: self.uid_validity,
                highest_modseq: info.highest_modseq.value(),
                messages: Vec::new(),
            };
            self.names.insert(path.clone(), Some(naive));
        }
        self.modseq += 1;
    }

    fn has_children(&self, name: &str) -> bool {
        let below = format!("{name}/");
        self.names.keys().any(|other| other.starts_with(&below))
    }
}

/// Stands for a mailbox that is not there.
fn nowhere() -> command::OfMailbox {
    command::OfMailbox { account: ACCOUNT, mailbox: MailboxId(999) }
}

fn of(shard: &Shard, model: &Model, name: usize) -> command::OfMailbox {
    model.mailbox(name).map_or(nowhere(), |_| shard.of(NAMES[name]))
}

fn append(shard: &mut Shard, model: &mut Model, to: usize, n: usize) {
    let texts: Vec<String> = (0..n)
        .map(|i| String::from_utf8(mail(&format!("{}", model.n_texts + i))).expect("text"))
        .collect();
    model.n_texts += n;
    if model.mailbox(to).is_none() {
        return;
    }
    let raws: Vec<Vec<u8>> = texts.iter().map(|text| text.clone().into_bytes()).collect();
    let Outcome::Appended(appended) = shard.append(NAMES[to], &raws, &Flags::default()) else {
        panic!("refused");
    };
    model.modseq += 1;
    let modseq = model.modseq;
    let uids: Vec<u32> = texts.into_iter().map(|text| model.put(to, (0, text), modseq)).collect();
    assert_eq!(appended.uids, set(&uids));
}

fn store_flags(shard: &mut Shard, model: &mut Model, act: &Act) {
    let Act::Store { of: at, uids, bits, how, unchanged_since } = act else { return };
    let flags = system(SystemFlags(*bits));
    let change = match how {
        0 => FlagChange::Replace(flags),
        1 => FlagChange::Add(flags),
        _ => FlagChange::Remove(flags),
    };
    let mailbox = of(shard, model, *at).mailbox;
    let (account, uids) = (ACCOUNT, set(uids));
    let command =
        Store { account, mailbox, uids: uids.clone(), change, unchanged_since: *unchanged_since };
    let outcome = shard.run(Command::Store(command));
    let modseq = model.modseq + 1;
    let Some(naive) = model.mailbox_mut(*at) else {
        assert_eq!(outcome, Outcome::Refused(Refusal::NoSuchMailbox));
        return;
    };
    let Outcome::Stored(stored) = outcome else { panic!("{outcome:?}") };
    let (mut expected, mut modified, mut is_changed) = (Vec::new(), UidSet::new(), false);
    for message in &mut naive.messages {
        if !uids.contains(uid(message.0)) {
            continue;
        }
        if unchanged_since.is_some_and(|limit| message.2 > limit) {
            modified.push(uid(message.0));
            continue;
        }
        let new = match how {
            0 => *bits,
            1 => message.1 | bits,
            _ => message.1 & !bits,
        };
        if new != message.1 {
            (message.1, message.2, is_changed) = (new, modseq, true);
        }
        expected.push((message.0, message.1, message.2));
    }
    let highest_before = naive.highest_modseq;
    if is_changed {
        naive.highest_modseq = modseq;
        model.modseq = modseq;
    }
    assert_eq!(stored.own.map(|own| own.modseq.value()), is_changed.then_some(modseq));
    assert!(stored.own.is_none_or(|own| own.before.value() <= highest_before));
    let has: Vec<_> = stored
        .messages
        .iter()
        .map(|it| (it.uid.value(), it.flags.system.0, it.modseq.value()))
        .collect();
    assert_eq!((has, stored.modified), (expected, modified));
}

fn transfer(
    shard: &mut Shard,
    model: &mut Model,
    (from, to, uids): (usize, usize, &[u32]),
    is_move: bool,
) {
    let (source, target, uids) = (of(shard, model, from), of(shard, model, to), set(uids));
    let staging = (shard.sequence % 251) as u8;
    let outcome = shard.run(match is_move {
        true => r#move(source, target, uids.clone()),
        false => copy(source, target, uids.clone(), staging),
    });
    if model.mailbox(from).is_none() || model.mailbox(to).is_none() {
        assert_eq!(outcome, Outcome::Refused(Refusal::NoSuchMailbox));
        return;
    }
    let Outcome::Copied(copied) = outcome else { panic!("{outcome:?}") };
    let naive = model.mailbox(from).expect("checked");
    let picked: Vec<_> =
        naive.messages.iter().filter(|it| uids.contains(uid(it.0))).cloned().collect();
    let mut targets = UidSet::new();
    if !picked.is_empty() {
        model.modseq += 1;
    }
    let modseq = model.modseq;
    for (_, flags, _, text) in &picked {
        targets.push(uid(model.put(to, (*flags, text.clone()), modseq)));
    }
    if is_move && !picked.is_empty() {
        let naive = model.mailbox_mut(from).expect("checked");
        naive.messages.retain(|it| !picked.iter().any(|(gone, ..)| *gone == it.0));
        naive.highest_modseq = modseq;
    }
    let sources: UidSet = picked.iter().map(|it| uid(it.0)).collect();
    assert_eq!((copied.source, copied.target, copied.next), (sources, targets, None));
}

fn expunge_some(shard: &mut Shard, model: &mut Model, (at, uids, only): (usize, &[u32], bool)) {
    let before = model.modseq;
    let outcome = shard.run(expunge(of(shard, model, at), set(uids), only));
    let known = set(uids);
    let modseq = before + 1;
    let Some(naive) = model.mailbox_mut(at) else {
        assert_eq!(outcome, Outcome::Refused(Refusal::NoSuchMailbox));
        return;
    };
    let is_gone = |it: &(u32, u8, u64, String)| {
        known.contains(uid(it.0)) && (!only || it.1 & SystemFlags::DELETED.0 != 0)
    };
    let gone: UidSet = naive.messages.iter().filter(|it| is_gone(it)).map(|it| uid(it.0)).collect();
    naive.messages.retain(|it| !is_gone(it));
    if !gone.is_empty() {
        naive.highest_modseq = modseq;
        model.modseq = modseq;
    }
    let Outcome::Expunged(expunged) = outcome else { panic!("{outcome:?}") };
    assert_eq!(expunged.uids, gone);
    let vanished = query::Vanished {
        of: shard.of(NAMES[at]),
        since: before,
        known: UidSet::all(),
        uid_validity: None,
    };
    assert_eq!(shard.ask(&query::Query::Vanished(vanished)), Answer::Vanished(gone));
}

fn delete_name(shard: &mut Shard, model: &mut Model, name: &str) {
    let outcome = shard.run(delete(name));
    let expected = match (name, model.names.get(name)) {
        ("INBOX", _) => Err(Refusal::Inbox),
        (_, None) => Err(Refusal::NoSuchMailbox),
        (_, Some(None)) if model.has_children(name) => Err(Refusal::NotSelectable),
        _ => Ok(()),
    };
    match expected {
        Err(refusal) => assert_eq!(outcome, Outcome::Refused(refusal)),
        Ok(()) => {
            assert_eq!(outcome, Outcome::Done);
            if model.has_children(name) {
                model.names.insert(name.to_owned(), None);
            } else {
                model.names.remove(name);
            }
        }
    }
}

fn rename_name(shard: &mut Shard, model: &mut Model, (from, to): (&str, &str)) {
    if from == "INBOX" {
        return; // A test of its own.
    }
    let outcome = shard.run(rename(from, to));
    let below = format!("{from}/");
    let expected = if !model.names.contains_key(from) {
        Err(Refusal::NoSuchMailbox)
    } else if to.starts_with(&below) {
        Err(Refusal::BelowItself)
    } else if model.names.contains_key(to) {
        Err(Refusal::MailboxExists)
    } else {
        Ok(())
    };
    if let Err(refusal) = expected {
        assert_eq!(outcome, Outcome::Refused(refusal));
        return;
    }
    assert_eq!(outcome, Outcome::Done);
    if let Some((parent, _)) = to.rsplit_once('/')
        && !model.names.contains_key(parent)
    {
        model.create(shard, parent);
    }
    let moved: Vec<String> = model
        .names
        .keys()
        .filter(|name| *name == from || name.starts_with(&below))
        .cloned()
        .collect();
    for name in moved {
        let naive = model.names.remove(&name).expect("just listed");
        model.names.insert(format!("{to}{}", &name[from.len()..]), naive);
    }
}

fn step(shard: &mut Shard, model: &mut Model, act: &Act) {
    shard.now_ms += 1;
    match act {
        Act::Append { to, n } => append(shard, model, *to, *n),
        Act::Store { .. } => store_flags(shard, model, act),
        Act::Copy { from, to, uids } => transfer(shard, model, (*from, *to, uids), false),
        Act::Move { from, to, uids } => transfer(shard, model, (*from, *to, uids), true),
        Act::Expunge { of, uids, only_deleted } => {
            expunge_some(shard, model, (*of, uids, *only_deleted));
        }
        Act::Create(at) => {
            let name = NAMES[*at];
            let outcome = shard.run(create(name));
            match model.names.get(name) {
                Some(Some(_)) if name == "INBOX" => {
                    assert_eq!(outcome, Outcome::Refused(Refusal::Inbox));
                }
                Some(Some(_)) => assert_eq!(outcome, Outcome::Refused(Refusal::MailboxExists)),
                _ => model.create(shard, name),
            }
        }
        Act::Delete(at) => delete_name(shard, model, NAMES[*at]),
        Act::Rename(from, to) => rename_name(shard, model, (NAMES[*from], NAMES[*to])),
        Act::Clean => {
            shard.clean();
        }
    }
    model.compare(shard);
}

/// The account begins with what it begins with.
fn start() -> (Shard, Model) {
    let shard = Shard::with_account();
    let mut model = Model::default();
    for name in ["INBOX", "Sent"] {
        let info = shard.mailbox(name);
        let naive = Naive {
            uid_next: 1,
            uid_validity: info.uid_validity.0.get(),
            highest_modseq: info.highest_modseq.value(),
            messages: Vec::new(),
        };
        model.uid_validity = naive.uid_validity;
        model.modseq = model.modseq.max(naive.highest_modseq);
        model.names.insert(name.into(), Some(naive));
    }
    (shard, model)
}

/// The same log with several commands laid over each other before any is written.
fn replay(shard: &Shard, n_batch: usize) -> (BTreeMap<Vec<u8>, Vec<u8>>, RowDigest) {
    let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut digest = RowDigest::default();
    for batch in shard.log.chunks(n_batch) {
        let mut rows = Rows::new(&kept, digest);
        for (entry, inline) in batch {
            let bytes = codec::encode(entry);
            let entry: Entry = codec::decode(&bytes).expect("what was encoded is decoded");
            apply(&mut rows, &entry, inline);
        }
        let (changes, after) = rows.into_changes();
        digest = after;
        for (key, value) in changes {
            match value {
                Some(value) => kept.insert(key, value),
                None => kept.remove(&key),
            };
        }
    }
    (kept, digest)
}

/// Two shards, an account in one of them, and how far it is on its way to the other.
struct Two {
    shards: [Shard; 2],
    home: usize,
    epoch: u64,
    way: Way,
}

enum Way {
    Begin,
    /// Behind this key.
    Rows(Option<Vec<u8>>),
    /// After so many changes.
    Changes(u64),
}

impl Two {
    fn place(&self) -> command::Place {
        let shard = ShardId(1 - self.home as u32);
        command::Place { account: ACCOUNT, shard, epoch: self.epoch + 1, alias: false }
    }

    fn step(&mut self, at: usize, step: command::MoveStep, inline: &[ChunkRef]) -> Outcome {
        let command = Command::MoveAccount(command::MoveAccount { account: ACCOUNT, step });
        self.shards[at].apply(command, inline).outcome
    }

    fn receive(&mut self, rows: Vec<command::MovedRow>) {
        let (home, other) = (self.home, 1 - self.home);
        for some in rows.chunks(7) {
            // The bodies of all chunks go along each time; whoever moves accounts knows better.
            let bodies: Vec<StoredChunk> = some
                .iter()
                .filter(|row| row.value.is_some() && row.key[0] == 5)
                .map(|row| {
                    let digest = Digest(row.key[1..33].try_into().expect("a chunk's key"));
                    StoredChunk::raw(self.shards[home].chunks[&digest].clone())
                })
                .collect();
            let inline: Vec<ChunkRef> = bodies.iter().map(|body| body.chunk).collect();
            let bodies = bodies.into_iter().map(|body| (body.chunk.digest, body.bytes));
            self.shards[other].chunks.extend(bodies);
            let step = command::MoveStep::Receive(some.to_vec(), self.epoch);
            assert_eq!(self.step(other, step, &inline), Outcome::Done);
        }
    }

    /// Rows of the account that move with it.
    fn rows(&self, at: usize) -> BTreeMap<&[u8], &[u8]> {
        let is_ours = |key: &[u8]| {
            let account_at = match key[0] {
                3 | 4 | 7 | 8 | 11 | 12 => 1,
                5 => 33,
                9 | 10 => 9,
                _ => return false,
            };
            key[account_at..account_at + 16] == ACCOUNT.0
        };
        let all = self.shards[at].rows.iter().map(|(key, value)| (&key[..], &value[..]));
        all.filter(|(key, _)| is_ours(key)).collect()
    }

    /// If it is on its way, it stays: whoever moves it goes on and comes to nothing.
    fn call_off(&mut self) {
        use command::MoveStep::{Arrive, Depart, Forget, Receive, Settle, Stay};
        let upto = match std::mem::replace(&mut self.way, Way::Begin) {
            Way::Begin => return,
            Way::Rows(_) => 0,
            Way::Changes(upto) => upto,
        };
        let (home, other) = (self.home, 1 - self.home);
        let (to, here) = (self.place(), ShardId(self.home as u32));
        assert_eq!(self.step(home, Stay(to), &[]), Outcome::Done);
        let departed = self.step(home, Depart(upto, Some(to)), &[]);
        assert_eq!(departed, Outcome::Refused(Refusal::NoSuchAccount));
        assert_eq!(self.step(other, Forget(to, here), &[]), Outcome::Done);
        let back = Outcome::Refused(Refusal::Moved(command::Place { shard: here, ..to }));
        for late in [Receive(Vec::new(), self.epoch), Arrive(to, self.epoch), Settle(to)] {
            assert_eq!(self.step(other, late, &[]), back);
        }
        for shard in &mut self.shards {
            shard.clean();
            assert!(!shard.rows.keys().any(|key| matches!(key[0], 15..=17)), "rows of the move");
        }
        assert!(self.rows(other).keys().all(|key| key[0] == 7), "but for the UIDVALIDITY counter");
        self.epoch += 1;
    }

    /// One step on the way; true when it has arrived.
    fn go_on(&mut self) -> bool {
        use command::MoveStep::{Arrive, Begin, Depart, Settle};
        let (home, other) = (self.home, 1 - self.home);
        match std::mem::replace(&mut self.way, Way::Begin) {
            Way::Begin => {
                assert_eq!(self.step(home, Begin(self.place()), &[]), Outcome::Done);
                assert_eq!(self.step(other, Arrive(self.place(), self.epoch), &[]), Outcome::Done);
                self.way = Way::Rows(None);
            }
            Way::Rows(after) => {
                let query = query::Query::AccountRows(ACCOUNT, after.map(Into::into));
                let Answer::AccountRows(rows, next) = self.shards[home].ask(&query) else {
                    panic!("refused");
                };
                self.receive(rows);
                self.way = next.map_or(Way::Changes(0), |next| Way::Rows(Some(next.into())));
            }
            Way::Changes(after) => {
                let query = query::Query::ChangedRows(ACCOUNT, after);
                let Answer::ChangedRows(rows, upto, more) = self.shards[home].ask(&query) else {
                    panic!("refused");
                };
                self.way = Way::Changes(upto);
                if upto > after || more {
                    self.receive(rows);
                    return false;
                }
                let before: BTreeMap<Vec<u8>, Vec<u8>> = self
                    .rows(home)
                    .into_iter()
                    .map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .collect();
                assert_eq!(self.step(home, Depart(upto, Some(self.place())), &[]), Outcome::Done);
                let settle = Settle(self.place());
                while self.step(other, settle.clone(), &[]) == (Outcome::Housekept { more: true }) {
                }
                self.epoch += 1;
                let after = self.rows(other);
                let after = after.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
                assert_eq!(after.collect::<BTreeMap<_, _>>(), before, "every row, and no other");
                self.way = Way::Begin;
                self.home = other;
                return true;
            }
        }
        false
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_commands_do_what_the_model_does(acts in proptest::collection::vec(act(), 1..60)) {
        let (mut shard, mut model) = start();
        for act in &acts {
            step(&mut shard, &mut model, act);
        }
        for n_batch in [1, 7] {
            let (rows, digest) = replay(&shard, n_batch);
            prop_assert_eq!(&rows, &shard.rows);
            prop_assert_eq!(digest, shard.digest);
        }
        // After everything is deleted and cleaned up nothing holds on to any chunk.
        shard.run(Command::DeleteAccount(ACCOUNT));
        shard.clean();
        let held = shard.chunks.keys().filter(|digest| is_chunk_live(&shard.rows, digest)).count();
        prop_assert_eq!(held, 0);
        let now = LogTime(u64::MAX);
        shard.now_ms += 120_000;
        let all = Housekeep { sessions_before: now, uploads_before: now, purge_before: now };
        while shard.housekeep(all.clone()) {}
        prop_assert_eq!(shard.rows.len(), 2, "log time and the UIDVALIDITY counter are left");
    }

    #[test]
    fn an_account_that_moves_meanwhile_does_what_the_model_does(
        acts in proptest::collection::vec((act(), 0..4u8), 1..60),
    ) {
        let (shard, mut model) = start();
        let other = Shard { now_ms: START_MS + 7, ..Shard::new() };
        let mut two = Two { shards: [shard, other], home: 0, epoch: 1, way: Way::Begin };
        for (act, n_steps) in &acts {
            step(&mut two.shards[two.home], &mut model, act);
            let n_steps = match n_steps {
                3 => {
                    two.call_off();
                    0
                }
                n => *n,
            };
            for _ in 0..n_steps {
                let from = two.home;
                if two.go_on() {
                    model.compare(&two.shards[two.home]);
                    let place = command::Place {
                        account: ACCOUNT,
                        shard: ShardId(two.home as u32),
                        epoch: two.epoch,
                        alias: false,
                    };
                    let refused = two.shards[from].run(create("c"));
                    prop_assert_eq!(refused, Outcome::Refused(Refusal::Moved(place)));
                    // What the account brought along may be later than this shard's clock.
                    let latest = two.shards.iter().map(|shard| shard.now_ms).max();
                    two.shards[from].now_ms = latest.expect("two shards");
                    two.shards[from].clean();
                    prop_assert_eq!(two.rows(from).len(), 1, "the UIDVALIDITY counter is left");
                }
            }
            model.compare(&two.shards[two.home]);
        }
        for shard in &two.shards {
            let (rows, digest) = replay(shard, 7);
            prop_assert_eq!(&rows, &shard.rows);
            prop_assert_eq!(digest, shard.digest);
        }
    }
}
