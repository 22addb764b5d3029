//! The planners: what follows from the state by itself. Level-triggered and keyed: each looks at one object that
//! something happened to, records the next step, and is called again for what that step touched.

mod assignment;
pub(crate) mod claim;
mod placement;
pub(crate) mod pod;
pub(crate) mod set;
mod set_claim;
mod set_owner;
mod set_revision;
mod touched;

pub use assignment::{assignment, assignment_after};
pub(crate) use set_claim::claim_ends;
pub use touched::{Touch, Touched};

use crate::event::Event;

impl Event {
    /// The planner that records such events by itself, by the name that users of Kubernetes know it under.
    #[must_use]
    pub fn planner(&self) -> &'static str {
        match self {
            Self::PodBound { .. } | Self::PodUnplaced { .. } => "default-scheduler",
            Self::AttachmentRequested { .. } | Self::VolumeAttached { .. } | Self::AttachmentReleased { .. } => {
                "attachdetach-controller"
            }
            // A set makes its pods' claims.
            Self::ClaimCreated { .. } => "statefulset-controller",
            _ => match self.object().0 {
                "PersistentVolumeClaim" | "PersistentVolume" | "StorageClass" => "persistentvolume-controller",
                "Node" => "node-controller",
                _ => "statefulset-controller",
            },
        }
    }
}
