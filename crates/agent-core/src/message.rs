//! Everything that goes into the core and comes out of it. Plain data, never a decision.

use crate::given::Configs;
use domain::agent::{AssignedConfig, AssignedPod, AssignedVolume, Assignment, FromAgent, ToAgent, VolumeRemoval};
use domain::config::{Blob, ConfigKind, ConfigSpec};
use domain::event::Registration;
use domain::id::{BootId, Fence, Incarnation, Key, Name, NodeName, Revision, Uid, VolumeName};
use domain::spec::{Hook, Probe};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Who the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Its node.
    pub node: NodeName,
    /// What it says of itself when it registers.
    pub registration: Registration,
    /// Time between heartbeats.
    pub heartbeat_ms: u64,
}

/// What the agent must find again after it has died.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The start of the machine that the rest was true in.
    pub boot_id: BootId,
    /// The last one that was granted.
    pub incarnation: Incarnation,
    /// The assignment's.
    pub revision: Revision,
    /// The highest fence ever seen, for each volume.
    pub fences: BTreeMap<VolumeName, Fence>,
    /// The assignment.
    pub pods: BTreeMap<Uid, Arc<AssignedPod>>,
    /// What the pods refer to: a container that ends while no server is reached starts again with it.
    pub configs: Configs,
}

impl Ledger {
    /// What it holds of the assignment, as an assignment.
    #[must_use]
    pub fn assignment(&self) -> Assignment {
        let config = |((kind, config), spec): (&(ConfigKind, Key), &Arc<ConfigSpec>)| AssignedConfig {
            kind: *kind,
            config: config.clone(),
            spec: Arc::clone(spec),
        };
        Assignment {
            revision: self.revision,
            incarnation: self.incarnation,
            pods: self.pods.values().map(Arc::clone).collect(),
            configs: self.configs.iter().map(config).collect(),
            ..Assignment::default()
        }
    }

    /// The ledger that held this.
    #[must_use]
    pub fn found(boot_id: BootId, fences: BTreeMap<VolumeName, Fence>, assignment: Assignment) -> Self {
        Self {
            boot_id,
            incarnation: assignment.incarnation,
            revision: assignment.revision,
            fences,
            pods: assignment.pods.into_iter().map(|pod| (pod.uid, pod)).collect(),
            configs: assignment.configs.into_iter().map(|known| ((known.kind, known.config), known.spec)).collect(),
        }
    }
}

/// A pod that a former agent of this node left behind: as processes, or only as a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LivePod {
    /// Which one.
    pub uid: Uid,
    /// The last attempt of each container.
    pub containers: Vec<LiveContainer>,
}

/// The last attempt of a container that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveContainer {
    /// Its name.
    pub name: Name,
    /// Which attempt; the first is 0.
    pub attempt: u32,
    /// What runs in the place of the image.
    pub runs: String,
    /// When it was started, by the wall clock.
    pub started_at_ms: u64,
    /// Whether it still runs.
    pub state: LiveContainerState,
}

/// How a container was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveContainerState {
    /// As a process, which the shell watches again.
    Running { pid: u32 },
    /// Ended.
    Exited { code: i32 },
}

impl Default for LiveContainerState {
    fn default() -> Self {
        Self::Exited { code: 0 }
    }
}

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Decides whether it gets traffic.
    Readiness,
    /// Decides whether it is restarted.
    Liveness,
    /// Decides whether it has started.
    Startup,
}

/// At which turn of a container's life something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    /// It has started.
    PostStart,
    /// It is to be asked to end.
    PreStop,
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PostStart => "postStart hook",
            Self::PreStop => "preStop hook",
        })
    }
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Readiness => "readiness probe",
            Self::Liveness => "liveness probe",
            Self::Startup => "startup probe",
        })
    }
}

/// How one check went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whether it was good.
    pub is_ok: bool,
    /// Why not, in a sentence.
    pub message: String,
}

/// What is in a volume that ends with its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeContent {
    /// What the containers write.
    Empty,
    /// The same, kept in memory where the machine allows that; 0 is no limit.
    Memory { size_max_bytes: u64 },
    /// These files, by their paths in the volume; all of them change at once.
    Files(BTreeMap<String, PodFile>),
}

/// A file that a container reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFile {
    /// Its mode.
    pub mode: u32,
    /// What it says.
    pub content: Blob,
}

/// Why something could not be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// In one word (`ImageNotFound`).
    pub reason: Name,
    /// In a sentence.
    pub message: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passed.
    Tick,
    /// There is a connection to a server.
    SessionOpened,
    /// It is gone.
    SessionClosed,
    /// The server spoke.
    FromServer(ToAgent),
    /// A volume is attached and published to its pod, or not. Its file system was made so large, as the attachment asked for;
    /// 0 if it grows only when it is attached the next time.
    AttachDone { uid: Uid, volume: VolumeName, result: Result<u64, Failure> },
    /// A volume that ends with its pod has its content, or not.
    VolumePlaced { uid: Uid, volume: Name, result: Result<(), Failure> },
    /// What a volume holds that ends with its pod; `None` if that could not be found out.
    VolumeMeasured { uid: Uid, volume: Name, used_bytes: Option<u64> },
    /// A container runs. `started_at_ms` is the wall clock's, for people.
    ContainerStarted { uid: Uid, container: Name, pid: u32, runs: String, started_at_ms: u64 },
    /// A container does not run, and never did in this attempt.
    StartFailed { uid: Uid, container: Name, failure: Failure },
    /// Nothing of a started container is left. The message, if there is one, says more than the code.
    ContainerExited { uid: Uid, container: Name, code: i32, message: String, is_out_of_memory: bool },
    /// A check is over.
    ProbeDone { uid: Uid, container: Name, attempt: u32, kind: ProbeKind, result: ProbeResult },
    /// A hook is over; the error is a sentence.
    HookDone { uid: Uid, container: Name, attempt: u32, kind: HookKind, result: Result<(), String> },
    /// No process of the pod is left, its volumes are unpublished, its directory is removed.
    PodCleaned { uid: Uid },
    /// The machine goes down: the pods are to end within this time, and the control plane is to know it. What only ends
    /// the agent says nothing of the sort, and leaves the pods running.
    ShutDown { grace_ms: u64 },
    /// A volume's storage is removed, or not.
    VolumeRemoved { volume: VolumeName, result: Result<(), Failure> },
}

/// What is to be done. In order; what concerns one pod must also be begun in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be durable before the next output is executed.
    SaveLedger(Ledger),
    /// For the server; lost if there is no session.
    Send(FromAgent),
    /// The session is of no use: close it, and try the leader, if one is named, or any server. Needs no answer.
    CloseSession { leader: Option<u64>, reason: String },
    /// Attach a volume under its fence, in its size, and publish it to a pod; all that again for one that is attached, so
    /// that it grows. Answered by [`Input::AttachDone`].
    AttachVolume { uid: Uid, pod: Arc<AssignedPod>, volume: AssignedVolume },
    /// Makes a volume that ends with its pod, or gives it another content. Answered by [`Input::VolumePlaced`].
    PlaceVolume { uid: Uid, pod: Arc<AssignedPod>, volume: Name, content: VolumeContent },
    /// Find out how much a volume holds that ends with its pod, beside everything else. Answered by
    /// [`Input::VolumeMeasured`].
    MeasureVolume { uid: Uid, volume: Name },
    /// The variables are the container's own, in order: `$(NAME)` stands for one before it, `$$` for a dollar.
    /// Answered by [`Input::ContainerStarted`] and later [`Input::ContainerExited`], or by [`Input::StartFailed`].
    StartContainer { uid: Uid, pod: Arc<AssignedPod>, container: Name, attempt: u32, env: Vec<(Name, String)> },
    /// SIGTERM, and SIGKILL after the grace. A second one may shorten the grace. The exit is the answer.
    StopContainer { uid: Uid, container: Name, grace_ms: u64 },
    /// Kill every process of the pod at once, then do as for [`Output::CleanPod`].
    KillPod { uid: Uid },
    /// Check a container. Answered by [`Input::ProbeDone`].
    RunProbe { uid: Uid, container: Name, attempt: u32, kind: ProbeKind, probe: Probe },
    /// Do what a hook says, within this time. Answered by [`Input::HookDone`].
    RunHook { uid: Uid, container: Name, attempt: u32, kind: HookKind, hook: Hook, timeout_ms: u64 },
    /// Make sure that no process of the pod is left, unpublish its volumes, remove its directory.
    /// Answered by [`Input::PodCleaned`], however long that takes: nothing of the pod is reported before.
    CleanPod { uid: Uid },
    /// Remove a volume's storage. Answered by [`Input::VolumeRemoved`].
    RemoveVolume(VolumeRemoval),
    /// The node is shut down as well as it can be: the agent may end.
    End,
}
