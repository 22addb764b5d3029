//! `stale-agents-obey` (semantics D8 to D10): a node ends what it had before it starts anything new, nobody believes
//! what it says of pods that are not its own, and it starts only what the log has given to it.

use super::{Checker, Committed, Step};
use crate::history::{Fact, What};
use crate::scene::{Scene, is_evidence};
use domain::Event;
use domain::id::{Incarnation, Key, NodeName, Revision, Uid};
use domain::object::PodStatus;
use std::collections::{BTreeMap, BTreeSet};

/// An answer to a report may be so late that the server has applied the next start of the node meanwhile.
const ANSWER_MS_MAX: u64 = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct StaleAgentsObey {
    judged_count: u64,
    has_begun: bool,
    /// Where each pod was bound, and the revision that said so.
    bound: BTreeMap<Uid, (NodeName, Revision)>,
    /// Pods that the log does not have any more.
    removed: BTreeMap<Uid, Removal>,
    /// Pods that have had a process.
    started: BTreeSet<Uid>,
    /// What each server has applied last of the starts of each node, and when.
    known: BTreeMap<(u64, NodeName), (Incarnation, u64)>,
    /// What each agent was told.
    told: BTreeMap<NodeName, Told>,
}

/// What an agent was told, assignment by assignment.
#[derive(Debug, Default)]
struct Told {
    count: u64,
    /// The assignment that first named each pod.
    named: BTreeMap<Uid, u64>,
    /// The assignment that named each of them no more.
    dropped: BTreeMap<Uid, u64>,
}

impl Told {
    fn note(&mut self, pods: &[Uid]) {
        self.count += 1;
        for uid in pods {
            self.named.entry(*uid).or_insert(self.count);
            self.dropped.remove(uid);
        }
        for uid in self.named.keys().filter(|uid| !pods.contains(uid)) {
            self.dropped.entry(*uid).or_insert(self.count);
        }
    }

    /// Whether the agent had been told to end the one when, or before, it was first told of the other.
    fn is_older(&self, one: Uid, other: Uid) -> bool {
        let (dropped, named) = (self.dropped.get(&one), self.named.get(&other));
        dropped.zip(named).is_some_and(|(dropped, named)| dropped <= named)
    }
}

#[derive(Clone, Copy, Debug)]
struct Removal {
    revision: Revision,
    is_evident: bool,
}

impl Checker for StaleAgentsObey {
    fn name(&self) -> &'static str {
        "stale-agents-obey"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::ProcessStarted { node, pod, uid, .. } => self.on_started(scene, node, pod, *uid),
            What::Assigned { node, pods } => {
                self.told.entry(node.clone()).or_default().note(pods);
                Ok(())
            }
            What::ReportAccepted { node, incarnation, server } => {
                self.judged_count += 1;
                match self.known.get(&(*server, node.clone())) {
                    Some((current, at_ms)) if incarnation < current && at_ms + ANSWER_MS_MAX < fact.at_ms => {
                        Err(format!(
                            "server {server} accepted a report of {node} for incarnation {incarnation}, which it knew at {at_ms} ms to have ended"
                        ))
                    }
                    Some(_) | None => Ok(()),
                }
            }
            What::Applied { server, batch, .. } => {
                batch.events.iter().for_each(|event| self.note_start(*server, event, fact.at_ms));
                Ok(())
            }
            What::Restored { server, state } => {
                let starts = state.node_incarnations.iter().map(|(node, last)| {
                    let current = if state.nodes.contains_key(node) { *last } else { last.next() };
                    ((*server, node.clone()), (current, fact.at_ms))
                });
                self.known.extend(starts);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, scene: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        if !std::mem::replace(&mut self.has_begun, true) {
            let bound = committed.before.pods.values().filter_map(|pod| {
                pod.binding.as_ref().map(|binding| (pod.meta.uid, (binding.node.clone(), committed.before.revision)))
            });
            self.bound.extend(bound);
            self.started.extend(committed.before.pods.values().map(|pod| pod.meta.uid));
        }
        for step in committed.steps() {
            self.judge(scene, committed, step)?;
        }
        Ok(())
    }
}

impl StaleAgentsObey {
    /// After a removal the next start is the one that counts, though there is none yet.
    fn note_start(&mut self, server: u64, event: &Event, at_ms: u64) {
        let (node, current) = match event {
            Event::NodeRegistered { node, incarnation, .. } => (node, *incarnation),
            Event::NodeRemoved { node } => match self.known.get(&(server, node.clone())) {
                Some((last, _)) => (node, last.next()),
                None => return,
            },
            _ => return,
        };
        self.known.insert((server, node.clone()), (current, at_ms));
    }

    fn judge(&mut self, scene: &Scene, committed: &Committed<'_>, step: Step<'_>) -> Result<(), String> {
        let revision = step.after.revision;
        match step.event {
            Event::PodBound { pod, node, .. } => {
                if let Some(record) = step.after.pods.get(pod) {
                    self.bound.insert(record.meta.uid, (node.clone(), revision));
                }
            }
            Event::PodEnded { uid, cause, .. } | Event::PodRemoved { uid, cause, .. } => {
                // Of one that finalizers kept, the end counts, and not when its object went.
                let removal = Removal { revision, is_evident: is_evidence(cause) };
                self.removed.entry(*uid).or_insert(removal);
            }
            Event::PodReported { pod, uid, status } => {
                self.judged_count += 1;
                judge_word(committed, step, pod, *uid)?;
                self.judge_ready(scene, pod, *uid, status)?;
            }
            Event::LeftoversEnded { node, ended } => {
                self.judged_count += 1;
                if committed.agent() != Some(node.as_str()) {
                    return Err(format!("{} said that leftovers of {node} have ended", committed.batch.actor));
                }
                if let Some(uid) = ended.iter().find(|uid| scene.live.contains_key(&(**uid, node.clone()))) {
                    return Err(format!("{node} said that uid {uid} has ended, and it still lives there"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judge_ready(&self, scene: &Scene, pod: &Key, uid: Uid, status: &PodStatus) -> Result<(), String> {
        // Where nobody looks at machines, nobody sees processes.
        if status.is_ready && !scene.machines.is_empty() && !self.started.contains(&uid) {
            return Err(format!("pod {pod} (uid {uid}) was called ready, and never had a process"));
        }
        Ok(())
    }

    fn on_started(&mut self, scene: &Scene, node: &NodeName, pod: &Key, uid: Uid) -> Result<(), String> {
        self.judged_count += 1;
        let is_new = self.started.insert(uid);
        let Some((home, since)) = self.bound.get(&uid) else {
            return Err(format!("pod {pod} (uid {uid}) was started on {node}, and no node was ever given it"));
        };
        if home != node {
            return Err(format!("pod {pod} (uid {uid}) was started on {node}, and was given to {home}"));
        }
        if self.removed.get(&uid).is_some_and(|removal| removal.is_evident) {
            return Err(format!("pod {pod} (uid {uid}) was started on {node} after it was known to have ended"));
        }
        if !is_new {
            return Ok(());
        }
        // Whoever was told of the new pod was told of everything before it.
        let told = self.told.get(node);
        let must_be_over = |other: &Uid| {
            self.removed.get(other).is_some_and(|removal| removal.revision < *since)
                || told.is_some_and(|told| told.is_older(*other, uid))
        };
        let leftover = scene.live.iter().find(|((other, home), _)| home == node && must_be_over(other));
        match leftover {
            Some(((other, _), living)) => Err(format!(
                "pod {pod} (uid {uid}) was started on {node} before uid {other} of pod {} was ended there",
                living.pod
            )),
            None => Ok(()),
        }
    }
}

/// Only the agent of the very start of the node that has a pod is believed about it (semantics D9).
fn judge_word(committed: &Committed<'_>, step: Step<'_>, key: &Key, uid: Uid) -> Result<(), String> {
    let Some(binding) = step.before.pod(key, uid).and_then(|pod| pod.binding.as_ref()) else {
        return Err(format!("pod {key} (uid {uid}) was reported, and is not there or has no node"));
    };
    if committed.agent() != Some(binding.node.as_str()) {
        return Err(format!("pod {key} is on {}, and {} reported it", binding.node, committed.batch.actor));
    }
    let current = step.before.nodes.get(&binding.node).map(|node| node.incarnation);
    if current == Some(binding.incarnation) {
        return Ok(());
    }
    Err(format!("pod {key} was reported by another start of {} than the one that has it", binding.node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};

    fn story() -> Story {
        let mut story = Story::judged_by(StaleAgentsObey::default());
        story.has_set("web", 2, &["n1", "n2"]);
        story.runs("web-0");
        story.runs("web-1");
        story
    }

    /// The node is back, and has ended what it had; then it gets a pod.
    fn returns(story: &mut Story, uid: Uid) {
        story.registers("n1", "n1-1");
        story.process_ends("n1", uid);
        story.fact(What::Cleaned { node: "n1".into(), uid });
        story.commits("agent/n1", vec![Event::LeftoversEnded { node: "n1".into(), ended: vec![uid] }]);
        story.submits("user", domain::Command::CordonNode { node: "n2".into() });
        story.scales("web", 3);
        assert_eq!(story.node("web-2"), "n1");
        story.runs("web-2");
    }

    #[test]
    fn a_node_that_is_back_ends_what_it_had_and_then_goes_on() {
        let mut story = story();
        let old = story.uid("web-0");
        story.is_force_deleted("web-0");
        story.runs("web-0");
        story.process_ends("n1", old);
        story.process_starts("n1", "web-0", old);
        returns(&mut story, old);
        story.holds();
    }

    #[test]
    fn a_node_that_says_it_ended_what_still_lives_is_noticed() {
        let mut story = story();
        let old = story.uid("web-0");
        story.is_force_deleted("web-0");
        story.registers("n1", "n1-1");
        story.commits("agent/n1", vec![Event::LeftoversEnded { node: "n1".into(), ended: vec![old] }]);
        story.is_broken("still lives there");
    }

    #[test]
    fn a_node_that_starts_something_before_that_is_noticed() {
        let mut story = story();
        story.is_force_deleted("web-0");
        story.registers("n1", "n1-1");
        story.commits("user", vec![Event::NodeReturned { node: "n1".into(), leftovers: Vec::new() }]);
        story.submits("user", domain::Command::CordonNode { node: "n2".into() });
        story.scales("web", 3);
        story.runs("web-2");
        story.is_broken("before uid");
    }

    #[test]
    fn what_comes_with_the_word_to_end_another_waits_for_that() {
        let mut story = story();
        story.submits("user", domain::Command::CordonNode { node: "n2".into() });
        story.scales("web", 3);
        let (old, new) = (story.uid("web-0"), story.uid("web-2"));
        story.fact(What::Assigned { node: "n1".into(), pods: vec![old] });
        story.is_force_deleted("web-0");
        story.fact(What::Assigned { node: "n1".into(), pods: vec![new] });
        story.process_starts("n1", "web-2", new);
        story.is_broken("before uid");
    }

    #[test]
    fn nothing_is_started_that_the_log_did_not_give() {
        let mut nobody = story();
        nobody.process_starts("n1", "web-9", Uid(999));
        nobody.is_broken("no node was ever given it");

        let mut elsewhere = story();
        let uid = elsewhere.uid("web-1");
        elsewhere.process_starts("n1", "web-1", uid);
        elsewhere.is_broken("was given to n2");

        let mut ended = story();
        let uid = ended.uid("web-0");
        ended.ends("web-0");
        ended.is_replaced_after_stop("web-0");
        ended.process_starts("n1", "web-0", uid);
        ended.is_broken("known to have ended");
    }

    #[test]
    fn the_word_of_another_node_or_another_time_is_not_believed() {
        let mut other = story();
        let uid = other.uid("web-0");
        let reported = Event::PodReported { pod: key("web-0"), uid, status: PodStatus::default() };
        other.commits("agent/n2", vec![reported.clone()]);
        other.is_broken("agent/n2 reported it");

        let mut gone = story();
        gone.ends("web-0");
        gone.is_replaced_after_stop("web-0");
        gone.commits("agent/n1", vec![reported]);
        gone.is_broken("is not there");

        let mut late = story();
        late.machine_dies("n1");
        late.machine_boots("n1", "n1-2");
        late.registers("n1", "n1-2");
        late.waits(60_000);
        late.fact(What::ReportAccepted { server: 1, node: "n1".into(), incarnation: Incarnation(1) });
        late.is_broken("incarnation 1");
    }

    #[test]
    fn nothing_is_ready_without_a_process() {
        let mut story = Story::judged_by(StaleAgentsObey::default());
        story.has_set("web", 1, &["n1"]);
        story.says("web-0", domain::object::Phase::Running, true);
        story.is_broken("never had a process");
    }
}
