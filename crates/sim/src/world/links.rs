//! The ways between processes, each direction by itself: open or cut, and how slow. Carries nothing.

use crate::scenario::{Direction, Process};
use std::collections::BTreeMap;

/// One end of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Process(Process),
    /// Where the people are.
    Clients,
}

impl Place {
    pub(crate) const fn server(number: u64) -> Self {
        Self::Process(Process::Server(number))
    }

    pub(crate) const fn node(number: u64) -> Self {
        Self::Process(Process::Node(number))
    }
}

/// What is wrong with one direction of a way.
#[derive(Clone, Copy, Debug, Default)]
struct Fault {
    is_cut: bool,
    delay_ms: u64,
}

/// All ways with something wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    faults: BTreeMap<(Place, Place), Fault>,
    /// Goes up with each change: who waits for a cut to last can tell whether it did.
    pub(crate) epoch: u64,
}

impl Links {
    pub(crate) fn is_open(&self, from: Place, to: Place) -> bool {
        !self.faults.get(&(from, to)).is_some_and(|fault| fault.is_cut)
    }

    /// Whether questions come back with answers.
    pub(crate) fn is_open_both_ways(&self, one: Place, other: Place) -> bool {
        self.is_open(one, other) && self.is_open(other, one)
    }

    pub(crate) fn extra_delay_ms(&self, from: Place, to: Place) -> u64 {
        self.faults.get(&(from, to)).map_or(0, |fault| fault.delay_ms)
    }

    /// The directions between a target and others that a fault concerns.
    fn ways(target: Process, others: &[Place], direction: Direction) -> Vec<(Place, Place)> {
        let target = Place::Process(target);
        let mut ways = Vec::new();
        for &other in others.iter().filter(|other| **other != target) {
            if direction != Direction::Out {
                ways.push((other, target));
            }
            if direction != Direction::In {
                ways.push((target, other));
            }
        }
        ways
    }

    pub(crate) fn cut(&mut self, target: Process, others: &[Place], direction: Direction) {
        for way in Self::ways(target, others, direction) {
            self.faults.entry(way).or_default().is_cut = true;
        }
        self.epoch += 1;
    }

    pub(crate) fn slow(&mut self, target: Process, others: &[Place], direction: Direction, delay_ms: u64) {
        for way in Self::ways(target, others, direction) {
            self.faults.entry(way).or_default().delay_ms = delay_ms;
        }
    }

    /// Mends the target's ways, or all.
    pub(crate) fn heal(&mut self, target: Option<Process>) {
        match target.map(Place::Process) {
            Some(target) => self.faults.retain(|(from, to), _| *from != target && *to != target),
            None => self.faults.clear(),
        }
        self.epoch += 1;
    }
}
