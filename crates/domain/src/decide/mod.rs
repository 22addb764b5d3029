//! From a command to events, or to the reason why not. All rules about what people and agents may ask are here;
//! what follows by itself is the planners' (`plan`).

mod config;
mod node;
mod pod;
mod server;
mod set;
mod storage;

use crate::command::{Command, Rejection, Request};
use crate::event::{Event, RemovalCause};
use crate::id::{Key, Revision};
use crate::object::{Meta, Pod};
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
        Command::ScaleSet { set, replicas, current, force_unready } => {
            set::scale(state, set, *replicas, *current, *force_unready)
        }
        Command::UndoRollout { set, to } => set::undo(state, set, *to),
        Command::PauseRollout { set, is_paused } => set::pause(state, set, *is_paused),
        Command::DeleteSet { set, orphan } => set::delete(state, set, *orphan),
        Command::DeletePod { pod, grace_ms, force, uid } => pod::delete(state, pod, *grace_ms, *force, uid.as_ref()),
        Command::EvictPod { pod, grace_ms, uid } => pod::evict(state, pod, *grace_ms, uid.as_ref()),
        Command::MarkPod { pod, labels, annotations, finalizers } => {
            pod::mark(state, pod, labels, annotations, finalizers)
        }
        Command::ApplyClaim { claim, labels, spec, annotations, finalizers } => {
            storage::apply_claim(state, claim, labels, annotations, finalizers, spec)
        }
        Command::DeleteClaim { claim } => storage::delete_claim(state, claim),
        Command::ApplyVolume { volume, labels, spec, annotations } => {
            storage::apply_volume(state, volume, labels, annotations, spec)
        }
        Command::DeleteVolume { volume } => storage::delete_volume(state, volume),
        Command::ApplyClass { class, spec, labels, annotations } => {
            Ok(storage::apply_class(state, class, labels, annotations, spec))
        }
        Command::DeleteClass { class } => storage::delete_class(state, class),
        Command::ApplyService { service, labels, annotations, spec, address } => {
            storage::apply_service(state, service, labels, annotations, spec, *address)
        }
        Command::DeleteService { service } => storage::delete_service(state, service),
        Command::ApplyBudget { budget, labels, annotations, spec } => {
            Ok(storage::apply_budget(state, budget, labels, annotations, spec))
        }
        Command::DeleteBudget { budget } => storage::delete_budget(state, budget),
        Command::ApplyConfig { kind, config, labels, annotations, spec } => {
            config::apply(state, *kind, config, labels, annotations, spec)
        }
        Command::DeleteConfig { kind, config } => config::delete(state, *kind, config),
        Command::MarkNode { node, labels, annotations } => node::mark(state, node, labels, annotations),
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
        Command::NoteShutdown { node, incarnation, grace_ms } => {
            node::note_shutdown(state, node, *incarnation, *grace_ms)
        }
        Command::FoundServers { servers } => Ok(server::found(state, servers)),
        Command::AddServer { server, address } => server::add(state, *server, address),
        Command::PromoteServer { server } => server::promote(state, *server),
        Command::AddressServer { server, address } => server::readdress(state, *server, address),
        Command::RemoveServer { server } => server::remove(state, *server),
    }
}

/// The error for an object that is not there.
fn not_found(kind: &'static str, name: impl ToString) -> Rejection {
    Rejection::NotFound { kind, name: name.to_string() }
}

/// Refuses when the object moved on since the caller read it. Revision 0 says that it must not exist.
fn check_expected(state: &State, request: &Request) -> Result<(), Rejection> {
    let Some(expected) = request.expected else { return Ok(()) };
    let Some((kind, name, actual)) = target(state, &request.command) else { return Ok(()) };
    match actual {
        Some(actual) if actual == expected => Ok(()),
        Some(actual) => Err(Rejection::RevisionMoved { kind, name, expected, actual }),
        None if expected == Revision(0) => Ok(()),
        None => Err(Rejection::NotFound { kind, name }),
    }
}

/// What a person's command changes: its kind, its name, and the revision that last changed it if it is there.
fn target(state: &State, command: &Command) -> Option<(&'static str, String, Option<Revision>)> {
    let named = |kind, key: &Key, meta: Option<&Meta>| (kind, key.name.to_string(), meta.map(|meta| meta.modified));
    let (kind, name, modified) = match command {
        Command::ApplySet { set, .. }
        | Command::ScaleSet { set, .. }
        | Command::UndoRollout { set, .. }
        | Command::PauseRollout { set, .. }
        | Command::DeleteSet { set, .. } => named("statefulset", set, state.sets.get(set).map(|s| &s.meta)),
        Command::DeletePod { pod, .. } | Command::EvictPod { pod, .. } | Command::MarkPod { pod, .. } => {
            named("pod", pod, state.pods.get(pod).map(|p| &p.meta))
        }
        Command::ApplyBudget { budget, .. } | Command::DeleteBudget { budget } => {
            named("poddisruptionbudget", budget, state.budgets.get(budget).map(|b| &b.meta))
        }
        Command::ApplyConfig { kind, config, .. } | Command::DeleteConfig { kind, config } => {
            named(kind.word(), config, state.configs.get(&(*kind, config.clone())).map(|c| &c.meta))
        }
        Command::ApplyClaim { claim, .. } | Command::DeleteClaim { claim } => {
            named("persistentvolumeclaim", claim, state.claims.get(claim).map(|c| &c.meta))
        }
        Command::ApplyService { service, .. } | Command::DeleteService { service } => {
            named("service", service, state.services.get(service).map(|s| &s.meta))
        }
        Command::ApplyVolume { volume, .. } | Command::DeleteVolume { volume } => {
            ("persistentvolume", volume.to_string(), state.volumes.get(volume).map(|v| v.meta.modified))
        }
        Command::ApplyClass { class, .. } | Command::DeleteClass { class } => {
            ("storageclass", class.to_string(), state.classes.get(class).map(|c| c.meta.modified))
        }
        Command::CordonNode { node }
        | Command::UncordonNode { node }
        | Command::MarkNode { node, .. }
        | Command::RemoveNode { node } => ("node", node.to_string(), state.nodes.get(node).map(|n| n.meta.modified)),
        Command::FormCluster { .. }
        | Command::RegisterNode { .. }
        | Command::Report { .. }
        | Command::NoteSilence { .. }
        | Command::NoteShutdown { .. }
        | Command::PassTime
        | Command::FoundServers { .. }
        | Command::AddServer { .. }
        | Command::PromoteServer { .. }
        | Command::AddressServer { .. }
        | Command::RemoveServer { .. } => return None,
    };
    Some((kind, name, modified))
}

/// The end of a pod, and of its hold on its volumes.
pub(crate) fn removal(state: &State, key: &Key, pod: &Pod, cause: &RemovalCause) -> Vec<Event> {
    removal_of_all(state, &[(key, pod)], cause)
}

/// The end of several pods at once, and of their hold on their volumes: a volume that they share with nobody else goes
/// with the last of them.
///
/// Invariant `time-alone-never-detaches`: every caller has the agent's word, a new boot or a person's assertion,
/// and says which in `cause`.
pub(crate) fn removal_of_all(state: &State, leaving: &[(&Key, &Pod)], cause: &RemovalCause) -> Vec<Event> {
    let (mut events, mut releases) = (Vec::new(), Vec::new());
    for (key, pod) in leaving {
        let (pod_key, uid, by) = ((*key).clone(), pod.meta.uid, cause.clone());
        // Whatever ends it, its finalizers keep its object: force takes the place of evidence, and of nothing else.
        events.push(match pod.finalizers.as_slice() {
            [] => Event::PodRemoved { pod: pod_key, uid, cause: by },
            [..] => Event::PodEnded { pod: pod_key, uid, cause: by },
        });
        let Some(binding) = &pod.binding else { continue };
        for claim in &pod.claims {
            let Some(volume) = state.claims.get(&claim.claim).and_then(|c| c.volume.as_ref()) else { continue };
            let Some(attachment) = state.volumes.get(volume).and_then(|v| v.attachments.get(&binding.node)) else {
                continue;
            };
            let stays = |other: &Key| leaving.iter().all(|(key, _)| *key != other);
            let is_here = |pod: &Pod| pod.binding.as_ref().is_some_and(|b| b.node == binding.node);
            if state.users(&claim.claim).any(|(other, pod)| stays(other) && is_here(pod)) {
                continue;
            }
            let released = Event::AttachmentReleased {
                volume: volume.clone(),
                node: binding.node.clone(),
                fence: attachment.fence,
                cause: cause.clone(),
            };
            if !releases.contains(&released) {
                releases.push(released);
            }
        }
    }
    // Nothing is detached under a pod that has yet to go.
    events.extend(releases);
    events
}
