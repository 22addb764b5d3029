//! One task per pod, which does what the core says about it, in order.
//! Never decides: how each deed went becomes an input of the core.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::{Failure, Input, LiveContainer, LiveContainerState, LivePod, ProbeKind, ProbeResult};
use domain::agent::{AssignedPod, AssignedVolume, VolumeRemoval};
use domain::id::{Name, Uid};
use domain::spec::{DRIVER_DIR, Probe};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::containers::{self, Container};
use crate::environment::mirrored;
use crate::files;
use crate::image::Catalogue;
use crate::layout;
use crate::process::{self, ProcessRuntime};
use crate::sandbox::SandboxKind;
use crate::volume::{DirDriver, VolumeError};

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
    pub(crate) volumes: DirDriver,
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
    Start { pod: Arc<AssignedPod>, container: Name, attempt: u32 },
    Stop { container: Name, grace: Duration },
    Probe { container: Name, attempt: u32, kind: ProbeKind, probe: Probe },
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
            let (volumes, handle) = (site.volumes.clone(), removal.handle.clone());
            let result = match known_driver(&removal.driver) {
                Ok(()) => blocking(move || volumes.delete(handle.as_str())).await,
                Err(failure) => Err(failure),
            };
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
                Deed::Start { pod, container, attempt } => self.start(pod, container, attempt).await,
                Deed::Stop { container, grace } => {
                    if let Some(container) = self.containers.get(&container) {
                        container.stop(grace);
                    }
                }
                Deed::Probe { container, attempt, kind, probe } => self.probe(container, attempt, kind, probe),
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
        let result = match known_driver(&volume.driver) {
            Ok(()) => self.attach_dir(pod, &volume).await,
            Err(failure) => Err(failure),
        };
        match &result {
            Ok(()) => tracing::info!(pod = %pod.pod, volume = %volume.volume, fence = %volume.fence, "attached"),
            Err(failure) => {
                tracing::warn!(pod = %pod.pod, volume = %volume.volume, message = failure.message, "attaching");
            }
        }
        self.site.tell(Input::AttachDone { uid: self.uid, volume: volume.volume, result }).await;
    }

    async fn attach_dir(&self, pod: &Arc<AssignedPod>, volume: &AssignedVolume) -> Result<(), Failure> {
        let targets = targets(&layout::root_dir(&self.dir), pod, &volume.name)?;
        let (volumes, handle, fence) = (self.site.volumes.clone(), volume.handle.clone(), volume.fence.0);
        let is_sandboxed = self.site.sandbox.is_some();
        blocking(move || {
            volumes.attach(handle.as_str(), fence)?;
            if is_sandboxed {
                return Ok(()); // Every container mounts it for itself.
            }
            targets.iter().try_for_each(|target| volumes.publish(handle.as_str(), target))
        })
        .await
    }

    async fn start(&mut self, pod: Arc<AssignedPod>, name: Name, attempt: u32) {
        match containers::start(&self.site, &self.dir, &pod, &name, attempt).await {
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
            let dir = self.dir.clone();
            // Published volumes are links: they go, and what they lead to stays.
            let removed = tokio::task::spawn_blocking(move || files::remove_tree(&dir)).await;
            match removed {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::warn!(pod = %self.uid, %error, "removing the pod's directory"),
                Err(error) => tracing::warn!(pod = %self.uid, %error, "removing the pod's directory"),
            }
            tokio::time::sleep(CLEAN_PAUSE).await;
        }
        tracing::info!(pod = %self.uid, "cleaned");
        self.site.tell(Input::PodCleaned { uid: self.uid }).await;
    }
}

/// Where a volume appears in the containers of a pod.
fn targets(root: &Path, pod: &AssignedPod, volume: &Name) -> Result<Vec<PathBuf>, Failure> {
    let mounts = pod.template.containers.iter().flat_map(|container| &container.mounts);
    let mut targets = mounts
        .filter(|mount| mount.volume == *volume)
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

fn known_driver(driver: &Name) -> Result<(), Failure> {
    if driver.as_str() == DRIVER_DIR {
        return Ok(());
    }
    let message = format!("this node has no volume driver {driver}; it has {DRIVER_DIR}");
    Err(Failure { reason: Name::new("DriverNotFound"), message })
}

async fn blocking(deed: impl FnOnce() -> Result<(), VolumeError> + Send + 'static) -> Result<(), Failure> {
    let failed = |message| Failure { reason: Name::new("VolumeFailed"), message };
    match tokio::task::spawn_blocking(deed).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ VolumeError::StaleFence { .. })) => {
            Err(Failure { reason: Name::new("StaleFence"), message: error.to_string() })
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
