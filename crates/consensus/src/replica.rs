//! The replica: turns inputs into raft calls, and what raft has ready into ordered outputs.
//! Never waits and never fails while running; what cannot be done is reported as dropped.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use mutants::{Mutant, is_on};
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, Entry, EntryType, Message, MessageType};
use raft::{INVALID_ID, ProgressState, RawNode, ReadOnlyOption, Ready, SnapshotStatus, StateRole};

use crate::error::ConsensusError;
use crate::interface::{Config, Input, Output};
use crate::leaving::{Leaving, Word};
use crate::members::{ChangeRefused, MemberChange, Members};
use crate::reads::Reads;
use crate::record;
use crate::recovery::{Folded, Recovered};
use crate::store::{SnapshotMeta, Store};

/// Entries in one append message. raft's own default of 0 means one entry per message.
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
/// Append messages on the way to one follower.
const INFLIGHT_MESSAGES_MAX: usize = 256;
/// Beyond this many bytes proposed but not committed, proposals are dropped.
const UNCOMMITTED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// For this many election timeouts, a member that has just started asks for votes early.
const EAGER_TIMEOUTS: u64 = 2;
/// Ticks between two early questions, and the ticks by which the members' questions are apart.
const EAGER_PERIOD_TICKS: u64 = 6;
const EAGER_STAGGER_TICKS: u64 = 2;
/// Ticks between the questions of two members that want to follow a lost leader.
const SUCCESSION_STAGGER_TICKS: u64 = 2;
/// A learner that lacks fewer entries than this of what is committed has caught up.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// One member of a Raft group.
pub struct Replica {
    node: RawNode<Store>,
    seed: u64,
    keep_entries: u64,
    reads: Reads,
    reported_role: Role,
    must_record_reset: bool,
    refused_messages: u64,
    ticks_since_start: u64,
    /// Set while a lost leader is to be followed by another: the ticks until this member asks for votes.
    succession_ticks: Option<u64>,
    /// The commit index that a restart finds at least.
    durable_commit: u64,
    leaving: Leaving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Role {
    term: u64,
    leader_id: u64,
    is_leader: bool,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("id", &self.node.raft.id)
            .field("role", &self.role())
            .field("applied", &self.applied())
            .field("last_index", &self.last_index())
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Starts a replica from what the disk still has. State is rebuilt from the snapshot by whoever drives it; committed
    /// entries after the snapshot come out of the first step as `Committed`.
    pub fn new(config: Config, recovered: Recovered) -> Result<Self, ConsensusError> {
        let Config { id, voters, election_ticks, heartbeat_ticks, seed, keep_entries } = config;
        let Folded { store, must_record_reset } = recovered.fold(voters)?;
        let raft_config = raft::Config {
            id,
            election_tick: election_ticks,
            heartbeat_tick: heartbeat_ticks,
            applied: store.snapshot_meta().index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            // Without these two, a member that was cut off comes back with a higher term and deposes the leader.
            pre_vote: !is_on(Mutant::NoLeaderCheck),
            check_quorum: !is_on(Mutant::NoLeaderCheck),
            // raft 0.7 adds entries to a message without entries that waits for the same peer even if they do not follow
            // its index: the peer then acknowledges entries that it does not have. Payloads are grouped by `Propose`.
            batch_append: false,
            read_only_option: ReadOnlyOption::Safe,
            ..raft::Config::default()
        };
        raft_config.validate().map_err(ConsensusError::Start)?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft_config, store, &logger).map_err(ConsensusError::Start)?;
        let reads = Reads::new(id, seed, election_ticks as u64);
        let durable_commit = node.store().hard_state().commit;
        let reported_role = Role { term: node.raft.term, leader_id: INVALID_ID, is_leader: false };
        let mut replica = Self {
            node,
            seed,
            keep_entries,
            reads,
            reported_role,
            must_record_reset,
            refused_messages: 0,
            ticks_since_start: 0,
            succession_ticks: None,
            durable_commit,
            leaving: Leaving::default(),
        };
        replica.pin_election_timeout();
        Ok(replica)
    }

    /// Takes one input.
    #[must_use]
    pub fn step(&mut self, input: Input) -> Vec<Output> {
        self.step_all([input])
    }

    /// Takes several inputs as a group: one record and one sync for all of them.
    #[must_use]
    pub fn step_all(&mut self, inputs: impl IntoIterator<Item = Input>) -> Vec<Output> {
        let mut out = Vec::new();
        if std::mem::take(&mut self.must_record_reset) {
            let snapshot = self.node.store().snapshot_meta().clone();
            self.write(Some(&snapshot), &[], true, &mut out);
        }
        for input in inputs {
            self.take(input, &mut out);
            self.pin_election_timeout();
        }
        self.ask_queued_reads(&mut out);
        while self.node.has_ready() {
            self.drain_ready(&mut out);
            self.pin_election_timeout();
        }
        self.report_role(&mut out);
        out
    }

    /// Last index given out as `Committed`, or covered by the snapshot.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.node.raft.raft_log.applied()
    }

    /// Last entry in the log. The payloads of a `Propose` accepted by a leader get the indexes after it, in order.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Bytes of log entries that no snapshot covers yet.
    #[must_use]
    pub fn log_len_bytes(&self) -> u64 {
        self.node.store().uncovered_bytes()
    }

    /// The leader of the current term, if known.
    #[must_use]
    pub fn leader_id(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|&id| id != INVALID_ID)
    }

    /// Current term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Whether this replica leads the current term, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The last entry that each member is known to hold, as the leader knows it; empty elsewhere.
    #[must_use]
    pub fn matched(&self) -> BTreeMap<u64, u64> {
        if !self.is_leader() {
            return BTreeMap::new();
        }
        self.node.raft.prs().iter().map(|(member, progress)| (*member, progress.matched)).collect()
    }

    /// Who belongs to the group as of `applied`.
    #[must_use]
    pub fn members(&self) -> &Members {
        self.node.store().members()
    }

    /// Whether the newest durable snapshot knows the members of today. While it does not, a new server may have to wait
    /// for the next one.
    #[must_use]
    pub fn is_snapshot_of_members(&self) -> bool {
        self.node.store().is_snapshot_of_members()
    }

    /// Whether a change of the members may be proposed now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_change(&self, change: MemberChange) -> Result<(), ChangeRefused> {
        let raft = &self.node.raft;
        if !self.is_leader() {
            return Err(ChangeRefused::NotLeader);
        }
        // Before the leader has committed in its own term, an earlier change may yet turn up among what it holds, and two
        // sets of members that are two steps apart need not have a majority in common.
        if raft.has_pending_conf() || !raft.commit_to_current_term() {
            return Err(ChangeRefused::Pending);
        }
        if raft.lead_transferee.is_some() {
            return Err(ChangeRefused::Transferring);
        }
        let members = self.members();
        match change {
            MemberChange::AddLearner(member) if members.contains(member) => Err(ChangeRefused::IsMember),
            MemberChange::Promote(member) if !members.learners.contains(&member) => Err(ChangeRefused::IsNoLearner),
            MemberChange::Remove(member) if !members.contains(member) => Err(ChangeRefused::IsNoMember),
            MemberChange::Remove(member) if members.voters == [member] => Err(ChangeRefused::LastVoter),
            MemberChange::Remove(member) if member == raft.id => Err(ChangeRefused::IsLeader),
            MemberChange::AddLearner(_) | MemberChange::Promote(_) | MemberChange::Remove(_) => Ok(()),
        }
    }

    /// Whether a learner holds nearly all that is committed, as the leader knows it: as a voter it would not hold up the
    /// group. False elsewhere.
    #[must_use]
    pub fn has_caught_up(&self, learner: u64) -> bool {
        let log = &self.node.raft.raft_log;
        let progress = self.node.raft.prs().get(learner).filter(|_| self.is_leader());
        progress.is_some_and(|progress| {
            progress.state == ProgressState::Replicate
                && progress.recent_active
                && log.committed < progress.matched + CAUGHT_UP_ENTRIES
        })
    }

    /// The voter that holds most of the log, other than this one, as the leader knows it; `None` elsewhere. Among equals
    /// the lowest number.
    #[must_use]
    pub fn best_heir(&self) -> Option<u64> {
        let own_id = self.node.raft.id;
        let matched = self.matched();
        let others = self.members().voters.iter().filter(|voter| **voter != own_id);
        others.filter_map(|voter| Some((matched.get(voter)?, Reverse(*voter)))).max().map(|(_, Reverse(voter))| voter)
    }

    /// Whether another member has led with everything committed that is applied here, and will not forget it. A member
    /// that was removed must stay until then.
    #[must_use]
    pub fn is_let_go(&self) -> bool {
        self.leaving.is_let_go(self.applied())
    }

    /// The newest snapshot known to be durable; index 0 if there is none.
    #[must_use]
    pub fn snapshot_index(&self) -> u64 {
        self.node.store().snapshot_meta().index
    }

    /// What describes a snapshot of the state as of `applied`. To be stored with it and handed back in `Recovered`.
    #[must_use]
    pub fn applied_meta(&self) -> SnapshotMeta {
        let index = self.applied();
        let term = self.node.store().term_at(index).expect("invariant: the applied entry is in the log or is its base");
        SnapshotMeta { index, term, members: self.members().clone() }
    }

    /// Whether the snapshot that comes with this message would bring this replica forward. Asked before its bytes are
    /// saved; saving an older one could push a newer one out.
    #[must_use]
    pub fn wanted_snapshot(&self, message: &Bytes) -> Option<SnapshotMeta> {
        let message = Message::parse_from_carllerche_bytes(message).ok()?;
        let meta = SnapshotMeta::from_raft(message.get_snapshot().get_metadata());
        let log = &self.node.raft.raft_log;
        let is_current = message.get_msg_type() == MessageType::MsgSnapshot && self.term() <= message.term;
        (is_current && log.committed < meta.index && !log.match_term(meta.index, meta.term)).then_some(meta)
    }

    /// Messages from peers that were not understood, or were not meant for this replica.
    #[must_use]
    pub fn refused_messages(&self) -> u64 {
        self.refused_messages
    }

    fn take(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => {
                let expired = self.reads.expire_on_tick();
                out.extend(expired.into_iter().map(|ctx| Output::ReadDropped { ctx }));
                self.node.tick();
                self.ask_for_votes_early();
                self.succeed_in_turn();
            }
            Input::Message(message) => self.take_message(&message, false),
            Input::SnapshotReceived { message } => self.take_message(&message, true),
            Input::Propose(payloads) => self.propose(payloads, out),
            Input::ChangeMembers { change, payload } => self.propose_change(change, payload, out),
            Input::ReadIndex(ctx) => self.reads.queue(ctx),
            Input::Unreachable(peer) => self.node.report_unreachable(peer),
            Input::Gone(peer) => {
                self.node.report_unreachable(peer);
                self.forget_leader(peer);
            }
            Input::SnapshotSaved { index } => self.compact(index, out),
            Input::SnapshotStatus { peer, ok } => {
                let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.node.report_snapshot(peer, status);
            }
            Input::TransferLeader(member) => self.node.transfer_leader(member),
            Input::Leave => self.ask_to_be_let_go(),
        }
    }

    fn take_message(&mut self, bytes: &Bytes, beside_snapshot: bool) {
        let accepted = Message::parse_from_carllerche_bytes(bytes).ok().filter(|message| {
            let kind = message.get_msg_type();
            // A forwarded proposal was decided against a state that may be old. A snapshot message without its bytes
            // would move the log forward and leave the state behind.
            message.to == self.node.raft.id
                && kind != MessageType::MsgPropose
                && (kind == MessageType::MsgSnapshot) == beside_snapshot
        });
        let stepped = accepted.is_some_and(|message| {
            let word = Word::of(&message);
            let is_taken = self.node.step(message).is_ok();
            self.leaving.hear(word.filter(|word| is_taken && word.is_of_leader(&self.node.raft)));
            is_taken
        });
        self.refused_messages += u64::from(!stepped);
    }

    /// A member that was removed has no vote of its own, but still gives it to others. Whoever leads is asked; if nobody
    /// does, those who stay are asked in turn to lead.
    fn ask_to_be_let_go(&mut self) {
        if self.members().contains(self.node.raft.id) {
            return;
        }
        let turn = self.leaving.next_turn(self.members().voters.len());
        let voter = |turn: usize| self.members().voters.get(turn).copied();
        if let Some(to) = turn.and_then(|turn| self.leader_id().or_else(|| voter(turn))) {
            self.node.raft.send_timeout_now(to);
        }
    }

    fn propose(&mut self, payloads: Vec<Bytes>, out: &mut Vec<Output>) {
        assert!(payloads.iter().all(|payload| !payload.is_empty()), "an empty payload marks the start of a term");
        if payloads.is_empty() {
            return;
        }
        // Only the leader proposes: raft would forward on a follower.
        let dropped = !self.is_leader() || {
            let to_entry = |payload: &Bytes| Entry { data: payload.clone(), ..Entry::default() };
            !self.step_proposal(payloads.iter().map(to_entry).collect())
        };
        if dropped {
            out.push(Output::ProposalDropped { payloads });
        }
    }

    fn propose_change(&mut self, change: MemberChange, payload: Bytes, out: &mut Vec<Output>) {
        assert!(!payload.is_empty(), "an empty payload marks the start of a term");
        // raft would turn a change that it refuses into an empty entry, as if a term began.
        let dropped = self.check_change(change).is_err() || {
            let mut entry = Entry { data: encode(&change.to_raft()), context: payload.clone(), ..Entry::default() };
            entry.set_entry_type(EntryType::EntryConfChange);
            !self.step_proposal(vec![entry])
        };
        if dropped {
            out.push(Output::ProposalDropped { payloads: vec![payload] });
        }
    }

    fn step_proposal(&mut self, entries: Vec<Entry>) -> bool {
        let mut message = Message { from: self.node.raft.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.node.step(message).is_ok()
    }

    fn compact(&mut self, index: u64, out: &mut Vec<Output>) {
        assert!(index <= self.applied(), "snapshot at {index} is ahead of applied index {}", self.applied());
        if index <= self.snapshot_index() {
            return;
        }
        let keep_entries = self.keep_entries;
        self.node.mut_store().compact(index, keep_entries);
        // Older records may go now, so term and vote have to be in a newer one.
        self.write(None, &[], true, out);
    }

    fn ask_queued_reads(&mut self, out: &mut Vec<Output>) {
        let contexts = self.reads.take_queued();
        if contexts.is_empty() {
            return;
        }
        // A leader that has not committed in its term yet does not know what is committed; raft says nothing then.
        let may_ask = self.leader_id().is_some() && (!self.is_leader() || self.node.raft.commit_to_current_term());
        if may_ask {
            let round = self.reads.ask(contexts);
            self.node.read_index(round);
        } else {
            out.extend(contexts.into_iter().map(|ctx| Output::ReadDropped { ctx }));
        }
    }

    /// One round of what raft has ready. raft is told at once that everything is persisted, which is true by the time
    /// anything emitted after that is executed.
    fn drain_ready(&mut self, out: &mut Vec<Output>) {
        let mut ready = self.node.ready();
        let answered: Vec<_> = ready.take_read_states().iter().flat_map(|state| self.reads.answer(state)).collect();
        self.report_role(out);
        let committed = ready.take_committed_entries();
        self.keep_change(&committed, out);
        // A leader may replicate before its own write is durable: its own copy counts only afterwards.
        out.extend(ready.take_messages().into_iter().map(send));
        // Committed and durable here by an earlier record: it need not wait for the sync of this one.
        self.commit(committed, out);
        if is_on(Mutant::PersistedMessageEarly) || has_vote(&ready) && is_on(Mutant::VoteBeforeSync) {
            out.extend(ready.take_persisted_messages().into_iter().map(send));
        }
        self.persist(&ready, out);
        // Votes and acknowledgements are promises, and only now can they be kept.
        out.extend(ready.take_persisted_messages().into_iter().map(send));
        let mut light = self.node.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().set_commit(commit);
        }
        let committed = light.take_committed_entries();
        self.keep_change(&committed, out);
        out.extend(light.take_messages().into_iter().map(send));
        self.commit(committed, out);
        self.node.advance_apply();
        out.extend(answered.into_iter().map(|(ctx, index)| Output::ReadReady { ctx, index }));
    }

    /// A member that hears of its removal ends and votes no more, so whoever stays must not forget that the change is
    /// committed: of two that become one, the last would wait for the other's vote for ever. Nobody is told before the
    /// commit index is durable here. Other commit indexes need not be: a majority that has the entries finds them again.
    fn keep_change(&mut self, committed: &[Entry], out: &mut Vec<Output>) {
        let is_change = |entry: &&Entry| entry.get_entry_type() != EntryType::EntryNormal;
        let Some(change) = committed.iter().rfind(is_change) else { return };
        if change.index <= self.durable_commit {
            return;
        }
        let store = self.node.mut_store();
        store.set_commit(change.index.max(store.hard_state().commit));
        self.write(None, &[], true, out);
    }

    fn commit(&mut self, entries: Vec<Entry>, out: &mut Vec<Output>) {
        for entry in entries {
            let Entry { index, term, .. } = entry;
            let (payload, members) = match entry.get_entry_type() {
                EntryType::EntryNormal => (entry.data, None),
                EntryType::EntryConfChange => (entry.context, Some(self.change_members(index, &entry.data))),
                EntryType::EntryConfChangeV2 => panic!("entry {index} is of a kind never proposed here"),
            };
            out.push(Output::Committed { index, term, payload, members });
        }
    }

    /// A record of the hard state as it is, beside these entries. Synced, it is durable before anything emitted after it.
    fn write(&mut self, reset: Option<&SnapshotMeta>, entries: &[Entry], must_sync: bool, out: &mut Vec<Output>) {
        let hard_state = self.node.store().hard_state();
        if must_sync {
            self.durable_commit = hard_state.commit;
        }
        out.push(Output::Persist { record: record::encode(hard_state, reset, entries), must_sync });
    }

    /// From here on the new members count: for elections, for what is committed, and for who is sent to.
    fn change_members(&mut self, index: u64, change: &Bytes) -> Members {
        let change = ConfChange::parse_from_carllerche_bytes(change);
        let change = change.unwrap_or_else(|error| panic!("entry {index} is no change of members: {error}"));
        let state = self.node.apply_conf_change(&change);
        let state = state.unwrap_or_else(|error| panic!("entry {index} cannot change the members: {error}"));
        let members = Members::from_raft(&state);
        self.node.mut_store().change_members(index, members.clone());
        if self.is_leader() && !members.voters.contains(&self.node.raft.id) {
            // A former leader proposed to remove the one that leads now. raft would let it lead on without a vote.
            let term = self.term();
            self.node.raft.become_follower(term, INVALID_ID);
        }
        members
    }

    fn persist(&mut self, ready: &Ready, out: &mut Vec<Output>) {
        let reset = (!ready.snapshot().is_empty()).then(|| SnapshotMeta::from_raft(ready.snapshot().get_metadata()));
        if reset.is_none() && ready.entries().is_empty() && (ready.hs().is_none() || is_on(Mutant::VoteNotKept)) {
            return;
        }
        let store = self.node.mut_store();
        if let Some(meta) = reset.clone() {
            store.install(meta);
        }
        store.append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            store.set_hard_state(hard_state.clone());
        }
        // Entries and hard state share a record: a commit index without its entries would be fatal at the next start.
        if !ready.entries().is_empty() && is_on(Mutant::HardStateBeforeEntries) {
            self.write(reset.as_ref(), &[], true, out);
        }
        let must_sync = ready.must_sync() && (ready.entries().is_empty() || !is_on(Mutant::ReplyBeforeSync));
        self.write(reset.as_ref(), ready.entries(), must_sync, out);
        out.extend(reset.map(|meta| Output::InstallSnapshot { index: meta.index, term: meta.term }));
    }

    /// A group that starts as a whole need not sit out an election timeout. Where there is a leader that this member merely
    /// does not know yet, its followers refuse the pre-vote, so that the question disturbs nobody.
    fn ask_for_votes_early(&mut self) {
        self.ticks_since_start += 1;
        let raft = &self.node.raft;
        let ticks_max = EAGER_TIMEOUTS * raft.election_timeout() as u64;
        if self.leader_id().is_some() || ticks_max < self.ticks_since_start {
            return;
        }
        if !raft.promotable() {
            return;
        }
        let turn = self.ticks_since_start + EAGER_STAGGER_TICKS * raft.id;
        if turn.is_multiple_of(EAGER_PERIOD_TICKS)
            && matches!(raft.state, StateRole::Follower | StateRole::PreCandidate)
        {
            // Only a leader refuses.
            let _ = self.node.campaign();
        }
    }

    /// A leader that is gone is not waited for. The others ask for votes one after another: asking at the same time,
    /// each would vote for itself.
    fn forget_leader(&mut self, gone: u64) {
        if self.leader_id() != Some(gone) || self.is_leader() {
            return;
        }
        self.node.raft.become_follower(self.term(), INVALID_ID);
        if !self.node.raft.promotable() {
            return;
        }
        let id = self.node.raft.id;
        let voters = self.members().voters.iter();
        let before = voters.filter(|&&voter| voter != gone && voter < id).count() as u64;
        self.succession_ticks = Some(before * SUCCESSION_STAGGER_TICKS);
        if before == 0 {
            self.succeed_in_turn();
        }
    }

    fn succeed_in_turn(&mut self) {
        let Some(ticks) = self.succession_ticks.take() else { return };
        if self.leader_id().is_some() {
            return;
        }
        if let Some(left) = ticks.checked_sub(1) {
            self.succession_ticks = Some(left);
        } else {
            // Only a leader refuses.
            let _ = self.node.campaign();
        }
    }

    fn role(&self) -> Role {
        Role { term: self.term(), leader_id: self.node.raft.leader_id, is_leader: self.is_leader() }
    }

    fn report_role(&mut self, out: &mut Vec<Output>) {
        let role = self.role();
        if role == self.reported_role {
            return;
        }
        self.reported_role = role;
        out.push(Output::Role { term: role.term, leader: self.leader_id(), is_leader: role.is_leader });
        out.extend(self.reads.drop_all().into_iter().map(|ctx| Output::ReadDropped { ctx }));
    }

    /// raft draws a new election timeout from the thread's randomness at every role change, which would make two runs
    /// of the same inputs differ. The drawn value is not looked at before the next tick, so replacing it is enough.
    /// It depends on the term, or two members with equal timeouts would split the vote for ever.
    fn pin_election_timeout(&mut self) {
        let raft = &mut self.node.raft;
        let base_ticks = raft.election_timeout();
        let spread = mix(self.seed ^ mix(raft.id) ^ mix(mix(raft.term))) % base_ticks as u64;
        raft.set_randomized_election_timeout(
            base_ticks + usize::try_from(spread).expect("invariant: below base_ticks"),
        );
    }
}

fn has_vote(ready: &Ready) -> bool {
    let is_vote = |message: &Message| {
        matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestVoteResponse)
    };
    ready.persisted_messages().iter().any(is_vote)
}

fn send(message: Message) -> Output {
    let bytes = encode(&message);
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let index = message.get_snapshot().get_metadata().index;
        return Output::SendSnapshot { to: message.to, message: bytes, index };
    }
    Output::Send { to: message.to, message: bytes }
}

fn encode(message: &impl protobuf::Message) -> Bytes {
    Bytes::from(message.write_to_bytes().expect("invariant: raft's messages have no required fields"))
}

/// The finalizer of splitmix64: spreads the bits of small numbers.
const fn mix(value: u64) -> u64 {
    let mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
