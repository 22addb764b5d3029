//! A node's machine: its boots, its disk, the directories of its pods and their processes, which live on when the agent
//! dies and end when the machine does.

use super::agent::Agent;
use super::clock::Clock;
use super::ledger;
use super::{Event, World};
use crate::history::What;
use crate::scenario::Process;
use agent_core::{LiveContainer, LiveContainerState, LivePod};
use domain::event::Registration;
use domain::id::{BootId, Name, NodeName, Uid, VolumeName};
use domain::spec::Resources;
use journal::testing::MemDisk;
use mutants::{Mutant, is_on};
use std::collections::BTreeMap;

const CAPACITY: Resources = Resources { cpu_milli: 8_000, memory_bytes: 8 << 30 };
const PODS_MAX: u32 = 20;
/// How long a machine takes from its start to its agent's.
const BOOT_MS: (u64, u64) = (200, 2_000);
/// The exit code of what was killed.
pub(super) const KILLED_CODE: i32 = 137;

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: NodeName,
    pub(super) clock: Clock,
    /// Which start of the machine this is; 0 before the first.
    pub(super) boot: u64,
    pub(super) is_up: bool,
    /// Which start of the agent this is.
    pub(super) life: u64,
    pub(super) agent: Option<Agent>,
    pub(super) disk: MemDisk,
    pub(super) slow_sync_ms: Option<u64>,
    /// How long it stays off after it was shut down in good order; until somebody starts it, if nothing is said.
    pub(super) off_ms: Option<u64>,
    /// The pods' directories.
    pub(super) pods: BTreeMap<Uid, PodDir>,
    /// What runs.
    pub(super) processes: BTreeMap<u32, Running>,
    last_pid: u32,
}

/// The last attempt of each container.
#[derive(Clone, Debug, Default)]
pub(super) struct PodDir {
    pub(super) attempts: BTreeMap<Name, Attempt>,
}

/// An attempt, as a former agent may find it.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) runs: String,
    pub(super) started_at_ms: u64,
    /// The process, or how it ended.
    pub(super) state: LiveContainerState,
}

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) uid: Uid,
    pub(super) container: Name,
    pub(super) attempt: u32,
    /// What it may write to: the volume, the driver's name for it, and which directory it has open.
    pub(super) volumes: Vec<(VolumeName, Name, u64)>,
    pub(super) ready_at_ms: u64,
    pub(super) never_ready: bool,
    pub(super) is_stubborn: bool,
    /// It was asked to end.
    pub(super) is_stopping: bool,
    /// When the agent will end it by force.
    pub(super) kill_at_ms: Option<u64>,
}

impl Machine {
    pub(super) fn boot_id(&self) -> BootId {
        BootId::from(format!("{}-boot-{}", self.name, self.boot))
    }

    pub(super) fn registration(&self) -> Registration {
        Registration {
            boot_id: self.boot_id(),
            machine_id: format!("machine-of-{}", self.name).into(),
            capacity: CAPACITY,
            pods_max: PODS_MAX,
            ..Registration::default()
        }
    }

    pub(super) fn new_pid(&mut self) -> u32 {
        self.last_pid += 1;
        self.last_pid
    }

    /// What a new agent finds.
    pub(super) fn live(&self) -> Vec<LivePod> {
        let container = |(name, attempt): (&Name, &Attempt)| LiveContainer {
            name: name.clone(),
            attempt: attempt.number,
            runs: attempt.runs.clone(),
            started_at_ms: attempt.started_at_ms,
            state: match attempt.state {
                // Whoever has that number now is taken for it.
                LiveContainerState::Exited { .. } if is_on(Mutant::AdoptedUnchecked) => {
                    LiveContainerState::Running { pid: 1 }
                }
                state => state,
            },
        };
        let pod = |(uid, dir): (&Uid, &PodDir)| LivePod {
            uid: *uid,
            containers: dir.attempts.iter().map(container).collect(),
        };
        self.pods.iter().map(pod).collect()
    }

    /// The process of a container.
    pub(super) fn pid_of(&self, uid: Uid, container: &Name) -> Option<u32> {
        self.processes.iter().find(|(_, p)| p.uid == uid && p.container == *container).map(|(pid, _)| *pid)
    }

    /// Notes how a process ended, as its shim does.
    pub(super) fn note_end(&mut self, process: &Running, code: i32) {
        let dir = self.pods.get_mut(&process.uid);
        if let Some(attempt) = dir.and_then(|dir| dir.attempts.get_mut(&process.container))
            && attempt.number == process.attempt
        {
            attempt.state = LiveContainerState::Exited { code };
        }
    }
}

impl World<'_> {
    pub(super) fn add_machine(&mut self, number: u64) {
        let clock = Clock::drawn(&mut self.chances.clocks, self.setup.drift_ppm_max, self.setup.skew_ms_max);
        let machine = Machine {
            name: NodeName::from(format!("n{number}")),
            clock,
            boot: 0,
            is_up: false,
            life: 0,
            agent: None,
            disk: MemDisk::new(),
            slow_sync_ms: None,
            off_ms: None,
            pods: BTreeMap::new(),
            processes: BTreeMap::new(),
            last_pid: 1_000,
        };
        self.machines.insert(number, machine);
        self.queue.put(0, Event::Boot(number));
    }

    /// A machine that is down comes up, and its agent soon after it.
    pub(super) fn boot(&mut self, number: u64) {
        let boot_ms = self.chances.processes.between(BOOT_MS.0..=BOOT_MS.1);
        let Some(machine) = self.machines.get_mut(&number).filter(|machine| !machine.is_up) else { return };
        machine.is_up = true;
        machine.boot += 1;
        let (node, boot) = (machine.name.clone(), machine.boot_id());
        self.tell(What::NodeBooted { node, boot });
        self.after(boot_ms, Event::Supervise(Process::Node(number)));
    }

    /// A machine goes down: every process on it is dead, and what was not synced may be lost.
    pub(super) fn power_off_machine(&mut self, number: u64) {
        let seed = self.chances.disks.draw();
        self.thaw(Process::Node(number));
        let Some(machine) = self.machines.get_mut(&number).filter(|machine| machine.is_up) else { return };
        machine.is_up = false;
        machine.life += 1;
        machine.agent = None;
        machine.disk.crash(seed);
        for (_, process) in std::mem::take(&mut machine.processes) {
            machine.note_end(&process, KILLED_CODE);
        }
        let node = machine.name.clone();
        self.drop_agent_ends(number, false);
        self.tell(What::NodeDied { node });
    }

    /// The agent is done: whatever still runs does not outlive the machine. It stays off for as long as was said.
    pub(super) fn power_off_in_order(&mut self, number: u64) {
        let off_ms = self.machines.get(&number).and_then(|machine| machine.off_ms);
        self.power_off_machine(number);
        match off_ms {
            Some(off_ms) => self.after(off_ms, Event::Boot(number)),
            None if self.is_calm => self.after(0, Event::Boot(number)),
            None => {}
        }
    }

    /// Starts the agent on a machine that is up and has none.
    pub(super) fn start_agent(&mut self, number: u64) {
        let Some(machine) = self.machines.get_mut(&number).filter(|m| m.is_up && m.agent.is_none()) else { return };
        let ledger = match ledger::load(&machine.disk) {
            Ok(ledger) => ledger,
            Err(journal::FileError::Disk(_)) => {
                self.fail_agent(number);
                return;
            }
            Err(error) => {
                let message = format!("agent {number} cannot read its ledger though nothing rotted: {error}");
                self.accuse("recovery", message);
                return;
            }
        };
        machine.life += 1;
        let agent = Agent::recover(machine, ledger, self.now_ms);
        machine.agent = Some(agent);
        let (node, life) = (machine.name.clone(), machine.life);
        self.tell(What::AgentStarted { node });
        self.begin_agent(number, life);
    }

    /// An agent's process ends; its pods live on.
    pub(super) fn kill_agent(&mut self, number: u64) {
        self.thaw(Process::Node(number));
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let Some(agent) = machine.agent.take() else { return };
        machine.life += 1;
        // The graces were the agent's to measure.
        machine.processes.values_mut().for_each(|process| process.kill_at_ms = None);
        let node = machine.name.clone();
        self.tell(What::AgentDied { node });
        self.drop_agent_ends(number, true);
        // What was being started may have got as far as to run.
        for (pod, container, attempt) in agent.starts_under_way() {
            if self.chances.pods.hits(500) {
                self.tally("started without its agent");
                // Nobody is there to hear how it went.
                let _ = self.begin_process(number, &pod, &container, attempt);
            }
        }
    }

    /// An agent's disk failed: its process ends, and the supervisor starts it again.
    pub(super) fn fail_agent(&mut self, number: u64) {
        self.tally("disk failed");
        let seed = self.chances.disks.draw();
        if let Some(machine) = self.machines.get_mut(&number)
            && !machine.disk.is_full()
        {
            machine.disk.crash(seed);
        }
        self.kill_agent(number);
        let pause_ms = self.chances.processes.between(BOOT_MS.0..=BOOT_MS.1);
        self.after(pause_ms, Event::Supervise(Process::Node(number)));
    }
}
