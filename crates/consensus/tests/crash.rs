//! A member stopped at every write and every sync of its disk, while it appends, replaces a conflicting suffix, votes,
//! takes snapshots, receives one and drops what they cover; crashed there in every way; and recovered.
//!
//! What it recovers to must be what it would have been at some moment between its last promise and its death.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use bytes::Bytes;
use consensus::{Config, Input, Output, Recovered, Replica, Retention, SnapshotMeta};
use journal::testing::MemDisk;
use journal::{Journal, Options, Seq, SnapshotStore};
use protobuf::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};

const SMALL: Options = Options { segment_bytes_max: 256 };
/// With at most this many losable parts, every combination is tried; with more, a sample.
const PARTS_MAX: u32 = 7;
const SAMPLES: u64 = 40;
const VOTERS: [u64; 3] = [1, 2, 3];

/// One thing that the script does.
#[derive(Clone, Debug)]
enum Act {
    Hear(Message),
    /// Writes a snapshot of what is applied, and compacts.
    Snapshot,
    /// The leader's snapshot arrives, with all that happened up to its entry.
    Receive(Message),
}

fn message(kind: MessageType, from: u64, term: u64) -> Message {
    let mut message = Message { from, to: 1, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

/// Entries `first..=last` of a term, after the entry before them.
fn append(from: u64, term: u64, before: (u64, u64), last: u64, commit: u64) -> Act {
    let mut append = message(MessageType::MsgAppend, from, term);
    (append.index, append.log_term, append.commit) = (before.0, before.1, commit);
    let entry = |index| Entry { index, term, data: payload(index, term).into(), ..Entry::default() };
    append.set_entries((before.0 + 1..=last).map(entry).collect::<Vec<_>>().into());
    Act::Hear(append)
}

/// Long enough for records that lie in several sectors.
fn payload(index: u64, term: u64) -> Vec<u8> {
    format!("{index}@{term};").repeat(1 + index as usize % 3 * 40).into_bytes()
}

fn snapshot_of_leader(from: u64, term: u64, index: u64) -> Act {
    let mut received = message(MessageType::MsgSnapshot, from, term);
    let metadata = received.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (index, term);
    metadata.mut_conf_state().voters = VOTERS.to_vec();
    Act::Receive(received)
}

fn vote_for(from: u64, term: u64, last: (u64, u64)) -> Act {
    let mut question = message(MessageType::MsgRequestVote, from, term);
    (question.index, question.log_term) = last;
    Act::Hear(question)
}

fn script() -> Vec<Act> {
    vec![
        append(2, 1, (0, 0), 3, 0),
        append(2, 1, (3, 1), 6, 3),
        // Another leader has other entries from 4 on.
        append(3, 2, (3, 1), 5, 3),
        append(3, 2, (5, 2), 7, 5),
        Act::Snapshot,
        append(3, 2, (7, 2), 9, 8),
        vote_for(2, 3, (9, 2)),
        append(2, 3, (9, 2), 11, 9),
        Act::Snapshot,
        snapshot_of_leader(3, 4, 20),
        append(3, 4, (20, 4), 23, 21),
        Act::Snapshot,
        append(3, 4, (23, 4), 24, 24),
    ]
}

/// What a member is, as far as others could ever notice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    term: u64,
    last_index: u64,
    snapshot_index: u64,
    applied: Vec<u8>,
}

/// The disk stopped.
#[derive(Debug)]
struct Stopped;

/// A member and its disk. Its state is all payloads, one after the other.
struct Member {
    replica: Replica,
    journal: Journal<MemDisk>,
    store: SnapshotStore<MemDisk>,
    retention: Retention,
    state: Vec<u8>,
    received: Option<Vec<u8>>,
    disk: MemDisk,
    /// The steps of the disk at the last promise.
    promised_at_step: u64,
}

impl Member {
    fn open(disk: &MemDisk) -> Result<Self, Stopped> {
        let store = SnapshotStore::open(disk.clone()).map_err(|_| Stopped)?;
        let (journal, recovered) = Journal::open(disk.clone(), SMALL).map_err(|_| Stopped)?;
        let mut retention = Retention::default();
        for (seq, record) in &recovered.records {
            retention.note(seq.0, record).unwrap();
        }
        let latest = store.latest().map_err(|_| Stopped)?;
        let (mut state, mut snapshot) = (Vec::new(), None);
        if let Some(found) = latest {
            let (meta, bytes) = split(&found.bytes, found.index, found.term);
            (state, snapshot) = (bytes, Some(meta));
        }
        let records = recovered.records.into_iter().map(|(_, record)| record).collect();
        let config = Config::new(1, VOTERS.to_vec(), 7);
        let replica = Replica::new(config, Recovered { records, snapshot }).expect("a crash is always recovered from");
        let promised_at_step = disk.step_count();
        let disk = disk.clone();
        let mut member = Self { replica, journal, store, retention, state, received: None, disk, promised_at_step };
        let outputs = member.replica.step_all([]);
        member.execute(outputs)?;
        Ok(member)
    }

    fn perform(&mut self, act: Act) -> Result<(), Stopped> {
        match act {
            Act::Hear(message) => self.input(Input::Message(message.write_to_bytes().unwrap().into())),
            Act::Snapshot => {
                let meta = self.replica.applied_meta();
                let index = meta.index;
                self.save(&meta, &self.state.clone())?;
                self.input(Input::SnapshotSaved { index })?;
                match self.retention.first_needed(index) {
                    Some(first) => self.journal.drop_prefix(Seq(first)).map_err(|_| Stopped),
                    None => Ok(()),
                }
            }
            Act::Receive(message) => {
                let message = Bytes::from(message.write_to_bytes().unwrap());
                if let Some(meta) = self.replica.wanted_snapshot(&message) {
                    let state = b"as the leader has it;".to_vec();
                    self.save(&meta, &state)?;
                    self.received = Some(state);
                }
                self.input(Input::SnapshotReceived { message })
            }
        }
    }

    fn save(&mut self, meta: &SnapshotMeta, state: &[u8]) -> Result<(), Stopped> {
        self.store.save(meta.index, meta.term, state).map_err(|_| Stopped)
    }

    fn input(&mut self, input: Input) -> Result<(), Stopped> {
        let outputs = self.replica.step(input);
        self.execute(outputs)
    }

    fn execute(&mut self, outputs: Vec<Output>) -> Result<(), Stopped> {
        for output in outputs {
            match output {
                Output::Persist { record, must_sync } => {
                    let seq = self.journal.append(&record).map_err(|_| Stopped)?;
                    self.retention.note(seq.0, &record).unwrap();
                    if must_sync {
                        self.journal.sync().map_err(|_| Stopped)?;
                        self.promised_at_step = self.disk.step_count();
                    }
                }
                Output::Committed { payload, .. } => self.state.extend_from_slice(&payload),
                Output::InstallSnapshot { .. } => self.state = self.received.take().unwrap(),
                _ => {}
            }
        }
        Ok(())
    }

    fn seen(&self) -> Seen {
        Seen {
            term: self.replica.term(),
            last_index: self.replica.last_index(),
            snapshot_index: self.replica.snapshot_index(),
            applied: self.state.clone(),
        }
    }
}

fn split(bytes: &[u8], index: u64, term: u64) -> (SnapshotMeta, Vec<u8>) {
    (SnapshotMeta { index, term, members: consensus::Members::of_voters(VOTERS.to_vec()) }, bytes.to_vec())
}

/// Runs the script until the disk stops; says up to which step of the disk promises were made.
fn run(disk: &MemDisk) -> u64 {
    let Ok(mut member) = Member::open(disk) else { return 0 };
    for act in script() {
        if member.perform(act).is_err() {
            break;
        }
    }
    member.promised_at_step
}

/// A disk on which the script was stopped, and the step of the last promise.
fn stopped_after(steps: u64) -> (MemDisk, u64) {
    let disk = MemDisk::new();
    disk.fail_after(steps);
    let promised_at_step = run(&disk);
    (disk, promised_at_step)
}

#[test]
fn a_member_stopped_anywhere_and_crashed_anyhow_is_what_it_was_after_its_last_promise() {
    let whole = MemDisk::new();
    run(&whole);
    let steps = whole.step_count();
    // What the member is if it dies after each step and nothing of what it wrote is lost.
    let moments: Vec<Seen> = (0..=steps)
        .map(|step| {
            let (disk, _) = stopped_after(step);
            disk.crash_with(|_| true);
            Member::open(&disk).unwrap().seen()
        })
        .collect();
    assert!(moments.last().unwrap().applied.starts_with(b"as the leader has it;"), "the script comes to its end");

    let mut crash_count = 0;
    for stop in 0..=steps {
        let (disk, promised_at_step) = stopped_after(stop);
        let allowed = &moments[usize::try_from(promised_at_step.min(stop)).unwrap()..=usize::try_from(stop).unwrap()];
        for crashed in disk.every_crash(PARTS_MAX, SAMPLES) {
            crash_count += 1;
            let recovered = Member::open(&crashed).unwrap();
            let seen = recovered.seen();
            assert!(
                allowed.contains(&seen),
                "stopped after step {stop}, promised at {promised_at_step}: recovered {seen:?}"
            );
            // What recovery itself wrote is as good: another crash at once changes nothing.
            drop(recovered);
            crashed.crash_with(|_| false);
            assert_eq!(Member::open(&crashed).unwrap().seen(), seen, "recovered twice, stopped after step {stop}");
        }
    }
    assert!(1_000 < crash_count, "only {crash_count} crashes were tried");
}
