//! The processes that a cluster is made of: `server` and `agent`, with their flags, logs and ends.
//! Never prints: what these processes say goes to their log on stderr.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cluster::ProcessName;
use crate::error::CliError;
use crate::print::parse_duration;

/// What is logged unless `RUST_LOG` says otherwise.
const LOG_FILTER: &str = "info";
/// How many pods a simulated node takes unless told otherwise.
const SIMULATED_PODS_MAX: u32 = 1_000_000;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How containers are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// In sandboxes where the machine allows it, as plain processes elsewhere.
    Auto,
    /// In sandboxes; an agent that cannot make any does not begin.
    Sandbox,
    /// As plain processes of the host.
    Process,
}

impl Runtime {
    /// As it is typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The flag by which an agent is told.
    pub(crate) fn agent_argument(self) -> String {
        format!("--runtime={}", self.name())
    }
}

/// What a flag would have to say for what an agent does by itself.
impl Default for Runtime {
    fn default() -> Self {
        match agent::RuntimeChoice::default() {
            agent::RuntimeChoice::Auto => Self::Auto,
            agent::RuntimeChoice::Sandbox => Self::Sandbox,
            agent::RuntimeChoice::Process => Self::Process,
        }
    }
}

impl From<Runtime> for agent::RuntimeChoice {
    fn from(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Auto => Self::Auto,
            Runtime::Sandbox => Self::Sandbox,
            Runtime::Process => Self::Process,
        }
    }
}

/// Where names are answered.
#[derive(Clone, Copy, Debug)]
enum DnsFlag {
    Auto,
    Off,
    At(SocketAddr),
}

impl std::str::FromStr for DnsFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| "neither auto nor off nor an address".to_owned()),
        }
    }
}

impl DnsFlag {
    /// The directory makes an address of its own for each process of a machine.
    fn listen(self, data_dir: &Path) -> dns::Listen {
        match self {
            Self::Auto => dns::Listen::Auto(data_dir.display().to_string()),
            Self::Off => dns::Listen::Off,
            Self::At(address) => dns::Listen::At(address),
        }
    }
}

/// Whether an agent serves the addresses of services.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ServiceProxy {
    Node,
    Shared,
    Off,
}

impl From<ServiceProxy> for agent::ServiceProxy {
    fn from(given: ServiceProxy) -> Self {
        match given {
            ServiceProxy::Node => Self::Node,
            ServiceProxy::Shared => Self::Shared,
            ServiceProxy::Off => Self::Off,
        }
    }
}

/// The flags of a server.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Its name, such as s1.
    #[arg(long)]
    name: String,
    /// Its number in the Raft group; a server that joins may leave it to the cluster.
    #[arg(long, default_value_t = 0, hide_default_value = true, required_unless_present = "join")]
    id: u64,
    /// Where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Its own directory.
    #[arg(long)]
    data_dir: PathBuf,
    /// The cluster's name: the same on all servers, and no other cluster's. A server that joins is told.
    #[arg(long, default_value = "", hide_default_value = true, required_unless_present = "join")]
    cluster_id: String,
    /// The first members, in the order of their ids: the same for ever, whatever became of them.
    #[arg(long, value_delimiter = ',', conflicts_with = "join")]
    bootstrap_names: Vec<String>,
    /// Join a running cluster: servers of it, any of which can be asked. The data directory must be empty.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    join: Vec<String>,
    /// Where another server is reached, if not where it says.
    #[arg(long = "peer", value_name = "ID=HOST:PORT", value_parser = api::routes::one_from_text)]
    peers: Vec<(u64, String)>,
    /// A file with more of these, one in a line, which is read again whenever the servers change.
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Where others reach this server, if not where it listens.
    #[arg(long = "advertise", value_name = "HOST:PORT")]
    advertised: Option<String>,
    /// The length of a tick.
    #[arg(long, value_parser = parse_duration)]
    tick: Option<u64>,
    /// How often agents send heartbeats.
    #[arg(long, value_parser = parse_duration)]
    heartbeat: Option<u64>,
    /// How long a node counts as reachable after a heartbeat.
    #[arg(long, value_parser = parse_duration)]
    lease: Option<u64>,
    /// What is waited in addition before a silent node is unreachable.
    #[arg(long, value_parser = parse_duration)]
    grace: Option<u64>,
    /// A snapshot is written after so many entries.
    #[arg(long)]
    snapshot_entries: Option<u64>,
    /// A snapshot is written after so many bytes.
    #[arg(long)]
    snapshot_bytes: Option<u64>,
    /// Entries kept below the newest snapshot.
    #[arg(long)]
    keep_entries: Option<u64>,
    /// The size of a journal segment.
    #[arg(long)]
    segment_bytes_max: Option<u64>,
    /// Where it answers names over DNS: auto (an address of 127.53.0.0/16, on port 53 where that is permitted), off, or an
    /// address.
    #[arg(long, value_name = "auto|off|HOST:PORT", default_value = "auto")]
    dns: DnsFlag,
    /// How log lines are written.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

impl Server {
    fn config(&self) -> Result<server::ServerConfig, CliError> {
        let mut peers: BTreeMap<u64, String> = self.peers.iter().cloned().collect();
        if self.join.is_empty() {
            peers.insert(self.id, self.listen.to_string());
        }
        let data_dir = self.data_dir.clone();
        let mut config = server::ServerConfig::new(self.id, self.listen, data_dir, peers, &self.cluster_id);
        if !self.bootstrap_names.is_empty() {
            config.founders = self.bootstrap_names.iter().map(|name| server_number(name)).collect::<Result<_, _>>()?;
        }
        config.routes.clone_from(&self.routes);
        config.join.clone_from(&self.join);
        config.advertised.clone_from(&self.advertised);
        let set = |field: &mut u64, given: Option<u64>| *field = given.unwrap_or(*field);
        set(&mut config.tick_ms, self.tick);
        set(&mut config.heartbeat_ms, self.heartbeat);
        set(&mut config.lease_ms, self.lease);
        set(&mut config.grace_ms, self.grace);
        set(&mut config.snapshot_entries, self.snapshot_entries);
        set(&mut config.snapshot_bytes, self.snapshot_bytes);
        set(&mut config.keep_entries, self.keep_entries);
        set(&mut config.segment_bytes_max, self.segment_bytes_max);
        config.dns = self.dns.listen(&self.data_dir);
        Ok(config)
    }
}

/// The flags of an agent.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// The node's name; with --simulated, what the nodes' names begin with [default: sim].
    #[arg(long, required_unless_present = "simulated")]
    name: Option<String>,
    /// Where it keeps its ledger and its pods.
    #[arg(long, required_unless_present = "simulated")]
    data_dir: Option<PathBuf>,
    /// Be so many nodes whose pods do nothing and are ready at once, for measurements; their ledgers are in memory only.
    #[arg(long, value_name = "N", conflicts_with_all = ["data_dir", "storage_root", "images", "boot_id", "machine_id"])]
    simulated: Option<u32>,
    /// The cluster's name.
    #[arg(long)]
    cluster_id: Option<String>,
    /// Which start of the machine this is; the kernel says if not given.
    #[arg(long)]
    boot_id: Option<String>,
    /// Which machine this is; /etc/machine-id says if not given.
    #[arg(long)]
    machine_id: Option<String>,
    /// Where the directories of volumes are, for all nodes.
    #[arg(long, required_unless_present = "simulated")]
    storage_root: Option<PathBuf>,
    /// The image catalogue; the built-in one if not given.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Where a server is reached; for each.
    #[arg(long = "server", value_name = "ID=HOST:PORT", value_parser = api::routes::one_from_text)]
    servers: Vec<(u64, String)>,
    /// A file with more of these, one in a line, which is read again for each connection.
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// How containers are run: in sandboxes, as plain processes, or as the machine allows.
    #[arg(long, value_enum, default_value_t)]
    runtime: Runtime,
    /// A label of the node.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A taint of the node.
    #[arg(long = "taint", value_name = "KEY[=VALUE]:EFFECT", value_parser = taint)]
    taints: Vec<domain::spec::Taint>,
    /// How many pods the node takes.
    #[arg(long)]
    pods_max: Option<u32>,
    /// How often it sends heartbeats.
    #[arg(long, value_parser = parse_duration)]
    heartbeat: Option<u64>,
    /// How long the pods may take to end when the node is shut down: SIGPWR tells the agent so. SIGTERM only ends the agent,
    /// and its pods go on.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    shutdown_grace_period: Option<u64>,
    /// Where it answers names over DNS: auto (an address of 127.53.0.0/16, on port 53 where that is permitted), off, or an
    /// address. Sandboxes are sent there if the port is 53.
    #[arg(long, value_name = "auto|off|HOST:PORT", default_value = "auto")]
    dns: DnsFlag,
    /// The addresses that its pods get, where the node has a network of its own in which all of them are local; otherwise
    /// they are given addresses of 127.64.0.0/10.
    #[arg(long, value_name = "RANGE")]
    pod_cidr: Option<domain::address::AddressRange>,
    /// Whether it serves the addresses of services: alone on its machine (node), with other agents (shared), or not (off).
    #[arg(long, value_enum, default_value = "node")]
    service_proxy: ServiceProxy,
    /// How log lines are written.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

impl Agent {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("sim")
    }

    fn config(&self) -> agent::AgentConfig {
        let servers = self.servers.iter().cloned().collect();
        let given = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
        let (data_dir, storage_root) = (given(&self.data_dir), given(&self.storage_root));
        let mut config = agent::AgentConfig::new(self.name(), data_dir, servers, storage_root);
        config.routes.clone_from(&self.routes);
        config.boot_id.clone_from(&self.boot_id);
        config.machine_id.clone_from(&self.machine_id);
        config.images.clone_from(&self.images);
        config.runtime = self.runtime.into();
        config.labels = self.labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
        let pods_max = if self.simulated.is_some() { SIMULATED_PODS_MAX } else { config.pods_max };
        config.taints.clone_from(&self.taints);
        config.pods_max = self.pods_max.unwrap_or(pods_max);
        config.heartbeat_ms = self.heartbeat.unwrap_or(config.heartbeat_ms);
        config.shutdown_grace_ms = self.shutdown_grace_period.unwrap_or(config.shutdown_grace_ms);
        config.dns = self.dns.listen(&config.data_dir);
        config.service_proxy = self.service_proxy.into();
        config.pod_range = self.pod_cidr;
        config
    }
}

/// Runs a server until it is told to end; the error has its exit status.
pub(crate) async fn server(args: &Server) -> Result<(), (CliError, u8)> {
    let usage = |error: CliError| {
        let code = error.failure as u8;
        (error, code)
    };
    let config = args.config().map_err(usage)?;
    start_log(args.log_format);
    tracing::info!(name = args.name, cluster = args.cluster_id, "server begins");
    let shutdown = until_told_to_end().map_err(usage)?;
    let served = Box::pin(server::serve(config, shutdown)).await;
    served.map_err(|error| {
        let code = error.exit_code();
        (CliError::refused(format!("{:#}", anyhow::Error::new(error))), code)
    })
}

/// Runs an agent until it is told to end, or until its node is shut down.
pub(crate) async fn agent(args: &Agent) -> Result<(), CliError> {
    start_log(args.log_format);
    tracing::info!(name = args.name(), cluster = args.cluster_id, "agent begins");
    let shutdown = until_told_to_end()?;
    let ran = match args.simulated {
        Some(count) => Box::pin(agent::run_simulated(args.config(), count, shutdown)).await,
        None => Box::pin(agent::run(args.config(), shutdown, until_power_fails()?)).await,
    };
    ran.map_err(|error| CliError::from(anyhow::Error::new(error)))
}

/// SIGPWR says that the machine is going down.
fn until_power_fails() -> Result<impl Future<Output = ()>, CliError> {
    let mut power = listen(SignalKind::from_raw(Signal::POWER.as_raw()))?;
    Ok(async move {
        power.recv().await;
    })
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, CliError> {
    signal(kind).map_err(|error| CliError::refused(format!("listening for signals: {error}")))
}

fn until_told_to_end() -> Result<impl Future<Output = ()>, CliError> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn server_number(name: &str) -> Result<u64, CliError> {
    match name.parse() {
        Ok(ProcessName::Server(id)) => Ok(id),
        Ok(ProcessName::Node(_)) | Err(_) => Err(CliError::usage(format!("{name:?} is no server (s1, s2, …)"))),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    parts.ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}

fn taint(text: &str) -> Result<domain::spec::Taint, String> {
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let (pair, effect) = text.rsplit_once(':').unwrap_or((text, ""));
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    if key.is_empty() || !known.contains(&effect) {
        return Err(format!("{text:?} is not KEY[=VALUE]:EFFECT with the effect {}", known.join(" or ")));
    }
    Ok(domain::spec::Taint { key: key.into(), value: value.into(), effect: effect.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_written_as_kubectl_writes_them() {
        let parts = |text: &str| taint(text).map(|taint| [taint.key, taint.value, taint.effect].map(|n| n.to_string()));
        assert_eq!(parts("dedicated=db:NoSchedule").unwrap(), ["dedicated", "db", "NoSchedule"]);
        assert_eq!(parts("gpu:PreferNoSchedule").unwrap(), ["gpu", "", "PreferNoSchedule"]);
        for text in ["dedicated", "dedicated=db", "dedicated=db:Never", ":NoSchedule"] {
            assert!(taint(text).is_err(), "{text}");
        }
    }
}
