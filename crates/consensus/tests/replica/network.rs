//! A small deterministic network of replicas with disks that lose what was not synced.
//! Checks on every step what must hold always; scenarios add what they are about.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consensus::{Config, Input, MemberChange, Members, Output, Recovered, Replica, Retention, SnapshotMeta};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

/// Splitmix64.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// The state machine: all payloads so far, with their indexes.
pub(crate) type State = Vec<(u64, Bytes)>;

#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: BTreeMap<u64, Vec<u8>>,
    next_seq: u64,
    /// Records before this one survive a crash.
    synced_seq: u64,
    snapshots: BTreeMap<u64, (SnapshotMeta, State)>,
    retention: Retention,
}

impl Disk {
    fn append(&mut self, record: &Bytes, must_sync: bool) {
        self.records.insert(self.next_seq, record.to_vec());
        self.retention.note(self.next_seq, record).unwrap();
        self.next_seq += 1;
        if must_sync {
            self.synced_seq = self.next_seq;
        }
    }

    fn crash(&mut self, random: &mut Random) {
        let survivors = self.synced_seq + random.below(self.next_seq - self.synced_seq + 1);
        self.records.split_off(&survivors);
        self.next_seq = survivors;
        self.synced_seq = survivors;
        self.retention = Retention::default();
        for (&seq, record) in &self.records {
            self.retention.note(seq, record).unwrap();
        }
    }

    fn recover(&self) -> Recovered {
        let snapshot = self.snapshots.last_key_value().map(|(_, (meta, _))| meta.clone());
        Recovered { records: self.records.values().cloned().collect(), snapshot }
    }

    pub(crate) fn record_count(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn record_at(&self, position: usize) -> &[u8] {
        self.records.values().nth(position).unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    pub(crate) state: State,
    pub(crate) applied: u64,
    pub(crate) installed: Vec<u64>,
    pub(crate) reads_ready: BTreeMap<u64, u64>,
    pub(crate) reads_dropped: BTreeSet<u64>,
    pub(crate) dropped: Vec<Bytes>,
    boots: u64,
    /// The crash comes after this many outputs.
    pub(crate) crash_after: Option<u64>,
}

#[derive(Clone, Debug)]
struct Envelope {
    from: u64,
    to: u64,
    message: Bytes,
    snapshot: Option<(SnapshotMeta, State)>,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) servers: BTreeMap<u64, Server>,
    pub(crate) random: Random,
    pub(crate) trace: Vec<String>,
    seed: u64,
    keep_entries: u64,
    founders: Vec<u64>,
    in_flight: Vec<Envelope>,
    cut_off: BTreeSet<u64>,
    /// What was committed anywhere, ever.
    pub(crate) committed: BTreeMap<u64, (u64, Bytes)>,
    /// The members since each entry that changed them.
    members: BTreeMap<u64, Members>,
    /// Servers that do not belong to the group any more.
    pub(crate) removed: BTreeSet<u64>,
    reads_asked: BTreeMap<u64, u64>,
    next_read: u64,
    /// Percent of messages lost, doubled, and overtaken.
    pub(crate) disorder: u64,
    /// Whether whoever drives the replicas saves a snapshot whenever the newest one does not know the members.
    pub(crate) saves_members: bool,
}

impl Network {
    pub(crate) fn new(seed: u64, keep_entries: u64) -> Self {
        Self::with_members(seed, keep_entries, 3)
    }

    pub(crate) fn with_members(seed: u64, keep_entries: u64, count: u64) -> Self {
        let mut network = Self {
            servers: BTreeMap::new(),
            random: Random(seed),
            trace: Vec::new(),
            seed,
            keep_entries,
            founders: (1..=count).collect(),
            in_flight: Vec::new(),
            cut_off: BTreeSet::new(),
            committed: BTreeMap::new(),
            members: [(0, Members::of_voters((1..=count).collect()))].into(),
            removed: BTreeSet::new(),
            reads_asked: BTreeMap::new(),
            next_read: 0,
            disorder: 0,
            saves_members: false,
        };
        (1..=count).for_each(|id| network.join(id));
        network
    }

    /// A server with an empty disk begins.
    pub(crate) fn join(&mut self, id: u64) {
        let server = Server {
            replica: None,
            disk: Disk::default(),
            state: Vec::new(),
            applied: 0,
            installed: Vec::new(),
            reads_ready: BTreeMap::new(),
            reads_dropped: BTreeSet::new(),
            dropped: Vec::new(),
            boots: 0,
            crash_after: None,
        };
        assert!(self.servers.insert(id, server).is_none(), "a number is never used twice");
        self.start(id);
    }

    /// Returns whether the leader took it.
    pub(crate) fn change(&mut self, leader: u64, change: MemberChange) -> bool {
        let is_fine = self.replica(leader).check_change(change).is_ok();
        let payload = Bytes::from(format!("{change:?}"));
        let dropped_before = self.servers[&leader].dropped.len();
        self.input(leader, Input::ChangeMembers { change, payload });
        let is_taken = self.servers[&leader].dropped.len() == dropped_before;
        if self.servers[&leader].replica.is_some() {
            assert_eq!(is_taken, is_fine, "what is refused is dropped");
        }
        is_taken
    }

    /// The members as of an entry.
    fn members_at(&self, index: u64) -> &Members {
        self.members.range(..=index).next_back().unwrap().1
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.servers.keys().copied().collect()
    }

    pub(crate) fn replica(&self, id: u64) -> &Replica {
        self.servers[&id].replica.as_ref().unwrap()
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        let leads =
            |id: &u64| !self.cut_off.contains(id) && self.servers[id].replica.as_ref().is_some_and(Replica::is_leader);
        self.ids().into_iter().filter(leads).max_by_key(|id| self.replica(*id).term())
    }

    pub(crate) fn start(&mut self, id: u64) {
        let voters = self.founders.clone();
        let server = self.servers.get_mut(&id).unwrap();
        assert!(server.replica.is_none());
        server.boots += 1;
        let mut config = Config::new(id, voters, self.seed.wrapping_add(server.boots));
        config.keep_entries = self.keep_entries;
        let replica = Replica::new(config, server.disk.recover()).unwrap();
        let newest = server.disk.snapshots.last_key_value();
        (server.applied, server.state) = newest.map_or((0, Vec::new()), |(&index, (_, state))| (index, state.clone()));
        assert_eq!(replica.applied(), server.applied);
        let known = self.members.range(..=replica.applied()).next_back().unwrap().1;
        assert_eq!(replica.members(), known, "{id} starts with the members of its snapshot");
        server.replica = Some(replica);
        self.trace.push(format!("{id} starts at {}", self.servers[&id].applied));
    }

    pub(crate) fn crash(&mut self, id: u64) {
        let server = self.servers.get_mut(&id).unwrap();
        server.replica = None;
        server.crash_after = None;
        server.disk.crash(&mut self.random);
        self.trace.push(format!("{id} crashes"));
    }

    pub(crate) fn restart(&mut self, id: u64) {
        self.crash(id);
        self.start(id);
    }

    pub(crate) fn cut_off(&mut self, id: u64) {
        self.cut_off.insert(id);
    }

    pub(crate) fn heal(&mut self) {
        self.cut_off.clear();
    }

    pub(crate) fn propose(&mut self, id: u64, payloads: &[&str]) {
        let payloads = payloads.iter().map(|payload| Bytes::from(payload.to_string())).collect();
        self.input(id, Input::Propose(payloads));
    }

    /// Returns the read's context.
    pub(crate) fn read(&mut self, id: u64) -> u64 {
        self.next_read += 1;
        let newest = self.committed.last_key_value().map_or(0, |(&index, _)| index);
        self.reads_asked.insert(self.next_read, newest);
        self.input(id, Input::ReadIndex(self.next_read));
        self.next_read
    }

    pub(crate) fn snapshot(&mut self, id: u64) {
        let server = self.servers.get_mut(&id).unwrap();
        let Some(replica) = &server.replica else {
            return;
        };
        let meta = replica.applied_meta();
        assert_eq!(meta.index, server.applied);
        if meta.index == 0 {
            return;
        }
        server.disk.snapshots.insert(meta.index, (meta.clone(), server.state.clone()));
        self.input(id, Input::SnapshotSaved { index: meta.index });
        let server = self.servers.get_mut(&id).unwrap();
        if server.replica.is_some()
            && let Some(first) = server.disk.retention.first_needed(meta.index)
        {
            server.disk.records = server.disk.records.split_off(&first);
        }
    }

    pub(crate) fn input(&mut self, id: u64, input: Input) {
        let Some(replica) = self.servers.get_mut(&id).unwrap().replica.as_mut() else {
            return;
        };
        let outputs = replica.step(input);
        self.execute(id, outputs);
    }

    pub(crate) fn tick(&mut self) {
        self.ids().into_iter().for_each(|id| self.input(id, Input::Tick));
        self.deliver_all();
        for id in self.ids() {
            let is_behind = |replica: &Replica| !replica.is_snapshot_of_members();
            if self.saves_members && self.servers[&id].replica.as_ref().is_some_and(is_behind) {
                self.snapshot(id);
            }
        }
    }

    #[track_caller]
    pub(crate) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        const TICKS_MAX: usize = 400;
        self.deliver_all();
        for _ in 0..TICKS_MAX {
            if done(self) {
                return;
            }
            self.tick();
        }
        panic!("seed {}: {what} did not happen within {TICKS_MAX} ticks\n{}", self.seed, self.trace.join("\n"));
    }

    /// As `run_until`, but stops between two messages.
    #[track_caller]
    pub(crate) fn run_closely_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        const STEPS_MAX: usize = 10_000;
        for _ in 0..STEPS_MAX {
            if done(self) {
                return;
            }
            if self.in_flight.is_empty() {
                self.ids().into_iter().for_each(|id| self.input(id, Input::Tick));
            } else {
                self.deliver_one();
            }
        }
        panic!("seed {}: {what} did not happen within {STEPS_MAX} steps", self.seed);
    }

    #[track_caller]
    pub(crate) fn elect(&mut self) -> u64 {
        self.run_until("election", |network| network.leader().is_some_and(|id| network.committed_in_own_term(id)));
        self.leader().unwrap()
    }

    fn committed_in_own_term(&self, id: u64) -> bool {
        self.replica(id).applied_meta().term == self.replica(id).term()
    }

    #[track_caller]
    pub(crate) fn converge(&mut self) {
        self.run_until("convergence", |network| {
            let newest = network.committed.last_key_value().map_or(0, |(&index, _)| index);
            let all_applied = network.present().iter().all(|id| network.servers[id].applied == newest);
            network.leader().is_some_and(|id| network.committed_in_own_term(id)) && all_applied
        });
        let present = self.present();
        let states: BTreeSet<_> = present.iter().map(|id| self.servers[id].state.clone()).collect();
        assert_eq!(states.len(), 1, "seed {}: states differ", self.seed);
        let newest = self.members.last_key_value().unwrap().1;
        assert!(present.iter().all(|id| self.replica(*id).members() == newest), "seed {}: members differ", self.seed);
    }

    /// The servers that have not been removed.
    fn present(&self) -> Vec<u64> {
        self.ids().into_iter().filter(|id| !self.removed.contains(id)).collect()
    }

    pub(crate) fn payloads(&self, id: u64) -> Vec<String> {
        let text = |(_, payload): &(u64, Bytes)| String::from_utf8(payload.to_vec()).unwrap();
        self.servers[&id].state.iter().map(text).collect()
    }

    pub(crate) fn deliver_all(&mut self) {
        // Bounded because disorder may double messages.
        for _ in 0..10_000 {
            if self.in_flight.is_empty() {
                return;
            }
            self.deliver_one();
        }
        assert!(self.disorder != 0, "messages never stop");
    }

    /// Stops when the next message to be delivered is a snapshot.
    pub(crate) fn run_up_to_snapshot(&mut self) {
        for _ in 0..1_000 {
            match self.in_flight.first() {
                Some(envelope) if envelope.snapshot.is_some() => return,
                Some(_) => self.deliver_one(),
                None => self.ids().into_iter().for_each(|id| self.input(id, Input::Tick)),
            }
        }
        panic!("no snapshot is sent");
    }

    pub(crate) fn deliver_one(&mut self) {
        let overtakes = self.random.percent(self.disorder);
        let at = if overtakes { self.random.below(self.in_flight.len() as u64) as usize } else { 0 };
        let doubled = self.random.percent(self.disorder / 2) && self.in_flight[at].snapshot.is_none();
        let envelope = if doubled { self.in_flight[at].clone() } else { self.in_flight.remove(at) };
        let is_cut = self.cut_off.contains(&envelope.from) || self.cut_off.contains(&envelope.to);
        let is_lost = is_cut
            || self.random.percent(self.disorder)
            || self.servers.get(&envelope.to).is_none_or(|to| to.replica.is_none());
        let Envelope { from, to, message, snapshot } = envelope;
        let Some((meta, state)) = snapshot else {
            if !is_lost {
                self.input(to, Input::Message(message));
            }
            return;
        };
        if !is_lost {
            let server = self.servers.get_mut(&to).unwrap();
            let wanted = server.replica.as_ref().unwrap().wanted_snapshot(&message);
            if wanted.is_some() {
                assert_eq!(wanted.as_ref(), Some(&meta));
                server.disk.snapshots.insert(meta.index, (meta, state));
            }
            self.input(to, Input::SnapshotReceived { message });
        }
        self.input(from, Input::SnapshotStatus { peer: to, ok: !is_lost });
    }

    fn execute(&mut self, id: u64, outputs: Vec<Output>) {
        check_order(&outputs);
        for output in outputs {
            let server = self.servers.get_mut(&id).unwrap();
            match &mut server.crash_after {
                Some(0) => return self.crash(id),
                Some(left) => *left -= 1,
                None => {}
            }
            self.trace.push(format!("{id} {output:?}"));
            self.execute_one(id, output);
        }
    }

    fn execute_one(&mut self, id: u64, output: Output) {
        let server = self.servers.get_mut(&id).unwrap();
        match output {
            Output::Send { to, message } => self.in_flight.push(Envelope { from: id, to, message, snapshot: None }),
            Output::Persist { record, must_sync } => server.disk.append(&record, must_sync),
            Output::SendSnapshot { to, message, index } => {
                let snapshot = Some(server.disk.snapshots[&index].clone());
                self.in_flight.push(Envelope { from: id, to, message, snapshot });
            }
            Output::InstallSnapshot { index, term } => {
                let (meta, state) = &server.disk.snapshots[&index];
                assert_eq!(meta.term, term);
                server.state = state.clone();
                server.applied = index;
                server.installed.push(index);
            }
            Output::Committed { index, term, payload, members } => {
                assert_eq!(index, server.applied + 1, "seed {}: {id} applies without holes", self.seed);
                server.applied = index;
                if !payload.is_empty() {
                    server.state.push((index, payload.clone()));
                }
                let known = self.committed.entry(index).or_insert_with(|| (term, payload.clone()));
                assert_eq!(*known, (term, payload), "seed {}: {index} was committed differently", self.seed);
                match members {
                    Some(members) => {
                        let gone = self.members_at(index - 1).voters.iter().filter(|id| !members.contains(**id));
                        let gone: Vec<u64> = gone.copied().collect();
                        self.removed.extend(gone);
                        let known = self.members.entry(index).or_insert_with(|| members.clone());
                        assert_eq!(*known, members, "seed {}: members differ since {index}", self.seed);
                    }
                    None => assert!(!self.members.contains_key(&index), "seed {}: {index} changed members", self.seed),
                }
            }
            Output::ReadReady { ctx, index } => {
                let newest = self.reads_asked[&ctx];
                assert!(newest <= index, "seed {}: read {ctx} asked at {newest} is told {index}", self.seed);
                assert!(server.reads_ready.insert(ctx, index).is_none());
            }
            Output::ReadDropped { ctx } => assert!(server.reads_dropped.insert(ctx)),
            Output::ProposalDropped { payloads } => server.dropped.extend(payloads),
            Output::Role { .. } => {}
        }
    }
}

/// A follower says nothing before what it says is on disk.
fn check_order(outputs: &[Output]) {
    for (at, output) in outputs.iter().enumerate() {
        let Output::Send { message, .. } = output else {
            continue;
        };
        let unpersisted = outputs[at..].iter().any(|later| matches!(later, Output::Persist { must_sync: true, .. }));
        assert!(!is_promise(message) || !unpersisted, "a promise is sent before it is on disk: {outputs:?}");
    }
}

/// Votes, also one's own, and acknowledgements.
fn is_promise(bytes: &Bytes) -> bool {
    let message = Message::parse_from_carllerche_bytes(bytes).unwrap();
    matches!(
        message.get_msg_type(),
        MessageType::MsgAppendResponse | MessageType::MsgRequestVote | MessageType::MsgRequestVoteResponse
    )
}
