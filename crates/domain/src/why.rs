//! Why something is not as it should be: one sentence, the object in the way, the evidence, the commands that end it.

use crate::draft::spoken;
use crate::driver::{DRIVER_LOOP, stale_writer_word};
use crate::id::{Key, NodeName, Ordinal};
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
    /// What would end it.
    pub exits: Vec<Exit>,
}

/// Something that would end a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A person answers for it that the machine is gone.
    RemoveNode(NodeName),
    /// A person answers for it that the pod's processes are dead.
    ForceDelete(Key),
    /// The node's new boot id proves that the old processes are dead.
    RestartNode(NodeName),
    /// The node is heard again, and its pods go on.
    Heal(NodeName),
    /// The pod that is in the way is stopped.
    DeletePod(Key),
    /// The node takes pods again.
    Uncordon(NodeName),
    /// The pod's own words may say what to mend.
    ReadLogs(Key),
    /// The rollout goes on.
    ResumeRollout(Key),
}

impl Exit {
    /// The command that does it, if a command does.
    #[must_use]
    pub fn command(&self) -> Option<String> {
        let pod = |verb: &str, key: &Key| match key.namespace.as_str() {
            "default" => format!("holdfast {verb} {}", key.name),
            namespace => format!("holdfast {verb} {} -n {namespace}", key.name),
        };
        match self {
            Self::RemoveNode(node) => Some(format!("holdfast delete node {node}")),
            Self::ForceDelete(key) => Some(format!("{} --force --grace-period=0", pod("delete pod", key))),
            Self::DeletePod(key) => Some(pod("delete pod", key)),
            Self::Uncordon(node) => Some(format!("holdfast uncordon {node}")),
            Self::ReadLogs(key) => Some(pod("logs", key)),
            Self::ResumeRollout(key) => Some(pod("rollout resume statefulset", key)),
            Self::RestartNode(_) | Self::Heal(_) => None,
        }
    }

    /// What it means, or what to do where no command does it.
    #[must_use]
    pub fn meaning(&self) -> String {
        match self {
            Self::RemoveNode(_) => "you answer for it that the machine is gone".to_owned(),
            Self::ForceDelete(_) => "you answer for it that the old process is dead".to_owned(),
            Self::RestartNode(node) => {
                format!("restart node {node}: its new boot id proves that the old processes are dead")
            }
            Self::Heal(node) => format!("heal the link to {node}: its pods go on where they are"),
            Self::DeletePod(_) | Self::Uncordon(_) | Self::ReadLogs(_) | Self::ResumeRollout(_) => String::new(),
        }
    }
}

/// Explains an object, if it exists.
#[must_use]
pub fn explain(state: &State, kind: &str, key: &Key) -> Option<Explanation> {
    match kind {
        "Pod" => match state.pods.get(key) {
            Some(pod) => Some(explain_pod(state, key, pod)),
            None => explain_owed_pod(state, key),
        },
        "StatefulSet" => Some(explain_set(state, key, state.sets.get(key)?)),
        "PersistentVolumeClaim" => explain_claim(state, key),
        "Node" => explain_node(state, &key.name.as_str().into()),
        _ => None,
    }
}

/// A pod that its set wants, and has not made yet.
fn explain_owed_pod(state: &State, key: &Key) -> Option<Explanation> {
    let (set_name, ordinal) = key.name.as_str().rsplit_once('-')?;
    let set_key = Key::new(key.namespace.as_str(), set_name);
    let set = state.sets.get(&set_key)?;
    if !set.spec.keeps(Ordinal(ordinal.parse().ok()?)) {
        return None;
    }
    let inner = explain_set(state, &set_key, set);
    let sentence = format!("pod {} does not exist yet: {}", spoken(key), inner.sentence);
    Some(Explanation { sentence, ..inner })
}

fn explain_pod(state: &State, key: &Key, pod: &Pod) -> Explanation {
    let name = spoken(key);
    if let Some(hold) = &pod.hold {
        return explain_hold(state, key, pod, hold);
    }
    if let Some(deletion) = &pod.deletion {
        let node = pod.binding.as_ref().map(|b| b.node.clone()).unwrap_or_default();
        let is_going = state.nodes.get(&node).is_some_and(|record| record.shutdown.is_some());
        let because = if is_going { ", which is being shut down," } else { "" };
        let time = seconds(deletion.grace_ms);
        return Explanation {
            sentence: format!("pod {name} is stopping: node {node}{because} has up to {time} to end it"),
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
        let sentence = if pod.is_available {
            format!("pod {name} is Ready; nothing is in its way")
        } else {
            let min_ready_ms = state.sets.get(&pod_set(key, pod)).map_or(0, |set| set.spec.min_ready_ms);
            format!("pod {name} is Ready, and counts as available once it has been so for {}", seconds(min_ready_ms))
        };
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
        exits: vec![Exit::ReadLogs(key.clone())],
        ..Explanation::default()
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
    if set.current_revision != set.update_revision && set.spec.is_paused {
        return Explanation {
            sentence: format!("statefulset {name} has pods of two revisions: its rollout is paused"),
            exits: vec![Exit::ResumeRollout(key.clone())],
            ..Explanation::default()
        };
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

fn blocking_claim(state: &State, key: &Key, set: &Set, ordinal: Ordinal) -> Option<String> {
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
    let user = state.users(key).find(|(_, pod)| pod.binding.is_some()).map(|(pod, _)| pod.clone());
    Some(match (&claim.volume, claim.deleting_at_ms, user) {
        (_, Some(at), Some(pod)) => Explanation {
            sentence: format!("claim {name} is to be deleted, and pod {} still uses it", pod.name),
            blocking: Some(format!("pod/{}", pod.name)),
            since_ms: Some(at),
            exits: vec![Exit::DeletePod(pod)],
            ..Explanation::default()
        },
        (Some(volume), ..) => {
            Explanation { sentence: format!("claim {name} is Bound to volume {volume}"), ..Explanation::default() }
        }
        (None, ..) => Explanation {
            sentence: match crate::draft::class_of(state, claim.spec.class.as_ref()) {
                Some((class, record))
                    if record.spec.provisioner.as_str() == DRIVER_LOOP && claim.spec.access.is_shared() =>
                {
                    format!(
                        "claim {name} is Pending: driver {} of class {class} gives a volume to one node at a time, and the claim asks for several",
                        record.spec.provisioner
                    )
                }
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
    let running = state.pods_on(name).count();
    Some(match (&node.unreachable, &node.shutdown) {
        (Some(unreachable), Some(_)) if running == 0 => Explanation {
            sentence: format!("node {name} was shut down: all of its pods had ended, and nothing waits for it"),
            since_ms: Some(unreachable.at_ms),
            exits: vec![Exit::RestartNode(name.clone()), Exit::RemoveNode(name.clone())],
            ..Explanation::default()
        },
        (None, Some(shutdown)) => Explanation {
            sentence: format!(
                "node {name} is being shut down: {running} pods have up to {} to end, and it gets no new ones",
                seconds(shutdown.grace_ms)
            ),
            since_ms: Some(shutdown.at_ms),
            ..Explanation::default()
        },
        (Some(unreachable), _) => Explanation {
            sentence: format!("node {name} is unreachable: its agent has not been heard for its lease and grace"),
            blocking: None,
            since_ms: Some(unreachable.at_ms),
            evidence: held.map(|pod| format!("pod {pod} is held on it")).collect(),
            exits: vec![Exit::Heal(name.clone()), Exit::RestartNode(name.clone()), Exit::RemoveNode(name.clone())],
        },
        (None, None) if node.is_cordoned => Explanation {
            sentence: format!("node {name} is Ready and cordoned: it gets no new pods"),
            exits: vec![Exit::Uncordon(name.clone())],
            ..Explanation::default()
        },
        (None, None) if !node.leftovers.is_empty() => Explanation {
            sentence: format!(
                "node {name} ends {} pods of a former assignment before it gets work",
                node.leftovers.len()
            ),
            ..Explanation::default()
        },
        (None, None) => Explanation { sentence: format!("node {name} is Ready"), ..Explanation::default() },
    })
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
