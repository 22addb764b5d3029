//! `eviction-budget` (semantics D50, decision 13): an eviction leaves as many healthy pods as the disruption budget asks
//! for that covers the pod. Pods that serve nobody are evicted freely; whoever deletes is not asked.

use super::{Checker, Committed};
use crate::history::{Fact, Question, What};
use crate::scene::Scene;
use domain::id::{Key, RequestId};
use domain::object::{Budget, Phase, Pod};
use domain::spec::{BudgetBound, Labels};
use domain::{Command, Event, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub struct EvictionBudget {
    judged_count: u64,
    /// The pods that clients want to be evicted, by request.
    asked: BTreeMap<RequestId, Key>,
}

impl Checker for EvictionBudget {
    fn name(&self) -> &'static str {
        "eviction-budget"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, _: &Scene, fact: &Fact) -> Result<(), String> {
        if let What::Asked { question: Question::Change(request), .. } = &fact.what
            && let (Command::EvictPod { pod, .. }, Some(id)) = (&request.command, &request.id)
        {
            self.asked.insert(id.clone(), pod.clone());
        }
        Ok(())
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        let Some(id) = &committed.batch.request else { return Ok(()) };
        let Some(key) = self.asked.get(id) else { return Ok(()) };
        let before = committed.before;
        let ends = |event: &Event| matches!(event, Event::PodDeletionRequested { pod, .. } if pod == key);
        match before.pods.get(key) {
            Some(pod) if committed.batch.events.iter().any(ends) => {
                self.judged_count += 1;
                judge(before, key, pod)
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn judge(state: &State, key: &Key, pod: &Pod) -> Result<(), String> {
    if pod.status.phase != Phase::Running || pod.ready_at_ms == 0 {
        return Ok(());
    }
    let covering = state
        .budgets
        .iter()
        .filter(|(name, budget)| name.namespace == key.namespace && covers(&budget.spec.selector, pod));
    let covering: Vec<_> = covering.collect();
    match covering.as_slice() {
        [] => Ok(()),
        [(name, budget)] => judge_budget(state, key, pod, name, budget),
        _ => Err(format!("pod {key} was evicted though {} budgets cover it", covering.len())),
    }
}

fn judge_budget(state: &State, key: &Key, pod: &Pod, name: &Key, budget: &Budget) -> Result<(), String> {
    let covered: Vec<(&Key, &Arc<Pod>)> = state
        .pods
        .iter()
        .filter(|(other, pod)| other.namespace == name.namespace && covers(&budget.spec.selector, pod))
        .collect();
    let healthy = covered.iter().filter(|(_, pod)| pod.is_ready() && pod.deletion.is_none()).count() as u64;
    let desired = desired(state, budget, &covered);
    let is_allowed = if pod.is_ready() { desired < healthy } else { budget.spec.evicts_unready || desired <= healthy };
    if is_allowed {
        return Ok(());
    }
    Err(format!("pod {key} was evicted while budget {name} had {healthy} healthy pods, and asks for {desired} to stay"))
}

/// How many pods are to be healthy: of those that are there, or that their sets want to be.
fn desired(state: &State, budget: &Budget, covered: &[(&Key, &Arc<Pod>)]) -> u64 {
    let owned = covered.iter().filter(|(_, pod)| pod.owner.is_some());
    let sets: BTreeSet<Key> = owned.map(|(key, pod)| super::set_of(key, pod)).collect();
    let wanted: u32 = sets.iter().filter_map(|set| state.sets.get(set)).map(|set| set.spec.replicas).sum();
    let orphan_count = covered.iter().filter(|(_, pod)| pod.owner.is_none()).count();
    let expected = wanted.saturating_add(u32::try_from(orphan_count).unwrap_or(u32::MAX));
    u64::from(match budget.spec.bound {
        BudgetBound::MinAvailable(domain::spec::Amount::Count(count)) => count,
        BudgetBound::MinAvailable(share) => share.rounded_up(expected),
        BudgetBound::MaxUnavailable(share) => expected.saturating_sub(share.rounded_up(expected)),
    })
}

fn covers(selector: &Labels, pod: &Pod) -> bool {
    selector.iter().all(|(label, value)| pod.meta.labels.get(label) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};
    use domain::Request;
    use domain::spec::BudgetSpec;

    fn story() -> Story {
        let mut story = Story::judged_by(EvictionBudget::default());
        story.has_ordered_set("web", 2, &["n1", "n2"]);
        let spec = BudgetSpec { selector: Labels::from([("app".into(), "web".into())]), ..BudgetSpec::default() };
        let (labels, annotations) = (Labels::new(), Labels::new());
        story.submits("user", Command::ApplyBudget { budget: key("web"), labels, annotations, spec });
        story
    }

    fn evicts(story: &mut Story, pod: &str) {
        let command = Command::EvictPod { pod: key(pod), grace_ms: None, uid: None };
        let request = Request { actor: "user".into(), id: Some("r1".into()), expected: None, command };
        story.asks(1, Question::Change(Arc::new(request)));
        let uid = story.uid(pod);
        let end = Event::PodDeletionRequested { pod: key(pod), uid, grace_ms: 30_000, is_forced: false };
        story.commits_request("r1", vec![end]);
    }

    #[test]
    fn a_budget_lets_one_go() {
        let mut story = story();
        evicts(&mut story, "web-1");
        story.holds();
    }

    #[test]
    fn a_budget_does_not_let_a_second_go() {
        let mut story = story();
        story.submits("user", Command::DeletePod { pod: key("web-1"), grace_ms: None, force: false, uid: None });
        evicts(&mut story, "web-0");
        story.is_broken("1 healthy pods, and asks for 1 to stay");
    }
}
