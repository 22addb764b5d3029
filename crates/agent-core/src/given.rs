//! What a container is given besides its program: variables, and files in volumes that end with the pod.
//! Never touches a file, and never decides when.

use crate::message::{Config, Failure, PodFile, VolumeContent};
use domain::agent::AssignedPod;
use domain::config::{Blob, ConfigKind, ConfigRef, ConfigSpec};
use domain::id::{Key, Name};
use domain::object::Node;
use domain::spec::{Container, EnvValue, KeyFile, Labels, LocalSource, LocalVolume};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The config maps and secrets that pods of this node refer to, as far as they are there.
pub type Configs = BTreeMap<(ConfigKind, Key), Arc<ConfigSpec>>;

/// Why a container waits that refers to what is not there, in the word that Kubernetes uses.
pub const REASON_CONFIG: &str = "CreateContainerConfigError";

/// What a pod's variables and files are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    pub(crate) config: &'a Config,
    pub(crate) configs: &'a Configs,
}

impl<'a> Given<'a> {
    /// The variables of a container, in order. `$(NAME)` in a value stands for an earlier one, and `$$` for a dollar.
    pub(crate) fn variables(self, pod: &AssignedPod, spec: &Container) -> Result<Vec<(Name, String)>, Failure> {
        let mut variables = Vec::new();
        for source in &spec.env_from {
            let Some(object) = self.object(pod, &source.config)? else { continue };
            for (key, content) in object.contents() {
                variables.push((format!("{}{key}", source.prefix).into(), literal(content, &source.config, key)?));
            }
        }
        for variable in &spec.env {
            let value = match &variable.value {
                EnvValue::Text(text) => Some(text.clone()),
                EnvValue::Field(path) => Some(escaped(&self.field(pod, path))),
                EnvValue::Resource { container, resource, divisor } => {
                    let of = if container.as_str().is_empty() { &spec.name } else { container };
                    Some(self.resource(pod, of, resource, *divisor)?)
                }
                EnvValue::Key { config, key } => match self.key(pod, config, key)? {
                    Some(content) => Some(literal(content, config, key)?),
                    None => None,
                },
            };
            variables.extend(value.map(|value| (variable.name.clone(), value)));
        }
        Ok(variables)
    }

    /// What is in a volume that ends with the pod.
    pub(crate) fn content(self, pod: &AssignedPod, volume: &LocalVolume) -> Result<VolumeContent, Failure> {
        let files = match &volume.source {
            LocalSource::EmptyDir { in_memory: false, .. } => return Ok(VolumeContent::Empty),
            LocalSource::EmptyDir { in_memory: true, size_max_bytes } => {
                return Ok(VolumeContent::Memory { size_max_bytes: *size_max_bytes });
            }
            LocalSource::Config { config, items, mode } => match self.object(pod, config)? {
                Some(object) => config_files(object, config, items, *mode)?,
                None => BTreeMap::new(),
            },
            LocalSource::Fields { items, mode } => {
                let mut files = BTreeMap::new();
                for item in items {
                    let text = match &item.value {
                        EnvValue::Field(path) => self.field(pod, path),
                        EnvValue::Resource { container, resource, divisor } => {
                            self.resource(pod, container, resource, *divisor)?
                        }
                        EnvValue::Text(_) | EnvValue::Key { .. } => String::new(),
                    };
                    let content = Blob::from(text);
                    files.insert(item.path.clone(), PodFile { mode: item.mode.unwrap_or(*mode), content });
                }
                files
            }
        };
        Ok(VolumeContent::Files(files))
    }

    /// `None`: it is not there, and need not be.
    fn object(self, pod: &AssignedPod, config: &ConfigRef) -> Result<Option<&'a Arc<ConfigSpec>>, Failure> {
        let key = Key { namespace: pod.pod.namespace.clone(), name: config.name.clone() };
        match self.configs.get(&(config.kind, key)) {
            Some(object) => Ok(Some(object)),
            None if config.is_optional => Ok(None),
            None => Err(missing(format!("{} \"{}\" not found", config.kind.word(), config.name))),
        }
    }

    fn key(self, pod: &AssignedPod, config: &ConfigRef, key: &Name) -> Result<Option<&'a Blob>, Failure> {
        let Some(object) = self.object(pod, config)? else { return Ok(None) };
        match object.content(key) {
            Some(content) => Ok(Some(content)),
            None if config.is_optional => Ok(None),
            None => Err(no_key(config, key)),
        }
    }

    /// A field of the pod as `fieldRef` names it. A field that is not there is empty, as in Kubernetes.
    fn field(self, pod: &AssignedPod, path: &str) -> String {
        if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
            let entries = if map == "metadata.labels" { &pod.labels } else { &pod.annotations };
            return entries.get(&Name::new(key)).map(Name::to_string).unwrap_or_default();
        }
        match path {
            "metadata.name" => pod.pod.name.to_string(),
            "metadata.namespace" => pod.pod.namespace.to_string(),
            "metadata.uid" => pod.uid_text.clone(),
            "metadata.labels" => lines(&pod.labels),
            "metadata.annotations" => lines(&pod.annotations),
            "spec.nodeName" => self.config.node.to_string(),
            "spec.serviceAccountName" => "default".to_owned(),
            "status.podIP" | "status.podIPs" => pod_ip(pod).to_string(),
            "status.hostIP" => {
                let known = self.config.registration.info.get(&Name::new(Node::INFO_ADDRESS));
                known.map_or_else(|| Ipv4Addr::LOCALHOST.to_string(), Name::to_string)
            }
            _ => String::new(),
        }
    }

    /// A limit that is not set is what the node has, as in Kubernetes.
    fn resource(self, pod: &AssignedPod, container: &Name, resource: &Name, unit: u64) -> Result<String, Failure> {
        let spec = pod.template.every_container().find(|spec| spec.name == *container);
        let spec = spec.ok_or_else(|| missing(format!("the pod has no container {container}")))?;
        let capacity = self.config.registration.capacity;
        let limit_or_capacity = |limit: u64, capacity: u64| if limit == 0 { capacity } else { limit };
        let amount = match resource.as_str() {
            "limits.cpu" => limit_or_capacity(spec.limits.cpu_milli, capacity.cpu_milli),
            "limits.memory" => limit_or_capacity(spec.limits.memory_bytes, capacity.memory_bytes),
            "requests.cpu" => spec.requests.cpu_milli,
            _ => spec.requests.memory_bytes,
        };
        Ok(amount.div_ceil(unit.max(1)).to_string())
    }
}

/// A pod's address; all of 127/8 is there, so one that has none yet gets the host's own.
fn pod_ip(pod: &AssignedPod) -> Ipv4Addr {
    if pod.address == 0 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::from(pod.address) }
}

fn config_files(
    object: &ConfigSpec,
    config: &ConfigRef,
    items: &[KeyFile],
    mode: u32,
) -> Result<BTreeMap<String, PodFile>, Failure> {
    if items.is_empty() {
        let file = |(key, content): (&Name, &Blob)| (key.to_string(), PodFile { mode, content: content.clone() });
        return Ok(object.contents().map(file).collect());
    }
    let mut files = BTreeMap::new();
    for item in items {
        match object.content(&item.key) {
            Some(content) => {
                let file = PodFile { mode: item.mode.unwrap_or(mode), content: content.clone() };
                files.insert(item.path.clone(), file);
            }
            None if config.is_optional => {}
            None => return Err(no_key(config, &item.key)),
        }
    }
    Ok(files)
}

/// A map as a file shows it, one pair on a line.
fn lines(pairs: &Labels) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={:?}\n", value.as_str())).collect()
}

/// A content as a variable: nothing in it refers to others.
fn literal(content: &Blob, config: &ConfigRef, key: &Name) -> Result<String, Failure> {
    match std::str::from_utf8(&content.0) {
        Ok(text) if !text.contains('\0') => Ok(escaped(text)),
        _ => {
            let (kind, name) = (config.kind.word(), &config.name);
            Err(missing(format!("key {key} of {kind} \"{name}\" is no text, and cannot be a variable")))
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

fn no_key(config: &ConfigRef, key: &Name) -> Failure {
    missing(format!("couldn't find key {key} in {} \"{}\"", config.kind.word(), config.name))
}

fn missing(message: String) -> Failure {
    Failure { reason: Name::new(REASON_CONFIG), message }
}
