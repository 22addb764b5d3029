//! `cordon` (semantics D49, A11-166): no pod is bound to a node that is cordoned, unreachable, full, being shut down, or still
//! ending what it had before.

use super::{Checker, Committed};
use crate::scene::Scene;
use domain::id::{Key, NodeName};
use domain::{Event, State};

/// See the module.
#[derive(Debug, Default)]
pub struct Cordon {
    judged_count: u64,
}

impl Checker for Cordon {
    fn name(&self) -> &'static str {
        "cordon"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        for step in committed.steps() {
            if let Event::PodBound { pod, node, .. } = step.event {
                self.judged_count += 1;
                judge(step.before, pod, node).map_err(|why| format!("pod {pod} was bound to node {node}, {why}"))?;
            }
        }
        Ok(())
    }
}

fn judge(state: &State, key: &Key, name: &NodeName) -> Result<(), String> {
    let Some(pod) = state.pods.get(key) else { return Err("and is not there".to_owned()) };
    let Some(node) = state.nodes.get(name) else { return Err("which is not a member".to_owned()) };
    if let Some(binding) = &pod.binding {
        return Err(format!("and was bound to {} before", binding.node));
    }
    if pod.deletion.is_some() {
        return Err("and is on its way out".to_owned());
    }
    if node.is_cordoned {
        return Err("which is cordoned".to_owned());
    }
    if node.unreachable.is_some() {
        return Err("which is unreachable".to_owned());
    }
    if node.shutdown.is_some() {
        return Err("which is being shut down".to_owned());
    }
    if !node.leftovers.is_empty() {
        return Err(format!("which still ends {:?}", node.leftovers));
    }
    let load = node.reserved.plus(pod.template.requests());
    let is_full = node.capacity.cpu_milli < load.cpu_milli
        || node.capacity.memory_bytes < load.memory_bytes
        || node.pods_max <= node.pod_count;
    if is_full { Err("which is full".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};

    /// Makes a node one that takes no pods.
    type Preparation = fn(&mut Story);

    fn story() -> Story {
        let mut story = Story::judged_by(Cordon::default());
        story.has_ordered_set("web", 1, &["n1", "n2"]);
        story
    }

    fn bind_second(story: &mut Story, node: &str) {
        let spec = story.state().claims[&key("www-web-0")].spec.clone();
        let claim = Event::ClaimCreated {
            claim: key("www-web-1"),
            labels: domain::spec::Labels::new(),
            spec,
            annotations: domain::spec::Labels::new(),
        };
        let creation = story.creation("web", 1);
        let bound = Event::PodBound { pod: key("web-1"), node: node.into(), address: 1 };
        story.plans(vec![Event::SetScaled { set: key("web"), replicas: 2 }, claim, creation, bound]);
    }

    #[test]
    fn a_node_that_takes_pods_gets_them() {
        let mut story = story();
        story.submits("user", domain::Command::CordonNode { node: "n1".into() });
        story.scales("web", 2);
        assert_eq!(story.node("web-1"), "n2");
        story.holds();
    }

    #[test]
    fn a_node_that_takes_none_does_not() {
        let table: [(Preparation, &str); 4] = [
            (|story| story.submits("user", domain::Command::CordonNode { node: "n2".into() }), "cordoned"),
            (|story| story.is_silent("n2"), "unreachable"),
            (
                |story| story.commits("agent/n2", vec![Event::NodeShutdownBegan { node: "n2".into(), grace_ms: 0 }]),
                "being shut down",
            ),
            (
                |story| {
                    let leftovers = vec![domain::id::Uid(1)];
                    story.commits("agent/n2", vec![Event::NodeReturned { node: "n2".into(), leftovers }]);
                },
                "still ends",
            ),
        ];
        for (prepare, word) in table {
            let mut story = story();
            prepare(&mut story);
            bind_second(&mut story, "n2");
            story.is_broken(word);
        }
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut story = story();
        story.plans(vec![Event::PodBound { pod: key("web-0"), node: "n2".into(), address: 1 }]);
        story.is_broken("was bound to n1 before");
    }
}
