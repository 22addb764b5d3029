//! Claims, volumes, classes and attachments, both ways.

use super::check::{At, FieldError, labels_to_wire};
use super::meta::{
    Marks, all_marks_from_wire, cluster_meta_to_wire, condition, finalizers_from_wire, marks_from_wire, meta_to_wire,
    namespace_of,
};
use super::template::{quantity, selector_from_wire};
use crate::name::{check_label, check_label_value, check_subdomain};
use crate::quantity::{format_bytes, parse_bytes};
use crate::time::format_ms;
use crate::v1;
use domain::State;
use domain::driver::DRIVER_DIR;
use domain::id::{ClassName, Key, Name, NodeName, Uid, VolumeName};
use domain::object::{Attachment, Claim, Class, Volume, VolumePhase};
use domain::spec::{AccessModes, ClaimSpec, ClassSpec, Labels, Reclaim, VolumeSpec};
use domain::uid_text;
use std::collections::BTreeMap;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Reads a claim.
///
/// # Errors
/// The first field that breaks a rule.
pub fn claim_from_wire(
    wire: &v1::PersistentVolumeClaim,
) -> Result<(Key, Labels, Labels, ClaimSpec, Vec<Name>), FieldError> {
    let Marks { key, labels, annotations } = all_marks_from_wire(wire.metadata.as_ref(), check_subdomain)?;
    let finalizers = wire.metadata.as_ref().map_or(&[][..], |meta| &meta.finalizers);
    let finalizers = finalizers_from_wire(finalizers, At::root("metadata"))?;
    let spec = claim_spec_from_wire(wire.spec.as_ref(), At::root("spec"))?;
    Ok((key, labels, annotations, spec, finalizers))
}

/// What an apply means for a claim that is there: the volume that it was bound to was not asked for.
#[must_use]
pub fn claim_onto(known: &Claim, spec: ClaimSpec) -> ClaimSpec {
    let is_bound_to = |volume: &Name| known.volume.as_ref().is_some_and(|bound| bound.as_str() == volume.as_str());
    match &spec.volume {
        Some(volume) if known.spec.volume.is_none() && is_bound_to(volume) => ClaimSpec { volume: None, ..spec },
        _ => spec,
    }
}

pub(super) fn claim_spec_from_wire(
    wire: Option<&v1::PersistentVolumeClaimSpec>,
    at: At<'_>,
) -> Result<ClaimSpec, FieldError> {
    let wire = at.required(wire)?;
    let requests_at = at.to("resources");
    let requests_at = requests_at.to("requests");
    let requests = wire.resources.as_ref().map(|resources| &resources.requests);
    let request_bytes = match requests {
        Some(requests) => quantity(requests, "storage", parse_bytes, requests_at)?,
        None => None,
    };
    let class = match wire.storage_class_name.as_deref() {
        None => None,
        Some("") => Some(ClassName::default()),
        Some(name) => Some(ClassName::from(at.to("storageClassName").name(name, check_subdomain)?.as_str())),
    };
    let volume = match wire.volume_name.as_str() {
        "" => None,
        name => Some(at.to("volumeName").name(name, check_subdomain)?),
    };
    Ok(ClaimSpec {
        access: access_from_wire(&wire.access_modes, at.to("accessModes"))?,
        class,
        request_bytes: request_bytes
            .filter(|bytes| 0 < *bytes)
            .ok_or_else(|| requests_at.to("storage").refuse("is required, and must be above 0"))?,
        volume,
        selector: match &wire.selector {
            None => Labels::new(),
            selector => selector_from_wire(selector.as_ref(), at.to("selector"))?,
        },
    })
}

fn access_from_wire(wire: &[String], at: At<'_>) -> Result<AccessModes, FieldError> {
    let mut access = AccessModes::default();
    for mode in wire {
        match mode.as_str() {
            "ReadWriteOnce" => access.read_write_once = true,
            "ReadWriteOncePod" => access.read_write_once_pod = true,
            "ReadOnlyMany" => access.read_only_many = true,
            "ReadWriteMany" => access.read_write_many = true,
            _ => {
                let rule = format_args!(
                    "must be ReadWriteOnce, ReadOnlyMany, ReadWriteMany or ReadWriteOncePod, and {mode:?} is there"
                );
                return Err(at.refuse(rule));
            }
        }
    }
    if access.count() == 0 {
        return Err(at.refuse("is required"));
    }
    if access.read_write_once_pod && 1 < access.count() {
        return Err(at.refuse("ReadWriteOncePod cannot be combined with another mode"));
    }
    Ok(access)
}

fn access_to_wire(access: AccessModes) -> Vec<String> {
    let modes = [
        (access.read_write_once, "ReadWriteOnce"),
        (access.read_only_many, "ReadOnlyMany"),
        (access.read_write_many, "ReadWriteMany"),
        (access.read_write_once_pod, "ReadWriteOncePod"),
    ];
    modes.into_iter().filter(|(is_there, _)| *is_there).map(|(_, mode)| mode.to_owned()).collect()
}

fn storage(bytes: u64) -> BTreeMap<String, String> {
    BTreeMap::from([("storage".to_owned(), format_bytes(bytes))])
}

pub(super) fn claim_spec_to_wire(spec: &ClaimSpec) -> v1::PersistentVolumeClaimSpec {
    v1::PersistentVolumeClaimSpec {
        access_modes: access_to_wire(spec.access),
        resources: Some(v1::ResourceRequirements {
            requests: storage(spec.request_bytes),
            ..v1::ResourceRequirements::default()
        }),
        storage_class_name: spec.class.as_ref().map(ToString::to_string),
        volume_name: spec.volume.as_ref().map(ToString::to_string).unwrap_or_default(),
        selector: (!spec.selector.is_empty()).then(|| v1::LabelSelector {
            match_labels: labels_to_wire(&spec.selector),
            ..v1::LabelSelector::default()
        }),
    }
}

/// Writes a claim.
#[must_use]
pub fn claim_to_wire(state: &State, key: &Key, claim: &Claim) -> v1::PersistentVolumeClaim {
    let mut metadata = meta_to_wire(state, key, &claim.meta);
    metadata.deletion_timestamp = claim.deleting_at_ms.map(format_ms).unwrap_or_default();
    metadata.finalizers = claim.finalizers.iter().map(ToString::to_string).collect();
    let mut spec = claim_spec_to_wire(&claim.spec);
    let volume = claim.volume.as_ref().and_then(|name| state.volumes.get(name));
    if let Some(name) = &claim.volume {
        spec.volume_name = name.to_string();
    }
    let phase = match (&claim.volume, claim.is_lost) {
        (_, true) => "Lost",
        (Some(_), false) => "Bound",
        (None, false) => "Pending",
    };
    v1::PersistentVolumeClaim {
        api_version: "v1".to_owned(),
        kind: "PersistentVolumeClaim".to_owned(),
        metadata: Some(metadata),
        spec: Some(spec),
        status: Some(v1::PersistentVolumeClaimStatus {
            phase: phase.to_owned(),
            access_modes: volume.map(|volume| access_to_wire(volume.spec.access)).unwrap_or_default(),
            capacity: volume.map(|volume| storage(size_of(volume))).unwrap_or_default(),
            conditions: claim_condition(state, key, claim).into_iter().collect(),
        }),
    }
}

/// What its users have of it: while it grows, what they had before.
fn size_of(volume: &Volume) -> u64 {
    volume.growth.as_ref().map_or(volume.spec.capacity_bytes, |growth| growth.from_bytes)
}

/// That a claim's file system is to grow: on the node that has it, or once one has it again.
fn growth_condition(name: &VolumeName, volume: &Volume) -> Option<v1::Condition> {
    let growth = volume.growth.as_ref()?;
    let (kind, message) = match volume.attachments.keys().next() {
        Some(node) => (
            "Resizing",
            format!(
                "node {node} makes the file system of volume {name} larger; where it cannot while the volume is in use, \
                 it does when the pod is started again"
            ),
        ),
        None => (
            "FileSystemResizePending",
            format!("the file system of volume {name} grows when a pod that uses the claim is started"),
        ),
    };
    Some(condition(kind, "True", growth.at_ms, "", &message))
}

/// Why a claim has no volume, or not its size yet.
fn claim_condition(state: &State, key: &Key, claim: &Claim) -> Option<v1::Condition> {
    if let Some(name) = &claim.volume {
        return state.volumes.get(name).and_then(|volume| growth_condition(name, volume));
    }
    let why = domain::explain(state, "PersistentVolumeClaim", key)?;
    Some(condition("Bound", "False", claim.meta.created_at_ms, "Pending", &why.sentence))
}

/// Reads a volume that a person made.
///
/// # Errors
/// The first field that breaks a rule.
pub fn volume_from_wire(wire: &v1::PersistentVolume) -> Result<(VolumeName, Labels, Labels, VolumeSpec), FieldError> {
    let Marks { key, labels, annotations } = marks_from_wire(wire.metadata.as_ref(), check_subdomain)?;
    let at = At::root("spec");
    let spec = at.required(wire.spec.as_ref())?;
    let capacity_at = at.to("capacity");
    let capacity_bytes = quantity(&spec.capacity, "storage", parse_bytes, capacity_at)?
        .filter(|bytes| 0 < *bytes)
        .ok_or_else(|| capacity_at.to("storage").refuse("is required, and must be above 0"))?;
    let reclaims = [("Retain", Reclaim::Retain), ("Delete", Reclaim::Delete)];
    let class = match spec.storage_class_name.as_str() {
        "" => ClassName::default(),
        name => ClassName::from(at.to("storageClassName").name(name, check_subdomain)?.as_str()),
    };
    let (driver, handle) = match &spec.csi {
        None => (DRIVER_DIR.into(), key.name.clone()),
        Some(csi) => {
            let at = at.to("csi");
            let driver = at.to("driver").name(&csi.driver, check_subdomain)?;
            (driver, at.to("volumeHandle").name(&csi.volume_handle, check_label_value)?)
        }
    };
    let claim = spec.claim_ref.as_ref().map(|claim| claim_ref_from_wire(claim, at.to("claimRef"))).transpose()?;
    let spec = VolumeSpec {
        capacity_bytes,
        access: access_from_wire(&spec.access_modes, at.to("accessModes"))?,
        class,
        driver,
        handle,
        reclaim: at.to("persistentVolumeReclaimPolicy").word(&spec.persistent_volume_reclaim_policy, &reclaims)?,
        nodes: Vec::new(),
        claim,
    };
    Ok((key.name.as_str().into(), labels, annotations, spec))
}

fn claim_ref_from_wire(wire: &v1::ObjectReference, at: At<'_>) -> Result<Key, FieldError> {
    let namespace = at.to("namespace").name(namespace_of(&wire.namespace), check_label)?;
    Ok(Key { namespace, name: at.to("name").name(&wire.name, check_subdomain)? })
}

/// What an apply means for a volume that is there: the claim that it was bound to was not asked for, and what only
/// a planner knows stays.
#[must_use]
pub fn volume_onto(known: &Volume, spec: VolumeSpec) -> VolumeSpec {
    let nodes = known.spec.nodes.clone();
    let bound = known.claim.as_ref().map(|(claim, _)| claim);
    let is_echo = known.spec.claim.is_none() && spec.claim.is_some() && spec.claim.as_ref() == bound;
    let claim = if is_echo { None } else { spec.claim };
    VolumeSpec { nodes, claim, ..spec }
}

/// Writes a volume.
#[must_use]
pub fn volume_to_wire(state: &State, name: &VolumeName, volume: &Volume) -> v1::PersistentVolume {
    let claim = volume.claim.as_ref().map(|(key, uid)| (key, uid_text(&state.cluster, *uid)));
    let kept_for = volume.spec.claim.as_ref().map(|key| (key, String::new()));
    let claim_ref = claim.or(kept_for).map(|(key, uid)| v1::ObjectReference {
        api_version: "v1".to_owned(),
        kind: "PersistentVolumeClaim".to_owned(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        uid,
        ..v1::ObjectReference::default()
    });
    let (phase, message) = match volume.phase {
        VolumePhase::Available => ("Available", ""),
        VolumePhase::Bound => ("Bound", ""),
        VolumePhase::Released => ("Released", ""),
        // Kubernetes has no phase for it: the volume is released, and on its way out.
        VolumePhase::Deleting => ("Released", "its storage is being removed"),
    };
    v1::PersistentVolume {
        api_version: "v1".to_owned(),
        kind: "PersistentVolume".to_owned(),
        metadata: Some(cluster_meta_to_wire(state, name.as_str(), &volume.meta)),
        spec: Some(v1::PersistentVolumeSpec {
            capacity: storage(volume.spec.capacity_bytes),
            access_modes: access_to_wire(volume.spec.access),
            persistent_volume_reclaim_policy: reclaim_to_wire(volume.spec.reclaim),
            storage_class_name: volume.spec.class.to_string(),
            claim_ref,
            csi: Some(v1::CsiPersistentVolumeSource {
                driver: volume.spec.driver.to_string(),
                volume_handle: volume.spec.handle.to_string(),
            }),
        }),
        status: Some(v1::PersistentVolumeStatus {
            phase: phase.to_owned(),
            reason: String::new(),
            message: message.to_owned(),
        }),
    }
}

fn reclaim_to_wire(reclaim: Reclaim) -> String {
    match reclaim {
        Reclaim::Delete => "Delete".to_owned(),
        Reclaim::Retain => "Retain".to_owned(),
    }
}

/// Reads a class.
///
/// # Errors
/// The first field that breaks a rule.
pub fn class_from_wire(wire: &v1::StorageClass) -> Result<(ClassName, Labels, Labels, ClassSpec), FieldError> {
    let Marks { key, labels, mut annotations } = marks_from_wire(wire.metadata.as_ref(), check_subdomain)?;
    // It is a field of its own here, and shown as an annotation again.
    let is_default = annotations.remove(&DEFAULT_CLASS.into()).is_some_and(|value| value.as_str() == "true");
    let reclaims = [("Delete", Reclaim::Delete), ("Retain", Reclaim::Retain)];
    let bindings = [("Immediate", false), ("WaitForFirstConsumer", true)];
    let parameters = wire.parameters.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into()));
    let spec = ClassSpec {
        provisioner: At::root("provisioner").name(&wire.provisioner, provisioner_rule)?,
        reclaim: At::root("reclaimPolicy").word(&wire.reclaim_policy, &reclaims)?,
        waits_for_consumer: At::root("volumeBindingMode").word(&wire.volume_binding_mode, &bindings)?,
        may_expand: wire.allow_volume_expansion,
        is_default,
        parameters: parameters.collect(),
    };
    Ok((key.name.as_str().into(), labels, annotations, spec))
}

/// A driver's name, or `kubernetes.io/no-provisioner`, which is what classes of volumes made by hand are called.
fn provisioner_rule(name: &str) -> Result<(), crate::name::NameError> {
    crate::name::check_label_key(name)
}

/// Writes a class.
#[must_use]
pub fn class_to_wire(state: &State, name: &ClassName, class: &Class) -> v1::StorageClass {
    let mut metadata = cluster_meta_to_wire(state, name.as_str(), &class.meta);
    if class.spec.is_default {
        metadata.annotations.insert(DEFAULT_CLASS.to_owned(), "true".to_owned());
    }
    let binding = if class.spec.waits_for_consumer { "WaitForFirstConsumer" } else { "Immediate" };
    v1::StorageClass {
        api_version: "storage.k8s.io/v1".to_owned(),
        kind: "StorageClass".to_owned(),
        metadata: Some(metadata),
        provisioner: class.spec.provisioner.to_string(),
        parameters: labels_to_wire(&class.spec.parameters),
        reclaim_policy: reclaim_to_wire(class.spec.reclaim),
        volume_binding_mode: binding.to_owned(),
        allow_volume_expansion: class.spec.may_expand,
    }
}

/// Writes all attachments, by volume and node.
#[must_use]
pub fn attachments_to_wire(state: &State) -> Vec<v1::VolumeAttachment> {
    let of_volume = |(name, volume): (&VolumeName, &std::sync::Arc<Volume>)| -> Vec<v1::VolumeAttachment> {
        let attachments = volume.attachments.iter();
        attachments.map(|(node, attachment)| attachment_to_wire(state, name, volume, node, attachment)).collect()
    };
    state.volumes.iter().flat_map(of_volume).collect()
}

/// Writes one attachment.
#[must_use]
pub fn attachment_to_wire(
    state: &State,
    name: &VolumeName,
    volume: &Volume,
    node: &NodeName,
    attachment: &Attachment,
) -> v1::VolumeAttachment {
    // A fence is given once per volume, so the two together are an identity.
    let uid = uid_text(&format!("{}/{name}", state.cluster).into(), Uid(attachment.fence.0));
    v1::VolumeAttachment {
        api_version: "storage.k8s.io/v1".to_owned(),
        kind: "VolumeAttachment".to_owned(),
        metadata: Some(v1::ObjectMeta {
            name: format!("{name}.{node}"),
            uid,
            resource_version: volume.meta.modified.to_string(),
            creation_timestamp: format_ms(attachment.at_ms),
            ..v1::ObjectMeta::default()
        }),
        spec: Some(v1::VolumeAttachmentSpec {
            attacher: volume.spec.driver.to_string(),
            source: Some(v1::VolumeAttachmentSource { persistent_volume_name: name.to_string() }),
            node_name: node.to_string(),
        }),
        status: Some(v1::VolumeAttachmentStatus {
            attached: attachment.is_attached,
            fence: attachment.fence.0,
            ..v1::VolumeAttachmentStatus::default()
        }),
    }
}
