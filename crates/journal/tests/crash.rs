//! A journal stopped at every step, and crashed in many ways there, keeps what it promised.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use journal::testing::MemDisk;
use journal::{Journal, JournalError, Ledger, Options, Seq, SnapshotStore};
use proptest::prelude::*;

const SMALL: Options = Options { segment_bytes_max: 256 };
/// With at most this many losable parts, every combination is tried; with more, a sample.
const PARTS_MAX: u32 = 7;
const SAMPLES: u64 = 48;

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Sync,
    DropPrefix(u64),
    Reopen,
    Crash(u64),
}

/// What must be, and what may be, on disk.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Vec<Vec<u8>>,
    synced: usize,
    /// Records up to here may be gone.
    dropped: u64,
}

impl Model {
    fn perform(&mut self, journal: &mut Journal<MemDisk>, step: &Step) -> Result<(), JournalError> {
        match *step {
            Step::Append(len) => {
                let number = self.records.len() as u64 + 1;
                let bytes = vec![number as u8 | 1; len];
                // Known before the attempt: a failed append may still reach the disk.
                self.records.push(bytes.clone());
                assert_eq!(journal.append(&bytes)?, Seq(number));
                self.synced = self.synced.max(journal.synced_seq().0 as usize);
            }
            Step::Sync => {
                journal.sync()?;
                self.synced = self.records.len();
            }
            Step::DropPrefix(before) => {
                self.dropped = self.dropped.max(before.saturating_sub(1));
                journal.drop_prefix(Seq(before))?;
            }
            Step::Reopen | Step::Crash(_) => unreachable!("the caller reopens"),
        }
        Ok(())
    }

    /// Opens after a crash: nothing promised is missing, nothing is there that was not written.
    fn reopen(&mut self, disk: &MemDisk) -> Journal<MemDisk> {
        let (journal, recovered) = Journal::open(disk.clone(), SMALL).expect("a crash is always recovered from");
        let first = journal.first_seq().0;
        assert!(first <= self.dropped + 1, "record {} is gone", self.dropped + 1);
        let last = journal.next_seq().0 as usize - 1;
        assert!(self.synced <= last, "synced {} but recovered {last}", self.synced);
        assert!(last <= self.records.len());
        assert_eq!(recovered.records.len(), last + 1 - first as usize);
        for (position, (seq, bytes)) in recovered.records.iter().enumerate() {
            assert_eq!(seq.0, first + position as u64);
            assert_eq!(*bytes, self.records[seq.0 as usize - 1]);
        }
        self.records.truncate(last);
        self.synced = last;
        journal
    }
}

/// Every way to crash here, or a sample of them.
fn crashes(disk: &MemDisk) -> Vec<MemDisk> {
    disk.every_crash(PARTS_MAX, SAMPLES)
}

/// Runs the steps until the disk stops.
fn run(disk: &MemDisk, steps: &[Step]) -> Model {
    let mut model = Model::default();
    if let Ok((mut journal, _)) = Journal::open(disk.clone(), SMALL) {
        for step in steps {
            if model.perform(&mut journal, step).is_err() {
                break;
            }
        }
    }
    model
}

fn script() -> Vec<Step> {
    use Step::{Append, DropPrefix, Sync};
    vec![
        Append(20),
        Sync,
        Append(30),
        Append(0),
        Append(70),
        Sync,
        Append(90),
        Append(700),
        Append(10),
        Sync,
        DropPrefix(5),
        Append(40),
        Append(100),
        Append(60),
        DropPrefix(8),
        Sync,
        Append(5),
    ]
}

#[test]
fn crash_at_every_step_loses_nothing_synced() {
    let disk = MemDisk::new();
    run(&disk, &script());
    let steps = disk.step_count();
    for stop_after in 0..=steps {
        let disk = MemDisk::new();
        disk.fail_after(stop_after);
        let model = run(&disk, &script());
        for crashed in crashes(&disk) {
            let mut model = model.clone();
            let mut journal = model.reopen(&crashed);
            model.perform(&mut journal, &Step::Append(33)).unwrap();
            model.perform(&mut journal, &Step::Sync).unwrap();
            crashed.crash_with(|_| false);
            model.reopen(&crashed);
        }
    }
}

#[test]
fn crash_at_every_step_of_a_recovery_is_recovered_from() {
    let disk = MemDisk::new();
    let model = run(&disk, &script());
    for torn in crashes(&disk) {
        let whole = torn.fork();
        let before = whole.step_count();
        model.clone().reopen(&whole);
        for stop_after in 0..whole.step_count() - before {
            let stopped = torn.fork();
            stopped.fail_after(stop_after);
            Journal::open(stopped.clone(), SMALL).expect_err("the disk stopped");
            for seed in 0..8 {
                let crashed = stopped.fork();
                crashed.crash(seed);
                model.clone().reopen(&crashed);
            }
        }
    }
}

#[test]
fn ledger_holds_the_old_or_the_new_value_after_any_crash() {
    for stop_after in 0..=8 {
        let disk = MemDisk::new();
        Ledger::open(disk.clone(), "promise").unwrap().save(b"old").unwrap();
        disk.fail_after(stop_after);
        let saved = Ledger::open(disk.clone(), "promise").and_then(|mut ledger| ledger.save(b"new")).is_ok();
        for crashed in crashes(&disk) {
            let value = Ledger::open(crashed, "promise").unwrap().load().unwrap().expect("a value is there");
            assert!(value == b"new" || !saved && value == b"old", "{value:?}");
        }
    }
}

#[test]
fn snapshots_survive_a_crash_at_any_step_of_the_next_save() {
    for stop_after in 0..=10 {
        let disk = MemDisk::new();
        let mut store = SnapshotStore::open(disk.clone()).unwrap();
        store.save(10, 1, b"ten").unwrap();
        store.save(20, 1, b"twenty").unwrap();
        disk.fail_after(stop_after);
        let saved = store.save(30, 2, &[3; 1200]).is_ok();
        for crashed in crashes(&disk) {
            let latest = SnapshotStore::open(crashed).unwrap().latest().unwrap().expect("a snapshot is there");
            match latest.index {
                20 => assert!(!saved && latest.bytes == b"twenty"),
                30 => assert_eq!(latest.bytes, [3; 1200]),
                other => panic!("snapshot {other} is not the newest"),
            }
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..400).prop_map(Step::Append),
        3 => Just(Step::Sync),
        1 => (0_u64..60).prop_map(Step::DropPrefix),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_matches_the_model(steps in prop::collection::vec(any_step(), 1..80)) {
        let disk = MemDisk::new();
        let mut model = Model::default();
        let mut journal = model.reopen(&disk);
        for step in &steps {
            match *step {
                Step::Reopen => journal = model.reopen(&disk),
                Step::Crash(seed) => {
                    disk.crash(seed);
                    journal = model.reopen(&disk);
                }
                _ => model.perform(&mut journal, step).unwrap(),
            }
        }
    }
}

/// The process dies at any step, another reads, then the machine crashes: what was read must still be there.
#[test]
fn value_once_read_survives_a_crash() {
    for stop_after in 0..=8 {
        let disk = MemDisk::new();
        let mut ledger = Ledger::open(disk.clone(), "promise").unwrap();
        let mut store = SnapshotStore::open(disk.clone()).unwrap();
        ledger.save(b"old").unwrap();
        store.save(1, 1, b"old").unwrap();

        let ledger_disk = disk.fork();
        ledger_disk.fail_after(stop_after);
        let _ = Ledger::open(ledger_disk.clone(), "promise").and_then(|mut ledger| ledger.save(b"new"));
        ledger_disk.fail_after(u64::MAX);
        let read = || Ledger::open(ledger_disk.clone(), "promise").unwrap().load().unwrap();
        let before = read();
        ledger_disk.crash_with(|_| false);
        assert_eq!(read(), before, "ledger stopped after {stop_after} steps");

        let store_disk = disk.fork();
        store_disk.fail_after(stop_after);
        let _ = SnapshotStore::open(store_disk.clone()).and_then(|mut store| store.save(2, 1, b"new"));
        store_disk.fail_after(u64::MAX);
        let read = || SnapshotStore::open(store_disk.clone()).unwrap().latest().unwrap();
        let before = read();
        store_disk.crash_with(|_| false);
        assert_eq!(read(), before, "store stopped after {stop_after} steps");
    }
}
