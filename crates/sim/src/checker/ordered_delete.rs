//! `ordered-delete` (semantics D13, A4-38 to A4-45): an ordered set is scaled in from the top, one completely gone before
//! the next is asked to go, and not while a pod that stays is away.

use super::{Checker, Committed, is_available, member, owner};
use crate::scene::Scene;
use domain::id::{Key, Ordinal, Uid};
use domain::object::Pod;
use domain::spec::PodManagement;
use domain::{Event, State};

/// See the module.
#[derive(Debug, Default)]
pub struct OrderedDelete {
    judged_count: u64,
}

impl Checker for OrderedDelete {
    fn name(&self) -> &'static str {
        "ordered-delete"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps().filter(|step| step.is_planned) {
            if let Event::PodDeletionRequested { pod, uid, .. } = step.event {
                self.judged_count += u64::from(judge(step.before, pod, *uid)?);
            }
        }
        Ok(())
    }
}

/// Says whether the deletion was one that this promise is about.
fn judge(state: &State, key: &Key, uid: Uid) -> Result<bool, String> {
    let Some(pod) = state.pod(key, uid) else { return Ok(false) };
    let Some((set_key, set)) = owner(state, key, pod) else { return Ok(false) };
    if set.spec.policy != PodManagement::OrderedReady || set.spec.keeps(pod.ordinal) {
        return Ok(false);
    }
    let condemned = || state.members(&set_key).filter(|(_, other)| !set.spec.keeps(other.ordinal));
    if let Some((higher, _)) = condemned().find(|(_, other)| pod.ordinal < other.ordinal) {
        return Err(format!("pod {key} was asked to go while {higher}, which goes first, is still there"));
    }
    let away = set.spec.kept().find(|kept| !member(state, &set_key, set, *kept).is_some_and(|pod| is_available(pod)));
    if let Some(away) = away {
        return Err(format!("pod {key} was asked to go while {} is not available", set_key.pod(away)));
    }
    if !pod.is_ready() && lowest_unready(condemned()) != Some(pod.ordinal) {
        return Err(format!("pod {key} was asked to go while it is not ready, and neither is one below it"));
    }
    Ok(true)
}

fn lowest_unready<'a>(pods: impl Iterator<Item = (&'a Key, &'a std::sync::Arc<Pod>)>) -> Option<Ordinal> {
    pods.filter(|(_, pod)| !pod.is_ready()).map(|(_, pod)| pod.ordinal).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};
    use domain::object::Phase;

    fn story() -> Story {
        let mut story = Story::judged_by(OrderedDelete::default());
        story.has_ordered_set("web", 4, &["n1", "n2"]);
        story
    }

    fn scaled(story: &Story, replicas: u32) -> Event {
        assert!(story.state().sets.contains_key(&key("web")));
        Event::SetScaled { set: key("web"), replicas }
    }

    #[test]
    fn the_highest_goes_first_and_the_next_one_waits() {
        let mut story = story();
        story.scales("web", 2);
        story.is_said_gone("web-3");
        story.is_said_gone("web-2");
        story.holds();
    }

    #[test]
    fn one_that_overtakes_is_noticed() {
        let mut story = story();
        let events = vec![scaled(&story, 2), story.deletion("web-2")];
        story.plans(events);
        story.is_broken("goes first");
    }

    #[test]
    fn nothing_goes_while_one_that_stays_is_away() {
        let mut story = story();
        story.says("web-0", Phase::Running, false);
        let events = vec![scaled(&story, 3), story.deletion("web-3")];
        story.plans(events);
        story.is_broken("web-0 is not available");
    }

    #[test]
    fn an_unready_one_goes_only_if_it_is_the_lowest() {
        let mut lowest = story();
        lowest.says("web-3", Phase::Running, false);
        lowest.scales("web", 2);
        lowest.holds();

        let mut story = story();
        story.says("web-3", Phase::Running, false);
        story.says("web-2", Phase::Running, false);
        let events = vec![scaled(&story, 2), story.deletion("web-3")];
        story.plans(events);
        story.is_broken("neither is one below it");
    }
}
