//! The fold: each event's effect on the state. Total, without choices, and for ever: an event about an object that
//! is not there does nothing, and no setting is ever looked at.

mod cluster;

use crate::event::{Batch, Event, RemovalCause};
use crate::id::{Fence, Incarnation, Key, Name, NodeName, Ordinal, RequestId, RevisionName, Uid, VolumeName};
use crate::object::{
    Attachment, Binding, Claim, Deletion, Growth, Hold, Meta, Pod, PodClaim, PodEnd, PodStatus, Set, TemplateRevision,
    Volume, VolumePhase,
};
use crate::spec::{Labels, SetSpec};
use crate::state::{Place, State};
use mutants::{Mutant, is_on};
use std::sync::{Arc, LazyLock};

/// The label that holds a pod's own name (semantics A1-4).
pub const LABEL_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label that holds a pod's ordinal.
pub const LABEL_POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// The annotation of a set that says why its template was changed; `rollout history` shows it.
pub const ANNOTATION_CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
/// The label that holds the name of a pod's template revision (semantics A1-5).
pub const LABEL_REVISION: &str = "controller-revision-hash";

/// The names of the labels that every pod has, shared by all.
static OWN_LABELS: LazyLock<[Name; 3]> =
    LazyLock::new(|| [LABEL_POD_NAME, LABEL_POD_INDEX, LABEL_REVISION].map(Name::new));

impl State {
    /// Applies a batch, if it was decided at this very revision; says whether it did.
    pub fn apply_batch(&mut self, batch: &Batch) -> bool {
        if batch.base != self.revision && !is_on(Mutant::BatchAtWrongBase) {
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
        self.requests.insert(request.clone(), self.revision);
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
            | Event::PodAdopted { .. }
            | Event::PodMarked { .. }
            | Event::PodFinalizersChanged { .. }
            | Event::PodEnded { .. } => self.apply_pod(event),
            Event::ClaimCreated { .. }
            | Event::ClaimUpdated { .. }
            | Event::ClaimBound { .. }
            | Event::ClaimDeletionRequested { .. }
            | Event::ClaimRemoved { .. }
            | Event::ClaimLost { .. }
            | Event::ClaimFinalizersChanged { .. } => self.apply_claim(event),
            Event::VolumeCreated { .. }
            | Event::VolumeUpdated { .. }
            | Event::VolumeGrowthBegan { .. }
            | Event::VolumeGrown { .. }
            | Event::VolumeReleased { .. }
            | Event::VolumeDeletionRequested { .. }
            | Event::VolumeRemoved { .. }
            | Event::AttachmentRequested { .. }
            | Event::VolumeAttached { .. }
            | Event::AttachmentReleased { .. } => self.apply_volume(event),
            Event::ClassApplied { .. }
            | Event::ClassRemoved { .. }
            | Event::ServiceApplied { .. }
            | Event::ServiceRemoved { .. }
            | Event::BudgetApplied { .. }
            | Event::BudgetRemoved { .. }
            | Event::ConfigApplied { .. }
            | Event::ConfigRemoved { .. } => self.apply_config(event),
            Event::NodeRegistered { .. }
            | Event::NodeUpdated { .. }
            | Event::NodeUnreachable { .. }
            | Event::NodeReturned { .. }
            | Event::LeftoversEnded { .. }
            | Event::NodeCordoned { .. }
            | Event::NodeUncordoned { .. }
            | Event::NodeShutdownBegan { .. }
            | Event::NodeShutdownEnded { .. }
            | Event::NodeMarked { .. }
            | Event::NodeRemoved { .. } => self.apply_node(event),
            Event::ServersFounded { .. }
            | Event::ServerAdded { .. }
            | Event::ServerPromoted { .. }
            | Event::ServerAddressed { .. }
            | Event::ServerRemoved { .. } => self.apply_server(event),
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
            Event::RevisionTargeted { set, revision, number, is_collision } => {
                let (uid, created_at_ms) = (Uid(self.revision.0), self.at_ms);
                self.set_mut(set, |s| {
                    s.target(revision, TemplateRevision { number: *number, uid, created_at_ms, ..Default::default() });
                    s.collision_count += u32::from(*is_collision);
                });
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
            Event::PodAdopted { pod, uid, owner, revision } => self.adopt_pod(pod, *uid, *owner, revision),
            Event::PodMarked { pod, uid, labels, annotations } => self.pod_mut(pod, Some(*uid), |p, _| {
                p.meta.mark(labels, annotations, false);
            }),
            Event::PodFinalizersChanged { pod, uid, finalizers } => {
                self.pod_mut(pod, Some(*uid), |p, _| p.finalizers.clone_from(finalizers));
            }
            Event::PodEnded { pod, uid, cause } => self.end_pod(pod, *uid, cause),
            _ => unreachable!("apply sends only events of pods here"),
        }
    }

    fn create_pod(&mut self, set_key: &Key, ordinal: Ordinal, revision: &RevisionName, claims: &[PodClaim]) {
        let Some(set) = self.sets.get(set_key) else { return };
        let key = set_key.pod(ordinal);
        let template = set.template(revision).cloned().unwrap_or_default();
        let own = [key.name.clone(), ordinal.to_string().into(), revision.shared().into()];
        let labels = template.labels.clone().into_iter().chain(OWN_LABELS.iter().cloned().zip(own)).collect();
        let incarnation = set.incarnations.get(&ordinal).copied().unwrap_or_default().next();
        let finalizers = template.finalizers.clone();
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
            finalizers,
            ..Pod::default()
        };
        self.set_mut(set_key, |s| {
            s.incarnations.insert(ordinal, incarnation);
        });
        self.index.add_pod(&key, &pod);
        self.pods.insert(key, Arc::new(pod));
    }

    fn adopt_pod(&mut self, key: &Key, uid: Uid, owner: Uid, revision: &RevisionName) {
        self.pod_mut(key, Some(uid), |p, _| {
            p.owner = Some(owner);
            p.revision = revision.clone();
            p.meta.labels.insert(LABEL_REVISION.into(), revision.shared().into());
        });
        let Some(pod) = self.pod(key, uid) else { return };
        let (ordinal, incarnation) = (pod.ordinal, pod.incarnation);
        let set = Key { namespace: key.namespace.clone(), name: pod.set.clone() };
        self.set_mut(&set, |s| {
            let known = s.incarnations.entry(ordinal).or_default();
            *known = incarnation.max(*known);
        });
    }

    fn bind_pod(&mut self, key: &Key, node: &NodeName, address: u32) {
        let (node, incarnation) = self.member(node);
        let node = &node;
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

    /// A node's name as all that speak of it share it, and its incarnation.
    fn member(&self, node: &NodeName) -> (NodeName, Incarnation) {
        let known = self.nodes.get_key_value(node);
        known
            .map_or_else(|| (node.clone(), Incarnation::default()), |(name, record)| (name.clone(), record.incarnation))
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
        self.free_room(&pod);
    }

    /// What a pod had reserved on its node.
    fn free_room(&mut self, pod: &Pod) {
        if let Some(binding) = &pod.binding {
            let requests = pod.template.requests();
            self.node_mut(&binding.node, |n| {
                n.reserved = n.reserved.minus(requests);
                n.pod_count = n.pod_count.saturating_sub(1);
            });
        }
    }

    fn end_pod(&mut self, key: &Key, uid: Uid, cause: &RemovalCause) {
        let Some(pod) = self.pod(key, uid).cloned() else { return };
        self.free_room(&pod);
        self.pod_mut(key, Some(uid), |p, at_ms| {
            let node = p.binding.take().map(|binding| binding.node);
            p.end = Some(Arc::new(PodEnd { cause: cause.clone(), at_ms, node }));
            p.deletion.get_or_insert(Deletion { at_ms, ..Deletion::default() });
            (p.hold, p.is_available, p.status.is_ready) = (None, false, false);
            for container in p.status.containers.iter_mut().chain(&mut p.status.init_containers) {
                (container.is_running, container.is_ready) = (false, false);
            }
        });
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
            Event::ClaimFinalizersChanged { claim, finalizers } => {
                self.claim_mut(claim, |c, _| c.finalizers.clone_from(finalizers));
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
            Event::VolumeGrowthBegan { volume, from_bytes } => self.volume_mut(volume, |v, at_ms| {
                v.growth = Some(Growth { from_bytes: *from_bytes, at_ms });
            }),
            Event::VolumeGrown { volume } => self.volume_mut(volume, |v, _| v.growth = None),
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
        let (node, incarnation) = self.member(node);
        self.volume_mut(volume, |v, at_ms| {
            v.fence = v.fence.max(fence);
            v.attachments.insert(node, Attachment { incarnation, fence, is_attached: false, at_ms });
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

impl Set {
    fn update(&mut self, labels: &Labels, annotations: &Labels, spec: &SetSpec) {
        self.meta.mark(labels, annotations, self.spec != *spec);
        self.spec = spec.clone();
    }

    /// `new` says what is new of the revision; what it was before, it stays.
    fn target(&mut self, name: &RevisionName, new: TemplateRevision) {
        let known = self.revisions.iter().find(|r| r.name == *name).map(|r| (**r).clone());
        let made = TemplateRevision { name: name.clone(), template: Arc::clone(&self.spec.template), ..new };
        let mut revision = known.unwrap_or(made);
        revision.number = new.number;
        revision.cause = self.meta.annotations.get(&ANNOTATION_CHANGE_CAUSE.into()).cloned().unwrap_or_default();
        self.revisions.retain(|r| r.name != *name);
        self.revisions.push(Arc::new(revision));
        self.update_revision = name.clone();
        if self.current_revision == RevisionName::default() {
            self.current_revision = name.clone();
        }
    }
}
