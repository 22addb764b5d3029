//! Sets: which pod is made, deleted or replaced next. Never looks at nodes or volumes; a pod on an unreachable node
//! is simply one that is there and not available, which is the whole of the refusal from here.

use super::set_claim::{self, creation};
use super::set_owner;
use super::set_revision::{finish_rollout, retarget, revision_for};
use crate::draft::Draft;
use crate::event::Event;
use crate::id::{Key, Ordinal};
use crate::object::{Phase, Pod, Set};
use crate::spec::{PodManagement, UpdateStrategy};
use crate::state::State;
use mutants::{Mutant, is_on};
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

/// What a set can do next in one respect.
type Step = fn(&State, &Key, &Set) -> Vec<Event>;

fn next_step(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    if let Some(event) = retarget(key, set) {
        return vec![event];
    }
    if let Some(event) = set_owner::step(state, key, set) {
        return vec![event];
    }
    let steps: [Step; 4] = [set_claim::missing, pods, set_claim::growth, finish_rollout];
    steps.into_iter().map(|step| step(state, key, set)).find(|events| !events.is_empty()).unwrap_or_default()
}

fn pods(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    match set.spec.policy {
        PodManagement::OrderedReady => ordered(state, key, set),
        PodManagement::Parallel => parallel(state, key, set),
    }
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

pub(super) fn is_available(pod: &Pod) -> bool {
    pod.is_available && pod.is_ready() && pod.deletion.is_none()
}

pub(crate) fn is_over(pod: &Pod) -> bool {
    match pod.status.phase {
        Phase::Failed | Phase::Succeeded => true,
        Phase::Pending | Phase::Running => false,
    }
}

fn deletion(key: &Key, pod: &Pod) -> Event {
    // A pod that has ended has nothing to wait for (semantics A8-95).
    let grace_ms = if is_over(pod) || is_on(Mutant::GraceZero) { 0 } else { pod.template.grace_ms };
    Event::PodDeletionRequested { pod: key.clone(), uid: pod.meta.uid, grace_ms, is_forced: false }
}

/// The set's pods outside its range, highest first.
fn condemned<'a>(state: &'a State, key: &'a Key, set: &Set) -> Vec<(&'a Key, &'a Arc<Pod>)> {
    let mut pods: Vec<_> = state.members(key).filter(|(_, pod)| !set.spec.keeps(pod.ordinal)).collect();
    pods.sort_by_key(|(_, pod)| std::cmp::Reverse(pod.ordinal));
    if is_on(Mutant::DeleteFromBottom) {
        pods.reverse();
    }
    pods
}

/// The end of a pod beyond the wanted number, and of its claims where the set lets go of them.
fn end_condemned(state: &State, key: &Key, set: &Set, pod_key: &Key, pod: &Pod) -> Vec<Event> {
    let mut events = set_claim::scaled_away(state, key, set, pod);
    if pod.deletion.is_none() {
        events.push(deletion(pod_key, pod));
    }
    events
}

/// Decision 6: a pod that is not available and is not at the revision it should have is replaced without waiting,
/// so that a corrected template always heals the set. A held pod is never replaced.
fn is_stuck(set: &Set, pod: &Pod) -> bool {
    0 < budget(set) && pod.hold.is_none() && !pod.is_ready() && pod.revision != *revision_for(set, pod.ordinal)
}

fn ordered(state: &State, key: &Key, set: &Set) -> Vec<Event> {
    let is_missing = |ordinal: &Ordinal| matches!(place(state, set, &key.pod(*ordinal)), Place::Empty);
    if is_on(Mutant::CreateWithoutWaiting)
        && let Some(ordinal) = set.spec.kept().find(is_missing)
    {
        return creation(state, key, set, ordinal);
    }
    for ordinal in set.spec.kept() {
        let pod_key = key.pod(ordinal);
        match place(state, set, &pod_key) {
            Place::Empty => return creation(state, key, set, ordinal),
            Place::Foreign => return Vec::new(),
            Place::Member(pod) if is_available(pod) => {}
            Place::Member(pod) if pod.deletion.is_some() => return Vec::new(),
            Place::Member(pod) if is_over(pod) || is_stuck(set, pod) => return vec![deletion(&pod_key, pod)],
            Place::Member(_) if is_on(Mutant::ScaleDownIgnoresKept) => break,
            Place::Member(_) => return Vec::new(),
        }
    }
    let condemned = condemned(state, key, set);
    if let Some((pod_key, pod)) = condemned.first() {
        let lowest_unready = condemned.iter().rev().find(|(_, pod)| !pod.is_ready()).map(|(_, pod)| pod.ordinal);
        let may_go = pod.is_ready() || lowest_unready == Some(pod.ordinal);
        return if pod.deletion.is_some() || may_go {
            end_condemned(state, key, set, pod_key, pod)
        } else {
            Vec::new()
        };
    }
    // Every kept pod is available here, so the whole budget is free; the next round waits for all of them.
    let mut victims: Vec<_> = outdated(state, key, set).collect();
    if is_on(Mutant::WrongVictim) {
        victims.reverse();
    }
    victims.into_iter().take(budget(set)).map(|(pod_key, pod)| deletion(&pod_key, pod)).collect()
}

/// How many pods the rollout may take away; none while it rests.
fn budget(set: &Set) -> usize {
    match set.spec.update {
        _ if set.spec.is_paused && !is_on(Mutant::PauseIgnored) => 0,
        UpdateStrategy::RollingUpdate { max_unavailable, .. } => {
            max_unavailable.of(set.spec.replicas) as usize + usize::from(is_on(Mutant::BudgetOffByOne))
        }
        UpdateStrategy::OnDelete => usize::from(is_on(Mutant::OnDeleteReplaces)),
    }
}

/// The kept pods that the rollout has yet to reach, highest first.
fn outdated<'a>(state: &'a State, key: &'a Key, set: &'a Set) -> impl Iterator<Item = (Key, &'a Arc<Pod>)> {
    let partition = match set.spec.update {
        UpdateStrategy::RollingUpdate { partition, .. } if !is_on(Mutant::PartitionIgnored) => partition,
        UpdateStrategy::OnDelete if !is_on(Mutant::OnDeleteReplaces) => Ordinal(u32::MAX),
        UpdateStrategy::RollingUpdate { .. } | UpdateStrategy::OnDelete => Ordinal(0),
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
        .flat_map(|(pod_key, pod)| end_condemned(state, key, set, pod_key, pod))
        .collect();
    let mut unavailable = 0;
    for ordinal in set.spec.kept() {
        let pod_key = key.pod(ordinal);
        match place(state, set, &pod_key) {
            Place::Empty => {
                // It is away for as long as a claim that is on its way out keeps it from being made.
                unavailable += 1;
                events.extend(creation(state, key, set, ordinal));
            }
            Place::Foreign => unavailable += 1,
            Place::Member(pod) if pod.deletion.is_some() => unavailable += 1,
            Place::Member(pod) if is_over(pod) || is_stuck(set, pod) => events.push(deletion(&pod_key, pod)),
            Place::Member(pod) if is_available(pod) => {}
            // One that is at an old revision and unavailable anyway is no loss (Decision 7); a held one may be alive.
            Place::Member(pod) => {
                let is_as_wanted = pod.revision == *revision_for(set, ordinal);
                let is_loss = is_as_wanted || pod.hold.is_some();
                unavailable += usize::from(is_loss && !is_on(Mutant::ParallelIgnoresUnavailable));
            }
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
