//! How events are shown: one sentence each, and their fields.

use super::meta::spoken;
use super::pod::{address_text, unplaced_message};
use crate::codec::Variants as _;
use crate::quantity::format_bytes;
use crate::v1;
use domain::event::{Batch, Event, RemovalCause};
use domain::id::{Name, Revision, Uid};
use domain::object::{Phase, PodStatus};
use domain::{revisions_of, uid_text};
use std::collections::BTreeMap;

/// Writes those events of a batch of a cluster that are wanted; `subjects` are the identities of what all are about.
#[must_use]
pub fn events_to_wire(
    cluster: &Name,
    batch: &Batch,
    subjects: &[Option<Uid>],
    is_wanted: impl Fn(Revision, &Event) -> bool,
) -> Vec<v1::Event> {
    let to_wire = |(index, (revision, event))| v1::Event {
        at_ms: batch.at_ms,
        actor: batch.decided_by(index).to_owned(),
        uid: subjects.get(index).copied().flatten().map(|uid| uid_text(cluster, uid)).unwrap_or_default(),
        ..event_to_wire(revision, event)
    };
    let wanted = revisions_of(batch).enumerate().filter(|(_, (revision, event))| is_wanted(*revision, event));
    wanted.map(to_wire).collect()
}

/// All but when, by whom and about whom.
fn event_to_wire(revision: Revision, event: &Event) -> v1::Event {
    let (kind, key) = event.object();
    v1::Event {
        revision: revision.0,
        r#type: event.variant_name().to_owned(),
        kind: kind.to_owned(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        message: sentence(event),
        details: details(event),
        ..v1::Event::default()
    }
}

/// An event in one sentence.
#[must_use]
pub fn sentence(event: &Event) -> String {
    let (_, key) = event.object();
    let name = spoken(&key);
    match event {
        Event::ClusterFormed { .. } => format!("cluster {name} began"),
        Event::ServersFounded { .. }
        | Event::ServerAdded { .. }
        | Event::ServerPromoted { .. }
        | Event::ServerAddressed { .. }
        | Event::ServerRemoved { .. } => server_sentence(&name, event),
        Event::SetCreated { .. }
        | Event::SetUpdated { .. }
        | Event::SetScaled { .. }
        | Event::SetRemoved { .. }
        | Event::RevisionTargeted { .. }
        | Event::RolloutCompleted { .. }
        | Event::RevisionForgotten { .. } => set_sentence(&name, event),

        Event::PodCreated { .. }
        | Event::PodBound { .. }
        | Event::PodUnplaced { .. }
        | Event::PodReported { .. }
        | Event::PodBecameAvailable { .. }
        | Event::PodBecameUnavailable { .. }
        | Event::PodDeletionRequested { .. }
        | Event::PodRemoved { .. }
        | Event::PodHeld { .. }
        | Event::PodResumed { .. }
        | Event::PodOrphaned { .. }
        | Event::PodAdopted { .. }
        | Event::PodMarked { .. }
        | Event::PodFinalizersChanged { .. }
        | Event::PodEnded { .. } => pod_sentence(&name, event),

        Event::ClaimCreated { .. }
        | Event::ClaimUpdated { .. }
        | Event::ClaimBound { .. }
        | Event::ClaimDeletionRequested { .. }
        | Event::ClaimRemoved { .. }
        | Event::ClaimLost { .. }
        | Event::ClaimFinalizersChanged { .. }
        | Event::VolumeCreated { .. }
        | Event::VolumeUpdated { .. }
        | Event::VolumeGrowthBegan { .. }
        | Event::VolumeGrown { .. }
        | Event::VolumeReleased { .. }
        | Event::VolumeDeletionRequested { .. }
        | Event::VolumeRemoved { .. }
        | Event::AttachmentRequested { .. }
        | Event::VolumeAttached { .. }
        | Event::AttachmentReleased { .. }
        | Event::ClassApplied { .. }
        | Event::ClassRemoved { .. } => storage_sentence(&name, event),

        Event::ServiceApplied { .. } => format!("service {name} was made or changed"),
        Event::ServiceRemoved { .. } => format!("service {name} is gone"),
        Event::BudgetApplied { .. } => format!("disruption budget {name} was made or changed"),
        Event::BudgetRemoved { .. } => format!("disruption budget {name} is gone"),
        // Never what is in it.
        Event::ConfigApplied { kind, .. } => format!("{} {name} was made or changed", kind.word()),
        Event::ConfigRemoved { kind, .. } => format!("{} {name} is gone", kind.word()),

        Event::NodeRegistered { .. }
        | Event::NodeUpdated { .. }
        | Event::NodeUnreachable { .. }
        | Event::NodeReturned { .. }
        | Event::LeftoversEnded { .. }
        | Event::NodeCordoned { .. }
        | Event::NodeUncordoned { .. }
        | Event::NodeShutdownBegan { .. }
        | Event::NodeShutdownEnded { .. }
        | Event::NodeMarked { .. }
        | Event::NodeRemoved { .. } => node_sentence(&name, event),
    }
}

fn set_sentence(name: &str, event: &Event) -> String {
    match event {
        Event::SetCreated { spec, .. } => format!("set {name} was made with {} replicas", spec.replicas),
        Event::SetUpdated { .. } => format!("set {name} was changed"),
        Event::SetScaled { replicas, .. } => format!("set {name} was scaled to {replicas} replicas"),
        Event::SetRemoved { .. } => format!("set {name} was deleted"),
        Event::RevisionTargeted { revision, number, .. } => {
            format!("set {name} rolls out revision {revision}, number {number}")
        }
        Event::RolloutCompleted { revision, .. } => format!("every pod of set {name} is at revision {revision}"),
        Event::RevisionForgotten { revision, .. } => format!("set {name} forgot its unused revision {revision}"),
        _ => unreachable!("sentence sends only events of sets here"),
    }
}

fn pod_sentence(name: &str, event: &Event) -> String {
    match event {
        Event::PodCreated { revision, .. } => format!("pod {name} was made at revision {revision}"),
        Event::PodBound { node, address, .. } => {
            format!("pod {name} goes to node {node} at {}", address_text(*address))
        }
        Event::PodUnplaced { why, .. } => format!("pod {name} cannot be placed: {}", unplaced_message(why)),
        Event::PodReported { status, .. } => report_sentence(name, status),
        Event::PodBecameAvailable { .. } => format!("pod {name} has been ready long enough to count as available"),
        Event::PodBecameUnavailable { .. } => {
            format!("pod {name} has not been ready long enough for what its set asks now")
        }
        Event::PodDeletionRequested { grace_ms, is_forced, .. } => {
            let by_force = if *is_forced { " by force" } else { "" };
            format!("pod {name} is to stop{by_force} within {} s", grace_ms / 1000)
        }
        Event::PodRemoved { cause, .. } => format!("pod {name} is gone: {}", cause_sentence(cause)),
        Event::PodHeld { node, .. } => {
            format!("pod {name} is held: node {node} is unreachable, and the pod is not replaced before an exit")
        }
        Event::PodResumed { .. } => format!("pod {name} goes on: its node is back with the same boot"),
        Event::PodOrphaned { .. } => format!("pod {name} lost its set and runs on"),
        Event::PodAdopted { revision, .. } => format!("pod {name} was taken over by its set at revision {revision}"),
        Event::PodMarked { .. } => format!("pod {name} has other labels or annotations"),
        Event::PodFinalizersChanged { finalizers, .. } => {
            format!("pod {name} waits for {} before it goes", finalizers_text(finalizers))
        }
        Event::PodEnded { cause, .. } => {
            format!("pod {name} has ended, and its finalizers keep its name: {}", cause_sentence(cause))
        }
        _ => unreachable!("sentence sends only events of pods here"),
    }
}

fn storage_sentence(name: &str, event: &Event) -> String {
    match event {
        Event::ClaimCreated { .. } => format!("claim {name} was made"),
        Event::ClaimUpdated { .. } => format!("claim {name} was changed"),
        Event::ClaimBound { volume, .. } => format!("claim {name} is bound to volume {volume}"),
        Event::ClaimDeletionRequested { .. } => format!("claim {name} is to go when no pod uses it"),
        Event::ClaimRemoved { .. } => format!("claim {name} is gone"),
        Event::ClaimFinalizersChanged { finalizers, .. } => {
            format!("claim {name} waits for {} before it goes", finalizers_text(finalizers))
        }
        Event::ClaimLost { .. } => format!("claim {name} lost its volume"),

        Event::VolumeCreated { .. } => format!("volume {name} was made"),
        Event::VolumeUpdated { .. } => format!("volume {name} was changed"),
        Event::VolumeGrowthBegan { from_bytes, .. } => {
            format!("the file system of volume {name} is to grow from {}", format_bytes(*from_bytes))
        }
        Event::VolumeGrown { .. } => format!("the file system of volume {name} has grown"),
        Event::VolumeReleased { .. } => format!("volume {name} is released: its claim is gone"),
        Event::VolumeDeletionRequested { .. } => format!("the storage of volume {name} is to be removed"),
        Event::VolumeRemoved { .. } => format!("volume {name} is gone"),
        Event::AttachmentRequested { node, fence, .. } => {
            format!("volume {name} is to be attached to node {node} under fence {fence}")
        }
        Event::VolumeAttached { node, fence, .. } => {
            format!("volume {name} is attached to node {node} under fence {fence}")
        }
        Event::AttachmentReleased { node, cause, .. } => {
            format!("volume {name} is free of node {node}: {}", cause_sentence(cause))
        }
        Event::ClassApplied { .. } => format!("class {name} was made or changed"),
        Event::ClassRemoved { .. } => format!("class {name} is gone"),
        _ => unreachable!("sentence sends only events of storage here"),
    }
}

fn node_sentence(name: &str, event: &Event) -> String {
    match event {
        Event::NodeRegistered { incarnation, registration, .. } => {
            format!("node {name} came with boot id {} as incarnation {incarnation}", registration.boot_id)
        }
        Event::NodeUpdated { .. } => format!("node {name} says otherwise about what it has"),
        Event::NodeUnreachable { .. } => {
            format!("node {name} is unreachable: its agent was silent for its lease and grace")
        }
        Event::NodeReturned { leftovers, .. } if leftovers.is_empty() => {
            format!("node {name} is back with the same boot")
        }
        Event::NodeReturned { leftovers, .. } => {
            format!("node {name} is back with the same boot, and must end {} former pods first", leftovers.len())
        }
        Event::LeftoversEnded { ended, .. } => format!("node {name} ended {} former pods", ended.len()),
        Event::NodeCordoned { .. } => format!("node {name} is cordoned: it gets no new pods"),
        Event::NodeUncordoned { .. } => format!("node {name} gets new pods again"),
        Event::NodeShutdownBegan { grace_ms, .. } => {
            format!("node {name} is being shut down: its pods end within {} s", grace_ms / 1000)
        }
        Event::NodeShutdownEnded { .. } => format!("node {name} is not shut down: it goes on"),
        Event::NodeMarked { .. } => format!("node {name} has other labels or annotations"),
        Event::NodeRemoved { .. } => format!("node {name} was removed by a person's word"),
        _ => unreachable!("sentence sends only events of nodes here"),
    }
}

fn finalizers_text(finalizers: &[Name]) -> String {
    match finalizers {
        [] => "nobody".to_owned(),
        [..] => finalizers.iter().map(Name::as_str).collect::<Vec<_>>().join(", "),
    }
}

const fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    }
}

fn cause_sentence(cause: &RemovalCause) -> String {
    match cause {
        RemovalCause::Stopped => "its agent ended it".to_owned(),
        RemovalCause::NeverPlaced => "it never had a node".to_owned(),
        RemovalCause::ForceDeleted => "a person force-deleted it and answers for it".to_owned(),
        RemovalCause::NodeRemoved => "a person removed its node and answers for it".to_owned(),
        RemovalCause::NodeRestarted { old, new } => {
            format!("its node restarted, boot id {new} after {old} proves that the old processes are dead")
        }
    }
}

/// The fields of an event that are no objects themselves.
fn details(event: &Event) -> BTreeMap<String, String> {
    let pairs: Vec<(&'static str, String)> = match event {
        Event::SetCreated { .. }
        | Event::SetUpdated { .. }
        | Event::SetScaled { .. }
        | Event::RevisionTargeted { .. }
        | Event::RolloutCompleted { .. }
        | Event::RevisionForgotten { .. } => set_details(event),
        Event::PodCreated { .. }
        | Event::PodBound { .. }
        | Event::PodUnplaced { .. }
        | Event::PodReported { .. }
        | Event::PodBecameAvailable { .. }
        | Event::PodBecameUnavailable { .. }
        | Event::PodDeletionRequested { .. }
        | Event::PodRemoved { .. }
        | Event::PodHeld { .. }
        | Event::PodResumed { .. }
        | Event::PodOrphaned { .. }
        | Event::PodAdopted { .. }
        | Event::PodMarked { .. }
        | Event::PodFinalizersChanged { .. }
        | Event::PodEnded { .. } => pod_details(event),
        Event::ClaimBound { volume, .. } => vec![("volume", volume.to_string())],
        Event::AttachmentRequested { node, fence, .. } | Event::VolumeAttached { node, fence, .. } => {
            vec![("node", node.to_string()), ("fence", fence.to_string())]
        }
        Event::AttachmentReleased { node, fence, cause, .. } => {
            [cause_details(cause), vec![("node", node.to_string()), ("fence", fence.to_string())]].concat()
        }
        Event::NodeRegistered { .. }
        | Event::NodeUnreachable { .. }
        | Event::NodeShutdownBegan { .. }
        | Event::NodeReturned { .. }
        | Event::LeftoversEnded { .. } => node_details(event),
        Event::ServersFounded { .. }
        | Event::ServerAdded { .. }
        | Event::ServerPromoted { .. }
        | Event::ServerAddressed { .. }
        | Event::ServerRemoved { .. } => server_details(event),
        Event::ClusterFormed { .. }
        | Event::SetRemoved { .. }
        | Event::ClaimCreated { .. }
        | Event::ClaimUpdated { .. }
        | Event::ClaimDeletionRequested { .. }
        | Event::ClaimRemoved { .. }
        | Event::ClaimLost { .. }
        | Event::ClaimFinalizersChanged { .. }
        | Event::VolumeCreated { .. }
        | Event::VolumeUpdated { .. }
        | Event::VolumeGrowthBegan { .. }
        | Event::VolumeGrown { .. }
        | Event::VolumeReleased { .. }
        | Event::VolumeDeletionRequested { .. }
        | Event::VolumeRemoved { .. }
        | Event::ClassApplied { .. }
        | Event::ClassRemoved { .. }
        | Event::ServiceApplied { .. }
        | Event::ServiceRemoved { .. }
        | Event::BudgetApplied { .. }
        | Event::BudgetRemoved { .. }
        | Event::ConfigApplied { .. }
        | Event::ConfigRemoved { .. }
        | Event::NodeMarked { .. }
        | Event::NodeUpdated { .. }
        | Event::NodeCordoned { .. }
        | Event::NodeUncordoned { .. }
        | Event::NodeShutdownEnded { .. }
        | Event::NodeRemoved { .. } => Vec::new(),
    };
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn node_details(event: &Event) -> Vec<(&'static str, String)> {
    match event {
        Event::NodeRegistered { incarnation, registration, .. } => vec![
            ("incarnation", incarnation.to_string()),
            ("bootId", registration.boot_id.to_string()),
            ("machineId", registration.machine_id.to_string()),
        ],
        Event::NodeUnreachable { heard_at_ms, .. } => vec![("heardAtMs", heard_at_ms.to_string())],
        Event::NodeShutdownBegan { grace_ms, .. } => vec![("graceMs", grace_ms.to_string())],
        Event::NodeReturned { leftovers, .. } => vec![("leftovers", leftovers.len().to_string())],
        Event::LeftoversEnded { ended, .. } => vec![("ended", ended.len().to_string())],
        _ => unreachable!("details sends only events of nodes here"),
    }
}

fn set_details(event: &Event) -> Vec<(&'static str, String)> {
    match event {
        Event::SetCreated { spec, .. } | Event::SetUpdated { spec, .. } => {
            vec![("replicas", spec.replicas.to_string())]
        }
        Event::SetScaled { replicas, .. } => vec![("replicas", replicas.to_string())],
        Event::RevisionTargeted { revision, number, .. } => {
            vec![("revision", revision.to_string()), ("number", number.to_string())]
        }
        Event::RolloutCompleted { revision, .. } | Event::RevisionForgotten { revision, .. } => {
            vec![("revision", revision.to_string())]
        }
        _ => unreachable!("details sends only events of sets here"),
    }
}

fn report_sentence(name: &str, status: &PodStatus) -> String {
    let ready = if status.is_ready { "ready" } else { "not ready" };
    let reason = match status.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    format!("pod {name} is {} and {ready}{reason}", phase_text(status.phase))
}

fn server_sentence(name: &str, event: &Event) -> String {
    match event {
        Event::ServersFounded { servers } => {
            let names: Vec<String> = servers.iter().map(|server| server.name()).collect();
            format!("the control plane began with {}", names.join(", "))
        }
        Event::ServerAdded { address, .. } => format!("server {name} at {address} begins to learn"),
        Event::ServerPromoted { .. } => format!("server {name} has caught up and votes"),
        Event::ServerAddressed { address, .. } => format!("server {name} is at {address}"),
        Event::ServerRemoved { .. } => format!("server {name} does not belong to the control plane any more"),
        _ => unreachable!("sentence sends only events of servers here"),
    }
}

fn server_details(event: &Event) -> Vec<(&'static str, String)> {
    match event {
        Event::ServerAdded { address, .. } | Event::ServerAddressed { address, .. } => {
            vec![("address", address.to_string())]
        }
        _ => Vec::new(),
    }
}

fn pod_details(event: &Event) -> Vec<(&'static str, String)> {
    match event {
        Event::PodCreated { set, ordinal, revision, .. } => {
            vec![("set", set.name.to_string()), ("ordinal", ordinal.to_string()), ("revision", revision.to_string())]
        }
        Event::PodBound { node, address, .. } => {
            vec![("node", node.to_string()), ("address", address_text(*address))]
        }
        Event::PodUnplaced { why, .. } => vec![("why", unplaced_message(why))],
        Event::PodReported { status, .. } => vec![
            ("phase", phase_text(status.phase).to_owned()),
            ("ready", status.is_ready.to_string()),
            ("reason", status.reason.to_string()),
        ],
        Event::PodDeletionRequested { grace_ms, is_forced, .. } => {
            vec![("graceMs", grace_ms.to_string()), ("forced", is_forced.to_string())]
        }
        Event::PodRemoved { cause, .. } | Event::PodEnded { cause, .. } => cause_details(cause),
        Event::PodFinalizersChanged { finalizers, .. } => vec![("finalizers", finalizers_text(finalizers))],
        Event::PodHeld { node, heard_at_ms, .. } => {
            vec![("node", node.to_string()), ("heardAtMs", heard_at_ms.to_string())]
        }
        Event::PodAdopted { revision, .. } => vec![("revision", revision.to_string())],
        Event::PodBecameAvailable { .. }
        | Event::PodBecameUnavailable { .. }
        | Event::PodMarked { .. }
        | Event::PodResumed { .. }
        | Event::PodOrphaned { .. } => Vec::new(),
        _ => unreachable!("details sends only events of pods here"),
    }
}

/// What stands behind a removal, and whether a person answers for it.
fn cause_details(cause: &RemovalCause) -> Vec<(&'static str, String)> {
    let behind = if cause.is_assertion() { "assertion" } else { "evidence" };
    let mut pairs = vec![("cause", cause.variant_name().to_owned()), ("by", behind.to_owned())];
    if let RemovalCause::NodeRestarted { old, new } = cause {
        pairs.extend([("oldBootId", old.to_string()), ("newBootId", new.to_string())]);
    }
    pairs
}
