//! What people may ask of claims, volumes, classes and services.

use super::{Decision, not_found};
use crate::command::Rejection;
use crate::draft::class_or_default;
use crate::event::Event;
use crate::id::{ClassName, Key, VolumeName};
use crate::object::VolumePhase;
use crate::spec::{ClaimSpec, ClassSpec, Labels, Reclaim, ServiceSpec, VolumeSpec};
use crate::state::State;

pub(super) fn apply_claim(
    state: &State,
    key: &Key,
    labels: &Labels,
    annotations: &Labels,
    spec: &ClaimSpec,
) -> Decision {
    let (labels, annotations) = (labels.clone(), annotations.clone());
    let Some(claim) = state.claims.get(key) else {
        let spec = ClaimSpec { class: class_or_default(state, spec.class.as_ref()), ..spec.clone() };
        return Ok(vec![Event::ClaimCreated { claim: key.clone(), labels, spec, annotations }]);
    };
    // The class that was filled in was not asked for, and stays.
    let class = spec.class.clone().or_else(|| claim.spec.class.clone());
    let spec = ClaimSpec { class, ..spec.clone() };
    if claim.spec != spec {
        return Err(Rejection::Invalid {
            kind: "persistentvolumeclaim",
            name: key.name.to_string(),
            field: "spec",
            rule: "may not be changed".to_owned(),
        });
    }
    if claim.meta.labels == labels && claim.meta.annotations == annotations {
        return Ok(Vec::new());
    }
    Ok(vec![Event::ClaimUpdated { claim: key.clone(), labels, annotations, spec }])
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
