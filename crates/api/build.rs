//! Makes Rust of `proto/`: messages always, gRPC stubs behind the feature `grpc`, and the names that Kubernetes' JSON uses.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;
use tonic_prost_build::Builder;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

const FILES: [&str; 12] = [
    "holdfast/v1/objects.proto",
    "holdfast/v1/common.proto",
    "holdfast/v1/statefulsets.proto",
    "holdfast/v1/pods.proto",
    "holdfast/v1/storage.proto",
    "holdfast/v1/services.proto",
    "holdfast/v1/disruptions.proto",
    "holdfast/v1/configs.proto",
    "holdfast/v1/nodes.proto",
    "holdfast/v1/cluster.proto",
    "holdfast/v1/history.proto",
    "holdfast/internal/v1/internal.proto",
];

/// The objects themselves: read and written as Kubernetes does.
const OBJECTS_FILE: &str = "holdfast/v1/objects.proto";

/// Answers that are also printed as JSON.
const PRINTED: [&str; 6] = ["StatusReply", "ListMembersReply", "Member", "WatchReply", "Event", "WhyReply"];

/// Fields whose camelCase is not Kubernetes' own spelling.
const SPELLINGS: [(&str, &str); 9] = [
    ("pod_ip", "podIP"),
    ("pod_cidr", "podCIDR"),
    ("host_ip", "hostIP"),
    ("cluster_ip", "clusterIP"),
    ("boot_id", "bootID"),
    ("machine_id", "machineID"),
    ("image_id", "imageID"),
    ("container_id", "containerID"),
    ("downward_api", "downwardAPI"),
];

/// Numbers and flags that say something when they are zero.
const ALWAYS_WRITTEN: [&str; 15] = [
    "StatefulSetStatus.replicas",
    "StatefulSetStatus.available_replicas",
    "StatefulSetOrdinals.start",
    "ContainerStatus.ready",
    "ContainerStatus.restart_count",
    "ContainerPort.container_port",
    "ContainerStateTerminated.exit_code",
    "ServicePort.port",
    "EndpointPort.port",
    "PodDisruptionBudgetStatus.disruptions_allowed",
    "PodDisruptionBudgetStatus.current_healthy",
    "PodDisruptionBudgetStatus.desired_healthy",
    "PodDisruptionBudgetStatus.expected_pods",
    "VolumeAttachmentStatus.attached",
    "WeightedPodAffinityTerm.weight",
];

/// Maps of quantities: plain numbers are read, too.
const QUANTITIES: [&str; 6] = [
    "ResourceRequirements.requests",
    "ResourceRequirements.limits",
    "PersistentVolumeClaimStatus.capacity",
    "PersistentVolumeSpec.capacity",
    "NodeStatus.capacity",
    "NodeStatus.allocatable",
];

/// A number or a word.
const INT_OR_STRING: [&str; 8] = [
    "HttpGetAction.port",
    "TcpSocketAction.port",
    "RollingUpdateStatefulSetStrategy.max_unavailable",
    "ServicePort.target_port",
    "ResourceFieldSelector.divisor",
    "EmptyDirVolumeSource.size_limit",
    "PodDisruptionBudgetSpec.min_available",
    "PodDisruptionBudgetSpec.max_unavailable",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = protox::compile(FILES, [&root])?;
    write_descriptors(files.clone())?;

    let objects = files.file.iter().find(|file| file.name() == OBJECTS_FILE);
    let objects = objects.ok_or("objects.proto was not compiled")?;
    let mut builder = tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".holdfast.internal")
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]");
    builder = read_and_written_as_kubernetes_does(builder, objects)?;
    for message in PRINTED {
        builder = builder.message_attribute(format!(".holdfast.v1.{message}"), derive_with("camelCase"));
    }
    builder.compile_fds(files)?;
    Ok(())
}

/// Writes what server reflection publishes, without the comments.
fn write_descriptors(mut files: prost_types::FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let path = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(path, files.encode_to_vec())?;
    Ok(())
}

fn derive_with(rename: &str) -> String {
    format!(
        "#[derive(serde::Serialize, serde::Deserialize)]\n\
         #[serde(rename_all = \"{rename}\", deny_unknown_fields, default)]"
    )
}

fn read_and_written_as_kubernetes_does(mut builder: Builder, file: &FileDescriptorProto) -> Result<Builder, String> {
    let mut seen = BTreeSet::new();
    for message in &file.message_type {
        let message_path = format!(".{}.{}", file.package(), message.name());
        builder = builder.message_attribute(&message_path, derive_with("camelCase"));
        for field in &message.field {
            let name = format!("{}.{}", message.name(), field.name());
            let field_path = format!("{message_path}.{}", field.name());
            for attribute in field_attributes(message, field, &name) {
                builder = builder.field_attribute(&field_path, format!("#[serde({attribute})]"));
            }
            seen.insert(name);
        }
    }
    let tables = [&ALWAYS_WRITTEN[..], &QUANTITIES, &INT_OR_STRING];
    match tables.into_iter().flatten().find(|name| !seen.contains(**name)) {
        Some(missing) => Err(format!("objects.proto has no field {missing}, which build.rs names")),
        None => Ok(builder),
    }
}

fn field_attributes(message: &DescriptorProto, field: &FieldDescriptorProto, name: &str) -> Vec<String> {
    let mut attributes = Vec::new();
    if let Some((_, spelling)) = SPELLINGS.iter().find(|(plain, _)| *plain == field.name()) {
        attributes.push(format!("rename = \"{spelling}\""));
    }
    if QUANTITIES.contains(&name) {
        attributes.push("deserialize_with = \"crate::wire::quantities\"".to_owned());
    }
    if INT_OR_STRING.contains(&name) {
        let module = if field.proto3_optional() { "optional_int_or_string" } else { "int_or_string" };
        attributes.push(format!("with = \"crate::wire::{module}\""));
    }
    if !ALWAYS_WRITTEN.contains(&name) {
        let is_empty = is_empty_function(message, field);
        attributes.push(format!("skip_serializing_if = \"{is_empty}\""));
    }
    attributes
}

/// The function that tells whether a field need not be written.
fn is_empty_function(message: &DescriptorProto, field: &FieldDescriptorProto) -> &'static str {
    let is_map = message.nested_type.iter().any(|nested| {
        nested.options.as_ref().is_some_and(|options| options.map_entry())
            && field.type_name().ends_with(&format!(".{}.{}", message.name(), nested.name()))
    });
    match (field.label(), field.r#type()) {
        (Label::Repeated, _) if is_map => "std::collections::BTreeMap::is_empty",
        (Label::Repeated, _) => "Vec::is_empty",
        (_, Type::Message) => "Option::is_none",
        _ if field.proto3_optional() => "Option::is_none",
        (_, Type::String) => "String::is_empty",
        _ => "crate::wire::is_default",
    }
}
