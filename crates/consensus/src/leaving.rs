//! How a member that was removed leaves the group: not before another leads that will not forget the removal.
//!
//! Owns what was heard of other leaders. Never decides who belongs to the group.
//!
//! A leader tells nobody what is committed before it will find that again after a crash, so a member that hears of its
//! removal from a leader may go. It is another matter if it led itself when the removal was committed, by an entry of a
//! leader before it: then nobody else may know. Of two that become one, the last would wait for ever for the vote of a
//! member that is gone.

use raft::eraftpb::{Message, MessageType};
use raft::{Raft, Storage};

/// Ticks between two questions of a member that wants to go.
const ASK_PERIOD_TICKS: u64 = 6;

/// What a member that is to leave has to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leaving {
    /// The highest commit index that another leader has named since this member started.
    heard_commit: u64,
    asked_count: u64,
}

/// What a message says of the commit index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    from: u64,
    term: u64,
    commit: u64,
}

impl Word {
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let commit = match message.get_msg_type() {
            MessageType::MsgAppend | MessageType::MsgHeartbeat => message.commit,
            MessageType::MsgSnapshot => message.get_snapshot().get_metadata().index,
            _ => return None,
        };
        Some(Self { from: message.from, term: message.term, commit })
    }

    /// Whether the one who said it leads, as far as this member knows.
    pub(crate) fn is_of_leader<S: Storage>(&self, raft: &Raft<S>) -> bool {
        (self.from, self.term) == (raft.leader_id, raft.term)
    }
}

impl Leaving {
    pub(crate) fn hear(&mut self, word: Option<Word>) {
        self.heard_commit = self.heard_commit.max(word.map_or(0, |word| word.commit));
    }

    /// Whether another leader knows everything that is applied here.
    pub(crate) const fn is_let_go(&self, applied: u64) -> bool {
        applied <= self.heard_commit
    }

    /// Whom of so many to ask now, if anybody.
    pub(crate) fn next_turn(&mut self, of: usize) -> Option<usize> {
        let count = self.asked_count;
        self.asked_count += 1;
        let is_due = 0 < of && count.is_multiple_of(ASK_PERIOD_TICKS);
        is_due.then(|| usize::try_from(count / ASK_PERIOD_TICKS % of as u64).expect("invariant: less than a usize"))
    }
}
