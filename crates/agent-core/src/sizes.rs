//! The sizes that a pod's volumes were asked to have, so that they grow while it runs. Never takes anything away.

use crate::message::Output;
use crate::pod::ATTACH_RETRY_MS;
use domain::agent::{AssignedPod, AssignedVolume};
use domain::command::VolumeSize;
use domain::id::{Uid, VolumeName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What each volume was last asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes(BTreeMap<VolumeName, Size>);

#[derive(Clone, Copy, Debug)]
struct Size {
    asked_bytes: u64,
    /// What it is known to have; 0 if nobody has said so.
    has_bytes: u64,
    /// `Some`: it went wrong.
    retry_at_ms: Option<u64>,
}

impl Sizes {
    /// All volumes of the pod were asked to be as large as they should be.
    pub(crate) fn of(pod: &AssignedPod) -> Self {
        Self(pod.volumes.iter().map(asked).collect())
    }

    /// The same of a pod that a former agent had begun: of what was to grow, nobody knows whether it has.
    pub(crate) fn found(pod: &AssignedPod) -> Self {
        let mut sizes = Self::of(pod);
        for volume in pod.volumes.iter().filter(|volume| volume.is_growing) {
            if let Some(size) = sizes.0.get_mut(&volume.volume) {
                size.asked_bytes = 0;
            }
        }
        sizes
    }

    /// It was given a size, which may be one that was asked for before the last.
    pub(crate) fn on_attached(&mut self, volume: &VolumeName, size_bytes: u64) {
        if let Some(size) = self.0.get_mut(volume) {
            size.has_bytes = size.has_bytes.max(size_bytes);
        }
    }

    /// Of the volumes that the control plane waits for, those that have their size.
    pub(crate) fn grown(&self, pod: &AssignedPod) -> Vec<VolumeSize> {
        let growing = pod.volumes.iter().filter(|volume| volume.is_growing);
        let sizes = growing.filter_map(|volume| Some((volume, self.0.get(&volume.volume)?.has_bytes)));
        sizes
            .filter(|(volume, size_bytes)| volume.capacity_bytes <= *size_bytes)
            .map(|(volume, size_bytes)| VolumeSize { volume: volume.volume.clone(), size_bytes })
            .collect()
    }

    /// It has what it had; only growing went wrong.
    pub(crate) fn on_failed(&mut self, now_ms: u64, volume: &VolumeName) {
        if let Some(size) = self.0.get_mut(volume) {
            size.retry_at_ms = Some(now_ms + ATTACH_RETRY_MS);
        }
    }

    /// A volume that should be larger by now is attached once more: that changes nothing but its size.
    pub(crate) fn advance(&mut self, now_ms: u64, uid: Uid, pod: &Arc<AssignedPod>, out: &mut Vec<Output>) {
        for volume in &pod.volumes {
            let is_due = self.0.get(&volume.volume).is_some_and(|size| {
                size.asked_bytes < volume.capacity_bytes || size.retry_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
            });
            if is_due {
                let has_bytes = self.0.get(&volume.volume).map_or(0, |size| size.has_bytes);
                let (name, size) = asked(volume);
                self.0.insert(name, Size { has_bytes, ..size });
                out.push(Output::AttachVolume { uid, pod: Arc::clone(pod), volume: volume.clone() });
            }
        }
    }

    /// When [`Self::advance`] has something to do, if nothing else happens.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        self.0.values().filter_map(|size| size.retry_at_ms).min()
    }
}

fn asked(volume: &AssignedVolume) -> (VolumeName, Size) {
    (volume.volume.clone(), Size { asked_bytes: volume.capacity_bytes, has_bytes: 0, retry_at_ms: None })
}
