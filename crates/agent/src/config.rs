//! Who the agent is, what it has, and why it may fail. Read once at the start.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use domain::address::AddressRange;
use domain::event::Registration;
use domain::id::{BootId, MachineId};
use domain::spec::{Labels, Resources, Taint};
use journal::FileError;

use crate::image::CatalogueError;
use crate::machine;
use crate::sandbox::probe::Probed;
use crate::service_proxy::ServiceProxy;
use crate::session::Ways;
use crate::volume::Support;

/// How many pods a node takes when nobody says otherwise.
pub const PODS_MAX_DEFAULT: u32 = 110;
/// Time between heartbeats when nobody says otherwise.
pub const HEARTBEAT_MS_DEFAULT: u64 = 1_000;

/// How long pods may take when the node is shut down and nobody says otherwise.
pub const SHUTDOWN_GRACE_MS_DEFAULT: u64 = 30_000;

/// How containers are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// In sandboxes where the machine allows it, as plain processes elsewhere.
    #[default]
    Auto,
    /// In sandboxes; an agent that cannot make any does not begin.
    Sandbox,
    /// As plain processes of the host.
    Process,
}

/// How to run an agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node's name.
    pub node: String,
    /// Where the agent keeps its ledger and its pods.
    pub data_dir: PathBuf,
    /// Addresses of servers (`127.0.0.1:7001`) by their ids, which redirects name.
    pub servers: BTreeMap<u64, String>,
    /// A file with more of these, `ID=HOST:PORT` in each line, which go before them. It is read again for each connection:
    /// servers come and go.
    pub routes: Option<PathBuf>,
    /// Which start of the machine this is. `None`: the kernel says.
    pub boot_id: Option<String>,
    /// Which machine this is. `None`: `/etc/machine-id` says.
    pub machine_id: Option<String>,
    /// Where volumes are, for all nodes.
    pub storage_root: PathBuf,
    /// The image catalogue. `None`: the one that comes with the program.
    pub images: Option<PathBuf>,
    /// The program that knows the verbs `shim`, `container-init` and `workload`. `None`: this one.
    pub exe: Option<PathBuf>,
    /// How containers are run.
    pub runtime: RuntimeChoice,
    /// The node's labels.
    pub labels: Labels,
    /// The node's taints.
    pub taints: Vec<Taint>,
    /// What the node has. `None`: the processors and the memory of the machine.
    pub capacity: Option<Resources>,
    /// How many pods the node takes.
    pub pods_max: u32,
    /// Time between heartbeats.
    pub heartbeat_ms: u64,
    /// How long pods may take to end when the node is shut down.
    pub shutdown_grace_ms: u64,
    /// Where names are answered over DNS.
    pub dns: dns::Listen,
    /// Whether services' addresses are served.
    pub service_proxy: ServiceProxy,
    /// The addresses that its pods get, where the node has a network of its own in which all of them are local. `None`: they
    /// are given addresses of loopback, which every machine has.
    pub pod_range: Option<AddressRange>,
}

impl AgentConfig {
    /// An agent with everything that can be found out left to be found out.
    pub fn new(node: &str, data_dir: PathBuf, servers: BTreeMap<u64, String>, storage_root: PathBuf) -> Self {
        Self {
            node: node.to_owned(),
            data_dir,
            servers,
            routes: None,
            boot_id: None,
            machine_id: None,
            storage_root,
            images: None,
            exe: None,
            runtime: RuntimeChoice::default(),
            labels: Labels::new(),
            taints: Vec::new(),
            capacity: None,
            pods_max: PODS_MAX_DEFAULT,
            heartbeat_ms: HEARTBEAT_MS_DEFAULT,
            shutdown_grace_ms: SHUTDOWN_GRACE_MS_DEFAULT,
            dns: dns::Listen::Off,
            service_proxy: ServiceProxy::Off,
            pod_range: None,
        }
    }

    /// Where the servers are reached.
    pub(crate) fn ways(&self) -> Ways {
        Ways { told: self.servers.clone(), routes: self.routes.clone() }
    }

    /// What the agent says of itself when it registers.
    pub(crate) fn registration(
        &self,
        sandbox: &Probed,
        volumes: &[Support],
        features: &[(&str, String)],
    ) -> Result<Registration, AgentError> {
        let boot_id = match &self.boot_id {
            Some(boot_id) => boot_id.clone(),
            None => crate::process_tree::boot_id().map_err(|source| AgentError::Machine { source })?,
        };
        let machine_id = match &self.machine_id {
            Some(machine_id) => machine_id.clone(),
            // A machine without an id is known by the name of its node.
            None => fs::read_to_string("/etc/machine-id").map_or_else(|_| self.node.clone(), |id| id.trim().to_owned()),
        };
        Ok(Registration {
            boot_id: BootId::from(boot_id),
            machine_id: MachineId::from(machine_id),
            capacity: self.capacity.map_or_else(machine::capacity, Ok)?,
            pods_max: self.pod_range.map_or(self.pods_max, |range| self.pods_max.min(range.len_max())),
            labels: self.labels.clone(),
            taints: self.taints.clone(),
            info: machine::info(&self.ways().now(), self.pod_range, sandbox, volumes, features),
            leftovers: Vec::new(),
            former_boot: BootId::default(),
            pod_range: self.pod_range,
        })
    }
}

/// Why an agent could not begin, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No server to go to.
    #[error("no server is given")]
    NoServer,
    /// Its own directory.
    #[error("preparing {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// What the kernel says of the machine.
    #[error("looking at the machine")]
    Machine { source: io::Error },
    /// The ledger on disk.
    #[error("keeping the ledger")]
    Ledger { source: FileError },
    /// The ledger's content.
    #[error("reading the ledger in {}: it was written by another version, or is damaged", path.display())]
    LedgerContent { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    /// The address for names.
    #[error("answering names")]
    Dns(#[from] dns::DnsError),
    /// The image catalogue.
    #[error("reading the image catalogue")]
    Catalogue(#[from] CatalogueError),
    /// The runtime that starts containers.
    #[error("starting the runtime")]
    Runtime { source: io::Error },
    /// Sandboxes were asked for.
    #[error("this machine allows no sandbox: {}; run the agent with --runtime=process", refusals.join("; "))]
    NoSandbox { refusals: Vec<String> },
}
