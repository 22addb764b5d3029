//! Why something is not as it should be: a reason of a closed list, one sentence, the object in the way, the evidence, the
//! commands that end it. Never decides anything: it reads the state as everybody else does.

mod claim;
mod node;
mod pod;
mod reason;
mod set;

use crate::id::{Key, Name, NodeName};
use crate::state::State;
pub use pod::exits;
pub use reason::Reason;

/// An answer to `why`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// In a word.
    pub reason: Reason,
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
    /// What the object waits for is done, a person says; of this kind.
    RemoveFinalizers(&'static str, Key),
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
            Self::RemoveFinalizers(kind, key) => {
                Some(format!("{} -p '{{\"metadata\":{{\"finalizers\":null}}}}'", pod(&format!("patch {kind}"), key)))
            }
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
            Self::RemoveFinalizers(..) => "you answer for it that nobody has anything left to do".to_owned(),
            Self::DeletePod(_) | Self::Uncordon(_) | Self::ReadLogs(_) | Self::ResumeRollout(_) => String::new(),
        }
    }
}

/// Explains an object, if it exists.
#[must_use]
pub fn explain(state: &State, kind: &str, key: &Key) -> Option<Explanation> {
    match kind {
        "Pod" => match state.pods.get(key) {
            Some(pod) => Some(pod::explain(state, key, pod)),
            None => set::explain_owed_pod(state, key),
        },
        "StatefulSet" => Some(set::explain(state, key, state.sets.get(key)?)),
        "PersistentVolumeClaim" => claim::explain(state, key),
        "Node" => node::explain(state, &key.name.as_str().into()),
        _ => None,
    }
}

fn listed(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
