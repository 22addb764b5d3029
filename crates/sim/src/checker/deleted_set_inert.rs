//! `deleted-set-inert` (semantics D7, D20): nothing is done for a set that is not there any more, its pods go with it,
//! and a pod's owner is a set that is there.

use super::{Checker, Committed};
use crate::scene::Scene;
use domain::id::Key;
use domain::{Event, State};

/// See the module.
#[derive(Debug, Default)]
pub struct DeletedSetInert {
    judged_count: u64,
}

impl Checker for DeletedSetInert {
    fn name(&self) -> &'static str {
        "deleted-set-inert"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps() {
            match step.event {
                Event::PodCreated { set, .. }
                | Event::SetUpdated { set, .. }
                | Event::SetScaled { set, .. }
                | Event::RevisionTargeted { set, .. }
                | Event::RolloutCompleted { set, .. }
                | Event::RevisionForgotten { set, .. } => self.judge_presence(step.before, set, step.event)?,
                Event::PodAdopted { pod, owner, .. } => {
                    self.judged_count += 1;
                    let set =
                        step.before.pods.get(pod).and_then(|record| step.before.sets.get(&super::set_of(pod, record)));
                    if set.is_none_or(|set| set.meta.uid != *owner) {
                        return Err(format!("pod {pod} was adopted by uid {owner}, which is not its set"));
                    }
                }
                Event::SetRemoved { set } => self.judge_end(step.before, committed.after, set)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl DeletedSetInert {
    fn judge_presence(&mut self, state: &State, set: &Key, event: &Event) -> Result<(), String> {
        self.judged_count += 1;
        if state.sets.contains_key(set) {
            return Ok(());
        }
        Err(format!("set {set} is not there, and this was done for it: {event:?}"))
    }

    fn judge_end(&mut self, before: &State, after: &State, set: &Key) -> Result<(), String> {
        let Some(uid) = before.sets.get(set).map(|record| record.meta.uid) else { return Ok(()) };
        self.judged_count += 1;
        let stays = after.pods_named_by(set).find(|(_, pod)| pod.owner == Some(uid) && pod.deletion.is_none());
        match stays {
            Some((pod, _)) => Err(format!("set {set} was deleted, and its pod {pod} was not asked to go")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};

    fn story() -> Story {
        let mut story = Story::judged_by(DeletedSetInert::default());
        story.has_ordered_set("web", 2, &["n1"]);
        story
    }

    #[test]
    fn a_deleted_set_takes_its_pods_along_or_lets_them_go() {
        for orphan in [false, true] {
            let mut story = story();
            story.submits("user", domain::Command::DeleteSet { set: key("web"), orphan });
            story.applies("web", crate::checker::story::spec(2, domain::spec::PodManagement::OrderedReady));
            story.holds();
        }
    }

    #[test]
    fn what_is_done_for_a_deleted_set_is_noticed() {
        let mut story = story();
        let creation = story.creation("web", 2);
        story.submits("user", domain::Command::DeleteSet { set: key("web"), orphan: false });
        story.plans(vec![creation]);
        story.is_broken("is not there");
    }

    #[test]
    fn pods_that_stay_without_being_let_go_are_noticed() {
        let mut story = story();
        story.commits("user", vec![Event::SetRemoved { set: key("web") }]);
        story.is_broken("was not asked to go");
    }

    #[test]
    fn another_owner_is_noticed() {
        let mut story = story();
        let (uid, revision) = (story.uid("web-0"), "web-1".into());
        story.plans(vec![Event::PodAdopted { pod: key("web-0"), uid, owner: domain::id::Uid(999), revision }]);
        story.is_broken("not its set");
    }
}
