//! `grace` (semantics D45, D46): a stop has the time that was promised, which is shortened and never lengthened, and a
//! pod leaves the log only after its last process, unless somebody answers for that.

use super::{Checker, Committed, Step};
use crate::history::{Fact, What};
use crate::scene::{Scene, is_evidence};
use domain::Event;
use domain::id::{Key, Name, NodeName, Uid};
use domain::object::Phase;
use std::collections::{BTreeMap, BTreeSet};

/// Clocks may be so wrong: of a promised time, at least so many hundredths are given.
const CLOCK_PERCENT: u64 = 75;

/// See the module.
#[derive(Debug, Default)]
pub struct Grace {
    judged_count: u64,
    /// When each process that is being stopped may be killed.
    kills: BTreeMap<(NodeName, Uid, Name), u64>,
    /// Nodes that forgot what they were told.
    forgetful: BTreeSet<NodeName>,
    /// Nodes that are being shut down, and until when pods have their time there.
    leaving: BTreeMap<NodeName, u64>,
}

impl Checker for Grace {
    fn name(&self) -> &'static str {
        "grace"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::StopBegan { node, uid, container, grace_ms } => {
                let kill_at_ms = fact.at_ms + grace_ms * CLOCK_PERCENT / 100;
                let known = self.kills.entry((node.clone(), *uid, container.clone())).or_insert(kill_at_ms);
                *known = kill_at_ms.min(*known);
                self.judge_stop(scene, fact.at_ms, (node, *uid), *grace_ms)
            }
            What::ShutDown { node, grace_ms } => {
                let until_ms = fact.at_ms + grace_ms * CLOCK_PERCENT / 100;
                // The first call may have died with an agent that had not noted it.
                let known = self.leaving.entry(node.clone()).or_insert(until_ms);
                *known = until_ms.min(*known);
                Ok(())
            }
            What::Killed { node, uid, container } => self.judge_kill(scene, fact.at_ms, node, *uid, container),
            What::ProcessEnded { node, uid, container, .. } => {
                self.kills.remove(&(node.clone(), *uid, container.clone()));
                Ok(())
            }
            What::NodeDied { node } => {
                self.kills.retain(|(home, ..), _| home != node);
                self.leaving.remove(node);
                Ok(())
            }
            What::DiskLost { owner } => {
                self.forgetful.insert(owner.as_str().into());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, scene: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps() {
            match step.event {
                Event::PodDeletionRequested { pod, uid, grace_ms, .. } => {
                    judge_shorter(step, pod, *uid, *grace_ms)?;
                    judge_whole(step, pod, *uid, *grace_ms)?;
                }
                Event::PodEnded { pod, uid, cause } | Event::PodRemoved { pod, uid, cause } if is_evidence(cause) => {
                    self.judged_count += 1;
                    if let Some(home) = scene.homes(*uid).next() {
                        return Err(format!(
                            "pod {pod} (uid {uid}) was removed as {cause:?}, and it still lives on {home}"
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn judge_shorter(step: Step<'_>, key: &Key, uid: Uid, grace_ms: u64) -> Result<(), String> {
    let former = step.before.pod(key, uid).and_then(|pod| pod.deletion.as_ref());
    match former {
        Some(former) if former.grace_ms < grace_ms => {
            Err(format!("pod {key} was to stop within {} ms, and got {grace_ms} ms", former.grace_ms))
        }
        Some(_) | None => Ok(()),
    }
}

/// Only people may hurry a pod: whoever goes by itself has all the time that its template gives, unless it has ended.
fn judge_whole(step: Step<'_>, key: &Key, uid: Uid, grace_ms: u64) -> Result<(), String> {
    let Some(pod) = step.before.pod(key, uid).filter(|_| step.is_planned) else { return Ok(()) };
    let has_ended = matches!(pod.status.phase, Phase::Failed | Phase::Succeeded);
    let promised_ms = pod.template.grace_ms;
    if has_ended || promised_ms <= grace_ms {
        return Ok(());
    }
    Err(format!("pod {key} was asked to go within {grace_ms} ms, and its template promises {promised_ms} ms"))
}

impl Grace {
    /// The agent knows what the log knew some time ago, and graces only get shorter. A machine that goes down waits for no
    /// pod longer than it was told.
    fn judge_stop(
        &mut self,
        scene: &Scene,
        at_ms: u64,
        (node, uid): (&NodeName, Uid),
        grace_ms: u64,
    ) -> Result<(), String> {
        let state = scene.log.state();
        let Some((key, pod)) = state.pods_on(node).find(|(_, pod)| pod.meta.uid == uid) else { return Ok(()) };
        self.judged_count += 1;
        let promised_ms = pod.deletion.as_ref().map_or(pod.template.grace_ms, |deletion| deletion.grace_ms);
        let left_ms = self.leaving.get(node).map_or(u64::MAX, |until_ms| until_ms.saturating_sub(at_ms));
        let promised_ms = promised_ms.min(left_ms);
        if grace_ms < promised_ms {
            return Err(format!("pod {key} is stopped within {grace_ms} ms, and {promised_ms} ms were promised"));
        }
        Ok(())
    }

    fn judge_kill(
        &mut self,
        scene: &Scene,
        at_ms: u64,
        node: &NodeName,
        uid: Uid,
        container: &Name,
    ) -> Result<(), String> {
        let state = scene.log.state();
        // What is not the node's any more, as it was told, is killed at once.
        let Some((key, pod)) = state.pods_on(node).find(|(_, pod)| pod.meta.uid == uid) else { return Ok(()) };
        let is_of_this_boot = state
            .nodes
            .get(node)
            .is_some_and(|record| scene.machines.get(node).is_none_or(|machine| machine.boot == record.boot_id));
        if self.forgetful.contains(node) || !is_of_this_boot {
            return Ok(());
        }
        self.judged_count += 1;
        match self.kills.get(&(node.clone(), uid, container.clone())) {
            Some(kill_at_ms) if *kill_at_ms <= at_ms => Ok(()),
            Some(kill_at_ms) => Err(format!("pod {key} was killed on {node} {} ms too early", kill_at_ms - at_ms)),
            None => Err(format!(
                "pod {key} was killed on {node} without being asked to stop; its deletion is {:?}",
                pod.deletion
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};

    fn story() -> Story {
        let mut story = Story::judged_by(Grace::default());
        story.has_set("web", 1, &["n1", "n2"]);
        story.runs("web-0");
        story
    }

    fn delete(story: &mut Story, grace_ms: u64) {
        let grace_ms = Some(grace_ms);
        story.submits("user", domain::Command::DeletePod { pod: key("web-0"), grace_ms, force: false, uid: None });
    }

    fn stop_begins(story: &mut Story, grace_ms: u64) {
        let uid = story.uid("web-0");
        story.fact(What::StopBegan { node: "n1".into(), uid, container: "main".into(), grace_ms });
    }

    fn is_killed(story: &mut Story) {
        let uid = story.uid("web-0");
        story.fact(What::Killed { node: "n1".into(), uid, container: "main".into() });
    }

    #[test]
    fn a_stop_takes_its_time_and_then_is_a_kill() {
        let mut story = story();
        delete(&mut story, 5_000);
        stop_begins(&mut story, 5_000);
        story.waits(5_000);
        is_killed(&mut story);
        story.ends("web-0");
        story.is_said_gone("web-0");
        story.holds();
    }

    #[test]
    fn a_machine_that_goes_down_waits_for_no_pod_longer_than_it_was_told() {
        let mut story = story();
        story.fact(What::ShutDown { node: "n1".into(), grace_ms: 2_000 });
        stop_begins(&mut story, 2_000);
        story.holds();
        stop_begins(&mut story, 1_000);
        story.is_broken("is stopped within 1000 ms");
    }

    #[test]
    fn of_two_shutdowns_the_shorter_one_counts() {
        let mut story = story();
        story.fact(What::ShutDown { node: "n1".into(), grace_ms: 2_000 });
        story.fact(What::ShutDown { node: "n1".into(), grace_ms: 1_000 });
        stop_begins(&mut story, 1_000);
        story.holds();
        stop_begins(&mut story, 500);
        story.is_broken("is stopped within 500 ms");
    }

    #[test]
    fn a_pod_that_goes_by_itself_has_all_its_time() {
        let mut story = story();
        let (pod, uid) = (key("web-0"), story.uid("web-0"));
        story.plans(vec![Event::PodDeletionRequested { pod, uid, grace_ms: 0, is_forced: false }]);
        story.is_broken("its template promises 30000 ms");
    }

    #[test]
    fn a_kill_comes_after_the_grace() {
        let mut early = story();
        delete(&mut early, 5_000);
        stop_begins(&mut early, 5_000);
        early.waits(1_000);
        is_killed(&mut early);
        early.is_broken("too early");

        let mut unasked = story();
        is_killed(&mut unasked);
        unasked.is_broken("without being asked");
    }

    #[test]
    fn a_grace_is_shortened_and_never_lengthened() {
        let mut story = story();
        delete(&mut story, 5_000);
        delete(&mut story, 1_000);
        story.holds_so_far();
        let event = Event::PodDeletionRequested {
            pod: key("web-0"),
            uid: story.uid("web-0"),
            grace_ms: 2_000,
            is_forced: false,
        };
        story.commits("user", vec![event]);
        story.is_broken("was to stop within 1000 ms");
    }

    #[test]
    fn an_agent_gives_what_was_promised() {
        let mut story = story();
        delete(&mut story, 5_000);
        stop_begins(&mut story, 0);
        story.is_broken("5000 ms were promised");
    }

    #[test]
    fn a_pod_outlives_its_processes_unless_somebody_answers_for_it() {
        let mut asserted = story();
        asserted.is_force_deleted("web-0");
        asserted.runs("web-0");
        asserted.ends("web-0");
        asserted.is_replaced_after_stop("web-0");
        asserted.holds();

        let mut story = story();
        story.is_replaced_after_stop("web-0");
        story.is_broken("still lives on n1");
    }

    #[test]
    fn what_is_superseded_is_killed_at_once() {
        let mut story = story();
        let (old, container) = (story.uid("web-0"), Name::new("main"));
        story.is_force_deleted("web-0");
        story.fact(What::Killed { node: "n1".into(), uid: old, container });
        story.runs("web-0");
        story.ends("web-0");
        story.is_replaced_after_stop("web-0");
        story.holds();
    }
}
