//! Who judges a history. Each checker owns one promise, in a file of its own, and names the invariant that it is
//! (`semantics D1-2`). It reads facts and the log; it never looks into a process, and never calls what it judges.
//! `docs/checkers.md` lists them all.

mod acknowledged_is_durable;
mod at_rest;
mod attachments;
mod claims;
mod cordon;
mod creation;
mod data_continuity;
mod deleted_set_inert;
mod eviction;
mod grace;
mod holds;
mod leaders;
mod linearizable;
mod one_live_pod;
mod ordered_create;
mod ordered_delete;
mod parallel_independence;
mod partition_alone_changes_nothing;
mod registers;
mod replacement_needs_evidence;
mod request_once;
mod revisions;
mod rollout;
mod single_writer;
mod stale_agents_obey;
mod state_equals_fold;
mod watches;

#[cfg(test)]
pub(crate) mod story;

pub use acknowledged_is_durable::AcknowledgedIsDurable;
pub use at_rest::{Explained, Liveness, NothingLeaks};
pub use attachments::Attachments;
pub use claims::{Claims, ClaimsFit};
pub use cordon::Cordon;
pub use creation::{ClaimsFirst, Scope, TemplatePurity};
pub use data_continuity::DataContinuity;
pub use deleted_set_inert::DeletedSetInert;
pub use eviction::EvictionBudget;
pub use grace::Grace;
pub use holds::Holds;
pub use leaders::{OneLeader, SteadyLeader};
pub use linearizable::Linearizable;
pub use one_live_pod::OneLivePod;
pub use ordered_create::OrderedCreate;
pub use ordered_delete::OrderedDelete;
pub use parallel_independence::ParallelIndependence;
pub use partition_alone_changes_nothing::PartitionAloneChangesNothing;
pub use registers::Registers;
pub use replacement_needs_evidence::ReplacementNeedsEvidence;
pub use request_once::RequestOnce;
pub use revisions::Revisions;
pub use rollout::{OnDeleteSilence, UpdateBudget, UpdateVictim};
pub use single_writer::SingleWriter;
pub use stale_agents_obey::StaleAgentsObey;
pub use state_equals_fold::{GaplessRevisions, StateEqualsFold};
pub use watches::Watches;

use crate::history::Fact;
use crate::scene::Scene;
use domain::id::Key;
use domain::object::{Pod, Set};
use domain::{Batch, Event, State};
use std::fmt;
use std::sync::Arc;

/// A fresh instance of every checker.
#[must_use]
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::<OneLivePod>::default(),
        Box::<ReplacementNeedsEvidence>::default(),
        Box::<PartitionAloneChangesNothing>::default(),
        Box::<SingleWriter>::default(),
        Box::<DataContinuity>::default(),
        Box::<OrderedCreate>::default(),
        Box::<OrderedDelete>::default(),
        Box::<UpdateVictim>::default(),
        Box::<UpdateBudget>::default(),
        Box::<OnDeleteSilence>::default(),
        Box::<Scope>::default(),
        Box::<TemplatePurity>::default(),
        Box::<ClaimsFirst>::default(),
        Box::<DeletedSetInert>::default(),
        Box::<Revisions>::default(),
        Box::<Claims>::default(),
        Box::<ClaimsFit>::default(),
        Box::<Attachments>::default(),
        Box::<Cordon>::default(),
        Box::<EvictionBudget>::default(),
        Box::<Grace>::default(),
        Box::<StaleAgentsObey>::default(),
        Box::<Holds>::default(),
        Box::<OneLeader>::default(),
        Box::<ParallelIndependence>::default(),
        Box::<AcknowledgedIsDurable>::default(),
        Box::<RequestOnce>::default(),
        Box::<StateEqualsFold>::default(),
        Box::<GaplessRevisions>::default(),
        Box::<Watches>::default(),
        Box::<Linearizable>::default(),
        Box::<Registers>::default(),
        Box::<Liveness>::default(),
        Box::<NothingLeaks>::default(),
        Box::<Explained>::default(),
    ]
}

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
    /// The state before each event.
    pub(crate) steps: &'a [State],
}

/// One event of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The state before it.
    pub before: &'a State,
    /// The event.
    pub event: &'a Event,
    /// The state after it.
    pub after: &'a State,
    /// Whether nobody asked for it: a planner saw that it follows.
    pub is_planned: bool,
}

impl Committed<'_> {
    /// Every event with the states on both sides of it.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let asked = self.batch.events.len().saturating_sub(self.batch.planned as usize);
        self.batch.events.iter().enumerate().map(move |(index, event)| Step {
            before: &self.steps[index],
            event,
            after: self.steps.get(index + 1).unwrap_or(self.after),
            is_planned: asked <= index,
        })
    }

    /// The node whose agent asked for the batch, if an agent did.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.batch.actor.as_str().strip_prefix("agent/")
    }
}

/// One promise.
pub trait Checker {
    /// Its name, in one word with dashes: `one-live-pod`.
    fn name(&self) -> &'static str;

    /// How often it had something to judge.
    fn judged_count(&self) -> u64;

    /// Something happened; `scene` is how things stood just before, except that the log has a batch already when a
    /// server is said to have applied it.
    ///
    /// # Errors
    /// The promise is broken.
    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let _ = (scene, fact);
        Ok(())
    }

    /// The log grew: called once for each batch, when the first server has applied it, before the fact that says so.
    /// `scene` is how things stood just before.
    ///
    /// # Errors
    /// The promise is broken.
    fn on_committed(&mut self, scene: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        let _ = (scene, committed);
        Ok(())
    }
}

/// The set that a pod's name belongs to.
fn set_of(pod_key: &Key, pod: &Pod) -> Key {
    Key { namespace: pod_key.namespace.clone(), name: pod.set.clone() }
}

/// The set that owns a pod, if one does.
fn owner<'a>(state: &'a State, pod_key: &Key, pod: &Pod) -> Option<(Key, &'a Arc<Set>)> {
    let key = set_of(pod_key, pod);
    let set = state.sets.get(&key).filter(|set| pod.owner == Some(set.meta.uid))?;
    Some((key, set))
}

/// Whether a pod counts: ready for as long as its set asks, and here to stay.
fn is_available(pod: &Pod) -> bool {
    pod.is_available && pod.is_ready() && pod.deletion.is_none()
}

/// The pod that a set has at an ordinal, if it is its own.
fn member<'a>(state: &'a State, key: &Key, set: &Set, ordinal: domain::id::Ordinal) -> Option<&'a Arc<Pod>> {
    state.pods.get(&key.pod(ordinal)).filter(|pod| pod.owner == Some(set.meta.uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_checker_has_a_name_of_its_own_and_a_row_in_the_documents() {
        let table = include_str!("../../../../docs/checkers.md");
        let names: BTreeSet<_> = all().iter().map(|checker| checker.name()).collect();
        assert_eq!(names.len(), all().len());
        for name in names.iter().chain(&[crate::judge::ONE_HISTORY]) {
            assert!(table.contains(&format!("| `{name}` |")), "docs/checkers.md has no row of {name}");
        }
        let row_count = table.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(row_count, names.len() + 1, "docs/checkers.md has rows of checkers that are not there");
    }
}
