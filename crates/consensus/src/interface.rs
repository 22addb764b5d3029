//! The words between a replica and whoever drives it: its configuration, what it takes and what it gives.
//! No behaviour here.

use bytes::Bytes;

use crate::members::{MemberChange, Members};

/// How a replica is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This member, not 0.
    pub id: u64,
    /// The voters that the group began with, the same on all members for ever: what became of them is in the log. With a
    /// snapshot, its members count instead.
    pub voters: Vec<u64>,
    /// Ticks without a leader before an election; the actual timeout is between this and twice this.
    pub election_ticks: usize,
    /// Ticks between heartbeats; less than `election_ticks`.
    pub heartbeat_ticks: usize,
    /// Spreads election timeouts and marks this start's reads: it must differ between two starts of the same member.
    pub seed: u64,
    /// Entries kept in memory below the newest snapshot, so that slow followers need not load it.
    pub keep_entries: u64,
}

impl Config {
    /// A configuration with the usual timing (election after 10 to 20 ticks, heartbeat every 2).
    #[must_use]
    pub fn new(id: u64, voters: Vec<u64>, seed: u64) -> Self {
        Self { id, voters, election_ticks: 10, heartbeat_ticks: 2, seed, keep_entries: 4_096 }
    }
}

/// Everything that can happen to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passes.
    Tick,
    /// A message from another replica (the bytes of its `Send`).
    Message(Bytes),
    /// Payloads to replicate, in order, all or none. None may be empty.
    Propose(Vec<Bytes>),
    /// Change who belongs to the group. The change and the payload are one entry; at most one such entry is under way at
    /// any time. Dropped like a `Propose` where `Replica::check_change` refuses it.
    ChangeMembers {
        /// What changes.
        change: MemberChange,
        /// What the driver has to say about it; not empty.
        payload: Bytes,
    },
    /// Ask for an index that is safe to read at; answered by `ReadReady` or `ReadDropped` with this context.
    ReadIndex(u64),
    /// A message to this member was lost.
    Unreachable(u64),
    /// The way from this member broke, as it does when its process ends: not just a message was lost. A leader is
    /// forgotten, and an election begins at once; where it only looked so, those who still hear the leader refuse.
    Gone(u64),
    /// A snapshot of the state after this applied index is durable here: entries up to it may be forgotten.
    SnapshotSaved {
        /// Index of the snapshot, at most `Replica::applied`.
        index: u64,
    },
    /// How a `SendSnapshot` ended. Must come for each one, or that follower gets nothing any more.
    SnapshotStatus {
        /// The follower.
        peer: u64,
        /// Whether it arrived.
        ok: bool,
    },
    /// The message of another replica's `SendSnapshot`. If `Replica::wanted_snapshot` said so, the bytes beside it are
    /// saved durably already.
    SnapshotReceived {
        /// The message.
        message: Bytes,
    },
    /// Hand leadership to this member.
    TransferLeader(u64),
    /// This member was removed and is not let go yet: it asks the others for it. Given with each tick.
    Leave,
}

/// What is to be done, strictly in this order; each `Persist` is finished before the next output is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this message; may be lost.
    Send {
        /// Receiver.
        to: u64,
        /// Its `Input::Message`.
        message: Bytes,
    },
    /// Append this record to the journal.
    Persist {
        /// The record.
        record: Bytes,
        /// Whether it must be on disk before going on; otherwise it may be lost in a crash, but only together with all
        /// later ones.
        must_sync: bool,
    },
    /// Send this message with the bytes of the snapshot at `index`, then report `Input::SnapshotStatus`.
    SendSnapshot {
        /// Receiver.
        to: u64,
        /// Its `Input::SnapshotReceived`.
        message: Bytes,
        /// Which snapshot.
        index: u64,
    },
    /// Replace the state by the snapshot received.
    InstallSnapshot {
        /// Its index; the next `Committed` is the one after it.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// An entry is committed. Indexes come without holes.
    Committed {
        /// Its index.
        index: u64,
        /// The term in which it was proposed.
        term: u64,
        /// Empty for the entry with which a leader starts its term.
        payload: Bytes,
        /// The members from this entry on, if it changed them. They count already.
        members: Option<Members>,
    },
    /// Once `index` is applied, a read sees everything acknowledged before the question.
    ReadReady {
        /// The context of the `ReadIndex`.
        ctx: u64,
        /// The index to wait for.
        index: u64,
    },
    /// The question got lost, or there is no leader to answer it; ask again.
    ReadDropped {
        /// The context of the `ReadIndex`.
        ctx: u64,
    },
    /// These payloads were not proposed and will not be.
    ProposalDropped {
        /// All of one `Propose`.
        payloads: Vec<Bytes>,
    },
    /// The role changed. Also when only the term did: whoever is leader in both lost it in between, and must treat its
    /// uncommitted proposals as undecided.
    Role {
        /// Current term.
        term: u64,
        /// Leader of that term, if known.
        leader: Option<u64>,
        /// Whether it is this replica.
        is_leader: bool,
    },
}
