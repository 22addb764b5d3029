//! What is so, in truth, at one moment of a history: which processes live where, what is mounted, which machines are
//! up, and what the log says. The common memory of all checkers; never judges.

use crate::history::{Fact, What};
use crate::log::Log;
use domain::event::RemovalCause;
use domain::id::{BootId, Fence, Key, Name, NodeName, Revision, Uid, VolumeName};
use domain::{Batch, Event, State};
use std::collections::{BTreeMap, BTreeSet};

/// A moment of a history, before the fact that is being judged.
#[derive(Debug)]
pub struct Scene {
    /// The log.
    pub log: Log,
    /// Servers that ever were.
    pub servers: BTreeMap<u64, Server>,
    /// Machines that ever were.
    pub machines: BTreeMap<NodeName, Machine>,
    /// Pods with at least one living process, and where.
    pub live: BTreeMap<(Uid, NodeName), Living>,
    /// Who has which volume mounted, under which fence.
    pub mounts: BTreeMap<VolumeName, BTreeMap<(Uid, NodeName), Fence>>,
    /// Pods that a person said are dead.
    pub asserted: BTreeSet<Uid>,
    /// Nothing has been broken since.
    pub calm_since_ms: Option<u64>,
}

/// A server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Server {
    /// Whether it runs.
    pub is_up: bool,
    /// The revision of its state.
    pub revision: Revision,
}

/// A machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Whether it is up.
    pub is_up: bool,
    /// Its present start.
    pub boot: BootId,
    /// Whether its agent runs.
    pub has_agent: bool,
    /// Since when it cannot talk to the servers.
    pub cut_since_ms: Option<u64>,
}

impl Machine {
    /// Whether nothing keeps its agent from its work.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.is_up && self.has_agent && self.cut_since_ms.is_none()
    }
}

/// The living processes of a pod on one node.
#[derive(Clone, Debug, Default)]
pub struct Living {
    /// The pod's name.
    pub pod: Key,
    /// The containers.
    pub containers: BTreeSet<Name>,
}

impl Scene {
    /// A moment at which nothing lives, and the log begins at a state.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self {
            log: Log::new(state),
            servers: BTreeMap::new(),
            machines: BTreeMap::new(),
            live: BTreeMap::new(),
            mounts: BTreeMap::new(),
            asserted: BTreeSet::new(),
            calm_since_ms: None,
        }
    }

    /// The nodes on which a pod has living processes.
    pub fn homes(&self, uid: Uid) -> impl Iterator<Item = &NodeName> {
        self.live
            .range((uid, NodeName::default())..)
            .take_while(move |((found, _), _)| *found == uid)
            .map(|((_, n), _)| n)
    }

    /// Whether a pod has a living process anywhere.
    #[must_use]
    pub fn is_live(&self, uid: Uid) -> bool {
        self.homes(uid).next().is_some()
    }

    /// Who has a volume mounted, and under which fence.
    pub fn mounts_of(&self, volume: &VolumeName) -> impl Iterator<Item = (Uid, &NodeName, Fence)> {
        self.mounts.get(volume).into_iter().flatten().map(|((uid, node), fence)| (*uid, node, *fence))
    }

    /// The fence under which a pod has a volume mounted on a node.
    #[must_use]
    pub fn mount(&self, volume: &VolumeName, uid: Uid, node: &NodeName) -> Option<Fence> {
        self.mounts.get(volume)?.get(&(uid, node.clone())).copied()
    }

    pub(crate) fn note_committed(&mut self, batch: &Batch) {
        for event in &batch.events {
            if let Event::PodEnded { uid, cause, .. } | Event::PodRemoved { uid, cause, .. } = event
                && cause.is_assertion()
            {
                self.asserted.insert(*uid);
            }
        }
    }

    pub(crate) fn note(&mut self, fact: &Fact) {
        match &fact.what {
            What::ServerStarted { server, state } => {
                self.servers.insert(*server, Server { is_up: true, revision: state.revision });
            }
            What::ServerStopped { server } => self.servers.entry(*server).or_default().is_up = false,
            What::Applied { server, revision, .. } => self.servers.entry(*server).or_default().revision = *revision,
            What::Restored { server, state } => self.servers.entry(*server).or_default().revision = state.revision,
            What::NodeBooted { node, boot } => {
                let machine = self.machines.entry(node.clone()).or_default();
                (machine.is_up, machine.boot) = (true, boot.clone());
            }
            What::NodeDied { node } => self.end_machine(node),
            What::AgentStarted { node } => self.machines.entry(node.clone()).or_default().has_agent = true,
            What::AgentDied { node } => self.machines.entry(node.clone()).or_default().has_agent = false,
            What::CutOff { node } => {
                self.machines.entry(node.clone()).or_default().cut_since_ms.get_or_insert(fact.at_ms);
            }
            What::Reconnected { node } => self.machines.entry(node.clone()).or_default().cut_since_ms = None,
            What::Calm => self.calm_since_ms = Some(fact.at_ms),
            What::Attached { .. } | What::Cleaned { .. } | What::ProcessStarted { .. } | What::ProcessEnded { .. } => {
                self.note_pod(&fact.what)
            }
            What::ShutDown { .. }
            | What::Shown { .. }
            | What::Led { .. }
            | What::Assigned { .. }
            | What::ReportAccepted { .. }
            | What::Killed { .. }
            | What::StopBegan { .. }
            | What::Wrote { .. }
            | What::Found { .. }
            | What::StorageRemoved { .. }
            | What::Asked { .. }
            | What::Answered { .. }
            | What::WatchBegan { .. }
            | What::Watched { .. }
            | What::Bookmarked { .. }
            | What::WatchEnded { .. }
            | What::WatchCompacted { .. }
            | What::DiskLost { .. }
            | What::Rest => {}
        }
    }

    fn note_pod(&mut self, what: &What) {
        match what {
            What::Attached { node, uid, volume, fence, .. } => {
                self.mounts.entry(volume.clone()).or_default().insert((*uid, node.clone()), *fence);
            }
            What::Cleaned { node, uid } => {
                let gone = (*uid, node.clone());
                self.live.remove(&gone);
                self.mounts.values_mut().for_each(|holders| {
                    holders.remove(&gone);
                });
                self.mounts.retain(|_, holders| !holders.is_empty());
            }
            What::ProcessStarted { node, pod, uid, container } => {
                let living = self.live.entry((*uid, node.clone())).or_default();
                living.pod = pod.clone();
                living.containers.insert(container.clone());
            }
            What::ProcessEnded { node, uid, container, .. } => {
                let at = (*uid, node.clone());
                let Some(living) = self.live.get_mut(&at) else { return };
                living.containers.remove(container);
                if living.containers.is_empty() {
                    self.live.remove(&at);
                }
            }
            _ => unreachable!("note sends only what happens to pods here"),
        }
    }

    fn end_machine(&mut self, node: &NodeName) {
        let machine = self.machines.entry(node.clone()).or_default();
        (machine.is_up, machine.has_agent) = (false, false);
        self.live.retain(|(_, home), _| home != node);
        for holders in self.mounts.values_mut() {
            holders.retain(|(_, home), _| home != node);
        }
        self.mounts.retain(|_, holders| !holders.is_empty());
    }
}

/// The causes that say that nothing of a pod runs any more, rather than that somebody answers for it.
#[must_use]
pub const fn is_evidence(cause: &RemovalCause) -> bool {
    !cause.is_assertion()
}
