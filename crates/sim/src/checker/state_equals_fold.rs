//! Two promises about servers: what each shows is the fold of the log at that revision, and never goes back
//! (`state-equals-fold`, architecture 3); and each applies every batch once and in order (`gapless-revisions`).
//!
//! Comparing whole states is dear, so most are compared by their outlines and only a sample by all they have: every
//! state that came from a disk or a snapshot, one in [`SAMPLE_EVERY`] of those that are shown, and the last ones.

use super::Checker;
use crate::history::{Fact, What};
use crate::scene::Scene;
use domain::State;
use domain::id::Revision;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One state in so many is compared as a whole.
const SAMPLE_EVERY: u64 = 64;

/// What a server shows is what the log says.
#[derive(Debug, Default)]
pub struct StateEqualsFold {
    judged_count: u64,
    /// What each server has shown last since it started.
    shown: BTreeMap<u64, Arc<State>>,
}

/// A server misses nothing.
#[derive(Debug, Default)]
pub struct GaplessRevisions {
    judged_count: u64,
}

impl Checker for StateEqualsFold {
    fn name(&self) -> &'static str {
        "state-equals-fold"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::ServerStarted { server, state } => {
                self.shown.remove(server);
                self.judge(scene, &format!("server {server} started with a state"), state, true)
            }
            What::Restored { server, state } => {
                let whose = format!("server {server} took over a state");
                self.shown.insert(*server, Arc::clone(state));
                self.judge(scene, &whose, state, true)
            }
            What::Shown { server, state } => {
                let is_sample = self.judged_count.is_multiple_of(SAMPLE_EVERY);
                self.judge(scene, &format!("server {server} shows a state"), state, is_sample)?;
                match self.shown.insert(*server, Arc::clone(state)) {
                    Some(former) if state.revision < former.revision => {
                        Err(format!("server {server} shows revision {} after {}", state.revision, former.revision))
                    }
                    Some(_) | None => Ok(()),
                }
            }
            What::ServerStopped { server } => {
                self.shown.remove(server);
                Ok(())
            }
            What::Calm | What::Rest => {
                let shown: Vec<_> = self.shown.iter().map(|(server, state)| (*server, Arc::clone(state))).collect();
                shown.into_iter().try_for_each(|(server, state)| {
                    self.judge(scene, &format!("server {server} shows a state"), &state, true)
                })
            }
            _ => Ok(()),
        }
    }
}

impl StateEqualsFold {
    fn judge(&mut self, scene: &Scene, whose: &str, state: &State, as_a_whole: bool) -> Result<(), String> {
        self.judged_count += 1;
        judge_state(scene, state, as_a_whole).map_err(|why| format!("{whose} {why}"))
    }
}

/// Compares a state with the log's at its revision: by its outline, or as a whole.
pub(super) fn judge_state(scene: &Scene, state: &State, as_a_whole: bool) -> Result<(), String> {
    let revision = state.revision;
    if revision < scene.log.first_revision() {
        return Ok(());
    }
    let Some(folded) = scene.log.state_at(revision) else {
        let known = scene.log.revision();
        return Err(format!("of revision {revision}, at which no batch of the log ends (it has {known})"));
    };
    if outline(state) != outline(&folded) {
        return Err(format!("of revision {revision} that has {:?} instead of {:?}", outline(state), outline(&folded)));
    }
    if as_a_whole && api::codec::state_digest(state) != api::codec::state_digest(&folded) {
        return Err(format!("of revision {revision} that differs from the fold of the log"));
    }
    Ok(())
}

/// What can be told at a glance: the clock, and how many there are of everything.
fn outline(state: &State) -> (u64, [usize; 10]) {
    let counts = [
        state.sets.len(),
        state.pods.len(),
        state.claims.len(),
        state.volumes.len(),
        state.classes.len(),
        state.services.len(),
        state.budgets.len(),
        state.nodes.len(),
        state.node_incarnations.len(),
        state.requests.len(),
    ];
    (state.at_ms, counts)
}

impl Checker for GaplessRevisions {
    fn name(&self) -> &'static str {
        "gapless-revisions"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        let What::Applied { server, batch, revision } = &fact.what else { return Ok(()) };
        self.judged_count += 1;
        let known = scene.servers.get(server).map(|server| server.revision);
        if known.is_some_and(|known| known != batch.base) {
            return Err(format!(
                "server {server} was at revision {} and applied a batch that follows {}",
                known.unwrap_or_default(),
                batch.base
            ));
        }
        if *revision != Revision(batch.base.0 + batch.events.len() as u64) {
            return Err(format!(
                "server {server} is at revision {revision} after {} events from {} on",
                batch.events.len(),
                batch.base
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::Story;
    use domain::{Batch, Event};

    fn story(checker: impl Checker + 'static) -> Story {
        let mut story = Story::judged_by(checker);
        story.fact(What::ServerStarted { server: 1, state: Arc::default() });
        story.has_ordered_set("web", 2, &["n1"]);
        story
    }

    #[test]
    fn servers_show_the_fold_of_the_log() {
        let mut story = story(StateEqualsFold::default());
        let state = Arc::new(story.state().clone());
        story.fact(What::Shown { server: 1, state: Arc::clone(&state) });
        story.fact(What::ServerStopped { server: 1 });
        story.fact(What::ServerStarted { server: 1, state: Arc::default() });
        story.fact(What::Restored { server: 2, state });
        story.fact(What::Calm);
        story.holds();
    }

    #[test]
    fn another_state_is_noticed_at_once_or_at_rest() {
        let mut lost = story(StateEqualsFold::default());
        let mut state = lost.state().clone();
        state.pods = Default::default();
        lost.fact(What::Shown { server: 1, state: Arc::new(state) });
        lost.is_broken("instead of");

        let mut subtle = story(StateEqualsFold::default());
        let mut state = subtle.state().clone();
        state.cluster = "another".into();
        subtle.fact(What::Shown { server: 1, state: Arc::new(state) });
        subtle.holds();
        subtle.fact(What::Calm);
        subtle.is_broken("differs from the fold");

        let mut invented = story(StateEqualsFold::default());
        let mut state = invented.state().clone();
        state.revision = Revision(state.revision.0 + 1);
        invented.fact(What::Restored { server: 1, state: Arc::new(state) });
        invented.is_broken("no batch of the log ends");
    }

    #[test]
    fn a_server_does_not_go_back() {
        let mut story = story(StateEqualsFold::default());
        let state = Arc::new(story.state().clone());
        story.fact(What::Shown { server: 1, state });
        story.fact(What::Shown { server: 1, state: Arc::default() });
        story.is_broken("shows revision 0 after");
    }

    #[test]
    fn a_server_misses_nothing() {
        let batches: Vec<_> = (0..3)
            .map(|base| Batch {
                base: Revision(base),
                events: vec![Event::ClusterFormed { cluster: "a".into() }],
                ..Batch::default()
            })
            .collect();
        let mut story = Story::judged_by(GaplessRevisions::default());
        story.fact(What::ServerStarted { server: 2, state: Arc::default() });
        for batch in &batches {
            story.applied(batch.clone());
        }
        story.holds();
        let batch = Arc::new(batches[1].clone());
        story.fact(What::Applied { server: 2, batch, revision: Revision(2) });
        story.is_broken("follows 1");
    }
}
