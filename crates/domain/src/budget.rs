//! Disruption budgets: which pods they cover, and how many of these may go now. Never ends a pod.

use crate::id::Key;
use crate::object::{Budget, Pod};
use crate::spec::{Amount, BudgetBound, Labels};
use crate::state::State;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How a budget stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetState {
    /// How many pods there should be.
    pub expected: u32,
    /// How many are ready and stay.
    pub healthy: u32,
    /// How many must be.
    pub desired: u32,
    /// How many may go now.
    pub allowed: u32,
}

/// The budgets that cover a pod.
pub(crate) fn budgets_of<'a>(
    state: &'a State,
    key: &'a Key,
    pod: &'a Pod,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Budget>)> {
    state
        .budgets
        .iter()
        .filter(move |(budget, record)| budget.namespace == key.namespace && covers(&record.spec.selector, pod))
}

fn covers(selector: &Labels, pod: &Pod) -> bool {
    selector.iter().all(|(label, value)| pod.meta.labels.get(label) == Some(value))
}

/// How a budget stands now.
#[must_use]
pub fn budget_state(state: &State, key: &Key, budget: &Budget) -> BudgetState {
    let pods: Vec<_> = state
        .pods
        .iter()
        .filter(|(pod_key, pod)| pod_key.namespace == key.namespace && covers(&budget.spec.selector, pod))
        .collect();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let healthy = count(pods.iter().filter(|(_, pod)| pod.is_ready() && pod.deletion.is_none()).count());
    // Pods that are away for a moment count as well: what their sets want.
    let sets: BTreeSet<Key> = pods
        .iter()
        .filter(|(_, pod)| pod.owner.is_some())
        .map(|(pod_key, pod)| Key { namespace: pod_key.namespace.clone(), name: pod.set.clone() })
        .collect();
    let wanted: u32 = sets.iter().filter_map(|set| state.sets.get(set)).map(|set| set.spec.replicas).sum();
    let orphans = count(pods.iter().filter(|(_, pod)| pod.owner.is_none()).count());
    let (expected, desired) = match budget.spec.bound {
        BudgetBound::MinAvailable(Amount::Count(desired)) => (count(pods.len()), desired),
        BudgetBound::MinAvailable(share) => (wanted + orphans, share.rounded_up(wanted + orphans)),
        BudgetBound::MaxUnavailable(share) => {
            (wanted + orphans, (wanted + orphans).saturating_sub(share.rounded_up(wanted + orphans)))
        }
    };
    BudgetState { expected, healthy, desired, allowed: healthy.saturating_sub(desired) }
}
