//! What people may ask of a pod: its end, by wish or by eviction, and its marks.

use super::{Decision, not_found, removal};
use crate::budget::{budget_state, budgets_of};
use crate::command::Rejection;
use crate::event::{Event, RemovalCause};
use crate::id::{Key, Name, uid_text};
use crate::object::{Phase, Pod};
use crate::spec::Labels;
use crate::state::State;
use mutants::{Mutant, is_on};
use std::sync::Arc;

/// The pod that is meant: of this name and, if the caller says so, with this very identity.
fn find<'a>(state: &'a State, key: &Key, uid: Option<&Name>) -> Result<&'a Arc<Pod>, Rejection> {
    let pod = state.pods.get(key).ok_or_else(|| not_found("pod", &key.name))?;
    let actual = uid_text(&state.cluster, pod.meta.uid);
    match uid.filter(|uid| uid.as_str() != actual) {
        Some(expected) => {
            Err(Rejection::UidMoved { name: key.name.to_string(), expected: expected.to_string(), actual })
        }
        None => Ok(pod),
    }
}

pub(super) fn delete(state: &State, key: &Key, grace_ms: Option<u64>, force: bool, uid: Option<&Name>) -> Decision {
    let pod = find(state, key, uid)?;
    if force && (pod.hold.is_some() || is_on(Mutant::ForcedWhileReachable)) {
        return Ok(removal(state, key, pod, &RemovalCause::ForceDeleted));
    }
    let wanted = grace_ms.unwrap_or(pod.template.grace_ms);
    // A stop that is under way may be hastened, never put off (semantics A8-96).
    let grace_ms = pod.deletion.as_ref().map_or(wanted, |d| d.grace_ms.min(wanted));
    let is_forced = force || pod.deletion.as_ref().is_some_and(|d| d.is_forced);
    if pod.deletion.as_ref().is_some_and(|d| d.grace_ms == grace_ms && d.is_forced == is_forced) {
        return Ok(Vec::new());
    }
    Ok(vec![Event::PodDeletionRequested { pod: key.clone(), uid: pod.meta.uid, grace_ms, is_forced }])
}

/// A stop that disruption budgets must allow (semantics A11-168, 169).
pub(super) fn evict(state: &State, key: &Key, grace_ms: Option<u64>, uid: Option<&Name>) -> Decision {
    let pod = find(state, key, uid)?;
    if let Some(hold) = &pod.hold {
        return Err(Rejection::PodIsHeld { pod: key.name.to_string(), node: hold.node.clone() });
    }
    if pod.deletion.is_some() {
        return Ok(Vec::new());
    }
    let serves = match pod.status.phase {
        Phase::Running => true,
        Phase::Pending | Phase::Succeeded | Phase::Failed => false,
    };
    // Decision 13: what was never ready serves nobody, and is not waited for.
    let was_ready = 0 < pod.ready_at_ms;
    if serves && was_ready && !is_on(Mutant::EvictionIgnoresBudget) {
        spend_budget(state, key, pod)?;
    }
    delete(state, key, grace_ms, false, uid)
}

fn spend_budget(state: &State, key: &Key, pod: &Pod) -> Result<(), Rejection> {
    let mut budgets = budgets_of(state, key, pod);
    let Some((budget_key, budget)) = budgets.next() else { return Ok(()) };
    let others: Vec<_> = budgets.map(|(other, _)| other.name.to_string()).collect();
    if !others.is_empty() {
        let budgets = format!("{} and {}", budget_key.name, others.join(" and "));
        return Err(Rejection::BudgetsOverlap { pod: key.name.to_string(), budgets });
    }
    let now = budget_state(state, budget_key, budget);
    let may_go =
        if pod.is_ready() { 0 < now.allowed } else { budget.spec.evicts_unready || now.desired <= now.healthy };
    if may_go {
        return Ok(());
    }
    Err(Rejection::BudgetExhausted {
        pod: key.name.to_string(),
        budget: budget_key.name.to_string(),
        healthy: now.healthy,
        desired: now.desired,
    })
}

pub(super) fn mark(state: &State, key: &Key, labels: &Labels, annotations: &Labels, finalizers: &[Name]) -> Decision {
    let pod = find(state, key, None)?;
    let mut events = Vec::new();
    if pod.finalizers != finalizers {
        refuse_late("pod", key, &pod.finalizers, finalizers, pod.deletion.is_some())?;
        let finalizers = finalizers.to_vec();
        events.push(Event::PodFinalizersChanged { pod: key.clone(), uid: pod.meta.uid, finalizers });
    }
    if pod.meta.labels == *labels && pod.meta.annotations == *annotations {
        return Ok(events);
    }
    events.push(Event::PodMarked {
        pod: key.clone(),
        uid: pod.meta.uid,
        labels: labels.clone(),
        annotations: annotations.clone(),
    });
    Ok(events)
}

/// What goes already takes on no more to wait for, as in Kubernetes.
pub(super) fn refuse_late(
    kind: &'static str,
    key: &Key,
    known: &[Name],
    wanted: &[Name],
    is_going: bool,
) -> Result<(), Rejection> {
    match wanted.iter().find(|finalizer| !known.contains(finalizer)) {
        Some(late) if is_going => {
            let rule = format!("{late} is new, and no finalizer may be added to what is being deleted");
            Err(Rejection::Invalid { kind, name: key.name.to_string(), field: "metadata.finalizers", rule })
        }
        Some(_) | None => Ok(()),
    }
}
