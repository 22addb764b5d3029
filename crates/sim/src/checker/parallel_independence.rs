//! `parallel-independence` (semantics D14, A5-52, A5-53): a parallel set makes and ends its pods at once, whatever the
//! other ones do. What can be done is done in the very batch that made it possible, so nothing is left after any batch.

use super::{Checker, Committed, set_of};
use crate::scene::Scene;
use domain::id::{Key, Ordinal};
use domain::object::Set;
use domain::spec::PodManagement;
use domain::{Event, State};
use std::collections::BTreeSet;

/// See the module.
#[derive(Debug, Default)]
pub struct ParallelIndependence {
    judged_count: u64,
}

impl Checker for ParallelIndependence {
    fn name(&self) -> &'static str {
        "parallel-independence"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for key in touched(committed) {
            let Some(set) = committed.after.sets.get(&key) else { continue };
            if set.spec.policy == PodManagement::Parallel {
                self.judged_count += 1;
                judge(committed.after, &key, set)?;
            }
        }
        Ok(())
    }
}

/// The sets that a batch has to do with.
fn touched(committed: &Committed<'_>) -> BTreeSet<Key> {
    let mut sets = BTreeSet::new();
    for step in committed.steps() {
        match step.event.object() {
            ("StatefulSet", key) => {
                sets.insert(key);
            }
            ("Pod", key) => {
                let pods = [step.before.pods.get(&key), step.after.pods.get(&key)];
                sets.extend(pods.into_iter().flatten().map(|pod| set_of(&key, pod)));
            }
            _ => {}
        }
        if let Event::ClaimRemoved { claim } = step.event {
            sets.extend(committed.after.sets.keys().filter(|set| set.namespace == claim.namespace).cloned());
        }
    }
    sets
}

fn judge(state: &State, key: &Key, set: &Set) -> Result<(), String> {
    for ordinal in set.spec.kept() {
        let pod = key.pod(ordinal);
        if !state.pods.contains_key(&pod) && !waits_for_claim(state, key, set, ordinal) {
            return Err(format!("set {key} is parallel, and did not make its pod {pod} at once"));
        }
    }
    match state.members(key).find(|(_, pod)| !set.spec.keeps(pod.ordinal) && pod.deletion.is_none()) {
        Some((pod, _)) => Err(format!("set {key} is parallel, and did not ask {pod} to go at once")),
        None => Ok(()),
    }
}

fn waits_for_claim(state: &State, key: &Key, set: &Set, ordinal: Ordinal) -> bool {
    let mut claims = set.spec.claim_templates.iter().map(|template| key.claim(&template.name, ordinal));
    claims.any(|claim| state.claims.get(&claim).is_some_and(|claim| claim.deleting_at_ms.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};
    use domain::object::Phase;

    fn story() -> Story {
        let mut story = Story::judged_by(ParallelIndependence::default());
        story.has_set("web", 3, &["n1", "n2"]);
        story
    }

    #[test]
    fn pods_come_and_go_at_once() {
        let mut story = story();
        story.says("web-0", Phase::Running, false);
        story.scales("web", 6);
        story.scales("web", 1);
        for pod in ["web-5", "web-1"] {
            story.is_said_gone(pod);
        }
        story.holds();
    }

    #[test]
    fn a_claim_on_its_way_out_is_waited_for() {
        let mut story = story();
        story.submits("user", domain::Command::DeleteClaim { claim: key("www-web-1") });
        story.is_replaced_after_stop("web-1");
        story.holds();
    }

    #[test]
    fn one_that_waits_is_noticed() {
        let mut missing = story();
        missing.commits("user", vec![Event::SetScaled { set: key("web"), replicas: 4 }]);
        missing.is_broken("did not make its pod default/web-3");

        let mut surplus = story();
        surplus.commits("user", vec![Event::SetScaled { set: key("web"), replicas: 2 }]);
        surplus.is_broken("did not ask default/web-2 to go");
    }
}
