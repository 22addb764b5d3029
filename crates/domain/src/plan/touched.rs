//! Which nodes must be told anew after a batch, and of what. Says too much rather than too little.

use crate::event::{Batch, Event};
use crate::id::{Key, NodeName, VolumeName};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// What may be another in an assignment than it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Of these pods alone.
    Pods(BTreeSet<Key>),
    /// Anything.
    All,
}

/// The nodes whose assignment may differ since they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    nodes: BTreeMap<NodeName, Touch>,
}

impl Touched {
    /// Adds what a batch touches, as one state tells: both the state before the batch and the one after it are asked.
    pub fn note(&mut self, state: &State, batch: &Batch) {
        for event in &batch.events {
            self.note_event(state, event);
        }
    }

    /// Adds all that is on a node.
    pub fn note_node(&mut self, node: &NodeName) {
        self.nodes.insert(node.clone(), Touch::All);
    }

    /// Adds what another has.
    pub fn extend(&mut self, other: Self) {
        for (node, touch) in other.nodes {
            match touch {
                Touch::All => self.note_node(&node),
                Touch::Pods(pods) => pods.into_iter().for_each(|pod| self.note_pod(&node, pod)),
            }
        }
    }

    /// Whether a node is among them.
    #[must_use]
    pub fn contains(&self, node: &NodeName) -> bool {
        self.nodes.contains_key(node)
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    fn note_pod(&mut self, node: &NodeName, pod: Key) {
        match self.nodes.get_mut(node) {
            Some(Touch::All) => {}
            Some(Touch::Pods(pods)) => drop(pods.insert(pod)),
            None => drop(self.nodes.insert(node.clone(), Touch::Pods(BTreeSet::from([pod])))),
        }
    }

    fn note_event(&mut self, state: &State, event: &Event) {
        match event {
            Event::PodBound { pod, .. }
            | Event::PodMarked { pod, .. }
            // It may have another name for its revision, which is one of its labels.
            | Event::PodAdopted { pod, .. }
            | Event::PodDeletionRequested { pod, .. }
            | Event::PodEnded { pod, .. }
            | Event::PodRemoved { pod, .. } => {
                if let Some(binding) = state.pods.get(pod).and_then(|p| p.binding.as_ref()) {
                    self.note_pod(&binding.node, pod.clone());
                }
            }
            Event::AttachmentRequested { volume, node, .. } | Event::AttachmentReleased { volume, node, .. } => {
                self.note_users(state, volume, node);
            }
            Event::NodeShutdownBegan { node, .. } | Event::NodeShutdownEnded { node } => self.note_node(node),
            Event::NodeRegistered { node, .. }
            | Event::NodeRemoved { node }
            | Event::NodeUnreachable { node, .. }
            | Event::NodeReturned { node, .. } => {
                self.note_node(node);
                self.note_removers(state);
            }
            // It may have other drivers than before.
            Event::NodeUpdated { .. } => self.note_removers(state),
            // It may have another size.
            Event::VolumeUpdated { volume, .. }
            | Event::VolumeGrowthBegan { volume, .. }
            | Event::VolumeGrown { volume } => {
                let attachments = state.volumes.get(volume).map(|record| &record.attachments);
                attachments.into_iter().flat_map(|attachments| attachments.keys()).for_each(|node| self.note_node(node));
            }
            Event::VolumeDeletionRequested { .. } => self.note_removers(state),
            Event::ConfigApplied { kind, config, .. } | Event::ConfigRemoved { kind, config } => {
                let readers = state.readers(&(*kind, config.clone()));
                readers.filter_map(|pod| pod.binding.as_ref()).for_each(|binding| self.note_node(&binding.node));
            }
            // What agents say, and what they are not told: none of it is part of an assignment.
            _ => {}
        }
    }

    /// The pods that use a volume on a node; all that is there, if it is not known which those are. In a state that does not
    /// know the volume, nobody uses it.
    fn note_users(&mut self, state: &State, volume: &VolumeName, node: &NodeName) {
        let Some(record) = state.volumes.get(volume) else { return };
        let Some((claim, _)) = &record.claim else {
            self.note_node(node);
            return;
        };
        for (pod, record) in state.users(claim) {
            if record.binding.as_ref().is_some_and(|binding| binding.node == *node) {
                self.note_pod(node, pod.clone());
            }
        }
    }

    /// Who removes which volume depends on which nodes are there.
    fn note_removers(&mut self, state: &State) {
        if state.removals().next().is_some() {
            state.nodes.keys().for_each(|node| self.note_node(node));
        }
    }
}

impl IntoIterator for Touched {
    type Item = (NodeName, Touch);
    type IntoIter = std::collections::btree_map::IntoIter<NodeName, Touch>;

    fn into_iter(self) -> Self::IntoIter {
        self.nodes.into_iter()
    }
}
