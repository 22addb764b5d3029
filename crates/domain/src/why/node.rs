//! Why a node is as it is.

use super::{Exit, Explanation, Reason, seconds};
use crate::draft::spoken;
use crate::id::NodeName;
use crate::state::State;

pub(super) fn explain(state: &State, name: &NodeName) -> Option<Explanation> {
    let node = state.nodes.get(name)?;
    let held = state.pods_on(name).filter(|(_, pod)| pod.hold.is_some()).map(|(key, _)| spoken(key));
    let running = state.pods_on(name).count();
    Some(match (&node.unreachable, &node.shutdown) {
        (Some(unreachable), Some(_)) if running == 0 => Explanation {
            reason: Reason::NodeShutDown,
            sentence: format!("node {name} was shut down: all of its pods had ended, and nothing waits for it"),
            since_ms: Some(unreachable.at_ms),
            exits: vec![Exit::RestartNode(name.clone()), Exit::RemoveNode(name.clone())],
            ..Explanation::default()
        },
        (None, Some(shutdown)) => Explanation {
            reason: Reason::NodeShuttingDown,
            sentence: format!(
                "node {name} is being shut down: {running} pods have up to {} to end, and it gets no new ones",
                seconds(shutdown.grace_ms)
            ),
            since_ms: Some(shutdown.at_ms),
            ..Explanation::default()
        },
        (Some(unreachable), _) => Explanation {
            reason: Reason::NodeUnreachable,
            sentence: format!("node {name} is unreachable: its agent has not been heard for its lease and grace"),
            blocking: None,
            since_ms: Some(unreachable.at_ms),
            evidence: held.map(|pod| format!("pod {pod} is held on it")).collect(),
            exits: vec![Exit::Heal(name.clone()), Exit::RestartNode(name.clone()), Exit::RemoveNode(name.clone())],
        },
        (None, None) if node.is_cordoned => Explanation {
            reason: Reason::NodeCordoned,
            sentence: format!("node {name} is Ready and cordoned: it gets no new pods"),
            exits: vec![Exit::Uncordon(name.clone())],
            ..Explanation::default()
        },
        (None, None) if !node.leftovers.is_empty() => Explanation {
            reason: Reason::NodeEndsLeftovers,
            sentence: format!(
                "node {name} ends {} pods of a former assignment before it gets work",
                node.leftovers.len()
            ),
            ..Explanation::default()
        },
        (None, None) => Explanation { sentence: format!("node {name} is Ready"), ..Explanation::default() },
    })
}
