//! The brain itself: takes inputs in groups, decides, proposes, applies and answers. Knows no transport and no disk.

mod agents;
mod members;

use crate::io::{AppliedBatch, CallError, Config, Input, Output, RecoverError, Recovered, SnapshotBytes};
use crate::leader::{Answer, CALLS_MAX, Call, InFlight, Leader, Submitted, Waiter};
use crate::lease::Moment;
use crate::read::{Reads, Waiting};
use crate::session::Sessions;
use bytes::Bytes;
use consensus::{Input as ReplicaInput, Output as ReplicaOutput, Replica, SnapshotMeta};
use domain::agent::ToAgent;
use domain::id::{Revision, ServerId};
use domain::{Batch, Command, Event, Rejection, Request, State, Touched};
use mutants::{Mutant, is_on};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A peer that was silent for so long is shown as unreachable.
const PEER_SILENCE_MS: u64 = 2_000;

/// A snapshot takes as long to write as the state is large. So that its share in the cost of a change does not grow with the
/// state, one waits for at least so many bytes of the log for each object,
const OBJECT_LOG_BYTES: u64 = 64;
/// and for an entry for each so many objects.
const OBJECTS_PER_ENTRY: u64 = 16;

/// One server's brain.
#[derive(Debug)]
pub struct Control {
    config: Config,
    replica: Replica,
    /// Committed and applied here.
    state: State,
    /// A copy of it, if it was shown since it last changed: all that ask for it meanwhile get the same.
    shared: Option<Arc<State>>,
    applied: u64,
    applied_term: u64,
    /// The same on every server: batches that came too late for their base and did nothing.
    skipped_batches: u64,
    leader_id: Option<u64>,
    leader: Option<Leader>,
    calls: VecDeque<Call>,
    reads: Reads,
    sessions: Sessions,
    /// Nodes whose agents may have to hear something.
    touched: Touched,
    snapshots: Snapshots,
    transfers: members::Transfers,
    peers_heard: BTreeMap<u64, u64>,
    at: Moment,
    raft_inputs: Vec<ReplicaInput>,
    /// Something was applied that [`Output::Applied`] has not shown yet.
    has_news: bool,
    out: Vec<Output>,
}

/// When to write the next snapshot.
#[derive(Debug, Default)]
struct Snapshots {
    is_writing: bool,
    /// The members have changed since the newest one: a new server must not have to wait for the next.
    is_of_other_members: bool,
    entries: u64,
    bytes: u64,
    /// A snapshot of the leader, between its arrival and its place in the log.
    received: Option<(SnapshotMeta, State)>,
    /// Durable since the last step.
    compacted: Option<u64>,
}

/// How a server sees itself and its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The server.
    pub id: u64,
    /// Its term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<u64>,
    /// The last log entry applied here.
    pub applied: u64,
    /// The revision of the state here.
    pub revision: Revision,
    /// The last log entry that each server is known to hold; empty on a server that does not lead.
    pub matched: BTreeMap<u64, u64>,
    /// The other servers heard lately.
    pub reachable: Vec<u64>,
    /// The members of the group that vote.
    pub voters: Vec<u64>,
    /// Those that learn.
    pub learners: Vec<u64>,
    /// Those that lack more of what is committed than a few entries; empty on a server that does not lead.
    pub lagging: Vec<u64>,
    /// Batches that did nothing because their base had passed.
    pub skipped_batches: u64,
}

impl Control {
    /// Continues from what the disk still has; entries after the snapshot come out of the first step.
    ///
    /// # Errors
    /// Something durable is missing or wrong.
    pub fn recover(config: Config, recovered: Recovered) -> Result<Self, RecoverError> {
        let Recovered { records, snapshot } = recovered;
        let mut state = State::default();
        let mut meta = None;
        if let Some(SnapshotBytes { index, term, bytes }) = snapshot {
            state = decode_state(&bytes).map_err(|source| RecoverError::Snapshot { index, source })?;
            meta = Some(SnapshotMeta { index, term, members: members::of_state(&state, &config) });
        }
        let (applied, applied_term) = meta.as_ref().map_or((0, 0), |meta| (meta.index, meta.term));
        let replica_config = consensus::Config {
            election_ticks: config.election_ticks,
            heartbeat_ticks: config.peer_heartbeat_ticks,
            keep_entries: config.keep_entries,
            ..consensus::Config::new(config.id, config.founders.clone(), config.seed)
        };
        let replica = Replica::new(replica_config, consensus::Recovered { records, snapshot: meta })?;
        Ok(Self {
            config,
            replica,
            state,
            shared: None,
            applied,
            applied_term,
            skipped_batches: 0,
            leader_id: None,
            leader: None,
            calls: VecDeque::new(),
            reads: Reads::default(),
            sessions: Sessions::default(),
            touched: Touched::default(),
            snapshots: Snapshots::default(),
            transfers: members::Transfers::default(),
            peers_heard: BTreeMap::new(),
            at: Moment::default(),
            raft_inputs: Vec::new(),
            has_news: false,
            out: Vec::new(),
        })
    }

    /// The committed state, as far as it is applied here.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// How this server sees itself and its group.
    #[must_use]
    pub fn status(&self) -> Status {
        let consensus::Members { voters, learners } = self.replica.members().clone();
        Status {
            id: self.config.id,
            term: self.replica.term(),
            leader: self.leader_id,
            applied: self.applied,
            revision: self.state.revision,
            matched: self.replica.matched(),
            reachable: self.peers_heard.keys().copied().filter(|peer| self.is_heard(*peer)).collect(),
            lagging: self.lagging(),
            voters,
            learners,
            skipped_batches: self.skipped_batches,
        }
    }

    /// Takes everything that came since the last step as one group: one proposal, one record, one sync, one question
    /// for all reads. `now_ms` only goes up; `wall_ms` is since 1970.
    #[must_use]
    pub fn step(&mut self, now_ms: u64, wall_ms: u64, inputs: Vec<Input>) -> Vec<Output> {
        let slept_ms = now_ms.saturating_sub(self.at.now_ms);
        self.at = Moment { now_ms, wall_ms };
        if let Some(leader) = &mut self.leader
            && self.config.grace_ms < slept_ms
        {
            leader.leases.restart(self.at);
        }
        for input in inputs {
            self.take(input);
        }
        self.settle();
        self.show();
        self.tell_agents();
        if self.is_removed() && self.replica.is_let_go() {
            self.out.push(Output::Removed);
        }
        if let Some(index) = self.snapshots.compacted.take() {
            self.out.push(Output::Compacted { index });
        }
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => self.on_tick(),
            Input::PeerMessages { from, messages } => {
                self.peers_heard.insert(from, self.at.now_ms);
                self.raft_inputs.extend(messages.into_iter().map(ReplicaInput::Message));
            }
            Input::PeerUnreachable { peer } => self.raft_inputs.push(ReplicaInput::Unreachable(peer)),
            Input::PeerGone { peer } => self.raft_inputs.push(ReplicaInput::Gone(peer)),
            Input::SnapshotReceived { message, bytes } => self.on_snapshot(message, bytes),
            Input::SnapshotWritten { index } => {
                self.snapshots.is_writing = false;
                self.snapshots.compacted = Some(index);
                self.raft_inputs.push(ReplicaInput::SnapshotSaved { index });
            }
            Input::SnapshotSent { to, ok } => self.raft_inputs.push(ReplicaInput::SnapshotStatus { peer: to, ok }),
            Input::Call { ticket, request } => self.on_call(Waiter::Call(ticket), request),
            Input::Read { ticket, stale } if stale || is_on(Mutant::StaleRead) => {
                let state = self.shared();
                self.out.push(Output::ReadReady { ticket, state });
            }
            Input::Read { ticket, .. } => {
                if !self.reads.gather(Waiting::Read(ticket)) {
                    self.out.push(Output::Replied { ticket, result: Err(CallError::Overloaded) });
                }
            }
            Input::TransferLeader { ticket, to } => self.on_transfer(ticket, to),
            Input::AgentOpened { session } => self.on_agent_opened(session),
            Input::AgentFrame { session, frame } => self.on_agent_frame(session, frame),
            Input::AgentClosed { session } => self.sessions.close(session),
        }
    }

    fn on_tick(&mut self) {
        self.raft_inputs.push(ReplicaInput::Tick);
        if self.is_removed() {
            self.raft_inputs.push(ReplicaInput::Leave);
        }
        self.reads.hurry();
        self.write_snapshot_if_due();
        self.give_up_transfers();
        self.promote_learners();
        let Some(leader) = &mut self.leader else { return };
        let Some(draft) = leader.draft() else { return };
        if draft.ripening().next().is_some() {
            self.calls.push_back(Call::own("clock", Command::PassTime));
        }
        for silence in leader.leases.take_silent(self.at.now_ms) {
            let Some(node) = self.state.nodes.get(&silence.node) else { continue };
            let (incarnation, heard_at_ms) = (node.incarnation, silence.heard_at_ms);
            let command = Command::NoteSilence { node: silence.node, incarnation, heard_at_ms };
            self.calls.push_back(Call::own("leases", command));
        }
    }

    fn on_call(&mut self, waiter: Waiter, request: Request) {
        if self.leader.is_none() {
            self.give_up(waiter);
        } else if CALLS_MAX <= self.calls.len() {
            self.refuse_overload(waiter);
        } else {
            self.calls.push_back(Call { waiter, request });
        }
    }

    fn on_snapshot(&mut self, message: Bytes, bytes: Bytes) {
        // Whether it is wanted depends on everything that came before it.
        self.settle();
        if let Some(meta) = self.replica.wanted_snapshot(&message) {
            // One that cannot be read is as good as one that never came: the leader sends another.
            let Ok(state) = decode_state(&bytes) else { return };
            assert_eq!(members::of_state(&state, &self.config), meta.members, "a snapshot's state knows its members");
            self.out.push(Output::SaveSnapshot(SnapshotBytes { index: meta.index, term: meta.term, bytes }));
            self.snapshots.received = Some((meta, state));
        }
        self.raft_inputs.push(ReplicaInput::SnapshotReceived { message });
        self.settle();
        self.snapshots.received = None;
    }

    /// Proposes and applies until nothing more follows from what is here.
    fn settle(&mut self) {
        loop {
            self.decide_calls();
            if let Some(context) = self.reads.ask() {
                self.raft_inputs.push(ReplicaInput::ReadIndex(context));
            }
            if self.raft_inputs.is_empty() {
                return;
            }
            let outputs = self.replica.step_all(std::mem::take(&mut self.raft_inputs));
            for output in outputs {
                self.on_replica(output);
            }
            for waiting in self.reads.take_ready(self.applied) {
                match waiting {
                    Waiting::Read(ticket) => {
                        let state = self.shared();
                        self.out.push(Output::ReadReady { ticket, state });
                    }
                    Waiting::Answer(waiter, answer) => self.answer(waiter, answer),
                }
            }
        }
    }

    /// Decides what waits, and proposes all of it at once, in as few entries as it fits.
    fn decide_calls(&mut self) {
        let mut entries = Vec::new();
        while let Some(leader) = &mut self.leader
            && leader.may_decide()
            && let Some(call) = self.calls.pop_front()
        {
            if domain::changes_members(&call.request.command) {
                // Alone: what raft drops of one proposal must not be what the next one was decided on.
                entries.extend(leader.take_entry());
                if !entries.is_empty() {
                    self.calls.push_front(call);
                    break;
                }
                self.decide_change(call);
                if !self.raft_inputs.is_empty() {
                    return;
                }
                continue;
            }
            match leader.submit(call, self.at) {
                Submitted::Batch if leader.is_entry_full() => entries.extend(leader.take_entry()),
                Submitted::Batch | Submitted::Attached => {}
                Submitted::Settled(waiter, answer) => self.answer_confirmed(waiter, answer),
            }
        }
        entries.extend(self.leader.as_mut().and_then(Leader::take_entry));
        if !entries.is_empty() {
            self.raft_inputs.push(ReplicaInput::Propose(entries));
        }
    }

    /// Answers once a quorum agrees that this server still led when it decided.
    fn answer_confirmed(&mut self, waiter: Waiter, answer: Answer) {
        if waiter == Waiter::Nobody {
            return;
        }
        if is_on(Mutant::AnswerUnconfirmed) {
            self.answer(waiter, answer);
            return;
        }
        if !self.reads.gather(Waiting::Answer(waiter.clone(), answer)) {
            self.refuse_overload(waiter);
        }
    }

    fn on_replica(&mut self, output: ReplicaOutput) {
        match output {
            ReplicaOutput::Send { to, message } => self.out.push(Output::Send { to, message }),
            ReplicaOutput::Persist { record, must_sync } => {
                // What is committed does not wait for the sync of what is not.
                self.show();
                self.out.push(Output::Persist { record, must_sync });
            }
            ReplicaOutput::SendSnapshot { to, message, index } => {
                self.out.push(Output::SendSnapshot { to, message, index });
            }
            ReplicaOutput::InstallSnapshot { index, term } => self.install(index, term),
            ReplicaOutput::Committed { index, term, payload, members } => {
                self.on_committed(index, term, &payload, members.as_ref());
            }
            ReplicaOutput::ReadReady { ctx, index } => self.reads.confirm(ctx, index),
            ReplicaOutput::ReadDropped { ctx } => {
                for waiting in self.reads.drop_asked(ctx) {
                    match waiting {
                        Waiting::Read(ticket) => self.give_up(Waiter::Call(ticket)),
                        Waiting::Answer(waiter, _) => self.give_up(waiter),
                    }
                }
            }
            ReplicaOutput::ProposalDropped { payloads } => {
                let Some(leader) = &mut self.leader else { return };
                for dropped in leader.take_back(payloads.len(), &self.state) {
                    self.give_up(dropped.waiter);
                    dropped.answers.into_iter().for_each(|(waiter, _)| self.give_up(waiter));
                }
            }
            ReplicaOutput::Role { term, leader, is_leader } => self.on_role(term, leader, is_leader),
        }
    }

    fn on_role(&mut self, term: u64, leader: Option<u64>, is_leader: bool) {
        self.leader_id = leader;
        self.out.push(Output::Role { term, leader, is_leader });
        let goes_on = is_leader && self.leader.as_ref().is_some_and(|current| current.term == term);
        if goes_on {
            return;
        }
        if let Some(former) = self.leader.take() {
            self.lose_leadership(former);
        }
        if leader.is_some() && !is_leader {
            self.finish_transfers();
        }
        if is_leader {
            let patience_ms = self.config.lease_ms + self.config.grace_ms;
            let silence_max_ms = if is_on(Mutant::ImpatientLeader) { 0 } else { patience_ms };
            let mut leader = Leader::new(term, silence_max_ms, self.at);
            if is_on(Mutant::DecidesTooEarly) || is_on(Mutant::BatchAtWrongBase) {
                leader.begin(&self.state);
            }
            self.leader = Some(leader);
        }
    }

    fn lose_leadership(&mut self, former: Leader) {
        for in_flight in former.into_in_flight() {
            if is_on(Mutant::DraftKept) {
                self.shared = None;
                self.state.apply_batch(&in_flight.batch);
            }
            if let Waiter::Call(ticket) = in_flight.waiter {
                self.out.push(Output::Replied { ticket, result: Err(CallError::OutcomeUnknown) });
            }
            in_flight.answers.into_iter().for_each(|(waiter, _)| self.give_up(waiter));
        }
        for call in std::mem::take(&mut self.calls) {
            self.give_up(call.waiter);
        }
        for session in self.sessions.take_all() {
            self.redirect(session);
        }
        self.touched.clear();
    }

    fn on_committed(&mut self, index: u64, term: u64, payload: &Bytes, members: Option<&consensus::Members>) {
        (self.applied, self.applied_term) = (index, term);
        self.snapshots.entries += 1;
        self.snapshots.bytes += payload.len() as u64;
        if is_on(Mutant::SnapshotMissesLast) {
            self.write_snapshot_if_due();
        }
        if payload.is_empty() {
            self.on_term_begun(term);
        } else {
            match self.leader.as_mut().and_then(|leader| leader.take_committed(term)) {
                Some(own) => {
                    let log_bytes = payload.len() / own.len().max(1);
                    own.into_iter().for_each(|own| self.apply_own(own, log_bytes));
                    if let Some(leader) = &mut self.leader {
                        leader.share(&self.state);
                    }
                }
                None => {
                    let batches = api::codec::decode_entry(payload).unwrap_or_else(|error| {
                        panic!("entry {index} of the log is not one that this version knows: {error}")
                    });
                    let log_bytes = payload.len() / batches.len().max(1);
                    for batch in batches {
                        self.apply(batch, log_bytes);
                    }
                }
            }
        }
        if let Some(members) = members {
            assert_eq!(members::of_state(&self.state, &self.config), *members, "entry {index} changed both alike");
            self.snapshots.is_of_other_members = true;
        }
        self.write_snapshot_if_due();
    }

    fn apply_own(&mut self, own: InFlight, log_bytes: usize) {
        let revision = Revision(own.batch.base.0 + own.batch.events.len() as u64);
        assert!(self.apply(own.batch, log_bytes), "a leader's own batch follows the state it was decided on");
        self.answer(own.waiter, Ok(crate::Reply { revision, changed: true }));
        own.answers.into_iter().for_each(|(waiter, answer)| self.answer(waiter, answer));
    }

    fn on_term_begun(&mut self, term: u64) {
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else { return };
        leader.begin(&self.state);
        if self.state.servers.is_empty() {
            let servers = self.config.founders.iter().copied().map(ServerId).collect();
            self.calls.push_front(Call::own("server", Command::FoundServers { servers }));
        }
        if self.state.revision == Revision(0) {
            let cluster = self.config.cluster.clone();
            self.calls.push_front(Call::own("server", Command::FormCluster { cluster }));
        }
    }

    /// Applies a batch, unless it was decided on a state that never came to be.
    fn apply(&mut self, batch: Batch, log_bytes: usize) -> bool {
        // Nodes that lose a pod are seen before, nodes that get one after. No copy of the state is kept meanwhile: while
        // there is none, it is changed in place.
        let mut touched = Touched::default();
        if self.leader.is_some() {
            touched.note(&self.state, &batch);
        }
        self.shared = None;
        if !self.state.apply_batch(&batch) {
            self.skipped_batches += 1;
            return false;
        }
        if self.leader.is_some() {
            touched.note(&self.state, &batch);
            self.touched.extend(touched);
        }
        self.has_news = true;
        if batch.events.iter().any(Event::is_of_servers) {
            self.out.push(Output::ServersChanged { servers: members::addresses(&self.state) });
        }
        self.out.push(Output::Published(Arc::new(AppliedBatch::new(batch, &self.state, log_bytes))));
        true
    }

    fn write_snapshot_if_due(&mut self) {
        let State { pods, claims, volumes, .. } = &self.state;
        let objects = (pods.len() + claims.len() + volumes.len()) as u64;
        let entries_min = self.config.snapshot_entries.max(objects / OBJECTS_PER_ENTRY);
        let bytes_min = self.config.snapshot_bytes.max(objects * OBJECT_LOG_BYTES);
        let is_due = self.snapshots.is_of_other_members
            || entries_min <= self.snapshots.entries
            || bytes_min <= self.snapshots.bytes;
        if is_due && !self.snapshots.is_writing {
            self.snapshots = Snapshots { is_writing: true, ..Snapshots::default() };
            let (index, term) = (self.applied, self.applied_term);
            let state = self.shared();
            self.out.push(Output::WriteSnapshot { index, term, state });
            if is_on(Mutant::JournalCutTooEarly) {
                self.snapshots.compacted = Some(index);
            }
        }
    }

    fn show(&mut self) {
        if std::mem::take(&mut self.has_news) {
            let state = self.shared();
            self.out.push(Output::Applied { state });
        }
    }

    /// The state as it is now, for others.
    fn shared(&mut self) -> Arc<State> {
        Arc::clone(self.shared.get_or_insert_with(|| Arc::new(self.state.clone())))
    }

    fn install(&mut self, index: u64, term: u64) {
        let (meta, state) = self.snapshots.received.take().expect("invariant: only a received snapshot is installed");
        assert_eq!((meta.index, meta.term), (index, term), "the snapshot that was received is the one installed");
        (self.state, self.shared) = (state, None);
        (self.applied, self.applied_term) = (index, term);
        self.snapshots = Snapshots { is_writing: self.snapshots.is_writing, ..Snapshots::default() };
        self.snapshots.compacted = Some(index);
        self.out.push(Output::ServersChanged { servers: members::addresses(&self.state) });
        let state = self.shared();
        self.out.push(Output::Restored { state });
    }

    fn answer(&mut self, waiter: Waiter, answer: Answer) {
        match (waiter, answer) {
            (Waiter::Call(ticket), answer) => {
                self.out.push(Output::Replied { ticket, result: answer.map_err(CallError::Rejected) });
            }
            (Waiter::Register { session, node }, Ok(_)) => self.finish_registration(session, &node),
            (Waiter::Register { session, .. }, Err(Rejection::FollowsOtherBoot { actual, .. })) => {
                self.say(session, ToAgent::KnownIn { boot_id: actual });
            }
            (Waiter::Register { session, .. }, Err(rejection)) => {
                self.say(session, ToAgent::Refused { reason: rejection.to_string() });
                self.close(session);
            }
            (Waiter::Report { session, .. }, Err(Rejection::IncarnationSuperseded { .. })) => self.redirect(session),
            (Waiter::Report { session, number }, _) => self.say(session, ToAgent::ReportAcked { number }),
            (Waiter::Heartbeat { session, sent_at_ms }, _) => {
                self.say(session, ToAgent::HeartbeatAcked { sent_at_ms });
            }
            (Waiter::Nobody, _) => {}
        }
    }

    /// Ends a wait without an answer; nothing was done.
    fn give_up(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Call(ticket) => self.out.push(Output::NotLeader { ticket, leader: self.leader_id }),
            Waiter::Register { session, .. } => self.redirect(session),
            // Agents repeat both.
            Waiter::Report { .. } | Waiter::Heartbeat { .. } | Waiter::Nobody => {}
        }
    }

    fn refuse_overload(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Call(ticket) => self.out.push(Output::Replied { ticket, result: Err(CallError::Overloaded) }),
            other => self.give_up(other),
        }
    }
}

/// The state that a snapshot holds.
fn decode_state(bytes: &[u8]) -> Result<State, api::codec::CodecError> {
    let mut state: State = api::codec::decode(bytes)?;
    if is_on(Mutant::RequestsForgottenOnSnapshot) {
        state.requests = domain::Requests::default();
    }
    Ok(state)
}
