//! Disruption budgets: what users may write, and how they stand.

use super::check::{At, FieldError, labels_to_wire};
use super::meta::{Marks, marks_from_wire, meta_to_wire};
use super::set::{amount_text, number, parse_amount};
use super::template::selector_from_wire;
use crate::name::check_subdomain;
use crate::v1;
use domain::State;
use domain::id::Key;
use domain::object::Budget;
use domain::spec::{Amount, BudgetBound, BudgetSpec, Labels};

/// Reads a budget.
///
/// # Errors
/// The first field that breaks a rule.
pub fn budget_from_wire(wire: &v1::PodDisruptionBudget) -> Result<(Key, Labels, Labels, BudgetSpec), FieldError> {
    let Marks { key, labels, annotations } = marks_from_wire(wire.metadata.as_ref(), check_subdomain)?;
    let at = At::root("spec");
    let spec = at.required(wire.spec.as_ref())?;
    let bound = match (spec.min_available.as_deref(), spec.max_unavailable.as_deref()) {
        (Some(_), Some(_)) => return Err(at.to("maxUnavailable").refuse("cannot be there together with minAvailable")),
        (Some(text), None) => BudgetBound::MinAvailable(amount_from_wire(text, at.to("minAvailable"))?),
        (None, Some(text)) => BudgetBound::MaxUnavailable(amount_from_wire(text, at.to("maxUnavailable"))?),
        (None, None) => return Err(at.to("minAvailable").refuse("or maxUnavailable is required")),
    };
    let policies = [("IfHealthyBudget", false), ("AlwaysAllow", true)];
    let spec = BudgetSpec {
        selector: selector_from_wire(spec.selector.as_ref(), at.to("selector"))?,
        bound,
        evicts_unready: at.to("unhealthyPodEvictionPolicy").word(&spec.unhealthy_pod_eviction_policy, &policies)?,
    };
    Ok((key, labels, annotations, spec))
}

fn amount_from_wire(text: &str, at: At<'_>) -> Result<Amount, FieldError> {
    parse_amount(text).ok_or_else(|| at.refuse(format_args!("must be a number, or 0% to 100%, and is {text:?}")))
}

/// Writes a budget, with how it stands.
#[must_use]
pub fn budget_to_wire(state: &State, key: &Key, budget: &Budget) -> v1::PodDisruptionBudget {
    let now = domain::budget_state(state, key, budget);
    let (min_available, max_unavailable) = match budget.spec.bound {
        BudgetBound::MinAvailable(amount) => (Some(amount_text(amount)), None),
        BudgetBound::MaxUnavailable(amount) => (None, Some(amount_text(amount))),
    };
    let policy = if budget.spec.evicts_unready { "AlwaysAllow" } else { "IfHealthyBudget" };
    v1::PodDisruptionBudget {
        api_version: "policy/v1".to_owned(),
        kind: "PodDisruptionBudget".to_owned(),
        metadata: Some(meta_to_wire(state, key, &budget.meta)),
        spec: Some(v1::PodDisruptionBudgetSpec {
            min_available,
            max_unavailable,
            selector: Some(v1::LabelSelector {
                match_labels: labels_to_wire(&budget.spec.selector),
                ..v1::LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: policy.to_owned(),
        }),
        status: Some(v1::PodDisruptionBudgetStatus {
            disruptions_allowed: number(now.allowed),
            current_healthy: number(now.healthy),
            desired_healthy: number(now.desired),
            expected_pods: number(now.expected),
            observed_generation: i64::try_from(budget.meta.generation.0).unwrap_or(i64::MAX),
        }),
    }
}
