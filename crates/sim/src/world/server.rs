//! A server: the real brain, journal and snapshots, over disks in memory that forget and fail. What is done with the
//! brain's outputs mirrors `server/src/engine.rs`, one output after the other; a sync takes time, and meanwhile the
//! server does nothing else.

use super::answers::{Asked, Asker, Outcome};
use super::clock::Clock;
use super::links::Place;
use super::{Event, World};
use crate::history::What;
use crate::scenario::Process;
use bytes::Bytes;
use consensus::Retention;
use control_core::watch::Ring;
use control_core::{AppliedBatch, CallError, Config, Control, Input, Output, Recovered, Reply, SnapshotBytes};
use domain::State;
use domain::id::{Revision, ServerId};
use journal::testing::{Flip, MemDisk};
use journal::{Journal, Ledger, Options, Seq, SnapshotStore};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const TICK_MS: u64 = 50;
const KEEP_ENTRIES: u64 = 64;
const CLUSTER: &str = "simulated";
/// The shortest and the longest ordinary sync.
const SYNC_MS: (u64, u64) = (1, 4);
/// How long the supervisor waits before it starts again what ended by itself.
const SUPERVISE_MS: (u64, u64) = (200, 3_000);

/// What can happen to a server.
#[derive(Debug)]
pub(super) enum ServerEvent {
    Tick,
    Wake,
    /// The disk has done what the server waits for.
    DiskDone,
    /// The disk has done what the thread of the snapshots waits for.
    Stored {
        index: u64,
        term: u64,
        state: Arc<State>,
    },
    Input(Input),
    PeerMessage {
        from: u64,
        message: Bytes,
    },
    Asked(Asked),
    /// What another server says to a change that was passed on to it.
    PassedOn {
        asker: Asker,
        outcome: Outcome,
    },
}

/// A server's machine.
#[derive(Debug)]
pub(super) struct Server {
    /// Which start of the server this is.
    pub(super) life: u64,
    pub(super) clock: Clock,
    pub(super) disks: Disks,
    /// Its disk is gone, or it does not belong to the group any more: it never runs again.
    pub(super) is_gone: bool,
    /// A sync takes so long.
    pub(super) slow_sync_ms: Option<u64>,
    /// What flipped.
    pub(super) rot: Option<Rot>,
    pub(super) running: Option<Running>,
}

/// The directories of a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Disks {
    pub(super) owner: MemDisk,
    pub(super) journal: MemDisk,
    pub(super) snapshots: MemDisk,
}

impl Disks {
    pub(super) fn all(&self) -> [&MemDisk; 3] {
        [&self.journal, &self.snapshots, &self.owner]
    }
}

/// A bit that flipped, so that it can be put back.
#[derive(Clone, Debug)]
pub(super) struct Rot {
    pub(super) is_journal: bool,
    pub(super) flip: Flip,
}

/// A server's process.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) control: Control,
    journal: Journal<MemDisk>,
    retention: Retention,
    store: SnapshotStore<MemDisk>,
    /// Held while the process lives.
    _owner: Ledger<MemDisk>,
    started_at_ms: u64,
    inbox: Vec<Input>,
    own_inputs: Vec<Input>,
    outputs: VecDeque<Output>,
    /// What the disk is at.
    pending: Option<Pending>,
    has_wake: bool,
    has_stepped: bool,
    store_free_at_ms: u64,
    last_ticket: u64,
    pub(super) tickets: BTreeMap<u64, Asker>,
    answers: Vec<(u64, Outcome)>,
    pub(super) shown: Arc<State>,
    pub(super) ring: Ring,
    /// Sessions that can be told something.
    pub(super) agents: BTreeSet<u64>,
    /// Changes that are made, for askers who are to find them here.
    pub(super) behind: Vec<(Asker, Reply)>,
    pub(super) watches: BTreeMap<u64, super::watcher::Watch>,
}

#[derive(Debug)]
enum Pending {
    Sync { seq: Seq, record: Bytes },
    Save(SnapshotBytes),
}

/// Why a server cannot go on, or not even begin.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The disk failed: the process ends.
    Disk,
    /// What the disk holds is wrong: the server refuses to begin.
    Refusal(String),
}

impl From<journal::JournalError> for Trouble {
    fn from(error: journal::JournalError) -> Self {
        match error {
            journal::JournalError::Disk(_) | journal::JournalError::Failed => Self::Disk,
            journal::JournalError::Floor(source) => source.into(),
            journal::JournalError::Damaged { .. }
            | journal::JournalError::MissingSegment { .. }
            | journal::JournalError::MissingFloor { .. }
            | journal::JournalError::UnknownFormat { .. }
            | journal::JournalError::RecordTooLarge { .. } => Self::Refusal(chain(&error)),
        }
    }
}

impl From<journal::FileError> for Trouble {
    fn from(error: journal::FileError) -> Self {
        match error {
            journal::FileError::Disk(_) => Self::Disk,
            journal::FileError::Damaged { .. } | journal::FileError::UnknownFormat { .. } => {
                Self::Refusal(chain(&error))
            }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Server {
    /// Reads everything back, as `Opened::open` does.
    fn open(&self, setup: &crate::scenario::Setup, number: u64, seed: u64, now_ms: u64) -> Result<Running, Trouble> {
        let mut owner = Ledger::open(self.disks.owner.clone(), "owner")?;
        let text = format!("server {number} of cluster {CLUSTER}");
        let has_run = owner.load()?.is_some();
        if has_run && journal::Disk::list(&self.disks.journal).is_ok_and(|files| files.is_empty()) {
            return Err(Trouble::Refusal("the journal is gone".to_owned()));
        }
        let store = SnapshotStore::open(self.disks.snapshots.clone())?;
        let options = Options { segment_bytes_max: setup.segment_bytes };
        let (journal, recovered) = Journal::open(self.disks.journal.clone(), options)?;
        if !has_run {
            owner.save(text.as_bytes())?;
        }
        let mut retention = Retention::default();
        for (seq, record) in &recovered.records {
            retention.note(seq.0, record).map_err(|error| Trouble::Refusal(format!("{seq}: {error}")))?;
        }
        let snapshot = store.latest()?.map(|s| SnapshotBytes { index: s.index, term: s.term, bytes: s.bytes.into() });
        let records = recovered.records.into_iter().map(|(_, record)| record).collect();
        let config = Config {
            snapshot_entries: setup.snapshot_entries,
            keep_entries: KEEP_ENTRIES,
            ..Config::new(number, (1..=setup.servers).collect(), CLUSTER.into(), seed)
        };
        let control = Control::recover(config, Recovered { records, snapshot })
            .map_err(|error| Trouble::Refusal(chain(&error)))?;
        let shown = Arc::new(control.state().clone());
        Ok(Running {
            ring: Ring::new(shown.revision, setup.watch_events_max),
            control,
            journal,
            retention,
            store,
            _owner: owner,
            started_at_ms: now_ms,
            inbox: Vec::new(),
            own_inputs: Vec::new(),
            outputs: VecDeque::new(),
            pending: None,
            has_wake: false,
            has_stepped: false,
            store_free_at_ms: 0,
            last_ticket: 0,
            tickets: BTreeMap::new(),
            answers: Vec::new(),
            shown,
            agents: BTreeSet::new(),
            behind: Vec::new(),
            watches: BTreeMap::new(),
        })
    }
}

impl Running {
    pub(super) fn issue(&mut self, asker: Asker) -> u64 {
        self.last_ticket += 1;
        self.tickets.insert(self.last_ticket, asker);
        self.last_ticket
    }

    pub(super) fn knows_leader(&self) -> bool {
        self.control.status().leader.is_some()
    }
}

impl World<'_> {
    pub(super) fn add_server(&mut self, number: u64) {
        let clock = Clock::drawn(&mut self.chances.clocks, self.setup.drift_ppm_max, self.setup.skew_ms_max);
        let server = Server {
            life: 0,
            clock,
            disks: Disks::default(),
            is_gone: false,
            slow_sync_ms: None,
            rot: None,
            running: None,
        };
        self.servers.insert(number, server);
        // A node that was cut off from all others can talk with this one.
        self.note_cut_off();
        self.after(0, Event::Supervise(Process::Server(number)));
    }

    /// The servers that people and agents know of.
    pub(super) fn known_servers(&self) -> Vec<u64> {
        self.servers.iter().filter(|(_, server)| !server.is_gone).map(|(number, _)| *number).collect()
    }

    /// A person starts the servers that were added to the group, a little later.
    fn plan_new_servers(&mut self, members: &BTreeMap<u64, String>) {
        for number in members.keys().filter(|number| !self.servers.contains_key(number)).copied().collect::<Vec<_>>() {
            self.add_server(number);
            self.tally("server added");
        }
    }

    /// Servers that were removed while nobody could tell them so are ended by whoever removed them.
    pub(super) fn end_removed_servers(&mut self) {
        for number in self.servers.keys().copied().collect::<Vec<_>>() {
            if self.servers.keys().any(|other| self.knows_removed(*other, number)) {
                self.end_removed(number);
            }
        }
    }

    /// Whether a server would refuse what another sends, for that one was removed.
    pub(super) fn knows_removed(&self, knower: u64, other: u64) -> bool {
        let running = self.servers.get(&knower).and_then(|server| server.running.as_ref());
        running.is_some_and(|running| {
            let State { servers, last_server, .. } = &*running.shown;
            let (knower, other) = (ServerId(knower), ServerId(other));
            servers.contains_key(&knower) && !servers.contains_key(&other) && other <= *last_server
        })
    }

    fn end_removed(&mut self, number: u64) {
        let Some(server) = self.servers.get_mut(&number).filter(|server| !server.is_gone) else { return };
        server.is_gone = true;
        self.tally("server removed");
        self.stop_server(number, true);
    }

    pub(super) fn is_running(&self, number: u64) -> bool {
        self.servers.get(&number).is_some_and(|server| server.running.is_some())
    }

    pub(super) fn running(&mut self, number: u64) -> Option<&mut Running> {
        self.servers.get_mut(&number)?.running.as_mut()
    }

    /// Starts a server that is down, unless it can never start again.
    pub(super) fn start_server(&mut self, number: u64) {
        let seed = self.chances.processes.draw();
        let Some(server) = self.servers.get_mut(&number) else { return };
        if server.running.is_some() || server.is_gone {
            return;
        }
        match server.open(&self.setup, number, seed, self.now_ms) {
            Ok(running) => {
                server.life += 1;
                let (life, state) = (server.life, Arc::clone(&running.shown));
                server.running = Some(running);
                self.tell(What::ServerStarted { server: number, state });
                self.after(0, Event::Server(number, Some(life), ServerEvent::Tick));
            }
            Err(trouble) => self.note_trouble(number, trouble),
        }
    }

    /// A failing disk ends the process, and the supervisor starts it again. What a disk says wrongly ends it until a
    /// person has put it right; without a reason that the world knows, it is the journal that is wrong.
    fn note_trouble(&mut self, number: u64, trouble: Trouble) {
        let pause_ms = self.chances.processes.between(SUPERVISE_MS.0..=SUPERVISE_MS.1);
        match trouble {
            Trouble::Disk => {
                self.tally("disk failed");
                let seed = self.chances.disks.draw();
                let Some(server) = self.servers.get_mut(&number) else { return };
                // A disk that is full keeps what it has; one that failed may have dropped what it was given.
                if !server.disks.all().iter().any(|disk| disk.is_full()) {
                    server.disks.all().iter().for_each(|disk| disk.crash(seed));
                }
                self.stop_server(number, true);
            }
            Trouble::Refusal(message) => {
                let Some(rot) = self.servers.get_mut(&number).and_then(|server| server.rot.take()) else {
                    self.accuse(
                        "recovery",
                        format!("server {number} refuses to start though nothing rotted: {message}"),
                    );
                    return;
                };
                self.tally("rot refused");
                self.put_back(number, &rot);
            }
        }
        self.after(pause_ms, Event::Supervise(Process::Server(number)));
    }

    /// Ends a server's process. `is_heard`: whoever is connected notices at once.
    pub(super) fn stop_server(&mut self, number: u64, is_heard: bool) {
        self.thaw(Process::Server(number));
        let Some(server) = self.servers.get_mut(&number) else { return };
        let Some(running) = server.running.take() else { return };
        server.life += 1;
        self.tell(What::ServerStopped { server: number });
        if is_heard {
            for asker in running.tickets.into_values().chain(running.behind.into_iter().map(|(asker, _)| asker)) {
                self.answer(number, asker, Outcome::Lost);
            }
            for watcher in running.watches.into_keys() {
                self.break_watch(watcher, number);
            }
            self.tell_peers_gone(number);
        }
        self.drop_server_ends(number, is_heard);
    }

    pub(super) fn on_server(&mut self, number: u64, life: Option<u64>, event: ServerEvent) {
        let Some(server) = self.servers.get_mut(&number) else { return };
        if life.is_some_and(|life| life != server.life) {
            return;
        }
        let Some(running) = &mut server.running else {
            self.on_absent(number, event);
            return;
        };
        match event {
            ServerEvent::Tick => {
                running.inbox.push(Input::Tick);
                let next_ms = server.clock.lasting(TICK_MS);
                let life = server.life;
                self.after(next_ms, Event::Server(number, Some(life), ServerEvent::Tick));
                self.run_server(number);
            }
            ServerEvent::Wake => {
                running.has_wake = false;
                self.run_server(number);
            }
            ServerEvent::DiskDone => self.finish_pending(number),
            ServerEvent::Stored { index, term, state } => self.store(number, index, term, &state),
            ServerEvent::Input(input) => self.give(number, input),
            ServerEvent::PeerMessage { from, .. } if self.knows_removed(number, from) => {
                if self.links.is_open(Place::server(number), Place::server(from)) {
                    self.end_removed(from);
                }
            }
            ServerEvent::PeerMessage { from, message } => {
                self.give(number, Input::PeerMessages { from, messages: vec![message] });
            }
            ServerEvent::Asked(asked) => self.take_question(number, asked),
            ServerEvent::PassedOn { asker, outcome } => self.conclude(number, asker, outcome),
        }
    }

    /// Something reaches a machine whose server is down.
    fn on_absent(&mut self, number: u64, event: ServerEvent) {
        match event {
            ServerEvent::PeerMessage { from, .. } => self.tell_unreachable(from, number),
            ServerEvent::Asked(asked) => self.answer(number, asked.asker, Outcome::Lost),
            ServerEvent::Tick
            | ServerEvent::Wake
            | ServerEvent::DiskDone
            | ServerEvent::Stored { .. }
            | ServerEvent::Input(_)
            | ServerEvent::PassedOn { .. } => {}
        }
    }

    /// Puts an input into the queue; what comes at the same time shares a step.
    pub(super) fn give(&mut self, number: u64, input: Input) {
        let Some(server) = self.servers.get_mut(&number) else { return };
        let life = server.life;
        let Some(running) = &mut server.running else { return };
        running.inbox.push(input);
        if !running.has_wake && running.pending.is_none() {
            running.has_wake = true;
            self.after(0, Event::Server(number, Some(life), ServerEvent::Wake));
        }
    }

    /// The loop of `Engine::run`, as far as it comes without waiting for the disk.
    fn run_server(&mut self, number: u64) {
        loop {
            let now_ms = self.now_ms;
            let Some(server) = self.servers.get_mut(&number) else { return };
            let Some(running) = &mut server.running else { return };
            if running.pending.is_some() {
                return;
            }
            if let Some(output) = running.outputs.pop_front() {
                if let Err(trouble) = self.execute(number, output) {
                    self.note_trouble(number, trouble);
                    return;
                }
                continue;
            }
            if std::mem::take(&mut running.has_stepped) {
                self.answer_all(number);
                continue;
            }
            let mut inputs = std::mem::take(&mut running.own_inputs);
            inputs.append(&mut running.inbox);
            if inputs.is_empty() {
                return;
            }
            let own_ms = server.clock.measured(now_ms - running.started_at_ms);
            running.outputs = running.control.step(own_ms, server.clock.wall(now_ms), inputs).into();
            running.has_stepped = true;
        }
    }

    fn execute(&mut self, number: u64, output: Output) -> Result<(), Trouble> {
        let Some(running) = self.running(number) else { return Ok(()) };
        match output {
            Output::Send { to, message } => self.send_to_peer(number, to, message),
            Output::Persist { record, must_sync } => self.persist(number, record, must_sync)?,
            Output::SaveSnapshot(snapshot) => {
                running.pending = Some(Pending::Save(snapshot));
                let free_at_ms = running.store_free_at_ms;
                let done_ms = free_at_ms.saturating_sub(self.now_ms) + self.draw_sync_ms(number);
                self.await_disk(number, done_ms);
            }
            Output::SendSnapshot { to, message, index } => {
                let bytes = running.read_snapshot(index);
                self.send_snapshot(number, to, message, bytes);
            }
            Output::WriteSnapshot { index, term, state } => self.begin_store(number, index, term, state),
            Output::Compacted { index } => {
                if let Some(first) = running.retention.first_needed(index) {
                    running.journal.drop_prefix(Seq(first))?;
                }
            }
            Output::Replied { ticket, result } => {
                let outcome = match result {
                    Ok(reply) => Outcome::Done(reply),
                    Err(CallError::Rejected(rejection)) => Outcome::Rejected(rejection),
                    Err(CallError::OutcomeUnknown | CallError::NotTakenOver | CallError::Overloaded) => Outcome::Lost,
                };
                running.answers.push((ticket, outcome));
            }
            Output::Applied { state } => {
                self.show(number, state);
                self.answer_all(number);
            }
            Output::NotLeader { ticket, leader } => self.answer_ticket(number, ticket, Outcome::NotLeader(leader)),
            Output::ReadReady { ticket, state } => {
                self.answer_ticket(number, ticket, Outcome::State(state));
            }
            Output::Published(applied) => self.publish(number, applied),
            Output::Restored { state } => {
                running.ring.reset(state.revision);
                self.tally("snapshot installed");
                self.tell(What::Restored { server: number, state: Arc::clone(&state) });
                self.show(number, state);
            }
            Output::ToAgent { session, frame } => {
                if running.agents.contains(&session) {
                    self.say_to_agent(session, frame);
                }
            }
            Output::CloseAgent { session } => {
                if running.agents.remove(&session) {
                    self.close_server_end(session);
                }
            }
            Output::ServersChanged { servers } => self.plan_new_servers(&servers),
            Output::Removed => self.end_removed(number),
            Output::Role { term, leader: _, is_leader } => {
                if is_leader {
                    self.tell(What::Led { server: number, term });
                }
            }
        }
        Ok(())
    }

    fn persist(&mut self, number: u64, record: Bytes, must_sync: bool) -> Result<(), Trouble> {
        self.digest.note(&record);
        let Some(running) = self.running(number) else { return Ok(()) };
        let seq = running.journal.append(&record)?;
        if must_sync {
            running.pending = Some(Pending::Sync { seq, record });
            let done_ms = self.draw_sync_ms(number);
            self.await_disk(number, done_ms);
            return Ok(());
        }
        running.note(seq, &record)
    }

    fn draw_sync_ms(&mut self, number: u64) -> u64 {
        let ordinary_ms = self.chances.disks.between(SYNC_MS.0..=SYNC_MS.1);
        let slow_ms = self.servers.get(&number).and_then(|server| server.slow_sync_ms);
        slow_ms.unwrap_or(ordinary_ms)
    }

    fn await_disk(&mut self, number: u64, done_ms: u64) {
        let Some(life) = self.servers.get(&number).map(|server| server.life) else { return };
        self.after(done_ms, Event::Server(number, Some(life), ServerEvent::DiskDone));
    }

    fn finish_pending(&mut self, number: u64) {
        let Some(running) = self.running(number) else { return };
        let done = match running.pending.take() {
            Some(Pending::Sync { seq, record }) => {
                running.journal.sync().map_err(Trouble::from).and_then(|()| running.note(seq, &record))
            }
            Some(Pending::Save(SnapshotBytes { index, term, bytes })) => {
                running.store.save(index, term, &bytes).map_err(Trouble::from)
            }
            None => Ok(()),
        };
        match done {
            Ok(()) => self.run_server(number),
            Err(trouble) => self.note_trouble(number, trouble),
        }
    }

    /// The thread of the snapshots takes one job after the other.
    fn begin_store(&mut self, number: u64, index: u64, term: u64, state: Arc<State>) {
        let now_ms = self.now_ms;
        let sync_ms = 4 * self.draw_sync_ms(number);
        let Some(server) = self.servers.get_mut(&number) else { return };
        let life = server.life;
        let Some(running) = &mut server.running else { return };
        let done_at_ms = running.store_free_at_ms.max(now_ms) + sync_ms;
        running.store_free_at_ms = done_at_ms;
        let event = ServerEvent::Stored { index, term, state };
        self.queue.put(done_at_ms, Event::Server(number, Some(life), event));
    }

    fn store(&mut self, number: u64, index: u64, term: u64, state: &State) {
        let bytes = api::codec::encode(state);
        self.digest.note(&bytes);
        self.tally("snapshot written");
        let Some(running) = self.running(number) else { return };
        match running.store.save(index, term, &bytes) {
            Ok(()) => self.give(number, Input::SnapshotWritten { index }),
            Err(error) => self.note_trouble(number, error.into()),
        }
    }

    fn publish(&mut self, number: u64, applied: Arc<AppliedBatch>) {
        let Some(running) = self.running(number) else { return };
        running.ring.push(Arc::clone(&applied));
        let batch = Arc::new(applied.batch.clone());
        self.tell(What::Applied { server: number, batch, revision: applied.revision });
    }

    /// From now on, whoever looks sees this state.
    fn show(&mut self, number: u64, state: Arc<State>) {
        let Some(running) = self.running(number) else { return };
        running.shown = Arc::clone(&state);
        if self.newest_ever.revision < state.revision {
            self.newest_ever = Arc::clone(&state);
        }
        let revision = state.revision;
        self.tell(What::Shown { server: number, state });
        self.answer_behind(number, revision);
        self.serve_watches(number);
    }

    fn answer_behind(&mut self, number: u64, revision: Revision) {
        let Some(running) = self.running(number) else { return };
        let waiting = std::mem::take(&mut running.behind);
        for (asker, reply) in waiting {
            if reply.revision <= revision {
                self.answer(number, asker, Outcome::Done(reply));
            } else if let Some(running) = self.running(number) {
                running.behind.push((asker, reply));
            }
        }
    }

    fn answer_all(&mut self, number: u64) {
        let Some(running) = self.running(number) else { return };
        for (ticket, outcome) in std::mem::take(&mut running.answers) {
            self.answer_ticket(number, ticket, outcome);
        }
    }

    fn answer_ticket(&mut self, number: u64, ticket: u64, outcome: Outcome) {
        let Some(asker) = self.running(number).and_then(|running| running.tickets.remove(&ticket)) else { return };
        self.conclude(number, asker, outcome);
    }

    /// The server that is furthest on, as an outsider sees it.
    pub(super) fn newest_state(&self) -> Option<Arc<State>> {
        let running = self.servers.values().filter_map(|server| server.running.as_ref());
        running.map(|running| &running.shown).max_by_key(|state| state.revision).cloned()
    }
}

impl Running {
    fn note(&mut self, seq: Seq, record: &Bytes) -> Result<(), Trouble> {
        self.retention.note(seq.0, record).map_err(|error| Trouble::Refusal(format!("{seq}: {error}")))
    }

    /// The bytes of a snapshot, if it is still there.
    fn read_snapshot(&self, index: u64) -> Option<Bytes> {
        let id = self.store.list().ok()?.into_iter().find(|id| id.index == index)?;
        self.store.read(id).ok().map(|snapshot| snapshot.bytes.into())
    }
}
