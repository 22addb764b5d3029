//! How the checks of one probe go: when the next is due, and what enough results in a row say.
//! Never runs one.

use domain::spec::Probe;

#[derive(Clone, Debug, Default)]
pub(crate) struct Check {
    pub(crate) next_at_ms: u64,
    pub(crate) is_in_flight: bool,
    pub(crate) is_good: bool,
    success_count: u32,
    pub(crate) failure_count: u32,
}

impl Check {
    pub(crate) fn after_start(now_ms: u64, probe: Option<&Probe>) -> Self {
        Self { next_at_ms: now_ms + probe.map_or(0, |probe| probe.initial_delay_ms), ..Self::default() }
    }

    /// What enough results in a row say, if there are enough.
    pub(crate) fn count(&mut self, is_ok: bool, probe: &Probe) -> Option<bool> {
        if is_ok {
            self.success_count = self.success_count.saturating_add(1);
            self.failure_count = 0;
        } else {
            self.failure_count = self.failure_count.saturating_add(1);
            self.success_count = 0;
        }
        if probe.success_threshold.max(1) <= self.success_count {
            self.is_good = true;
        } else if probe.failure_threshold.max(1) <= self.failure_count {
            self.is_good = false;
        } else {
            return None;
        }
        Some(self.is_good)
    }

    pub(crate) fn is_beyond(&self, probe: &Probe) -> bool {
        probe.failure_threshold.max(1) <= self.failure_count
    }
}
