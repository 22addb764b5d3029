//! Judges a history, fact by fact: keeps the scene and the log, and asks every checker.
//!
//! The log has one check of its own, `one-history`, on which all others stand: the first server that applies a batch
//! makes it history, and whoever applies another one at that place has lost or made up something (semantics D53).

use crate::checker::{Checker, Committed, Violation};
use crate::history::{Fact, What};
use crate::log::Logged;
use crate::scene::Scene;
use domain::id::Revision;
use domain::{Batch, State};
use std::fmt;
use std::sync::Arc;

/// The name of the judge's own check.
pub const ONE_HISTORY: &str = "one-history";

/// Everybody who judges a history, and what they know of it.
pub struct Judge {
    checkers: Vec<Box<dyn Checker>>,
    scene: Scene,
    /// Applications that were compared with the log.
    compared_count: u64,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("counts", &self.counts()).field("revision", &self.scene.log.revision()).finish()
    }
}

impl Judge {
    /// Judges a history that begins with nothing.
    #[must_use]
    pub fn new(checkers: Vec<Box<dyn Checker>>) -> Self {
        Self::since(State::default(), checkers)
    }

    /// Judges a history whose log begins at a state: what came before is not known.
    #[must_use]
    pub fn since(state: State, checkers: Vec<Box<dyn Checker>>) -> Self {
        Self { checkers, scene: Scene::new(state), compared_count: 0 }
    }

    /// What is so now.
    #[must_use]
    pub const fn scene(&self) -> &Scene {
        &self.scene
    }

    /// How often each checker had something to judge, in the order in which they are asked.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let own = std::iter::once((ONE_HISTORY, self.compared_count));
        own.chain(self.checkers.iter().map(|checker| (checker.name(), checker.judged_count()))).collect()
    }

    /// Something happened.
    ///
    /// # Errors
    /// The first promise that it breaks.
    pub fn see(&mut self, fact: &Fact) -> Result<(), Violation> {
        mutants::without(|| self.judge(fact))
    }

    fn judge(&mut self, fact: &Fact) -> Result<(), Violation> {
        if let What::Applied { server, batch, revision } = &fact.what {
            self.on_applied(fact.at_ms, *server, batch, *revision)?;
        }
        for checker in &mut self.checkers {
            let verdict = checker.on_fact(&self.scene, fact);
            verdict.map_err(|message| Violation { checker: checker.name(), at_ms: fact.at_ms, message })?;
        }
        self.scene.note(fact);
        Ok(())
    }

    fn on_applied(&mut self, at_ms: u64, server: u64, batch: &Arc<Batch>, revision: Revision) -> Result<(), Violation> {
        self.compared_count += 1;
        let base = batch.base;
        let broken = |message: String| Err(Violation { checker: ONE_HISTORY, at_ms, message });
        if base == self.scene.log.revision() {
            return self.on_committed(at_ms, batch);
        }
        if self.scene.log.revision() < base {
            let known = self.scene.log.revision();
            return broken(format!(
                "server {server} applied a batch at revision {base}, and no server ever applied what lies between that and {known}"
            ));
        }
        if base < self.scene.log.first_revision() {
            return Ok(());
        }
        match self.scene.log.batch_at(base) {
            Some(logged)
                if logged.revision == revision && (Arc::ptr_eq(&logged.batch, batch) || logged.batch == *batch) =>
            {
                Ok(())
            }
            Some(logged) => broken(format!(
                "server {server} applied at revision {base} another batch than was applied there first: {batch:?} instead of {:?}",
                logged.batch
            )),
            None => broken(format!(
                "server {server} applied a batch at revision {base}, in the middle of one that was applied before"
            )),
        }
    }

    fn on_committed(&mut self, at_ms: u64, batch: &Arc<Batch>) -> Result<(), Violation> {
        let mut steps = Vec::with_capacity(batch.events.len());
        let before = self.scene.log.state().clone();
        let mut state = before.clone();
        state.at_ms = state.at_ms.max(batch.at_ms);
        for event in &batch.events {
            steps.push(state.clone());
            state.apply(event);
        }
        let mut after = before.clone();
        after.apply_batch(batch);
        let committed = Committed { at_ms, before: &before, batch, after: &after, steps: &steps };
        for checker in &mut self.checkers {
            let verdict = checker.on_committed(&self.scene, &committed);
            verdict.map_err(|message| Violation { checker: checker.name(), at_ms, message })?;
        }
        let logged = Logged { at_ms, batch: Arc::clone(batch), revision: after.revision };
        self.scene.log.push(logged, after);
        self.scene.note_committed(batch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Event;

    fn batch(base: u64, cluster: &str) -> Arc<Batch> {
        let events = vec![Event::ClusterFormed { cluster: cluster.into() }];
        Arc::new(Batch { base: Revision(base), events, ..Batch::default() })
    }

    fn applied(server: u64, batch: Arc<Batch>) -> Fact {
        let revision = Revision(batch.base.0 + batch.events.len() as u64);
        Fact { at_ms: 0, what: What::Applied { server, batch, revision } }
    }

    #[test]
    fn the_first_server_that_applies_a_batch_makes_it_history() {
        let mut judge = Judge::new(Vec::new());
        for server in [1, 2, 3] {
            judge.see(&applied(server, batch(0, "a"))).unwrap();
            judge.see(&applied(server, batch(1, "b"))).unwrap();
        }
        assert_eq!(judge.scene().log.revision(), Revision(2));
        let violation = judge.see(&applied(2, batch(1, "c"))).unwrap_err();
        assert_eq!(violation.checker, ONE_HISTORY);
        assert!(violation.message.contains("another batch"), "{violation}");
    }

    #[test]
    fn nobody_can_apply_what_lies_beyond_a_hole() {
        let mut judge = Judge::new(Vec::new());
        judge.see(&applied(1, batch(0, "a"))).unwrap();
        let violation = judge.see(&applied(2, batch(2, "c"))).unwrap_err();
        assert!(violation.message.contains("what lies between"), "{violation}");
    }
}
