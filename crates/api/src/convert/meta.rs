//! Names, identity and marks of objects.

use super::check::{At, FieldError, labels_to_wire, once};
use crate::name::{NameError, check_label, check_label_key};
use crate::time::format_ms;
use crate::v1;
use domain::State;
use domain::id::{Key, Name};
use domain::object::Meta;
use domain::spec::Labels;
use domain::uid_text;
use std::collections::{BTreeMap, BTreeSet};

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The namespace that a request means.
#[must_use]
pub const fn namespace_of(namespace: &str) -> &str {
    if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }
}

/// The marks of an object that users write.
pub(super) struct Marks {
    pub(super) key: Key,
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
}

/// Reads metadata of an object without finalizers.
pub(super) fn marks_from_wire(
    meta: Option<&v1::ObjectMeta>,
    check_name: impl FnOnce(&str) -> Result<(), NameError>,
) -> Result<Marks, FieldError> {
    let at = At::root("metadata");
    refuse_finalizers(at.required(meta)?, at)?;
    all_marks_from_wire(meta, check_name)
}

/// Only pods and claims wait for anybody before they go.
pub(super) fn refuse_finalizers(meta: &v1::ObjectMeta, at: At<'_>) -> Result<(), FieldError> {
    match meta.finalizers.as_slice() {
        [] => Ok(()),
        [..] => Err(at.to("finalizers").refuse("are for pods, pod templates and claims")),
    }
}

/// Reads metadata of an object that has a namespace.
pub(super) fn all_marks_from_wire(
    meta: Option<&v1::ObjectMeta>,
    check_name: impl FnOnce(&str) -> Result<(), NameError>,
) -> Result<Marks, FieldError> {
    let at = At::root("metadata");
    let meta = at.required(meta)?;
    let namespace = at.to("namespace").name(namespace_of(&meta.namespace), check_label)?;
    Ok(Marks {
        key: Key { namespace, name: at.to("name").name(&meta.name, check_name)? },
        labels: at.to("labels").labels(&meta.labels)?,
        annotations: at.to("annotations").annotations(&meta.annotations)?,
    })
}

/// Reads labels and annotations by themselves.
///
/// # Errors
/// The first key or value that breaks a rule.
pub fn marks_of(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<(Labels, Labels), FieldError> {
    Ok((At::root("labels").labels(labels)?, At::root("annotations").annotations(annotations)?))
}

/// Reads finalizers by themselves.
///
/// # Errors
/// The first that breaks a rule.
pub fn finalizers_of(finalizers: &[String]) -> Result<Vec<Name>, FieldError> {
    finalizers_from_wire(finalizers, At::root("metadata"))
}

/// Reads finalizers: words of the form `domain/name`, so that it can be seen whose they are.
pub(super) fn finalizers_from_wire(finalizers: &[String], at: At<'_>) -> Result<Vec<Name>, FieldError> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::with_capacity(finalizers.len());
    for (index, finalizer) in finalizers.iter().enumerate() {
        let at = at.item("finalizers", index);
        let name = at.name(finalizer, check_label_key)?;
        if !finalizer.contains('/') {
            return Err(at.refuse(format_args!("must say whose it is, as in \"example.com/{finalizer}\"")));
        }
        once(&mut seen, finalizer, at)?;
        names.push(name);
    }
    Ok(names)
}

pub(super) fn meta_to_wire(state: &State, key: &Key, meta: &Meta) -> v1::ObjectMeta {
    v1::ObjectMeta {
        name: key.name.to_string(),
        namespace: key.namespace.to_string(),
        uid: uid_text(&state.cluster, meta.uid),
        generation: i64::try_from(meta.generation.0).unwrap_or(i64::MAX),
        resource_version: meta.modified.to_string(),
        creation_timestamp: format_ms(meta.created_at_ms),
        labels: labels_to_wire(&meta.labels),
        annotations: labels_to_wire(&meta.annotations),
        ..v1::ObjectMeta::default()
    }
}

/// Metadata of an object without a namespace.
pub(super) fn cluster_meta_to_wire(state: &State, name: &str, meta: &Meta) -> v1::ObjectMeta {
    meta_to_wire(state, &Key::new("", name), meta)
}

/// The set that made an object.
pub(super) fn owner_to_wire(state: &State, set: &str, uid: domain::id::Uid) -> v1::OwnerReference {
    v1::OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "StatefulSet".to_owned(),
        name: set.to_owned(),
        uid: uid_text(&state.cluster, uid),
        controller: true,
        block_owner_deletion: true,
    }
}

/// A condition that is observed.
pub(super) fn condition(kind: &str, status: &str, since_ms: u64, reason: &str, message: &str) -> v1::Condition {
    v1::Condition {
        r#type: kind.to_owned(),
        status: status.to_owned(),
        last_heartbeat_time: String::new(),
        last_transition_time: format_ms(since_ms),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// How an object is called in a sentence: with its namespace only where that says something.
pub(super) fn spoken(key: &Key) -> String {
    match key.namespace.as_str() {
        "" | DEFAULT_NAMESPACE => key.name.to_string(),
        _ => key.to_string(),
    }
}
