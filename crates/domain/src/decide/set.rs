//! What people may ask of a set.

use super::{Decision, not_found};
use crate::command::Rejection;
use crate::draft::class_of;
use crate::event::Event;
use crate::id::Key;
use crate::object::{Pod, Set};
use crate::plan::claim_ends;
use crate::spec::{ClaimSpec, ClaimTemplate, Labels, Retention, SetSpec};
use crate::state::State;
use std::cmp::Reverse;
use std::sync::Arc;

pub(super) fn apply(state: &State, key: &Key, labels: &Labels, annotations: &Labels, spec: &SetSpec) -> Decision {
    let Some(set) = state.sets.get(key) else {
        refuse_collision(state, key, spec)?;
        return Ok(vec![Event::SetCreated {
            set: key.clone(),
            labels: labels.clone(),
            annotations: annotations.clone(),
            spec: spec.clone(),
        }]);
    };
    let immutable = |field| Rejection::Immutable { kind: "statefulset", name: key.name.to_string(), field };
    if set.spec.selector != spec.selector {
        return Err(immutable("spec.selector"));
    }
    if set.spec.service_name != spec.service_name {
        return Err(immutable("spec.serviceName"));
    }
    if set.spec.policy != spec.policy {
        return Err(immutable("spec.podManagementPolicy"));
    }
    if !is_growth(&set.spec.claim_templates, &spec.claim_templates) {
        return Err(immutable("spec.volumeClaimTemplates"));
    }
    refuse_growth(state, key, &set.spec.claim_templates, &spec.claim_templates)?;
    let mut spec = spec.clone();
    if set.spec.template.means_same(&spec.template) {
        spec.template.clone_from(&set.spec.template);
    }
    if set.spec == spec && set.meta.labels == *labels && set.meta.annotations == *annotations {
        return Ok(Vec::new());
    }
    let mut events = no_longer_available(state, key, &spec);
    let (labels, annotations) = (labels.clone(), annotations.clone());
    events.push(Event::SetUpdated { set: key.clone(), labels, annotations, spec });
    Ok(events)
}

/// Pods that have not been ready for as long as the set asks from now on (semantics A3-33): known before any planner
/// counts on them.
fn no_longer_available(state: &State, key: &Key, spec: &SetSpec) -> Vec<Event> {
    let is_early = |pod: &Pod| state.at_ms < pod.ready_at_ms.saturating_add(spec.min_ready_ms);
    state
        .members(key)
        .filter(|(_, pod)| pod.is_available && is_early(pod))
        .map(|(pod_key, pod)| Event::PodBecameUnavailable { pod: pod_key.clone(), uid: pod.meta.uid })
        .collect()
}

/// Whether claim templates differ in nothing but a larger size (Decision 11).
fn is_growth(old: &[ClaimTemplate], new: &[ClaimTemplate]) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| {
            let spec = ClaimSpec { request_bytes: new.spec.request_bytes, ..old.spec.clone() };
            old.spec.request_bytes <= new.spec.request_bytes && *new == ClaimTemplate { spec, ..old.clone() }
        })
}

/// What grows must be able to.
fn refuse_growth(state: &State, key: &Key, old: &[ClaimTemplate], new: &[ClaimTemplate]) -> Result<(), Rejection> {
    let grown = old.iter().zip(new).filter(|(old, new)| old != new).map(|(_, new)| new);
    for template in grown {
        let class = class_of(state, template.spec.class.as_ref());
        if !class.is_some_and(|(_, class)| class.spec.may_expand) {
            return Err(Rejection::Invalid {
                kind: "statefulset",
                name: key.name.to_string(),
                field: "spec.volumeClaimTemplates",
                rule: format!("the storage class of {:?} does not allow volumes to grow", template.name.as_str()),
            });
        }
    }
    Ok(())
}

/// Two sets whose claims have the same names would share data (Decision 9).
fn refuse_collision(state: &State, key: &Key, spec: &SetSpec) -> Result<(), Rejection> {
    let stem = |set: &Key, template: &crate::spec::ClaimTemplate| format!("{}-{}", template.name, set.name);
    for (other, set) in state.sets.iter().filter(|(other, _)| other.namespace == key.namespace) {
        let collides = spec
            .claim_templates
            .iter()
            .any(|mine| set.spec.claim_templates.iter().any(|theirs| stem(key, mine) == stem(other, theirs)));
        if collides {
            return Err(Rejection::ClaimsCollide { name: key.name.to_string(), other: other.name.to_string() });
        }
    }
    Ok(())
}

pub(super) fn scale(state: &State, key: &Key, replicas: u32, current: Option<u32>, force_unready: bool) -> Decision {
    let set = find(state, key)?;
    let actual = set.spec.replicas;
    if let Some(expected) = current
        && expected != actual
    {
        return Err(Rejection::ReplicasMoved { name: key.name.to_string(), expected, actual });
    }
    let mut events = Vec::new();
    if actual != replicas {
        events.push(Event::SetScaled { set: key.clone(), replicas });
    }
    if force_unready {
        events.extend(end_unready(state, key, &SetSpec { replicas, ..set.spec.clone() }));
    }
    Ok(events)
}

/// Decision 10: pods beyond the wanted number that are not ready go at once, from the top. A held one stays.
fn end_unready(state: &State, key: &Key, spec: &SetSpec) -> Vec<Event> {
    let mut condemned: Vec<_> = state
        .members(key)
        .filter(|(_, pod)| !spec.keeps(pod.ordinal) && !pod.is_ready())
        .filter(|(_, pod)| pod.hold.is_none() && pod.deletion.is_none())
        .collect();
    condemned.sort_by_key(|(_, pod)| Reverse(pod.ordinal));
    condemned.into_iter().map(|(pod_key, pod)| stop(pod_key, pod)).collect()
}

fn find<'a>(state: &'a State, key: &Key) -> Result<&'a Arc<Set>, Rejection> {
    state.sets.get(key).ok_or_else(|| not_found("statefulset", &key.name))
}

fn stop(key: &Key, pod: &Pod) -> Event {
    let grace_ms = pod.template.grace_ms;
    Event::PodDeletionRequested { pod: key.clone(), uid: pod.meta.uid, grace_ms, is_forced: false }
}

/// The set as it is, with another spec.
fn updated(key: &Key, set: &Set, spec: SetSpec) -> Vec<Event> {
    if set.spec == spec {
        return Vec::new();
    }
    let (labels, annotations) = (set.meta.labels.clone(), set.meta.annotations.clone());
    vec![Event::SetUpdated { set: key.clone(), labels, annotations, spec }]
}

/// Rolls back: the old template becomes the wanted one, and its revision the target again.
pub(super) fn undo(state: &State, key: &Key, to: Option<u64>) -> Decision {
    let set = find(state, key)?;
    let name = || key.name.to_string();
    if set.spec.is_paused {
        return Err(Rejection::RolloutIsPaused { name: name() });
    }
    let mut numbers: Vec<u64> = set.revisions.iter().map(|r| r.number).collect();
    numbers.sort_unstable();
    let wanted = match to {
        Some(number) => number,
        None => {
            let before = numbers.iter().rev().nth(1);
            *before.ok_or_else(|| Rejection::NothingToUndo { name: name() })?
        }
    };
    match set.revisions.iter().find(|r| r.number == wanted) {
        Some(revision) => {
            let template = Arc::clone(&revision.template);
            Ok(updated(key, set, SetSpec { template, ..set.spec.clone() }))
        }
        None => Err(Rejection::RevisionUnknown { name: name(), number: wanted, numbers }),
    }
}

pub(super) fn pause(state: &State, key: &Key, is_paused: bool) -> Decision {
    let set = find(state, key)?;
    Ok(updated(key, set, SetSpec { is_paused, ..set.spec.clone() }))
}

pub(super) fn delete(state: &State, key: &Key, orphan: bool) -> Decision {
    let set = find(state, key)?;
    let mut events = Vec::new();
    for (pod_key, pod) in state.members(key) {
        if orphan {
            events.push(Event::PodOrphaned { pod: pod_key.clone(), uid: pod.meta.uid });
        } else if pod.deletion.is_none() {
            events.push(stop(pod_key, pod));
        }
    }
    if !orphan && set.spec.retention.when_deleted == Retention::Delete {
        let ordinals: Vec<_> = set.incarnations.keys().copied().collect();
        events.extend(ordinals.into_iter().flat_map(|ordinal| claim_ends(state, key, set, ordinal)));
    }
    events.push(Event::SetRemoved { set: key.clone() });
    Ok(events)
}
