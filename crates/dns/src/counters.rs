//! How many questions came, and what became of them. Only counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted while it happens.
#[derive(Debug, Default)]
pub struct Counters {
    answered: AtomicU64,
    absent: AtomicU64,
    forwarded: AtomicU64,
    failed: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered with records of the cluster.
    pub answered: u64,
    /// Answered that the cluster has no such name or record.
    pub absent: u64,
    /// Answered by a resolver of the host.
    pub forwarded: u64,
    /// Not answered: refused, not understood, or no resolver did.
    pub failed: u64,
}

impl Counters {
    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            answered: now(&self.answered),
            absent: now(&self.absent),
            forwarded: now(&self.forwarded),
            failed: now(&self.failed),
        }
    }

    pub(crate) fn note_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_absent(&self) {
        self.absent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_forwarded(&self) {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}
