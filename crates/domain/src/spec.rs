//! What people ask for: specs of sets, templates, claims, volumes, classes. Plain data, valid once it exists;
//! the edge has parsed and checked it.

use crate::config::ConfigRef;
use crate::id::{ClassName, Key, Name, NodeName, Ordinal};
pub use crate::labels::Labels;
use crate::security::{ContainerSecurity, PodSecurity};
use std::sync::Arc;

/// A StatefulSet's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetSpec {
    /// Wanted number of ordinals.
    pub replicas: u32,
    /// First ordinal.
    pub start: Ordinal,
    /// `matchLabels`: the labels that make a pod a member.
    pub selector: Labels,
    /// The governing headless service, or empty.
    pub service_name: Name,
    /// In which order pods come and go.
    pub policy: PodManagement,
    /// How a new template reaches pods.
    pub update: UpdateStrategy,
    /// What a pod looks like.
    pub template: Arc<Template>,
    /// One claim per pod and entry.
    pub claim_templates: Vec<ClaimTemplate>,
    /// How long a pod must be ready to count as available.
    pub min_ready_ms: u64,
    /// How many revisions that nothing uses are kept.
    pub revision_history_max: u32,
    /// What becomes of claims whose pods go for good.
    pub retention: ClaimRetention,
    /// Whether the rollout rests: no pod is replaced for a new template.
    pub is_paused: bool,
}

impl SetSpec {
    /// The ordinals that should exist.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = Ordinal> + use<> {
        (self.start.0..self.start.0 + self.replicas).map(Ordinal)
    }

    /// Whether `ordinal` should exist.
    #[must_use]
    pub const fn keeps(&self, ordinal: Ordinal) -> bool {
        self.start.0 <= ordinal.0 && ordinal.0 < self.start.0 + self.replicas
    }
}

/// What becomes of a set's claims when their pods go for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimRetention {
    /// When the set is deleted.
    pub when_deleted: Retention,
    /// When the set is scaled in.
    pub when_scaled: Retention,
}

/// Whether claims stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// They stay.
    #[default]
    Retain,
    /// They go after their pods.
    Delete,
}

/// In which order a set's pods come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodManagement {
    /// One after another: up from the lowest, down from the highest.
    #[default]
    OrderedReady,
    /// All at once.
    Parallel,
}

/// How a new template reaches pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateStrategy {
    /// From the highest ordinal down to `partition`, at most `max_unavailable` at a time.
    RollingUpdate {
        /// Ordinals below it keep the current revision (absolute, Decision 8).
        partition: Ordinal,
        /// How many kept pods may be unavailable during the update.
        max_unavailable: Amount,
    },
    /// Only when a pod is made anew for another reason.
    OnDelete,
}

impl Default for UpdateStrategy {
    fn default() -> Self {
        Self::RollingUpdate { partition: Ordinal(0), max_unavailable: Amount::Count(1) }
    }
}

/// A count, or a share of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many hundredths of the replicas, rounded down, at least 1 (Decision 7).
    Percent(u32),
}

impl Amount {
    /// The count that this means for `total`, at least 1.
    #[must_use]
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.max(1),
            Self::Percent(percent) => {
                let share = u64::from(total) * u64::from(percent) / 100;
                u32::try_from(share).unwrap_or(u32::MAX).max(1)
            }
        }
    }
}

impl Amount {
    /// The count that this means for `total` in a disruption budget: rounded up, and possibly 0.
    #[must_use]
    pub fn rounded_up(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let share = (u64::from(total) * u64::from(percent)).div_ceil(100);
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }
}

/// What a pod looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// A digest of the template's canonical bytes, made at the edge; it only names revisions, equality is by content.
    pub hash: u64,
    /// Labels of each pod.
    pub labels: Labels,
    /// Annotations of each pod.
    pub annotations: Labels,
    /// The programs that run, in order.
    pub containers: Vec<Container>,
    /// Labels that a node must have.
    pub node_selector: Labels,
    /// Taints that the pod endures.
    pub tolerations: Vec<Toleration>,
    /// Pods that it avoids.
    pub anti_affinity: Vec<AntiAffinity>,
    /// How long a stop may take before it is a kill.
    pub grace_ms: u64,
    /// Claims named by the template itself, rather than made by the set.
    pub volumes: Vec<NamedClaim>,
    /// Volumes that are made with the pod on its node, and end with it.
    pub local_volumes: Vec<LocalVolume>,
    /// Programs that run before the others, one after another, each to its end, or beside them where they say so.
    pub init_containers: Vec<Container>,
    /// What every container may do, unless it says otherwise.
    pub security: PodSecurity,
    /// What each pod's object waits for before it goes.
    pub finalizers: Vec<Name>,
}

impl Template {
    /// Whether both mean the same pod, however they came to be digested.
    #[must_use]
    pub fn means_same(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.annotations == other.annotations
            && self.containers == other.containers
            && self.node_selector == other.node_selector
            && self.tolerations == other.tolerations
            && self.anti_affinity == other.anti_affinity
            && self.grace_ms == other.grace_ms
            && self.volumes == other.volumes
            && self.local_volumes == other.local_volumes
            && self.init_containers == other.init_containers
            && self.security == other.security
            && self.finalizers == other.finalizers
    }

    /// Every container, in the order in which they start.
    pub fn every_container(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// What the containers ask for together: what runs side by side, or the most that is needed on the way there.
    #[must_use]
    pub fn requests(&self) -> Resources {
        let mut beside = Resources::default();
        let mut most = Resources::default();
        for container in &self.init_containers {
            if container.is_sidecar {
                beside = beside.plus(container.requests);
                most = most.max(beside);
            } else {
                most = most.max(beside.plus(container.requests));
            }
        }
        self.containers.iter().fold(beside, |sum, c| sum.plus(c.requests)).max(most)
    }
}

/// A volume of a template that is an existing claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedClaim {
    /// The name that mounts use.
    pub volume: Name,
    /// The claim's name, in the pod's namespace.
    pub claim: Name,
}

/// A volume that is made with the pod on its node, and ends with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalVolume {
    /// The name that mounts use.
    pub name: Name,
    /// What is in it.
    pub source: LocalSource,
}

/// What is in a volume that ends with its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalSource {
    /// Nothing at first; the containers share it.
    EmptyDir {
        /// Asked to be kept in memory.
        in_memory: bool,
        /// How much it should hold, or 0.
        size_max_bytes: u64,
    },
    /// The contents of a config map or a secret, as files.
    Config {
        /// Which one.
        config: ConfigRef,
        /// Which of its keys; empty is all, each by its own name.
        items: Vec<KeyFile>,
        /// The files' mode.
        mode: u32,
    },
    /// Facts of the pod, as files.
    Fields {
        /// Which.
        items: Vec<FieldFile>,
        /// The files' mode.
        mode: u32,
    },
}

impl Default for LocalSource {
    fn default() -> Self {
        Self::EmptyDir { in_memory: false, size_max_bytes: 0 }
    }
}

/// A key of a config map or a secret, as a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFile {
    /// The key.
    pub key: Name,
    /// The file, below where the volume appears.
    pub path: String,
    /// Its own mode, if it has one.
    pub mode: Option<u32>,
}

/// A fact of the pod, as a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldFile {
    /// The file, below where the volume appears.
    pub path: String,
    /// The fact: a field or a resource.
    pub value: EnvValue,
    /// Its own mode, if it has one.
    pub mode: Option<u32>,
}

/// One program of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name within the pod.
    pub name: Name,
    /// Image reference, looked up in the node's catalogue.
    pub image: Name,
    /// Replaces the image's command.
    pub command: Vec<String>,
    /// Arguments of the command.
    pub args: Vec<String>,
    /// Where it starts, or empty.
    pub working_dir: String,
    /// Environment, in order: later entries may refer to earlier ones.
    pub env: Vec<EnvVar>,
    /// Ports that it says it listens on.
    pub ports: Vec<Port>,
    /// What placement reserves for it.
    pub requests: Resources,
    /// What it may use; zero is no limit.
    pub limits: Resources,
    /// Where its volumes appear.
    pub mounts: Vec<Mount>,
    /// Decides whether it gets traffic.
    pub readiness: Option<Probe>,
    /// Decides whether it is restarted.
    pub liveness: Option<Probe>,
    /// Objects whose every key is a variable; what `env` says wins.
    pub env_from: Vec<EnvFrom>,
    /// Decides when it has started: the other probes wait for that.
    pub startup: Option<Probe>,
    /// What is done once it has started.
    pub post_start: Option<Hook>,
    /// What is done before it is asked to end.
    pub pre_stop: Option<Hook>,
    /// Of an init container: it goes on beside the others instead of ending before them.
    pub is_sidecar: bool,
    /// Whether somebody may type for it.
    pub has_stdin: bool,
    /// Whether its input ends with the first who may type.
    pub is_stdin_once: bool,
    /// Whether it runs at a terminal.
    pub has_terminal: bool,
    /// What it may do.
    pub security: ContainerSecurity,
}

/// Something that is done at a turn of a container's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Runs a command in the container; exit code 0 is good.
    Exec(Vec<String>),
    /// Asks for a page; 200-399 is good.
    HttpGet {
        /// Path and query.
        path: String,
        /// Port number.
        port: u32,
        /// Host to ask, or empty for the pod's address.
        host: String,
    },
    /// Waits.
    Sleep {
        /// So long.
        ms: u64,
    },
}

/// An object whose every key is a variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvFrom {
    /// What is put before each key.
    pub prefix: String,
    /// The object.
    pub config: ConfigRef,
}

/// A variable of a container's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub value: EnvValue,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// Written in the template.
    Text(String),
    /// A field of the pod, by its path (`metadata.name`, `status.podIP`, …).
    Field(String),
    /// A key of a config map or a secret.
    Key {
        /// The object.
        config: ConfigRef,
        /// The key.
        key: Name,
    },
    /// A resource of a container (`limits.cpu`, `requests.memory`, …), in units of the divisor, rounded up.
    Resource {
        /// Which container; empty is the one that the variable belongs to.
        container: Name,
        /// Which resource.
        resource: Name,
        /// The unit: thousandths of a core, or bytes.
        divisor: u64,
    },
}

impl Default for EnvValue {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// A port that a container or a service names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its name, or empty.
    pub name: Name,
    /// The number.
    pub port: u32,
    /// `TCP` or `UDP`.
    pub protocol: Name,
}

/// Where a volume appears in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The claim template's or volume's name.
    pub volume: Name,
    /// Absolute path.
    pub path: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The part of the volume that appears, or empty for all of it.
    pub sub_path: String,
}

/// Processor and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

impl Resources {
    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { cpu_milli: self.cpu_milli.max(other.cpu_milli), memory_bytes: self.memory_bytes.max(other.memory_bytes) }
    }

    /// What is left, never below zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
}

/// A check of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// What is done.
    pub action: ProbeAction,
    /// Wait after the start.
    pub initial_delay_ms: u64,
    /// Time between checks.
    pub period_ms: u64,
    /// A check that takes longer has failed.
    pub timeout_ms: u64,
    /// How many successes in a row turn it good.
    pub success_threshold: u32,
    /// How many failures in a row turn it bad.
    pub failure_threshold: u32,
    /// How long the stop of a container that it condemns may take, if not as long as its pod says.
    pub grace_ms: Option<u64>,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// Runs a command; exit code 0 is good.
    Exec(Vec<String>),
    /// Asks for a page; 200-399 is good.
    HttpGet {
        /// Path and query.
        path: String,
        /// Port number.
        port: u32,
        /// Host to ask, or empty for the pod's address.
        host: String,
    },
    /// Opens a connection.
    TcpSocket {
        /// Port number.
        port: u32,
    },
    /// Asks by gRPC's health protocol; SERVING is good.
    Grpc {
        /// Port number.
        port: u32,
        /// The service that is asked about, or empty for the whole server.
        service: String,
    },
}

impl Default for ProbeAction {
    fn default() -> Self {
        Self::Exec(Vec::new())
    }
}

/// A taint that a pod endures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toleration {
    /// Key, or empty for all.
    pub key: Name,
    /// Value to equal; `None` is `Exists`.
    pub value: Option<Name>,
    /// Effect, or empty for all.
    pub effect: Name,
}

/// A mark on a node that keeps pods away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: Name,
    /// Value, or empty.
    pub value: Name,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: Name,
}

/// Pods to keep off the same host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AntiAffinity {
    /// Labels of the pods to avoid.
    pub labels: Labels,
    /// `None`: required. Otherwise the weight of a preference.
    pub weight: Option<u32>,
}

/// What a set's claims look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimTemplate {
    /// The name that mounts use.
    pub name: Name,
    /// Labels of the claims.
    pub labels: Labels,
    /// What each asks for.
    pub spec: ClaimSpec,
    /// Annotations of the claims.
    pub annotations: Labels,
}

/// A wish for a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimSpec {
    /// How it is to be used.
    pub access: AccessModes,
    /// `None`: the default class. Empty: static volumes only.
    pub class: Option<ClassName>,
    /// Size asked for.
    pub request_bytes: u64,
    /// One particular volume, or `None`.
    pub volume: Option<Name>,
    /// Labels that a static volume must have.
    pub selector: Labels,
}

/// Ways a volume may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessModes {
    /// By pods of one node.
    pub read_write_once: bool,
    /// By one pod.
    pub read_write_once_pod: bool,
    /// By all nodes, to read.
    pub read_only_many: bool,
    /// By all nodes.
    pub read_write_many: bool,
}

impl AccessModes {
    /// Whether everything that `wanted` asks for is here.
    #[must_use]
    pub const fn cover(self, wanted: Self) -> bool {
        (self.read_write_once || !wanted.read_write_once)
            && (self.read_write_once_pod || !wanted.read_write_once_pod)
            && (self.read_only_many || !wanted.read_only_many)
            && (self.read_write_many || !wanted.read_write_many)
    }

    /// Whether several nodes may have it at once.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        self.read_only_many || self.read_write_many
    }

    /// How many modes there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.read_write_once as u32
            + self.read_write_once_pod as u32
            + self.read_only_many as u32
            + self.read_write_many as u32
    }
}

/// What becomes of a volume when its claim is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reclaim {
    /// The storage goes too.
    #[default]
    Delete,
    /// It stays until a person decides.
    Retain,
}

/// A volume's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Size.
    pub capacity_bytes: u64,
    /// Ways it may be used.
    pub access: AccessModes,
    /// Class, or empty.
    pub class: ClassName,
    /// Driver that serves it.
    pub driver: Name,
    /// The driver's name for it.
    pub handle: Name,
    /// What becomes of it.
    pub reclaim: Reclaim,
    /// The only nodes that reach it; empty is all.
    pub nodes: Vec<NodeName>,
    /// The claim that it is kept for.
    pub claim: Option<Key>,
}

/// How volumes of a class come to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassSpec {
    /// Driver that provisions.
    pub provisioner: Name,
    /// What becomes of its volumes.
    pub reclaim: Reclaim,
    /// Whether a volume is chosen only when a pod is placed.
    pub waits_for_consumer: bool,
    /// Whether claims may grow.
    pub may_expand: bool,
    /// Whether claims without a class get this one.
    pub is_default: bool,
    /// For the driver.
    pub parameters: Labels,
}

/// A name for pods: headless, or with an address of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Labels of its pods.
    pub selector: Labels,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Whether pods that are not ready are named too.
    pub publish_not_ready: bool,
    /// Whether it has an address of its own (`ClusterIP`), rather than being a name for its pods' (headless).
    pub has_address: bool,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, or empty.
    pub name: Name,
    /// The number.
    pub port: u32,
    /// `TCP` or `UDP`.
    pub protocol: Name,
    /// The pods' port behind it; `None`: the same number.
    pub target: Option<TargetPort>,
}

/// A port of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This one.
    Number(u32),
    /// The one that each pod's containers call so.
    Named(Name),
}

/// How many pods may be away by somebody's wish at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSpec {
    /// Labels of its pods.
    pub selector: Labels,
    /// How many.
    pub bound: BudgetBound,
    /// Whether pods that are not ready may always be evicted.
    pub evicts_unready: bool,
}

impl Default for BudgetSpec {
    fn default() -> Self {
        Self { selector: Labels::new(), bound: BudgetBound::MaxUnavailable(Amount::Count(1)), evicts_unready: false }
    }
}

/// The bound of a disruption budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetBound {
    /// So many must stay ready.
    MinAvailable(Amount),
    /// So many may be away.
    MaxUnavailable(Amount),
}
