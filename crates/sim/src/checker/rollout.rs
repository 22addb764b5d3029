//! Three promises about the pods that a rollout takes away: `update-victim` (semantics D15, D17, decision 6),
//! `update-budget` (D16, decision 7) and `on-delete-silence` (D19, decision 12).
//!
//! A planner deletes a pod that its set keeps for three reasons only: it has ended; it is stuck at a revision that it
//! should not have; or it is the rollout's next one.

use super::{Checker, Committed, is_available, member, owner};
use crate::scene::Scene;
use domain::id::{Key, Ordinal, RevisionName, Uid};
use domain::object::{Phase, Pod, Set};
use domain::spec::{PodManagement, UpdateStrategy};
use domain::{Event, State};
use std::sync::Arc;

/// The rollout takes the highest outdated pod, and nothing before scaling is done.
#[derive(Debug, Default)]
pub struct UpdateVictim {
    judged_count: u64,
}

/// The rollout never takes more than its set allows to be away.
#[derive(Debug, Default)]
pub struct UpdateBudget {
    judged_count: u64,
}

/// A set under `OnDelete`, or whose rollout rests, replaces only what has ended.
#[derive(Debug, Default)]
pub struct OnDeleteSilence {
    judged_count: u64,
}

/// A pod that a planner deletes though its set keeps it.
struct Victim<'a> {
    state: &'a State,
    key: &'a Key,
    pod: &'a Pod,
    set_key: Key,
    set: &'a Arc<Set>,
}

impl Checker for UpdateVictim {
    fn name(&self) -> &'static str {
        "update-victim"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for victim in victims(committed) {
            self.judged_count += 1;
            victim.judge_choice()?;
        }
        Ok(())
    }
}

impl Checker for UpdateBudget {
    fn name(&self) -> &'static str {
        "update-budget"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for victim in victims(committed).filter(|victim| is_available(victim.pod)) {
            self.judged_count += 1;
            victim.judge_budget()?;
        }
        Ok(())
    }
}

impl Checker for OnDeleteSilence {
    fn name(&self) -> &'static str {
        "on-delete-silence"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        // A set that is silent though it has something to say was judged as well.
        let is_outdated = |set: &Set| set.current_revision != set.update_revision && rests(set);
        self.judged_count += u64::from(committed.after.sets.values().any(|set| is_outdated(set)));
        for victim in victims(committed).filter(|victim| rests(victim.set)) {
            self.judged_count += 1;
            if !is_over(victim.pod) {
                return Err(format!(
                    "pod {} was asked to go, and its set {} replaces nothing by itself",
                    victim.key, victim.set_key
                ));
            }
        }
        Ok(())
    }
}

fn victims<'a>(committed: &'a Committed<'_>) -> impl Iterator<Item = Victim<'a>> {
    committed.steps().filter(|step| step.is_planned).filter_map(|step| {
        let Event::PodDeletionRequested { pod: key, uid, .. } = step.event else { return None };
        victim(step.before, key, *uid)
    })
}

fn victim<'a>(state: &'a State, key: &'a Key, uid: Uid) -> Option<Victim<'a>> {
    let pod = state.pod(key, uid)?;
    let (set_key, set) = owner(state, key, pod)?;
    set.spec.keeps(pod.ordinal).then_some(Victim { state, key, pod, set_key, set })
}

/// Whether a set's rollout does nothing by itself.
fn rests(set: &Set) -> bool {
    set.spec.is_paused || set.spec.update == UpdateStrategy::OnDelete
}

fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.phase, Phase::Failed | Phase::Succeeded)
}

/// The revision that a pod made now would get.
pub(super) fn wanted(set: &Set, ordinal: Ordinal) -> &RevisionName {
    match set.spec.update {
        UpdateStrategy::RollingUpdate { partition, .. } if ordinal < partition => &set.current_revision,
        UpdateStrategy::RollingUpdate { .. } | UpdateStrategy::OnDelete => &set.update_revision,
    }
}

impl Victim<'_> {
    fn kept(&self) -> impl DoubleEndedIterator<Item = (Ordinal, Option<&Arc<Pod>>)> {
        self.set.spec.kept().map(|ordinal| (ordinal, member(self.state, &self.set_key, self.set, ordinal)))
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.policy == PodManagement::OrderedReady
    }

    fn partition(&self) -> Ordinal {
        match self.set.spec.update {
            UpdateStrategy::RollingUpdate { partition, .. } => partition,
            UpdateStrategy::OnDelete => Ordinal(u32::MAX),
        }
    }

    fn judge_choice(&self) -> Result<(), String> {
        let key = self.key;
        if self.pod.deletion.is_some() {
            return Err(format!("pod {key} was asked to go again"));
        }
        let is_stuck =
            !self.pod.is_ready() && self.pod.hold.is_none() && self.pod.revision != *wanted(self.set, self.pod.ordinal);
        if is_over(self.pod) || is_stuck {
            return self.judge_order();
        }
        if !is_available(self.pod) {
            return Err(format!(
                "pod {key} is not available, and was asked to go though it has not ended and is at the revision it should have, or is held"
            ));
        }
        self.judge_update()
    }

    /// An ordered set mends from below (semantics A3-30).
    fn judge_order(&self) -> Result<(), String> {
        let lower = self.kept().take_while(|(ordinal, _)| *ordinal < self.pod.ordinal);
        let mut away = lower.filter(|(_, pod)| !pod.is_some_and(|pod| is_available(pod)));
        match away.next() {
            Some((ordinal, _)) if self.is_ordered() => Err(format!(
                "pod {} of an ordered set was replaced before {} was available",
                self.key,
                self.set_key.pod(ordinal)
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn judge_update(&self) -> Result<(), String> {
        let key = self.key;
        if self.pod.revision == self.set.update_revision {
            return Err(format!("pod {key} is available at the rollout's revision, and was asked to go"));
        }
        if self.pod.ordinal < self.partition() {
            return Err(format!("pod {key} is below the partition {}, and was asked to go", self.partition()));
        }
        let higher = self.kept().rev().take_while(|(ordinal, _)| self.pod.ordinal < *ordinal);
        let is_next = |pod: &Pod| pod.revision != self.set.update_revision && is_available(pod);
        if let Some((ordinal, _)) = higher.into_iter().find(|(_, pod)| pod.is_some_and(|pod| is_next(pod))) {
            return Err(format!(
                "pod {key} was asked to go before {}, which is outdated as well",
                self.set_key.pod(ordinal)
            ));
        }
        if !self.is_ordered() {
            return Ok(());
        }
        if let Some((surplus, _)) = self.state.members(&self.set_key).find(|(_, pod)| !self.set.spec.keeps(pod.ordinal))
        {
            return Err(format!("pod {key} was asked to go for the rollout while {surplus} is yet to go"));
        }
        match self.kept().find(|(_, pod)| pod.is_none()) {
            Some((ordinal, _)) => {
                Err(format!("pod {key} was asked to go for the rollout while {} is missing", self.set_key.pod(ordinal)))
            }
            None => Ok(()),
        }
    }

    fn judge_budget(&self) -> Result<(), String> {
        let UpdateStrategy::RollingUpdate { max_unavailable, .. } = self.set.spec.update else { return Ok(()) };
        let allowed = max_unavailable.of(self.set.spec.replicas);
        let away = self.kept().filter(|(ordinal, pod)| match pod {
            None => true,
            Some(pod) if is_available(pod) => false,
            // Decision 7: under Parallel, one that is old and away anyway is no loss. A held one may be alive.
            Some(pod) => {
                let is_old = pod.revision != *wanted(self.set, *ordinal);
                self.is_ordered() || pod.deletion.is_some() || pod.hold.is_some() || !is_old
            }
        });
        let away_count = away.count();
        if away_count < allowed as usize {
            return Ok(());
        }
        Err(format!(
            "pod {} was asked to go for the rollout: {away_count} pods of {} are away already, and {allowed} may be",
            self.key, self.set_key
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key, template};
    use domain::spec::Amount;

    fn rolling(partition: u32, max_unavailable: u32) -> UpdateStrategy {
        UpdateStrategy::RollingUpdate { partition: Ordinal(partition), max_unavailable: Amount::Count(max_unavailable) }
    }

    /// An ordered set of three with a rollout that has begun with `web-2`.
    fn rollout(checker: impl Checker + 'static) -> Story {
        let mut story = Story::judged_by(checker);
        story.has_ordered_set("web", 3, &["n1", "n2"]);
        story.changes("web", |spec| spec.template = template("b"));
        story
    }

    #[test]
    fn a_rollout_goes_from_the_top_and_waits_for_each() {
        for checker in [Box::<UpdateVictim>::default() as Box<dyn Checker>, Box::<UpdateBudget>::default()] {
            let mut story = Story::judged_by_boxed(checker);
            story.has_ordered_set("web", 3, &["n1", "n2"]);
            story.changes("web", |spec| spec.template = template("b"));
            for pod in ["web-2", "web-1", "web-0"] {
                story.is_said_gone(pod);
                story.runs(pod);
            }
            story.holds();
        }
    }

    #[test]
    fn the_highest_outdated_pod_is_the_victim() {
        let mut story = Story::judged_by(UpdateVictim::default());
        story.has_ordered_set("web", 3, &["n1", "n2"]);
        story.changes("web", |spec| spec.update = rolling(3, 1));
        story.changes("web", |spec| spec.template = template("b"));
        let spec = domain::spec::SetSpec { update: rolling(0, 1), ..story.state().sets[&key("web")].spec.clone() };
        let updated =
            Event::SetUpdated { set: key("web"), labels: Default::default(), annotations: Default::default(), spec };
        let events = vec![updated, story.deletion("web-0")];
        story.plans(events);
        story.is_broken("outdated as well");
    }

    #[test]
    fn pods_below_the_partition_and_pods_that_are_up_to_date_stay() {
        let mut below = Story::judged_by(UpdateVictim::default());
        below.has_ordered_set("web", 3, &["n1", "n2"]);
        below.changes("web", |spec| spec.update = rolling(3, 1));
        below.changes("web", |spec| spec.template = template("b"));
        let deletion = below.deletion("web-2");
        below.plans(vec![deletion]);
        below.is_broken("below the partition");

        let mut current = rollout(UpdateVictim::default());
        current.is_said_gone("web-2");
        current.runs("web-2");
        let deletion = current.deletion("web-2");
        current.plans(vec![deletion]);
        current.is_broken("at the rollout's revision");
    }

    #[test]
    fn a_stuck_pod_is_replaced_without_waiting_and_a_held_one_is_not() {
        let mut stuck = rollout(UpdateVictim::default());
        stuck.is_said_gone("web-2");
        stuck.changes("web", |spec| spec.template = template("c"));
        stuck.holds();

        let mut held = rollout(UpdateVictim::default());
        held.is_said_gone("web-2");
        held.is_silent("n1");
        let deletion = held.deletion("web-0");
        held.plans(vec![deletion]);
        held.is_broken("or is held");
    }

    #[test]
    fn the_budget_is_kept() {
        let mut story = rollout(UpdateBudget::default());
        let deletion = story.deletion("web-1");
        story.plans(vec![deletion]);
        story.is_broken("1 pods of default/web are away already");

        let mut two = Story::judged_by(UpdateBudget::default());
        two.has_ordered_set("web", 3, &["n1", "n2"]);
        two.changes("web", |spec| spec.update = rolling(0, 2));
        two.changes("web", |spec| spec.template = template("b"));
        two.holds();
    }

    #[test]
    fn on_delete_and_a_pause_replace_nothing() {
        for change in [(|spec| spec.update = UpdateStrategy::OnDelete) as fn(&mut domain::spec::SetSpec), |spec| {
            spec.is_paused = true
        }] {
            let mut story = Story::judged_by(OnDeleteSilence::default());
            story.has_ordered_set("web", 2, &["n1", "n2"]);
            story.changes("web", change);
            story.changes("web", |spec| spec.template = template("b"));
            story.says("web-1", Phase::Failed, false);
            story.holds();
            let deletion = story.deletion("web-0");
            story.plans(vec![deletion]);
            story.is_broken("replaces nothing by itself");
        }
    }
}
