//! How a pod template is shown.

use super::check::labels_to_wire;
use super::env::{env_to_wire, source_to_wire};
use super::local_volume::local_volume_to_wire;
use super::probe::{hook_to_wire, probe_to_wire};
use super::security::{container_security_to_wire, pod_security_to_wire};
use super::set::number;
use super::template::HOSTNAME_TOPOLOGY;
use crate::quantity::{format_bytes, format_cpu_milli};
use crate::v1;
use domain::spec::{AntiAffinity, Container, NamedClaim, Resources, Template, Toleration};
use std::collections::BTreeMap;

pub(super) fn template_to_wire(template: &Template) -> v1::PodTemplateSpec {
    v1::PodTemplateSpec {
        metadata: Some(v1::ObjectMeta {
            labels: labels_to_wire(&template.labels),
            annotations: labels_to_wire(&template.annotations),
            finalizers: template.finalizers.iter().map(ToString::to_string).collect(),
            ..v1::ObjectMeta::default()
        }),
        spec: Some(spec_to_wire(template)),
    }
}

pub(super) fn spec_to_wire(template: &Template) -> v1::PodSpec {
    v1::PodSpec {
        containers: template.containers.iter().map(container_to_wire).collect(),
        init_containers: template.init_containers.iter().map(container_to_wire).collect(),
        node_selector: labels_to_wire(&template.node_selector),
        tolerations: template.tolerations.iter().map(toleration_to_wire).collect(),
        affinity: affinity_to_wire(&template.anti_affinity),
        termination_grace_period_seconds: Some(i64::try_from(template.grace_ms / 1000).unwrap_or(i64::MAX)),
        restart_policy: "Always".to_owned(),
        volumes: template
            .volumes
            .iter()
            .map(volume_to_wire)
            .chain(template.local_volumes.iter().map(local_volume_to_wire))
            .collect(),
        security_context: pod_security_to_wire(&template.security),
        ..v1::PodSpec::default()
    }
}

fn volume_to_wire(volume: &NamedClaim) -> v1::Volume {
    claim_volume(volume.volume.as_str(), volume.claim.as_str())
}

/// A volume of a pod that is a claim.
pub(super) fn claim_volume(name: &str, claim: &str) -> v1::Volume {
    let source = v1::PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), read_only: false };
    v1::Volume { name: name.to_owned(), persistent_volume_claim: Some(source), ..v1::Volume::default() }
}

fn container_to_wire(container: &Container) -> v1::Container {
    let port = |port: &domain::spec::Port| v1::ContainerPort {
        name: port.name.to_string(),
        container_port: number(port.port),
        protocol: port.protocol.to_string(),
    };
    let mount = |mount: &domain::spec::Mount| v1::VolumeMount {
        name: mount.volume.to_string(),
        mount_path: mount.path.clone(),
        read_only: mount.read_only,
        sub_path: mount.sub_path.clone(),
    };
    v1::Container {
        name: container.name.to_string(),
        image: container.image.to_string(),
        command: container.command.clone(),
        args: container.args.clone(),
        env: container.env.iter().map(env_to_wire).collect(),
        ports: container.ports.iter().map(port).collect(),
        resources: resources_to_wire(container.requests, container.limits),
        volume_mounts: container.mounts.iter().map(mount).collect(),
        readiness_probe: container.readiness.as_ref().map(probe_to_wire),
        liveness_probe: container.liveness.as_ref().map(probe_to_wire),
        working_dir: container.working_dir.clone(),
        image_pull_policy: String::new(),
        env_from: container.env_from.iter().map(source_to_wire).collect(),
        lifecycle: lifecycle_to_wire(container),
        startup_probe: container.startup.as_ref().map(probe_to_wire),
        restart_policy: if container.is_sidecar { "Always" } else { "" }.to_owned(),
        stdin: container.has_stdin,
        stdin_once: container.is_stdin_once,
        tty: container.has_terminal,
        security_context: container_security_to_wire(&container.security),
    }
}

fn lifecycle_to_wire(container: &Container) -> Option<v1::Lifecycle> {
    let wire = v1::Lifecycle {
        post_start: container.post_start.as_ref().map(hook_to_wire),
        pre_stop: container.pre_stop.as_ref().map(hook_to_wire),
    };
    (wire != v1::Lifecycle::default()).then_some(wire)
}

fn resources_to_wire(requests: Resources, limits: Resources) -> Option<v1::ResourceRequirements> {
    let wire = v1::ResourceRequirements { requests: quantities(requests), limits: quantities(limits) };
    (wire != v1::ResourceRequirements::default()).then_some(wire)
}

/// What is not zero.
fn quantities(resources: Resources) -> BTreeMap<String, String> {
    let cpu = (resources.cpu_milli != 0).then(|| ("cpu".to_owned(), format_cpu_milli(resources.cpu_milli)));
    let memory = (resources.memory_bytes != 0).then(|| ("memory".to_owned(), format_bytes(resources.memory_bytes)));
    cpu.into_iter().chain(memory).collect()
}

fn toleration_to_wire(toleration: &Toleration) -> v1::Toleration {
    let operator = if toleration.value.is_some() { "Equal" } else { "Exists" };
    v1::Toleration {
        key: toleration.key.to_string(),
        operator: operator.to_owned(),
        value: toleration.value.as_ref().map(ToString::to_string).unwrap_or_default(),
        effect: toleration.effect.to_string(),
    }
}

fn affinity_to_wire(terms: &[AntiAffinity]) -> Option<v1::Affinity> {
    let mut wire = v1::PodAntiAffinity::default();
    for AntiAffinity { labels, weight } in terms {
        let term = v1::PodAffinityTerm {
            label_selector: Some(v1::LabelSelector {
                match_labels: labels_to_wire(labels),
                ..v1::LabelSelector::default()
            }),
            topology_key: HOSTNAME_TOPOLOGY.to_owned(),
        };
        match weight {
            None => wire.required_during_scheduling_ignored_during_execution.push(term),
            Some(weight) => {
                let weighted = v1::WeightedPodAffinityTerm { weight: number(*weight), pod_affinity_term: Some(term) };
                wire.preferred_during_scheduling_ignored_during_execution.push(weighted);
            }
        }
    }
    (!terms.is_empty()).then_some(v1::Affinity { pod_anti_affinity: Some(wire) })
}
