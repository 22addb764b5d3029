//! How explanations are shown.

use crate::v1;
use domain::Explanation;
use domain::id::Revision;
use domain::why::Exit;

/// Writes an answer to `why`, as of a revision.
#[must_use]
pub fn why_to_wire(explanation: &Explanation, revision: Revision, namespace: &str) -> v1::WhyReply {
    v1::WhyReply {
        revision: revision.0,
        reason: explanation.reason.word().to_owned(),
        sentence: explanation.sentence.clone(),
        blocked_by: explanation.blocking.as_deref().and_then(|object| reference(object, namespace)),
        since_ms: explanation.since_ms.unwrap_or(0),
        since_revision: 0,
        evidence: explanation.evidence.clone(),
        exits: explanation.exits.iter().map(exit_to_wire).collect(),
    }
}

/// An object from `kind/name`.
fn reference(object: &str, namespace: &str) -> Option<v1::ObjectReference> {
    let (kind, name) = object.split_once('/')?;
    let (api_version, kind, is_namespaced) = match kind {
        "pod" => ("v1", "Pod", true),
        "persistentvolumeclaim" => ("v1", "PersistentVolumeClaim", true),
        "persistentvolume" => ("v1", "PersistentVolume", false),
        "node" => ("v1", "Node", false),
        "statefulset" => ("apps/v1", "StatefulSet", true),
        other => ("", other, true),
    };
    // A name may come with a namespace of its own.
    let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
    Some(v1::ObjectReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: if is_namespaced { namespace.to_owned() } else { String::new() },
        name: name.to_owned(),
        ..v1::ObjectReference::default()
    })
}

/// Writes an exit.
pub(super) fn exit_to_wire(exit: &Exit) -> v1::Exit {
    let kind = match exit {
        Exit::RemoveNode(_) => "NodeRemoved",
        Exit::ForceDelete(_) => "PodForceDeleted",
        Exit::RestartNode(_) => "NodeRestarted",
        Exit::Heal(_) => "NodeReturned",
        Exit::DeletePod(_)
        | Exit::Uncordon(_)
        | Exit::ReadLogs(_)
        | Exit::ResumeRollout(_)
        | Exit::RemoveFinalizers(..) => "",
    };
    v1::Exit { r#type: kind.to_owned(), command: exit.command().unwrap_or_default(), message: exit.meaning() }
}
