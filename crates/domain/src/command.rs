//! Requests to change something, and why they may be refused.

use crate::config::{ConfigKind, ConfigSpec};
use crate::event::Registration;
use crate::id::{BootId, ClassName, Incarnation, Key, Name, NodeName, RequestId, Revision, ServerId, Uid, VolumeName};
use crate::object::PodStatus;
use crate::spec::{BudgetSpec, ClaimSpec, ClassSpec, Labels, ServiceSpec, SetSpec, VolumeSpec};
use std::sync::Arc;

/// One request, with who makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks: `user`, `agent/n1`, `clock`.
    pub actor: Name,
    /// The client's name for the attempt; a retry with the same is applied once.
    pub id: Option<RequestId>,
    /// Refuse unless the object was last touched by this revision.
    pub expected: Option<Revision>,
    /// What is asked.
    pub command: Command,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin.
    FormCluster { cluster: Name },
    /// Make a set, or change it.
    ApplySet { set: Key, labels: Labels, annotations: Labels, spec: SetSpec },
    /// Change only the replicas. With `force_unready`, pods beyond them that are not ready are stopped at once.
    ScaleSet { set: Key, replicas: u32, current: Option<u32>, force_unready: bool },
    /// Roll back to the template of a revision, by its number; to the one before the present without.
    UndoRollout { set: Key, to: Option<u64> },
    /// Let the rollout rest, or go on.
    PauseRollout { set: Key, is_paused: bool },
    /// Delete a set; `orphan` leaves its pods.
    DeleteSet { set: Key, orphan: bool },
    /// Delete a pod; with `uid`, as people see it, only the very pod that has it.
    DeletePod { pod: Key, grace_ms: Option<u64>, force: bool, uid: Option<Name> },
    /// Stop a pod as far as disruption budgets allow it.
    EvictPod { pod: Key, grace_ms: Option<u64>, uid: Option<Name> },
    /// Change a pod's labels, annotations and finalizers as a whole.
    MarkPod { pod: Key, labels: Labels, annotations: Labels, finalizers: Vec<Name> },
    /// Make a claim.
    ApplyClaim { claim: Key, labels: Labels, spec: ClaimSpec, annotations: Labels, finalizers: Vec<Name> },
    /// Delete a claim.
    DeleteClaim { claim: Key },
    /// Make a static volume.
    ApplyVolume { volume: VolumeName, labels: Labels, spec: VolumeSpec, annotations: Labels },
    /// Delete a volume.
    DeleteVolume { volume: VolumeName },
    /// Make or change a class.
    ApplyClass { class: ClassName, spec: ClassSpec, labels: Labels, annotations: Labels },
    /// Delete a class.
    DeleteClass { class: ClassName },
    /// Make or change a service.
    ApplyService { service: Key, labels: Labels, annotations: Labels, spec: ServiceSpec, address: Option<u32> },
    /// Delete a service.
    DeleteService { service: Key },
    /// Make or change a disruption budget.
    ApplyBudget { budget: Key, labels: Labels, annotations: Labels, spec: BudgetSpec },
    /// Delete a disruption budget.
    DeleteBudget { budget: Key },
    /// Make or change a config map or a secret.
    ApplyConfig { kind: ConfigKind, config: Key, labels: Labels, annotations: Labels, spec: Arc<ConfigSpec> },
    /// Delete a config map or a secret; pods that run keep what they have.
    DeleteConfig { kind: ConfigKind, config: Key },
    /// Change a node's labels and annotations as a whole; what its agent says stays.
    MarkNode { node: NodeName, labels: Labels, annotations: Labels },
    /// No new pods on a node.
    CordonNode { node: NodeName },
    /// New pods again.
    UncordonNode { node: NodeName },
    /// A node is gone, a person says.
    RemoveNode { node: NodeName },

    /// An agent begins a session.
    RegisterNode { node: NodeName, registration: Registration, running: Vec<Uid> },
    /// An agent's word about its pods.
    Report {
        node: NodeName,
        incarnation: Incarnation,
        reports: Vec<PodReport>,
        ended: Vec<Uid>,
        removed_volumes: Vec<VolumeName>,
    },
    /// A node's lease and grace are over.
    NoteSilence { node: NodeName, incarnation: Incarnation, heard_at_ms: u64 },
    /// An agent's word on whether its node is being shut down; with how long the pods may take, it is.
    NoteShutdown { node: NodeName, incarnation: Incarnation, grace_ms: Option<u64> },
    /// Time passed.
    PassTime,

    /// Note the servers that the control plane began with.
    FoundServers { servers: Vec<ServerId> },
    /// Let a new server learn; without `server`, under the next number.
    AddServer { server: Option<ServerId>, address: Name },
    /// A learner has caught up.
    PromoteServer { server: ServerId },
    /// A server is reached elsewhere.
    AddressServer { server: ServerId, address: Name },
    /// A server is to go, for good.
    RemoveServer { server: ServerId },
}

/// An agent's word about one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodReport {
    /// The pod.
    pub pod: Key,
    /// Which one of that name.
    pub uid: Uid,
    /// What is with it.
    pub status: PodStatus,
    /// Its volumes are attached here.
    pub has_volumes: bool,
    /// Its processes are gone and its volumes are free.
    pub is_gone: bool,
    /// Of its volumes that grow, those that have grown.
    pub grown: Vec<VolumeSize>,
}

/// How large a volume's file system was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeSize {
    /// The volume.
    pub volume: VolumeName,
    /// Its size.
    pub size_bytes: u64,
}

/// Why a command is refused: the fact that is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such object.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: String },
    /// The name is taken.
    #[error("{kind} \"{name}\" already exists")]
    AlreadyExists { kind: &'static str, name: String },
    /// A field that may not change.
    #[error(
        "{kind} \"{name}\": {field}: may not be changed; only replicas, ordinals, template, updateStrategy, revisionHistoryLimit, minReadySeconds, persistentVolumeClaimRetentionPolicy and the size of volumeClaimTemplates may"
    )]
    Immutable { kind: &'static str, name: String, field: &'static str },
    /// The object moved on.
    #[error("{kind} \"{name}\" was changed at revision {actual}, not {expected}: read it again")]
    RevisionMoved { kind: &'static str, name: String, expected: Revision, actual: Revision },
    /// Another pod has the name by now.
    #[error("pod \"{name}\" has uid {actual}, not {expected}: it is another pod of that name")]
    UidMoved { name: String, expected: String, actual: String },
    /// `--current-replicas` did not match.
    #[error("statefulset \"{name}\" has {actual} replicas, not {expected}")]
    ReplicasMoved { name: String, expected: u32, actual: u32 },
    /// The revision was forgotten, or never was.
    #[error("statefulset \"{name}\" has no revision {number}: it has {}", known(.numbers))]
    RevisionUnknown { name: String, number: u64, numbers: Vec<u64> },
    /// There is nothing to go back to.
    #[error("statefulset \"{name}\" has no revision before the present one")]
    NothingToUndo { name: String },
    /// The rollout rests.
    #[error("the rollout of statefulset \"{name}\" is paused: resume it first")]
    RolloutIsPaused { name: String },
    /// A disruption budget would be exceeded.
    #[error(
        "pod \"{pod}\" cannot be evicted: disruption budget {budget} needs {desired} healthy pods, and {healthy} are"
    )]
    BudgetExhausted { pod: String, budget: String, healthy: u32, desired: u32 },
    /// Nobody can say which budget counts.
    #[error("pod \"{pod}\" cannot be evicted: disruption budgets {budgets} both cover it")]
    BudgetsOverlap { pod: String, budgets: String },
    /// Nothing would come of it before an exit.
    #[error(
        "pod \"{pod}\" is held: node {node} is unreachable, and nothing stops the pod before the node is heard again or you take an exit"
    )]
    PodIsHeld { pod: String, node: NodeName },
    /// Its heartbeats say that it lives.
    #[error(
        "node \"{node}\" is Ready and runs {pod_count} pods: removing it would let a second copy of each start while the first still runs"
    )]
    NodeIsAlive { node: NodeName, pod_count: u32 },
    /// A session from before a removal or restart.
    #[error("node \"{node}\" has incarnation {actual}, not {offered}: register again")]
    IncarnationSuperseded { node: NodeName, offered: Incarnation, actual: Incarnation },
    /// Another machine has the name.
    #[error(
        "node name \"{node}\" belongs to machine {actual}, not {offered}: remove the node first, or choose another name"
    )]
    NameBelongsToOtherMachine { node: NodeName, offered: String, actual: String },
    /// A new boot that does not name the one that it follows: it has to, if it is really the next one.
    #[error("node \"{node}\" is known in boot {actual}, and boot {offered} does not say that it follows that one")]
    FollowsOtherBoot { node: NodeName, offered: BootId, actual: BootId },
    /// Two sets would share claims (Decision 9).
    #[error("statefulset \"{name}\": its claims would collide with those of statefulset \"{other}\"")]
    ClaimsCollide { name: String, other: String },
    /// The members change one step at a time.
    #[error("another change of the servers is not finished yet: try again in a moment")]
    ServersChanging,
    /// Nobody would be left to decide anything.
    #[error("server {} is the only one that votes: add another one first", server.name())]
    ServerIsLast { server: ServerId },
    /// Nothing could be committed any more.
    #[error(
        "server {} cannot be removed now: of the {remaining} voters that would remain, only {alive} are heard, and {needed} are needed: start the others, or remove those that are gone first",
        server.name()
    )]
    WouldLoseQuorum { server: ServerId, remaining: usize, alive: usize, needed: usize },
    /// A rule of a field, where only the state can tell.
    #[error("{kind} \"{name}\": {field}: {rule}")]
    Invalid { kind: &'static str, name: String, field: &'static str, rule: String },
}

fn known(numbers: &[u64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
