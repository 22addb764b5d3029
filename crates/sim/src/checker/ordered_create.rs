//! `ordered-create` (semantics D11, D12, A3-32): an ordered set makes a pod only when every lower one is available, and
//! what is called available has been ready for as long as the set asks.

use super::{Checker, Committed, is_available, member, owner};
use crate::scene::Scene;
use domain::id::{Key, Ordinal, Uid};
use domain::spec::PodManagement;
use domain::{Event, State};

/// See the module.
#[derive(Debug, Default)]
pub struct OrderedCreate {
    judged_count: u64,
}

impl Checker for OrderedCreate {
    fn name(&self) -> &'static str {
        "ordered-create"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps() {
            match step.event {
                Event::PodCreated { set, ordinal, .. } => {
                    self.judged_count += 1;
                    judge_order(step.before, set, *ordinal)?;
                }
                Event::PodBecameAvailable { pod, uid } => judge_ripeness(step.before, pod, *uid)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn judge_order(state: &State, key: &Key, ordinal: Ordinal) -> Result<(), String> {
    let Some(set) = state.sets.get(key) else { return Ok(()) };
    if set.spec.policy != PodManagement::OrderedReady {
        return Ok(());
    }
    for lower in set.spec.kept().take_while(|lower| *lower < ordinal) {
        if !member(state, key, set, lower).is_some_and(|pod| is_available(pod)) {
            return Err(format!(
                "set {key} is ordered, and made pod {} before pod {} was available",
                key.pod(ordinal),
                key.pod(lower)
            ));
        }
    }
    Ok(())
}

fn judge_ripeness(state: &State, key: &Key, uid: Uid) -> Result<(), String> {
    let Some(pod) = state.pod(key, uid) else {
        return Err(format!("pod {key} (uid {uid}) is not there, and was called available"));
    };
    let min_ready_ms = owner(state, key, pod).map_or(0, |(_, set)| set.spec.min_ready_ms);
    if !pod.is_ready() || state.at_ms < pod.ready_at_ms.saturating_add(min_ready_ms) {
        return Err(format!(
            "pod {key} was called available at {} ms by the log's clock; it is ready: {}, since {} ms, and its set asks \
             for {min_ready_ms} ms",
            state.at_ms,
            pod.is_ready(),
            pod.ready_at_ms
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};
    use domain::object::Phase;

    fn story() -> Story {
        let mut story = Story::judged_by(OrderedCreate::default());
        story.has_ordered_set("web", 3, &["n1", "n2"]);
        story
    }

    #[test]
    fn pods_come_one_after_another_and_a_lower_one_comes_back_whatever_the_higher_ones_do() {
        let mut story = story();
        story.says("web-2", Phase::Running, false);
        story.is_replaced_after_stop("web-0");
        story.runs("web-0");
        story.holds();
    }

    #[test]
    fn a_pod_that_overtakes_is_noticed() {
        let mut story = story();
        story.scales("web", 4);
        story.runs("web-3");
        story.scales("web", 5);
        story.says("web-1", Phase::Running, false);
        let creation = story.creation("web", 4);
        let removal = Event::PodRemoved {
            pod: key("web-4"),
            uid: story.uid("web-4"),
            cause: domain::event::RemovalCause::NeverPlaced,
        };
        story.plans(vec![removal, creation]);
        story.is_broken("before pod default/web-1 was available");
    }

    #[test]
    fn parallel_sets_may() {
        let mut story = Story::judged_by(OrderedCreate::default());
        story.has_set("web", 3, &["n1", "n2"]);
        story.holds();
    }

    #[test]
    fn nothing_is_available_before_its_time() {
        let mut story = story();
        story.changes("web", |spec| spec.min_ready_ms = 60_000);
        let event = Event::PodBecameAvailable { pod: key("web-2"), uid: story.uid("web-2") };
        story.plans(vec![event]);
        story.is_broken("was called available");
    }
}
