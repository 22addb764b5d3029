//! How much of what agents say one step of the core takes. Knows nothing of what they say.
//!
//! What a whole cluster says at once would take seconds in which no other server hears from this one, and another one is
//! elected; what is taken in small pieces costs a sync for each. So a step gets smaller when one took long, and larger
//! when there is more to do than fits and time for it.

use std::time::Duration;

/// A step may take so long: a tick.
const STEP_MAX: Duration = Duration::from_millis(50);
const PODS_MIN: usize = 128;
const PODS_MAX: usize = 1_024;

/// The present pace.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    pods_max: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pods_max: PODS_MAX }
    }
}

impl Pace {
    /// Of how many pods a step takes reports at most, rounded up to whole reports.
    pub(crate) const fn pods_max(&self) -> usize {
        self.pods_max
    }

    /// A step that took reports of so many pods was so long.
    pub(crate) fn learn(&mut self, pods: usize, took: Duration) {
        if STEP_MAX < took {
            self.pods_max = (self.pods_max / 2).max(PODS_MIN);
        } else if took < STEP_MAX / 2 && self.pods_max <= pods {
            self.pods_max = (self.pods_max * 2).min(PODS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(200);
    const SHORT: Duration = Duration::from_millis(2);

    #[test]
    fn steps_that_take_long_get_smaller_and_never_vanish() {
        let mut pace = Pace::default();
        pace.learn(1_024, LONG);
        assert_eq!(pace.pods_max(), 512);
        (0..20).for_each(|_| pace.learn(128, LONG));
        assert_eq!(pace.pods_max(), PODS_MIN);
    }

    #[test]
    fn steps_grow_again_only_where_there_is_more_to_do() {
        let mut pace = Pace::default();
        pace.learn(1_024, LONG);
        (0..20).for_each(|_| pace.learn(3, SHORT));
        assert_eq!(pace.pods_max(), 512, "nobody waited");
        (0..20).for_each(|_| pace.learn(pace.pods_max(), SHORT));
        assert_eq!(pace.pods_max(), PODS_MAX);
    }
}
