//! The core's thread: drains what waits, lets the core decide, executes what it says, in order. Decides nothing.

use crate::addresses::Addresses;
use crate::core::{Answer, Command, Core, Latest};
use crate::pace::Pace;
use crate::peers::Outboxes;
use crate::snapshots::Snapshots;
use crate::tickets::Tickets;
use crate::{ServerConfig, ServerError};
use bytes::Bytes;
use consensus::Retention;
use control_core::{Control, Input, Output, Recovered, SnapshotBytes};
use domain::agent::{FromAgent, ToAgent};
use journal::{DirDisk, Journal, Ledger, Options, Seq, SnapshotStore};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

/// How many inputs one step takes: enough to share a sync between all that wait, and not so many that ticks starve.
const STEP_INPUTS_MAX: usize = 8_192;

/// A longer step is told of: half of the time after which other servers look for another leader.
const SLOW_STEP: Duration = Duration::from_millis(250);

/// The ledger that says whose a directory is.
pub(crate) const OWNER: &str = "owner";

/// Everything that the core's thread owns.
#[derive(Debug)]
pub(crate) struct Engine {
    id: u64,
    cluster_id: String,
    addresses: Addresses,
    control: Control,
    journal: Journal<DirDisk>,
    retention: Retention,
    commands: mpsc::Receiver<Command>,
    core: Core,
    snapshots: Snapshots,
    snapshots_thread: JoinHandle<()>,
    outboxes: Outboxes,
    tickets: Tickets,
    pace: Pace,
    /// Given once the state that they speak of is shown.
    answers: Vec<(u64, Answer)>,
    /// What was last shown of how this server sees its group.
    status: Arc<control_core::Status>,
    agents: BTreeMap<u64, mpsc::Sender<ToAgent>>,
    /// Inputs that came of executing outputs; they go first.
    own_inputs: Vec<Input>,
    started_at: Instant,
    /// Held while the process lives: no other process may use the directory.
    owner: Ledger<DirDisk>,
}

/// What was on the disk, ready to run.
#[derive(Debug)]
pub(crate) struct Opened {
    control: Control,
    journal: Journal<DirDisk>,
    retention: Retention,
    store: SnapshotStore<DirDisk>,
    owner: Ledger<DirDisk>,
}

impl Opened {
    /// Reads everything back from the disk.
    pub(crate) fn open(config: &ServerConfig) -> Result<Self, ServerError> {
        let mut owner = Ledger::open(open_dir(&config.data_dir)?, OWNER)?;
        let has_run = is_own(&owner, config)?;
        let journal_dir = config.data_dir.join("journal");
        if has_run && !holds_journal(&journal_dir) {
            return Err(ServerError::JournalGone { path: journal_dir });
        }
        let store = SnapshotStore::open(open_dir(&config.data_dir.join("snapshots"))?)?;
        let options = Options { segment_bytes_max: config.segment_bytes_max };
        let (journal, recovered) = Journal::open(open_dir(&journal_dir)?, options)?;
        if !has_run {
            // Noted once there is a journal, and never before: from now on one that is missing is noticed.
            owner.save(owner_text(config.id, &config.cluster_id).as_bytes())?;
        }
        if let Some(torn) = &recovered.torn_tail {
            tracing::warn!(file = torn.file, offset = torn.offset, bytes = torn.bytes, "cleared an interrupted write");
        }
        let mut retention = Retention::default();
        for (seq, record) in &recovered.records {
            retention.note(seq.0, record).map_err(|error| ServerError::Record(format!("{seq}: {error}")))?;
        }
        let snapshot = store.latest()?.map(|s| SnapshotBytes { index: s.index, term: s.term, bytes: s.bytes.into() });
        let records = recovered.records.into_iter().map(|(_, record)| record).collect();
        let control = Control::recover(config.for_core(draw_seed()?), Recovered { records, snapshot })?;
        Ok(Self { control, journal, retention, store, owner })
    }

    /// The state as of the snapshot; later entries follow with the first step.
    pub(crate) fn latest(&self) -> Latest {
        Latest { state: Arc::new(self.control.state().clone()), status: Arc::new(self.control.status()) }
    }

    /// Starts everything that the core's thread relies on. Called within the runtime.
    pub(crate) fn into_engine(
        self,
        config: &ServerConfig,
        addresses: Addresses,
        core: Core,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Engine, ServerError> {
        let (snapshots, snapshots_thread) = Snapshots::spawn(self.store, core.clone())?;
        core.show_servers(self.control.servers());
        addresses.follow(self.control.servers());
        let outboxes = Outboxes::new(config.id, addresses.clone(), core.clone(), snapshots.clone())?;
        let status = core.status();
        Ok(Engine {
            id: config.id,
            cluster_id: config.cluster_id.clone(),
            addresses,
            control: self.control,
            journal: self.journal,
            retention: self.retention,
            commands,
            core,
            snapshots,
            snapshots_thread,
            outboxes,
            tickets: Tickets::default(),
            answers: Vec::new(),
            pace: Pace::default(),
            status,
            agents: BTreeMap::new(),
            own_inputs: Vec::new(),
            started_at: Instant::now(),
            owner: self.owner,
        })
    }
}

/// Whoever looks for the reason of an election or of slow answers finds the steps that held everybody up.
fn note_slow(took: Duration, decided_in: Duration, inputs: usize) {
    if SLOW_STEP < took {
        let (decided_ms, rest_ms) = (decided_in.as_millis(), (took - decided_in).as_millis());
        tracing::warn!(inputs, decided_ms, rest_ms, "a step took long");
    }
}

impl Engine {
    /// Runs until told to stop, or until the disk fails. Nothing of the directory is open any more when it returns.
    pub(crate) fn run(mut self) -> Result<(), ServerError> {
        let outcome = self.go_on();
        self.snapshots.end(self.snapshots_thread);
        outcome
    }

    fn go_on(&mut self) -> Result<(), ServerError> {
        let (mut received, mut waiting) = (Vec::new(), VecDeque::new());
        loop {
            let mut inputs = std::mem::take(&mut self.own_inputs);
            // What came of executing does not wait for somebody else to come.
            let goes_on = !inputs.is_empty() || !waiting.is_empty();
            if !goes_on && self.commands.blocking_recv_many(&mut received, STEP_INPUTS_MAX) == 0 {
                return Ok(());
            }
            while waiting.len() + received.len() < STEP_INPUTS_MAX
                && let Ok(command) = self.commands.try_recv()
            {
                received.push(command);
            }
            for command in received.drain(..) {
                if is_urgent(&command) {
                    inputs.push(self.register(command));
                } else {
                    waiting.push_back(command);
                }
            }
            let mut pods = 0;
            while pods < self.pace.pods_max()
                && let Some(command) = waiting.pop_front()
            {
                pods += pods_of(&command);
                match command {
                    Command::Stop => return Ok(()),
                    Command::Failed(ServerError::Removed { .. }) => return Err(self.end_removed()?),
                    Command::Failed(error) => return Err(error),
                    Command::Calls { requests, reply } => {
                        let first = self.tickets.issue_many(requests.len(), reply);
                        let call = |(ticket, request)| Input::Call { ticket, request };
                        inputs.extend((first..).zip(requests).map(call));
                    }
                    other => inputs.push(self.register(other)),
                }
            }
            let (began_at, count) = (Instant::now(), inputs.len());
            let outputs = self.control.step(self.now_ms(), wall_ms(), inputs);
            let decided_in = began_at.elapsed();
            for output in outputs {
                self.execute(output)?;
            }
            self.show_status();
            self.answer_all();
            let took = began_at.elapsed();
            self.pace.learn(pods, took);
            note_slow(took, decided_in, count);
        }
    }

    /// Keeps where to answer, and makes an input of a command.
    fn register(&mut self, command: Command) -> Input {
        match command {
            Command::Input(Input::Tick) => {
                self.core.note_tick();
                Input::Tick
            }
            Command::Input(input) => input,
            Command::Call { request, reply } => Input::Call { ticket: self.tickets.issue(reply), request },
            Command::Read { stale, reply } => Input::Read { ticket: self.tickets.issue(reply), stale },
            Command::Transfer { to, reply } => Input::TransferLeader { ticket: self.tickets.issue(reply), to },
            Command::AgentOpened { session, frames } => {
                self.agents.insert(session, frames);
                Input::AgentOpened { session }
            }
            Command::Calls { .. } | Command::Stop | Command::Failed(_) => unreachable!("handled by the loop"),
        }
    }

    fn execute(&mut self, output: Output) -> Result<(), ServerError> {
        match output {
            Output::Send { to, message } => self.outboxes.send(to, message),
            Output::Persist { record, must_sync } => self.persist(&record, must_sync)?,
            Output::SaveSnapshot(snapshot) => self.snapshots.save(snapshot)?,
            Output::SendSnapshot { to, message, index } => self.outboxes.send_snapshot(to, message, index),
            Output::WriteSnapshot { index, term, state } => self.snapshots.write(index, term, state)?,
            Output::Compacted { index } => {
                if let Some(first) = self.retention.first_needed(index) {
                    self.journal.drop_prefix(Seq(first))?;
                }
            }
            Output::Replied { ticket, result } => {
                self.answers.push((ticket, result.map_or_else(Answer::Failed, Answer::Done)));
            }
            Output::Applied { state } => {
                self.core.show(state);
                self.show_status();
                self.answer_all();
            }
            Output::NotLeader { ticket, leader } => self.tickets.answer(ticket, Answer::NotLeader { leader }),
            Output::ReadReady { ticket, state } => self.tickets.answer(ticket, Answer::State(state)),
            Output::Published(applied) => self.core.ring().push(applied),
            Output::Restored { state } => {
                tracing::info!(revision = state.revision.0, "the state was replaced by the leader's snapshot");
                self.core.ring().reset(state.revision);
                self.core.show(state);
            }
            Output::ServersChanged { servers } => {
                tracing::info!(?servers, "servers");
                self.core.show_servers(servers.clone());
                self.addresses.follow(servers);
                self.outboxes.follow();
            }
            Output::Removed => return Err(self.end_removed()?),
            Output::ToAgent { session, frame } => self.tell(session, frame),
            Output::CloseAgent { session } => {
                self.agents.remove(&session);
            }
            Output::Role { term, leader, is_leader } => tracing::info!(term, leader, is_leader, "role"),
        }
        Ok(())
    }

    /// Notes in the directory that it is of no use any more: a later start must not depend on others to say so.
    fn end_removed(&mut self) -> Result<ServerError, ServerError> {
        self.owner.save(removed_text(&owner_text(self.id, &self.cluster_id)).as_bytes())?;
        Ok(ServerError::Removed { id: self.id })
    }

    fn persist(&mut self, record: &Bytes, must_sync: bool) -> Result<(), ServerError> {
        let seq = self.journal.append(record)?;
        if must_sync {
            let began_at = Instant::now();
            self.journal.sync()?;
            self.core.metrics().note_sync(began_at.elapsed());
        }
        self.retention.note(seq.0, record).map_err(|error| ServerError::Record(format!("{seq}: {error}")))?;
        Ok(())
    }

    /// An agent that does not keep up loses its connection; it comes again and gets everything at once.
    fn tell(&mut self, session: u64, frame: ToAgent) {
        let Some(frames) = self.agents.get(&session) else { return };
        if frames.try_send(frame).is_err() {
            self.agents.remove(&session);
            self.own_inputs.push(Input::AgentClosed { session });
        }
    }

    fn answer_all(&mut self) {
        for (ticket, answer) in std::mem::take(&mut self.answers) {
            self.tickets.answer(ticket, answer);
        }
    }

    fn show_status(&mut self) {
        let status = self.control.status();
        if *self.status != status {
            self.status = Arc::new(status);
            self.core.show_status(Arc::clone(&self.status));
        }
    }

    fn now_ms(&self) -> u64 {
        millis(self.started_at.elapsed())
    }
}

/// What keeps the group and its leases together does not wait behind what else agents and clients want.
fn is_urgent(command: &Command) -> bool {
    match command {
        Command::Input(
            Input::Tick
            | Input::PeerMessages { .. }
            | Input::PeerUnreachable { .. }
            | Input::PeerGone { .. }
            | Input::SnapshotReceived { .. }
            | Input::SnapshotWritten { .. }
            | Input::SnapshotSent { .. }
            // Or the leader would think a node silent that it did not listen to.
            | Input::AgentFrame { frame: FromAgent::Heartbeat { .. }, .. },
        ) => true,
        Command::Input(
            Input::Call { .. }
            | Input::Read { .. }
            | Input::TransferLeader { .. }
            | Input::AgentOpened { .. }
            | Input::AgentFrame { frame: FromAgent::Register { .. } | FromAgent::Report { .. }, .. }
            | Input::AgentClosed { .. },
        )
        | Command::Call { .. }
        | Command::Calls { .. }
        | Command::Read { .. }
        | Command::Transfer { .. }
        | Command::AgentOpened { .. }
        | Command::Failed(_)
        | Command::Stop => false,
    }
}

/// Of how many pods a command speaks, where that is what makes it long.
fn pods_of(command: &Command) -> usize {
    match command {
        Command::Input(Input::AgentFrame { frame: FromAgent::Report { pods, .. }, .. }) => pods.len(),
        Command::Input(Input::AgentFrame { frame: FromAgent::Register { running, .. }, .. }) => running.len(),
        _ => 0,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

pub(crate) fn open_dir(path: &Path) -> Result<DirDisk, ServerError> {
    DirDisk::open(path).map_err(|source| ServerError::Directory { path: path.to_owned(), source })
}

fn owner_text(id: u64, cluster_id: &str) -> String {
    format!("server {id} of cluster {cluster_id}")
}

fn removed_text(owner: &str) -> String {
    format!("{owner}, removed")
}

/// Whether this very server has run in the directory before. Another's is refused: a server must never vote with
/// somebody else's memory.
fn is_own(ledger: &Ledger<DirDisk>, config: &ServerConfig) -> Result<bool, ServerError> {
    let own = owner_text(config.id, &config.cluster_id);
    match ledger.load()? {
        None => Ok(false),
        Some(owner) if owner == own.as_bytes() => Ok(true),
        Some(owner) if owner == removed_text(&own).as_bytes() => Err(ServerError::Removed { id: config.id }),
        Some(owner) => {
            let owner = String::from_utf8_lossy(&owner).into_owned();
            Err(ServerError::OtherOwner { path: config.data_dir.clone(), owner, own })
        }
    }
}

/// Whether anything of a journal is in a directory.
fn holds_journal(path: &Path) -> bool {
    std::fs::read_dir(path)
        .is_ok_and(|entries| entries.flatten().any(|entry| !entry.file_name().to_string_lossy().starts_with('.')))
}

fn draw_seed() -> Result<u64, ServerError> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    let mut random = std::fs::File::open("/dev/urandom").map_err(ServerError::System)?;
    random.read_exact(&mut bytes).map_err(ServerError::System)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_journal_is_gone_does_not_begin_again() {
        let directory = tempfile::tempdir().unwrap();
        let listen = ([127, 0, 0, 1], 0).into();
        let peers = [(1, "127.0.0.1:1".to_owned())].into();
        let config = ServerConfig::new(1, listen, directory.path().to_owned(), peers, "test");
        for _ in 0..2 {
            Opened::open(&config).unwrap();
        }
        std::fs::remove_dir_all(directory.path().join("journal")).unwrap();
        let error = Opened::open(&config).unwrap_err();
        assert!(matches!(error, ServerError::JournalGone { .. }), "{error}");
        assert!(error.to_string().contains("put it back"), "{error}");
    }
}
