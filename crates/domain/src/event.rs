//! Facts. The log holds these and nothing else; each is applied by [`crate::State::apply`], for ever.
//! Adding a variant is allowed; changing what one means is not.

use crate::address::AddressRange;
use crate::config::{ConfigKind, ConfigSpec};
use crate::id::{
    BootId, ClassName, Fence, Incarnation, Key, MachineId, Name, NodeName, Ordinal, RequestId, Revision, RevisionName,
    ServerId, Uid, VolumeName,
};
use crate::object::{PodClaim, PodStatus, Unplaced};
use crate::spec::{BudgetSpec, ClaimSpec, ClassSpec, Labels, Resources, ServiceSpec, SetSpec, Taint, VolumeSpec};
use std::sync::Arc;

/// Ordered events that were decided together: they are applied together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The revision that it was decided at; applied at any other, it does nothing.
    pub base: Revision,
    /// The leader's clock, applied as a maximum.
    pub at_ms: u64,
    /// Who asked: `user`, `agent/n1`, `planner`.
    pub actor: Name,
    /// The client's name for the attempt.
    pub request: Option<RequestId>,
    /// What happened.
    pub events: Vec<Event>,
    /// How many of them, at the end, nobody asked for: planners saw that they follow.
    pub planned: u32,
}

impl Batch {
    /// Who decided the event at `index`: whoever asked, or the planner.
    #[must_use]
    pub fn decided_by(&self, index: usize) -> &str {
        let asked = self.events.len().saturating_sub(self.planned as usize);
        match self.events.get(index) {
            Some(event) if asked <= index => event.planner(),
            _ => self.actor.as_str(),
        }
    }
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The cluster began.
    ClusterFormed { cluster: Name },
    /// A set was made.
    SetCreated { set: Key, labels: Labels, annotations: Labels, spec: SetSpec },
    /// A set's spec, labels or annotations were changed as a whole.
    SetUpdated { set: Key, labels: Labels, annotations: Labels, spec: SetSpec },
    /// Only the number of replicas changed.
    SetScaled { set: Key, replicas: u32 },
    /// A set is gone.
    SetRemoved { set: Key },
    /// The set's template is a new revision, or an old one with a new number; it is the rollout's target.
    RevisionTargeted { set: Key, revision: RevisionName, number: u64, is_collision: bool },
    /// Every pod is at the target.
    RolloutCompleted { set: Key, revision: RevisionName },
    /// A revision that nothing uses was forgotten.
    RevisionForgotten { set: Key, revision: RevisionName },

    /// A pod was made, not yet placed. Its template is the one that its set keeps under `revision`.
    PodCreated { set: Key, ordinal: Ordinal, revision: RevisionName, claims: Vec<PodClaim> },
    /// A node was chosen.
    PodBound { pod: Key, node: NodeName, address: u32 },
    /// No node fits now.
    PodUnplaced { pod: Key, why: Unplaced },
    /// The agent's word.
    PodReported { pod: Key, uid: Uid, status: PodStatus },
    /// It has been ready long enough.
    PodBecameAvailable { pod: Key, uid: Uid },
    /// It has not been ready long enough any more: its set asks for a longer time.
    PodBecameUnavailable { pod: Key, uid: Uid },
    /// It is to go, gracefully.
    PodDeletionRequested { pod: Key, uid: Uid, grace_ms: u64, is_forced: bool },
    /// It is gone.
    PodRemoved { pod: Key, uid: Uid, cause: RemovalCause },
    /// Its node is unreachable: it stays bound, and its name stays taken.
    PodHeld { pod: Key, uid: Uid, node: NodeName, heard_at_ms: u64 },
    /// Its node is back with the same boot: it goes on.
    PodResumed { pod: Key, uid: Uid },
    /// It lost its owner, and runs on.
    PodOrphaned { pod: Key, uid: Uid },
    /// A set took an orphan as its own.
    PodAdopted { pod: Key, uid: Uid, owner: Uid, revision: RevisionName },
    /// Its labels or annotations were changed as a whole.
    PodMarked { pod: Key, uid: Uid, labels: Labels, annotations: Labels },
    /// What its object waits for was changed as a whole.
    PodFinalizersChanged { pod: Key, uid: Uid, finalizers: Vec<Name> },
    /// Nothing of it is left on any node, and its object, and so its name, stay for its finalizers.
    PodEnded { pod: Key, uid: Uid, cause: RemovalCause },

    /// A claim was made.
    ClaimCreated { claim: Key, labels: Labels, spec: ClaimSpec, annotations: Labels },
    /// Its spec, labels or annotations were changed as a whole.
    ClaimUpdated { claim: Key, labels: Labels, annotations: Labels, spec: ClaimSpec },
    /// It has its volume, and the volume has it.
    ClaimBound { claim: Key, volume: VolumeName },
    /// It is to go.
    ClaimDeletionRequested { claim: Key },
    /// It is gone.
    ClaimRemoved { claim: Key },
    /// Its volume vanished.
    ClaimLost { claim: Key },
    /// What it waits for before it goes was changed as a whole.
    ClaimFinalizersChanged { claim: Key, finalizers: Vec<Name> },

    /// A volume was made, by a person or for a claim.
    VolumeCreated { volume: VolumeName, labels: Labels, spec: VolumeSpec, annotations: Labels },
    /// Its spec, labels or annotations were changed as a whole.
    VolumeUpdated { volume: VolumeName, labels: Labels, annotations: Labels, spec: VolumeSpec },
    /// Its claim is gone.
    VolumeReleased { volume: VolumeName },
    /// Its storage is to be removed.
    VolumeDeletionRequested { volume: VolumeName },
    /// It is gone.
    VolumeRemoved { volume: VolumeName },
    /// A node may use it, under a fence higher than any before.
    AttachmentRequested { volume: VolumeName, node: NodeName, fence: Fence },
    /// The agent holds it.
    VolumeAttached { volume: VolumeName, node: NodeName, fence: Fence },
    /// The node may no longer use it.
    AttachmentReleased { volume: VolumeName, node: NodeName, fence: Fence, cause: RemovalCause },
    /// It is to be larger than its file system, which had this size before.
    VolumeGrowthBegan { volume: VolumeName, from_bytes: u64 },
    /// A node says that its file system is as large as it should be.
    VolumeGrown { volume: VolumeName },

    /// A class was made or changed.
    ClassApplied { class: ClassName, spec: ClassSpec, labels: Labels, annotations: Labels },
    /// It is gone.
    ClassRemoved { class: ClassName },
    /// A service was made or changed.
    ServiceApplied { service: Key, labels: Labels, annotations: Labels, spec: ServiceSpec, address: u32 },
    /// It is gone.
    ServiceRemoved { service: Key },

    /// A disruption budget was made or changed.
    BudgetApplied { budget: Key, labels: Labels, annotations: Labels, spec: BudgetSpec },
    /// It is gone.
    BudgetRemoved { budget: Key },
    /// A config map or a secret was made or changed.
    ConfigApplied { kind: ConfigKind, config: Key, labels: Labels, annotations: Labels, spec: Arc<ConfigSpec> },
    /// A config map or a secret is gone.
    ConfigRemoved { kind: ConfigKind, config: Key },

    /// A node came for the first time, after its removal, or with a new boot.
    NodeRegistered { node: NodeName, incarnation: Incarnation, registration: Registration },
    /// What it has or is called changed.
    NodeUpdated { node: NodeName, registration: Registration },
    /// It has been silent for its lease and grace.
    NodeUnreachable { node: NodeName, heard_at_ms: u64 },
    /// It is back with the same boot, with processes that it must end.
    NodeReturned { node: NodeName, leftovers: Vec<Uid> },
    /// The processes that it had to end are gone.
    LeftoversEnded { node: NodeName, ended: Vec<Uid> },
    /// No new pods.
    NodeCordoned { node: NodeName },
    /// New pods again.
    NodeUncordoned { node: NodeName },
    /// Its agent says that it is being shut down: its pods end, and it gets no new ones.
    NodeShutdownBegan { node: NodeName, grace_ms: u64 },
    /// Its agent goes on.
    NodeShutdownEnded { node: NodeName },
    /// The labels that people gave it, and its annotations, were changed as a whole.
    NodeMarked { node: NodeName, labels: Labels, annotations: Labels },
    /// It is not a member any more, by a person's word.
    NodeRemoved { node: NodeName },

    /// The control plane's first servers, all of them voters.
    ServersFounded { servers: Vec<ServerId> },
    /// A new server learns.
    ServerAdded { server: ServerId, address: Name },
    /// It has caught up, and votes.
    ServerPromoted { server: ServerId },
    /// It is reached elsewhere.
    ServerAddressed { server: ServerId, address: Name },
    /// It does not belong to the control plane any more.
    ServerRemoved { server: ServerId },
}

/// Who a node says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Which start of the machine.
    pub boot_id: BootId,
    /// Which machine.
    pub machine_id: MachineId,
    /// What it has.
    pub capacity: Resources,
    /// How many pods it takes.
    pub pods_max: u32,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What the agent says of its machine.
    pub info: Labels,
    /// Processes of pods that it has and that are not its own any more.
    pub leftovers: Vec<Uid>,
    /// The boot that the control plane had its node in, as far as its agent knows; empty when it knows of none. A new boot
    /// counts only if it names the one that it follows: a word that was on its way for long names one that was followed since.
    pub former_boot: BootId,
    /// The addresses that its pods get, where they are its own.
    pub pod_range: Option<AddressRange>,
}

/// Why a pod or an attachment is gone: the evidence, or whose assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemovalCause {
    /// Evidence: its agent ended it and said so.
    Stopped,
    /// It never had a node.
    NeverPlaced,
    /// Assertion: a person force-deleted it.
    ForceDeleted,
    /// Assertion: a person removed its node.
    NodeRemoved,
    /// Evidence: the node's new boot proves that everything of the old one is dead.
    NodeRestarted {
        /// The boot that ended.
        old: BootId,
        /// The boot that proves it.
        new: BootId,
    },
}

impl RemovalCause {
    /// Whether a person answers for it, rather than a machine proving it.
    #[must_use]
    pub const fn is_assertion(&self) -> bool {
        match self {
            Self::ForceDeleted | Self::NodeRemoved => true,
            Self::Stopped | Self::NeverPlaced | Self::NodeRestarted { .. } => false,
        }
    }
}

/// The revision and name of everything that an event is about, for indexes of events.
pub fn revisions_of(batch: &Batch) -> impl Iterator<Item = (Revision, &Event)> {
    batch.events.iter().enumerate().map(|(i, event)| (Revision(batch.base.0 + 1 + i as u64), event))
}

impl Event {
    /// Whether it is about the servers of the control plane.
    #[must_use]
    pub const fn is_of_servers(&self) -> bool {
        matches!(
            self,
            Self::ServersFounded { .. }
                | Self::ServerAdded { .. }
                | Self::ServerPromoted { .. }
                | Self::ServerAddressed { .. }
                | Self::ServerRemoved { .. }
        )
    }

    /// The kind and the key of the object that it is about; the namespace is empty for objects of the whole cluster.
    #[must_use]
    pub fn object(&self) -> (&'static str, Key) {
        let cluster_wide = |name: &str| Key { namespace: Name::default(), name: name.into() };
        match self {
            Self::ClusterFormed { cluster } => ("Cluster", cluster_wide(cluster.as_str())),
            Self::SetCreated { set, .. }
            | Self::SetUpdated { set, .. }
            | Self::SetScaled { set, .. }
            | Self::SetRemoved { set }
            | Self::RevisionTargeted { set, .. }
            | Self::RolloutCompleted { set, .. }
            | Self::RevisionForgotten { set, .. } => ("StatefulSet", set.clone()),
            Self::PodCreated { set, ordinal, .. } => ("Pod", set.pod(*ordinal)),
            Self::PodBound { pod, .. }
            | Self::PodUnplaced { pod, .. }
            | Self::PodReported { pod, .. }
            | Self::PodBecameAvailable { pod, .. }
            | Self::PodBecameUnavailable { pod, .. }
            | Self::PodDeletionRequested { pod, .. }
            | Self::PodRemoved { pod, .. }
            | Self::PodHeld { pod, .. }
            | Self::PodResumed { pod, .. }
            | Self::PodOrphaned { pod, .. }
            | Self::PodAdopted { pod, .. }
            | Self::PodMarked { pod, .. }
            | Self::PodFinalizersChanged { pod, .. }
            | Self::PodEnded { pod, .. } => ("Pod", pod.clone()),
            Self::ClaimCreated { claim, .. }
            | Self::ClaimUpdated { claim, .. }
            | Self::ClaimBound { claim, .. }
            | Self::ClaimDeletionRequested { claim }
            | Self::ClaimRemoved { claim }
            | Self::ClaimLost { claim }
            | Self::ClaimFinalizersChanged { claim, .. } => ("PersistentVolumeClaim", claim.clone()),
            Self::VolumeCreated { volume, .. }
            | Self::VolumeUpdated { volume, .. }
            | Self::VolumeGrowthBegan { volume, .. }
            | Self::VolumeGrown { volume }
            | Self::VolumeReleased { volume }
            | Self::VolumeDeletionRequested { volume }
            | Self::VolumeRemoved { volume }
            | Self::AttachmentRequested { volume, .. }
            | Self::VolumeAttached { volume, .. }
            | Self::AttachmentReleased { volume, .. } => ("PersistentVolume", cluster_wide(volume.as_str())),
            Self::ClassApplied { class, .. } | Self::ClassRemoved { class } => {
                ("StorageClass", cluster_wide(class.as_str()))
            }
            Self::ServiceApplied { service, .. } | Self::ServiceRemoved { service } => ("Service", service.clone()),
            Self::BudgetApplied { budget, .. } | Self::BudgetRemoved { budget } => {
                ("PodDisruptionBudget", budget.clone())
            }
            Self::ConfigApplied { kind, config, .. } | Self::ConfigRemoved { kind, config } => {
                (kind.kind(), config.clone())
            }
            Self::NodeRegistered { node, .. }
            | Self::NodeMarked { node, .. }
            | Self::NodeUpdated { node, .. }
            | Self::NodeUnreachable { node, .. }
            | Self::NodeReturned { node, .. }
            | Self::LeftoversEnded { node, .. }
            | Self::NodeCordoned { node }
            | Self::NodeUncordoned { node }
            | Self::NodeShutdownBegan { node, .. }
            | Self::NodeShutdownEnded { node }
            | Self::NodeRemoved { node } => ("Node", cluster_wide(node.as_str())),
            Self::ServersFounded { .. } => ("Server", Key::default()),
            Self::ServerAdded { server, .. }
            | Self::ServerPromoted { server }
            | Self::ServerAddressed { server, .. }
            | Self::ServerRemoved { server } => ("Server", cluster_wide(&server.name())),
        }
    }
}
