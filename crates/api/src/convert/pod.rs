//! How a pod is shown, and above all a held one: what is known, and what would end the hold.

use super::meta::{condition, meta_to_wire, owner_to_wire};
use super::template_out::{claim_volume, spec_to_wire};
use super::why::exit_to_wire;
use crate::time::format_ms;
use crate::v1;
use domain::State;
use domain::id::Key;
use domain::object::{ContainerStatus, Hold, Phase, Pod, Unplaced};
use std::net::Ipv4Addr;

/// Shells and agents tell a deadly signal as this plus its number.
const SIGNAL_BASE: i32 = 128;

/// A pod's address as people write it; empty while it has none.
#[must_use]
pub fn address_text(address: u32) -> String {
    if address == 0 { String::new() } else { Ipv4Addr::from_bits(address).to_string() }
}

/// Writes a pod.
#[must_use]
pub fn pod_to_wire(state: &State, key: &Key, pod: &Pod) -> v1::Pod {
    let mut metadata = meta_to_wire(state, key, &pod.meta);
    metadata.owner_references = pod.owner.map(|uid| owner_to_wire(state, pod.set.as_str(), uid)).into_iter().collect();
    metadata.finalizers = pod.finalizers.iter().map(ToString::to_string).collect();
    if let Some(deletion) = &pod.deletion {
        metadata.deletion_timestamp = format_ms(deletion.at_ms);
        metadata.deletion_grace_period_seconds = i64::try_from(deletion.grace_ms / 1000).ok();
    }
    let mut spec = spec_to_wire(&pod.template);
    let claims: Vec<_> = pod.claims.iter().map(|c| claim_volume(c.volume.as_str(), c.claim.name.as_str())).collect();
    // What the pod has takes the place of the claims that its template names.
    spec.volumes.retain(|volume| volume.persistent_volume_claim.is_none());
    spec.volumes.splice(0..0, claims);
    let last_node = || pod.end.as_ref().and_then(|end| end.node.as_ref());
    let node = pod.binding.as_ref().map(|binding| &binding.node).or_else(last_node);
    spec.node_name = node.map(ToString::to_string).unwrap_or_default();
    v1::Pod {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        metadata: Some(metadata),
        spec: Some(spec),
        status: Some(status_to_wire(state, key, pod)),
    }
}

fn status_to_wire(state: &State, key: &Key, pod: &Pod) -> v1::PodStatus {
    let phase = match (&pod.hold, pod.status.phase) {
        (Some(_), _) => "Unknown",
        (None, Phase::Pending) => "Pending",
        (None, Phase::Running) => "Running",
        (None, Phase::Succeeded) => "Succeeded",
        (None, Phase::Failed) => "Failed",
    };
    let (reason, message) = match &pod.hold {
        Some(hold) => ("Held".to_owned(), hold_message(key, hold)),
        None => (pod.status.reason.to_string(), pod.status.message.clone()),
    };
    let node = pod.binding.as_ref().and_then(|binding| state.nodes.get(&binding.node));
    let container = |status: &ContainerStatus| container_to_wire(pod, status);
    v1::PodStatus {
        phase: phase.to_owned(),
        conditions: conditions(key, pod),
        reason,
        message,
        pod_ip: pod.binding.as_ref().map(|binding| address_text(binding.address)).unwrap_or_default(),
        host_ip: node.and_then(|node| node.info.get(&"address".into())).map(ToString::to_string).unwrap_or_default(),
        start_time: time_unless_zero(pod.status.started_at_ms),
        container_statuses: pod.status.containers.iter().map(container).collect(),
        init_container_statuses: pod.status.init_containers.iter().map(container).collect(),
        incarnation: pod.incarnation.0,
        hold: pod.hold.as_ref().map(|hold| hold_to_wire(state, key, hold)),
    }
}

fn conditions(key: &Key, pod: &Pod) -> Vec<v1::Condition> {
    let scheduled = match (&pod.binding, &pod.unplaced) {
        (Some(binding), _) => condition("PodScheduled", "True", binding.at_ms, "", ""),
        (None, Some(unplaced)) => {
            let message = unplaced_message(unplaced);
            condition("PodScheduled", "False", pod.meta.created_at_ms, "Unschedulable", &message)
        }
        (None, None) => condition("PodScheduled", "False", pod.meta.created_at_ms, "", ""),
    };
    // The time of a status that is not Ready is not recorded: the best bound is when the pod was placed.
    let placed_at_ms = pod.binding.as_ref().map_or(pod.meta.created_at_ms, |binding| binding.at_ms);
    let unready_since_ms = pod.ready_at_ms.max(placed_at_ms);
    let ready = |kind: &str| match &pod.hold {
        Some(hold) => {
            let message = format!("node {} is unreachable", hold.node);
            condition(kind, "False", hold.at_ms, "NodeUnreachable", &message)
        }
        None if pod.is_ready() => condition(kind, "True", pod.ready_at_ms, "", ""),
        None => {
            let reason = match pod.status.reason.as_str() {
                "" => "ContainersNotReady",
                reason => reason,
            };
            condition(kind, "False", unready_since_ms, reason, &pod.status.message)
        }
    };
    let mut conditions = vec![scheduled, ready("ContainersReady"), ready("Ready")];
    if let Some(hold) = &pod.hold {
        conditions.push(condition("Held", "True", hold.at_ms, "NodeUnreachable", &hold_message(key, hold)));
    }
    conditions
}

pub(super) fn unplaced_message(unplaced: &Unplaced) -> String {
    let reasons: Vec<_> = unplaced.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let colon = if reasons.is_empty() { "" } else { ": " };
    format!("0/{} nodes are available{colon}{}", unplaced.node_count, reasons.join(", "))
}

fn hold_message(key: &Key, hold: &Hold) -> String {
    let node = &hold.node;
    format!(
        "node {node} is unreachable, and the pod may still be running there; `holdfast why pod/{}` says what ends this",
        key.name
    )
}

fn hold_to_wire(state: &State, key: &Key, hold: &Hold) -> v1::Hold {
    let explanation = domain::explain(state, "Pod", key).unwrap_or_default();
    v1::Hold {
        since_revision: hold.since.0,
        since: format_ms(hold.at_ms),
        node: hold.node.to_string(),
        evidence: explanation.evidence,
        exits: explanation.exits.iter().map(exit_to_wire).collect(),
    }
}

fn container_to_wire(pod: &Pod, status: &ContainerStatus) -> v1::ContainerStatus {
    let image = pod.template.every_container().find(|container| container.name == status.name);
    let ended = status.last_exit.map(|code| ended(code, status.was_out_of_memory));
    let mut init_containers = pod.template.init_containers.iter();
    // An init container that has run to its end does not come back.
    let is_done = status.last_exit == Some(0)
        && init_containers.any(|container| container.name == status.name && !container.is_sidecar);
    let is_over = match pod.status.phase {
        Phase::Succeeded | Phase::Failed => true,
        Phase::Pending | Phase::Running => is_done,
    };
    let state = match (status.is_running, &ended) {
        (true, _) => v1::ContainerState {
            running: Some(v1::ContainerStateRunning { started_at: time_unless_zero(pod.status.started_at_ms) }),
            ..v1::ContainerState::default()
        },
        (false, Some(ended)) if is_over => ended.clone(),
        (false, _) => v1::ContainerState {
            waiting: Some(v1::ContainerStateWaiting { reason: status.reason.to_string(), message: String::new() }),
            ..v1::ContainerState::default()
        },
    };
    v1::ContainerStatus {
        name: status.name.to_string(),
        state: Some(state),
        last_state: ended.filter(|_| !is_over),
        ready: status.is_ready && pod.hold.is_none(),
        restart_count: i32::try_from(status.restart_count).unwrap_or(i32::MAX),
        image: image.map(|container| container.image.to_string()).unwrap_or_default(),
        image_id: status.runs.clone(),
        container_id: if status.pid == 0 { String::new() } else { format!("process://{}", status.pid) },
        started: Some(status.is_running && !status.is_starting),
    }
}

fn ended(exit_code: i32, was_out_of_memory: bool) -> v1::ContainerState {
    let signal = exit_code.saturating_sub(SIGNAL_BASE);
    let reason = match exit_code {
        _ if was_out_of_memory => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    };
    v1::ContainerState {
        terminated: Some(v1::ContainerStateTerminated {
            exit_code,
            signal: signal.max(0),
            reason: reason.to_owned(),
            ..v1::ContainerStateTerminated::default()
        }),
        ..v1::ContainerState::default()
    }
}

fn time_unless_zero(at_ms: u64) -> String {
    if at_ms == 0 { String::new() } else { format_ms(at_ms) }
}
