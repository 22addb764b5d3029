//! How long each node may still be silent. Lives in the leader's memory only; what follows from silence is decided elsewhere.

use domain::id::NodeName;
use std::collections::{BTreeMap, BTreeSet};

/// A moment by both clocks: one to measure with, one to show to people.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    /// Monotonic.
    pub(crate) now_ms: u64,
    /// Since 1970.
    pub(crate) wall_ms: u64,
}

/// The leases of all nodes that are not known to be unreachable.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    /// Lease and grace together.
    silence_max_ms: u64,
    /// No silence before this moment counts: this server did not listen then.
    listens_since: Moment,
    heard: BTreeMap<NodeName, Moment>,
    /// When to look at a node next. Heartbeats do not touch it, so they cost nothing.
    due: BTreeSet<(u64, NodeName)>,
}

/// A node whose lease and grace are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    pub(crate) node: NodeName,
    /// By the clock that people read.
    pub(crate) heard_at_ms: u64,
}

impl Leases {
    pub(crate) fn new(silence_max_ms: u64, at: Moment) -> Self {
        Self { silence_max_ms, listens_since: at, heard: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// Begins to wait for a node that may not have been heard yet.
    pub(crate) fn watch(&mut self, node: &NodeName) {
        if !self.heard.contains_key(node) {
            self.heard.insert(node.clone(), self.listens_since);
            self.due.insert((self.listens_since.now_ms + self.silence_max_ms, node.clone()));
        }
    }

    /// Renews a node's lease.
    pub(crate) fn hear(&mut self, node: &NodeName, at: Moment) {
        if self.heard.insert(node.clone(), at).is_none() {
            self.due.insert((at.now_ms + self.silence_max_ms, node.clone()));
        }
    }

    /// Every lease begins anew: this server itself was away, and cannot tell a silent node from its own deafness.
    pub(crate) fn restart(&mut self, at: Moment) {
        self.listens_since = at;
    }

    /// The nodes whose time is over. They are forgotten until they are heard again.
    pub(crate) fn take_silent(&mut self, now_ms: u64) -> Vec<Silence> {
        let mut silent = Vec::new();
        while let Some((at_ms, _)) = self.due.first()
            && *at_ms <= now_ms
        {
            let (_, node) = self.due.pop_first().expect("invariant: just seen");
            let Some(heard) = self.heard.get(&node).copied() else { continue };
            let over_at_ms = heard.now_ms.max(self.listens_since.now_ms) + self.silence_max_ms;
            if now_ms < over_at_ms {
                self.due.insert((over_at_ms, node));
            } else {
                self.heard.remove(&node);
                silent.push(Silence { node, heard_at_ms: heard.wall_ms });
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now_ms: u64) -> Moment {
        Moment { now_ms, wall_ms: 1_000_000 + now_ms }
    }

    #[test]
    fn a_node_is_silent_after_lease_and_grace_and_only_once() {
        let mut leases = Leases::new(100, at(0));
        let node = NodeName::new("n1");
        leases.watch(&node);
        leases.hear(&node, at(50));
        assert_eq!(leases.take_silent(149), []);
        assert_eq!(leases.take_silent(150), [Silence { node, heard_at_ms: 1_000_050 }]);
        assert_eq!(leases.take_silent(1_000), []);
    }

    #[test]
    fn silence_while_the_server_was_away_does_not_count() {
        let mut leases = Leases::new(100, at(0));
        let node = NodeName::new("n1");
        leases.hear(&node, at(10));
        leases.restart(at(5_000));
        assert_eq!(leases.take_silent(5_099), []);
        assert_eq!(leases.take_silent(5_100), [Silence { node, heard_at_ms: 1_000_010 }]);
    }

    #[test]
    fn a_new_leader_waits_for_nodes_it_has_never_heard() {
        let mut leases = Leases::new(100, at(1_000));
        leases.watch(&NodeName::new("n1"));
        assert_eq!(leases.take_silent(1_099), []);
        assert_eq!(leases.take_silent(1_100).len(), 1);
    }
}
