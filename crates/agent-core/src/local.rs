//! The volumes of one pod that end with it: made before its containers start, and kept as what they show changes.
//! Never holds up a container for a change: who runs keeps what he has.

use crate::given::Given;
use crate::message::{Failure, Output, VolumeContent};
use domain::agent::AssignedPod;
use domain::id::{Name, Uid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A volume that could not be made is tried again after this time.
pub const PLACE_RETRY_MS: u64 = 1_000;

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalVolumes {
    by_name: BTreeMap<Name, Local>,
    failure: Option<Failure>,
}

#[derive(Clone, Debug, Default)]
struct Local {
    /// What is there.
    placed: Option<VolumeContent>,
    /// What is being put there.
    in_flight: Option<VolumeContent>,
    retry_at_ms: u64,
    failure: Option<Failure>,
}

impl LocalVolumes {
    /// The next steps towards what the template and its references say now; afterwards [`Self::failure`] says what is
    /// missing.
    pub(crate) fn advance(
        &mut self,
        now_ms: u64,
        uid: Uid,
        pod: &Arc<AssignedPod>,
        given: Given<'_>,
        out: &mut Vec<Output>,
    ) {
        self.failure = None;
        for volume in &pod.template.local_volumes {
            let local = self.by_name.entry(volume.name.clone()).or_default();
            let failure = match given.content(pod, volume) {
                Ok(content) => local.place(now_ms, content).map(|content| {
                    let (pod, volume) = (Arc::clone(pod), volume.name.clone());
                    out.push(Output::PlaceVolume { uid, pod, volume, content });
                }),
                Err(failure) => {
                    local.failure = Some(failure);
                    None
                }
            };
            if failure.is_none() && local.placed.is_none() && self.failure.is_none() {
                self.failure.clone_from(&local.failure);
            }
        }
    }

    /// Whether the containers have what they mount.
    pub(crate) fn are_placed(&self) -> bool {
        self.by_name.values().all(|local| local.placed.is_some())
    }

    /// Why not, if something went wrong.
    pub(crate) const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(crate) fn on_placed(&mut self, now_ms: u64, volume: &Name, result: Result<(), Failure>) {
        let Some(local) = self.by_name.get_mut(volume) else { return };
        let content = local.in_flight.take();
        match result {
            Ok(()) => {
                local.placed = content;
                local.failure = None;
            }
            Err(failure) => {
                local.failure = Some(failure);
                local.retry_at_ms = now_ms + PLACE_RETRY_MS;
            }
        }
    }

    /// When a volume that could not be made is tried again.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        let waiting = self.by_name.values().filter(|local| local.failure.is_some() && local.in_flight.is_none());
        waiting.map(|local| local.retry_at_ms).min()
    }
}

impl Local {
    /// What is to be put there now, if anything.
    fn place(&mut self, now_ms: u64, content: VolumeContent) -> Option<VolumeContent> {
        let is_there = self.placed.as_ref() == Some(&content);
        if is_there || self.in_flight.is_some() || now_ms < self.retry_at_ms {
            return None;
        }
        self.in_flight = Some(content.clone());
        Some(content)
    }
}
