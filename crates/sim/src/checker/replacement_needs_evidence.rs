//! `replacement-needs-evidence` (semantics D1, D3, D4): a name is never taken twice, and no pod leaves the log without
//! a reason that is true: its agent's word, a new boot of its machine, a person's assertion, or that it never had a node.

use super::{Checker, Committed, Step};
use crate::history::{Fact, Question, What};
use crate::scene::Scene;
use domain::event::RemovalCause;
use domain::id::{BootId, Key, NodeName, RequestId, Uid};
use domain::object::{Node, Pod};
use domain::{Command, Event, Request};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub struct ReplacementNeedsEvidence {
    judged_count: u64,
    /// What clients asked for, by request id.
    asked: BTreeMap<RequestId, Arc<Request>>,
}

impl Checker for ReplacementNeedsEvidence {
    fn name(&self) -> &'static str {
        "replacement-needs-evidence"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, _: &Scene, fact: &Fact) -> Result<(), String> {
        if let What::Asked { question: Question::Change(request), .. } = &fact.what
            && let Some(id) = &request.id
        {
            self.asked.insert(id.clone(), Arc::clone(request));
        }
        Ok(())
    }

    fn on_committed(&mut self, scene: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps() {
            match step.event {
                Event::PodCreated { set, ordinal, .. } => {
                    self.judged_count += 1;
                    let key = set.pod(*ordinal);
                    if let Some(pod) = step.before.pods.get(&key) {
                        return Err(format!("pod {key} was made while uid {} has the name", pod.meta.uid));
                    }
                }
                Event::PodEnded { pod, uid, cause } => {
                    self.judged_count += 1;
                    self.judge_removal(scene, committed, step, pod, *uid, cause)
                        .map_err(|why| format!("pod {pod} (uid {uid}) was called over as {cause:?}, yet {why}"))?;
                }
                Event::PodRemoved { pod, uid, cause } => {
                    self.judged_count += 1;
                    let kept = step.before.pod(pod, *uid).filter(|pod| pod.end.is_some() || !pod.finalizers.is_empty());
                    match kept {
                        Some(kept) => judge_release(kept, cause),
                        None => self.judge_removal(scene, committed, step, pod, *uid, cause),
                    }
                    .map_err(|why| format!("pod {pod} (uid {uid}) was removed as {cause:?}, yet {why}"))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl ReplacementNeedsEvidence {
    fn judge_removal(
        &self,
        scene: &Scene,
        committed: &Committed<'_>,
        step: Step<'_>,
        key: &Key,
        uid: Uid,
        cause: &RemovalCause,
    ) -> Result<(), String> {
        let Some(pod) = step.before.pod(key, uid) else {
            return Err("no such pod was there".to_owned());
        };
        match cause {
            RemovalCause::NeverPlaced => match &pod.binding {
                Some(binding) => Err(format!("it was bound to {}", binding.node)),
                None => Ok(()),
            },
            RemovalCause::Stopped => judge_word(committed, step, pod),
            RemovalCause::ForceDeleted => self.judge_force(committed, step, key, pod),
            RemovalCause::NodeRemoved => {
                let is_removed =
                    |event: &Event| matches!(event, Event::NodeRemoved { node } if is_home(pod, node.as_str()));
                let is_asked = committed.agent().is_none() && committed.batch.events.iter().any(is_removed);
                // Nobody can say of a node that is heard that it is gone.
                let is_heard =
                    |(name, node): (&NodeName, &Arc<Node>)| is_home(pod, name.as_str()) && node.unreachable.is_none();
                match is_asked {
                    true if step.before.nodes.iter().any(is_heard) => Err("its node is still heard".to_owned()),
                    true => Ok(()),
                    false => Err("nobody removed its node".to_owned()),
                }
            }
            RemovalCause::NodeRestarted { old, new } => judge_boot(scene, committed, step, pod, old, new),
        }
    }

    fn judge_force(&self, committed: &Committed<'_>, step: Step<'_>, key: &Key, pod: &Pod) -> Result<(), String> {
        if pod.hold.is_none() {
            return Err("its node is not known to be unreachable".to_owned());
        }
        let was_forced = pod.deletion.as_ref().is_some_and(|deletion| deletion.is_forced);
        if was_forced {
            return Ok(());
        }
        let is_ours = |actor: &str| actor.starts_with("agent/") || matches!(actor, "clock" | "leases" | "server");
        if step.is_planned || is_ours(committed.batch.actor.as_str()) {
            return Err("no person asked for it".to_owned());
        }
        match committed.batch.request.as_ref().and_then(|id| self.asked.get(id)).map(|request| &request.command) {
            Some(Command::DeletePod { pod, force: true, .. }) if pod == key => Ok(()),
            Some(other) => Err(format!("what was asked is {other:?}")),
            None => Ok(()),
        }
    }
}

/// What ended before goes when nothing keeps it any more, as what it ended as (semantics A8-102).
fn judge_release(pod: &Pod, cause: &RemovalCause) -> Result<(), String> {
    match &pod.end {
        None => Err(format!("its finalizers keep it: {:?}", pod.finalizers)),
        Some(_) if !pod.finalizers.is_empty() => Err(format!("its finalizers keep it: {:?}", pod.finalizers)),
        Some(end) if end.cause != *cause => Err(format!("it ended as {:?}", end.cause)),
        Some(_) => Ok(()),
    }
}

fn is_home(pod: &Pod, node: &str) -> bool {
    pod.binding.as_ref().is_some_and(|binding| binding.node.as_str() == node)
}

/// The word of the agent that has the pod, on the very start of the node that it was bound to.
fn judge_word(committed: &Committed<'_>, step: Step<'_>, pod: &Pod) -> Result<(), String> {
    let Some(binding) = &pod.binding else {
        return Err("it had no node that could say so".to_owned());
    };
    if committed.agent() != Some(binding.node.as_str()) {
        return Err(format!("it was bound to {}, and {} said so", binding.node, committed.batch.actor));
    }
    let current = step.before.nodes.get(&binding.node).map(|node| node.incarnation);
    if current != Some(binding.incarnation) {
        return Err(format!("{} is not the start of the node that it was bound to", binding.node));
    }
    Ok(())
}

/// A new boot in the log must be one that followed the old one in truth.
fn judge_boot(
    scene: &Scene,
    committed: &Committed<'_>,
    step: Step<'_>,
    pod: &Pod,
    old: &BootId,
    new: &BootId,
) -> Result<(), String> {
    let Some(binding) = &pod.binding else {
        return Err("it had no node that could restart".to_owned());
    };
    let node = &binding.node;
    let is_registration = |event: &Event| matches!(event, Event::NodeRegistered { node: name, registration, .. } if name == node && registration.boot_id == *new);
    if !committed.batch.events.iter().any(is_registration) {
        return Err(format!("{node} did not register with boot {new}"));
    }
    if old == new || step.before.nodes.get(node).is_none_or(|record| record.boot_id != *old) {
        return Err(format!("{old} and {new} are not two boots of {node}"));
    }
    match scene.machines.get(node) {
        Some(machine) if machine.is_up && machine.boot == *old => {
            Err(format!("{node} is still up in the boot {old} that was said to have ended"))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};
    use domain::event::Registration;

    fn story() -> Story {
        let mut story = Story::judged_by(ReplacementNeedsEvidence::default());
        story.has_set("web", 2, &["n1", "n2"]);
        story.runs("web-0");
        story.runs("web-1");
        story
    }

    fn removal(story: &Story, pod: &str, cause: RemovalCause) -> Event {
        Event::PodRemoved { pod: key(pod), uid: story.uid(pod), cause }
    }

    #[test]
    fn the_agents_word_a_new_boot_and_assertions_are_reasons() {
        let mut story = story();
        story.ends("web-0");
        story.is_replaced_after_stop("web-0");
        story.runs("web-0");
        story.is_force_deleted("web-0");
        story.machine_dies("n2");
        story.machine_boots("n2", "n2-2");
        story.registers("n2", "n2-2");
        story.is_silent("n2");
        story.node_is_removed("n2");
        story.holds();
    }

    #[test]
    fn silence_is_no_reason() {
        let mut story = story();
        story.is_silent("n1");
        let event = removal(&story, "web-0", RemovalCause::ForceDeleted);
        story.commits("leases", vec![event]);
        story.is_broken("no person asked");
    }

    #[test]
    fn an_end_needs_evidence_and_what_finalizers_keep_goes_when_they_are_gone() {
        let finalizers = |story: &Story, finalizers| Event::PodFinalizersChanged {
            pod: key("web-0"),
            uid: story.uid("web-0"),
            finalizers,
        };
        let end = |story: &Story| Event::PodEnded {
            pod: key("web-0"),
            uid: story.uid("web-0"),
            cause: RemovalCause::Stopped,
        };
        let kept = || {
            let mut story = story();
            let keep = finalizers(&story, vec!["example.com/backup".into()]);
            story.commits("user", vec![keep]);
            story
        };
        let ended = || {
            let mut story = kept();
            story.ends("web-0");
            let end = end(&story);
            story.commits("agent/n1", vec![end]);
            story
        };
        let mut story = ended();
        let events = vec![finalizers(&story, Vec::new()), removal(&story, "web-0", RemovalCause::Stopped)];
        story.commits("user", events);
        story.holds();

        let mut story = ended();
        let event = removal(&story, "web-0", RemovalCause::Stopped);
        story.commits("user", vec![event]);
        story.is_broken("its finalizers keep it");

        let mut story = ended();
        let events = vec![finalizers(&story, Vec::new()), removal(&story, "web-0", RemovalCause::NodeRemoved)];
        story.commits("user", events);
        story.is_broken("it ended as Stopped");

        let mut story = kept();
        let event = end(&story);
        story.commits("agent/n2", vec![event]);
        story.is_broken("agent/n2 said so");
    }

    #[test]
    fn another_nodes_word_is_no_reason() {
        let mut story = story();
        let event = removal(&story, "web-0", RemovalCause::Stopped);
        story.commits("agent/n2", vec![event]);
        story.is_broken("agent/n2 said so");
    }

    #[test]
    fn a_pod_with_a_node_is_not_called_unplaced() {
        let mut story = story();
        let event = removal(&story, "web-0", RemovalCause::NeverPlaced);
        story.commits("user", vec![event]);
        story.is_broken("bound to n1");
    }

    #[test]
    fn a_former_boot_is_no_news() {
        let mut story = story();
        story.machine_dies("n1");
        story.machine_boots("n1", "n1-2");
        story.registers("n1", "n1-2");
        story.runs("web-0");
        let cause = RemovalCause::NodeRestarted { old: "n1-2".into(), new: "n1-1".into() };
        let registration = Registration { boot_id: "n1-1".into(), ..Registration::default() };
        let events = vec![
            removal(&story, "web-0", cause),
            Event::NodeRegistered { node: "n1".into(), incarnation: domain::id::Incarnation(3), registration },
        ];
        story.commits("agent/n1", events);
        story.is_broken("is still up in the boot");
    }

    #[test]
    fn a_name_is_not_taken_twice() {
        let mut story = story();
        let pod = story.state().pods[&key("web-0")].clone();
        let (revision, claims) = (pod.revision.clone(), pod.claims.clone());
        let event = Event::PodCreated { set: key("web"), ordinal: pod.ordinal, revision, claims };
        story.commits("user", vec![event]);
        story.is_broken("has the name");
    }

    #[test]
    fn a_removed_node_must_be_the_pods_own() {
        let mut story = story();
        story.is_silent("n2");
        let event = removal(&story, "web-0", RemovalCause::NodeRemoved);
        story.commits("user", vec![event, Event::NodeRemoved { node: "n2".into() }]);
        story.is_broken("nobody removed its node");
    }

    #[test]
    fn a_node_that_is_heard_is_not_gone() {
        let mut story = story();
        let node = story.node("web-0");
        let event = removal(&story, "web-0", RemovalCause::NodeRemoved);
        story.commits("user", vec![event, Event::NodeRemoved { node: node.as_str().into() }]);
        story.is_broken("its node is still heard");
    }
}
