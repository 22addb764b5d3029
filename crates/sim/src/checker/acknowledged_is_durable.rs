//! `acknowledged-is-durable` (semantics D53): what a client was told is done is in the log, as it was told, and stays:
//! every server that runs at the end has it.

use super::{Checker, Committed};
use crate::history::{Answer, Fact, Question, What};
use crate::scene::Scene;
use domain::id::{RequestId, Revision};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub struct AcknowledgedIsDurable {
    judged_count: u64,
    /// The request of each operation that is still to be answered.
    asked: BTreeMap<(u64, u64), Option<RequestId>>,
    /// Where the log has each request.
    logged: BTreeMap<RequestId, Revision>,
    /// The latest revision that anybody was told.
    acknowledged: Revision,
}

impl Checker for AcknowledgedIsDurable {
    fn name(&self) -> &'static str {
        "acknowledged-is-durable"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        if let Some(id) = &committed.batch.request {
            self.logged.insert(id.clone(), committed.after.revision);
        }
        Ok(())
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        match &fact.what {
            What::Asked { client, operation, question } => {
                let id = match question {
                    Question::Change(request) => request.id.clone(),
                    Question::Read { .. } => None,
                };
                self.asked.insert((*client, *operation), id);
                Ok(())
            }
            What::Answered { client, operation, answer } => {
                let id = self.asked.remove(&(*client, *operation)).flatten();
                match answer {
                    Answer::Done { revision, changed } => self.judge_answer(scene, id.as_ref(), *revision, *changed),
                    Answer::Rejected { .. } | Answer::State(_) | Answer::Unknown => Ok(()),
                }
            }
            What::Rest => self.judge_rest(scene),
            _ => Ok(()),
        }
    }
}

impl AcknowledgedIsDurable {
    fn judge_answer(
        &mut self,
        scene: &Scene,
        id: Option<&RequestId>,
        revision: Revision,
        changed: bool,
    ) -> Result<(), String> {
        self.judged_count += 1;
        if scene.log.revision() < revision {
            let known = scene.log.revision();
            return Err(format!("a client was told of revision {revision}, and the log has {known}"));
        }
        self.acknowledged = revision.max(self.acknowledged);
        let (true, Some(id)) = (changed, id) else { return Ok(()) };
        match self.logged.get(id) {
            Some(found) if *found == revision => Ok(()),
            Some(found) => {
                Err(format!("request {id} was acknowledged at revision {revision}, and the log has it at {found}"))
            }
            None => Err(format!("request {id} was acknowledged at revision {revision}, and the log does not have it")),
        }
    }

    fn judge_rest(&mut self, scene: &Scene) -> Result<(), String> {
        let mut servers = scene.servers.iter().filter(|(_, server)| server.is_up);
        match servers.find(|(_, server)| server.revision < self.acknowledged) {
            Some((number, server)) => Err(format!(
                "server {number} rests at revision {}, and a client was told of {}",
                server.revision, self.acknowledged
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, change, key};
    use domain::Event;

    fn scaled(replicas: u32) -> Vec<Event> {
        vec![Event::SetScaled { set: key("web"), replicas }]
    }

    #[test]
    fn what_is_acknowledged_is_in_the_log() {
        let mut story = Story::judged_by(AcknowledgedIsDurable::default());
        let operation = story.asks(1, change("a"));
        story.commits_request("a", scaled(1));
        let revision = story.state().revision;
        story.hears(1, operation, Answer::Done { revision, changed: true });
        story.fact(What::Rest);
        story.holds();
    }

    #[test]
    fn an_answer_before_the_log_has_it_is_noticed() {
        let mut story = Story::judged_by(AcknowledgedIsDurable::default());
        let operation = story.asks(1, change("a"));
        story.hears(1, operation, Answer::Done { revision: Revision(1), changed: true });
        story.is_broken("the log has 0");

        let mut other = Story::judged_by(AcknowledgedIsDurable::default());
        let operation = other.asks(1, change("a"));
        other.commits_request("b", scaled(1));
        other.hears(1, operation, Answer::Done { revision: Revision(1), changed: true });
        other.is_broken("does not have it");
    }

    #[test]
    fn a_server_that_forgot_is_noticed_at_rest() {
        let mut story = Story::judged_by(AcknowledgedIsDurable::default());
        let operation = story.asks(1, change("a"));
        story.commits_request("a", scaled(1));
        story.hears(1, operation, Answer::Done { revision: Revision(1), changed: true });
        story.fact(What::ServerStopped { server: 1 });
        story.fact(What::ServerStarted { server: 1, state: std::sync::Arc::default() });
        story.fact(What::Rest);
        story.is_broken("rests at revision 0");
    }
}
