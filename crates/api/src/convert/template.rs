//! What users may write in a pod template.

use super::check::{At, FieldError, once};
use super::env::{env_from_wire, sources_from_wire};
use super::local_volume;
use super::meta::finalizers_from_wire;
use super::probe::{hook_from_wire, probe_from_wire};
use super::security::{container_security_from_wire, pod_security_from_wire};
use crate::name::{check_label, check_subdomain};
use crate::quantity::{QuantityError, parse_bytes, parse_cpu_milli};
use crate::v1;
use domain::id::Name;
use domain::spec::{
    AntiAffinity, Container, Labels, LocalVolume, Mount, NamedClaim, Port, Resources, Template, Toleration,
};
use std::collections::{BTreeMap, BTreeSet};

const GRACE_SECONDS_DEFAULT: i64 = 30;
pub(super) const HOSTNAME_TOPOLOGY: &str = "kubernetes.io/hostname";
const EFFECTS: [(&str, &str); 4] =
    [("", ""), ("NoSchedule", "NoSchedule"), ("PreferNoSchedule", "PreferNoSchedule"), ("NoExecute", "NoExecute")];

/// Reads a template, of a set with the claim templates of these names. Its digest is left to the caller.
pub(super) fn template_from_wire(
    wire: Option<&v1::PodTemplateSpec>,
    claims: &[&str],
    at: At<'_>,
) -> Result<Template, FieldError> {
    let wire = at.required(wire)?;
    let empty = v1::ObjectMeta::default();
    let meta = wire.metadata.as_ref().unwrap_or(&empty);
    let (meta_at, at) = (at.to("metadata"), at.to("spec"));
    let spec = at.required(wire.spec.as_ref())?;
    at.to("restartPolicy").word(&spec.restart_policy, &[("Always", ())])?;
    let (volumes, mut local_volumes) = volumes_from_wire(&spec.volumes, at)?;
    // A claim takes the place of the template's volume of the same name (semantics A1-14).
    local_volumes.retain(|volume| !claims.contains(&volume.name.as_str()));
    let (init_containers, containers) = containers_from_wire(spec, claims, at)?;
    let all = || init_containers.iter().chain(&containers);
    let is_mounted = |claim: &str| all().any(|c| c.mounts.iter().any(|m| m.volume.as_str() == claim));
    if let Some(unused) = claims.iter().position(|claim| !is_mounted(claim)) {
        let place = At::root("spec");
        let rule = format_args!("{:?} is mounted by no container", claims[unused]);
        return Err(place.item("volumeClaimTemplates", unused).refuse(rule));
    }
    let grace = spec.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS_DEFAULT);
    Ok(Template {
        hash: 0,
        labels: meta_at.to("labels").labels(&meta.labels)?,
        annotations: meta_at.to("annotations").annotations(&meta.annotations)?,
        containers,
        node_selector: at.to("nodeSelector").labels(&spec.node_selector)?,
        tolerations: tolerations_from_wire(&spec.tolerations, at)?,
        anti_affinity: anti_affinity_from_wire(spec.affinity.as_ref(), at.to("affinity"))?,
        grace_ms: at.to("terminationGracePeriodSeconds").seconds(grace)?,
        volumes,
        local_volumes,
        init_containers,
        security: pod_security_from_wire(spec.security_context.as_ref(), at.to("securityContext"))?,
        finalizers: finalizers_from_wire(&meta.finalizers, meta_at)?,
    })
}

/// The claims among the volumes, and the others.
fn volumes_from_wire(wire: &[v1::Volume], at: At<'_>) -> Result<(Vec<NamedClaim>, Vec<LocalVolume>), FieldError> {
    let mut seen = BTreeSet::new();
    let (mut claims, mut locals) = (Vec::new(), Vec::new());
    for (index, volume) in wire.iter().enumerate() {
        let at = at.item("volumes", index);
        let name = at.to("name").name(&volume.name, check_label)?;
        once(&mut seen, &volume.name, at.to("name"))?;
        match (local_volume::source_from_wire(volume, at)?, &volume.persistent_volume_claim) {
            (None, Some(source)) => {
                let source_at = at.to("persistentVolumeClaim");
                let claim = source_at.to("claimName").name(&source.claim_name, check_subdomain)?;
                claims.push(NamedClaim { volume: name, claim });
            }
            (Some(source), None) => locals.push(LocalVolume { name, source }),
            (Some(_), Some(_)) => return Err(at.refuse("must have one source only")),
            // As in Kubernetes, a volume of which nothing is said is an empty directory.
            (None, None) => locals.push(LocalVolume { name, ..LocalVolume::default() }),
        }
    }
    Ok((claims, locals))
}

/// The containers that run first, and the others.
fn containers_from_wire(
    spec: &v1::PodSpec,
    claims: &[&str],
    at: At<'_>,
) -> Result<(Vec<Container>, Vec<Container>), FieldError> {
    if spec.containers.is_empty() {
        return Err(at.to("containers").refuse("must hold at least one"));
    }
    let mut seen = BTreeSet::new();
    let (mut init_containers, mut containers) = (Vec::new(), Vec::new());
    for (index, container) in spec.init_containers.iter().enumerate() {
        let at = at.item("initContainers", index);
        once(&mut seen, &container.name, at.to("name"))?;
        let is_sidecar = at.to("restartPolicy").word(&container.restart_policy, &[("", false), ("Always", true)])?;
        refuse_watching(container, is_sidecar, at)?;
        init_containers.push(Container { is_sidecar, ..container_from_wire(container, spec, claims, at)? });
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let at = at.item("containers", index);
        once(&mut seen, &container.name, at.to("name"))?;
        if !container.restart_policy.is_empty() {
            return Err(at.to("restartPolicy").refuse("may only be there in initContainers"));
        }
        containers.push(container_from_wire(container, spec, claims, at)?);
    }
    Ok((init_containers, containers))
}

/// Nobody watches a container that is to end by itself.
fn refuse_watching(wire: &v1::Container, is_sidecar: bool, at: At<'_>) -> Result<(), FieldError> {
    let there = [
        ("lifecycle", wire.lifecycle.is_some()),
        ("livenessProbe", wire.liveness_probe.is_some()),
        ("readinessProbe", wire.readiness_probe.is_some()),
        ("startupProbe", wire.startup_probe.is_some()),
    ];
    match there.into_iter().find(|(_, is_there)| *is_there && !is_sidecar) {
        Some((field, _)) => Err(at.to(field).refuse("needs restartPolicy \"Always\" in an init container")),
        None => Ok(()),
    }
}

fn container_from_wire(
    wire: &v1::Container,
    spec: &v1::PodSpec,
    claims: &[&str],
    at: At<'_>,
) -> Result<Container, FieldError> {
    let policies = [("Always", ()), ("IfNotPresent", ()), ("Never", ())];
    at.to("imagePullPolicy").word(&wire.image_pull_policy, &policies)?;
    let ports = ports_from_wire(&wire.ports, at)?;
    let (requests, limits) = resources_from_wire(wire.resources.as_ref(), at.to("resources"))?;
    let watching = |wire: Option<&v1::Probe>, at: At<'_>| {
        let probe = probe_from_wire(wire, &ports, at)?;
        match probe {
            Some(probe) if probe.success_threshold != 1 => {
                Err(at.to("successThreshold").refuse("must be 1 for a liveness or startup probe"))
            }
            probe => Ok(probe),
        }
    };
    let liveness = watching(wire.liveness_probe.as_ref(), at.to("livenessProbe"))?;
    let startup = watching(wire.startup_probe.as_ref(), at.to("startupProbe"))?;
    let readiness_at = at.to("readinessProbe");
    if wire.readiness_probe.as_ref().is_some_and(|probe| probe.termination_grace_period_seconds.is_some()) {
        let rule = "may not be there in a readiness probe: it stops nothing";
        return Err(readiness_at.to("terminationGracePeriodSeconds").refuse(rule));
    }
    let empty = v1::Lifecycle::default();
    let (lifecycle, hooks_at) = (wire.lifecycle.as_ref().unwrap_or(&empty), at.to("lifecycle"));
    Ok(Container {
        name: at.to("name").name(&wire.name, check_label)?,
        image: at.to("image").not_empty(&wire.image)?.into(),
        command: wire.command.clone(),
        args: wire.args.clone(),
        working_dir: wire.working_dir.clone(),
        env: env_from_wire(&wire.env, at)?,
        requests,
        limits,
        mounts: mounts_from_wire(wire, spec, claims, at)?,
        readiness: probe_from_wire(wire.readiness_probe.as_ref(), &ports, readiness_at)?,
        liveness,
        startup,
        post_start: hook_from_wire(lifecycle.post_start.as_ref(), &ports, hooks_at.to("postStart"))?,
        pre_stop: hook_from_wire(lifecycle.pre_stop.as_ref(), &ports, hooks_at.to("preStop"))?,
        is_sidecar: false,
        has_stdin: wire.stdin,
        is_stdin_once: wire.stdin_once,
        has_terminal: wire.tty,
        security: container_security_from_wire(wire.security_context.as_ref(), at.to("securityContext"))?,
        ports,
        env_from: sources_from_wire(&wire.env_from, at)?,
    })
}

fn ports_from_wire(wire: &[v1::ContainerPort], at: At<'_>) -> Result<Vec<Port>, FieldError> {
    let mut seen = BTreeSet::new();
    let mut ports = Vec::with_capacity(wire.len());
    for (index, port) in wire.iter().enumerate() {
        let at = at.item("ports", index);
        let name = match port.name.as_str() {
            "" => Name::default(),
            name => {
                once(&mut seen, name, at.to("name"))?;
                at.to("name").name(name, check_label)?
            }
        };
        ports.push(Port {
            name,
            port: at.to("containerPort").port(port.container_port)?,
            protocol: at.to("protocol").protocol(&port.protocol)?,
        });
    }
    Ok(ports)
}

fn resources_from_wire(
    wire: Option<&v1::ResourceRequirements>,
    at: At<'_>,
) -> Result<(Resources, Resources), FieldError> {
    let Some(wire) = wire else { return Ok((Resources::default(), Resources::default())) };
    for (part, quantities) in [("requests", &wire.requests), ("limits", &wire.limits)] {
        if let Some(unknown) = quantities.keys().find(|name| !["cpu", "memory"].contains(&name.as_str())) {
            return Err(at.to(part).refuse(format_args!("must be of cpu and memory, and {unknown:?} is there")));
        }
    }
    type Parse = fn(&str) -> Result<u64, QuantityError>;
    let read = |name: &str, parse: Parse| {
        let limit = quantity(&wire.limits, name, parse, at.to("limits"))?;
        let request = quantity(&wire.requests, name, parse, at.to("requests"))?;
        // What has a limit and no request asks for its limit, as in Kubernetes.
        let request = request.or(limit).unwrap_or(0);
        match limit {
            Some(limit) if limit < request => {
                Err(at.to("requests").refuse(format_args!("{name} must not be above its limit")))
            }
            _ => Ok((request, limit.unwrap_or(0))),
        }
    };
    let (cpu, cpu_limit) = read("cpu", parse_cpu_milli)?;
    let (memory, memory_limit) = read("memory", parse_bytes)?;
    Ok((
        Resources { cpu_milli: cpu, memory_bytes: memory },
        Resources { cpu_milli: cpu_limit, memory_bytes: memory_limit },
    ))
}

/// The quantity of one resource, if it is there.
pub(super) fn quantity(
    wire: &BTreeMap<String, String>,
    name: &str,
    parse: impl FnOnce(&str) -> Result<u64, QuantityError>,
    at: At<'_>,
) -> Result<Option<u64>, FieldError> {
    let Some(text) = wire.get(name) else { return Ok(None) };
    parse(text).map(Some).map_err(|error| at.to(name).refuse(error))
}

fn mounts_from_wire(
    wire: &v1::Container,
    spec: &v1::PodSpec,
    claims: &[&str],
    at: At<'_>,
) -> Result<Vec<Mount>, FieldError> {
    let mut seen = BTreeSet::new();
    let mut mounts = Vec::with_capacity(wire.volume_mounts.len());
    for (index, mount) in wire.volume_mounts.iter().enumerate() {
        let at = at.item("volumeMounts", index);
        let name = at.to("name").not_empty(&mount.name)?;
        let is_claim = claims.contains(&name);
        let volume = spec.volumes.iter().find(|volume| volume.name == name);
        if !is_claim && volume.is_none() {
            let rule = format_args!("{name:?} is neither a volume claim template nor a volume of the pod");
            return Err(at.to("name").refuse(rule));
        }
        let path = at.to("mountPath").not_empty(&mount.mount_path)?;
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(at.to("mountPath").refuse("must be an absolute path without \"..\""));
        }
        once(&mut seen, path, at.to("mountPath"))?;
        // A claim template hides a volume of the same name (semantics A1-14), and with it what that says.
        let source = volume.and_then(|volume| volume.persistent_volume_claim.as_ref()).filter(|_| !is_claim);
        let read_only = mount.read_only || source.is_some_and(|source| source.read_only);
        let sub_path = mount.sub_path.clone();
        if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
            return Err(at.to("subPath").refuse("must be a relative path without \"..\""));
        }
        mounts.push(Mount { volume: name.into(), path: path.to_owned(), read_only, sub_path });
    }
    Ok(mounts)
}

fn tolerations_from_wire(wire: &[v1::Toleration], at: At<'_>) -> Result<Vec<Toleration>, FieldError> {
    let toleration = |(index, wire): (usize, &v1::Toleration)| {
        let at = at.item("tolerations", index);
        let is_equal = at.to("operator").word(&wire.operator, &[("Equal", true), ("Exists", false)])?;
        if is_equal && wire.key.is_empty() {
            return Err(at.to("operator").refuse("must be \"Exists\" where there is no key"));
        }
        if !is_equal && !wire.value.is_empty() {
            return Err(at.to("value").refuse("must be empty with the operator \"Exists\""));
        }
        Ok(Toleration {
            key: wire.key.as_str().into(),
            value: is_equal.then(|| wire.value.as_str().into()),
            effect: at.to("effect").word(&wire.effect, &EFFECTS)?.into(),
        })
    };
    wire.iter().enumerate().map(toleration).collect()
}

fn anti_affinity_from_wire(wire: Option<&v1::Affinity>, at: At<'_>) -> Result<Vec<AntiAffinity>, FieldError> {
    let Some(wire) = wire.and_then(|affinity| affinity.pod_anti_affinity.as_ref()) else { return Ok(Vec::new()) };
    let at = at.to("podAntiAffinity");
    let mut terms = Vec::new();
    for (index, term) in wire.required_during_scheduling_ignored_during_execution.iter().enumerate() {
        let at = at.item("requiredDuringSchedulingIgnoredDuringExecution", index);
        terms.push(AntiAffinity { labels: affinity_term_from_wire(term, at)?, weight: None });
    }
    for (index, term) in wire.preferred_during_scheduling_ignored_during_execution.iter().enumerate() {
        let at = at.item("preferredDuringSchedulingIgnoredDuringExecution", index);
        let weight = match u32::try_from(term.weight) {
            Ok(weight @ 1..=100) => weight,
            _ => return Err(at.to("weight").refuse(format_args!("must be 1 to 100, and is {}", term.weight))),
        };
        let at = at.to("podAffinityTerm");
        let labels = affinity_term_from_wire(at.required(term.pod_affinity_term.as_ref())?, at)?;
        terms.push(AntiAffinity { labels, weight: Some(weight) });
    }
    Ok(terms)
}

fn affinity_term_from_wire(wire: &v1::PodAffinityTerm, at: At<'_>) -> Result<Labels, FieldError> {
    if wire.topology_key != HOSTNAME_TOPOLOGY {
        let rule = format_args!("must be {HOSTNAME_TOPOLOGY:?}, and is {:?}", wire.topology_key);
        return Err(at.to("topologyKey").refuse(rule));
    }
    selector_from_wire(wire.label_selector.as_ref(), at.to("labelSelector"))
}

/// Reads a selector that must not be empty.
pub(super) fn selector_from_wire(wire: Option<&v1::LabelSelector>, at: At<'_>) -> Result<Labels, FieldError> {
    let wire = at.required(wire)?;
    let mut labels = at.to("matchLabels").labels(&wire.match_labels)?;
    for (index, condition) in wire.match_expressions.iter().enumerate() {
        let at = at.item("matchExpressions", index);
        let ("In", [value]) = (condition.operator.as_str(), condition.values.as_slice()) else {
            return Err(at.refuse("must be In with one value: only labels with their values are selected by"));
        };
        let one = BTreeMap::from([(condition.key.clone(), value.clone())]);
        labels.extend(at.labels(&one)?);
    }
    if labels.is_empty() { Err(at.refuse("must not be empty")) } else { Ok(labels) }
}
