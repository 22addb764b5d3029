//! The agent's loop: what happened goes into the core, what comes out is done, in order.
//! Never decides anything, and never waits for a pod.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::{AgentCore, Config, Input, Ledger, Output};
use domain::agent::{AssignedVolume, ToAgent};
use domain::id::NodeName;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::{AgentConfig, AgentError, RuntimeChoice};
use crate::confine::{CGROUP_ROOT, Machine};
use crate::image::Catalogue;
use crate::layout;
use crate::ledger::LedgerFile;
use crate::names::{self, Known};
use crate::pod_names::PodNames;
use crate::pods::{Deed, Pods, Runtime, Site, with_causes};
use crate::process::ProcessRuntime;
use crate::sandbox::SandboxKind;
use crate::sandbox::probe::{self, Probed};
use crate::service_proxy::{self, ServiceProxy};
use crate::session::{self, Closing, Line, Session, SessionEvent};
use crate::tunnel::Tunnels;
use crate::volume::{self, NodeVolumes, Support};

/// More inputs than this make the pods' tasks wait for the core.
pub(crate) const INPUTS_MAX: usize = 1_024;
/// More messages than this make the session wait for the core.
const SESSION_EVENTS_MAX: usize = 64;
/// Where programs are looked up when the agent itself was not told.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs an agent until `leave` is over: its pods stay alive, and the next agent of this node takes them up again. Once
/// `shut_down` is over, the machine is going down: the agent ends its pods first, within their grace, tells the control plane,
/// and ends by itself.
pub async fn run(
    config: AgentConfig,
    leave: impl Future<Output = ()>,
    shut_down: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    if config.ways().now().is_empty() {
        return Err(AgentError::NoServer);
    }
    let data_dir = prepared(&config.data_dir)?;
    prepared(&layout::pods_dir(&data_dir))?;
    let ledger_file = LedgerFile::open(&data_dir)?;
    let ledger = ledger_file.load()?;
    let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
    let mut site = site(&config, data_dir, inputs)?;
    let (probed, supports) = tokio::join!(find_sandbox(config.runtime, &site), find_volume_drivers(&site));
    let (probed, supports) = (probed?, supports?);
    site.sandbox = probed.kind;
    site.volumes = site.volumes.with_drivers(&supports);
    let (ear, known) = names::nothing_yet();
    let listener = open_dns(&config.dns).await?;
    site.dns = listener.as_ref().map(dns::Listener::address);
    let resolver = listener.as_ref().filter(|listener| listener.is_on_the_usual_port()).map(dns::Listener::address);
    site.names = Arc::new(PodNames::new(site.data_dir.clone(), known.clone(), resolver));
    let groups = Machine::probe(Path::new(CGROUP_ROOT));
    let mut features = groups.features().to_vec();
    site.runtime = site.runtime.confining(groups);
    features.extend([
        ("feature/dns", describe_dns(site.dns)),
        ("feature/memory-volumes", volume::memory::describe(&layout::memory_probe_dir(&site.data_dir))),
        ("feature/service-addresses", config.service_proxy.describe()),
    ]);
    let registration = config.registration(&probed, &supports, &features)?;
    let site = Arc::new(site);
    let tunnels = Tunnels::new(Some(Arc::clone(&site)));
    let mut pods = Pods::new(Arc::clone(&site));
    let live = pods.adopt().await;
    let volumes: Vec<_> = ledger.pods.values().flat_map(|pod| pod.volumes.clone()).collect();
    settle_volumes(&site, volumes).await;
    tracing::info!(node = config.node, boot = %registration.boot_id, pods = live.len(), "agent begins");

    let core_config = Config { node: NodeName::new(&config.node), registration, heartbeat_ms: config.heartbeat_ms };
    let core = AgentCore::recover(core_config, ledger, live);
    let line = Line { ways: config.ways(), tunnels, ear: Some(ear) };
    let files = Arc::clone(&site.names);
    let naming = tokio::spawn(answer_names(listener, files, known, config.service_proxy));
    let shutdown_grace_ms = config.shutdown_grace_ms;
    let going_down = async move {
        shut_down.await;
        shutdown_grace_ms
    };
    let served = serve(core, Some(ledger_file), pods, line, inbox, (leave, going_down)).await;
    naming.abort();
    served
}

/// Everything by which pods find each other, for as long as it is polled.
async fn answer_names(listener: Option<dns::Listener>, files: Arc<PodNames>, known: Known, proxy: ServiceProxy) {
    let answering = async {
        if let Some(listener) = listener {
            let address = listener.address();
            tracing::info!(%address, "answering names");
            let upstreams = dns::Upstreams::of("/etc/resolv.conf".into(), address.ip());
            listener.serve(known.names.clone(), upstreams, Arc::default()).await;
        }
    };
    tokio::join!(answering, files.keep_up(), service_proxy::run(proxy, known.clone()));
}

/// Where nobody said which address, none is as good as any.
async fn open_dns(listen: &dns::Listen) -> Result<Option<dns::Listener>, AgentError> {
    match dns::Listener::open(listen).await {
        Err(error) if matches!(listen, dns::Listen::Auto(_)) => {
            tracing::warn!(error = with_causes(&error), "names are not answered");
            Ok(None)
        }
        opened => Ok(opened?),
    }
}

/// For people.
fn describe_dns(address: Option<SocketAddr>) -> String {
    match address {
        None => "off: pods find each other by /etc/hosts".to_owned(),
        Some(address) if address.port() == 53 => format!("on: {address}"),
        Some(address) => format!("on: {address}; pods find each other by /etc/hosts, since port 53 is not permitted"),
    }
}

/// Runs a core on what its pods are run with, until the first of the two futures is over. Once the second one is, which says
/// how long the pods may take, the node is shut down.
pub(crate) async fn serve(
    core: AgentCore,
    ledger_file: Option<LedgerFile>,
    pods: impl Runtime,
    line: Line,
    inbox: mpsc::Receiver<Input>,
    ends: (impl Future<Output = ()>, impl Future<Output = u64>),
) -> Result<(), AgentError> {
    let (closings, closing_inbox) = mpsc::unbounded_channel();
    let (events, event_inbox) = mpsc::channel(SESSION_EVENTS_MAX);
    let connecting = tokio::spawn(session::run(line, closing_inbox, events));
    let node = Node { core, started: Instant::now(), ledger_file, pods, session: None, closings, is_over: false };
    let result = node.serve(inbox, event_inbox, ends).await;
    connecting.abort();
    result
}

#[derive(Debug)]
struct Node<R> {
    core: AgentCore,
    started: Instant,
    /// `None` while it is being written, and for a node that keeps its ledger in memory only.
    ledger_file: Option<LedgerFile>,
    pods: R,
    session: Option<Session>,
    closings: mpsc::UnboundedSender<Closing>,
    /// The core has nothing more to do.
    is_over: bool,
}

impl<R: Runtime> Node<R> {
    async fn serve(
        mut self,
        mut inbox: mpsc::Receiver<Input>,
        mut events: mpsc::Receiver<SessionEvent>,
        (leave, going_down): (impl Future<Output = ()>, impl Future<Output = u64>),
    ) -> Result<(), AgentError> {
        let (mut leave, mut going_down) = (std::pin::pin!(leave), std::pin::pin!(going_down));
        let mut is_going_down = false;
        self.step(Input::Tick).await?;
        while !self.is_over {
            let next_tick = self.core.next_tick_at_ms().map(|at_ms| self.started + Duration::from_millis(at_ms));
            let input = tokio::select! {
                biased;
                () = &mut leave => return Ok(()),
                grace_ms = &mut going_down, if !is_going_down => {
                    tracing::info!(grace_ms, "the node is being shut down");
                    is_going_down = true;
                    Input::ShutDown { grace_ms }
                }
                Some(input) = inbox.recv() => input,
                Some(event) = events.recv() => self.on_session(event),
                () = tokio::time::sleep_until(next_tick.unwrap_or_else(Instant::now)), if next_tick.is_some() => {
                    Input::Tick
                }
            };
            self.step(input).await?;
        }
        tracing::info!("the node is shut down");
        Ok(())
    }

    fn on_session(&mut self, event: SessionEvent) -> Input {
        match event {
            SessionEvent::Opened(session) => {
                self.session = Some(session);
                Input::SessionOpened
            }
            SessionEvent::Heard(message) => {
                log_heard(&message);
                Input::FromServer(*message)
            }
            SessionEvent::Closed => {
                self.session = None;
                Input::SessionClosed
            }
        }
    }

    async fn step(&mut self, input: Input) -> Result<(), AgentError> {
        if let Input::PodCleaned { uid } = input {
            self.pods.forget(uid);
        }
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        for output in self.core.step(now_ms, input) {
            self.execute(output).await?;
        }
        Ok(())
    }

    async fn execute(&mut self, output: Output) -> Result<(), AgentError> {
        match output {
            Output::SaveLedger(ledger) => self.save(ledger).await?,
            Output::Send(message) => {
                if let Some(session) = &self.session {
                    session.send(&message);
                }
            }
            Output::CloseSession { leader, reason } => {
                tracing::info!(?leader, reason, "leaving the session");
                if let Some(session) = self.session.take() {
                    session.close(leader, &self.closings);
                }
            }
            Output::AttachVolume { uid, pod, volume } => self.pods.hand(uid, Deed::Attach { pod, volume }),
            Output::PlaceVolume { uid, pod, volume, content } => {
                self.pods.hand(uid, Deed::Place { pod, volume, content });
            }
            Output::MeasureVolume { uid, volume } => self.pods.hand(uid, Deed::Measure { volume }),
            Output::StartContainer { uid, pod, container, attempt, env } => {
                self.pods.hand(uid, Deed::Start { pod, container, attempt, env });
            }
            Output::StopContainer { uid, container, grace_ms } => {
                let grace = Duration::from_millis(grace_ms);
                self.pods.hand(uid, Deed::Stop { container, grace });
            }
            Output::RunProbe { uid, container, attempt, kind, probe } => {
                self.pods.hand(uid, Deed::Probe { container, attempt, kind, probe });
            }
            Output::RunHook { uid, container, attempt, kind, hook, timeout_ms } => {
                let timeout = Duration::from_millis(timeout_ms);
                self.pods.hand(uid, Deed::Hook { container, attempt, kind, hook, timeout });
            }
            Output::KillPod { uid } => self.pods.hand(uid, Deed::Kill),
            Output::CleanPod { uid } => self.pods.hand(uid, Deed::Clean),
            Output::RemoveVolume(removal) => self.pods.remove_volume(removal),
            Output::End => self.is_over = true,
        }
        Ok(())
    }

    async fn save(&mut self, ledger: Ledger) -> Result<(), AgentError> {
        // One save ends before the next begins, so only a node in memory has no file here.
        let Some(mut file) = self.ledger_file.take() else { return Ok(()) };
        let saving = tokio::task::spawn_blocking(move || {
            let saved = file.save(&ledger);
            (file, saved)
        });
        let (file, saved) = saving.await.expect("invariant: saving a ledger does not panic");
        self.ledger_file = Some(file);
        saved
    }
}

fn site(config: &AgentConfig, data_dir: PathBuf, inputs: mpsc::Sender<Input>) -> Result<Site, AgentError> {
    let runtime = |source| AgentError::Runtime { source };
    let exe = match &config.exe {
        Some(exe) => exe.clone(),
        None => std::env::current_exe().map_err(runtime)?,
    };
    let catalogue = match &config.images {
        Some(path) => Catalogue::load(path)?,
        None => Catalogue::builtin(),
    };
    let storage_root = std::path::absolute(&config.storage_root).map_err(runtime)?;
    let volumes = NodeVolumes::new(data_dir.clone(), storage_root, Vec::new());
    Ok(Site {
        node: config.node.clone(),
        data_dir,
        path: std::env::var("PATH").unwrap_or_else(|_| PATH_DEFAULT.to_owned()),
        home: std::env::var("HOME").unwrap_or_else(|_| "/".to_owned()),
        catalogue,
        runtime: ProcessRuntime::new(exe.clone()).map_err(runtime)?,
        sandbox: None,
        dns: None,
        names: Arc::new(PodNames::new(PathBuf::new(), names::nothing_yet().1, None)),
        exe,
        volumes,
        inputs,
    })
}

/// Which sandboxes containers get; none is an error only for who insists on them.
async fn find_sandbox(choice: RuntimeChoice, site: &Site) -> Result<Probed, AgentError> {
    let probed = match choice {
        RuntimeChoice::Process => Probed { kind: None, refusals: vec!["not wanted".to_owned()] },
        RuntimeChoice::Auto | RuntimeChoice::Sandbox => {
            probe::probe(&site.runtime, &layout::probe_dir(&site.data_dir)).await
        }
    };
    match probed {
        Probed { kind: None, refusals } if choice == RuntimeChoice::Sandbox => Err(AgentError::NoSandbox { refusals }),
        probed => {
            let kind = probed.kind.map_or("none", SandboxKind::describe);
            tracing::info!(sandbox = kind, refusals = ?probed.refusals, "runtime chosen");
            Ok(probed)
        }
    }
}

/// Which volume drivers work on this machine.
async fn find_volume_drivers(site: &Site) -> Result<Vec<Support>, AgentError> {
    let (storage_root, data_dir) = (site.volumes.storage_root().to_owned(), site.data_dir.clone());
    let finding = tokio::task::spawn_blocking(move || volume::find_drivers(&storage_root, &data_dir));
    finding.await.map_err(|error| AgentError::Runtime { source: io::Error::other(error) })
}

/// Volumes that are written down for pods that are not here go back, and those that are here get the size that a former
/// agent may not have come to give them. What cannot be done now is tried at the next start.
async fn settle_volumes(site: &Site, assigned: Vec<AssignedVolume>) {
    let volumes = site.volumes.clone();
    let settle = move || {
        let released = volumes.detach_forgotten();
        let expand = |v: &AssignedVolume| volumes.expand(v.driver.as_str(), v.handle.as_str(), v.capacity_bytes);
        for failed in assigned.iter().map(expand).chain([released]).filter_map(Result::err) {
            tracing::warn!(error = crate::pods::with_causes(&failed), "settling volumes of a former agent");
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(settle).await {
        tracing::warn!(%error, "settling volumes of a former agent");
    }
}

/// Makes a directory, and names it in the one way that processes of its pods are found by.
fn prepared(dir: &Path) -> Result<PathBuf, AgentError> {
    let failed = |source| AgentError::Directory { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    fs::canonicalize(dir).map_err(failed)
}

fn log_heard(message: &ToAgent) {
    match message {
        ToAgent::Registered { incarnation } => tracing::info!(%incarnation, "registered"),
        ToAgent::Assign(assignment) => {
            tracing::debug!(revision = %assignment.revision, pods = assignment.pods.len(), "assigned");
        }
        ToAgent::HeartbeatAcked { .. } | ToAgent::ReportAcked { .. } => {}
        ToAgent::Redirect { leader } => tracing::debug!(?leader, "redirected"),
        ToAgent::Refused { reason } => tracing::warn!(reason, "registration refused"),
        ToAgent::KnownIn { boot_id } => tracing::debug!(%boot_id, "known in a boot that is to be named"),
    }
}
