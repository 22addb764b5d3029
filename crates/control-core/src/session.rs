//! The agents' connections to this leader, and what each was told. Decides nothing about nodes.

use domain::agent::Assignment;
use domain::id::{Incarnation, NodeName};
use domain::{State, Touch};
use std::collections::BTreeMap;

/// How many agents may be connected.
pub const SESSIONS_MAX: usize = 200_000;

/// One connection.
#[derive(Clone, Debug, Default)]
struct Session {
    /// Present once the registration is committed.
    node: Option<(NodeName, Incarnation)>,
    /// The last assignment sent.
    sent: Option<Assignment>,
}

/// All connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    by_number: BTreeMap<u64, Session>,
    by_node: BTreeMap<NodeName, u64>,
}

/// What an agent should hear after the state changed.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// Its node is not what it registered as any more.
    RegisterAgain { session: u64 },
    /// Its assignment changed.
    Assign { session: u64, assignment: Assignment },
}

impl Sessions {
    /// Adds a connection; says whether there was room.
    pub(crate) fn open(&mut self, session: u64) -> bool {
        if self.by_number.len() == SESSIONS_MAX {
            return false;
        }
        self.by_number.insert(session, Session::default());
        true
    }

    pub(crate) fn close(&mut self, session: u64) {
        let node = self.by_number.remove(&session).and_then(|closed| closed.node);
        if let Some((name, _)) = node
            && self.by_node.get(&name) == Some(&session)
        {
            self.by_node.remove(&name);
        }
    }

    pub(crate) fn is_open(&self, session: u64) -> bool {
        self.by_number.contains_key(&session)
    }

    /// The node of a registered session.
    pub(crate) fn node(&self, session: u64) -> Option<&NodeName> {
        self.by_number.get(&session)?.node.as_ref().map(|(name, _)| name)
    }

    /// Binds a session to its node; returns the node's former session.
    pub(crate) fn register(&mut self, session: u64, node: &NodeName, incarnation: Incarnation) -> Option<u64> {
        let record = self.by_number.get_mut(&session)?;
        record.node = Some((node.clone(), incarnation));
        record.sent = None;
        self.by_node.insert(node.clone(), session).filter(|&former| former != session)
    }

    /// What the agent of a node should hear now, if it has not heard it yet.
    pub(crate) fn news(&mut self, node: &NodeName, touch: &Touch, state: &State) -> Option<News> {
        let session = *self.by_node.get(node)?;
        let record = self.by_number.get_mut(&session).expect("invariant: both maps are changed together");
        let (_, incarnation) = record.node.as_ref().expect("invariant: found by its node");
        let current = state.nodes.get(node).filter(|n| n.incarnation == *incarnation && n.unreachable.is_none());
        let assignment = current.and_then(|_| match &record.sent {
            Some(told) => domain::assignment_after(state, node, told, touch),
            None => domain::assignment(state, node),
        });
        let Some(assignment) = assignment else {
            return Some(News::RegisterAgain { session });
        };
        let is_known = record.sent.as_ref().is_some_and(|sent| is_same_work(sent, &assignment));
        if is_known {
            return None;
        }
        record.sent = Some(assignment.clone());
        Some(News::Assign { session, assignment })
    }

    /// Forgets all connections, and names them.
    pub(crate) fn take_all(&mut self) -> Vec<u64> {
        self.by_node.clear();
        std::mem::take(&mut self.by_number).into_keys().collect()
    }
}

/// Whether two assignments ask for the same, as of whatever revisions.
fn is_same_work(one: &Assignment, other: &Assignment) -> bool {
    one.incarnation == other.incarnation
        && one.pods == other.pods
        && one.removals == other.removals
        && one.configs == other.configs
        && one.is_shutting_down == other.is_shutting_down
}
