//! The records that the state is made of. Plain data: `apply` writes them, `decide` and the planners read them.

use crate::address::AddressRange;
use crate::event::RemovalCause;
use crate::id::{
    BootId, Fence, Generation, Incarnation, Key, MachineId, Name, NodeName, Ordinal, Revision, RevisionName, Uid,
    VolumeName,
};
use crate::small_map::SmallMap;
use crate::spec::{
    BudgetSpec, ClaimSpec, ClassSpec, Labels, Resources, ServiceSpec, SetSpec, Taint, Template, VolumeSpec,
};
use imbl::OrdMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What every object carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Identity: the revision that made it.
    pub uid: Uid,
    /// Counts changes of the spec.
    pub generation: Generation,
    /// The last revision that touched it (`resourceVersion`).
    pub modified: Revision,
    /// When it was made.
    pub created_at_ms: u64,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
}

/// A StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Identity and labels.
    pub meta: Meta,
    /// What is wanted.
    pub spec: SetSpec,
    /// The templates it had, oldest first; numbers go up.
    pub revisions: Vec<Arc<TemplateRevision>>,
    /// The revision of pods that no rollout has reached.
    pub current_revision: RevisionName,
    /// The revision of the present template.
    pub update_revision: RevisionName,
    /// How many pods were made at each ordinal.
    pub incarnations: OrdMap<Ordinal, Incarnation>,
    /// How often a new revision found its name taken by another content.
    pub collision_count: u32,
}

impl Set {
    /// The template of a revision that the set still remembers.
    #[must_use]
    pub fn template(&self, revision: &RevisionName) -> Option<&Arc<Template>> {
        self.revisions.iter().find(|r| r.name == *revision).map(|r| &r.template)
    }
}

/// A template that a set had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateRevision {
    /// `<set>-<hash>`.
    pub name: RevisionName,
    /// Goes up; a rollback raises it.
    pub number: u64,
    /// The content.
    pub template: Arc<Template>,
    /// Identity: the revision that first made it.
    pub uid: Uid,
    /// When it was first made.
    pub created_at_ms: u64,
    /// What the set said of the change when it was last rolled out, or empty.
    pub cause: Name,
}

/// One placed instance of an ordinal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Identity and labels.
    pub meta: Meta,
    /// The set that made it, by name.
    pub set: Name,
    /// The set that owns it; `None` once orphaned.
    pub owner: Option<Uid>,
    /// Its place.
    pub ordinal: Ordinal,
    /// Which pod this is at its ordinal.
    pub incarnation: Incarnation,
    /// Its template.
    pub template: Arc<Template>,
    /// The name of that template's revision.
    pub revision: RevisionName,
    /// Its service, for its domain name.
    pub service_name: Name,
    /// Its claims, by the names that mounts use.
    pub claims: Vec<PodClaim>,
    /// Where it runs, once placed.
    pub binding: Option<Binding>,
    /// What its agent last said.
    pub status: PodStatus,
    /// When its present readiness began.
    pub ready_at_ms: u64,
    /// Whether it has been ready for `min_ready_ms`.
    pub is_available: bool,
    /// Set when it is to go.
    pub deletion: Option<Deletion>,
    /// Set while its node is unreachable.
    pub hold: Option<Hold>,
    /// Why no node took it.
    pub unplaced: Option<Unplaced>,
    /// What must be done before its object may go; whoever does it takes its word out of here.
    pub finalizers: Vec<Name>,
    /// Set when nothing of it is left, and its finalizers keep its object and its name.
    pub end: Option<Arc<PodEnd>>,
}

impl Pod {
    /// Running, ready and not held.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.hold.is_none() && self.status.is_ready && self.status.phase == Phase::Running
    }

    /// The claim behind a mount.
    #[must_use]
    pub fn claim(&self, volume: &Name) -> Option<&Key> {
        self.claims.iter().find(|c| c.volume == *volume).map(|c| &c.claim)
    }
}

/// A claim of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodClaim {
    /// The name that mounts use.
    pub volume: Name,
    /// The claim.
    pub claim: Key,
}

/// Where a pod runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The node.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Since when.
    pub at_ms: u64,
    /// The pod's address, as a number.
    pub address: u32,
}

/// What an agent says about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodStatus {
    /// How far it is.
    pub phase: Phase,
    /// Whether every container is ready.
    pub is_ready: bool,
    /// A reason in one word, or empty (`ImageNotFound`, `CrashLoopBackOff`).
    pub reason: Name,
    /// The reason in a sentence, or empty.
    pub message: String,
    /// When the first container started; 0 before.
    pub started_at_ms: u64,
    /// Each container.
    pub containers: Vec<ContainerStatus>,
    /// Each init container.
    pub init_containers: Vec<ContainerStatus>,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet.
    #[default]
    Pending,
    /// At least one container was started.
    Running,
    /// Ended well, and does not come back by itself.
    Succeeded,
    /// Ended badly, and does not come back by itself.
    Failed,
}

/// What an agent says about a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its name.
    pub name: Name,
    /// Whether it runs now.
    pub is_running: bool,
    /// Whether its probe, if any, is good.
    pub is_ready: bool,
    /// How often it was started again.
    pub restart_count: u32,
    /// Process id of its first process on its node; 0 when none.
    pub pid: u32,
    /// What runs in the place of the image.
    pub runs: String,
    /// How it ended last, or `None`.
    pub last_exit: Option<i32>,
    /// Whether that was because it used more memory than it may.
    pub was_out_of_memory: bool,
    /// A reason in one word, or empty.
    pub reason: Name,
    /// Whether it runs, and its startup probe has not been good yet.
    pub is_starting: bool,
}

/// That a pod is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Since when.
    pub at_ms: u64,
    /// How long its processes may take.
    pub grace_ms: u64,
    /// Asked for by force: an exit as soon as its node is unreachable.
    pub is_forced: bool,
}

/// That nothing of a pod is left on any node, or that somebody answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEnd {
    /// How it is known.
    pub cause: RemovalCause,
    /// When it was recorded.
    pub at_ms: u64,
    /// Where it was.
    pub node: Option<NodeName>,
}

/// That a pod's node is unreachable, and what is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// The revision that recorded it.
    pub since: Revision,
    /// When.
    pub at_ms: u64,
    /// The node.
    pub node: NodeName,
    /// When the node was last heard.
    pub heard_at_ms: u64,
}

/// Why no node took a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    /// How many nodes there were.
    pub node_count: u32,
    /// How many nodes failed for each reason.
    pub reasons: BTreeMap<Name, u32>,
}

/// A wish for a volume, as an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Identity and labels.
    pub meta: Meta,
    /// What is wanted.
    pub spec: ClaimSpec,
    /// The volume, once bound.
    pub volume: Option<VolumeName>,
    /// Whether its volume vanished.
    pub is_lost: bool,
    /// Set when it is to go.
    pub deleting_at_ms: Option<u64>,
    /// What must be done before it may go.
    pub finalizers: Vec<Name>,
}

/// A durable volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Identity and labels.
    pub meta: Meta,
    /// What it is.
    pub spec: VolumeSpec,
    /// The claim that has it, with the claim's identity.
    pub claim: Option<(Key, Uid)>,
    /// How far it is.
    pub phase: VolumePhase,
    /// The highest fence granted.
    pub fence: Fence,
    /// Who may use it now.
    pub attachments: SmallMap<NodeName, Attachment>,
    /// Set while its file system is smaller than it should be.
    pub growth: Option<Growth>,
}

/// That a volume's file system is to be made larger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Its size until then.
    pub from_bytes: u64,
    /// Since when.
    pub at_ms: u64,
}

impl Volume {
    /// Whether another node would share it with those that have it, under their fence.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.spec.access.is_shared() && !self.attachments.is_empty()
    }
}

/// How far a volume is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumePhase {
    /// Free to be bound.
    #[default]
    Available,
    /// A claim has it.
    Bound,
    /// Its claim is gone; a person decides.
    Released,
    /// Its storage is being removed.
    Deleting,
}

/// A node's use of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Which start of the node.
    pub incarnation: Incarnation,
    /// Its fence.
    pub fence: Fence,
    /// Whether the agent has said that it holds it.
    pub is_attached: bool,
    /// Since when.
    pub at_ms: u64,
}

/// A storage class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Identity and labels.
    pub meta: Meta,
    /// What it does.
    pub spec: ClassSpec,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Identity and labels.
    pub meta: Meta,
    /// What it names.
    pub spec: ServiceSpec,
    /// Its own address, as a number; 0 for a headless one.
    pub address: u32,
}

/// A disruption budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Identity and labels.
    pub meta: Meta,
    /// What it bounds.
    pub spec: BudgetSpec,
}

/// A server of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Where it is reached, `host:port`; empty until it has said so.
    pub address: Name,
    /// Whether it votes; until it does, it learns.
    pub is_voter: bool,
}

/// A machine that runs an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Identity and labels.
    pub meta: Meta,
    /// Counts its boots and removals.
    pub incarnation: Incarnation,
    /// Which start of the machine.
    pub boot_id: BootId,
    /// Which machine.
    pub machine_id: MachineId,
    /// What it has.
    pub capacity: Resources,
    /// What is reserved by the pods bound to it.
    pub reserved: Resources,
    /// How many pods are bound to it.
    pub pod_count: u32,
    /// How many pods it takes.
    pub pods_max: u32,
    /// Marks that keep pods away.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub is_cordoned: bool,
    /// Set while it is unreachable.
    pub unreachable: Option<Unreachable>,
    /// Processes of former pods that it must end before it gets work.
    pub leftovers: Vec<Uid>,
    /// What the agent says of its machine: `address`, `kernelVersion`, `agentVersion`, `operatingSystem`, `osImage`,
    /// `architecture`, `runtime`, and `feature/NAME` for each feature: `on`, or why not.
    pub info: Labels,
    /// The labels that people gave it, beside those that its agent gives.
    pub own_labels: Labels,
    /// Set while it is being shut down, and until it is heard to go on.
    pub shutdown: Option<Shutdown>,
    /// The addresses that its pods get, where they are its own.
    pub pod_range: Option<AddressRange>,
}

impl Node {
    /// The key of [`Self::info`] for the address that the node is reached at.
    pub const INFO_ADDRESS: &str = "address";

    /// The labels that its agent gives.
    pub fn given_labels(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.meta.labels.iter().filter(|(label, _)| !self.own_labels.contains_key(*label))
    }
}

/// That a node is silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreachable {
    /// The revision that recorded it.
    pub since: Revision,
    /// When.
    pub at_ms: u64,
    /// When it was last heard.
    pub heard_at_ms: u64,
}

/// That a node is being shut down, as its agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// The revision that recorded it.
    pub since: Revision,
    /// When.
    pub at_ms: u64,
    /// How long its pods may take to end.
    pub grace_ms: u64,
}
