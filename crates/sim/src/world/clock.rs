//! The clocks of one process, as far as they are from the true time.

use crate::chance::Chance;

/// The true time 0, since 1970.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;
const MILLION: i64 = 1_000_000;

/// A machine's clocks. Both run too fast or too slow alike.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    drift_ppm: i64,
    skew_ms: i64,
}

impl Clock {
    pub(crate) fn drawn(chance: &mut Chance, drift_ppm_max: u64, skew_ms_max: u64) -> Self {
        let mut around_zero = |max: u64| chance.between(0..=2 * max).cast_signed() - max.cast_signed();
        Self { drift_ppm: around_zero(drift_ppm_max), skew_ms: around_zero(skew_ms_max) }
    }

    pub(crate) const fn set_ahead(&mut self, ahead_ms: i64) {
        self.skew_ms = ahead_ms;
    }

    /// What the monotonic clock says of so much true time.
    pub(crate) const fn measured(&self, true_ms: u64) -> u64 {
        let drift = true_ms.cast_signed() * self.drift_ppm / MILLION;
        true_ms.saturating_add_signed(drift)
    }

    /// How much true time has passed, at the least, when the monotonic clock says so much.
    pub(crate) const fn lasting(&self, measured_ms: u64) -> u64 {
        let scaled = measured_ms.cast_signed() * MILLION / (MILLION + self.drift_ppm);
        let mut true_ms = scaled.unsigned_abs();
        while self.measured(true_ms) < measured_ms {
            true_ms += 1;
        }
        true_ms
    }

    /// What the clock that people read says.
    pub(crate) const fn wall(&self, true_ms: u64) -> u64 {
        (EPOCH_MS + self.measured(true_ms)).saturating_add_signed(self.skew_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_by_the_monotonic_clock_is_never_too_short() {
        for drift_ppm in [-5_000, -1, 0, 1, 5_000] {
            let clock = Clock { drift_ppm, skew_ms: 0 };
            for measured_ms in [0, 1, 50, 999, 123_456] {
                let true_ms = clock.lasting(measured_ms);
                assert!(measured_ms <= clock.measured(true_ms));
                assert!(true_ms == 0 || clock.measured(true_ms - 1) < measured_ms + 1);
            }
        }
    }
}
