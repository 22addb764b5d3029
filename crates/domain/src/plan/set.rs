//! Sets: which pod is made, deleted or replaced next. Never looks at nodes or volumes; a pod on an unreachable node
//! is simply one that is there and not available, which is the whole of the refusal from here.

use crate::draft::{Draft, class_or_default};
use crate::event::Event;
use crate::id::{Key, Ordinal, RevisionName};
use crate::object::{Phase, Pod, PodClaim, Set};
use crate::spec::{ClaimSpec, PodManagement, UpdateStrategy};
use crate::state::State;
use std::sync::Arc;

/// Takes every step that the set can take now.
pub(crate) fn settle(draft: &mut Draft, key: &Key) {
    while let Some(set) = draft.state().sets.get(key).cloned() {
        let events = next_step(draft.state(), key, &set);
        if events.is_empty() {
            return;
        }
        for event in events {
            draft.record(event);
        }
        // Recording marked this very set again; the loop is already going round for it.
        draft.dirty.sets.remove(key);
    }
    delete_ownerless(draft, key);
}

/// The pods of a set that was deleted go too, except for those it let go of.
fn delete_ownerless(draft: &mut Draft, key: &Key) {
    let orphans: Vec<Event> = draft
        .state()
        .pods_named_by(key)
        .filter(|(_, pod)| pod.owner.is_some() && pod.deletion.is_none())
        .map(|(pod_key, pod)| deletion(pod_key, pod))
        .collect();
    for event in orphans {
        draft.record(event);
    }
}

fn next_step(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    if let Some(event) = retarget(key, set) {
        return vec![event];
    }
    if let Some(event) = adopt(state, key, set) {
        return vec![event];
    }
    let events = match set.spec.policy {
        PodManagement::OrderedReady => ordered(state, key, set),
        PodManagement::Parallel => parallel(state, key, set),
    };
    if events.is_empty() { finish_rollout(state, key, set) } else { events }
}

/// The revision of the present template becomes the target: an old one again if it means the same (semantics A6-71).
fn retarget(key: &Key, set: &Set) -> Option<Event> {
    let wanted = &set.spec.template;
    if set.template(&set.update_revision).is_some_and(|template| template.means_same(wanted)) {
        return None;
    }
    let number = set.revisions.iter().map(|r| r.number).max().unwrap_or(0) + 1;
    if let Some(old) = set.revisions.iter().find(|r| r.template.means_same(wanted)) {
        return Some(Event::RevisionTargeted { set: key.clone(), revision: old.name.clone(), number });
    }
    let mut revision: RevisionName = format!("{}-{:010x}", key.name, wanted.hash & 0xff_ffff_ffff).into();
    if set.template(&revision).is_some() {
        revision = format!("{revision}-{number}").into();
    }
    Some(Event::RevisionTargeted { set: key.clone(), revision, number })
}

fn adopt(state: &State, key: &Key, set: &Set) -> Option<Event> {
    let (pod_key, pod) = state.pods_named_by(key).find(|(_, pod)| {
        let matches = set.spec.selector.iter().all(|(label, value)| pod.meta.labels.get(label) == Some(value));
        pod.owner.is_none() && pod.deletion.is_none() && matches
    })?;
    let same = set.revisions.iter().rev().find(|r| r.template.means_same(&pod.template));
    let revision = same.map_or_else(|| pod.revision.clone(), |r| r.name.clone());
    Some(Event::PodAdopted { pod: pod_key.clone(), uid: pod.meta.uid, owner: set.meta.uid, revision })
}

/// What stands at an ordinal.
enum Place<'a> {
    Empty,
    /// A pod of another owner has the name: nothing can be made until it is gone.
    Foreign,
    Member(&'a Arc<Pod>),
}

fn place<'a>(state: &'a State, set: &Set, key: &Key) -> Place<'a> {
    match state.pods.get(key) {
        None => Place::Empty,
        Some(pod) if pod.owner == Some(set.meta.uid) => Place::Member(pod),
        Some(_) => Place::Foreign,
    }
}

fn is_available(pod: &Pod) -> bool {
    pod.is_available && pod.is_ready() && pod.deletion.is_none()
}

fn is_over(pod: &Pod) -> bool {
    match pod.status.phase {
        Phase::Failed | Phase::Succeeded => true,
        Phase::Pending | Phase::Running => false,
    }
}

/// The template for a new pod is a function of its ordinal and nothing else (semantics D21).
fn revision_for(set: &Set, ordinal: Ordinal) -> &RevisionName {
    match set.spec.update {
        UpdateStrategy::RollingUpdate { partition, .. } if ordinal < partition => &set.current_revision,
        UpdateStrategy::RollingUpdate { .. } | UpdateStrategy::OnDelete => &set.update_revision,
    }
}

fn deletion(key: &Key, pod: &Pod) -> Event {
    // A pod that has ended has nothing to wait for (semantics A8-95).
    let grace_ms = if is_over(pod) { 0 } else { pod.template.grace_ms };
    Event::PodDeletionRequested { pod: key.clone(), uid: pod.meta.uid, grace_ms, is_forced: false }
}

/// A pod, and before it its claims; nothing while one of them is on its way out (semantics A10-133).
fn creation(state: &State, key: &Key, set: &Set, ordinal: Ordinal) -> Vec<Event> {
    let mut events = Vec::new();
    let mut claims = Vec::new();
    for template in &set.spec.claim_templates {
        let claim = key.claim(&template.name, ordinal);
        match state.claims.get(&claim) {
            Some(found) if found.deleting_at_ms.is_some() => return Vec::new(),
            Some(_) => {}
            None => {
                let mut labels = template.labels.clone();
                labels.extend(set.spec.selector.clone());
                let class = class_or_default(state, template.spec.class.as_ref());
                let spec = ClaimSpec { class, ..template.spec.clone() };
                let annotations = template.annotations.clone();
                events.push(Event::ClaimCreated { claim: claim.clone(), labels, spec, annotations });
            }
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

/// The set's pods outside its range, highest first.
fn condemned<'a>(state: &'a State, key: &'a Key, set: &Set) -> Vec<(&'a Key, &'a Arc<Pod>)> {
    let mut pods: Vec<_> = state.members(key).filter(|(_, pod)| !set.spec.keeps(pod.ordinal)).collect();
    pods.sort_by_key(|(_, pod)| std::cmp::Reverse(pod.ordinal));
    pods
}

/// Decision 6: a pod that is not available and is not at the revision it should have is replaced without waiting,
/// so that a corrected template always heals the set. A held pod is never replaced.
fn is_stuck(set: &Set, pod: &Pod) -> bool {
    let is_rolling = match set.spec.update {
        UpdateStrategy::RollingUpdate { .. } => true,
        UpdateStrategy::OnDelete => false,
    };
    is_rolling && pod.hold.is_none() && !pod.is_ready() && pod.revision != *revision_for(set, pod.ordinal)
}

fn ordered(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    for ordinal in set.spec.kept() {
        let pod_key = key.pod(ordinal);
        match place(state, set, &pod_key) {
            Place::Empty => return creation(state, key, set, ordinal),
            Place::Foreign => return Vec::new(),
            Place::Member(pod) if is_available(pod) => {}
            Place::Member(pod) if pod.deletion.is_some() => return Vec::new(),
            Place::Member(pod) if is_over(pod) || is_stuck(set, pod) => return vec![deletion(&pod_key, pod)],
            Place::Member(_) => return Vec::new(),
        }
    }
    let condemned = condemned(state, key, set);
    if let Some((pod_key, pod)) = condemned.first() {
        let lowest_unready = condemned.iter().rev().find(|(_, pod)| !pod.is_ready()).map(|(_, pod)| pod.ordinal);
        let may_go = pod.is_ready() || lowest_unready == Some(pod.ordinal);
        return if pod.deletion.is_none() && may_go { vec![deletion(pod_key, pod)] } else { Vec::new() };
    }
    // Every kept pod is available here, so the whole budget is free; the next round waits for all of them.
    outdated(state, key, set).take(budget(set)).map(|(pod_key, pod)| deletion(&pod_key, pod)).collect()
}

fn budget(set: &Set) -> usize {
    match set.spec.update {
        UpdateStrategy::RollingUpdate { max_unavailable, .. } => max_unavailable.of(set.spec.replicas) as usize,
        UpdateStrategy::OnDelete => 0,
    }
}

/// The kept pods that the rollout has yet to reach, highest first.
fn outdated<'a>(state: &'a State, key: &'a Key, set: &'a Set) -> impl Iterator<Item = (Key, &'a Arc<Pod>)> {
    let partition = match set.spec.update {
        UpdateStrategy::RollingUpdate { partition, .. } => partition,
        UpdateStrategy::OnDelete => Ordinal(u32::MAX),
    };
    set.spec.kept().rev().take_while(move |ordinal| partition <= *ordinal).filter_map(move |ordinal| {
        let pod_key = key.pod(ordinal);
        match place(state, set, &pod_key) {
            Place::Member(pod) if pod.revision != set.update_revision && pod.deletion.is_none() => Some((pod_key, pod)),
            Place::Member(_) | Place::Empty | Place::Foreign => None,
        }
    })
}

fn parallel(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    // What is too much goes before what is missing comes: it may need the room (semantics A5-59).
    let mut events: Vec<Event> = condemned(state, key, set)
        .into_iter()
        .filter(|(_, pod)| pod.deletion.is_none())
        .map(|(pod_key, pod)| deletion(pod_key, pod))
        .collect();
    let mut unavailable = 0;
    for ordinal in set.spec.kept() {
        let pod_key = key.pod(ordinal);
        match place(state, set, &pod_key) {
            Place::Empty => events.extend(creation(state, key, set, ordinal)),
            Place::Foreign => unavailable += 1,
            Place::Member(pod) if pod.deletion.is_some() => unavailable += 1,
            Place::Member(pod) if is_over(pod) || is_stuck(set, pod) => events.push(deletion(&pod_key, pod)),
            Place::Member(pod) if is_available(pod) => {}
            Place::Member(pod) => unavailable += usize::from(pod.revision == set.update_revision),
        }
    }
    if !events.is_empty() {
        return events;
    }
    outdated(state, key, set)
        .filter(|(_, pod)| is_available(pod))
        .take(budget(set).saturating_sub(unavailable))
        .map(|(pod_key, pod)| deletion(&pod_key, pod))
        .collect()
}

/// The rollout is over once every kept pod is at the target and ready, and nothing else is left (semantics A6-80).
fn finish_rollout(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    let may_end = match set.spec.update {
        UpdateStrategy::RollingUpdate { partition, .. } => partition <= set.spec.start,
        UpdateStrategy::OnDelete => false,
    };
    if set.current_revision != set.update_revision {
        let mut count = 0;
        let is_done = state.members(key).all(|(_, pod)| {
            count += 1;
            set.spec.keeps(pod.ordinal) && pod.revision == set.update_revision && is_available(pod)
        });
        if may_end && is_done && count == set.spec.replicas {
            return vec![Event::RolloutCompleted { set: key.clone(), revision: set.update_revision.clone() }];
        }
    }
    forget_revisions(state, key, set)
}

fn forget_revisions(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    let excess = set.revisions.len().saturating_sub(set.spec.revision_history_max as usize);
    if excess == 0 {
        return Vec::new();
    }
    let is_live = |name: &RevisionName| {
        *name == set.current_revision
            || *name == set.update_revision
            || state.members(key).any(|(_, pod)| pod.revision == *name)
    };
    let dead: Vec<_> = set.revisions.iter().filter(|r| !is_live(&r.name)).collect();
    let excess = dead.len().saturating_sub(set.spec.revision_history_max as usize);
    dead.into_iter()
        .take(excess)
        .map(|r| Event::RevisionForgotten { set: key.clone(), revision: r.name.clone() })
        .collect()
}
