//! What only a leader has: the draft, the batches in flight, the nodes' leases. Thrown away with the leadership.

use crate::io::Reply;
use crate::lease::{Leases, Moment};
use crate::log_time::LogTime;
use api::codec::EntryWriter;
use bytes::Bytes;
use domain::id::{NodeName, Revision};
use domain::{Batch, Command, Draft, Outcome, Rejection, Request, State};
use std::collections::VecDeque;

/// How many batches may be proposed and not yet applied.
pub const IN_FLIGHT_MAX: usize = 4_096;
/// How many calls may wait to be decided.
pub const CALLS_MAX: usize = 16_384;
/// An entry of the log takes no further batch once it is so long: followers write one while the next is on its way.
const ENTRY_BYTES_MAX: usize = 256 * 1024;

/// After so many events the draft is made of the committed state again, or it would in time be a second copy of it; the more
/// is in flight and has to be applied again for that, the later.
const SHARE_EVENTS: u64 = 1_024;
/// So many batches in flight are no reason to wait.
const SHARE_IN_FLIGHT: u64 = 16;

/// Who waits for what becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A call, by its ticket.
    Call(u64),
    /// An agent's session that begins.
    Register { session: u64, node: NodeName },
    /// An agent's report.
    Report { session: u64, number: u64 },
    /// An agent's heartbeat.
    Heartbeat { session: u64, sent_at_ms: u64 },
    /// Nobody.
    Nobody,
}

/// What became of a request.
pub(crate) type Answer = Result<Reply, Rejection>;

/// A request that is to be decided.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) waiter: Waiter,
    pub(crate) request: Request,
}

impl Call {
    /// A request of the leader itself.
    pub(crate) fn own(actor: &str, command: Command) -> Self {
        let request = Request { actor: actor.into(), id: None, expected: None, command };
        Self { waiter: Waiter::Nobody, request }
    }
}

/// A batch that was decided, and who gets an answer once it is applied.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) batch: Batch,
    /// Who asked for the batch itself.
    pub(crate) waiter: Waiter,
    /// Answers that relied on the draft with this batch.
    pub(crate) answers: Vec<(Waiter, Answer)>,
}

/// What deciding a request led to.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// A batch, which goes with the next entry.
    Batch,
    /// Nothing to propose; answered with the batches in flight.
    Attached,
    /// Nothing to propose, and nothing in flight: this answer relies on committed state.
    Settled(Waiter, Answer),
}

/// One leadership.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) term: u64,
    /// Present once all entries of earlier terms are applied.
    draft: Option<Draft>,
    /// Decided and not yet applied, in order.
    in_flight: VecDeque<InFlight>,
    /// How many of these each entry has that is proposed, in order.
    proposed: VecDeque<usize>,
    /// The next entry, and how many of them it has so far: the last ones.
    next_entry: EntryWriter,
    next_count: usize,
    /// The revision at which the draft was last made of the committed state.
    shared_at: Revision,
    pub(crate) leases: Leases,
    time: LogTime,
}

impl Leader {
    pub(crate) fn new(term: u64, silence_max_ms: u64, at: Moment) -> Self {
        Self {
            term,
            draft: None,
            in_flight: VecDeque::new(),
            proposed: VecDeque::new(),
            next_entry: EntryWriter::default(),
            next_count: 0,
            shared_at: Revision::default(),
            leases: Leases::new(silence_max_ms, at),
            time: LogTime::new(at),
        }
    }

    /// Begins to decide: everything that was committed before this term is in `state`.
    pub(crate) fn begin(&mut self, state: &State) {
        self.draft = Some(Draft::new(state.clone()));
        self.time.follow(state.at_ms);
        self.watch_nodes(state);
    }

    fn watch_nodes(&mut self, state: &State) {
        for (name, node) in &state.nodes {
            if node.unreachable.is_none() {
                self.leases.watch(name);
            }
        }
    }

    /// The state with everything in flight, once this leader decides.
    pub(crate) fn draft(&self) -> Option<&State> {
        self.draft.as_ref().map(Draft::state)
    }

    /// Whether another request may be decided now.
    pub(crate) fn may_decide(&self) -> bool {
        self.draft.is_some() && self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// Decides a request.
    pub(crate) fn submit(&mut self, call: Call, at: Moment) -> Submitted {
        let at_ms = self.time.at_ms(at);
        let Call { waiter, request } = call;
        let draft = self.draft.as_mut().expect("invariant: asked only when it may decide");
        let answer = match draft.submit(&request, at_ms) {
            Ok(Outcome::Committed(batch)) => {
                self.next_entry.push(&batch);
                self.next_count += 1;
                self.in_flight.push_back(InFlight { batch, waiter, answers: Vec::new() });
                return Submitted::Batch;
            }
            Ok(Outcome::Unchanged(revision)) => Ok(Reply { revision, changed: false }),
            Ok(Outcome::Repeat(revision)) => Ok(Reply { revision, changed: true }),
            Err(rejection) => Err(rejection),
        };
        match self.in_flight.back_mut() {
            Some(last) => {
                last.answers.push((waiter, answer));
                Submitted::Attached
            }
            None => Submitted::Settled(waiter, answer),
        }
    }

    /// Whether the next entry should have no further batch.
    pub(crate) fn is_entry_full(&self) -> bool {
        ENTRY_BYTES_MAX <= self.next_entry.len_bytes()
    }

    /// The next entry of the log, to be proposed: all that was decided since the last one.
    pub(crate) fn take_entry(&mut self) -> Option<Bytes> {
        let entry = self.next_entry.take()?;
        self.proposed.push_back(std::mem::take(&mut self.next_count));
        Some(entry.into())
    }

    /// The batches that an entry of `term` must have: entries of one's own term commit in the order of their proposal.
    pub(crate) fn take_committed(&mut self, term: u64) -> Option<Vec<InFlight>> {
        if term != self.term {
            return None;
        }
        let count = self.proposed.pop_front()?;
        Some(self.in_flight.drain(..count).collect())
    }

    /// Makes the draft of the committed state again, if it is time: each applies every batch for itself, and what both have
    /// changed is there twice.
    pub(crate) fn share(&mut self, committed: &State) {
        let Some(draft) = &mut self.draft else { return };
        let patience = 1 + self.in_flight.len() as u64 / SHARE_IN_FLIGHT;
        if committed.revision.0.saturating_sub(self.shared_at.0) < patience.saturating_mul(SHARE_EVENTS) {
            return;
        }
        self.shared_at = committed.revision;
        let mut state = committed.clone();
        if self.in_flight.iter().all(|in_flight| state.apply_batch(&in_flight.batch)) {
            draft.share(state);
        }
    }

    /// Takes back the last `count` entries, which raft did not accept, and decides on from what is left.
    pub(crate) fn take_back(&mut self, count: usize, committed: &State) -> Vec<InFlight> {
        let kept = self.proposed.len().checked_sub(count).expect("invariant: only what is proposed is taken back");
        assert_eq!(self.next_count, 0, "what is decided is proposed before anything is taken back");
        let dropped_count: usize = self.proposed.drain(kept..).sum();
        let dropped = self.in_flight.split_off(self.in_flight.len() - dropped_count);
        let mut state = committed.clone();
        for in_flight in &self.in_flight {
            assert!(state.apply_batch(&in_flight.batch), "batches in flight follow each other");
        }
        self.draft = Some(Draft::new(state));
        // The end of a lease may have been among them, and is noted only once.
        self.watch_nodes(committed);
        dropped.into()
    }

    /// Ends the leadership; what was in flight is undecided.
    pub(crate) fn into_in_flight(self) -> VecDeque<InFlight> {
        self.in_flight
    }
}
