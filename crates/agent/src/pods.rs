//! One task per pod, which does what the core says about it, in order.
//! Never decides: how each deed went becomes an input of the core.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::{
    Failure, HookKind, Input, LiveContainer, LiveContainerState, LivePod, ProbeKind, ProbeResult, VolumeContent,
};
use domain::agent::{AssignedPod, AssignedVolume, VolumeRemoval};
use domain::id::{Name, Uid};
use domain::spec::{Hook, Probe};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::confine;
use crate::containers::{self, Container};
use crate::environment::mirrored;
use crate::files;
use crate::image::Catalogue;
use crate::layout;
use crate::local_volume;
use crate::pod_names::PodNames;
use crate::process::{self, ProcessRuntime};
use crate::sandbox::SandboxKind;
use crate::volume::{self, Attached, NodeVolumes, Use, VolumeError};

/// A pod directory that cannot be removed is tried again after this time.
const CLEAN_PAUSE: Duration = Duration::from_secs(1);

/// What all pods of the node share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) node: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) exe: PathBuf,
    pub(crate) path: String,
    pub(crate) home: String,
    pub(crate) catalogue: Catalogue,
    pub(crate) runtime: ProcessRuntime,
    /// `None`: containers are plain processes.
    pub(crate) sandbox: Option<SandboxKind>,
    /// Where names are answered over DNS, if they are.
    pub(crate) dns: Option<SocketAddr>,
    /// The files by which pods in sandboxes look names up.
    pub(crate) names: Arc<PodNames>,
    pub(crate) volumes: NodeVolumes,
    /// Where the core hears how things went.
    pub(crate) inputs: mpsc::Sender<Input>,
}

impl Site {
    pub(crate) async fn tell(&self, input: Input) {
        // Nobody listens any more once the agent has been told to stop.
        let _ = self.inputs.send(input).await;
    }
}

/// What a pod's task is to do.
#[derive(Debug)]
pub(crate) enum Deed {
    Attach { pod: Arc<AssignedPod>, volume: AssignedVolume },
    Place { pod: Arc<AssignedPod>, volume: Name, content: VolumeContent },
    Measure { volume: Name },
    Start { pod: Arc<AssignedPod>, container: Name, attempt: u32, env: Vec<(Name, String)> },
    Stop { container: Name, grace: Duration },
    Probe { container: Name, attempt: u32, kind: ProbeKind, probe: Probe },
    Hook { container: Name, attempt: u32, kind: HookKind, hook: Hook, timeout: Duration },
    Kill,
    Clean,
}

/// What the deeds of a node's core are done with.
pub(crate) trait Runtime {
    /// Begins a deed; deeds for one pod are begun in order.
    fn hand(&mut self, uid: Uid, deed: Deed);

    /// The pod was cleaned.
    fn forget(&mut self, uid: Uid);

    /// Removes a volume's storage.
    fn remove_volume(&mut self, removal: VolumeRemoval);
}

/// The pods that have a task.
#[derive(Debug)]
pub(crate) struct Pods {
    site: Arc<Site>,
    deeds: BTreeMap<Uid, mpsc::UnboundedSender<Deed>>,
    /// Ends the tasks with the agent, and never a container.
    tasks: JoinSet<()>,
}

impl Pods {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self { site, deeds: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Finds what a former agent left behind, and watches what still runs.
    pub(crate) async fn adopt(&mut self) -> Vec<LivePod> {
        let mut live = Vec::new();
        for uid in layout::pods(&self.site.data_dir) {
            let mut task = PodTask::new(uid, &self.site);
            let containers = task.adopt().await;
            live.push(LivePod { uid, containers });
            self.spawn(uid, task);
        }
        live
    }

    fn spawn(&mut self, uid: Uid, task: PodTask) {
        let (deeds, inbox) = mpsc::unbounded_channel();
        self.deeds.insert(uid, deeds);
        self.tasks.spawn(task.run(inbox));
    }
}

impl Runtime for Pods {
    /// A pod without a task gets one.
    fn hand(&mut self, uid: Uid, deed: Deed) {
        if !self.deeds.contains_key(&uid) {
            let task = PodTask::new(uid, &self.site);
            self.spawn(uid, task);
        }
        if let Some(deeds) = self.deeds.get(&uid) {
            let _ = deeds.send(deed);
        }
    }

    /// Its task has ended.
    fn forget(&mut self, uid: Uid) {
        self.deeds.remove(&uid);
        while self.tasks.try_join_next().is_some() {}
    }

    fn remove_volume(&mut self, removal: VolumeRemoval) {
        let site = Arc::clone(&self.site);
        self.tasks.spawn(async move {
            let (volumes, driver, handle) = (site.volumes.clone(), removal.driver.clone(), removal.handle.clone());
            let result = blocking(move || volumes.delete(driver.as_str(), handle.as_str())).await;
            if let Err(failure) = &result {
                tracing::warn!(volume = %removal.volume, message = failure.message, "removing a volume");
            }
            site.tell(Input::VolumeRemoved { volume: removal.volume, result }).await;
        });
    }
}

#[derive(Debug)]
struct PodTask {
    uid: Uid,
    site: Arc<Site>,
    dir: PathBuf,
    containers: BTreeMap<Name, Container>,
    probes: JoinSet<()>,
}

impl PodTask {
    fn new(uid: Uid, site: &Arc<Site>) -> Self {
        let dir = layout::pod_dir(&site.data_dir, uid);
        Self { uid, site: Arc::clone(site), dir, containers: BTreeMap::new(), probes: JoinSet::new() }
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Deed>) {
        while let Some(deed) = inbox.recv().await {
            while self.probes.try_join_next().is_some() {}
            match deed {
                Deed::Attach { pod, volume } => self.attach(&pod, volume).await,
                Deed::Place { pod, volume, content } => self.place(&pod, volume, content).await,
                Deed::Measure { volume } => self.measure(volume),
                Deed::Start { pod, container, attempt, env } => self.start(pod, container, attempt, &env).await,
                Deed::Stop { container, grace } => {
                    if let Some(container) = self.containers.get(&container) {
                        container.stop(grace);
                    }
                }
                Deed::Probe { container, attempt, kind, probe } => self.probe(container, attempt, kind, probe),
                Deed::Hook { container, attempt, kind, hook, timeout } => {
                    self.hook(container, attempt, kind, hook, timeout);
                }
                Deed::Kill | Deed::Clean => {
                    self.clean().await;
                    return;
                }
            }
        }
    }

    async fn adopt(&mut self) -> Vec<LiveContainer> {
        let mut live = Vec::new();
        for name in layout::containers(&self.dir) {
            let Some((found, container)) = containers::adopt(&self.site, self.uid, &self.dir, &name).await else {
                continue;
            };
            tracing::info!(pod = %self.uid, container = name, state = ?found.state, "found");
            if matches!(found.state, LiveContainerState::Running { .. })
                && let Some(container) = container
            {
                self.containers.insert(found.name.clone(), container);
            }
            live.push(found);
        }
        live
    }

    async fn attach(&self, pod: &Arc<AssignedPod>, volume: AssignedVolume) {
        let result = self.attach_and_link(pod, &volume).await;
        match &result {
            Ok(_) => tracing::info!(pod = %pod.pod, volume = %volume.volume, fence = %volume.fence, "attached"),
            Err(failure) => {
                tracing::warn!(pod = %pod.pod, volume = %volume.volume, message = failure.message, "attaching");
            }
        }
        self.site.tell(Input::AttachDone { uid: self.uid, volume: volume.volume, result }).await;
    }

    async fn attach_and_link(&self, pod: &Arc<AssignedPod>, volume: &AssignedVolume) -> Result<u64, Failure> {
        let targets = targets(&layout::root_dir(&self.dir), pod, &volume.name)?;
        let (volumes, wanted) = (self.site.volumes.clone(), use_of(pod, volume));
        let is_sandboxed = self.site.sandbox.is_some();
        let group = group_of_volumes(pod);
        blocking(move || {
            let Attached { content, size_bytes } = volumes.attach(&wanted)?;
            if let Some(group) = group {
                let given = volume::give_to_group(&content, group);
                given.map_err(VolumeError::io(&wanted.handle, "giving fsGroup the content of"))?;
            }
            if is_sandboxed {
                return Ok(size_bytes); // Every container mounts it for itself.
            }
            targets.iter().try_for_each(|target| volume::link(&wanted.handle, &content, target))?;
            Ok(size_bytes)
        })
        .await
    }

    /// What was attached may be gone: the machine of the agent before this one may have been another boot's, or somebody
    /// may have unmounted it. A container never starts on an empty place instead of its volume.
    async fn attach_again(&self, pod: &Arc<AssignedPod>) -> Result<(), Failure> {
        for volume in &pod.volumes {
            let (name, handle) = (volume.name.as_str(), volume.handle.as_str());
            if self.site.volumes.published(self.uid, name, handle).is_err() {
                self.attach_and_link(pod, volume).await?;
            }
        }
        Ok(())
    }

    async fn place(&self, pod: &AssignedPod, volume: Name, content: VolumeContent) {
        let group = group_of_volumes(pod);
        let dir = local_volume::dir(&self.dir, volume.as_str());
        let placed = tokio::task::spawn_blocking(move || local_volume::place(&dir, &content, group)).await;
        let message = match placed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let result = message.map_or(Ok(()), |message| {
            let message = format!("making volume {volume}: {message}");
            tracing::warn!(pod = %self.uid, message, "placing");
            Err(Failure { reason: Name::new("VolumeFailed"), message })
        });
        self.site.tell(Input::VolumePlaced { uid: self.uid, volume, result }).await;
    }

    /// Beside everything else: a large volume takes its time.
    fn measure(&mut self, volume: Name) {
        let (site, uid, dir) = (Arc::clone(&self.site), self.uid, local_volume::dir(&self.dir, volume.as_str()));
        self.probes.spawn(async move {
            let measured = tokio::task::spawn_blocking(move || volume::usage_bytes(&dir)).await;
            let used_bytes = match measured.map_err(std::io::Error::other).flatten() {
                Ok(used_bytes) => Some(used_bytes),
                Err(error) => {
                    tracing::warn!(pod = %uid, %volume, %error, "measuring");
                    None
                }
            };
            site.tell(Input::VolumeMeasured { uid, volume, used_bytes }).await;
        });
    }

    async fn start(&mut self, pod: Arc<AssignedPod>, name: Name, attempt: u32, env: &[(Name, String)]) {
        if let Err(failure) = self.attach_again(&pod).await {
            let (uid, container) = (self.uid, name);
            self.site.tell(Input::StartFailed { uid, container, failure }).await;
            return;
        }
        match containers::start(&self.site, &self.dir, &pod, &name, attempt, env).await {
            Ok(container) => {
                self.containers.insert(name, container);
            }
            Err(input) => self.site.tell(input).await,
        }
    }

    fn probe(&mut self, container: Name, attempt: u32, kind: ProbeKind, probe: Probe) {
        let (site, uid) = (Arc::clone(&self.site), self.uid);
        let dir = process::attempt_dir(&self.dir, container.as_str(), attempt);
        let address = self.containers.get(&container).map(Container::address);
        self.probes.spawn(async move {
            let tried = containers::probe(&dir, address, &probe).await;
            let result = match tried {
                Ok(()) => ProbeResult { is_ok: true, message: String::new() },
                Err(message) => ProbeResult { is_ok: false, message },
            };
            site.tell(Input::ProbeDone { uid, container, attempt, kind, result }).await;
        });
    }

    fn hook(&mut self, container: Name, attempt: u32, kind: HookKind, hook: Hook, timeout: Duration) {
        let (site, uid) = (Arc::clone(&self.site), self.uid);
        let dir = process::attempt_dir(&self.dir, container.as_str(), attempt);
        let address = self.containers.get(&container).map(Container::address);
        // Beside the probes: both end with the pod, and neither is waited for.
        self.probes.spawn(async move {
            let result = containers::hook(&dir, address, &hook, timeout).await;
            if let Err(error) = &result {
                tracing::warn!(pod = %uid, %container, %kind, error, "hook failed");
            }
            site.tell(Input::HookDone { uid, container, attempt, kind, result }).await;
        });
    }

    /// Leaves nothing of the pod on the node, however long that takes.
    async fn clean(&mut self) {
        self.probes.shutdown().await;
        process::kill_everything_under(&self.dir).await;
        // The watchers end with what they watch; nothing is removed under a container that is not over.
        for container in std::mem::take(&mut self.containers).into_values() {
            container.ended().await;
        }
        loop {
            process::kill_everything_under(&self.dir).await;
            match self.remove().await {
                Ok(()) => break,
                Err(failure) => tracing::warn!(pod = %self.uid, message = failure.message, "removing the pod"),
            }
            tokio::time::sleep(CLEAN_PAUSE).await;
        }
        tracing::info!(pod = %self.uid, "cleaned");
        self.site.tell(Input::PodCleaned { uid: self.uid }).await;
    }

    /// First its volumes, then its directory: as long as that is there, the next agent knows that there is something to do.
    async fn remove(&self) -> Result<(), Failure> {
        let (volumes, uid, dir) = (self.site.volumes.clone(), self.uid, self.dir.clone());
        blocking(move || {
            confine::release_pod(&dir).map_err(|source| VolumeError::RemovePod { dir: dir.clone(), source })?;
            volumes.detach_all(uid)?;
            volume::memory::release_memory_below(&dir)
                .map_err(|source| VolumeError::RemovePod { dir: dir.clone(), source })?;
            // What links lead to stays.
            files::remove_tree(&dir).map_err(|source| VolumeError::RemovePod { dir, source })
        })
        .await
    }
}

/// The group that owns what is in the volumes of a pod. Where the agent can give nothing away, the containers say so.
fn group_of_volumes(pod: &AssignedPod) -> Option<u32> {
    pod.template.security.fs_group.filter(|_| rustix::process::geteuid().is_root())
}

/// What a pod wants of a volume.
fn use_of(pod: &AssignedPod, volume: &AssignedVolume) -> Use {
    Use {
        pod: pod.uid,
        name: volume.name.to_string(),
        driver: volume.driver.to_string(),
        handle: volume.handle.to_string(),
        fence: volume.fence.0,
        capacity_bytes: volume.capacity_bytes,
    }
}

/// Where a volume appears in the containers of a pod.
fn targets(root: &Path, pod: &AssignedPod, volume: &Name) -> Result<Vec<PathBuf>, Failure> {
    let mounts = pod.template.every_container().flat_map(|container| &container.mounts);
    let mut targets = mounts
        // What shows a part of a volume is made when its container starts.
        .filter(|mount| mount.volume == *volume && mount.sub_path.is_empty())
        .map(|mount| {
            mirrored(root, &mount.path).ok_or_else(|| Failure {
                reason: Name::new("BadMountPath"),
                message: format!("mount path {} leads out of the pod", mount.path),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    targets.sort_unstable();
    targets.dedup();
    Ok(targets)
}

async fn blocking<T: Send + 'static>(
    deed: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, Failure> {
    let failed = |message| Failure { reason: Name::new("VolumeFailed"), message };
    match tokio::task::spawn_blocking(deed).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error @ VolumeError::StaleFence { .. })) => {
            Err(Failure { reason: Name::new("StaleFence"), message: error.to_string() })
        }
        Ok(Err(error @ VolumeError::NoDriver { .. })) => {
            Err(Failure { reason: Name::new("DriverNotFound"), message: error.to_string() })
        }
        Ok(Err(error)) => Err(failed(with_causes(&error))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// An error and what led to it, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
