//! What is done to a cluster, as plain data: a setup, and deeds with their times. Drawn from a seed, read from a file or
//! made shorter by the shrinker; never carried out here.

use std::fmt;

/// A run, before it is run. The same scenario gives the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The cluster, and everything that is left to chance.
    pub setup: Setup,
    /// What is done, by time.
    pub steps: Vec<Step>,
}

/// A cluster, and how its surroundings behave as long as no deed says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// How many servers.
    pub servers: u64,
    /// How many nodes.
    pub nodes: u64,
    /// How many clients make the changes.
    pub clients: u64,
    /// How many watch.
    pub watchers: u64,
    /// How long things are broken.
    pub faults_ms: u64,
    /// How long it may take after that until everything is at rest.
    pub calm_ms: u64,
    /// How messages travel.
    pub network: Network,
    /// What pods do.
    pub pods: Pods,
    /// How far clocks may run off, in millionths.
    pub drift_ppm_max: u64,
    /// How far the clocks that people read may be off.
    pub skew_ms_max: u64,
    /// How many log entries a server applies between two snapshots.
    pub snapshot_entries: u64,
    /// How large a piece of the journal is.
    pub segment_bytes: u64,
    /// How many events a server keeps for watchers.
    pub watch_events_max: usize,
}

impl Setup {
    /// A cluster in which nothing breaks by itself.
    #[must_use]
    pub const fn plain(seed: u64) -> Self {
        Self {
            seed,
            servers: 3,
            nodes: 3,
            clients: 1,
            watchers: 1,
            faults_ms: 60_000,
            calm_ms: 600_000,
            network: Network { delay_ms: (1, 5), loss_permille: 0, duplicate_permille: 0, stray_permille: 0 },
            pods: Pods {
                crash_permille: 0,
                unready_permille: 0,
                stubborn_permille: 0,
                failure_permille: 0,
                write_ms: (500, 2_000),
            },
            drift_ppm_max: 0,
            skew_ms_max: 0,
            snapshot_entries: 200,
            segment_bytes: 64 << 10,
            watch_events_max: 1_000,
        }
    }
}

/// How messages travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The least and the longest ordinary delay.
    pub delay_ms: (u64, u64),
    /// How many of a thousand messages between servers are lost.
    pub loss_permille: u32,
    /// How many arrive twice.
    pub duplicate_permille: u32,
    /// How many take far longer, and are overtaken.
    pub stray_permille: u32,
}

/// What pods do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    /// How many of a thousand starts end by themselves before long.
    pub crash_permille: u32,
    /// How many never get ready.
    pub unready_permille: u32,
    /// How many do not listen when they are told to end.
    pub stubborn_permille: u32,
    /// How many of a thousand attachments, starts and removals fail.
    pub failure_permille: u32,
    /// The shortest and the longest time between two lines that a pod writes.
    pub write_ms: (u64, u64),
}

/// Something that runs and can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// A server.
    Server(u64),
    /// A node; where a process is meant, its agent.
    Node(u64),
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(number) => write!(f, "s{number}"),
            Self::Node(number) => write!(f, "n{number}"),
        }
    }
}

/// Which way of the target's traffic a fault concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Everything.
    #[default]
    Both,
    /// What is sent to the target.
    In,
    /// What the target sends.
    Out,
}

/// A deed, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// In true time.
    pub at_ms: u64,
    /// What is done.
    pub deed: Deed,
}

/// What can be done to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Links of the target are cut: those to `from`, or all.
    Partition { target: Process, from: Vec<Process>, direction: Direction },
    /// Links of the target are slow.
    Delay { target: Process, from: Vec<Process>, direction: Direction, delay_ms: u64 },
    /// Links are as they were: the target's, or all.
    Heal { target: Option<Process> },
    /// Every connection of the target breaks, and may be made anew at once.
    Break { target: Process },
    /// The process ends at once; the machine, its disk's memory and its pods go on.
    Kill { target: Process },
    /// The machine loses its power: everything on it ends, and what was not synced may be lost.
    PowerLoss { target: Process },
    /// A node's machine goes down in good order: its agent ends the pods within the grace first. It boots again after a time.
    ShutDown { node: u64, grace_ms: u64, off_ms: Option<u64> },
    /// What is down is started. `new_boot`: a node's machine starts again in any case.
    Restart { target: Process, new_boot: bool },
    /// The process stands still.
    Pause { target: Process },
    /// It goes on.
    Resume { target: Process },
    /// After so many more writes and syncs the disk fails one, and the process must end.
    FailDisk { target: Process, after_steps: u64 },
    /// The disk takes nothing more.
    FillDisk { target: Process },
    /// A sync takes so long.
    SlowDisk { target: Process, sync_ms: u64 },
    /// The disk has room again, and is as fast as it was.
    MendDisk { target: Process },
    /// A bit that was durable flips; a server that reads it refuses to start until it is put back.
    RotDisk { target: Process },
    /// Everything on the disk is gone. A server never comes again; a node's machine restarts.
    LoseDisk { target: Process },
    /// The clock that people read jumps.
    SetClock { target: Process, ahead_ms: i64 },
    /// A process of some pod ends by itself.
    CrashPod { pick: u64 },
    /// A client is to make a change, or to look.
    Operate { client: u64, operation: Operation },
}

impl Deed {
    /// What kind of fault it is, for tables; `None` for what is no fault.
    #[must_use]
    pub const fn fault(&self) -> Option<&'static str> {
        Some(match self {
            Self::Partition { direction: Direction::Both, .. } => "partition",
            Self::Partition { direction: Direction::In | Direction::Out, .. } => "one-way partition",
            Self::Delay { .. } => "delay",
            Self::Break { .. } => "broken connections",
            Self::Kill { target: Process::Server(_) } => "server killed",
            Self::Kill { target: Process::Node(_) } => "agent killed",
            Self::PowerLoss { target: Process::Server(_) } => "server power loss",
            Self::PowerLoss { target: Process::Node(_) } => "node power loss",
            Self::Restart { target: Process::Node(_), new_boot: true } => "node reboot",
            Self::ShutDown { .. } => "node shutdown",
            Self::Pause { .. } => "pause",
            Self::FailDisk { .. } => "failing disk",
            Self::FillDisk { .. } => "full disk",
            Self::SlowDisk { .. } => "slow disk",
            Self::RotDisk { .. } => "bit rot",
            Self::LoseDisk { .. } => "lost disk",
            Self::SetClock { .. } => "clock jump",
            Self::CrashPod { .. } => "pod crash",
            Self::Heal { .. }
            | Self::Restart { .. }
            | Self::Resume { .. }
            | Self::MendDisk { .. }
            | Self::Operate { .. } => return None,
        })
    }
}

/// What a person asks for. Numbers called `pick` choose among what is there when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Apply the storage class that the sets' volumes are made by.
    ApplyClass,
    /// Apply the class whose volumes outlive their claims.
    ApplyRetainingClass,
    /// Apply the claim that the pods of one set share: for all of a node's, or for a single one.
    ApplySharedClaim { for_one_pod: bool },
    /// Apply a disruption budget for a set: one of its pods may be away.
    ApplyBudget { set: String },
    /// Apply a set: its replicas, and which of its templates.
    Apply { set: String, replicas: u32, flavor: u32 },
    /// Scale a set.
    Scale { set: String, replicas: u32 },
    /// Roll a set back.
    Undo { set: String },
    /// Let a rollout rest, or go on.
    PauseRollout { set: String, is_paused: bool },
    /// Delete a set.
    DeleteSet { set: String, orphan: bool },
    /// Delete a pod.
    DeletePod { pick: u64 },
    /// Delete a pod by force, mostly one that is held; whoever asks says that it is dead.
    ForceDeletePod { pick: u64 },
    /// Evict a pod.
    EvictPod { pick: u64 },
    /// Delete a claim.
    DeleteClaim { pick: u64 },
    /// No new pods on a node.
    Cordon { node: u64 },
    /// New pods again.
    Uncordon { node: u64 },
    /// A node is gone, a person says.
    RemoveNode { node: u64 },
    /// One server more, with an empty disk.
    AddServer,
    /// One server less: one that lost its disk, if there is one.
    RemoveServer { pick: u64 },
    /// Look at the state.
    Read { stale: bool },
}
