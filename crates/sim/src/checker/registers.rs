//! `registers` (semantics D52): the replicas of each set, as clients wrote, compared and read them, are those of a
//! register that does one thing at a time.
//!
//! The algorithm is Wing and Gong's with Lowe's memory: let every operation happen next that may be, and never try the
//! same done operations with the same value twice. It knows nothing of revisions, so it would find what `linearizable`
//! takes for granted. A history is cut where nothing is open, so each search is short.

use super::{Checker, Committed};
use crate::history::{Answer, Fact, Question, What};
use crate::scene::Scene;
use domain::id::{Key, RequestId};
use domain::{Command, Rejection, Request};
use std::collections::{BTreeMap, BTreeSet};

/// A search has at most so many operations: one bit for each.
const OPERATIONS_MAX: usize = 128;
/// A search that has to remember more is given up: it proves nothing, and accuses nobody.
const MEMORY_MAX: usize = 100_000;

/// The replicas of a set; `None` while there is no such set.
type Value = Option<u32>;

/// See the module.
#[derive(Debug, Default)]
pub struct Registers {
    judged_count: u64,
    clock: u64,
    registers: BTreeMap<Key, Register>,
    /// Which operation of which register each open question is.
    open: BTreeMap<(u64, u64), Vec<(Key, u64)>>,
    /// Requests that the log has.
    logged: BTreeSet<RequestId>,
    /// What requests would have done that were refused, or not needed. An earlier attempt may yet arrive.
    refused: BTreeMap<RequestId, (Key, Action)>,
}

/// The history of one register since it was last cut.
#[derive(Debug)]
struct Register {
    /// What it may have been in the beginning.
    values: BTreeSet<Value>,
    operations: BTreeMap<u64, Operation>,
    /// Given up: too much happened at once.
    is_lost: bool,
}

#[derive(Clone, Debug)]
struct Operation {
    asked: u64,
    /// `None` while it may still happen, or never.
    answered: Option<u64>,
    /// Nobody will ever say whether it happened.
    is_unknown: bool,
    id: Option<RequestId>,
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// It became this; only one that `creates` may do so where nothing was.
    Write { new: u32, creates: bool },
    /// It was the first and became the second.
    Replace(u32, u32),
    /// There is no such set any more.
    Clear,
    /// It was this.
    Read(Value),
    /// Nothing is known of it, and it changed nothing.
    Nothing,
}

impl Action {
    /// What the value is afterwards, if it can happen with this one before.
    fn of(self, value: Value) -> Option<Value> {
        match self {
            Self::Write { new, creates } => (creates || value.is_some()).then_some(Some(new)),
            Self::Replace(old, new) => (value == Some(old)).then_some(Some(new)),
            Self::Clear => value.is_some().then_some(None),
            Self::Read(read) => (value == read).then_some(value),
            Self::Nothing => Some(value),
        }
    }

    /// What a request does if it is carried out.
    fn asked(request: &Request) -> Option<(Key, Self)> {
        match &request.command {
            Command::ApplySet { set, spec, .. } => {
                Some((set.clone(), Self::Write { new: spec.replicas, creates: true }))
            }
            Command::ScaleSet { set, replicas, current: Some(current), .. } => {
                Some((set.clone(), Self::Replace(*current, *replicas)))
            }
            Command::ScaleSet { set, replicas, current: None, .. } => {
                Some((set.clone(), Self::Write { new: *replicas, creates: false }))
            }
            Command::DeleteSet { set, .. } => Some((set.clone(), Self::Clear)),
            _ => None,
        }
    }

    /// What it did, by its answer; `None`: nobody knows.
    fn answered(self, key: &Key, answer: &Answer) -> Option<Self> {
        match answer {
            Answer::Unknown => None,
            Answer::Done { changed: true, .. } => Some(self),
            Answer::Done { changed: false, .. } => Some(match self {
                Self::Write { new, .. } | Self::Replace(_, new) => Self::Read(Some(new)),
                Self::Clear | Self::Read(_) | Self::Nothing => Self::Nothing,
            }),
            Answer::Rejected { rejection: Rejection::ReplicasMoved { actual, .. } } => Some(Self::Read(Some(*actual))),
            Answer::Rejected { rejection: Rejection::NotFound { kind: "statefulset", .. } } => Some(Self::Read(None)),
            Answer::Rejected { .. } => Some(Self::Nothing),
            Answer::State(state) => Some(Self::Read(state.sets.get(key).map(|set| set.spec.replicas))),
        }
    }
}

impl Checker for Registers {
    fn name(&self) -> &'static str {
        "registers"
    }

    fn judged_count(&self) -> u64 {
        self.judged_count
    }

    fn on_fact(&mut self, scene: &Scene, fact: &Fact) -> Result<(), String> {
        self.clock += 1;
        match &fact.what {
            What::Asked { client, operation, question } if !self.open.contains_key(&(*client, *operation)) => {
                self.on_asked(scene, (*client, *operation), question);
                Ok(())
            }
            What::Answered { client, operation, answer } => self.on_answered((*client, *operation), answer),
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, _: &Scene, committed: &Committed<'_>) -> Result<(), String> {
        self.clock += 1;
        let Some(id) = &committed.batch.request else { return Ok(()) };
        self.logged.insert(id.clone());
        let clock = self.clock;
        if let Some((key, action)) = self.refused.remove(id)
            && let Some(register) = self.registers.get_mut(&key)
        {
            let late = Operation { asked: clock, answered: Some(clock), is_unknown: false, id: None, action };
            register.operations.insert(clock, late);
        }
        for register in self.registers.values_mut() {
            let unknown = register.operations.values_mut().filter(|op| op.is_unknown && op.id.as_ref() == Some(id));
            unknown.for_each(|operation| operation.answered = Some(clock));
        }
        Ok(())
    }
}

impl Registers {
    fn on_asked(&mut self, scene: &Scene, at: (u64, u64), question: &Question) {
        let asked: Vec<(Key, Option<RequestId>, Action)> = match question {
            Question::Change(request) => {
                Action::asked(request).map(|(key, action)| (key, request.id.clone(), action)).into_iter().collect()
            }
            Question::Read { stale: true } => Vec::new(),
            Question::Read { stale: false } => {
                self.registers.keys().map(|key| (key.clone(), None, Action::Nothing)).collect()
            }
        };
        let clock = self.clock;
        for (key, id, action) in asked {
            let register = self.registers.entry(key.clone()).or_insert_with(|| {
                let value = scene.log.state().sets.get(&key).map(|set| set.spec.replicas);
                Register { values: BTreeSet::from([value]), operations: BTreeMap::new(), is_lost: false }
            });
            let operation = Operation { asked: clock, answered: None, is_unknown: false, id, action };
            register.operations.insert(clock, operation);
            self.open.entry(at).or_default().push((key, clock));
        }
    }

    fn on_answered(&mut self, at: (u64, u64), answer: &Answer) -> Result<(), String> {
        let clock = self.clock;
        for (key, number) in self.open.remove(&at).unwrap_or_default() {
            let Some(register) = self.registers.get_mut(&key) else { continue };
            let Some(operation) = register.operations.get_mut(&number) else { continue };
            match operation.action.answered(&key, answer) {
                Some(action) => {
                    let refused = operation.id.clone().filter(|_| action != operation.action);
                    let earlier = Operation { id: None, answered: Some(clock), ..operation.clone() };
                    (operation.action, operation.answered) = (action, Some(clock));
                    if let Some(id) = refused {
                        if self.logged.contains(&id) {
                            // An earlier attempt has arrived in the meantime.
                            register.operations.insert(clock, earlier);
                        } else {
                            self.refused.insert(id, (key.clone(), earlier.action));
                        }
                    }
                }
                None => {
                    operation.is_unknown = true;
                    let is_logged = operation.id.as_ref().is_some_and(|id| self.logged.contains(id));
                    operation.answered = is_logged.then_some(clock);
                    // A read without an answer is nothing at all.
                    if operation.id.is_none() && operation.action == Action::Nothing {
                        register.operations.remove(&number);
                    }
                }
            }
            self.judged_count += u64::from(register.cut(&key)?);
        }
        Ok(())
    }
}

impl Register {
    /// Judges what happened if nothing is open, and goes on from what the value can be now.
    fn cut(&mut self, key: &Key) -> Result<bool, String> {
        let is_open = self.operations.values().any(|op| op.answered.is_none() && !op.is_unknown);
        self.is_lost |= OPERATIONS_MAX < self.operations.len();
        if is_open || self.is_lost {
            return Ok(false);
        }
        let operations: Vec<Operation> = self.operations.values().cloned().collect();
        let Some(values) = possible(&self.values, &operations) else {
            self.is_lost = true;
            return Ok(false);
        };
        if values.is_empty() {
            return Err(format!(
                "no order explains what clients heard of the replicas of set {key}: it was one of {:?}, and then {operations:?}",
                self.values
            ));
        }
        self.values = values;
        self.operations.retain(|_, op| op.answered.is_none());
        Ok(true)
    }
}

/// Every value that the register can have after all answered operations; `None`: too many ways to try.
fn possible(values: &BTreeSet<Value>, operations: &[Operation]) -> Option<BTreeSet<Value>> {
    let all_answered: u128 =
        operations.iter().enumerate().filter(|(_, op)| op.answered.is_some()).fold(0, |set, (i, _)| set | 1 << i);
    let mut found = BTreeSet::new();
    let mut memory: BTreeSet<(u128, Value)> = values.iter().map(|value| (0, *value)).collect();
    let mut untried: Vec<(u128, Value)> = memory.iter().copied().collect();
    while let Some((done, value)) = untried.pop() {
        if done & all_answered == all_answered {
            found.insert(value);
        }
        let is_undone = |index: usize| done & (1 << index) == 0;
        let first_answer =
            operations.iter().enumerate().filter(|(i, _)| is_undone(*i)).filter_map(|(_, op)| op.answered);
        let first_answer = first_answer.min().unwrap_or(u64::MAX);
        for (index, operation) in operations.iter().enumerate() {
            if !is_undone(index) || first_answer < operation.asked {
                continue;
            }
            if let Some(next) = operation.action.of(value)
                && memory.insert((done | 1 << index, next))
            {
                untried.push((done | 1 << index, next));
            }
        }
        if MEMORY_MAX < memory.len() {
            return None;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::story::{Story, key};
    use domain::id::Revision;
    use std::sync::Arc;

    fn story() -> Story {
        let mut story = Story::judged_by(Registers::default());
        story.has_ordered_set("web", 1, &["n1"]);
        story
    }

    fn scale(story: &mut Story, client: u64, current: Option<u32>, replicas: u32) -> u64 {
        let command = Command::ScaleSet { set: key("web"), replicas, current, force_unready: false };
        let id = Some(RequestId::new(&format!("{client}-{replicas}")));
        story.asks(client, Question::Change(Arc::new(Request { actor: "user".into(), id, expected: None, command })))
    }

    const DONE: Answer = Answer::Done { revision: Revision(1), changed: true };

    fn reads(story: &mut Story, replicas: u32) {
        let operation = story.asks(9, Question::Read { stale: false });
        let mut state = story.state().clone();
        let mut set = (*state.sets[&key("web")]).clone();
        set.spec.replicas = replicas;
        state.sets.insert(key("web"), Arc::new(set));
        story.hears(9, operation, Answer::State(Arc::new(state)));
    }

    #[test]
    fn operations_that_overlap_may_happen_in_any_order() {
        let mut story = story();
        let first = scale(&mut story, 1, None, 2);
        let second = scale(&mut story, 2, None, 3);
        story.hears(2, second, DONE);
        story.hears(1, first, DONE);
        reads(&mut story, 2);
        reads(&mut story, 2);
        story.holds();
    }

    #[test]
    fn a_value_does_not_come_back() {
        let mut story = story();
        let first = scale(&mut story, 1, None, 2);
        let second = scale(&mut story, 2, None, 3);
        story.hears(2, second, DONE);
        story.hears(1, first, DONE);
        reads(&mut story, 2);
        reads(&mut story, 3);
        story.is_broken("no order explains");
    }

    #[test]
    fn one_of_two_that_compare_and_write_wins() {
        let mut one = story();
        let first = scale(&mut one, 1, Some(1), 2);
        let second = scale(&mut one, 2, Some(1), 3);
        one.hears(1, first, DONE);
        let rejection = Rejection::ReplicasMoved { name: "web".to_owned(), expected: 1, actual: 2 };
        one.hears(2, second, Answer::Rejected { rejection });
        one.holds();

        let mut both = story();
        let first = scale(&mut both, 1, Some(1), 2);
        let second = scale(&mut both, 2, Some(1), 3);
        both.hears(1, first, DONE);
        both.hears(2, second, DONE);
        both.is_broken("no order explains");
    }

    #[test]
    fn what_was_refused_may_happen_afterwards_if_the_log_says_so() {
        let mut story = story();
        let operation = scale(&mut story, 1, Some(5), 2);
        let rejection = Rejection::ReplicasMoved { name: "web".to_owned(), expected: 5, actual: 1 };
        story.hears(1, operation, Answer::Rejected { rejection });
        let to_five = scale(&mut story, 2, None, 5);
        story.hears(2, to_five, DONE);
        story.commits_request("1-2", vec![domain::Event::SetScaled { set: key("web"), replicas: 2 }]);
        reads(&mut story, 2);
        story.holds();
    }

    #[test]
    fn what_was_refused_may_have_happened_before_the_refusal_was_heard() {
        let mut story = story();
        let operation = scale(&mut story, 1, None, 1);
        let to_two = scale(&mut story, 2, None, 2);
        story.hears(2, to_two, DONE);
        story.commits_request("1-1", vec![domain::Event::SetScaled { set: key("web"), replicas: 1 }]);
        story.hears(1, operation, Answer::Done { revision: Revision(1), changed: false });
        reads(&mut story, 1);
        story.holds();
    }

    #[test]
    fn what_nobody_knows_may_have_happened_may_yet_happen_or_never() {
        for value in [1, 2] {
            let mut story = story();
            let first = scale(&mut story, 1, None, 2);
            story.hears(1, first, Answer::Unknown);
            reads(&mut story, 1);
            reads(&mut story, value);
            story.holds();
        }
        let mut story = story();
        let first = scale(&mut story, 1, None, 2);
        story.hears(1, first, Answer::Unknown);
        reads(&mut story, 3);
        story.is_broken("no order explains");
    }
}
