//! What waits for the cluster to confirm that this server's view is current. One question per step serves all; what is in
//! no hurry waits for one that is asked anyway, or for the next tick.

use crate::leader::{Answer, Waiter};
use std::collections::BTreeMap;

/// How many reads may wait.
pub const READS_MAX: usize = 65_536;

/// Something that may be answered from the state once it is known to be current.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    /// A read, by its ticket.
    Read(u64),
    /// An answer that changes nothing, and so rides on no entry of its own.
    Answer(Waiter, Answer),
}

impl Waiting {
    /// A heartbeat renews a lease from when it was sent, and so may wait for company: thousands of agents would have a round
    /// of messages to every server each.
    fn is_patient(&self) -> bool {
        match self {
            Self::Answer(Waiter::Heartbeat { .. }, _) => true,
            Self::Answer(Waiter::Call(_) | Waiter::Register { .. } | Waiter::Report { .. } | Waiter::Nobody, _)
            | Self::Read(_) => false,
        }
    }
}

/// Everything that waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    next_context: u64,
    /// Joins the next question.
    gathering: Vec<Waiting>,
    /// Whether any of them should not wait for the next tick.
    is_hurried: bool,
    /// Asked, by context.
    asked: BTreeMap<u64, Vec<Waiting>>,
    /// Confirmed, once this index is applied.
    confirmed: BTreeMap<u64, Vec<Waiting>>,
    count: usize,
}

impl Reads {
    /// Adds to the next question; says whether there was room.
    pub(crate) fn gather(&mut self, waiting: Waiting) -> bool {
        if self.count == READS_MAX {
            return false;
        }
        self.count += 1;
        self.is_hurried |= !waiting.is_patient();
        self.gathering.push(waiting);
        true
    }

    /// Nothing that gathered waits any longer: a tick has come.
    pub(crate) fn hurry(&mut self) {
        self.is_hurried |= !self.gathering.is_empty();
    }

    /// The context of a new question for all that gathered, if any of it is in a hurry.
    pub(crate) fn ask(&mut self) -> Option<u64> {
        if !std::mem::take(&mut self.is_hurried) {
            return None;
        }
        self.next_context += 1;
        self.asked.insert(self.next_context, std::mem::take(&mut self.gathering));
        Some(self.next_context)
    }

    /// The question was answered: what waits needs `index`.
    pub(crate) fn confirm(&mut self, context: u64, index: u64) {
        let waiting = self.asked.remove(&context).unwrap_or_default();
        self.confirmed.entry(index).or_default().extend(waiting);
    }

    /// The question was lost.
    pub(crate) fn drop_asked(&mut self, context: u64) -> Vec<Waiting> {
        let waiting = self.asked.remove(&context).unwrap_or_default();
        self.count -= waiting.len();
        waiting
    }

    /// What may be answered now that `applied` is applied.
    pub(crate) fn take_ready(&mut self, applied: u64) -> Vec<Waiting> {
        let mut ready = Vec::new();
        while let Some(first) = self.confirmed.first_entry()
            && *first.key() <= applied
        {
            ready.extend(first.remove());
        }
        self.count -= ready.len();
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reply;
    use domain::id::Revision;

    fn heartbeat(session: u64) -> Waiting {
        let answer = Ok(Reply { revision: Revision(1), changed: false });
        Waiting::Answer(Waiter::Heartbeat { session, sent_at_ms: 5 }, answer)
    }

    #[test]
    fn heartbeats_ask_nothing_before_the_next_tick() {
        let mut reads = Reads::default();
        assert!(reads.gather(heartbeat(1)) && reads.gather(heartbeat(2)));
        assert_eq!(reads.ask(), None);
        reads.hurry();
        let context = reads.ask().expect("a tick came");
        assert_eq!(reads.ask(), None, "one question is for all of them");
        reads.confirm(context, 7);
        assert_eq!(reads.take_ready(7).len(), 2);
    }

    #[test]
    fn a_read_waits_for_nothing_and_takes_heartbeats_along() {
        let mut reads = Reads::default();
        assert!(reads.gather(heartbeat(1)) && reads.gather(Waiting::Read(9)));
        let context = reads.ask().expect("a read is in a hurry");
        reads.confirm(context, 7);
        assert_eq!(reads.take_ready(7).len(), 2);
        reads.hurry();
        assert_eq!(reads.ask(), None, "nothing has gathered since");
    }
}
