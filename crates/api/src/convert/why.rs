//! How explanations are shown.

use crate::v1;
use domain::Explanation;
use domain::id::Revision;

/// Writes an answer to `why`, as of a revision.
#[must_use]
pub fn why_to_wire(explanation: &Explanation, revision: Revision, namespace: &str) -> v1::WhyReply {
    v1::WhyReply {
        revision: revision.0,
        sentence: explanation.sentence.clone(),
        blocked_by: explanation.blocking.as_deref().and_then(|object| reference(object, namespace)),
        since_ms: explanation.since_ms.unwrap_or(0),
        since_revision: 0,
        evidence: explanation.evidence.clone(),
        exits: explanation.exits.iter().map(|exit| exit_to_wire(exit)).collect(),
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

/// Writes an exit from its line: the command or the deed, and in brackets what it means.
pub(super) fn exit_to_wire(line: &str) -> v1::Exit {
    let (deed, meaning) = line.split_once("    ").unwrap_or((line, ""));
    let meaning = meaning.trim().trim_start_matches('(').trim_end_matches(')');
    let kinds = [
        ("holdfast delete node ", "NodeRemoved"),
        ("holdfast delete pod ", "PodForceDeleted"),
        ("restart node ", "NodeRestarted"),
        ("heal ", "NodeReturned"),
    ];
    let kind = kinds.iter().find(|(begin, _)| deed.starts_with(begin)).map_or("", |(_, kind)| kind);
    let kind = if kind == "PodForceDeleted" && !deed.contains("--force") { "" } else { kind };
    let is_command = deed.starts_with("holdfast ");
    let message = match (is_command, meaning) {
        (true, meaning) => meaning.to_owned(),
        (false, "") => deed.to_owned(),
        (false, meaning) => format!("{deed}: {meaning}"),
    };
    let command = if is_command { deed.to_owned() } else { String::new() };
    v1::Exit { r#type: kind.to_owned(), command, message }
}
