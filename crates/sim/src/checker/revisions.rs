//! `revisions` (semantics D23 to D26, D31): the target's number only goes up, what a revision says never changes, the
//! current revision moves only to a target that every pod has reached, and a pod's revision is for life.

use super::{Checker, Committed, Step, is_available, member};
use crate::scene::Scene;
use domain::id::{Key, Ordinal, RevisionName, Uid};
use domain::object::Set;
use domain::{Event, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub struct Revisions {
    judged_count: u64,
    /// The highest number that each set has given.
    numbers: BTreeMap<Uid, u64>,
}

impl Checker for Revisions {
    fn name(&self) -> &'static str {
        "revisions"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps() {
            match step.event {
                Event::RevisionTargeted { set, revision, number, .. } => {
                    self.judge_target(step, set, revision, *number)?;
                }
                Event::RolloutCompleted { set, revision } => {
                    self.judged_count += 1;
                    judge_completion(step.before, set, revision)?;
                }
                Event::RevisionForgotten { set, revision } => {
                    self.judged_count += 1;
                    judge_forgotten(step.before, set, revision)?;
                }
                Event::PodAdopted { .. } | Event::PodCreated { .. } => {}
                event => judge_label(step, event)?,
            }
        }
        Ok(())
    }
}

impl Revisions {
    fn judge_target(&mut self, step: Step<'_>, key: &Key, revision: &RevisionName, number: u64) -> Result<(), String> {
        let (Some(before), Some(after)) = (step.before.sets.get(key), step.after.sets.get(key)) else { return Ok(()) };
        self.judged_count += 1;
        let highest = self.numbers.entry(after.meta.uid).or_default();
        let known = before.revisions.iter().map(|known| known.number).max().unwrap_or(0).max(*highest);
        if number <= known {
            return Err(format!("set {key} targets revision {revision} as number {number} after {known}"));
        }
        *highest = number;
        if !after.template(revision).is_some_and(|template| template.means_same(&after.spec.template)) {
            return Err(format!("set {key} targets revision {revision}, which is not its template"));
        }
        judge_contents(key, before, after)
    }
}

/// What a revision says never changes (semantics D24).
fn judge_contents(key: &Key, before: &Arc<Set>, after: &Arc<Set>) -> Result<(), String> {
    for known in &before.revisions {
        let is_same = after.template(&known.name).is_none_or(|template| template.means_same(&known.template));
        if !is_same {
            return Err(format!("revision {} of set {key} says something else than before", known.name));
        }
    }
    Ok(())
}

fn judge_completion(state: &State, key: &Key, revision: &RevisionName) -> Result<(), String> {
    let Some(set) = state.sets.get(key) else { return Ok(()) };
    if *revision != set.update_revision {
        return Err(format!("set {key} completed {revision}, and its target is {}", set.update_revision));
    }
    let is_there = |ordinal: &Ordinal| {
        member(state, key, set, *ordinal).is_some_and(|pod| is_available(pod) && pod.revision == *revision)
    };
    if let Some(ordinal) = set.spec.kept().find(|ordinal| !is_there(ordinal)) {
        return Err(format!("set {key} completed {revision} before pod {} was there", key.pod(ordinal)));
    }
    match state.members(key).find(|(_, pod)| !set.spec.keeps(pod.ordinal)) {
        Some((surplus, _)) => Err(format!("set {key} completed {revision} while {surplus} is yet to go")),
        None => Ok(()),
    }
}

fn judge_forgotten(state: &State, key: &Key, revision: &RevisionName) -> Result<(), String> {
    let Some(set) = state.sets.get(key) else { return Ok(()) };
    let is_live = set.current_revision == *revision
        || set.update_revision == *revision
        || state.members(key).any(|(_, pod)| pod.revision == *revision);
    if is_live { Err(format!("set {key} forgot revision {revision}, which is in use")) } else { Ok(()) }
}

/// A pod's revision is for life (semantics D31); adoption is the beginning of another one.
fn judge_label(step: Step<'_>, event: &Event) -> Result<(), String> {
    let ("Pod", key) = event.object() else { return Ok(()) };
    let (Some(before), Some(after)) = (step.before.pods.get(&key), step.after.pods.get(&key)) else { return Ok(()) };
    if before.meta.uid == after.meta.uid && before.revision != after.revision {
        return Err(format!("pod {key} was at revision {}, and is at {} now", before.revision, after.revision));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key, template};

    fn story() -> Story {
        let mut story = Story::judged_by(Revisions::default());
        story.has_ordered_set("web", 2, &["n1"]);
        story
    }

    #[test]
    fn rollouts_and_rollbacks_raise_the_number() {
        let mut story = story();
        for image in ["b", "a", "c"] {
            story.changes("web", |spec| spec.template = template(image));
            for pod in ["web-1", "web-0"] {
                story.is_said_gone(pod);
                story.runs(pod);
            }
        }
        story.holds();
    }

    #[test]
    fn a_number_that_does_not_go_up_is_noticed() {
        let mut story = story();
        let revision = story.state().sets[&key("web")].update_revision.clone();
        story.plans(vec![Event::RevisionTargeted { set: key("web"), revision, number: 1, is_collision: false }]);
        story.is_broken("as number 1 after 1");
    }

    #[test]
    fn a_rollout_that_is_not_over_is_noticed() {
        let mut story = story();
        story.changes("web", |spec| spec.template = template("b"));
        let revision = story.state().sets[&key("web")].update_revision.clone();
        story.plans(vec![Event::RolloutCompleted { set: key("web"), revision }]);
        story.is_broken("before pod default/web-0 was there");
    }

    #[test]
    fn a_revision_in_use_is_not_forgotten() {
        let mut story = story();
        let revision = story.state().sets[&key("web")].current_revision.clone();
        story.plans(vec![Event::RevisionForgotten { set: key("web"), revision }]);
        story.is_broken("which is in use");
    }
}
