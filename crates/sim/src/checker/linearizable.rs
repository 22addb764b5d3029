//! `linearizable` (semantics D52): every answer is as of a moment between its question and itself.
//!
//! All answers carry their revision, and revisions are the one order of the whole cluster; so comparing revisions in
//! real time is an exact judgement: what is asked after an answer was heard must see what that answer saw. `registers`
//! judges the same once more, without looking at revisions.

use super::state_equals_fold::judge_state;
use super::{Checker, Committed};
use crate::history::{Answer, Fact, Question, What};
use crate::scene::Scene;
use domain::State;
use domain::command::{Command, Request};
use domain::id::{RequestId, Revision};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One read in so many is compared with the log as a whole.
const SAMPLE_EVERY: u64 = 16;

/// See the module.
#[derive(Debug, Default)]
pub struct Linearizable {
    judged_count: u64,
    open: BTreeMap<(u64, u64), Open>,
    /// What requests had to see when they were asked for the first time.
    floors: BTreeMap<RequestId, Revision>,
    /// What requests demanded of the state that they change.
    demands: BTreeMap<RequestId, Arc<Request>>,
    /// The latest revision that any answer has shown, other than to those who take an old one.
    seen: Revision,
}

/// An operation without an answer.
#[derive(Debug)]
struct Open {
    floor: Revision,
    question: Question,
}

impl Checker for Linearizable {
    fn name(&self) -> &'static str {
        "linearizable"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::Asked { client, operation, question } => {
                let mut floor = self.seen;
                if let Question::Change(request) = question
                    && let Some(id) = &request.id
                {
                    floor = *self.floors.entry(id.clone()).or_insert(floor);
                    self.demands.insert(id.clone(), Arc::clone(request));
                }
                self.open.entry((*client, *operation)).or_insert(Open { floor, question: question.clone() });
                Ok(())
            }
            What::Answered { client, operation, answer } => {
                let Some(open) = self.open.remove(&(*client, *operation)) else { return Ok(()) };
                self.judge(scene, &open, answer)
                    .map_err(|why| format!("operation {operation} of client {client} {why}"))
            }
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        let Some(request) = committed.batch.request.as_ref().and_then(|id| self.demands.get(id)) else { return Ok(()) };
        judge_demand(committed.before, request)
    }
}

impl Linearizable {
    fn judge(&mut self, scene: &Scene, open: &Open, answer: &Answer) -> Result<(), String> {
        let (floor, known) = (open.floor, scene.log.revision());
        let (revision, is_change) = match answer {
            Answer::Done { revision, changed } => (*revision, *changed),
            Answer::State(state) => (state.revision, false),
            Answer::Rejected { .. } | Answer::Unknown => return Ok(()),
        };
        self.judged_count += 1;
        if known < revision {
            return Err(format!("was told of revision {revision}, and the log has {known}"));
        }
        if let Answer::State(state) = answer {
            judge_state(scene, state, self.judged_count.is_multiple_of(SAMPLE_EVERY))
                .map_err(|why| format!("read a state {why}"))?;
        }
        if matches!(open.question, Question::Read { stale: true }) {
            return Ok(());
        }
        self.seen = revision.max(self.seen);
        if revision < floor || (is_change && revision == floor) {
            let verb = if is_change { "made" } else { "saw" };
            return Err(format!("{verb} revision {revision}, and {floor} had been seen before it was asked"));
        }
        Ok(())
    }
}

/// A change that was to happen only to an object as it was read happened to that (semantics D52).
fn judge_demand(before: &State, request: &Request) -> Result<(), String> {
    if let Command::ScaleSet { set, current: Some(current), .. } = &request.command
        && let Some(record) = before.sets.get(set)
        && record.spec.replicas != *current
    {
        return Err(format!("set {set} was scaled as if it had {current} replicas, and had {}", record.spec.replicas));
    }
    let (
        Some(expected),
        Command::ApplySet { set, .. } | Command::ScaleSet { set, .. } | Command::DeleteSet { set, .. },
    ) = (request.expected, &request.command)
    else {
        return Ok(());
    };
    let actual = before.sets.get(set).map_or(Revision(0), |record| record.meta.modified);
    if actual == expected {
        return Ok(());
    }
    Err(format!("set {set} was changed as of revision {expected}, and was last touched at {actual}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, change, key};
    use domain::Event;

    fn story() -> Story {
        let mut story = Story::judged_by(Linearizable::default());
        story.has_ordered_set("web", 1, &["n1"]);
        story
    }

    fn read(story: &mut Story, stale: bool) -> u64 {
        story.asks(1, Question::Read { stale })
    }

    fn acknowledged(story: &mut Story, id: &str) {
        let operation = story.asks(2, change(id));
        story.commits_request(id, vec![Event::SetScaled { set: key("web"), replicas: 1 }]);
        let revision = story.state().revision;
        story.hears(2, operation, Answer::Done { revision, changed: true });
    }

    #[test]
    fn reads_see_what_was_acknowledged_before_them_and_old_ones_need_not() {
        let mut story = story();
        let old = Arc::new(story.state().clone());
        let before = read(&mut story, false);
        acknowledged(&mut story, "a");
        story.hears(1, before, Answer::State(Arc::clone(&old)));
        let stale = read(&mut story, true);
        story.hears(1, stale, Answer::State(old));
        let after = read(&mut story, false);
        let new = Arc::new(story.state().clone());
        story.hears(1, after, Answer::State(new));
        story.holds();
    }

    #[test]
    fn a_read_that_misses_an_acknowledged_change_is_noticed() {
        let mut story = story();
        let old = Arc::new(story.state().clone());
        acknowledged(&mut story, "a");
        let operation = read(&mut story, false);
        story.hears(1, operation, Answer::State(old));
        story.is_broken("had been seen before it was asked");
    }

    #[test]
    fn a_read_that_misses_what_another_read_saw_is_noticed() {
        let mut story = story();
        let old = Arc::new(story.state().clone());
        story.scales("web", 2);
        let new = Arc::new(story.state().clone());
        for state in [new, old] {
            let operation = read(&mut story, false);
            story.hears(1, operation, Answer::State(state));
        }
        story.is_broken("had been seen before it was asked");
    }

    #[test]
    fn a_change_of_something_else_than_was_read_is_noticed() {
        let command = Command::ScaleSet { set: key("web"), replicas: 3, current: Some(2), force_unready: false };
        let request = Request { actor: "user".into(), id: Some("a".into()), expected: None, command };
        let mut story = story();
        story.asks(1, Question::Change(Arc::new(request)));
        story.commits_request("a", vec![Event::SetScaled { set: key("web"), replicas: 3 }]);
        story.is_broken("as if it had 2 replicas");
    }

    #[test]
    fn a_state_that_never_was_is_noticed() {
        let mut story = story();
        let operation = read(&mut story, true);
        let mut state = story.state().clone();
        state.pods = Default::default();
        story.hears(1, operation, Answer::State(Arc::new(state)));
        story.is_broken("read a state of revision");
    }
}
