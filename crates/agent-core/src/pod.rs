//! One pod on this node: from its assignment to the word that nothing of it is left.
//! Never knows of other pods, beyond being told whether it may begin.

use crate::container::{ContainerRun, Role};
use crate::given::Given;
use crate::limits::{EVICTION_GRACE_MS, Limits};
use crate::local::LocalVolumes;
use crate::message::{Failure, Input, LiveContainer, LivePod, Output};
use crate::sizes::Sizes;
use domain::agent::AssignedPod;
use domain::command::PodReport;
use domain::id::{Fence, Name, Uid, VolumeName};
use domain::object::{ContainerStatus, Phase, PodStatus};
use domain::spec::Container;
use mutants::{Mutant, is_on};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A volume that could not be attached is tried again after this time.
pub const ATTACH_RETRY_MS: u64 = 1_000;
/// Why a container waits for those before it, in the word that Kubernetes uses.
pub const REASON_INITIALIZING: &str = "PodInitializing";
/// A volume that could not be removed is tried again after this time.
pub const REMOVE_RETRY_MS: u64 = 5_000;

/// What pods need to know of their node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) fences: &'a BTreeMap<VolumeName, Fence>,
    pub(crate) given: Given<'a>,
}

/// A pod that is assigned to this node, or still here though it is not.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    uid: Uid,
    /// `None`: not assigned any more, or never was as far as is known.
    assigned: Option<Arc<AssignedPod>>,
    stage: Stage,
    containers: Vec<ContainerRun>,
    local_volumes: LocalVolumes,
    limits: Limits,
    failure: Failure,
    started_at_ms: u64,
    sizes: Sizes,
    /// What was last put into the outbox; at first, what the control plane believes without being told.
    told: Option<PodReport>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing of it is here.
    Waiting,
    /// Some of its volumes may be attached; to be begun again.
    Retrying { at_ms: u64 },
    /// Its volumes are being attached.
    Attaching { missing: BTreeSet<VolumeName> },
    /// Its containers are kept running, or are being stopped.
    Active,
    /// Being removed from the node.
    Cleaning,
    /// Was removed from the node.
    Gone,
}

impl Pod {
    /// One of which nothing is here yet.
    pub(crate) fn assigned(pod: Arc<AssignedPod>) -> Self {
        let told = PodReport { pod: pod.pod.clone(), uid: pod.uid, ..PodReport::default() };
        Self {
            uid: pod.uid,
            containers: runs(&pod),
            assigned: Some(pod),
            stage: Stage::Waiting,
            local_volumes: LocalVolumes::default(),
            limits: Limits::default(),
            failure: Failure::default(),
            started_at_ms: 0,
            sizes: Sizes::default(),
            told: Some(told),
        }
    }

    /// One that is assigned and that a former agent had begun.
    pub(crate) fn adopted(pod: Arc<AssignedPod>, live: &LivePod) -> Self {
        let mut adopted = Self::assigned(pod);
        adopted.told = None;
        let specs = adopted.assigned.clone();
        let is_main =
            |c: &&LiveContainer| adopted.containers.iter().any(|run| run.name() == &c.name && run.role() == Role::Main);
        adopted.started_at_ms = live.containers.iter().filter(is_main).map(|c| c.started_at_ms).min().unwrap_or(0);
        for run in &mut adopted.containers {
            if let Some(live) = live.containers.iter().find(|live| live.name == *run.name()) {
                *run = ContainerRun::found(live, run.role(), spec(specs.as_ref(), run.name()));
            }
        }
        // Containers run only on attached volumes; otherwise the agent may have died on the way.
        let has_begun = !live.containers.is_empty();
        adopted.stage = if has_begun { Stage::Active } else { Stage::Retrying { at_ms: 0 } };
        // The shell has seen to it that they are as large as the ledger says.
        adopted.sizes = adopted.assigned.as_deref().map(Sizes::found).unwrap_or_default();
        adopted
    }

    /// One that is not assigned, yet here.
    pub(crate) fn leftover(uid: Uid) -> Self {
        Self {
            uid,
            assigned: None,
            stage: Stage::Active,
            containers: Vec::new(),
            local_volumes: LocalVolumes::default(),
            limits: Limits::default(),
            failure: Failure::default(),
            started_at_ms: 0,
            sizes: Sizes::default(),
            told: None,
        }
    }

    /// Whether something of it may be on this node.
    pub(crate) const fn is_here(&self) -> bool {
        match self.stage {
            Stage::Retrying { .. } | Stage::Attaching { .. } | Stage::Active | Stage::Cleaning => true,
            Stage::Waiting | Stage::Gone => false,
        }
    }

    /// Whether it must be ended before anything is begun.
    pub(crate) const fn is_leftover(&self) -> bool {
        self.assigned.is_none()
    }

    pub(crate) fn uses(&self, volume: &VolumeName) -> bool {
        self.assigned.as_ref().is_some_and(|pod| pod.volumes.iter().any(|v| v.volume == *volume))
    }

    pub(crate) fn assign(&mut self, pod: Arc<AssignedPod>) {
        self.assigned = Some(pod);
    }

    /// It is not assigned any more: superseded, force-deleted, or heard of as gone.
    pub(crate) fn unassign(&mut self) {
        self.assigned = None;
    }

    /// A container or a volume of it has changed. What comes after [`Output::KillPod`] or [`Output::CleanPod`] is late.
    pub(crate) fn on_change(&mut self, now_ms: u64, input: Input) {
        match (&mut self.stage, input) {
            (Stage::Attaching { missing }, Input::AttachDone { volume, result, .. }) => match result {
                Ok(size_bytes) => {
                    self.sizes.on_attached(&volume, size_bytes);
                    missing.remove(&volume);
                    if missing.is_empty() {
                        self.stage = Stage::Active;
                        self.failure = Failure::default();
                    }
                }
                Err(failure) => {
                    self.stage = Stage::Retrying { at_ms: now_ms + ATTACH_RETRY_MS };
                    self.failure = failure;
                }
            },
            (Stage::Active, Input::VolumePlaced { volume, result, .. }) => {
                self.local_volumes.on_placed(now_ms, &volume, result);
            }
            (Stage::Active, Input::VolumeMeasured { volume, used_bytes, .. }) => {
                if let Some(pod) = &self.assigned {
                    self.limits.on_measured(now_ms, pod, &volume, used_bytes);
                }
            }
            (Stage::Active, Input::AttachDone { volume, result, .. }) => match result {
                Ok(size_bytes) => self.sizes.on_attached(&volume, size_bytes),
                Err(_) => self.sizes.on_failed(now_ms, &volume),
            },
            (Stage::Active, input) => self.on_container_change(now_ms, input),
            (Stage::Cleaning, Input::PodCleaned { .. }) => {
                self.stage = Stage::Gone;
                self.containers.clear();
            }
            (Stage::Waiting | Stage::Retrying { .. } | Stage::Attaching { .. } | Stage::Cleaning | Stage::Gone, _) => {}
        }
    }

    fn on_container_change(&mut self, now_ms: u64, input: Input) {
        let assigned = self.assigned.as_ref();
        let runs_of_pod = &mut self.containers;
        match input {
            Input::ContainerStarted { container, pid, runs, started_at_ms, .. } => {
                let Some(run) = find(runs_of_pod, &container) else { return };
                run.on_started(now_ms, pid, runs, spec(assigned, &container));
                if self.started_at_ms == 0 && run.role() == Role::Main {
                    self.started_at_ms = started_at_ms;
                }
            }
            Input::StartFailed { container, failure, .. } => {
                if let Some(run) = find(runs_of_pod, &container) {
                    run.on_start_failed(now_ms, failure);
                }
            }
            Input::ContainerExited { container, code, message, is_out_of_memory, .. } => {
                if let Some(run) = find(runs_of_pod, &container) {
                    run.on_exited(now_ms, code, &message);
                    run.was_out_of_memory = is_out_of_memory;
                }
            }
            Input::ProbeDone { container, attempt, kind, result, .. } => {
                if let (Some(run), Some(spec)) = (find(runs_of_pod, &container), spec(assigned, &container)) {
                    run.on_probed(attempt, kind, result, spec);
                }
            }
            Input::HookDone { container, attempt, kind, result, .. } => {
                if let Some(run) = find(runs_of_pod, &container) {
                    run.on_hook_done(attempt, kind, result);
                }
            }
            Input::Tick
            | Input::SessionOpened
            | Input::SessionClosed
            | Input::ShutDown { .. }
            | Input::FromServer(_)
            | Input::AttachDone { .. }
            | Input::VolumePlaced { .. }
            | Input::VolumeMeasured { .. }
            | Input::PodCleaned { .. }
            | Input::VolumeRemoved { .. } => {}
        }
    }

    /// Ends what is not assigned any more. At once: whoever superseded it must not wait, nor share the node with it.
    pub(crate) fn end_leftover(&mut self, out: &mut Vec<Output>) {
        if self.is_leftover() && self.is_here() && self.stage != Stage::Cleaning && !is_on(Mutant::LeftoversKept) {
            self.stage = Stage::Cleaning;
            out.push(Output::KillPod { uid: self.uid });
        }
    }

    /// The next steps of an assigned pod. `may_begin`: nothing on the node must be ended first.
    pub(crate) fn advance(&mut self, now_ms: u64, may_begin: bool, site: &Site<'_>, out: &mut Vec<Output>) {
        let Some(pod) = self.assigned.clone() else { return };
        if let Some(grace_ms) = pod.stop_within_ms {
            self.stop(now_ms, &pod, grace_ms, out);
            return;
        }
        let is_to_begin = match self.stage {
            Stage::Waiting => true,
            Stage::Retrying { at_ms } => at_ms <= now_ms,
            Stage::Attaching { .. } | Stage::Active | Stage::Cleaning | Stage::Gone => false,
        };
        if is_to_begin {
            if !may_begin {
                self.failure = Failure {
                    reason: Name::new("EndingLeftovers"),
                    message: "processes of former pods on this node are being ended first".to_owned(),
                };
                return;
            }
            self.attach(now_ms, &pod, site.fences, out);
        }
        if self.stage == Stage::Active {
            self.keep_running(now_ms, &pod, site.given, out);
        }
    }

    fn keep_running(&mut self, now_ms: u64, pod: &Arc<AssignedPod>, given: Given<'_>, out: &mut Vec<Output>) {
        if self.limits.excess().is_some() {
            self.stop_containers(now_ms, pod, EVICTION_GRACE_MS, out);
            return;
        }
        self.limits.advance(now_ms, self.uid, pod, out);
        self.sizes.advance(now_ms, self.uid, pod, out);
        self.local_volumes.advance(now_ms, self.uid, pod, given, out);
        let lack = self.local_volumes.failure().cloned().unwrap_or_default();
        let may_start = self.local_volumes.are_placed();
        // Up to the first that must have ended, or have started, before the others.
        let last = self.last_startable(pod);
        for (index, run) in self.containers.iter_mut().enumerate() {
            if !run.is_down() || (may_start && index <= last) {
                run.keep_running(now_ms, self.uid, pod, given, out);
            } else {
                run.wait_for(&lack);
            }
        }
    }

    fn last_startable(&self, pod: &Arc<AssignedPod>) -> usize {
        let all = self.containers.len();
        // Once the others have begun, one that has to start again holds up nobody.
        if 0 < self.started_at_ms {
            return all;
        }
        let blocks = |run: &ContainerRun| !run.lets_others_start(spec(Some(pod), run.name()));
        self.containers.iter().position(blocks).unwrap_or(all)
    }

    fn attach(
        &mut self,
        now_ms: u64,
        pod: &Arc<AssignedPod>,
        fences: &BTreeMap<VolumeName, Fence>,
        out: &mut Vec<Output>,
    ) {
        if let Some(volume) = unassigned_volume(pod) {
            let message = format!("volume {volume} is not attached to this node yet");
            self.failure = Failure { reason: Name::new("WaitingForVolume"), message };
            return;
        }
        let stale = pod.volumes.iter().find(|v| {
            fences.get(&v.volume).is_some_and(|highest| v.fence < *highest && !is_on(Mutant::StaleFenceAccepted))
        });
        if let Some(volume) = stale {
            let highest = fences.get(&volume.volume).copied().unwrap_or_default();
            let (name, fence) = (&volume.volume, volume.fence);
            let message = format!("volume {name} was held here under fence {highest}; {fence} is stale");
            self.failure = Failure { reason: Name::new("StaleFence"), message };
            self.stage = Stage::Retrying { at_ms: now_ms + ATTACH_RETRY_MS };
            return;
        }
        let missing: BTreeSet<VolumeName> = pod.volumes.iter().map(|v| v.volume.clone()).collect();
        self.failure = Failure::default();
        self.stage = if missing.is_empty() || is_on(Mutant::StartBeforeAttach) {
            Stage::Active
        } else {
            Stage::Attaching { missing }
        };
        self.sizes = Sizes::of(pod);
        out.extend(pod.volumes.iter().map(|volume| Output::AttachVolume {
            uid: self.uid,
            pod: Arc::clone(pod),
            volume: volume.clone(),
        }));
    }

    fn stop(&mut self, now_ms: u64, pod: &Arc<AssignedPod>, grace_ms: u64, out: &mut Vec<Output>) {
        match self.stage {
            Stage::Waiting => self.stage = Stage::Gone,
            Stage::Retrying { .. } | Stage::Attaching { .. } => {
                self.stage = Stage::Cleaning;
                out.push(Output::CleanPod { uid: self.uid });
            }
            Stage::Active => {
                self.stop_containers(now_ms, pod, grace_ms, out);
                if self.containers.iter().all(ContainerRun::is_down) {
                    self.stage = Stage::Cleaning;
                    out.push(Output::CleanPod { uid: self.uid });
                }
            }
            Stage::Cleaning | Stage::Gone => {}
        }
    }

    fn stop_containers(&mut self, now_ms: u64, pod: &Arc<AssignedPod>, grace_ms: u64, out: &mut Vec<Output>) {
        let uid = self.uid;
        for run in self.containers.iter_mut().filter(|run| run.role() != Role::Sidecar) {
            run.stop(now_ms, uid, spec(Some(pod), run.name()), grace_ms, out);
        }
        // Sidecars serve the others to their end: they go afterwards, the last one first.
        for index in (0..self.containers.len()).rev() {
            let run = &mut self.containers[index];
            if run.role() == Role::Sidecar {
                run.stop(now_ms, uid, spec(Some(pod), &run.name().clone()), grace_ms, out);
            }
            if !run.is_down() {
                break;
            }
        }
    }

    /// Why it is over though nobody asked it to end, once nothing of it runs.
    fn eviction(&self) -> Option<&Failure> {
        self.limits.excess().filter(|_| self.containers.iter().all(ContainerRun::is_down))
    }

    /// What the control plane has not been told yet, once.
    pub(crate) fn news(&mut self) -> Option<PodReport> {
        let pod = self.assigned.as_ref()?;
        let is_gone = self.stage == Stage::Gone || pod.stop_within_ms.is_some() && is_on(Mutant::GoneWhenStopBegins);
        // A pod that ends is described when it has ended; one that was adopted, when it has been looked at.
        let is_on_its_way = pod.stop_within_ms.is_some() || self.containers.iter().any(ContainerRun::is_unjudged);
        if is_on_its_way && !is_gone {
            return None;
        }
        let report = PodReport {
            pod: pod.pod.clone(),
            uid: self.uid,
            status: self.status(pod),
            has_volumes: self.stage == Stage::Active,
            is_gone,
            grown: self.sizes.grown(pod),
        };
        if self.told.as_ref() == Some(&report) {
            return None;
        }
        self.told = Some(report.clone());
        Some(report)
    }

    fn status(&self, pod: &Arc<AssignedPod>) -> PodStatus {
        let has_started = 0 < self.started_at_ms;
        let is_active = self.stage == Stage::Active;
        let mut init_containers = self.statuses(pod, |role| role != Role::Main);
        let mut containers = self.statuses(pod, |role| role == Role::Main);
        if is_active && self.last_startable(pod) < init_containers.len() {
            let waiting = init_containers.iter_mut().chain(&mut containers).filter(|status| !status.is_running);
            for status in waiting.filter(|status| status.reason == Name::default() && !status.is_ready) {
                status.reason = Name::new(REASON_INITIALIZING);
            }
        }
        let failures =
            self.eviction().into_iter().chain([&self.failure]).chain(self.containers.iter().map(ContainerRun::failure));
        let failure = failures.into_iter().find(|f| **f != Failure::default()).cloned().unwrap_or_default();
        PodStatus {
            phase: match self.eviction() {
                Some(_) => Phase::Failed,
                None if has_started => Phase::Running,
                None => Phase::Pending,
            },
            is_ready: is_active
                && containers.iter().all(|c| c.is_running && c.is_ready)
                && init_containers.iter().all(|c| c.is_ready),
            reason: failure.reason,
            message: failure.message,
            started_at_ms: self.started_at_ms,
            containers,
            init_containers,
        }
    }

    fn statuses(&self, pod: &Arc<AssignedPod>, is_wanted: impl Fn(Role) -> bool) -> Vec<ContainerStatus> {
        match self.stage {
            Stage::Active => {
                let runs = self.containers.iter().filter(|run| is_wanted(run.role()));
                runs.map(|run| run.status(spec(Some(pod), run.name()))).collect()
            }
            Stage::Waiting | Stage::Retrying { .. } | Stage::Attaching { .. } | Stage::Cleaning | Stage::Gone => {
                Vec::new()
            }
        }
    }

    /// When [`Self::advance`] has something to do, if nothing else happens.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        let pod = self.assigned.as_ref()?;
        if pod.stop_within_ms.is_some() || self.limits.excess().is_some() {
            return self.containers.iter().filter_map(ContainerRun::part_at_ms).min();
        }
        match self.stage {
            Stage::Retrying { at_ms } => Some(at_ms),
            Stage::Active => {
                let runs = self.containers.iter().filter_map(|run| run.next_at_ms(spec(Some(pod), run.name())));
                let volumes = self.local_volumes.next_at_ms().into_iter().chain(self.limits.next_at_ms());
                runs.chain(volumes).chain(self.sizes.next_at_ms()).min()
            }
            Stage::Waiting | Stage::Attaching { .. } | Stage::Cleaning | Stage::Gone => None,
        }
    }
}

/// The containers of a pod, in the order in which they start.
fn runs(pod: &AssignedPod) -> Vec<ContainerRun> {
    let init = pod.template.init_containers.iter().map(|container| {
        let role = if container.is_sidecar { Role::Sidecar } else { Role::Init };
        ContainerRun::new(container.name.clone(), role)
    });
    init.chain(pod.template.containers.iter().map(|c| ContainerRun::new(c.name.clone(), Role::Main))).collect()
}

fn find<'a>(containers: &'a mut [ContainerRun], name: &Name) -> Option<&'a mut ContainerRun> {
    containers.iter_mut().find(|run| run.name() == name)
}

/// A claim that a container mounts and that the assignment does not have: the control plane has yet to grant it.
fn unassigned_volume(pod: &AssignedPod) -> Option<&Name> {
    let mut mounts = pod.template.every_container().flat_map(|container| &container.mounts);
    let is_assigned = |name: &Name| pod.volumes.iter().any(|volume| volume.name == *name);
    let is_local = |name: &Name| pod.template.local_volumes.iter().any(|volume| volume.name == *name);
    mounts.find(|mount| !is_assigned(&mount.volume) && !is_local(&mount.volume)).map(|mount| &mount.volume)
}

fn spec<'a>(pod: Option<&'a Arc<AssignedPod>>, container: &Name) -> Option<&'a Container> {
    pod?.template.every_container().find(|c| c.name == *container)
}
