//! How much the volumes may hold that end with their pod: asked from time to time, and a pod that has more is over, as in
//! Kubernetes. Never looks itself, and never ends anything.

use crate::message::{Failure, Output};
use domain::agent::AssignedPod;
use domain::id::{Name, Uid};
use domain::spec::{LocalSource, LocalVolume};
use std::collections::BTreeMap;

/// What a volume with a limit holds is asked this long after the last answer.
pub const MEASURE_EVERY_MS: u64 = 10_000;
/// A pod that holds too much has this long to end.
pub const EVICTION_GRACE_MS: u64 = 1_000;
/// Why a pod is over that held too much, in the word that Kubernetes uses.
pub const REASON_EVICTED: &str = "Evicted";

/// The limits of one pod's volumes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// When each is asked for next; `None`: it is being asked for.
    due: BTreeMap<Name, Option<u64>>,
    excess: Option<Failure>,
}

impl Limits {
    pub(crate) fn advance(&mut self, now_ms: u64, uid: Uid, pod: &AssignedPod, out: &mut Vec<Output>) {
        for (volume, _) in limited(pod) {
            let due = self.due.entry(volume.name.clone()).or_insert(Some(now_ms));
            if due.is_some_and(|at_ms| at_ms <= now_ms) {
                *due = None;
                out.push(Output::MeasureVolume { uid, volume: volume.name.clone() });
            }
        }
    }

    /// `used_bytes`: `None` if nobody could say.
    pub(crate) fn on_measured(&mut self, now_ms: u64, pod: &AssignedPod, name: &Name, used_bytes: Option<u64>) {
        let Some((_, max_bytes)) = limited(pod).find(|(volume, _)| volume.name == *name) else { return };
        self.due.insert(name.clone(), Some(now_ms + MEASURE_EVERY_MS));
        if let Some(used_bytes) = used_bytes.filter(|used_bytes| max_bytes < *used_bytes)
            && self.excess.is_none()
        {
            let message = format!("emptyDir {name} holds {used_bytes} bytes, and its sizeLimit is {max_bytes}");
            self.excess = Some(Failure { reason: Name::new(REASON_EVICTED), message });
        }
    }

    /// Why the pod is over, if it is: it stays so, whatever becomes of its volumes.
    pub(crate) const fn excess(&self) -> Option<&Failure> {
        self.excess.as_ref()
    }

    /// When [`Self::advance`] has something to do, if nothing else happens.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        self.due.values().copied().flatten().min()
    }
}

/// The volumes that have a limit, and that.
fn limited(pod: &AssignedPod) -> impl Iterator<Item = (&LocalVolume, u64)> {
    pod.template.local_volumes.iter().filter_map(|volume| match volume.source {
        LocalSource::EmptyDir { size_max_bytes, .. } if 0 < size_max_bytes => Some((volume, size_max_bytes)),
        LocalSource::EmptyDir { .. } | LocalSource::Config { .. } | LocalSource::Fields { .. } => None,
    })
}
