//! Everything that goes into a server's brain and comes out of it. Plain data, no rules.

use bytes::Bytes;
use domain::agent::{FromAgent, ToAgent};
use domain::id::{Name, Revision, Uid};
use domain::{Batch, Rejection, Request, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a server's brain is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// This server's number, not 0.
    pub id: u64,
    /// The numbers of the servers that the group began with, the same on each of them for ever.
    pub founders: Vec<u64>,
    /// The cluster's name, given when the cluster is formed.
    pub cluster: Name,
    /// Ticks without a leader before an election; the actual wait is between this and twice this.
    pub election_ticks: usize,
    /// Ticks between the leader's signs of life to its peers.
    pub peer_heartbeat_ticks: usize,
    /// How long a node counts as reachable after a heartbeat.
    pub lease_ms: u64,
    /// What is waited in addition, before a silent node is called unreachable.
    pub grace_ms: u64,
    /// Differs between two starts of the same server.
    pub seed: u64,
    /// A snapshot is written after so many applied entries, or more where the state is large,
    pub snapshot_entries: u64,
    /// or after so many applied bytes.
    pub snapshot_bytes: u64,
    /// Entries kept in memory below the newest snapshot, so that slow followers need not load it.
    pub keep_entries: u64,
}

impl Config {
    /// The usual timing.
    #[must_use]
    pub fn new(id: u64, founders: Vec<u64>, cluster: Name, seed: u64) -> Self {
        Self {
            id,
            founders,
            cluster,
            election_ticks: 10,
            peer_heartbeat_ticks: 2,
            lease_ms: 2_000,
            grace_ms: 500,
            seed,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 4_096,
        }
    }
}

/// What the disk still has.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Journal records, oldest first.
    pub records: Vec<Vec<u8>>,
    /// The newest snapshot.
    pub snapshot: Option<SnapshotBytes>,
}

/// A state as it lies on disk.
#[derive(Clone, Debug, Default)]
pub struct SnapshotBytes {
    /// The last entry folded into it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The encoded state.
    pub bytes: Bytes,
}

/// Why a server refuses to start.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The snapshot is not a state.
    #[error("reading the state from the snapshot at index {index}")]
    Snapshot {
        /// Which snapshot.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: api::codec::CodecError,
    },
    /// The log cannot be continued.
    #[error("continuing the log")]
    Consensus(#[from] consensus::ConsensusError),
}

/// Everything that can happen to a server.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passes.
    Tick,
    /// Messages of another server.
    PeerMessages {
        /// The server.
        from: u64,
        /// The bytes of its [`Output::Send`]s, in order.
        messages: Vec<Bytes>,
    },
    /// Messages to another server were lost.
    PeerUnreachable {
        /// The server.
        peer: u64,
    },
    /// The way from another server broke, as it does when its process ends.
    PeerGone {
        /// The server.
        peer: u64,
    },
    /// Another server's [`Output::SendSnapshot`] has arrived whole.
    SnapshotReceived {
        /// The message that came with it.
        message: Bytes,
        /// The encoded state.
        bytes: Bytes,
    },
    /// An [`Output::WriteSnapshot`] is durable.
    SnapshotWritten {
        /// Its index.
        index: u64,
    },
    /// How an [`Output::SendSnapshot`] ended; comes for each one.
    SnapshotSent {
        /// The receiver.
        to: u64,
        /// Whether it arrived.
        ok: bool,
    },
    /// Somebody asks for a change.
    Call {
        /// Comes back with the answer.
        ticket: u64,
        /// What is asked.
        request: Request,
    },
    /// Somebody asks for the state.
    Read {
        /// Comes back with the answer.
        ticket: u64,
        /// Whether it may be older than the last acknowledged change.
        stale: bool,
    },
    /// Somebody wants another server to lead; answered like a call, once it does.
    TransferLeader {
        /// Comes back with the answer.
        ticket: u64,
        /// Which; the one that holds most of the log if not given.
        to: Option<u64>,
    },
    /// An agent connected.
    AgentOpened {
        /// The shell's number for the connection, never used again.
        session: u64,
    },
    /// An agent said something.
    AgentFrame {
        /// The connection.
        session: u64,
        /// What it said.
        frame: FromAgent,
    },
    /// An agent's connection ended.
    AgentClosed {
        /// The connection.
        session: u64,
    },
}

/// What is to be done, strictly in this order; each `Persist` and `SaveSnapshot` is finished before the next.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send to another server; may be lost.
    Send {
        /// The receiver.
        to: u64,
        /// The message.
        message: Bytes,
    },
    /// Append to the journal.
    Persist {
        /// The record.
        record: Bytes,
        /// Whether it must be on disk before going on.
        must_sync: bool,
    },
    /// Make a received snapshot durable.
    SaveSnapshot(SnapshotBytes),
    /// Send the snapshot at `index` to another server, then report [`Input::SnapshotSent`].
    SendSnapshot {
        /// The receiver.
        to: u64,
        /// The message to go with it.
        message: Bytes,
        /// Which snapshot.
        index: u64,
    },
    /// Encode this state and make it durable, in the background, then report [`Input::SnapshotWritten`].
    WriteSnapshot {
        /// The last entry folded into it.
        index: u64,
        /// That entry's term.
        term: u64,
        /// The state.
        state: Arc<State>,
    },
    /// The snapshot at this index is the newest durable one: older records and files may go.
    Compacted {
        /// Its index.
        index: u64,
    },
    /// A call was answered.
    Replied {
        /// The call's.
        ticket: u64,
        /// The answer.
        result: Result<Reply, CallError>,
    },
    /// A call or a read can be answered only by the leader, or not now; nothing was done.
    NotLeader {
        /// The call's or read's.
        ticket: u64,
        /// Who leads, if known.
        leader: Option<u64>,
    },
    /// A read was answered.
    ReadReady {
        /// The read's.
        ticket: u64,
        /// The state.
        state: Arc<State>,
    },
    /// The state after everything that was published so far. To be shown before the calls that were answered since the last
    /// one are told so: whoever hears of a change must find it.
    Applied {
        /// The state.
        state: Arc<State>,
    },
    /// A batch was applied.
    Published(Arc<AppliedBatch>),
    /// The state was replaced by a snapshot: what lies between is not known here.
    Restored {
        /// The new state.
        state: Arc<State>,
    },
    /// The servers are these from now on, or are reached elsewhere.
    ServersChanged {
        /// All of them, with their addresses; empty where one has not been said yet.
        servers: BTreeMap<u64, String>,
    },
    /// This server does not belong to the control plane any more, and never will again: it is to end.
    Removed,
    /// Say something to an agent.
    ToAgent {
        /// The connection.
        session: u64,
        /// What to say.
        frame: ToAgent,
    },
    /// Close an agent's connection, after what was said.
    CloseAgent {
        /// The connection.
        session: u64,
    },
    /// The role changed.
    Role {
        /// The term.
        term: u64,
        /// Who leads, if known.
        leader: Option<u64>,
        /// Whether it is this server.
        is_leader: bool,
    },
}

/// The answer to a call that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The revision that the change led to, or as of which there was nothing to change.
    pub revision: Revision,
    /// Whether this request changed something.
    pub changed: bool,
}

/// Why a call was not carried out, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Refused; the state that the refusal relied on is committed.
    #[error(transparent)]
    Rejected(Rejection),
    /// It was proposed, and leadership was lost before it was committed: it may yet be.
    #[error("leadership was lost before the change was committed: it may have been carried out or not")]
    OutcomeUnknown,
    /// The other server did not take over in time.
    #[error("the other server did not take over in time: see whether it is reached and holds the log")]
    NotTakenOver,
    /// Too many calls wait.
    #[error("the server has {} calls waiting and takes no more", crate::CALLS_MAX)]
    Overloaded,
}

/// A batch that was applied, with what has to be known to show its events. Many are kept, so none holds a state: each
/// would keep alive what later changes have replaced.
#[derive(Clone, Debug)]
pub struct AppliedBatch {
    /// The batch.
    pub batch: Batch,
    /// The revision after it.
    pub revision: Revision,
    /// The cluster's name.
    pub cluster: Name,
    /// The identities of what its events are about.
    pub subjects: Vec<Option<Uid>>,
    /// What it took of the log: its even share of the entry that it came in.
    pub log_bytes: usize,
}

impl AppliedBatch {
    /// A batch, and the state that it led to.
    #[must_use]
    pub fn new(batch: Batch, state: &State, log_bytes: usize) -> Self {
        let subjects = domain::subjects(state, &batch);
        Self { batch, revision: state.revision, cluster: state.cluster.clone(), subjects, log_bytes }
    }
}
