//! Which node a pod gets: filter and score in one pass over the candidates. Ties go to the lowest name, so that
//! every leader would choose the same.

use crate::draft::{class_of, spoken};
use crate::driver;
use crate::id::{Key, Name, NodeName};
use crate::object::{Node, Pod, Unplaced, Volume, VolumePhase};
use crate::spec::{AntiAffinity, Labels, Resources, Taint, Toleration};
use crate::state::{State, load};
use imbl::OrdMap;
use mutants::{Mutant, is_on};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How good a node is, the weightiest first: pods of the same set, dislikes, soft taints, load.
type Score = (Reverse<u32>, Reverse<u32>, Reverse<usize>, Reverse<u64>);

/// The label of a node's own name.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The best node, or why there is none.
pub(super) fn choose(state: &State, key: &Key, pod: &Pod) -> Result<NodeName, Unplaced> {
    let node_count = u32::try_from(state.nodes.len()).unwrap_or(u32::MAX);
    if let Some(reason) = claims_refuse(state, key, pod) {
        return Err(Unplaced { node_count, reasons: BTreeMap::from([(reason.into(), node_count)]) });
    }
    let search = Search::new(state, key, pod);
    let mut reasons: BTreeMap<Cow<'static, str>, u32> = BTreeMap::new();
    let mut best = None;
    for (name, node) in state.nodes_by_load() {
        if let Some(reason) = search.refuses(name, node) {
            *reasons.entry(reason).or_default() += 1;
            continue;
        }
        let score = search.score(name, node);
        // Among equals the emptier one is better, and all that follow are fuller.
        if search.is_unbeaten(&score) {
            return Ok(name.clone());
        }
        best = best.max(Some((score, Reverse(name.clone()))));
    }
    best.map(|(_, Reverse(name))| name).ok_or_else(|| {
        let named = reasons.into_iter().map(|(reason, count)| (Name::from(reason.as_ref()), count));
        Unplaced { node_count, reasons: named.collect() }
    })
}

/// Reasons that hold on every node: something about the pod's claims.
fn claims_refuse(state: &State, key: &Key, pod: &Pod) -> Option<String> {
    for pod_claim in &pod.claims {
        let name = spoken(&pod_claim.claim);
        let Some(claim) = state.claims.get(&pod_claim.claim) else {
            return Some(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if claim.deleting_at_ms.is_some() {
            return Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let other = state.users(&pod_claim.claim).find(|(other, p)| *other != key && p.binding.is_some());
        if claim.spec.access.read_write_once_pod
            && let Some((other, _)) = other
            && !is_on(Mutant::TwoPodsOnOneClaim)
        {
            return Some(format!(
                "persistentvolumeclaim \"{name}\" is ReadWriteOncePod and in use by pod {}",
                spoken(other)
            ));
        }
        let waits = class_of(state, claim.spec.class.as_ref()).is_some_and(|(_, class)| {
            let provisioner = class.spec.provisioner.as_str();
            let may_come = provisioner == driver::NO_PROVISIONER || driver::provisions(provisioner, claim.spec.access);
            class.spec.waits_for_consumer && may_come
        });
        match claim.volume.as_ref().map(|volume| state.volumes.get(volume)) {
            None if !waits => return Some(format!("persistentvolumeclaim \"{name}\" is not bound")),
            Some(None) => return Some(format!("the volume of persistentvolumeclaim \"{name}\" is lost")),
            Some(Some(volume)) if volume.phase != VolumePhase::Bound => {
                return Some(format!("the volume of persistentvolumeclaim \"{name}\" is not usable"));
            }
            None | Some(Some(_)) => {}
        }
    }
    None
}

/// What is the same for all candidates, worked out once.
struct Search<'a> {
    state: &'a State,
    pod: &'a Pod,
    requests: Resources,
    /// How many pods of the same set each node has.
    siblings: Option<&'a OrdMap<NodeName, u32>>,
    /// No node has fewer of them.
    siblings_min: u32,
    /// For each rule of anti-affinity, the nodes that have a pod it avoids.
    avoided: Vec<(&'a AntiAffinity, BTreeMap<&'a NodeName, ()>)>,
    volumes: Vec<&'a Arc<Volume>>,
    /// Of its volumes, and of those that will be made for it once it has a node.
    drivers: BTreeSet<&'a Name>,
}

impl<'a> Search<'a> {
    fn new(state: &'a State, key: &Key, pod: &'a Pod) -> Self {
        let set = Key { namespace: key.namespace.clone(), name: pod.set.clone() };
        let siblings = state.siblings(&set);
        let fewest = siblings.filter(|counts| state.nodes.len() <= counts.len()).and_then(|c| c.values().min());
        let siblings_min = fewest.copied().unwrap_or(0);
        let avoid = |rule: &AntiAffinity| {
            let is_avoided = |labels: &Labels| rule.labels.iter().all(|(l, v)| labels.get(l) == Some(v));
            state
                .pods
                .iter()
                .filter(|(other, p)| other.namespace == key.namespace && *other != key && is_avoided(&p.meta.labels))
                .filter_map(|(_, p)| p.binding.as_ref().map(|b| (&b.node, ())))
                .collect()
        };
        let avoided = pod.template.anti_affinity.iter().map(|rule| (rule, avoid(rule))).collect();
        let volumes: Vec<_> = state.volumes_of(pod).map(|(_, volume)| volume).collect();
        let mut drivers: BTreeSet<&Name> = volumes.iter().map(|volume| &volume.spec.driver).collect();
        let unbound = pod.claims.iter().filter_map(|pod_claim| state.claims.get(&pod_claim.claim));
        for claim in unbound.filter(|claim| claim.volume.is_none()) {
            let provisioner = class_of(state, claim.spec.class.as_ref()).map(|(_, class)| &class.spec.provisioner);
            drivers.extend(provisioner.filter(|driver| driver.as_str() != driver::NO_PROVISIONER));
        }
        Self { state, pod, requests: pod.template.requests(), siblings, siblings_min, avoided, volumes, drivers }
    }

    /// Asked of each node for each pod: what is always the same text is not made anew.
    fn refuses(&self, name: &NodeName, node: &Node) -> Option<Cow<'static, str>> {
        if node.unreachable.is_some() && !is_on(Mutant::SilentNodeChosen) {
            return Some("node is unreachable".into());
        }
        if node.is_cordoned && !is_on(Mutant::CordonIgnored) {
            return Some("node is unschedulable".into());
        }
        if node.shutdown.is_some() && !is_on(Mutant::LeavingNodeChosen) {
            return Some("node is being shut down".into());
        }
        if !node.leftovers.is_empty() && !is_on(Mutant::WorkDespiteLeftovers) {
            return Some("node still ends pods of a former assignment".into());
        }
        let template = &self.pod.template;
        let has = |label: &Name, value: &Name| match node.meta.labels.get(label) {
            Some(found) => found == value,
            None => label.as_str() == HOSTNAME && value.as_str() == name.as_str(),
        };
        if !template.node_selector.iter().all(|(label, value)| has(label, value)) {
            return Some("node does not match the pod's node selector".into());
        }
        if let Some(taint) = node.taints.iter().find(|t| t.effect.as_str() != "PreferNoSchedule" && !self.tolerates(t))
        {
            return Some(format!("node has untolerated taint {{{}: {}}}", taint.key, taint.value).into());
        }
        if self.avoided.iter().any(|(rule, nodes)| rule.weight.is_none() && nodes.contains_key(name)) {
            return Some("node does not satisfy the pod's anti-affinity rules".into());
        }
        if node.capacity.cpu_milli < node.reserved.plus(self.requests).cpu_milli {
            return Some("insufficient cpu".into());
        }
        if node.capacity.memory_bytes < node.reserved.plus(self.requests).memory_bytes {
            return Some("insufficient memory".into());
        }
        if node.pods_max <= node.pod_count {
            return Some("too many pods".into());
        }
        self.volume_refuses(name, node)
    }

    fn volume_refuses(&self, node: &NodeName, record: &Node) -> Option<Cow<'static, str>> {
        if let Some(refusal) = self.drivers.iter().find_map(|driver| driver::refusal(record, driver)) {
            return Some(refusal.into());
        }
        for volume in &self.volumes {
            if !volume.spec.nodes.is_empty() && !volume.spec.nodes.contains(node) {
                return Some("node cannot reach the pod's volume".into());
            }
            let is_elsewhere = volume.attachments.keys().any(|other| other != node);
            if is_elsewhere && !volume.spec.access.is_shared() && !is_on(Mutant::AttachedTwice) {
                return Some("the pod's volume is attached to another node".into());
            }
        }
        None
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.pod.template.tolerations.iter().any(|toleration: &Toleration| {
            (toleration.key.as_str().is_empty() || toleration.key == taint.key)
                && (toleration.effect.as_str().is_empty() || toleration.effect == taint.effect)
                && toleration.value.as_ref().is_none_or(|value| *value == taint.value)
        })
    }

    /// Higher is better: spread the set, heed preferences, avoid soft taints, then the emptiest node.
    fn score(&self, name: &NodeName, node: &Node) -> Score {
        debug_assert!(self.state.nodes.contains_key(name), "candidates come from the state");
        let siblings = self.siblings.and_then(|counts| counts.get(name)).copied().unwrap_or(0);
        let dislike =
            self.avoided.iter().filter(|(_, nodes)| nodes.contains_key(name)).filter_map(|(rule, _)| rule.weight).sum();
        let soft = node.taints.iter().filter(|t| t.effect.as_str() == "PreferNoSchedule" && !self.tolerates(t)).count();
        (Reverse(siblings), Reverse(dislike), Reverse(soft), Reverse(load(node)))
    }

    /// Whether only an emptier node could be better.
    fn is_unbeaten(&self, score: &Score) -> bool {
        let (Reverse(siblings), Reverse(dislike), Reverse(soft), _) = score;
        *siblings <= self.siblings_min && *dislike == 0 && *soft == 0
    }
}
