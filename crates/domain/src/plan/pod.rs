//! Pods: placing them, ending those that never had a node, and counting them as available in time.

use crate::address;
use crate::decide::removal;
use crate::draft::Draft;
use crate::event::{Event, RemovalCause};
use crate::id::{Fence, Key, NodeName};
use crate::object::{Pod, Volume};
use crate::plan::{claim, placement};
use crate::state::State;
use mutants::{Mutant, is_on};

/// Takes the step that the pod can take now.
pub(crate) fn settle(draft: &mut Draft, key: &Key) {
    let state = draft.state();
    let Some(pod) = state.pods.get(key).cloned() else { return };
    if let Some(deletion) = &pod.deletion {
        if let Some(end) = &pod.end {
            if pod.finalizers.is_empty() {
                let (pod_key, cause) = (key.clone(), end.cause.clone());
                record(draft, vec![Event::PodRemoved { pod: pod_key, uid: pod.meta.uid, cause }]);
            }
        } else if pod.binding.is_none() || is_on(Mutant::GoneBeforeStopped) {
            record(draft, removal(draft.state(), key, &pod, &RemovalCause::NeverPlaced));
        } else if deletion.is_forced && pod.hold.is_some() {
            // Exit: it was force-deleted before its node was known to be cut off.
            record(draft, removal(draft.state(), key, &pod, &RemovalCause::ForceDeleted));
        }
        return;
    }
    let uid = pod.meta.uid;
    if pod.binding.is_none() {
        bind(draft, key, &pod);
    } else if pod.is_ready() && pod.is_available != is_ripe(state, key, &pod) {
        let pod_key = key.clone();
        record(
            draft,
            vec![match pod.is_available {
                false => Event::PodBecameAvailable { pod: pod_key, uid },
                true => Event::PodBecameUnavailable { pod: pod_key, uid },
            }],
        );
    }
}

fn record(draft: &mut Draft, events: Vec<Event>) {
    for event in events {
        draft.record(event);
    }
}

fn is_ripe(state: &State, key: &Key, pod: &Pod) -> bool {
    let set = Key { namespace: key.namespace.clone(), name: pod.set.clone() };
    let min_ready_ms = state.sets.get(&set).map_or(0, |s| s.spec.min_ready_ms);
    pod.ready_at_ms.saturating_add(min_ready_ms) <= state.at_ms || is_on(Mutant::MinReadyIgnored)
}

fn bind(draft: &mut Draft, key: &Key, pod: &Pod) {
    let state = draft.state();
    let node = match placement::choose(state, key, pod) {
        Ok(node) => node,
        Err(why) => {
            if pod.unplaced.as_ref() != Some(&why) {
                record(draft, vec![Event::PodUnplaced { pod: key.clone(), why }]);
            }
            return;
        }
    };
    let range = state.nodes.get(&node).map_or(address::PODS, |node| address::range_of(node));
    let Some(address) = address::free(state, range, pod.meta.uid) else { return };
    // Claims that waited for a consumer get their volumes now.
    for pod_claim in &pod.claims {
        if let Some(found) = draft.state().claims.get(&pod_claim.claim).cloned()
            && found.volume.is_none()
        {
            record(draft, claim::bind(draft.state(), &pod_claim.claim, &found, false));
        }
    }
    let mut events = vec![Event::PodBound { pod: key.clone(), node: node.clone(), address }];
    events.extend(attachments(draft.state(), pod, &node));
    record(draft, events);
}

/// Each volume that the node does not have yet is attached.
fn attachments(state: &State, pod: &Pod, node: &NodeName) -> Vec<Event> {
    state
        .volumes_of(pod)
        .filter(|(_, volume)| !volume.attachments.contains_key(node))
        .map(|(name, volume)| Event::AttachmentRequested {
            volume: name.clone(),
            node: node.clone(),
            fence: fence_for_next(state, volume),
        })
        .collect()
}

/// A fence higher than any before: the revision, which goes up for ever, so that a volume that is made again under its
/// old name does not begin anew. A volume that several nodes may have at once keeps its fence as long as any has it: who
/// joins takes it from nobody, and whoever has it already must be able to attach it to one more pod.
fn fence_for_next(state: &State, volume: &Volume) -> Fence {
    if is_on(Mutant::FenceNotRaised) || volume.is_joined() {
        return volume.fence;
    }
    Fence(state.revision.0).max(volume.fence).next()
}
