//! Which pods are a set's: adopted, released, and labelled as what they are. Never makes or ends one.

use crate::apply::{LABEL_POD_INDEX, LABEL_POD_NAME, LABEL_REVISION};
use crate::event::Event;
use crate::id::{Key, Name};
use crate::object::{Pod, Set};
use crate::state::State;

/// The next pod that a set takes as its own, lets go of, or gives its own labels back.
pub(super) fn step(state: &State, key: &Key, set: &Set) -> Option<Event> {
    adopt(state, key, set).or_else(|| release(state, key, set)).or_else(|| relabel(state, key))
}

fn matches(set: &Set, pod: &Pod) -> bool {
    set.spec.selector.iter().all(|(label, value)| pod.meta.labels.get(label) == Some(value))
}

/// A pod whose labels do not match any more is not the set's any more; its name stays taken (semantics A1-12).
fn release(state: &State, key: &Key, set: &Set) -> Option<Event> {
    let (pod_key, pod) = state.members(key).find(|(_, pod)| pod.deletion.is_none() && !matches(set, pod))?;
    Some(Event::PodOrphaned { pod: pod_key.clone(), uid: pod.meta.uid })
}

/// The labels that say which pod it is come back if somebody takes them away (semantics A1-8).
fn relabel(state: &State, key: &Key) -> Option<Event> {
    let is_itself = |pod_key: &Key, pod: &Pod| {
        own_labels(pod_key, pod).iter().all(|(label, value)| pod.meta.labels.get(label) == Some(value))
    };
    let (pod_key, pod) = state.members(key).find(|(pod_key, pod)| !is_itself(pod_key, pod))?;
    let mut labels = pod.meta.labels.clone();
    labels.extend(own_labels(pod_key, pod));
    let annotations = pod.meta.annotations.clone();
    Some(Event::PodMarked { pod: pod_key.clone(), uid: pod.meta.uid, labels, annotations })
}

fn own_labels(key: &Key, pod: &Pod) -> [(Name, Name); 3] {
    [
        (LABEL_POD_NAME.into(), key.name.clone()),
        (LABEL_POD_INDEX.into(), pod.ordinal.to_string().into()),
        (LABEL_REVISION.into(), pod.revision.as_str().into()),
    ]
}

fn adopt(state: &State, key: &Key, set: &Set) -> Option<Event> {
    let (pod_key, pod) =
        state.pods_named_by(key).find(|(_, pod)| pod.owner.is_none() && pod.deletion.is_none() && matches(set, pod))?;
    let same = set.revisions.iter().rev().find(|r| r.template.means_same(&pod.template));
    let revision = same.map_or_else(|| pod.revision.clone(), |r| r.name.clone());
    Some(Event::PodAdopted { pod: pod_key.clone(), uid: pod.meta.uid, owner: set.meta.uid, revision })
}
