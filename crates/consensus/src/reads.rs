//! Reads that wait for a read index.
//! Never answers one by itself: an answer comes from raft, everything else ends as dropped and is asked again.

use std::collections::BTreeMap;

use raft::ReadState;

/// The reads of this replica that raft has been asked about.
#[derive(Debug)]
pub(crate) struct Reads {
    id: u64,
    boot: u64,
    timeout_ticks: u64,
    tick: u64,
    next_round: u64,
    /// Contexts that join the next round.
    queued: Vec<u64>,
    waiting: BTreeMap<u64, Round>,
}

/// All reads of one step share one question to the leader.
#[derive(Debug)]
struct Round {
    asked_at_tick: u64,
    contexts: Vec<u64>,
}

impl Reads {
    pub(crate) fn new(id: u64, boot: u64, timeout_ticks: u64) -> Self {
        Self { id, boot, timeout_ticks, tick: 0, next_round: 0, queued: Vec::new(), waiting: BTreeMap::new() }
    }

    pub(crate) fn queue(&mut self, context: u64) {
        self.queued.push(context);
    }

    pub(crate) fn take_queued(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.queued)
    }

    /// Opens a round and returns the bytes that identify it to the leader.
    pub(crate) fn ask(&mut self, contexts: Vec<u64>) -> Vec<u8> {
        let round = self.next_round;
        self.next_round += 1;
        self.waiting.insert(round, Round { asked_at_tick: self.tick, contexts });
        self.question(round)
    }

    /// The contexts answered by a read state, with their index; none if the round was given up meanwhile, or belongs to
    /// an earlier start of this replica.
    pub(crate) fn answer(&mut self, state: &ReadState) -> Vec<(u64, u64)> {
        let round = state.request_ctx.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let asked = round.filter(|&round| self.question(round) == state.request_ctx);
        let contexts =
            asked.and_then(|round| self.waiting.remove(&round)).map_or_else(Vec::new, |round| round.contexts);
        contexts.into_iter().map(|context| (context, state.index)).collect()
    }

    /// The leader takes a repeated question for the same one and answers with the index of the *earlier*, so it must be
    /// unique across replicas and across restarts of one.
    fn question(&self, round: u64) -> Vec<u8> {
        [self.id, self.boot, round].iter().flat_map(|part| part.to_le_bytes()).collect()
    }

    /// A question or its answer may be lost, and nobody repeats it.
    pub(crate) fn expire_on_tick(&mut self) -> Vec<u64> {
        self.tick += 1;
        let mut expired = Vec::new();
        while let Some(oldest) = self.waiting.first_entry()
            && oldest.get().asked_at_tick + self.timeout_ticks <= self.tick
        {
            expired.extend(oldest.remove().contexts);
        }
        expired
    }

    /// A leader forgets the questions of earlier terms.
    pub(crate) fn drop_all(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.waiting).into_values().flat_map(|round| round.contexts).collect()
    }
}
