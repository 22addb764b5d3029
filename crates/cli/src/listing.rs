//! The columns of each kind of object. Never asks the cluster and never prints.

use std::collections::BTreeMap;

use api::manifest::Object;
use api::v1;

use crate::print::{NONE, Table, age};
use crate::resource::Resource;

/// So many of a service's endpoints are listed, as kubectl does.
const ENDPOINTS_SHOWN: usize = 3;

/// How a listing is laid out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    /// More columns.
    pub(crate) is_wide: bool,
    /// With the namespace before the name.
    pub(crate) has_namespace: bool,
    /// With the kind before each name.
    pub(crate) has_kind: bool,
}

/// The objects of one kind as a table.
pub(crate) fn table(resource: Resource, objects: &[Object], layout: Layout) -> Table {
    let (narrow, wide) = columns(resource);
    let namespace = (layout.has_namespace && resource.is_namespaced()).then_some("NAMESPACE");
    let extra = if layout.is_wide { wide } else { &[] };
    let mut table = Table::new(namespace.into_iter().chain(["NAME"]).chain(narrow.iter().chain(extra).copied()));
    for object in objects {
        let (narrow, wide) = cells(object);
        let name = match (resource, layout.has_kind) {
            (_, true) => format!("{}/{}", resource.output_name(), object.name()),
            (Resource::Class, false) => class_name(object),
            _ => object.name().to_owned(),
        };
        let namespace = namespace.map(|_| object.namespace().to_owned());
        let extra = if layout.is_wide { wide } else { Vec::new() };
        table.row(namespace.into_iter().chain([name]).chain(narrow).chain(extra).collect());
    }
    table
}

fn columns(resource: Resource) -> (&'static [&'static str], &'static [&'static str]) {
    match resource {
        Resource::Pod => (&["READY", "STATUS", "RESTARTS", "AGE"], &["IP", "NODE", "ORDINAL", "INCARNATION"]),
        Resource::StatefulSet => (&["READY", "AGE"], &["CONTAINERS", "IMAGES"]),
        Resource::Service => (&["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"], &["SELECTOR"]),
        Resource::Endpoints => (&["ENDPOINTS", "AGE"], &["NOT READY"]),
        Resource::Claim => (&["STATUS", "VOLUME", "CAPACITY", "ACCESS MODES", "STORAGECLASS", "AGE"], &[]),
        Resource::Volume => (
            &["CAPACITY", "ACCESS MODES", "RECLAIM POLICY", "STATUS", "CLAIM", "STORAGECLASS", "REASON", "AGE"],
            &["DRIVER", "HANDLE"],
        ),
        Resource::Class => (&["PROVISIONER", "RECLAIMPOLICY", "VOLUMEBINDINGMODE", "ALLOWVOLUMEEXPANSION", "AGE"], &[]),
        Resource::Node => (
            &["STATUS", "ROLES", "AGE", "VERSION"],
            &["INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME", "INCARNATION"],
        ),
        Resource::Attachment => (&["ATTACHER", "PV", "NODE", "ATTACHED", "AGE"], &["FENCE"]),
        Resource::Budget => {
            (&["MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE"], &["HEALTHY", "DESIRED"])
        }
        Resource::ConfigMap => (&["DATA", "AGE"], &[]),
        Resource::Secret => (&["TYPE", "DATA", "AGE"], &[]),
        Resource::Revision => (&["CONTROLLER", "REVISION", "AGE"], &["CHANGE-CAUSE"]),
        Resource::Event => (&["AGE", "REASON", "OBJECT", "MESSAGE"], &["BY"]),
    }
}

fn cells(object: &Object) -> (Vec<String>, Vec<String>) {
    let age = object.metadata().map_or_else(String::new, |metadata| age(&metadata.creation_timestamp));
    match object {
        Object::Pod(pod) => pod_cells(pod, age),
        Object::StatefulSet(set) => set_cells(set, age),
        Object::Service(service) => service_cells(service, age),
        Object::Endpoints(endpoints) => endpoints_cells(endpoints, age),
        Object::PersistentVolumeClaim(claim) => (claim_cells(claim, age), Vec::new()),
        Object::PersistentVolume(volume) => volume_cells(volume, age),
        Object::StorageClass(class) => {
            let expands = class.allow_volume_expansion.to_string();
            let mode = class.volume_binding_mode.clone();
            (vec![class.provisioner.clone(), class.reclaim_policy.clone(), mode, expands, age], Vec::new())
        }
        Object::Node(node) => node_cells(node, age),
        Object::VolumeAttachment(attachment) => {
            let spec = attachment.spec.clone().unwrap_or_default();
            let status = attachment.status.clone().unwrap_or_default();
            let volume = spec.source.unwrap_or_default().persistent_volume_name;
            let narrow = vec![spec.attacher, volume, spec.node_name, status.attached.to_string(), age];
            (narrow, vec![status.fence.to_string()])
        }
        Object::Event(event) => {
            let about = event.involved_object.clone().unwrap_or_default();
            let about = format!("{}/{}", about.kind.to_lowercase(), about.name);
            (vec![age, event.reason.clone(), about, event.message.clone()], vec![event.reporting_component.clone()])
        }
        Object::PodDisruptionBudget(budget) => {
            let spec = budget.spec.clone().unwrap_or_default();
            let status = budget.status.unwrap_or_default();
            let or_not = |amount: Option<String>| amount.unwrap_or_else(|| "N/A".to_owned());
            let allowed = status.disruptions_allowed.to_string();
            let narrow = vec![or_not(spec.min_available), or_not(spec.max_unavailable), allowed, age];
            (narrow, vec![status.current_healthy.to_string(), status.desired_healthy.to_string()])
        }
        Object::ConfigMap(config) => {
            (vec![(config.data.len() + config.binary_data.len()).to_string(), age], Vec::new())
        }
        Object::Secret(secret) => (vec![secret.r#type.clone(), secret.data.len().to_string(), age], Vec::new()),
        Object::ControllerRevision(revision) => {
            let metadata = revision.metadata.clone().unwrap_or_default();
            let owner = metadata.owner_references.first().map(|owner| format!("statefulset.apps/{}", owner.name));
            let narrow = vec![owner.unwrap_or_default(), revision.revision.to_string(), age];
            (narrow, vec![change_cause(revision)])
        }
    }
}

/// What was said of a template when it was rolled out, or nothing.
pub(crate) fn change_cause(revision: &v1::ControllerRevision) -> String {
    let annotations = revision.metadata.as_ref().map(|metadata| &metadata.annotations);
    annotations.and_then(|known| known.get(domain::ANNOTATION_CHANGE_CAUSE)).cloned().unwrap_or_default()
}

fn pod_cells(pod: &v1::Pod, age: String) -> (Vec<String>, Vec<String>) {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    // Sidecars are counted as kubectl counts them: among the others.
    let sidecars = status.init_container_statuses.iter().filter(|container| is_sidecar(pod, &container.name));
    let ready = status.container_statuses.iter().chain(sidecars).filter(|container| container.ready).count();
    let total = spec.containers.len()
        + spec.init_containers.iter().filter(|container| is_sidecar(pod, &container.name)).count();
    let ready = if is_held(pod) { 0 } else { ready };
    let restarts: i32 = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .map(|container| container.restart_count)
        .sum();
    let narrow = vec![format!("{ready}/{total}"), pod_status(pod), restarts.to_string(), age];
    let incarnation = if status.incarnation == 0 { String::new() } else { status.incarnation.to_string() };
    (narrow, vec![status.pod_ip, spec.node_name, ordinal(pod), incarnation])
}

/// The pod's number in its set.
pub(crate) fn ordinal(pod: &v1::Pod) -> String {
    let metadata = pod.metadata.clone().unwrap_or_default();
    match metadata.labels.get("apps.kubernetes.io/pod-index") {
        Some(index) => index.clone(),
        None => match metadata.name.rsplit_once('-') {
            Some((_, index)) if index.parse::<u32>().is_ok() => index.to_owned(),
            _ => String::new(),
        },
    }
}

/// The status of a condition, such as "True".
pub(crate) fn condition<'a>(conditions: &'a [v1::Condition], name: &str) -> Option<&'a v1::Condition> {
    conditions.iter().find(|condition| condition.r#type.eq_ignore_ascii_case(name))
}

/// Whether a condition is true.
pub(crate) fn is_true(conditions: &[v1::Condition], name: &str) -> bool {
    condition(conditions, name).is_some_and(|condition| condition.status == "True")
}

/// Whether nobody knows if the pod still runs, so that nothing may take its place.
pub(crate) fn is_held(pod: &v1::Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.hold.is_some() || is_true(&status.conditions, "Held"))
}

/// The pod's status in one word.
pub(crate) fn pod_status(pod: &v1::Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    if is_held(pod) {
        return "Held".to_owned();
    }
    if pod.metadata.as_ref().is_some_and(|metadata| !metadata.deletion_timestamp.is_empty()) {
        return "Terminating".to_owned();
    }
    if let Some(initializing) = init_status(pod) {
        return initializing;
    }
    let states = status.container_statuses.iter().filter_map(|container| container.state.as_ref());
    let reason = states.rev().find_map(|state| match (&state.waiting, &state.terminated) {
        (Some(waiting), _) if !waiting.reason.is_empty() => Some(waiting.reason.clone()),
        (_, Some(terminated)) if !terminated.reason.is_empty() => Some(terminated.reason.clone()),
        _ => None,
    });
    reason.or_else(|| (!status.reason.is_empty()).then(|| status.reason.clone())).unwrap_or(status.phase)
}

/// How far the init containers are, as kubectl says it; nothing once they are over.
fn init_status(pod: &v1::Pod) -> Option<String> {
    let statuses = &pod.status.as_ref()?.init_container_statuses;
    // One that has ended well, and a sidecar that has started, hold up nobody.
    let is_over = |status: &v1::ContainerStatus| {
        let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        ended.map_or(status.started == Some(true) && is_sidecar(pod, &status.name), |ended| ended.exit_code == 0)
    };
    let is_begun = pod.status.as_ref().is_some_and(|status| status.phase != "Pending");
    let done = statuses.iter().position(|status| !is_over(status)).filter(|_| !is_begun)?;
    let waiting = statuses[done].state.as_ref().and_then(|state| state.waiting.as_ref());
    Some(match waiting {
        Some(waiting) if !waiting.reason.is_empty() && waiting.reason != "PodInitializing" => {
            format!("Init:{}", waiting.reason)
        }
        _ => format!("Init:{done}/{}", statuses.len()),
    })
}

/// Whether a container of the pod starts first, and goes on beside the others.
fn is_sidecar(pod: &v1::Pod, name: &str) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.init_containers);
    containers.any(|container| container.name == name && container.restart_policy == "Always")
}

fn set_cells(set: &v1::StatefulSet, age: String) -> (Vec<String>, Vec<String>) {
    let ready = set.status.as_ref().map_or(0, |status| status.ready_replicas);
    let spec = set.spec.clone().unwrap_or_default();
    let containers = spec.template.and_then(|template| template.spec).unwrap_or_default().containers;
    let joined = |field: fn(&v1::Container) -> &str| containers.iter().map(field).collect::<Vec<_>>().join(",");
    let wide = vec![joined(|container| &container.name), joined(|container| &container.image)];
    (vec![format!("{ready}/{}", spec.replicas.unwrap_or(1)), age], wide)
}

fn service_cells(service: &v1::Service, age: String) -> (Vec<String>, Vec<String>) {
    let spec = service.spec.clone().unwrap_or_default();
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    let port = |port: &v1::ServicePort| format!("{}/{}", port.port, or(port.protocol.clone(), "TCP"));
    let ports = spec.ports.iter().map(port).collect::<Vec<_>>().join(",");
    let narrow = vec![or(spec.r#type, "ClusterIP"), or(spec.cluster_ip, "None"), NONE.to_owned(), ports, age];
    (narrow, vec![pairs(&spec.selector)])
}

fn endpoints_cells(endpoints: &v1::Endpoints, age: String) -> (Vec<String>, Vec<String>) {
    let (ready, not_ready) = addresses(endpoints);
    (vec![ready, age], vec![not_ready])
}

/// Where a service leads, and where it does not lead now.
pub(crate) fn addresses(endpoints: &v1::Endpoints) -> (String, String) {
    let shown = |addresses: fn(&v1::EndpointSubset) -> &[v1::EndpointAddress]| {
        let subsets = endpoints.subsets.iter();
        let mut all = subsets.flat_map(|subset| addresses(subset).iter().flat_map(|address| sockets(address, subset)));
        let first: Vec<String> = all.by_ref().take(ENDPOINTS_SHOWN).collect();
        match (first.is_empty(), all.count()) {
            (true, _) => NONE.to_owned(),
            (false, 0) => first.join(","),
            (false, more) => format!("{} + {more} more...", first.join(",")),
        }
    };
    (shown(|subset| &subset.addresses), shown(|subset| &subset.not_ready_addresses))
}

/// An address with each of its ports, or alone where the service has none.
fn sockets(address: &v1::EndpointAddress, subset: &v1::EndpointSubset) -> Vec<String> {
    if subset.ports.is_empty() {
        return vec![address.ip.clone()];
    }
    subset.ports.iter().map(|port| format!("{}:{}", address.ip, port.port)).collect()
}

fn claim_cells(claim: &v1::PersistentVolumeClaim, age: String) -> Vec<String> {
    let spec = claim.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    let is_deleting = claim.metadata.as_ref().is_some_and(|metadata| !metadata.deletion_timestamp.is_empty());
    let phase = if is_deleting { "Terminating".to_owned() } else { status.phase };
    // What is not bound has neither, and kubectl leaves both empty.
    let capacity = status.capacity.get("storage").cloned().unwrap_or_else(|| " ".to_owned());
    let modes = if status.access_modes.is_empty() { " ".to_owned() } else { short_modes(&status.access_modes) };
    let volume = if spec.volume_name.is_empty() { " ".to_owned() } else { spec.volume_name };
    vec![phase, volume, capacity, modes, spec.storage_class_name.unwrap_or_default(), age]
}

fn volume_cells(volume: &v1::PersistentVolume, age: String) -> (Vec<String>, Vec<String>) {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = volume.status.clone().unwrap_or_default();
    let claim = spec.claim_ref.map_or_else(|| " ".to_owned(), |claim| format!("{}/{}", claim.namespace, claim.name));
    let capacity = spec.capacity.get("storage").cloned().unwrap_or_default();
    let reason = if status.reason.is_empty() { " ".to_owned() } else { status.reason };
    let modes = short_modes(&spec.access_modes);
    let policy = spec.persistent_volume_reclaim_policy;
    let csi = spec.csi.unwrap_or_default();
    let narrow = vec![capacity, modes, policy, status.phase, claim, spec.storage_class_name, reason, age];
    (narrow, vec![csi.driver, csi.volume_handle])
}

fn class_name(object: &Object) -> String {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    let is_default = object.metadata().and_then(|metadata| metadata.annotations.get(DEFAULT));
    let suffix = if is_default.is_some_and(|value| value == "true") { " (default)" } else { "" };
    format!("{}{suffix}", object.name())
}

fn node_cells(node: &v1::Node, age: String) -> (Vec<String>, Vec<String>) {
    let status = node.status.clone().unwrap_or_default();
    let info = status.node_info.unwrap_or_default();
    let address = status.addresses.iter().find(|address| address.r#type == "InternalIP");
    let address = address.map(|address| address.address.clone()).unwrap_or_default();
    let narrow = vec![node_status(node), String::new(), age, info.agent_version];
    let (os, kernel, runtime) = (info.os_image, info.kernel_version, info.container_runtime_version);
    (narrow, vec![address, NONE.to_owned(), os, kernel, runtime, status.incarnation.to_string()])
}

/// The node's status, as `get nodes` shows it.
pub(crate) fn node_status(node: &v1::Node) -> String {
    let is_ready = node.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Ready"));
    let ready = if is_ready { "Ready" } else { "NotReady" };
    let is_cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable);
    if is_cordoned { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn short_modes(modes: &[String]) -> String {
    let short = |mode: &String| match mode.as_str() {
        "ReadWriteOnce" => "RWO".to_owned(),
        "ReadOnlyMany" => "ROX".to_owned(),
        "ReadWriteMany" => "RWX".to_owned(),
        "ReadWriteOncePod" => "RWOP".to_owned(),
        other => other.to_owned(),
    };
    modes.iter().map(short).collect::<Vec<_>>().join(",")
}

/// A map on one line: a=b,c=d.
pub(crate) fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> v1::Pod {
        let status = v1::ContainerStatus { ready: true, restart_count: 2, ..v1::ContainerStatus::default() };
        v1::Pod {
            metadata: Some(v1::ObjectMeta { name: "web-1".into(), ..v1::ObjectMeta::default() }),
            spec: Some(v1::PodSpec { containers: vec![v1::Container::default()], ..v1::PodSpec::default() }),
            status: Some(v1::PodStatus {
                phase: "Running".into(),
                container_statuses: vec![status],
                ..v1::PodStatus::default()
            }),
            ..v1::Pod::default()
        }
    }

    #[test]
    fn a_held_pod_is_not_ready() {
        let mut pod = pod();
        assert_eq!(pod_cells(&pod, "3s".into()).0, ["1/1", "Running", "2", "3s"]);
        pod.status.as_mut().unwrap().hold = Some(v1::Hold::default());
        assert_eq!(pod_cells(&pod, "3s".into()).0, ["0/1", "Held", "2", "3s"]);
    }

    #[test]
    fn listings_have_the_columns_of_kubectl() {
        let layout = Layout { is_wide: true, has_namespace: true, has_kind: true };
        let table = table(Resource::Pod, &[pod().into()], layout);
        let text = table.render(&table.widths(&[]), true);
        assert!(text.starts_with("NAMESPACE   NAME        READY   STATUS    RESTARTS   AGE         IP"), "{text}");
        assert!(text.contains("\ndefault     pod/web-1   1/1     Running   2"), "{text}");
    }
}
