//! `partition-alone-changes-nothing` (semantics D5, decision 1): while a node is cut off, its pods stay its pods.
//!
//! Guarded are the pods that nobody had asked to go when the cut began: their agent cannot have been told to end them.
//! They leave the log before the node is back only by an assertion, or because the machine really started anew.

use super::{Checker, Committed};
use crate::history::{Fact, What};
use crate::scene::Scene;
use domain::Event;
use domain::event::RemovalCause;
use domain::id::{BootId, Key, NodeName, Uid};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Debug, Default)]
pub struct PartitionAloneChangesNothing {
    judged_count: u64,
    cut: BTreeMap<NodeName, Guard>,
    /// Nodes that are being shut down: all their pods are asked to go.
    leaving: BTreeSet<NodeName>,
    /// Nodes that were ever shut down. Their last words may be heard when they have long been off, and cut off.
    were_shut_down: BTreeSet<NodeName>,
}

/// What must stay.
#[derive(Debug)]
struct Guard {
    since_ms: u64,
    boot: BootId,
    pods: BTreeMap<Uid, Key>,
}

impl Checker for PartitionAloneChangesNothing {
    fn name(&self) -> &'static str {
        "partition-alone-changes-nothing"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::ShutDown { node, .. } => {
                self.leaving.insert(node.clone());
                self.were_shut_down.insert(node.clone());
                self.cut.remove(node);
            }
            What::NodeDied { node } => drop(self.leaving.remove(node)),
            What::CutOff { node } if !self.cut.contains_key(node) && !self.leaving.contains(node) => {
                let state = scene.log.state();
                let stays = state.pods_on(node).filter(|(_, pod)| pod.deletion.is_none());
                let pods = stays.map(|(key, pod)| (pod.meta.uid, key.clone())).collect();
                let boot = scene.machines.get(node).map(|machine| machine.boot.clone()).unwrap_or_default();
                self.cut.insert(node.clone(), Guard { since_ms: fact.at_ms, boot, pods });
            }
            What::Reconnected { node } => {
                // What is guarded is still there, or was taken off the list with a reason.
                self.judged_count += self.cut.remove(node).map_or(0, |guard| guard.pods.len() as u64);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_committed(&mut self, scene: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        if self.cut.is_empty() {
            return Ok(());
        }
        for event in &committed.batch.events {
            if let Event::NodeShutdownBegan { node, .. } = event
                && self.were_shut_down.contains(node)
            {
                self.judged_count += self.cut.remove(node).map_or(0, |guard| guard.pods.len() as u64);
            }
            let (Event::PodEnded { uid, cause, .. } | Event::PodRemoved { uid, cause, .. }) = event else { continue };
            let Some((node, guard)) = self.cut.iter_mut().find(|(_, guard)| guard.pods.contains_key(uid)) else {
                continue;
            };
            self.judged_count += 1;
            let has_restarted = match cause {
                RemovalCause::NodeRestarted { old, .. } => scene
                    .machines
                    .get(node)
                    .is_some_and(|machine| machine.boot != guard.boot || machine.boot != *old || !machine.is_up),
                RemovalCause::ForceDeleted | RemovalCause::NodeRemoved => true,
                RemovalCause::Stopped | RemovalCause::NeverPlaced => false,
            };
            let key = guard.pods.remove(uid).unwrap_or_default();
            if !has_restarted {
                let since_ms = guard.since_ms;
                return Err(format!(
                    "pod {key} (uid {uid}) was removed as {cause:?} while its node {node} was cut off (since {since_ms} ms)"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};

    fn story() -> Story {
        let mut story = Story::judged_by(PartitionAloneChangesNothing::default());
        story.has_set("web", 2, &["n1", "n2"]);
        story.runs("web-0");
        story.runs("web-1");
        story
    }

    #[test]
    fn a_cut_off_node_keeps_its_pods_through_everything_that_is_asked() {
        let mut story = story();
        story.fact(What::CutOff { node: "n1".into() });
        story.is_silent("n1");
        story.scales("web", 0);
        story.fact(What::Reconnected { node: "n1".into() });
        story.is_said_gone("web-0");
        story.holds();
    }

    #[test]
    fn what_was_to_stop_before_the_cut_may_be_said_to_have_stopped() {
        let mut story = story();
        story
            .submits("user", domain::Command::DeletePod { pod: key("web-0"), grace_ms: None, force: false, uid: None });
        story.fact(What::CutOff { node: "n1".into() });
        story.is_said_gone("web-0");
        story.fact(What::CutOff { node: "n2".into() });
        story.fact(What::Reconnected { node: "n2".into() });
        story.holds();
    }

    #[test]
    fn the_exits_are_open() {
        let mut story = story();
        story.fact(What::CutOff { node: "n1".into() });
        story.is_force_deleted("web-0");
        story.fact(What::CutOff { node: "n2".into() });
        story.machine_dies("n2");
        story.machine_boots("n2", "n2-2");
        story.registers("n2", "n2-2");
        story.holds();
    }

    #[test]
    fn the_last_words_of_a_node_that_was_shut_down_may_be_heard_late() {
        let mut story = story();
        story.fact(What::ShutDown { node: "n1".into(), grace_ms: 0 });
        story.machine_dies("n1");
        story.fact(What::CutOff { node: "n1".into() });
        story.commits("agent/n1", vec![Event::NodeShutdownBegan { node: "n1".into(), grace_ms: 0 }]);
        story.is_said_gone("web-0");
        story.holds();
    }

    #[test]
    fn a_shutdown_that_nobody_began_is_no_excuse() {
        let mut story = story();
        story.fact(What::CutOff { node: "n1".into() });
        story.commits("agent/n1", vec![Event::NodeShutdownBegan { node: "n1".into(), grace_ms: 0 }]);
        story.is_said_gone("web-0");
        story.is_broken("while its node n1 was cut off");
    }

    #[test]
    fn a_word_that_nobody_can_have_said_is_noticed() {
        let mut story = story();
        story.fact(What::CutOff { node: "n1".into() });
        story.is_said_gone("web-0");
        story.is_broken("while its node n1 was cut off");
    }
}
