//! What a node should have now, read off the state.

use super::touched::Touch;
use crate::agent::{AssignedConfig, AssignedPod, AssignedVolume, Assignment, VolumeRemoval};
use crate::driver;
use crate::id::{Incarnation, Key, NodeName, VolumeName};
use crate::object::{Node, Pod, Volume};
use crate::state::State;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Everything that should be on a node; `None` when it is not a member.
#[must_use]
pub fn assignment(state: &State, node: &NodeName) -> Option<Assignment> {
    let record = state.nodes.get(node)?;
    let here = state.pods_on(node).filter(|(_, pod)| is_here(pod, node, record.incarnation));
    let pods: Vec<_> = here.map(|(key, pod)| Arc::new(assigned(state, node, key, pod))).collect();
    let removals = state
        .removals()
        .filter_map(|name| state.volumes.get_key_value(name))
        .filter(|(_, volume)| remover(state, volume) == Some(node))
        .map(|(name, volume)| removal(name, volume))
        .collect();
    let configs = configs(state, &pods);
    Some(Assignment {
        revision: state.revision,
        incarnation: record.incarnation,
        pods,
        removals,
        configs,
        is_shutting_down: record.shutdown.is_some(),
    })
}

/// The same, for a node that was told `told` and has been touched like this since: what was not touched is not looked at
/// again, or each change would cost as much as the node has pods.
#[must_use]
pub fn assignment_after(state: &State, node: &NodeName, told: &Assignment, touch: &Touch) -> Option<Assignment> {
    let record = state.nodes.get(node)?;
    let Touch::Pods(touched) = touch else { return assignment(state, node) };
    if told.incarnation != record.incarnation {
        return assignment(state, node);
    }
    let mut pods: Vec<_> = told.pods.iter().filter(|pod| !touched.contains(&pod.pod)).map(Arc::clone).collect();
    for key in touched {
        if let Some(pod) = state.pods.get(key).filter(|pod| is_here(pod, node, record.incarnation)) {
            let at = pods.partition_point(|other| other.pod < *key);
            pods.insert(at, Arc::new(assigned(state, node, key, pod)));
        }
    }
    // Who removed a volume's storage said so itself, and is not touched by that.
    let is_left = |removal: &&VolumeRemoval| state.is_being_removed(&removal.volume);
    Some(Assignment {
        revision: state.revision,
        removals: told.removals.iter().filter(is_left).cloned().collect(),
        configs: configs(state, &pods),
        pods,
        ..*told
    })
}

/// Whether a pod is to run on this start of a node.
fn is_here(pod: &Pod, node: &NodeName, incarnation: Incarnation) -> bool {
    pod.binding.as_ref().is_some_and(|binding| binding.node == *node && binding.incarnation == incarnation)
}

/// What the pods refer to, as far as it is there.
fn configs(state: &State, pods: &[Arc<AssignedPod>]) -> Vec<AssignedConfig> {
    let wanted: BTreeSet<_> = pods.iter().flat_map(|pod| pod.template.configs(&pod.pod.namespace)).collect();
    let found = wanted.into_iter().filter_map(|key| state.configs.get_key_value(&key));
    found
        .map(|((kind, config), record)| AssignedConfig {
            kind: *kind,
            config: config.clone(),
            spec: Arc::clone(&record.spec),
        })
        .collect()
}

fn assigned(state: &State, node: &NodeName, key: &Key, pod: &Pod) -> AssignedPod {
    let volumes = pod
        .claims
        .iter()
        .filter_map(|pod_claim| {
            let name = state.claims.get(&pod_claim.claim)?.volume.as_ref()?;
            let volume = state.volumes.get(name)?;
            let fence = volume.attachments.get(node)?.fence;
            Some(AssignedVolume {
                name: pod_claim.volume.clone(),
                volume: name.clone(),
                driver: volume.spec.driver.clone(),
                handle: volume.spec.handle.clone(),
                fence,
                capacity_bytes: volume.spec.capacity_bytes,
                is_growing: volume.growth.is_some(),
            })
        })
        .collect();
    AssignedPod {
        pod: key.clone(),
        uid: pod.meta.uid,
        uid_text: uid_text(state, pod),
        ordinal: pod.ordinal,
        set: pod.set.clone(),
        address: pod.binding.as_ref().map_or(0, |b| b.address),
        service_name: pod.service_name.clone(),
        labels: pod.meta.labels.clone(),
        template: Arc::clone(&pod.template),
        volumes,
        stop_within_ms: pod.deletion.as_ref().map(|d| d.grace_ms),
        annotations: pod.meta.annotations.clone(),
    }
}

fn uid_text(state: &State, pod: &Pod) -> String {
    crate::uid_text(&state.cluster, pod.meta.uid)
}

/// The node that removes a volume's storage: any that is there, the same on every server.
fn remover<'a>(state: &'a State, volume: &Volume) -> Option<&'a NodeName> {
    let can_reach = |name: &NodeName| volume.spec.nodes.is_empty() || volume.spec.nodes.contains(name);
    let has_driver = |node: &Node| driver::refusal(node, &volume.spec.driver).is_none();
    let candidates: Vec<&NodeName> = state
        .nodes
        .iter()
        .filter(|(name, node)| node.unreachable.is_none() && can_reach(name) && has_driver(node))
        .map(|(name, _)| name)
        .collect();
    let count = u64::try_from(candidates.len()).ok().filter(|count| 0 < *count)?;
    let index = usize::try_from(volume.meta.uid.0 % count).ok()?;
    candidates.get(index).copied()
}

fn removal(name: &VolumeName, volume: &Volume) -> VolumeRemoval {
    VolumeRemoval { volume: name.clone(), driver: volume.spec.driver.clone(), handle: volume.spec.handle.clone() }
}
