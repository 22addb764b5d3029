//! Times of single operations, and what they come to.

use std::time::Duration;

/// How long each of many operations took.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    micros: Vec<u32>,
    is_sorted: bool,
}

impl Latencies {
    pub(super) fn add(&mut self, took: Duration) {
        self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        self.is_sorted = false;
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.micros.extend_from_slice(&other.micros);
        self.is_sorted = false;
    }

    pub(super) fn count(&self) -> usize {
        self.micros.len()
    }

    /// The time that the given part of all operations did not exceed; 1 is the slowest.
    pub(super) fn quantile_ms(&mut self, part: f64) -> f64 {
        if !self.is_sorted {
            self.micros.sort_unstable();
            self.is_sorted = true;
        }
        let last = self.micros.len().saturating_sub(1);
        let place = (last as f64 * part).round() as usize;
        self.micros.get(place).map_or(0.0, |&micros| f64::from(micros) / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut latencies = Latencies::default();
        assert!(latencies.quantile_ms(0.5) < f64::EPSILON);
        for millis in (1..=101).rev() {
            latencies.add(Duration::from_millis(millis));
        }
        let found = [0.0, 0.5, 0.99, 1.0].map(|part| latencies.quantile_ms(part).round() as u32);
        assert_eq!(found, [1, 51, 100, 101]);
    }
}
