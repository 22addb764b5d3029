//! Who judges a history. Each checker owns one promise, in a file of its own, and names the invariant that it is
//! (`semantics D1-2`). It reads facts and the log; it never looks into a process, and never calls what it judges.

use crate::history::Fact;
use domain::id::Revision;
use domain::{Batch, State};
use std::fmt;
use std::sync::Arc;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker's name.
    pub checker: &'static str,
    /// When it was noticed, in true time.
    pub at_ms: u64,
    /// What happened, to which object, and what had been promised.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms: {}", self.checker, self.at_ms, self.message)
    }
}

/// A batch of the log, and the state on both sides of it.
#[derive(Clone, Debug)]
pub struct Committed<'a> {
    /// When the first server applied it.
    pub at_ms: u64,
    /// The state before it.
    pub before: &'a State,
    /// The batch.
    pub batch: &'a Arc<Batch>,
    /// The state after it.
    pub after: &'a State,
}

impl Committed<'_> {
    /// The state before each event, with the event and the revision that it makes.
    pub fn events(&self) -> impl Iterator<Item = (State, &domain::Event, Revision)> {
        let mut state = self.before.clone();
        domain::revisions_of(self.batch).map(move |(revision, event)| {
            let before = state.clone();
            state.apply(event);
            (before, event, revision)
        })
    }
}

/// One promise.
pub trait Checker {
    /// Its name, in one word with dashes: `one-live-pod`.
    fn name(&self) -> &'static str;

    /// Something happened.
    ///
    /// # Errors
    /// The promise is broken.
    fn on_fact(&mut self, fact: &Fact) -> Result<(), String> {
        let _ = fact;
        Ok(())
    }

    /// The log grew: called once for each batch, when the first server has applied it, before the fact that says so.
    ///
    /// # Errors
    /// The promise is broken.
    fn on_committed(&mut self, committed: &Committed<'_>) -> Result<(), String> {
        let _ = committed;
        Ok(())
    }
}
