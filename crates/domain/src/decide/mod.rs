//! From a command to events, or to the reason why not. All rules about what people and agents may ask are here;
//! what follows by itself is the planners' (`plan`).

mod node;
mod set;
mod storage;

use crate::command::{Command, Rejection, Request};
use crate::event::{Event, RemovalCause};
use crate::id::{Key, Revision};
use crate::object::Pod;
use crate::state::State;

type Decision = Result<Vec<Event>, Rejection>;

/// Decides one request.
///
/// # Errors
/// The fact that is missing.
pub(crate) fn decide(state: &State, request: &Request, _at_ms: u64) -> Decision {
    check_expected(state, request)?;
    match &request.command {
        Command::FormCluster { cluster } if state.revision == Revision(0) => {
            Ok(vec![Event::ClusterFormed { cluster: cluster.clone() }])
        }
        Command::FormCluster { .. } | Command::PassTime => Ok(Vec::new()),
        Command::ApplySet { set, labels, annotations, spec } => set::apply(state, set, labels, annotations, spec),
        Command::ScaleSet { set, replicas, current } => set::scale(state, set, *replicas, *current),
        Command::DeleteSet { set, orphan } => set::delete(state, set, *orphan),
        Command::DeletePod { pod, grace_ms, force } => delete_pod(state, pod, *grace_ms, *force),
        Command::ApplyClaim { claim, labels, spec } => storage::apply_claim(state, claim, labels, spec),
        Command::DeleteClaim { claim } => storage::delete_claim(state, claim),
        Command::ApplyVolume { volume, labels, spec } => storage::apply_volume(state, volume, labels, spec),
        Command::DeleteVolume { volume } => storage::delete_volume(state, volume),
        Command::ApplyClass { class, spec } => Ok(storage::apply_class(state, class, spec)),
        Command::DeleteClass { class } => storage::delete_class(state, class),
        Command::ApplyService { service, labels, annotations, spec } => {
            Ok(storage::apply_service(state, service, labels, annotations, spec))
        }
        Command::DeleteService { service } => storage::delete_service(state, service),
        Command::CordonNode { node } => node::cordon(state, node, true),
        Command::UncordonNode { node } => node::cordon(state, node, false),
        Command::RemoveNode { node } => node::remove(state, node),
        Command::RegisterNode { node, registration, running } => node::register(state, node, registration, running),
        Command::Report { node, incarnation, reports, ended, removed_volumes } => {
            node::report(state, node, *incarnation, reports, ended, removed_volumes)
        }
        Command::NoteSilence { node, incarnation, heard_at_ms } => {
            Ok(node::note_silence(state, node, *incarnation, *heard_at_ms))
        }
    }
}

/// The error for an object that is not there.
fn not_found(kind: &'static str, name: impl ToString) -> Rejection {
    Rejection::NotFound { kind, name: name.to_string() }
}

/// Refuses when the object moved on since the caller read it.
fn check_expected(state: &State, request: &Request) -> Result<(), Rejection> {
    let Some(expected) = request.expected else { return Ok(()) };
    let found = match &request.command {
        Command::ApplySet { set, .. } | Command::ScaleSet { set, .. } | Command::DeleteSet { set, .. } => {
            state.sets.get(set).map(|s| ("statefulset", set.name.to_string(), s.meta.modified))
        }
        Command::DeletePod { pod, .. } => state.pods.get(pod).map(|p| ("pod", pod.name.to_string(), p.meta.modified)),
        Command::DeleteClaim { claim } => {
            state.claims.get(claim).map(|c| ("persistentvolumeclaim", claim.name.to_string(), c.meta.modified))
        }
        Command::ApplyService { service, .. } => {
            state.services.get(service).map(|s| ("service", service.name.to_string(), s.meta.modified))
        }
        Command::CordonNode { node } | Command::UncordonNode { node } | Command::RemoveNode { node } => {
            state.nodes.get(node).map(|n| ("node", node.to_string(), n.meta.modified))
        }
        _ => None,
    };
    match found {
        Some((kind, name, actual)) if actual != expected => {
            Err(Rejection::RevisionMoved { kind, name, expected, actual })
        }
        _ => Ok(()),
    }
}

fn delete_pod(state: &State, key: &Key, grace_ms: Option<u64>, force: bool) -> Decision {
    let pod = state.pods.get(key).ok_or_else(|| not_found("pod", &key.name))?;
    if force && pod.hold.is_some() {
        return Ok(removal(state, key, pod, &RemovalCause::ForceDeleted));
    }
    let wanted = grace_ms.unwrap_or(pod.template.grace_ms);
    // A stop that is under way may be hastened, never put off (semantics A8-96).
    let grace_ms = pod.deletion.as_ref().map_or(wanted, |d| d.grace_ms.min(wanted));
    let is_forced = force || pod.deletion.as_ref().is_some_and(|d| d.is_forced);
    if pod.deletion.as_ref().is_some_and(|d| d.grace_ms == grace_ms && d.is_forced == is_forced) {
        return Ok(Vec::new());
    }
    Ok(vec![Event::PodDeletionRequested { pod: key.clone(), uid: pod.meta.uid, grace_ms, is_forced }])
}

/// The end of a pod, and of its hold on its volumes.
///
/// Invariant `time-alone-never-detaches`: every caller has the agent's word, a new boot or a person's assertion,
/// and says which in `cause`.
pub(crate) fn removal(state: &State, key: &Key, pod: &Pod, cause: &RemovalCause) -> Vec<Event> {
    let mut events = vec![Event::PodRemoved { pod: key.clone(), uid: pod.meta.uid, cause: cause.clone() }];
    let Some(binding) = &pod.binding else { return events };
    for claim in &pod.claims {
        let Some(volume) = state.claims.get(&claim.claim).and_then(|c| c.volume.as_ref()) else { continue };
        let Some(attachment) = state.volumes.get(volume).and_then(|v| v.attachments.get(&binding.node)) else {
            continue;
        };
        let is_shared = state
            .users(&claim.claim)
            .any(|(other, p)| other != key && p.binding.as_ref().is_some_and(|b| b.node == binding.node));
        if !is_shared {
            events.push(Event::AttachmentReleased {
                volume: volume.clone(),
                node: binding.node.clone(),
                fence: attachment.fence,
                cause: cause.clone(),
            });
        }
    }
    events
}
