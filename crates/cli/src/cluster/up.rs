//! Starting a cluster, in this process or in a launcher of its own, and watching over it.
//! Never asks the servers anything: whether the cluster is ready is for the caller to find out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::control::{Answer, Asked, Control, ControlSocket, Request, Status};
use super::fault::Fault;
use super::launcher::{Launcher, Parts};
use super::layout::{ClusterFile, Layout, ProcessName};
use super::network::{self, NetworkChoice, PodNetwork};
use super::{Refused, process, procfs, stop};

/// How many servers a new cluster has.
pub const SERVERS_DEFAULT: u64 = 3;
/// How many agents a new cluster has.
pub const AGENTS_DEFAULT: u64 = 3;
/// More servers only make a group slower.
pub(super) const SERVERS_MAX: usize = 9;
/// Each agent needs a process, and a proxy to every server.
const AGENTS_MAX: u64 = 200;
/// Notices that nobody reads are dropped beyond this.
const NOTICES_MAX: usize = 1_024;
/// Requests beyond this wait.
const ASKED_MAX: usize = 16;
const READY_POLL_MS: u64 = 50;
/// How much of the launcher's log is shown when it fails to start.
const LOG_LINES_SHOWN: usize = 20;

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// Where everything of the cluster is kept; made when missing.
    pub data_dir: PathBuf,
    /// How many servers; as before, or [`SERVERS_DEFAULT`].
    pub servers: Option<u64>,
    /// How many agents; as before, or [`AGENTS_DEFAULT`]. An existing cluster can be given more.
    pub agents: Option<u64>,
    /// The image catalogue for the agents; as before, or none.
    pub images: Option<PathBuf>,
    /// Whose network the nodes have; as before, or the host's.
    pub network: Option<NetworkChoice>,
    /// What to run; this very binary.
    pub executable: Option<PathBuf>,
    /// Further arguments for every server.
    pub server_arguments: Vec<OsString>,
    /// Further arguments for every agent.
    pub agent_arguments: Vec<OsString>,
}

/// Something that happened in a running cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A server or agent ended by itself; it is not started again.
    Exited {
        /// Which.
        name: ProcessName,
        /// How.
        status: String,
        /// Where it may have said why.
        log: PathBuf,
    },
    /// A fault began.
    FaultBegan {
        /// Which.
        fault: Fault,
    },
    /// A fault ended: it was healed, or its time was over.
    FaultEnded {
        /// Which.
        fault: Fault,
    },
    /// The launcher could not do something.
    Failed {
        /// What, and why.
        message: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { name, status, log } => {
                write!(f, "{name} ended by itself ({status}); its log is {}", log.display())
            }
            Self::FaultBegan { fault } => write!(f, "fault {} began: {}", fault.id, fault.kind),
            Self::FaultEnded { fault } => write!(f, "fault {} ended: {}", fault.id, fault.kind),
            Self::Failed { message } => f.write_str(message),
        }
    }
}

/// A cluster that this process launched.
#[derive(Debug)]
pub struct Running {
    file: ClusterFile,
    layout: Layout,
    asked: mpsc::Sender<Asked>,
    notices: mpsc::Receiver<Notice>,
    is_ready: watch::Sender<bool>,
    signals: Signals,
    task: JoinHandle<()>,
}

/// The signals by which this process is asked to end.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

impl Running {
    /// What was started, and where the servers listen.
    pub fn cluster(&self) -> &ClusterFile {
        &self.file
    }

    /// Where everything is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Waits until the probe says that the cluster is ready, and says so to those who wait for the launcher.
    ///
    /// An agent that ends meanwhile, so many servers that no majority is left, or a signal to this process, is an error
    /// at once. After an error the cluster still runs: the caller calls [`Running::down`].
    pub async fn wait_ready(&mut self, mut probe: impl AsyncFnMut() -> bool, within_ms: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_millis(within_ms);
        let poll = Duration::from_millis(READY_POLL_MS);
        let spare_servers = (self.file.servers.len() - 1) / 2;
        let mut ended_servers = BTreeSet::new();
        loop {
            let probing = async {
                let is_ready = probe().await;
                if !is_ready {
                    tokio::time::sleep(poll).await;
                }
                is_ready
            };
            tokio::select! {
                notice = self.notices.recv() => match notice {
                    None => return Err(Refused::new("the cluster was stopped before it was ready").into()),
                    // A server that refuses its own data stops nobody else.
                    Some(Notice::Exited { name: name @ ProcessName::Server(_), .. })
                        if ended_servers.contains(&name) || ended_servers.len() < spare_servers =>
                    {
                        ended_servers.insert(name);
                    }
                    Some(Notice::Exited { name, status, log }) => {
                        return Err(Refused::new(format!("{name} ended before the cluster was ready ({status})"))
                            .hint(format!("tail {}", log.display()))
                            .into());
                    }
                    Some(Notice::FaultBegan { .. } | Notice::FaultEnded { .. } | Notice::Failed { .. }) => {}
                },
                is_ready = probing => if is_ready {
                    self.is_ready.send_replace(true);
                    return Ok(());
                },
                () = self.signals.next() => return Err(Refused::new("interrupted").into()),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Refused::new(format!("the cluster is not ready after {within_ms} ms"))
                        .hint(format!("tail {}", self.layout.log(ProcessName::Server(1)).display()))
                        .into());
                }
            }
        }
    }

    /// What happens next; `None` when the cluster was stopped.
    pub async fn next_notice(&mut self) -> Option<Notice> {
        self.notices.recv().await
    }

    /// Asks the launcher, as [`Control::ask`] does from outside.
    pub async fn ask(&self, request: Request) -> anyhow::Result<Answer> {
        let (answer, answered) = oneshot::channel();
        let gone = "the cluster was stopped already";
        self.asked.send(Asked { request, answer }).await.map_err(|_| Refused::new(gone))?;
        match answered.await.map_err(|_| Refused::new(gone))? {
            Answer::Refused { message, hint } => Err(Refused { message, hint }.into()),
            answer => Ok(answer),
        }
    }

    /// Reports what happens until the cluster is stopped: by `down`, or by a signal to this process.
    pub async fn supervise(mut self, mut report: impl FnMut(&Notice)) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                notice = self.notices.recv() => match notice {
                    Some(notice) => report(&notice),
                    None => return self.task.await.context("the launcher failed"),
                },
                () = self.signals.next() => return self.down(false).await,
            }
        }
    }

    /// Ends the launcher as SIGKILL would: nothing is told, nothing is written, every process goes on.
    #[cfg(test)]
    pub(super) async fn abort(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Stops the cluster and, with `purge`, removes its data.
    pub async fn down(self, purge: bool) -> anyhow::Result<()> {
        self.ask(Request::Down { purge }).await?;
        self.task.await.context("the launcher failed")
    }
}

/// Starts the cluster of a data directory, which is made when it is missing, and launches it from this process.
///
/// Returns when every process is started; see [`Running::wait_ready`]. To be called in a Tokio runtime, which must
/// live as long as the cluster.
pub async fn up(options: UpOptions, mut progress: impl FnMut(&str)) -> anyhow::Result<Running> {
    // From here on a signal waits until somebody looks at it: it must not leave half a cluster behind.
    let signals = Signals::new()?;
    let data_dir = &options.data_dir;
    let layout = Layout::create(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
    let lock = layout.try_lock()?.ok_or_else(|| runs_already(data_dir))?;
    let file = prepare(&layout, &options, &mut progress).await?;
    let executable = match &options.executable {
        Some(executable) => executable.clone(),
        None => std::env::current_exe().context("finding this binary")?,
    };
    let (notice_sender, notices) = mpsc::channel(NOTICES_MAX);
    let (is_ready, is_ready_seen) = watch::channel(false);
    let mut launcher = Launcher::new(Parts {
        layout: layout.clone(),
        _lock: lock,
        file,
        executable,
        server_arguments: options.server_arguments,
        agent_arguments: options.agent_arguments,
        notices: notice_sender,
        is_ready: is_ready_seen,
    })
    .await?;
    let (asked, to_answer) = mpsc::channel(ASKED_MAX);
    let control = ControlSocket::listen(launcher.layout(), &launcher.file().control_socket, asked.clone())?;
    for name in launcher.file().names() {
        progress(&format!("starting {name}"));
        if let Err(error) = launcher.start(name) {
            launcher.abandon().await;
            control.finish().await;
            return Err(error.context(format!("starting {name}")));
        }
    }
    let file = launcher.file().clone();
    let task = tokio::spawn(launcher.run(to_answer, control));
    Ok(Running { file, layout, asked, notices, is_ready, signals, task })
}

/// Starts the cluster in a launcher of its own that goes on when this process ends, and waits until it is ready.
pub async fn up_detached(options: UpOptions, mut progress: impl FnMut(&str), within_ms: u64) -> anyhow::Result<Status> {
    let data_dir = &options.data_dir;
    let layout = Layout::create(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
    layout.try_lock()?.ok_or_else(|| runs_already(data_dir))?;
    if options.network == Some(NetworkChoice::Netns) {
        // Better told here than in the launcher's log.
        network::probe()?;
    }
    let executable = match &options.executable {
        Some(executable) => executable.clone(),
        None => std::env::current_exe().context("finding this binary")?,
    };
    let log = layout.launcher_log();
    let said_before = fs::metadata(&log).map_or(0, |metadata| metadata.len());
    progress("starting the launcher");
    let arguments = process::launcher_arguments(&layout, &options);
    let (mut child, launcher) = process::spawn(&executable, &arguments, &log, false)?;
    progress("waiting until the cluster is ready");
    let deadline = Instant::now() + Duration::from_millis(within_ms);
    loop {
        if let Some(status) = child.try_wait().context("waiting for the launcher")? {
            return Err(Refused::new(format!("the launcher ended ({status}){}", last_lines(&log, said_before)))
                .hint(format!("tail {}", log.display()))
                .into());
        }
        // Until the launcher has opened its socket, nobody answers there.
        if let Ok(mut control) = Control::connect(data_dir).await
            && let Ok(status) = control.status().await
            && status.launcher == launcher
            && status.is_ready
        {
            return Ok(status);
        }
        if deadline <= Instant::now() {
            return Err(Refused::new(format!(
                "the cluster is not ready after {within_ms} ms; its launcher goes on trying"
            ))
            .hint(format!("holdfast down --data-dir {}", data_dir.display()))
            .into());
        }
        tokio::time::sleep(Duration::from_millis(READY_POLL_MS)).await;
    }
}

/// What the cluster will be: a new one, or the one that was, without what its last launcher may have left running.
async fn prepare(layout: &Layout, options: &UpOptions, progress: &mut impl FnMut(&str)) -> anyhow::Result<ClusterFile> {
    let existing = ClusterFile::read(layout)?;
    let is_new = existing.is_none();
    let mut file = match existing {
        Some(file) => file,
        None => ClusterFile::new(layout)?,
    };
    choose_size(&mut file, options, is_new)?;
    if let Some(images) = &options.images {
        let found = fs::canonicalize(images).with_context(|| format!("reading {}", images.display()))?;
        file.images = Some(found);
    }
    if !is_new {
        progress("looking for what an earlier launcher left");
        let layout = layout.clone();
        // Pods may go on under the same boot id: their agents will adopt them.
        file = tokio::task::spawn_blocking(move || stop::end_servers_and_agents(&layout, &mut file).map(|()| file))
            .await??;
        let host_boot_id = procfs::host_boot_id()?;
        if file.host_boot_id != host_boot_id {
            // The host itself was started again, so no process of any node is left.
            file.reboot_nodes()?;
            file.host_boot_id = host_boot_id;
        }
    }
    choose_network(layout, &mut file, options.network)?;
    // The directory may have been moved since.
    file.control_socket = layout.control_socket(&file.cluster_id);
    Ok(file)
}

fn choose_size(file: &mut ClusterFile, options: &UpOptions, is_new: bool) -> anyhow::Result<()> {
    let (old_servers, old_agents) = (file.servers.len() as u64, file.nodes.len() as u64);
    let servers = options.servers.unwrap_or(if is_new { SERVERS_DEFAULT } else { old_servers });
    let agents = options.agents.unwrap_or(if is_new { AGENTS_DEFAULT } else { old_agents });
    if !(1..=SERVERS_MAX as u64).contains(&servers) || AGENTS_MAX < agents {
        return Err(Refused::new(format!(
            "a local cluster has 1 to {SERVERS_MAX} servers and up to {AGENTS_MAX} agents, not {servers} and {agents}"
        ))
        .into());
    }
    if !is_new && (servers != old_servers || agents < old_agents) {
        let data_dir = options.data_dir.display();
        return Err(Refused::new(format!(
            "the cluster in {data_dir} has {old_servers} servers and {old_agents} agents; here, only agents can be added"
        ))
        .hint("holdfast member add, in the running cluster")
        .into());
    }
    // Port 0 is any: the launcher puts the real one here.
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if is_new {
        file.servers.extend((1..=servers).map(|id| (id, any_port)));
    }
    let present: BTreeSet<ProcessName> = file.nodes.keys().copied().collect();
    for name in (1..=agents).map(ProcessName::Node).filter(|name| !present.contains(name)) {
        file.add_node(name)?;
    }
    Ok(())
}

/// Whose network the nodes have. Pods that go on keep theirs: it changes only when none does.
fn choose_network(layout: &Layout, file: &mut ClusterFile, wanted: Option<NetworkChoice>) -> anyhow::Result<()> {
    let before = if file.network.is_some() { NetworkChoice::Netns } else { NetworkChoice::Host };
    let wanted = wanted.unwrap_or(before);
    let going_on = process::networks(layout, file)?;
    if wanted != before && !going_on.is_empty() {
        let (data_dir, before) = (layout.root().display(), before.argument());
        return Err(Refused::new(format!("pods of the cluster in {data_dir} still run with --network={before}"))
            .hint(format!("holdfast down --data-dir {data_dir}"))
            .into());
    }
    let chosen = match wanted {
        NetworkChoice::Host => None,
        NetworkChoice::Netns => {
            network::probe()?;
            if going_on.is_empty() { Some(free_addresses(file)?) } else { file.network }
        }
    };
    if chosen != file.network {
        // The addresses of pods that are bound are of no use any more: their nodes come back as after a reboot, without them.
        stop::end_nodes(layout, file)?;
        file.network = chosen;
    }
    Ok(())
}

fn free_addresses(file: &ClusterFile) -> anyhow::Result<PodNetwork> {
    let path = "/proc/net/route";
    let routes = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let bridge = network::bridge_of(&file.cluster_id);
    let chosen = network::choose(file.network, &file.cluster_id, &bridge, &routes);
    let none = "no private range of 16 bits is free on this machine for the addresses of nodes and pods";
    Ok(chosen.ok_or_else(|| Refused::new(none).hint("holdfast up --network=host"))?)
}

fn runs_already(data_dir: &Path) -> Refused {
    let data_dir = data_dir.display();
    Refused::new(format!("a cluster runs in {data_dir} already")).hint(format!("holdfast down --data-dir {data_dir}"))
}

/// The last lines that were written to a log after its first `offset` bytes, each on a line of its own.
fn last_lines(log: &Path, offset: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let new = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
    let text = String::from_utf8_lossy(new);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].iter().map(|line| format!("\n  {line}")).collect()
}
