//! `holds` (architecture 4 and 5): pods are held exactly while their node is called unreachable, only the leader's
//! leases call it so, and no node is called so that could be heard all the time once nothing is broken any more.
//!
//! How long a node was silent in true time is not promised: the leader's clock may be wrong, and then so is its patience.

use super::{Checker, Committed};
use crate::scene::Scene;
use domain::id::NodeName;
use domain::{Event, State};
use std::collections::BTreeSet;

/// After so long without faults, every node that is well has been heard by every leader to come.
const SETTLED_AFTER_MS: u64 = 30_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Holds {
    judged_count: u64,
}

impl Checker for Holds {
    fn name(&self) -> &'static str {
        "holds"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, scene: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        let mut touched = BTreeSet::new();
        for step in committed.steps() {
            match step.event {
                Event::NodeUnreachable { node, .. } => {
                    self.judged_count += 1;
                    judge_silence(scene, committed, step.before, node)?;
                    touched.insert(node);
                }
                Event::NodeReturned { node, .. } | Event::NodeRegistered { node, .. } | Event::PodHeld { node, .. } => {
                    touched.insert(node);
                }
                Event::PodBound { node, .. } => {
                    touched.insert(node);
                }
                _ => {}
            }
        }
        for node in touched {
            self.judged_count += 1;
            judge_pods(committed.after, node)?;
        }
        Ok(())
    }
}

fn judge_silence(scene: &Scene, committed: &Committed<'_>, before: &State, name: &NodeName) -> Result<(), String> {
    if committed.batch.actor.as_str() != "leases" {
        return Err(format!("{} called node {name} unreachable", committed.batch.actor));
    }
    if before.nodes.get(name).is_none_or(|node| node.unreachable.is_some()) {
        return Err(format!("node {name} was called unreachable, and is not there or was called so before"));
    }
    let is_well = scene.machines.get(name).is_some_and(|machine| machine.is_well());
    let is_settled = scene.calm_since_ms.is_some_and(|since_ms| since_ms + SETTLED_AFTER_MS < committed.at_ms);
    if is_settled && is_well {
        return Err(format!("node {name} was called unreachable, and nothing has been in its way for long"));
    }
    Ok(())
}

fn judge_pods(state: &State, name: &NodeName) -> Result<(), String> {
    let Some(node) = state.nodes.get(name) else { return Ok(()) };
    for (key, pod) in state.pods_on(name) {
        match (&pod.hold, &node.unreachable) {
            (Some(_), None) => return Err(format!("pod {key} is held, and its node {name} is not unreachable")),
            (None, Some(_)) => return Err(format!("pod {key} is not held, and its node {name} is unreachable")),
            (Some(hold), Some(_)) if hold.node != *name => {
                return Err(format!("pod {key} on {name} is held because of {}", hold.node));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        if pod.hold.is_some() && (pod.is_available || pod.is_ready()) {
            return Err(format!("pod {key} is held, and counts as ready or available"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};
    use crate::history::What;

    fn story() -> Story {
        let mut story = Story::judged_by(Holds::default());
        story.has_set("web", 2, &["n1", "n2"]);
        story.runs("web-0");
        story
    }

    #[test]
    fn pods_are_held_while_their_node_is_away() {
        let mut story = story();
        story.is_silent("n1");
        story.registers("n1", "n1-1");
        story.is_silent("n1");
        story.node_is_removed("n1");
        story.holds();
    }

    #[test]
    fn a_hold_without_a_silent_node_is_noticed_and_the_other_way_round() {
        let mut held = story();
        let (pod, uid, node) = (key("web-0"), held.uid("web-0"), NodeName::new("n1"));
        held.commits("leases", vec![Event::PodHeld { pod, uid, node, heard_at_ms: 0 }]);
        held.is_broken("not unreachable");

        let mut free = story();
        free.commits("leases", vec![Event::NodeUnreachable { node: "n1".into(), heard_at_ms: 0 }]);
        free.is_broken("is not held");
    }

    #[test]
    fn only_leases_call_a_node_unreachable() {
        let mut story = story();
        story.commits("agent/n2", vec![Event::NodeUnreachable { node: "n1".into(), heard_at_ms: 0 }]);
        story.is_broken("agent/n2 called");
    }

    #[test]
    fn nobody_is_missed_once_nothing_is_broken() {
        let mut story = story();
        story.fact(What::Calm);
        story.is_silent("n2");
        story.registers("n2", "n2-1");
        story.waits(60_000);
        story.is_silent("n1");
        story.is_broken("nothing has been in its way");
    }
}
