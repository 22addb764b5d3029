//! Why a claim is as it is.

use super::{Exit, Explanation, Reason, listed};
use crate::draft::{class_of, spoken};
use crate::driver::DRIVER_LOOP;
use crate::id::Key;
use crate::object::Claim;
use crate::state::State;

pub(super) fn explain(state: &State, key: &Key) -> Option<Explanation> {
    let claim = state.claims.get(key)?;
    let name = spoken(key);
    let user = state.users(key).find(|(_, pod)| pod.binding.is_some() || pod.end.is_some()).map(|(pod, _)| pod.clone());
    Some(match (&claim.volume, claim.deleting_at_ms, user) {
        (_, Some(at), Some(pod)) => Explanation {
            reason: Reason::ClaimInUse,
            sentence: format!("claim {name} is to be deleted, and pod {} still uses it", pod.name),
            blocking: Some(format!("pod/{}", pod.name)),
            since_ms: Some(at),
            exits: vec![Exit::DeletePod(pod)],
            ..Explanation::default()
        },
        (_, Some(at), None) => Explanation {
            reason: Reason::ClaimFinalizing,
            sentence: format!(
                "claim {name} is to be deleted once its finalizers are removed: {}",
                listed(&claim.finalizers)
            ),
            since_ms: Some(at),
            exits: vec![Exit::RemoveFinalizers("pvc", key.clone())],
            ..Explanation::default()
        },
        (Some(volume), ..) if claim.is_lost => Explanation {
            reason: Reason::VolumeLost,
            sentence: format!("claim {name} is Lost: its volume {volume} has vanished"),
            ..Explanation::default()
        },
        (Some(volume), ..) => {
            Explanation { sentence: format!("claim {name} is Bound to volume {volume}"), ..Explanation::default() }
        }
        (None, ..) => explain_unbound(state, &name, claim),
    })
}

fn explain_unbound(state: &State, name: &str, claim: &Claim) -> Explanation {
    let (reason, why) = match class_of(state, claim.spec.class.as_ref()) {
        Some((class, record)) if record.spec.provisioner.as_str() == DRIVER_LOOP && claim.spec.access.is_shared() => {
            let driver = &record.spec.provisioner;
            let gives = format!("driver {driver} of class {class} gives a volume to one node at a time");
            (Reason::ClassCannotShare, format!("{gives}, and the claim asks for several"))
        }
        Some((class, record)) if record.spec.waits_for_consumer => {
            (Reason::WaitsForConsumer, format!("class {class} waits for a pod that uses it"))
        }
        Some(_) | None => (Reason::NoVolumeFits, "no free volume fits, and no storage class provisions one".to_owned()),
    };
    let since_ms = Some(claim.meta.created_at_ms);
    Explanation { reason, sentence: format!("claim {name} is Pending: {why}"), since_ms, ..Explanation::default() }
}
