//! Why something is not as it should be: one sentence, the object in the way, the evidence, the commands that end it.

use crate::draft::spoken;
use crate::id::{Key, NodeName};
use crate::object::{Hold, Pod, Set};
use crate::state::State;
use std::fmt::Write as _;

/// An answer to `why`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// One sentence.
    pub sentence: String,
    /// The object in the way, `kind/name`.
    pub blocking: Option<String>,
    /// Since when.
    pub since_ms: Option<u64>,
    /// What is known, a line each.
    pub evidence: Vec<String>,
    /// The commands that would end it.
    pub exits: Vec<String>,
}

/// Explains an object, if it exists.
#[must_use]
pub fn explain(state: &State, kind: &str, key: &Key) -> Option<Explanation> {
    match kind {
        "Pod" => Some(explain_pod(state, key, state.pods.get(key)?)),
        "StatefulSet" => Some(explain_set(state, key, state.sets.get(key)?)),
        "PersistentVolumeClaim" => explain_claim(state, key),
        "Node" => explain_node(state, &key.name.as_str().into()),
        _ => None,
    }
}

fn explain_pod(state: &State, key: &Key, pod: &Pod) -> Explanation {
    let name = spoken(key);
    if let Some(hold) = &pod.hold {
        return explain_hold(state, key, pod, hold);
    }
    if let Some(deletion) = &pod.deletion {
        let node = pod.binding.as_ref().map(|b| b.node.to_string()).unwrap_or_default();
        return Explanation {
            sentence: format!("pod {name} is stopping: node {node} has up to {} to end it", seconds(deletion.grace_ms)),
            blocking: Some(format!("node/{node}")),
            since_ms: Some(deletion.at_ms),
            ..Explanation::default()
        };
    }
    if let Some(unplaced) = &pod.unplaced {
        let mut sentence = format!("pod {name} is Pending: 0/{} nodes are available", unplaced.node_count);
        for (i, (reason, count)) in unplaced.reasons.iter().enumerate() {
            let _ = write!(sentence, "{} {count} {reason}", if i == 0 { ":" } else { "," });
        }
        return Explanation { sentence, since_ms: Some(pod.meta.created_at_ms), ..Explanation::default() };
    }
    if pod.is_ready() {
        let sentence = format!("pod {name} is Ready; nothing is in its way");
        return Explanation { sentence, since_ms: Some(pod.ready_at_ms), ..Explanation::default() };
    }
    let node = pod.binding.as_ref().map(|b| b.node.to_string()).unwrap_or_default();
    let reason = match (pod.status.reason.as_str(), pod.status.message.as_str()) {
        ("", _) => "its containers are not ready yet".to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    Explanation {
        sentence: format!("pod {name} is not Ready on node {node}: {reason}"),
        blocking: Some(format!("pod/{name}")),
        since_ms: pod.binding.as_ref().map(|b| b.at_ms),
        exits: vec![format!("holdfast logs {}", key.name)],
        ..Explanation::default()
    }
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
        sentence: format!(
            "pod {name} is held: node {node} is unreachable, and {name} may still be running there and writing to its volume"
        ),
        blocking: Some(format!("node/{node}")),
        since_ms: Some(hold.at_ms),
        evidence,
        exits: exits(key, node),
    }
}

/// The commands that end a hold, and who answers for each.
#[must_use]
pub fn exits(pod: &Key, node: &NodeName) -> Vec<String> {
    let namespace = match pod.namespace.as_str() {
        "default" => String::new(),
        namespace => format!(" -n {namespace}"),
    };
    vec![
        format!("holdfast delete node {node}    (you answer for it that the machine is gone)"),
        format!(
            "holdfast delete pod {}{namespace} --force --grace-period=0    (you answer for it that the old process is dead)",
            pod.name
        ),
        format!("restart node {node}    (its new boot id proves that the old processes are dead)"),
        format!("heal the link to {node}    (the pod goes on where it is)"),
    ]
}

/// What a driver does about a writer that was left behind.
fn stale_writer_word(driver: &str) -> &'static str {
    match driver {
        "fenced" => "refuses a writer with a lower fence",
        _ => "cannot refuse a writer that was left behind",
    }
}

fn explain_set(state: &State, key: &Key, set: &Set) -> Explanation {
    let name = spoken(key);
    for ordinal in set.spec.kept() {
        let pod_key = key.pod(ordinal);
        match state.pods.get(&pod_key) {
            Some(pod) if pod.is_ready() && pod.is_available && pod.deletion.is_none() => {}
            Some(pod) => {
                let inner = explain_pod(state, &pod_key, pod);
                return Explanation {
                    sentence: format!("statefulset {name} waits for pod {}: {}", pod_key.name, inner.sentence),
                    blocking: Some(format!("pod/{}", pod_key.name)),
                    ..inner
                };
            }
            None => {
                return Explanation {
                    sentence: format!("statefulset {name} waits to make pod {}", pod_key.name),
                    blocking: blocking_claim(state, key, set, ordinal),
                    ..Explanation::default()
                };
            }
        }
    }
    let surplus = state.members(key).find(|(_, pod)| !set.spec.keeps(pod.ordinal));
    if let Some((pod_key, pod)) = surplus {
        let inner = explain_pod(state, pod_key, pod);
        let sentence = format!("statefulset {name} waits for pod {} to go: {}", pod_key.name, inner.sentence);
        return Explanation { sentence, blocking: Some(format!("pod/{}", pod_key.name)), ..inner };
    }
    if set.current_revision != set.update_revision {
        return Explanation {
            sentence: format!(
                "statefulset {name} has pods of two revisions: its update strategy leaves some at {}",
                set.current_revision
            ),
            ..Explanation::default()
        };
    }
    let sentence = format!("statefulset {name} is as wanted: {0}/{0} pods are Ready", set.spec.replicas);
    Explanation { sentence, ..Explanation::default() }
}

fn blocking_claim(state: &State, key: &Key, set: &Set, ordinal: crate::id::Ordinal) -> Option<String> {
    set.spec
        .claim_templates
        .iter()
        .map(|template| key.claim(&template.name, ordinal))
        .find(|claim| state.claims.get(claim).is_some_and(|c| c.deleting_at_ms.is_some()))
        .map(|claim| format!("persistentvolumeclaim/{}", claim.name))
}

fn explain_claim(state: &State, key: &Key) -> Option<Explanation> {
    let claim = state.claims.get(key)?;
    let name = spoken(key);
    let user = state.users(key).find(|(_, pod)| pod.binding.is_some()).map(|(pod, _)| pod.name.to_string());
    Some(match (&claim.volume, claim.deleting_at_ms, user) {
        (_, Some(at), Some(pod)) => Explanation {
            sentence: format!("claim {name} is to be deleted, and pod {pod} still uses it"),
            blocking: Some(format!("pod/{pod}")),
            since_ms: Some(at),
            exits: vec![format!("holdfast delete pod {pod}")],
            ..Explanation::default()
        },
        (Some(volume), ..) => {
            Explanation { sentence: format!("claim {name} is Bound to volume {volume}"), ..Explanation::default() }
        }
        (None, ..) => Explanation {
            sentence: match crate::draft::class_of(state, claim.spec.class.as_ref()) {
                Some((class, record)) if record.spec.waits_for_consumer => {
                    format!("claim {name} is Pending: class {class} waits for a pod that uses it")
                }
                _ => format!("claim {name} is Pending: no free volume fits, and no storage class provisions one"),
            },
            since_ms: Some(claim.meta.created_at_ms),
            ..Explanation::default()
        },
    })
}

fn explain_node(state: &State, name: &NodeName) -> Option<Explanation> {
    let node = state.nodes.get(name)?;
    let held = state.pods_on(name).filter(|(_, pod)| pod.hold.is_some()).map(|(key, _)| spoken(key));
    Some(match &node.unreachable {
        Some(unreachable) => Explanation {
            sentence: format!("node {name} is unreachable: its agent has not been heard for its lease and grace"),
            blocking: None,
            since_ms: Some(unreachable.at_ms),
            evidence: held.map(|pod| format!("pod {pod} is held on it")).collect(),
            exits: vec![
                format!("heal the link to {name}"),
                format!("restart node {name}"),
                format!("holdfast delete node {name}"),
            ],
        },
        None if node.is_cordoned => Explanation {
            sentence: format!("node {name} is Ready and cordoned: it gets no new pods"),
            exits: vec![format!("holdfast uncordon {name}")],
            ..Explanation::default()
        },
        None if !node.leftovers.is_empty() => Explanation {
            sentence: format!(
                "node {name} ends {} pods of a former assignment before it gets work",
                node.leftovers.len()
            ),
            ..Explanation::default()
        },
        None => Explanation { sentence: format!("node {name} is Ready"), ..Explanation::default() },
    })
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
