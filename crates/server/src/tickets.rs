//! Who waits for which answer of the core. Everybody who waits is answered, at the latest when this is dropped.

use crate::core::Answer;
use control_core::CallError;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// All that wait.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    last: u64,
    alone: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// Calls that came together, by the first of their tickets, which have no holes.
    groups: BTreeMap<u64, Group>,
}

/// Calls that are answered together, once each has its answer.
#[derive(Debug)]
struct Group {
    answers: Vec<Option<Answer>>,
    missing_count: usize,
    reply: oneshot::Sender<Vec<Answer>>,
}

impl Tickets {
    /// A ticket for one.
    pub(crate) fn issue(&mut self, reply: oneshot::Sender<Answer>) -> u64 {
        self.last += 1;
        self.alone.insert(self.last, reply);
        self.last
    }

    /// Tickets for many, without holes; returns the first.
    pub(crate) fn issue_many(&mut self, count: usize, reply: oneshot::Sender<Vec<Answer>>) -> u64 {
        let first = self.last + 1;
        if count == 0 {
            // Nobody has to answer anything. Whoever asked may have given up since.
            let _ = reply.send(Vec::new());
            return first;
        }
        self.last += count as u64;
        let answers = std::iter::repeat_with(|| None).take(count).collect();
        self.groups.insert(first, Group { answers, missing_count: count, reply });
        first
    }

    /// Gives an answer. Whoever asked may have given up since.
    pub(crate) fn answer(&mut self, ticket: u64, answer: Answer) {
        if let Some(reply) = self.alone.remove(&ticket) {
            let _ = reply.send(answer);
        } else if let Some((&first, group)) = self.groups.range_mut(..=ticket).next_back() {
            let place = usize::try_from(ticket - first).expect("invariant: a group fits in memory");
            if group.take(place, answer)
                && let Some(group) = self.groups.remove(&first)
            {
                let _ = group.reply.send(group.answers.into_iter().flatten().collect());
            }
        }
    }
}

impl Group {
    /// Takes an answer, unless it is not of this group or is there already; says whether it was the last one.
    fn take(&mut self, place: usize, answer: Answer) -> bool {
        let Some(slot @ None) = self.answers.get_mut(place) else { return false };
        *slot = Some(answer);
        self.missing_count -= 1;
        self.missing_count == 0
    }
}

impl Drop for Tickets {
    fn drop(&mut self) {
        let unknown = || Answer::Failed(CallError::OutcomeUnknown);
        for reply in std::mem::take(&mut self.alone).into_values() {
            let _ = reply.send(unknown());
        }
        for group in std::mem::take(&mut self.groups).into_values() {
            let answers = group.answers.into_iter().map(|answer| answer.unwrap_or_else(unknown));
            let _ = group.reply.send(answers.collect());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
mod tests {
    use super::*;

    fn not_leader(leader: u64) -> Answer {
        Answer::NotLeader { leader: Some(leader) }
    }

    #[test]
    fn many_are_answered_together_in_the_order_of_their_tickets() {
        let mut tickets = Tickets::default();
        let (alone, mut one) = oneshot::channel();
        let (together, mut all) = oneshot::channel();
        let (nobody, mut none) = oneshot::channel();
        assert_eq!((tickets.issue(alone), tickets.issue_many(2, together), tickets.issue_many(0, nobody)), (1, 2, 4));
        tickets.answer(3, not_leader(3));
        tickets.answer(1, not_leader(1));
        assert!(all.try_recv().is_err() && one.try_recv().is_ok());
        tickets.answer(2, not_leader(2));
        let leaders: Vec<_> = all.try_recv().unwrap().iter().map(|answer| format!("{answer:?}")).collect();
        assert_eq!(leaders, ["NotLeader { leader: Some(2) }", "NotLeader { leader: Some(3) }"]);
        assert!(none.try_recv().unwrap().is_empty());
    }

    #[test]
    fn who_still_waits_at_the_end_hears_that_the_outcome_is_unknown() {
        let mut tickets = Tickets::default();
        let (alone, mut one) = oneshot::channel();
        let (together, mut all) = oneshot::channel();
        tickets.issue(alone);
        tickets.issue_many(2, together);
        drop(tickets);
        assert!(matches!(one.try_recv(), Ok(Answer::Failed(CallError::OutcomeUnknown))));
        assert_eq!(all.try_recv().unwrap().len(), 2);
    }
}
