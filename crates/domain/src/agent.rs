//! What servers and agents say to each other. Level-triggered: an assignment lists everything that should run.

use crate::command::PodReport;
use crate::config::{ConfigKind, ConfigSpec};
use crate::event::Registration;
use crate::id::{BootId, Fence, Incarnation, Key, Name, NodeName, Ordinal, Revision, Uid, VolumeName};
use crate::spec::Template;
use std::sync::Arc;

/// From an agent to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromAgent {
    /// The first message of a session.
    Register { node: NodeName, registration: Registration, running: Vec<Uid> },
    /// The agent lives; `sent_at_ms` is its own clock, echoed. With `shutdown_within_ms`, its node is being shut down, and
    /// its pods get at most this time to end.
    Heartbeat { sent_at_ms: u64, shutdown_within_ms: Option<u64> },
    /// News, resent until acknowledged. `number` goes up.
    Report {
        number: u64,
        incarnation: Incarnation,
        pods: Vec<PodReport>,
        ended: Vec<Uid>,
        removed_volumes: Vec<VolumeName>,
    },
}

/// From the leader to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    /// The session stands.
    Registered { incarnation: Incarnation },
    /// Heard; committed members agree that this server leads.
    HeartbeatAcked { sent_at_ms: u64 },
    /// A report is committed, or refused for good.
    ReportAcked { number: u64 },
    /// Everything that should be here, at a revision.
    Assign(Assignment),
    /// Go to another server, or register again.
    Redirect { leader: Option<u64> },
    /// The registration is refused.
    Refused { reason: String },
    /// The node is known in this boot: whoever follows it is to name it, and register again.
    KnownIn { boot_id: BootId },
}

/// Everything that should be on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// As of.
    pub revision: Revision,
    /// For this start of the node.
    pub incarnation: Incarnation,
    /// The pods, in the order of their names. What has not changed since the last assignment is shared with it.
    pub pods: Vec<Arc<AssignedPod>>,
    /// Volumes whose storage this node is to remove.
    pub removals: Vec<VolumeRemoval>,
    /// The config maps and secrets that the pods refer to, as far as they are there.
    pub configs: Vec<AssignedConfig>,
    /// It is known that the node is being shut down: what is not here now does not come any more.
    pub is_shutting_down: bool,
}

/// A config map or a secret that pods refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedConfig {
    /// Of which kind.
    pub kind: ConfigKind,
    /// Its name.
    pub config: Key,
    /// What it holds.
    pub spec: Arc<ConfigSpec>,
}

/// A pod that should be here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedPod {
    /// Its name.
    pub pod: Key,
    /// Which one of that name.
    pub uid: Uid,
    /// Its identity as people see it.
    pub uid_text: String,
    /// Its place.
    pub ordinal: Ordinal,
    /// Its set.
    pub set: Name,
    /// Its address, as a number.
    pub address: u32,
    /// Its service, or empty.
    pub service_name: Name,
    /// The pod's own labels.
    pub labels: crate::spec::Labels,
    /// What it looks like.
    pub template: Arc<Template>,
    /// Its volumes.
    pub volumes: Vec<AssignedVolume>,
    /// `Some`: it is to stop, within this time.
    pub stop_within_ms: Option<u64>,
    /// The pod's own annotations.
    pub annotations: crate::spec::Labels,
}

/// A volume of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedVolume {
    /// The name that mounts use.
    pub name: Name,
    /// The volume.
    pub volume: VolumeName,
    /// Its driver.
    pub driver: Name,
    /// The driver's name for it.
    pub handle: Name,
    /// The fence to hold it under.
    pub fence: Fence,
    /// The size that it should have.
    pub capacity_bytes: u64,
    /// The control plane waits to hear that it has that size.
    pub is_growing: bool,
}

/// A volume whose storage is to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRemoval {
    /// The volume.
    pub volume: VolumeName,
    /// Its driver.
    pub driver: Name,
    /// The driver's name for it.
    pub handle: Name,
}
