//! Who belongs to a group, and by which single steps that changes.
//! Says what a change would lead to; never when one may be made.

use raft::eraftpb::{ConfChange, ConfChangeType, ConfState};

/// The members of a group as of some entry of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those who vote, ascending.
    pub voters: Vec<u64>,
    /// Those who get the log and do not vote yet, ascending.
    pub learners: Vec<u64>,
}

impl Members {
    /// Voters alone, in any order.
    #[must_use]
    pub fn of_voters(mut voters: Vec<u64>) -> Self {
        voters.sort_unstable();
        Self { voters, learners: Vec::new() }
    }

    /// Whether a server is one of them.
    #[must_use]
    pub fn contains(&self, member: u64) -> bool {
        self.voters.contains(&member) || self.learners.contains(&member)
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        Self { voters: sorted(&state.voters), learners: sorted(&state.learners) }
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        ConfState { voters: self.voters.clone(), learners: self.learners.clone(), ..ConfState::default() }
    }
}

/// One step from one set of members to the next. Any two sets that are one step apart have a majority in common, so no
/// joint configuration is ever needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new server begins to get the log.
    AddLearner(u64),
    /// A learner becomes a voter.
    Promote(u64),
    /// A server belongs to the group no more. Its number must never be used again: it has voted and acknowledged.
    Remove(u64),
}

impl MemberChange {
    pub(crate) fn to_raft(self) -> ConfChange {
        let (kind, member) = match self {
            Self::AddLearner(member) => (ConfChangeType::AddLearnerNode, member),
            Self::Promote(member) => (ConfChangeType::AddNode, member),
            Self::Remove(member) => (ConfChangeType::RemoveNode, member),
        };
        let mut change = ConfChange { node_id: member, ..ConfChange::default() };
        change.set_change_type(kind);
        change
    }
}

/// Why a change of the members is not proposed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Only the leader proposes.
    #[error("this member does not lead")]
    NotLeader,
    /// The leader has not applied everything of earlier terms, or another change is not applied yet.
    #[error("another change of the members is not finished yet")]
    Pending,
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    Transferring,
    /// The server is a member already.
    #[error("it is a member already")]
    IsMember,
    /// Only learners are promoted.
    #[error("it is no learner")]
    IsNoLearner,
    /// The server is no member.
    #[error("it is no member")]
    IsNoMember,
    /// Nobody would be left.
    #[error("it is the only voter")]
    LastVoter,
    /// A leader that removed itself would leave the group without one in the middle of its work.
    #[error("it leads: leadership must be handed over first")]
    IsLeader,
}
