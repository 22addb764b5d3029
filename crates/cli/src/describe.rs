//! `describe`: everything that is known of an object, for people.

use api::manifest::Object;
use api::v1;

use crate::apply::LAST_APPLIED;
use crate::connect::Session;
use crate::error::CliError;
use crate::fetch;
use crate::listing;
use crate::observe::{events_table, exit_line, section};
use crate::print::{self, NONE};
use crate::resource::{Resource, Targets};

/// How many of its last events are shown.
const EVENTS_MAX: usize = 20;

/// How long a node may take to measure a volume.
const USAGE_MS_MAX: u64 = 5_000;

/// Describes objects.
pub(crate) async fn describe(session: &Session, targets: &[String], namespace: &str) -> Result<(), CliError> {
    let objects = match Targets::parse(targets)? {
        Targets::Objects(objects) => objects,
        Targets::Kinds(kinds) => {
            let mut objects = Vec::new();
            for resource in kinds {
                let (_, found) = fetch::list(session, resource, namespace, "").await?;
                objects.extend(found.iter().map(|object| (resource, object.name().to_owned())));
            }
            objects
        }
    };
    for (index, (resource, name)) in objects.iter().enumerate() {
        let (_, object) = fetch::get(session, *resource, namespace, name).await?;
        if 0 < index {
            print::line("\n");
        }
        show(session, &object).await?;
        show_events(session, *resource, &object).await?;
    }
    Ok(())
}

async fn show(session: &Session, object: &Object) -> Result<(), CliError> {
    show_metadata(object);
    match object {
        Object::Pod(pod) => show_pod(pod),
        Object::StatefulSet(set) => show_set(set),
        Object::PersistentVolumeClaim(claim) => show_claim(session, claim).await?,
        Object::PersistentVolume(volume) => show_volume(volume),
        Object::Service(service) => show_service(session, service).await?,
        Object::Node(node) => show_node(session, node).await?,
        Object::ConfigMap(config) => show_config_map(config),
        Object::Secret(secret) => show_secret(secret),
        other => {
            let mut value = serde_json::to_value(other)?;
            if let Some(fields) = value.as_object_mut() {
                fields.retain(|field, _| !matches!(field.as_str(), "metadata" | "kind" | "apiVersion"));
            }
            print::data(api::manifest::to_yaml(&value)?.as_bytes());
        }
    }
    Ok(())
}

fn field(name: &str, value: impl AsRef<str>) {
    let value = value.as_ref();
    print::line(format!("{:<18}{}", format!("{name}:"), if value.is_empty() { NONE } else { value }));
}

fn show_metadata(object: &Object) {
    let metadata = object.metadata().cloned().unwrap_or_default();
    field("Name", &metadata.name);
    if object.kind().is_namespaced {
        field("Namespace", object.namespace());
    }
    field("UID", &metadata.uid);
    field("Created", format!("{} ({} ago)", metadata.creation_timestamp, print::age(&metadata.creation_timestamp)));
    if !metadata.deletion_timestamp.is_empty() {
        field("Deletion asked", &metadata.deletion_timestamp);
    }
    field("Labels", listing::pairs(&metadata.labels));
    let mut annotations = metadata.annotations;
    annotations.remove(LAST_APPLIED);
    if !annotations.is_empty() {
        field("Annotations", listing::pairs(&annotations));
    }
    if let Some(owner) = metadata.owner_references.first() {
        field("Controlled By", format!("{}/{}", owner.kind, owner.name));
    }
}

fn show_pod(pod: &v1::Pod) {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    field("Node", &spec.node_name);
    field("Status", listing::pod_status(pod));
    // A hold is told at length below.
    if !status.message.is_empty() && status.hold.is_none() {
        field("Message", &status.message);
    }
    field("IP", &status.pod_ip);
    field("Ordinal", listing::ordinal(pod));
    field("Incarnation", status.incarnation.to_string());
    if let Some(hold) = &status.hold {
        let ago = print::age(&hold.since);
        let revision = hold.since_revision;
        field("Held", format!("on {} since {} ({ago} ago, revision {revision})", hold.node, hold.since));
        section("  Evidence:", hold.evidence.iter().map(|line| format!("  {line}")));
        section("  What would end it:", hold.exits.iter().map(|exit| format!("  {}", exit_line(exit))));
    }
    if !spec.init_containers.is_empty() {
        print::line("Init Containers:");
    }
    for container in &spec.init_containers {
        let found = status.init_container_statuses.iter().find(|status| status.name == container.name);
        show_container(container, &found.cloned().unwrap_or_default());
    }
    print::line("Containers:");
    for container in &spec.containers {
        let found = status.container_statuses.iter().find(|status| status.name == container.name);
        show_container(container, &found.cloned().unwrap_or_default());
    }
    show_conditions(&status.conditions);
    section("Volumes:", spec.volumes.iter().map(|volume| format!("{}: {}", volume.name, volume_source(volume))));
}

fn volume_source(volume: &v1::Volume) -> String {
    let maybe = |is_optional: bool| if is_optional { " (optional)" } else { "" };
    if let Some(claim) = &volume.persistent_volume_claim {
        format!("persistentvolumeclaim/{}", claim.claim_name)
    } else if let Some(map) = &volume.config_map {
        format!("configmap/{}{}", map.name, maybe(map.optional))
    } else if let Some(secret) = &volume.secret {
        format!("secret/{}{}", secret.secret_name, maybe(secret.optional))
    } else if volume.downward_api.is_some() {
        "facts of the pod".to_owned()
    } else {
        let dir = volume.empty_dir.clone().unwrap_or_default();
        let limit = if dir.size_limit.is_empty() { String::new() } else { format!(", sizeLimit {}", dir.size_limit) };
        let medium = if dir.medium.is_empty() { "" } else { ", medium Memory" };
        format!("an empty directory, as long as the pod is on its node{medium}{limit}")
    }
}

fn show_config_map(config: &v1::ConfigMap) {
    field("Immutable", config.immutable.to_string());
    for (key, text) in &config.data {
        print::line(format!("{key}:"));
        text.lines().for_each(|line| print::line(format!("  {line}")));
    }
    section("Binary data:", config.binary_data.iter().map(|(key, text)| format!("{key}: {} bytes", decoded_len(text))));
}

/// Never what is in it.
fn show_secret(secret: &v1::Secret) {
    field("Type", &secret.r#type);
    field("Immutable", secret.immutable.to_string());
    section("Data:", secret.data.iter().map(|(key, text)| format!("{key}: {} bytes", decoded_len(text))));
}

/// How many bytes a text in base64 stands for.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn show_container(container: &v1::Container, status: &v1::ContainerStatus) {
    print::line(format!("  {}:", container.name));
    let field = |name: &str, value: &str| {
        if !value.is_empty() {
            field(&format!("    {name}"), value);
        }
    };
    // Nothing is ever pulled: what runs in the place of the image is what the image catalogue of the node says.
    let runs = if status.image_id.is_empty() { String::new() } else { format!(" (runs {})", status.image_id) };
    field("Image", &format!("{}{runs}", container.image));
    field("Process", &status.container_id);
    field("Command", &container.command.join(" "));
    field("Args", &container.args.join(" "));
    let state = |state: &Option<v1::ContainerState>| state.as_ref().map(state_line).unwrap_or_default();
    field("State", &state(&status.state));
    field("Last state", &state(&status.last_state));
    field("Ready", if status.ready { "True" } else { "False" });
    field("Restarts", &status.restart_count.to_string());
    if let Some(resources) = &container.resources {
        field("Requests", &listing::pairs(&resources.requests));
        field("Limits", &listing::pairs(&resources.limits));
    }
    for source in &container.env_from {
        let (kind, name) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(of), _) => ("configmap", &of.name),
            (_, Some(of)) => ("secret", &of.name),
            (None, None) => continue,
        };
        field("Env from", &format!("{kind}/{name}"));
    }
    for mount in &container.volume_mounts {
        let part = if mount.sub_path.is_empty() { String::new() } else { format!(" ({})", mount.sub_path) };
        field("Mount", &format!("{} from {}{part}", mount.mount_path, mount.name));
    }
}

fn state_line(state: &v1::ContainerState) -> String {
    match (&state.running, &state.waiting, &state.terminated) {
        (Some(running), ..) => format!("Running since {}", running.started_at),
        (_, Some(waiting), _) => format!("Waiting: {} {}", waiting.reason, waiting.message).trim_end().to_owned(),
        (.., Some(ended)) => {
            let why = format!("{} {}", ended.reason, ended.message);
            let at = if ended.finished_at.is_empty() { String::new() } else { format!(" at {}", ended.finished_at) };
            format!("Terminated{at}, exit code {}: {}", ended.exit_code, why.trim())
        }
        _ => String::new(),
    }
}

fn show_conditions(conditions: &[v1::Condition]) {
    if conditions.is_empty() {
        return;
    }
    print::line("Conditions:");
    let mut table = print::Table::new(["  TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    for condition in conditions {
        table.row(vec![
            format!("  {}", condition.r#type),
            condition.status.clone(),
            condition.last_transition_time.clone(),
            condition.reason.clone(),
            condition.message.clone(),
        ]);
    }
    table.print();
}

fn show_set(set: &v1::StatefulSet) {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let (desired, there, ready) = (spec.replicas.unwrap_or(1), status.replicas, status.ready_replicas);
    field("Replicas", format!("{desired} desired, {there} there, {ready} ready, {} updated", status.updated_replicas));
    field("Selector", listing::pairs(&spec.selector.unwrap_or_default().match_labels));
    field("Service", &spec.service_name);
    field(
        "Pod management",
        if spec.pod_management_policy.is_empty() { "OrderedReady" } else { &spec.pod_management_policy },
    );
    let strategy = spec.update_strategy.unwrap_or_default();
    let partition = strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or(0);
    let kind = if strategy.r#type.is_empty() { "RollingUpdate" } else { &strategy.r#type };
    field("Update strategy", if partition == 0 { kind.to_owned() } else { format!("{kind}, partition {partition}") });
    field("Current revision", &status.current_revision);
    field("Update revision", &status.update_revision);
    let template = spec.template.and_then(|template| template.spec).unwrap_or_default();
    let image = |container: &v1::Container| format!("{}: {}", container.name, container.image);
    section("Init Containers:", template.init_containers.iter().map(image));
    section("Containers:", template.containers.iter().map(image));
    let claim = |claim: &v1::PersistentVolumeClaim| {
        let name = claim.metadata.as_ref().map_or("", |metadata| &metadata.name);
        let spec = claim.spec.clone().unwrap_or_default();
        let size = spec.resources.unwrap_or_default().requests.get("storage").cloned().unwrap_or_default();
        let class =
            spec.storage_class_name.map_or_else(|| "the default class".to_owned(), |name| format!("class {name}"));
        format!("{name}: {size} {}, {class}", spec.access_modes.join(","))
    };
    section("Claims:", spec.volume_claim_templates.iter().map(claim));
    show_conditions(&status.conditions);
}

async fn show_service(session: &Session, service: &v1::Service) -> Result<(), CliError> {
    let spec = service.spec.clone().unwrap_or_default();
    let metadata = service.metadata.clone().unwrap_or_default();
    field("Selector", listing::pairs(&spec.selector));
    field("Type", &spec.r#type);
    field("IP", &spec.cluster_ip);
    for port in &spec.ports {
        let name = if port.name.is_empty() { "<unset>" } else { &port.name };
        field("Port", format!("{name}  {}/{}", port.port, port.protocol));
        field("TargetPort", format!("{}/{}", port.target_port.clone().unwrap_or_default(), port.protocol));
    }
    let (_, endpoints) = fetch::get(session, Resource::Endpoints, &metadata.namespace, &metadata.name).await?;
    if let Object::Endpoints(endpoints) = endpoints {
        let (ready, not_ready) = listing::addresses(&endpoints);
        field("Endpoints", ready);
        field("Not ready", not_ready);
    }
    Ok(())
}

async fn show_claim(session: &Session, claim: &v1::PersistentVolumeClaim) -> Result<(), CliError> {
    let spec = claim.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    field("Status", &status.phase);
    field("Volume", &spec.volume_name);
    field("Class", spec.storage_class_name.unwrap_or_default());
    field("Requested", listing::pairs(&spec.resources.unwrap_or_default().requests));
    field("Capacity", listing::pairs(&status.capacity));
    if !spec.volume_name.is_empty() {
        field("Used", used(session, claim.metadata.as_ref()).await);
    }
    field("Access modes", spec.access_modes.join(","));
    let metadata = claim.metadata.clone().unwrap_or_default();
    let (_, pods) = fetch::list(session, Resource::Pod, &metadata.namespace, "").await?;
    let uses = |pod: &&Object| match pod {
        Object::Pod(pod) => pod.spec.iter().flat_map(|spec| &spec.volumes).any(|volume| {
            volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == metadata.name)
        }),
        _ => false,
    };
    field("Used By", pods.iter().filter(uses).map(Object::name).collect::<Vec<_>>().join(", "));
    show_conditions(&status.conditions);
    Ok(())
}

/// How full a claim's volume is, as a node says that has it; or why nobody can say.
async fn used(session: &Session, claim: Option<&v1::ObjectMeta>) -> String {
    let (namespace, name) = claim.map(|claim| (claim.namespace.as_str(), claim.name.as_str())).unwrap_or_default();
    match fetch::claim_usage(session, namespace, name, USAGE_MS_MAX).await {
        Ok(usage) => {
            let [used, capacity] = [usage.used_bytes, usage.capacity_bytes].map(print::size);
            format!("{used} of {capacity}, as {} says", usage.node)
        }
        Err(error) => format!("unknown: {}", error.message),
    }
}

fn show_volume(volume: &v1::PersistentVolume) {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = volume.status.clone().unwrap_or_default();
    field("Status", &status.phase);
    if !status.message.is_empty() {
        field("Message", &status.message);
    }
    let claim = spec.claim_ref.map(|claim| format!("{}/{}", claim.namespace, claim.name));
    field("Claim", claim.unwrap_or_default());
    field("Class", &spec.storage_class_name);
    field("Reclaim policy", &spec.persistent_volume_reclaim_policy);
    field("Capacity", listing::pairs(&spec.capacity));
    field("Access modes", spec.access_modes.join(","));
    let source = spec.csi.unwrap_or_default();
    field("Driver", &source.driver);
    field("Handle", &source.volume_handle);
}

async fn show_node(session: &Session, node: &v1::Node) -> Result<(), CliError> {
    let status = node.status.clone().unwrap_or_default();
    let info = status.node_info.clone().unwrap_or_default();
    field("Status", listing::node_status(node));
    field("Incarnation", status.incarnation.to_string());
    field("Boot id", &info.boot_id);
    // Only of a node that is not heard any more is it worth telling when it was.
    if !status.last_heartbeat_time.is_empty() {
        field("Last heartbeat", &status.last_heartbeat_time);
    }
    for address in &status.addresses {
        field(&address.r#type, &address.address);
    }
    field("Agent version", &info.agent_version);
    field("Operating system", format!("{} ({}, {})", info.os_image, info.operating_system, info.architecture));
    field("Kernel version", &info.kernel_version);
    field("Runtime", &info.container_runtime_version);
    section("Features:", info.features.iter().map(|(feature, state)| format!("{feature}: {state}")));
    let taint = |taint: &v1::Taint| format!("{}={}:{}", taint.key, taint.value, taint.effect);
    let taints = node.spec.iter().flat_map(|spec| &spec.taints).map(taint);
    field("Taints", taints.collect::<Vec<_>>().join(", "));
    field("Capacity", listing::pairs(&status.capacity));
    field("Allocatable", listing::pairs(&status.allocatable));
    show_conditions(&status.conditions);
    let name = node.metadata.as_ref().map_or("", |metadata| &metadata.name);
    let (_, pods) = fetch::list(session, Resource::Pod, "", "").await?;
    let here = pods.iter().filter_map(|object| match object {
        Object::Pod(pod) if pod.spec.as_ref().is_some_and(|spec| spec.node_name == name) => {
            Some(format!("{}/{} {}", object.namespace(), object.name(), listing::pod_status(pod)))
        }
        _ => None,
    });
    section("Pods:", here);
    Ok(())
}

async fn show_events(session: &Session, resource: Resource, object: &Object) -> Result<(), CliError> {
    let request = v1::WatchRequest {
        kinds: vec![resource.kind().to_owned()],
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        ..fetch::history()
    };
    let events = match fetch::past_events(session, request).await {
        Ok(events) => events,
        // The object is described all the same when its past is compacted.
        Err(error) => {
            field("Events", error.message);
            return Ok(());
        }
    };
    let last = &events[events.len().saturating_sub(EVENTS_MAX)..];
    let table = events_table(last, false);
    if last.is_empty() {
        field("Events", "");
    } else {
        print::line("Events:");
        let text = table.render(&table.widths(&[]), true);
        text.lines().for_each(|line| print::line(format!("  {line}")));
    }
    Ok(())
}
