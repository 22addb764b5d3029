//! A set's revisions: which one is the target, which a new pod gets, when a rollout is over, which are forgotten.
//! Never touches a pod.

use super::set::is_available;
use crate::event::Event;
use crate::id::{Key, Ordinal, RevisionName};
use crate::object::Set;
use crate::spec::UpdateStrategy;
use crate::state::State;
use mutants::{Mutant, is_on};

/// The revision of the present template becomes the target: an old one again if it means the same (semantics A6-71).
pub(super) fn retarget(key: &Key, set: &Set) -> Option<Event> {
    let wanted = &set.spec.template;
    if set.template(&set.update_revision).is_some_and(|template| template.means_same(wanted)) {
        return None;
    }
    let number = set.revisions.iter().map(|r| r.number).max().unwrap_or(0) + 1;
    if let Some(old) = set.revisions.iter().find(|r| r.template.means_same(wanted)) {
        let revision = old.name.clone();
        let number = if is_on(Mutant::RevisionNumberKept) { old.number } else { number };
        return Some(Event::RevisionTargeted { set: key.clone(), revision, number, is_collision: false });
    }
    let mut revision: RevisionName = format!("{}-{:010x}", key.name, wanted.hash & 0xff_ffff_ffff).into();
    let is_collision = set.template(&revision).is_some();
    if is_collision {
        revision = format!("{revision}-{number}").into();
    }
    Some(Event::RevisionTargeted { set: key.clone(), revision, number, is_collision })
}

/// The template for a new pod is a function of its ordinal and nothing else (semantics D21).
pub(super) fn revision_for(set: &Set, ordinal: Ordinal) -> &RevisionName {
    match set.spec.update {
        UpdateStrategy::RollingUpdate { partition, .. } if ordinal < partition => &set.current_revision,
        UpdateStrategy::RollingUpdate { .. } | UpdateStrategy::OnDelete => &set.update_revision,
    }
}

/// The rollout is over once every kept pod is at the target and ready, and nothing else is left (semantics A6-80).
pub(super) fn finish_rollout(state: &State, key: &Key, set: &Set) -> Vec<Event> {
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
