//! The storage that all nodes share, as the `dir` driver keeps it: a directory and the highest fence for each volume.
//! Refuses lower fences when a volume is attached, and cannot stop whoever writes already.

use domain::id::Fence;
use domain::id::Name;
use mutants::{Mutant, is_on};
use std::collections::BTreeMap;

/// All volumes, by the driver's names for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Storage {
    volumes: BTreeMap<Name, Volume>,
    made: u64,
}

#[derive(Clone, Debug)]
struct Volume {
    /// Which directory of that name: a process that has an earlier one open writes into nothing.
    generation: u64,
    fence: Fence,
    lines: u64,
}

impl Storage {
    /// Makes the volume usable under a fence, and makes it the first time.
    pub(crate) fn attach(&mut self, handle: &Name, fence: Fence) -> Result<(), String> {
        let made = &mut self.made;
        let volume = self.volumes.entry(handle.clone()).or_insert_with(|| {
            *made += 1;
            Volume { generation: *made, fence: Fence(0), lines: 0 }
        });
        if fence < volume.fence && !is_on(Mutant::StaleFenceAccepted) {
            let highest = volume.fence;
            return Err(format!("volume {handle} has been attached under fence {highest}; fence {fence} is stale"));
        }
        volume.fence = fence.max(volume.fence);
        Ok(())
    }

    /// The directory of a volume that a process opens, and how many lines are in it.
    pub(crate) fn open(&self, handle: &Name) -> Option<(u64, u64)> {
        self.volumes.get(handle).map(|volume| (volume.generation, volume.lines))
    }

    /// Adds a line; returns how many there are, or `None` if the directory is gone.
    pub(crate) fn write(&mut self, handle: &Name, generation: u64) -> Option<u64> {
        let volume = self.volumes.get_mut(handle).filter(|volume| volume.generation == generation)?;
        volume.lines += 1;
        Some(volume.lines)
    }

    /// Removes a volume; says whether it was there.
    pub(crate) fn delete(&mut self, handle: &Name) -> bool {
        self.volumes.remove(handle).is_some()
    }
}
