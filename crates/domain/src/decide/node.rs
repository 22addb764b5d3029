//! What people and agents may say about nodes: the refusal's evidence and two of its exits are here.

use super::{Decision, not_found, pod, removal, removal_of_all};
use crate::command::{PodReport, Rejection};
use crate::event::{Event, Registration, RemovalCause};
use crate::id::{Incarnation, Name, NodeName, Uid, VolumeName};
use crate::object::{Node, Pod, Volume, VolumePhase};
use crate::spec::Labels;
use crate::state::State;
use mutants::{Mutant, is_on};
use std::sync::Arc;

pub(super) fn cordon(state: &State, name: &NodeName, wanted: bool) -> Decision {
    let node = state.nodes.get(name).ok_or_else(|| not_found("node", name))?;
    if node.is_cordoned == wanted {
        return Ok(Vec::new());
    }
    let node = name.clone();
    Ok(vec![if wanted { Event::NodeCordoned { node } } else { Event::NodeUncordoned { node } }])
}

/// What people wrote: all labels but those that the agent gives with the same value.
pub(super) fn mark(state: &State, name: &NodeName, labels: &Labels, annotations: &Labels) -> Decision {
    let node = state.nodes.get(name).ok_or_else(|| not_found("node", name))?;
    let is_given =
        |label: &Name, value: &Name| !node.own_labels.contains_key(label) && node.meta.labels.get(label) == Some(value);
    let own: Labels = labels.iter().filter(|(l, v)| !is_given(l, v)).map(|(l, v)| (l.clone(), v.clone())).collect();
    if node.own_labels == own && node.meta.annotations == *annotations {
        return Ok(Vec::new());
    }
    Ok(vec![Event::NodeMarked { node: name.clone(), labels: own, annotations: annotations.clone() }])
}

/// Exit: a person says that the node is gone (Decision 5). Refused while its heartbeats say otherwise.
pub(super) fn remove(state: &State, name: &NodeName) -> Decision {
    let node = state.nodes.get(name).ok_or_else(|| not_found("node", name))?;
    if node.unreachable.is_none() && 0 < node.pod_count && !is_on(Mutant::LiveNodeRemoved) {
        return Err(Rejection::NodeIsAlive { node: name.clone(), pod_count: node.pod_count });
    }
    let mut events = end_all(state, name, &RemovalCause::NodeRemoved);
    events.push(Event::NodeRemoved { node: name.clone() });
    Ok(events)
}

fn end_all(state: &State, name: &NodeName, cause: &RemovalCause) -> Vec<Event> {
    let pods: Vec<_> = state.pods_on(name).map(|(key, pod)| (key, &**pod)).collect();
    let mut events = removal_of_all(state, &pods, cause);
    for (volume, record) in &state.volumes {
        let Some(attachment) = record.attachments.get(name) else { continue };
        let released = Event::AttachmentReleased {
            volume: volume.clone(),
            node: name.clone(),
            fence: attachment.fence,
            cause: cause.clone(),
        };
        if !events.contains(&released) {
            events.push(released);
        }
    }
    events
}

/// An agent begins a session. The same boot goes on; a new boot is the third exit: evidence that every process of
/// the old one is dead (Decision 3).
pub(super) fn register(state: &State, name: &NodeName, registration: &Registration, running: &[Uid]) -> Decision {
    let Some(node) = state.nodes.get(name) else {
        return Ok(vec![registered(state, name, registration, running.to_vec())]);
    };
    if node.machine_id != registration.machine_id {
        return Err(Rejection::NameBelongsToOtherMachine {
            node: name.clone(),
            offered: registration.machine_id.to_string(),
            actual: node.machine_id.to_string(),
        });
    }
    if node.boot_id == registration.boot_id && !is_on(Mutant::OldBootAsRestart) {
        return Ok(resumed(state, name, node, registration, running));
    }
    // Whoever names the boot that is known here was started after it: one machine has one boot at a time. A word that was on
    // its way for long may come from a boot that has ended since; it names an earlier one, and proves nothing.
    let is_unchecked = is_on(Mutant::FormerBootUnchecked) || is_on(Mutant::OldBootAsRestart);
    if node.boot_id != registration.former_boot && !is_unchecked {
        return Err(Rejection::FollowsOtherBoot {
            node: name.clone(),
            offered: registration.boot_id.clone(),
            actual: node.boot_id.clone(),
        });
    }
    let cause = RemovalCause::NodeRestarted { old: node.boot_id.clone(), new: registration.boot_id.clone() };
    let mut events = end_all(state, name, &cause);
    events.push(registered(state, name, registration, running.to_vec()));
    Ok(events)
}

fn registered(state: &State, name: &NodeName, registration: &Registration, leftovers: Vec<Uid>) -> Event {
    let incarnation = state.node_incarnations.get(name).copied().unwrap_or_default().next();
    let registration = Registration { leftovers, ..registration.clone() };
    Event::NodeRegistered { node: name.clone(), incarnation, registration }
}

fn resumed(state: &State, name: &NodeName, node: &Node, registration: &Registration, running: &[Uid]) -> Vec<Event> {
    let own: Vec<Uid> = state.pods_on(name).map(|(_, pod)| pod.meta.uid).collect();
    let leftovers: Vec<Uid> = running.iter().copied().filter(|uid| !own.contains(uid)).collect();
    let mut events = Vec::new();
    if node.unreachable.is_some() || node.leftovers != leftovers {
        events.push(Event::NodeReturned { node: name.clone(), leftovers });
    }
    for (key, pod) in state.pods_on(name).filter(|(_, pod)| pod.hold.is_some()) {
        if is_on(Mutant::ResumedPodReplaced) {
            events.extend(removal(state, key, pod, &RemovalCause::Stopped));
            continue;
        }
        events.push(Event::PodResumed { pod: key.clone(), uid: pod.meta.uid });
    }
    let is_same = node.capacity == registration.capacity
        && node.pods_max == registration.pods_max
        && node.given_labels().eq(&registration.labels)
        && node.taints == registration.taints
        && node.info == registration.info
        && node.pod_range == registration.pod_range;
    if !is_same {
        events.push(Event::NodeUpdated { node: name.clone(), registration: registration.clone() });
    }
    events
}

/// The refusal begins: the node is unreachable, its pods are held. Nothing is deleted, moved or detached.
pub(super) fn note_silence(state: &State, name: &NodeName, incarnation: Incarnation, heard_at_ms: u64) -> Vec<Event> {
    let Some(node) = state.nodes.get(name) else { return Vec::new() };
    if node.incarnation != incarnation || node.unreachable.is_some() {
        return Vec::new();
    }
    let mut events = vec![Event::NodeUnreachable { node: name.clone(), heard_at_ms }];
    for (key, pod) in state.pods_on(name) {
        events.push(Event::PodHeld { pod: key.clone(), uid: pod.meta.uid, node: name.clone(), heard_at_ms });
    }
    if is_on(Mutant::RescheduleOnSilence) {
        events.extend(end_all(state, name, &RemovalCause::NodeRemoved));
    } else if is_on(Mutant::DetachOnTime) {
        let ends = end_all(state, name, &RemovalCause::NodeRemoved).into_iter();
        events.extend(ends.filter(|end| matches!(end, Event::AttachmentReleased { .. })));
    }
    events
}

/// A node that is shut down in good order (semantics A11-166): what runs on it ends as by any other deletion, so its agent's
/// word releases it, and nothing is held when the node falls silent. Budgets are not asked: the machine goes either way.
pub(super) fn note_shutdown(
    state: &State,
    name: &NodeName,
    incarnation: Incarnation,
    grace_ms: Option<u64>,
) -> Decision {
    let Some(node) = state.nodes.get(name).filter(|node| node.incarnation == incarnation) else {
        return Ok(Vec::new());
    };
    let node_name = name.clone();
    match (grace_ms, &node.shutdown) {
        (Some(grace_ms), None) => {
            let mut events = vec![Event::NodeShutdownBegan { node: node_name, grace_ms }];
            for (key, pod) in state.pods_on(name) {
                events.extend(pod::delete(state, key, Some(pod.template.grace_ms.min(grace_ms)), false, None)?);
            }
            Ok(events)
        }
        (None, Some(_)) => Ok(vec![Event::NodeShutdownEnded { node: node_name }]),
        (Some(_), Some(_)) | (None, None) => Ok(Vec::new()),
    }
}

pub(super) fn report(
    state: &State,
    name: &NodeName,
    incarnation: Incarnation,
    reports: &[PodReport],
    ended: &[Uid],
    removed_volumes: &[VolumeName],
) -> Decision {
    let node = state.nodes.get(name).ok_or_else(|| not_found("node", name))?;
    if node.incarnation != incarnation && !is_on(Mutant::SupersededReport) {
        return Err(Rejection::IncarnationSuperseded {
            node: name.clone(),
            offered: incarnation,
            actual: node.incarnation,
        });
    }
    let (mut events, mut gone) = (Vec::new(), Vec::new());
    for report in reports {
        // A word about a pod that is not this node's any more is stale: the assignment tells the agent to end it.
        let is_own = |pod: &Pod| {
            pod.meta.uid == report.uid
                && pod.binding.as_ref().is_some_and(|b| b.node == *name && b.incarnation == incarnation)
        };
        if let Some(pod) = state.pods.get(&report.pod)
            && (is_own(pod) || is_on(Mutant::SupersededReport))
        {
            if report.is_gone {
                gone.push((&report.pod, &**pod));
            } else {
                report_pod(state, name, pod, report, &mut events);
            }
        }
    }
    events.extend(removal_of_all(state, &gone, &RemovalCause::Stopped));
    let ended: Vec<Uid> = ended.iter().copied().filter(|uid| node.leftovers.contains(uid)).collect();
    if !ended.is_empty() {
        events.push(Event::LeftoversEnded { node: name.clone(), ended });
    }
    for volume in removed_volumes {
        if state.volumes.get(volume).is_some_and(|v| v.phase == VolumePhase::Deleting) {
            events.push(Event::VolumeRemoved { volume: volume.clone() });
        }
    }
    Ok(events)
}

fn report_pod(state: &State, node: &NodeName, pod: &Pod, report: &PodReport, events: &mut Vec<Event>) {
    if report.has_volumes {
        for (name, volume) in state.volumes_of(pod) {
            if let Some(attachment) = volume.attachments.get(node).filter(|a| !a.is_attached) {
                events.push(Event::VolumeAttached {
                    volume: name.clone(),
                    node: node.clone(),
                    fence: attachment.fence,
                });
            }
        }
    }
    for size in &report.grown {
        // What was said of a smaller size may come late.
        let is_grown = |volume: &&Arc<Volume>| {
            volume.growth.is_some()
                && volume.spec.capacity_bytes <= size.size_bytes
                && volume.attachments.contains_key(node)
        };
        let grown = Event::VolumeGrown { volume: size.volume.clone() };
        if state.volumes.get(&size.volume).filter(is_grown).is_some() && !events.contains(&grown) {
            events.push(grown);
        }
    }
    if pod.status != report.status {
        events.push(Event::PodReported { pod: report.pod.clone(), uid: report.uid, status: report.status.clone() });
    }
}
