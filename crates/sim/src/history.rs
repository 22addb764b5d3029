//! What happened, as somebody sees it who stands outside of the cluster and sees everything at once.
//! Owns the words; never judges, and never knows whether the cluster was a simulated one.

use domain::command::Request;
use domain::id::{BootId, Fence, Incarnation, Key, Name, NodeName, Revision, Uid, VolumeName};
use domain::{Batch, State};
use std::sync::Arc;

/// One thing that happened. Facts come in the order of `at_ms`, which is the world's true time: no process knows it.
#[derive(Clone, Debug)]
pub struct Fact {
    /// When, in true time.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// A server started, with what its disk still had.
    ServerStarted {
        /// Its number.
        server: u64,
        /// Its state before it hears of anything.
        state: Arc<State>,
    },
    /// A server ended, or was killed.
    ServerStopped {
        /// Its number.
        server: u64,
    },
    /// A server applied a batch: for the first time, or again after it was restarted.
    Applied {
        /// Its number.
        server: u64,
        /// The batch.
        batch: Arc<Batch>,
        /// The revision after it.
        revision: Revision,
    },
    /// A server replaced its state by the leader's snapshot.
    Restored {
        /// Its number.
        server: u64,
        /// The state.
        state: Arc<State>,
    },
    /// A server shows this state to whoever looks.
    Shown {
        /// Its number.
        server: u64,
        /// The state.
        state: Arc<State>,
    },
    /// A server took the lead, as far as it knows.
    Led {
        /// Its number.
        server: u64,
        /// Its term.
        term: u64,
    },
    /// A server told an agent that its report is committed.
    ReportAccepted {
        /// The server's number.
        server: u64,
        /// The agent's node.
        node: NodeName,
        /// The start of the node that the agent had sent the report for.
        incarnation: Incarnation,
    },

    /// A machine started.
    NodeBooted {
        /// The node.
        node: NodeName,
        /// Which start this is.
        boot: BootId,
    },
    /// A machine went down: every process on it is dead.
    NodeDied {
        /// The node.
        node: NodeName,
    },
    /// An agent started, on a machine that is up.
    AgentStarted {
        /// Its node.
        node: NodeName,
    },
    /// An agent died; its pods live on.
    AgentDied {
        /// Its node.
        node: NodeName,
    },
    /// An agent was told which pods are its node's; what is not among them has to end.
    Assigned {
        /// The node.
        node: NodeName,
        /// The pods.
        pods: Vec<Uid>,
    },
    /// A node attached a volume for a pod.
    Attached {
        /// The node.
        node: NodeName,
        /// The pod that it is for.
        pod: Key,
        /// Which one of that name.
        uid: Uid,
        /// The volume.
        volume: VolumeName,
        /// Under which fence.
        fence: Fence,
    },
    /// Nothing of a pod is left on a node: neither a process nor a mount.
    Cleaned {
        /// The node.
        node: NodeName,
        /// Which pod.
        uid: Uid,
    },
    /// A process of a pod began.
    ProcessStarted {
        /// Where.
        node: NodeName,
        /// The pod's name.
        pod: Key,
        /// Which one of that name.
        uid: Uid,
        /// Its container.
        container: Name,
    },
    /// A process of a pod ended.
    ProcessEnded {
        /// Where.
        node: NodeName,
        /// Which pod.
        uid: Uid,
        /// Its container.
        container: Name,
        /// Whether it was asked to (a stop), or ended by itself.
        was_stopped: bool,
    },
    /// A process of a pod was killed, without being asked or after it was asked for long enough. That it ended follows
    /// as a fact of its own. Not said of what dies with its machine.
    Killed {
        /// Where.
        node: NodeName,
        /// Which pod.
        uid: Uid,
        /// Its container.
        container: Name,
    },
    /// A stop of a process began, with so much time until it is killed.
    StopBegan {
        /// Where.
        node: NodeName,
        /// Which pod.
        uid: Uid,
        /// Its container.
        container: Name,
        /// The time.
        grace_ms: u64,
    },
    /// A pod wrote the next line to a volume: who it is and what it read there last.
    Wrote {
        /// Where.
        node: NodeName,
        /// Which pod.
        uid: Uid,
        /// The volume.
        volume: VolumeName,
        /// How many lines the volume has now; the first is 1.
        line: u64,
    },
    /// A pod that began looked at its volume.
    Found {
        /// Where.
        node: NodeName,
        /// Which pod.
        uid: Uid,
        /// The volume.
        volume: VolumeName,
        /// How many lines it has.
        lines: u64,
    },
    /// A volume's storage was removed.
    StorageRemoved {
        /// The volume.
        volume: VolumeName,
    },

    /// A client asked for something.
    Asked {
        /// The client.
        client: u64,
        /// Counts its operations; a retry is the same operation.
        operation: u64,
        /// What it asked for.
        question: Question,
    },
    /// A client got its answer, or gave up.
    Answered {
        /// The client.
        client: u64,
        /// Which operation.
        operation: u64,
        /// The answer.
        answer: Answer,
    },
    /// A watcher began to watch: the first time, or anew after its server was lost.
    WatchBegan {
        /// The watcher.
        watcher: u64,
        /// It wants everything after this revision.
        after: Revision,
    },
    /// A watcher got a batch.
    Watched {
        /// The watcher.
        watcher: u64,
        /// The batch.
        batch: Arc<Batch>,
        /// The revision after it.
        revision: Revision,
    },
    /// A watcher was told that nothing more happened up to a revision.
    Bookmarked {
        /// The watcher.
        watcher: u64,
        /// The revision.
        revision: Revision,
    },
    /// A watcher watches no more.
    WatchEnded {
        /// The watcher.
        watcher: u64,
    },
    /// A watcher was told that its place is not known any more.
    WatchCompacted {
        /// The watcher.
        watcher: u64,
        /// The oldest place that is known.
        floor: Revision,
    },

    /// A node's machine is to go down in good order.
    ShutDown {
        /// Which.
        node: NodeName,
        /// How long its pods may take to end.
        grace_ms: u64,
    },
    /// A node can no longer talk to any server, in at least one direction.
    CutOff {
        /// The node.
        node: NodeName,
    },
    /// It can again, in both.
    Reconnected {
        /// The node.
        node: NodeName,
    },
    /// A disk lost everything that was on it.
    DiskLost {
        /// Whose: `s1`, `n2`.
        owner: Name,
    },
    /// From now on nothing is broken any more: everything must come to rest within the bound.
    Calm,
    /// The bound after [`What::Calm`] is over.
    Rest,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Question {
    /// A change, with its request id.
    Change(Arc<Request>),
    /// The state.
    Read {
        /// Whether an old one will do.
        stale: bool,
    },
}

/// What a client hears.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The change is made, or was not needed.
    Done {
        /// The revision that it led to, or as of which there was nothing to do.
        revision: Revision,
        /// Whether this request changed something.
        changed: bool,
    },
    /// It is refused, for a reason that is the state's.
    Rejected {
        /// The reason.
        rejection: domain::Rejection,
    },
    /// The state.
    State(Arc<State>),
    /// It gave up: the change may have been made, or may be made yet.
    Unknown,
}
