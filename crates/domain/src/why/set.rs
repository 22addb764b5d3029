//! Why a set is as it is, and why a pod that it wants is not there.

use super::{Exit, Explanation, Reason, pod};
use crate::draft::spoken;
use crate::id::{Key, Ordinal};
use crate::object::Set;
use crate::spec::UpdateStrategy;
use crate::state::State;

/// A pod that its set wants, and has not made yet.
pub(super) fn explain_owed_pod(state: &State, key: &Key) -> Option<Explanation> {
    let (set_name, ordinal) = key.name.as_str().rsplit_once('-')?;
    let set_key = Key::new(key.namespace.as_str(), set_name);
    let set = state.sets.get(&set_key)?;
    if !set.spec.keeps(Ordinal(ordinal.parse().ok()?)) {
        return None;
    }
    let inner = explain(state, &set_key, set);
    let sentence = format!("pod {} does not exist yet: {}", spoken(key), inner.sentence);
    Some(Explanation { sentence, ..inner })
}

/// What it waits for, the lowest ordinal first: that is the order in which it goes on.
pub(super) fn explain(state: &State, key: &Key, set: &Set) -> Explanation {
    let name = spoken(key);
    if let Some(explanation) = set.spec.kept().find_map(|ordinal| explain_kept(state, key, set, ordinal)) {
        return explanation;
    }
    let surplus = state.members(key).find(|(_, pod)| !set.spec.keeps(pod.ordinal));
    if let Some((pod_key, pod)) = surplus {
        let inner = pod::explain(state, pod_key, pod);
        let sentence = format!("statefulset {name} waits for pod {} to go: {}", pod_key.name, inner.sentence);
        let blocking = Some(format!("pod/{}", pod_key.name));
        return Explanation { reason: Reason::WaitsForPodToGo, sentence, blocking, ..inner };
    }
    if let Some(explanation) = explain_rollout(state, key, set) {
        return explanation;
    }
    let sentence = format!("statefulset {name} is as wanted: {0}/{0} pods are Ready", set.spec.replicas);
    Explanation { sentence, ..Explanation::default() }
}

/// `None`: the pod is there, and available.
fn explain_kept(state: &State, key: &Key, set: &Set, ordinal: Ordinal) -> Option<Explanation> {
    let (name, pod_key) = (spoken(key), key.pod(ordinal));
    let blocking = Some(format!("pod/{}", pod_key.name));
    match state.pods.get(&pod_key) {
        Some(pod) if pod.owner != Some(set.meta.uid) => Some(Explanation {
            reason: Reason::NameIsTaken,
            sentence: format!(
                "statefulset {name} waits for the name {}: the pod that has it is not the set's, and its labels say so",
                pod_key.name
            ),
            blocking,
            exits: vec![Exit::DeletePod(pod_key)],
            ..Explanation::default()
        }),
        Some(pod) if pod.is_ready() && pod.is_available && pod.deletion.is_none() => None,
        Some(pod) => {
            let inner = pod::explain(state, &pod_key, pod);
            let sentence = format!("statefulset {name} waits for pod {}: {}", pod_key.name, inner.sentence);
            Some(Explanation { reason: Reason::WaitsForPod, sentence, blocking, ..inner })
        }
        None => Some(Explanation {
            reason: Reason::WaitsToMakePod,
            sentence: format!("statefulset {name} waits to make pod {}", pod_key.name),
            blocking: blocking_claim(state, key, set, ordinal),
            ..Explanation::default()
        }),
    }
}

/// Why pods of two revisions stay beside each other, if they do.
fn explain_rollout(state: &State, key: &Key, set: &Set) -> Option<Explanation> {
    let outdated_count = state.members(key).filter(|(_, pod)| pod.revision != set.update_revision).count();
    if outdated_count == 0 {
        return None;
    }
    let has_two = format!("statefulset {} has {outdated_count} pods of another revision", spoken(key));
    let (reason, why, exits) = match set.spec.update {
        _ if set.spec.is_paused => {
            (Reason::RolloutPaused, "its rollout is paused".to_owned(), vec![Exit::ResumeRollout(key.clone())])
        }
        UpdateStrategy::RollingUpdate { partition, .. } => {
            (Reason::RolloutPartitioned, format!("its update strategy leaves those below {partition}"), Vec::new())
        }
        UpdateStrategy::OnDelete => {
            (Reason::RolloutByHand, "its update strategy leaves them until they are deleted".to_owned(), Vec::new())
        }
    };
    Some(Explanation { reason, sentence: format!("{has_two}: {why}"), exits, ..Explanation::default() })
}

fn blocking_claim(state: &State, key: &Key, set: &Set, ordinal: Ordinal) -> Option<String> {
    set.spec
        .claim_templates
        .iter()
        .map(|template| key.claim(&template.name, ordinal))
        .find(|claim| state.claims.get(claim).is_some_and(|c| c.deleting_at_ms.is_some()))
        .map(|claim| format!("persistentvolumeclaim/{}", claim.name))
}
