//! Claims: which volume each gets, and what becomes of both at the end. Never detaches anything.

use crate::draft::{Draft, class_of, class_or_default, volume_name};
use crate::driver;
use crate::event::Event;
use crate::id::{Key, VolumeName};
use crate::object::{Claim, Pod, VolumePhase};
use crate::spec::{ClaimSpec, Labels, Reclaim, VolumeSpec};
use crate::state::State;
use mutants::{Mutant, is_on};

/// Takes the step that the claim can take now.
pub(crate) fn settle(draft: &mut Draft, key: &Key) {
    let state = draft.state();
    let Some(claim) = state.claims.get(key).cloned() else { return };
    let events = if claim.deleting_at_ms.is_some() {
        end(state, key, &claim)
    } else if claim.volume.is_none() && claim.spec.class.is_none() && class_of(state, None).is_some() {
        // It was made before there was a default class.
        let spec = ClaimSpec { class: class_or_default(state, None), ..claim.spec.clone() };
        let (labels, annotations) = (claim.meta.labels.clone(), claim.meta.annotations.clone());
        vec![Event::ClaimUpdated { claim: key.clone(), labels, annotations, spec }]
    } else if claim.volume.is_none() {
        let waits = class_of(state, claim.spec.class.as_ref()).is_some_and(|(_, class)| class.spec.waits_for_consumer);
        bind(state, key, &claim, waits)
    } else {
        Vec::new()
    };
    for event in events {
        draft.record(event);
    }
}

/// A claim goes once no placed pod uses it (semantics A10-131, 132); its volume follows the reclaim policy.
fn end(state: &State, key: &Key, claim: &Claim) -> Vec<Event> {
    // One whose object its finalizers keep counts, as one that has ended does in Kubernetes.
    let uses = |pod: &Pod| pod.binding.is_some() || pod.end.is_some();
    let is_kept = !claim.finalizers.is_empty() || state.users(key).any(|(_, pod)| uses(pod));
    if is_kept && !is_on(Mutant::ClaimDeletedUnderPod) {
        return Vec::new();
    }
    let mut events = vec![Event::ClaimRemoved { claim: key.clone() }];
    if let Some(name) = &claim.volume
        && let Some(volume) = state.volumes.get(name)
    {
        events.push(match volume.spec.reclaim {
            Reclaim::Delete => Event::VolumeDeletionRequested { volume: name.clone() },
            Reclaim::Retain => Event::VolumeReleased { volume: name.clone() },
        });
    }
    events
}

/// Binds a claim to a volume that is there, or to one that is provisioned for it, unless that waits for a pod.
pub(crate) fn bind(state: &State, key: &Key, claim: &Claim, waits: bool) -> Vec<Event> {
    if let Some(volume) = existing(state, key, claim) {
        return vec![Event::ClaimBound { claim: key.clone(), volume }];
    }
    if waits || claim.spec.volume.is_some() || claim.spec.class.as_ref().is_some_and(|c| c.as_str().is_empty()) {
        return Vec::new();
    }
    let Some((class_name, class)) = class_of(state, claim.spec.class.as_ref()) else { return Vec::new() };
    if !driver::provisions(class.spec.provisioner.as_str(), claim.spec.access) {
        return Vec::new();
    }
    let volume = volume_name(&state.cluster, claim.meta.uid);
    let spec = VolumeSpec {
        capacity_bytes: claim.spec.request_bytes,
        access: claim.spec.access,
        class: class_name.clone(),
        driver: class.spec.provisioner.clone(),
        handle: volume.as_str().into(),
        reclaim: class.spec.reclaim,
        nodes: Vec::new(),
        claim: Some(key.clone()),
    };
    vec![
        Event::VolumeCreated { volume: volume.clone(), labels: Labels::new(), spec, annotations: Labels::new() },
        Event::ClaimBound { claim: key.clone(), volume },
    ]
}

/// The events by which a claim's volume gets the size that the claim asks for, if it is smaller.
pub(crate) fn volume_growth(state: &State, claim: &Claim, request_bytes: u64) -> Vec<Event> {
    let found = claim.volume.as_ref().and_then(|volume| state.volumes.get_key_value(volume));
    let Some((volume, record)) = found.filter(|(_, record)| record.spec.capacity_bytes < request_bytes) else {
        return Vec::new();
    };
    let mut events = vec![Event::VolumeUpdated {
        volume: volume.clone(),
        labels: record.meta.labels.clone(),
        annotations: record.meta.annotations.clone(),
        spec: VolumeSpec { capacity_bytes: request_bytes, ..record.spec.clone() },
    }];
    // One that grows already goes on to, from where it was.
    if record.growth.is_none() && driver::grows_on_node(record.spec.driver.as_str()) {
        events.push(Event::VolumeGrowthBegan { volume: volume.clone(), from_bytes: record.spec.capacity_bytes });
    }
    events
}

/// The best free volume: one kept for this claim, then the closest set of access modes, then the smallest
/// (semantics A10-116, 117).
fn existing(state: &State, key: &Key, claim: &Claim) -> Option<VolumeName> {
    // A class by whose name volumes are only found need not exist: nothing is provisioned then.
    let wanted_class = class_or_default(state, claim.spec.class.as_ref()).unwrap_or_default();
    let released = || state.volumes.iter().filter(|(_, volume)| volume.phase == VolumePhase::Released);
    state
        .free_volumes()
        .chain(is_on(Mutant::RetainedVolumeRebound).then(released).into_iter().flatten())
        .filter(|(name, volume)| {
            let spec = &volume.spec;
            let is_named = claim.spec.volume.as_ref().is_some_and(|wanted| wanted.as_str() == name.as_str());
            let selected = claim.spec.selector.iter().all(|(l, v)| volume.meta.labels.get(l) == Some(v));
            (is_named || claim.spec.volume.is_none())
                && spec.claim.as_ref().is_none_or(|reserved| reserved == key)
                && claim.spec.request_bytes <= spec.capacity_bytes
                && spec.access.cover(claim.spec.access)
                && spec.class == wanted_class
                && (is_named || selected)
        })
        .min_by_key(|(name, volume)| {
            let spec = &volume.spec;
            (spec.claim.is_none(), spec.access.count(), spec.capacity_bytes, (*name).clone())
        })
        .map(|(name, _)| name.clone())
}
