//! Everything that is so: the fold of all events. Cloning is O(1), iteration is in key order on every server.
//! Changed by [`State::apply`] alone.

use crate::config::{Config, ConfigKind};
use crate::id::{ClassName, Incarnation, Key, Name, NodeName, Revision, RevisionName, ServerId, Uid, VolumeName};
use crate::object::{Budget, Claim, Class, Node, Pod, Server, Service, Set, Volume, VolumePhase};
use crate::requests::Requests;
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

/// The state.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// How many events were applied.
    pub revision: Revision,
    /// The latest clock of any leader.
    pub at_ms: u64,
    /// The cluster's own random name.
    pub cluster: Name,
    /// Sets.
    pub sets: OrdMap<Key, Arc<Set>>,
    /// Pods.
    pub pods: OrdMap<Key, Arc<Pod>>,
    /// Claims.
    pub claims: OrdMap<Key, Arc<Claim>>,
    /// Volumes.
    pub volumes: OrdMap<VolumeName, Arc<Volume>>,
    /// Classes.
    pub classes: OrdMap<ClassName, Arc<Class>>,
    /// Services.
    pub services: OrdMap<Key, Arc<Service>>,
    /// Disruption budgets.
    pub budgets: OrdMap<Key, Arc<Budget>>,
    /// Config maps and secrets.
    pub configs: OrdMap<(ConfigKind, Key), Arc<Config>>,
    /// Nodes.
    pub nodes: OrdMap<NodeName, Arc<Node>>,
    /// The last incarnation of every node that ever was, so that a number is never given twice.
    pub node_incarnations: OrdMap<NodeName, Incarnation>,
    /// The servers of the control plane: exactly the members of its Raft group, as of the same entry of the log.
    pub servers: OrdMap<ServerId, Server>,
    /// The servers that the group began with: a new one needs to know them to read the log from its beginning.
    pub founders: Vec<ServerId>,
    /// The highest number that any server ever had.
    pub last_server: ServerId,
    /// Requests that were applied.
    pub requests: Requests,
    pub(crate) index: Index,
}

/// What can be found again from the objects; never stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) pods_by_node: OrdMap<NodeName, OrdSet<Key>>,
    pub(crate) pods_by_set: OrdMap<Key, OrdSet<Key>>,
    /// Each claim with each of its pods: hardly any has more than one.
    pub(crate) pods_by_claim: OrdSet<(Key, Key)>,
    pub(crate) pods_by_config: OrdMap<(ConfigKind, Key), OrdSet<Key>>,
    /// Pods without a node.
    pub(crate) unplaced: OrdSet<Key>,
    /// Pods that are ready and not yet available.
    pub(crate) ripening: OrdSet<Key>,
    /// Claims without a volume.
    pub(crate) unbound_claims: OrdSet<Key>,
    /// Volumes whose storage is being removed.
    pub(crate) removals: OrdSet<VolumeName>,
    /// Volumes that no claim has yet.
    pub(crate) free_volumes: OrdSet<VolumeName>,
    /// Of pods and of services.
    pub(crate) addresses: OrdSet<u32>,
    /// How many pods of a set each node has.
    pub(crate) siblings: OrdMap<Key, OrdMap<NodeName, u32>>,
    /// How many pods of a set are at each revision.
    pub(crate) revisions: OrdMap<Key, OrdMap<RevisionName, u32>>,
    /// Nodes, the emptiest first.
    pub(crate) nodes_by_load: OrdSet<(u64, NodeName)>,
}

/// What indexes know of a pod besides its set and its claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    set: Name,
    revision: RevisionName,
    node: Option<(NodeName, u32)>,
    is_ripening: bool,
}

impl Place {
    pub(crate) fn of(pod: &Pod) -> Self {
        Self {
            set: pod.set.clone(),
            revision: pod.revision.clone(),
            node: pod.binding.as_ref().map(|binding| (binding.node.clone(), binding.address)),
            is_ripening: pod.is_ready() && !pod.is_available,
        }
    }
}

pub(crate) fn index_add<K: Ord + Clone>(map: &mut OrdMap<K, OrdSet<Key>>, at: &K, key: &Key) {
    match map.get_mut(at) {
        Some(keys) => {
            keys.insert(key.clone());
        }
        None => {
            map.insert(at.clone(), OrdSet::unit(key.clone()));
        }
    }
}

pub(crate) fn index_drop<K: Ord + Clone>(map: &mut OrdMap<K, OrdSet<Key>>, at: &K, key: &Key) {
    let Some(keys) = map.get_mut(at) else { return };
    keys.remove(key);
    if keys.is_empty() {
        map.remove(at);
    }
}

fn count_add<K: Ord + Clone>(map: &mut OrdMap<Key, OrdMap<K, u32>>, set: &Key, at: &K) {
    *map.entry(set.clone()).or_default().entry(at.clone()).or_insert(0) += 1;
}

fn count_drop<K: Ord + Clone>(map: &mut OrdMap<Key, OrdMap<K, u32>>, set: &Key, at: &K) {
    let Some(counts) = map.get_mut(set) else { return };
    match counts.get_mut(at) {
        Some(count) if 1 < *count => *count -= 1,
        _ => {
            counts.remove(at);
        }
    }
    if counts.is_empty() {
        map.remove(set);
    }
}

/// How full a node is: the fuller of its processors and its memory, in thousandths, then how many pods it has.
pub(crate) fn load(node: &Node) -> u64 {
    let cpu = node.reserved.cpu_milli.saturating_mul(1000) / node.capacity.cpu_milli.max(1);
    let memory = node.reserved.memory_bytes.saturating_mul(1000) / node.capacity.memory_bytes.max(1);
    cpu.max(memory).saturating_mul(1_000_000).saturating_add(u64::from(node.pod_count))
}

impl State {
    /// The nodes, the emptiest first, and by name among equals.
    pub(crate) fn nodes_by_load(&self) -> impl Iterator<Item = (&NodeName, &Arc<Node>)> {
        self.index.nodes_by_load.iter().filter_map(|(_, name)| self.nodes.get_key_value(name))
    }

    /// How many pods of a set each node has; nodes without any are not there.
    pub(crate) fn siblings(&self, set: &Key) -> Option<&OrdMap<NodeName, u32>> {
        self.index.siblings.get(set)
    }

    /// Whether every pod made by a set is at this revision.
    pub(crate) fn are_all_at(&self, set: &Key, revision: &RevisionName) -> bool {
        self.index.revisions.get(set).is_none_or(|counts| counts.keys().all(|at| at == revision))
    }

    /// The pods bound to a node, in key order.
    pub fn pods_on<'a>(&'a self, node: &NodeName) -> impl Iterator<Item = (&'a Key, &'a Arc<Pod>)> {
        self.index.pods_by_node.get(node).into_iter().flatten().filter_map(|key| self.pods.get_key_value(key))
    }

    /// The pods made by a set of this name, whoever owns them now, in key order.
    pub fn pods_named_by<'a>(&'a self, set: &Key) -> impl Iterator<Item = (&'a Key, &'a Arc<Pod>)> {
        self.index.pods_by_set.get(set).into_iter().flatten().filter_map(|key| self.pods.get_key_value(key))
    }

    /// The pods that a set owns, in key order.
    pub fn members<'a>(&'a self, set: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Arc<Pod>)> {
        let owner = self.sets.get(set).map(|s| s.meta.uid);
        self.pods_named_by(set).filter(move |(_, pod)| owner.is_some() && pod.owner == owner)
    }

    /// The pods that use a claim, in key order.
    pub fn users<'a>(&'a self, claim: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Arc<Pod>)> {
        let first = (claim.clone(), Key::default());
        let users = self.index.pods_by_claim.range(first..).take_while(move |(other, _)| other == claim);
        users.filter_map(|(_, key)| self.pods.get_key_value(key))
    }

    /// The pods whose templates refer to a config map or a secret, in key order.
    pub(crate) fn readers<'a>(&'a self, config: &(ConfigKind, Key)) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        self.index.pods_by_config.get(config).into_iter().flatten().filter_map(|key| self.pods.get(key))
    }

    /// The pods without a node, in key order.
    pub fn unplaced(&self) -> impl Iterator<Item = &Key> {
        self.index.unplaced.iter()
    }

    /// The pods that are ready and not yet available.
    pub fn ripening(&self) -> impl Iterator<Item = &Key> {
        self.index.ripening.iter()
    }

    /// The claims without a volume.
    pub fn unbound_claims(&self) -> impl Iterator<Item = &Key> {
        self.index.unbound_claims.iter()
    }

    /// The volumes whose storage is being removed.
    pub fn removals(&self) -> impl Iterator<Item = &VolumeName> {
        self.index.removals.iter()
    }

    /// Whether a volume's storage is being removed.
    #[must_use]
    pub fn is_being_removed(&self, volume: &VolumeName) -> bool {
        self.index.removals.contains(volume)
    }

    /// The volumes that no claim has yet.
    pub fn free_volumes(&self) -> impl Iterator<Item = (&VolumeName, &Arc<Volume>)> {
        self.index.free_volumes.iter().filter_map(|name| self.volumes.get_key_value(name))
    }

    /// Whether a pod or a service has this address.
    #[must_use]
    pub fn is_address_taken(&self, address: u32) -> bool {
        self.index.addresses.contains(&address)
    }

    /// The pods that are held, in key order.
    pub fn held(&self) -> impl Iterator<Item = (&Key, &Arc<Pod>)> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.unreachable.is_some())
            .flat_map(|(name, _)| self.pods_on(name))
            .filter(|(_, pod)| pod.hold.is_some())
    }

    /// The volumes of a pod, in the order of its claims.
    pub fn volumes_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (&'a VolumeName, &'a Arc<Volume>)> {
        pod.claims
            .iter()
            .filter_map(|c| self.claims.get(&c.claim)?.volume.as_ref())
            .filter_map(|name| self.volumes.get_key_value(name))
    }

    /// A pod, if it is still the one with this identity.
    #[must_use]
    pub fn pod(&self, key: &Key, uid: Uid) -> Option<&Arc<Pod>> {
        self.pods.get(key).filter(|pod| pod.meta.uid == uid)
    }

    /// Makes the indexes anew from the objects, after the state was read from a snapshot.
    pub fn reindex(&mut self) {
        self.index = Index::default();
        let pods: Vec<_> = self.pods.iter().map(|(key, pod)| (key.clone(), Arc::clone(pod))).collect();
        for (key, pod) in pods {
            self.index.add_pod(&key, &pod);
        }
        for (key, claim) in &self.claims {
            if claim.volume.is_none() {
                self.index.unbound_claims.insert(key.clone());
            }
        }
        self.index.addresses.extend(self.services.values().map(|s| s.address).filter(|address| *address != 0));
        for (name, node) in &self.nodes {
            self.index.move_node(name, None, Some(load(node)));
        }
        for (name, volume) in &self.volumes {
            match volume.phase {
                VolumePhase::Deleting => self.index.removals.insert(name.clone()),
                VolumePhase::Available => self.index.free_volumes.insert(name.clone()),
                VolumePhase::Bound | VolumePhase::Released => None,
            };
        }
    }
}

impl State {
    /// Whether the indexes say what the objects say. Looks at everything: for tests.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        let mut anew = self.clone();
        anew.reindex();
        anew.index == self.index
    }
}

impl Index {
    pub(crate) fn add_pod(&mut self, key: &Key, pod: &Pod) {
        let set = Key { namespace: key.namespace.clone(), name: pod.set.clone() };
        index_add(&mut self.pods_by_set, &set, key);
        for claim in &pod.claims {
            self.pods_by_claim.insert((claim.claim.clone(), key.clone()));
        }
        for config in pod.template.configs(&key.namespace) {
            index_add(&mut self.pods_by_config, &config, key);
        }
        self.add_place(key, &Place::of(pod));
    }

    fn add_place(&mut self, key: &Key, place: &Place) {
        let set = Key { namespace: key.namespace.clone(), name: place.set.clone() };
        count_add(&mut self.revisions, &set, &place.revision);
        match &place.node {
            Some((node, address)) => {
                index_add(&mut self.pods_by_node, node, key);
                self.addresses.insert(*address);
                count_add(&mut self.siblings, &set, node);
            }
            None => {
                self.unplaced.insert(key.clone());
            }
        }
        if place.is_ripening {
            self.ripening.insert(key.clone());
        }
    }

    fn drop_place(&mut self, key: &Key, place: &Place) {
        let set = Key { namespace: key.namespace.clone(), name: place.set.clone() };
        count_drop(&mut self.revisions, &set, &place.revision);
        match &place.node {
            Some((node, address)) => {
                index_drop(&mut self.pods_by_node, node, key);
                self.addresses.remove(address);
                count_drop(&mut self.siblings, &set, node);
            }
            None => {
                self.unplaced.remove(key);
            }
        }
        if place.is_ripening {
            self.ripening.remove(key);
        }
    }

    /// Follows a node that may have been changed; `None`: it was not there, or is not any more.
    pub(crate) fn move_node(&mut self, name: &NodeName, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(load) = before {
            self.nodes_by_load.remove(&(load, name.clone()));
        }
        if let Some(load) = after {
            self.nodes_by_load.insert((load, name.clone()));
        }
    }

    /// Follows a pod that may have been changed; its set and its claims never are.
    pub(crate) fn move_pod(&mut self, key: &Key, before: &Place, after: &Place) {
        if before != after {
            self.drop_place(key, before);
            self.add_place(key, after);
        }
    }

    pub(crate) fn drop_pod(&mut self, key: &Key, pod: &Pod) {
        let set = Key { namespace: key.namespace.clone(), name: pod.set.clone() };
        index_drop(&mut self.pods_by_set, &set, key);
        for claim in &pod.claims {
            self.pods_by_claim.remove(&(claim.claim.clone(), key.clone()));
        }
        for config in pod.template.configs(&key.namespace) {
            index_drop(&mut self.pods_by_config, &config, key);
        }
        self.drop_place(key, &Place::of(pod));
    }
}
