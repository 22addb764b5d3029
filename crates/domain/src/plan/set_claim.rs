//! The claims of a set: made before their pods, grown with their template, and ended where the set says so.
//! Never looks at volumes, except to let them grow.

use super::claim::volume_growth;
use super::set_revision::revision_for;
use crate::draft::{class_of, class_or_default};
use crate::event::Event;
use crate::id::{Key, Ordinal};
use crate::object::{Pod, PodClaim, Set};
use crate::spec::{ClaimSpec, ClaimTemplate, Retention};
use crate::state::State;

/// A pod, and before it its claims; nothing while one of them is on its way out (semantics A10-133).
pub(super) fn creation(state: &State, key: &Key, set: &Set, ordinal: Ordinal) -> Vec<Event> {
    let mut events = Vec::new();
    let mut claims = Vec::new();
    for template in &set.spec.claim_templates {
        let claim = key.claim(&template.name, ordinal);
        match state.claims.get(&claim) {
            Some(found) if found.deleting_at_ms.is_some() => return Vec::new(),
            Some(_) => {}
            None => events.push(claim_creation(state, set, template, &claim)),
        }
        claims.push(PodClaim { volume: template.name.clone(), claim });
    }
    let revision = revision_for(set, ordinal).clone();
    let template = set.template(&revision).unwrap_or(&set.spec.template);
    for named in &template.volumes {
        // A claim template of the same name wins over the template's own volume (semantics A1-14).
        if !claims.iter().any(|c| c.volume == named.volume) {
            let claim = Key { namespace: key.namespace.clone(), name: named.claim.clone() };
            claims.push(PodClaim { volume: named.volume.clone(), claim });
        }
    }
    events.push(Event::PodCreated { set: key.clone(), ordinal, revision, claims });
    events
}

fn claim_creation(state: &State, set: &Set, template: &ClaimTemplate, claim: &Key) -> Event {
    let mut labels = template.labels.clone();
    labels.extend(set.spec.selector.clone());
    let class = class_or_default(state, template.spec.class.as_ref());
    let spec = ClaimSpec { class, ..template.spec.clone() };
    Event::ClaimCreated { claim: claim.clone(), labels, spec, annotations: template.annotations.clone() }
}

/// Claims that were deleted under a pod that has no node yet are made again (semantics A3-34).
pub(super) fn missing(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    let waiting = state.members(key).filter(|(_, pod)| pod.binding.is_none() && pod.deletion.is_none());
    let mut events = Vec::new();
    for (_, pod) in waiting.filter(|(_, pod)| set.spec.keeps(pod.ordinal)) {
        for template in &set.spec.claim_templates {
            let claim = key.claim(&template.name, pod.ordinal);
            if !state.claims.contains_key(&claim) {
                events.push(claim_creation(state, set, template, &claim));
            }
        }
    }
    events
}

/// The next claim that is smaller than its template asks for, highest ordinal first (Decision 11).
pub(super) fn growth(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    let claims = set.incarnations.keys().rev().flat_map(|ordinal| {
        set.spec
            .claim_templates
            .iter()
            .map(|template| (key.claim(&template.name, *ordinal), template.spec.request_bytes))
    });
    for (claim_key, request_bytes) in claims {
        let Some(claim) = state.claims.get(&claim_key) else { continue };
        let may_grow = claim.deleting_at_ms.is_none() && claim.volume.is_some() && is_expandable(state, &claim.spec);
        if claim.spec.request_bytes < request_bytes && may_grow {
            let mut events = vec![Event::ClaimUpdated {
                claim: claim_key.clone(),
                labels: claim.meta.labels.clone(),
                annotations: claim.meta.annotations.clone(),
                spec: ClaimSpec { request_bytes, ..claim.spec.clone() },
            }];
            events.extend(volume_growth(state, claim, request_bytes));
            return events;
        }
    }
    Vec::new()
}

/// A claim that somebody else made for the set may be of a class that cannot grow: it stays as it is.
fn is_expandable(state: &State, spec: &ClaimSpec) -> bool {
    class_of(state, spec.class.as_ref()).is_some_and(|(_, class)| class.spec.may_expand)
}

/// The claims of a pod that goes because its set was scaled in, if the set lets go of them. Recorded before the pod's
/// own end, so that none is forgotten (semantics A10-139).
pub(super) fn scaled_away(state: &State, key: &Key, set: &Set, pod: &Pod) -> Vec<Event> {
    match set.spec.retention.when_scaled {
        Retention::Retain => Vec::new(),
        Retention::Delete => claim_ends(state, key, set, pod.ordinal),
    }
}

/// The ends of the claims that a set has at an ordinal.
pub(crate) fn claim_ends(state: &State, key: &Key, set: &Set, ordinal: Ordinal) -> Vec<Event> {
    let claims = set.spec.claim_templates.iter().map(|template| key.claim(&template.name, ordinal));
    claims
        .filter(|claim| state.claims.get(claim).is_some_and(|c| c.deleting_at_ms.is_none()))
        .map(|claim| Event::ClaimDeletionRequested { claim })
        .collect()
}
