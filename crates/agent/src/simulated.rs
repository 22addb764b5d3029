//! Nodes without machines: real cores and real sessions, many in one process, whose pods are nothing but the word that
//! they run. For measuring the control plane. Their ledgers are in memory only: they end with the process.
//! Never starts a process and never touches a file.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use agent_core::{AgentCore, Config, Input, Ledger, ProbeResult};
use domain::agent::VolumeRemoval;
use domain::id::{Name, NodeName, Uid};
use domain::spec::Resources;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{AgentConfig, AgentError};
use crate::node::{self, INPUTS_MAX};
use crate::pods::{Deed, Runtime};
use crate::sandbox::probe::Probed;
use crate::session::Line;
use crate::tunnel::Tunnels;

/// What a simulated node has: more than any pod can ask for.
const CAPACITY: Resources = Resources { cpu_milli: 1_000_000_000, memory_bytes: 1 << 50 };
/// What takes the place of every image.
const RUNS: &str = "nothing (simulated)";

/// Runs `count` simulated nodes, `<name>-0` and so on, until `shutdown` is over. What `config` says of directories,
/// images and the machine is not used.
pub async fn run_simulated(
    config: AgentConfig,
    count: u32,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    if config.ways().now().is_empty() {
        return Err(AgentError::NoServer);
    }
    // Nothing of a former process is left, and a new boot id is the word for that.
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|source| AgentError::Machine { source })?;
    let boot_id = uuid.trim().to_owned();
    let (stop, stopped) = watch::channel(false);
    let mut nodes = JoinSet::new();
    for number in 0..count {
        let name = format!("{}-{number}", config.node);
        let mut own = AgentConfig::new(&name, PathBuf::new(), config.servers.clone(), PathBuf::new());
        own.routes.clone_from(&config.routes);
        own.boot_id = Some(boot_id.clone());
        own.machine_id = Some(format!("simulated-{name}"));
        own.capacity = Some(config.capacity.unwrap_or(CAPACITY));
        own.labels.clone_from(&config.labels);
        own.pods_max = config.pods_max;
        own.heartbeat_ms = config.heartbeat_ms;
        let mut stopped = stopped.clone();
        nodes.spawn(run_one(own, async move {
            // An error means that nobody is left who could say it.
            let _ = stopped.wait_for(|is_over| *is_over).await;
        }));
    }
    tracing::info!(count, boot = boot_id, "simulated nodes begin");
    tokio::select! {
        () = shutdown => {}
        Some(Ok(Err(error))) = nodes.join_next() => return Err(error),
    }
    stop.send_replace(true);
    while nodes.join_next().await.is_some() {}
    Ok(())
}

async fn run_one(config: AgentConfig, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    let registration = config.registration(&Probed::default(), &[], &[])?;
    let core_config = Config { node: NodeName::new(&config.node), registration, heartbeat_ms: config.heartbeat_ms };
    let core = AgentCore::recover(core_config, Ledger::default(), Vec::new());
    let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
    let (words, mut spoken) = mpsc::unbounded_channel();
    // The core is not listening while its own outputs are executed, so what they lead to waits here.
    let speaking = tokio::spawn(async move {
        while let Some(word) = spoken.recv().await {
            if inputs.send(word).await.is_err() {
                return;
            }
        }
    });
    let (pods, tunnels) = (NullRuntime::new(words), Tunnels::new(None));
    let line = Line { ways: config.ways(), tunnels, ear: None };
    let result = node::serve(core, None, pods, line, inbox, (shutdown, std::future::pending())).await;
    speaking.abort();
    result
}

/// Everything succeeds at once.
#[derive(Debug)]
struct NullRuntime {
    words: mpsc::UnboundedSender<Input>,
    running: BTreeSet<(Uid, Name)>,
}

impl NullRuntime {
    fn new(words: mpsc::UnboundedSender<Input>) -> Self {
        Self { words, running: BTreeSet::new() }
    }

    fn say(&self, word: Input) {
        // Nobody listens any more once the node has been told to stop.
        let _ = self.words.send(word);
    }
}

impl Runtime for NullRuntime {
    fn hand(&mut self, uid: Uid, deed: Deed) {
        match deed {
            Deed::Attach { volume, .. } => {
                let result = Ok(volume.capacity_bytes);
                self.say(Input::AttachDone { uid, volume: volume.volume, result });
            }
            Deed::Place { volume, .. } => self.say(Input::VolumePlaced { uid, volume, result: Ok(()) }),
            Deed::Measure { volume } => self.say(Input::VolumeMeasured { uid, volume, used_bytes: Some(0) }),
            Deed::Start { container, .. } => {
                self.running.insert((uid, container.clone()));
                let runs = RUNS.to_owned();
                let started_at_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
                // No process of its own: a process it is nevertheless that would have to die.
                let pid = std::process::id();
                self.say(Input::ContainerStarted { uid, container, pid, runs, started_at_ms });
            }
            Deed::Stop { container, .. } => {
                // A stop may be asked for again to shorten its grace; there is only one exit.
                if self.running.remove(&(uid, container.clone())) {
                    self.say(Input::ContainerExited {
                        uid,
                        container,
                        code: 0,
                        message: String::new(),
                        is_out_of_memory: false,
                    });
                }
            }
            Deed::Probe { container, attempt, kind, .. } => {
                let result = ProbeResult { is_ok: true, message: String::new() };
                self.say(Input::ProbeDone { uid, container, attempt, kind, result });
            }
            Deed::Hook { container, attempt, kind, .. } => {
                self.say(Input::HookDone { uid, container, attempt, kind, result: Ok(()) });
            }
            Deed::Kill | Deed::Clean => self.say(Input::PodCleaned { uid }),
        }
    }

    fn forget(&mut self, uid: Uid) {
        let of_pod = (uid, Name::default())..;
        let gone: Vec<_> = self.running.range(of_pod).take_while(|(of, _)| *of == uid).cloned().collect();
        for container in gone {
            self.running.remove(&container);
        }
    }

    fn remove_volume(&mut self, removal: VolumeRemoval) {
        self.say(Input::VolumeRemoved { volume: removal.volume, result: Ok(()) });
    }
}
