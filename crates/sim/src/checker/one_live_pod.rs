//! `one-live-pod` (semantics D2): at most one pod of a name has living processes, whatever happens.
//!
//! The one exception is somebody's assertion: once a person has answered for it that a pod is dead (it was
//! force-deleted, or its node was removed), it may go on beside its successor until its node hears of it. What that node
//! then owes is judged by `stale-agents-obey` and `nothing-leaks`.

use super::Checker;
use crate::history::{Fact, What};
use crate::scene::Scene;
use domain::id::{Key, Name, NodeName, Uid};

/// See the module.
#[derive(Debug, Default)]
pub struct OneLivePod {
    judged_count: u64,
}

impl Checker for OneLivePod {
    fn name(&self) -> &'static str {
        "one-live-pod"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let What::ProcessStarted { node, pod, uid, container } = &fact.what else { return Ok(()) };
        self.judged_count += 1;
        judge(scene, node, pod, *uid, container)
    }
}

fn judge(scene: &Scene, node: &NodeName, pod: &Key, uid: Uid, container: &Name) -> Result<(), String> {
    for ((other, home), living) in &scene.live {
        if living.pod != *pod {
            continue;
        }
        if *other == uid {
            if home != node {
                return Err(format!("pod {pod} (uid {uid}) runs on {home}, and was started on {node} as well"));
            }
            if living.containers.contains(container) {
                return Err(format!("container {container} of pod {pod} (uid {uid}) was started twice on {node}"));
            }
            continue;
        }
        let older = uid.min(*other);
        if !scene.asserted.contains(&older) {
            return Err(format!(
                "pod {pod} runs twice: uid {other} on {home} still lives, uid {uid} was started on {node}, and nobody \
                 answered for the end of uid {older}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::Story;

    fn story() -> Story {
        let mut story = Story::judged_by(OneLivePod::default());
        story.has_set("web", 1, &["n1", "n2"]);
        story.runs("web-0");
        story
    }

    #[test]
    fn a_pod_may_follow_one_that_has_ended() {
        let mut story = story();
        story.ends("web-0");
        story.is_replaced_after_stop("web-0");
        story.runs("web-0");
        story.holds();
    }

    #[test]
    fn two_of_a_name_may_not_live_at_once() {
        let mut story = story();
        story.is_replaced_after_stop("web-0");
        story.runs("web-0");
        story.is_broken("runs twice");
    }

    #[test]
    fn an_assertion_lets_the_old_one_live_on_and_even_restart_its_container() {
        let mut story = story();
        let old = story.uid("web-0");
        story.is_force_deleted("web-0");
        story.runs("web-0");
        story.process_ends("n1", old);
        story.process_starts("n1", "web-0", old);
        story.holds();
    }

    #[test]
    fn the_assertion_covers_only_the_pod_that_it_named() {
        let mut story = story();
        story.is_force_deleted("web-0");
        story.runs("web-0");
        story.is_replaced_after_stop("web-0");
        story.runs("web-0");
        story.is_broken("nobody answered");
    }

    #[test]
    fn one_pod_is_on_one_node_and_each_container_runs_once() {
        let mut twice = story();
        let uid = twice.uid("web-0");
        twice.process_starts("n1", "web-0", uid);
        twice.is_broken("started twice");

        let mut elsewhere = story();
        let uid = elsewhere.uid("web-0");
        elsewhere.process_starts("n2", "web-0", uid);
        elsewhere.is_broken("as well");
    }

    #[test]
    fn a_machine_that_goes_down_takes_its_pods_along() {
        let mut story = story();
        story.machine_dies("n1");
        story.machine_boots("n1", "n1-2");
        story.registers("n1", "n1-2");
        story.runs("web-0");
        story.holds();
    }
}
