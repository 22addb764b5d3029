//! What people may ask of claims, volumes, classes and services.

use super::pod::refuse_late;
use super::{Decision, not_found};
use crate::address;
use crate::command::Rejection;
use crate::draft::{class_of, class_or_default};
use crate::event::Event;
use crate::id::{ClassName, Key, Name, Uid, VolumeName};
use crate::object::{Claim, VolumePhase};
use crate::plan::claim;
use crate::spec::{BudgetSpec, ClaimSpec, ClassSpec, Labels, Reclaim, ServiceSpec, VolumeSpec};
use crate::state::State;
use std::cmp::Ordering;

pub(super) fn apply_claim(
    state: &State,
    key: &Key,
    labels: &Labels,
    annotations: &Labels,
    finalizers: &[Name],
    spec: &ClaimSpec,
) -> Decision {
    let (labels, annotations) = (labels.clone(), annotations.clone());
    let finalized = || Event::ClaimFinalizersChanged { claim: key.clone(), finalizers: finalizers.to_vec() };
    let Some(claim) = state.claims.get(key) else {
        let spec = ClaimSpec { class: class_or_default(state, spec.class.as_ref()), ..spec.clone() };
        let mut events = vec![Event::ClaimCreated { claim: key.clone(), labels, spec, annotations }];
        events.extend((!finalizers.is_empty()).then(finalized));
        return Ok(events);
    };
    // The class that was filled in was not asked for, and stays.
    let class = spec.class.clone().or_else(|| claim.spec.class.clone());
    let spec = ClaimSpec { class, ..spec.clone() };
    if claim.spec != (ClaimSpec { request_bytes: claim.spec.request_bytes, ..spec.clone() }) {
        return Err(invalid_claim(key, "spec", "may not be changed, except to ask for more storage".to_owned()));
    }
    let mut events = Vec::new();
    if claim.finalizers != finalizers {
        refuse_late("persistentvolumeclaim", key, &claim.finalizers, finalizers, claim.deleting_at_ms.is_some())?;
        events.push(finalized());
    }
    if claim.spec == spec && claim.meta.labels == labels && claim.meta.annotations == annotations {
        return Ok(events);
    }
    refuse_growth(state, claim, &spec).map_err(|rule| invalid_claim(key, "spec.resources.requests.storage", rule))?;
    events.push(Event::ClaimUpdated { claim: key.clone(), labels, annotations, spec: spec.clone() });
    events.extend(claim::volume_growth(state, claim, spec.request_bytes));
    Ok(events)
}

fn invalid_claim(key: &Key, field: &'static str, rule: String) -> Rejection {
    Rejection::Invalid { kind: "persistentvolumeclaim", name: key.name.to_string(), field, rule }
}

/// A bound claim may grow where its class allows that; none may shrink (semantics A10-143).
fn refuse_growth(state: &State, claim: &Claim, spec: &ClaimSpec) -> Result<(), String> {
    match spec.request_bytes.cmp(&claim.spec.request_bytes) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err("may not become smaller".to_owned()),
        Ordering::Greater if claim.volume.is_none() => Err("may only be changed once the claim is bound".to_owned()),
        Ordering::Greater => match class_of(state, spec.class.as_ref()) {
            Some((_, class)) if class.spec.may_expand => Ok(()),
            Some((name, _)) => Err(format!("storage class {name} does not allow volumes to grow")),
            None => Err("only volumes of a storage class that allows it may grow".to_owned()),
        },
    }
}

pub(super) fn delete_claim(state: &State, key: &Key) -> Decision {
    let claim = state.claims.get(key).ok_or_else(|| not_found("persistentvolumeclaim", &key.name))?;
    if claim.deleting_at_ms.is_some() {
        return Ok(Vec::new());
    }
    Ok(vec![Event::ClaimDeletionRequested { claim: key.clone() }])
}

pub(super) fn apply_volume(
    state: &State,
    name: &VolumeName,
    labels: &Labels,
    annotations: &Labels,
    spec: &VolumeSpec,
) -> Decision {
    let (volume, labels, annotations, spec) = (name.clone(), labels.clone(), annotations.clone(), spec.clone());
    match state.volumes.get(name) {
        None => Ok(vec![Event::VolumeCreated { volume, labels, spec, annotations }]),
        Some(known) if known.spec != spec => Err(Rejection::Invalid {
            kind: "persistentvolume",
            name: name.to_string(),
            field: "spec",
            rule: "may not be changed".to_owned(),
        }),
        Some(known) if known.meta.labels == labels && known.meta.annotations == annotations => Ok(Vec::new()),
        Some(_) => Ok(vec![Event::VolumeUpdated { volume, labels, annotations, spec }]),
    }
}

pub(super) fn delete_volume(state: &State, name: &VolumeName) -> Decision {
    let volume = state.volumes.get(name).ok_or_else(|| not_found("persistentvolume", name))?;
    match volume.phase {
        VolumePhase::Bound => Err(Rejection::Invalid {
            kind: "persistentvolume",
            name: name.to_string(),
            field: "spec.claimRef",
            rule: format!(
                "bound to claim {}; delete the claim first",
                volume.claim.as_ref().map(|(key, _)| key.to_string()).unwrap_or_default()
            ),
        }),
        VolumePhase::Deleting => Ok(Vec::new()),
        VolumePhase::Available | VolumePhase::Released => Ok(vec![match volume.spec.reclaim {
            Reclaim::Delete => Event::VolumeDeletionRequested { volume: name.clone() },
            Reclaim::Retain => Event::VolumeRemoved { volume: name.clone() },
        }]),
    }
}

pub(super) fn apply_class(
    state: &State,
    name: &ClassName,
    labels: &Labels,
    annotations: &Labels,
    spec: &ClassSpec,
) -> Vec<Event> {
    let is_same = state
        .classes
        .get(name)
        .is_some_and(|c| c.spec == *spec && c.meta.labels == *labels && c.meta.annotations == *annotations);
    if is_same {
        return Vec::new();
    }
    vec![Event::ClassApplied {
        class: name.clone(),
        spec: spec.clone(),
        labels: labels.clone(),
        annotations: annotations.clone(),
    }]
}

pub(super) fn delete_class(state: &State, name: &ClassName) -> Decision {
    if !state.classes.contains_key(name) {
        return Err(not_found("storageclass", name));
    }
    Ok(vec![Event::ClassRemoved { class: name.clone() }])
}

pub(super) fn apply_service(
    state: &State,
    key: &Key,
    labels: &Labels,
    annotations: &Labels,
    spec: &ServiceSpec,
    wanted: Option<u32>,
) -> Decision {
    let old = state.services.get(key);
    if let Some(old) = old
        && (old.spec.has_address != spec.has_address || wanted.is_some_and(|wanted| wanted != old.address))
    {
        return Err(invalid_service(key, "may not be changed: delete the service and make it anew"));
    }
    let is_same =
        old.is_some_and(|s| s.spec == *spec && s.meta.labels == *labels && s.meta.annotations == *annotations);
    if is_same {
        return Ok(Vec::new());
    }
    let address = match old {
        Some(old) => old.address,
        None if spec.has_address => service_address(state, key, wanted)?,
        None => 0,
    };
    Ok(vec![Event::ServiceApplied {
        service: key.clone(),
        labels: labels.clone(),
        annotations: annotations.clone(),
        spec: spec.clone(),
        address,
    }])
}

/// The address of a new service: the one asked for, or any that is free.
fn service_address(state: &State, key: &Key, wanted: Option<u32>) -> Result<u32, Rejection> {
    match wanted {
        Some(wanted) if !address::SERVICES.has(wanted) => {
            Err(invalid_service(key, "must be \"None\", absent, or an address of 127.112.0.0/12"))
        }
        Some(wanted) if state.is_address_taken(wanted) => Err(invalid_service(key, "is another service's already")),
        Some(wanted) => Ok(wanted),
        None => address::free(state, address::SERVICES, Uid(state.revision.0))
            .ok_or_else(|| invalid_service(key, "no address of 127.112.0.0/12 is free")),
    }
}

fn invalid_service(key: &Key, rule: &str) -> Rejection {
    Rejection::Invalid { kind: "service", name: key.name.to_string(), field: "spec.clusterIP", rule: rule.to_owned() }
}

pub(super) fn delete_service(state: &State, key: &Key) -> Decision {
    if !state.services.contains_key(key) {
        return Err(not_found("service", &key.name));
    }
    Ok(vec![Event::ServiceRemoved { service: key.clone() }])
}

pub(super) fn apply_budget(
    state: &State,
    key: &Key,
    labels: &Labels,
    annotations: &Labels,
    spec: &BudgetSpec,
) -> Vec<Event> {
    let is_same = state
        .budgets
        .get(key)
        .is_some_and(|b| b.spec == *spec && b.meta.labels == *labels && b.meta.annotations == *annotations);
    if is_same {
        return Vec::new();
    }
    vec![Event::BudgetApplied {
        budget: key.clone(),
        labels: labels.clone(),
        annotations: annotations.clone(),
        spec: spec.clone(),
    }]
}

pub(super) fn delete_budget(state: &State, key: &Key) -> Decision {
    if !state.budgets.contains_key(key) {
        return Err(not_found("poddisruptionbudget", &key.name));
    }
    Ok(vec![Event::BudgetRemoved { budget: key.clone() }])
}
