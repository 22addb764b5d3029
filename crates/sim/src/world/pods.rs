//! What agents do for pods, and what pods do. Mirrors `agent/src/pods.rs`: deeds take time, may fail, and one follows the
//! other. A pod writes lines to its volumes; some crash, some never get ready, some do not listen.

use super::agent::{AgentEvent, Deed, Task};
use super::machine::{Attempt, KILLED_CODE, PodDir, Running};
use super::{Event, World};
use crate::history::What;
use agent_core::{Failure, Input, LiveContainerState, ProbeKind, ProbeResult};
use domain::agent::{AssignedPod, AssignedVolume, VolumeRemoval};
use domain::id::{Name, Uid};
use std::sync::Arc;

const ATTACH_MS: (u64, u64) = (5, 300);
const START_MS: (u64, u64) = (5, 500);
const CLEAN_MS: (u64, u64) = (5, 500);
const PROBE_MS: (u64, u64) = (1, 50);
const READY_MS: (u64, u64) = (0, 3_000);
/// How long a pod that listens takes to end.
const END_MS: (u64, u64) = (1, 2_000);
/// How long a pod that is going to crash lives.
const CRASH_MS: (u64, u64) = (0, 30_000);

/// What can happen to a process of a pod.
#[derive(Debug)]
pub(super) enum PodEvent {
    Write,
    /// It ends by itself, or because it was asked to.
    End {
        code: i32,
    },
}

impl World<'_> {
    /// Begins a deed; deeds for one pod are begun in order.
    pub(super) fn hand(&mut self, node: u64, uid: Uid, deed: Deed) {
        let Some(agent) = self.agent(node) else { return };
        let task = agent.tasks.entry(uid).or_default();
        if task.is_over {
            return;
        }
        task.deeds.push_back(deed);
        self.go_on_with(node, uid);
    }

    fn task(&mut self, node: u64, uid: Uid) -> Option<&mut Task> {
        self.agent(node)?.tasks.get_mut(&uid)
    }

    fn go_on_with(&mut self, node: u64, uid: Uid) {
        let Some(life) = self.machines.get(&node).map(|machine| machine.life) else { return };
        while let Some(task) = self.task(node, uid)
            && task.current.is_none()
            && let Some(deed) = task.deeds.pop_front()
        {
            let duration = match &deed {
                Deed::Attach { .. } | Deed::Place { .. } | Deed::Hook { .. } => ATTACH_MS,
                Deed::Start { .. } => START_MS,
                Deed::Clean => CLEAN_MS,
                Deed::Stop { container, grace_ms } => {
                    self.stop(node, uid, container, *grace_ms);
                    continue;
                }
                Deed::Probe { container, attempt, kind } => {
                    let (container, attempt, kind) = (container.clone(), *attempt, *kind);
                    let probe_ms = self.chances.pods.between(PROBE_MS.0..=PROBE_MS.1);
                    self.after(probe_ms, Event::Agent(node, life, AgentEvent::Probe { uid, container, attempt, kind }));
                    continue;
                }
            };
            task.current = Some(deed);
            let done_ms = self.chances.pods.between(duration.0..=duration.1);
            self.after(done_ms, Event::Agent(node, life, AgentEvent::DeedDone { uid }));
        }
    }

    pub(super) fn finish_deed(&mut self, node: u64, uid: Uid) {
        let Some(deed) = self.task(node, uid).and_then(|task| task.current.take()) else { return };
        match deed {
            Deed::Attach { pod, volume } => {
                let result = self.attach(node, &pod, &volume).map(|()| volume.capacity_bytes);
                self.give_agent(node, Input::AttachDone { uid, volume: volume.volume, result });
            }
            Deed::Start { pod, container, attempt } => {
                let input = match self.begin_process(node, &pod, &container, attempt) {
                    Ok(input) | Err(input) => input,
                };
                self.give_agent(node, input);
            }
            Deed::Place { volume } => self.give_agent(node, Input::VolumePlaced { uid, volume, result: Ok(()) }),
            Deed::Hook { container, attempt, kind } => {
                self.give_agent(node, Input::HookDone { uid, container, attempt, kind, result: Ok(()) });
            }
            Deed::Clean => self.clean(node, uid),
            Deed::Stop { .. } | Deed::Probe { .. } => {}
        }
        self.go_on_with(node, uid);
    }

    fn fails(&mut self) -> bool {
        let permille = if self.is_calm { 0 } else { self.setup.pods.failure_permille };
        self.chances.pods.hits(permille)
    }

    fn attach(&mut self, node: u64, pod: &Arc<AssignedPod>, volume: &AssignedVolume) -> Result<(), Failure> {
        if self.fails() {
            self.tally("attach failed");
            let message = "the storage does not answer".to_owned();
            return Err(Failure { reason: Name::new("VolumeFailed"), message });
        }
        if let Err(message) = self.storage.attach(&volume.handle, volume.fence) {
            self.tally("stale fence refused");
            return Err(Failure { reason: Name::new("StaleFence"), message });
        }
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        machine.pods.entry(pod.uid).or_default();
        let what = What::Attached {
            node: machine.name.clone(),
            pod: pod.pod.clone(),
            uid: pod.uid,
            volume: volume.volume.clone(),
            fence: volume.fence,
        };
        self.tell(what);
        Ok(())
    }

    /// Starts a process; the result is what its agent is told, if it lives.
    pub(super) fn begin_process(
        &mut self,
        node: u64,
        pod: &Arc<AssignedPod>,
        container: &Name,
        attempt: u32,
    ) -> Result<Input, Input> {
        let uid = pod.uid;
        let failed = |message: &str| {
            let failure = Failure { reason: Name::new("StartFailed"), message: message.to_owned() };
            Err(Input::StartFailed { uid, container: container.clone(), failure })
        };
        if self.fails() {
            self.tally("start failed");
            return failed("the machine has no room for another process");
        }
        let mounts = pod.template.containers.iter().filter(|c| c.name == *container).flat_map(|c| &c.mounts);
        let mut volumes = Vec::new();
        let mut found = Vec::new();
        for mount in mounts.filter(|mount| !mount.read_only) {
            let Some(volume) = pod.volumes.iter().find(|volume| volume.name == mount.volume) else {
                return failed("the pod does not have the volume");
            };
            let Some((generation, lines)) = self.storage.open(&volume.handle) else {
                return failed("the volume is not there");
            };
            volumes.push((volume.volume.clone(), volume.handle.clone(), generation));
            found.push((volume.volume.clone(), lines));
        }
        let process = self.draw_process(pod, container, attempt, volumes);
        let Some(pid) = self.put_process(node, process) else { return failed("the machine is down") };
        let Some(machine) = self.machines.get(&node) else { return failed("the machine is down") };
        let name = machine.name.clone();
        let started_at_ms = machine.clock.wall(self.now_ms);
        let container = container.clone();
        self.tell(What::ProcessStarted { node: name.clone(), pod: pod.pod.clone(), uid, container: container.clone() });
        for (volume, lines) in found {
            self.tell(What::Found { node: name.clone(), uid, volume, lines });
        }
        Ok(Input::ContainerStarted { uid, container, pid, runs: "a simulated program".to_owned(), started_at_ms })
    }

    fn draw_process(
        &mut self,
        pod: &Arc<AssignedPod>,
        container: &Name,
        attempt: u32,
        volumes: Vec<(domain::id::VolumeName, Name, u64)>,
    ) -> Running {
        let ready_ms = self.chances.pods.between(READY_MS.0..=READY_MS.1);
        let never_ready = self.chances.pods.hits(self.setup.pods.unready_permille) && !self.is_calm;
        let is_stubborn = self.chances.pods.hits(self.setup.pods.stubborn_permille) && !self.is_calm;
        if never_ready {
            self.tally("pod never ready");
        }
        if is_stubborn {
            self.tally("pod ignores SIGTERM");
        }
        Running {
            uid: pod.uid,
            container: container.clone(),
            attempt,
            volumes,
            ready_at_ms: self.now_ms + ready_ms,
            never_ready,
            is_stubborn,
            is_stopping: false,
            kill_at_ms: None,
        }
    }

    /// The process runs from now on, whoever lives.
    fn put_process(&mut self, node: u64, process: Running) -> Option<u32> {
        let will_crash = self.chances.pods.hits(self.setup.pods.crash_permille) && !self.is_calm;
        let crash_ms = self.chances.pods.between(CRASH_MS.0..=CRASH_MS.1);
        let machine = self.machines.get_mut(&node).filter(|machine| machine.is_up)?;
        let pid = machine.new_pid();
        let boot = machine.boot;
        let attempt = Attempt {
            number: process.attempt,
            runs: "a simulated program".to_owned(),
            started_at_ms: machine.clock.wall(self.now_ms),
            state: LiveContainerState::Running { pid },
        };
        let writes = !process.volumes.is_empty();
        machine
            .pods
            .entry(process.uid)
            .or_insert_with(PodDir::default)
            .attempts
            .insert(process.container.clone(), attempt);
        machine.processes.insert(pid, process);
        if writes {
            self.plan_write(node, boot, pid);
        }
        if will_crash {
            self.tally("pod crash");
            self.after(crash_ms, Event::Pod(node, boot, pid, PodEvent::End { code: 1 }));
        }
        Some(pid)
    }

    fn plan_write(&mut self, node: u64, boot: u64, pid: u32) {
        let (least, longest) = self.setup.pods.write_ms;
        let write_ms = self.chances.pods.between(least..=longest);
        self.after(write_ms, Event::Pod(node, boot, pid, PodEvent::Write));
    }

    pub(super) fn on_pod(&mut self, node: u64, boot: u64, pid: u32, event: PodEvent) {
        let Some(machine) = self.machines.get(&node).filter(|machine| machine.boot == boot && machine.is_up) else {
            return;
        };
        let Some(process) = machine.processes.get(&pid) else { return };
        match event {
            PodEvent::Write => {
                let (name, uid, volumes) = (machine.name.clone(), process.uid, process.volumes.clone());
                for (volume, handle, generation) in volumes {
                    if let Some(line) = self.storage.write(&handle, generation) {
                        self.tell(What::Wrote { node: name.clone(), uid, volume, line });
                    }
                }
                self.plan_write(node, boot, pid);
            }
            PodEvent::End { code } => self.end_process(node, pid, code),
        }
    }

    /// Asks a process to end; the agent ends it by force after the grace.
    fn stop(&mut self, node: u64, uid: Uid, container: &Name, grace_ms: u64) {
        let end_ms = self.chances.pods.between(END_MS.0..=END_MS.1);
        let kill_at_ms = self.now_ms + grace_ms;
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let (name, boot, life) = (machine.name.clone(), machine.boot, machine.life);
        let Some(pid) = machine.pid_of(uid, container) else { return };
        let Some(process) = machine.processes.get_mut(&pid) else { return };
        let was_stopping = std::mem::replace(&mut process.is_stopping, true);
        // The time that a former agent set may be over: it died before.
        let due_ms = process.kill_at_ms.map_or(kill_at_ms, |at_ms| at_ms.min(kill_at_ms)).max(self.now_ms);
        process.kill_at_ms = Some(due_ms);
        let listens = !process.is_stubborn && !was_stopping;
        self.tell(What::StopBegan { node: name, uid, container: container.clone(), grace_ms });
        if listens {
            self.after(end_ms, Event::Pod(node, boot, pid, PodEvent::End { code: 0 }));
        }
        self.queue.put(due_ms, Event::Agent(node, life, AgentEvent::KillDue { pid }));
    }

    pub(super) fn kill_if_due(&mut self, node: u64, pid: u32) {
        let process = self.machines.get(&node).and_then(|machine| machine.processes.get(&pid));
        if process.and_then(|process| process.kill_at_ms).is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.kill_process(node, pid);
        }
    }

    fn kill_process(&mut self, node: u64, pid: u32) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let Some(process) = machine.processes.get_mut(&pid) else { return };
        process.is_stopping = true;
        let what = What::Killed { node: machine.name.clone(), uid: process.uid, container: process.container.clone() };
        self.tell(what);
        self.end_process(node, pid, KILLED_CODE);
    }

    /// A process ends; its shim notes how, and the agent hears of it, if there is one.
    pub(super) fn end_process(&mut self, node: u64, pid: u32, code: i32) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let Some(process) = machine.processes.remove(&pid) else { return };
        machine.note_end(&process, code);
        let (name, life) = (machine.name.clone(), machine.life);
        let Running { uid, container, is_stopping, .. } = process;
        self.tell(What::ProcessEnded { node: name, uid, container: container.clone(), was_stopped: is_stopping });
        let input = Input::ContainerExited { uid, container, code, message: String::new(), is_out_of_memory: false };
        self.after(0, Event::Agent(node, life, AgentEvent::Input(input)));
    }

    /// Nothing of the pod is left on the node.
    fn clean(&mut self, node: u64, uid: Uid) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let pids: Vec<u32> = machine.processes.iter().filter(|(_, p)| p.uid == uid).map(|(pid, _)| *pid).collect();
        for pid in pids {
            self.kill_process(node, pid);
        }
        let Some(machine) = self.machines.get_mut(&node) else { return };
        machine.pods.remove(&uid);
        let (name, life) = (machine.name.clone(), machine.life);
        self.tell(What::Cleaned { node: name, uid });
        if let Some(task) = self.task(node, uid) {
            task.is_over = true;
            task.deeds.clear();
        }
        self.after(0, Event::Agent(node, life, AgentEvent::Input(Input::PodCleaned { uid })));
    }

    pub(super) fn probe(&mut self, node: u64, uid: Uid, container: Name, attempt: u32, kind: ProbeKind) {
        let Some(machine) = self.machines.get(&node) else { return };
        let process = machine.pid_of(uid, &container).and_then(|pid| machine.processes.get(&pid));
        let is_ok = process.is_some_and(|process| match kind {
            ProbeKind::Readiness => process.ready_at_ms <= self.now_ms && (self.is_calm || !process.never_ready),
            ProbeKind::Liveness | ProbeKind::Startup => true,
        });
        let message = if is_ok { String::new() } else { "it says no".to_owned() };
        let result = ProbeResult { is_ok, message };
        self.give_agent(node, Input::ProbeDone { uid, container, attempt, kind, result });
    }

    pub(super) fn begin_removal(&mut self, node: u64, removal: VolumeRemoval) {
        let remove_ms = self.chances.pods.between(CLEAN_MS.0..=CLEAN_MS.1);
        let Some(life) = self.machines.get(&node).map(|machine| machine.life) else { return };
        self.after(remove_ms, Event::Agent(node, life, AgentEvent::Remove(removal)));
    }

    pub(super) fn remove_volume(&mut self, node: u64, removal: VolumeRemoval) {
        let volume = removal.volume;
        let result = if self.fails() {
            self.tally("removal failed");
            let message = "the storage does not answer".to_owned();
            Err(Failure { reason: Name::new("VolumeFailed"), message })
        } else {
            if self.storage.delete(&removal.handle) {
                self.tell(What::StorageRemoved { volume: volume.clone() });
            }
            Ok(())
        };
        self.give_agent(node, Input::VolumeRemoved { volume, result });
    }
}
