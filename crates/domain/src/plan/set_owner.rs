//! Which pods are a set's: adopted, released, and labelled as what they are. Never makes or ends one.

use crate::apply::{LABEL_POD_INDEX, LABEL_POD_NAME, LABEL_REVISION};
use crate::event::Event;
use crate::id::Key;
use crate::object::{Pod, Set};
use crate::state::State;

/// The next pod that a set takes as its own, lets go of, or gives its own labels back. One pass for all three: sets are
/// large.
pub(super) fn step(state: &State, key: &Key, set: &Set) -> Option<Event> {
    let (mut released, mut unlabelled) = (None, None);
    for (pod_key, pod) in state.pods_named_by(key) {
        if pod.owner == Some(set.meta.uid) {
            let is_released = pod.deletion.is_none() && !matches(set, pod);
            released = released.or_else(|| is_released.then_some((pod_key, pod)));
            unlabelled = unlabelled.or_else(|| (!is_itself(pod_key, pod)).then_some((pod_key, pod)));
        } else if pod.owner.is_none() && pod.deletion.is_none() && matches(set, pod) {
            return Some(adoption(set, pod_key, pod));
        }
    }
    let release = released.map(|(pod_key, pod)| release(pod_key, pod));
    release.or_else(|| unlabelled.map(|(pod_key, pod)| relabelling(pod_key, pod)))
}

fn matches(set: &Set, pod: &Pod) -> bool {
    set.spec.selector.iter().all(|(label, value)| pod.meta.labels.get(label) == Some(value))
}

fn adoption(set: &Set, pod_key: &Key, pod: &Pod) -> Event {
    let same = set.revisions.iter().rev().find(|r| r.template.means_same(&pod.template));
    let revision = same.map_or_else(|| pod.revision.clone(), |r| r.name.clone());
    Event::PodAdopted { pod: pod_key.clone(), uid: pod.meta.uid, owner: set.meta.uid, revision }
}

/// A pod whose labels do not match any more is not the set's any more; its name stays taken (semantics A1-12).
fn release(pod_key: &Key, pod: &Pod) -> Event {
    Event::PodOrphaned { pod: pod_key.clone(), uid: pod.meta.uid }
}

/// What the labels say that say which pod it is.
fn own_labels<'a>(pod_key: &'a Key, pod: &'a Pod, ordinal: &'a str) -> [(&'static str, &'a str); 3] {
    [(LABEL_POD_NAME, pod_key.name.as_str()), (LABEL_POD_INDEX, ordinal), (LABEL_REVISION, pod.revision.as_str())]
}

fn is_itself(pod_key: &Key, pod: &Pod) -> bool {
    let has = |wanted: &(&str, &str)| {
        let mut labels = pod.meta.labels.iter();
        labels.any(|(label, value)| (label.as_str(), value.as_str()) == *wanted)
    };
    own_labels(pod_key, pod, &pod.ordinal.to_string()).iter().all(has)
}

/// The labels that say which pod it is come back if somebody takes them away (semantics A1-8).
fn relabelling(pod_key: &Key, pod: &Pod) -> Event {
    let ordinal = pod.ordinal.to_string();
    let mut labels = pod.meta.labels.clone();
    labels.extend(own_labels(pod_key, pod, &ordinal).map(|(label, value)| (label.into(), value.into())));
    let annotations = pod.meta.annotations.clone();
    Event::PodMarked { pod: pod_key.clone(), uid: pod.meta.uid, labels, annotations }
}
