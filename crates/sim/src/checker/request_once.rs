//! `request-once` (semantics D54): a request is applied once, however often it is sent, as long as it is remembered, and
//! all answers after that agree with it.
//!
//! What was refused or not needed may be applied afterwards, once: an earlier attempt may still have been on its way when
//! a later one was answered, and the answer was true when it was given.

use super::{Checker, Committed};
use crate::history::{Answer, Fact, Question, What};
use crate::scene::Scene;
use domain::REQUESTS_MAX;
use domain::id::{RequestId, Revision};
use std::collections::BTreeMap;

/// An answer may be so late.
const ANSWER_MS_MAX: u64 = 15_000;

/// See the module.
#[derive(Debug, Default)]
pub struct RequestOnce {
    judged_count: u64,
    asked: BTreeMap<(u64, u64), RequestId>,
    /// How many requests the log has.
    count: u64,
    /// Where the log has each, and as the how-manyth request.
    logged: BTreeMap<RequestId, (Revision, u64)>,
    /// When the log got each.
    logged_at_ms: BTreeMap<RequestId, u64>,
}

impl Checker for RequestOnce {
    fn name(&self) -> &'static str {
        "request-once"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        let Some(id) = &committed.batch.request else { return Ok(()) };
        self.judged_count += 1;
        self.count += 1;
        self.logged_at_ms.entry(id.clone()).or_insert(committed.at_ms);
        let revision = committed.after.revision;
        if let Some((former, number)) = self.logged.insert(id.clone(), (revision, self.count))
            && self.count <= number + REQUESTS_MAX as u64
        {
            return Err(format!("request {id} was applied at revision {former}, and again at {revision}"));
        }
        Ok(())
    }

    fn on_fact(&mut self, _: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::Asked { client, operation, question: Question::Change(request) } => {
                if let Some(id) = &request.id {
                    self.asked.insert((*client, *operation), id.clone());
                }
                Ok(())
            }
            What::Answered { client, operation, answer } => match self.asked.remove(&(*client, *operation)) {
                Some(id) => self.judge_answer(fact.at_ms, &id, answer),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl RequestOnce {
    fn judge_answer(&mut self, at_ms: u64, id: &RequestId, answer: &Answer) -> Result<(), String> {
        self.judged_count += 1;
        let logged = self.logged.get(id).map(|(revision, _)| *revision);
        let said = match answer {
            Answer::Unknown | Answer::State(_) => return Ok(()),
            Answer::Done { revision, changed: true } if logged == Some(*revision) => return Ok(()),
            Answer::Done { revision, changed: true } => {
                return Err(format!(
                    "request {id} was acknowledged at revision {revision}, and the log has it at {logged:?}"
                ));
            }
            // Said before it was applied, and heard after that.
            Answer::Done { revision, changed: false } if logged.is_some_and(|logged| *revision < logged) => {
                return Ok(());
            }
            Answer::Rejected { .. }
                if self.logged_at_ms.get(id).is_some_and(|logged| at_ms < logged + ANSWER_MS_MAX) =>
            {
                return Ok(());
            }
            Answer::Done { revision, changed: false } => format!("that revision {revision} needs no change"),
            Answer::Rejected { rejection } => format!("a refusal ({rejection})"),
        };
        match logged {
            Some(revision) => Err(format!("request {id} was applied at revision {revision}, and answered with {said}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, change, key};
    use domain::Event;

    fn scaled() -> Vec<Event> {
        vec![Event::SetScaled { set: key("web"), replicas: 1 }]
    }

    #[test]
    fn a_retry_is_told_of_the_first_application() {
        let mut story = Story::judged_by(RequestOnce::default());
        story.commits_request("a", scaled());
        for client in [1, 2] {
            let operation = story.asks(client, change("a"));
            story.hears(client, operation, Answer::Done { revision: Revision(1), changed: true });
        }
        story.holds();
    }

    #[test]
    fn a_second_application_is_noticed() {
        let mut story = Story::judged_by(RequestOnce::default());
        story.commits_request("a", scaled());
        story.commits_request("a", scaled());
        story.is_broken("and again at 2");
    }

    #[test]
    fn what_is_forgotten_in_time_may_be_applied_again() {
        let mut story = Story::judged_by(RequestOnce::default());
        story.commits_request("a", scaled());
        for number in 0..REQUESTS_MAX {
            story.commits_request(&format!("other-{number}"), scaled());
        }
        story.commits_request("a", scaled());
        story.holds();
    }

    #[test]
    fn answers_that_differ_are_noticed() {
        let mut story = Story::judged_by(RequestOnce::default());
        story.commits_request("a", scaled());
        let operation = story.asks(1, change("a"));
        story.hears(1, operation, Answer::Done { revision: Revision(1), changed: false });
        story.is_broken("needs no change");

        let mut refused = Story::judged_by(RequestOnce::default());
        refused.commits_request("a", scaled());
        refused.waits(ANSWER_MS_MAX);
        refused.asks(1, change("a"));
        refused.hears(1, 1, Answer::Rejected { rejection: rejection() });
        refused.is_broken("answered with a refusal");
    }

    fn rejection() -> domain::Rejection {
        domain::Rejection::NotFound { kind: "statefulset", name: "web".to_owned() }
    }

    #[test]
    fn what_was_said_before_may_be_heard_after() {
        let mut story = Story::judged_by(RequestOnce::default());
        story.has_ordered_set("web", 1, &["n1"]);
        let (refused, unneeded, before) =
            (story.asks(1, change("a")), story.asks(1, change("b")), story.state().revision);
        story.commits_request("a", scaled());
        story.commits_request("b", scaled());
        story.hears(1, refused, Answer::Rejected { rejection: rejection() });
        story.hears(1, unneeded, Answer::Done { revision: before, changed: false });
        story.holds();
    }

    #[test]
    fn an_earlier_attempt_may_arrive_after_a_later_one_was_refused() {
        let mut story = Story::judged_by(RequestOnce::default());
        let operation = story.asks(1, change("a"));
        story.hears(1, operation, Answer::Rejected { rejection: rejection() });
        story.commits_request("a", scaled());
        story.holds();
        story.commits_request("a", scaled());
        story.is_broken("and again at 2");
    }
}
