//! What people may ask of config maps and secrets.

use super::{Decision, not_found};
use crate::command::Rejection;
use crate::config::{ConfigKind, ConfigSpec};
use crate::event::Event;
use crate::id::Key;
use crate::spec::Labels;
use crate::state::State;
use std::sync::Arc;

pub(super) fn apply(
    state: &State,
    kind: ConfigKind,
    key: &Key,
    labels: &Labels,
    annotations: &Labels,
    spec: &Arc<ConfigSpec>,
) -> Decision {
    if let Some(known) = state.configs.get(&(kind, key.clone())) {
        let refuse = |field: &'static str, rule: &str| Rejection::Invalid {
            kind: kind.word(),
            name: key.name.to_string(),
            field,
            rule: rule.to_owned(),
        };
        if known.spec.is_immutable && !spec.is_immutable {
            return Err(refuse("immutable", "may not be taken back"));
        }
        if known.spec.is_immutable && known.spec != *spec {
            return Err(refuse("data", "may not be changed: the object is immutable"));
        }
        if known.spec.type_name != spec.type_name {
            return Err(refuse("type", "may not be changed"));
        }
        if known.spec == *spec && known.meta.labels == *labels && known.meta.annotations == *annotations {
            return Ok(Vec::new());
        }
    }
    Ok(vec![Event::ConfigApplied {
        kind,
        config: key.clone(),
        labels: labels.clone(),
        annotations: annotations.clone(),
        spec: Arc::clone(spec),
    }])
}

/// Pods that run keep what they have; a container that starts without it waits for another of the name.
pub(super) fn delete(state: &State, kind: ConfigKind, key: &Key) -> Decision {
    if !state.configs.contains_key(&(kind, key.clone())) {
        return Err(not_found(kind.word(), &key.name));
    }
    Ok(vec![Event::ConfigRemoved { kind, config: key.clone() }])
}
