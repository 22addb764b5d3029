//! What people may ask of a set.

use super::{Decision, not_found};
use crate::command::Rejection;
use crate::event::Event;
use crate::id::Key;
use crate::object::Pod;
use crate::spec::{Labels, SetSpec};
use crate::state::State;

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
    if set.spec.claim_templates != spec.claim_templates {
        return Err(immutable("spec.volumeClaimTemplates"));
    }
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

pub(super) fn scale(state: &State, key: &Key, replicas: u32, current: Option<u32>) -> Decision {
    let set = state.sets.get(key).ok_or_else(|| not_found("statefulset", &key.name))?;
    let actual = set.spec.replicas;
    if let Some(expected) = current
        && expected != actual
    {
        return Err(Rejection::ReplicasMoved { name: key.name.to_string(), expected, actual });
    }
    if actual == replicas {
        return Ok(Vec::new());
    }
    Ok(vec![Event::SetScaled { set: key.clone(), replicas }])
}

pub(super) fn delete(state: &State, key: &Key, orphan: bool) -> Decision {
    if !state.sets.contains_key(key) {
        return Err(not_found("statefulset", &key.name));
    }
    let mut events = Vec::new();
    for (pod_key, pod) in state.members(key) {
        let (pod_key, uid) = (pod_key.clone(), pod.meta.uid);
        if orphan {
            events.push(Event::PodOrphaned { pod: pod_key, uid });
        } else if pod.deletion.is_none() {
            let grace_ms = pod.template.grace_ms;
            events.push(Event::PodDeletionRequested { pod: pod_key, uid, grace_ms, is_forced: false });
        }
    }
    events.push(Event::SetRemoved { set: key.clone() });
    Ok(events)
}
