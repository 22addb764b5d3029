//! The time that batches carry: the clock that people read, made to go on. The log's time never goes back, so while a
//! leader's clock is behind it, it would stand still, and with it everything that waits for time to pass.

use crate::lease::Moment;

/// While the log's time is ahead of the clock, it goes on so many times slower: whatever waits for it waits no shorter
/// than it should, and the clock catches up.
const SLOWNESS: u64 = 2;

/// The log's time in the hands of one leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogTime {
    at_ms: u64,
    /// When it was that.
    now_ms: u64,
}

impl LogTime {
    pub(crate) const fn new(at: Moment) -> Self {
        Self { at_ms: at.wall_ms, now_ms: at.now_ms }
    }

    /// The log is already so far.
    pub(crate) fn follow(&mut self, at_ms: u64) {
        self.at_ms = self.at_ms.max(at_ms);
    }

    /// What the next batch is to carry.
    pub(crate) fn at_ms(&mut self, at: Moment) -> u64 {
        let gone_ms = at.now_ms.saturating_sub(self.now_ms) / SLOWNESS;
        // What is too short to count now counts with what follows.
        self.now_ms += gone_ms * SLOWNESS;
        self.at_ms += gone_ms;
        if self.at_ms <= at.wall_ms {
            (self.at_ms, self.now_ms) = (at.wall_ms, at.now_ms);
        }
        self.at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now_ms: u64, wall_ms: u64) -> Moment {
        Moment { now_ms, wall_ms }
    }

    #[test]
    fn the_time_of_the_log_is_that_of_the_clock() {
        let mut time = LogTime::new(at(10, 1_000));
        assert_eq!(time.at_ms(at(20, 1_010)), 1_010);
        assert_eq!(time.at_ms(at(30, 5_000)), 5_000, "a clock that is put forward is followed");
    }

    #[test]
    fn a_clock_that_is_behind_the_log_does_not_stop_time() {
        let mut time = LogTime::new(at(0, 1_000));
        time.follow(9_000);
        let passed: Vec<u64> = (1..=10).map(|step| time.at_ms(at(step * 101, 1_000 + step * 101))).collect();
        assert!(passed.is_sorted() && passed[9] == 9_000 + 505, "{passed:?}");
        assert_eq!(time.at_ms(at(16_001, 17_001)), 17_001, "the clock has caught up");
    }
}
