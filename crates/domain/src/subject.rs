//! Which object each event of a batch is about, by identity rather than by name. Never changes anything.

use crate::config::ConfigKind;
use crate::event::{Batch, Event};
use crate::id::{ClassName, NodeName, Revision, Uid, VolumeName};
use crate::object::Meta;
use crate::revisions_of;
use crate::state::State;

/// The identities of what a batch's events are about, in their order; `state` is the state after the batch.
#[must_use]
pub fn subjects(state: &State, batch: &Batch) -> Vec<Option<Uid>> {
    revisions_of(batch).map(|(revision, event)| subject(state, revision, event)).collect()
}

/// The event's own word, or else the object that has the name now.
fn subject(state: &State, revision: Revision, event: &Event) -> Option<Uid> {
    match event {
        Event::PodReported { uid, .. }
        | Event::PodBecameAvailable { uid, .. }
        | Event::PodBecameUnavailable { uid, .. }
        | Event::PodDeletionRequested { uid, .. }
        | Event::PodRemoved { uid, .. }
        | Event::PodHeld { uid, .. }
        | Event::PodResumed { uid, .. }
        | Event::PodOrphaned { uid, .. }
        | Event::PodAdopted { uid, .. }
        | Event::PodMarked { uid, .. }
        | Event::PodFinalizersChanged { uid, .. }
        | Event::PodEnded { uid, .. } => return Some(*uid),
        // An object's identity is the revision that made it.
        Event::SetCreated { .. }
        | Event::PodCreated { .. }
        | Event::ClaimCreated { .. }
        | Event::VolumeCreated { .. } => return Some(Uid(revision.0)),
        _ => {}
    }
    let (kind, key) = event.object();
    let name = key.name.as_str();
    let meta: Option<&Meta> = match kind {
        "StatefulSet" => state.sets.get(&key).map(|set| &set.meta),
        "Pod" => state.pods.get(&key).map(|pod| &pod.meta),
        "PersistentVolumeClaim" => state.claims.get(&key).map(|claim| &claim.meta),
        "PersistentVolume" => state.volumes.get(&VolumeName::new(name)).map(|volume| &volume.meta),
        "StorageClass" => state.classes.get(&ClassName::new(name)).map(|class| &class.meta),
        "PodDisruptionBudget" => state.budgets.get(&key).map(|budget| &budget.meta),
        "ConfigMap" => state.configs.get(&(ConfigKind::ConfigMap, key)).map(|config| &config.meta),
        "Secret" => state.configs.get(&(ConfigKind::Secret, key)).map(|config| &config.meta),
        "Service" => state.services.get(&key).map(|service| &service.meta),
        "Node" => state.nodes.get(&NodeName::new(name)).map(|node| &node.meta),
        _ => None,
    };
    meta.map(|meta| meta.uid)
}
