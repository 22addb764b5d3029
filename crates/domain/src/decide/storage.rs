//! What people may ask of claims, volumes, classes and services.

use super::{Decision, not_found};
use crate::command::Rejection;
use crate::event::Event;
use crate::id::{ClassName, Key, VolumeName};
use crate::object::VolumePhase;
use crate::spec::{ClaimSpec, ClassSpec, Labels, Reclaim, ServiceSpec, VolumeSpec};
use crate::state::State;

pub(super) fn apply_claim(state: &State, key: &Key, labels: &Labels, spec: &ClaimSpec) -> Decision {
    match state.claims.get(key) {
        None => Ok(vec![Event::ClaimCreated { claim: key.clone(), labels: labels.clone(), spec: spec.clone() }]),
        // The class may have been filled in for the claim; everything else is as it was made.
        Some(claim)
            if claim.spec == *spec || claim.spec == (ClaimSpec { class: claim.spec.class.clone(), ..spec.clone() }) =>
        {
            Ok(Vec::new())
        }
        Some(_) => Err(Rejection::Invalid {
            kind: "persistentvolumeclaim",
            name: key.name.to_string(),
            field: "spec",
            rule: "may not be changed".to_owned(),
        }),
    }
}

pub(super) fn delete_claim(state: &State, key: &Key) -> Decision {
    let claim = state.claims.get(key).ok_or_else(|| not_found("persistentvolumeclaim", &key.name))?;
    if claim.deleting_at_ms.is_some() {
        return Ok(Vec::new());
    }
    Ok(vec![Event::ClaimDeletionRequested { claim: key.clone() }])
}

pub(super) fn apply_volume(state: &State, name: &VolumeName, labels: &Labels, spec: &VolumeSpec) -> Decision {
    match state.volumes.get(name) {
        None => Ok(vec![Event::VolumeCreated { volume: name.clone(), labels: labels.clone(), spec: spec.clone() }]),
        Some(volume) if volume.spec == *spec => Ok(Vec::new()),
        Some(_) => Err(Rejection::Invalid {
            kind: "persistentvolume",
            name: name.to_string(),
            field: "spec",
            rule: "may not be changed".to_owned(),
        }),
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

pub(super) fn apply_class(state: &State, name: &ClassName, spec: &ClassSpec) -> Vec<Event> {
    if state.classes.get(name).is_some_and(|class| class.spec == *spec) {
        return Vec::new();
    }
    vec![Event::ClassApplied { class: name.clone(), spec: spec.clone() }]
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
) -> Vec<Event> {
    let is_same = state
        .services
        .get(key)
        .is_some_and(|s| s.spec == *spec && s.meta.labels == *labels && s.meta.annotations == *annotations);
    if is_same {
        return Vec::new();
    }
    vec![Event::ServiceApplied {
        service: key.clone(),
        labels: labels.clone(),
        annotations: annotations.clone(),
        spec: spec.clone(),
    }]
}

pub(super) fn delete_service(state: &State, key: &Key) -> Decision {
    if !state.services.contains_key(key) {
        return Err(not_found("service", &key.name));
    }
    Ok(vec![Event::ServiceRemoved { service: key.clone() }])
}
