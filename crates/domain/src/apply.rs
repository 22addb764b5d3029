//! The fold: each event's effect on the state. Total, without choices, and for ever: an event about an object that
//! is not there does nothing, and no setting is ever looked at.

use crate::event::{Batch, Event, Registration};
use crate::id::{Fence, Incarnation, Key, Name, NodeName, Ordinal, RequestId, Revision, RevisionName, Uid, VolumeName};
use crate::object::{
    Attachment, Binding, Claim, Class, Deletion, Hold, Meta, Node, Pod, PodClaim, PodStatus, Service, Set,
    TemplateRevision, Unreachable, Volume, VolumePhase,
};
use crate::spec::{Labels, SetSpec};
use crate::state::{Place, REQUESTS_MAX, State, load};
use std::sync::Arc;

/// The label that holds a pod's own name (semantics A1-4).
pub const LABEL_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label that holds a pod's ordinal.
pub const LABEL_POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// The label that holds the name of a pod's template revision (semantics A1-5).
pub const LABEL_REVISION: &str = "controller-revision-hash";

impl State {
    /// Applies a batch, if it was decided at this very revision; says whether it did.
    pub fn apply_batch(&mut self, batch: &Batch) -> bool {
        if batch.base != self.revision {
            return false;
        }
        self.at_ms = self.at_ms.max(batch.at_ms);
        for event in &batch.events {
            self.apply(event);
        }
        if let Some(request) = &batch.request {
            self.remember(request);
        }
        true
    }

    /// Remembers that a request was applied.
    pub(crate) fn remember(&mut self, request: &RequestId) {
        if self.requests.insert(request.clone(), self.revision).is_none() {
            // No two batches lead to the same revision.
            self.requests_by_age.insert(self.revision, request.clone());
        }
        while REQUESTS_MAX < self.requests.len() {
            let Some(oldest) = self.requests_by_age.get_min().map(|(revision, _)| *revision) else { return };
            if let Some(request) = self.requests_by_age.remove(&oldest) {
                self.requests.remove(&request);
            }
        }
    }

    /// Applies one event.
    pub fn apply(&mut self, event: &Event) {
        self.revision = self.revision.next();
        match event {
            Event::ClusterFormed { cluster } => self.cluster = cluster.clone(),
            Event::SetCreated { .. }
            | Event::SetUpdated { .. }
            | Event::SetScaled { .. }
            | Event::SetRemoved { .. }
            | Event::RevisionTargeted { .. }
            | Event::RolloutCompleted { .. }
            | Event::RevisionForgotten { .. } => self.apply_set(event),
            Event::PodCreated { .. }
            | Event::PodBound { .. }
            | Event::PodUnplaced { .. }
            | Event::PodReported { .. }
            | Event::PodBecameAvailable { .. }
            | Event::PodBecameUnavailable { .. }
            | Event::PodDeletionRequested { .. }
            | Event::PodRemoved { .. }
            | Event::PodHeld { .. }
            | Event::PodResumed { .. }
            | Event::PodOrphaned { .. }
            | Event::PodAdopted { .. } => self.apply_pod(event),
            Event::ClaimCreated { .. }
            | Event::ClaimUpdated { .. }
            | Event::ClaimBound { .. }
            | Event::ClaimDeletionRequested { .. }
            | Event::ClaimRemoved { .. }
            | Event::ClaimLost { .. } => self.apply_claim(event),
            Event::VolumeCreated { .. }
            | Event::VolumeUpdated { .. }
            | Event::VolumeReleased { .. }
            | Event::VolumeDeletionRequested { .. }
            | Event::VolumeRemoved { .. }
            | Event::AttachmentRequested { .. }
            | Event::VolumeAttached { .. }
            | Event::AttachmentReleased { .. } => self.apply_volume(event),
            Event::ClassApplied { .. }
            | Event::ClassRemoved { .. }
            | Event::ServiceApplied { .. }
            | Event::ServiceRemoved { .. } => self.apply_config(event),
            Event::NodeRegistered { .. }
            | Event::NodeUpdated { .. }
            | Event::NodeUnreachable { .. }
            | Event::NodeReturned { .. }
            | Event::LeftoversEnded { .. }
            | Event::NodeCordoned { .. }
            | Event::NodeUncordoned { .. }
            | Event::NodeRemoved { .. } => self.apply_node(event),
        }
    }

    fn new_meta(&self, labels: &Labels, annotations: &Labels) -> Meta {
        Meta {
            uid: Uid(self.revision.0),
            generation: crate::id::Generation(1),
            modified: self.revision,
            created_at_ms: self.at_ms,
            labels: labels.clone(),
            annotations: annotations.clone(),
        }
    }

    fn apply_set(&mut self, event: &Event) {
        match event {
            Event::SetCreated { set, labels, annotations, spec } => {
                let meta = self.new_meta(labels, annotations);
                self.sets.insert(set.clone(), Arc::new(Set { meta, spec: spec.clone(), ..Set::default() }));
            }
            Event::SetUpdated { set, labels, annotations, spec } => {
                self.set_mut(set, |s| s.update(labels, annotations, spec));
            }
            Event::SetScaled { set, replicas } => self.set_mut(set, |s| {
                s.spec.replicas = *replicas;
                s.meta.generation = s.meta.generation.next();
            }),
            Event::SetRemoved { set } => {
                self.sets.remove(set);
            }
            Event::RevisionTargeted { set, revision, number } => {
                self.set_mut(set, |s| s.target(revision, *number));
            }
            Event::RolloutCompleted { set, revision } => {
                self.set_mut(set, |s| s.current_revision = revision.clone());
            }
            Event::RevisionForgotten { set, revision } => {
                self.set_mut(set, |s| s.revisions.retain(|r| r.name != *revision));
            }
            _ => unreachable!("apply sends only events of sets here"),
        }
    }

    fn set_mut(&mut self, key: &Key, change: impl FnOnce(&mut Set)) {
        let revision = self.revision;
        if let Some(set) = self.sets.get_mut(key) {
            let set = Arc::make_mut(set);
            change(set);
            set.meta.modified = revision;
        }
    }

    fn apply_pod(&mut self, event: &Event) {
        match event {
            Event::PodCreated { set, ordinal, revision, claims } => self.create_pod(set, *ordinal, revision, claims),
            Event::PodBound { pod, node, address } => self.bind_pod(pod, node, *address),
            Event::PodUnplaced { pod, why } => self.pod_mut(pod, None, |p, _| p.unplaced = Some(why.clone())),
            Event::PodReported { pod, uid, status } => self.report_pod(pod, *uid, status),
            Event::PodBecameAvailable { pod, uid } => self.pod_mut(pod, Some(*uid), |p, _| p.is_available = true),
            Event::PodBecameUnavailable { pod, uid } => self.pod_mut(pod, Some(*uid), |p, _| p.is_available = false),
            Event::PodDeletionRequested { pod, uid, grace_ms, is_forced } => {
                self.pod_mut(pod, Some(*uid), |p, at_ms| {
                    let since = p.deletion.as_ref().map_or(at_ms, |d| d.at_ms);
                    p.deletion = Some(Deletion { at_ms: since, grace_ms: *grace_ms, is_forced: *is_forced });
                });
            }
            Event::PodRemoved { pod, uid, .. } => self.remove_pod(pod, *uid),
            Event::PodHeld { pod, uid, node, heard_at_ms } => {
                let since = self.revision;
                self.pod_mut(pod, Some(*uid), |p, at_ms| {
                    p.hold = Some(Hold { since, at_ms, node: node.clone(), heard_at_ms: *heard_at_ms });
                    p.is_available = false;
                });
            }
            Event::PodResumed { pod, uid } => self.pod_mut(pod, Some(*uid), |p, at_ms| {
                p.hold = None;
                p.ready_at_ms = at_ms;
            }),
            Event::PodOrphaned { pod, uid } => self.pod_mut(pod, Some(*uid), |p, _| p.owner = None),
            Event::PodAdopted { pod, uid, owner, revision } => self.pod_mut(pod, Some(*uid), |p, _| {
                p.owner = Some(*owner);
                p.revision = revision.clone();
            }),
            _ => unreachable!("apply sends only events of pods here"),
        }
    }

    fn create_pod(&mut self, set_key: &Key, ordinal: Ordinal, revision: &RevisionName, claims: &[PodClaim]) {
        let Some(set) = self.sets.get(set_key) else { return };
        let key = set_key.pod(ordinal);
        let template = set.template(revision).cloned().unwrap_or_default();
        let mut labels = template.labels.clone();
        labels.insert(LABEL_POD_NAME.into(), key.name.clone());
        labels.insert(LABEL_POD_INDEX.into(), ordinal.to_string().into());
        labels.insert(LABEL_REVISION.into(), revision.as_str().into());
        let incarnation = set.incarnations.get(&ordinal).copied().unwrap_or_default().next();
        let pod = Pod {
            meta: self.new_meta(&labels, &template.annotations),
            set: set_key.name.clone(),
            owner: Some(set.meta.uid),
            ordinal,
            incarnation,
            template,
            revision: revision.clone(),
            service_name: set.spec.service_name.clone(),
            claims: claims.to_vec(),
            ..Pod::default()
        };
        self.set_mut(set_key, |s| {
            s.incarnations.insert(ordinal, incarnation);
        });
        self.index.add_pod(&key, &pod);
        self.pods.insert(key, Arc::new(pod));
    }

    fn bind_pod(&mut self, key: &Key, node: &NodeName, address: u32) {
        let incarnation = self.nodes.get(node).map(|n| n.incarnation).unwrap_or_default();
        self.pod_mut(key, None, |p, at_ms| {
            p.binding = Some(Binding { node: node.clone(), incarnation, at_ms, address });
            p.unplaced = None;
        });
        let Some(requests) = self.pods.get(key).map(|p| p.template.requests()) else { return };
        self.node_mut(node, |n| {
            n.reserved = n.reserved.plus(requests);
            n.pod_count += 1;
        });
    }

    fn report_pod(&mut self, key: &Key, uid: Uid, status: &PodStatus) {
        self.pod_mut(key, Some(uid), |p, at_ms| {
            let was_ready = p.is_ready();
            p.status = status.clone();
            if !p.is_ready() {
                p.is_available = false;
            } else if !was_ready {
                p.ready_at_ms = at_ms;
            }
        });
    }

    fn remove_pod(&mut self, key: &Key, uid: Uid) {
        let Some(pod) = self.pod(key, uid).cloned() else { return };
        self.index.drop_pod(key, &pod);
        self.pods.remove(key);
        if let Some(binding) = &pod.binding {
            let requests = pod.template.requests();
            self.node_mut(&binding.node, |n| {
                n.reserved = n.reserved.minus(requests);
                n.pod_count = n.pod_count.saturating_sub(1);
            });
        }
    }

    fn pod_mut(&mut self, key: &Key, uid: Option<Uid>, change: impl FnOnce(&mut Pod, u64)) {
        let (revision, at_ms) = (self.revision, self.at_ms);
        let Some(slot) = self.pods.get_mut(key) else { return };
        if uid.is_some_and(|uid| slot.meta.uid != uid) {
            return;
        }
        let pod = Arc::make_mut(slot);
        let before = Place::of(pod);
        change(pod, at_ms);
        pod.meta.modified = revision;
        self.index.move_pod(key, &before, &Place::of(pod));
    }

    fn apply_claim(&mut self, event: &Event) {
        match event {
            Event::ClaimCreated { claim, labels, spec, annotations } => {
                let meta = self.new_meta(labels, annotations);
                let record = Claim { meta, spec: spec.clone(), ..Claim::default() };
                self.claims.insert(claim.clone(), Arc::new(record));
                self.index.unbound_claims.insert(claim.clone());
            }
            Event::ClaimUpdated { claim, labels, annotations, spec } => self.claim_mut(claim, |c, _| {
                c.meta.mark(labels, annotations, c.spec != *spec);
                c.spec = spec.clone();
            }),
            Event::ClaimBound { claim, volume } => {
                let Some(uid) = self.claims.get(claim).map(|c| c.meta.uid) else { return };
                self.claim_mut(claim, |c, _| c.volume = Some(volume.clone()));
                self.index.unbound_claims.remove(claim);
                self.index.free_volumes.remove(volume);
                self.volume_mut(volume, |v, _| {
                    v.claim = Some((claim.clone(), uid));
                    v.phase = VolumePhase::Bound;
                });
            }
            Event::ClaimDeletionRequested { claim } => {
                self.claim_mut(claim, |c, at_ms| c.deleting_at_ms = Some(at_ms));
            }
            Event::ClaimRemoved { claim } => {
                self.claims.remove(claim);
                self.index.unbound_claims.remove(claim);
            }
            Event::ClaimLost { claim } => self.claim_mut(claim, |c, _| c.is_lost = true),
            _ => unreachable!("apply sends only events of claims here"),
        }
    }

    fn claim_mut(&mut self, key: &Key, change: impl FnOnce(&mut Claim, u64)) {
        let (revision, at_ms) = (self.revision, self.at_ms);
        if let Some(claim) = self.claims.get_mut(key) {
            let claim = Arc::make_mut(claim);
            change(claim, at_ms);
            claim.meta.modified = revision;
        }
    }

    fn apply_volume(&mut self, event: &Event) {
        match event {
            Event::VolumeCreated { volume, labels, spec, annotations } => {
                let meta = self.new_meta(labels, annotations);
                let record = Volume { meta, spec: spec.clone(), ..Volume::default() };
                self.volumes.insert(volume.clone(), Arc::new(record));
                self.index.free_volumes.insert(volume.clone());
            }
            Event::VolumeUpdated { volume, labels, annotations, spec } => self.volume_mut(volume, |v, _| {
                v.meta.mark(labels, annotations, v.spec != *spec);
                v.spec = spec.clone();
            }),
            Event::VolumeReleased { volume } => {
                self.volume_mut(volume, |v, _| v.phase = VolumePhase::Released);
            }
            Event::VolumeDeletionRequested { volume } => {
                self.volume_mut(volume, |v, _| v.phase = VolumePhase::Deleting);
                self.index.free_volumes.remove(volume);
                self.index.removals.insert(volume.clone());
            }
            Event::VolumeRemoved { volume } => {
                self.volumes.remove(volume);
                self.index.removals.remove(volume);
                self.index.free_volumes.remove(volume);
            }
            Event::AttachmentRequested { volume, node, fence } => self.attach(volume, node, *fence),
            Event::VolumeAttached { volume, node, fence } => self.volume_mut(volume, |v, _| {
                if let Some(attachment) = v.attachments.get_mut(node).filter(|a| a.fence == *fence) {
                    attachment.is_attached = true;
                }
            }),
            Event::AttachmentReleased { volume, node, fence, .. } => self.volume_mut(volume, |v, _| {
                if v.attachments.get(node).is_some_and(|a| a.fence == *fence) {
                    v.attachments.remove(node);
                }
            }),
            _ => unreachable!("apply sends only events of volumes here"),
        }
    }

    fn attach(&mut self, volume: &VolumeName, node: &NodeName, fence: Fence) {
        let incarnation = self.nodes.get(node).map(|n| n.incarnation).unwrap_or_default();
        self.volume_mut(volume, |v, at_ms| {
            v.fence = v.fence.max(fence);
            v.attachments.insert(node.clone(), Attachment { incarnation, fence, is_attached: false, at_ms });
        });
    }

    fn volume_mut(&mut self, name: &VolumeName, change: impl FnOnce(&mut Volume, u64)) {
        let (revision, at_ms) = (self.revision, self.at_ms);
        if let Some(volume) = self.volumes.get_mut(name) {
            let volume = Arc::make_mut(volume);
            change(volume, at_ms);
            volume.meta.modified = revision;
        }
    }

    fn apply_config(&mut self, event: &Event) {
        match event {
            Event::ClassApplied { class, spec, labels, annotations } => {
                let mut meta = self.new_meta(labels, annotations);
                if let Some(old) = self.classes.get(class) {
                    meta.inherit(&old.meta);
                }
                self.classes.insert(class.clone(), Arc::new(Class { meta, spec: spec.clone() }));
            }
            Event::ClassRemoved { class } => {
                self.classes.remove(class);
            }
            Event::ServiceApplied { service, labels, annotations, spec } => {
                let mut meta = self.new_meta(labels, annotations);
                if let Some(old) = self.services.get(service) {
                    meta.inherit(&old.meta);
                }
                self.services.insert(service.clone(), Arc::new(Service { meta, spec: spec.clone() }));
            }
            Event::ServiceRemoved { service } => {
                self.services.remove(service);
            }
            _ => unreachable!("apply sends only events of classes and services here"),
        }
    }

    fn apply_node(&mut self, event: &Event) {
        match event {
            Event::NodeRegistered { node, incarnation, registration } => {
                self.register(node, *incarnation, registration);
            }
            Event::NodeUpdated { node, registration } => self.node_mut(node, |n| n.describe(registration)),
            Event::NodeUnreachable { node, heard_at_ms } => {
                let (since, at_ms) = (self.revision, self.at_ms);
                self.node_mut(node, |n| {
                    n.unreachable = Some(Unreachable { since, at_ms, heard_at_ms: *heard_at_ms });
                });
            }
            Event::NodeReturned { node, leftovers } => self.node_mut(node, |n| {
                n.unreachable = None;
                n.leftovers.clone_from(leftovers);
            }),
            Event::LeftoversEnded { node, ended } => {
                self.node_mut(node, |n| n.leftovers.retain(|uid| !ended.contains(uid)));
            }
            Event::NodeCordoned { node } => self.node_mut(node, |n| n.is_cordoned = true),
            Event::NodeUncordoned { node } => self.node_mut(node, |n| n.is_cordoned = false),
            Event::NodeRemoved { node } => {
                if let Some(removed) = self.nodes.remove(node) {
                    self.index.move_node(node, Some(load(&removed)), None);
                }
            }
            _ => unreachable!("apply sends only events of nodes here"),
        }
    }

    fn register(&mut self, name: &NodeName, incarnation: Incarnation, registration: &Registration) {
        let mut node = Node { meta: self.new_meta(&Labels::new(), &Labels::new()), ..Node::default() };
        if let Some(old) = self.nodes.get(name) {
            node.meta.inherit(&old.meta);
            node.is_cordoned = old.is_cordoned;
        }
        node.describe(registration);
        node.incarnation = incarnation;
        node.boot_id = registration.boot_id.clone();
        node.machine_id = registration.machine_id.clone();
        node.leftovers.clone_from(&registration.leftovers);
        self.node_incarnations.insert(name.clone(), incarnation);
        let after = load(&node);
        let former = self.nodes.insert(name.clone(), Arc::new(node));
        self.index.move_node(name, former.map(|former| load(&former)), Some(after));
    }

    fn node_mut(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        let revision = self.revision;
        if let Some(node) = self.nodes.get_mut(name) {
            let node = Arc::make_mut(node);
            let before = load(node);
            change(node);
            node.meta.modified = revision;
            self.index.move_node(name, Some(before), Some(load(node)));
        }
    }
}

impl Meta {
    /// Takes over what users wrote; the generation counts changes of the spec alone.
    fn mark(&mut self, labels: &Labels, annotations: &Labels, is_spec_changed: bool) {
        self.labels.clone_from(labels);
        self.annotations.clone_from(annotations);
        if is_spec_changed {
            self.generation = self.generation.next();
        }
    }

    /// Goes on as the same object.
    fn inherit(&mut self, old: &Self) {
        self.uid = old.uid;
        self.created_at_ms = old.created_at_ms;
        self.generation = old.generation.next();
    }
}

impl Node {
    fn describe(&mut self, registration: &Registration) {
        self.capacity = registration.capacity;
        self.pods_max = registration.pods_max;
        self.meta.labels.clone_from(&registration.labels);
        self.taints.clone_from(&registration.taints);
        self.info.clone_from(&registration.info);
    }
}

impl Set {
    fn update(&mut self, labels: &Labels, annotations: &Labels, spec: &SetSpec) {
        self.meta.mark(labels, annotations, self.spec != *spec);
        self.spec = spec.clone();
    }

    fn target(&mut self, name: &RevisionName, number: u64) {
        let template = self.template(name).cloned().unwrap_or_else(|| Arc::clone(&self.spec.template));
        self.revisions.retain(|r| r.name != *name);
        self.revisions.push(Arc::new(TemplateRevision { name: name.clone(), number, template }));
        self.update_revision = name.clone();
        if self.current_revision == RevisionName::default() {
            self.current_revision = name.clone();
        }
    }
}

/// The revision and name of everything that an event is about, for indexes of events.
pub fn revisions_of(batch: &Batch) -> impl Iterator<Item = (Revision, &Event)> {
    batch.events.iter().enumerate().map(|(i, event)| (Revision(batch.base.0 + 1 + i as u64), event))
}

impl Event {
    /// The kind and the key of the object that it is about; the namespace is empty for objects of the whole cluster.
    #[must_use]
    pub fn object(&self) -> (&'static str, Key) {
        let cluster_wide = |name: &str| Key { namespace: Name::default(), name: name.into() };
        match self {
            Self::ClusterFormed { cluster } => ("Cluster", cluster_wide(cluster.as_str())),
            Self::SetCreated { set, .. }
            | Self::SetUpdated { set, .. }
            | Self::SetScaled { set, .. }
            | Self::SetRemoved { set }
            | Self::RevisionTargeted { set, .. }
            | Self::RolloutCompleted { set, .. }
            | Self::RevisionForgotten { set, .. } => ("StatefulSet", set.clone()),
            Self::PodCreated { set, ordinal, .. } => ("Pod", set.pod(*ordinal)),
            Self::PodBound { pod, .. }
            | Self::PodUnplaced { pod, .. }
            | Self::PodReported { pod, .. }
            | Self::PodBecameAvailable { pod, .. }
            | Self::PodBecameUnavailable { pod, .. }
            | Self::PodDeletionRequested { pod, .. }
            | Self::PodRemoved { pod, .. }
            | Self::PodHeld { pod, .. }
            | Self::PodResumed { pod, .. }
            | Self::PodOrphaned { pod, .. }
            | Self::PodAdopted { pod, .. } => ("Pod", pod.clone()),
            Self::ClaimCreated { claim, .. }
            | Self::ClaimUpdated { claim, .. }
            | Self::ClaimBound { claim, .. }
            | Self::ClaimDeletionRequested { claim }
            | Self::ClaimRemoved { claim }
            | Self::ClaimLost { claim } => ("PersistentVolumeClaim", claim.clone()),
            Self::VolumeCreated { volume, .. }
            | Self::VolumeUpdated { volume, .. }
            | Self::VolumeReleased { volume }
            | Self::VolumeDeletionRequested { volume }
            | Self::VolumeRemoved { volume }
            | Self::AttachmentRequested { volume, .. }
            | Self::VolumeAttached { volume, .. }
            | Self::AttachmentReleased { volume, .. } => ("PersistentVolume", cluster_wide(volume.as_str())),
            Self::ClassApplied { class, .. } | Self::ClassRemoved { class } => {
                ("StorageClass", cluster_wide(class.as_str()))
            }
            Self::ServiceApplied { service, .. } | Self::ServiceRemoved { service } => ("Service", service.clone()),
            Self::NodeRegistered { node, .. }
            | Self::NodeUpdated { node, .. }
            | Self::NodeUnreachable { node, .. }
            | Self::NodeReturned { node, .. }
            | Self::LeftoversEnded { node, .. }
            | Self::NodeCordoned { node }
            | Self::NodeUncordoned { node }
            | Self::NodeRemoved { node } => ("Node", cluster_wide(node.as_str())),
        }
    }
}
