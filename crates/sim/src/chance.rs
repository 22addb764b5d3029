//! Chance, drawn from the seed: one stream for each concern, so that a new fault does not reshuffle the workload.
//! Never asks the machine for anything.

use std::ops::RangeInclusive;

/// What a stream of chance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// The shape of the cluster.
    Setup,
    /// Which faults come, and when.
    Faults,
    /// What people ask for.
    Workload,
    /// Delays and losses of messages.
    Network,
    /// How long disks take, and what they keep.
    Disks,
    /// How far clocks are off.
    Clocks,
    /// What pods do.
    Pods,
    /// How clients go about it.
    Clients,
    /// The seeds that processes draw when they start.
    Processes,
    /// What happens in a quiet world.
    Quiet,
    /// What [`crate::focus::reboots`] chooses.
    Reboots,
    /// What happens to servers that crash.
    Crashes,
    /// What people say of nodes that are away.
    Assertions,
    /// What people ask of servers that stand still.
    Pauses,
    /// Which nodes are shut down, and when.
    Shutdowns,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The stream of a seed for one concern.
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        let mut chance = Self { state: seed };
        let mixed = chance.draw();
        Self { state: mixed ^ (stream as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93) }
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        // splitmix64: small, and the same everywhere.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`, which is not 0.
    pub fn below(&mut self, count: u64) -> u64 {
        self.draw() % count.max(1)
    }

    /// A number of a range.
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end().saturating_sub(*range.start()) + 1)
    }

    /// Whether something comes about that does so in so many of a thousand cases.
    pub fn hits(&mut self, permille: u32) -> bool {
        // A draw in any case: what comes after must not depend on how likely this was.
        self.below(1_000) < u64::from(permille)
    }

    /// One of several, if there are any.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(from.len() as u64)).expect("invariant: it is below a length");
        from.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |stream| Chance::new(7, stream).draw();
        assert_eq!(draw(Stream::Network), draw(Stream::Network));
        assert_ne!(draw(Stream::Network), draw(Stream::Disks));
        assert_ne!(draw(Stream::Network), Chance::new(8, Stream::Network).draw());
    }

    #[test]
    fn a_range_is_drawn_from_its_first_number_to_its_last() {
        let mut chance = Chance::new(1, Stream::Setup);
        let drawn: std::collections::BTreeSet<u64> = (0..200).map(|_| chance.between(3..=5)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
    }
}
