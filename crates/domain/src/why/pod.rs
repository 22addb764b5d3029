//! Why a pod is as it is.

use super::{Exit, Explanation, Reason, listed, seconds};
use crate::draft::spoken;
use crate::driver::stale_writer_word;
use crate::id::{Key, NodeName};
use crate::object::{Hold, Pod, PodEnd};
use crate::plan::set::is_over;
use crate::state::State;
use std::fmt::Write as _;

pub(super) fn explain(state: &State, key: &Key, pod: &Pod) -> Explanation {
    let name = spoken(key);
    if let Some(hold) = &pod.hold {
        return explain_hold(state, key, pod, hold);
    }
    if let Some(end) = &pod.end {
        return explain_end(&name, key, pod, end);
    }
    if let Some(deletion) = &pod.deletion {
        let node = pod.binding.as_ref().map(|b| b.node.clone()).unwrap_or_default();
        let is_going = state.nodes.get(&node).is_some_and(|record| record.shutdown.is_some());
        let because = if is_going { ", which is being shut down," } else { "" };
        let time = seconds(deletion.grace_ms);
        return Explanation {
            reason: Reason::Stopping,
            sentence: format!("pod {name} is stopping: node {node}{because} has up to {time} to end it"),
            blocking: Some(format!("node/{node}")),
            since_ms: Some(deletion.at_ms),
            ..Explanation::default()
        };
    }
    let Some(binding) = &pod.binding else { return explain_unplaced(&name, pod) };
    let node = &binding.node;
    if is_over(pod) {
        return Explanation {
            reason: Reason::Ended,
            sentence: format!("pod {name} has ended on node {node}, and is made anew in its turn: {}", words_of(pod)),
            blocking: Some(format!("pod/{name}")),
            since_ms: Some(binding.at_ms),
            exits: vec![Exit::ReadLogs(key.clone()), Exit::DeletePod(key.clone())],
            ..Explanation::default()
        };
    }
    if pod.is_ready() {
        return explain_ready(state, key, pod);
    }
    Explanation {
        reason: Reason::NotReady,
        sentence: format!("pod {name} is not Ready on node {node}: {}", words_of(pod)),
        blocking: Some(format!("pod/{name}")),
        since_ms: Some(binding.at_ms),
        exits: vec![Exit::ReadLogs(key.clone())],
        ..Explanation::default()
    }
}

fn explain_end(name: &str, key: &Key, pod: &Pod, end: &PodEnd) -> Explanation {
    Explanation {
        reason: Reason::PodFinalizing,
        sentence: format!(
            "pod {name} has ended, and is not replaced before its finalizers are removed: {}",
            listed(&pod.finalizers)
        ),
        blocking: Some(format!("pod/{name}")),
        since_ms: Some(end.at_ms),
        exits: vec![Exit::RemoveFinalizers("pod", key.clone())],
        ..Explanation::default()
    }
}

fn explain_unplaced(name: &str, pod: &Pod) -> Explanation {
    let mut sentence = format!("pod {name} is Pending");
    match &pod.unplaced {
        Some(unplaced) => {
            let _ = write!(sentence, ": 0/{} nodes are available", unplaced.node_count);
            for (i, (reason, count)) in unplaced.reasons.iter().enumerate() {
                let _ = write!(sentence, "{} {count} {reason}", if i == 0 { ":" } else { "," });
            }
        }
        None => sentence.push_str(": no address is left for it"),
    }
    let since_ms = Some(pod.meta.created_at_ms);
    Explanation { reason: Reason::NoNodeFits, sentence, since_ms, ..Explanation::default() }
}

fn explain_ready(state: &State, key: &Key, pod: &Pod) -> Explanation {
    let name = spoken(key);
    let (reason, sentence) = if pod.is_available {
        (Reason::AsWanted, format!("pod {name} is Ready; nothing is in its way"))
    } else {
        let min_ready_ms = state.sets.get(&pod_set(key, pod)).map_or(0, |set| set.spec.min_ready_ms);
        let time = seconds(min_ready_ms);
        (
            Reason::NotAvailableYet,
            format!("pod {name} is Ready, and counts as available once it has been so for {time}"),
        )
    };
    Explanation { reason, sentence, since_ms: Some(pod.ready_at_ms), ..Explanation::default() }
}

/// What the agent says of it.
fn words_of(pod: &Pod) -> String {
    match (pod.status.reason.as_str(), pod.status.message.as_str()) {
        ("", "") => "its containers are not ready yet".to_owned(),
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn pod_set(key: &Key, pod: &Pod) -> Key {
    Key { namespace: key.namespace.clone(), name: pod.set.clone() }
}

fn explain_hold(state: &State, key: &Key, pod: &Pod, hold: &Hold) -> Explanation {
    let (name, node) = (spoken(key), &hold.node);
    let boot = state.nodes.get(node).map(|n| n.boot_id.to_string()).unwrap_or_default();
    let mut evidence = vec![
        format!(
            "node {node} was last heard {} before it was called unreachable",
            seconds(hold.at_ms.saturating_sub(hold.heard_at_ms))
        ),
        format!("revision {} recorded the hold; boot id {boot} has not been seen to end", hold.since),
    ];
    for (volume, record) in state.volumes_of(pod) {
        if let Some(attachment) = record.attachments.get(node) {
            evidence.push(format!(
                "volume {volume} is attached to {node} under fence {}; driver {} {}",
                attachment.fence,
                record.spec.driver,
                stale_writer_word(record.spec.driver.as_str())
            ));
        }
    }
    if pod.deletion.is_some() {
        evidence.push("its deletion is recorded, and waits for the node's word or an exit".to_owned());
    }
    Explanation {
        reason: Reason::Held,
        sentence: format!(
            "pod {name} is held: node {node} is unreachable, and {name} may still be running there and writing to its volume"
        ),
        blocking: Some(format!("node/{node}")),
        since_ms: Some(hold.at_ms),
        evidence,
        exits: exits(key, node),
    }
}

/// What ends a hold: two assertions, and two kinds of evidence.
#[must_use]
pub fn exits(pod: &Key, node: &NodeName) -> Vec<Exit> {
    vec![
        Exit::RemoveNode(node.clone()),
        Exit::ForceDelete(pod.clone()),
        Exit::RestartNode(node.clone()),
        Exit::Heal(node.clone()),
    ]
}
