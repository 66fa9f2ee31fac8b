//! Power cuts at every operation, with any subset of what was not synced.

use journal::Record;
use journal::sim::SimStorage;

use crate::model::{self, AMPLE, Model, apply, formatted, open, recovered_model, workload};

/// Unsynced things up to which all subsets are tried: 2^10 disks for one crash point.
const EXHAUSTIVE_MAX: usize = 10;

/// A small generator with a printed seed; the tests need no better one.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The disks a power cut may leave: all if there are few, else every prefix, every prefix that is
/// missing, every single one missing or kept, and some at random.
pub fn cuts(storage: &SimStorage, random: &mut Random) -> Vec<SimStorage> {
    let n = storage.n_unsynced();
    let mut masks: Vec<Vec<bool>> = Vec::new();
    if n <= EXHAUSTIVE_MAX {
        masks.extend((0..1_u32 << n).map(|mask| (0..n).map(|i| mask >> i & 1 == 1).collect()));
    } else {
        for at in 0..=n {
            masks.push((0..n).map(|i| i < at).collect());
            masks.push((0..n).map(|i| i >= at).collect());
            masks.push((0..n).map(|i| i != at).collect());
        }
        masks.extend((0..20).map(|_| (0..n).map(|_| random.below(2) == 0).collect()));
    }
    let cut = |mask: Vec<bool>| {
        let mut answers = mask.into_iter();
        storage.power_cut(&mut || answers.next().unwrap_or(true))
    };
    masks.into_iter().map(cut).collect()
}

/// The model of what was answered, and with the request in flight; and the last frame that was said to
/// be synced.
type Known = (Model, Model, u64);

/// Runs requests until one fails.
fn run(storage: &SimStorage, requests: &[Vec<Record>]) -> Known {
    let mut answered = Model::new();
    let Ok((journal, _)) = open(storage) else { return (answered.clone(), answered, 0) };
    for (i, records) in requests.iter().enumerate() {
        let mut in_flight = answered.clone();
        records.iter().for_each(|record| apply(&mut in_flight, record));
        if journal.append_wait(records.clone()).is_err() {
            return (answered, in_flight, journal.synced_sequence());
        }
        answered = in_flight;
        if i % 5 == 4 {
            journal.mark();
        }
    }
    (answered.clone(), answered, journal.synced_sequence())
}

/// What is found, and the last frame that is synced then.
fn check(storage: &SimStorage, (answered, in_flight, synced): &Known, what: &str) -> (Model, u64) {
    let (journal, recovered) = open(storage).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(recovered.damaged, vec![], "{what}: a power cut is not damage");
    let found = recovered_model(&journal, &recovered).unwrap();
    assert!(found == *answered || found == *in_flight, "{what}: {found:#?}\n{answered:#?}");
    let sequence = recovered.sequence;
    assert!(sequence >= *synced, "{what}: frame {sequence} is the last, {synced} was synced");
    assert!(journal.synced_sequence() > sequence, "{what}: a start is a frame at least");
    (found, journal.synced_sequence())
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_answered() {
    let requests = workload();
    let whole = formatted(AMPLE);
    run(&whole, &requests);
    let n_changes = whole.n_changes() - formatted(AMPLE).n_changes();
    let mut random = Random(0x5eed);
    let mut n_disks = 0;
    for at in 0..=n_changes {
        let storage = formatted(AMPLE);
        storage.power_off_after(at);
        let models = run(&storage, &requests);
        for (i, disk) in cuts(&storage, &mut random).into_iter().enumerate() {
            n_disks += 1;
            let what = format!("cut at {at}, subset {i}");
            let (found, synced) = check(&disk, &models, &what);
            // Nothing that open handed over may be lost by a cut right after.
            let bare = disk.power_cut(&mut || false);
            check(&bare, &(found.clone(), found, synced), &format!("{what}, cut again"));
        }
    }
    assert!(n_disks > 300, "only {n_disks} disks");
}

#[test]
fn a_power_cut_during_recovery_loses_nothing_either() {
    let requests = workload();
    let mut random = Random(0xbad5eed);
    let whole = formatted(AMPLE);
    run(&whole, &requests);
    let n_changes = whole.n_changes() - formatted(AMPLE).n_changes();
    for at in (0..=n_changes).step_by(7) {
        let storage = formatted(AMPLE);
        storage.power_off_after(at);
        let models = run(&storage, &requests);
        let first = storage.power_cut(&mut || random.below(2) == 0);
        for within in 0..24 {
            let disk = first.kill();
            disk.power_off_after(within);
            drop(open(&disk));
            for (i, disk) in cuts(&disk, &mut random).into_iter().take(40).enumerate() {
                check(&disk, &models, &format!("cut at {at}, then at {within}, subset {i}"));
            }
        }
    }
}

#[test]
fn a_killed_process_leaves_nothing_in_the_page_cache_only() {
    let requests = workload();
    let whole = formatted(AMPLE);
    run(&whole, &requests);
    let n_changes = whole.n_changes() - formatted(AMPLE).n_changes();
    let mut n_resynced = 0;
    for at in 0..=n_changes {
        let storage = formatted(AMPLE);
        storage.power_off_after(at);
        let models = run(&storage, &requests);
        let killed = storage.kill();
        let (journal, recovered) = open(&killed).unwrap();
        n_resynced += recovered.n_resynced;
        let found = recovered_model(&journal, &recovered).unwrap();
        assert!(found == models.0 || found == models.1, "killed at {at}");
        let synced = journal.synced_sequence();
        assert!(recovered.sequence >= models.2 && synced > recovered.sequence, "killed at {at}");
        let bare = killed.power_cut(&mut || false);
        check(&bare, &(found.clone(), found, synced), &format!("killed at {at}, then cut"));
    }
    assert!(n_resynced > 0);
}

#[test]
fn random_histories_survive_random_power_cuts() {
    let mut random = Random(0xfeed_f00d);
    for round in 0..60 {
        let storage = formatted(AMPLE);
        let mut disk = storage.clone();
        let mut known = Model::new();
        for life in 0..6 {
            let (journal, recovered) = open(&disk).unwrap();
            let found = recovered_model(&journal, &recovered).unwrap();
            assert!(found == known, "round {round} life {life}");
            disk.power_off_after(random.below(120));
            let mut in_flight = known.clone();
            loop {
                let records = random_request(&mut random, &known);
                in_flight.clone_from(&known);
                records.iter().for_each(|record| apply(&mut in_flight, record));
                if journal.append_wait(records).is_err() {
                    break;
                }
                known.clone_from(&in_flight);
            }
            let cut = disk.power_cut(&mut || random.below(3) > 0);
            let models = (known, in_flight, journal.synced_sequence());
            drop(journal);
            let (found, _) = check(&cut, &models, &format!("round {round} life {life}"));
            (disk, known) = (cut, found);
        }
    }
}

fn random_request(random: &mut Random, known: &Model) -> Vec<Record> {
    let replica = 1 + random.below(3);
    let log = known.get(&journal::ReplicaId(replica));
    let floor = log.and_then(|log| log.floor.as_ref()).map_or(0, |(floor, _)| *floor);
    let last = log.and_then(|log| log.entries.keys().next_back().copied()).unwrap_or(floor);
    match random.below(10) {
        0 => vec![model::vote(replica, ["x", "y", "zz"][random.below(3) as usize])],
        1 if last > floor => vec![model::truncate(replica, floor + 1 + random.below(last - floor))],
        2 if last > floor => vec![model::purge(replica, floor + 1 + random.below(last - floor))],
        _ => {
            let blob = model::blob(random.next(), random.below(1200) as usize);
            vec![
                model::entry(replica, last + 1, vec![blob]),
                model::entry(replica, last + 2, vec![]),
            ]
        }
    }
}
