//! The leader's draft: the committed state plus its own batches in flight. Decides a request, then runs the planners
//! to a fixpoint, so that everything that follows from one command is one batch.

use crate::command::{Rejection, Request};
use crate::decide::decide;
use crate::event::{Batch, Event};
use crate::id::{ClassName, Key, Name, Revision, VolumeName};
use crate::object::{Phase, Pod};
use crate::plan;
use crate::spec::PodManagement;
use crate::state::State;
use mutants::{Mutant, is_on};
use std::collections::BTreeSet;

/// How often the planners may go round for one command before the rest waits for the next; a guard against a
/// planner that undoes its own work, never reached otherwise.
const ROUNDS_MAX: usize = 100_000;

/// The state as it will be once everything in flight is committed.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    state: State,
    /// Of the batch that is being decided. Kept for the next one, so that each batch has no more room than it needs.
    events: Vec<Event>,
    pub(crate) dirty: Dirty,
}

/// What a request led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These events.
    Committed(Batch),
    /// Nothing: it is so already, as of this revision.
    Unchanged(Revision),
    /// Nothing: the same request was applied before, and led to this revision.
    Repeat(Revision),
}

/// What a planner has to look at again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) sets: BTreeSet<Key>,
    pub(crate) pods: BTreeSet<Key>,
    pub(crate) claims: BTreeSet<Key>,
}

impl Draft {
    /// A draft without anything in flight.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self { state, ..Self::default() }
    }

    /// Goes on from this very state, made elsewhere: the two share what they are made of until one of them is changed.
    pub fn share(&mut self, same: State) {
        assert_eq!(self.state.revision, same.revision, "a draft goes on where it was");
        self.state = same;
    }

    /// The state as it will be.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Decides a request and all that follows from it. The batch is already part of the draft.
    ///
    /// # Errors
    /// The fact that is missing.
    pub fn submit(&mut self, request: &Request, at_ms: u64) -> Result<Outcome, Rejection> {
        if let Some(revision) = request.id.as_ref().and_then(|id| self.state.requests.get(id))
            && !is_on(Mutant::RequestAppliedTwice)
        {
            return Ok(Outcome::Repeat(revision));
        }
        let base = self.state.revision;
        let events = decide(&self.state, request, at_ms)?;
        self.state.at_ms = self.state.at_ms.max(at_ms);
        for event in events {
            self.record(event);
        }
        let asked = self.events.len();
        if request.command == crate::Command::PassTime {
            self.dirty.pods.extend(self.state.ripening().cloned());
        }
        self.settle();
        if self.events.is_empty() {
            return Ok(Outcome::Unchanged(base));
        }
        if let Some(id) = &request.id {
            self.state.remember(id);
        }
        let planned = u32::try_from(self.events.len() - asked).unwrap_or(u32::MAX);
        Ok(Outcome::Committed(Batch {
            base,
            at_ms,
            actor: request.actor.clone(),
            request: request.id.clone(),
            events: self.events.drain(..).collect(),
            planned,
        }))
    }

    /// Applies an event, and marks what may follow from it.
    pub(crate) fn record(&mut self, event: Event) {
        self.dirty.mark_before(&self.state, &event);
        self.state.apply(&event);
        self.dirty.mark_after(&self.state, &event);
        self.events.push(event);
    }

    /// Runs the planners until nothing more follows.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if let Some(key) = self.dirty.claims.pop_first() {
                plan::claim::settle(self, &key);
            } else if let Some(key) = self.dirty.sets.pop_first() {
                plan::set::settle(self, &key);
            } else if let Some(key) = self.dirty.pods.pop_first() {
                plan::pod::settle(self, &key);
            } else {
                return;
            }
        }
    }
}

impl Dirty {
    /// Marks by what is about to vanish.
    fn mark_before(&mut self, state: &State, event: &Event) {
        if let Event::PodRemoved { pod, .. } | Event::PodEnded { pod, .. } = event
            && let Some(record) = state.pods.get(pod)
        {
            self.sets.insert(Key { namespace: pod.namespace.clone(), name: record.set.clone() });
            self.claims.extend(record.claims.iter().map(|c| c.claim.clone()));
            self.pods.extend(state.unplaced().cloned());
        }
    }

    fn mark_after(&mut self, state: &State, event: &Event) {
        let (kind, key) = event.object();
        match kind {
            "StatefulSet" => {
                // How long its pods must be ready may have changed.
                if let Event::SetUpdated { .. } = event {
                    self.pods.extend(state.members(&key).map(|(pod, _)| pod.clone()));
                }
                self.sets.insert(key);
            }
            "Pod" => {
                if let Some(pod) = state.pods.get(&key) {
                    let set = Key { namespace: key.namespace.clone(), name: pod.set.clone() };
                    if concerns_set(state, &set, pod, event) {
                        self.sets.insert(set);
                    }
                    self.pods.insert(key);
                }
            }
            "PersistentVolumeClaim" => {
                self.pods.extend(state.users(&key).map(|(pod, _)| pod.clone()));
                // A set may wait for a claim to vanish before it makes the pod anew.
                if let Event::ClaimRemoved { .. } = event {
                    self.sets.extend(state.sets.keys().filter(|set| set.namespace == key.namespace).cloned());
                }
                self.claims.insert(key);
            }
            "PersistentVolume" => {
                if let Event::VolumeCreated { spec, .. } = event {
                    match &spec.claim {
                        Some(reserved) => {
                            self.claims.insert(reserved.clone());
                        }
                        None => self.claims.extend(state.unbound_claims().cloned()),
                    }
                }
                if let Event::AttachmentReleased { .. } = event {
                    self.pods.extend(state.unplaced().cloned());
                }
            }
            "StorageClass" => self.claims.extend(state.unbound_claims().cloned()),
            "Node" => self.pods.extend(state.unplaced().cloned()),
            _ => {}
        }
    }
}

/// Whether a pod's set may have something to do now. Planners of large sets look at all of their pods, so what cannot
/// matter to them must not wake them.
fn concerns_set(state: &State, set: &Key, pod: &Pod, event: &Event) -> bool {
    match event {
        // Sets never look at nodes.
        Event::PodBound { .. } | Event::PodUnplaced { .. } => false,
        // A node that is lost has pods of many sets, and of a thousand nodes all may be: that must not cost the sum of all
        // their sets for each.
        Event::PodReported { .. }
        | Event::PodBecameAvailable { .. }
        | Event::PodBecameUnavailable { .. }
        | Event::PodHeld { .. }
        | Event::PodResumed { .. } => {
            let Some(record) = state.sets.get(set) else { return true };
            // Nobody waits for a pod of a parallel set that is not being rolled out; one that has ended is replaced.
            let is_waited_for = record.spec.policy == PodManagement::OrderedReady
                || record.current_revision != record.update_revision
                || !state.are_all_at(set, &record.update_revision);
            is_waited_for || matches!(pod.status.phase, Phase::Failed | Phase::Succeeded)
        }
        _ => true,
    }
}

/// Makes names usable in a sentence: the namespace only where it says something.
pub(crate) fn spoken(key: &Key) -> String {
    if key.namespace.as_str() == "default" { key.name.to_string() } else { key.to_string() }
}

/// The class that a claim asks for, if it exists.
pub(crate) fn class_of<'a>(
    state: &'a State,
    class: Option<&ClassName>,
) -> Option<(&'a ClassName, &'a crate::object::Class)> {
    match class {
        Some(name) => state.classes.get_key_value(name).map(|(name, class)| (name, &**class)),
        None => state.classes.iter().find(|(_, class)| class.spec.is_default).map(|(name, class)| (name, &**class)),
    }
}

/// The class that a claim of this wish gets: its own, or the default one if there is any.
pub(crate) fn class_or_default(state: &State, class: Option<&ClassName>) -> Option<ClassName> {
    class.cloned().or_else(|| class_of(state, None).map(|(name, _)| name.clone()))
}

/// The name of a volume that is provisioned for a claim.
pub(crate) fn volume_name(cluster: &Name, claim: crate::id::Uid) -> VolumeName {
    let short: String = cluster.as_str().chars().take(8).collect();
    format!("pvc-{short}-{claim}").into()
}
